//! This process among its replicas: it shows that it lives, takes over from those that do not, and
//! performs what others have decided for what it has claimed.
//!
//! No clock is compared with another's: who is silent is known by a beat that this process saw
//! unchanged, over a time in which it saw the database. A replica that was taken for dead and is not
//! finds out with its next transaction ([`store::Error::Fenced`]); before that it holds back what it
//! would say or send, as its own lease has run out first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;

use super::{Engine, resume};
use crate::lifecycle::Remediation;
use crate::slack::Limited;
use crate::store::{self, Beat, Limit, Notice, Owed, Tx};
use crate::time::Timestamp;

/// Between two looks, however often others call: each look costs all replicas a turn at the database.
const REST: Duration = Duration::from_millis(20);

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

/// What a look is for.
enum Look {
    /// Shows that this process lives, takes those that are silent off the list, claims what nobody has,
    /// and finds all that is owed here.
    Beat { silent: Vec<Beat> },
    /// Another replica called: what is owed here since this generation. Whatever else it misses the next
    /// beat finds.
    Call { since: i64 },
}

/// What a look found.
#[derive(Default)]
struct Found {
    all: Vec<Beat>,
    /// Effects that other replicas owed here, and those of replicas that are gone.
    fresh: Vec<(Owed, Option<Remediation>)>,
    taken_over: Vec<(Owed, Option<Remediation>)>,
    notices: Vec<(Notice, bool)>,
    /// Open remediations of replicas that are gone.
    claimed: Vec<Remediation>,
    buried: usize,
    due_at: Option<Timestamp>,
    limits: Vec<Limit>,
    /// The newest generation that was seen.
    newest: i64,
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
        let patience = self.parts().lease.patience;
        let mut others = Others::new(patience);
        let (mut silent, mut newest) = (Vec::new(), i64::MIN);
        let mut next = Instant::now();
        loop {
            let began = Instant::now();
            let beats = began >= next;
            let look = match beats {
                true => Look::Beat { silent: std::mem::take(&mut silent) },
                false => Look::Call { since: newest },
            };
            if beats {
                next = began + patience.beat;
            }
            match self.look_around(look).await {
                Ok(found) => {
                    newest = newest.max(found.newest);
                    if beats {
                        self.parts().lease.renew(began);
                        silent = others.look(self.store().number(), &found.all, Instant::now());
                    }
                    self.take_in_hand(found);
                    if !silent.is_empty() {
                        next = began;
                        continue;
                    }
                }
                Err(store::Error::Stopped) => return std::future::pending().await,
                Err(error) if error.is_final() => return error,
                Err(error) => {
                    self.store_failed("showing that this replica lives", &error);
                    // Nobody could be heard meanwhile, so nobody was silent.
                    others = Others::new(patience);
                }
            }
            let called = async {
                tokio::time::sleep(REST).await;
                self.store().called().await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = called => {}
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

    /// One look. It goes before other transactions: a replica that is busy must not look like one that is gone.
    async fn look_around(&self, look: Look) -> store::Result<Found> {
        let (engine, now) = (self.clone(), self.clock().now());
        let (answers, messages) = resume::moments_of_grace(now);
        let begun = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let beginning = Arc::clone(&begun);
        let found = self.store().transact_next(move |tx| {
            let mut newest = i64::MIN;
            let mut begin = |tx: &mut dyn Tx, since: i64| {
                let mut all = Vec::new();
                for owed in tx.owed_since(since)? {
                    newest = newest.max(owed.generation);
                    if engine.0.in_hand.begin(&owed) {
                        beginning.lock().unwrap_or_else(PoisonError::into_inner).0.push(owed.clone());
                        let remediation = tx.remediation(&owed.remediation)?.map(|(this, _)| this);
                        all.push((owed, remediation));
                    }
                }
                let mut notices = Vec::new();
                for notice in tx.owed_notices()? {
                    if engine.0.in_hand.begin_notice(&notice.id) {
                        beginning.lock().unwrap_or_else(PoisonError::into_inner).1.push(notice.id.clone());
                        notices.push(notice);
                    }
                }
                store::Result::Ok((all, notices))
            };
            let fresh = |notices: Vec<Notice>| notices.into_iter().map(|notice| (notice, false)).collect();
            let silent = match look {
                Look::Beat { silent } => silent,
                Look::Call { since } => {
                    let (owed, first) = begin(tx, since)?;
                    let (due_at, limits, notices) = (tx.next_due_at()?, tx.limits(now)?, fresh(first));
                    return Ok(Found { fresh: owed, notices, due_at, limits, newest, ..Found::default() });
                }
            };
            let all = tx.beat()?;
            let mut buried = 0;
            for beat in silent {
                buried += usize::from(tx.bury(beat)?);
            }
            let (owed, first) = begin(tx, i64::MIN)?;
            let mut notices: Vec<(Notice, bool)> = fresh(first);
            let orphans = tx.claim_orphans()?;
            let mut claimed = Vec::new();
            for id in &orphans.open {
                let Some((mut this, _)) = tx.remediation(id)? else { continue };
                // Nobody may have looked for long, as after the end of all replicas at once.
                let before = this.state.clone();
                this.state.not_due_before(answers, messages);
                if this.state != before {
                    tx.update_remediation(&this)?;
                }
                claimed.push(this);
            }
            let mut taken_over = Vec::new();
            if orphans.owed > 0 {
                let (effects, more) = begin(tx, i64::MIN)?;
                taken_over = effects;
                notices.extend(more.into_iter().map(|notice| (notice, true)));
            }
            let (due_at, limits) = (tx.next_due_at()?, tx.limits(now)?);
            Ok(Found { all, fresh: owed, taken_over, notices, claimed, buried, due_at, limits, newest })
        });
        let found = found.await;
        if found.is_err() {
            let begun = std::mem::take(&mut *begun.lock().unwrap_or_else(PoisonError::into_inner));
            begun.0.iter().for_each(|owed| self.0.in_hand.end(owed));
            begun.1.iter().for_each(|id| self.0.in_hand.end_notice(id));
        }
        found
    }

    /// Goes on with what a beat found.
    fn take_in_hand(&self, found: Found) {
        if found.buried > 0 || !found.claimed.is_empty() || !found.taken_over.is_empty() {
            tracing::warn!(
                open = found.claimed.len(),
                owed = found.taken_over.len(),
                "a replica is gone; this one goes on with its {} open remediations and {} owed effects",
                found.claimed.len(),
                found.taken_over.len()
            );
        }
        if found.buried > 0 {
            // What it had heard and not kept is still in the channels.
            self.delivery_lost();
        }
        found.limits.iter().for_each(|limit| self.learn(limit));
        if let Some(due) = found.due_at {
            self.alarm().set(due);
        }
        for remediation in found.claimed {
            self.mind(Arc::new(remediation));
        }
        for (effects, again) in [(found.fresh, false), (found.taken_over, true)] {
            for (owed, remediation) in effects {
                match remediation {
                    Some(remediation) => self.carry_or_keep(owed, Arc::new(remediation), again),
                    None => {
                        tracing::error!(remediation = %owed.remediation, "an effect is owed by nothing that is known")
                    }
                }
            }
        }
        for (notice, again) in found.notices {
            self.announce(notice, again);
        }
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
