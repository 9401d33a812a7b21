//! This process among its replicas: it shows that it lives, and sees which of the others do not. What
//! follows for its work is in [`super::owed`].
//!
//! No clock is compared with another's: who is silent is known by a beat that this process saw
//! unchanged, over a time in which it saw the database. A replica that was taken for dead and is not
//! finds out with its next transaction ([`store::Error::Fenced`]); before that it holds back what it
//! would say or send, as its own lease has run out first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch as channel;

use super::Engine;
use crate::slack::Limited;
use crate::store::{self, Beat, Limit};

/// How replicas tell that one of them is gone. All replicas on one database have to have the same: nobody
/// may take over while the one before still holds its lease. Only tests have other times than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often a replica shows that it lives.
    pub beat: Duration,
    /// So long after the begin of a beat it speaks and sends; shorter than both silences.
    pub held: Duration,
    /// Silence after which a replica is taken for dead that has no session in the database: its process
    /// has ended.
    pub silent: Duration,
    /// The same of one with a session: its host may be gone without a word.
    pub silent_in_session: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            beat: Duration::from_millis(500),
            held: Duration::from_secs(2),
            silent: Duration::from_millis(2500),
            silent_in_session: Duration::from_secs(9),
        }
    }
}

/// Whether this process may still speak and send for what it has claimed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    patience: Patience,
    until: Arc<Mutex<Option<Instant>>>,
}

impl Lease {
    pub fn new(patience: Patience) -> Lease {
        Lease { patience, until: Arc::default() }
    }

    /// Always true where there can be no other replica.
    pub fn is_held(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() < until)
    }

    /// Awaits that it is held.
    pub(super) async fn held(&self) {
        while !self.is_held() {
            tokio::time::sleep(self.patience.beat / 5).await;
        }
    }

    /// Held until a while after `since`, when a beat that succeeded was begun.
    fn renew(&self, since: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(since + self.patience.held);
    }
}

/// The others, as seen from here.
struct Others {
    patience: Patience,
    /// By number: the last beat, and since when it stands.
    seen: HashMap<i64, (i64, Instant)>,
}

impl Others {
    fn new(patience: Patience) -> Others {
        Others { patience, seen: HashMap::new() }
    }

    /// Takes a look at all replicas into account; those that are silent for too long.
    fn look(&mut self, me: i64, all: &[Beat], now: Instant) -> Vec<Beat> {
        self.seen.retain(|number, _| all.iter().any(|beat| beat.number == *number));
        let mut silent = Vec::new();
        for beat in all.iter().filter(|beat| beat.number != me) {
            let (last, since) = self.seen.entry(beat.number).or_insert((beat.beat, now));
            if *last != beat.beat {
                (*last, *since) = (beat.beat, now);
            }
            let patience = match beat.connected {
                true => self.patience.silent_in_session,
                false => self.patience.silent,
            };
            if now.duration_since(*since) >= patience {
                silent.push(*beat);
            }
        }
        silent
    }
}

/// The end of a process from which others have taken over, with what to do.
pub(super) fn taken_over(error: &store::Error) -> anyhow::Error {
    let hint = match error {
        store::Error::Outdated { .. } => "upgrade this one; the newer ones go on with its work",
        _ => "start this process again; it goes on under a new number",
    };
    anyhow::anyhow!("{error}\nhint: {hint}")
}

impl Engine {
    /// Lives among replicas, for ever; an error when another one, or a newer heal, took over from this.
    pub(super) async fn keep_lease(&self) -> store::Error {
        if !self.store().is_shared() {
            return std::future::pending().await;
        }
        let (tell, heard) = channel::channel(Vec::new());
        tokio::select! {
            error = self.keep_beating(&tell) => error,
            error = self.keep_looking(heard) => error,
        }
    }

    /// Shows that this process lives, and tells after each beat who is silent. In transactions of its own:
    /// whatever is wrong with the work that is found, the lease does not run out by it.
    async fn keep_beating(&self, tell: &channel::Sender<Vec<Beat>>) -> store::Error {
        let patience = self.parts().lease.patience;
        let mut others = Others::new(patience);
        loop {
            let began = Instant::now();
            match self.store().transact_next(|tx| tx.beat()).await {
                Ok(all) => {
                    self.parts().lease.renew(began);
                    tell.send_replace(others.look(self.store().number(), &all, Instant::now()));
                }
                Err(error) => {
                    if let Some(end) = self.cannot("showing that this replica lives", error).await {
                        return end;
                    }
                    // Nobody could be heard meanwhile, so nobody was silent.
                    others = Others::new(patience);
                }
            }
            tokio::time::sleep_until((began + patience.beat).into()).await;
        }
    }

    /// Tells of a failure, and hands on what ends this process.
    pub(super) async fn cannot(&self, doing: &str, error: store::Error) -> Option<store::Error> {
        match error {
            store::Error::Stopped => std::future::pending().await,
            error if error.is_final() => Some(error),
            error => {
                self.store_failed(doing, &error);
                None
            }
        }
    }

    /// Keeps what Slack has limited, for ever: the limits are the token's, and hold for other replicas
    /// and for the next start.
    pub(super) async fn keep_limits(&self) {
        let mut limits = self.parts().queue.limits();
        loop {
            let limited = match limits.recv().await {
                Ok(limited) => limited,
                // The next 429 tells again.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            let lane = match &limited.channel {
                Some(channel) => format!("{} {channel}", limited.method),
                None => limited.method,
            };
            let (limit, now) = (Limit { lane, wait: limited.wait }, self.clock().now());
            if let Err(error) = self.store().transact(move |tx| tx.keep_limit(&limit, now)).await {
                self.store_failed("keeping a limit of Slack", &error);
            }
        }
    }

    /// A limit that another process met, or this one in its former life.
    pub(super) fn learn(&self, limit: &Limit) {
        let (method, channel) = match limit.lane.split_once(' ') {
            Some((method, channel)) => (method, Some(channel.to_owned())),
            None => (limit.lane.as_str(), None),
        };
        self.parts().queue.limit(&Limited { method: method.to_owned(), channel, wait: limit.wait });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(number: i64, beat: i64, connected: bool) -> Beat {
        Beat { number, beat, connected }
    }

    #[test]
    fn who_is_silent_is_known_by_a_beat_that_stands_still() {
        let (mut others, start) = (Others::new(Patience::default()), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let mut look = |at, two, three| others.look(1, &[beat(1, 0, true), two, three], after(at));
        assert_eq!(look(0, beat(2, 7, true), beat(3, 7, false)), []);
        assert_eq!(look(2000, beat(2, 8, true), beat(3, 7, false)), []);
        assert_eq!(look(2500, beat(2, 9, true), beat(3, 7, false)), [beat(3, 7, false)]);
        assert_eq!(look(3000, beat(2, 9, true), beat(3, 8, false)), [], "it was heard after all");
        assert_eq!(look(11_000, beat(2, 9, true), beat(3, 9, false)), [], "a session still stands");
        assert_eq!(look(11_500, beat(2, 9, true), beat(3, 10, false)), [beat(2, 9, true)]);
        assert_eq!(look(11_500, beat(4, 1, false), beat(3, 10, false)), [], "who is new was just seen");
    }

    #[test]
    fn a_lease_runs_out_before_anybody_takes_over() {
        let patience = Patience::default();
        assert!(patience.held < patience.silent && patience.held < patience.silent_in_session);
        let lease = Lease::new(patience);
        assert!(lease.is_held(), "alone");
        lease.renew(Instant::now());
        assert!(lease.is_held());
        lease.renew(Instant::now() - patience.held);
        assert!(!lease.is_held());
    }
}
