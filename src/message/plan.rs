//! A plan as the declaration shows it: every character of what will run, or not at all.

use std::collections::BTreeMap;

use slack_morphism::prelude::SlackBlock;

use crate::plan::{Plan, StepKind, Work};
use crate::text::invisible;
use crate::time::short_duration;

use super::kit;

/// Characters a plan may take of the 12,000 of a message; the rest of a declaration needs at most 4,000.
const PLAN: usize = 8_000;
/// Labelled parts of one plan; far below what Slack was seen to take in one `rich_text`.
const PARTS: usize = 60;

/// Whether one declaration can show the whole plan as it will run. `Err` says why not, for people.
///
/// Nothing runs whose exact text was not declared, so a plan that does not fit is not run.
pub fn fits(plan: &Plan) -> Result<(), String> {
    let parts = parts(&plan.work);
    let count = |text: &str| text.chars().count();
    let total: usize = parts.iter().map(|(label, text)| count(label) + count(text)).sum();
    if let Some((label, text)) = parts.iter().find(|(_, text)| count(text) > kit::TEXT) {
        return Err(format!(
            "{label} has {} characters and a Slack message shows {} of one; put it into a script on the host or an SSM document",
            count(text),
            kit::TEXT
        ));
    }
    if total > PLAN || parts.len() > PARTS {
        return Err(format!(
            "what would run has {total} characters in {} parts, more than one declaration shows ({PLAN} in {PARTS}); put it into a script on the host or an SSM document",
            parts.len()
        ));
    }
    for (label, text) in &parts {
        let hidden = |ch: char| !matches!(ch, '\n' | '\t') && invisible(ch);
        if let Some(ch) = label.chars().chain(text.chars()).find(|ch| hidden(*ch)) {
            return Err(format!(
                "{} holds the invisible character U+{:04X}, so what is shown would not be what runs; remove it from the rule",
                label.chars().filter(|ch| !invisible(*ch)).collect::<String>(),
                u32::from(ch)
            ));
        }
    }
    Ok(())
}

/// The plan in one block. Only for plans that fit.
pub(super) fn block(plan: &Plan) -> Option<SlackBlock> {
    kit::verbatim(parts(&plan.work))
}

/// `timeout 5m`, and what kind of run it is.
pub(super) fn kind(plan: &Plan) -> String {
    let what = match &plan.work {
        Work::Shell { .. } => "shell",
        Work::Document { .. } => "SSM document",
        Work::Automation { .. } => "SSM Automation",
    };
    format!("{what}, timeout {}", short_duration(plan.timeout))
}

fn parts(work: &Work) -> Vec<(String, String)> {
    match work {
        Work::Shell { steps, env } => {
            let mut parts = Vec::new();
            if !env.is_empty() {
                let lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
                parts.push(("env".to_owned(), lines.join("\n")));
            }
            for (kind, label) in [
                (StepKind::Confirm, "confirm (runs the commands only if this exits 0)"),
                (StepKind::Command, "commands"),
                (StepKind::Verify, "verify (exit 0: the fault is gone)"),
            ] {
                let of: Vec<&str> =
                    steps.iter().filter(|s| s.kind == kind).map(|s| s.text.as_str()).collect();
                // Where a command has several lines, each stands alone, so that its ends are seen.
                if of.len() > 1 && of.iter().any(|text| text.trim_end().contains('\n')) {
                    for (i, text) in of.iter().enumerate() {
                        parts.push((format!("{label}, {} of {}", i + 1, of.len()), (*text).to_owned()));
                    }
                } else if !of.is_empty() {
                    parts.push((label.to_owned(), of.join("\n")));
                }
            }
            parts
        }
        Work::Document { name, parameters } => named("document", name, parameters),
        Work::Automation { name, parameters } => named("automation", name, parameters),
    }
}

fn named(kind: &str, name: &str, parameters: &BTreeMap<String, Vec<String>>) -> Vec<(String, String)> {
    let mut parts = vec![(kind.to_owned(), name.to_owned())];
    if !parameters.is_empty() {
        let lines: Vec<String> = parameters
            .iter()
            .map(|(name, values)| match values.as_slice() {
                [one] => format!("{name}={one}"),
                // As a list, so that a comma within a value is told from one between two.
                several => format!("{name}={several:?}"),
            })
            .collect();
        parts.push(("parameters".to_owned(), lines.join("\n")));
    }
    parts
}
