//! Against a tiny server that answers as SSM does, one canned function a test.

mod watching;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::client::Ssm;
use super::status::{Standing, of_automation, of_invocation};
use super::targets::Ages;
use super::*;
use crate::alert::{Alert, Status};
use crate::lifecycle::Final;
use crate::plan::{Plan, Platform, RemediationId, Step, StepKind, Target, Unusable, Work};
use crate::time::Timestamp;

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A server whose `answer` gets the operation, its input and how often it was called before.
async fn server<F>(answer: F) -> (Ssm, Calls)
where
    F: Fn(&str, &Value, usize) -> Response + Clone + Send + Sync + 'static,
{
    let calls: Calls = Arc::default();
    let seen = Arc::clone(&calls);
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        let name = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let input: Value = serde_json::from_slice(&body).unwrap();
        let before = {
            let mut seen = seen.lock().unwrap();
            seen.push((name.clone(), input.clone()));
            seen.iter().filter(|(other, _)| *other == name).count() - 1
        };
        answer(&name, &input, before)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    (Ssm::on_loopback(&format!("http://{address}")).await.unwrap(), calls)
}

fn count(calls: &Calls, name: &str) -> usize {
    calls.lock().unwrap().iter().filter(|(other, _)| other == name).count()
}

fn well(body: Value) -> Response {
    ([("content-type", "application/x-amz-json-1.1")], body.to_string()).into_response()
}

fn no(status: u16, code: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), json!({"__type": code, "message": "because"}).to_string())
        .into_response()
}

fn shell() -> Plan {
    let steps = vec![Step { kind: StepKind::Command, text: "service web restart".to_owned() }];
    Plan { work: Work::Shell { steps, env: BTreeMap::new() }, timeout: Duration::from_secs(300) }
}

fn document() -> Plan {
    let work = Work::Document { name: "Acme".to_owned(), parameters: BTreeMap::new() };
    Plan { work, timeout: Duration::from_secs(300) }
}

fn automation() -> Plan {
    let parameters = BTreeMap::from([("InstanceId".to_owned(), vec!["i-1".to_owned()])]);
    Plan { work: Work::Automation { name: "Acme".to_owned(), parameters }, timeout: Duration::from_secs(300) }
}

fn target() -> Target {
    let (instance_id, name) = ("i-0123456789abcdef0".to_owned(), "web-1".to_owned());
    Target { instance_id, name, address: None, platform: Platform::Linux }
}

static RUN: LazyLock<(RemediationId, Target)> =
    LazyLock::new(|| (RemediationId("r7k2m9".to_owned()), target()));

/// The first copy of the run.
fn copy(plan: &Plan) -> Copy<'_> {
    let (run, target) = &*RUN;
    let sent_at = Timestamp::from_secs(1_795_410_000);
    Copy { plan, target, run, first_sent_at: sent_at, sent_at, fence_dir: None, number: 1 }
}

