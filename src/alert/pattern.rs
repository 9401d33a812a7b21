//! Alerts by the user's own regular expression: in-house scripts, old monitors, anything with a line.
//!
//! The pattern is tried on the message's text; where that holds no match, on its blocks, then on each
//! attachment's pretext, title, text, fallback and blocks in this order (the first of them that
//! matches stands for the attachment). In each it is tried line by line and on the whole, and the
//! way with more matches counts, the whole where both find as many: so `^…$` reads every line of
//! a list, and a pattern that spans lines works too. Each match is an alert.

use std::collections::BTreeMap;

use regex::{Captures, Regex};

use super::read::{MAX_ALERTS, distinct, label, name_of, place_of, prose, role_of};
use super::{Alert, Message, Reading, Sender, Status, markup};
use crate::text::clean;

/// What firing and resolved are called where the config does not say.
const FIRING: &[&str] =
    &["firing", "alert", "alerting", "critical", "warning", "error", "problem", "down", "triggered"];
const RESOLVED: &[&str] = &["resolved", "ok", "recovery", "recovered", "up", "normal"];

/// Reads a message by `pattern`. Status words are compared without regard to case; an empty list
/// means the usual words. A status in neither list makes the match no alert; a pattern without a
/// `status` group only ever fires.
pub(super) fn read(
    sender: &Sender,
    message: &Message,
    pattern: &Regex,
    firing: &[String],
    resolved: &[String],
) -> Reading {
    let reader = Reader { sender, pattern, firing, resolved };
    let mut found = Found::default();
    reader.text(&message.text, first_link(&message.links, None), &mut found);
    if !found.matched {
        reader.text(&message.blocks, first_link(&message.links, None), &mut found);
    }
    if !found.matched {
        for attachment in message.attachments.iter().filter(|attachment| !attachment.quoted) {
            let link = first_link(&[], attachment.title_link.as_deref());
            let texts = [
                &attachment.pretext,
                &attachment.title,
                &attachment.text,
                &attachment.fallback,
                &attachment.blocks,
            ];
            let mut here = Found::default();
            for text in texts {
                if !here.matched {
                    reader.text(text, link.clone(), &mut here);
                }
            }
            found.join(here);
        }
    }
    if let Some(why) = found.unreadable {
        Reading::Unreadable(why)
    } else if !found.alerts.is_empty() {
        Reading::Alerts(distinct(found.alerts))
    } else if let Some(why) = found.passed {
        Reading::NotAnAlert(why)
    } else if says_nothing(message) {
        Reading::NotAnAlert("it has no text".to_owned())
    } else {
        Reading::Unreadable("it does not match the sender's pattern".to_owned())
    }
}

fn says_nothing(message: &Message) -> bool {
    let empty = |text: &str| clean(text, 2).is_empty();
    empty(&message.text)
        && empty(&message.blocks)
        && message.attachments.iter().filter(|attachment| !attachment.quoted).all(|attachment| {
            [
                &attachment.title,
                &attachment.pretext,
                &attachment.text,
                &attachment.fallback,
                &attachment.blocks,
            ]
            .iter()
            .all(|text| empty(text) || *text == "[no preview available]")
        })
}

fn first_link(links: &[String], title_link: Option<&str>) -> Option<String> {
    title_link.or_else(|| links.first().map(String::as_str)).and_then(markup::web_link)
}

#[derive(Default)]
struct Found {
    matched: bool,
    alerts: Vec<Alert>,
    /// Why a match is no alert.
    passed: Option<String>,
    /// Why a match that should be one is not.
    unreadable: Option<String>,
}

impl Found {
    fn join(&mut self, other: Found) {
        self.matched |= other.matched;
        self.alerts.extend(other.alerts);
        self.passed = self.passed.take().or(other.passed);
        self.unreadable = self.unreadable.take().or(other.unreadable);
    }
}

struct Reader<'a> {
    sender: &'a Sender,
    pattern: &'a Regex,
    firing: &'a [String],
    resolved: &'a [String],
}

