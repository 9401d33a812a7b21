//! Slack's markup reduced to what people read: links become their label or address, mentions
//! become inert words, and the escaping of `&`, `<` and `>` is undone once.
//!
//! Invisible characters stay: a reader must be able to see that a host name carried them. They go
//! when a value is taken ([`crate::text::clean`]).

use crate::text::unescape;

/// Text without markup, and the addresses that were linked in it on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    pub text: String,
    /// In order; without those that Slack made of bare host names by itself.
    pub links: Vec<String>,
}

/// Links kept of one text.
const MAX_LINKS: usize = 20;

/// Reads one mrkdwn text. Linear in its length: a `<` is markup only up to the next `<` or `>`.
pub(super) fn plain(raw: &str) -> Plain {
    let mut out = Plain { text: String::with_capacity(raw.len()), links: Vec::new() };
    let mut rest = raw;
    while let Some(open) = rest.find('<') {
        out.text.push_str(&unescape(&rest[..open]));
        let after = &rest[open + 1..];
        match after.find(['<', '>']) {
            Some(close) if after[close..].starts_with('>') => {
                entity(&after[..close], &mut out);
                rest = &after[close + 1..];
            }
            _ => {
                out.text.push('<');
                rest = after;
            }
        }
    }
    out.text.push_str(&unescape(rest));
    out
}

fn entity(inner: &str, out: &mut Plain) {
    let (target, label) = match inner.split_once('|') {
        Some((target, label)) => (unescape(target), Some(unescape(label)).filter(|label| !label.is_empty())),
        None => (unescape(inner), None),
    };
    if let Some(id) = target.strip_prefix('@') {
        let name = label.as_deref().unwrap_or(id);
        out.text.push('@');
        out.text.push_str(name.trim_start_matches('@'));
    } else if let Some(id) = target.strip_prefix('#') {
        out.text.push('#');
        out.text.push_str(label.as_deref().unwrap_or(id));
    } else if let Some(command) = target.strip_prefix('!') {
        match label {
            Some(label) => out.text.push_str(&label),
            None => {
                out.text.push('@');
                out.text.push_str(command.split('^').next().unwrap_or_default());
            }
        }
    } else if let Some(address) = target.strip_prefix("mailto:").or_else(|| target.strip_prefix("tel:")) {
        out.text.push_str(label.as_deref().unwrap_or(address));
    } else if target.contains("://") {
        match label {
            // Slack writes a bare host name as `<http://name|name>`: the name is meant, not a page.
            Some(label) if made_by_slack(&target, &label) => out.text.push_str(&label),
            Some(label) => {
                out.text.push_str(&label);
                keep(target, out);
            }
            None => {
                out.text.push_str(&target);
                keep(target, out);
            }
        }
    } else {
        // Nothing that Slack writes; it stays as it stands.
        out.text.push('<');
        out.text.push_str(&unescape(inner));
        out.text.push('>');
    }
}

fn keep(link: String, out: &mut Plain) {
    if out.links.len() < MAX_LINKS {
        out.links.push(link);
    }
}

fn made_by_slack(target: &str, label: &str) -> bool {
    let bare = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    bare.is_some_and(|bare| bare.trim_end_matches('/') == label)
}

/// Whether an address may be shown as a link: web only, of sane length, nothing invisible.
pub(super) fn web_link(raw: &str) -> Option<String> {
    let link = raw.trim();
    let web = link.starts_with("https://") || link.starts_with("http://");
    let clean = !link.chars().any(|ch| ch.is_whitespace() || crate::text::invisible(ch));
    (web && clean && link.len() <= 2000).then(|| link.to_owned())
}
