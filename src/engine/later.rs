//! What Slack did not take is tried again later, for as long as that may help.
//!
//! Trouble that may pass is tried again after a growing pause. What is refused until a person changes
//! something (a token, a scope, an invitation) stays owed too: one try at a time finds out for a channel
//! whether it was mended, and then all that waits goes. Nothing of this is kept in the store: what is owed
//! stands there, and its age says when nobody waits for it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Engine;
use crate::lifecycle::{Effect, Input, Remediation};
use crate::slack::Error;
use crate::store::{self, Needs, Owed};
use crate::time::Timestamp;

/// The pause after a failure that may pass; it doubles up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Between two tries that find out whether a person mended something; it doubles up to the second.
const PROBED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(900));
/// What was refused does not go at once when others are taken: it may be refused for itself.
const ALONE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(900));
/// What was not tried for so long failed for the first time, when it fails again.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What failed, and how often; lost at a restart, which is a good moment to try.
#[derive(Debug, Default)]
pub(super) struct Later {
    failures: Mutex<HashMap<String, (u32, Instant)>>,
    channels: Mutex<HashMap<String, Arc<Probe>>>,
}

/// Whose turn it is to find out in a channel, and how many did in vain.
#[derive(Debug, Default)]
struct Probe {
    turn: tokio::sync::Mutex<()>,
    vain: AtomicU32,
}

impl Later {
    /// It failed: how often it did so far, with this time.
    pub(super) fn failed(&self, what: &str) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, (_, at)| at.elapsed() < FORGOTTEN);
        let (count, at) = failures.entry(what.to_owned()).or_insert((0, Instant::now()));
        (*count, *at) = (count.saturating_add(1), Instant::now());
        *count
    }

    fn probe(&self, channel: &str) -> Arc<Probe> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(channels.entry(channel.to_owned()).or_default())
    }
}

/// The pause after so many failures, a little apart from others'.
fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Whether `error` is no reason any more to keep owing what began then.
pub(super) fn is_out_of_time(error: &Error, since: Timestamp, now: Timestamp) -> bool {
    error.owed_for().is_some_and(|most| now.since(since) >= most)
}

impl Engine {
    /// Slack refused it for good: done. Else again later.
    pub(super) async fn settle_or_retry(&self, owed: Owed, error: &Error) {
        if error.is_final() {
            self.settled(&owed).await;
        } else {
            self.retry_later(owed, Some(error.clone()));
        }
    }

    /// Performs a still owed effect again, as after a restart: looked up first. `error`: why Slack did not
    /// take it, where it did not.
    pub(super) fn retry_later(&self, owed: Owed, error: Option<Error>) {
        let engine = self.clone();
        // Others may go meanwhile.
        self.0.in_hand.leave(&owed);
        tokio::spawn(async move {
            let failures = engine.0.later.failed(&format!("{}/{}", owed.remediation, owed.effect.as_str()));
            let Some(remediation) = engine.still_owed(&owed).await else { return };
            if let Some(error) = &error
                && is_out_of_time(error, remediation.opened_at, engine.clock().now())
            {
                return Box::pin(engine.give_up(owed, error)).await;
            }
            let channel = remediation.origin.channel.clone();
            drop(remediation);
            match error {
                Some(error) => Box::pin(engine.until_again(&channel, &error, failures)).await,
                None => tokio::time::sleep(pause(AGAIN, failures)).await,
            }
            if let Some(remediation) = engine.still_owed(&owed).await {
                engine.carry_or_keep(owed, Arc::new(remediation), true);
            }
        });
    }

    /// Ends when it is worth a try to say again what failed in this channel `failures` times, at last so.
    pub(super) async fn until_again(&self, channel: &str, error: &Error, failures: u32) {
        if !error.needs_person() {
            return tokio::time::sleep(pause(AGAIN, failures)).await;
        }
        let queue = &self.parts().queue;
        let mends = queue.troubles().mends(channel);
        tokio::time::sleep(pause(ALONE, failures)).await;
        let probe = self.0.later.probe(channel);
        let turn = async {
            let _turn = probe.turn.lock().await;
            let vain = probe.vain.load(Ordering::Relaxed).saturating_add(1);
            tokio::time::sleep(pause(PROBED, vain)).await;
            probe.vain.store(vain, Ordering::Relaxed);
        };
        tokio::select! {
            () = turn => {}
            () = queue.mended(channel, mends) => probe.vain.store(0, Ordering::Relaxed),
        }
    }

