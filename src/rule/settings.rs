//! The rule keys that `defaults` may hold too: everything except the action.

use std::collections::BTreeMap;
use std::time::Duration;

use super::diagnostic::quoted;
use super::template::Template;
use super::yaml::{Fields, Node, Problems, Span, Value};
use super::{Attempts, Defaults, Fix, Stage};
use crate::time::{parse_duration, short_duration};

/// Rule keys besides the action's.
pub const KEYS: &[&str] = &[
    "about",
    "confirm",
    "verify",
    "stage",
    "grace",
    "timeout",
    "cooldown",
    "attempts",
    "at_once",
    "when",
    "env",
    "approvers",
    "approvals",
    "approve_within",
    "resolve_within",
    "runbook",
    "owner",
    "fix",
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// The most that AWS-RunShellScript's executionTimeout takes (its document's allowedPattern: 172800).
pub const MAX_TIMEOUT: Duration = Duration::from_secs(172_800);

/// Reads what `fields` says; a value that cannot be read is reported and left out.
pub fn read(fields: &Fields<'_>, problems: &mut Problems) -> Defaults {
    let mut time = |key: &str, least: Duration, most: Duration| {
        fields.get(key).and_then(|node| problems.duration(&tick(key), node, least, most))
    };
    let mut settings = Defaults {
        grace: time("grace", Duration::ZERO, HOUR),
        timeout: time("timeout", SECOND, MAX_TIMEOUT),
        cooldown: time("cooldown", Duration::ZERO, MONTH),
        approve_within: time("approve_within", SECOND, WEEK),
        resolve_within: time("resolve_within", SECOND, WEEK),
        ..Defaults::default()
    };
    if let Some(node) = fields.get("about") {
        settings.about = problems.text("`about`", node).and_then(|text| {
            let text = text.trim();
            if text.chars().count() > 1000 {
                problems
                    .error(node.span, "`about` is longer than 1000 characters")
                    .hint("put the rest into the runbook");
                return None;
            }
            Some(text.to_owned())
        });
    }
    settings.confirm = fields.get("confirm").and_then(|node| problems.shell("`confirm`", node));
    settings.verify = fields.get("verify").and_then(|node| problems.shell("`verify`", node));
    settings.stage = fields.get("stage").and_then(|node| stage(node, problems));
    settings.attempts = fields.get("attempts").and_then(|node| attempts(node, problems));
    settings.at_once = fields.get("at_once").and_then(|node| at_once(node, problems));
    settings.when = fields.get("when").and_then(|node| when(node, problems));
    settings.env = fields.get("env").and_then(|node| super::environment::read(node, problems));
    settings.approvers = fields.get("approvers").and_then(|node| problems.people("`approvers`", node));
    settings.approvals = fields.get("approvals").and_then(|node| problems.number("`approvals`", node, 1, 20));
    settings.runbook = fields.get("runbook").and_then(|node| problems.address("`runbook`", node));
    settings.owner = fields.get("owner").and_then(|node| {
        let owner = problems.line("`owner`", node, 100)?;
        problems.person("`owner`", node.span, &owner).then_some(owner)
    });
    settings.fix = fields.get("fix").and_then(|node| fix(node, problems));
    settings
}

fn tick(key: &str) -> String {
    format!("`{key}`")
}

fn stage(node: &Node, problems: &mut Problems) -> Option<Stage> {
    Some(match problems.word("`stage`", node, &["observe", "approve", "auto"])? {
        "observe" => Stage::Observe,
        "auto" => Stage::Auto,
        _ => Stage::Approve,
    })
}

/// `[3/1h, 7/7d]`; an empty list is no limit.
fn attempts(node: &Node, problems: &mut Problems) -> Option<Vec<Attempts>> {
    let mut windows: Vec<(Attempts, Span)> = Vec::new();
    for (text, span) in problems.texts("`attempts`", node)? {
        let read = text.split_once('/').and_then(|(count, window)| {
            let count: u32 = count.trim().parse().ok()?;
            Some(Attempts { count, window: parse_duration(window).ok()? })
        });
        let Some(one) = read else {
            problems
                .error(span, format!("{} is not a number of attempts in a time", quoted(&text)))
                .hint("write 3/1h: three in any hour");
            return None;
        };
        if one.count == 0 || one.count > 1000 || one.window < SECOND || one.window > MONTH {
            problems.error(span, format!("{} is out of bounds", quoted(&text))).hint(
                "from 1 to 1000 attempts, in 1s to 30d; a rule that must never run is `stage: observe`",
            );
            return None;
        }
        if windows.iter().any(|(other, _)| other.window == one.window) {
            problems
                .error(span, format!("two limits for {}", short_duration(one.window)))
                .hint("keep one of the two");
            return None;
        }
        windows.push((one, span));
    }
    if windows.is_empty() {
        problems
            .warning(node.span, "without any limit a rule may run for ever without curing")
            .hint("write for example [3/1h, 7/7d]");
    }
    for (one, span) in &windows {
        if windows.iter().any(|(other, _)| other.window > one.window && other.count <= one.count) {
            problems
                .warning(*span, format!("{}/{} never counts", one.count, short_duration(one.window)))
                .hint("a longer time allows no more than it");
        }
    }
    Some(windows.into_iter().map(|(one, _)| one).collect())
}

fn at_once(node: &Node, problems: &mut Problems) -> Option<u32> {
    if let Value::Scalar { text, .. } = &node.value
        && text.strip_suffix('%').is_some_and(|number| number.trim().parse::<f64>().is_ok())
    {
        problems
            .error(node.span, "a percentage in `at_once` is not supported yet")
            .hint("write a number of instances");
        return None;
    }
    problems.number("`at_once`", node, 1, 10_000)
}

fn when(node: &Node, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut fine = true;
    for entry in problems.map("`when`", node)? {
        let what = format!("the label {} of `when`", quoted(&entry.key));
        let Some(value) = problems.line(&what, &entry.value, 500) else {
            fine = false;
            continue;
        };
        if value.contains("{{") {
            problems
                .error(entry.value.span, "a template means nothing in `when`")
                .hint("write the label's value; `*` stands for any run of characters");
            fine = false;
        }
        labels.insert(entry.key.clone(), value);
    }
    if fine && labels.is_empty() {
        problems.warning(node.span, "`when` asks for nothing").hint("name a label, or remove the key");
    }
    fine.then_some(labels)
}

fn fix(node: &Node, problems: &mut Problems) -> Option<Fix> {
    let fields = Fields::of("`fix`", node, node.span, &["ticket", "due"], &[], problems)?;
    let due = match fields.get("due") {
        None => None,
        Some(node) => {
            let text = problems.text("`due`", node)?;
            let shaped = text.len() == 10 && text.bytes().filter(|byte| *byte == b'-').count() == 2;
            let date = text.parse::<jiff::civil::Date>().ok().filter(|_| shaped);
            if date.is_none() {
                problems
                    .error(node.span, format!("{} is not a date", quoted(text)))
                    .hint("write the year, month and day: 2027-01-31");
                return None;
            }
            date
        }
    };
    let Some(ticket) = fields.get("ticket") else {
        problems
            .error(fields.span, "`fix` names no ticket")
            .hint("write fix: {ticket: OPS-123, due: 2027-01-31}");
        return None;
    };
    Some(Fix { ticket: problems.line("`ticket`", ticket, 200)?, due })
}

/// A value of `env` or `parameters`: text in which templates are fine when they can be read.
pub fn templated(what: &str, node: &Node, problems: &mut Problems) -> Option<(String, Template)> {
    let text = match &node.value {
        // An empty value is a value here, when it is written as one.
        Value::Scalar { text, .. } if !node.is_null() => text.as_str(),
        Value::Scalar { .. } => {
            problems.error(node.span, format!("{what} is empty")).hint("write \"\" if nothing is meant");
            return None;
        }
        Value::Map(_) | Value::List(_) => {
            problems.wrong_type(what, "text", node);
            return None;
        }
    };
    problems.visible(what, node.span, text, true)?;
    if text.chars().count() > 4000 {
        problems.error(node.span, format!("{what} is longer than 4000 characters")).hint("shorten it");
        return None;
    }
    match Template::parse(text) {
        Ok(template) => Some((text.to_owned(), template)),
        Err(error) => {
            let span = problems.within(node.span, &text[error.range]);
            problems.error(span, error.message).label(format!("in {what}")).hint(error.hint);
            None
        }
    }
}
