//! Messages of Prometheus' Alertmanager: its default template, the templates people copy, and heal's.
//!
//! Only what a message says by name is surely known. The default title carries label values without
//! names; a host or a role is taken from it when exactly one value can be it, and never for a group
//! of several alerts. Where the lines listed contradict the count in the title, nothing is read.

mod details;
mod parts;
mod subject;

use std::collections::BTreeMap;

use self::details::Listed;
use self::parts::Part;
use super::read::{distinct, label, name_of, place_of, prose, role_of};
use super::{Alert, Message, Reading, Sender, Status, VALUES, host};
use crate::text::clean;

/// The `slack_configs` entry to use with heal: each alert with its status and all its labels, one a
/// line, so that nothing has to be guessed, and people still read it well. White space and backticks
/// within a value are folded (`reReplaceAll`), so a label cannot forge a line of another.
///
/// It renders as
///
/// ```text
/// [FIRING:1] NginxDown
/// *FIRING* NginxDown — nginx has stopped
/// • *alertname:* `NginxDown`
/// • *instance:* `web-012:9100`
/// • *role:* `web`
/// • *severity:* `critical`
/// • *startsAt:* `2026-11-23T05:06:24Z`
/// • *fingerprint:* `6d3b6b2e9ab6a0d5`
/// ```
pub const TEMPLATE: &str = r##"slack_configs:
  - channel: "#alerts"
    send_resolved: true
    title: >-
      [{{ .Status | toUpper }}{{ if eq .Status "firing" }}:{{ .Alerts.Firing | len }}{{ if .Alerts.Resolved }}, RESOLVED:{{ .Alerts.Resolved | len }}{{ end }}{{ end }}] {{ .CommonLabels.alertname }}
    title_link: '{{ template "slack.default.titlelink" . }}'
    text: |-
      {{ range .Alerts }}*{{ .Status | toUpper }}* {{ .Labels.alertname }}{{ with .Annotations.summary }} — {{ reReplaceAll "[\\s\u0060]+" " " . }}{{ end }}
      {{ range .Labels.SortedPairs }}• *{{ .Name }}:* `{{ reReplaceAll "[\\s\u0060]+" " " .Value }}`
      {{ end }}• *startsAt:* `{{ .StartsAt.UTC.Format "2006-01-02T15:04:05Z" }}`
      • *fingerprint:* `{{ .Fingerprint }}`
      {{ end }}
"##;

pub(super) fn read(sender: &Sender, message: &Message, known_role: &dyn Fn(&str) -> bool) -> Reading {
    let reader = Reader { sender, known_role };
    let parts = parts::of(message);
    if parts.is_empty() {
        return if parts::says_nothing(message) {
            Reading::NotAnAlert("it has no text".to_owned())
        } else {
            Reading::Unreadable(
                "it has no `[FIRING:n]` or `[RESOLVED]` and lists no labels; see the README for a template"
                    .to_owned(),
            )
        };
    }
    let mut alerts = Vec::new();
    for part in &parts {
        match reader.alerts(part) {
            Ok(read) => alerts.extend(read),
            Err(why) => return Reading::Unreadable(why),
        }
    }
    Reading::Alerts(distinct(alerts))
}

struct Reader<'a> {
    sender: &'a Sender,
    known_role: &'a dyn Fn(&str) -> bool,
}

