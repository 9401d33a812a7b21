//! What the README shows is what heal takes: examples that rot are worse than none.

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../README.md");

/// The code blocks of one language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in README.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some(if name == language { String::new() } else { "\0".to_owned() }),
            (Some(text), Some(_)) => {
                if !text.starts_with('\0') {
                    found.push(std::mem::take(text));
                }
                open = None;
            }
            (Some(text), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

fn block_with(language: &str, words: &str) -> String {
    let found = blocks(language).into_iter().find(|text| text.contains(words));
    found.unwrap_or_else(|| panic!("the README has no {language} block with {words:?}"))
}

#[test]
fn the_alertmanager_template_is_the_one_that_heal_reads_best() {
    assert_eq!(block_with("yaml", "slack_configs"), heal::alert::ALERTMANAGER_TEMPLATE);
}

#[test]
fn the_configuration_is_one_that_heal_takes() {
    let text = block_with("yaml", "senders:");
    let (config, problems) = heal::config::parse(Path::new("heal.yaml"), text);
    assert!(problems.is_empty(), "{}", heal::rule::diagnostic::render_all(&problems, false));
    assert_eq!(config.unwrap().senders.len(), 2);
}

#[test]
fn the_rule_is_one_that_heal_takes() {
    let text = block_with("yaml", "web:NginxDown:");
    let files = vec![("rules/web.yaml".into(), text.into_bytes())];
    let (rules, problems) = heal::rule::load(files, &heal::rule::Defaults::default());
    assert!(problems.is_empty(), "{}", heal::rule::diagnostic::render_all(&problems, false));
    assert_eq!(rules.len(), 1);
}

#[test]
fn the_policy_is_json() {
    let policy: serde_json::Value = serde_json::from_str(&block_with("json", "Statement")).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
}

#[test]
fn every_command_it_names_is_there() {
    let help = Command::new(env!("CARGO_BIN_EXE_heal")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = blocks("sh").join("\n");
    let named: Vec<&str> =
        lines.lines().filter_map(|line| line.strip_prefix("heal ")?.split_whitespace().next()).collect();
    assert!(named.contains(&"serve"), "{named:?}");
    for command in named {
        assert!(help.contains(&format!("  {command} ")), "`heal {command}` is not in:\n{help}");
    }
}

#[test]
fn the_picture_is_there() {
    for line in README.lines().filter(|line| line.starts_with("![")) {
        let path = line.split(['(', ')']).nth(1).unwrap();
        let size = std::fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap().len();
        assert!(size > 10_000, "{path} has {size} bytes");
    }
}
