use std::fs;
use std::path::PathBuf;

use super::*;

/// A folder with these files, and what `heal check` says there: the exit code and the text, with the
/// folder's name as `$DIR`.
fn run(files: &[(&str, &str)], required: bool, rules: Option<&str>) -> (u8, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let rules: PathBuf = dir.path().join(rules.unwrap_or("rules"));
    let mut out = Vec::new();
    let code = check_in(&dir.path().join("heal.yaml"), required, Some(&rules), false, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap().replace(&dir.path().display().to_string(), "$DIR"))
}

const CONFIG: &str =
    "slack: {channels: [\"#alerts\"]}\nsenders: [{name: a, format: alertmanager, bot_id: B0A}]\n";

#[test]
fn good_files_are_counted() {
    let (code, text) = run(
        &[
            ("heal.yaml", &format!("{CONFIG}approvers: [U0LEAD]\n")),
            ("rules/web.yaml", "web:Down: {commands: [x]}\nweb:Up: {commands: [x]}\n"),
            ("rules/deep/er/db.json", "{\"db:Lag\": {\"document\": \"Acme-Fix\"}}"),
            ("rules/deep/more.yml", "mail:Full: {commands: [x]}\n"),
            ("rules/web.test.yaml", "this is a test of rules and no rule file"),
            ("rules/.hidden.yaml", "nor is this"),
            ("rules/.git/x.yaml", "nor this"),
            ("rules/notes.txt", "nor this"),
        ],
        true,
        None,
    );
    assert_eq!((code, text.as_str()), (0, "4 rules in 3 files, no problems\n"));
}

#[test]
fn every_problem_of_every_file_is_shown() {
    let (code, text) = run(
        &[
            ("heal.yaml", &format!("{CONFIG}aproovers: [U0LEAD]\n")),
            ("rules/a.yaml", "web:Down: {comands: [x]}\nweb:Up: {commands: [x], grace: 1m}\n"),
            ("rules/b.yaml", "web:Up: {commands: [y]}\n"),
            ("rules/c.yaml", "web:Slow: {commands: [\n"),
        ],
        false,
        None,
    );
    assert_eq!(code, 1);
    insta::assert_snapshot!("every_problem", text);
}

#[test]
fn a_missing_config_matters_only_when_it_was_asked_for() {
    let rules = [("rules/a.yaml", "web:Down: {commands: [x]}\n")];
    let (code, text) = run(&rules, false, None);
    assert_eq!(code, 0);
    assert_eq!(
        text,
        "note: there is no $DIR/heal.yaml, so the rules are checked alone\n1 rule in 1 file, no problems\n"
    );
    let (code, text) = run(&rules, true, None);
    assert_eq!(code, 2);
    insta::assert_snapshot!("missing_config", text);
}

#[test]
fn config_and_rules_must_agree_on_who_may_approve() {
    let rules = [("rules/a.yaml", "web:Down: {commands: [x]}\nweb:Up: {commands: [x], approvals: 2}\n")];
    let with = |config: &str| {
        let mut files = vec![("heal.yaml", config)];
        files.extend(rules);
        run(&files, true, None)
    };
    let (code, text) = with(CONFIG);
    assert_eq!(code, 0, "{text}");
    let (other, more) = with(&format!("{CONFIG}approvers: [U0LEAD]\n"));
    assert_eq!(other, 1);
    insta::assert_snapshot!("approvers", format!("{text}\n──\n{more}"));
    assert_eq!(
        with(&format!("{CONFIG}approvers: [\"@sre\"]\n")).0,
        0,
        "how many a group has is not known here"
    );
}

#[test]
fn a_retention_shorter_than_what_a_rule_counts_is_refused() {
    let rules = "web:Down: {commands: [x], attempts: [9/30d]}\nweb:Up: {commands: [x]}\nweb:Slow: {commands: [x], attempts: [2/1h]}\n";
    let with = |retention: &str| {
        let config = format!("{CONFIG}approvers: [U0LEAD]\nretention: {retention}\n");
        run(&[("heal.yaml", &config), ("rules/a.yaml", rules)], true, None)
    };
    assert_eq!(with("30d").0, 0);
    let (code, text) = with("2d");
    assert_eq!(code, 1, "heal does not start with it");
    for words in [
        "error: `web:Down` looks back 30d, and `retention` forgets after 2d (so it is with one other rule)",
        "rules/a.yaml:1:",
        "set `retention: 30d` or more",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
}

#[test]
fn a_missing_or_empty_rules_directory_is_said() {
    let (code, text) = run(&[], false, None);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the rules cannot be read"), "{text}");
    let (code, text) = run(&[("rules/readme.txt", "")], false, None);
    assert_eq!(code, 0);
    assert!(text.contains("warning: there are no rule files in this directory"), "{text}");
}

#[test]
fn the_rules_may_be_one_file() {
    let (code, text) = run(&[("talk.json", "{\"A:B\": {\"commands\": [\"x\"]}}")], false, Some("talk.json"));
    assert_eq!(code, 0, "{text}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_a_circle_ends() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::create_dir_all(rules.join("..data")).unwrap();
    fs::write(rules.join("..data/web.yaml"), "web:Down: {commands: [x]}\n").unwrap();
    std::os::unix::fs::symlink("..data/web.yaml", rules.join("web.yaml")).unwrap();
    std::os::unix::fs::symlink(".", rules.join("again")).unwrap();
    std::os::unix::fs::symlink("nowhere", rules.join("gone.yaml")).unwrap();
    let (files, problems) = crate::config::read_rules(&rules);
    assert_eq!(files.len(), 1, "as a mounted ConfigMap lays its files out");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.starts_with("the file cannot be read"), "{}", problems[0].message);
}
