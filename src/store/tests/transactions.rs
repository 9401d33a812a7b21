//! Together or not at all, in order, and answered whatever happens.

use std::sync::mpsc;

use super::*;

/// Keeps the store busy until told, so that what is handed over meanwhile shares one commit.
fn busy(store: &Store) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel::<()>();
    let job = store.transact(move |_| {
        began.send(()).unwrap();
        wait.recv().ok();
        Ok(())
    });
    drop(job);
    begun.recv().unwrap();
    go
}

fn notes(name: &'static str) -> impl FnOnce(&mut dyn Tx) -> Result<()> + Send + 'static {
    move |tx| tx.set_note(name, "yes")
}

fn fails() -> Error {
    Error::Database("as the test wants it".to_owned())
}

pub(super) async fn a_failing_transaction_leaves_nothing_and_its_companions_commit(at_: &impl Backend) {
    let store = at_.open();
    for shared in [false, true] {
        let go = shared.then(|| busy(&store));
        let before = store.transact(notes("before"));
        let failing = store.transact(|tx| {
            tx.set_note("failing", "yes")?;
            tx.insert_remediation(&declaring("failing", "web:A", "i-1", NOW), None)?;
            tx.take_delivery("Ev1", NOW)?;
            Err::<(), _>(fails())
        });
        let after = store.transact(notes("after"));
        drop(go);
        before.await.unwrap();
        let error = failing.await.unwrap_err();
        assert!(error.to_string().contains("as the test wants it"), "{error}");
        after.await.unwrap();
        let read = does(&store, |tx| {
            let noted = ["before", "failing", "after"].map(|name| tx.note(name));
            let noted: Vec<bool> = noted.into_iter().map(|note| note.unwrap().is_some()).collect();
            Ok((noted, tx.open_remediations()?.len()))
        });
        assert_eq!(read.await, (vec![true, false, true], 0), "shared: {shared}");
    }
    assert!(does(&store, |tx| tx.take_delivery("Ev1", NOW)).await, "not taken, so Slack's next try counts");
}

pub(super) async fn what_goes_first_overtakes_the_others_and_stops_none(at_: &impl Backend) {
    let store = at_.open();
    let go = busy(&store);
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let says = |word: &'static str| {
        let order = order.clone();
        move |_: &mut dyn Tx| {
            order.lock().unwrap().push(word);
            Ok(())
        }
    };
    let others: Vec<_> = (0..300).map(|_| store.transact(says("other"))).collect();
    let first: Vec<_> = (0..300).map(|_| store.transact_first(says("first"))).collect();
    let next = store.transact_next(says("next"));
    drop(go);
    next.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    for first in first {
        first.await.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(order[0], "next", "before all that waits");
    assert!(order[1..100].iter().all(|word| *word == "first"), "{order:?}");
    let last = order.iter().rposition(|word| *word == "first").unwrap();
    let passed = order[..last].iter().filter(|word| **word == "other").count();
    assert!((1..200).contains(&passed), "{passed} others came before the last that goes first");
}

pub(super) async fn a_claim_refused_within_a_shared_commit_costs_only_its_own_transaction(
    at_: &impl Backend,
) {
    let store = at_.open();
    let go = busy(&store);
    let insert = |name: &'static str| {
        store.transact(move |tx| tx.insert_remediation(&declaring(name, "web:A", "i-1", NOW), None))
    };
    let (first, second, third) = (insert("first"), insert("second"), store.transact(notes("third")));
    drop(go);
    first.await.unwrap();
    assert!(matches!(second.await, Err(Error::Claimed(_))));
    third.await.unwrap();
    let open = does(&store, |tx| tx.open_remediations()).await;
    assert_eq!(open.iter().map(|this| this.id.0.as_str()).collect::<Vec<_>>(), ["first"]);
}

pub(super) async fn a_transaction_sees_what_its_companions_wrote_before(at_: &impl Backend) {
    let store = at_.open();
    let go = busy(&store);
    let write = store.transact(notes("seen"));
    let read = store.transact(|tx| tx.note("seen"));
    drop(go);
    assert_eq!(read.await.unwrap().as_deref(), Some("yes"));
    write.await.unwrap();
}

