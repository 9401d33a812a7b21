use std::sync::{Arc, Mutex};

use super::probe::Seen;
use super::*;
use crate::sandbox::fleet::tests as ssm;
use crate::sandbox::fleet::{Action, HostSpec, Options as FleetOptions};

const SOON: Duration = Duration::from_secs(20);

fn seen(well: bool, muted: bool) -> Seen {
    Seen { well, muted, said: String::new() }
}

#[test]
fn a_fault_fires_once_after_it_stood_for_a_while_and_resolves_once() {
    let (mut track, start, hold) = (Track::default(), Instant::now(), Duration::from_secs(2));
    let mut saw = |second: u64, well: bool| {
        let now = start + Duration::from_secs(second);
        track.saw(now, &seen(well, false), hold)
    };
    assert_eq!([saw(0, false), saw(1, false), saw(2, false)], [None, None, Some(Change::Fired)]);
    assert_eq!([saw(3, false), saw(4, true), saw(5, true)], [None, Some(Change::Resolved), None]);
    // A blip that is over before it stood long enough says nothing.
    assert_eq!([saw(6, false), saw(7, true), saw(8, false), saw(9, false)], [None; 4]);
}

#[test]
fn what_is_muted_neither_begins_nor_stops_to_fire() {
    let (now, hold) = (Instant::now(), Duration::ZERO);
    let mut track = Track::default();
    assert_eq!(track.saw(now, &seen(false, true), hold), None);
    assert_eq!(track.saw(now, &seen(false, false), hold), Some(Change::Fired));
    assert_eq!(track.saw(now, &seen(false, true), hold), None);
    assert_eq!(track.saw(now, &seen(true, false), hold), Some(Change::Resolved));
}

