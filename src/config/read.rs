//! From the text of `heal.yaml` to a [`Config`], with every problem found on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Aws, Config, Limits, Mode, Slack, senders};
use crate::plan::{FENCE_DIR, FENCE_DIR_MAX};
use crate::rule::diagnostic::quoted;
use crate::rule::values::is_id;
use crate::rule::yaml::{self, Entry, Fields, Node, Problems, Span, Value};
use crate::rule::{Defaults, Diagnostic, settings};

const KEYS: &[&str] = &[
    "slack",
    "senders",
    "approvers",
    "open_pause",
    "aws",
    "rules",
    "store",
    "retention",
    "listen",
    "defaults",
    "limits",
];
/// Sections that are planned, and not enforced yet.
const LATER: &[&str] = &[
    "storm",
    "breaker",
    "windows",
    "calendar",
    "report",
    "queues",
    "sqs",
    "redact",
    "accounts",
    "metrics",
    "escalation",
    "freeze",
];
/// Keys that would hold secrets. Their lines are not shown: a terminal is often recorded.
const SECRETS: &[(&str, &str)] = &[
    ("token", "SLACK_BOT_TOKEN"),
    ("bot_token", "SLACK_BOT_TOKEN"),
    ("app_token", "SLACK_APP_TOKEN"),
    ("signing_secret", "SLACK_SIGNING_SECRET"),
    ("secret", "SLACK_SIGNING_SECRET"),
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
];

pub const DEFAULT_STORE: &str = "sqlite:heal.db";
const DEFAULT_LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(86_400);
/// A year and a month: last year's outage can be looked up when it comes again.
const DEFAULT_RETENTION: Duration = Duration::from_secs(400 * 86_400);
/// What `parse_duration` reads at most.
const LONGEST_RETENTION: Duration = Duration::from_secs(3660 * 86_400);

/// Reads a config from its text. The config is there when nothing was wrong with it; warnings may stand
/// beside it. Nothing outside the text is looked at, no environment and no file.
pub fn parse(path: &Path, text: impl AsRef<[u8]>) -> (Option<Config>, Vec<Diagnostic>) {
    let source = match yaml::decode(path, text.as_ref()) {
        Ok(source) => source,
        Err(problem) => return (None, vec![*problem]),
    };
    let mut problems = Problems::new(Arc::clone(&source));
    let root = yaml::read(&source, &mut problems.found);
    let config = if problems.found.iter().any(Diagnostic::is_error) && root.is_none() {
        None
    } else {
        config(path, root.as_ref(), &mut problems)
    };
    let mut found = problems.found;
    crate::rule::diagnostic::sort(&mut found);
    let fine = !found.iter().any(Diagnostic::is_error);
    (config.filter(|_| fine), found)
}

fn config(path: &Path, root: Option<&Node>, problems: &mut Problems) -> Option<Config> {
    let empty = Node { span: Span::default(), value: Value::Map(Vec::new()) };
    let root = root.unwrap_or(&empty);
    if !matches!(root.value, Value::Map(_)) {
        problems
            .error(root.span, format!("a config is a map, and this is {}", root.kind()))
            .hint("write sections: `slack:`, `senders:`, …");
        return None;
    }
    let fields = section("a config", "", root, root.span, KEYS, LATER, problems)?;
    let slack = slack(fields.entry("slack"), problems);
    let senders = match fields.get("senders") {
        Some(node) => senders::read(node, problems),
        None => {
            problems
                .found
                .push(whole(problems, "the config names no `senders`: no message can raise an alert"));
            Vec::new()
        }
    };
    let approvers = fields.get("approvers").and_then(|node| problems.people("`approvers`", node));
    let open_pause = fields.get("open_pause").and_then(|node| problems.flag("`open_pause`", node));
    let aws = aws(fields.entry("aws"), problems);
    let rules = fields.get("rules").and_then(|node| problems.line("`rules`", node, 1000));
    let store = fields.get("store").and_then(|node| {
        let text = problems.text("`store`", node)?;
        if let Err((message, hint)) = check_store(text) {
            // The line may hold a password, so it is not shown.
            let place = problems.source.place(node.span);
            problems.found.push(Diagnostic::at(place, message).with_hint(hint));
        }
        Some(text.to_owned())
    });
    let retention = fields
        .get("retention")
        .and_then(|node| problems.duration("`retention`", node, DAY, LONGEST_RETENTION));
    let listen = fields.get("listen").and_then(|node| listen(node, problems));
    let defaults = fields.entry("defaults").and_then(|entry| defaults(entry, problems));
    let max_age = fields.entry("limits").and_then(|entry| {
        let fields = section(
            "`limits`",
            "limits.",
            &entry.value,
            entry.key_span,
            &["max_age"],
            &["storm", "per_hour", "per_day", "at_once", "failures", "output"],
            problems,
        )?;
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
        fields.get("max_age").and_then(|node| problems.duration("`max_age`", node, least, most))
    });
    Some(Config {
        path: path.to_owned(),
        slack,
        senders,
        approvers: approvers.unwrap_or_default(),
        open_pause: open_pause.unwrap_or(false),
        aws,
        rules: PathBuf::from(rules.unwrap_or_else(|| "rules".to_owned())),
        store: store.unwrap_or_else(|| DEFAULT_STORE.to_owned()),
        retention: retention.unwrap_or(DEFAULT_RETENTION),
        listen: listen.unwrap_or(DEFAULT_LISTEN),
        defaults: defaults.unwrap_or_default(),
        limits: Limits { max_age: max_age.unwrap_or(DEFAULT_MAX_AGE) },
    })
}

