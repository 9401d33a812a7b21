//! This process among its replicas: it shows that it lives, takes over from those that do not, and
//! performs what others have decided for what it has claimed.
//!
//! No clock is compared with another's: who is silent is known by a beat that this process saw
//! unchanged, over a time in which it saw the database. A replica that was taken for dead and is not
//! finds out with its next transaction ([`store::Error::Fenced`]); before that it holds back what it
//! would say or send, as its own lease has run out first.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch as channel;

use super::{Engine, resume};
use crate::lifecycle::{Effect, Remediation, RemediationId};
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
    /// Takes those that are silent off the list, claims what nobody has, and finds all that is owed here.
    All { silent: Vec<Beat> },
    /// Another replica called: what is owed here since this generation. Whatever else it misses the look
    /// after the next beat finds.
    Call { since: i64 },
}

/// An effect that a look has taken in hand.
struct Found {
    owed: Owed,
    remediation: Remediation,
    /// As in [`Engine::perform`].
    again: bool,
}

/// What a look found.
#[derive(Default)]
struct Sight {
    effects: Vec<Found>,
    notices: Vec<(Notice, bool)>,
    /// Open remediations of replicas that are gone, and how much is owed by them.
    claimed: Vec<Remediation>,
    taken_over: usize,
    buried: usize,
    due_at: Option<Timestamp>,
    limits: Vec<Limit>,
    /// The newest generation that was seen.
    newest: Option<i64>,
}

/// What a look has taken in hand; told beside its answer, for that may be lost.
#[derive(Default)]
struct Begun {
    effects: Vec<Owed>,
    notices: Vec<String>,
    /// What of it was of replicas that are gone.
    inherited: Inherited,
}

/// What may have been done by a replica that is gone, so that it is looked for first.
#[derive(Clone, Default)]
struct Inherited {
    effects: HashSet<(RemediationId, Effect)>,
    notices: HashSet<String>,
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

