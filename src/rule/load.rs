//! From files to the rules in force: every file is read, every problem kept.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::diagnostic::{self, quoted};
use super::settings;
use super::yaml::{self, Entry, Fields, Node, Problems, Source, Span, Value};
use super::{Action, Defaults, Diagnostic, Rule, RuleKey, RuleSet, Stage, ambiguity};

/// The three kinds of action.
const ACTIONS: &[&str] = &["commands", "document", "automation"];
/// Every key of a rule.
static KEYS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| [ACTIONS, &["parameters"], settings::KEYS].concat());
const MAX_COMMANDS: usize = 100;

/// Reads the rules of all `files` (a path as it is shown, and the file's bytes). The rules that could be
/// read are returned also when there are problems; whoever puts rules in force refuses them all when one
/// of the problems [is an error](Diagnostic::is_error).
pub fn load(files: Vec<(PathBuf, Vec<u8>)>, defaults: &Defaults) -> (RuleSet, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    // Where each rule's key stands, beside `rules`.
    let mut keys: Vec<(Arc<Source>, Span)> = Vec::new();
    let mut first: HashMap<RuleKey, usize> = HashMap::new();
    for (path, bytes) in files {
        let source = match yaml::decode(&path, &bytes) {
            Ok(source) => source,
            Err(problem) => {
                found.push(*problem);
                continue;
            }
        };
        drop(bytes);
        let mut problems = Problems::new(Arc::clone(&source));
        for (rule, span) in file(&mut problems, defaults) {
            if let Some(at) = first.get(&rule.key) {
                let (other, place) = &keys[*at];
                found.push(
                    Diagnostic::error(
                        &source,
                        span,
                        format!("the rule {} stands twice", quoted(&rule.key.to_string())),
                    )
                    .with_label("again here")
                    .with_related(other, *place, "first here")
                    .with_hint("keep one of the two"),
                );
                continue;
            }
            first.insert(rule.key.clone(), rules.len());
            keys.push((Arc::clone(&source), span));
            rules.push(rule);
        }
        found.append(&mut problems.found);
    }
    for (one, other) in ambiguity::find(&rules) {
        found.push(ambiguous((&rules[one], &keys[one]), (&rules[other], &keys[other])));
    }
    diagnostic::sort(&mut found);
    (RuleSet::new(rules), found)
}

fn ambiguous(
    (one, (one_source, one_span)): (&Rule, &(Arc<Source>, Span)),
    (other, (source, span)): (&Rule, &(Arc<Source>, Span)),
) -> Diagnostic {
    let crossing = ambiguity::crossing(&one.key, &other.key);
    let hint = match &crossing {
        Some(key) => {
            format!("add a rule `{key}` that says what to do there, or make one of the two more specific")
        }
        None => {
            "make one of the two more specific: an exact side beats a pattern, more characters beat fewer"
                .to_owned()
        }
    };
    let fits = crossing.map_or_else(|| "some alerts".to_owned(), |key| format!("`{key}`"));
    let message = format!("`{}` and `{}` are equally specific, and both fit {fits}", one.key, other.key);
    Diagnostic::error(source, *span, message)
        .with_label("this one")
        .with_related(one_source, *one_span, "and this one")
        .with_hint(hint)
}

/// The rules of one file, each with the place of its key.
fn file(problems: &mut Problems, defaults: &Defaults) -> Vec<(Rule, Span)> {
    let source = Arc::clone(&problems.source);
    let known = problems.found.len();
    let Some(root) = yaml::read(&source, &mut problems.found) else {
        if problems.found.len() == known {
            problems.found.push(Diagnostic {
                severity: diagnostic::Severity::Warning,
                ..Diagnostic::of_file(&source.name, "the file holds no rules")
            });
        }
        return Vec::new();
    };
    let Value::Map(entries) = &root.value else {
        problems
            .error(
                root.span,
                format!("a rule file is a map from rule keys to rules, and this is {}", root.kind()),
            )
            .hint("write `ROLE:ALERT:` at the left margin, and the rule indented below it");
        return Vec::new();
    };
    let mut rules = Vec::new();
    let mut above: Option<&Entry> = None;
    for entry in entries {
        let name = entry.key.as_str();
        if !name.contains(':') && (settings::KEYS.contains(&name) || ACTIONS.contains(&name)) {
            let hint = match above {
                Some(rule) => format!("indent it under the rule above it, `{}`", rule.key),
                None => "a rule begins with its key, `ROLE:ALERT:`, and its keys stand indented below it"
                    .to_owned(),
            };
            problems
                .error(entry.key_span, format!("`{name}` stands at the left margin and belongs to no rule"))
                .hint(hint);
            continue;
        }
        above = Some(entry);
        match RuleKey::parse(name) {
            Ok(key) => {
                if let Some(rule) = rule(key, entry, defaults, entries, problems) {
                    rules.push((rule, entry.key_span));
                }
            }
            Err((message, hint)) => {
                problems.error(entry.key_span, message).hint(hint);
            }
        }
    }
    rules
}

