//! What `heal doctor` asks of AWS: does each call that heal makes get past the permissions.
//!
//! Nothing is changed: the calls that only read are made as they are, those that act are made with
//! arguments that SSM must refuse, which it does after it has checked the permission.

use super::client::Ssm;
use super::fault::Fault;

/// One permission or connection, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was tried, as IAM writes it: `ssm:SendCommand`.
    pub what: &'static str,
    pub well: bool,
    /// What was found, with a hint where it is not well.
    pub says: String,
}

/// A node and a document that cannot be.
const NO_NODE: &str = "i-00000000000000000";
const NO_RUN: &str = "00000000-0000-4000-8000-000000000000";
const NO_DOCUMENT: &str = "heal-doctor-no-such-runbook";

/// Tries every call that heal makes of SSM.
pub async fn check(ssm: &Ssm) -> Vec<Finding> {
    let mut findings = Vec::new();
    match ssm.nodes(None).await {
        Ok(nodes) => {
            let online = nodes.iter().filter(|node| node.online()).count();
            let says = match nodes.len() {
                0 => {
                    "no managed nodes here; hint: is the region right, and does the SSM agent run?".to_owned()
                }
                all => format!("{all} managed nodes, {online} of them Online"),
            };
            findings.push(Finding { what: "ssm:DescribeInstanceInformation", well: !nodes.is_empty(), says });
        }
        Err(fault) => {
            let gone = matches!(fault, Fault::NoCredentials { .. } | Fault::Unreached { .. });
            findings.push(Finding {
                what: "ssm:DescribeInstanceInformation",
                well: false,
                says: fault.why(),
            });
            if gone {
                // Every other call would say the same.
                return findings;
            }
        }
    }
    let reads = &ssm.reads;
    let listed = reads.list_commands().max_results(1).send().await;
    findings.push(finding("ssm:ListCommands", listed.err().map(|error| Fault::of(&error)), &[]));
    let listed = reads.list_command_invocations().max_results(1).send().await;
    findings.push(finding("ssm:ListCommandInvocations", listed.err().map(|error| Fault::of(&error)), &[]));
    let got = reads.get_command_invocation().command_id(NO_RUN).instance_id(NO_NODE).send().await;
    let expected = ["InvocationDoesNotExist", "InvalidCommandId", "InvalidInstanceId"];
    findings.push(finding("ssm:GetCommandInvocation", got.err().map(|error| Fault::of(&error)), &expected));
    let got = reads.get_automation_execution().automation_execution_id(NO_RUN).send().await;
    let expected = ["AutomationExecutionNotFoundException"];
    findings.push(finding("ssm:GetAutomationExecution", got.err().map(|error| Fault::of(&error)), &expected));
    let steps = reads.describe_automation_step_executions().automation_execution_id(NO_RUN).send().await;
    let steps = steps.err().map(|error| Fault::of(&error));
    findings.push(finding("ssm:DescribeAutomationStepExecutions", steps, &expected));
    // A node that does not exist: SSM answers InvalidInstanceId, and nothing can run.
    let sent = ssm.sends.send_command().document_name("AWS-RunShellScript").instance_ids(NO_NODE);
    let sent = sent.parameters("commands", vec!["true".to_owned()]).comment("heal doctor").send().await;
    let expected = ["InvalidInstanceId"];
    findings.push(finding("ssm:SendCommand", sent.err().map(|error| Fault::of(&error)), &expected));
    let started = ssm.sends.start_automation_execution().document_name(NO_DOCUMENT).send().await;
    let expected = ["AutomationDefinitionNotFoundException"];
    findings.push(finding(
        "ssm:StartAutomationExecution",
        started.err().map(|error| Fault::of(&error)),
        &expected,
    ));
    findings
}

/// How many managed nodes carry the tag with this value, as heal asks when it checks an alert's role.
/// The error says why SSM could not be asked.
pub async fn nodes_tagged(ssm: &Ssm, tag: &str, value: &str) -> Result<usize, String> {
    let nodes = ssm.nodes(Some((&format!("tag:{tag}"), value))).await;
    nodes.map(|nodes| nodes.len()).map_err(|fault| fault.why())
}

/// Well where the call went through, or was refused for the very reason it had to be.
fn finding(what: &'static str, fault: Option<Fault>, expected: &[&str]) -> Finding {
    match fault {
        None => Finding { what, well: true, says: "allowed".to_owned() },
        Some(Fault::Refused { why }) if expected.iter().any(|code| why.contains(code)) => {
            Finding { what, well: true, says: "allowed".to_owned() }
        }
        Some(fault) => Finding { what, well: false, says: fault.why() },
    }
}
