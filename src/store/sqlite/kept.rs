//! Remediations as they were last read or written: each step begins where the last one ended, and to read
//! a row anew costs more than all else that a step does. Right as long as nobody else writes to the file,
//! which each transaction makes sure of; whatever is undone makes all of it be read anew.

use std::collections::HashMap;
use std::sync::Arc;

use crate::lifecycle::{Remediation, RemediationId};

/// One takes some 5 KiB.
const AT_MOST: usize = 1000;

/// By id, with the alert's row.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<RemediationId, (Arc<Remediation>, Option<i64>)>);

impl Kept {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn remove(&mut self, id: &RemediationId) {
        self.0.remove(id);
    }

    pub(super) fn get(&self, id: &RemediationId) -> Option<(Arc<Remediation>, Option<i64>)> {
        self.0.get(id).cloned()
    }

    pub(super) fn put(&mut self, remediation: &Arc<Remediation>, alert: Option<i64>) {
        if remediation.is_over() {
            // Little follows.
            return self.remove(&remediation.id);
        }
        if self.0.len() >= AT_MOST {
            self.forget();
        }
        self.0.insert(remediation.id.clone(), (Arc::clone(remediation), alert));
    }

    /// What a step made of one that is kept.
    pub(super) fn step(&mut self, next: &Arc<Remediation>) {
        if let Some((_, alert)) = self.get(&next.id) {
            self.put(next, alert);
        }
    }
}