fn rule(
    key: RuleKey,
    entry: &Entry,
    defaults: &Defaults,
    siblings: &[Entry],
    problems: &mut Problems,
) -> Option<Rule> {
    if entry.value.is_null() {
        // Its keys were left at the margin, and that has been said there.
        let next = siblings.iter().skip_while(|other| other.key_span != entry.key_span).nth(1);
        let slipped = next.is_some_and(|next| !next.key.contains(':'));
        if !slipped {
            problems
                .error(entry.key_span, format!("the rule {} is empty", quoted(&entry.key)))
                .hint("say what to do: commands, document or automation");
        }
        return None;
    }
    if let Value::List(_) = &entry.value.value {
        problems
            .error(entry.value.span, "a rule must be a map")
            .label("this is a list")
            .hint("write `commands:` above the list");
        return None;
    }
    let before = errors(problems);
    let fields = Fields::of("a rule", &entry.value, entry.key_span, &KEYS, &[], problems)?;
    let own = settings::read(&fields, problems);
    let action = action(&fields, entry, problems);
    let stage = own.stage.or(defaults.stage).unwrap_or(Stage::Approve);
    if stage != Stage::Auto
        && own.grace.is_some()
        && let Some(grace) = fields.entry("grace")
    {
        problems
            .warning(grace.key_span, "`grace` counts in stage auto only")
            .hint("remove it, or keep it for the day the rule becomes `stage: auto`");
    }
    let rule = Rule::assemble(key, problems.source.place(entry.key_span), action?, own, defaults);
    approvals(&rule, &fields, problems);
    (errors(problems) == before).then_some(rule)
}

fn errors(problems: &Problems) -> usize {
    problems.found.iter().filter(|problem| problem.is_error()).count()
}

/// More approvals than approvers can never be given.
fn approvals(rule: &Rule, fields: &Fields<'_>, problems: &mut Problems) {
    let people = rule.approvers.iter().filter(|who| !who.starts_with('@')).count();
    if people == 0 || people < rule.approvers.len() || rule.approvals as usize <= people {
        return;
    }
    let place =
        fields.get("approvals").or_else(|| fields.get("approvers")).map_or(fields.span, |node| node.span);
    problems
        .error(place, format!("{} approvals are asked for, and {people} may approve", rule.approvals))
        .hint("name more approvers, or ask for fewer approvals");
}

