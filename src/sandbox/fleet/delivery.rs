//! The way of a command to a node and back: pending until the node is online, delivered late or
//! never where a test says so, run as a real script, stopped at its execution time-out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::commands::Invocation;
use super::script::{self, End};
use super::{Run, Scripted, Sent, Shared};

/// Starts the task that brings one invocation to its end.
pub(super) fn begin(shared: &Arc<Shared>, command: &str, at: usize) {
    let Some(delivery) = Delivery::of(shared, command, at) else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut ended = shared.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = delivery.bring(&shared) => {}
        }
    });
}

struct Delivery {
    sent: Sent,
    at: usize,
    host: usize,
    accepted: Instant,
    expires: Duration,
    execution_timeout: Duration,
    script: String,
    environment: Vec<(String, String)>,
    working_directory: Option<String>,
    cancelled: watch::Receiver<bool>,
}

/// How an invocation ended, in SSM's words.
struct Verdict {
    status: String,
    details: String,
    code: i32,
    stdout: String,
    stderr: String,
}

impl Verdict {
    fn bare(status: &str, details: &str) -> Self {
        let (stdout, stderr) = (String::new(), String::new());
        Self { status: status.to_owned(), details: details.to_owned(), code: -1, stdout, stderr }
    }
}

impl Delivery {
    fn of(shared: &Shared, id: &str, at: usize) -> Option<Self> {
        let state = shared.state();
        let command = state.commands.iter().rev().find(|command| command.id == id)?;
        let host = command.invocations.get(at)?.host;
        // Delivery times out only after both time-outs together (monitor-commands page).
        let expires = shared.options.second * (command.timeout_seconds + command.execution_timeout);
        Some(Self {
            sent: Sent {
                command_id: command.id.clone(),
                host: shared.hosts.get(host)?.spec.name.clone(),
                instance_id: shared.instance_id(host).to_owned(),
                document: command.document.clone(),
                comment: command.comment.clone(),
                parameters: command.parameters.clone(),
            },
            at,
            host,
            accepted: command.sent,
            expires,
            execution_timeout: shared.options.second * command.execution_timeout,
            script: command.script.clone(),
            environment: command.environment.clone(),
            working_directory: command.working_directory.clone(),
            cancelled: command.cancelled.subscribe(),
        })
    }

    async fn bring(mut self, shared: &Arc<Shared>) {
        let scripted = shared.scripted(&self.sent);
        let wait = if let Scripted::DeliverAfter(time) = &scripted { *time } else { Duration::ZERO };
        let never = matches!(scripted, Scripted::NeverDeliver);
        if let Some(verdict) = self.wait_for_delivery(shared, wait, never).await {
            return self.finish(shared, verdict);
        }
        match scripted {
            Scripted::Finish { after, status, details, code, stdout, stderr } => {
                if !after.is_zero() {
                    self.set_started(shared);
                    tokio::time::sleep(after).await;
                }
                self.finish(shared, Verdict { status, details, code, stdout, stderr });
            }
            Scripted::RunButReport { status, details } => {
                self.run(shared).await;
                self.finish(shared, Verdict::bare(&status, &details));
            }
            Scripted::RunTwice { apart } => {
                self.set_started(shared);
                let (first, second) = tokio::join!(self.run(shared), async {
                    tokio::time::sleep(apart).await;
                    self.run(shared).await
                });
                drop(second);
                self.finish(shared, first);
            }
            Scripted::Run | Scripted::DeliverAfter(_) | Scripted::NeverDeliver => {
                self.set_started(shared);
                let verdict = self.run(shared).await;
                self.finish(shared, verdict);
            }
        }
    }

