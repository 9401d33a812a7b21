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

mod api;
mod commands;
mod hosts;

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
