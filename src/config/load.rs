//! Config and rules together: what `heal check` looks at and what the bot starts with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{read_bounded, read_rules};
use super::{Config, parse};
use crate::rule::{Defaults, Diagnostic, RuleSet, Severity, Stage, diagnostic};
use crate::time::short_duration;

impl Config {
    /// Reads the file at `path`. All its problems on error; warnings do not hinder.
    pub fn load(path: &Path) -> Result<Config, Vec<Diagnostic>> {
        let bytes = read_bounded(path).map_err(|error| vec![unreadable(path, &error)])?;
        let (config, problems) = parse(path, bytes);
        config.ok_or(problems)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::of_file(&path.display().to_string(), format!("the config cannot be read: {error}"))
        .with_hint("name it with --config FILE or HEAL_CONFIG")
}

/// Everything that the files say.
#[derive(Debug)]
pub struct Loaded {
    /// `None` when there is no config file, or one with errors.
    pub config: Option<Config>,
    /// There was no config file to read, whether it was asked for or not.
    pub config_missing: bool,
    /// The file is there (or was asked for) and could not even be opened.
    pub config_unreadable: bool,
    pub rules: RuleSet,
    /// The directory that the rules were looked for in.
    pub rules_dir: PathBuf,
    /// Rule files that were read.
    pub files: usize,
    /// Every problem of all files, by file and line.
    pub problems: Vec<Diagnostic>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Diagnostic::is_error)
    }
}

/// Reads the config and the rules: those of `rules`, else of the config, else of `rules/`. A config that is
/// missing is a problem only where it is `required`.
pub fn load(path: &Path, required: bool, rules: Option<&Path>) -> Loaded {
    let mut problems = Vec::new();
    let (mut config_missing, mut config_unreadable) = (false, false);
    let mut config = None;
    match read_bounded(path) {
        Ok(bytes) => {
            let (read, mut found) = parse(path, bytes);
            config = read;
            problems.append(&mut found);
        }
        Err(error) => {
            config_missing = error.kind() == std::io::ErrorKind::NotFound;
            if required || !config_missing {
                config_unreadable = true;
                problems.push(unreadable(path, &error));
            }
        }
    }
    let rules_dir = match (rules, &config) {
        (Some(dir), _) => dir.to_owned(),
        (None, Some(config)) => config.rules.clone(),
        (None, None) => PathBuf::from("rules"),
    };
    let (files, mut unread) = read_rules(&rules_dir);
    problems.append(&mut unread);
    let count = files.len();
    let silent = Defaults::default();
    let defaults = config.as_ref().map_or(&silent, |config| &config.defaults);
    let (rules, mut found) = crate::rule::load(files, defaults);
    problems.append(&mut found);
    if let Some(config) = &config {
        problems.append(&mut agree(config, &rules));
    }
    diagnostic::sort(&mut problems);
    Loaded { config, config_missing, config_unreadable, rules, rules_dir, files: count, problems }
}

/// What only shows when the config and the rules are seen together.
pub fn agree(config: &Config, rules: &RuleSet) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let users = config.approvers.iter().filter(|who| !who.starts_with('@')).count();
    let only_users = users == config.approvers.len();
    let mut waiting = 0;
    for rule in rules.iter().filter(|rule| rule.approvers.is_empty()) {
        if config.approvers.is_empty() {
            waiting += usize::from(rule.stage == Stage::Approve);
        } else if only_users && rule.approvals as usize > users {
            let message = format!(
                "`{}` asks for {} approvals, and the config names {users} approver{}",
                rule.key,
                rule.approvals,
                if users == 1 { "" } else { "s" },
            );
            found.push(
                Diagnostic::at(rule.place.clone(), message).with_hint(
                    "name more approvers in the config or in the rule, or ask for fewer approvals",
                ),
            );
        }
    }
    if waiting > 0 {
        let message = format!(
            "nobody may approve: {waiting} rule{} in stage approve, and neither they nor the config name approvers",
            if waiting == 1 { "" } else { "s" },
        );
        found.push(Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::of_file(&config.path.display().to_string(), message)
                .with_hint("write approvers: [\"@sre\", U0123ABCD]; their declarations would only expire")
        });
    }
    found.extend(forgets_too_soon(config, rules));
    found
}

/// What a rule counts has to be in the store still.
fn forgets_too_soon(config: &Config, rules: &RuleSet) -> Option<Diagnostic> {
    let all = || rules.iter().filter(|rule| rule.looks_back() > config.retention);
    let longest = all().max_by_key(|rule| rule.looks_back())?;
    let others = match all().count() - 1 {
        0 => String::new(),
        1 => " (so it is with one other rule)".to_owned(),
        others => format!(" (so it is with {others} other rules)"),
    };
    // Nobody says 605715 s.
    let hours = longest.looks_back().as_secs().div_ceil(3600);
    let needs = if hours > 48 { hours.div_ceil(24) * 24 } else { hours };
    let (needs, keeps) =
        (short_duration(Duration::from_secs(needs * 3600)), short_duration(config.retention));
    let message =
        format!("`{}` looks back {needs}, and `retention` forgets after {keeps}{others}", longest.key);
    Some(Diagnostic::at(longest.place.clone(), message).with_hint(format!(
        "set `retention: {needs}` or more, or give the rule a shorter `cooldown`, shorter `attempts` windows or a shorter `approve_within`"
    )))
}
