//! The one reaction on an alert that shows where it stands.
//!
//! Several changes within a moment set one reaction: flicker is noise, and each change is two calls.
//! What is set is computed when it is set, from all remediations of the message.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Engine;
use crate::lifecycle::Remediation;
use crate::message;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::store::Owed;

/// Changes within this time show as one.
const GATHER: Duration = Duration::from_millis(250);

type Place = (String, String);

/// Messages whose reaction is about to be set, with the effects that this settles.
#[derive(Debug, Default)]
pub(super) struct Reactions {
    gathering: Mutex<HashMap<Place, Vec<Owed>>>,
    /// Messages on which something may have been set of which nothing was kept: before a restart.
    uncertain: Mutex<HashSet<Place>>,
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

    fn uncertain(&self) -> std::sync::MutexGuard<'_, HashSet<Place>> {
        self.uncertain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// `again`: it may have been set before a restart.
    pub(super) fn react(&self, owed: Owed, remediation: &Arc<Remediation>, again: bool) {
        let place = (remediation.origin.channel.clone(), remediation.origin.ts.clone());
        let engine = self.clone();
        if place.1.is_empty() {
            tokio::spawn(async move { engine.settled(&owed).await });
            return;
        }
        if again {
            self.0.reactions.uncertain().insert(place.clone());
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
        let (channel, ts) = place.clone();
        let note = format!("reaction:{channel}:{ts}");
        let read = {
            let note = note.clone();
            self.store().transact(move |tx| Ok((tx.remediations_of(&channel, &ts)?, tx.note(&note)?)))
        };
        let (all, shown) = match read.await {
            Ok(read) => read,
            Err(error) => return self.store_failed("reading what a reaction shows", &error),
        };
        let wanted = message::reaction_for(all.iter());
        let uncertain = self.0.reactions.uncertain().remove(place);
        let mut shown: Vec<String> = shown.into_iter().collect();
        if uncertain {
            // What was kept may be older than what stands there.
            let standing = self.standing(place).await;
            shown.retain(|kept| kept != wanted && !standing.contains(kept));
            shown.extend(standing);
        }
        if !shown.iter().any(|one| one == wanted) {
            match self.call(place, wanted, true).await {
                Set::Done => {}
                Set::Never => return self.settle_reactions(None, owed).await,
                // Still owed: the next start sets it.
                Set::NotNow => return,
            }
        }
        for old in shown.iter().filter(|one| *one != wanted) {
            self.call(place, old, false).await;
        }
        self.settle_reactions(Some((note, wanted)), owed).await;
    }

    /// The reactions of ours that are to be seen on the message; none where Slack does not say.
    async fn standing(&self, place: &Place) -> Vec<String> {
        self.parts().slack.own_reactions(&place.0, &place.1).await.unwrap_or_else(|error| {
            tracing::warn!(%error, channel = %place.0, ts = %place.1, "the reactions of before the start could not be looked up; one may stay");
            Vec::new()
        })
    }

    async fn settle_reactions(&self, shown: Option<(String, &'static str)>, owed: Vec<Owed>) {
        let settled = self.store().transact(move |tx| {
            if let Some((note, name)) = &shown {
                tx.set_note(note, name)?;
            }
            for owed in &owed {
                tx.settle(owed)?;
            }
            Ok(())
        });
        if let Err(error) = settled.await {
            self.store_failed("keeping what a reaction shows", &error);
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
