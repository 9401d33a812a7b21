//! What Slack has limited, and until when: the one place that every call of this process asks first.
//!
//! Slack limits each method for the whole workspace, and posting for each channel besides
//! (docs.slack.dev/apis/web-api/rate-limits), so a 429 stops the method everywhere; one of
//! `chat.postMessage` stops its channel, and posting everywhere once a second channel is limited too.
//! Until then a call is answered here, by the wait that is left, and does not reach Slack. Limits are told
//! to whoever listens, so that other processes with the same token can keep them as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::Error;

/// The method that Slack limits by channel.
pub(crate) const POST: &str = "chat.postMessage";
/// What is called by `response_url`, and has no method's name.
pub(crate) const RESPOND: &str = "response_url";

/// "Wait 0 s" is not taken at its word.
const SHORTEST: Duration = Duration::from_millis(200);
/// Processes that were told of one limit do not all come back in the same instant.
const SPREAD: Duration = Duration::from_millis(400);
/// So many limits wait for a slow listener. One that lags misses the oldest; its own 429 tells it.
const UNHEARD: usize = 256;

/// A limit, as one process tells another of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// As Slack spells it, `chat.update`.
    pub method: String,
    /// None: in the whole workspace.
    pub channel: Option<String>,
    /// From the moment of telling. No clock but a database's or one process's own is needed to pass it on:
    /// store "now + wait" and read "until - now".
    pub wait: Duration,
}

/// The limits known. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    until: Mutex<HashMap<String, Method>>,
    told: broadcast::Sender<Limited>,
}

#[derive(Debug, Default)]
struct Method {
    everywhere: Option<Instant>,
    channels: HashMap<String, Instant>,
}

/// The limits of one moment, for many questions.
pub(crate) struct Known<'a>(MutexGuard<'a, HashMap<String, Method>>);

impl Default for Limits {
    fn default() -> Limits {
        let (told, _) = broadcast::channel(UNHEARD);
        Limits(Arc::new(Inner { until: Mutex::default(), told }))
    }
}

impl Limits {
    /// What is known now. Hold it for an instant only.
    pub(crate) fn known(&self) -> Known<'_> {
        Known(self.0.until.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// May the method be called now? [`Error::RateLimited`] with the wait that is left, if not.
    pub(crate) fn ask(&self, method: &str, channel: Option<&str>) -> Result<(), Error> {
        let now = Instant::now();
        match self.known().until(method, channel.unwrap_or_default(), now) {
            Some(until) => Err(Error::RateLimited { retry_after: until - now }),
            None => Ok(()),
        }
    }

    /// Slack said "wait" to a call of ours.
    pub(crate) fn met(&self, method: &str, channel: Option<&str>, wait: Duration) {
        let channel = channel.filter(|_| method == POST);
        let now = Instant::now();
        let wait = wait.max(SHORTEST);
        let mut known = self.known();
        known.set(method, channel, now + wait, now);
        let mut limits =
            vec![Limited { method: method.to_owned(), channel: channel.map(str::to_owned), wait }];
        if let Some(until) = channel.and_then(|channel| known.elsewhere(method, channel, now)) {
            // A second channel at the same time: it is the workspace's limit that was met.
            let until = until.max(now + wait);
            known.set(method, None, until, now);
            limits.push(Limited { method: method.to_owned(), channel: None, wait: until - now });
        }
        drop(known);
        for limited in limits {
            // Nobody need listen.
            let _ = self.0.told.send(limited);
        }
    }

    /// Another process met a limit.
    pub(crate) fn learn(&self, limited: &Limited) {
        let now = Instant::now();
        let until = now + limited.wait + SPREAD.mul_f64(fastrand::f64());
        self.known().set(&limited.method, limited.channel.as_deref(), until, now);
    }

    /// Every limit that this process meets from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Limited> {
        self.0.told.subscribe()
    }
}

