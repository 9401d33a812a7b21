use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::Message;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Options, Status, listen};
use crate::slack::fake::{Fake, Reply, within};
use crate::slack::{Counters, Delivery, Payload, Secret};

struct World {
    fake: Fake,
    deliveries: mpsc::Receiver<Delivery>,
    status: watch::Receiver<Status>,
    counters: Arc<Counters>,
    shutdown: watch::Sender<bool>,
    listening: tokio::task::JoinHandle<()>,
}

fn quick() -> Options {
    Options {
        connections: 1,
        ping_every: Duration::from_millis(50),
        silence_limit: Duration::from_millis(800),
        hello_limit: Duration::from_secs(2),
        backoff: (Duration::from_millis(10), Duration::from_millis(50)),
        slow_retry: Duration::from_millis(100),
        ack_grace: Duration::from_secs(2),
        max_frame: 64 << 10,
        ..Options::default()
    }
}

impl World {
    async fn start(options: Options, queue: usize) -> World {
        World::with(Fake::start().await, options, queue)
    }

    fn with(fake: Fake, options: Options, queue: usize) -> World {
        let (out, deliveries) = mpsc::channel(queue);
        let (status_out, status) = watch::channel(Status::default());
        let (shutdown, stop) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let token = Secret::new("xapp-test");
        let listening =
            tokio::spawn(listen(fake.client(), token, options, out, status_out, Arc::clone(&counters), stop));
        World { fake, deliveries, status, counters, shutdown, listening }
    }

    async fn delivery(&mut self) -> Delivery {
        within(self.deliveries.recv()).await.unwrap()
    }

    async fn status(&mut self, is: impl Fn(&Status) -> bool) -> Status {
        within(self.status.wait_for(is)).await.unwrap().clone()
    }

