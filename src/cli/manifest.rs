//! The Slack app manifest: the least that heal needs, ready for "Create an app from a manifest".
//!
//! Slack takes it as YAML and as JSON (docs.slack.dev/reference/app-manifest); JSON needs no second parser.

use serde_json::{Value, json};

/// How Slack reaches heal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Socket,
    /// `base_url`: where Slack reaches `listen`, for example `https://heal.example.com`.
    Http {
        base_url: String,
    },
}

/// The bot token's scopes, each with what heal needs it for; nothing that no call needs.
pub(super) const SCOPES: &[(&str, &str)] = &[
    ("app_mentions:read", "`@heal pause` in threads"),
    ("channels:history", "alerts in public channels, and those posted while heal was down"),
    ("channels:read", "the names of public channels in slack.channels"),
    ("chat:write", "declarations, reports and answers"),
    ("commands", "`/heal`"),
    ("files:write", "output that is longer than a message"),
    ("groups:history", "alerts in private channels"),
    ("groups:read", "the names of private channels in slack.channels"),
    ("reactions:write", "the reaction on the alert that shows where it stands"),
    ("usergroups:read", "approvers written as @handle"),
    ("users:read", "who is a guest, from outside or gone, and so may not approve"),
];

/// The manifest as JSON.
pub fn manifest(mode: &Mode) -> String {
    let url = |path: &str| match mode {
        Mode::Socket => None,
        Mode::Http { base_url } => Some(format!("{}{path}", base_url.trim_end_matches('/'))),
    };
    let mut command = json!({
        "command": "/heal",
        "description": "Pause, resume, run and look at rules",
        "usage_hint": "help | pause KEY [2h] [reason] | resume KEY | status | rules | show KEY | run KEY HOST",
        "should_escape": false,
    });
    let mut events = json!({ "bot_events": ["app_mention", "message.channels", "message.groups"] });
    let mut interactivity = json!({ "is_enabled": true });
    put(&mut command, "url", url("/slack/commands"));
    put(&mut events, "request_url", url("/slack/events"));
    put(&mut interactivity, "request_url", url("/slack/interactions"));
    let scopes: Vec<&str> = SCOPES.iter().map(|(scope, _)| *scope).collect();
    let manifest = json!({
        "_metadata": { "major_version": 2 },
        "display_information": {
            "name": "heal",
            "description": "Heals servers: declares, asks, runs through AWS SSM, reports.",
            "background_color": "#1f4d3a",
        },
        "features": {
            "bot_user": { "display_name": "heal", "always_online": true },
            "slash_commands": [command],
        },
        "oauth_config": { "scopes": { "bot": scopes } },
        "settings": {
            "event_subscriptions": events,
            "interactivity": interactivity,
            "org_deploy_enabled": false,
            "socket_mode_enabled": *mode == Mode::Socket,
            "token_rotation_enabled": false,
        },
    });
    format!("{manifest:#}\n")
}

fn put(object: &mut Value, name: &str, value: Option<String>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_owned(), Value::String(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_socket_mode_nothing_has_a_url() {
        let parsed: Value = serde_json::from_str(&manifest(&Mode::Socket)).unwrap();
        assert_eq!(parsed["settings"]["socket_mode_enabled"], true);
        assert!(!manifest(&Mode::Socket).contains("url\""));
        assert_eq!(parsed["features"]["slash_commands"][0]["command"], "/heal");
    }

    #[test]
    fn in_http_mode_slack_is_told_the_three_urls() {
        let parsed: Value =
            serde_json::from_str(&manifest(&Mode::Http { base_url: "https://heal.example.com/".into() }))
                .unwrap();
        assert_eq!(parsed["settings"]["socket_mode_enabled"], false);
        assert_eq!(
            parsed["settings"]["event_subscriptions"]["request_url"],
            "https://heal.example.com/slack/events"
        );
        assert_eq!(
            parsed["settings"]["interactivity"]["request_url"],
            "https://heal.example.com/slack/interactions"
        );
        assert_eq!(parsed["features"]["slash_commands"][0]["url"], "https://heal.example.com/slack/commands");
    }

    #[test]
    fn it_keeps_within_slacks_lengths() {
        let parsed: Value = serde_json::from_str(&manifest(&Mode::Socket)).unwrap();
        let length = |at: &str| parsed.pointer(at).and_then(Value::as_str).unwrap().chars().count();
        assert!(length("/display_information/name") <= 35);
        assert!(length("/display_information/description") <= 140);
        assert!(length("/features/slash_commands/0/usage_hint") <= 1_000);
    }
}