    /// Looks for what is owed here, after each beat and when others call.
    async fn keep_looking(&self, mut heard: channel::Receiver<Vec<Beat>>) -> store::Error {
        let mut newest = i64::MIN;
        // What was claimed by looks of which nobody knows whether they count: if they do, the next one finds
        // it among what is owed here as if others had just decided it.
        let mut in_doubt: Option<Inherited> = None;
        loop {
            let called = async {
                tokio::time::sleep(REST).await;
                self.store().called().await;
            };
            let look = tokio::select! {
                Ok(()) = heard.changed() => Look::All { silent: heard.borrow_and_update().clone() },
                () = called => match in_doubt {
                    None => Look::Call { since: newest },
                    Some(_) => Look::All { silent: Vec::new() },
                },
            };
            let (sight, inherited) = self.look_around(look, in_doubt.clone().unwrap_or_default()).await;
            match sight {
                Ok(sight) => {
                    in_doubt = None;
                    newest = newest.max(sight.newest.unwrap_or(newest));
                    self.take_in_hand(sight);
                }
                Err(error) => {
                    in_doubt = Some(inherited);
                    if let Some(end) = self.cannot("looking for what is owed here", error).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Tells of a failure, and hands on what ends this process.
    async fn cannot(&self, doing: &str, error: store::Error) -> Option<store::Error> {
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

    /// One look, with what it has inherited if it failed. It goes before other transactions: what others
    /// decided waits for it. `in_doubt`: what may have been inherited before.
    async fn look_around(&self, look: Look, in_doubt: Inherited) -> (store::Result<Sight>, Inherited) {
        let (engine, ground) = (self.clone(), self.ground());
        let begun = Arc::new(Mutex::new(Begun { inherited: in_doubt, ..Begun::default() }));
        let beginning = Arc::clone(&begun);
        let sight = self.store().transact_next(move |tx| {
            let mut begun = beginning.lock().unwrap_or_else(PoisonError::into_inner);
            let mut sight = Sight::default();
            match look {
                Look::Call { since } => drop(engine.begin_owed(tx, since, false, &mut begun, &mut sight)?),
                Look::All { silent } => {
                    for beat in silent {
                        sight.buried += usize::from(tx.bury(beat)?);
                    }
                    engine.begin_owed(tx, i64::MIN, false, &mut begun, &mut sight)?;
                    let orphans = tx.claim_orphans()?;
                    for id in &orphans.open {
                        let Some(mut this) = readable(tx, id)? else { continue };
                        resume::take_over(tx, &mut this, &ground)?;
                        sight.claimed.push(this);
                    }
                    if orphans.owed > 0 {
                        sight.taken_over = engine.begin_owed(tx, i64::MIN, true, &mut begun, &mut sight)?;
                    }
                }
            }
            (sight.due_at, sight.limits) = (tx.next_due_at()?, tx.limits(ground.now)?);
            Ok(sight)
        });
        let sight = sight.await;
        let begun = std::mem::take(&mut *begun.lock().unwrap_or_else(PoisonError::into_inner));
        if sight.is_err() {
            begun.effects.iter().for_each(|owed| self.0.in_hand.end(owed));
            begun.notices.iter().for_each(|id| self.0.in_hand.end_notice(id));
        }
        (sight, begun.inherited)
    }

    /// Takes in hand what is owed here since a generation and nobody has in hand; how many effects.
    /// `inherited`: it is of a replica that is gone.
    fn begin_owed(
        &self,
        tx: &mut dyn Tx,
        since: i64,
        inherited: bool,
        begun: &mut Begun,
        sight: &mut Sight,
    ) -> store::Result<usize> {
        let before = sight.effects.len();
        for owed in tx.owed_since(since)? {
            sight.newest = sight.newest.max(Some(owed.generation));
            if !self.0.in_hand.begin(&owed) {
                continue;
            }
            begun.effects.push(owed.clone());
            let key = (owed.remediation.clone(), owed.effect);
            if inherited {
                begun.inherited.effects.insert(key.clone());
            }
            let again = begun.inherited.effects.contains(&key);
            // One that cannot be read stays in hand, or each look would meet it anew.
            if let Some(remediation) = readable(tx, &owed.remediation)? {
                sight.effects.push(Found { owed, remediation, again });
            }
        }
        for notice in tx.owed_notices()? {
            if self.0.in_hand.begin_notice(&notice.id) {
                begun.notices.push(notice.id.clone());
                if inherited {
                    begun.inherited.notices.insert(notice.id.clone());
                }
                let again = begun.inherited.notices.contains(&notice.id);
                sight.notices.push((notice, again));
            }
        }
        Ok(sight.effects.len() - before)
    }

    /// Goes on with what a look found.
    fn take_in_hand(&self, sight: Sight) {
        if sight.buried > 0 || !sight.claimed.is_empty() || sight.taken_over > 0 {
            tracing::warn!(
                open = sight.claimed.len(),
                owed = sight.taken_over,
                "a replica is gone; this one goes on with its {} open remediations and {} owed effects",
                sight.claimed.len(),
                sight.taken_over
            );
        }
        if sight.buried > 0 {
            // What it had heard and not kept is still in the channels.
            self.delivery_lost();
        }
        sight.limits.iter().for_each(|limit| self.learn(limit));
        if let Some(due) = sight.due_at {
            self.alarm().set(due);
        }
        for remediation in sight.claimed {
            self.mind(Arc::new(remediation));
        }
        for Found { owed, remediation, again } in sight.effects {
            self.carry_or_keep(owed, Arc::new(remediation), again);
        }
        for (notice, again) in sight.notices {
            self.announce(notice, again);
        }
    }
}

/// A remediation, unless it is not there or cannot be read: one row must not be in the way of all others.
fn readable(tx: &mut dyn Tx, id: &RemediationId) -> store::Result<Option<Remediation>> {
    match tx.remediation(id) {
        Ok(Some((this, _))) => Ok(Some(this)),
        Ok(None) => {
            tracing::error!(remediation = %id, "an effect is owed by nothing that is known");
            Ok(None)
        }
        Err(store::Error::Corrupt { what, why }) => {
            tracing::error!(remediation = %id, why, "a stored {what} cannot be read; what {id} owes is passed over");
            Ok(None)
        }
        Err(error) => Err(error),
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
