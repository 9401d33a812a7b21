//! The emulator through the real SDK, over real sockets.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::types::{
    AutomationExecutionStatus, CommandFilter, CommandFilterKey, CommandInvocationStatus,
    InstanceInformationStringFilter, PingStatus,
};

use super::*;

const SOON: Duration = Duration::from_secs(20);

pub(in crate::sandbox) fn client(fleet: &Fleet) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
            aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https();
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("ap-northeast-1"))
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "test"))
        .endpoint_url(fleet.endpoint_url())
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .build();
    Client::from_conf(config)
}

async fn one_host() -> (Fleet, Client, String) {
    fleet_of(Options {
        second: Duration::from_millis(20),
        ..Options::of(vec![HostSpec::new("web-1", "web")])
    })
    .await
}

async fn fleet_of(options: Options) -> (Fleet, Client, String) {
    let fleet = Fleet::start(options).await.unwrap();
    let client = client(&fleet);
    let id = fleet.all_hosts()[0].spec.instance_id.clone();
    (fleet, client, id)
}

/// Sends a shell script; its command id.
pub(in crate::sandbox) async fn send(
    client: &Client,
    instance: &str,
    comment: &str,
    script: &str,
) -> Result<String, String> {
    let sent = client
        .send_command()
        .instance_ids(instance)
        .document_name("AWS-RunShellScript")
        .comment(comment)
        .timeout_seconds(30)
        .parameters("commands", vec![script.to_owned()])
        .parameters("executionTimeout", vec!["60".to_owned()])
        .send()
        .await;
    match sent {
        Ok(sent) => Ok(sent.command().unwrap().command_id().unwrap().to_owned()),
        Err(error) => Err(code(&error)),
    }
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> String {
    match error {
        SdkError::ServiceError(error) => error.err().code().unwrap_or("none").to_owned(),
        SdkError::DispatchFailure(_) => "dispatch failure".to_owned(),
        SdkError::ResponseError(_) => "response error".to_owned(),
        _ => "other".to_owned(),
    }
}

type Seen = aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;

/// Follows a command to its end.
pub(in crate::sandbox) async fn followed(fleet: &Fleet, client: &Client, id: &str, instance: &str) -> Seen {
    let mut changed = fleet.changed();
    let follow = async {
        loop {
            let seen = client.get_command_invocation().command_id(id).instance_id(instance).send().await;
            match seen {
                Ok(seen)
                    if !matches!(
                        seen.status().unwrap(),
                        CommandInvocationStatus::Pending
                            | CommandInvocationStatus::InProgress
                            | CommandInvocationStatus::Cancelling
                    ) =>
                {
                    return seen;
                }
                _ => drop(tokio::time::timeout(Duration::from_millis(20), changed.changed()).await),
            }
        }
    };
    tokio::time::timeout(SOON, follow).await.unwrap()
}

#[tokio::test]
async fn a_script_runs_on_its_host_with_the_agents_environment_and_its_words_come_back() {
    let (fleet, client, id) = one_host().await;
    let script = "echo \"$AWS_SSM_INSTANCE_ID\"; echo \"$SSM_COMMAND_ID\"; pwd; echo bad >&2; exit 3";
    let command = send(&client, &id, "heal run-1", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.status(), Some(&CommandInvocationStatus::Failed));
    assert_eq!(seen.status_details(), Some("Failed"));
    assert_eq!(seen.response_code(), 3);
    assert_eq!(seen.standard_output_content(), Some(format!("{id}\n{command}\n/\n").as_str()));
    assert_eq!(seen.standard_error_content(), Some("bad\nfailed to run commands: exit status 3"));
    assert_eq!(seen.plugin_name(), Some("aws:runShellScript"));
    assert_eq!(fleet.count_runs("heal run-1"), 1);
    assert_eq!(fleet.runs()[0].exit, Some(3));
}

#[tokio::test]
async fn absolute_paths_of_a_script_stay_in_the_hosts_folder_and_read_as_absolute_ones() {
    let (fleet, client, id) = one_host().await;
    let script =
        "mkdir -p /var/lib/heal && echo kept >/var/lib/heal/x && ls '/var/lib/heal' && echo /var/lib/heal/x";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.standard_output_content(), Some("x\n/var/lib/heal/x\n"));
    let root = fleet.host("web-1").unwrap().root();
    assert_eq!(std::fs::read_to_string(root.join("var/lib/heal/x")).unwrap(), "kept\n");
}

