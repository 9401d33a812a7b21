//! A clock that was years ahead for a while: what it set and what it takes for old.

use super::*;
use crate::engine::catch_up::seen;
use crate::engine::resume::take_over;
use crate::engine::trim::believed;

const YEARS: Duration = Duration::from_secs(5 * 365 * 86_400);

#[tokio::test]
async fn nothing_is_old_by_a_clock_that_is_far_ahead_of_what_slack_says() {
    let world = World::of(AUTO);
    let channels = ["C0ALERTS".to_owned(), "C0OPS".to_owned()];
    let believed = async |now| believed(&world.store, &channels, now).await.unwrap();
    assert_eq!(believed(START).await, None, "nothing was heard yet, so nothing can be old");
    let heard = |tx: &mut dyn Tx| {
        tx.set_note(&seen("C0OPS"), &format!("{}.000100", START.as_secs()))?;
        tx.set_note(&seen("C0ALERTS"), &format!("{}.000100", START.as_secs() - 999))
    };
    world.store.transact(heard).await.unwrap();
    assert_eq!(
        believed(START.plus(Duration::from_secs(600))).await,
        Some(START.plus(Duration::from_secs(600)))
    );
    let far = believed(START.plus(YEARS)).await.unwrap();
    assert!(START.until(far) < Duration::from_secs(2 * 86_400), "{far}");
}

#[tokio::test]
async fn what_a_clock_years_ahead_has_begun_ends_soon_after_the_start_under_the_right_one() {
    let mut world = World::of(AUTO);
    world.now = START.plus(YEARS);
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, posted()).await;
    assert_eq!(world.name(&id).await, "sending");
    world.now = START;
    let asked = id.clone();
    world
        .decides(move |tx, ground, _| {
            let (mut this, _) = tx.remediation(&asked)?.expect("it is there");
            take_over(tx, &mut this, ground)
        })
        .await;
    let due = world.store.transact(|tx| tx.next_due_at()).await.unwrap().unwrap();
    assert!(START.until(due) <= Duration::from_secs(120), "{due}");
}
