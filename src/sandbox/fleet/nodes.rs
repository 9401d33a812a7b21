//! What SSM says about nodes and documents: DescribeInstanceInformation, ListTagsForResource,
//! DescribeDocument.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::members::{Members, Refusal, is_instance_id, page};
use super::spec::{Content, HostSpec};
use super::{Shared, seconds};

const KEYS: &[&str] = &[
    "InstanceIds",
    "AgentVersion",
    "PingStatus",
    "PlatformTypes",
    "ActivationIds",
    "IamRole",
    "ResourceType",
    "AssociationStatus",
    "SourceIds",
    "SourceTypes",
    "tag-key",
];

pub(super) fn describe(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members =
        Members::of(body, &["InstanceInformationFilterList", "Filters", "MaxResults", "NextToken"])?;
    let most = members.number("MaxResults", 5, 50)?.unwrap_or(50);
    let mut filters = Vec::new();
    for filter in members.objects("Filters", 0, 50)? {
        let filter = Members::of(filter, &["Key", "Values"])?;
        filters.push((filter.required_text("Key", 1, 1000)?, filter.texts("Values", 1, 100)?));
    }
    for filter in members.objects("InstanceInformationFilterList", 0, 50)? {
        let filter = Members::of(filter, &["key", "valueSet"])?;
        filters.push((filter.required_text("key", 1, 100)?, filter.texts("valueSet", 1, 100)?));
    }
    for (key, values) in &filters {
        if !KEYS.contains(key) && !key.starts_with("tag:") {
            return Err(Refusal::new("InvalidFilterKey", format!("{key} is not a filter of this operation")));
        }
        if *key == "InstanceIds"
            && let Some(wrong) = values.iter().find(|id| !is_instance_id(id))
        {
            return Err(Refusal::new("InvalidInstanceId", format!("{wrong} is not an instance id")));
        }
        if *key == "PingStatus"
            && values.iter().any(|value| !["Online", "ConnectionLost", "Inactive"].contains(value))
        {
            return Err(Refusal::new("InvalidInstanceInformationFilterValue", "PingStatus"));
        }
    }
    // "You can't use tag filters together with other filters" (SSM API model, the operation's Filters).
    let tags = filters.iter().filter(|(key, _)| key.starts_with("tag")).count();
    if tags > 0 && tags < filters.len() {
        return Err(Refusal::new("InvalidFilterKey", "a tag filter cannot be combined with other filters"));
    }
    let online = shared.online();
    let nodes = shared
        .hosts
        .iter()
        .zip(&online)
        .filter(|(host, online)| filters.iter().all(|(key, values)| holds(&host.spec, **online, key, values)))
        .map(|(host, online)| information(&host.spec, *online))
        .collect();
    let token = members.text("NextToken", 1, 4096)?;
    let (nodes, next) =
        page("DescribeInstanceInformation", nodes, token, usize::try_from(most).unwrap_or(50))?;
    Ok(with_token(json!({ "InstanceInformationList": nodes }), next))
}

fn ping(online: bool) -> &'static str {
    if online { "Online" } else { "ConnectionLost" }
}

fn holds(spec: &HostSpec, online: bool, key: &str, values: &[&str]) -> bool {
    let is = |value: &str| values.contains(&value);
    match key {
        "InstanceIds" => is(&spec.instance_id),
        "PingStatus" => is(ping(online)),
        "AgentVersion" => is(&spec.agent_version),
        "PlatformTypes" => is("Linux"),
        "ResourceType" => is(resource_type(spec)),
        "tag-key" => spec.tags.iter().any(|(tag, _)| is(tag)),
        _ => key
            .strip_prefix("tag:")
            .is_some_and(|wanted| spec.tags.iter().any(|(tag, value)| tag == wanted && is(value))),
    }
}

fn resource_type(spec: &HostSpec) -> &'static str {
    if spec.instance_id.starts_with("mi-") { "ManagedInstance" } else { "EC2Instance" }
}

fn information(spec: &HostSpec, online: bool) -> Value {
    json!({
        "InstanceId": spec.instance_id,
        "PingStatus": ping(online),
        "LastPingDateTime": seconds(std::time::SystemTime::now()),
        "AgentVersion": spec.agent_version,
        "IsLatestVersion": true,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ResourceType": resource_type(spec),
        "IPAddress": spec.address,
        "ComputerName": spec.computer_name,
    })
}

pub(super) fn with_token(mut body: Value, next: Option<String>) -> Value {
    if let (Some(next), Some(map)) = (next, body.as_object_mut()) {
        map.insert("NextToken".to_owned(), Value::String(next));
    }
    body
}

pub(super) fn list_tags(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["ResourceType", "ResourceId"])?;
    let kind = members.required_text("ResourceType", 1, 100)?;
    let id = members.required_text("ResourceId", 1, 1000)?;
    if kind != "ManagedInstance" && kind != "Document" {
        return Err(Refusal::new("InvalidResourceType", format!("{kind} is not emulated")));
    }
    let invalid = || Refusal::new("InvalidResourceId", "The resource ID isn't valid.");
    if kind == "Document" {
        return shared.document(id).map(|_| json!({ "TagList": [] })).ok_or_else(invalid);
    }
    // Tags of EC2 instances are EC2's; SSM lists those of hybrid nodes (mi-…) alone.
    let host = shared.hosts.iter().find(|host| host.spec.instance_id == id && id.starts_with("mi-"));
    let tags: Vec<Value> = host
        .ok_or_else(invalid)?
        .spec
        .tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({ "TagList": tags }))
}

pub(super) fn describe_document(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["Name", "DocumentVersion", "VersionName"])?;
    let name = members.required_text("Name", 3, 128)?;
    let own = |name: &str, kind: &str, about: &str, parameters: Vec<Value>| {
        json!({"Document": {
            "Name": name, "DocumentType": kind, "Description": about, "DocumentVersion": "1",
            "LatestVersion": "1", "DefaultVersion": "1", "Status": "Active", "DocumentFormat": "YAML",
            "SchemaVersion": if kind == "Automation" { "0.3" } else { "2.2" },
            "Owner": "111122223333", "PlatformTypes": ["Linux"], "Parameters": parameters,
        }})
    };
    if name == super::commands::RUN_SHELL_SCRIPT {
        let parameter = |name: &str, kind: &str, default: Option<&str>| {
            let mut map =
                Map::from_iter([("Name".to_owned(), json!(name)), ("Type".to_owned(), json!(kind))]);
            if let Some(default) = default {
                map.insert("DefaultValue".to_owned(), json!(default));
            }
            Value::Object(map)
        };
        return Ok(own(
            name,
            "Command",
            "Run a shell script or specify the commands to run.",
            vec![
                parameter("commands", "StringList", None),
                parameter("workingDirectory", "String", Some("")),
                parameter("executionTimeout", "String", Some("3600")),
            ],
        ));
    }
    let document = shared.document(name);
    let document =
        document.ok_or_else(|| Refusal::new("InvalidDocument", format!("Document {name} does not exist")))?;
    let parameters = document.parameters.iter().map(|parameter| {
        let mut shown = json!({"Name": parameter.name, "Type": "String", "Description": parameter.about});
        if let (Some(default), Some(map)) = (&parameter.default, shown.as_object_mut()) {
            map.insert("DefaultValue".to_owned(), json!(default));
        }
        shown
    });
    let kind = match document.content {
        Content::Command { .. } => "Command",
        Content::Automation { .. } => "Automation",
    };
    Ok(own(name, kind, &document.about, parameters.collect()))
}