#[tokio::test]
async fn only_paths_are_redirected_and_not_what_looks_like_one() {
    let (fleet, ..) = one_host().await;
    let host = fleet.host("web-1").unwrap();
    let root = host.root().to_str().unwrap();
    for (script, wanted) in [
        ("export MOUNT='/var/log/app'", format!("export MOUNT='{root}/var/log/app'")),
        (
            "for d in /run /var/lib /var/tmp; do",
            format!("for d in {root}/run {root}/var/lib {root}/var/tmp; do"),
        ),
        ("case \"$MOUNT\" in /var/log/*) ;;", format!("case \"$MOUNT\" in {root}/var/log/*) ;;")),
        ("awk '/run/ { print }'", "awk '/run/ { print }'".to_owned()),
        (
            "ls $X/var/log ${Y}/var/log /tmp/var/log /variable",
            "ls $X/var/log ${Y}/var/log /tmp/var/log /variable".to_owned(),
        ),
        ("curl http://x/run http://y/var/log", "curl http://x/run http://y/var/log".to_owned()),
    ] {
        let inward = host.inward(script);
        assert_eq!(inward, wanted);
        assert_eq!(host.outward(&inward), script);
    }
}

#[tokio::test]
async fn a_script_that_still_runs_ends_with_its_fleet() {
    let (fleet, client, id) = one_host().await;
    send(&client, &id, "", "echo $$ >/var/run/pid; sleep 300").await.unwrap();
    let file = fleet.host("web-1").unwrap().root().join("var/run/pid");
    let pid = || std::fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse::<u32>().ok());
    assert!(fleet.wait_until(SOON, |_| pid().is_some()).await);
    let pid = pid().unwrap();
    fleet.stop();
    let gone =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(fleet.wait_until(SOON, |_| gone()).await);
    assert!(!file.exists());
}

#[tokio::test]
async fn long_output_keeps_its_head() {
    let (fleet, client, id) = one_host().await;
    let script = "echo first; head -c 30000 /dev/zero | tr '\\0' x; head -c 9000 /dev/zero | tr '\\0' y >&2";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    let (out, err) = (seen.standard_output_content().unwrap(), seen.standard_error_content().unwrap());
    assert_eq!((out.len(), err.len()), (24_000, 8_000));
    assert!(out.starts_with("first\n") && out.ends_with("---Output truncated---"));
    let listed = client.list_command_invocations().command_id(&command).details(true).send().await.unwrap();
    let plugin = &listed.command_invocations()[0].command_plugins()[0];
    assert_eq!(plugin.output().unwrap().len(), 2_500);
    assert_eq!(plugin.response_code(), 0);
}

#[tokio::test]
async fn a_script_over_its_time_is_killed_with_all_its_children() {
    let (fleet, client, id) = one_host().await;
    let command = client
        .send_command()
        .instance_ids(&id)
        .document_name("AWS-RunShellScript")
        .parameters("commands", vec!["sleep 300 & echo $!".to_owned(), "wait".to_owned()])
        .parameters("executionTimeout", vec!["10".to_owned()])
        .send()
        .await
        .unwrap();
    let command = command.command().unwrap().command_id().unwrap().to_owned();
    let seen = followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.status(), Some(&CommandInvocationStatus::TimedOut));
    assert_eq!(seen.status_details(), Some("Execution Timed Out"));
    let child = seen.standard_output_content().unwrap().trim().to_owned();
    let dead = |_: &Fleet| {
        std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    assert!(fleet.wait_until(SOON, dead).await);
}

#[tokio::test]
async fn a_command_to_an_offline_node_waits_for_it_and_then_times_out_undelivered() {
    let (fleet, client, id) = fleet_of(Options {
        second: Duration::from_millis(2),
        ..Options::of(vec![HostSpec::new("a", "r").offline()])
    })
    .await;
    let command = send(&client, &id, "late", "true").await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.status_details(), Some("Delivery Timed Out"));
    assert_eq!((seen.response_code(), fleet.count_runs("late")), (-1, 0));

    let (fleet, client, id) = fleet_of(Options::of(vec![HostSpec::new("a", "r").offline()])).await;
    let command = send(&client, &id, "", "echo here").await.unwrap();
    fleet.act("a", "online").await.unwrap();
    assert_eq!(followed(&fleet, &client, &command, &id).await.standard_output_content(), Some("here\n"));
}

