//! From a trusted sender's message to alerts: picks the format, and holds what all formats share.

use std::collections::BTreeMap;

use super::{Alert, Format, Message, Reading, Sender, alertmanager, host, pattern};
use crate::text::{clean, invisible};

/// More alerts than this in one message are no alert message but an accident.
pub(super) const MAX_ALERTS: usize = 200;
/// Characters kept of a name, a label's value and a summary.
pub(super) const NAME: usize = 200;
pub(super) const VALUE: usize = 1_000;
pub(super) const SUMMARY: usize = 500;

/// Reads a message of `sender` (whom [`super::trusted`] found) by its format. `known_role` says
/// whether a word is the role of some rule; it is asked where label values stand without names.
pub fn read(sender: &Sender, message: &Message, known_role: &dyn Fn(&str) -> bool) -> Reading {
    let reading = match &sender.format {
        Format::Alertmanager => alertmanager::read(sender, message, known_role),
        Format::Pattern { pattern, firing, resolved } => {
            pattern::read(sender, message, pattern, firing, resolved)
        }
    };
    match reading {
        Reading::Alerts(alerts) if alerts.len() > MAX_ALERTS => Reading::Unreadable(format!(
            "it carries {} alerts; more than {MAX_ALERTS} in one message are not taken",
            alerts.len()
        )),
        other => other,
    }
}

/// A name fit for a rule key. Err with the reason when there is none, or when it mixes scripts to
/// look like another name.
pub(super) fn name_of(raw: &str) -> Result<String, String> {
    let name = clean(raw, NAME);
    if name.is_empty() {
        Err("it names no alert".to_owned())
    } else if poses(&name) {
        Err(format!("the alert's name {name:?} mixes letters of several scripts that look alike"))
    } else {
        Ok(name)
    }
}

/// A role fit for a rule key; none when it carries invisible characters or mixes look-alike
/// letters into a Latin name, because it then is not the role that people see.
pub(super) fn role_of(raw: &str) -> Option<String> {
    let role = raw.trim();
    let honest = !role.is_empty() && !poses(role) && !role.chars().any(invisible);
    (honest && role.chars().count() <= NAME).then(|| clean(role, NAME))
}

/// Whether Latin letters stand beside letters of a script that has twins of them.
fn poses(value: &str) -> bool {
    let twin = |ch: char| {
        matches!(ch,
            '\u{0370}'..='\u{03FF}' | '\u{0400}'..='\u{052F}' | '\u{0530}'..='\u{058F}'
            | '\u{13A0}'..='\u{13FF}' | '\u{1F00}'..='\u{1FFF}' | '\u{2C80}'..='\u{2CFF}'
            | '\u{A640}'..='\u{A69F}' | '\u{AB70}'..='\u{ABBF}' | '\u{FF21}'..='\u{FF5A}'
            | '\u{1D400}'..='\u{1D7FF}')
    };
    value.chars().any(|ch| ch.is_ascii_alphabetic()) && value.chars().any(twin)
}

/// The members of an alert that come from where it ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub host: Option<String>,
    pub instance: Option<String>,
    pub instance_id: Option<String>,
}

/// Reads the label that names the host, and the label with the instance id where there is one. A
/// host label that is no host spoils the id too: such a message is not to be acted on.
pub(super) fn place_of(instance: Option<&str>, id: Option<&str>) -> Place {
    let named = instance.map(str::trim).filter(|label| !label.is_empty());
    let host = named.and_then(host::host_of);
    if named.is_some() && host.is_none() {
        return Place { host, instance: named.map(|label| clean(label, VALUE)), instance_id: None };
    }
    let said = id.map(str::trim).filter(|id| host::is_instance_id(id)).map(str::to_owned);
    let instance_id = said.or_else(|| host.as_deref().and_then(host::instance_id_in));
    Place { host, instance: named.map(|label| clean(label, VALUE)), instance_id }
}

/// A text for people, bounded; none when it is empty.
pub(super) fn prose(raw: &str) -> Option<String> {
    Some(clean(raw, SUMMARY)).filter(|text| !text.is_empty())
}

/// Adds a label, cleaned and bounded; empty ones say nothing.
pub(super) fn label(labels: &mut BTreeMap<String, String>, name: &str, raw: &str) {
    let value = clean(raw, VALUE);
    if !value.is_empty() {
        labels.insert(clean(name, NAME), value);
    }
}

/// The alerts without exact repetitions, in order.
pub(super) fn distinct(alerts: Vec<Alert>) -> Vec<Alert> {
    let mut seen = std::collections::HashSet::new();
    alerts.into_iter().filter(|alert| seen.insert((alert.identity(), alert.status))).collect()
}
