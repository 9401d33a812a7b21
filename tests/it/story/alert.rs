//! Alerts as the stories' Alertmanager posts them, by the widely copied template of details.

use heal::sandbox::workspace::Posting;
use serde_json::{Value, json};

use super::{CHANNEL, Story};

/// An alert message that was posted.
#[derive(Clone, Debug)]
pub struct Alert {
    pub role: String,
    pub name: String,
    /// One alert of the message for each.
    pub hosts: Vec<String>,
    /// The message's stamp.
    pub ts: String,
}

/// The attachments of a message about one alert on each of these hosts.
pub fn attachments(firing: bool, role: &str, name: &str, hosts: &[&str]) -> Value {
    let status = if firing { format!("[FIRING:{}]", hosts.len()) } else { "[RESOLVED]".to_owned() };
    let one = |host: &&str| {
        let labels = [
            ("alertname", name),
            ("instance", &format!("{host}:9100")),
            ("job", "node"),
            ("mountpoint", "/var/log"),
            ("role", role),
            ("severity", "critical"),
        ];
        let labels = labels.map(|(label, value)| format!("  • *{label}:* `{value}`")).join("\n");
        format!(
            "*Alert:* {name} on {host} - `critical`\n*Description:* {name} on {host}.\n*Details:*\n{labels}"
        )
    };
    let text = hosts.iter().map(one).collect::<Vec<_>>().join("\n\n");
    let link = "https://alertmanager.example.com/#/alerts";
    json!([{
        "fallback": format!("{status} {name} ({role} critical) | <{link}>"),
        "color": if firing { "a30200" } else { "2eb886" },
        "title": format!("{status} {name} for node"),
        "title_link": link,
        "text": text,
        "mrkdwn_in": ["fallback", "pretext", "text"],
    }])
}

impl Alert {
    /// The thread under any message.
    pub fn at(ts: &str) -> Alert {
        Alert { role: String::new(), name: String::new(), hosts: Vec::new(), ts: ts.to_owned() }
    }
}

impl Story {
    /// A stamp of this moment by the bot's clock.
    pub fn stamp(&mut self) -> String {
        self.stamps += 1;
        let now = self.clock.now().0;
        format!("{}.{:03}{:03}", now / 1000, now % 1000, self.stamps % 1000)
    }

    /// Alertmanager posts that this fires on this host.
    pub fn alert(&mut self, role: &str, name: &str, host: &str) -> Alert {
        self.group(role, name, &[host])
    }

    /// One message for several hosts.
    pub fn group(&mut self, role: &str, name: &str, hosts: &[&str]) -> Alert {
        let ts = self.stamp();
        self.alert_at(&ts, role, name, hosts)
    }

    /// With a stamp of its own.
    pub fn alert_at(&mut self, ts: &str, role: &str, name: &str, hosts: &[&str]) -> Alert {
        let posting =
            Posting::of_sender("B0PROM", CHANNEL, "").attachments(attachments(true, role, name, hosts));
        let ts = self.workspace.post_message(posting.with_raw("ts", ts.into())).unwrap();
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Alert { role: role.to_owned(), name: name.to_owned(), hosts, ts }
    }

    /// Alertmanager posts that it is over.
    pub fn resolve(&mut self, alert: &Alert) {
        let ts = self.stamp();
        let hosts: Vec<&str> = alert.hosts.iter().map(String::as_str).collect();
        let attachments = attachments(false, &alert.role, &alert.name, &hosts);
        let posting = Posting::of_sender("B0PROM", CHANNEL, "").attachments(attachments);
        self.workspace.post_message(posting.with_raw("ts", ts.into())).unwrap();
    }
}
