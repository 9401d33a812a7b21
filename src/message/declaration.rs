//! The declaration: what will be done, exactly, and how it stands; one message updated in place.

use slack_morphism::prelude::{SlackActionBlockElement, SlackBlock};

use crate::gate::Reason;
use crate::lifecycle::{Ending, Outcome, Remediation, State, StepRan, Trigger};
use crate::rule::Stage;
use crate::text::clip;
use crate::time::{say_duration, short_duration};

use super::kit::{self, Look};
use super::line::Line;
use super::{Context, Said, plan, reaction, report, why};

/// The declaration in the state the remediation is in.
///
/// While it is on its way to Slack it reads as it will once it stands there: Slack shows it before heal
/// knows that Slack took it, and a message that needs no second look is not updated.
pub fn declaration(this: &Remediation, context: &Context) -> Said {
    let posted = posted(this, context);
    let this = posted.as_ref().unwrap_or(this);
    let head = head(this);
    let next = next(this, context);
    let mark = Line::new().ours(":").ours(reaction::reaction(this)).ours(": ");
    let text = mark.clone().then(head.clone()).ours(" · ").then(next.clone()).done();
    let mut blocks = vec![kit::section(mark.then(head)), kit::context(about(this))];
    if let Some(line) = purpose(this) {
        blocks.push(kit::section(line));
    }
    blocks.extend(this.plan.as_ref().and_then(plan::block));
    blocks.push(kit::section(next));
    if let State::Running { steps, .. } = &this.state {
        blocks.extend(seen(steps));
    }
    if let Some(line) = people(this, context) {
        blocks.push(kit::context(line));
    }
    blocks.extend(kit::actions(buttons(this)));
    Said { text, blocks: kit::fit(blocks) }
}

fn posted(this: &Remediation, context: &Context) -> Option<Remediation> {
    let State::Declaring { .. } = this.state else { return None };
    let mut shown = this.clone();
    let approved = this.approvals.len() >= this.policy.approvals as usize;
    let again = matches!(this.trigger, Trigger::Again { .. });
    shown.state = match this.policy.stage {
        Stage::Observe => State::Observed { at: context.now },
        Stage::Auto if !again && !this.policy.grace.is_zero() => {
            State::Counting { until: context.now.plus(this.policy.grace) }
        }
        Stage::Approve if !(again && approved) => {
            State::AwaitingApproval { until: context.now.plus(this.policy.approve_within) }
        }
        Stage::Auto | Stage::Approve => return None,
    };
    Some(shown)
}

/// The state in one word, the rule and the instance.
pub(super) fn head(this: &Remediation) -> Line {
    subject(Line::new().bold(word(this)).ours("  "), this)
}

fn word(this: &Remediation) -> &'static str {
    match &this.state {
        State::Resolving { .. } => "looking up the instance",
        State::Declaring { .. } => "declared",
        State::AwaitingApproval { .. } => "waits for Approve",
        State::Counting { .. } => "about to run",
        State::Waiting { .. } => "waits for its turn",
        State::Sending { .. } => "starting",
        State::Running { .. } => "running",
        State::Settling { .. } => "ran well",
        State::Observed { .. } => "declared only",
        State::Ended { outcome, .. } => outcome.as_str(),
    }
}

/// `web:NginxDown` on web-1 (i-0123).
pub(super) fn subject(line: Line, this: &Remediation) -> Line {
    let line = line.code(&this.rule_key.to_string()).ours(" on ");
    match &this.target {
        Some(target) if target.name != target.instance_id => {
            line.code(&target.name).ours(" (").code(&target.instance_id).ours(")")
        }
        Some(target) => line.code(&target.instance_id),
        None => match this.alert.host.as_deref().or(this.alert.instance_id.as_deref()) {
            Some(host) => line.code(host),
            None => line.ours("an unnamed host"),
        },
    }
}

fn about(this: &Remediation) -> Line {
    let mut line = Line::new().ours("stage *").said(this.policy.stage.as_str()).ours("*");
    if let Some(plan) = &this.plan {
        line = line.ours(" · ").said(plan::kind(plan));
    }
    line = match &this.trigger {
        Trigger::Alert => line,
        Trigger::Person { user } => line.ours(" · asked for by ").user(user),
        Trigger::Again { user, of } => line.ours(" · run again by ").user(user).ours(" after ").code(&of.0),
    };
    if let Some(severity) = &this.alert.severity {
        line = line.ours(" · ").plain(&clip(severity, 40));
    }
    if let Some(summary) = &this.alert.summary {
        line = line.ours(" · ").plain(&clip(summary, 300));
    }
    line.ours(" · ").code(&this.id.0)
}

