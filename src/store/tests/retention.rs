//! What goes when it is old, and what never does.

use super::*;
use crate::gate::Pause;
use crate::lifecycle::Effect;

const DAY: i64 = 86_400;
/// What ended before is old.
const OLD: Timestamp = NOW;

async fn trims(store: &Store, past: Past, limit: usize) -> Trimmed {
    does(store, move |tx| tx.trim(past, OLD, limit)).await
}

const fn went(rows: usize) -> Trimmed {
    Trimmed { rows, more: false }
}

/// Keeps a remediation of an alert with lines in the journal at these moments; the alert's row.
async fn keeps(store: &Store, this: Remediation, lines: &[Timestamp]) -> i64 {
    let lines = lines.to_vec();
    does(store, move |tx| {
        let alert = tx.insert_alert(&NewAlert {
            origin: &Origin {
                ts: format!("{}.{}", this.opened_at.as_secs(), this.id),
                ..this.origin.clone()
            },
            position: 0,
            alert: &this.alert,
            rule: Some(&this.rule_key),
            received_at: this.opened_at,
        })?;
        tx.insert_remediation(&this, Some(alert))?;
        for at in lines {
            let (who, why) = ("heal", "because");
            tx.record(&Record { at, remediation: Some(&this.id), what: "opened", who, why })?;
        }
        Ok(alert)
    })
    .await
}

/// A line of the journal that belongs to nothing: the newest one is never trimmed.
async fn says(store: &Store, now: Timestamp) {
    let line = Record { at: now, remediation: None, what: "paused", who: "U1", why: "*" };
    does(store, move |tx| tx.record(&line)).await;
}

async fn there(store: &Store, id_: &'static str) -> bool {
    does(store, move |tx| Ok(tx.remediation(&id(id_))?.is_some())).await
}

async fn lines(store: &Store, id_: &'static str) -> usize {
    does(store, move |tx| Ok(tx.journal_of(&id(id_))?.len())).await
}

/// Whether an alert of that message is there.
async fn alerted(store: &Store, ts: String) -> bool {
    does(store, move |tx| Ok(!tx.alerts_of("C0ALERTS", &ts)?.is_empty())).await
}

fn over(id: &str, instance: &str, opened_at: Timestamp, ended: Timestamp) -> Remediation {
    held(&declaring(id, "web:NginxDown", instance, opened_at), ended)
}

pub(super) async fn a_finished_remediation_goes_with_its_journal_and_then_its_alert(at_: &impl Backend) {
    let store = at_.open();
    keeps(&store, over("old", "i-1", at(-9), at(-1)), &[at(-9), at(-1)]).await;
    keeps(&store, over("young", "i-1", at(-9), at(0)), &[at(-9), at(0)]).await;
    says(&store, at(1)).await;
    assert_eq!(trims(&store, Past::Alerts, 100).await, went(0), "a remediation refers to each");
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(3), "it and its two lines");
    assert!(!there(&store, "old").await && there(&store, "young").await);
    assert_eq!((lines(&store, "old").await, lines(&store, "young").await), (0, 2));
    assert_eq!(trims(&store, Past::Alerts, 100).await, went(1));
    let ts = |id: &str| format!("{}.{id}", at(-9).as_secs());
    assert!(!alerted(&store, ts("old")).await && alerted(&store, ts("young")).await);
    for past in Past::ALL {
        assert_eq!(trims(&store, past, 100).await, went(0), "{past:?} once more");
    }
}

pub(super) async fn what_is_open_stays_whole_however_old(at_: &impl Backend) {
    let store = at_.open();
    let opened_at = at(-900 * DAY);
    let states = [
        declaring("declaring", "web:A", "i-1", opened_at),
        counting("counting", "web:B", "i-2", opened_at),
        sending("sending", "web:C", "i-3", opened_at),
    ];
    let mut kept = Vec::new();
    for this in states {
        let id = this.id.0.clone();
        kept.push((keeps(&store, this, &[opened_at, at(-800 * DAY)]).await, id));
    }
    says(&store, at(1)).await;
    for past in Past::ALL {
        assert_eq!(trims(&store, past, 100).await, went(0), "{past:?}");
    }
    for (_, name) in kept {
        let (found, lines) =
            does(&store, move |tx| Ok((tx.remediation(&id(&name))?, tx.journal_of(&id(&name))?.len()))).await;
        let (this, alert) = found.unwrap();
        assert_eq!(lines, 2);
        let ts = format!("{}.{}", opened_at.as_secs(), this.id);
        assert!(alert.is_some() && alerted(&store, ts).await);
    }
}

pub(super) async fn who_owes_something_or_was_spoken_of_lately_stays(at_: &impl Backend) {
    let store = at_.open();
    keeps(&store, over("owing", "i-1", at(-9), at(-1)), &[at(-9)]).await;
    keeps(&store, over("pressed", "i-1", at(-9), at(-1)), &[at(-9), at(5)]).await;
    let owed = does(&store, |tx| tx.owe(&id("owing"), Effect::Report)).await;
    says(&store, at(6)).await;
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(0));
    does(&store, move |tx| tx.settle(&owed)).await;
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(2));
    assert!(!there(&store, "owing").await && there(&store, "pressed").await);
}

pub(super) async fn one_that_cannot_be_read_goes_by_its_opening(at_: &impl Backend) {
    let store = at_.open();
    keeps(&store, declaring("old", "web:A", "i-1", at(-1)), &[]).await;
    keeps(&store, declaring("young", "web:A", "i-2", at(1)), &[]).await;
    does(&store, |tx| tx.set_aside(&id("old")).and_then(|_| tx.set_aside(&id("young")))).await;
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(1));
    assert!(!there(&store, "old").await && there(&store, "young").await);
}

