//! The script of a shell rule: POSIX sh, for dash, bash and busybox.
//!
//! Every text that is not ours stands in single quotes, and `{{` never stands in the script at all,
//! so neither the shell nor SSM's own interpolation reads anything into it. The steps run in one
//! subshell with their output in files: a step may `exit`, set traps, kill its shell or leave
//! processes behind, and the outer shell still tells what happened and ends. The folder lies in
//! memory where it can, since a full disk is what many a rule is there to cure.
//!
//! Before all that stands the fence (`fence.sh`): the host itself runs one copy of a run at most,
//! whatever SSM and heal send it, and keeps what came of it for whoever asks (`told.sh`).

use std::sync::LazyLock;
use std::time::Duration;

use super::{Fence, Plan, RemediationId, StepKind, Work};

/// Characters of standard output that SSM keeps, from its start (SSM API model:
/// `GetCommandInvocationResult.StandardOutputContent`).
pub const STDOUT_KEPT: usize = 24_000;
/// Exit code of a script that found no place to work in and ran nothing.
pub const UNPREPARED: i32 = 90;
/// Exit code where a step ended the shell with 0 although steps were left.
pub const ENDED_EARLY: i32 = 91;

/// Exit code of a copy that came after its deadline and ran nothing.
pub const LATE: i32 = 92;
/// Exit code of a copy that could not make its fence and ran nothing.
pub const UNFENCED: i32 = 93;
/// Exit code of a second copy, which ran nothing and could not learn what the first did.
pub const UNTOLD: i32 = 94;

/// So long after it was sent a copy of a run may begin on its host; one that comes later runs nothing.
/// What the sending takes (10 s a try), what SSM may take to hand it to the agent (30 s, its least; an
/// agent that is there takes it within a second), and the four minutes by which a host's clock may be
/// ahead of ours: an agent whose clock is five minutes off reaches no AWS service (signatures are
/// refused; AWS General Reference, "Signature Version 4"). With the default timeout SSM gives a
/// delivery up after that (330 s), so that a host's "nothing" is final.
pub const BEGINS_WITHIN: Duration = Duration::from_secs(300);

/// Where the fences stand unless the config says otherwise.
pub const FENCE_DIR: &str = "/var/lib/heal";
/// Bytes of a fence's directory at most.
pub const FENCE_DIR_MAX: usize = 200;

/// Runs whose folders stay on a host.
const KEEP: usize = 200;
/// Seconds by which a second copy stops waiting before SSM would end it.
const WAIT_LESS: u64 = 5;

/// Bytes kept of one step's output at most; three parts of four from its head.
const STEP_MAX: usize = 8000;
/// Bytes of a step's own line and of the lines around its output.
const STEP_LINES: usize = 220;

const HEAD: &str = include_str!("head.sh");
const TOLD: &str = include_str!("told.sh");
const FENCE: &str = include_str!("fence.sh");
const TAIL: &str = include_str!("tail.sh");
const ASK: &str = include_str!("ask.sh");

/// What comes before the steps.
static WHOLE_HEAD: LazyLock<String> =
    LazyLock::new(|| HEAD.replace("@FENCE_SCRIPT@", &format!("{TOLD}{FENCE}")));