#[tokio::test]
async fn a_command_goes_to_one_node_with_its_run_in_the_comment() {
    let (ssm, calls) = server(|_, _, _| well(json!({"Command": {"CommandId": "c-1"}}))).await;
    assert_eq!(ssm.send(copy(&shell())).await, Sent::Accepted { command_id: "c-1".to_owned() });
    let (_, input) = calls.lock().unwrap()[0].clone();
    assert_eq!(input["InstanceIds"], json!(["i-0123456789abcdef0"]));
    assert_eq!(input["Comment"], "heal r7k2m9");
    assert_eq!(input["DocumentName"], "AWS-RunShellScript");
    assert_eq!(input["Parameters"]["executionTimeout"], json!(["300"]));
    assert_eq!(
        (&input["MaxConcurrency"], &input["MaxErrors"], &input["TimeoutSeconds"]),
        (&json!("1"), &json!("0"), &json!(30))
    );
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_and_the_command_is_not_sent_again() {
    let (ssm, calls) = server(|name, _, before| match (name, before) {
        ("SendCommand", _) => no(500, "InternalServerError"),
        ("ListCommands", 0) => well(json!({"Commands": []})),
        ("ListCommands", 1) => {
            well(json!({"Commands": [{"CommandId": "c-8", "Comment": "heal other"}], "NextToken": "t"}))
        }
        _ => well(json!({"Commands": [{"CommandId": "c-9", "Comment": "heal r7k2m9"}]})),
    })
    .await;
    assert_eq!(ssm.send(copy(&shell())).await, Sent::Accepted { command_id: "c-9".to_owned() });
    assert_eq!(count(&calls, "SendCommand"), 1);
}

#[tokio::test]
async fn what_cannot_be_found_out_is_unclear_and_sent_once() {
    for (plan, looks) in [(shell(), 3), (document(), 6)] {
        let (ssm, calls) = server(|name, _, _| match name {
            "SendCommand" => (StatusCode::OK, "<html>").into_response(),
            _ => well(json!({"Commands": []})),
        })
        .await;
        assert!(matches!(ssm.send(copy(&plan)).await, Sent::Unclear { .. }));
        assert_eq!((count(&calls, "SendCommand"), count(&calls, "ListCommands")), (1, looks));
    }
}

#[tokio::test]
async fn a_look_that_fails_says_nothing_and_the_last_one_is_made_until_it_answers() {
    let (ssm, _) = server(|name, _, before| match (name, before) {
        ("SendCommand", _) => no(500, "InternalServerError"),
        (_, 0..12) => no(400, "ThrottlingException"),
        _ => well(json!({"Commands": [{"CommandId": "c-9", "Comment": "heal r7k2m9"}]})),
    })
    .await;
    assert_eq!(ssm.send(copy(&shell())).await, Sent::Accepted { command_id: "c-9".to_owned() });
    // Who may not look will never be told.
    let (ssm, calls) = server(|name, _, _| match name {
        "SendCommand" => no(500, "InternalServerError"),
        _ => no(400, "AccessDeniedException"),
    })
    .await;
    assert!(matches!(ssm.send(copy(&document())).await, Sent::Unclear { .. }));
    assert_eq!(count(&calls, "ListCommands"), 6);
}

#[tokio::test]
async fn after_a_restart_a_sending_is_looked_for_at_once_and_an_old_one_not_for_long() {
    for (plan, age, looks) in [(shell(), 5, 4), (document(), 5, 7), (shell(), 3600, 2), (document(), 3600, 2)]
    {
        let (ssm, calls) = server(|_, _, _| well(json!({"Commands": []}))).await;
        let copy = copy(&plan);
        let found = ssm.find(copy, copy.sent_at.plus(Duration::from_secs(age))).await;
        assert!(matches!(found, Sent::Unclear { .. }));
        assert_eq!((count(&calls, "SendCommand"), count(&calls, "ListCommands")), (0, looks));
    }
}

#[tokio::test]
async fn every_copy_may_begin_for_the_same_time_after_its_own_sending() {
    let (ssm, calls) = server(|_, _, _| well(json!({"Command": {"CommandId": "c-1"}}))).await;
    let plan = shell();
    let first = copy(&plan);
    ssm.send(first).await;
    let later = first.sent_at.plus(Duration::from_secs(90));
    ssm.send(Copy { sent_at: later, number: 2, ..first }).await;
    // What was sent under another setting goes on where it began.
    ssm.send(Copy { fence_dir: Some("/srv/heal"), number: 3, ..first }).await;
    let scripts: Vec<String> = calls
        .lock()
        .unwrap()
        .iter()
        .map(|(_, input)| input["Parameters"]["commands"][0].as_str().unwrap().to_owned())
        .collect();
    assert!(scripts[0].contains("-gt 1795410300 ]"), "{}", scripts[0]);
    assert!(scripts[1].contains("-gt 1795410390 ]"), "{}", scripts[1]);
    assert!(scripts[1].contains("/var/lib/heal") && !scripts[2].contains("/var/lib/heal"), "{}", scripts[2]);
    assert!(scripts[2].contains("/srv/heal"), "{}", scripts[2]);
}

#[tokio::test]
async fn a_no_is_a_no_and_a_later_is_a_later() {
    for (status, code, throttled) in [
        (400, "ThrottlingException", true),
        (400, "RequestLimitExceeded", true),
        (429, "Whatever", true),
        (400, "AccessDeniedException", false),
        (400, "InvalidInstanceId", false),
        (400, "InvalidDocument", false),
        (400, "ExpiredTokenException", false),
    ] {
        let (ssm, calls) = server(move |_, _, _| no(status, code)).await;
        match ssm.send(copy(&shell())).await {
            Sent::Throttled { .. } => assert!(throttled, "{code}"),
            Sent::Refused { why } => assert!(!throttled && why.contains("hint:"), "{code}: {why}"),
            other => panic!("{code}: {other:?}"),
        }
        assert_eq!(count(&calls, "SendCommand"), 1, "{code}");
    }
    // Nobody listens there: nothing was sent, and it may be later.
    let ssm = Ssm::on_loopback("http://127.0.0.1:9").await.unwrap();
    assert!(matches!(ssm.send(copy(&shell())).await, Sent::Throttled { .. }));
}

#[tokio::test]
async fn an_automation_is_started_again_under_the_same_token() {
    let (ssm, calls) = server(|_, _, before| match before {
        0 => no(503, "ServiceUnavailable"),
        _ => well(json!({"AutomationExecutionId": "a-1"})),
    })
    .await;
    assert_eq!(ssm.send(copy(&automation())).await, Sent::Accepted { command_id: "a-1".to_owned() });
    let calls = calls.lock().unwrap();
    let tokens: Vec<&Value> = calls.iter().map(|(_, input)| &input["ClientToken"]).collect();
    assert!(
        tokens.len() == 2 && tokens[0] == tokens[1] && tokens[0].as_str().unwrap().len() == 36,
        "{tokens:?}"
    );
}

#[test]
fn every_word_of_ssm_has_its_meaning() {
    let words = [
        ("Success", Final::Success),
        ("Failed", Final::Failed),
        ("TimedOut", Final::TimedOut),
        ("Delivery Timed Out", Final::DeliveryTimedOut),
        ("DeliveryTimedOut", Final::DeliveryTimedOut),
        ("Execution Timed Out", Final::ExecutionTimedOut),
        ("Undeliverable", Final::Undeliverable),
        ("Cancelled", Final::Cancelled),
        ("Terminated", Final::Terminated),
        ("Access Denied", Final::AccessDenied),
        ("InvalidPlatform", Final::InvalidPlatform),
        ("Rate Exceeded", Final::Other("Rate Exceeded".to_owned())),
    ];
    let mut sentences = std::collections::HashSet::new();
    for (word, meaning) in words {
        sentences.insert(meaning.sentence());
        assert_eq!(of_invocation(Some("Failed"), Some(word)), Standing::Over(meaning));
    }
    assert_eq!(sentences.len(), 11);
    assert_eq!(of_invocation(Some("Pending"), None), Standing::Waiting);
    assert_eq!(of_invocation(Some("InProgress"), Some("Something New")), Standing::Working);
    assert_eq!(of_automation("PendingApproval"), Standing::Working);
    assert_eq!(of_automation("Nonsense"), Standing::Over(Final::Other("Nonsense".to_owned())));
}

fn alert(host: Option<&str>, id: Option<&str>) -> Alert {
    Alert {
        name: "Down".to_owned(),
        status: Status::Firing,
        role: Some("web".to_owned()),
        host: host.map(str::to_owned),
        instance: None,
        instance_id: id.map(str::to_owned),
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: BTreeMap::new(),
    }
}

fn node(n: usize, name: &str, address: &str, ping: &str) -> Value {
    json!({"InstanceId": format!("i-{n:017x}"), "ComputerName": name, "IPAddress": address, "PingStatus": ping, "PlatformType": "Linux"})
}

#[tokio::test]
async fn a_node_is_found_by_any_of_its_names_or_not_at_all() {
    let (ssm, calls) = server(|_, input, _| {
        let filter = &input["Filters"][0];
        if filter["Key"] == "tag:Role" {
            return well(json!({"InstanceInformationList": [node(1, "web-012", "10.0.12.12", "Online")]}));
        }
        if filter["Key"] == "InstanceIds" {
            return well(json!({"InstanceInformationList": [node(5, "off", "10.0.0.5", "ConnectionLost")]}));
        }
        match input["NextToken"].as_str() {
            None => well(json!({"NextToken": "2", "InstanceInformationList":
                [node(1, "web-012", "10.0.12.12", "Online"), node(2, "db.a.example.com", "10.0.0.2", "Online")]})),
            _ => well(json!({"InstanceInformationList": [node(3, "db.b.example.com", "fd00::3", "Online"),
                node(4, "twin", "10.0.0.4", "Online"), node(5, "off", "10.0.0.5", "ConnectionLost"), node(6, "twin", "10.0.0.4", "Online")]})),
        }
    })
    .await;
    let ages = Ages { fresh: Duration::from_secs(300), afresh: Duration::from_millis(300) };
    let targets = Targets::with_ages(ssm.clone(), None, ages);
    assert_eq!(targets.resolve_cached(&alert(Some("web-012"), None)), None);
    assert_eq!(targets.warm().await, Ok(6));
    for (host, n) in [
        ("web-012", 1),
        ("WEB-012.prod.example.com:9100", 1),
        ("10.0.12.12:9100", 1),
        ("ip-10-0-12-12.ap-northeast-1.compute.internal", 1),
        ("ip-10-0-12-12", 1),
        ("[fd00::3]:9100", 3),
        ("fd00::3", 3),
        ("db.a.example.com.", 2),
        ("i-00000000000000002", 2),
    ] {
        let found = targets.resolve(&alert(Some(host), None)).await;
        assert_eq!(found.map(|found| found.instance_id), Ok(format!("i-{n:017x}")), "{host}");
        assert!(targets.resolve_cached(&alert(Some(host), None)).is_some());
    }
    for host in ["db", "db.a", "twin", "10.0.0.4"] {
        assert!(
            matches!(targets.resolve(&alert(Some(host), None)).await, Err(Unusable::Several { .. })),
            "{host}"
        );
    }
    let misses = ["web", "web-0123", "db.c.example.com", "10.0.9.9", "i-0000000000000000f"].map(|host| {
        let targets = targets.clone();
        async move { (host, targets.resolve(&alert(Some(host), None)).await) }
    });
    for (host, found) in futures_util::future::join_all(misses).await {
        assert!(matches!(found, Err(Unusable::NotFound { .. })), "{host}");
    }
    assert_eq!(targets.resolve(&alert(None, None)).await, Err(Unusable::NotNamed));
    assert!(matches!(targets.resolve(&alert(Some("off"), None)).await, Err(Unusable::Offline { .. })));
    let two = targets.resolve(&alert(Some("web-012"), Some("i-00000000000000002"))).await;
    assert!(matches!(two, Err(Unusable::Disagree { .. })), "{two:?}");
    let pages = calls.lock().unwrap().iter().filter(|(_, input)| input["Filters"].is_null()).count();
    assert_eq!(pages, 4, "a miss is answered from a reading after it, and misses at once share one");
    let targets = Targets::with_ages(ssm, Some("Role".to_owned()), ages);
    assert!(targets.resolve(&alert(Some("web-012"), None)).await.is_ok());
    assert!(targets.resolve_cached(&alert(Some("web-012"), None)).is_some());
    assert!(matches!(
        targets.resolve(&alert(Some("db.a.example.com"), None)).await,
        Err(Unusable::WrongRole { .. })
    ));
}

#[tokio::test]
async fn connecting_asks_nobody_anything() {
    let began = std::time::Instant::now();
    assert!(Ssm::connect(Some("ap-northeast-1")).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(1));
}
