//! All weathers at once: a stream of alerts of every kind while Slack and SSM limit, fail, hang up and answer
//! late, deliveries come twice, and lines are cut. When it clears, everything was done, once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use heal::sandbox::fleet::{Fault as Ssm, Options as Hosts};
use heal::sandbox::workspace::{Call, Fault, Options, Workspace};

use crate::kill::heavily;
use crate::kill::place::Place;
use crate::kill::siege::{Verdict, left, say};
use crate::kill::stream::{self, Stream};

const ALERTS: usize = 70;
const FAULTS: usize = 140;
/// Waits of SSM (5 s) and of unclear sendings (15 s) and Slack's own add up.
const CLEARS_WITHIN: Duration = Duration::from_secs(120);

/// What heal calls in Slack; each goes wrong now and then.
const SLACK: [&str; 10] = [
    "chat.postMessage",
    "chat.postMessage",
    "chat.update",
    "chat.update",
    "reactions.add",
    "reactions.remove",
    "conversations.replies",
    "conversations.history",
    "files.getUploadURLExternal",
    "files.completeUploadExternal",
];
const SSM: [&str; 5] = [
    "SendCommand",
    "ListCommands",
    "ListCommandInvocations",
    "GetCommandInvocation",
    "DescribeInstanceInformation",
];

fn throw(place: &Place, rng: &mut fastrand::Rng) {
    let slow = Duration::from_millis(rng.u64(100..1500));
    match rng.u8(..20) {
        0 => place.workspace.cut_sockets(),
        1 => place.workspace.disconnect_all(["warning", "refresh_requested"][rng.usize(..2)]),
        2..=12 => {
            let faults = [
                Fault::RateLimited(1),
                Fault::RateLimited(2),
                Fault::ServerError,
                Fault::ResetBefore,
                Fault::ResetAfter,
                Fault::Stalled(slow),
                Fault::AnsweredLate(slow),
            ];
            place.workspace.fail_next(SLACK[rng.usize(..SLACK.len())], 1, faults[rng.usize(..7)].clone());
        }
        _ => {
            let faults =
                [Ssm::throttled(), Ssm::internal(), Ssm::ResetBefore, Ssm::ResetAfter, Ssm::Stall(slow)];
            place.fleet.fault(SSM[rng.usize(..SSM.len())], 1, &faults[rng.usize(..5)]);
        }
    }
}

#[test]
fn in_all_weathers_nothing_is_lost_and_nothing_is_done_twice() {
    heavily(async {
        let seed = std::env::var("HEAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        say(&format!("weather: HEAL_SEED={seed}"));
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut hosts = Hosts::of(stream::hosts(ALERTS));
        hosts.documents.push(stream::document());
        let options = Options {
            redeliver_after: Duration::from_secs(1),
            disconnect_grace: Duration::from_millis(300),
            ..Options::default()
        };
        let mut place =
            Place::new(&stream::rules(), "heal.db", "channels: [\"#alerts\"]", options, hosts).await;
        place.workspace.deliver_twice_every(3);
        place.bot.start();
        place.bot.ready().await;
        let mut stream = Stream::new(&place.workspace, ALERTS, rng.fork());
        let (began, mut thrown) = (Instant::now(), 0);
        while stream.come() < ALERTS || thrown < FAULTS {
            if rng.u8(..10) == 0 {
                stream.post();
            }
            if thrown < FAULTS && rng.u8(..6) == 0 {
                throw(&place, &mut rng);
                thrown += 1;
            }
            stream.look();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What was ordered and has not happened yet waits for a look-up that may never be needed.
        place.fleet.clear_faults();
        let cleared = Instant::now();
        while !stream.is_over() {
            stream.look();
            if cleared.elapsed() > CLEARS_WITHIN {
                panic!("HEAL_SEED={seed}: not all came to an end:\n{}", left(&stream, &[place.bot]));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cleared = cleared.elapsed();
        place.bot.terminate().await;
        let verdict = Verdict::of(&stream, &place.workspace, &place.fleet);
        let limited =
            place.workspace.view(|view| view.calls().iter().filter(|call| call.status == 429).count());
        say(&format!(
            "weather: {FAULTS} faults ({limited} × 429), {ALERTS} alerts: {:?}, {} missed; {:.1} s, all over {:.1} s after it cleared",
            verdict.outcomes,
            verdict.missed,
            began.elapsed().as_secs_f64(),
            cleared.as_secs_f64(),
        ));
        let mut wrong = verdict.wrong;
        wrong.extend(asked_too_soon(&place.workspace));
        assert!(wrong.is_empty(), "HEAL_SEED={seed}: {}\n{}", wrong.join("\n"), place.bot.tail());
    });
}

/// Calls of a method (of `chat.postMessage`: in a channel) that came before Slack's 429 let them. What was on
/// its way while the 429 was is none.
pub fn asked_too_soon(workspace: &Workspace) -> Vec<String> {
    const ON_ITS_WAY: Duration = Duration::from_millis(150);
    let calls = workspace.calls();
    let mut until: HashMap<(String, String), (SystemTime, SystemTime)> = HashMap::new();
    let mut wrong = Vec::new();
    let mut sorted: Vec<&Call> = calls.iter().collect();
    sorted.sort_by_key(|call| call.at);
    for call in sorted {
        let channel = match call.method.as_str() {
            "chat.postMessage" => call.body["channel"].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let key = (call.method.clone(), channel);
        if let Some((told, until)) = until.get(&key)
            && call.at > *told + ON_ITS_WAY
            && call.at < *until
        {
            let early = until.duration_since(call.at).unwrap_or_default();
            wrong.push(format!("{key:?} was called {early:?} before it was allowed again"));
        }
        if let Some(seconds) = call.retry_after {
            until.insert(key, (call.at, call.at + Duration::from_secs(seconds)));
        }
    }
    wrong
}
