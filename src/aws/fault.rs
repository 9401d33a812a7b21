//! What a failed call means: will it pass, is it final, or can nobody tell whether it was done.

use std::error::Error;
use std::time::Duration;

use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// A failed call. The texts are for people and name the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SSM said no, and will again.
    Refused { why: String },
    /// SSM said "later".
    Throttled { retry_after: Duration },
    /// Nothing left this machine: no connection.
    Unreached { why: String },
    /// Nothing left this machine: no credentials.
    NoCredentials { why: String },
    /// It may have been done or not: no answer, half an answer, an error of the server's own.
    Unclear { why: String },
}

/// What SSM asks for when it throttles; it names no time.
const BACK_OFF: Duration = Duration::from_secs(5);
/// A hundred automations run already (AWS adaptive concurrency); one has to end first.
const AUTOMATIONS_FULL: Duration = Duration::from_secs(30);

/// The words of AWS services for "too many requests" (aws-runtime's own list, `THROTTLING_ERRORS`).
const THROTTLING: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "SlowDown",
    "PriorRequestNotComplete",
    "TransactionInProgressException",
    "ProvisionedThroughputExceededException",
    "EC2ThrottledException",
];

impl Fault {
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Fault
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ConstructionFailure(_) => {
                Fault::Refused { why: format!("the call could not be made: {}", chain(error)) }
            }
            SdkError::DispatchFailure(failure) => {
                let why = chain(error);
                if failure.is_other() && why.contains("redential")
                    || failure.is_user() && why.contains("redential")
                {
                    return Fault::NoCredentials { why: format!("no AWS credentials: {why}") };
                }
                if never_connected(error) {
                    return Fault::Unreached { why: format!("AWS cannot be reached: {why}") };
                }
                Fault::Unclear { why: format!("the connection to AWS broke: {why}") }
            }
            SdkError::TimeoutError(_) => Fault::Unclear { why: "AWS did not answer in time".to_owned() },
            SdkError::ServiceError(answer) => {
                Fault::of_answer(answer.raw().status().as_u16(), answer.err().code(), answer.err().message())
            }
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                Fault::Unclear { why: format!("AWS gave an answer that cannot be read (HTTP {status})") }
            }
            other => Fault::Unclear { why: chain(other) },
        }
    }

    /// From the HTTP status, the service's error code and its message.
    pub(super) fn of_answer(status: u16, code: Option<&str>, message: Option<&str>) -> Fault {
        // A long message of AWS repeats the request; a line of it says enough.
        let message = crate::text::clip(&crate::text::clean(message.unwrap_or(""), 600), 300);
        let said = |plain: &str| match message.as_str() {
            "" => plain.to_owned(),
            message => format!("{plain} ({message})"),
        };
        let Some(code) = code else {
            return match status {
                429 => Fault::Throttled { retry_after: BACK_OFF },
                408 | 500.. => Fault::Unclear { why: said(&format!("AWS answered HTTP {status}")) },
                400.. => {
                    Fault::Refused { why: said(&format!("AWS refused with HTTP {status} and no reason")) }
                }
                _ => Fault::Unclear { why: format!("AWS answered HTTP {status} without a command") },
            };
        };
        if THROTTLING.contains(&code) || status == 429 {
            return Fault::Throttled { retry_after: BACK_OFF };
        }
        if code == "AutomationExecutionLimitExceededException" {
            return Fault::Throttled { retry_after: AUTOMATIONS_FULL };
        }
        if status >= 500 || matches!(code, "InternalServerError" | "InternalFailure" | "ServiceUnavailable") {
            return Fault::Unclear { why: said(&format!("AWS failed inside: {code}")) };
        }
        Fault::Refused { why: said(&plain(code)) }
    }

    pub(super) fn why(&self) -> String {
        match self {
            Fault::Refused { why }
            | Fault::Unreached { why }
            | Fault::NoCredentials { why }
            | Fault::Unclear { why } => why.clone(),
            Fault::Throttled { .. } => "AWS asks for fewer requests for a while".to_owned(),
        }
    }
}

/// A refusal of SSM in words, with what to do.
fn plain(code: &str) -> String {
    let words = match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
            "AWS denies this to heal's role; hint: compare its policy with the one in the README"
        }
        "InvalidInstanceId" => {
            "SSM does not take commands for this node: it is stopped, its agent is down, or the role may not reach it; \
             hint: look at it in Fleet Manager"
        }
        "InvalidDocument" | "InvalidDocumentVersion" | "DocumentNotFound" => {
            "SSM has no such document here; hint: check its name, its owner's sharing and the region"
        }
        "AutomationDefinitionNotFoundException" | "AutomationDefinitionVersionNotFoundException" => {
            "SSM has no such Automation runbook here; hint: check its name and the region"
        }
        "InvalidParameters" | "InvalidAutomationExecutionParametersException" | "ValidationException" => {
            "SSM refuses the parameters; hint: compare the rule's with the document's"
        }
        "IdempotentParameterMismatch" => "this run was started before with other parameters",
        "UnsupportedPlatformType" => "the document does not fit the node's platform",
        "MaxDocumentSizeExceeded" => "the command is larger than SSM takes",
        "InvalidTarget" => "SSM refuses the target; hint: check the runbook's target parameter",
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            "heal's AWS credentials have expired; hint: renew them, or run heal under an instance role"
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "AuthFailure"
        | "NotAuthorized" => {
            "AWS does not accept heal's credentials; hint: check the keys, the region and this machine's clock"
        }
        "RequestTimeTooSkewed" => "this machine's clock is wrong; hint: set it by NTP",
        "OptInRequired" => "the AWS account is not signed up for SSM in this region",
        other => return format!("AWS refused: {other}"),
    };
    format!("{words} [{code}]")
}

/// Whether the connection was never made, so that nothing can have been done.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        next = error.source();
    }
    false
}

/// An error and its causes on one line; none of the SDK's has a secret in it, and they are blotted all the same.
fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if parts.last() != Some(&part) {
            parts.push(part);
        }
        next = error.source();
    }
    crate::text::clip(&crate::text::redact(&crate::text::clean(&parts.join(": "), 1000)), 300)
}