impl Reader<'_> {
    fn text(&self, text: &str, link: Option<String>, found: &mut Found) {
        if text.is_empty() {
            return;
        }
        // One more than is taken, so that the excess is seen and said.
        let enough = MAX_ALERTS + 1;
        let whole: Vec<Captures<'_>> = self.pattern.captures_iter(text).take(enough).collect();
        let lines: Vec<Captures<'_>> =
            text.lines().flat_map(|line| self.pattern.captures_iter(line)).take(enough).collect();
        let matches = if whole.len() >= lines.len() { whole } else { lines };
        for captures in
            matches.into_iter().filter(|captures| captures.get(0).is_some_and(|all| !all.is_empty()))
        {
            found.matched = true;
            if let Err(why) = self.alerts(&captures, link.as_deref(), found) {
                found.unreadable.get_or_insert(why);
            }
        }
    }

    fn alerts(&self, captures: &Captures<'_>, link: Option<&str>, found: &mut Found) -> Result<(), String> {
        let group = |name: &str| {
            let value = captures.name(name)?.as_str().trim();
            (!value.is_empty()).then_some(value)
        };
        let word = group("status");
        let status = match word {
            None if self.pattern.capture_names().flatten().any(|name| name == "status") => {
                return Err("the pattern's `status` is empty".to_owned());
            }
            None => Status::Firing,
            Some(word) if listed(word, self.firing, FIRING, self.resolved) => Status::Firing,
            Some(word) if listed(word, self.resolved, RESOLVED, self.firing) => Status::Resolved,
            Some(word) => {
                let word = clean(word, 40);
                found
                    .passed
                    .get_or_insert(format!("{word:?} is neither firing nor resolved for this sender"));
                return Ok(());
            }
        };
        let name = name_of(group("alert").or_else(|| group("alertname")).ok_or("it names no alert")?)?;
        let mut labels = BTreeMap::new();
        for name in self.pattern.capture_names().flatten() {
            if let Some(value) = group(name) {
                label(&mut labels, name, value);
            }
        }
        let role_label = self.sender.role.as_deref();
        let role_group = role_label.and_then(group).or_else(|| group("role")).or_else(|| group("job"));
        let role = role_group.and_then(role_of);
        if role.is_none() {
            for name in role_label.into_iter().chain(["role", "job"]) {
                labels.remove(name);
            }
        }
        let host_label = self.sender.instance.as_deref().filter(|name| group(name).is_some());
        let host_label = host_label
            .or_else(|| ["instance", "host", "instance_id"].into_iter().find(|name| group(name).is_some()));
        let severity = group("severity").or(word.filter(|_| status == Status::Firing));
        let alert = Alert {
            name,
            status,
            role,
            host: None,
            instance: None,
            instance_id: None,
            severity: severity.map(|severity| clean(severity, 40)),
            summary: group("summary").and_then(prose),
            fingerprint: group("fingerprint").map(|fingerprint| clean(fingerprint, 200)),
            link: group("link").and_then(markup::web_link).or_else(|| link.map(str::to_owned)),
            start: group("start").map(|start| clean(start, 80)),
            labels,
        };
        // `web-012,web-013` stands for an alert on each.
        let hosts: Vec<&str> = host_label
            .and_then(group)
            .map(|hosts| hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect())
            .unwrap_or_default();
        if hosts.len() > MAX_ALERTS {
            return Err(format!("it names more than {MAX_ALERTS} hosts"));
        }
        if hosts.is_empty() {
            found.alerts.push(alert.clone());
        }
        for host in hosts {
            let mut one = alert.clone();
            if let Some(host_label) = host_label {
                label(&mut one.labels, host_label, host);
            }
            if !no_host(host) {
                // A fingerprint of several hosts tells none of them apart.
                let id = group("instance_id").filter(|id| !id.contains(','));
                let place = place_of(Some(host), id);
                one.host = place.host;
                one.instance = place.instance;
                one.instance_id = place.instance_id;
            }
            found.alerts.push(one);
        }
        Ok(())
    }
}

/// Whether `word` is in the sender's list, or among the usual words where that list is empty and
/// the other list does not claim the word.
fn listed(word: &str, list: &[String], usual: &[&str], other: &[String]) -> bool {
    let is = |name: &str| name.to_lowercase() == word.to_lowercase();
    if list.is_empty() {
        usual.iter().any(|name| is(name)) && !other.iter().any(|name| is(name))
    } else {
        list.iter().any(|name| is(name))
    }
}

/// What scripts write where they have no host.
fn no_host(value: &str) -> bool {
    ["-", "--", "none", "null", "n/a", "unknown"].iter().any(|word| value.eq_ignore_ascii_case(word))
}
