//! Trimming beside decisions: what rules count stays, and nobody waits for it.

use std::time::Instant;

use super::*;
use crate::engine::metrics::{Metrics, NameLabel};
use crate::engine::trim::{Old, round};
use crate::store::Record;

const DAY: Duration = Duration::from_secs(86_400);

impl World {
    /// A round at this moment; how many rows went.
    async fn trims(&self, retention: Duration) -> usize {
        let old = Old::at(self.now, retention, &self.rules);
        round(&self.store, self.now, old, &Metrics::default()).await.unwrap()
    }

    async fn is_there(&self, id: &RemediationId) -> bool {
        let id = id.clone();
        self.store.transact(move |tx| Ok(tx.remediation(&id)?.is_some())).await.unwrap()
    }

    /// One that ran and failed, with nothing owed any more.
    async fn fails(&mut self, instance: &str) -> RemediationId {
        let id = self.alerts("NginxDown", instance).await;
        self.takes(&id, posted()).await;
        self.runs(&id, Final::Failed).await;
        assert_eq!(self.outcome(&id).await, Outcome::Failed);
        self.performs().await;
        id
    }

    async fn performs(&self) {
        let all = self.store.transact(|tx| {
            let owed = tx.owed()?;
            owed.iter().try_for_each(|owed| tx.settle(owed))
        });
        all.await.unwrap();
    }
}

#[tokio::test]
async fn what_a_rule_counts_outlives_a_shorter_retention() {
    let mut world = World::of(
        "web:NginxDown: {commands: [x], stage: auto, grace: 0s, cooldown: 1h, attempts: [2/5d], \
         approve_within: 1h}",
    );
    let first = world.fails("i-1").await;
    world.passes(2 * 86_400);
    let second = world.fails("i-1").await;
    world.passes(2 * 86_400);
    world.trims(DAY).await;
    assert!(world.is_there(&first).await && world.is_there(&second).await, "both are counted still");
    let third = world.alerts("NginxDown", "i-1").await;
    assert!(matches!(world.reason(&third).await, Reason::TooManyAttempts { .. }));
    world.performs().await;
    world.passes(2 * 86_400);
    world.trims(DAY).await;
    assert!(!world.is_there(&first).await, "more than five days old");
    assert!(world.is_there(&second).await);
    let fourth = world.alerts("NginxDown", "i-1").await;
    assert_eq!(world.name(&fourth).await, "declaring");
}

#[tokio::test]
async fn of_all_replicas_one_trims_an_hour() {
    let mut world = World::of(AUTO);
    let old = world.fails("i-1").await;
    assert_eq!(world.trims(400 * DAY).await, 0, "begun, with nothing to do");
    world.now = START.plus(500 * DAY);
    let wrong_clock = world.now.plus(DAY);
    let began = |at: Timestamp| {
        move |tx: &mut dyn Tx| {
            // The journal's newest line and who it belongs to stay.
            tx.record(&Record { at, remediation: None, what: "paused", who: "U1", why: "*" })?;
            tx.set_note("trimmed", &at.as_millis().to_string())
        }
    };
    world.store.transact(began(world.now)).await.unwrap();
    world.passes(60);
    assert_eq!(world.trims(400 * DAY).await, 0, "another replica began a minute ago");
    assert!(world.is_there(&old).await);
    world.store.transact(began(wrong_clock)).await.unwrap();
    assert!(world.trims(400 * DAY).await > 2, "one that began tomorrow is no reason");
    assert!(!world.is_there(&old).await);
}

#[tokio::test]
async fn months_of_the_past_go_while_decisions_are_made_and_nobody_waits_for_it() {
    const PAST: usize = 300;
    let mut world = World::of(AUTO);
    let pattern = world.fails("i-0").await;
    let open = world.alerts("DiskFull", "i-open").await;
    world.takes(&open, posted()).await;
    world.performs().await;
    // The same life many times over, each with its alert and its journal.
    let fill = move |tx: &mut dyn Tx| {
        let (life, _) = tx.remediation(&pattern)?.expect("it is there");
        let journal = tx.journal_of(&pattern)?;
        for number in 0..PAST {
            let mut copy = life.clone();
            copy.id = RemediationId(format!("past{number}"));
            copy.origin.ts = format!("{}.{number:06}", START.as_secs() - 1);
            let alert = tx.insert_alert(&NewAlert {
                origin: &copy.origin,
                position: 0,
                alert: &copy.alert,
                rule: Some(&copy.rule_key),
                received_at: START,
            })?;
            tx.insert_remediation(&copy, Some(alert))?;
            tx.take_delivery(&format!("message:{}", copy.origin.ts), START)?;
            for (at, what, who, why) in &journal {
                tx.record(&Record { at: *at, remediation: Some(&copy.id), what, who, why })?;
            }
        }
        Ok(journal.len())
    };
    let lines = world.store.transact(fill).await.unwrap();
    world.now = START.plus(401 * DAY);

    let (store, now) = (world.store.clone(), world.now);
    let old = Old::at(now, 400 * DAY, &world.rules);
    let metrics = Arc::new(Metrics::default());
    let trims = tokio::spawn({
        let metrics = Arc::clone(&metrics);
        async move { round(&store, now, old, &metrics).await.unwrap() }
    });
    let (mut made, mut longest) = (Vec::new(), Duration::ZERO);
    while !trims.is_finished() {
        let asked = Instant::now();
        made.push(world.alerts("NginxDown", &format!("i-{}", made.len() + 1)).await);
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rows = trims.await.unwrap();
    // Also the pattern itself and its alert; nobody took a delivery for it.
    assert_eq!(rows, (PAST + 1) * (2 + lines) + PAST);
    let counted = |name| metrics.trimmed.get_or_create(&NameLabel { name }).get();
    assert_eq!(counted("alerts"), 301);
    assert_eq!(counted("deliveries"), 300);
    assert!(made.len() > 10, "only {} decisions were made meanwhile", made.len());
    assert!(longest < Duration::from_secs(3), "Slack waits so long for its acknowledgement: {longest:?}");
    for id in made.iter().chain([&open]) {
        assert!(world.is_there(id).await && !world.journal(id).await.is_empty());
    }
    world.runs(&open, Final::Success).await;
    world.resolves(&open).await;
    assert_eq!(world.outcome(&open).await, Outcome::Healed, "older than all, and it went on");
}