impl Known<'_> {
    /// Until when the method may not be called for this channel; None where it may.
    pub(crate) fn until(&self, method: &str, channel: &str, now: Instant) -> Option<Instant> {
        self.everywhere(method, now).max(self.in_channel(method, channel, now))
    }

    /// Until when the method may not be called at all.
    pub(crate) fn everywhere(&self, method: &str, now: Instant) -> Option<Instant> {
        self.0.get(method)?.everywhere.filter(|until| *until > now)
    }

    /// Until when the method is limited in this channel in particular.
    pub(crate) fn in_channel(&self, method: &str, channel: &str, now: Instant) -> Option<Instant> {
        self.0.get(method)?.channels.get(channel).copied().filter(|until| *until > now)
    }

    /// Until when another channel is limited.
    fn elsewhere(&self, method: &str, channel: &str, now: Instant) -> Option<Instant> {
        let channels = &self.0.get(method)?.channels;
        let others = channels.iter().filter(|(name, until)| *name != channel && **until > now);
        others.map(|(_, until)| *until).max()
    }

    /// A limit never shortens another.
    fn set(&mut self, method: &str, channel: Option<&str>, until: Instant, now: Instant) {
        let method = self.0.entry(method.to_owned()).or_default();
        method.channels.retain(|_, until| *until > now);
        match channel {
            None => method.everywhere = method.everywhere.max(Some(until)),
            Some(channel) => {
                let known = method.channels.entry(channel.to_owned()).or_insert(until);
                *known = until.max(*known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn left(limits: &Limits, method: &str, channel: &str) -> Option<Duration> {
        match limits.ask(method, Some(channel)) {
            Ok(()) => None,
            Err(Error::RateLimited { retry_after }) => Some(retry_after),
            Err(error) => panic!("{error}"),
        }
    }

    fn about(left: Option<Duration>, seconds: u64) -> bool {
        let wanted = Duration::from_secs(seconds);
        left.is_some_and(|left| left <= wanted && left + SECOND / 2 > wanted)
    }

    #[test]
    fn a_methods_limit_holds_in_every_channel_and_for_no_other_method() {
        let limits = Limits::default();
        limits.met("chat.update", Some("C1"), 7 * SECOND);
        assert!(about(left(&limits, "chat.update", "C1"), 7));
        assert!(about(left(&limits, "chat.update", "C2"), 7));
        assert_eq!(left(&limits, POST, "C1"), None);
        assert_eq!(left(&limits, "reactions.add", "C1"), None);
    }

    #[test]
    fn posting_is_limited_by_channel_until_a_second_channel_is_limited_too() {
        let limits = Limits::default();
        let mut told = limits.listen();
        limits.met(POST, Some("C1"), 9 * SECOND);
        assert!(about(left(&limits, POST, "C1"), 9));
        assert_eq!(left(&limits, POST, "C2"), None);
        limits.met(POST, Some("C2"), 3 * SECOND);
        for channel in ["C1", "C2", "C3"] {
            assert!(about(left(&limits, POST, channel), 9), "{channel}");
        }
        let mut said = Vec::new();
        while let Ok(limited) = told.try_recv() {
            said.push((limited.channel, limited.wait.as_secs_f64().round() as u64));
        }
        assert_eq!(said, [(Some("C1".to_owned()), 9), (Some("C2".to_owned()), 3), (None, 9)]);
    }

    #[test]
    fn a_shorter_limit_does_not_end_a_longer_one_and_no_wait_is_nothing() {
        let limits = Limits::default();
        limits.met("chat.update", None, 9 * SECOND);
        limits.met("chat.update", None, SECOND);
        assert!(about(left(&limits, "chat.update", "C1"), 9));
        limits.met("users.info", None, Duration::ZERO);
        assert!(limits.ask("users.info", None).is_err());
    }

    #[test]
    fn what_another_process_met_is_kept_and_not_told_on() {
        let limits = Limits::default();
        let mut told = limits.listen();
        limits.learn(&Limited { method: POST.into(), channel: Some("C1".into()), wait: 5 * SECOND });
        let left = left(&limits, POST, "C1").unwrap();
        assert!(left > 4 * SECOND && left <= 5 * SECOND + SPREAD, "{left:?}");
        assert!(limits.ask(POST, Some("C2")).is_ok());
        assert!(told.try_recv().is_err());
    }
}
