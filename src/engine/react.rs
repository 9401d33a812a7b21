//! The one reaction on an alert that shows where it stands.
//!
//! Several changes within a moment set one reaction: flicker is noise, and each change is two calls.
//! What is set is computed when it is set, from all remediations of the message. Before anything is set it
//! is noted, so that whatever a crash or an outage leaves half done is put right by the next change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Engine;
use super::later::is_out_of_time;
use crate::lifecycle::Remediation;
use crate::message;
use crate::slack::Error;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::store::{self, Needs, Owed};

/// Changes within this time show as one.
const GATHER: Duration = Duration::from_millis(250);
/// What could not be set for now is tried again after this; longer when it fails again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

type Place = (String, String);

/// Messages whose reaction is about to be set, with the effects that this settles.
#[derive(Debug, Default)]
pub(super) struct Reactions {
    gathering: Mutex<HashMap<Place, Vec<Owed>>>,
}

/// What became of a reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Set {
    Done,
    /// Slack refuses it for good (the message is gone, …).
    Never,
    NotNow,
    /// Slack refuses it until a person changes something.
    Refused(Error),
}

/// What of ours may be on a message, as its note keeps it: `eyes` is there and nothing else; with
/// `hourglass eyes>x` the first two may be there and `x` was to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    /// Certainly there, and alone.
    certain: Option<String>,
    perhaps: Vec<String>,
}

impl Shown {
    fn read(note: Option<&str>) -> Shown {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match note.unwrap_or_default().split_once('>') {
            Some((before, setting)) => {
                Shown { certain: None, perhaps: [list(before), list(setting)].concat() }
            }
            None => Shown { certain: list(note.unwrap_or_default()).pop(), perhaps: Vec::new() },
        }
    }

    /// What has to be taken away when `wanted` is there.
    fn besides(&self, wanted: &str) -> Vec<String> {
        let all = self.certain.iter().chain(&self.perhaps);
        all.filter(|name| *name != wanted).cloned().collect()
    }

