//! Who has claimed what, and what else is kept for all processes together.

use super::*;

fn notice(id: &str, seconds: i64) -> Notice {
    Notice { id: id.into(), owed_at: at(seconds), channel: "C0ALERTS".into(), body: format!("body of {id}") }
}

pub(super) async fn a_notice_is_owed_until_it_is_settled(at_: &impl Backend) {
    let store = at_.open();
    does(&store, |tx| {
        tx.owe_notice(&notice("second", 2))?;
        tx.owe_notice(&notice("first", 1))
    })
    .await;
    let owed = does(&store, |tx| tx.owed_notices()).await;
    assert_eq!(owed, [notice("first", 1), notice("second", 2)], "oldest first, as they were");
    does(&store, |tx| tx.settle_notice("first")).await;
    does(&store, |tx| tx.settle_notice("first")).await; // settled twice is settled
    assert_eq!(does(&store, |tx| tx.owed_notices()).await, [notice("second", 2)]);
}

pub(super) async fn what_a_closed_process_has_claimed_is_claimed_by_the_next(at_: &impl Backend) {
    let this = sending("r", "web:A", "i-1", NOW);
    let first = at_.open();
    {
        let this = this.clone();
        does(&first, move |tx| {
            tx.insert_remediation(&this, None)?;
            tx.owe_notice(&notice("n", 1))?;
            tx.owe(&this.id, lifecycle::Effect::Send).map(drop)
        })
        .await;
    }
    let claimed = does(&first, |tx| tx.claimed_remediations()).await;
    assert_eq!(claimed, vec![this.clone()]);
    assert_eq!(does(&first, |tx| tx.claim_orphans()).await, Orphans::default(), "its own are no orphans");
    first.close().await;
    let second = at_.open();
    assert!(second.number() > first.number(), "numbers only grow");
    let looks = |tx: &mut dyn Tx| {
        Ok((tx.claimed_remediations()?.len(), tx.owed()?.len(), tx.owed_notices()?.len(), tx.next_due_at()?))
    };
    let (claimed, owed, notices, _) = does(&second, looks).await;
    assert_eq!((claimed, owed, notices), (0, 0, 0));
    assert_eq!(does(&second, |tx| tx.open_remediations()).await.len(), 1, "it is there all the same");
    let orphans = does(&second, |tx| tx.claim_orphans()).await;
    assert_eq!(orphans, Orphans { open: vec![this.id.clone()], owed: 2 });
    let (claimed, owed, notices, due) = does(&second, looks).await;
    assert_eq!((claimed, owed, notices, due), (1, 1, 1, this.state.due_at()));
    let owed = does(&second, |tx| tx.owed()).await;
    assert_eq!(owed[0].claimed_by, second.number());
}

pub(super) async fn a_limit_holds_until_it_is_over_and_the_longer_one_counts(at_: &impl Backend) {
    let store = at_.open();
    // A shared database tells the time itself; one that is alone goes by the caller's.
    let now = Timestamp(i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap());
    let keep = |lane: &str, seconds| {
        let limit = Limit { lane: lane.to_owned(), wait: Duration::from_secs(seconds) };
        move |tx: &mut dyn Tx| tx.keep_limit(&limit, now)
    };
    does(&store, keep("chat.postMessage C1", 30)).await;
    does(&store, keep("chat.postMessage C1", 5)).await;
    does(&store, keep("chat.update", 60)).await;
    does(&store, keep("reactions.add", 0)).await;
    let limits = does(&store, move |tx| tx.limits(now)).await;
    let lanes: Vec<&str> = limits.iter().map(|limit| limit.lane.as_str()).collect();
    assert_eq!(lanes, ["chat.postMessage C1", "chat.update"], "what is over is forgotten");
    assert!(
        limits[0].wait > Duration::from_secs(20) && limits[0].wait <= Duration::from_secs(30),
        "{limits:?}"
    );
    assert!(limits[1].wait > Duration::from_secs(50), "{limits:?}");
}

pub(super) async fn a_step_is_kept_whole(at_: &impl Backend) {
    let store = at_.open();
    let (new, next) =
        (Arc::new(declaring("r", "web:A", "i-1", NOW)), Arc::new(sending("r", "web:A", "i-1", NOW)));
    let expected = next.clone();
    let kept = does(&store, move |tx| {
        let record = Record { at: NOW, remediation: Some(&new.id), what: "opened", who: "heal", why: "x" };
        let opened = tx.keep_new(&new, None, std::slice::from_ref(&record), &[lifecycle::Effect::Declare])?;
        let record = Record { what: "posted", ..record };
        let effects = [lifecycle::Effect::Send, lifecycle::Effect::React];
        let stepped = tx.keep_step(&next, Some(&record), &effects)?;
        // Looking again leaves no line.
        let again = tx.keep_step(&next, None, &[lifecycle::Effect::React])?;
        Ok((opened, stepped, again))
    });
    let (opened, stepped, again) = kept.await;
    assert_eq!((opened.len(), stepped.len(), again.len()), (1, 2, 1));
    assert!(again[0].generation > stepped[1].generation);
    let subject = does(&store, |tx| tx.subject(&id("r"))).await.unwrap();
    assert_eq!((subject.remediation, subject.alert, subject.resolved_at), (expected, None, None));
    let told = does(&store, |tx| tx.journal_of(&id("r"))).await;
    let told: Vec<&str> = told.iter().map(|line| line.1.as_str()).collect();
    assert_eq!(told, ["opened", "posted"]);
    let mut owed = does(&store, |tx| tx.owed()).await;
    owed.sort_by_key(|owed| owed.generation);
    assert_eq!(owed, [opened[0].clone(), stepped[0].clone(), again[0].clone()]);
}