pub(super) async fn transactions_run_in_the_order_they_were_handed_over(at_: &impl Backend) {
    let store = at_.open();
    let count = 600; // More than share one commit.
    let go = busy(&store);
    let mut handed: Vec<_> = (0..count)
        .map(|number: usize| {
            store.transact(move |tx| {
                let so_far = tx.note("order")?.unwrap_or_default();
                let next = so_far.parse().unwrap_or(0) + 1;
                tx.set_note("order", &next.to_string())?;
                Ok((number, next - 1))
            })
        })
        .collect();
    drop(go);
    // Polled last to first: what counts is the call.
    while let Some(last) = handed.pop() {
        let (number, place) = last.await.unwrap();
        assert_eq!(number, place);
    }
}

pub(super) async fn a_transaction_whose_asker_has_gone_commits_all_the_same(at_: &impl Backend) {
    let store = at_.open();
    drop(store.transact(notes("left")));
    assert!(does(&store, |tx| tx.note("left")).await.is_some());
}

pub(super) async fn a_transaction_that_panics_is_rolled_back_and_the_store_goes_on(at_: &impl Backend) {
    let store = at_.open();
    for shared in [false, true] {
        let go = shared.then(|| busy(&store));
        let before = store.transact(notes("before"));
        let panics = store.transact(|tx| -> Result<()> {
            tx.set_note("panicked", "yes")?;
            panic!("as the test wants it")
        });
        let after = store.transact(notes("after"));
        drop(go);
        before.await.unwrap();
        assert!(matches!(panics.await, Err(Error::Stopped)));
        after.await.unwrap();
        assert_eq!(does(&store, |tx| tx.note("panicked")).await, None, "shared: {shared}");
    }
}

pub(super) async fn what_was_committed_is_there_after_a_restart(at_: &impl Backend) {
    let this = sending("r", "web:A", "i-1", NOW);
    let pause = crate::gate::Pause {
        id: 1,
        pattern: "*".into(),
        by: "U1".into(),
        reason: None,
        since: NOW,
        until: None,
    };
    {
        let store = at_.open();
        let (this, pause) = (this.clone(), pause.clone());
        does(&store, move |tx| {
            tx.take_delivery("Ev1", NOW)?;
            tx.insert_remediation(&this, None)?;
            tx.owe(&this.id, lifecycle::Effect::Send)?;
            tx.insert_pause(&pause).map(drop)
        })
        .await;
    }
    let store = at_.open();
    assert!(!does(&store, |tx| tx.take_delivery("Ev1", NOW)).await);
    assert_eq!(does(&store, |tx| tx.open_remediations()).await, [this]);
    assert_eq!(does(&store, |tx| tx.active_pauses(NOW)).await, [pause]);
    assert_eq!(does(&store, |tx| tx.owed()).await, [], "it was claimed by the one before");
    let orphans = does(&store, |tx| tx.claim_orphans()).await;
    assert_eq!((orphans.open.len(), orphans.owed), (1, 1));
    let owed = does(&store, |tx| tx.owed()).await;
    assert_eq!((owed.len(), owed[0].effect), (1, lifecycle::Effect::Send));
}

pub(super) async fn a_closed_store_kept_what_came_before_and_refuses_what_comes_after(at_: &impl Backend) {
    let store = at_.open();
    let go = busy(&store);
    let before = store.transact(notes("before"));
    let closer = store.clone();
    let closing = tokio::spawn(async move { closer.close().await });
    drop(go);
    before.await.unwrap();
    closing.await.unwrap();
    assert!(matches!(store.transact(notes("after")).await, Err(Error::Stopped)));
    store.close().await; // Twice is once.
    let next = at_.open();
    let read = does(&next, |tx| Ok((tx.note("before")?, tx.note("after")?))).await;
    assert_eq!(read, (Some("yes".to_owned()), None));
}
