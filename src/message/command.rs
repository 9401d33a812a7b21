//! What `/heal …` and `@heal …` mean. Tolerant in how it is written, strict in what it means:
//! a word that is not understood is answered, never guessed at.

use std::time::Duration;

use crate::rule::RuleKey;
use crate::text::{invisible, unescape};
use crate::time::parse_duration;

use super::line::Line;

/// An order or a question. Keys are as written; they may hold `*` where the contract says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Pause { pattern: String, duration: Option<Duration>, reason: Option<String> },
    Resume { pattern: String },
    Status,
    Rules { filter: Option<String> },
    Show { key: String },
    History { key: Option<String> },
    Why { link: String },
    Run { key: String, host: String },
}

/// A line that could not be read, and the answer to it (Slack markup).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    pub text: String,
}

const WORDS: &[&str] = &["help", "pause", "resume", "status", "rules", "show", "history", "why", "run"];

/// Characters of a pause's reason that are kept.
const REASON: usize = 300;

/// Reads what follows `/heal`, or a whole mention. `thread_key`: the rule of the thread it was written in.
pub fn parse(text: &str, thread_key: Option<&RuleKey>) -> Result<Command, Slip> {
    let words = words(text);
    let mut words = words.iter().map(String::as_str);
    // A mention begins with the bot's own name.
    let mut first = words.next();
    if first.is_some_and(|word| word.starts_with("<@") || word.eq_ignore_ascii_case("/heal")) {
        first = words.next();
    }
    let Some(first) = first else { return Ok(Command::Help) };
    let rest: Vec<&str> = words.collect();
    let word = first.to_lowercase();
    match word.as_str() {
        "help" | "?" => Ok(Command::Help),
        "pause" => pause(&rest, thread_key),
        "resume" => {
            let pattern = one_key("resume", &rest, thread_key)?;
            Ok(Command::Resume { pattern: pattern_of(&pattern)? })
        }
        "status" => Ok(Command::Status),
        "rules" => Ok(Command::Rules { filter: (!rest.is_empty()).then(|| rest.join(" ")) }),
        "show" => Ok(Command::Show { key: key_of(&one_key("show", &rest, thread_key)?)? }),
        "history" => match (rest.as_slice(), thread_key) {
            ([], None) => Ok(Command::History { key: None }),
            ([], Some(key)) => Ok(Command::History { key: Some(key.to_string()) }),
            ([key], _) => Ok(Command::History { key: Some(pattern_of(key)?) }),
            _ => Err(usage("history [KEY]")),
        },
        "why" => match rest.as_slice() {
            [link] if link.starts_with("https://") => Ok(Command::Why { link: (*link).to_owned() }),
            _ => Err(usage("why LINK")),
        },
        "run" => match (rest.as_slice(), thread_key) {
            ([key, host], _) => Ok(Command::Run { key: key_of(key)?, host: (*host).to_owned() }),
            ([host], Some(key)) if !host.contains(':') => {
                Ok(Command::Run { key: key.to_string(), host: (*host).to_owned() })
            }
            _ => Err(usage("run KEY HOST")),
        },
        _ => {
            let line = Line::new().ours("I do not know ").code(first).ours(". ");
            Err(Slip::of(match nearest(&word, WORDS.iter().copied()) {
                Some(near) => line.ours("Did you mean ").code(&format!("/heal {near}")).ours("?"),
                None => line.code("/heal help").ours(" lists what I do."),
            }))
        }
    }
}

fn pause(rest: &[&str], thread_key: Option<&RuleKey>) -> Result<Command, Slip> {
    let (pattern, rest) = match (rest, thread_key) {
        ([first, rest @ ..], _) if first.contains(':') || *first == "*" => (pattern_of(first)?, rest),
        (rest, Some(key)) => (key.to_string(), rest),
        ([], None) => return Err(usage("pause KEY [DURATION] [reason…]")),
        ([first, ..], None) => return Err(not_a_key(first)),
    };
    let rest = match rest {
        [word, duration, ..] if word.eq_ignore_ascii_case("for") && number(duration) => &rest[1..],
        rest => rest,
    };
    let (duration, reason) = match rest {
        [first, reason @ ..] if number(first) => {
            let duration = parse_duration(&first.to_lowercase())
                .map_err(|why| Slip::of(Line::new().plain(&why.replace('`', "\"")).ours(".")))?;
            if duration.is_zero() {
                return Err(Slip::of(
                    Line::new().ours("A pause of no time pauses nothing; write 30m, 2h or 7d."),
                ));
            }
            (Some(duration), reason)
        }
        reason => (None, reason),
    };
    let reason = reason.join(" ");
    let reason = crate::text::clip(reason.trim_matches('"').trim(), REASON);
    Ok(Command::Pause { pattern, duration, reason: (!reason.is_empty()).then_some(reason) })
}

