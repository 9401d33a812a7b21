//! Every message in every state as people see it, each valid Block Kit, whatever the data.

mod cases;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::alert::{Alert, Origin, Status};
use crate::gate::{Pause, Reason};
use crate::lifecycle::*;
use crate::plan::{Plan, Platform, Step, StepKind, Target, Unusable, Work};
use crate::rule::{RuleKey, Stage};
use cases::*;

const NOW: Timestamp = Timestamp::from_secs(1_795_410_000);

/// Blocks as a person would read them.
fn readable(said: &Said) -> String {
    let mut out = format!("text: {}\n---\n", said.text);
    for block in serde_json::to_value(&said.blocks).unwrap().as_array().unwrap() {
        match block["type"].as_str().unwrap() {
            "section" => out.push_str(&format!("{}\n", block["text"]["text"].as_str().unwrap())),
            "context" => out.push_str(&format!("  ({})\n", block["elements"][0]["text"].as_str().unwrap())),
            "rich_text" => {
                for element in block["elements"].as_array().unwrap() {
                    let text = element["elements"][0]["text"].as_str().unwrap();
                    if element["type"] == "rich_text_preformatted" {
                        text.lines().for_each(|line| out.push_str(&format!("    | {line}\n")));
                    } else {
                        out.push_str(&format!("  {text}\n"));
                    }
                }
            }
            "actions" => {
                for one in block["elements"].as_array().unwrap() {
                    let ask = one["confirm"]["text"]["text"].as_str().map_or(String::new(), |text| {
                        format!(" (asks: {} {text})", one["confirm"]["title"]["text"].as_str().unwrap())
                    });
                    out.push_str(&format!("[{}]{ask} ", one["text"]["text"].as_str().unwrap()));
                }
                out.push('\n');
            }
            other => panic!("a block nobody reads: {other}"),
        }
    }
    out
}

/// What the sandbox's Slack takes, and heal's own bounds.
fn check(said: &Said) {
    let blocks = serde_json::to_value(&said.blocks).unwrap();
    if let Err(problems) = crate::sandbox::workspace::validate_blocks(&blocks) {
        panic!("{problems:#?}");
    }
    let blocks = blocks.as_array().unwrap();
    assert!(blocks.len() <= 50 && !said.text.is_empty());
    let mut total = 0;
    let mut ids = Vec::new();
    for block in blocks {
        walk(block, &mut |key, value| {
            let count = value.chars().count();
            match key {
                "text" => {
                    assert!((1..=3_000).contains(&count), "{count} characters: {value}");
                    total += count;
                }
                "action_id" => ids.push(value.to_owned()),
                "value" => assert!(count <= 2_000),
                _ => {}
            }
        });
        for one in block["elements"].as_array().into_iter().flatten() {
            if one["type"] == "button" {
                assert!(one["text"]["text"].as_str().unwrap().chars().count() <= 75);
                if let Some(confirm) = one.get("confirm") {
                    assert!(confirm["title"]["text"].as_str().unwrap().chars().count() <= 100);
                    assert!(confirm["text"]["text"].as_str().unwrap().chars().count() <= 300);
                }
            }
        }
    }
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "action ids repeat");
    assert!(total <= 13_200, "{total} characters in all");
}

fn walk(value: &Value, see: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| walk(one, see)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) => see(key, text),
                    other => walk(other, see),
                }
            }
        }
        _ => {}
    }
}

/// All markup of a message: what Slack parses.
fn markup(said: &Said) -> String {
    let mut all = said.text.clone();
    for block in serde_json::to_value(&said.blocks).unwrap().as_array().unwrap() {
        if block["type"] == "section" || block["type"] == "context" {
            walk(block, &mut |key, value| {
                if key == "text" {
                    all.push('\n');
                    all.push_str(value);
                }
            });
        }
    }
    all
}

#[test]
fn the_declaration_reads_well_in_every_state() {
    for (name, this) in stories() {
        let said = declaration(&this, &context());
        check(&said);
        insta::assert_snapshot!(format!("declaration_{name}"), readable(&said));
    }
}

#[test]
fn the_report_reads_well_for_every_outcome() {
    for (name, this) in stories()
        .into_iter()
        .filter(|(_, this)| this.ran.is_some() || (this.is_over() && this.sent_at.is_some()))
    {
        let said = report(&this, &context());
        check(&said);
        insta::assert_snapshot!(format!("report_{name}"), readable(&said));
    }
}

#[test]
fn why_not_is_said_for_every_gate() {
    let lines: Vec<String> = reasons()
        .iter()
        .map(|reason| {
            let said = why_not(reason, "web:NginxDown", &context());
            check(&said);
            said.text
        })
        .collect();
    insta::assert_snapshot!("why_not", lines.join("\n"));
}

