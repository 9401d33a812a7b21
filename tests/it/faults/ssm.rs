//! An SSM that throttles everything, and one that answers late: each command is sent once, and reported.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use heal::sandbox::fleet::{Fault, HostSpec, Options as Hosts};
use heal::sandbox::workspace::{Options, View};

use crate::kill::place::Place;
use crate::kill::siege::say;
use crate::story::CHANNEL;

const RULES: &str =
    "web:NginxDown: {stage: auto, grace: 0s, at_once: 1000, commands: [\"echo ran >> /var/lib/ran\"]}\n";
const WITHIN: Duration = Duration::from_secs(90);

async fn place(hosts: usize) -> Place {
    let hosts = (0..hosts).map(|number| HostSpec::new(&format!("web-{number}"), "web")).collect();
    let slack = "channels: [\"#alerts\"]";
    let mut place = Place::new(RULES, "heal.db", slack, Options::default(), Hosts::of(hosts)).await;
    place.bot.start();
    place.bot.ready().await;
    place
}

async fn said(place: &Place, alert: &str, text: &str) {
    let look = |view: &View| view.thread(CHANNEL, alert).iter().any(|one| one.read().contains(text));
    let found = place.workspace.wait_until(WITHIN, look).await;
    assert!(
        found.is_ok(),
        "{text:?} was not said: {:#?}\n{:?}\n{}",
        place.workspace.thread(CHANNEL, alert),
        place.fleet.calls().iter().map(|call| (&call.operation, &call.refused)).collect::<Vec<_>>(),
        place.bot.tail()
    );
}

/// Every run's command was taken by SSM once, and each host has its one side effect.
fn ran_once(place: &Place, hosts: usize) {
    let mut taken: HashMap<String, usize> = HashMap::new();
    for run in place.fleet.runs() {
        *taken.entry(run.comment).or_default() += 1;
    }
    assert_eq!(taken.len(), hosts, "{taken:?}");
    assert!(taken.values().all(|count| *count == 1), "{taken:?}");
    for number in 0..hosts {
        let host = place.fleet.host(&format!("web-{number}")).unwrap();
        let marks = std::fs::read_to_string(host.root().join("var/lib/ran")).unwrap();
        assert_eq!(marks.lines().count(), 1, "on web-{number}");
    }
    assert_eq!(place.said_twice(), Vec::<String>::new());
}

#[test]
fn a_storm_of_throttling_delays_every_cure_and_loses_none() {
    crate::story::tell(async {
        let mut place = place(5).await;
        let began = Instant::now();
        place.fleet.fault("SendCommand", 8, &Fault::throttled());
        place.fleet.fault("*", 30, &Fault::throttled());
        let hosts: Vec<String> = (0..5).map(|number| format!("web-{number}")).collect();
        let alerts: Vec<String> = hosts.iter().map(|host| place.post(true, "NginxDown", host)).collect();
        for (alert, host) in alerts.iter().zip(&hosts) {
            said(&place, alert, "ran well").await;
            place.post(false, "NginxDown", host);
        }
        for alert in &alerts {
            said(&place, alert, "*healed*").await;
        }
        ran_once(&place, 5);
        let throttled = place.fleet.calls().iter().filter(|call| call.refused.is_some()).count();
        say(&format!(
            "SSM throttled {throttled} calls: all healed after {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        place.bot.terminate().await;
    });
}

#[test]
fn an_ssm_that_fails_and_hangs_up_gets_each_command_once() {
    crate::story::tell(async {
        let mut place = place(4).await;
        let hosts: Vec<String> = (0..4).map(|number| format!("web-{number}")).collect();
        let sends = [Fault::internal(), Fault::ResetBefore, Fault::ResetAfter, Fault::ResetAfter];
        let mut alerts = Vec::new();
        for (host, fault) in hosts.iter().zip(&sends) {
            place.fleet.fault("SendCommand", 1, fault);
            for operation in ["ListCommands", "ListCommandInvocations"] {
                place.fleet.fault(operation, 1, &Fault::ResetAfter);
                place.fleet.fault(operation, 1, &Fault::internal());
            }
            let alert = place.post(true, "NginxDown", host);
            said(&place, &alert, "ran well").await;
            place.post(false, "NginxDown", host);
            alerts.push(alert);
        }
        for alert in &alerts {
            said(&place, alert, "*healed*").await;
        }
        ran_once(&place, 4);
        place.bot.terminate().await;
    });
}

/// Far more than may be on their way at a time: most wait, the last ones by their keys alone, and some for
/// so long that they are decided anew.
#[test]
fn sendings_that_wait_behind_a_slow_ssm_are_each_made_once() {
    const MANY: usize = 300;
    crate::story::tell(async {
        let mut place = place(MANY).await;
        let began = Instant::now();
        place.fleet.fault("SendCommand", MANY, &Fault::Stall(Duration::from_millis(1500)));
        let alerts: Vec<String> =
            (0..MANY).map(|number| place.post(true, "NginxDown", &format!("web-{number}"))).collect();
        for alert in &alerts {
            said(&place, alert, "ran well").await;
        }
        ran_once(&place, MANY);
        assert_eq!(place.fleet.count_calls("SendCommand"), MANY);
        say(&format!(
            "SSM takes 1.5 s for a command: {MANY} alerts reported after {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        place.bot.terminate().await;
    });
}

#[test]
fn an_answer_of_ssm_that_stalls_holds_up_no_other_run_and_is_no_second_sending() {
    crate::story::tell(async {
        let mut place = place(3).await;
        let stall = Fault::Stall(Duration::from_secs(30));
        let began = Instant::now();
        place.fleet.fault("SendCommand", 1, &stall);
        let stalled = place.post(true, "NginxDown", "web-0");
        let taken = place.fleet.wait_until(WITHIN, |fleet| fleet.count_calls("SendCommand") == 1).await;
        assert!(taken);
        let next = place.post(true, "NginxDown", "web-1");
        said(&place, &next, "ran well").await;
        let others = began.elapsed();
        assert!(others < Duration::from_secs(6), "a stalled sending held up another: {others:?}");
        said(&place, &stalled, "ran well").await;
        let sent = began.elapsed();
        // The watch over what runs stalls too; it asks again.
        place.fleet.fault("ListCommandInvocations", 1, &stall);
        place.fleet.fault("GetCommandInvocation", 1, &stall);
        let began = Instant::now();
        let last = place.post(true, "NginxDown", "web-2");
        said(&place, &last, "ran well").await;
        say(&format!(
            "SSM stalls for 30 s: a sending is told after {:.1} s (others after {:.1} s), a watch after {:.1} s",
            sent.as_secs_f64(),
            others.as_secs_f64(),
            began.elapsed().as_secs_f64()
        ));
        for (alert, host) in [(&stalled, "web-0"), (&next, "web-1"), (&last, "web-2")] {
            place.post(false, "NginxDown", host);
            said(&place, alert, "*healed*").await;
        }
        ran_once(&place, 3);
        assert_eq!(place.fleet.count_calls("SendCommand"), 3);
        place.bot.terminate().await;
    });
}
