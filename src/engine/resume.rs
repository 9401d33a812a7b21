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
    /// Claims what the process before left, and goes on with it. Of replicas that may still live
    /// [`Engine::keep_lease`] finds out.
    pub(super) async fn resume(&self) -> store::Result<()> {
        let now = self.clock().now();
        let (answers, messages) = (now.plus(PATIENCE), now.plus(SLACKS_PATIENCE));
        let (open, owed, notices, limits) = self
            .store()
            .transact(move |tx| {
                tx.claim_orphans()?;
                // Deadlines that passed while nobody looked give the world time to answer first.
                for mut open in tx.claimed_remediations()? {
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
                Ok((tx.claimed_remediations()?, owed, tx.owed_notices()?, tx.limits(now)?))
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
        limits.iter().for_each(|limit| self.learn(limit));
        for remediation in open {
            self.mind(Arc::new(remediation));
        }
        for (effect, remediation) in owed {
            self.perform(effect, Arc::new(remediation), true);
        }
        for notice in notices {
            if self.0.in_hand.begin_notice(&notice.id) {
                self.announce(notice, true);
            }
        }
        Ok(())
    }
}
