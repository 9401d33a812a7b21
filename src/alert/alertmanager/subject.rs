//! Alertmanager's subject line: `[FIRING:3] Name group-values (common-values) | link`.
//!
//! From `template/default.tmpl` of prometheus/alertmanager: label values without their names,
//! `alertname` first and the others sorted by name. Grafana and newer templates write
//! `[FIRING:2, RESOLVED:1]`.

use crate::alert::Status;

/// Values read of one subject; more are no subject.
const MAX_VALUES: usize = 200;

/// A subject line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    pub status: Status,
    /// How many fire and are resolved, where the line says so.
    pub firing: Option<usize>,
    pub resolved: Option<usize>,
    /// The words after the brackets: the name, then label values. The name may be missing.
    pub words: Vec<&'a str>,
}

impl<'a> Subject<'a> {
    /// The subject in the first line that has one.
    pub(super) fn find(text: &'a str) -> Option<(Subject<'a>, &'a str)> {
        let mut rest = text;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if let Some(subject) = Subject::parse(line) {
                return Some((subject, after));
            }
            rest = after;
        }
        None
    }

    /// Reads a line that begins, but for emoji, markup and bracketed tags, with `[FIRING` or `[RESOLVED`.
    pub(super) fn parse(line: &'a str) -> Option<Subject<'a>> {
        let mut rest = undecorated(line);
        // `[prod] [FIRING:1] …`: at most a few tags may stand before.
        for _ in 0..4 {
            let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
            if let Some((firing, resolved)) = counts(inside) {
                let fires = firing.is_some_and(|count| count != Some(0));
                let status = if fires { Status::Firing } else { Status::Resolved };
                if !fires && resolved.is_none_or(|count| count == Some(0)) {
                    return None;
                }
                return Some(Subject {
                    status,
                    firing: firing.flatten(),
                    resolved: resolved.flatten(),
                    words: words(after),
                });
            }
            rest = undecorated(after);
        }
        None
    }

    /// How many alerts the line stands for; `None` where it does not say.
    pub(super) fn count(&self) -> Option<usize> {
        match (self.firing, self.resolved) {
            (None, None) => None,
            (firing, resolved) => Some(firing.unwrap_or(0).saturating_add(resolved.unwrap_or(0))),
        }
    }
}

/// `FIRING:2, RESOLVED:1` → the count of each that is named: absent, without number, or a number.
type Counts = (Option<Option<usize>>, Option<Option<usize>>);

fn counts(inside: &str) -> Option<Counts> {
    let (mut firing, mut resolved) = (None, None);
    for part in inside.split([',', '|']) {
        let (word, count) = match part.split_once(':') {
            Some((word, count)) => (word.trim(), Some(count.trim().parse::<usize>().ok()?)),
            None => (part.trim(), None),
        };
        if word.eq_ignore_ascii_case("firing") {
            firing = Some(count);
        } else if word.eq_ignore_ascii_case("resolved") {
            resolved = Some(count);
        } else {
            return None;
        }
    }
    Some((firing, resolved))
}

/// The line without leading white space, markup (`*`, `_`, `` ` ``), emoji and `:emoji:`.
pub(super) fn undecorated(line: &str) -> &str {
    let mut rest = line;
    loop {
        rest =
            rest.trim_start_matches(|ch: char| !ch.is_alphanumeric() && !matches!(ch, '[' | '(' | ':' | '{'));
        match rest.strip_prefix(':').and_then(|after| after.split_once(':')) {
            Some((name, after)) if is_emoji(name) => rest = after,
            _ => return rest,
        }
    }
}

fn is_emoji(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 60
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_+-'".contains(&byte))
}

/// The words of `Name group (values…) | link`, without emoji and markup around the whole.
fn words(after: &str) -> Vec<&str> {
    let end = ["| http://", "| https://"].iter().filter_map(|mark| after.rfind(mark)).min();
    let text = after[..end.unwrap_or(after.len())].trim().trim_matches(['*', '_']).trim();
    let (group, values) = match text.split_once('(').filter(|_| text.ends_with(')')) {
        // A bracket within a word belongs to the word.
        Some((group, values)) if group.is_empty() || group.ends_with(' ') => {
            (group, values.strip_suffix(')').unwrap_or(values))
        }
        _ => (text, ""),
    };
    let all = group.split_whitespace().chain(values.split_whitespace());
    let emoji = |word: &&str| {
        word.strip_prefix(':').and_then(|name| name.strip_suffix(':')).is_some_and(is_emoji)
            || !word.contains(|ch: char| ch.is_alphanumeric())
    };
    all.filter(|word| !emoji(word)).take(MAX_VALUES).collect()
}
