//! How runs are followed: what SSM says, and what the host says where SSM does not know.

use super::*;
use crate::lifecycle::Outcome;
use tokio::sync::mpsc;

/// One look, and what it told.
async fn look_at(ssm: &Ssm, runs: &[Watched]) -> (Sight, Vec<Seen>) {
    look_deep(ssm, runs, 0).await
}

async fn look_deep(ssm: &Ssm, runs: &[Watched], depth: u32) -> (Sight, Vec<Seen>) {
    let runs: Vec<Arc<Watched>> = runs.iter().cloned().map(Arc::new).collect();
    let (tell, mut told) = mpsc::channel(1);
    let told = async move {
        let mut seen = Vec::new();
        while let Some((_, one)) = told.recv().await {
            seen.push(one);
        }
        seen
    };
    tokio::join!(ssm.observe((&runs, &[]), depth, Timestamp(2_000_000), tell), told)
}

/// How the only one of them stands.
async fn look(ssm: &Ssm, runs: &[Watched]) -> Seen {
    look_at(ssm, runs).await.1.pop().unwrap_or(Seen::NotYet)
}

/// As [`look`], until there is an answer.
async fn look_on(ssm: &Ssm, runs: &[Watched]) -> Seen {
    let seen = async {
        loop {
            match look(ssm, runs).await {
                Seen::NotYet => tokio::time::sleep(Duration::from_millis(20)).await,
                seen => return seen,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap()
}

fn watched(id: &str, plan: Plan) -> Watched {
    let kind = Kind::of(&plan);
    let (command_id, instance_id) = (id.to_owned(), target().instance_id);
    Watched {
        run: RemediationId(id.to_owned()),
        command_id: Some(command_id),
        kind,
        instance_id,
        first_sent_at: Timestamp(1_000_000),
        sent_at: Timestamp(1_000_000),
        fence_dir: None,
        copies: 1,
        asking: false,
        steps: plan.steps().map(Arc::from),
    }
}

fn invocation(id: &str, details: &str, output: &str) -> Value {
    json!({"CommandId": id, "InstanceId": target().instance_id, "Status": "Success", "StatusDetails": details,
           "CommandPlugins": [{"Name": "aws:runShellScript", "ResponseCode": 0, "Output": output}]})
}

const OUTPUT_WELL: &str =
    "heal/1 run=x end=done exit=0\nheal/1 step=1 kind=command exit=0 ms=5\nheal/1 x end\n";
const OUTPUT: &str = "heal/1 run=x end=done\nheal/1 step=1 kind=command exit=0 ms=5\nheal/1 x end\n";

#[tokio::test]
async fn a_run_is_not_yet_there_then_at_work_then_over() {
    let (ssm, _) = server(|name, _, before| match (name, before) {
        ("ListCommandInvocations", 0) => well(json!({"CommandInvocations": []})),
        ("ListCommandInvocations", 1) => no(400, "InvocationDoesNotExist"),
        ("ListCommandInvocations", 2) => {
            well(json!({"CommandInvocations": [invocation("c", "InProgress", "")]}))
        }
        ("ListCommandInvocations", _) => {
            well(json!({"CommandInvocations": [invocation("c", "Success", "cut")]}))
        }
        _ => well(json!({"StandardOutputContent": OUTPUT, "StandardErrorContent": ""})),
    })
    .await;
    let runs = [watched("c", shell())];
    for expected in [Seen::NotYet, Seen::NotYet, Seen::Progress(Vec::new())] {
        assert_eq!(look(&ssm, &runs).await, expected);
    }
    match look(&ssm, &runs).await {
        Seen::Ended(ran) => {
            assert_eq!((&ran.ended_as, ran.exit, ran.steps[0].exit), (&Final::Success, Some(0), Some(0)));
            assert_eq!(ran.ended_at, Timestamp(2_000_000));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn many_runs_are_read_from_the_pages_of_one_listing() {
    let (ssm, calls) = server(|_, input, _| {
        let page = input["NextToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
        let ids: Vec<Value> =
            (0..50).map(|n| invocation(&format!("c{}", page * 50 + n), "Success", OUTPUT)).collect();
        well(json!({"CommandInvocations": ids, "NextToken": (page + 1).to_string()}))
    })
    .await;
    let runs: Vec<Watched> = (0..120).map(|n| watched(&format!("c{n}"), shell())).collect();
    let (sight, seen) = look_at(&ssm, &runs).await;
    assert_eq!((sight.looked, sight.over, sight.throttled), (120, 120, false));
    assert!(seen.len() == 120 && seen.iter().all(|seen| matches!(seen, Seen::Ended(_))));
    assert_eq!(calls.lock().unwrap().len(), 3);
    // What is not due yet is seen by the way, and what was sent since does not hide what is.
    let runs: Vec<Arc<Watched>> = runs.into_iter().rev().map(Arc::new).collect();
    let (tell, mut told) = mpsc::channel(200);
    let sight = ssm.observe((&runs[..20], &runs[20..]), 0, Timestamp(2_000_000), tell).await;
    assert_eq!((sight.looked, sight.over, sight.passed_over.len(), sight.pages), (20, 120, 0, 3));
    let mut ended = 0;
    while let Some((_, Seen::Ended(_))) = told.recv().await {
        ended += 1;
    }
    assert_eq!(ended, 120);
    assert_eq!(calls.lock().unwrap().len(), 6);
}

/// An SSM that gave the run `c` up, with a host that answers `said` when it is asked.
async fn given_up(details: &'static str, said: &'static [&'static str]) -> (Ssm, Calls) {
    server(move |name, input, before| match (name, input["CommandId"].as_str()) {
        ("SendCommand", _) if said.is_empty() => no(400, "InvalidInstanceId"),
        ("SendCommand", _) => well(json!({"Command": {"CommandId": format!("ask{before}")}})),
        ("ListCommandInvocations", Some("c")) => {
            let mut one = invocation("c", details, "");
            let fine = details == "Success";
            one["Status"] = json!(if fine { "Success" } else { "TimedOut" });
            one["CommandPlugins"][0]["ResponseCode"] = json!(if fine { 0 } else { -1 });
            well(json!({"CommandInvocations": [one]}))
        }
        ("ListCommandInvocations", Some(ask)) => {
            let said = said[ask.trim_start_matches("ask").parse::<usize>().unwrap()];
            let details = if said.is_empty() { "Pending" } else { "Success" };
            well(json!({"CommandInvocations": [invocation(ask, details, said)]}))
        }
        _ => well(json!({"StandardOutputContent": "", "StandardErrorContent": ""})),
    })
    .await
}

#[tokio::test]
async fn the_host_is_asked_about_a_run_that_ssm_gave_up() {
    const FAILED: &str =
        "heal/1 run=x end=done exit=3\nheal/1 step=1 kind=command exit=3 ms=5\nheal/1 x end\n";
    for (said, ended_as, outcome) in [
        (OUTPUT_WELL, Final::Success, None),
        (FAILED, Final::Failed, Some(Outcome::Failed)),
        ("heal/1 run=x end=nothing exit=0\nheal/1 x end\n", Final::Late, Some(Outcome::TimedOut)),
        ("heal/1 run=x end=late exit=92\nheal/1 x end\n", Final::Late, Some(Outcome::TimedOut)),
        ("heal/1 run=x end=unfenced exit=93\nheal/1 x end\n", Final::Unfenced, Some(Outcome::Failed)),
        ("heal/1 run=x end=interrupted exit=94\nheal/1 x end\n", Final::Interrupted, Some(Outcome::Unknown)),
        ("no verdict\n", Final::DeliveryTimedOut, Some(Outcome::Unknown)),
    ] {
        let (ssm, calls) = given_up("DeliveryTimedOut", Box::leak(Box::new([said]))).await;
        let runs = [watched("c", shell())];
        assert_eq!(look(&ssm, &runs).await, Seen::NotYet);
        match look(&ssm, &runs).await {
            Seen::Ended(ran) => assert_eq!((&ran.ended_as, ran.outcome()), (&ended_as, outcome), "{said}"),
            other => panic!("{other:?}"),
        }
        let (_, input) =
            calls.lock().unwrap().iter().find(|(name, _)| name == "SendCommand").unwrap().clone();
        assert!(input["Comment"].as_str().unwrap().starts_with("heal ask "));
        assert_eq!(count(&calls, "SendCommand"), 1);
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_asked_leaves_it_unknown_and_one_that_is_at_it_is_waited_for() {
    let runs = [watched("c", shell())];
    let (ssm, calls) = given_up("DeliveryTimedOut", &[]).await;
    assert!(matches!(look_on(&ssm, &runs).await,
        Seen::Ended(ran) if ran.outcome() == Some(Outcome::Unknown)));
    assert_eq!(count(&calls, "SendCommand"), 3, "it may be starting anew");
    for said in ["heal/1 run=x end=working exit=94\nheal/1 x end\n", ""] {
        let (ssm, calls) = given_up("TimedOut", Box::leak(Box::new([said]))).await;
        for _ in 0..4 {
            assert_eq!(look(&ssm, &runs).await, Seen::NotYet);
        }
        assert_eq!(count(&calls, "SendCommand"), 1, "not asked at every look");
    }
}

#[tokio::test]
async fn a_run_that_ended_without_its_verdict_is_told_by_its_host() {
    const HALF: &str = "heal/1 run=x end=interrupted exit=94\nheal/1 step=1 kind=command exit=unknown ms=70\n\
                        heal/1 x output of step=1\nhalf of it\n\nheal/1 x end\n";
    const NOTHING: &str = "heal/1 run=x end=awaited exit=0\nheal/1 x end\n";
    for (details, said, ended_as, outcome, steps) in [
        ("Failed", OUTPUT_WELL, Final::Success, None, 1),
        ("Failed", HALF, Final::Interrupted, Some(Outcome::Unknown), 1),
        ("Failed", NOTHING, Final::Failed, Some(Outcome::Failed), 0),
        ("Cancelled", OUTPUT_WELL, Final::Success, None, 1),
        ("Cancelled", HALF, Final::Cancelled, Some(Outcome::Cancelled), 1),
        ("Execution Timed Out", HALF, Final::ExecutionTimedOut, Some(Outcome::TimedOut), 1),
        ("Execution Timed Out", OUTPUT_WELL, Final::Success, None, 1),
        ("Success", OUTPUT_WELL, Final::Success, None, 1),
        ("Success", HALF, Final::Interrupted, Some(Outcome::Unknown), 1),
    ] {
        let (ssm, calls) = given_up(details, Box::leak(Box::new([said]))).await;
        match look_on(&ssm, &[watched("c", shell())]).await {
            Seen::Ended(ran) => {
                assert_eq!((&ran.ended_as, ran.outcome()), (&ended_as, outcome), "{details}: {said}");
                assert_eq!(ran.steps.len(), steps, "{details}: {said}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(count(&calls, "SendCommand"), 1);
        // Of a document nobody on the host knows.
        let (ssm, calls) = given_up(details, Box::leak(Box::new([said]))).await;
        assert!(matches!(look_on(&ssm, &[watched("c", document())]).await, Seen::Ended(_)));
        assert_eq!(count(&calls, "SendCommand"), 0);
    }
}

/// Cause: it counted as a run that went well, for its script ends with 0.
#[tokio::test]
async fn a_success_without_its_verdict_may_be_a_confirm_that_failed() {
    const NEEDLESS: &str =
        "heal/1 run=x end=early exit=0\nheal/1 step=1 kind=confirm exit=1 ms=5\nheal/1 x end\n";
    let mut plan = shell();
    if let crate::plan::Work::Shell { steps, .. } = &mut plan.work {
        steps.insert(0, Step { kind: StepKind::Confirm, text: "! true".to_owned() });
    }
    let (ssm, _) = given_up("Success", &[NEEDLESS]).await;
    let seen = look_on(&ssm, &[watched("c", plan)]).await;
    assert!(matches!(&seen, Seen::Ended(ran) if ran.outcome() == Some(Outcome::NotNeeded)), "{seen:?}");
}

#[tokio::test]
async fn a_success_without_its_verdict_stands_where_the_host_cannot_be_asked() {
    let (ssm, calls) = given_up("Success", &[]).await;
    let seen = look_on(&ssm, &[watched("c", shell())]).await;
    assert!(matches!(seen, Seen::Ended(ran) if ran.ended_as == Final::Success && ran.outcome().is_none()));
    assert_eq!(count(&calls, "SendCommand"), 3, "it was asked for all the same");
}

#[tokio::test]
async fn of_several_copies_one_that_did_not_arrive_says_nothing_of_the_others() {
    for details in ["Undeliverable", "Terminated", "AccessDenied"] {
        let (ssm, _) = given_up(details, &[OUTPUT_WELL]).await;
        let two = [Watched { copies: 2, ..watched("c", shell()) }];
        assert!(matches!(look_on(&ssm, &two).await, Seen::Ended(ran) if ran.ended_as == Final::Success));
        let (ssm, calls) = given_up(details, &[OUTPUT_WELL]).await;
        assert!(matches!(look_on(&ssm, &[watched("c", shell())]).await,
            Seen::Ended(ran) if ran.outcome() == Some(Outcome::Failed)));
        assert_eq!(count(&calls, "SendCommand"), 0);
    }
}

#[tokio::test]
async fn a_run_whose_sending_was_lost_is_found_late_or_told_by_its_host_or_by_nobody() {
    let lost = || [Watched { command_id: None, asking: true, ..watched("c", shell()) }];
    let listed = |id: &str| json!({"Commands": [{"CommandId": id, "Comment": "heal c"}]});
    let (ssm, calls) = server(move |_, _, _| well(listed("c-9"))).await;
    assert_eq!(look_on(&ssm, &lost()).await, Seen::Found { command_id: "c-9".to_owned() });
    assert_eq!(count(&calls, "SendCommand"), 0);
    // The host may get it still, then it cannot any more.
    let answers = ["awaited", "awaited", "nothing"];
    let (ssm, calls) = server(move |name, input, before| match name {
        "ListCommands" => well(json!({"Commands": []})),
        "SendCommand" => well(json!({"Command": {"CommandId": format!("ask{before}")}})),
        _ => {
            let id = input["CommandId"].as_str().unwrap();
            let end = answers[id.trim_start_matches("ask").parse::<usize>().unwrap()];
            let said = format!("heal/1 run=c end={end} exit=0\nheal/1 c end\n");
            well(json!({"CommandInvocations": [invocation(id, "Success", &said)]}))
        }
    })
    .await;
    assert!(matches!(look_on(&ssm, &lost()).await, Seen::Ended(ran) if ran.ended_as == Final::Late));
    assert_eq!((count(&calls, "SendCommand"), count(&calls, "ListCommands")), (3, 3));
    let (ssm, _) = server(|name, _, _| match name {
        "ListCommands" => well(json!({"Commands": []})),
        _ => no(400, "AccessDeniedException"),
    })
    .await;
    assert!(matches!(look_on(&ssm, &lost()).await, Seen::Silent(_)));
    // An AWS that is away is not a host that is silent.
    let (ssm, _) = server(|_, _, _| no(503, "ServiceUnavailable")).await;
    for _ in 0..3 {
        let seen = look(&ssm, &lost()).await;
        assert!(matches!(seen, Seen::NotYet | Seen::Problem { passing: true, .. }), "{seen:?}");
    }
}

/// Cause: a host was asked where the setting of the day said, and knew of nothing there.
#[tokio::test]
async fn a_host_is_asked_where_the_run_made_its_fence() {
    let (ssm, calls) = given_up("InProgress", &[OUTPUT_WELL]).await;
    let ssm = ssm.with_fence_dir("/srv/newer");
    let kept = Watched { asking: true, fence_dir: Some("/srv/first".to_owned()), ..watched("c", shell()) };
    assert!(matches!(look_on(&ssm, &[kept]).await, Seen::Ended(ran) if ran.ended_as == Final::Success));
    let asked: Vec<String> = calls
        .lock()
        .unwrap()
        .iter()
        .filter(|(name, _)| name == "SendCommand")
        .map(|(_, input)| input["Parameters"]["commands"][0].as_str().unwrap().to_owned())
        .collect();
    assert!(asked[0].contains("/srv/first") && !asked[0].contains("/srv/newer"), "{asked:?}");
}

#[tokio::test]
async fn where_ssm_has_no_answer_in_time_the_host_gives_it() {
    let (ssm, _) = given_up("InProgress", &[OUTPUT_WELL]).await;
    let run = watched("c", shell());
    assert_eq!(look(&ssm, std::slice::from_ref(&run)).await, Seen::Progress(Vec::new()));
    let seen = look_on(&ssm, &[Watched { asking: true, ..run }]).await;
    assert!(matches!(seen, Seen::Ended(ran) if ran.ended_as == Final::Success && ran.steps.len() == 1));
}

#[tokio::test]
async fn a_look_costs_pages_and_a_few_calls_whatever_ssm_shows() {
    let runs: Vec<Watched> = (0..200).map(|n| watched(&format!("c{n}"), shell())).collect();
    // Nothing is shown yet.
    let (ssm, calls) = server(|_, _, _| well(json!({"CommandInvocations": []}))).await;
    let (sight, seen) = look_at(&ssm, &runs).await;
    let whole = Sight { looked: 200, over: 0, passed_over: Vec::new(), pages: 1, throttled: false };
    assert_eq!((sight, seen), (whole, Vec::new()), "it is known that they are not shown");
    assert_eq!(calls.lock().unwrap().len(), 1 + 10);
    // A busy account: others' commands without end.
    let (ssm, calls) = server(|_, input, before| match input["CommandId"].as_str() {
        Some(_) => well(json!({"CommandInvocations": []})),
        None => {
            let other = invocation("other", "Success", OUTPUT);
            well(json!({"CommandInvocations": [other], "NextToken": before.to_string()}))
        }
    })
    .await;
    let (mut pace, mut asked) = (Pace::default(), 0);
    // What it did not get at may stand further down, so the next look reads on, but not for ever.
    for pages in [14, 28, 56, 112, 112] {
        let (sight, _) = look_deep(&ssm, &runs, pace.depth()).await;
        assert_eq!((sight.passed_over.len(), sight.pages), (190, pages));
        asked += pages + 10;
        assert_eq!(calls.lock().unwrap().len(), asked);
        assert!(pace.after(&ssm, &sight) >= Duration::from_secs(1), "and waits the longer, the more it read");
    }
    // Throttled in the second page: what the first one showed is not lost, and nothing more is asked.
    let (ssm, calls) = server(|_, input, _| match input["NextToken"].as_str() {
        None => {
            let ids: Vec<Value> = (0..50).map(|n| invocation(&format!("c{n}"), "InProgress", "")).collect();
            well(json!({"CommandInvocations": ids, "NextToken": "1"}))
        }
        Some(_) => no(400, "ThrottlingException"),
    })
    .await;
    let (sight, seen) = look_at(&ssm, &runs).await;
    assert!(sight.throttled);
    let count = |is: fn(&Seen) -> bool| seen.iter().filter(|seen| is(seen)).count();
    assert_eq!(count(|seen| matches!(seen, Seen::Progress(_))), 50);
    assert_eq!(
        count(|seen| matches!(seen, Seen::Problem { passing: true, .. })),
        150,
        "nobody could see them"
    );
    assert_eq!(seen.len(), 200);
    assert_eq!(calls.lock().unwrap().len(), 2);
}

#[test]
fn the_poll_rests_longer_the_longer_it_is_throttled_and_never_for_the_same_time() {
    let ssm = || async { Ssm::on_loopback("http://127.0.0.1:9").await.unwrap() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ssm = runtime.block_on(ssm());
    assert_eq!(ssm.rest(0), Duration::ZERO);
    let bounds = [(1, 100, 200), (2, 200, 400), (3, 400, 800), (4, 500, 1000), (30, 500, 1000)];
    for (times, least, most) in bounds {
        let rests: Vec<u128> = (0..50).map(|_| ssm.rest(times).as_millis()).collect();
        assert!(rests.iter().all(|rest| (least..=most).contains(rest)), "{times}: {rests:?}");
        assert!(rests.iter().any(|rest| *rest != rests[0]), "not drawn: {rests:?}");
    }
}
