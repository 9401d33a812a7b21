//! What of the outbox this process has in hand, so that nothing is performed by two of its tasks, and
//! how much of it at a time.
//!
//! An effect is begun by whoever sees it first: the task that carries out the commit which owed it, or
//! the look into the outbox that finds what other replicas owe here. What is begun takes some 20 KiB (a
//! rendered message, a task, a remediation), so of each kind only so many are begun for one channel; of
//! the others only the key is kept, and they are begun in their order as room comes. Kinds and channels
//! do not wait for each other, as they have their own limits in Slack.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Engine;
use super::owed::readable;
use crate::lifecycle::{Effect, RemediationId};
use crate::store::{self, Needs, Owed};

/// A remediation's id, one text for all places where it stands here.
type Id = Arc<str>;
type Key = (Id, Effect, i64);

/// Begun when this many places are free at least, or all that wait can have one.
const WORTH_A_LOOK: usize = 64;

/// Maps that have grown beyond this are let go when they are empty.
const LARGE: usize = 1024;

/// So many of a lane are read from the store at a time.
const AT_A_LOOK: usize = 128;

/// What shares room. Slack takes a post or an update a second for a channel, so this much is always in
/// reach; where it takes thousands, this much keeps the store busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Declarations,
    Updates,
    Reports,
    Reactions,
}

impl Kind {
    /// `None`: never waits for room.
    fn of(effect: Effect) -> Option<Kind> {
        match effect {
            Effect::Declare | Effect::SayWhyNot => Some(Kind::Declarations),
            Effect::UpdateDeclaration => Some(Kind::Updates),
            Effect::Report | Effect::UpdateReport | Effect::Attach => Some(Kind::Reports),
            Effect::React => Some(Kind::Reactions),
            // Somebody's server waits, and how many are on their way is limited elsewhere.
            Effect::Resolve | Effect::Send | Effect::Reopen => None,
        }
    }

    fn room(self) -> usize {
        match self {
            Kind::Declarations | Kind::Updates | Kind::Reports => 512,
            // Small, and each sleeps a while.
            Kind::Reactions => 1024,
        }
    }
}

/// An effect that was taken in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    owed: Owed,
    again: bool,
}

/// What is kept of an effect that waits for room, beside its key.
#[derive(Clone, Copy, Debug)]
struct Parked {
    generation: i64,
    claimed_by: i64,
    again: bool,
}

/// One kind in one channel.
#[derive(Debug)]
struct Lane {
    kind: Kind,
    begun: usize,
    waiting: VecDeque<(Id, Effect)>,
}

impl Lane {
    fn free(&self) -> usize {
        self.kind.room().saturating_sub(self.begun)
    }

    fn is_worth_a_look(&self) -> bool {
        !self.waiting.is_empty() && self.free() >= WORTH_A_LOOK.min(self.waiting.len())
    }
}

#[derive(Debug, Default)]
struct Effects {
    /// All that is in hand; what is begun in a lane with its place in `lanes`.
    held: HashMap<Key, Option<usize>>,
    parked: HashMap<(Id, Effect), Parked>,
    lanes: Vec<Lane>,
    by_name: HashMap<(String, Kind), usize>,
}

#[derive(Debug, Default)]
pub(super) struct InHand {
    effects: Mutex<Effects>,
    notices: Mutex<HashSet<String>>,
    room: Notify,
}

fn key(owed: &Owed) -> Key {
    (owed.remediation.0.as_str().into(), owed.effect, owed.generation)
}

impl Effects {
    fn lane(&mut self, channel: &str, kind: Kind) -> usize {
        let name = (channel.to_owned(), kind);
        *self.by_name.entry(name).or_insert_with(|| {
            self.lanes.push(Lane { kind, begun: 0, waiting: VecDeque::new() });
            self.lanes.len() - 1
        })
    }

    fn take_place(&mut self, key: Key, lane: usize) {
        self.held.insert(key, Some(lane));
        self.lanes[lane].begun += 1;
    }

    /// After a storm its room is given back.
    fn rest(&mut self) {
        if self.held.is_empty() && self.held.capacity() > LARGE {
            (self.held, self.parked) = Default::default();
            self.lanes.iter_mut().for_each(|lane| lane.waiting = VecDeque::new());
        }
    }
}