    /// Waits until the node takes the command; a verdict where it never does.
    async fn wait_for_delivery(&mut self, shared: &Shared, wait: Duration, never: bool) -> Option<Verdict> {
        let not_before = Instant::now() + wait;
        let deadline = self.accepted + self.expires;
        let mut changed = shared.changed.subscribe();
        loop {
            if *self.cancelled.borrow() {
                return Some(Verdict::bare("Cancelled", "Cancelled"));
            }
            let now = Instant::now();
            if now >= deadline {
                return Some(Verdict::bare("TimedOut", "Delivery Timed Out"));
            }
            if !never && now >= not_before && shared.is_online(self.host) {
                return None;
            }
            let next = if now < not_before { deadline.min(not_before) } else { deadline };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                _ = self.cancelled.wait_for(|cancelled| *cancelled) => {}
                _ = changed.changed(), if now >= not_before => {}
            }
        }
    }

    fn set_started(&self, shared: &Shared) {
        self.update(shared, |one| {
            one.status = "InProgress".to_owned();
            one.details = "InProgress".to_owned();
            one.started = Some(SystemTime::now());
        });
    }

    fn finish(&self, shared: &Shared, verdict: Verdict) {
        self.update(shared, |one| {
            one.status = verdict.status;
            one.details = verdict.details;
            one.code = verdict.code;
            one.stdout = verdict.stdout;
            one.stderr = verdict.stderr;
            one.ended = Some(SystemTime::now());
        });
    }

    fn update(&self, shared: &Shared, change: impl FnOnce(&mut Invocation)) {
        {
            let mut state = shared.state();
            let command = state.commands.iter_mut().rev().find(|command| command.id == self.sent.command_id);
            if let Some(one) = command.and_then(|command| command.invocations.get_mut(self.at)) {
                change(one);
            }
        }
        shared.touch();
    }

    async fn run(&self, shared: &Arc<Shared>) -> Verdict {
        let Some(host) = shared.hosts.get(self.host) else { return Verdict::bare("Failed", "Failed") };
        let mut environment = self.environment.clone();
        environment.push(("AWS_SSM_INSTANCE_ID".to_owned(), self.sent.instance_id.clone()));
        environment.push(("SSM_COMMAND_ID".to_owned(), self.sent.command_id.clone()));
        environment.push(("AWS_SSM_REGION_NAME".to_owned(), shared.options.region.clone()));
        let order = script::Order {
            script: &self.script,
            environment: &environment,
            working_directory: self.working_directory.as_deref(),
            limit: self.execution_timeout,
        };
        let noted = shared.note_run(Run {
            command_id: self.sent.command_id.clone(),
            host: self.sent.host.clone(),
            instance_id: self.sent.instance_id.clone(),
            comment: self.sent.comment.clone(),
            script: self.script.clone(),
            started: SystemTime::now(),
            ended: None,
            exit: None,
        });
        let mut cancelled = self.cancelled.clone();
        let stop = async {
            if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
                std::future::pending::<()>().await;
            }
            self.update(shared, |one| {
                one.status = "Cancelling".to_owned();
                one.details = "Cancelling".to_owned();
            });
        };
        let result = script::run(host, &order, stop).await;
        let (end, stdout, stderr) = match result {
            Ok(done) => (done.end, done.stdout, done.stderr),
            Err(error) => (End::Exited(127), String::new(), format!("{error:#}\n")),
        };
        shared.end_run(noted, if let End::Exited(code) = end { Some(code) } else { None });
        // The agent adds this line to standard error, whatever failed.
        let failed = |stderr: String, why: &str| format!("{stderr}failed to run commands: {why}");
        let (status, details, code, stderr) = match end {
            End::Exited(0) => ("Success", "Success", 0, stderr),
            End::Exited(code) => ("Failed", "Failed", code, failed(stderr, &format!("exit status {code}"))),
            End::TimedOut => ("TimedOut", "Execution Timed Out", 137, failed(stderr, "signal: killed")),
            End::Stopped => ("Cancelled", "Cancelled", 137, failed(stderr, "signal: killed")),
        };
        Verdict { status: status.to_owned(), details: details.to_owned(), code, stdout, stderr }
    }
}
