//! Run Command: what a command is, SendCommand and CancelCommand, with the service's words and
//! limits. What can be asked about commands is in `lists`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::members::{Members, Refusal, is_instance_id};
use super::spec::{Content, Document};
use super::{Shared, output, seconds, uuid};

pub(super) const RUN_SHELL_SCRIPT: &str = "AWS-RunShellScript";

/// A command as the service keeps it.
pub(super) struct Command {
    pub id: String,
    pub document: String,
    pub comment: String,
    pub parameters: Vec<(String, Vec<String>)>,
    pub timeout_seconds: u32,
    pub execution_timeout: u32,
    pub sent: Instant,
    pub requested: SystemTime,
    pub by_tag: bool,
    pub plugin: String,
    pub script: String,
    pub environment: Vec<(String, String)>,
    pub working_directory: Option<String>,
    pub cancelled: watch::Sender<bool>,
    pub invocations: Vec<Invocation>,
}

/// A command on one node.
#[derive(Clone)]
pub(super) struct Invocation {
    pub host: usize,
    pub status: String,
    pub details: String,
    pub started: Option<SystemTime>,
    pub ended: Option<SystemTime>,
    /// -1 until there is one (SSM API model, `ResponseCode`).
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Invocation {
    pub fn is_over(&self) -> bool {
        !matches!(self.status.as_str(), "Pending" | "InProgress" | "Delayed" | "Cancelling")
    }
}

impl Command {
    /// The command's own status, out of its invocations'.
    pub fn status(&self) -> (&str, &str) {
        let any = |status: &str| self.invocations.iter().find(|invocation| invocation.status == status);
        if self.invocations.is_empty() {
            return ("Success", if self.by_tag { "NoInstancesInTag" } else { "Success" });
        }
        for status in ["Cancelling", "InProgress", "Delayed"] {
            if any(status).is_some() {
                return (if status == "Delayed" { "InProgress" } else { status }, status);
            }
        }
        if any("Pending").is_some() {
            let all = self.invocations.iter().all(|invocation| invocation.status == "Pending");
            return if all { ("Pending", "Pending") } else { ("InProgress", "InProgress") };
        }
        for status in ["Failed", "TimedOut", "Cancelled"] {
            if let Some(worst) = any(status) {
                return (status, &worst.details);
            }
        }
        self.invocations.first().map_or(("Success", "Success"), |first| (&first.status, &first.details))
    }

