//! Foreign text made safe: a value from an alert or a host is data, never markup, shell or a mention.
//!
//! Every value is cleaned and bounded once, where it enters ([`clean`]), and escaped where it
//! leaves for Slack ([`escape`]). Output of commands goes through [`redact`] before it is kept or shown.

use std::sync::LazyLock;

use regex::Regex;

/// Removes control, format and other invisible characters, folds white space and keeps at most
/// `max` characters. A value longer than that ends in `…`.
pub fn clean(value: &str, max: usize) -> String {
    let mut out = String::with_capacity(value.len().min(max * 4));
    let mut count = 0;
    let mut space = false;
    for ch in value.chars() {
        if ch.is_whitespace() {
            space = count > 0;
            continue;
        }
        if invisible(ch) {
            continue;
        }
        if space {
            if count + 1 >= max {
                out.push('…');
                return out;
            }
            out.push(' ');
            count += 1;
            space = false;
        }
        if count + 1 > max {
            out.pop();
            out.push('…');
            return out;
        }
        out.push(ch);
        count += 1;
    }
    out
}

/// Characters that show nothing or change how others show: controls, zero-width, bidirectional
/// overrides, tags, soft hyphen, variation selectors (Unicode general categories Cc, Cf and kin).
pub fn invisible(ch: char) -> bool {
    ch.is_control()
        || matches!(ch,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

/// Escapes the three characters that make Slack's markup: `<!channel>` becomes text.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    for ch in value.chars() {
        match ch {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out
}

/// Undoes Slack's escaping, once: `&lt;` `&gt;` `&amp;`.
pub fn unescape(value: &str) -> String {
    if !value.contains('&') {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (plain, len) = if rest.starts_with("&lt;") {
            ('<', 4)
        } else if rest.starts_with("&gt;") {
            ('>', 4)
        } else if rest.starts_with("&amp;") {
            ('&', 5)
        } else {
            ('&', 1)
        };
        out.push(plain);
        rest = &rest[len..];
    }
    out.push_str(rest);
    out
}

/// Keeps at most `max` characters from the start of `value`, ending in `…` when something was cut.
pub fn clip(value: &str, max: usize) -> String {
    if value.chars().count() <= max {
        return value.to_owned();
    }
    let mut out: String = value.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// What common credentials look like; each match's secret part becomes `[redacted]`.
#[expect(clippy::expect_used, reason = "constant patterns, compiled by a test")]
static SECRETS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // Slack tokens and webhooks.
        (r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}|\bxapp-[A-Za-z0-9-]{8,}", "[redacted]"),
        (r"(hooks\.slack\.com/(?:services|workflows)/)[A-Za-z0-9/_-]+", "$1[redacted]"),
        // AWS access key ids, and secret keys where they are named.
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "[redacted]"),
        // GitHub, GitLab, Stripe, Google, OpenAI-like, npm, PyPI.
        (r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}", "[redacted]"),
        (r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|\bAIza[A-Za-z0-9_-]{30,}|\bsk-[A-Za-z0-9_-]{20,}", "[redacted]"),
        (r"\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}", "[redacted]"),
        // JSON web tokens and private keys.
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", "[redacted]"),
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)", "[redacted private key]"),
        // The end of one whose beginning is not there.
        (r"[A-Za-z0-9+/=\s]{16,}-----END [A-Z ]*PRIVATE KEY-----", "[redacted private key]"),
        // Authorization headers, and a password within a URL.
        (r"(?i)\b(authorization\s*:\s*(?:basic|bearer|token)\s+)\S+", "$1[redacted]"),
        (r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{16,}", "$1[redacted]"),
        (r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", "$1[redacted]@"),
        // name=value and "name": "value" where the name says what it is; --password value.
        (
            r#"(?i)((?:[A-Za-z0-9_.-]*(?:password|passwd|passphrase|secret|token|api_?-?key|access_?-?key|private_?-?key|credential)[A-Za-z0-9_.-]*|\bpwd)["']?\s*[=:]\s*["']?)[^\s"',;&]+"#,
            "$1[redacted]",
        ),
        (r#"(?i)(--(?:password|passwd|token|secret|api-key)\s+["']?)[^\s"']+"#, "$1[redacted]"),
    ]
    .into_iter()
    .map(|(pattern, with)| (Regex::new(pattern).expect("a constant pattern"), with))
    .collect()
});

/// Blots common credential patterns out of `output`.
pub fn redact(output: &str) -> String {
    let mut text = std::borrow::Cow::Borrowed(output);
    for (pattern, with) in SECRETS.iter() {
        if let std::borrow::Cow::Owned(changed) = pattern.replace_all(&text, *with) {
            text = std::borrow::Cow::Owned(changed);
        }
    }
    text.into_owned()
}

/// The text with stars for the passwords in its URLs (`scheme://user:password@host`), as long as before.
pub fn mask_passwords(text: &str) -> std::borrow::Cow<'_, str> {
    let mut masked = std::borrow::Cow::Borrowed(text);
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let begin = from + found + 3;
        let end = text[begin..].find(char::is_whitespace).map_or(text.len(), |length| begin + length);
        from = begin;
        let Some(at) = text[begin..end].rfind('@').map(|at| begin + at) else { continue };
        let Some(colon) = text[begin..at].find(':').map(|colon| begin + colon + 1) else { continue };
        masked.to_mut().replace_range(colon..at, &"*".repeat(at - colon));
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_become_stars_of_their_length() {
        for (text, masked) in [
            ("store: postgres://heal:secret@h/db # x", "store: postgres://heal:******@h/db # x"),
            ("[a://u:p@ss@h, b://u:é@h]", "[a://u:****@h, b://u:**@h]"),
            ("https://h:80/a?b=c no@body", "https://h:80/a?b=c no@body"),
            ("postgres://heal@h/db ://", "postgres://heal@h/db ://"),
        ] {
            assert_eq!(mask_passwords(text), masked);
            assert_eq!(masked.len(), text.len());
        }
    }

    #[test]
    fn cleaning_removes_what_cannot_be_seen_and_bounds_the_rest() {
        assert_eq!(clean("web\u{200B}-0\u{202E}12\u{7}", 80), "web-012");
        assert_eq!(clean("  a \n\t b  ", 80), "a b");
        assert_eq!(clean("abcdef", 4), "abc…");
        assert_eq!(clean("abcd", 4), "abcd");
        assert_eq!(clean("abc def", 4), "abc…");
        assert_eq!(clean("", 4), "");
    }

    #[test]
    fn escaping_and_unescaping_are_inverse_once() {
        let odd = "<!channel> & <@U1> &lt;";
        assert_eq!(unescape(&escape(odd)), odd);
        assert_eq!(unescape("&amp;lt; &x"), "&lt; &x");
    }

    #[test]
    fn credentials_are_blotted_out() {
        for (secret, shown) in [
            ("xoxb-1234567890-abcdefghij", "xoxb-1234567890"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIAIOS"),
            ("aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "wJalr"),
            ("postgres://user:hunter2@db/x", "hunter2"),
            ("Authorization: Bearer abc.def-ghi", "abc.def"),
            ("DB_PASSWORD=hunter2", "hunter2"),
            (r#"{"apiKey": "hunter2"}"#, "hunter2"),
            ("mysql --password hunter2", "hunter2"),
            ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----", "hunter2"),
            ("hunter2hunter2hunter2\n-----END RSA PRIVATE KEY-----", "hunter2"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVm", "dozjg"),
        ] {
            let red = redact(secret);
            assert!(!red.contains(shown), "{secret:?} became {red:?}");
            assert!(red.contains("[redacted"), "{secret:?} became {red:?}");
        }
        let plain = "nginx.service: active (running), 3 tokens of work, pid=12";
        assert_eq!(redact(plain), plain);
    }
}
