//! Why not: for every gate and every refusal one line that says what stopped it, until when, and what to do.

use crate::gate::Reason;
use crate::lifecycle::{Refused, Remediation};
use crate::plan::{Target, Unusable};
use crate::text::clip;
use crate::time::{say_duration, short_duration};

use super::line::Line;
use super::{Context, Said};

/// Characters of an error text or a summary within a line.
const CLIP: usize = 400;

/// The line in the alert's thread when a rule matched and nothing runs.
pub fn why_not(reason: &Reason, rule_key: &str, context: &Context) -> Said {
    let line = Line::new().ours(":double_vertical_bar: ").code(rule_key).ours(" does not run: ");
    let line = because(line, reason, rule_key, context);
    super::answer::said(vec![hint(line.ours("."), reason, rule_key)])
}

/// The same in the alert's thread, where a rule's owner reads it: what is not tried any more is theirs.
pub fn why_not_here(reason: &Reason, rule_key: &str, owner: Option<&str>, context: &Context) -> Said {
    let (Reason::TooManyAttempts { .. }, Some(owner)) = (reason, owner) else {
        return why_not(reason, rule_key, context);
    };
    let line = Line::new().ours(":double_vertical_bar: ").code(rule_key).ours(" does not run: ");
    let line = hint(because(line, reason, rule_key, context).ours("."), reason, rule_key);
    super::answer::said(vec![context.mention(line.ours(" "), owner).ours(": this needs a person.")])
}

/// The line when the alert was over before anything was declared.
pub fn resolved_itself(rule_key: &str) -> Said {
    let line = Line::new().ours(":heavy_minus_sign: ").code(rule_key);
    super::answer::said(vec![line.ours(" does not run: the alert resolved by itself before.")])
}

/// The reason as the end of a sentence, without its full stop.
pub(super) fn because(line: Line, reason: &Reason, rule_key: &str, context: &Context) -> Line {
    let now = context.now;
    match reason {
        Reason::Paused { pause } => {
            let mut line = line.ours("paused by ").user(&pause.by);
            if let Some(until) = pause.until {
                line = line.ours(" until ").time(until, now);
            }
            if pause.pattern != rule_key {
                line = line.ours(" (pause of ").code(&pause.pattern).ours(")");
            }
            match &pause.reason {
                Some(reason) => line.ours(": ").plain(&clip(reason, CLIP)),
                None => line,
            }
        }
        Reason::Stale { age, max_age } => {
            line.said(format_args!("alert {} old, older than {}", say_duration(*age), say_duration(*max_age)))
        }
        Reason::Unusable { unusable } => self::unusable(line, unusable),
        Reason::UnderWay { other } => line
            .ours("the same rule is at work on this instance already (remediation ")
            .code(&other.0)
            .ours(")"),
        Reason::CoolingDown { until } => line
            .said(format_args!("in cooldown for {}", more(whole_minutes(now.until(*until)))))
            .ours(" (until ")
            .time(*until, now)
            .ours(")"),
        Reason::TooManyAttempts { used, count, window, free_at } => line
            .said(format_args!("{used} of {count} attempts in the last {}", last(*window)))
            .ours("; next at ")
            .time(*free_at, now),
        Reason::InstanceTaken { other, key } => {
            line.ours("the instance is under remediation by ").code(key).ours(" (").code(&other.0).ours(")")
        }
        Reason::RoleFull { running, at_once } => line.said(format_args!(
            "{running} of the role's instances {} under remediation, and {at_once} at once may be",
            if *running == 1 { "is" } else { "are" }
        )),
        Reason::Throttled { until } => line.ours("SSM is throttling; next try at ").time(*until, now),
        Reason::Deaf => line.ours(
            "heal may have missed something in Slack (its connection was lost) and has not read it yet",
        ),
        Reason::HeldBy { user } => line.user(user).ours(" pressed Hold"),
        Reason::Undeclared { why } => {
            line.ours("the declaration could not be posted: ").plain(&clip(why, CLIP))
        }
        Reason::RuleChanged => line.ours("the rule was changed or removed after the declaration"),
    }
}