fn purpose(this: &Remediation) -> Option<Line> {
    let policy = &this.policy;
    let mut line = Line::new();
    if let Some(about) = &policy.about {
        line = line.plain(&clip(about, 600));
    }
    if let Some(link) = links(Line::new(), this) {
        line = if line.is_empty() { link } else { line.ours("\n").then(link) };
    }
    (!line.is_empty()).then_some(line)
}

/// Runbook and permanent fix, where the rule names them.
pub(super) fn links(mut line: Line, this: &Remediation) -> Option<Line> {
    let policy = &this.policy;
    if let Some(runbook) = &policy.runbook {
        line = line.ours(":notebook: ").link(runbook, "Runbook");
    }
    if let Some(ticket) = &policy.fix_ticket {
        if !line.is_empty() {
            line = line.ours(" · ");
        }
        line = line.ours("permanent fix: ");
        line = if ticket.starts_with("http") {
            line.link(ticket, "ticket")
        } else {
            line.plain(&clip(ticket, 100))
        };
        if let Some(due) = &policy.fix_due {
            line = line.ours(", due ").plain(due);
        }
    }
    (!line.is_empty()).then_some(line)
}

/// What happens next, or why nothing does.
fn next(this: &Remediation, context: &Context) -> Line {
    let now = context.now;
    let line = Line::new();
    match &this.state {
        State::Resolving { .. } => line.ours("The instance is being looked up among SSM's managed nodes."),
        State::Declaring { .. } => line.ours("Runs as soon as this is posted and its turn has come."),
        State::AwaitingApproval { until } => {
            let line = line.ours("Waits for Approve by ");
            let approvers = context.approvers_of(this);
            let line = if approvers.is_empty() {
                line.ours("an approver")
            } else {
                context.names(line, approvers, " or ")
            };
            let line = line.ours(" until ").time(*until, now);
            let line = match &this.trigger {
                Trigger::Person { user } => line.ours("; not by ").user(user).ours(", who asked for it"),
                _ => line,
            };
            if this.policy.approvals > 1 {
                line.said(format_args!(
                    " ({} of {} different people so far)",
                    this.approvals.len(),
                    this.policy.approvals
                ))
                .ours(". Nothing runs before.")
            } else {
                line.ours(". Nothing runs before.")
            }
        }
        State::Counting { until } => {
            let left = now.until(*until);
            let line = if left.is_zero() {
                line.ours("Runs now")
            } else {
                line.said(format_args!(
                    "Runs in {}",
                    say_duration(std::time::Duration::from_secs(left.as_secs().max(1)))
                ))
            };
            line.ours(" (at ").seconds(*until).ours(") unless somebody presses Hold.")
        }
        State::Waiting { reason, since, .. } => {
            let line =
                why::because(line.ours("Allowed, and waits: "), reason, &this.rule_key.to_string(), context);
            line.ours(". Waiting since ").time(*since, now).ours("; press Hold to stop it.")
        }
        State::Sending { .. } if !this.sent_again.is_empty() => line.ours(
            "SSM's answer was lost, so the command is sent once more as the same run; the host runs one copy of it.",
        ),
        State::Sending { .. } => line.ours("The command is on its way to SSM."),
        State::Running { .. } if this.command_id.is_none() => {
            line.ours("SSM's answer was lost; the host is asked what became of the run.")
        }
        State::Running { asking, .. } => {
            // SSM has it; whether the host began is not known before it answers.
            let line = line.ours("With SSM");
            let line = match this.sent_at {
                Some(at) => line.ours(" since ").time(at, now),
                None => line,
            };
            let line = match &this.command_id {
                Some(id) => line.ours(" as ").code(id),
                None => line,
            };
            if *asking {
                line.ours("; it has no answer in time, so the host itself is asked.")
            } else {
                line.ours("; waits for the answer.")
            }
        }
        State::Settling { until } => {
            line.ours("Ran well; waits for the alert to resolve until ").time(*until, now).ours(".")
        }
        State::Observed { .. } => line.ours("Stage observe: declared only, nothing runs."),
        State::Ended { outcome, why, at } => {
            ending(line, this, *outcome, why, context).ours(" Ended at ").time(*at, now).ours(".")
        }
    }
}