#[tokio::test]
async fn a_lost_answer_is_a_dispatch_failure_of_a_command_that_ran_once() {
    let (fleet, client, id) = one_host().await;
    fleet.fault("SendCommand", 1, &Fault::ResetAfter);
    assert_eq!(send(&client, &id, "heal lost", "true").await.unwrap_err(), "dispatch failure");
    assert!(fleet.wait_until(SOON, |fleet| fleet.runs().iter().any(|run| run.ended.is_some())).await);
    assert_eq!(fleet.count_runs("heal lost"), 1);
    let listed = client.list_commands().send().await.unwrap();
    assert_eq!(listed.commands()[0].comment(), Some("heal lost"));

    fleet.fault("SendCommand", 1, &Fault::ResetBefore);
    assert_eq!(send(&client, &id, "heal never", "true").await.unwrap_err(), "dispatch failure");
    assert_eq!((fleet.count_runs("heal never"), fleet.count_calls("SendCommand")), (0, 2));
}

#[tokio::test]
async fn faults_are_answered_with_their_codes_and_then_are_over() {
    let (fleet, client, id) = one_host().await;
    fleet.fault("SendCommand", 1, &Fault::throttled());
    fleet.fault("SendCommand", 1, &Fault::internal());
    assert_eq!(send(&client, &id, "", "true").await.unwrap_err(), "ThrottlingException");
    assert_eq!(send(&client, &id, "", "true").await.unwrap_err(), "InternalServerError");
    send(&client, &id, "", "true").await.unwrap();
    assert_eq!(fleet.calls()[0].refused.as_deref(), Some("ThrottlingException"));
}

#[tokio::test]
async fn one_unknown_instance_refuses_the_whole_call() {
    let (fleet, client, id) = one_host().await;
    let sent = client
        .send_command()
        .instance_ids(id)
        .instance_ids("i-00000000000000000")
        .document_name("AWS-RunShellScript")
        .parameters("commands", vec!["true".to_owned()])
        .send()
        .await;
    assert_eq!(code(&sent.unwrap_err()), "InvalidInstanceId");
    assert!(fleet.runs().is_empty());
}

#[tokio::test]
async fn what_the_service_would_refuse_is_refused() {
    let (_fleet, client, id) = one_host().await;
    let base = || client.send_command().instance_ids(&id).parameters("commands", vec!["true".to_owned()]);
    let shell = || base().document_name("AWS-RunShellScript");
    let cases = [
        (shell().comment("x".repeat(101)), "ValidationException"),
        (shell().timeout_seconds(29), "ValidationException"),
        (shell().max_concurrency("12345678"), "ValidationException"),
        (shell().parameters("executionTimeout", vec!["172801".to_owned()]), "InvalidParameters"),
        (shell().parameters("MOUNT", vec!["x".to_owned()]), "InvalidParameters"),
        (base().document_name("Acme-Unknown"), "InvalidDocument"),
        (base().document_name("Acme-ReplaceNode"), "InvalidDocument"),
    ];
    for (request, wanted) in cases {
        assert_eq!(code(&request.send().await.unwrap_err()), wanted);
    }
    let unknown = "11111111-2222-4333-8444-555555555555";
    let got = client.get_command_invocation().command_id(unknown).instance_id(&id).send().await;
    assert!(got.unwrap_err().into_service_error().is_invocation_does_not_exist());
    let paged = client.describe_instance_information().max_results(4).send().await;
    assert_eq!(code(&paged.unwrap_err()), "ValidationException");
}

#[tokio::test]
async fn a_request_without_a_signature_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (fleet, ..) = one_host().await;
    let address = fleet.endpoint_url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nX-Amz-Target: AmazonSSM.ListCommands\r\n\
         Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("MissingAuthenticationToken"), "{answer}");
    assert!(fleet.calls().is_empty());
}

#[tokio::test]
async fn nodes_are_listed_in_pages_and_found_by_tag_but_not_by_tag_and_more() {
    let hosts =
        (0..12).map(|at| HostSpec::new(&format!("h-{at}"), if at == 3 { "db" } else { "web" })).collect();
    let (fleet, client, id) = fleet_of(Options::of(hosts)).await;
    fleet.act("h-0", "offline").await.unwrap();
    let mut pages = client.describe_instance_information().max_results(5).into_paginator().send();
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await {
        sizes.push(page.unwrap().instance_information_list().len());
    }
    assert_eq!(sizes, [5, 5, 2]);
    let filter = |key: &str, value: &str| {
        InstanceInformationStringFilter::builder().key(key).values(value).build().unwrap()
    };
    let by = |filters| client.describe_instance_information().set_filters(Some(filters)).send();
    let db = by(vec![filter("tag:Role", "db")]).await.unwrap();
    assert_eq!(db.instance_information_list()[0].computer_name(), Some("h-3"));
    let first = by(vec![filter("InstanceIds", &id)]).await.unwrap();
    assert_eq!(first.instance_information_list()[0].ping_status(), Some(&PingStatus::ConnectionLost));
    let both = by(vec![filter("tag:Role", "db"), filter("PingStatus", "Online")]).await;
    assert_eq!(code(&both.unwrap_err()), "InvalidFilterKey");
}

