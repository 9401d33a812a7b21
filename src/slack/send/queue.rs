//! The actor that runs the queue and holds the retry policy.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::lanes::{Id, Lanes};
use super::{Completion, Done, Job, Tried, backoff};
use crate::slack::{Client, Error};

/// The most that one lane rests in an outage; so long after its end the next call finds out.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How much at once, and how soon again.
#[derive(Clone, Debug)]
pub struct Options {
    /// Calls under way, over all and for one channel.
    pub at_once: usize,
    /// The first and the longest wait after a failure.
    pub backoff: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Options {
        Options { at_once: 32, backoff: (Duration::from_millis(500), Duration::from_secs(60)) }
    }
}

/// Where jobs are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    jobs: mpsc::UnboundedSender<(Job, oneshot::Sender<Done>)>,
    depth: watch::Receiver<usize>,
}

impl Queue {
    /// The queue, and the future that runs it: spawn it. It ends when `shutdown` says true or all
    /// [`Queue`]s are dropped, after the calls under way have their answers; what was not tried by then
    /// is given back as [`Done::GaveUp`] with [`Error::NotDone`], what is unclear with [`Error::Unclear`].
    pub fn new(
        client: Client,
        options: Options,
        shutdown: watch::Receiver<bool>,
    ) -> (Queue, impl Future<Output = ()> + Send) {
        let (jobs, submitted) = mpsc::unbounded_channel();
        let (depth, depth_seen) = watch::channel(0);
        let runner = Runner {
            client,
            lanes: Lanes::new(options.at_once.max(1)),
            options,
            calls: JoinSet::new(),
            ids: HashMap::new(),
            depth,
        };
        (Queue { jobs, depth: depth_seen }, runner.run(submitted, shutdown))
    }

    /// Hands a job in; it is queued when this returns. Not bounded: an outbox owes every job already.
    pub fn submit(&self, job: Job) -> Completion {
        let (done, completion) = oneshot::channel();
        if let Err(mpsc::error::SendError((_, done))) = self.jobs.send((job, done)) {
            let _ = done.send(Done::GaveUp(Error::not_done("the sending has stopped")));
        }
        Completion(completion)
    }

    /// Jobs waiting or under way.
    pub fn depth(&self) -> usize {
        *self.depth.borrow()
    }
}

struct Runner {
    client: Client,
    options: Options,
    lanes: Lanes,
    calls: JoinSet<Tried>,
    ids: HashMap<tokio::task::Id, Id>,
    depth: watch::Sender<usize>,
}

impl Runner {
    async fn run(
        mut self,
        mut submitted: mpsc::UnboundedReceiver<(Job, oneshot::Sender<Done>)>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        loop {
            self.start();
            let depth = self.lanes.len();
            self.depth.send_if_modified(|known| std::mem::replace(known, depth) != depth);
            let wake = self.lanes.wakes_at();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(joined) = self.calls.join_next_with_id() => {
                    self.joined(joined);
                    while let Some(joined) = self.calls.try_join_next_with_id() {
                        self.joined(joined);
                    }
                }
                job = submitted.recv() => {
                    let Some((job, done)) = job else { break };
                    self.lanes.submit(job, done);
                    while let Ok((job, done)) = submitted.try_recv() {
                        self.lanes.submit(job, done);
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // What is under way is waited for: each call has its own time-out.
        submitted.close();
        while let Some(joined) = self.calls.join_next_with_id().await {
            self.joined(joined);
        }
        while let Ok((_, done)) = submitted.try_recv() {
            let _ = done.send(stopped(false));
        }
        for (done, maybe_done) in self.lanes.drain() {
            let _ = done.send(stopped(maybe_done));
        }
        self.depth.send_replace(0);
    }

    fn start(&mut self) {
        let now = Instant::now();
        while self.calls.len() < self.options.at_once {
            let Some((id, call, look_first)) = self.lanes.start(now) else { break };
            let client = self.client.clone();
            let task = self.calls.spawn(async move { call.attempt(&client, look_first).await });
            self.ids.insert(task.id(), id);
        }
    }

    fn joined(&mut self, joined: Result<(tokio::task::Id, Tried), tokio::task::JoinError>) {
        let (task, tried) = match joined {
            Ok((task, tried)) => (task, tried),
            // A call that panicked may have been made.
            Err(error) => (error.id(), Tried::Failed(Error::unclear("the call stopped half-way"))),
        };
        if let Some(id) = self.ids.remove(&task) {
            self.returned(id, tried);
        }
    }

    /// The retry policy.
    fn returned(&mut self, id: Id, tried: Tried) {
        let success = matches!(tried, Tried::Sent(_));
        let Some(job) = self.lanes.returned(id, success) else { return };
        let (error, looked_up) = match tried {
            Tried::Sent(ts) => return self.lanes.finish(id, Done::Sent { ts }),
            Tried::Failed(error) => (error, true),
            Tried::NotFoundOut(error) => (error, false),
        };
        let now = Instant::now();
        let method = job.call.method();
        let channel = job.call.channel().to_owned();
        // It stays open once it is: a lost call that was not found yet may still land.
        job.maybe_done |= error.may_have_been_done();
        match error {
            Error::RateLimited { retry_after } => {
                tracing::info!(?method, channel, seconds = retry_after.as_secs(), "Slack limits the sending");
                if looked_up {
                    self.lanes.sleep_lane(id, now + retry_after);
                } else {
                    // The limit is the search's, not the lane's.
                    self.lanes.retry_at(id, now + retry_after);
                }
            }
            Error::Refused { .. } if looked_up => {
                tracing::warn!(?method, channel, %error, hint = error.hint(), "Slack refused a message for good");
                self.lanes.finish(id, Done::GaveUp(error));
            }
            Error::Refused { .. } | Error::NotDone { .. } | Error::Unclear { .. } => {
                job.failures = job.failures.saturating_add(1);
                let failures = job.failures;
                let hopeless = job.maybe_done
                    && !job.call.is_idempotent()
                    && !job.call.can_be_looked_up()
                    && job.call.patience().is_none();
                let too_late = job.call.patience().is_some_and(|tries| failures >= tries);
                // A search that Slack refuses (a missing scope) stays refused; posting blind could double it.
                let blind = error.is_permanent();
                if hopeless || too_late || blind {
                    tracing::warn!(?method, channel, %error, failures, hint = error.hint(), "a message is given up");
                    let error = if blind { Error::unclear(error.to_string()) } else { error };
                    self.lanes.finish(id, Done::GaveUp(error));
                    return;
                }
                let wait = backoff(self.options.backoff, failures);
                tracing::warn!(?method, channel, %error, failures, ?wait, "a message could not be sent; trying again");
                self.lanes.retry_at(id, now + wait);
                let (first, longest) = self.options.backoff;
                self.lanes
                    .rest_lane(id, now, |troubles| backoff((first, longest.min(LONGEST_REST)), troubles));
            }
        }
    }
}

fn stopped(maybe_done: bool) -> Done {
    let why = "the sending has stopped";
    Done::GaveUp(if maybe_done { Error::unclear(why) } else { Error::not_done(why) })
}