/// Why it ended as it did, as full sentences.
pub(super) fn ending(
    line: Line,
    this: &Remediation,
    outcome: Outcome,
    why: &Ending,
    context: &Context,
) -> Line {
    let key = this.rule_key.to_string();
    match why {
        Ending::Gate { reason } => {
            let line = match reason {
                Reason::HeldBy { user } => return line.user(user).ours(" pressed Hold; nothing ran."),
                _ => line.ours("Held, nothing ran: "),
            };
            why::hint(why::because(line, reason, &key, context).ours("."), reason, &key)
        }
        Ending::RejectedBy { user } => line.user(user).ours(" pressed Reject; nothing ran."),
        Ending::NotApproved { needed: 1, within, .. } => line.said(format_args!(
            "Nobody pressed Approve within {}; nothing ran. A later alert starts afresh.",
            say_duration(*within)
        )),
        Ending::NotApproved { approvals, needed, within } => line.said(format_args!(
            "{approvals} of {needed} approvals within {}; nothing ran. A later alert starts afresh.",
            say_duration(*within)
        )),
        Ending::ResolvedItself => line.ours("The alert resolved by itself before anything was sent; nothing ran."),
        Ending::RuleChanged => {
            line.ours("The rule was changed after this declaration, which is withdrawn; nothing ran. A new declaration is made where a rule still matches.")
        }
        Ending::Run => match &this.ran {
            Some(ran) => report::sentence(line, ran),
            None => line.said(format_args!("The run ended: {}.", outcome.as_str())),
        },
        Ending::Resolved => line.ours("It ran well, and the alert resolved."),
        Ending::DidNotResolve { within } => line.said(format_args!(
            "It ran well, but the alert did not resolve within {}.",
            say_duration(*within)
        )),
        Ending::RunAlone => line.ours("It ran well; no resolved message comes for it, so the run decides."),
        Ending::SendRefused { why } => {
            line.ours("SSM refused the command; nothing ran: ").plain(&clip(why, 400)).ours(".")
        }
        Ending::SendUnclear { why } => line
            .ours("Whether SSM took the command could not be found out, so it may have run: ")
            .plain(&clip(why, 400))
            .ours(". Look at the host before you press Run again."),
        Ending::NoAnswer { within } => line.said(format_args!(
            "No answer within {}; it may have run, or run still. Look at the host before you press Run again.",
            say_duration(*within)
        )),
    }
}

/// Steps as they go.
fn seen(steps: &[StepRan]) -> Option<SlackBlock> {
    let mut line = Line::new();
    for (i, step) in steps.iter().take(report::STEPS).enumerate() {
        if i > 0 {
            line = line.ours("\n");
        }
        line = report::step(line, step);
    }
    if steps.len() > report::STEPS {
        line = line.said(format_args!(" … and {} more steps", steps.len() - report::STEPS));
    }
    (!line.is_empty()).then(|| kit::section(line))
}

/// Who approved.
pub(super) fn people(this: &Remediation, context: &Context) -> Option<Line> {
    let mut line = Line::new().ours("approved by ");
    for (i, approval) in this.approvals.iter().take(10).enumerate() {
        if i > 0 {
            line = line.ours(", ");
        }
        line = line.user(&approval.user).ours(" at ").time(approval.at, context.now);
    }
    if this.policy.approvals > 1 {
        line = line.said(format_args!(" ({} of {})", this.approvals.len(), this.policy.approvals));
    }
    (!this.approvals.is_empty()).then_some(line)
}

/// The buttons that do something in this state, and no others.
fn buttons(this: &Remediation) -> Vec<SlackActionBlockElement> {
    let id = this.id.0.as_str();
    let pause = || kit::button(kit::PAUSE, "Pause rule", id, Look::Plain);
    match &this.state {
        State::AwaitingApproval { .. } => vec![
            kit::button(kit::APPROVE, "Approve", id, Look::Primary),
            kit::button(kit::REJECT, "Reject", id, Look::Plain),
            pause(),
        ],
        State::Counting { .. } | State::Waiting { .. } => {
            vec![kit::button(kit::HOLD, "Hold", id, Look::Danger), pause()]
        }
        State::Sending { .. } | State::Running { .. } | State::Settling { .. } => vec![pause()],
        State::Resolving { .. } | State::Declaring { .. } | State::Observed { .. } => Vec::new(),
        State::Ended { outcome, .. } => after(this, *outcome),
    }
}

/// Run again and Pause rule, where the outcome leaves something to do.
pub(super) fn after(this: &Remediation, outcome: Outcome) -> Vec<SlackActionBlockElement> {
    let failed =
        matches!(outcome, Outcome::Failed | Outcome::TimedOut | Outcome::Unresolved | Outcome::Unknown);
    if !failed {
        return Vec::new();
    }
    let id = this.id.0.as_str();
    let host = this.target.as_ref().map_or("the instance", |target| target.name.as_str());
    let caution = if outcome == Outcome::Unknown {
        "It may have run, or run still. Look at the host first."
    } else {
        "Its commands run once more."
    };
    let title = format!("Run {} again?", clip(&this.rule_key.to_string(), 80));
    let text = format!(
        "{caution} On {}, timeout {}.",
        clip(host, 120),
        this.plan.as_ref().map_or_else(|| "as the rule says".to_owned(), |plan| short_duration(plan.timeout))
    );
    vec![
        kit::asking(kit::button(kit::AGAIN, "Run again", id, Look::Plain), &title, &text, "Run again"),
        kit::button(kit::PAUSE, "Pause rule", id, Look::Plain),
    ]
}
