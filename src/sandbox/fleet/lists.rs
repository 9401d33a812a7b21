//! What can be asked about commands: ListCommands, ListCommandInvocations, GetCommandInvocation,
//! filtered, paged, and as slow to show a new command as the fleet's options say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::commands::{Command, Invocation};
use super::members::{Members, Refusal, is_uuid, page};
use super::nodes::with_token;
use super::{Shared, iso, output};

struct Query<'a> {
    command: Option<&'a str>,
    instance: Option<&'a str>,
    filters: Vec<(&'a str, &'a str)>,
    most: usize,
    token: Option<&'a str>,
}

fn query<'a>(members: &Members<'a>) -> Result<Query<'a>, Refusal> {
    let mut filters = Vec::new();
    for filter in members.objects("Filters", 1, 5)? {
        let filter = Members::of(filter, &["key", "value"])?;
        let (key, value) = (filter.required_text("key", 1, 100)?, filter.required_text("value", 1, 128)?);
        if !["InvokedAfter", "InvokedBefore", "Status", "ExecutionStage", "DocumentName"].contains(&key) {
            return Err(Refusal::new("InvalidFilterKey", format!("{key} is not a filter of this operation")));
        }
        if key.starts_with("Invoked") && value.parse::<jiff::Timestamp>().is_err() {
            return Err(Refusal::validation(format!(
                "{key}: {value} is not a time such as 2021-07-07T00:00:00Z"
            )));
        }
        filters.push((key, value));
    }
    let command = members.text("CommandId", 36, 36)?;
    let instance = members.text("InstanceId", 1, 50)?;
    if command.is_some_and(|id| !is_uuid(id)) {
        return Err(Refusal::new("InvalidCommandId", "not a command id"));
    }
    let most = usize::try_from(members.number("MaxResults", 1, 50)?.unwrap_or(50)).unwrap_or(50);
    Ok(Query { command, instance, filters, most, token: members.text("NextToken", 0, 4096)? })
}

impl Query<'_> {
    /// The commands that the lists show by now, newest first.
    fn commands<'s>(&self, shared: &Shared, all: &'s [Command]) -> Result<Vec<&'s Command>, Refusal> {
        if let Some(id) = self.command
            && !all.iter().any(|command| command.id == id)
        {
            return Err(Refusal::new("InvalidCommandId", format!("{id} does not exist")));
        }
        Ok(all
            .iter()
            .rev()
            .filter(|command| command.sent.elapsed() >= shared.options.list_delay)
            .filter(|command| self.command.is_none_or(|id| id == command.id))
            .filter(|command| self.filters.iter().all(|(key, value)| is_within(command, key, value)))
            .collect())
    }

    fn has_status(&self, status: &str, details: &str) -> bool {
        let same = |wanted: &str| wanted == status || wanted == details.replace(' ', "");
        self.filters.iter().filter(|(key, _)| *key == "Status").all(|(_, wanted)| same(wanted))
    }
}

fn is_within(command: &Command, key: &str, value: &str) -> bool {
    let at = jiff::Timestamp::try_from(command.requested).ok();
    let bound = value.parse::<jiff::Timestamp>().ok();
    match key {
        "InvokedAfter" => at > bound,
        "InvokedBefore" => at < bound,
        "DocumentName" => command.document == value,
        "ExecutionStage" => match value {
            "Executing" => !command.invocations.iter().all(Invocation::is_over),
            _ => command.invocations.iter().all(Invocation::is_over),
        },
        _ => true,
    }
}

pub(super) fn list(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["CommandId", "InstanceId", "MaxResults", "NextToken", "Filters"])?;
    let query = query(&members)?;
    let state = shared.state();
    let on = |command: &Command| {
        query
            .instance
            .is_none_or(|id| command.invocations.iter().any(|one| shared.instance_id(one.host) == id))
    };
    let shown = query
        .commands(shared, &state.commands)?
        .into_iter()
        .filter(|command| on(command))
        .filter(|command| query.has_status(command.status().0, command.status().1))
        .map(|command| command.shown(shared))
        .collect();
    let (commands, next) = page("ListCommands", shown, query.token, query.most)?;
    Ok(with_token(json!({ "Commands": commands }), next))
}

pub(super) fn list_invocations(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members =
        Members::of(body, &["CommandId", "InstanceId", "MaxResults", "NextToken", "Filters", "Details"])?;
    let query = query(&members)?;
    let details = members.flag("Details")?;
    let state = shared.state();
    let mut shown = Vec::new();
    for command in query.commands(shared, &state.commands)? {
        for one in &command.invocations {
            if query.instance.is_none_or(|id| shared.instance_id(one.host) == id)
                && query.has_status(&one.status, &one.details)
            {
                shown.push(command.invocation_shown(shared, one, details));
            }
        }
    }
    let (invocations, next) = page("ListCommandInvocations", shown, query.token, query.most)?;
    Ok(with_token(json!({ "CommandInvocations": invocations }), next))
}

pub(super) fn get_invocation(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["CommandId", "InstanceId", "PluginName"])?;
    let id = members.required_text("CommandId", 36, 36)?;
    let instance = members.required_text("InstanceId", 1, 50)?;
    let plugin = members.text("PluginName", 4, 500)?;
    let none = || Refusal::new("InvocationDoesNotExist", "");
    let state = shared.state();
    let command = state.commands.iter().find(|command| command.id == id);
    let command = command
        .filter(|command| command.sent.elapsed() >= shared.options.invocation_delay)
        .ok_or_else(none)?;
    let one =
        command.invocations.iter().find(|one| shared.instance_id(one.host) == instance).ok_or_else(none)?;
    if plugin.is_some_and(|plugin| plugin != command.plugin) {
        return Err(Refusal::new("InvalidPluginName", "The plugin name isn't valid."));
    }
    let took = one.started.zip(one.ended).and_then(|(from, to)| to.duration_since(from).ok());
    Ok(json!({
        "CommandId": command.id, "InstanceId": instance, "Comment": command.comment,
        "DocumentName": command.document, "DocumentVersion": "$DEFAULT", "PluginName": command.plugin,
        "ResponseCode": one.code, "Status": one.status, "StatusDetails": one.details,
        "ExecutionStartDateTime": one.started.map(iso).unwrap_or_default(),
        "ExecutionEndDateTime": one.ended.map(iso).unwrap_or_default(),
        "ExecutionElapsedTime": took.map(|took| format!("PT{:.3}S", took.as_secs_f64())).unwrap_or_default(),
        "StandardOutputContent": output::stdout(&one.stdout), "StandardOutputUrl": "",
        "StandardErrorContent": output::stderr(&one.stderr), "StandardErrorUrl": "",
    }))
}