fn rule(key: &str, stage: Stage) -> crate::rule::Rule {
    let (role, alert) = key.split_once(':').unwrap();
    crate::rule::Rule {
        key: RuleKey { role: role.into(), alert: alert.into() },
        place: crate::rule::Place { file: "rules/web.yaml".into(), line: 3, column: 1 },
        about: Some("nginx has stopped; users see 502 from one host.".into()),
        action: crate::rule::Action::Commands(vec!["systemctl restart nginx".into()]),
        confirm: Some("! systemctl is-active --quiet nginx".into()),
        verify: None,
        stage,
        grace: Duration::from_secs(15),
        timeout: minutes(5),
        cooldown: minutes(30),
        attempts: vec![crate::rule::Attempts { count: 3, window: minutes(60) }],
        at_once: 1,
        when: BTreeMap::from([("env".to_owned(), "prod*".to_owned())]),
        env: BTreeMap::from([("MOUNT".to_owned(), "{{ labels.mountpoint }}".to_owned())]),
        approvers: Vec::new(),
        approvals: 1,
        approve_within: minutes(30),
        resolve_within: minutes(10),
        runbook: Some("https://wiki.example.com/nginx".into()),
        owner: Some("@web".into()),
        fix: None,
    }
}

#[test]
fn every_answer_reads_well() {
    use answer::*;
    let context = context();
    let open = Open {
        id: "r7k2m9x4".into(),
        key: "web:NginxDown".into(),
        host: "web-1".into(),
        state: "running",
        since: at(-30),
        link: Some("https://x.slack.com/archives/C1/p1".into()),
    };
    let view = StatusView {
        version: "0.1.0".into(),
        started_at: at(-7_300),
        mode: "socket".into(),
        connections: 2,
        connections_wanted: 2,
        rules: 12,
        open: vec![open.clone(), Open { state: "awaiting_approval", ..open }],
        pauses: vec![pause()],
        unreadable: vec![("old-nagios".into(), 3)],
        without_rule: 7,
        without_role: 1,
    };
    let row = HistoryRow {
        at: at(-90_000),
        key: "web:NginxDown".into(),
        host: "web-1".into(),
        outcome: Some(Outcome::Healed),
        state: "ended",
        took: Some(Duration::from_secs(2)),
        by: Some("U0ALICE".into()),
        link: None,
    };
    let many: Vec<_> = (0..60).map(|i| rule(&format!("web:Alert{i}"), Stage::Auto)).collect();
    let everything = Pause { pattern: "*".into(), until: None, reason: None, ..pause() };
    for (name, said) in [
        ("help", help()),
        ("paused", paused(&pause(), 2, &context)),
        ("pause", pause_answer(&pause(), 4, &context)),
        ("resumed", resumed("web:*", "U0BOB")),
        ("resume", resume_answer("web:*", 1, &[everything], &context)),
        ("pauses", pauses(&[pause()], &context)),
        ("status", status(&view, &context)),
        ("rules", rules(many[..2].iter(), None)),
        ("show", show(&many[0])),
        ("history", history(&[row], 5, None, &context)),
        ("run_announced", run_announced("web:NginxDown", "web-1", "U0BOB")),
        ("run", run_answer("web:NginxDown", "web-1", None)),
        ("nobody_else", nobody_else("web:NginxDown")),
        ("why", why_not_yet()),
        ("sorry", sorry("The store did not answer.", "Try again; the log says more.")),
    ] {
        check(&said);
        insta::assert_snapshot!(format!("answer_{name}"), readable(&said));
    }
    let long = rules(many.iter(), Some("alert"));
    check(&long);
    assert!(long.text.contains("more: `/heal rules TEXT`"), "{}", long.text);
}

#[test]
fn every_refusal_tells_the_clicker_why() {
    let this = remediation(Stage::Approve, State::AwaitingApproval { until: at(60) });
    let all = [
        Refused::Over { outcome: Some(Outcome::Healed) },
        Refused::Over { outcome: None },
        Refused::NotWaiting { state: "running" },
        Refused::ApprovedAlready,
        Refused::OwnRequest,
        Refused::TooLate,
        Refused::Nothing,
    ];
    let mut lines: Vec<String> = all.iter().map(|one| refused(one, &this)).collect();
    lines.push(not_an_approver("approve this", &context().approvers, &context()));
    lines.push(not_an_approver("pause", &[], &context()));
    insta::assert_snapshot!("refused", lines.join("\n"));
}

#[test]
fn a_plan_that_one_message_cannot_show_does_not_fit() {
    let plan = |texts: Vec<String>| Plan {
        work: Work::Shell {
            steps: texts.into_iter().map(|text| Step { kind: StepKind::Command, text }).collect(),
            env: BTreeMap::new(),
        },
        timeout: minutes(5),
    };
    assert_eq!(fits(&plan(vec!["true".into()])), Ok(()));
    assert!(fits(&plan(vec!["x".repeat(3_001)])).is_err());
    assert!(fits(&plan(vec!["x\ny".repeat(500); 8])).is_err());
    assert!(fits(&plan(vec!["rm \u{202E}x".into()])).unwrap_err().contains("U+202E"));
}

