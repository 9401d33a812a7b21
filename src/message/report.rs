//! The report: what came of it; one reply in the thread, and the whole output as a file where it is long.

use slack_morphism::prelude::SlackBlock;

use crate::lifecycle::{Final, Outcome, Ran, Remediation, State, StepRan, Trigger};
use crate::plan::StepKind;
use crate::text::{clip, invisible};
use crate::time::say_duration;

use super::line::Line;
use super::{Context, Said, declaration, kit, reaction};

/// Steps that are listed one by one; more are counted.
pub(super) const STEPS: usize = 20;
/// Characters of output within the message; all of it is in the file.
const OUTPUT: usize = 2_400;

/// A text file for the thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub title: String,
    pub content: String,
}

/// The report as it stands: first while the alert has yet to resolve, then with the outcome.
pub fn report(this: &Remediation, context: &Context) -> Said {
    let now = context.now;
    let head = declaration::subject(Line::new().bold(word(this)).ours("  "), this);
    let mark = Line::new().ours(":").ours(reaction::reaction(this)).ours(": ");
    let mut why = match &this.state {
        State::Settling { until } => {
            Line::new().ours("It ran well; waits for the alert to resolve until ").time(*until, now).ours(".")
        }
        State::Ended { outcome, why, .. } => declaration::ending(Line::new(), this, *outcome, why, context),
        _ => Line::new().ours("Not over yet."),
    };
    if let Some(outcome) = not_healed(this) {
        why = advice(why, this, outcome, context);
    }
    let text = mark.clone().then(head.clone()).ours(" · ").then(why.clone()).done();

    let mut blocks =
        vec![kit::section(mark.then(head)), kit::section(why), kit::context(facts(this, context))];
    if let Some(ran) = &this.ran {
        blocks.extend(steps(ran));
        blocks.extend(output(ran));
    }
    if not_healed(this).is_some()
        && let Some(line) = declaration::links(Line::new(), this)
    {
        blocks.push(kit::section(line));
    }
    if let Some(outcome) = this.outcome() {
        blocks.extend(kit::actions(declaration::after(this, outcome)));
    }
    Said { text, blocks: kit::fit(blocks) }
}

fn word(this: &Remediation) -> &'static str {
    match &this.state {
        State::Ended { outcome, .. } => outcome.as_str(),
        State::Settling { .. } => "ran well",
        _ => "running",
    }
}

/// The outcomes that leave the alert to a person.
fn not_healed(this: &Remediation) -> Option<Outcome> {
    this.outcome().filter(|outcome| {
        matches!(outcome, Outcome::Failed | Outcome::TimedOut | Outcome::Unresolved | Outcome::Unknown)
    })
}

/// Whose it is now, and what to do.
fn advice(line: Line, this: &Remediation, outcome: Outcome, context: &Context) -> Line {
    let line = match &this.policy.owner {
        Some(owner) => context.mention(line.ours("\n"), owner).ours(": "),
        None => line.ours("\n"),
    };
    match outcome {
        Outcome::Unknown => {
            line.ours("heal will not run it again by itself; decide with Run again, or leave it.")
        }
        _ if this.ran.as_ref().is_none_or(|ran| !ran.commands_ran()) => {
            line.ours("nothing ran, so the fault is still there. Mend what SSM says, then Run again.")
        }
        Outcome::TimedOut => {
            line.ours("the fault may still be there. See what the last step was waiting for.")
        }
        Outcome::Unresolved => {
            line.ours("the commands did what they should and the alert still stands. This needs a person.")
        }
        _ if this.ran.as_ref().is_some_and(|ran| failed_at(ran, StepKind::Verify)) => {
            line.ours("the commands ran and verify still finds the fault. This needs a person.")
        }
        _ => line.ours("the fault is still there. See the output, then Run again or mend it by hand."),
    }
}