    /// The remediation of an effect that is in hand; `None` where there is nothing to perform it for.
    pub(super) async fn still_owed(&self, owed: &Owed) -> Option<Remediation> {
        let mut wait = Duration::from_secs(1);
        loop {
            let id = owed.remediation.clone();
            let needs = Needs::default().remediation(&owed.remediation);
            match self.store().with(needs).transact_claimed(move |tx| tx.remediation(&id)).await {
                Ok(Some((remediation, _))) => return Some(remediation),
                Ok(None) => {
                    self.0.in_hand.end(owed);
                    return None;
                }
                // It stays in hand, so that nobody meets it again.
                Err(store::Error::Corrupt { what, why }) => {
                    tracing::error!(why, "a stored {what} cannot be read; what it owes is passed over");
                    return None;
                }
                Err(error) if error.is_final() => return None,
                Err(error) => self.store_failed("reading what is owed", &error),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(60));
        }
    }

    /// Nobody waits for it any more.
    async fn give_up(&self, owed: Owed, error: &Error) {
        self.metrics().slack_given_up.inc();
        let (id, effect) = (owed.remediation.clone(), owed.effect.as_str());
        tracing::error!(remediation = %id, %error, "Slack refused the {effect} of remediation {id} for too long; it is given up: {error}");
        match owed.effect {
            Effect::Declare => {
                self.settle_with(owed, Input::DeclarationRefused { why: error.to_string() }).await;
            }
            _ => self.settled(&owed).await,
        }
    }

    /// Says what Slack did not take: for good, or for now.
    pub(super) fn gave_up(&self, doing: &str, owed: &Owed, error: &Error) {
        let id = &owed.remediation;
        match () {
            () if error.is_final() => {
                self.metrics().slack_given_up.inc();
                let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                tracing::error!(remediation = %id, %error, "{doing} of remediation {id} failed for good: {error}{hint}");
            }
            // Said by the queue, once for all that it refuses.
            () if error.needs_person() => {
                tracing::debug!(remediation = %id, %error, "{doing} of remediation {id} waits for a person");
            }
            () => {
                tracing::warn!(remediation = %id, %error, "{doing} of remediation {id} has to wait: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_with_each_failure_and_has_an_end() {
        let seconds = |failures| pause(AGAIN, failures).as_secs_f64();
        assert!((4.5..5.5).contains(&seconds(1)), "{}", seconds(1));
        assert!((18.0..22.0).contains(&seconds(3)), "{}", seconds(3));
        assert!((270.0..330.0).contains(&seconds(1000)), "{}", seconds(1000));
        let later = Later::default();
        assert_eq!([later.failed("a"), later.failed("a"), later.failed("b")], [1, 2, 1]);
    }

    #[test]
    fn what_a_person_can_mend_is_owed_for_a_week_and_an_unknown_refusal_for_a_day() {
        let refused = |code: &str| Error::from_code(code, "");
        let after = |error: &Error, hours: u64| {
            is_out_of_time(
                error,
                Timestamp::default(),
                Timestamp::default().plus(Duration::from_secs(hours * 3600)),
            )
        };
        for code in ["not_in_channel", "token_revoked", "missing_scope", "two_factor_setup_required"] {
            assert!(!after(&refused(code), 7 * 24 - 1) && after(&refused(code), 7 * 24), "{code}");
        }
        assert!(!after(&refused("never_heard_of"), 23) && after(&refused("never_heard_of"), 24));
        assert!(after(&refused("invalid_blocks"), 0));
        assert!(!after(&refused("internal_error"), 10_000), "an outage is no refusal");
    }
}
