//! What is owed here: what other replicas decided for what this one has claimed, and what those that are
//! gone have left. Looked for after each beat of the lease, and when another replica calls.
//!
//! One row that cannot be read is passed over. What a dead replica owed it may have done, so that it is looked
//! for in the world first; also where nobody heard whether the commit that took it over counts.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch as channel;

use super::{Engine, resume};
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::store::{self, Beat, Limit, Notice, Owed, Tx};
use crate::time::Timestamp;

/// Between two looks, however often others call: each look costs all replicas a turn at the database.
const REST: Duration = Duration::from_millis(20);

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

impl Engine {
    /// Looks for what is owed here, after each beat and when others call.
    pub(super) async fn keep_looking(&self, mut heard: channel::Receiver<Vec<Beat>>) -> store::Error {
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
pub(super) fn readable(tx: &mut dyn Tx, id: &RemediationId) -> store::Result<Option<Remediation>> {
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