impl Reader<'_> {
    fn alerts(&self, part: &Part<'_>) -> Result<Vec<Alert>, String> {
        if part.contradictory {
            return Err("its title and its fallback disagree on whether it fires".to_owned());
        }
        if part.listed.is_empty() {
            let subject = part.subject.as_ref().ok_or("it has no status")?;
            return Ok(vec![self.alert(part, &Listed::default(), subject.status)?]);
        }
        let statuses = statuses(part)?;
        part.listed.iter().zip(statuses).map(|(listed, status)| self.alert(part, listed, status)).collect()
    }

    fn alert(&self, part: &Part<'_>, listed: &Listed<'_>, status: Status) -> Result<Alert, String> {
        let subject = part.subject.as_ref();
        let words = subject.map(|subject| subject.words.as_slice()).unwrap_or_default();
        let said = listed.label("alertname").or(listed.name);
        let name = name_of(said.or_else(|| words.first().copied()).unwrap_or_default())?;

        // Values without names tell of an alert only where it is the only one and has no labels listed.
        let single = subject.is_some_and(|subject| subject.count().is_none_or(|count| count == 1));
        let nameless = !listed.labels.contains_key("alertname") && part.listed.len() <= 1;
        let values = if nameless { words.get(1..).unwrap_or_default() } else { &[] };
        let guessed = if single { values } else { &[] };

        let mut labels = BTreeMap::new();
        for (note, text) in &listed.notes {
            if ["summary", "description", "message", "title", "runbook_url"].contains(&note.as_str()) {
                label(&mut labels, note, text);
            }
        }
        for (name, value) in &listed.labels {
            if let Some(value) = value {
                label(&mut labels, name, value);
            }
        }
        label(&mut labels, "alertname", &name);
        label(&mut labels, VALUES, &values.join(" "));

        let (role_label, role) = self.role(listed, guessed);
        if role.is_none()
            && let Some(role_label) = role_label
        {
            labels.remove(role_label);
        }
        let place = self.place(listed, guessed);
        let fingerprint = labels.remove("fingerprint").filter(|print| is_fingerprint(print));
        let start =
            ["startsAt", "starts_at", "start", "started"].iter().find_map(|name| labels.remove(*name));
        let severity = listed.label("severity").or(listed.severity).or_else(|| only_severity(values));
        if let Some(severity) = severity
            && !labels.contains_key("severity")
        {
            label(&mut labels, "severity", severity);
        }
        let note = |name: &str| listed.notes.get(name).copied();
        let summary = note("summary")
            .or(listed.summary)
            .or_else(|| ["title", "message", "description"].into_iter().find_map(note))
            .unwrap_or(part.prose);
        Ok(Alert {
            name,
            status,
            role,
            host: place.host,
            instance: place.instance,
            instance_id: place.instance_id,
            severity: severity.map(|severity| clean(severity, 40)),
            summary: prose(summary),
            fingerprint,
            link: part.link.and_then(super::markup::web_link),
            start: start.map(|start| clean(&start, 80)),
            labels,
        })
    }

    /// The label that is ROLE, and the role. A label that is there but cannot be a role (it contradicts
    /// itself, or poses as another) is not passed over for the next.
    fn role(&self, listed: &Listed<'_>, guessed: &[&str]) -> (Option<&str>, Option<String>) {
        let names = self.sender.role.as_deref().map_or(vec!["role", "job"], |name| vec![name]);
        if let Some(name) = names.into_iter().find(|name| listed.labels.contains_key(*name)) {
            return (Some(name), listed.label(name).and_then(role_of));
        }
        let mut known: Vec<String> =
            guessed.iter().filter(|word| (self.known_role)(word)).filter_map(|word| role_of(word)).collect();
        known.sort_unstable();
        known.dedup();
        (None, if known.len() == 1 { known.pop() } else { None })
    }

    fn place(&self, listed: &Listed<'_>, guessed: &[&str]) -> super::read::Place {
        let names = self.sender.instance.as_deref().map_or(vec!["instance", "host"], |name| vec![name]);
        let contradictory = |name: &str| listed.labels.contains_key(name) && listed.label(name).is_none();
        if names.iter().any(|name| contradictory(name)) || contradictory("instance_id") {
            return super::read::Place::default();
        }
        let id = listed.label("instance_id");
        if let Some(said) = names.into_iter().find_map(|name| listed.label(name)) {
            return place_of(Some(said), id);
        }
        let Some((_, value)) = host::guess(guessed) else { return place_of(None, id) };
        let mut ids: Vec<&str> = guessed.iter().copied().filter(|word| host::is_instance_id(word)).collect();
        ids.dedup();
        place_of(Some(value), id.or(if ids.len() == 1 { ids.first().copied() } else { None }))
    }
}

/// The status of each alert listed. Err where the subject's counts leave it open: the copied templates
/// list firing and resolved alerts alike without saying which is which.
fn statuses(part: &Part<'_>) -> Result<Vec<Status>, String> {
    let marked = |status| part.listed.iter().filter(|listed| listed.status == Some(status)).count();
    let (firing, resolved, all) = (marked(Status::Firing), marked(Status::Resolved), part.listed.len());
    let open = all - firing - resolved;
    let default = match &part.subject {
        None if open == 0 => Status::Firing,
        None if all > 1 => return Err("it does not say which of its alerts fire".to_owned()),
        None => match part.color {
            Some("danger" | "a30200" | "A30200") => Status::Firing,
            Some("good" | "2eb886" | "36a64f") => Status::Resolved,
            _ => return Err("it does not say whether the alert fires".to_owned()),
        },
        Some(subject) => {
            let told = match subject.status {
                Status::Firing => subject.firing,
                Status::Resolved => subject.resolved,
            };
            let others = if subject.status == Status::Firing { subject.resolved.unwrap_or(0) } else { 0 };
            let (same, other) = match subject.status {
                Status::Firing => (firing, resolved),
                Status::Resolved => (resolved, firing),
            };
            // Alerts that fire and are not in the subject's count are forged, or nobody's.
            if told.is_some_and(|told| same > told) || (subject.status == Status::Resolved && other > 0) {
                return Err("it lists more alerts than its subject counts".to_owned());
            }
            if open > 0 && told.is_some_and(|told| same + open > told) {
                return Err(if others > 0 || subject.status == Status::Firing {
                    "it lists more alerts than fire and does not say which of them are resolved".to_owned()
                } else {
                    "it lists more alerts than its subject counts".to_owned()
                });
            }
            subject.status
        }
    };
    Ok(part.listed.iter().map(|listed| listed.status.unwrap_or(default)).collect())
}

/// Alertmanager's fingerprint is 16 hexadecimal digits; a label of that name may be anything.
fn is_fingerprint(value: &str) -> bool {
    (8..=64).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one severity among values without names.
fn only_severity<'a>(values: &[&'a str]) -> Option<&'a str> {
    const WORDS: &[&str] = &[
        "critical",
        "crit",
        "warning",
        "warn",
        "error",
        "info",
        "informational",
        "none",
        "page",
        "ticket",
        "emergency",
        "fatal",
        "disaster",
        "major",
        "minor",
        "high",
        "medium",
        "low",
        "notice",
        "debug",
        "p1",
        "p2",
        "p3",
        "p4",
        "p5",
        "sev1",
        "sev2",
        "sev3",
        "sev4",
        "sev5",
    ];
    let mut found = values.iter().filter(|value| WORDS.iter().any(|word| value.eq_ignore_ascii_case(word)));
    let first = found.next()?;
    found.all(|other| other == first).then_some(*first)
}

#[cfg(test)]
mod tests;
