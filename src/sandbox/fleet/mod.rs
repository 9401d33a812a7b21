//! A fleet like SSM's on this machine: its API on loopback, and hosts that are folders with real
//! processes. It is strict where the service is (limits, unknown members, unknown instances) and
//! can be as bad as the service can be (slow to show a command, throttled, an answer lost), for
//! that is what the bot has to survive. It keeps a log of every call and of every run of a script,
//! so that a test can say "once".

mod automation;
mod commands;
mod control;
mod delivery;
mod host;
mod lists;
mod members;
mod nodes;
mod output;
mod panel;
mod protocol;
mod script;
mod spec;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::sync::watch;

pub use crate::sandbox::page::{HostAction, HostLine, HostView};
pub use control::{Call, Fault, Run, Scripted, Sent};
pub use host::{Host, ProcessState, REDIRECTED};
pub use spec::{Action, AutomationStep, Content, Disk, Document, HostSpec, Options, Parameter};

type Override = Arc<dyn Fn(&Sent) -> Scripted + Send + Sync>;

#[derive(Default)]
struct State {
    commands: Vec<commands::Command>,
    executions: Vec<automation::Execution>,
    online: Vec<bool>,
    calls: Vec<Call>,
    runs: Vec<Run>,
    faults: Vec<(String, Fault)>,
    on_send: Option<Override>,
    failing_steps: HashMap<String, String>,
}

impl State {
    fn add_command(&mut self, command: commands::Command) {
        self.commands.push(command);
    }

    fn take_fault(&mut self, operation: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(name, _)| name == operation || name == "*")?;
        Some(self.faults.remove(at).1)
    }
}

/// What the tasks share. It ends with the last [`Fleet`], not with the last task.
struct Shared {
    options: Options,
    hosts: Vec<Host>,
    state: Mutex<State>,
    /// Grows with everything that happens.
    changed: watch::Sender<u64>,
    ended: watch::Sender<bool>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn document(&self, name: &str) -> Option<&Document> {
        self.options.documents.iter().find(|document| document.name == name)
    }

    fn host_of(&self, instance_id: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.spec.instance_id == instance_id)
    }

    fn instance_id(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("", |host| &host.spec.instance_id)
    }

    fn online(&self) -> Vec<bool> {
        self.state().online.clone()
    }

    fn is_online(&self, host: usize) -> bool {
        self.state().online.get(host).copied().unwrap_or(false)
    }

    fn scripted(&self, sent: &Sent) -> Scripted {
        let on_send = self.state().on_send.clone();
        on_send.map_or(Scripted::Run, |on_send| on_send(sent))
    }

    fn note_run(&self, run: Run) -> usize {
        let at = {
            let mut state = self.state();
            state.runs.push(run);
            state.runs.len() - 1
        };
        self.touch();
        at
    }

    fn end_run(&self, at: usize, exit: Option<i32>) {
        if let Some(run) = self.state().runs.get_mut(at) {
            run.ended = Some(SystemTime::now());
            run.exit = exit;
        }
        self.touch();
    }
}

/// Ends the fleet when the last clone goes.
struct Alive {
    shared: Arc<Shared>,
    folder: std::path::PathBuf,
}

impl Alive {
    fn end(&self) {
        if self.shared.ended.send_replace(true) {
            return;
        }
        for host in &self.shared.hosts {
            host.kill_all();
        }
        // A process that is just being killed may still finish its last write.
        for _ in 0..10 {
            match std::fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::debug!(%error, folder = %self.folder.display(), "the fleet's folder stays for now");
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.end();
    }
}

/// The running fleet. A clone is the same fleet; it ends with [`Fleet::stop`] or its last clone.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
    alive: Arc<Alive>,
    endpoint: String,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Fleet {
    /// Starts the hosts' processes and the API on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The folders, the processes or the port cannot be had.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = match &options.folder {
            Some(folder) => tempfile::Builder::new().prefix("heal-fleet-").tempdir_in(folder),
            None => tempfile::Builder::new().prefix("heal-fleet-").tempdir(),
        }
        .context("a folder for the fleet")?;
        let base = folder.path().canonicalize()?;
        let booted =
            futures_util::future::join_all(options.hosts.iter().map(|spec| Host::boot(&base, spec.clone())))
                .await;
        let (mut hosts, mut failure) = (Vec::new(), None);
        for host in booted {
            match host {
                Ok(host) => hosts.push(host),
                Err(error) => failure = Some(error),
            }
        }
        let online = hosts.iter().map(|host| host.spec.online).collect();
        let shared = Arc::new(Shared {
            options,
            hosts,
            state: Mutex::new(State { online, ..State::default() }),
            changed: watch::Sender::new(0),
            ended: watch::Sender::new(false),
        });
        let alive = Arc::new(Alive { shared: Arc::clone(&shared), folder: folder.keep() });
        if let Some(error) = failure {
            return Err(error.context("a simulated host does not start"));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("a port for the fleet")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(protocol::serve(Arc::clone(&shared), listener));
        Ok(Self { shared, alive, endpoint })
    }