fn whole(problems: &Problems, message: &str) -> Diagnostic {
    Diagnostic {
        severity: crate::rule::Severity::Warning,
        ..Diagnostic::of_file(&problems.source.name, message)
    }
}

/// A section's fields; keys that would hold a secret are refused without showing their line.
pub(super) fn section<'n>(
    what: &str,
    path: &str,
    node: &'n Node,
    span: Span,
    known: &[&'static str],
    later: &[&'static str],
    problems: &mut Problems,
) -> Option<Fields<'n>> {
    let Value::Map(entries) = &node.value else {
        problems.map(what, node)?;
        return None;
    };
    let mut also: Vec<&'static str> = known.to_vec();
    for entry in entries {
        if let Some((key, variable)) = SECRETS.iter().find(|(key, _)| *key == entry.key) {
            also.push(key);
            let place = problems.source.place(entry.key_span);
            problems.found.push(
                Diagnostic::at(
                    place,
                    format!("`{path}{key}` is a secret, and secrets come from the environment only"),
                )
                .with_hint(format!("remove it from the file, revoke it, and set {variable}")),
            );
        }
    }
    let fields = Fields::of(what, node, span, &also, later, problems);
    // The suggestion list of known keys must not name secrets; they have been said above.
    fields
}

fn slack(entry: Option<&Entry>, problems: &mut Problems) -> Slack {
    let mut slack = Slack { mode: Mode::Socket, channels: Vec::new(), connections: 2 };
    let no_channels = "the config names no `slack.channels`: alerts are read nowhere";
    let Some(entry) = entry else {
        let warning = whole(problems, no_channels);
        problems.found.push(warning);
        return slack;
    };
    let known = &["mode", "channels", "connections"];
    let later = &["ops_channel", "digest_channel", "report_channel"];
    let Some(fields) = section("`slack`", "slack.", &entry.value, entry.key_span, known, later, problems)
    else {
        return slack;
    };
    if let Some(node) = fields.get("mode")
        && problems.word("`mode`", node, &["socket", "http"]) == Some("http")
    {
        slack.mode = Mode::Http;
    }
    if let Some(node) = fields.get("connections")
        && let Some(number) = problems.number("`connections`", node, 1, 10)
    {
        slack.connections = number;
    }
    match fields.get("channels") {
        Some(node) => slack.channels = channels(node, problems),
        None => {
            problems.warning(entry.key_span, no_channels).hint("write channels: [\"#alerts\"]");
        }
    }
    slack
}

fn channels(node: &Node, problems: &mut Problems) -> Vec<String> {
    let mut channels: Vec<String> = Vec::new();
    for (text, span) in problems.texts("`channels`", node).unwrap_or_default() {
        let named = |name: &str| {
            !name.is_empty()
                && name.chars().count() <= 80
                && name.chars().all(|ch| ch.is_alphanumeric() && !ch.is_uppercase() || "-_".contains(ch))
        };
        let fine = match text.strip_prefix('#') {
            Some(name) => named(name),
            None => is_id(&text, "CG"),
        };
        if !fine {
            let hint = if named(&text) {
                format!("write \"#{text}\"")
            } else {
                "write a name in quotes (\"#alerts\", small letters) or an id (C0123ABCD)".to_owned()
            };
            problems
                .error(span, format!("{} is neither a channel's name nor its id", quoted(&text)))
                .hint(hint);
        } else if channels.contains(&text) {
            problems
                .error(span, format!("the channel {} stands twice", quoted(&text)))
                .hint("keep one of the two");
        } else {
            channels.push(text);
        }
    }
    if channels.is_empty() && matches!(&node.value, Value::List(items) if items.is_empty()) {
        problems
            .warning(node.span, "`channels` is empty: alerts are read nowhere")
            .hint("write [\"#alerts\"]");
    }
    channels
}