#[test]
fn a_message_has_the_template_of_details_and_its_values_are_escaped() {
    let labels = [
        ("alertname", "DiskFull"),
        ("instance", "db-1:9100"),
        ("mountpoint", "/a<b"),
        ("role", "db"),
        ("severity", "critical"),
    ];
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let firing = Alert { firing: true, summary: "/a<b on db-1 is 97% full".to_owned(), labels };
    insta::assert_json_snapshot!(body(&firing, "https://alertmanager.example.com/#/alerts"), @r#"
    {
      "attachments": [
        {
          "color": "a30200",
          "fallback": "[FIRING:1] DiskFull (db db-1:9100 critical) | <https://alertmanager.example.com/#/alerts>",
          "mrkdwn_in": [
            "fallback",
            "pretext",
            "text"
          ],
          "text": "*Alert:* /a&lt;b on db-1 is 97% full - `critical`\n*Description:* /a&lt;b on db-1 is 97% full.\n*Details:*\n  • *alertname:* `DiskFull`\n  • *instance:* `db-1:9100`\n  • *mountpoint:* `/a&lt;b`\n  • *role:* `db`\n  • *severity:* `critical`",
          "title": "[FIRING:1] DiskFull for db",
          "title_link": "https://alertmanager.example.com/#/alerts"
        }
      ],
      "icons": {
        "emoji": ":bell:"
      },
      "text": "",
      "username": "Alertmanager"
    }
    "#);
    let resolved = body(&Alert { firing: false, ..firing }, "https://x");
    assert_eq!(resolved["attachments"][0]["title"], "[RESOLVED] DiskFull for db");
    assert_eq!(resolved["attachments"][0]["color"], "2eb886");
}

#[tokio::test]
async fn every_button_that_breaks_a_host_fires_its_alert_and_a_cure_resolves_it() {
    let fleet = Fleet::start(FleetOptions::default()).await.unwrap();
    let posted: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut checks = Check::standard();
    for check in &mut checks {
        if let Probe::Heartbeat(_, most) = &mut check.probe {
            *most = Duration::from_secs(3);
        }
    }
    let options = Options {
        interval: Duration::from_millis(20),
        hold: Duration::from_millis(40),
        mute: Duration::ZERO,
        checks,
        ..Options::default()
    };
    let sink = Arc::clone(&posted);
    let _monitor = Monitor::start(fleet.clone(), options, move |body| {
        let of = |bullet: &str| {
            let text = body["attachments"][0]["text"].as_str().unwrap();
            text.split(&format!("*{bullet}:* `")).nth(1).unwrap().split('`').next().unwrap().to_owned()
        };
        let title = body["attachments"][0]["title"].as_str().unwrap();
        sink.lock().unwrap().push(format!("{title} on {}", of("instance")));
    });
    let name = |text: &str| text.to_owned();
    let stories = [
        (
            "app-1",
            Action::Stop(name("FOO_PROCESS")),
            Action::Start(name("FOO_PROCESS")),
            "SOME_ALERT for SOME_ROLE",
        ),
        ("web-2", Action::Stop(name("nginx")), Action::Start(name("nginx")), "NginxDown for web"),
        ("db-1", Action::Fill(name("/var/log/app")), Action::Empty(name("/var/log/app")), "DiskFull for db"),
        ("db-1", Action::Lag(name("replica"), 900), Action::Lag(name("replica"), 0), "ReplicaLag for db"),
        (
            "batch-1",
            Action::Wedge(name("node-agent")),
            Action::Release(name("node-agent")),
            "AgentStuck for batch",
        ),
    ];
    for (host, breaks, cures, title) in stories {
        let has = |status: &str| {
            let wanted = format!("{status} {title} on {host}:9100");
            let posted = Arc::clone(&posted);
            move |_: &Fleet| posted.lock().unwrap().contains(&wanted)
        };
        fleet.break_it(host, &breaks).await.unwrap();
        assert!(fleet.wait_until(SOON, has("[FIRING:1]")).await, "{title}: {posted:?}");
        fleet.break_it(host, &cures).await.unwrap();
        assert!(fleet.wait_until(SOON, has("[RESOLVED]")).await, "{title}: {posted:?}");
    }
    assert_eq!(posted.lock().unwrap().len(), 10, "{posted:?}");
}

#[tokio::test]
async fn a_check_of_a_thing_that_the_host_does_not_have_says_nothing() {
    let fleet = Fleet::start(FleetOptions::of(vec![HostSpec::new("web-9", "web")])).await.unwrap();
    let host = fleet.host("web-9").unwrap();
    assert!(Check::standard().iter().all(|check| check.probe.look(host, Duration::ZERO).is_none()));
}

#[tokio::test]
async fn the_talks_rule_heals_as_it_stands_and_the_monitor_sees_it() {
    let rules: Value = serde_json::from_str(include_str!("../../../rules/talk.json")).unwrap();
    let commands = rules["SOME_ROLE:SOME_ALERT"]["commands"].as_array().unwrap();
    let script = commands.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join(" && ");
    let hosts = vec![HostSpec::new("app-1", "SOME_ROLE").service("FOO_PROCESS")];
    let fleet = Fleet::start(FleetOptions::of(hosts)).await.unwrap();
    let (posts, mut posted) = tokio::sync::mpsc::unbounded_channel();
    let quick = Duration::from_millis(10);
    let options = Options { interval: quick, hold: quick, ..Options::default() };
    let _monitor = Monitor::start(fleet.clone(), options, move |body| drop(posts.send(body)));
    let mut next = async || tokio::time::timeout(SOON, posted.recv()).await.unwrap().unwrap();

    fleet.act("app-1", "stop-foo-process").await.unwrap();
    assert_eq!(next().await["attachments"][0]["title"], "[FIRING:1] SOME_ALERT for SOME_ROLE");
    let (client, id) = (ssm::client(&fleet), fleet.host("app-1").unwrap().spec.instance_id.clone());
    let command = ssm::send(&client, &id, "", &script).await.unwrap();
    let seen = ssm::followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.response_code(), 0, "{seen:?}");
    let output = seen.standard_output_content().unwrap();
    assert!(output.starts_with("FOO_PROCESS is not running\nFOO_PROCESS is running (pid "), "{output}");
    assert_eq!(next().await["attachments"][0]["title"], "[RESOLVED] SOME_ALERT for SOME_ROLE");
}

#[test]
fn every_alert_of_the_monitor_has_a_shipped_rule() {
    let rules = [
        include_str!("../../../rules/talk.json"),
        include_str!("../../../rules/web.yaml"),
        include_str!("../../../rules/db.yaml"),
        include_str!("../../../rules/batch.yaml"),
    ];
    for check in Check::standard() {
        let key = format!("{}:{}", check.role, check.alert);
        let stands =
            |text: &&str| text.contains(&format!("\n{key}:\n")) || text.contains(&format!("\"{key}\":"));
        assert_eq!(rules.iter().filter(|text| stands(text)).count(), 1, "{key}");
    }
}