    fn parameters(&self) -> Value {
        self.parameters
            .iter()
            .map(|(name, values)| (name.clone(), json!(values)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    pub fn shown(&self, shared: &Shared) -> Value {
        let (status, details) = self.status();
        let count = |is: &dyn Fn(&Invocation) -> bool| self.invocations.iter().filter(|one| is(one)).count();
        let expires = u64::from(self.timeout_seconds) + u64::from(self.execution_timeout);
        json!({
            "CommandId": self.id, "DocumentName": self.document, "DocumentVersion": "$DEFAULT",
            "Comment": self.comment, "Parameters": self.parameters(),
            "ExpiresAfter": seconds(self.requested + std::time::Duration::from_secs(expires)),
            "RequestedDateTime": seconds(self.requested),
            "InstanceIds": self.invocations.iter().map(|one| shared.instance_id(one.host)).collect::<Vec<_>>(),
            "Targets": [], "Status": status, "StatusDetails": details,
            "OutputS3BucketName": "", "OutputS3KeyPrefix": "", "MaxConcurrency": "50", "MaxErrors": "0",
            "TargetCount": self.invocations.len(), "CompletedCount": count(&Invocation::is_over),
            "ErrorCount": count(&|one| one.status == "Failed" || one.details == "Execution Timed Out"),
            "DeliveryTimedOutCount": count(&|one| one.details == "Delivery Timed Out"),
            "ServiceRole": "", "TimeoutSeconds": self.timeout_seconds,
        })
    }

    pub fn invocation_shown(&self, shared: &Shared, one: &Invocation, details: bool) -> Value {
        let name = shared.hosts.get(one.host).map_or("", |host| host.spec.computer_name.as_str());
        let mut shown = json!({
            "CommandId": self.id, "InstanceId": shared.instance_id(one.host), "InstanceName": name,
            "Comment": self.comment, "DocumentName": self.document, "DocumentVersion": "$DEFAULT",
            "RequestedDateTime": seconds(self.requested), "Status": one.status, "StatusDetails": one.details,
            "StandardOutputUrl": "", "StandardErrorUrl": "", "ServiceRole": "", "CommandPlugins": [],
        });
        if details && let Some(map) = shown.as_object_mut() {
            let mut plugin = json!({
                "Name": self.plugin, "Status": one.status, "StatusDetails": one.details, "ResponseCode": one.code,
                "Output": output::combined(&one.stdout, &one.stderr), "StandardOutputUrl": "",
                "StandardErrorUrl": "", "OutputS3Region": "", "OutputS3BucketName": "", "OutputS3KeyPrefix": "",
            });
            if let Some(plugin) = plugin.as_object_mut() {
                for (name, time) in
                    [("ResponseStartDateTime", one.started), ("ResponseFinishDateTime", one.ended)]
                {
                    if let Some(time) = time {
                        plugin.insert(name.to_owned(), json!(seconds(time)));
                    }
                }
            }
            map.insert("CommandPlugins".to_owned(), json!([plugin]));
        }
        shown
    }
}

pub(super) fn send(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(
        body,
        &[
            "InstanceIds",
            "Targets",
            "DocumentName",
            "DocumentVersion",
            "DocumentHash",
            "DocumentHashType",
            "TimeoutSeconds",
            "Comment",
            "Parameters",
            "OutputS3Region",
            "OutputS3BucketName",
            "OutputS3KeyPrefix",
            "MaxConcurrency",
            "MaxErrors",
            "ServiceRoleArn",
            "NotificationConfig",
            "CloudWatchOutputConfig",
            "AlarmConfiguration",
        ],
    )?;
    let name = members.required_text("DocumentName", 3, 256)?;
    let comment = members.text("Comment", 0, 100)?.unwrap_or("").to_owned();
    let timeout_seconds = members.number("TimeoutSeconds", 30, 2_592_000)?.unwrap_or(3600);
    members.rate("MaxConcurrency")?;
    members.rate("MaxErrors")?;
    let (hosts, by_tag) = targets(shared, &members)?;
    let parameters = members.parameters("Parameters")?;
    let one = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, values)| values);
    let (script, plugin, environment) = if name == RUN_SHELL_SCRIPT {
        known_parameters(&parameters, &["commands", "workingDirectory", "executionTimeout"])?;
        let commands = one("commands").filter(|commands| !commands.is_empty());
        let commands = commands.ok_or_else(|| invalid_parameters("commands is required"))?;
        (commands.join("\n"), "aws:runShellScript".to_owned(), Vec::new())
    } else {
        let document = shared.document(name);
        let document =
            document.ok_or_else(|| Refusal::new("InvalidDocument", format!("{name} does not exist")))?;
        let Content::Command { step, script } = &document.content else {
            return Err(Refusal::new("InvalidDocument", format!("{name} is no Command document")));
        };
        (script.clone(), step.clone(), bound(document, &parameters)?)
    };
    let execution_timeout = match one("executionTimeout").map(Vec::as_slice) {
        None => 3600,
        // The document's allowedPattern: digits, at most 172800.
        Some([seconds]) => {
            seconds.parse::<u32>().ok().filter(|seconds| (1..=172_800).contains(seconds)).ok_or_else(
                || invalid_parameters("executionTimeout does not match the allowed pattern, 1 to 172800"),
            )?
        }
        Some(_) => return Err(invalid_parameters("executionTimeout is one string")),
    };
    let working_directory =
        one("workingDirectory").and_then(|values| values.first()).filter(|dir| !dir.is_empty());
    let pending = |host: usize| Invocation {
        host,
        status: "Pending".to_owned(),
        details: "Pending".to_owned(),
        started: None,
        ended: None,
        code: -1,
        stdout: String::new(),
        stderr: String::new(),
    };
    let command = Command {
        id: uuid(),
        document: name.to_owned(),
        comment,
        timeout_seconds: u32::try_from(timeout_seconds).unwrap_or(3600),
        execution_timeout,
        sent: Instant::now(),
        requested: SystemTime::now(),
        by_tag,
        plugin,
        script,
        environment,
        working_directory: working_directory.cloned(),
        parameters,
        cancelled: watch::Sender::new(false),
        invocations: hosts.into_iter().map(pending).collect(),
    };
    let (id, shown, count) = (command.id.clone(), command.shown(shared), command.invocations.len());
    shared.state().add_command(command);
    for at in 0..count {
        super::delivery::begin(shared, &id, at);
    }
    Ok(json!({ "Command": shown }))
}

fn invalid_parameters(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidParameters", message)
}

fn known_parameters(parameters: &[(String, Vec<String>)], known: &[&str]) -> Result<(), Refusal> {
    match parameters.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(invalid_parameters(format!("the document has no parameter {name}"))),
        None => Ok(()),
    }
}

/// The environment that a registered document's script gets: `SSM_<parameter>`.
pub(super) fn bound(
    document: &Document,
    parameters: &[(String, Vec<String>)],
) -> Result<Vec<(String, String)>, Refusal> {
    let known: Vec<&str> = document.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    known_parameters(parameters, &known)?;
    document
        .parameters
        .iter()
        .map(|parameter| {
            let given = parameters.iter().find(|(name, _)| *name == parameter.name);
            let value = match given.map(|(_, values)| values.as_slice()) {
                Some([value]) => value.clone(),
                Some(_) => return Err(invalid_parameters(format!("{} is one string", parameter.name))),
                None => parameter
                    .default
                    .clone()
                    .ok_or_else(|| invalid_parameters(format!("{} is required", parameter.name)))?,
            };
            if !parameter.allowed.is_empty() && !parameter.allowed.contains(&value) {
                return Err(invalid_parameters(format!("{}: {value} is not allowed", parameter.name)));
            }
            Ok((format!("SSM_{}", parameter.name), value))
        })
        .collect()
}

/// The nodes of InstanceIds or of Targets. One unknown id refuses the whole call.
fn targets(shared: &Shared, members: &Members<'_>) -> Result<(Vec<usize>, bool), Refusal> {
    let ids = members.texts("InstanceIds", 0, 50)?;
    let targets = members.objects("Targets", 0, 5)?;
    if ids.is_empty() == targets.is_empty() {
        return Err(Refusal::new("InvalidTarget", "give InstanceIds or Targets, and not both"));
    }
    if let Some(wrong) = ids.iter().find(|id| !is_instance_id(id)) {
        return Err(Refusal::validation(format!("Value '{wrong}' at 'instanceIds' is not an instance id")));
    }
    let mut hosts: Vec<usize> = Vec::new();
    let mut by_tag = false;
    for id in &ids {
        hosts.push(shared.host_of(id).ok_or_else(|| {
            Refusal::new(
                "InvalidInstanceId",
                format!("Instances [[{id}]] not in a valid state for account 111122223333"),
            )
        })?);
    }
    for target in targets {
        let target = Members::of(target, &["Key", "Values"])?;
        let (key, values) = (target.required_text("Key", 1, 163)?, target.texts("Values", 0, 50)?);
        if let Some(tag) = key.strip_prefix("tag:") {
            by_tag = true;
            let has = |(name, value): &(String, String)| name == tag && values.contains(&value.as_str());
            let found = shared.hosts.iter().enumerate().filter(|(_, host)| host.spec.tags.iter().any(has));
            hosts.extend(found.map(|(at, _)| at));
        } else if key.eq_ignore_ascii_case("InstanceIds") {
            for id in values {
                hosts.push(shared.host_of(id).ok_or_else(|| Refusal::new("InvalidInstanceId", id))?);
            }
        } else {
            return Err(Refusal::new("InvalidTarget", format!("{key} is not a target key")));
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    Ok((hosts, by_tag))
}

/// Asks the nodes to stop. As in life there is no word on whether they did, until they answer.
pub(super) fn cancel(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["CommandId", "InstanceIds"])?;
    let id = members.required_text("CommandId", 36, 36)?;
    let ids = members.texts("InstanceIds", 0, 50)?;
    let state = shared.state();
    let command = state.commands.iter().find(|command| command.id == id);
    let command = command.ok_or_else(|| Refusal::new("InvalidCommandId", format!("{id} does not exist")))?;
    if let Some(wrong) = ids.iter().find(|id| shared.host_of(id).is_none()) {
        return Err(Refusal::new("InvalidInstanceId", *wrong));
    }
    command.cancelled.send_replace(true);
    Ok(json!({}))
}