    /// The note while `wanted` is being set.
    fn setting(&self, wanted: &str) -> String {
        format!("{}>{wanted}", self.besides(wanted).join(" "))
    }
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
            let (mut wait, mut refused) = (GATHER, 0);
            loop {
                tokio::time::sleep(wait).await;
                let now: Vec<Owed> =
                    engine.0.reactions.lock().get_mut(&place).map(std::mem::take).unwrap_or_default();
                let mut waited = false;
                let undone = match Box::pin(engine.set_reaction(&place, now.clone())).await {
                    Ok(Set::Done | Set::Never) => Vec::new(),
                    Ok(Set::NotNow) => now,
                    Ok(Set::Refused(error)) => {
                        now.iter().for_each(|owed| engine.0.in_hand.leave(owed));
                        refused += 1;
                        Box::pin(engine.until_again(&place.0, &error, refused)).await;
                        waited = true;
                        now
                    }
                    // The bot is ending; whoever comes after it goes on with it.
                    Err(error) if error.is_final() => Vec::new(),
                    Err(error) => {
                        engine.store_failed("keeping what a reaction shows", &error);
                        now
                    }
                };
                wait = match undone.is_empty() {
                    true => GATHER,
                    false if waited => GATHER,
                    false if wait == GATHER => RETRY.0,
                    false => (wait * 2).min(RETRY.1),
                };
                let mut gathering = engine.0.reactions.lock();
                let waiting = gathering.entry(place.clone()).or_default();
                waiting.splice(..0, undone);
                if waiting.is_empty() {
                    gathering.remove(&place);
                    return;
                }
            }
        });
    }

    /// Makes the message show what it should, and settles what was owed for it unless it could not be done now.
    async fn set_reaction(&self, place: &Place, owed: Vec<Owed>) -> store::Result<Set> {
        let (channel, ts) = place.clone();
        let note = format!("reaction:{channel}:{ts}");
        let (name, now) = (note.clone(), self.clock().now());
        let needs = Needs::default().thread(&channel, &ts).note(note.clone());
        // Noted before it is set: should this process go away in between, the next change knows of it.
        let (shown, wanted, opened_at) = self
            .store()
            .with(needs)
            .transact(move |tx| {
                let all = tx.remediations_of(&channel, &ts)?;
                let shown = Shown::read(tx.note(&name)?.as_deref());
                let wanted = message::reaction_for(all.iter());
                if shown.certain.as_deref() != Some(wanted) {
                    tx.set_passing_note(&name, &shown.setting(wanted), now)?;
                }
                Ok((shown, wanted, all.iter().map(|one| one.opened_at).max().unwrap_or(now)))
            })
            .await?;
        if shown.certain.as_deref() == Some(wanted) {
            self.settle_reactions(note, None, owed).await?;
            return Ok(Set::Done);
        }
        let mut set = self.call(place, wanted, true).await;
        if set == Set::Done {
            for old in shown.besides(wanted) {
                match self.call(place, &old, false).await {
                    Set::Done | Set::Never => {}
                    other => set = other,
                }
            }
        }
        match set {
            Set::Refused(error) if !is_out_of_time(&error, opened_at, now) => return Ok(Set::Refused(error)),
            Set::NotNow => return Ok(Set::NotNow),
            Set::Done => {}
            // Nothing can be changed there any more, and nothing is known of it.
            Set::Never | Set::Refused(_) => {
                self.settle_reactions(note, None, owed).await?;
                return Ok(Set::Never);
            }
        }
        let was = shown.setting(wanted);
        match self.settle_reactions(note, Some((was, wanted)), owed).await? {
            true => Ok(Set::Done),
            // Another process set something meanwhile: what it and we did is looked at once more.
            false => Ok(Set::NotNow),
        }
    }

    /// Keeps what is there now, unless the note is no longer as we left it; then the effects stay owed.
    async fn settle_reactions(
        &self,
        note: String,
        shown: Option<(String, &'static str)>,
        owed: Vec<Owed>,
    ) -> store::Result<bool> {
        let (done, at) = (owed.clone(), self.clock().now());
        let needs = Needs::default().note(note.clone());
        let kept = self
            .store()
            .with(needs)
            .transact_claimed(move |tx| {
                if let Some((was, name)) = &shown {
                    let now = tx.note(&note)?.unwrap_or_default();
                    if now != *was {
                        let now = Shown::read(Some(&now));
                        let perhaps: Vec<&str> =
                            now.certain.iter().chain(&now.perhaps).map(String::as_str).collect();
                        tx.set_passing_note(&note, &format!("{}>{name}", perhaps.join(" ")), at)?;
                        return Ok(false);
                    }
                    tx.set_passing_note(&note, name, at)?;
                }
                for owed in &owed {
                    tx.settle(owed)?;
                }
                Ok(true)
            })
            .await?;
        if kept {
            done.iter().for_each(|owed| self.0.in_hand.end(owed));
        }
        Ok(kept)
    }

    /// Sets or takes one reaction.
    async fn call(&self, place: &Place, name: &str, set: bool) -> Set {
        let (channel, ts) = place.clone();
        let what = name.to_owned();
        let call = if set {
            Call::React { channel, ts, name: what }
        } else {
            Call::Unreact { channel, ts, name: what }
        };
        match self.parts().queue.submit(Job::new(call, Priority::Reaction)).await {
            Done::Sent { .. } => Set::Done,
            Done::Superseded => Set::NotNow,
            Done::GaveUp(error) => {
                if error.needs_person() {
                    return Set::Refused(error);
                }
                tracing::warn!(%error, channel = %place.0, ts = %place.1, "the reaction {name} could not be set");
                if error.is_final() { Set::Never } else { Set::NotNow }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_what_is_there_and_what_may_be() {
        assert_eq!(Shown::read(None), Shown::default());
        assert_eq!(Shown::read(Some("")), Shown::default());
        let eyes = Shown::read(Some("eyes"));
        assert_eq!(eyes.certain.as_deref(), Some("eyes"));
        assert_eq!(Shown::default().setting("eyes"), ">eyes");
        let setting = Shown::read(Some(&eyes.setting("x")));
        assert_eq!(setting.certain, None, "it may have been set, and must be set");
        assert_eq!(setting.besides("x"), ["eyes"]);
        // The crash came, and now something else is wanted: both may be there.
        let next = Shown::read(Some(&setting.setting("mag")));
        assert_eq!(next.besides("mag"), ["eyes", "x"]);
        assert_eq!(next.setting("x"), "eyes mag>x");
    }
}
