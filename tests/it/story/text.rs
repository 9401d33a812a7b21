//! A message's text with what differs from one telling to the next replaced.

use std::sync::LazyLock;

use heal::sandbox::workspace::Message;
use regex::Regex;

static CHANGING: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"<https://[^|>]+\|posted>", "posted"),
        (r"<!date\^[^>]*>", "TIME"),
        (r"`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`", "`COMMAND`"),
        (r"`[a-z2-9]{12}(x[0-9]+)?`", "`ID`"),
        (r"`i-[0-9a-f]{17}`", "`i-…`"),
        (r"\b(under )?[0-9]+(\.[0-9]+)? seconds?\b", "SECONDS"),
    ]
    .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
    .into()
});

/// Fails unless the message reads like this, whatever the indentation.
#[track_caller]
pub fn assert_reads(message: &Message, expected: &str) {
    let text = message.read();
    let text =
        CHANGING.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned());
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines, expected, "it reads:\n{text}");
}