/// "the last hour", "the last 7 days".
fn last(window: std::time::Duration) -> String {
    let said = say_duration(window);
    match said.strip_prefix("1 ") {
        Some(unit) if !unit.contains(' ') => unit.to_owned(),
        _ => said,
    }
}

/// "12 more minutes", "1 hour 5 minutes more".
fn more(left: std::time::Duration) -> String {
    let said = say_duration(left);
    match said.split_once(' ') {
        Some((count, unit)) if !unit.contains(' ') => format!("{count} more {unit}"),
        _ => format!("{said} more"),
    }
}

/// Waits of minutes are said in minutes: nobody plans by the second.
fn whole_minutes(left: std::time::Duration) -> std::time::Duration {
    let seconds = left.as_secs();
    if seconds > 120 { std::time::Duration::from_secs(seconds.div_ceil(60) * 60) } else { left }
}

fn target(line: Line, target: &Target) -> Line {
    if target.name == target.instance_id {
        line.code(&target.name)
    } else {
        line.code(&target.name).ours(" (").code(&target.instance_id).ours(")")
    }
}

fn unusable(line: Line, unusable: &Unusable) -> Line {
    match unusable {
        Unusable::NotNamed => line.ours("the alert names no host"),
        Unusable::NotFound { host } => line.ours("SSM knows no managed node ").code(host),
        Unusable::Several { host, instance_ids } => {
            let mut line = line
                .said(format_args!("{} managed nodes are called ", instance_ids.len()))
                .code(host)
                .ours(": ");
            for (i, id) in instance_ids.iter().take(5).enumerate() {
                line = if i > 0 { line.ours(", ").code(id) } else { line.code(id) };
            }
            if instance_ids.len() > 5 {
                line = line.said(format_args!(" and {} more", instance_ids.len() - 5));
            }
            line
        }
        Unusable::Offline { target: node, ping } => {
            target(line, node).ours(" is not online in SSM (").plain(&clip(ping, 60)).ours(")")
        }
        Unusable::WrongRole { target: node, tag, role } => target(line, node)
            .ours(" is not of the alert's role: its tag ")
            .code(tag)
            .ours(" is not ")
            .code(role),
        Unusable::Platform { target: node } => {
            target(line, node).ours(" cannot run shell commands (it is not a Linux or macOS node)")
        }
        Unusable::Disagree { host, host_is, instance_id } => line
            .ours("the alert names two nodes: the host ")
            .code(host)
            .ours(" is ")
            .code(host_is)
            .ours(", the instance id is ")
            .code(instance_id),
        Unusable::LookupFailed { why } => {
            line.ours("SSM could not be asked for the instance: ").plain(&clip(why, CLIP))
        }
        Unusable::Unfit { why } => {
            line.ours("what would run cannot be made from this alert: ").plain(&clip(why, CLIP))
        }
    }
}

