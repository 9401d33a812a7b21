//! The bot's clock: the machine's, plus what a test moved it by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::time::Timestamp;

/// Wall-clock time, the only place where it is read. Cheap to clone; clones move together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead: Arc<AtomicI64>,
    moved: Arc<Notify>,
}

impl Clock {
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let real = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp(real.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// Moves the clock on, for tests: what is due by then happens at once.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// Sleeps until that moment by this clock.
    pub async fn sleep_until(&self, at: Timestamp) {
        loop {
            let moved = self.moved.notified();
            let left = self.now().until(at);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = moved => {}
            }
        }
    }
}
