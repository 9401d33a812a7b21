//! Timers are data: whatever has a deadline is due by its row, and one task looks when the next is.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use super::Engine;
use super::decide::{Decided, apply};
use crate::lifecycle::Input;
use crate::time::Timestamp;

/// Due remediations per transaction.
const BATCH: usize = 200;
/// Looks at the store at least so often, whatever the hints said.
const LONGEST: Duration = Duration::from_secs(30);

/// The earliest deadline anybody told of.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    at: Mutex<Option<Timestamp>>,
    sooner: Notify,
}

impl Alarm {
    /// Something is due then.
    pub(super) fn set(&self, at: Timestamp) {
        let mut earliest = self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if earliest.is_none_or(|have| at < have) {
            *earliest = Some(at);
            self.sooner.notify_one();
        }
    }

    fn get(&self) -> Option<Timestamp> {
        *self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn clear(&self) {
        *self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

impl Engine {
    /// Wakes what is due, for ever.
    pub(super) async fn keep_time(&self) {
        loop {
            let now = self.clock().now();
            let latest = now.plus(LONGEST);
            let at = self.alarm().get().map_or(latest, |at| at.min(latest));
            tokio::select! {
                () = self.clock().sleep_until(at) => {}
                () = self.alarm().sooner.notified() => continue,
            }
            self.alarm().clear();
            if let Err(error) = self.wake_due().await {
                self.store_failed("waking what is due", &error);
                self.alarm().set(self.clock().now().plus(Duration::from_secs(1)));
            }
        }
    }

    /// One round: at most a batch, and a hint when more is due.
    async fn wake_due(&self) -> crate::store::Result<()> {
        let ground = self.ground();
        let decided = self
            .store()
            .transact(move |tx| {
                let mut out = Decided::default();
                for id in tx.due_remediations(ground.now, BATCH)? {
                    drop(apply(tx, &ground, &id, &Input::Woken, "heal", &mut out)?);
                }
                out.due_at = tx.next_due_at()?;
                Ok(out)
            })
            .await?;
        self.carry_out(decided);
        Ok(())
    }
}
