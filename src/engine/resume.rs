//! Start-up: what is owed is carried out, what runs is watched, what is due is woken.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::store;

/// What was under way at the last stop gets this long to be heard of by AWS …
const PATIENCE: Duration = Duration::from_secs(90);
/// … and by Slack, whose history is read at once and a second time after 15 seconds.
const SLACKS_PATIENCE: Duration = Duration::from_secs(20);

impl Engine {
    pub(super) async fn resume(&self) -> store::Result<()> {
        let now = self.clock().now();
        let (answers, messages) = (now.plus(PATIENCE), now.plus(SLACKS_PATIENCE));
        let (open, owed) = self
            .store()
            .transact(move |tx| {
                // Deadlines that passed while nobody looked give the world time to answer first.
                for mut open in tx.open_remediations()? {
                    let before = open.state.clone();
                    open.state.not_due_before(answers, messages);
                    if open.state != before {
                        tx.update_remediation(&open)?;
                    }
                }
                let mut owed = Vec::new();
                for effect in tx.owed()? {
                    match tx.remediation(&effect.remediation) {
                        Ok(Some((remediation, _))) => owed.push((effect, remediation)),
                        Ok(None) => {}
                        Err(store::Error::Corrupt { what, why }) => {
                            tracing::error!(
                                why,
                                "a stored {what} cannot be read; what it owes is passed over"
                            );
                        }
                        Err(error) => return Err(error),
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
