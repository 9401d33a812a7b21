//! What the script printed, read back; whatever SSM cut off is missed and nothing else.
//!
//! Only the head that the script itself wrote is believed: step lines count before the first block
//! of output, and blocks are told apart by a line with the run's id, which no alert knows.

use serde::{Deserialize, Serialize};

use super::script::kind_word;
use super::{Step, StepKind};
use crate::text::redact;

/// One step as the script (or the Automation) reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRan {
    /// The kind for shell steps; `None` for an Automation's step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StepKind>,
    /// The command's text, or the Automation step's name.
    pub name: String,
    /// Exit code of a shell step that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// SSM's status of an Automation's step, as it stands (`InProgress`, `Success`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// What the step printed, redacted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// Standard output of a run, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOutput {
    /// The steps that ran, in order, with the command texts of the plan as names.
    pub steps: Vec<StepRan>,
    /// What belongs to no step, redacted.
    pub rest: String,
    /// Whether it is there to its end.
    pub complete: bool,
    /// How the script says it ended: `done`, `early`, `terminated`; where it ran nothing `unprepared`,
    /// `late`, `unfenced`; of a second copy that cannot tell what the first did `working`, `interrupted`;
    /// of an asking `awaited`, `nothing`.
    pub end: Option<String>,
    /// Exit code of the copy that ran, as the script says it.
    pub exit: Option<i32>,
}

/// Reads the output of a script of these steps. Of a document (`None`), or of a script that was killed,
/// everything is `rest`.
pub fn read_output(planned: Option<&[Step]>, stdout: &str) -> ReadOutput {
    let Some(planned) = planned else {
        return ReadOutput { rest: redact(stdout), complete: true, ..ReadOutput::default() };
    };
    let mut lines = stdout.split_inclusive('\n');
    let Some((run, end, exit)) = lines.next().and_then(first_line) else {
        return ReadOutput { rest: redact(stdout), ..ReadOutput::default() };
    };
    let mut read = ReadOutput { end: Some(end.to_owned()), exit, ..ReadOutput::default() };
    let mut numbers = Vec::new();
    let block = format!("heal/1 {run} output of step=");
    let last = format!("heal/1 {run} end");
    let mut into: Option<usize> = None;
    let mut text = String::new();
    let mut begun = false;
    for line in lines {
        let bare = line.trim_end_matches(['\n', '\r']);
        if bare == last {
            read.complete = true;
            break;
        }
        if let Some(number) = bare.strip_prefix(block.as_str()).and_then(|number| number.parse().ok()) {
            put(&mut read, &numbers, into, &mut text);
            into = Some(number);
            begun = true;
        } else if !begun && let Some((number, kind, exit, millis)) = step_line(bare) {
            let Some(step) = usize::checked_sub(number, 1).and_then(|at| planned.get(at)) else { continue };
            if step.kind == kind {
                numbers.push(number);
                let name = step.text.clone();
                let (status, output) = (None, String::new());
                read.steps.push(StepRan { kind: Some(kind), name, exit, status, millis, output });
            }
        } else {
            text.push_str(line);
        }
    }
    put(&mut read, &numbers, into, &mut text);
    read
}

/// Gives the text of a block to its step; what belongs to none is the rest.
fn put(read: &mut ReadOutput, numbers: &[usize], step: Option<usize>, text: &mut String) {
    // The script ends every block with a line feed of its own.
    let output = redact(&whole_lines(text.strip_suffix('\n').unwrap_or(text)));
    text.clear();
    let at = step.and_then(|step| numbers.iter().position(|number| *number == step));
    match at.and_then(|at| read.steps.get_mut(at)) {
        Some(ran) => ran.output = output,
        None => read.rest.push_str(&output),
    }
}

/// `heal/1 run=ID end=HOW exit=CODE`
fn first_line(line: &str) -> Option<(&str, &str, Option<i32>)> {
    let mut words = line.trim_end().strip_prefix("heal/1 run=")?.split(' ');
    let run = words.next().filter(|run| !run.is_empty())?;
    let end = words.next()?.strip_prefix("end=")?;
    let exit = words.next().and_then(|word| word.strip_prefix("exit=")?.parse().ok());
    Some((run, end, exit))
}

/// `heal/1 step=N kind=KIND exit=CODE ms=MILLIS`; a code that is no number was not known.
fn step_line(line: &str) -> Option<(usize, StepKind, Option<i32>, Option<u64>)> {
    let mut words = line.strip_prefix("heal/1 step=")?.split(' ');
    let number = words.next()?.parse().ok()?;
    let kind = words.next()?.strip_prefix("kind=")?;
    let kind = [StepKind::Confirm, StepKind::Command, StepKind::Verify]
        .into_iter()
        .find(|known| kind_word(*known) == kind)?;
    let exit = words.next()?.strip_prefix("exit=")?.parse().ok();
    let millis = words.next()?.strip_prefix("ms=")?.parse().ok();
    Some((number, kind, exit, millis))
}

/// Where the script cut something out it cut by bytes: half a line may be half a secret, whose name was
/// cut away and by which it would be known. Only whole lines are kept around a cut.
fn whole_lines(text: &str) -> String {
    let cut = |line: &&str| line.starts_with("[heal: ") && line.ends_with(" left out]");
    if !text.lines().any(|line| cut(&line)) {
        return text.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if cut(&line) {
            kept.pop();
            lines.next();
        }
        kept.push(line);
    }
    let mut whole = kept.join("\n");
    if text.ends_with('\n') {
        whole.push('\n');
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::whole_lines;

    #[test]
    fn half_a_line_beside_a_cut_is_half_a_secret_and_goes() {
        let text = "one\npassw\n[heal: 40390 bytes left out]\nord=hunter2\ntwo";
        assert_eq!(whole_lines(text), "one\n[heal: 40390 bytes left out]\ntwo");
        let flood = "a=1\n[heal: a flood of output; its middle is left out]\nsecret-tail";
        assert_eq!(whole_lines(flood), "[heal: a flood of output; its middle is left out]");
        assert_eq!(whole_lines("one\ntwo\n"), "one\ntwo\n");
    }
}
