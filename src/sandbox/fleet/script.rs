//! Runs a script on a simulated host as the SSM agent does: written to a file, run by sh, in a
//! process group of its own, its output in files (so that a process which it leaves behind and
//! which holds them open does not hold the command open too).

use std::future::Future;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;

use super::host::{Host, kill_group};

/// More than SSM shows; a script that writes gigabytes costs no memory here.
const KEPT: u64 = 128 * 1024;

/// What to run.
pub(super) struct Order<'a> {
    pub script: &'a str,
    pub environment: &'a [(String, String)],
    pub working_directory: Option<&'a str>,
    /// `executionTimeout`: then the whole group is killed.
    pub limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    TimedOut,
    Stopped,
}

pub(super) struct Done {
    pub end: End,
    pub stdout: String,
    pub stderr: String,
}

/// Runs to the end, the limit, or until `stop` is ready. Dropping the future kills the group too.
pub(super) async fn run(
    host: &Host,
    order: &Order<'_>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Done> {
    let folder = tempfile::Builder::new().prefix("ssm-").tempdir_in(host.root().join("tmp"))?;
    let file = folder.path().join("_script.sh");
    std::fs::write(&file, host.inward(order.script)).context("the script cannot be written")?;
    let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let directory =
        order.working_directory.map_or_else(|| host.root().to_owned(), |dir| host.inward(dir).into());
    let mut command = tokio::process::Command::new(interpreter(order.script));
    command
        .arg(&file)
        .current_dir(directory)
        .env_clear()
        .envs(host.environment())
        .envs(order.environment.iter().map(|(name, value)| (name, host.inward(value))))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?);
    let mut child = command.spawn().context("the script cannot be started")?;
    let mut group = Group::of(host, child.id());
    let end = tokio::select! {
        status = child.wait() => {
            let status = status.context("the script was lost")?;
            group.was_waited_for();
            // A shell reports a signal as 128 and its number, and so does the agent.
            End::Exited(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
        }
        () = tokio::time::sleep(order.limit) => End::TimedOut,
        () = stop => End::Stopped,
    };
    if end == End::TimedOut || end == End::Stopped {
        group.kill();
        child.wait().await.context("the script does not end")?;
    }
    Ok(Done { end, stdout: head(host, &out)?, stderr: head(host, &err)? })
}

/// The script's process group, killed on drop unless it was waited for: while it is not waited
/// for, its number cannot belong to anybody else.
struct Group<'a> {
    host: &'a Host,
    pid: Option<u32>,
}

impl<'a> Group<'a> {
    fn of(host: &'a Host, pid: Option<u32>) -> Self {
        if let Some(pid) = pid {
            host.script_began(pid);
        }
        Self { host, pid }
    }

    fn was_waited_for(&mut self) {
        if let Some(pid) = self.pid.take() {
            self.host.script_ended(pid);
        }
    }

    fn kill(&mut self) {
        if let Some(pid) = self.pid.take() {
            kill_group(pid);
            self.host.script_ended(pid);
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The agent's `sh`, or what the script's first line names: a script that asks for bash gets it.
fn interpreter(script: &str) -> &str {
    let named = script.lines().next().and_then(|line| line.strip_prefix("#!"));
    let named = named.map(|line| line.trim().trim_start_matches("/usr/bin/env").trim());
    named.filter(|named| !named.is_empty() && !named.contains(' ')).unwrap_or("sh")
}

fn head(host: &Host, file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(KEPT).read_to_end(&mut bytes)?;
    Ok(host.outward(&String::from_utf8_lossy(&bytes)))
}
