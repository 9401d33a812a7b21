//! An alert as Alertmanager's Slack receiver posts it, with the widely copied template of details:
//! a title, a description, and one bullet a label. One message an alert; the resolved one has the
//! same labels, so that a reader knows which alert it ends.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::probe::{Check, Probe};
use crate::sandbox::fleet::Host;

/// The port of the exporter that Prometheus would scrape; heal has to cut it off.
const EXPORTER_PORT: u16 = 9100;

/// An alert, firing or resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub firing: bool,
    pub summary: String,
    /// With `alertname`, `role`, `instance` and `severity`.
    pub labels: BTreeMap<String, String>,
}

impl Alert {
    pub(super) fn of(check: &Check, host: &Host, said: &str, firing: bool) -> Self {
        let mut labels = BTreeMap::from([
            ("alertname".to_owned(), check.alert.clone()),
            ("instance".to_owned(), format!("{}:{EXPORTER_PORT}", host.spec.computer_name)),
            ("job".to_owned(), "node".to_owned()),
            ("role".to_owned(), check.role.clone()),
            ("severity".to_owned(), check.severity.clone()),
        ]);
        match &check.probe {
            Probe::Disk(mount, _) => labels.insert("mountpoint".to_owned(), mount.clone()),
            Probe::Process(name) | Probe::Heartbeat(name, _) | Probe::Lag(name, _) => {
                labels.insert("process".to_owned(), name.clone())
            }
        };
        Self { firing, summary: said.to_owned(), labels }
    }

    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The members of the bot message, as Slack keeps them (colours as hex, links in angle brackets).
#[must_use]
pub fn body(alert: &Alert, link: &str) -> Value {
    let (status, color) = if alert.firing { ("[FIRING:1]", "a30200") } else { ("[RESOLVED]", "2eb886") };
    let (name, role) = (escaped(alert.label("alertname")), escaped(alert.label("role")));
    let title = format!("{status} {name} for {role}");
    let values = ["role", "instance", "severity"].map(|label| escaped(alert.label(label))).join(" ");
    let bullets: Vec<String> =
        alert.labels.iter().map(|(name, value)| format!("  • *{name}:* `{}`", escaped(value))).collect();
    let text = format!(
        "*Alert:* {summary} - `{severity}`\n*Description:* {summary}.\n*Details:*\n{bullets}",
        summary = escaped(&alert.summary),
        severity = escaped(alert.label("severity")),
        bullets = bullets.join("\n"),
    );
    json!({
        "username": "Alertmanager",
        "icons": { "emoji": ":bell:" },
        "text": "",
        "attachments": [{
            "fallback": format!("{status} {name} ({values}) | <{link}>"),
            "color": color,
            "title": title,
            "title_link": link,
            "text": text,
            "mrkdwn_in": ["fallback", "pretext", "text"],
        }],
    })
}

/// As Slack stores text: its three control characters as entities.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
