use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::alert::Format;
use crate::rule::{Diagnostic, Stage, diagnostic};

fn parse_text(text: &str) -> (Option<Config>, Vec<Diagnostic>) {
    parse(Path::new("heal.yaml"), text)
}

const CONTRACT: &str = r##"
slack:
  mode: socket                # socket | http
  channels: ["#alerts", C0123ABCD]   # where alerts are read; a name or an id
senders:                      # only these can raise alerts; anybody else's message never heals
  - name: prometheus
    format: alertmanager      # a built-in format
    bot_id: B0PROM            # who: bot_id, app_id or user_id (at least one)
    role: service             # the label that is ROLE        (default: role, then job)
    instance: instance        # the label that names the host (default: instance, then host)
  - name: old-nagios
    bot_id: B0NAGIOS
    pattern: '^\[(?<status>\w+)\] (?<instance>\S+) (?<role>[\w-]+):(?<alert>[\w-]+)'
    firing: [CRITICAL, WARNING]
    resolved: [OK, RECOVERY]
approvers: ["@sre", U0LEAD]   # user ids and user group handles: may approve, pause, resume, run
aws:
  region: ap-northeast-1
rules: rules
store: sqlite:heal.db         # or postgres://…
listen: 127.0.0.1:8080        # health, metrics, and Slack's requests in http mode
defaults:                     # any rule key except the three kinds of action
  stage: approve
  cooldown: 30m
"##;

#[test]
fn the_config_of_the_contract_loads() {
    let (config, problems) = parse_text(CONTRACT);
    assert_eq!(problems, []);
    let config = config.unwrap();
    assert_eq!(config.slack.mode, Mode::Socket);
    assert_eq!(config.slack.channels, ["#alerts", "C0123ABCD"]);
    assert_eq!(config.slack.connections, 2);
    assert_eq!(config.approvers, ["@sre", "U0LEAD"]);
    assert_eq!(config.aws.region.as_deref(), Some("ap-northeast-1"));
    assert_eq!(config.aws.fence_dir, "/var/lib/heal");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.max_age, Duration::from_secs(900));
    assert_eq!(config.defaults.stage, Some(Stage::Approve));
    let [prometheus, nagios] = config.senders.as_slice() else { panic!() };
    assert!(matches!(prometheus.format, Format::Alertmanager) && prometheus.resolves);
    assert_eq!((prometheus.role.as_deref(), prometheus.bot_id.as_deref()), (Some("service"), Some("B0PROM")));
    let Format::Pattern { pattern, firing, resolved } = &nagios.format else { panic!() };
    let found = pattern.captures("[CRITICAL] web-01 web:NginxDown").unwrap();
    assert_eq!((&found["role"], &found["alert"]), ("web", "NginxDown"));
    assert_eq!((firing.len(), resolved.len(), nagios.resolves), (2, 2, true));
}

#[test]
fn what_the_config_does_not_say_has_its_default() {
    let (config, problems) =
        parse_text("slack: {channels: [\"#a\"]}\nsenders: [{name: a, format: alertmanager, app_id: A0B}]\n");
    assert_eq!(problems, []);
    let config = config.unwrap();
    assert_eq!(
        (config.store.as_str(), config.rules.to_str(), config.open_pause),
        ("sqlite:heal.db", Some("rules"), false)
    );
    assert_eq!(config.retention, Duration::from_secs(400 * 86_400));
    assert_eq!(config.defaults, crate::rule::Defaults::default());
}

#[test]
fn a_config_without_channels_and_senders_works_and_warns() {
    for text in ["", "rules: rules\n", "slack: {mode: http}\nsenders: []\n"] {
        let (config, problems) = parse_text(text);
        assert!(config.is_some() && problems.len() == 2, "{}", diagnostic::render_all(&problems, false));
        assert!(problems.iter().all(|problem| !problem.is_error()));
    }
}

#[test]
fn a_sender_that_never_says_resolved_is_known() {
    let sender = |extra: &str| {
        let text = format!("senders: [{{name: a, bot_id: B0A, pattern: '(?<alert>\\w+)'{extra}}}]");
        parse_text(&text).0.map(|config| config.senders[0].resolves)
    };
    assert_eq!(sender(""), Some(false), "without a status every message fires and none resolves");
    assert_eq!(sender(", resolves: false"), Some(false));
    assert_eq!(sender(", resolves: true"), None);
}

#[test]
fn stores_are_told_apart() {
    for fine in [
        "sqlite:heal.db",
        "sqlite:///var/lib/heal/heal.db",
        "sqlite:./data/heal.db",
        "sqlite:/abs.db",
        "postgres://u:p@h/d",
    ] {
        assert_eq!(check_store(fine), Ok(()), "{fine}");
    }
    for bad in [
        "",
        "heal.db",
        "sqlite:",
        "sqlite:///",
        "sqlite://heal.db",
        "sqlite::memory:",
        "mysql://x",
        "postgres://u:p@w@h/d",
        "sqlite:a.db?mode=ro",
    ] {
        let (message, _) = check_store(bad).unwrap_err();
        assert!(!message.contains("u:p") && !message.contains("w@h"), "a password is never repeated");
    }
}