#[tokio::test]
async fn a_new_command_is_shown_late_and_found_by_time_and_comment() {
    let late = Duration::from_millis(300);
    let options =
        Options { list_delay: late, invocation_delay: late, ..Options::of(vec![HostSpec::new("a", "r")]) };
    let (fleet, client, id) = fleet_of(options).await;
    let command = send(&client, &id, "heal slow", "true").await.unwrap();
    assert!(client.list_commands().send().await.unwrap().commands().is_empty());
    let got = client.get_command_invocation().command_id(&command).instance_id(&id).send().await;
    assert!(got.unwrap_err().into_service_error().is_invocation_does_not_exist());
    followed(&fleet, &client, &command, &id).await;
    let after = |value: &str| {
        let filter =
            CommandFilter::builder().key(CommandFilterKey::InvokedAfter).value(value).build().unwrap();
        client.list_commands().filters(filter).send()
    };
    let found = after("2020-01-01T00:00:00Z").await.unwrap();
    assert_eq!(found.commands()[0].command_id(), Some(command.as_str()));
    assert!(after("2999-01-01T00:00:00Z").await.unwrap().commands().is_empty());
}

#[tokio::test]
async fn a_cancelled_command_says_cancelling_until_it_has_stopped() {
    let (fleet, client, id) = one_host().await;
    let command = send(&client, &id, "", "sleep 300").await.unwrap();
    assert!(fleet.wait_until(SOON, |fleet| !fleet.runs().is_empty()).await);
    client.cancel_command().command_id(&command).send().await.unwrap();
    assert_eq!(followed(&fleet, &client, &command, &id).await.status_details(), Some("Cancelled"));
}

#[tokio::test]
async fn a_test_decides_what_becomes_of_a_command() {
    let (fleet, client, id) = one_host().await;
    fleet.on_send(|sent| match sent.comment.as_str() {
        "undeliverable" => Scripted::finish("Failed", "Undeliverable", -1, ""),
        "twice" => Scripted::RunTwice { apart: Duration::ZERO },
        "wrong word" => {
            Scripted::RunButReport { status: "TimedOut".to_owned(), details: "Delivery Timed Out".to_owned() }
        }
        _ => Scripted::DeliverAfter(Duration::from_millis(50)),
    });
    for (comment, details, runs) in [
        ("undeliverable", "Undeliverable", 0),
        ("twice", "Success", 2),
        ("wrong word", "Delivery Timed Out", 1),
    ] {
        let command = send(&client, &id, comment, "true").await.unwrap();
        let seen = followed(&fleet, &client, &command, &id).await;
        assert_eq!((seen.status_details(), fleet.count_runs(comment)), (Some(details), runs));
    }
    let command = send(&client, &id, "late", "true").await.unwrap();
    assert_eq!(followed(&fleet, &client, &command, &id).await.status_details(), Some("Success"));
}

#[tokio::test]
async fn an_automation_runs_once_per_client_token_and_shows_its_steps() {
    let host = HostSpec::new("batch-1", "batch").service("node-agent").service("batch-worker");
    let (fleet, client, id) = fleet_of(Options::of(vec![host])).await;
    fleet.act("batch-1", "wedge-batch-worker").await.unwrap();
    let token = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    let start = |instance: &str| {
        client
            .start_automation_execution()
            .document_name("Acme-ReplaceNode")
            .client_token(token)
            .parameters("InstanceId", vec![instance.to_owned()])
            .send()
    };
    let first = start(&id).await.unwrap().automation_execution_id().unwrap().to_owned();
    assert_eq!(start(&id).await.unwrap().automation_execution_id(), Some(first.as_str()));
    let other = start("i-00000000000000000").await.unwrap_err().into_service_error();
    assert!(other.is_idempotent_parameter_mismatch());
    let unknown = client.start_automation_execution().document_name("Acme-None").send().await;
    assert!(unknown.unwrap_err().into_service_error().is_automation_definition_not_found_exception());

    let mut changed = fleet.changed();
    let execution = loop {
        let got = client.get_automation_execution().automation_execution_id(&first).send().await.unwrap();
        let execution = got.automation_execution().unwrap().clone();
        if execution.automation_execution_status() != Some(&AutomationExecutionStatus::Inprogress) {
            break execution;
        }
        tokio::time::timeout(SOON, changed.changed()).await.unwrap().unwrap();
    };
    assert_eq!(execution.automation_execution_status(), Some(&AutomationExecutionStatus::Success));
    let steps =
        client.describe_automation_step_executions().automation_execution_id(&first).send().await.unwrap();
    let names: Vec<_> = steps.step_executions().iter().filter_map(|step| step.step_name()).collect();
    assert_eq!(names, ["drainNode", "replaceNode", "waitForNode"]);
    assert_eq!(fleet.runs().len(), 3);
    assert!(matches!(fleet.host("batch-1").unwrap().process("batch-worker"), ProcessState::Running { .. }));
}