fn number(word: &str) -> bool {
    word.starts_with(|ch: char| ch.is_ascii_digit())
}

fn one_key(word: &'static str, rest: &[&str], thread_key: Option<&RuleKey>) -> Result<String, Slip> {
    match (rest, thread_key) {
        ([key], _) => Ok((*key).to_owned()),
        ([], Some(key)) => Ok(key.to_string()),
        _ => Err(usage(match word {
            "resume" => "resume KEY",
            _ => "show KEY",
        })),
    }
}

/// `ROLE:ALERT`, either side possibly with `*`; or `*` alone.
fn pattern_of(word: &str) -> Result<String, Slip> {
    let word = word.trim_matches(['"', '`', '\'']);
    if word == "*" { Ok(word.to_owned()) } else { key_of(word) }
}

fn key_of(word: &str) -> Result<String, Slip> {
    let word = word.trim_matches(['"', '`', '\'']);
    match word.split_once(':') {
        Some((role, alert)) if !role.is_empty() && !alert.is_empty() && word.len() <= 400 => {
            Ok(word.to_owned())
        }
        _ => Err(not_a_key(word)),
    }
}

fn not_a_key(word: &str) -> Slip {
    Slip::of(
        Line::new()
            .code(word)
            .ours(" is not a rule key; write ROLE:ALERT, for example ")
            .code("web:NginxDown")
            .ours(" or ")
            .code("web:*")
            .ours(". ")
            .code("/heal rules")
            .ours(" lists them."),
    )
}

fn usage(how: &'static str) -> Slip {
    Slip::of(Line::new().ours("Write ").code(&format!("/heal {how}")).ours("."))
}

impl Slip {
    pub(super) fn of(line: Line) -> Slip {
        Slip { text: line.done() }
    }
}

/// The key among `keys` that is meant: as written, or the only one that differs in case alone.
/// Else the answer with the nearest one.
pub fn known_key(written: &str, keys: impl Fn() -> Vec<String>) -> Result<String, Slip> {
    let keys = keys();
    if keys.iter().any(|key| key == written) {
        return Ok(written.to_owned());
    }
    let lower = written.to_lowercase();
    let mut same = keys.iter().filter(|key| key.to_lowercase() == lower);
    if let (Some(key), None) = (same.next(), same.next()) {
        return Ok(key.clone());
    }
    let line = Line::new().ours("There is no rule ").code(written).ours(". ");
    Err(Slip::of(match nearest(&lower, keys.iter().map(String::as_str)) {
        Some(near) => line.ours("Did you mean ").code(near).ours("?"),
        None => line.code("/heal rules").ours(" lists them."),
    }))
}

/// The most alike, where one is alike enough to be meant.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|one| (strsim::jaro_winkler(word, &one.to_lowercase()), one))
        .filter(|(alike, _)| *alike >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, one)| one)
}

/// Words of a text as Slack delivers it: `<…>` sequences resolved, then entities, then quotes made plain.
fn words(text: &str) -> Vec<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        plain.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('>') else {
            rest = &rest[at + 1..];
            continue;
        };
        let inside = &rest[at + 1..at + end];
        match inside.split_once('|') {
            // `<http://web-1|web-1>`: Slack made a link of what was typed.
            Some((link, label)) if !link.starts_with(['@', '#', '!']) => plain.push_str(label),
            _ if inside.starts_with(['@', '#', '!']) => {
                plain.push('<');
                plain.push_str(inside.split('|').next().unwrap_or(inside));
                plain.push('>');
            }
            _ => plain.push_str(inside),
        }
        // What follows a mention is another word.
        if inside.starts_with('@') {
            plain.push(' ');
        }
        rest = &rest[at + end + 1..];
    }
    plain.push_str(rest);
    let plain: String = unescape(&plain)
        .chars()
        .filter_map(|ch| match ch {
            '“' | '”' | '„' | '«' | '»' => Some('"'),
            '‘' | '’' | '‚' => Some('\''),
            ch if ch.is_whitespace() => Some(' '),
            ch if invisible(ch) => None,
            ch => Some(ch),
        })
        .collect();
    plain
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_matches('`').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}
