//! What Slack refuses until a person changes something: known here so that it is said once and not with
//! every message, shown where the bot is asked how it is, and gone when such a call succeeds again.

use std::collections::BTreeMap;

use super::Method;
use crate::slack::Error;

/// What a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    method: Method,
    channel: String,
}

impl Place {
    pub(super) fn new(method: Method, channel: &str) -> Place {
        Place { method, channel: channel.to_owned() }
    }
}

/// All that is refused now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Every call alike.
    all: Option<Error>,
    /// Calls of one method for one channel.
    some: BTreeMap<Place, Error>,
    /// How often something was mended for all, and by channel.
    all_mended: u64,
    mended: BTreeMap<String, u64>,
}

impl Troubles {
    /// Whether something stands that may concern this channel.
    pub fn concern(&self, channel: &str) -> bool {
        self.all.is_some() || self.some.keys().any(|place| place.channel == channel)
    }

    /// Grows whenever Slack takes again something of what it refused in this channel.
    pub fn mends(&self, channel: &str) -> u64 {
        self.all_mended + self.mended.get(channel).copied().unwrap_or_default()
    }

    /// Why nothing can be said at all, if so, with what to do about it.
    pub fn of_all(&self) -> Option<String> {
        self.all.as_ref().map(sentence)
    }

    /// What else is refused, a line each: `chat.postMessage in C0123: Slack refused: not_in_channel; hint: …`.
    pub fn lines(&self) -> Vec<String> {
        let line = |(place, error): (&Place, &Error)| {
            format!("{} in {}: {}", place.method.name(), place.channel, sentence(error))
        };
        self.some.iter().map(line).collect()
    }

    /// A call failed with this. Whether that was not known.
    pub(super) fn met(&mut self, place: Option<Place>, error: &Error) -> bool {
        if !error.needs_person() {
            return false;
        }
        let Some(place) = place else { return false };
        let named = place.clone();
        let known = if error.concerns_all() {
            self.all.replace(error.clone())
        } else {
            self.some.insert(place, error.clone())
        };
        let new = known.as_ref().and_then(Error::code) != error.code();
        if new {
            tracing::error!(
                method = named.method.name(), channel = named.channel, %error,
                "what is owed to Slack waits for a person: {} in {}: {}", named.method.name(), named.channel, sentence(error)
            );
        }
        new
    }

    /// Such calls succeeded. Whether they were refused before.
    pub(super) fn mended(&mut self, places: impl IntoIterator<Item = Place>) -> bool {
        let mut mended = false;
        for place in places {
            // Slack takes something, so whoever calls may call.
            if self.all.take().is_some() {
                mended = true;
                self.all_mended += 1;
            }
            if self.some.remove(&place).is_some() {
                mended = true;
                *self.mended.entry(place.channel.clone()).or_default() += 1;
                tracing::info!(
                    channel = place.channel,
                    "Slack takes {} in {} again",
                    place.method.name(),
                    place.channel
                );
            }
        }
        mended
    }
}

fn sentence(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; hint: {hint}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(method: Method, channel: &str) -> Option<Place> {
        Some(Place::new(method, channel))
    }

    #[test]
    fn a_refusal_is_known_once_and_gone_when_its_own_kind_of_call_succeeds_there() {
        let mut troubles = Troubles::default();
        let out = Error::refused("not_in_channel", "");
        assert!(troubles.met(place(Method::Post, "C1"), &out));
        assert!(!troubles.met(place(Method::Post, "C1"), &out), "it is known");
        assert!(
            troubles.met(place(Method::Upload, "C1"), &Error::refused("missing_scope", "needed files:write"))
        );
        assert_eq!(
            troubles.lines(),
            [
                "chat.postMessage in C1: Slack refused: not_in_channel; hint: invite the app to the channel: /invite @heal",
                "files.getUploadURLExternal in C1: Slack refused: missing_scope: needed files:write; hint: the app lacks a scope; update it from `heal manifest` and install it again",
            ]
        );
        assert!(troubles.concern("C1") && !troubles.concern("C2"));
        assert!(!troubles.mended(place(Method::Post, "C2")), "another channel");
        assert!(troubles.mended(place(Method::Post, "C1")));
        assert_eq!((troubles.mends("C1"), troubles.mends("C2")), (1, 0));
        assert!(troubles.concern("C1"), "uploads are refused still");
        assert!(troubles.mended(place(Method::Upload, "C1")));
        assert!(!troubles.concern("C1") && troubles.lines().is_empty());
    }

    #[test]
    fn a_bad_token_concerns_every_channel_until_any_call_succeeds() {
        let mut troubles = Troubles::default();
        assert!(troubles.met(place(Method::Post, "C1"), &Error::refused("token_revoked", "")));
        assert!(!troubles.met(place(Method::Update, "C2"), &Error::refused("token_revoked", "")));
        assert!(troubles.concern("C9") && troubles.of_all().unwrap().contains("copy it afresh"));
        assert!(troubles.mended(place(Method::React, "C3")));
        assert_eq!((troubles.of_all(), troubles.mends("C9")), (None, 1));
    }

    #[test]
    fn what_is_wrong_with_one_message_is_no_trouble_for_the_others() {
        let mut troubles = Troubles::default();
        assert!(!troubles.met(place(Method::Post, "C1"), &Error::refused("invalid_blocks", "")));
        assert!(!troubles.met(place(Method::Post, "C1"), &Error::unclear("no answer")));
        assert_eq!(troubles, Troubles::default());
    }
}