const MISTAKES: &[(&str, &str)] = &[
    ("a misspelt section", "sender: []\n"),
    ("a planned section", "storm: 5\n"),
    ("a retention that is none", "retention: 90\n"),
    ("a retention that forgets what runs", "retention: 12h\n"),
    ("an unknown section", "plugins: []\n"),
    ("a list instead of a config", "- a\n"),
    ("a token", "slack:\n  bot_token: xoxb-1234567890-secret\n"),
    ("planned keys", "slack: {ops_channel: \"#ops\"}\naws: {accounts: []}\nlimits: {storm: 5}\n"),
    ("an unknown mode", "slack: {mode: websocket}\n"),
    ("channels without a sign", "slack: {channels: [alerts, \"#Alerts\", C0A, C0A, \"general chat\"]}\n"),
    ("too many connections", "slack: {connections: 11}\n"),
    ("senders as a map", "senders: {prometheus: {}}\n"),
    ("a sender that says nothing", "senders:\n  - name: prometheus\n"),
    ("a sender without a name", "senders:\n  - format: alertmanager\n    bot_id: B0A\n"),
    ("ids that are none", "senders: [{name: a, format: alertmanager, bot_id: prometheus, user_id: B0A}]\n"),
    ("a planned format", "senders: [{name: a, format: grafana, bot_id: B0A}]\n"),
    ("a misspelt format", "senders: [{name: a, format: alertmanger, bot_id: B0A}]\n"),
    ("a format and a pattern", "senders: [{name: a, format: alertmanager, pattern: x, bot_id: B0A}]\n"),
    ("words of a format", "senders: [{name: a, format: alertmanager, firing: [X], bot_id: B0A}]\n"),
    ("a pattern that cannot be read", "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<alert>\\w+'}\n"),
    ("a pattern with look-ahead", "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<alert>\\w+)(?=x)'}\n"),
    ("a pattern too large", "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<alert>\\w{1000}){1000}'}\n"),
    ("a pattern without an alert", "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<status>\\w+)'}\n"),
    (
        "a status without words",
        "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<status>\\w+) (?<alert>\\w+)'}\n",
    ),
    (
        "words without a status",
        "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<alert>\\w+)', firing: [X]}\n",
    ),
    (
        "a word that means both",
        "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<status>\\w+) (?<alert>\\w+)', firing: [OK], resolved: [ok]}\n",
    ),
    (
        "resolves without a word",
        "senders:\n  - {name: a, bot_id: B0A, pattern: '(?<alert>\\w+)', resolves: true}\n",
    ),
    (
        "two senders with one id",
        "senders:\n  - {name: a, format: alertmanager, bot_id: B0A}\n  - {name: b, format: alertmanager, bot_id: B0A, app_id: A0A}\n",
    ),
    (
        "two senders with one name",
        "senders:\n  - {name: a, format: alertmanager, bot_id: B0A}\n  - {name: a, format: alertmanager, bot_id: B0B}\n",
    ),
    ("an approver by name", "approvers: [bob]\n"),
    ("no approvers", "approvers: []\n"),
    ("not true or false", "open_pause: yes\n"),
    ("a region in words", "aws: {region: Tokyo}\n"),
    ("a fence at no absolute path", "aws: {fence_dir: var/../heal}\n"),
    ("a fence where nothing is kept", "aws: {fence_dir: /proc/heal}\n"),
    ("a PostgreSQL without a host", "store: postgres:///heal\n"),
    ("a store that is none", "store: heal.db\n"),
    ("a port alone", "listen: \":8080\"\n"),
    ("localhost", "listen: localhost:8080\n"),
    ("an action in defaults", "defaults: {commands: [x]}\n"),
    ("a slip in defaults", "defaults: {coldown: 30m, stage: atuo}\n"),
    ("max_age without a unit", "limits: {max_age: 15}\n"),
];

#[test]
fn every_mistake_is_shown_in_its_line_with_a_hint() {
    let mut shown = String::new();
    for (mistake, text) in MISTAKES {
        let (config, mut problems) = parse_text(text);
        assert!(config.is_none(), "{mistake} went unseen");
        problems.retain(Diagnostic::is_error);
        let text = diagnostic::render_all(&problems, false);
        assert!(!text.contains("xoxb-1") && !text.contains("user:secret"), "secrets are not shown");
        let _ = writeln!(shown, "── {mistake}\n\n{text}");
    }
    insta::assert_snapshot!("mistakes", shown);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_config_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let (_, problems) = parse(Path::new("heal.yaml"), &bytes);
        diagnostic::render_all(&problems, false);
    }

    #[test]
    fn no_value_makes_the_config_panic(
        key in "slack|senders|approvers|aws|rules|store|retention|listen|defaults|limits", value in "[\\[{]?.{0,30}[\\]}]?"
    ) {
        let (_, problems) = parse_text(&format!("{key}: {value}\n"));
        diagnostic::render_all(&problems, false);
    }
}

#[test]
fn no_mistake_on_its_line_shows_the_stores_password() {
    for line in [
        "stor: postgres://heal:secretpw@h/db",
        "store: \"postgres://heal:secretpw@h/db",
        "store: [postgres://heal:secretpw@h/db]",
        "store: postgres://heal:secretpw@h/db: x",
        "store: postgres://heal:secretpw@h/db\nstore: postgres://heal:secretpw@h/db",
    ] {
        let (_, problems) = parse(std::path::Path::new("heal.yaml"), line);
        let shown = crate::rule::diagnostic::render_all(&problems, false);
        assert!(!shown.is_empty() && !shown.contains("secretpw"), "{shown}");
    }
}
