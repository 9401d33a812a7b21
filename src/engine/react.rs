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
use crate::store::Owed;

/// Changes within this time show as one.
const GATHER: Duration = Duration::from_millis(250);

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
        let (channel, ts) = place.clone();
        let note = format!("reaction:{channel}:{ts}");
        let read = {
            let note = note.clone();
            self.store().transact(move |tx| {
                let wanted = message::reaction_for(tx.remediations_of(&channel, &ts)?.iter());
                let shown = tx.note(&note)?.unwrap_or_default();
                let shown: Vec<String> = shown.split_whitespace().map(str::to_owned).collect();
                // Whatever may stand there from now on is on record, or a crash would leave it for ever.
                if !shown.iter().any(|name| name == wanted) {
                    tx.set_note(&note, format!("{} {wanted}", shown.join(" ")).trim_start())?;
                }
                Ok((wanted, shown))
            })
        };
        let (wanted, shown) = match read.await {
            Ok(read) => read,
            Err(error) => {
                self.store_failed("reading what a reaction shows", &error);
                return self.react_later(owed);
            }
        };
        if shown != [wanted] {
            match self.call(place, wanted, true).await {
                Set::Done => {}
                Set::Never => return self.settle_reactions(None, owed).await,
                Set::NotNow => return self.react_later(owed),
            }
            for old in shown.iter().filter(|old| *old != wanted) {
                if matches!(self.call(place, old, false).await, Set::NotNow) {
                    return self.react_later(owed);
                }
            }
        }
        self.settle_reactions(Some((note, wanted)), owed).await;
    }

    async fn settle_reactions(&self, shown: Option<(String, &'static str)>, owed: Vec<Owed>) {
        let settling = owed.clone();
        let settled = self.store().transact(move |tx| {
            if let Some((note, name)) = &shown {
                tx.set_note(note, name)?;
            }
            for owed in &settling {
                tx.settle(owed)?;
            }
            Ok(())
        });
        if let Err(error) = settled.await {
            self.store_failed("keeping what a reaction shows", &error);
            self.react_later(owed);
        }
    }

    /// They are owed still; setting a reaction twice is setting it once.
    fn react_later(&self, owed: Vec<Owed>) {
        owed.into_iter().for_each(|owed| self.retry_later(owed));
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
