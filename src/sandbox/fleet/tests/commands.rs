//! The way of a command or an automation, and how a test bends it.

use super::*;

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
