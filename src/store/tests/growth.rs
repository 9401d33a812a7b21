//! How large the file of a store becomes, and what a deletion costs.

use super::*;
use crate::lifecycle::Effect;

/// A day's work: alerts with their remediation from its opening to its end, and what comes with it.
async fn day(store: &Store, day: i64, alerts: i64) {
    let begins = Timestamp(NOW.0 + day * 86_400_000);
    does(store, move |tx| {
        for number in 0..alerts {
            let now = begins.plus(Duration::from_secs(60 * number.unsigned_abs()));
            let name = format!("d{day}n{number}");
            let ts = format!("{}.{number:06}", now.as_secs());
            let opened = Arc::new(declaring(&name, "web:NginxDown", &format!("i-{number}"), now));
            tx.take_delivery(&format!("message:C0ALERTS:{ts}"), now)?;
            let alert = tx.insert_alert(&NewAlert {
                origin: &Origin { ts: ts.clone(), ..opened.origin.clone() },
                position: 0,
                alert: &opened.alert,
                rule: Some(&opened.rule_key),
                received_at: now,
            })?;
            let line =
                |what| Record { at: now, remediation: Some(&opened.id), what, who: "heal", why: "because" };
            let owed = tx.keep_new(&opened, Some(alert), &[line("opened")], &[Effect::Declare])?;
            for owed in &owed {
                tx.settle(owed)?;
            }
            tx.keep_step(&Arc::new(held(&opened, now)), Some(&line("held")), &[])?;
            tx.set_passing_note(&format!("reaction:C0ALERTS:{ts}"), "no_entry", now)?;
        }
        tx.record(&Record { at: begins, remediation: None, what: "paused", who: "U1", why: "*" })
    })
    .await;
}

/// Trims as the engine does; the rows that went.
async fn trimmed(store: &Store, before: Timestamp) -> usize {
    let mut rows = 0;
    for past in Past::ALL {
        loop {
            let batch = does(store, move |tx| tx.trim(past, before, 100)).await;
            assert!(batch.rows <= 110, "{past:?}: {batch:?}");
            rows += batch.rows;
            if !batch.more {
                break;
            }
        }
    }
    rows
}

#[tokio::test]
async fn over_the_years_the_file_stays_at_the_size_of_what_is_kept() {
    const KEPT: i64 = 40;
    let file = InFile::new();
    let store = file.open();
    let (mut full, mut largest, mut went) = (0, 0, 0);
    for today in 0..=6 * KEPT {
        day(&store, today, 12).await;
        if today % 5 > 0 {
            continue;
        }
        let reader = rusqlite::Connection::open(file.path()).unwrap();
        let pages: i64 = reader.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        if today <= KEPT + 5 {
            full = pages;
        }
        largest = largest.max(pages);
        went += trimmed(&store, Timestamp(NOW.0 + (today - KEPT) * 86_400_000)).await;
    }
    // Six rows each: a delivery, an alert, a remediation, two lines, a note; and one line a day.
    let days = usize::try_from(5 * KEPT).unwrap();
    assert_eq!(went, days * (12 * 6 + 1), "all that is old, and no more");
    assert!(largest * 10 <= full * 13, "{full} pages when it was full first, and {largest} later");
    let left = does(&store, |tx| tx.history(None, 100_000)).await.len();
    assert_eq!(left, usize::try_from(KEPT).unwrap() * 12 + 12, "all that is young is there");
}

#[tokio::test]
async fn what_is_old_is_found_without_reading_what_is_not() {
    let file = InFile::new();
    let store = file.open();
    day(&store, 0, 3).await;
    let reader = rusqlite::Connection::open(file.path()).unwrap();
    let plan = |sql: &str| -> Vec<String> {
        let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map([], |row| row.get(3)).unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    for past in Past::ALL.into_iter().filter(|past| *past != Past::Pauses) {
        let sql = sqlite::trim::statement(past).replace("?1", "5").replace("?2", "100");
        let plan = plan(&sql);
        let scans: Vec<&String> =
            plan.iter().filter(|step| step.contains("SCAN") || step.contains("TEMP B-TREE")).collect();
        // The newest line is the last of the journal's own order, and is not searched for.
        let fine = scans.iter().all(|step| step.contains("SCAN journal") && past == Past::Remediations);
        assert!(fine, "{past:?}: {plan:#?}");
    }
    // A deleted alert is looked for among the remediations, by the database itself.
    let plan = plan("SELECT 1 FROM remediations WHERE alert = 5");
    assert!(plan.iter().all(|step| step.contains("INDEX remediations_of_alert")), "{plan:?}");
}
