//! What is older than `retention` goes, a few rows at a time.
//!
//! A round an hour, by one replica. Between two batches it rests ten times as long as the last one took,
//! waiting for its turn included: where the store is busy it is as good as not there. What is open, what
//! is owed and what a rule still counts stays; see [`Past`].

use std::time::{Duration, Instant};

use super::Engine;
use super::catch_up::{seen, stamp};
use super::metrics::{Metrics, NameLabel};
use crate::rule::RuleSet;
use crate::store::{self, Past, Store};
use crate::time::Timestamp;

/// After a start there is more urgent work.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(3600);
/// Rows a transaction. A decision that comes meanwhile waits for so many at most: a few milliseconds.
const BATCH: usize = 100;
/// Of the store's time a tenth at most.
const REST: u32 = 10;
const LEAST_REST: Duration = Duration::from_millis(50);
/// What was taken is known for so long. Slack delivers again within a day (its delayed events), and the
/// history of a channel is read one day back.
const DELIVERIES: Duration = Duration::from_secs(3 * 86_400);
/// It is no later than this after the newest message that was heard of, for all that is deleted by its age.
const SLACKS_CLOCK: Duration = Duration::from_secs(86_400);
/// Holds when the last round began, for all replicas.
const NOTE: &str = "trimmed";

/// Up to when things are old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    before: Timestamp,
    deliveries_before: Timestamp,
}

impl Old {
    /// Nothing that a rule still counts is old. `heal check` refuses a shorter `retention`, but rules may
    /// have changed since.
    pub(super) fn at(now: Timestamp, retention: Duration, rules: &RuleSet) -> Old {
        let counted = rules.iter().map(|rule| rule.looks_back()).max().unwrap_or_default();
        Old { before: now.minus(retention.max(counted)), deliveries_before: now.minus(DELIVERIES) }
    }

    fn before(self, past: Past) -> Timestamp {
        match past {
            Past::Deliveries => self.deliveries_before,
            Past::Remediations | Past::Journal | Past::Alerts | Past::Pauses | Past::Notes => self.before,
        }
    }
}

/// How late it is at most: a machine's clock may be years ahead, and what it takes for old is gone for all
/// replicas. Slack stamps what it delivers by its own clock. `None` while nothing was heard.
pub(super) async fn believed(
    store: &Store,
    channels: &[String],
    now: Timestamp,
) -> store::Result<Option<Timestamp>> {
    let names: Vec<String> = channels.iter().map(|channel| seen(channel)).collect();
    let heard = store.transact(move |tx| {
        let mut newest = None;
        for name in &names {
            newest = newest.max(stamp(tx, name)?);
        }
        Ok(newest)
    });
    Ok(heard.await?.map(|newest| now.min(newest.plus(SLACKS_CLOCK))))
}

impl Engine {
    /// Trims, for ever.
    pub(super) async fn keep_trimmed(&self) {
        // By the machine's time: nothing is late when this is.
        tokio::time::sleep(FIRST).await;
        loop {
            let now = self.clock().now();
            let trimmed = async {
                let Some(late) = believed(self.store(), &self.parts().channels, now).await? else {
                    return Ok(());
                };
                let old = Old::at(late, self.config().retention, &self.rules());
                let rows = round(self.store(), now, old, self.metrics()).await?;
                if rows > 0 {
                    tracing::info!(rows, "{rows} rows older than {} were trimmed", old.before);
                }
                Ok(())
            };
            if let Err(error) = trimmed.await {
                self.store_failed("trimming what is old", &error);
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// One round, unless another replica (or this one before a restart) began one within the hour; how many
/// rows went.
pub(super) async fn round(
    store: &Store,
    now: Timestamp,
    old: Old,
    metrics: &Metrics,
) -> store::Result<usize> {
    let mine = store.transact(move |tx| {
        let last = tx.note(NOTE)?.and_then(|millis| millis.parse().ok()).map(Timestamp);
        // One that lies ahead was set by a clock that was wrong.
        let recent = last.is_some_and(|last| last <= now && now.since(last) < EVERY / 2);
        if !recent {
            tx.set_note(NOTE, &now.as_millis().to_string())?;
        }
        Ok(!recent)
    });
    if !mine.await? {
        return Ok(0);
    }
    let mut rows = 0;
    for past in Past::ALL {
        let counter = metrics.trimmed.get_or_create(&NameLabel { name: past.name() }).clone();
        loop {
            let asked = Instant::now();
            let trimmed = store.transact(move |tx| tx.trim(past, old.before(past), BATCH)).await?;
            rows += trimmed.rows;
            counter.inc_by(u64::try_from(trimmed.rows).unwrap_or_default());
            tokio::time::sleep((asked.elapsed() * REST).max(LEAST_REST)).await;
            if !trimmed.more {
                break;
            }
        }
    }
    Ok(rows)
}
