//! Real `kill -9` of the real binary, at random instants under a stream of alerts: nothing is lost, nothing
//! is done or said twice.
//!
//! One of these alone, with its figures: `cargo test --test it kill:: -- --nocapture`. `HEAL_SEED=…` repeats
//! the draws of a run that failed (the instants depend on the machine all the same).

pub mod place;
pub mod replica;
pub mod siege;
pub mod stream;
mod told;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use heal::sandbox::postgres::Server;
use siege::Siege;

/// Held by each test that keeps the machine busy for a minute, so that they do not run at once.
static HEAVY: Mutex<()> = Mutex::new(());

/// Runs a heavy test, alone among its like.
pub fn heavily(test: impl Future<Output = ()>) {
    let _alone = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(400), test).await.unwrap() });
}

#[test]
fn a_bot_that_is_killed_two_hundred_times_loses_nothing_and_does_nothing_twice() {
    let siege = Siege { replicas: 1, store: None, alerts: 280, kills: 200, lives: 20..600, in_start: 25 };
    heavily(siege.lay());
}

#[test]
fn three_replicas_of_which_one_is_killed_every_few_seconds_declare_run_and_report_each_alert_once() {
    let database = Server::shared().unwrap().database().unwrap();
    // So that a laptop can try it with fewer.
    let alerts = std::env::var("HEAL_ALERTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    let siege = Siege {
        replicas: 3,
        store: Some(database.url()),
        alerts,
        kills: (alerts / 80).max(3),
        lives: 1000..4000,
        in_start: 10,
    };
    heavily(siege.lay());
}
