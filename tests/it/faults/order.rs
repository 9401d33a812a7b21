//! Deliveries in any order, each of them twice.

use heal::sandbox::fleet::{HostSpec, Options as Hosts};
use heal::sandbox::workspace::{Options, View};
use serde_json::{Value, json};

use crate::kill::place::Place;
use crate::kill::siege::say;
use crate::story::alert::attachments;
use crate::story::{BOUND, CHANNEL};

const RULES: &str =
    "web:NginxDown: {stage: auto, grace: 0s, at_once: 20, commands: [\"echo ran >> /var/lib/ran\"]}\n";
const ALERTS: usize = 24;

fn event(ts: &str, firing: bool, host: &str) -> Value {
    json!({
        "type": "message", "subtype": "bot_message", "bot_id": "B0PROM", "app_id": "A0PROM",
        "channel": CHANNEL, "channel_type": "channel", "ts": ts, "event_ts": ts, "text": "",
        "attachments": attachments(firing, "web", "NginxDown", &[host]),
    })
}

/// How an alert ended, once it has.
fn end(view: &View, alert: &str) -> Option<&'static str> {
    let thread = view.thread(CHANNEL, alert);
    let text = thread.iter().map(heal::sandbox::workspace::Message::read).collect::<Vec<_>>().join("\n");
    ["*healed*", "*cancelled*", "resolved by itself before"].into_iter().find(|end| text.contains(end))
}

#[test]
fn alerts_and_their_ends_in_any_order_and_each_twice_come_to_one_end_each() {
    crate::story::tell(async {
        let seed = std::env::var("HEAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        say(&format!("order: HEAL_SEED={seed}"));
        let hosts = (0..ALERTS).map(|number| HostSpec::new(&format!("web-{number}"), "web")).collect();
        let slack = "channels: [\"#alerts\"]";
        let mut place = Place::new(RULES, "heal.db", slack, Options::default(), Hosts::of(hosts)).await;
        place.workspace.deliver_twice_every(1);
        place.bot.start();
        place.bot.ready().await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let ts =
            |number: usize, firing: bool| format!("{}.{number:06}", if firing { now - 60 } else { now - 30 });
        let mut events: Vec<(usize, bool)> =
            (0..ALERTS).flat_map(|number| [(number, true), (number, false)]).collect();
        let mut rng = fastrand::Rng::with_seed(seed);
        rng.shuffle(&mut events);
        for (number, firing) in events {
            // Long enough now and then for a cure to begin.
            tokio::time::sleep(std::time::Duration::from_millis(rng.u64(0..60))).await;
            place.workspace.post_raw_event(event(&ts(number, firing), firing, &format!("web-{number}")));
        }
        let over = |view: &View| (0..ALERTS).all(|number| end(view, &ts(number, true)).is_some());
        let over = place.workspace.wait_until(BOUND, over).await;
        let ends: Vec<_> =
            (0..ALERTS).map(|number| place.workspace.view(|view| end(view, &ts(number, true)))).collect();
        assert!(over.is_ok(), "HEAL_SEED={seed}: {ends:?}\n{}", place.bot.tail());
        let taken = |view: &View| view.deliveries().iter().all(|one| one.acknowledged_after.is_some());
        assert!(place.workspace.wait_until(BOUND, taken).await.is_ok(), "something was not acknowledged");
        place.bot.terminate().await;
        say(&format!(
            "order: {} healed, {} over before they ran",
            ends.iter().filter(|end| **end == Some("*healed*")).count(),
            ends.iter().filter(|end| **end != Some("*healed*")).count()
        ));
        assert_eq!(place.said_twice(), Vec::<String>::new());
        for (number, end) in ends.iter().enumerate() {
            let host = place.fleet.host(&format!("web-{number}")).unwrap();
            let marks = std::fs::read_to_string(host.root().join("var/lib/ran")).unwrap_or_default();
            assert_eq!(marks.lines().count(), usize::from(*end == Some("*healed*")), "web-{number}: {end:?}");
        }
    });
}
