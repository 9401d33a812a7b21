//! What of the outbox this process has in hand, so that nothing is performed by two of its tasks.
//!
//! An effect is begun by whoever sees it first: the task that carries out the commit which owed it, or
//! the look into the outbox that finds what other replicas owe here.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::lifecycle::{Effect, RemediationId};
use crate::store::Owed;

type Key = (RemediationId, Effect, i64);

#[derive(Debug, Default)]
pub(super) struct InHand {
    effects: Mutex<HashSet<Key>>,
    notices: Mutex<HashSet<String>>,
}

fn key(owed: &Owed) -> Key {
    (owed.remediation.clone(), owed.effect, owed.generation)
}

impl InHand {
    /// Whether nobody has it in hand; from now on somebody has.
    pub(super) fn begin(&self, owed: &Owed) -> bool {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).insert(key(owed))
    }

    /// It is settled, or a newer one took its place. Called after the commit that says so: before, a
    /// look into the outbox would find it and begin it again.
    pub(super) fn end(&self, owed: &Owed) {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(owed));
    }

    pub(super) fn begin_notice(&self, id: &str) -> bool {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }

    pub(super) fn end_notice(&self, id: &str) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
