//! One line of Slack markup, built from pieces so that foreign text cannot become markup.
//!
//! Slack reads three things in a `mrkdwn` text: sequences in `<…>`, formatting characters, and
//! emoji shortcodes (docs.slack.dev/messaging/formatting-message-text). The first is escaped; the
//! others are broken with a word joiner, which shows nothing. Inside a code span only a backtick
//! has a meaning, and it is shown as `ˋ`. Commands and output do not come this way: they stand
//! in `rich_text_preformatted`, which is not parsed at all.

use crate::text::{clip, escape, invisible};
use crate::time::Timestamp;

const JOINER: char = '\u{2060}';

/// A line under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(String);

impl Line {
    pub fn new() -> Line {
        Line::default()
    }

    /// heal's own words: markup of ours, taken as it stands.
    pub fn ours(mut self, words: &'static str) -> Line {
        self.0.push_str(words);
        self
    }

    /// Foreign prose, shown as it is.
    pub fn plain(mut self, value: &str) -> Line {
        self.0.push_str(&defuse(value));
        self
    }

    /// heal's own words that hold numbers or durations.
    pub fn said(self, words: impl std::fmt::Display) -> Line {
        self.plain(&words.to_string())
    }

    /// A foreign name: a rule key, a host, an id.
    pub fn code(mut self, value: &str) -> Line {
        let value: String = one_line(value).chars().map(|ch| if ch == '`' { 'ˋ' } else { ch }).collect();
        let value = clip(value.trim(), 200);
        if value.is_empty() {
            self.0.push_str("(nothing)");
        } else {
            self.0.push('`');
            self.0.push_str(&escape(&value));
            self.0.push('`');
        }
        self
    }

    /// Bold; ours, so the words are known not to hold a star.
    pub fn bold(mut self, words: &str) -> Line {
        self.0.push('*');
        self.0.push_str(&defuse(words));
        self.0.push('*');
        self
    }

    /// A person; what is no id is shown as text.
    pub fn user(mut self, id: &str) -> Line {
        if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.0.push_str(&format!("<@{id}>"));
            self
        } else {
            self.plain(id)
        }
    }

    /// A user group by its id.
    pub fn group(mut self, id: &str, handle: &str) -> Line {
        if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.0.push_str(&format!("<!subteam^{id}>"));
            self
        } else {
            self.plain(handle)
        }
    }

    /// A time of day in the reader's zone; with its date where that is not today's.
    pub fn time(mut self, at: Timestamp, now: Timestamp) -> Line {
        let far = now.until(at).max(at.until(now)).as_secs() > 20 * 3600;
        let format = if far { "{date_short_pretty} {time}" } else { "{time}" };
        let fallback =
            if far { at.rfc3339().chars().take(10).collect::<String>() + " " } else { String::new() };
        self.0.push_str(&format!("<!date^{}^{format}|{fallback}{}>", at.as_secs(), at.clock_utc()));
        self
    }

    /// A time of day with its seconds, for what is about to happen.
    pub fn seconds(mut self, at: Timestamp) -> Line {
        self.0.push_str(&format!("<!date^{}^{{time_secs}}|{}>", at.as_secs(), at.clock_utc()));
        self
    }

    /// This line and then `other`.
    pub fn then(mut self, other: Line) -> Line {
        self.0.push_str(&other.0);
        self
    }

    /// A link, where `url` is one a browser opens; else its text.
    pub fn link(mut self, url: &str, label: &str) -> Line {
        let fit = escape(url).len() <= 1000
            && (url.starts_with("https://") || url.starts_with("http://"))
            && !url
                .chars()
                .any(|ch| ch.is_whitespace() || invisible(ch) || matches!(ch, '<' | '>' | '|' | '"'));
        if fit {
            let label = defuse(label).replace('|', "¦");
            self.0.push_str(&format!("<{}|{label}>", escape(url)));
            self
        } else {
            self.plain(label).ours(" ").plain(&clip(url, 300))
        }
    }

    /// Characters of the markup.
    pub fn count(&self) -> usize {
        self.0.chars().count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The finished markup.
    pub fn done(self) -> String {
        self.0
    }
}

/// Escaped, and with nothing left that Slack would format, link, mention or turn into an emoji.
pub fn defuse(value: &str) -> String {
    let value = one_line(value);
    let mut out = String::with_capacity(value.len() + 8);
    let mut chars = value.chars().peekable();
    let mut before = ' ';
    while let Some(ch) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        match ch {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Within a word (`disk_full`) these format nothing.
            '*' | '~' | '_' if before.is_alphanumeric() && next.is_alphanumeric() => out.push(ch),
            '*' | '~' | '`' | '_' => {
                out.push(JOINER);
                out.push(ch);
                out.push(JOINER);
            }
            // `:word:` becomes an emoji, `@channel` a broadcast in old clients.
            ':' if emoji(chars.clone()) => out.extend([ch, JOINER]),
            '@' if broadcast(chars.clone()) => out.extend([ch, JOINER]),
            other => out.push(other),
        }
        before = ch;
    }
    out
}

/// Whether `rest` goes on as a shortcode does up to its second colon.
fn emoji(mut rest: impl Iterator<Item = char>) -> bool {
    let mut length = 0;
    rest.find(|ch| {
        length += 1;
        length > 100 || !(ch.is_alphanumeric() || matches!(ch, '+' | '-' | '_' | '\'' | '.'))
    }) == Some(':')
        && length > 1
}

fn broadcast(rest: impl Iterator<Item = char>) -> bool {
    let word: String = rest.take_while(|ch| ch.is_alphanumeric()).take(10).collect();
    ["channel", "here", "everyone", "group"].contains(&word.to_lowercase().as_str())
}

/// Line breaks become spaces and invisible characters go: a value cannot begin a quote or a list.
fn one_line(value: &str) -> String {
    value
        .chars()
        .filter_map(|ch| match ch {
            '\n' | '\r' | '\t' => Some(' '),
            ch if invisible(ch) => None,
            ch => Some(ch),
        })
        .collect()
}