fn failed_at(ran: &Ran, kind: StepKind) -> bool {
    ran.steps.iter().any(|step| step.kind == Some(kind) && step.exit.is_some_and(|exit| exit != 0))
}

/// Duration, and who wanted it.
fn facts(this: &Remediation, context: &Context) -> Line {
    let mut line = match &this.ran {
        Some(ran) => {
            Line::new().said(format_args!("Took {}", say_duration(ran.ended_at.since(ran.started_at))))
        }
        None if matches!(this.outcome(), Some(Outcome::Unknown)) => {
            Line::new().ours("No answer from the host")
        }
        None => Line::new().ours("Nothing ran"),
    };
    line = match (&this.trigger, declaration::people(this, context)) {
        (Trigger::Again { user, .. }, _) => line.ours(" · run again by ").user(user),
        (_, Some(people)) => line.ours(" · ").then(people),
        _ => line.ours(" · stage ").said(this.policy.stage.as_str()),
    };
    if let Trigger::Person { user } = &this.trigger {
        line = line.ours(" · asked for by ").user(user);
    }
    if let Some(exit) = this.ran.as_ref().and_then(|ran| ran.exit) {
        line = line.said(format_args!(" · exit code {exit}"));
    }
    if let Some(id) = &this.command_id {
        line = line.ours(" · SSM ").code(id);
    }
    line.ours(" · ").code(&this.id.0)
}

/// SSM's final status in plain words.
pub(super) fn sentence(line: Line, ran: &Ran) -> Line {
    if ran.outcome() == Some(Outcome::NotNeeded) {
        return line.ours("confirm did not find the fault, so nothing else ran.");
    }
    match &ran.ended_as {
        Final::Success => line.ours("It ran well."),
        Final::Failed => failed(line, ran),
        Final::ExecutionTimedOut => line.ours("It ran longer than its timeout and SSM ended it."),
        Final::DeliveryTimedOut => {
            line.ours("SSM did not reach the host in time; it may have run later all the same.")
        }
        Final::TimedOut => line.ours("SSM says it timed out, not whether before or after it began."),
        Final::Undeliverable => line.ours("SSM could not reach the host; nothing ran."),
        Final::Cancelled => line.ours("Somebody cancelled it in SSM; what it had begun may have gone on."),
        Final::Terminated => line.ours("SSM ended it before it began; nothing ran."),
        Final::AccessDenied => line.ours("SSM was not allowed to run it there; nothing ran."),
        Final::InvalidPlatform => line.ours("The document does not fit the host's platform; nothing ran."),
        Final::Late => line.ours("It did not come to the host in time; nothing ran."),
        Final::Unfenced => line.ours("The host could not make sure that it runs once; nothing ran."),
        Final::Interrupted => {
            line.ours("It began on the host and was ended half-way; it may have done half of its work.")
        }
        Final::AtWork => line.ours("Another copy of it was still at work on the host."),
        Final::Other(word) => line.ours("SSM ended it with a status this version does not know: ").code(word),
    }
}

fn failed(line: Line, ran: &Ran) -> Line {
    if ran.exit == Some(crate::plan::ENDED_EARLY) {
        return line.ours("A step ended the shell with exit 0, so the steps after it did not run.");
    }
    let bad = ran.steps.iter().find(|step| step.exit.is_some_and(|exit| exit != 0));
    match (bad, ran.exit) {
        (Some(step), _) => {
            let what = match step.kind {
                Some(StepKind::Confirm) => "confirm",
                Some(StepKind::Verify) => "verify",
                Some(StepKind::Command) => "a command",
                None => "a step",
            };
            let line = line.said(format_args!(
                "It stopped where {what} failed with exit code {}: ",
                step.exit.unwrap_or_default()
            ));
            line.code(&clip(&step.name, 120)).ours(".")
        }
        (None, Some(exit)) => line.said(format_args!("It failed with exit code {exit}.")),
        (None, None) => line.ours("It failed."),
    }
}

