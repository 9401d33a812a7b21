//! A Slack that answers late, or not at all, and one that keeps its own limits.

use std::time::{Duration, Instant};

use heal::sandbox::fleet::{HostSpec, Options as Hosts};
use heal::sandbox::workspace::{Fault, Message, Options, View};

use super::weather::asked_too_soon;
use crate::kill::place::Place;
use crate::kill::siege::say;
use crate::story::CHANNEL;

const RULES: &str = "web:NginxDown: {stage: auto, grace: 0s, at_once: 20, commands: [\"echo cured\"]}\n";
const OPS: &str = "C0OPS";
/// Far below any time-out: nobody waited for one.
const AT_ONCE: Duration = Duration::from_secs(6);
const STALL: Duration = Duration::from_secs(30);

async fn place(options: Options) -> Place {
    let hosts = (0..12).map(|number| HostSpec::new(&format!("web-{number}"), "web")).collect();
    let slack = "channels: [\"#alerts\", \"#ops\"]";
    let mut place = Place::new(RULES, "heal.db", slack, options, Hosts::of(hosts)).await;
    place.bot.start();
    place.bot.ready().await;
    place
}

/// Awaits a message in an alert's thread, for as long as a stalled call may take.
async fn said(place: &Place, channel: &str, alert: &str, text: &str) -> Message {
    let look = |view: &View| view.thread(channel, alert).into_iter().find(|one| one.read().contains(text));
    let found = place.workspace.wait_for(Duration::from_secs(60), look).await;
    found.unwrap_or_else(|_| panic!("{text:?} was not said under {alert}:\n{}", place.bot.tail()))
}

/// Its thread at the end: the declaration and the report, each once.
async fn healed(place: &Place, channel: &str, alert: &str) {
    said(place, channel, alert, "*healed*").await;
    let over = |view: &View| {
        let thread = view.thread(channel, alert);
        thread.len() == 2 && thread.iter().all(|message| message.read().contains("*healed*"))
    };
    let done = place.workspace.wait_until(Duration::from_secs(60), over).await;
    assert!(done.is_ok(), "{:#?}\n{}", place.workspace.thread(channel, alert), place.bot.tail());
}

#[test]
fn a_call_that_stalls_holds_up_no_other_channel_or_method_and_is_done_once() {
    crate::story::tell(async {
        let mut place = place(Options::default()).await;
        for (host, fault) in [("web-0", Fault::Stalled(STALL)), ("web-1", Fault::AnsweredLate(STALL))] {
            let began = Instant::now();
            place.workspace.fail_next("chat.postMessage", 1, fault.clone());
            let stalled = place.post(true, "NginxDown", host);
            // The stalled call is this alert's: the next alert comes after it was taken.
            let seen = |view: &View| !view.reactions(CHANNEL, &stalled).is_empty();
            place.workspace.wait_until(AT_ONCE, seen).await.unwrap();
            let elsewhere = place.post_in(OPS, true, "NginxDown", &format!("gone-{host}-there"));
            let next = place.post(true, "NginxDown", &format!("gone-{host}-here"));
            for (channel, alert) in [(OPS, &elsewhere), (CHANNEL, &next)] {
                said(&place, channel, alert, "does not run").await;
            }
            assert!(began.elapsed() < AT_ONCE, "a stalled call held others up: {:?}", began.elapsed());
            said(&place, CHANNEL, &stalled, "ran well").await;
            place.post(false, "NginxDown", host);
            healed(&place, CHANNEL, &stalled).await;
            say(&format!("{fault:?}: over after {:.1} s", began.elapsed().as_secs_f64()));
        }
        assert_eq!(place.said_twice(), Vec::<String>::new());
        assert_eq!(place.fleet.runs().len(), 2);
        place.bot.terminate().await;
    });
}

#[test]
fn slacks_own_limits_are_kept_to_the_second_and_everything_is_delivered() {
    crate::story::tell(async {
        let mut place = place(Options { limits: true, ..Options::default() }).await;
        let began = Instant::now();
        let hosts: Vec<String> = (0..8).map(|number| format!("web-{number}")).collect();
        let alerts: Vec<String> = hosts.iter().map(|host| place.post(true, "NginxDown", host)).collect();
        let limited = |view: &View| {
            view.calls_of("chat.postMessage")
                .any(|call| call.status == 429 && call.body["channel"] == CHANNEL)
        };
        place.workspace.wait_until(AT_ONCE, limited).await.unwrap();
        let (elsewhere, posted) = (place.post_in(OPS, true, "NginxDown", "web-9"), Instant::now());
        said(&place, OPS, &elsewhere, "web-9").await;
        let took = posted.elapsed();
        for (alert, host) in alerts.iter().zip(&hosts) {
            said(&place, CHANNEL, alert, "ran well").await;
            place.post(false, "NginxDown", host);
        }
        for alert in &alerts {
            healed(&place, CHANNEL, alert).await;
        }
        place.bot.terminate().await;
        let limited =
            place.workspace.view(|view| view.calls().iter().filter(|call| call.status == 429).count());
        say(&format!(
            "Slack's own limits: 8 alerts through one channel in {:.1} s, {limited} × 429; the other channel heard after {took:?}",
            began.elapsed().as_secs_f64()
        ));
        assert!(took < AT_ONCE, "one channel's limit held up another: {took:?}");
        assert_eq!(asked_too_soon(&place.workspace), Vec::<String>::new());
        assert_eq!(place.said_twice(), Vec::<String>::new());
        assert_eq!(place.fleet.runs().len(), 9);
    });
}
