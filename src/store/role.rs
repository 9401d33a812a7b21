//! How many instances of a role are under remediation, kept up write by write: the gates ask before every
//! sending, and counting rows takes the longer the more runs.

use std::collections::HashMap;

/// What runs of one role.
#[derive(Debug, Default)]
pub(super) struct Role {
    /// Remediations between sending and answer, each with its instance.
    running: HashMap<String, String>,
    /// How many of them each instance has.
    instances: HashMap<String, u32>,
}

impl Role {
    pub(super) fn take(&mut self, id: &str, instance: &str) {
        self.leave(id);
        self.running.insert(id.to_owned(), instance.to_owned());
        *self.instances.entry(instance.to_owned()).or_default() += 1;
    }

    pub(super) fn leave(&mut self, id: &str) {
        let Some(instance) = self.running.remove(id) else { return };
        let Some(count) = self.instances.get_mut(&instance) else { return };
        *count -= 1;
        if *count == 0 {
            self.instances.remove(&instance);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Instances that another than `but` has.
    pub(super) fn count(&self, but: &str) -> usize {
        let own = self.running.get(but).and_then(|instance| self.instances.get(instance));
        self.instances.len() - usize::from(own == Some(&1))
    }
}