/// What to do about it, as a sentence of its own.
pub(super) fn hint(line: Line, reason: &Reason, rule_key: &str) -> Line {
    match reason {
        Reason::Paused { pause } => line
            .ours(" To end the pause: ")
            .code(&format!("/heal resume {}", pause.pattern))
            .ours(", then the next alert runs."),
        Reason::Stale { .. } => line
            .ours(" It may tell of an outage that is over; if not: ")
            .code(&format!("/heal run {rule_key} HOST"))
            .ours("."),
        Reason::CoolingDown { .. } => line
            .ours(" It came back soon after a run: look for the cause, or ")
            .code(&format!("/heal run {rule_key} HOST"))
            .ours("."),
        Reason::TooManyAttempts { .. } => line
            .ours(" The cure does not last: this needs a person. ")
            .code(&format!("/heal history {rule_key}"))
            .ours(" shows the runs."),
        Reason::UnderWay { .. } => line.ours(" Its declaration shows how it stands."),
        Reason::InstanceTaken { .. } | Reason::RoleFull { .. } | Reason::Throttled { .. } => {
            line.ours(" A later alert starts afresh.")
        }
        Reason::Deaf => line.ours(" It may be over or held by now. A later alert starts afresh."),
        Reason::HeldBy { .. } => line
            .ours(" A later alert starts afresh; to run it now: ")
            .code(&format!("/heal run {rule_key} HOST"))
            .ours("."),
        Reason::Undeclared { .. } => line.ours(" Invite heal to the channel, and see `heal doctor`."),
        Reason::RuleChanged => line.ours(" A new declaration is made where a rule still matches."),
        Reason::Unusable { unusable } => match unusable {
            Unusable::NotNamed => {
                line.ours(" Add a label for the host to the alert, or name it in the sender's `instance`.")
            }
            Unusable::NotFound { .. } => {
                line.ours(" Is the SSM agent installed there, in this account and region?")
            }
            Unusable::Several { .. } => line.ours(" An instance id in the alert would say which one."),
            Unusable::Offline { .. } => line.ours(" The host may be down: look at it, and at its SSM agent."),
            Unusable::WrongRole { .. } => line.ours(" Check the tag and the alert's role."),
            Unusable::Disagree { .. } => line.ours(" Mend the alert's labels; nothing is guessed."),
            Unusable::Platform { .. } => line.ours(" Use a rule with `document` for such nodes."),
            Unusable::LookupFailed { .. } => line.ours(" See `heal doctor`; a later alert starts afresh."),
            Unusable::Unfit { .. } => line.ours(" `heal check` and the alert's labels say more."),
        },
    }
}

/// The private answer to somebody whose press changed nothing.
pub fn refused(refused: &Refused, this: &Remediation) -> String {
    let line = Line::new();
    match refused {
        Refused::Over { outcome: Some(outcome) } => {
            line.said(format_args!("This is over already: {}. Your press changed nothing.", outcome.as_str()))
        }
        Refused::Over { outcome: None } => {
            line.ours("This was only declared (stage observe) and is over. Your press changed nothing.")
        }
        Refused::NotWaiting { state } => {
            line.said(format_args!("{} Your press changed nothing.", standing(state)))
        }
        Refused::ApprovedAlready => {
            let left = (this.policy.approvals as usize).saturating_sub(this.approvals.len());
            line.said(format_args!(
                "You approved this already ({} of {}). It needs {left} more, from {}.",
                this.approvals.len(),
                this.policy.approvals,
                if left == 1 { "somebody else" } else { "other people" }
            ))
        }
        Refused::OwnRequest => line.ours("You asked for this run, so somebody else must approve it."),
        Refused::TooLate => line.said(format_args!(
            "The time to approve is over ({}); a later alert starts afresh.",
            short_duration(this.policy.approve_within)
        )),
        Refused::Nothing => line.ours("There is nothing to do here any more."),
    }
    .done()
}

fn standing(state: &str) -> &'static str {
    match state {
        "resolving" => "The instance is still being looked up.",
        "declaring" => "The declaration is only being posted; press again in a moment.",
        "awaiting_approval" => "This waits for Approve or Reject.",
        "counting" => "This runs by itself after its grace; press Hold to stop it.",
        "waiting" => "This is allowed already and waits for its turn; press Hold to stop it.",
        "sending" | "running" => "The command is with SSM already and is not stopped any more.",
        "settling" => "The run is over; it waits for the alert to resolve.",
        _ => "This does not wait for that any more.",
    }
}

/// The private answer to somebody who may not. `what` is a verb: `approve`, `pause`, `run this`.
pub fn not_an_approver(what: &str, approvers: &[String], context: &Context) -> String {
    let line = Line::new().ours("You may not ").plain(what).ours(". ");
    if approvers.is_empty() {
        return line.ours("Nobody may yet: add `approvers` to heal.yaml.").done();
    }
    context.names(line, approvers, " and ").ours(" may.").done()
}
