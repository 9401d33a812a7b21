//! The line to Slack: cut, told to go, refused and allowed again. heal is back on it within two seconds of
//! Slack's letting it, and what was posted meanwhile is not lost.

use std::time::{Duration, Instant};

use heal::sandbox::fleet::{HostSpec, Options as Hosts};
use heal::sandbox::workspace::{Options, View};

use crate::kill::place::Place;
use crate::kill::siege::say;
use crate::story::{BOUND, CHANNEL};

const RULES: &str = "web:NginxDown: {stage: observe, commands: [\"echo cured\"]}\n";
/// Four lines, so that each drop is measured four times. Slack allows ten.
const LINES: usize = 4;
/// The promise.
const BACK_WITHIN: Duration = Duration::from_secs(2);

async fn place() -> Place {
    let hosts = (0..20).map(|number| HostSpec::new(&format!("web-{number}"), "web")).collect();
    let options = Options {
        disconnect_grace: Duration::from_millis(300),
        redeliver_after: Duration::from_secs(1),
        ..Options::default()
    };
    let mut place =
        Place::new(RULES, "heal.db", "channels: [\"#alerts\"], connections: 4", options, Hosts::of(hosts))
            .await;
    place.bot.start();
    place.bot.ready().await;
    let all = |view: &View| view.connections() == LINES;
    place.workspace.wait_until(BOUND, all).await.unwrap();
    place
}

fn opened(view: &View) -> usize {
    view.calls_of("apps.connections.open").filter(|call| call.answer["ok"] == true).count()
}

/// From `since` on: when the first line is there, and when all are, counted from `before` openings.
async fn back(place: &Place, before: usize, since: Instant) -> (Duration, Duration) {
    let first = |view: &View| opened(view) > before && view.connections() > 0;
    let came = place.workspace.wait_until(BOUND, first).await;
    let (count, calls) = place.workspace.view(|view| (view.connections(), opened(view)));
    assert!(came.is_ok(), "{count} lines, {calls} openings, {before} before: {}", place.bot.tail());
    let one = since.elapsed();
    let all = |view: &View| opened(view) >= before + LINES && view.connections() == LINES;
    let come = place.workspace.wait_until(BOUND, all).await;
    assert!(come.is_ok(), "{} lines: {}", place.workspace.connections(), place.bot.tail());
    // Those that were told to go are counted until they went; each new one has to be up as well.
    let up = || place.bot.log().matches("\"connected to Slack\"").count();
    while up() < place.workspace.view(opened) {
        assert!(since.elapsed() < BOUND, "{} lines are up: {}", up(), place.bot.tail());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (one, since.elapsed())
}

/// Every alert of the channel has its one declaration; all was acknowledged or found in the history.
async fn all_declared(place: &Place, alerts: &[String]) {
    for alert in alerts {
        place.said(alert, "declared only").await;
        assert_eq!(place.workspace.thread(CHANNEL, alert).len(), 1);
    }
    assert_eq!(place.said_twice(), Vec::<String>::new());
}

#[test]
fn a_line_that_is_cut_is_back_within_two_seconds() {
    crate::story::tell(async {
        let mut place = place().await;
        let (mut firsts, mut alls, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..6 {
            let before = place.workspace.view(opened);
            let since = Instant::now();
            place.workspace.cut_sockets();
            // Posted into the gap.
            alerts.push(place.post(true, "NginxDown", &format!("web-{round}")));
            let (first, all) = back(&place, before, since).await;
            firsts.push(first);
            alls.push(all);
        }
        all_declared(&place, &alerts).await;
        firsts.sort();
        alls.sort();
        say(&format!("cut sockets: on line after {firsts:?}, all {LINES} lines after {alls:?}"));
        assert!(firsts.iter().all(|first| *first < BACK_WITHIN), "{firsts:?}");
        place.bot.terminate().await;
    });
}

#[test]
fn a_line_that_was_refused_is_back_within_two_seconds_of_being_allowed() {
    crate::story::tell(async {
        let mut place = place().await;
        let (mut firsts, mut alls, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
        for (round, seconds) in [1, 4, 9].into_iter().enumerate() {
            let refused = Duration::from_secs(seconds);
            let before = place.workspace.view(opened);
            let allowed = Instant::now() + refused;
            place.workspace.refuse_connections_for(refused);
            place.workspace.cut_sockets();
            let why = place.readyz(503).await;
            assert!(why.starts_with("not ready:"), "{why}");
            alerts.push(place.post(true, "NginxDown", &format!("web-{round}")));
            let (first, all) = back(&place, before, allowed).await;
            assert!(Instant::now() > allowed);
            firsts.push(first);
            alls.push(all);
            assert_eq!(place.readyz(200).await, "ready\n");
        }
        all_declared(&place, &alerts).await;
        say(&format!("refused for 1, 4 and 9 s: on line after {firsts:?}, all {LINES} lines after {alls:?}"));
        assert!(firsts.iter().all(|first| *first < BACK_WITHIN), "{firsts:?}");
        place.bot.terminate().await;
    });
}

#[test]
fn a_stream_of_alerts_goes_on_over_every_farewell_of_slack() {
    crate::story::tell(async {
        let mut place = place().await;
        let mut alerts = Vec::new();
        for (round, reason) in ["warning", "refresh_requested", "too_old", "warning"].into_iter().enumerate()
        {
            for number in 0..4 {
                if number == 2 {
                    let before = place.workspace.view(opened);
                    place.workspace.disconnect_all(reason);
                    alerts.push(place.post(true, "NginxDown", &format!("web-{}", 16 + round)));
                    back(&place, before, Instant::now()).await;
                }
                alerts.push(place.post(true, "NginxDown", &format!("web-{}", 4 * round + number)));
            }
        }
        all_declared(&place, &alerts).await;
        let taken = |view: &View| view.deliveries().iter().all(|one| one.acknowledged_after.is_some());
        assert!(place.workspace.wait_until(BOUND, taken).await.is_ok(), "something was given up");
        place.bot.terminate().await;
    });
}

#[test]
fn a_socket_mode_that_was_switched_off_is_said_and_nothing_is_lost_until_it_is_on_again() {
    crate::story::tell(async {
        let mut place = place().await;
        place.workspace.disconnect_all("link_disabled");
        let why = place.readyz(503).await;
        assert!(why.contains("link_disabled") && why.contains("hint:"), "{why}");
        let alert = place.post(true, "NginxDown", "web-1");
        // Long after the last try to deliver it; then only the channel's history has it.
        let lost = |view: &View| view.deliveries().last().unwrap().lost;
        place.workspace.wait_until(BOUND, lost).await.unwrap();
        // Whoever switched it on starts heal again, or waits a minute.
        place.bot.terminate().await;
        place.bot.start();
        all_declared(&place, &[alert]).await;
        place.bot.terminate().await;
    });
}
