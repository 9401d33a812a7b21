//! Start-up: what is owed is carried out, what runs is watched, what is due is woken.

use std::sync::Arc;

use super::Engine;
use crate::store;

impl Engine {
    pub(super) async fn resume(&self) -> store::Result<()> {
        let (open, owed) = self
            .store()
            .transact(|tx| {
                let mut owed = Vec::new();
                for effect in tx.owed()? {
                    if let Some((remediation, _)) = tx.remediation(&effect.remediation)? {
                        owed.push((effect, remediation));
                    }
                }
                Ok((tx.open_remediations()?, owed))
            })
            .await?;
        if !open.is_empty() || !owed.is_empty() {
            tracing::info!(
                open = open.len(),
                owed = owed.len(),
                "going on with {} open remediations and {} owed effects",
                open.len(),
                owed.len()
            );
        }
        for remediation in open {
            if let Some(due) = remediation.state.due_at() {
                self.alarm().set(due);
            }
            self.0.watched.mind(&Arc::new(remediation));
        }
        for (effect, remediation) in owed {
            self.perform(effect, Arc::new(remediation), true);
        }
        Ok(())
    }
}