    /// For `AWS_ENDPOINT_URL_SSM`.
    #[must_use]
    pub fn endpoint_url(&self) -> &str {
        &self.endpoint
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.options.region
    }

    /// Ends the API, the scripts, the hosts' processes and their folders.
    pub fn stop(&self) {
        self.alive.end();
    }

    /// A host by its name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.shared.hosts.iter().find(|host| host.spec.name == name)
    }

    /// All hosts, in the order of the options.
    #[must_use]
    pub fn all_hosts(&self) -> &[Host] {
        &self.shared.hosts
    }

    /// Does something to a host.
    ///
    /// # Errors
    /// There is no such host, or it cannot be done there.
    pub async fn break_it(&self, host: &str, action: &Action) -> anyhow::Result<()> {
        let at = self.shared.hosts.iter().position(|one| one.spec.name == host);
        let at = at.with_context(|| format!("there is no host {host}"))?;
        match action {
            Action::GoOffline | Action::GoOnline => {
                if let Some(online) = self.shared.state().online.get_mut(at) {
                    *online = *action == Action::GoOnline;
                }
            }
            _ => {
                if let Some(one) = self.shared.hosts.get(at) {
                    one.act(action).await?;
                }
            }
        }
        self.shared.touch();
        Ok(())
    }

    /// Whether SSM can reach a host.
    #[must_use]
    pub fn is_online(&self, host: &str) -> bool {
        let at = self.shared.hosts.iter().position(|one| one.spec.name == host);
        at.is_some_and(|at| self.shared.is_online(at))
    }

    /// Decides what becomes of every command sent from now on.
    pub fn on_send(&self, decide: impl Fn(&Sent) -> Scripted + Send + Sync + 'static) {
        self.shared.state().on_send = Some(Arc::new(decide));
    }

    /// The next `count` calls of an operation (`*`: of any) go wrong like this.
    pub fn fault(&self, operation: &str, count: usize, fault: &Fault) {
        let faults = std::iter::repeat_n((operation.to_owned(), fault.clone()), count);
        self.shared.state().faults.extend(faults);
    }

    /// Takes back the faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// A step of an automation fails from now on, with this output.
    pub fn fail_step(&self, step: &str, output: &str) {
        self.shared.state().failing_steps.insert(step.to_owned(), output.to_owned());
    }

    /// Every call so far, refused ones too.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// How often an operation was called.
    #[must_use]
    pub fn count_calls(&self, operation: &str) -> usize {
        self.shared.state().calls.iter().filter(|call| call.operation == operation).count()
    }

    /// Every real execution of a script so far.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.shared.state().runs.clone()
    }

    /// How often scripts of commands whose Comment holds this text were really executed.
    #[must_use]
    pub fn count_runs(&self, comment: &str) -> usize {
        self.shared.state().runs.iter().filter(|run| run.comment.contains(comment)).count()
    }

    /// Grows whenever something happens in the fleet.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Tells whoever watches that the hosts look different now. The monitor says so: a process
    /// that ends by itself tells nobody.
    pub fn notice(&self) {
        self.shared.touch();
    }

    /// Waits until the predicate holds, asked at every change, and now and then because a
    /// process can end by itself. False when it does not hold within the bound.
    pub async fn wait_until(&self, bound: Duration, mut predicate: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + bound;
        let mut changed = self.changed();
        loop {
            if predicate(self) {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            let tick = deadline.saturating_duration_since(now).min(Duration::from_millis(25));
            let _ = tokio::time::timeout(tick, changed.changed()).await;
        }
    }
}

/// A random id in the form of a UUID, version 4.
fn uuid() -> String {
    let bits = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// A time on the wire of AWS JSON: seconds since 1970, with milliseconds.
fn seconds(time: SystemTime) -> f64 {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A time as GetCommandInvocation writes it: `2021-07-07T00:00:00.000Z`.
fn iso(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}
