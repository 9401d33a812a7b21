//! What SSM keeps of a script's output: its head. 24,000 characters of standard output and
//! 8,000 of standard error in GetCommandInvocation, 2,500 of both in CommandPlugins (SSM API
//! model); what is cut off is marked as the agent marks it.

const STDOUT: usize = 24_000;
const STDERR: usize = 8_000;
const COMBINED: usize = 2_500;
const CUT: &str = "\n---Output truncated---";
const ERROR_CUT: &str = "\n---Error truncated----";
const DIVIDER: &str = "\n----------ERROR-------\n";

/// `StandardOutputContent`.
pub fn stdout(text: &str) -> String {
    clipped(text, STDOUT, CUT)
}

/// `StandardErrorContent`.
pub fn stderr(text: &str) -> String {
    clipped(text, STDERR, ERROR_CUT)
}

/// `CommandPlugin.Output`: both, divided.
pub fn combined(stdout: &str, stderr: &str) -> String {
    if stderr.is_empty() {
        return clipped(stdout, COMBINED, CUT);
    }
    clipped(&format!("{stdout}{DIVIDER}{stderr}"), COMBINED, CUT)
}

/// At most `most` characters, the mark included.
fn clipped(text: &str, most: usize, mark: &str) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(most - mark.chars().count()).collect();
    head + mark
}