fn action(fields: &Fields<'_>, entry: &Entry, problems: &mut Problems) -> Option<Action> {
    let named: Vec<&Entry> = ACTIONS.iter().filter_map(|name| fields.entry(name)).collect();
    match named.as_slice() {
        // A slip in the action's own key has been said there.
        [] if fields.keys().any(|key| yaml::closest(key, ACTIONS.iter().copied()).is_some()) => return None,
        [] => {
            problems
                .error(entry.key_span, format!("the rule {} does nothing", quoted(&entry.key)))
                .hint("say what to do: commands, document or automation");
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            let (first, second) =
                if first.key_span.start < second.key_span.start { (first, second) } else { (second, first) };
            let source = Arc::clone(&problems.source);
            problems.found.push(
                Diagnostic::error(
                    &source,
                    second.key_span,
                    format!("a rule has one action, and this one has `{}` and `{}`", first.key, second.key),
                )
                .with_related(&source, first.key_span, "the first one")
                .with_hint("keep one of commands, document and automation; two cures are two rules"),
            );
            return None;
        }
    }
    let shell = fields.get("commands").is_some();
    let alien: &[&str] = if shell { &["parameters"] } else { &["confirm", "verify", "env"] };
    for name in alien {
        if let Some(entry) = fields.entry(name) {
            let (message, hint) = if shell {
                ("`parameters` belongs to a document or an automation", "shell rules take `env`")
            } else {
                ("belongs to `commands`", "a document takes `parameters`, and checks by itself")
            };
            let message = if shell { message.to_owned() } else { format!("`{name}` {message}") };
            problems.error(entry.key_span, message).hint(hint);
        }
    }
    if let Some(node) = fields.get("commands") {
        return commands(node, problems).map(Action::Commands);
    }
    let automation = fields.get("automation").is_some();
    let node = fields.get("document").or_else(|| fields.get("automation"))?;
    let what = if automation { "`automation`" } else { "`document`" };
    let name = document(what, node, problems)?;
    let parameters = match fields.get("parameters") {
        Some(node) => parameters(&name, node, problems)?,
        None => BTreeMap::new(),
    };
    Some(if automation {
        Action::Automation { name, parameters }
    } else {
        Action::Document { name, parameters }
    })
}

fn commands(node: &Node, problems: &mut Problems) -> Option<Vec<String>> {
    let single;
    let items = match &node.value {
        Value::Scalar { .. } if !node.is_null() => {
            single = [node.clone()];
            &single[..]
        }
        _ => problems.list("`commands`", node)?,
    };
    if items.is_empty() {
        problems.error(node.span, "`commands` is empty").hint("write at least one command");
        return None;
    }
    if items.len() > MAX_COMMANDS {
        problems
            .error(node.span, format!("`commands` has more than {MAX_COMMANDS} items"))
            .hint("put them into a script or an SSM document");
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| problems.shell("a command", item)).collect();
    read.into_iter().collect()
}

/// The name or ARN of a document (SSM API model: `^[a-zA-Z0-9_\-.:/]{3,128}$`).
fn document(what: &str, node: &Node, problems: &mut Problems) -> Option<String> {
    let name = problems.line(what, node, 128)?;
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    if name.len() < 3 || !name.bytes().all(fine) {
        problems
            .error(node.span, format!("{} is not the name of an SSM document", quoted(&name)))
            .hint("3 to 128 letters, digits and `_-.:/`");
        return None;
    }
    if name.rsplit('/').next() == Some("AWS-RunShellScript") {
        problems
            .error(node.span, "AWS-RunShellScript is what `commands` is for")
            .hint("write `commands:`; only then heal sets the deadline, the fence and the steps");
        return None;
    }
    Some(name)
}

fn parameters(document: &str, node: &Node, problems: &mut Problems) -> Option<BTreeMap<String, Vec<String>>> {
    // Documents that run a parameter as a program.
    let runs = document.rsplit('/').next().unwrap_or(document).starts_with("AWS-Run");
    let mut parameters = BTreeMap::new();
    let mut fine = true;
    for entry in problems.map("`parameters`", node)? {
        let name = entry.key.as_str();
        if name.is_empty()
            || name.len() > 100
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            problems
                .error(entry.key_span, format!("{} is not the name of a parameter", quoted(name)))
                .hint("letters, digits and `_`, as the document declares it");
            fine = false;
            continue;
        }
        let items = match &entry.value.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.value),
        };
        let program = runs || matches!(name.to_ascii_lowercase().as_str(), "command" | "commands" | "script");
        let what = format!("the parameter {}", quoted(name));
        let mut values = Vec::new();
        for item in items {
            let Some((text, template)) = settings::templated(&what, item, problems) else {
                fine = false;
                continue;
            };
            if program && !template.is_constant() {
                problems
                    .error(
                        item.span,
                        format!("{what} runs as a program, and alert values never become part of one"),
                    )
                    .hint("use `commands` with `env`, or a document that takes the value as a parameter");
                fine = false;
            }
            values.push(text);
        }
        parameters.insert(name.to_owned(), values);
    }
    fine.then_some(parameters)
}
