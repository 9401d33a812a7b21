//! The one reaction on an alert that shows where it stands.
//!
//! Several changes within a moment set one reaction: flicker is noise, and each change is two calls.
//! What is set is computed when it is set, from all remediations of the message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::lifecycle::Remediation;
use crate::message;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::store::{self, Owed};

/// Changes within this time show as one.
const GATHER: Duration = Duration::from_millis(250);

/// Between tries while the store is in trouble, first and longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A channel and the `ts` of a message in it.
type Place = (String, String);

/// Messages whose reaction is about to be set, with the effects that this settles.
#[derive(Debug, Default)]
pub(super) struct Reactions {
    gathering: Mutex<HashMap<Place, Vec<Owed>>>,
}

/// What became of a reaction.
enum Set {
    Done,
    /// Slack refuses it for good (the message is gone, …).
    Never,
    NotNow,
}

impl Reactions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Vec<Owed>>> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    pub(super) fn react(&self, owed: Owed, remediation: &Arc<Remediation>) {
        let place = (remediation.origin.channel.clone(), remediation.origin.ts.clone());
        let engine = self.clone();
        if place.1.is_empty() {
            tokio::spawn(async move { engine.settled(&owed).await });
            return;
        }
        let mut gathering = self.0.reactions.lock();
        if let Some(waiting) = gathering.get_mut(&place) {
            waiting.push(owed);
            return;
        }
        gathering.insert(place.clone(), vec![owed]);
        drop(gathering);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHER).await;
                let now: Vec<Owed> =
                    engine.0.reactions.lock().get_mut(&place).map(std::mem::take).unwrap_or_default();
                engine.set_reaction(&place, now).await;
                let mut gathering = engine.0.reactions.lock();
                if gathering.get(&place).is_none_or(Vec::is_empty) {
                    gathering.remove(&place);
                    return;
                }
            }
        });
    }

    async fn set_reaction(&self, place: &Place, owed: Vec<Owed>) {
        let Some((wanted, others)) = self.mean_reaction(place).await else { return };
        if let Some(others) = others {
            match self.call(place, wanted, true).await {
                Set::Done => {}
                Set::Never => return self.settle_reactions(None, owed).await,
                // Still owed: the next start sets it.
                Set::NotNow => return,
            }
            for other in &others {
                if matches!(self.call(place, other, false).await, Set::NotNow) {
                    return;
                }
            }
        }
        self.settle_reactions(Some((note(place), wanted)), owed).await;
    }

    /// The reaction that is to stand on the message, and, unless it stands there alone already, all others
    /// that may. It is among these on disk before it is set: a start after a kill in between takes it off.
    async fn mean_reaction(&self, place: &Place) -> Option<(&'static str, Option<Vec<String>>)> {
        self.while_the_store_fails("reading what a reaction shows", || {
            let (place, note) = (place.clone(), note(place));
            self.store().transact_claimed(move |tx| {
                let wanted = message::reaction_for(tx.remediations_of(&place.0, &place.1)?.iter());
                let kept = tx.note(&note)?.unwrap_or_default();
                if kept == wanted {
                    return Ok((wanted, None));
                }
                let may_stand = kept.split(',').filter(|name| !name.is_empty() && *name != wanted);
                let others: Vec<String> = may_stand.map(str::to_owned).collect();
                tx.set_note(&note, &format!("{},{wanted},", others.join(",")))?;
                Ok((wanted, Some(others)))
            })
        })
        .await
    }

    async fn settle_reactions(&self, shown: Option<(String, &'static str)>, owed: Vec<Owed>) {
        let done = owed.clone();
        self.while_the_store_fails("keeping what a reaction shows", || {
            let (shown, owed) = (shown.clone(), owed.clone());
            self.store().transact_claimed(move |tx| {
                if let Some((note, name)) = &shown {
                    tx.set_note(note, name)?;
                }
                owed.iter().try_for_each(|owed| tx.settle(owed))
            })
        })
        .await;
        done.iter().for_each(|owed| self.0.in_hand.end(owed));
    }

    /// Tries on until the store takes it; `None` when it has stopped.
    async fn while_the_store_fails<R, F, W>(&self, doing: &'static str, mut work: W) -> Option<R>
    where
        W: FnMut() -> F,
        F: Future<Output = store::Result<R>>,
    {
        let mut pause = PAUSES.0;
        loop {
            match work().await {
                Ok(done) => return Some(done),
                Err(store::Error::Stopped | store::Error::Fenced) => return None,
                Err(error) => self.store_failed(doing, &error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Sets or takes one reaction.
    async fn call(&self, place: &Place, name: &str, set: bool) -> Set {
        let (channel, ts) = place.clone();
        let name = name.to_owned();
        let call = if set { Call::React { channel, ts, name } } else { Call::Unreact { channel, ts, name } };
        match self.parts().queue.submit(Job::new(call, Priority::Reaction)).await {
            Done::Sent { .. } => Set::Done,
            Done::Superseded => Set::NotNow,
            Done::GaveUp(error) => {
                tracing::warn!(%error, channel = %place.0, ts = %place.1, "a reaction could not be set");
                if error.is_permanent() { Set::Never } else { Set::NotNow }
            }
        }
    }
}

/// Where it is kept which reaction stands on a message; with commas between them, all that may.
fn note((channel, ts): &Place) -> String {
    format!("reaction:{channel}:{ts}")
}
