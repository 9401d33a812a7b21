//! `heal check`: every problem of the config and the rules, with file, line, column and a hint.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write};
use std::path::Path;

use crate::config::{self, Loaded};
use crate::rule::Diagnostic;

/// Checks and writes the result to `out`. Exit code 0 when all is well (warnings are well), 1 when there is a
/// problem, 2 when the config cannot be read at all.
pub fn check(
    config: &Path,
    config_required: bool,
    rules: Option<&Path>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !plain && std::io::stdout().is_terminal();
    check_in(config, config_required, rules, colour, out)
}

fn check_in(
    config: &Path,
    config_required: bool,
    rules: Option<&Path>,
    colour: bool,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let loaded = config::load(config, config_required, rules);
    for problem in &loaded.problems {
        writeln!(out, "{}", problem.render(colour))?;
    }
    if loaded.config_missing && !config_required {
        writeln!(out, "note: there is no {}, so the rules are checked alone", config.display())?;
    }
    writeln!(out, "{}", summary(&loaded))?;
    Ok(if loaded.config_unreadable { 2 } else { u8::from(loaded.has_errors()) })
}

fn summary(loaded: &Loaded) -> String {
    let errors: Vec<&Diagnostic> = loaded.problems.iter().filter(|problem| problem.is_error()).collect();
    let warnings = loaded.problems.len() - errors.len();
    let also = if warnings > 0 { format!(", {}", count(warnings, "warning")) } else { String::new() };
    if errors.is_empty() {
        let (rules, files) = (count(loaded.rules.len(), "rule"), count(loaded.files, "file"));
        return format!("{rules} in {files}, no problems{also}");
    }
    let files: BTreeSet<&str> = errors.iter().map(|problem| problem.place.file.as_ref()).collect();
    format!("{} in {}{also}", count(errors.len(), "problem"), count(files.len(), "file"))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
