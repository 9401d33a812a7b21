use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// The talk's file, as the mission prints it.
const TALK: &str = r#"{ "SOME_ROLE:SOME_ALERT": { "commands": [
    "PROC_CHECK --ignore-check FOO_PROCESS",
    "service FOO_PROCESS restart",
    "service FOO_PROCESS status" ] } }"#;

fn files(files: &[(&str, &str)]) -> Vec<(PathBuf, Vec<u8>)> {
    files.iter().map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec())).collect()
}

fn load_text(text: &str) -> (RuleSet, Vec<Diagnostic>) {
    load(files(&[("rules/web.yaml", text)]), &Defaults::default())
}

/// The rules of a text without any problem.
fn rules(text: &str) -> RuleSet {
    let (rules, problems) = load_text(text);
    assert!(problems.is_empty(), "{}", diagnostic::render_all(&problems, false));
    rules
}

fn key(text: &str) -> RuleKey {
    text.parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_file_of_the_talk_loads_as_it_stands() {
    let (rules, problems) = load(files(&[("rules/talk.json", TALK)]), &Defaults::default());
    assert_eq!(problems, []);
    let rule = rules.get(&key("SOME_ROLE:SOME_ALERT")).unwrap();
    let Action::Commands(commands) = &rule.action else { panic!("{rule:?}") };
    assert_eq!(commands[1], "service FOO_PROCESS restart");
    assert_eq!(commands.len(), 3);
}

#[test]
fn what_a_rule_does_not_say_is_what_the_contract_says() {
    let rules = rules("web:Down: {commands: [x]}");
    let rule = rules.get(&key("web:Down")).unwrap();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!((rule.stage, rule.approvals, rule.at_once), (Stage::Approve, 1, 1));
    assert_eq!((rule.grace, rule.timeout, rule.cooldown), (Duration::from_secs(15), minutes(5), minutes(30)));
    assert_eq!((rule.approve_within, rule.resolve_within), (minutes(30), minutes(10)));
    let windows: Vec<_> = rule.attempts.iter().map(|one| (one.count, one.window)).collect();
    assert_eq!(windows, [(3, minutes(60)), (7, minutes(7 * 24 * 60))]);
}

#[test]
fn the_rules_of_the_contract_load() {
    let rules = rules(
        r#"
web:NginxDown:
  about: nginx has stopped; users see 502 from one host.
  commands:                     # exactly one of commands | document | automation
    - systemctl restart nginx
  confirm: "! systemctl is-active --quiet nginx"   # exit 0: the fault is really there
  verify: systemctl is-active --quiet nginx        # exit 0: it is gone
  stage: auto                   # observe | approve | auto      (default approve)
  grace: 20s                    # auto: time between declaration and run, to press Hold
  timeout: 5m                   # of the whole run on the host
  cooldown: 30m                 # after an outcome, per rule and instance
  attempts: [3/1h, 7/7d]        # per rule and instance, every window; then it is escalated, not tried
  at_once: 1                    # instances of the role under remediation at a time: 2, 10%
  when: {env: production}       # labels the alert must have; values may hold *
  env: {MOUNT: "{{ labels.mountpoint }}"}          # alert values reach commands as variables only
  approvers: ["@web-leads"]     # instead of the config's
  approvals: 1                  # how many different people must press Approve
  approve_within: 30m           # then the declaration expires
  resolve_within: 10m           # the alert must resolve by then, else the outcome is unresolved
  runbook: https://wiki/nginx
  owner: "@web"                 # mentioned when a remediation does not heal
  fix: {ticket: OPS-123, due: 2027-01-31}          # the permanent fix

db:ReplicaLag:
  document: Acme-RestartReplica # any SSM document
  parameters: {Mode: [soft]}

batch:NodeStuck:
  automation: Acme-ReplaceNode  # any SSM Automation runbook
  parameters: {InstanceId: ["{{ instance_id }}"]}
"#,
    );
    let rule = rules.get(&key("web:NginxDown")).unwrap();
    assert_eq!(rule.place.to_string(), "rules/web.yaml:2:1");
    assert_eq!(rule.confirm.as_deref(), Some("! systemctl is-active --quiet nginx"));
    assert_eq!(rule.fix.as_ref().unwrap().due, Some(jiff::civil::date(2027, 1, 31)));
    assert_eq!(rule.env, labels(&[("MOUNT", "{{ labels.mountpoint }}")]));
    let Action::Automation { name, parameters } = &rules.get(&key("batch:NodeStuck")).unwrap().action else {
        panic!()
    };
    assert_eq!((name.as_str(), &parameters["InstanceId"][0][..]), ("Acme-ReplaceNode", "{{ instance_id }}"));
    assert_eq!(rules.roles().collect::<Vec<_>>(), ["batch", "db", "web"]);
}

#[test]
fn defaults_stand_in_for_what_a_rule_does_not_say() {
    let defaults = Defaults {
        stage: Some(Stage::Auto),
        verify: Some("true".to_owned()),
        env: Some(labels(&[("A", "1")])),
        ..Defaults::default()
    };
    let text = "web:Down: {commands: [x], env: {B: 2}}\ndb:Lag: {document: Acme-Fix, stage: observe}";
    let (rules, problems) = load(files(&[("a.yaml", text)]), &defaults);
    assert_eq!(problems, []);
    let web = rules.get(&key("web:Down")).unwrap();
    assert_eq!((web.stage, web.verify.as_deref()), (Stage::Auto, Some("true")));
    assert_eq!(web.env, labels(&[("B", "2")]), "a rule's own key replaces the default's as a whole");
    let db = rules.get(&key("db:Lag")).unwrap();
    assert_eq!(
        (db.stage, &db.verify, db.env.len()),
        (Stage::Observe, &None, 0),
        "a document checks by itself"
    );
}

#[test]
fn the_most_specific_rule_that_fits_answers() {
    let rules = rules(
        r#"
web:Down: {commands: [exact]}
web:Disk*: {commands: [role], when: {env: prod*}}
web:*: {commands: [any of web]}
web:DiskFull: {commands: [crossing]}
"*:DiskFull": {commands: [disk], when: {env: test}}
"*:*": {commands: [any]}
"#,
    );
    let found = |role: &str, alert: &str, env: &str| {
        rules.find(role, alert, &labels(&[("env", env)])).map(|rule| rule.key.to_string()).unwrap()
    };
    assert_eq!(found("web", "Down", "x"), "web:Down");
    assert_eq!(found("web", "DiskFull", "test"), "web:DiskFull");
    assert_eq!(found("web", "DiskSlow", "production"), "web:Disk*");
    assert_eq!(found("web", "DiskSlow", "test"), "web:*", "`when` does not fit, so the next one answers");
    assert_eq!(found("web", "Other", "x"), "web:*");
    assert_eq!(found("db", "DiskFull", "test"), "*:DiskFull");
    assert_eq!(found("db", "DiskFull", "x"), "*:*");
    assert_eq!(found("Web", "Down", "x"), "*:*", "case counts");
    assert!(rules.is_known_role("web") && !rules.is_known_role("db"));
    assert_eq!(rules.closest("web:Dwon").as_deref(), Some("web:Down"));
    let paused: Vec<_> = rules.matching("web:*").map(|rule| rule.key.to_string()).collect();
    assert_eq!(paused, ["web:*", "web:Disk*", "web:DiskFull", "web:Down"]);
}

#[test]
fn a_rule_at_the_crossing_settles_two_patterns() {
    let crossed = "web:*: {commands: [x]}\n\"*:Down\": {commands: [y]}\n";
    assert_eq!(load_text(crossed).1.len(), 1);
    let settled = format!("{crossed}web:Down: {{commands: [z]}}\n");
    assert_eq!(load_text(&settled).1, []);
    let sometimes = format!("{crossed}web:Down: {{commands: [z], when: {{env: prod}}}}\n");
    assert_eq!(load_text(&sometimes).1.len(), 1, "a rule that does not always apply settles nothing");
}

/// One bad file a mistake: its name, its text.
const MISTAKES: &[(&str, &str)] = &[
    ("a misspelt key", "web:Down:\n  comands:\n    - systemctl restart nginx\n"),
    ("no action", "web:Down:\n  about: nothing is done\n"),
    ("two actions", "web:Down:\n  commands: [x]\n  document: Acme-Fix\n"),
    ("an empty rule", "web:Down:\nweb:Up: {commands: [x]}\n"),
    ("keys left at the margin", "web:Down:\ncommands:\n  - x\nstage: auto\n"),
    ("a rule within a rule", "web:Down:\n  commands: [x]\n  web:Up:\n    commands: [y]\n"),
    ("a list instead of a rule", "web:Down:\n  - systemctl restart nginx\n"),
    ("a list instead of rules", "- web:Down\n- web:Up\n"),
    ("text instead of rules", "restart everything\n"),
    ("a key without a colon", "web: {commands: [x]}\n"),
    ("a key without a role", "\":Down\": {commands: [x]}\n"),
    ("a key without an alert", "\"web:\": {commands: [x]}\n"),
    ("a space in a key", "\"web: Down\": {commands: [x]}\n"),
    ("an invisible character in a key", "\"web:Do\\u200Bwn\": {commands: [x]}\n"),
    ("a key twice", "web:Down: {commands: [x]}\nweb:Down: {commands: [y]}\n"),
    ("a setting twice", "web:Down:\n  commands: [x]\n  stage: auto\n  stage: observe\n"),
    ("equally specific patterns", "web:*: {commands: [x]}\n\"*:Down\": {commands: [y]}\n"),
    ("patterns with as many characters", "web-*:Down: {commands: [x]}\n\"*-web:Down\": {commands: [y]}\n"),
    ("a misspelt stage", "web:Down: {commands: [x], stage: atuo}\n"),
    ("an unknown stage", "web:Down: {commands: [x], stage: yes}\n"),
    ("no commands", "web:Down: {commands: []}\n"),
    ("an empty command", "web:Down:\n  commands:\n    - x\n    -\n    - \"  \"\n"),
    ("a command that YAML reads as a map", "web:Down:\n  commands:\n    - echo restarted: nginx\n"),
    ("an unquoted exclamation mark", "web:Down:\n  commands: [x]\n  confirm: ! systemctl is-active nginx\n"),
    ("an alert value in a command", "disk:Full:\n  commands:\n    - rm -rf {{ labels.mountpoint }}/tmp\n"),
    ("an alert value in verify", "disk:Full:\n  commands: [x]\n  verify: ping -c1 {{host}}\n"),
    ("a reference to SSM in a command", "web:Down: {commands: [\"login {{ssm-secure:password}}\"]}\n"),
    ("an invisible character in a command", "web:Down: {commands: [\"echo \\u202Esafe\"]}\n"),
    ("a carriage return in a command", "web:Down: {commands: [\"echo a\\rb\"]}\n"),
    ("a duration without a unit", "web:Down: {commands: [x], timeout: 300}\n"),
    ("a duration in words", "web:Down: {commands: [x], cooldown: half an hour}\n"),
    ("a timeout that SSM does not take", "web:Down: {commands: [x], timeout: 3d}\n"),
    ("no timeout", "web:Down: {commands: [x], timeout: 0s}\n"),
    ("attempts without a time", "web:Down: {commands: [x], attempts: [3]}\n"),
    ("no attempts", "web:Down: {commands: [x], attempts: [0/1h]}\n"),
    ("attempts twice", "web:Down: {commands: [x], attempts: [3/1h, 5/60m]}\n"),
    ("attempts that never count", "web:Down: {commands: [x], attempts: [9/1h, 3/1d]}\n"),
    ("attempts without limit", "web:Down: {commands: [x], attempts: []}\n"),
    ("a percentage", "web:Down: {commands: [x], at_once: 10%}\n"),
    ("none at once", "web:Down: {commands: [x], at_once: 0}\n"),
    ("grace without auto", "web:Down: {commands: [x], grace: 1m}\n"),
    ("a list in when", "web:Down: {commands: [x], when: {env: [a, b]}}\n"),
    ("a template in when", "web:Down: {commands: [x], when: {env: \"{{ role }}\"}}\n"),
    ("an empty when", "web:Down: {commands: [x], when: {}}\n"),
    (
        "a dangerous variable",
        "web:Down: {commands: [x], env: {LD_PRELOAD: \"{{ summary }}\", BASH_ENV: x, path: fine}}\n",
    ),
    ("a name that is no variable", "web:Down: {commands: [x], env: {mount-point: x}}\n"),
    ("an unquoted template", "web:Down:\n  commands: [x]\n  env:\n    MOUNT: {{ labels.mountpoint }}\n"),
    ("a misspelt template", "web:Down: {commands: [x], env: {A: \"on {{ hots }}\"}}\n"),
    ("an open template", "web:Down: {commands: [x], env: {A: \"{{ host\"}}\n"),
    ("an unknown template", "web:Down: {commands: [x], env: {A: \"{{ now }}\"}}\n"),
    ("verify within env", "web:Down:\n  commands: [x]\n  env:\n    A: b\n    verify: y\n"),
    ("parameters of a shell rule", "web:Down: {commands: [x], parameters: {A: b}}\n"),
    ("env of a document", "db:Lag: {document: Acme-Fix, env: {A: b}, confirm: x}\n"),
    ("no name of a document", "db:Lag: {document: Acme Fix}\n"),
    ("the shell as a document", "db:Lag: {document: AWS-RunShellScript, parameters: {commands: [x]}}\n"),
    (
        "an alert value in a program",
        "db:Lag: {document: AWS-RunPowerShellScript, parameters: {commands: [\"del {{ labels.dir }}\"]}}\n",
    ),
    ("no name of a parameter", "db:Lag: {document: Acme-Fix, parameters: {\"a b\": c}}\n"),
    (
        "an approver by name",
        "web:Down: {commands: [x], approvers: [alice, \"@here\", S0GROUP, U0LEAD, U0LEAD]}\n",
    ),
    ("more approvals than approvers", "web:Down: {commands: [x], approvers: [U0ONE], approvals: 2}\n"),
    ("an owner by name", "web:Down: {commands: [x], owner: web team}\n"),
    ("a runbook that is no address", "web:Down: {commands: [x], runbook: wiki/nginx}\n"),
    ("a fix without a ticket", "web:Down: {commands: [x], fix: {due: 2027-01-31}}\n"),
    ("a fix at no date", "web:Down: {commands: [x], fix: {ticket: OPS-1, due: 31.1.2027}}\n"),
    ("several mistakes", "web:Down:\n  stage: aut\n  timeout: 5\n  atempts: [3/1h]\n"),
    ("an empty file", "# nothing but a comment\n"),
];

#[test]
fn every_mistake_is_shown_in_its_line_with_a_hint() {
    let mut shown = String::new();
    for (mistake, text) in MISTAKES {
        let (_, problems) = load_text(text);
        assert!(!problems.is_empty(), "{mistake} went unseen");
        let _ = writeln!(shown, "── {mistake}\n\n{}", diagnostic::render_all(&problems, false));
    }
    insta::assert_snapshot!("mistakes", shown);
}

#[test]
fn problems_of_two_files_are_all_shown_and_a_pair_names_both_files() {
    let (_, problems) = load(
        files(&[
            ("rules/a.yaml", "web:Down: {commands: [x]}\nweb:*: {commands: [x]}\n"),
            (
                "rules/b.json",
                "{\"web:Down\": {\"commands\": [\"y\"]},\n \"*:Up\": {\"commands\": [1], \"stage\": 1}}",
            ),
            ("rules/c.yaml", "\"*:Down\": {commands: [x]}\nmail:*: {commands: [x]}\n"),
        ]),
        &Defaults::default(),
    );
    insta::assert_snapshot!("problems_of_several_files", diagnostic::render_all(&problems, false));
}

#[test]
fn ten_thousand_rules_load_and_a_crowd_of_ambiguous_ones_is_bounded() {
    let many: String = (0..10_000).map(|n| format!("\"*-{n}x:Down{n}\": {{commands: [x]}}\n")).collect();
    let set = rules(&many);
    let found = set.find("web-1234x", "Down1234", &BTreeMap::new()).map(|rule| rule.key.to_string());
    assert_eq!((set.len(), found.as_deref()), (10_000, Some("*-1234x:Down1234")));
    let crowd: String = (0..1000)
        .map(|n| format!("role{n}:*: {{commands: [x]}}\n\"*:Alert{n}\": {{commands: [x]}}\n"))
        .collect();
    assert_eq!(load_text(&crowd).1.len(), 50, "a million pairs are ambiguous, the first ones are shown");
}

#[test]
fn a_rule_with_a_problem_is_left_out() {
    let (rules, problems) = load_text("web:Down: {commands: [x], stage: x}\nweb:Up: {commands: [x]}\n");
    assert_eq!(problems.len(), 1);
    assert_eq!(rules.iter().map(|rule| rule.key.to_string()).collect::<Vec<_>>(), ["web:Up"]);
}

/// A key's side of few letters, so that patterns meet often.
fn side() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]{1,3}", 3 => "[ab*]{1,4}", 1 => Just("*".to_owned())]
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let when = proptest::option::weighted(0.3, "[xy]");
    proptest::collection::vec((side(), side(), when), 0..14).prop_map(|keys| {
        let mut seen = std::collections::BTreeSet::new();
        let mut rules = Vec::new();
        for (role, alert, when) in keys {
            let key = RuleKey { role, alert };
            if !seen.insert(key.clone()) {
                continue;
            }
            let place = Place { file: "x".into(), line: 1, column: 1 };
            let own = Defaults {
                when: when.map(|env| BTreeMap::from([("env".to_owned(), env)])),
                ..Defaults::default()
            };
            let action = Action::Commands(vec!["x".to_owned()]);
            rules.push(Rule::assemble(key, place, action, own, &Defaults::default()));
        }
        rules
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_, problems) = load(vec![(PathBuf::from("x.yaml"), bytes)], &Defaults::default());
        diagnostic::render_all(&problems, true);
    }

    #[test]
    fn no_nearly_yaml_makes_the_loader_panic(
        text in "(web:D|commands|env|when|fix|[-:{}\\[\\]\"'&*!|>#%, \n\t]|  |\\{\\{|é|~|- |: |x){0,60}"
    ) {
        let (_, problems) = load(files(&[("x.yaml", &text)]), &Defaults::default());
        diagnostic::render_all(&problems, false);
    }

    #[test]
    fn no_value_makes_a_rule_panic(key in "[a-z_]{2,14}|stage|attempts|fix|env|owner", value in ".{0,30}") {
        let text = format!("web:Down:\n  commands: [x]\n  {key}: {value}\n");
        let (_, problems) = load(files(&[("x.yaml", &text)]), &Defaults::default());
        diagnostic::render_all(&problems, false);
    }

    #[test]
    fn the_ambiguous_pairs_are_those_that_a_look_at_every_pair_finds(rules in some_rules()) {
        let always: std::collections::BTreeSet<&RuleKey> =
            rules.iter().filter(|rule| rule.when.is_empty()).map(|rule| &rule.key).collect();
        let mut naive = Vec::new();
        for (i, a) in rules.iter().enumerate() {
            for (j, b) in rules.iter().enumerate().skip(i + 1) {
                let meet = glob::overlap(&a.key.role, &b.key.role) && glob::overlap(&a.key.alert, &b.key.alert);
                let apart = matches!((a.when.get("env"), b.when.get("env")), (Some(x), Some(y)) if x != y);
                let settled = ambiguity::crossing(&a.key, &b.key).is_some_and(|key| always.contains(&key));
                if meet && !apart && !settled && a.key.compare(&b.key).is_none() {
                    naive.push((i, j));
                }
            }
        }
        prop_assert_eq!(ambiguity::find(&rules), naive);
    }

    #[test]
    fn the_index_finds_what_a_look_at_every_rule_finds(
        rules in some_rules(), role in "[ab]{1,4}", alert in "[ab]{1,4}", env in "[xyz]"
    ) {
        // Only sets that load: drop one rule of each ambiguous pair.
        let mut rules = rules;
        while let Some((_, drop)) = ambiguity::find(&rules).first().copied() {
            rules.remove(drop);
        }
        let labels = BTreeMap::from([("env".to_owned(), env)]);
        let fitting: Vec<&Rule> =
            rules.iter().filter(|rule| rule.key.matches(&role, &alert) && rule.applies(&labels)).collect();
        let best: Vec<&&Rule> = fitting
            .iter()
            .filter(|rule| fitting.iter().all(|other| {
                other.key == rule.key || rule.key.compare(&other.key) == Some(std::cmp::Ordering::Greater)
            }))
            .collect();
        prop_assert_eq!(best.len(), usize::from(!fitting.is_empty()), "one of them is the most specific");
        let set = RuleSet::new(rules.clone());
        prop_assert_eq!(set.find(&role, &alert, &labels).map(|rule| &rule.key), best.first().map(|rule| &rule.key));
    }
}