    async fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64, at_least: u64) {
        within(async {
            while counter(&self.counters).load(Ordering::Relaxed) < at_least {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn acknowledgements_go_out_as_they_are_done_in_any_order_and_none_before() {
    let mut world = World::start(quick(), 10).await;
    let mut peer = world.fake.peer().await;
    for id in ["e1", "e2", "e3"] {
        peer.event(id);
    }
    let (first, second, third) = (world.delivery().await, world.delivery().await, world.delivery().await);
    assert!(peer.heard_nothing());
    assert_eq!(first.envelope_id, "e1");
    assert!(third.ack.done(None));
    assert!(first.ack.done(Some(json!({"text": "yes"}))));
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e3"})));
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e1", "payload": {"text": "yes"}})));
    assert!(peer.heard_nothing());
    let Payload::Event(value) = &second.payload else { panic!("not an event") };
    assert_eq!(value["event_id"], "e2");
    assert!(second.raw.contains("event_callback"));
}

#[tokio::test]
async fn a_dropped_delivery_is_not_acknowledged_and_comes_again() {
    let mut world = World::start(quick(), 10).await;
    let mut peer = world.fake.peer().await;
    peer.event("e1");
    drop(world.delivery().await);
    world.count(|counters| &counters.unacknowledged, 1).await;
    peer.say(
        json!({"type": "events_api", "envelope_id": "e1", "retry_attempt": 1, "payload": {"event_id": "e1"}}),
    );
    let again = world.delivery().await;
    assert_eq!(again.retry_attempt, 1);
    again.ack.done(None);
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e1"})));
    assert!(peer.heard_nothing());
    assert_eq!(world.counters.redelivered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_warned_connection_serves_until_its_replacement_said_hello() {
    let mut world = World::start(quick(), 10).await;
    let mut old = world.fake.peer().await;
    world.status(|status| status.connected == 1).await;
    world.fake.without_hello();
    old.say(json!({"type": "disconnect", "reason": "warning"}));
    let mut new = world.fake.peer().await;
    // The replacement is open and has not said hello: the old one still reads and acknowledges.
    old.event("e1");
    let one = world.delivery().await;
    old.event("e2");
    one.ack.done(None);
    assert_eq!(old.heard().await, Some(json!({"envelope_id": "e1"})));
    let two = world.delivery().await;
    new.say(json!({"type": "hello"}));
    world.count(|counters| &counters.connects, 2).await;
    // And an acknowledgement that is still due goes out before it closes.
    two.ack.done(None);
    assert_eq!(old.heard().await, Some(json!({"envelope_id": "e2"})));
    assert_eq!(old.heard().await, None);
    new.event("e3");
    world.delivery().await.ack.done(None);
    assert_eq!(new.heard().await, Some(json!({"envelope_id": "e3"})));
    assert_eq!(world.status(|status| status.connected == 1).await.problem, None);
}

#[tokio::test]
async fn socket_mode_switched_off_is_said_with_what_to_do() {
    let mut world = World::start(quick(), 10).await;
    let peer = world.fake.peer().await;
    world.status(|status| status.connected == 1).await;
    peer.say(json!({"type": "disconnect", "reason": "link_disabled"}));
    let status = world.status(|status| status.problem.is_some()).await;
    assert_eq!(status.connected, 0);
    assert!(status.problem.unwrap().contains("Socket Mode is switched off"));
    // Switched on again, it is found without a restart.
    world.fake.peer().await;
    world.status(|status| status.connected == 1 && status.problem.is_none()).await;
}

#[tokio::test]
async fn a_bad_token_is_said_and_retried_slowly() {
    let fake = Fake::start().await;
    fake.script(
        "apps.connections.open",
        [Reply::Json(json!({"ok": false, "error": "invalid_auth"})), Reply::Status(500), Reply::Limited(0)],
    );
    let began = Instant::now();
    let mut world = World::with(fake, quick(), 10);
    let status = world.status(|status| status.problem.is_some()).await;
    let problem = status.problem.unwrap();
    assert!(problem.contains("SLACK_APP_TOKEN") && problem.contains("hint:"), "{problem}");
    assert!(!problem.contains("xapp-test"));
    world.status(|status| status.connected == 1 && status.problem.is_none()).await;
    assert!(began.elapsed() >= Duration::from_millis(70));
    assert_eq!(world.fake.calls("apps.connections.open").len(), 4);
}

#[tokio::test]
async fn a_silent_peer_is_dropped_and_replaced() {
    let mut world = World::start(quick(), 10).await;
    let peer = world.fake.peer().await;
    world.status(|status| status.connected == 1).await;
    peer.fall_silent();
    world.fake.peer().await;
    assert_eq!(world.counters.breaks.load(Ordering::Relaxed), 1);
    // One that answers our pings, and says nothing else, is kept.
    world.status(|status| status.connected == 1).await;
    tokio::time::timeout(Duration::from_millis(1700), world.fake.peers.recv()).await.unwrap_err();
}

/// Slack may have been handing the silent one something, and the other cannot know of it.
#[tokio::test]
async fn a_line_that_breaks_is_a_gap_although_another_is_up_and_one_that_is_replaced_is_none() {
    let mut world = World::start(Options { connections: 2, ..quick() }, 10).await;
    let (silent, other) = (world.fake.peer().await, world.fake.peer().await);
    world.status(|status| status.connected == 2).await;
    other.say(json!({"type": "disconnect", "reason": "warning"}));
    let _replacement = world.fake.peer().await;
    world.count(|counters| &counters.connects, 3).await;
    world.status(|status| status.connected == 2).await;
    assert_eq!(world.status.borrow().gaps, 0);
    silent.fall_silent();
    let _new = world.fake.peer().await;
    world.status(|status| status.connected == 2 && status.gaps == 1).await;
}

#[tokio::test]
async fn hostile_frames_are_counted_and_the_connection_lives() {
    let mut world = World::start(quick(), 10).await;
    let mut peer = world.fake.peer().await;
    for text in [
        "",
        "no json",
        "[1]",
        r#"{"type":"events_api","payload":{}}"#,
        r#"{"type":"events_api","envelope_id":"e"}"#,
    ] {
        peer.raw(Message::Text(text.into()));
    }
    peer.raw(Message::Binary(vec![0, 159, 146, 150].into()));
    peer.say(json!({"type": "news"}));
    peer.say(json!({"type": "news", "envelope_id": "n1"}));
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "n1"})));
    peer.event("e1");
    world.delivery().await.ack.done(None);
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e1"})));
    assert_eq!(world.counters.malformed.load(Ordering::Relaxed), 6);
    assert_eq!(world.counters.unknown.load(Ordering::Relaxed), 2);

    peer.raw(Message::Text("x".repeat(100 << 10).into()));
    world.fake.peer().await;
    assert_eq!(world.counters.oversized.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_full_queue_stops_the_reading_and_nothing_else() {
    let mut world = World::start(quick(), 1).await;
    let mut peer = world.fake.peer().await;
    peer.event("e0");
    let first = world.delivery().await;
    for id in ["e1", "e2", "e3"] {
        peer.event(id);
    }
    // Longer than a silent peer is borne: the connection stays, since it is we who do not read.
    tokio::time::timeout(Duration::from_millis(1700), world.fake.peers.recv()).await.unwrap_err();
    first.ack.done(None);
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e0"})));
    for id in ["e1", "e2", "e3"] {
        let delivery = world.delivery().await;
        assert_eq!(delivery.envelope_id, id);
        delivery.ack.done(None);
    }
}

#[tokio::test]
async fn shutdown_sends_what_is_due_and_ends() {
    let mut world = World::start(Options { connections: 2, ..quick() }, 10).await;
    let mut peer = world.fake.peer().await;
    let _other = world.fake.peer().await;
    world.status(|status| status.connected == 2).await;
    peer.event("e1");
    let delivery = world.delivery().await;
    world.shutdown.send(true).unwrap();
    delivery.ack.done(None);
    assert_eq!(peer.heard().await, Some(json!({"envelope_id": "e1"})));
    assert_eq!(peer.heard().await, None);
    within(world.listening).await.unwrap();
    assert_eq!(world.status.borrow().connected, 0);
}

/// Cause: failures before a connection counted against it, so a drop soon after an outage waited for long;
/// and in an outage of some seconds the waits had grown beyond two seconds.
#[tokio::test]
async fn a_line_is_back_soon_after_an_outage_and_at_once_after_the_next_drop() {
    let fake = Fake::start().await;
    fake.script("apps.connections.open", (0..12).map(|_| Reply::Status(500)));
    let options = Options {
        backoff: (Duration::from_millis(200), Duration::from_secs(30)),
        eager: Duration::from_millis(100),
        ..quick()
    };
    let began = Instant::now();
    let mut world = World::with(fake, options, 10);
    let peer = world.fake.peer().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    world.status(|status| status.connected == 1 && status.problem.is_none()).await;
    let dropped = Instant::now();
    peer.raw(Message::Close(None));
    world.fake.peer().await;
    assert!(dropped.elapsed() < Duration::from_millis(500), "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn two_connections_that_drop_at_once_are_both_back_within_two_seconds() {
    let defaults = Options { ack_grace: Duration::from_millis(10), ..Options::default() };
    assert!(defaults.eager < Duration::from_secs(2));
    let mut world = World::start(defaults, 10).await;
    let peers = [world.fake.peer().await, world.fake.peer().await];
    world.status(|status| status.connected == 2).await;
    let dropped = Instant::now();
    for peer in &peers {
        peer.raw(Message::Close(None));
    }
    world.status(|status| status.gaps == 1).await;
    let _new = [world.fake.peer().await, world.fake.peer().await];
    world.status(|status| status.connected == 2).await;
    assert!(dropped.elapsed() < Duration::from_secs(2), "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn a_connection_that_comes_and_goes_is_opened_ever_more_slowly() {
    let options = Options { backoff: (Duration::from_millis(100), Duration::from_secs(30)), ..quick() };
    let mut world = World::start(options, 10).await;
    let began = Instant::now();
    for _ in 0..5 {
        let peer = world.fake.peer().await;
        peer.raw(Message::Close(None));
    }
    // Zero, then drawn from up to 100, 200, 400 and 800 ms: 750 ms on the average.
    world.fake.peer().await;
    assert!(began.elapsed() > Duration::from_millis(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn when_slack_limits_the_opening_no_line_asks_before_its_time() {
    let fake = Fake::start().await;
    fake.script("apps.connections.open", [Reply::Limited(1)]);
    let began = Instant::now();
    let mut world = World::with(fake, Options { connections: 3, ..quick() }, 10);
    world.status(|status| status.connected == 3).await;
    let calls = world.fake.calls("apps.connections.open");
    // All three ask at the start; whoever was told to wait did.
    let early = calls.iter().filter(|call| call.at - began < Duration::from_secs(1)).count();
    assert!(early <= 3, "{early} calls in the first second");
    assert_eq!(calls.len(), 4);
}