pub(super) async fn a_batch_stops_at_its_limit_and_takes_the_oldest_first(at_: &impl Backend) {
    let store = at_.open();
    // Kept in another order than they ended in.
    for seconds in [7_i64, 3, 9, 1, 5, 8, 2, 6, 4] {
        let ended = at(-seconds);
        keeps(&store, over(&format!("r{seconds}"), "i-1", at(-99), ended), &[ended; 3]).await;
        let delivery = format!("Ev{seconds}");
        does(&store, move |tx| tx.take_delivery(&delivery, ended)).await;
    }
    says(&store, at(1)).await;
    let first = trims(&store, Past::Remediations, 4).await;
    assert_eq!(first, Trimmed { rows: 4, more: true }, "one of them, whole");
    assert!(!there(&store, "r9").await && there(&store, "r8").await);
    let mut rows = first.rows;
    while rows < 36 {
        let next = trims(&store, Past::Remediations, 16).await;
        assert!((1..=19).contains(&next.rows), "the limit and the rest of one at most: {next:?}");
        rows += next.rows;
    }
    assert_eq!((rows, trims(&store, Past::Remediations, 16).await.rows), (36, 0));
    assert_eq!(trims(&store, Past::Deliveries, 4).await, Trimmed { rows: 4, more: true });
    assert!(does(&store, |tx| tx.take_delivery("Ev6", at(2))).await, "the four oldest are forgotten");
    assert!(!does(&store, |tx| tx.take_delivery("Ev5", at(2))).await);
    assert_eq!(trims(&store, Past::Deliveries, 99).await, went(5));
    assert!(!does(&store, |tx| tx.take_delivery("Ev6", at(3))).await, "taken anew, and young");
    assert_eq!(trims(&store, Past::Alerts, 4).await, Trimmed { rows: 4, more: true });
    assert_eq!(trims(&store, Past::Alerts, 99).await, went(5));
}

pub(super) async fn the_newest_line_of_the_journal_stays_and_effects_are_numbered_on(at_: &impl Backend) {
    let store = at_.open();
    for seconds in [-9, -8, -7] {
        says(&store, at(seconds)).await;
    }
    let generation = async || {
        let owed = does(&store, |tx| tx.owe(&id("r"), Effect::Report)).await;
        let settled = owed.clone();
        does(&store, move |tx| tx.settle(&settled)).await;
        owed.generation
    };
    let before = generation().await;
    assert_eq!(trims(&store, Past::Journal, 100).await, went(2));
    assert!(generation().await >= before, "a number is never used for something older again");
    // The same where the newest line belongs to a remediation.
    keeps(&store, over("last", "i-1", at(-9), at(-6)), &[at(-6)]).await;
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(0));
    assert_eq!(trims(&store, Past::Journal, 100).await, went(1));
    says(&store, at(-5)).await;
    assert_eq!(trims(&store, Past::Remediations, 100).await, went(2));
    assert!(generation().await > before);
}

pub(super) async fn pauses_go_when_they_ended_long_ago(at_: &impl Backend) {
    let store = at_.open();
    let pause = |pattern: &str, until| {
        let (by, since) = ("U1".to_owned(), at(-50));
        let pause = Pause { id: 0, pattern: pattern.into(), by, reason: None, since, until };
        move |tx: &mut dyn Tx| tx.insert_pause(&pause)
    };
    does(&store, pause("for-ever:*", None)).await;
    does(&store, pause("over:*", Some(at(-1)))).await;
    does(&store, pause("young:*", Some(at(1)))).await;
    does(&store, pause("ended-early:*", Some(at(50)))).await;
    does(&store, |tx| tx.end_pauses("ended-early:*", "U1", at(-2))).await;
    assert_eq!(trims(&store, Past::Pauses, 1).await, Trimmed { rows: 1, more: true });
    assert_eq!(trims(&store, Past::Pauses, 100).await, went(1));
    let active = does(&store, |tx| tx.active_pauses(at(-40))).await;
    let mut left: Vec<String> = active.into_iter().map(|pause| pause.pattern).collect();
    left.sort();
    assert_eq!(left, ["for-ever:*", "young:*"]);
}

pub(super) async fn a_note_passes_only_where_it_was_set_with_a_time(at_: &impl Backend) {
    let store = at_.open();
    does(&store, |tx| {
        tx.set_note("seen:C0ALERTS", "1.000001")?;
        tx.set_passing_note("reaction:1", "eyes", at(-9))?;
        tx.set_passing_note("reaction:2", "eyes", at(-9))?;
        tx.set_passing_note("reaction:2", "zzz", at(1))?;
        tx.set_passing_note("stays", "a while", at(-9))?;
        tx.set_note("stays", "for ever")
    })
    .await;
    assert_eq!(does(&store, |tx| tx.note("reaction:1")).await.as_deref(), Some("eyes"));
    assert_eq!(trims(&store, Past::Notes, 100).await, went(1));
    for (name, value) in [
        ("seen:C0ALERTS", Some("1.000001")),
        ("reaction:1", None),
        ("reaction:2", Some("zzz")),
        ("stays", Some("for ever")),
    ] {
        assert_eq!(does(&store, move |tx| tx.note(name)).await.as_deref(), value, "{name}");
    }
}