/// One step: what it was and how it ended.
pub(super) fn step(line: Line, step: &StepRan) -> Line {
    let line = match (step.exit, step.status.as_deref()) {
        (Some(0), _) | (None, Some("Success")) => line.ours("✓ "),
        // The fault was not found: that is an answer, not a failure.
        (Some(_), _) if step.kind == Some(StepKind::Confirm) => line.ours("– "),
        (Some(_), _) | (None, Some("Failed" | "TimedOut" | "Cancelled")) => line.ours("✗ "),
        _ => line.ours("… "),
    };
    let line = match step.kind {
        Some(StepKind::Confirm) => line.ours("confirm "),
        Some(StepKind::Verify) => line.ours("verify "),
        _ => line,
    };
    let mut line = line.code(&clip(&step.name, 80));
    if let Some(exit) = step.exit {
        line = line.said(format_args!(" exit code {exit}"));
    } else if let Some(status) = &step.status {
        line = line.ours(" ").plain(&clip(status, 40));
    }
    if let Some(millis) = step.millis {
        line = line.said(format_args!(", {}", say_duration(std::time::Duration::from_millis(millis))));
    }
    line
}

fn steps(ran: &Ran) -> Option<SlackBlock> {
    let mut line = Line::new();
    for (i, one) in ran.steps.iter().take(STEPS).enumerate() {
        line = step(if i > 0 { line.ours("\n") } else { line }, one);
    }
    if ran.steps.len() > STEPS {
        line =
            line.ours("\n").said(format_args!("… and {} more steps, in the file", ran.steps.len() - STEPS));
    }
    (!line.is_empty()).then(|| kit::section(line))
}

/// Everything the steps and the run printed, as one text.
fn whole(ran: &Ran) -> String {
    let mut out = String::new();
    let several = ran.steps.iter().filter(|step| !step.output.is_empty()).count() > 1;
    for step in ran.steps.iter().filter(|step| !step.output.is_empty()) {
        if several {
            out.push_str(&format!("$ {}\n", step.name));
        }
        out.push_str(step.output.trim_end());
        out.push('\n');
    }
    if !ran.output.trim().is_empty() && !out.contains(ran.output.trim()) {
        out.push_str(ran.output.trim_end());
        out.push('\n');
    }
    // What a terminal would act on shows nothing here.
    out.chars().filter(|ch| matches!(ch, '\n' | '\t') || !invisible(*ch)).collect()
}

fn output(ran: &Ran) -> Option<SlackBlock> {
    let whole = whole(ran);
    let whole = whole.trim_end();
    let mut label = "output".to_owned();
    let shown = if whole.chars().count() > OUTPUT {
        label = format!(
            "output, the last {OUTPUT} of {} characters (all of it is in the file)",
            whole.chars().count()
        );
        // The end tells how it went.
        let skip = whole.chars().count() - OUTPUT;
        whole.chars().skip(skip).collect()
    } else {
        whole.to_owned()
    };
    if ran.output_cut {
        label.push_str("; SSM kept only the beginning of what was printed");
    }
    if shown.is_empty() {
        return None;
    }
    kit::verbatim(vec![(label, shown)])
}

/// The whole output, where the report shows only its end.
pub fn attachment(this: &Remediation) -> Option<File> {
    let ran = this.ran.as_ref()?;
    let content = whole(ran);
    if content.trim_end().chars().count() <= OUTPUT && ran.steps.len() <= STEPS {
        return None;
    }
    let host = this.target.as_ref().map_or("host", |target| target.name.as_str());
    let plain = |text: &str| -> String {
        text.chars()
            .map(|ch| if ch.is_ascii_alphanumeric() || ch == '-' { ch } else { '-' })
            .take(60)
            .collect()
    };
    Some(File {
        name: format!("{}-{}.txt", plain(host), plain(&this.id.0)),
        title: format!("Output of {} on {}", clip(&this.rule_key.to_string(), 100), clip(host, 100)),
        content,
    })
}