impl Plan {
    /// The script of a shell rule, complete; `None` for documents and automations.
    pub fn script(&self, run: &RemediationId, fence: &Fence) -> Option<String> {
        let Work::Shell { steps, env } = &self.work else { return None };
        let count = steps.len().max(1);
        let each = (STDOUT_KEPT - 500).saturating_sub(count * STEP_LINES) / count;
        let kept = each.min(STEP_MAX);
        let (head, tail) = (kept - kept / 4, kept / 4);
        let numbers: Vec<String> = (1..=steps.len()).map(|number| number.to_string()).collect();
        let wait = self.timeout.as_secs().saturating_sub(WAIT_LESS).clamp(1, 172_800) * 1000;
        let (wait, deadline) = (wait.to_string(), fence.deadline.to_string());
        let (head, tail, kept) = (head.to_string(), tail.to_string(), kept.to_string());
        let (keep, count) = (KEEP.to_string(), steps.len().to_string());
        let (listed, run, dir) = (numbers.join(" "), word(&run.0), quote(&fence.dir));
        let value = |name: &str| {
            let text: &str = match name {
                "WAIT" => &wait,
                "DEADLINE" => &deadline,
                "KEEP" => &keep,
                "HEAD" => &head,
                "TAIL" => &tail,
                "BOTH" => &kept,
                "COUNT" => &count,
                "NUMBERS" => &listed,
                "RUN" => &run,
                "FENCE" => &dir,
                _ => return None,
            };
            Some(text)
        };
        let mut script = String::with_capacity(WHOLE_HEAD.len() + TAIL.len() + 1024);
        fill(&mut script, &WHOLE_HEAD, value);
        for (name, value) in env {
            script.push_str(&format!("export {name}={}\n", quote(value)));
        }
        for (step, number) in steps.iter().zip(&numbers) {
            let kind = kind_word(step.kind);
            script.push_str(&format!("heal_begin {number} {kind}\n"));
            // `eval` stands on a line of its own, so that a step may end in a comment or a heredoc.
            script.push_str(&format!("{{\neval {}\n}} >>\"$heal_dir/{number}\" 2>&1\n", quote(&step.text)));
            script.push_str("heal_ended \"$?\" || exit\n");
        }
        fill(&mut script, TAIL, value);
        Some(script)
    }
}

/// A script that asks a host what became of a run, and changes nothing there. It prints the run's
/// verdict as the run did, or one that ends `working`, `interrupted` or, where the host knows nothing
/// of it, `awaited` up to the deadline and `nothing` after it. Its exit code is always 0.
pub fn ask_script(run: &RemediationId, fence: &Fence) -> String {
    ASK.replace("@TOLD_SCRIPT@", TOLD)
        .replace("@DEADLINE@", &fence.deadline.to_string())
        .replace("@RUN@", &word(&run.0))
        .replace("@FENCE@", &quote(&fence.dir))
}

/// Bytes of the script, for a run id and a fence as long as they get.
pub(super) fn length(plan: &Plan) -> Option<usize> {
    let fence = Fence { dir: "x".repeat(FENCE_DIR_MAX), deadline: i64::MAX };
    plan.script(&RemediationId("x".repeat(40)), &fence).map(|script| script.len())
}

/// Appends `template` with a value for each `@NAME@`, in one pass: nothing is looked for in the values, and
/// every decision before a sending makes the script once, to see how long it is.
fn fill<'a>(out: &mut String, template: &str, value: impl Fn(&str) -> Option<&'a str>) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('@') {
        out.push_str(before);
        let named = after.split_once('@').and_then(|(name, after)| Some((value(name)?, after)));
        match named {
            Some((text, after)) => {
                out.push_str(text);
                rest = after;
            }
            None => {
                out.push('@');
                rest = after;
            }
        }
    }
    out.push_str(rest);
}

pub(super) fn kind_word(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Confirm => "confirm",
        StepKind::Command => "command",
        StepKind::Verify => "verify",
    }
}

/// A run id as it may stand anywhere; it is ours and has nothing else in it.
fn word(id: &str) -> String {
    id.chars().filter(|ch| ch.is_ascii_alphanumeric() || *ch == '-' || *ch == '_').collect()
}

/// `value` as one word of sh with the same bytes. `''` between two braces ends and begins the
/// quotes: the shell sees `{{`, SSM sees `{''{`.
fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    out.push('\'');
    let mut before = '\0';
    for ch in value.chars() {
        match ch {
            '\'' => out.push_str("'\\''"),
            '{' | '}' if ch == before => {
                out.push_str("''");
                out.push(ch);
            }
            other => out.push(other),
        }
        before = ch;
    }
    out.push('\'');
    out
}
