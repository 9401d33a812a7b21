//! What the API lists, and what it refuses.

use super::*;

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