#[tokio::test]
async fn services_really_stop_hang_restart_and_fail_to() {
    let (fleet, client, id) =
        fleet_of(Options::of(vec![HostSpec::new("web-1", "web").service("nginx")])).await;
    let host = fleet.host("web-1").unwrap();
    let ProcessState::Running { pid } = host.process("nginx") else { panic!("nginx runs from the start") };
    fleet.act("web-1", "stop-nginx").await.unwrap();
    assert_eq!(host.process("nginx"), ProcessState::Gone);
    let script = "systemctl is-active nginx; systemctl restart nginx && systemctl is-active --quiet nginx && pgrep -x nginx";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    let ProcessState::Running { pid: new } = host.process("nginx") else { panic!("nginx was restarted") };
    assert_ne!(pid, new);
    assert_eq!(seen.standard_output_content(), Some(format!("inactive\n{new}\n").as_str()));

    fleet.act("web-1", "wedge-nginx").await.unwrap();
    assert!(matches!(host.process("nginx"), ProcessState::Stopped { .. }));
    fleet.act("web-1", "break-restart-nginx").await.unwrap();
    let command = send(&client, &id, "", "service nginx restart").await.unwrap();
    assert_eq!(followed(&fleet, &client, &command, &id).await.response_code(), 1);
    assert_eq!(host.process("nginx"), ProcessState::Gone);
    fleet.act("web-1", "mend-restart-nginx").await.unwrap();
    fleet.act("web-1", "start-nginx").await.unwrap();
    let ProcessState::Running { pid } = host.process("nginx") else { panic!("nginx was started") };
    let root = host.root().to_owned();
    fleet.stop();
    assert!(!root.exists());
    let gone =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(fleet.wait_until(SOON, |_| gone()).await);
}

#[tokio::test]
async fn a_disk_fills_and_df_tells_of_it_on_the_host_and_off() {
    let (fleet, client, id) =
        fleet_of(Options::of(vec![HostSpec::new("db-1", "db").disk("/var/log/app", 1000)])).await;
    let host = fleet.host("db-1").unwrap();
    assert_eq!(host.disk_percent("/var/log/app"), Some(20));
    fleet.act("db-1", "fill-var-log-app").await.unwrap();
    assert_eq!(host.disk_percent("/var/log/app"), Some(97));
    let script = "MOUNT='/var/log/app'; df --output=pcent \"$MOUNT\" | tail -n 1; df -P \"$MOUNT\" | tail -n 1; df -P / | wc -l
        find \"$MOUNT\" -xdev -type f -name '*.gz' -mtime +1 -delete; df --output=pcent \"$MOUNT\" | tail -n 1";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    let lines: Vec<Vec<&str>> = seen
        .standard_output_content()
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["97%"]);
    assert_eq!((lines[1][4], lines[1][5]), ("97%", "/var/log/app"));
    assert_eq!((&lines[2], &lines[3]), (&vec!["2"], &vec!["20%"]));
}

#[tokio::test]
async fn the_panel_shows_what_is_broken_and_offers_what_can_be_done() {
    let fleet = Fleet::start(Options::default()).await.unwrap();
    let of = |name: &str| fleet.hosts().into_iter().find(|host| host.name == name).unwrap();
    assert!(fleet.hosts().iter().all(|host| host.lines.iter().all(|line| line.ok)), "{:#?}", fleet.hosts());
    for host in fleet.hosts() {
        for action in &host.actions {
            let words =
                action.id.chars().all(|letter| letter.is_ascii_lowercase() || "-0123456789".contains(letter));
            assert!(words, "{}", action.id);
        }
    }
    fleet.act("app-1", "stop-foo-process").await.unwrap();
    fleet.act("db-1", "lag-replica").await.unwrap();
    assert_eq!(of("app-1").lines[0].detail, "stopped");
    assert_eq!(of("app-1").actions[0].id, "start-foo-process");
    assert!(!of("db-1").lines[1].ok);
    assert!(fleet.act("app-1", "stop-nginx").await.is_err());
    assert!(fleet.act("app-1", "explode").await.is_err());
}