impl InHand {
    fn lock(&self) -> std::sync::MutexGuard<'_, Effects> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has it in hand; from now on somebody has.
    pub(super) fn begin(&self, owed: &Owed) -> bool {
        match self.lock().held.entry(key(owed)) {
            Entry::Vacant(new) => {
                new.insert(None);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Whether there is room to carry out now what is in hand; else it is kept for later, and
    /// [`Engine::keep_begun`] goes on with it. `again` as in [`Engine::perform`].
    pub(super) fn has_room(&self, owed: &Owed, channel: &str, again: bool) -> bool {
        let Some(kind) = Kind::of(owed.effect) else { return true };
        let mut effects = self.lock();
        let (id, effect, generation) = match effects.held.get_key_value(&key(owed)) {
            Some((held, _)) => held.clone(),
            None => key(owed),
        };
        let place = (Arc::clone(&id), effect);
        if let Some(parked) = effects.parked.get_mut(&place) {
            // One of the two is enough, the newer in the place of the first.
            let over = generation.min(parked.generation);
            (parked.generation, parked.claimed_by) = match generation > parked.generation {
                true => (generation, owed.claimed_by),
                false => (parked.generation, parked.claimed_by),
            };
            parked.again |= again;
            effects.held.remove(&(id, effect, over));
            return false;
        }
        let lane = effects.lane(channel, kind);
        if effects.lanes[lane].waiting.is_empty() && effects.lanes[lane].free() > 0 {
            effects.take_place((id, effect, generation), lane);
            return true;
        }
        effects.parked.insert(place.clone(), Parked { generation, claimed_by: owed.claimed_by, again });
        effects.lanes[lane].waiting.push_back(place);
        false
    }

    /// It is settled, or a newer one took its place. Called after the commit that says so: before, a
    /// look into the outbox would find it and begin it again.
    pub(super) fn end(&self, owed: &Owed) {
        let mut effects = self.lock();
        let place = effects.held.remove(&key(owed));
        effects.rest();
        let Some(Some(lane)) = place else { return };
        let lane = &mut effects.lanes[lane];
        lane.begun = lane.begun.saturating_sub(1);
        if lane.is_worth_a_look() {
            self.room.notify_one();
        }
    }

    /// It waits for long and stays in hand, but leaves its place to others; [`InHand::has_room`] gives it
    /// one again.
    pub(super) fn leave(&self, owed: &Owed) {
        let mut effects = self.lock();
        let Some(lane) = effects.held.get_mut(&key(owed)).and_then(Option::take) else { return };
        let lane = &mut effects.lanes[lane];
        lane.begun = lane.begun.saturating_sub(1);
        if lane.is_worth_a_look() {
            self.room.notify_one();
        }
    }

    /// Awaits room, and takes what there is room for, the oldest of each kind and channel first.
    async fn next(&self) -> Vec<Taken> {
        loop {
            let next = self.take();
            if !next.is_empty() {
                return next;
            }
            self.room.notified().await;
        }
    }

    fn take(&self) -> Vec<Taken> {
        let mut effects = self.lock();
        let mut taken = Vec::new();
        for lane in 0..effects.lanes.len() {
            if !effects.lanes[lane].is_worth_a_look() {
                continue;
            }
            let free = effects.lanes[lane].free().min(AT_A_LOOK);
            let count = free.min(effects.lanes[lane].waiting.len());
            let places: Vec<_> = effects.lanes[lane].waiting.drain(..count).collect();
            for place in places {
                let Some(parked) = effects.parked.remove(&place) else { continue };
                let ((id, effect), Parked { generation, claimed_by, again }) = (place, parked);
                let remediation = RemediationId((*id).to_owned());
                effects.take_place((id, effect, generation), lane);
                taken.push(Taken { owed: Owed { remediation, effect, generation, claimed_by }, again });
            }
        }
        taken
    }

    pub(super) fn begin_notice(&self, id: &str) -> bool {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }

    pub(super) fn end_notice(&self, id: &str) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Engine {
    /// Begins what waited for room, for ever. It is read anew: what it says is true when it is begun.
    pub(super) async fn keep_begun(&self) {
        loop {
            let next = Arc::new(self.0.in_hand.next().await);
            let found = loop {
                let asked = Arc::clone(&next);
                let needs = Needs::default().remediations(next.iter().map(|parked| &parked.owed.remediation));
                let read = self.store().with(needs).transact_claimed(move |tx| {
                    asked
                        .iter()
                        .map(|parked| readable(tx, &parked.owed.remediation))
                        .collect::<store::Result<Vec<_>>>()
                });
                match read.await {
                    Ok(found) => break found,
                    Err(error) if error.is_final() => return std::future::pending().await,
                    Err(error) => self.store_failed("reading what is owed", &error),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            for (parked, remediation) in next.iter().zip(found) {
                match remediation {
                    Some(remediation) => {
                        self.carry(parked.owed.clone(), Arc::new(remediation), parked.again);
                    }
                    None => self.0.in_hand.end(&parked.owed),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(number: usize, effect: Effect, generation: i64) -> Owed {
        Owed { remediation: RemediationId(format!("r{number}")), effect, generation, claimed_by: 1 }
    }

    /// Whether it is begun now.
    fn comes(hand: &InHand, owed: &Owed) -> bool {
        hand.begin(owed) && hand.has_room(owed, "C1", false)
    }

    fn ids(taken: &[Taken]) -> Vec<String> {
        taken.iter().map(|taken| taken.owed.remediation.0.clone()).collect()
    }

    #[test]
    fn what_finds_no_room_is_begun_in_its_order_as_room_comes() {
        let (hand, room) = (InHand::default(), Kind::Declarations.room());
        let all: Vec<Owed> = (0..room + 2).map(|number| owed(number, Effect::Declare, 1)).collect();
        assert_eq!(all.iter().filter(|owed| comes(&hand, owed)).count(), room);
        assert_eq!(hand.take(), [], "no room");
        assert!(!comes(&hand, &all[room]), "it is in hand while it waits");
        hand.end(&all[0]);
        assert_eq!(hand.take(), [], "one of two is not worth a look");
        hand.end(&all[1]);
        assert!(!comes(&hand, &owed(room + 2, Effect::Declare, 1)), "not before those that wait");
        hand.end(&all[2]);
        assert_eq!(ids(&hand.take()), [room, room + 1, room + 2].map(|number| format!("r{number}")));
        hand.end(&all[3]);
        assert!(comes(&hand, &owed(room + 3, Effect::Declare, 1)), "nobody waits any more");
        assert!(!comes(&hand, &owed(room + 4, Effect::Declare, 1)), "what was begun late takes room too");
    }

    #[test]
    fn what_waits_for_long_leaves_its_place_and_gets_one_again() {
        let (hand, room) = (InHand::default(), Kind::Reports.room());
        let all: Vec<Owed> = (0..room).map(|number| owed(number, Effect::Attach, 1)).collect();
        assert!(all.iter().all(|owed| comes(&hand, owed)));
        all.iter().for_each(|owed| hand.leave(owed));
        assert!(comes(&hand, &owed(9000, Effect::Report, 1)), "uploads that wait hold up no report");
        assert!(!hand.begin(&all[0]), "it is in hand still");
        hand.leave(&all[0]);
        assert!(hand.has_room(&all[0], "C1", true));
        hand.end(&all[0]);
        hand.end(&all[1]);
        assert_eq!(hand.lock().lanes[0].begun, 1);
        assert!(hand.begin(&all[1]), "it was over");
    }

    #[test]
    fn a_storm_that_is_over_takes_no_room() {
        let hand = InHand::default();
        let all: Vec<Owed> = (0..5000).map(|number| owed(number, Effect::React, 1)).collect();
        let begun = all.iter().filter(|owed| comes(&hand, owed)).count();
        assert_eq!(begun, Kind::Reactions.room());
        all[..begun].iter().for_each(|owed| hand.end(owed));
        let mut late = Vec::new();
        while let taken @ [_, ..] = hand.take().as_slice() {
            late.extend(ids(taken));
            taken.iter().for_each(|taken| hand.end(&taken.owed));
        }
        assert_eq!(late.len(), all.len() - begun);
        let effects = hand.lock();
        let waiting = effects.lanes.iter().map(|lane| lane.waiting.capacity());
        assert_eq!((effects.held.capacity(), effects.parked.capacity(), waiting.sum()), (0, 0, 0));
    }

    #[test]
    fn kinds_and_channels_do_not_wait_for_each_other_and_servers_for_nothing() {
        let hand = InHand::default();
        for number in 0..=Kind::Declarations.room() {
            comes(&hand, &owed(number, Effect::Declare, 1));
        }
        assert!(!comes(&hand, &owed(9000, Effect::SayWhyNot, 1)));
        for effect in
            [Effect::Send, Effect::Resolve, Effect::UpdateDeclaration, Effect::Report, Effect::React]
        {
            assert!(comes(&hand, &owed(9001, effect, 1)), "{effect:?}");
        }
        let other = owed(9002, Effect::Declare, 1);
        assert!(hand.begin(&other) && hand.has_room(&other, "C2", false));
        for number in 0..5000 {
            assert!(comes(&hand, &owed(number, Effect::Send, 1)));
        }
    }

    #[test]
    fn of_one_effect_owed_again_and_again_the_newest_is_begun_once() {
        let (hand, room) = (InHand::default(), Kind::Updates.room());
        let all: Vec<Owed> = (0..room).map(|number| owed(number, Effect::UpdateDeclaration, 1)).collect();
        assert!(all.iter().all(|owed| comes(&hand, owed)));
        // Newer than what is under way, and then newer still; the last comes late.
        for generation in [2, 4, 3] {
            assert!(!comes(&hand, &owed(7, Effect::UpdateDeclaration, generation)));
        }
        hand.end(&all[0]);
        let taken = hand.take();
        assert_eq!(taken, [Taken { owed: owed(7, Effect::UpdateDeclaration, 4), again: false }]);
        hand.end(&all[7]);
        hand.end(&taken[0].owed);
        assert_eq!(hand.lock().held.len(), room - 2, "nothing is left of the others");
        assert_eq!(hand.lock().lanes[0].begun, room - 2);
    }
}
