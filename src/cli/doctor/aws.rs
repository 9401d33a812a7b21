//! AWS: the region, the credentials, each call that heal makes, and the tag that says a node's role.

use std::io::{Result, Write};

use super::Report;
use crate::aws::{self, Ssm};
use crate::config::Config;
use crate::rule::{Action, RuleSet};

/// Roles asked for one by one; SSM allows few such calls a second.
const ROLES: usize = 20;
/// What only rules with an `automation` need.
const FOR_AUTOMATION: &[&str] =
    &["ssm:StartAutomationExecution", "ssm:GetAutomationExecution", "ssm:DescribeAutomationStepExecutions"];

pub(super) async fn examine(config: &Config, rules: &RuleSet, report: &mut Report<impl Write>) -> Result<()> {
    let ssm = match Ssm::connect(config.aws.region.as_deref()).await {
        Ok(ssm) => ssm,
        Err(error) => return report.fail(&format!("{error:#}"), None),
    };
    let automations = rules.iter().any(|rule| matches!(rule.action, Action::Automation { .. }));
    let findings = aws::check(&ssm).await;
    let reached = findings.len() > 1;
    for finding in findings {
        let text = format!("{}: {}", finding.what, finding.says);
        if finding.well {
            report.ok(&text)?;
        } else if !automations && FOR_AUTOMATION.contains(&finding.what) {
            report.warn(&text, Some("no rule has an automation, so it is not needed yet"))?;
        } else {
            report.fail(&text, None)?;
        }
    }
    match &config.aws.role_tag {
        Some(tag) if reached => roles(&ssm, tag, rules, report).await,
        _ => Ok(()),
    }
}

/// Where nodes carry a role, an alert of a role that none has can never be healed.
async fn roles(ssm: &Ssm, tag: &str, rules: &RuleSet, report: &mut Report<impl Write>) -> Result<()> {
    let mut found = Vec::new();
    for role in rules.roles().take(ROLES) {
        match aws::nodes_tagged(ssm, tag, role).await {
            Ok(0) => report.warn(
                &format!("no managed node has the tag {tag}={role}, so no rule of {role} can run"),
                Some("tag the nodes, or correct aws.role_tag or the rules' role"),
            )?,
            Ok(nodes) => found.push(format!("{role} {nodes}")),
            Err(why) => return report.fail(&format!("the tag {tag} cannot be asked for: {why}"), None),
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        report.ok(&format!("managed nodes by the tag {tag}: {}", found.join(", ")))
    }
}