#[test]
fn the_most_urgent_remediation_gives_the_reaction() {
    let all: Vec<Remediation> = stories().into_iter().map(|(_, this)| this).collect();
    assert_eq!(reaction_for(all.iter()), "question");
    let calm: Vec<Remediation> = stories()
        .into_iter()
        .filter(|(name, _)| ["healed", "awaiting"].contains(name))
        .map(|(_, this)| this)
        .collect();
    assert_eq!(reaction_for(calm.iter()), "raised_hand");
    assert_eq!(reaction_for([].iter()), "eyes");
}

#[test]
fn long_output_goes_as_a_file_and_the_report_says_so() {
    let mut this = approved(remediation(Stage::Approve, ended(Outcome::Failed, Ending::Run)));
    let mut run = ran(Final::Failed, 1);
    run.steps[1].output = "line\n".repeat(4_000);
    this.ran = Some(run);
    let said = report(&this, &context());
    check(&said);
    assert!(readable(&said).contains("all of it is in the file"));
    assert!(attachment(&this).unwrap().content.len() >= 20_000);
    assert_eq!(
        attachment(&approved(remediation(Stage::Approve, ended(Outcome::Healed, Ending::Resolved)))),
        None
    );
}

#[test]
fn commands_are_read_however_they_are_written() {
    use command::{Command, parse};
    let key = RuleKey { role: "web".into(), alert: "NginxDown".into() };
    let ok = |text: &str| parse(text, None).unwrap();
    assert_eq!(ok(""), Command::Help);
    assert_eq!(ok("  HELP  "), Command::Help);
    assert_eq!(
        ok("Pause web:NginxDown 2h “deploy &amp; test”"),
        Command::Pause {
            pattern: "web:NginxDown".into(),
            duration: Some(minutes(120)),
            reason: Some("deploy & test".into())
        }
    );
    assert_eq!(ok("pause *"), Command::Pause { pattern: "*".into(), duration: None, reason: None });
    assert_eq!(
        ok("run `web:NginxDown` <http://web-1.example.com|web-1.example.com>"),
        Command::Run { key: "web:NginxDown".into(), host: "web-1.example.com".into() }
    );
    assert_eq!(
        ok("why <https://x.slack.com/archives/C1/p1>"),
        Command::Why { link: "https://x.slack.com/archives/C1/p1".into() }
    );
    assert_eq!(
        parse("<@U0HEAL> pause 30m", Some(&key)).unwrap(),
        Command::Pause { pattern: "web:NginxDown".into(), duration: Some(minutes(30)), reason: None }
    );
    assert_eq!(
        parse("<@U0HEAL>resume", Some(&key)).unwrap(),
        Command::Resume { pattern: "web:NginxDown".into() }
    );
    let slip = |text: &str| parse(text, None).unwrap_err().text;
    assert!(slip("pasue web:X").contains("Did you mean `/heal pause`?"));
    assert!(slip("pause web:X 2weeks").contains("not a duration"));
    assert!(slip("pause web:X 0m").contains("no time"));
    assert!(slip("pause web").contains("is not a rule key"));
    assert!(slip("run web:X").contains("/heal run KEY HOST"));
    let keys = || vec!["web:NginxDown".to_owned(), "db:ReplicaLag".to_owned()];
    assert_eq!(command::known_key("WEB:nginxdown", keys).unwrap(), "web:NginxDown");
    assert!(
        command::known_key("web:NginxDwon", keys).unwrap_err().text.contains("Did you mean `web:NginxDown`?")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_data_is_never_markup_and_never_too_long(
        value in "(<!channel>|<@U1>|<https://x\\|y>|:smile:|@here|`|```|\\*|_|&|\u{202E}|\n|[a-z ]){0,300}",
        long in 0usize..2_000,
    ) {
        let hostile = format!("{value}{}", "&".repeat(long));
        for (_, mut this) in stories() {
            this.alert.summary = Some(hostile.clone());
            this.alert.severity = Some(hostile.clone());
            this.rule_key.alert = hostile.clone();
            this.policy.about = Some(hostile.clone());
            this.policy.runbook = Some(format!("https://x/{hostile}"));
            this.policy.fix_ticket = Some(hostile.clone());
            this.policy.owner = Some(hostile.clone());
            this.policy.approvers = vec![hostile.clone(); 5];
            if let Some(target) = &mut this.target {
                target.name = hostile.clone();
            }
            if let Some(ran) = &mut this.ran {
                ran.output = hostile.clone();
                for step in &mut ran.steps {
                    step.name = hostile.clone();
                    step.output = hostile.clone();
                }
            }
            for said in [declaration(&this, &context()), report(&this, &context())] {
                check(&said);
                let all = markup(&said);
                for bad in ["<!channel", "<@U1>", "<https://x|y>", "<!here"] {
                    prop_assert!(!all.contains(bad), "{bad} in {all}");
                }
            }
        }
    }

    #[test]
    fn no_line_panics_the_grammar(text in "\\PC{0,200}") {
        let _ = command::parse(&text, None);
        let key = RuleKey { role: "a".into(), alert: "b".into() };
        let _ = command::parse(&text, Some(&key));
    }
}
