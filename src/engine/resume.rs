//! Start-up: what is owed is carried out, what runs is watched, what is due is woken.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::decide::Ground;
use super::owed::readable;
use crate::lifecycle::Remediation;
use crate::store::{self, Tx};

/// What was under way at the last stop gets this long to be heard of by AWS …
const PATIENCE: Duration = Duration::from_secs(90);
/// … and by Slack, whose history is read at once and a second time after 15 seconds.
const SLACKS_PATIENCE: Duration = Duration::from_secs(20);

/// After a failure of the store others mostly follow; what came of them is asked together.
const FAILURES: Duration = Duration::from_secs(1);

/// Takes over a remediation after which nobody looked for a while: a deadline that passed meanwhile gives the
/// world time to answer first, and one that a wrong clock set comes in time.
pub(super) fn take_over(tx: &mut dyn Tx, this: &mut Remediation, ground: &Ground) -> store::Result<()> {
    let (before, now) = (this.state.clone(), ground.now);
    this.not_due_after_its_term(now, ground.max_age);
    if this.state != before {
        let id = &this.id;
        tracing::warn!(remediation = %id, "the deadline of {id} was set by a clock that was ahead; it is sooner now");
    }
    this.state.not_due_before(now.plus(PATIENCE), now.plus(SLACKS_PATIENCE));
    if this.state != before { tx.update_remediation(this) } else { Ok(()) }
}

impl Engine {
    /// Claims what the process before left, and goes on with it. Of replicas that may still live
    /// [`Engine::keep_lease`] finds out.
    pub(super) async fn resume(&self) -> store::Result<()> {
        let ground = self.ground();
        let (open, owed, notices, limits) = self
            .store()
            .transact(move |tx| {
                tx.claim_orphans()?;
                for mut open in tx.claimed_remediations()? {
                    take_over(tx, &mut open, &ground)?;
                }
                let mut owed = Vec::new();
                for effect in tx.owed()? {
                    if let Some(remediation) = readable(tx, &effect.remediation)? {
                        owed.push((effect, remediation));
                    }
                }
                Ok((tx.claimed_remediations()?, owed, tx.owed_notices()?, tx.limits(ground.now)?))
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

    /// Follows what runs, for ever: after each failure of the store it is read anew. A commit of which nobody
    /// heard may count all the same; what is kept again is then refused, as it is there, and nobody is told.
    pub(super) async fn keep_minding(&self) {
        loop {
            self.0.in_doubt.notified().await;
            tokio::time::sleep(FAILURES).await;
            // Not as `transact_claimed`: it waits for the end of whatever a lost connection still does.
            let read = self.store().transact(|tx| Ok((tx.running_remediations()?, tx.next_due_at()?)));
            match read.await {
                Ok((running, due)) => {
                    if let Some(due) = due {
                        self.alarm().set(due);
                    }
                    running.into_iter().for_each(|remediation| self.mind(Arc::new(remediation)));
                }
                Err(error) if error.is_final() => return std::future::pending().await,
                // It is asked again.
                Err(error) => self.store_failed("reading what runs", &error),
            }
        }
    }
}