fn aws(entry: Option<&Entry>, problems: &mut Problems) -> Aws {
    let mut aws = Aws { region: None, role_tag: None, fence_dir: FENCE_DIR.to_owned() };
    let keys = &["region", "role_tag", "fence_dir"];
    let later = &["accounts", "assume_role", "role_arn", "profile", "output_bucket", "log_group"];
    let Some(entry) = entry else { return aws };
    let Some(fields) = section("`aws`", "aws.", &entry.value, entry.key_span, keys, later, problems) else {
        return aws;
    };
    aws.region = fields.get("region").and_then(|node| {
        let region = problems.line("`region`", node, 40)?;
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !region.bytes().all(fine) || region.matches('-').count() < 2 {
            problems
                .error(node.span, format!("{} is not an AWS region", quoted(&region)))
                .hint("write ap-northeast-1");
            return None;
        }
        Some(region)
    });
    // A tag's key has at most 128 characters (EC2 and SSM tagging limits).
    aws.role_tag = fields.get("role_tag").and_then(|node| problems.line("`role_tag`", node, 128));
    if let Some(dir) = fields.get("fence_dir").and_then(|node| fence_dir(node, problems)) {
        aws.fence_dir = dir;
    }
    aws
}

/// A directory on the hosts that stays over a restart and is root's alone.
fn fence_dir(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = problems.line("`fence_dir`", node, FENCE_DIR_MAX)?;
    let dir = if text.len() > 1 { text.trim_end_matches('/') } else { text.as_str() };
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let plain = dir.starts_with('/')
        && dir.bytes().all(fine)
        && dir.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !plain {
        problems
            .error(node.span, format!("{} is not an absolute path of plain letters", quoted(&text)))
            .hint(format!("write {FENCE_DIR}: letters, digits, `.`, `_` and `-` between slashes"));
        return None;
    }
    let within = |root: &str| dir == root || dir.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if ["/dev", "/proc", "/sys"].into_iter().any(within) {
        problems
            .error(node.span, format!("{} is no place to keep what has run", quoted(dir)))
            .hint(format!("write {FENCE_DIR}: it must last over a restart, and be nobody's but root's"));
        return None;
    }
    if ["/tmp", "/var/tmp", "/run", "/var/run"].into_iter().any(within) {
        problems
            .warning(
                node.span,
                format!("{} may be emptied, and then a second copy of a run is not known", quoted(dir)),
            )
            .hint(format!("write {FENCE_DIR}: it must last over a restart, and be nobody's but root's"));
    }
    Some(dir.to_owned())
}

fn listen(node: &Node, problems: &mut Problems) -> Option<std::net::SocketAddr> {
    let text = problems.text("`listen`", node)?;
    let read = text.parse().ok();
    if read.is_none() {
        let hint = match text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")) {
            Some(port) => format!("write 127.0.0.1:{port}, or 0.0.0.0:{port} for every network"),
            None => "write an address and a port: 127.0.0.1:8080".to_owned(),
        };
        problems.error(node.span, format!("{} is not an address to listen on", quoted(text))).hint(hint);
    }
    read
}

fn defaults(entry: &Entry, problems: &mut Problems) -> Option<Defaults> {
    for action in ["commands", "document", "automation", "parameters"] {
        if let Value::Map(entries) = &entry.value.value
            && let Some(found) = entries.iter().find(|found| found.key == action)
        {
            problems
                .error(found.key_span, format!("`{action}` cannot be a default"))
                .hint("what is done stands in each rule");
            return None;
        }
    }
    let fields = Fields::of("`defaults`", &entry.value, entry.key_span, settings::KEYS, &[], problems)?;
    Some(settings::read(&fields, problems))
}

/// Whether `store` (or `DATABASE_URL`) names a store that heal can use; the message and the hint when not.
/// Neither holds any part of it that may be a password.
pub fn check_store(store: &str) -> Result<(), (String, &'static str)> {
    const FORMS: &str =
        "write sqlite:heal.db, sqlite:///absolute/path.db or postgres://user:password@host/database";
    if super::Postgres::is_meant(store) {
        return match super::Postgres::parse(store) {
            Ok(_) => Ok(()),
            Err(why) => Err((format!("the PostgreSQL store cannot be used: {why}"), FORMS)),
        };
    }
    let Some(path) = store.strip_prefix("sqlite:") else {
        return Err(("`store` is none that heal knows".to_owned(), FORMS));
    };
    let file = match path.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err(("`sqlite://` needs a third slash, or none of them".to_owned(), FORMS)),
        None => path,
    };
    if file.contains(":memory:") {
        return Err(("a store in memory forgets what runs".to_owned(), FORMS));
    }
    if file.trim_matches('/').is_empty() || file.ends_with('/') || file.chars().any(char::is_control) {
        return Err(("the store names no file".to_owned(), FORMS));
    }
    if file.contains('?') || file.contains('#') {
        return Err(("options in the store are not supported yet".to_owned(), FORMS));
    }
    Ok(())
}
