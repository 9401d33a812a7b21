//! Where in a message its notifications stand: in the text, in blocks, in attachments.
//!
//! Senders write the same thing in several places (title and fallback, text and blocks); each
//! notification is taken once, from the place that says most. Quoted attachments are left out.

use super::details::{self, Listed};
use super::subject::Subject;
use crate::alert::read::MAX_ALERTS;
use crate::alert::{Attachment, Message};
use crate::text::clean;

/// A stretch of the message about one notification: its subject and the alerts listed below it.
#[derive(Default)]
pub(super) struct Part<'a> {
    pub subject: Option<Subject<'a>>,
    /// The title and the fallback call it differently.
    pub contradictory: bool,
    pub listed: Vec<Listed<'a>>,
    pub prose: &'a str,
    pub link: Option<&'a str>,
    pub color: Option<&'a str>,
}

/// The message's parts, those of attachments first.
pub(super) fn of(message: &Message) -> Vec<Part<'_>> {
    let text = segments(&message.text);
    let blocks = segments(&message.blocks);
    let listed = |parts: &[Part<'_>]| parts.iter().map(|part| part.listed.len()).sum::<usize>();
    // A message's text is the short form of its blocks; the one that lists more is read.
    let mut main = if text.is_empty() || listed(&blocks) > listed(&text) { blocks } else { text };
    let link = message.links.first().map(String::as_str);
    for part in &mut main {
        part.link = link;
    }

    let mut own = Vec::new();
    let mut loose = Vec::new();
    for attachment in message.attachments.iter().filter(|attachment| !attachment.quoted) {
        for part in attached(attachment) {
            if part.subject.is_some() { own.push(part) } else { loose.push(part) }
        }
    }
    // Labels in attachments without a subject belong to the subject in the text.
    if let [announced] = main.as_mut_slice()
        && announced.listed.is_empty()
        && announced.subject.is_some()
        && own.is_empty()
    {
        for part in loose.drain(..) {
            announced.listed.extend(part.listed);
            announced.link = part.link.or(announced.link);
        }
    }
    own.extend(loose);
    if !own.is_empty() {
        // A text that only announces what the attachments say is no alert of its own.
        main.retain(|part| !part.listed.is_empty());
    }
    own.extend(main);
    own
}

/// The parts of a text without a title: one for each subject line, or one for labels without any.
fn segments(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let Some((mut subject, mut rest)) = Subject::find(text) else {
        let listed = details::list(text);
        if !listed.is_empty() {
            parts.push(Part { listed, ..Part::default() });
        }
        return parts;
    };
    loop {
        let next = Subject::find(rest);
        // What stands between two subjects; `after` is a suffix of `rest`, its subject line before it.
        let body = match &next {
            Some((_, after)) => {
                let upto = rest[..rest.len() - after.len()].trim_end_matches('\n');
                upto.rfind('\n').map_or("", |at| &upto[..at])
            }
            None => rest,
        };
        let listed = details::list(body);
        let prose = if listed.is_empty() { body } else { "" };
        parts.push(Part { subject: Some(subject), listed, prose, ..Part::default() });
        if parts.len() > MAX_ALERTS {
            return parts;
        }
        match next {
            Some((following, after)) => (subject, rest) = (following, after),
            None => return parts,
        }
    }
}

fn attached(attachment: &Attachment) -> Vec<Part<'_>> {
    let body = if attachment.text.trim().is_empty() { &attachment.blocks } else { &attachment.text };
    let heads = [&attachment.title, &attachment.pretext, &attachment.fallback];
    let subjects: Vec<Subject<'_>> =
        heads.iter().filter_map(|head| Subject::find(head).map(|(subject, _)| subject)).collect();
    let (link, color) = (attachment.title_link.as_deref(), attachment.color.as_deref());
    let Some(first) = subjects.first() else {
        let mut parts = segments(body);
        if parts.is_empty() {
            let mut part = Part::default();
            fields(attachment, &mut part);
            if !part.listed.is_empty() {
                parts.push(part);
            }
        }
        for part in &mut parts {
            (part.link, part.color) = (link, color);
        }
        return parts;
    };
    let contradictory = subjects.iter().any(|subject| subject.status != first.status);
    // The fallback of the copied templates is the default subject, with values; their title is not.
    let richest = subjects
        .iter()
        .filter(|subject| first.words.is_empty() || subject.words.first() == first.words.first())
        .max_by_key(|subject| subject.words.len())
        .unwrap_or(first);
    let mut subject = first.clone();
    subject.words.clone_from(&richest.words);
    if subject.count().is_none() {
        let counted = subjects.iter().find(|subject| subject.count().is_some());
        (subject.firing, subject.resolved) = counted.map_or((None, None), |one| (one.firing, one.resolved));
    }
    let listed = details::list(body);
    let prose = if listed.is_empty() { body.as_str() } else { "" };
    let mut part = Part { subject: Some(subject), contradictory, listed, prose, link, color };
    fields(attachment, &mut part);
    vec![part]
}

/// An attachment's fields are labels of the one alert that it is about.
fn fields<'a>(attachment: &'a Attachment, part: &mut Part<'a>) {
    if part.listed.len() > 1 {
        return;
    }
    let mut one = part.listed.pop().unwrap_or_default();
    for field in &attachment.fields {
        let name = field.title.trim().trim_end_matches(':').to_owned();
        let shaped = !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b' ');
        let value = field.value.trim().trim_matches('`');
        if !shaped || value.is_empty() {
            continue;
        }
        match name.to_ascii_lowercase().as_str() {
            known @ ("summary" | "description" | "message") => {
                one.notes.entry(known.to_owned()).or_insert(value);
            }
            lower if name.contains(' ') || name.starts_with(|ch: char| ch.is_ascii_uppercase()) => {
                one.add(&lower.replace(' ', "_"), value);
            }
            _ => one.add(&name, value),
        }
    }
    if one != Listed::default() && (!one.labels.is_empty() || part.subject.is_some()) {
        part.listed.push(one);
    }
}

/// Whether nothing stands in the message that a person could read.
pub(super) fn says_nothing(message: &Message) -> bool {
    let empty = |text: &str| text == "[no preview available]" || clean(text, 2).is_empty();
    empty(&message.text)
        && empty(&message.blocks)
        && message.attachments.iter().filter(|attachment| !attachment.quoted).all(|attachment| {
            let texts = [&attachment.title, &attachment.pretext, &attachment.text, &attachment.fallback];
            texts.iter().all(|text| empty(text)) && empty(&attachment.blocks)
        })
}
