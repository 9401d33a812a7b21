//! The actor that runs the queue and holds the retry policy.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::lanes::{Answer, Id, Lanes};
use super::trouble::{Place, Troubles};
use super::{Call, Completion, Done, Job, Tried, backoff};
use crate::slack::{Client, Error, Limited};

/// The most that a pace rests in an outage; so long after its end the next call finds out.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// What took Slack so long may take it as long again, and once more: until then an unanswered post is
/// looked for and not repeated.
const AS_LONG_AGAIN: u32 = 3;
/// A call that came back sooner was not slow.
const SLOW: Duration = Duration::from_secs(1);
/// How often it is asked whether sending is allowed again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Asked before every attempt: may this process send anything at all?
pub type MaySend = Arc<dyn Fn() -> bool + Send + Sync>;

/// How much at once, how soon again, and whether at all.
#[derive(Clone)]
pub struct Options {
    /// Calls under way, over all and for one channel.
    pub at_once: usize,
    /// The first and the longest wait after a failure.
    pub backoff: (Duration, Duration),
    /// Jobs that may wait. More are given back at once as not done, except those that answer people:
    /// the outbox keeps them in less room.
    pub most_waiting: usize,
    /// While it says no, no attempt is begun (answers to people who wait go on), and the jobs wait. None: always.
    pub may_send: Option<MaySend>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            at_once: 32,
            backoff: (Duration::from_millis(500), Duration::from_secs(15)),
            most_waiting: 30_000,
            may_send: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("at_once", &self.at_once)
            .field("backoff", &self.backoff)
            .field("most_waiting", &self.most_waiting)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Order {
    Submit(Job, oneshot::Sender<Done>),
    Freshen(String, Call),
}

/// Where jobs are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    orders: mpsc::UnboundedSender<Order>,
    depth: watch::Receiver<usize>,
    troubles: watch::Receiver<Troubles>,
    client: Client,
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
        let (orders, ordered) = mpsc::unbounded_channel();
        let (depth, depth_seen) = watch::channel(0);
        let (troubles, troubles_seen) = watch::channel(Troubles::default());
        let runner = Runner {
            client: client.clone(),
            lanes: Lanes::new(options.at_once.max(1)),
            may_send: options.may_send.clone().unwrap_or_else(|| Arc::new(|| true)),
            might: true,
            options,
            calls: JoinSet::new(),
            ids: HashMap::new(),
            depth,
            troubles,
        };
        (Queue { orders, depth: depth_seen, troubles: troubles_seen, client }, runner.run(ordered, shutdown))
    }

    /// Hands a job in; it is queued when this returns.
    pub fn submit(&self, job: Job) -> Completion {
        let (done, completion) = oneshot::channel();
        if let Err(mpsc::error::SendError(Order::Submit(_, done))) =
            self.orders.send(Order::Submit(job, done))
        {
            let _ = done.send(Done::GaveUp(Error::not_done("the sending has stopped")));
        }
        Completion(completion)
    }

    /// Lets a job with this merge key that still waits say something newer: a post of the same
    /// metadata in the same place. What is under way or done, or was never handed in, stays as it is.
    pub fn freshen(&self, merge: impl Into<String>, call: Call) {
        // A queue that has stopped says nothing any more.
        let _ = self.orders.send(Order::Freshen(merge.into(), call));
    }

    /// Limits of Slack that this process meets from now on, for other processes with the same token.
    pub fn limits(&self) -> broadcast::Receiver<Limited> {
        self.client.limits().listen()
    }

    /// Another process met this limit: nothing that it covers is sent before it is over.
    pub fn limit(&self, limited: &Limited) {
        self.client.limits().learn(limited);
    }

    /// Jobs waiting or under way.
    pub fn depth(&self) -> usize {
        *self.depth.borrow()
    }

    /// What Slack refuses until a person changes something.
    pub fn troubles(&self) -> Troubles {
        self.troubles.borrow().clone()
    }

    /// Ends when Slack takes again something that it refused in this channel when its mends were `since`
    /// ([`Troubles::mends`]), or when it refuses nothing there.
    pub async fn mended(&self, channel: &str, since: u64) {
        let mut troubles = self.troubles.clone();
        let mended = |troubles: &Troubles| troubles.mends(channel) != since || !troubles.concern(channel);
        // A queue that has stopped learns of nothing any more.
        if troubles.wait_for(mended).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Runner {
    client: Client,
    options: Options,
    may_send: MaySend,
    /// What was said the last time.
    might: bool,
    lanes: Lanes,
    calls: JoinSet<Tried>,
    ids: HashMap<tokio::task::Id, Id>,
    depth: watch::Sender<usize>,
    troubles: watch::Sender<Troubles>,
}

impl Runner {
    async fn run(mut self, mut ordered: mpsc::UnboundedReceiver<Order>, mut shutdown: watch::Receiver<bool>) {
        loop {
            self.start();
            let depth = self.lanes.len();
            self.depth.send_if_modified(|known| std::mem::replace(known, depth) != depth);
            let wake = self.wakes_at();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(joined) = self.calls.join_next_with_id() => {
                    self.joined(joined);
                    while let Some(joined) = self.calls.try_join_next_with_id() {
                        self.joined(joined);
                    }
                }
                order = ordered.recv() => {
                    let Some(order) = order else { break };
                    self.ordered(order);
                    while let Ok(order) = ordered.try_recv() {
                        self.ordered(order);
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        // What is under way is waited for: each call has its own time-out.
        ordered.close();
        while let Some(joined) = self.calls.join_next_with_id().await {
            self.joined(joined);
        }
        while let Ok(order) = ordered.try_recv() {
            if let Order::Submit(job, done) = order {
                let _ = done.send(stopped(job.maybe_done));
            }
        }
        for (done, maybe_done) in self.lanes.drain() {
            let _ = done.send(stopped(maybe_done));
        }
        self.depth.send_replace(0);
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Submit(job, done) => {
                let full = self.lanes.len() >= self.options.most_waiting;
                if full && job.call.patience().is_none() {
                    let why = "too much waits to be sent already";
                    let error = if job.maybe_done { Error::unclear(why) } else { Error::not_done(why) };
                    let _ = done.send(Done::GaveUp(error));
                } else {
                    self.lanes.submit(job, done);
                }
            }
            Order::Freshen(merge, call) => self.lanes.freshen(&merge, call),
        }
    }

    fn start(&mut self) {
        let now = Instant::now();
        let client = self.client.clone();
        while self.calls.len() < self.options.at_once {
            // Asked for each: what allows it may end at any moment.
            let may = (self.may_send)();
            if may && !std::mem::replace(&mut self.might, may) {
                self.lanes.enter_all();
            }
            self.might = may;
            let next = self.lanes.start(now, &client.limits().known(), may);
            let Some((id, job)) = next else { break };
            let (client, call, look_first) = (client.clone(), Arc::clone(&job.call), job.maybe_done);
            let (may_send, lands_by) = (Arc::clone(&self.may_send), job.lands_by);
            let may = move || lands_by.is_none_or(|by| Instant::now() >= by) && may_send();
            let task = self.calls.spawn(async move { call.attempt(&client, look_first, may).await });
            self.ids.insert(task.id(), id);
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        let ask = (!self.might && self.lanes.len() > 0).then(|| Instant::now() + ASK_AGAIN);
        match (self.lanes.wakes_at(), ask) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
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
        let now = Instant::now();
        let answer = match &tried {
            Tried::Sent(_) => Answer::Done,
            Tried::MayNot => Answer::NotYet,
            Tried::Failed(error) | Tried::NotFoundOut(error) => match error {
                Error::RateLimited { .. } => Answer::NotYet,
                Error::Refused { .. } => Answer::Refused,
                Error::NotDone { .. } => Answer::Away,
                Error::Unclear { .. } => Answer::Unclear,
            },
        };
        let searching = matches!(tried, Tried::NotFoundOut(_));
        let (first, longest) = self.options.backoff;
        let rest = |troubles| backoff((first, longest.min(LONGEST_REST)), troubles);
        let Some(job) = self.lanes.returned(id, answer, searching, now, rest) else { return };
        if !job.call.method().answers_people() {
            let search = job.call.searched_with().filter(|_| job.maybe_done);
            let place = |method: Option<super::Method>| Some(Place::new(method?, job.call.channel()));
            let (call, search) = (place(Some(job.call.method())), place(search));
            self.troubles.send_if_modified(|troubles| match &tried {
                Tried::Sent(_) => troubles.mended(call.into_iter().chain(search)),
                Tried::MayNot => troubles.mended(search),
                Tried::Failed(error) => troubles.met(call, error) | troubles.mended(search),
                Tried::NotFoundOut(error) => troubles.met(search, error),
            });
        }
        let error = match tried {
            Tried::Sent(ts) => return self.lanes.finish(id, Done::Sent { ts }),
            Tried::MayNot => {
                return match job.lands_by.filter(|by| *by > now) {
                    Some(by) => self.lanes.retry_at(id, by),
                    None => self.lanes.make_ready(id),
                };
            }
            Tried::Failed(error) | Tried::NotFoundOut(error) => error,
        };
        let method = job.call.method();
        let channel = job.call.channel().to_owned();
        // It stays open once it is: a lost call that was not found yet may still land.
        job.maybe_done |= error.may_have_been_done();
        if let (Error::Unclear { .. }, false, Some(began)) = (&error, searching, job.began)
            && now - began >= SLOW
        {
            job.lands_by = Some(began + (now - began) * AS_LONG_AGAIN);
        }
        match error {
            // The limit is known to the client now, and the line waits for it.
            Error::RateLimited { retry_after } => {
                tracing::info!(
                    ?method,
                    channel,
                    seconds = retry_after.as_secs_f64(),
                    "Slack limits the sending"
                );
                self.lanes.make_ready(id);
            }
            // In a search no refusal is of the message; posting blind could double it.
            Error::Refused { .. } => {
                if error.is_final() || method.answers_people() {
                    tracing::warn!(?method, channel, %error, hint = error.hint(), "Slack refused a message for good");
                }
                let unsaid = searching && error.is_final();
                let error = if unsaid { Error::unclear(error.to_string()) } else { error };
                self.lanes.finish(id, Done::GaveUp(error));
            }
            Error::NotDone { .. } | Error::Unclear { .. } => {
                job.failures = job.failures.saturating_add(1);
                let failures = job.failures;
                let hopeless = job.maybe_done
                    && !job.call.is_idempotent()
                    && job.call.searched_with().is_none()
                    && job.call.patience().is_none();
                let too_late = job.call.patience().is_some_and(|tries| failures >= tries);
                if hopeless || too_late {
                    tracing::warn!(?method, channel, %error, failures, "a message is given up");
                    self.lanes.finish(id, Done::GaveUp(error));
                    return;
                }
                let wait = backoff(self.options.backoff, failures);
                tracing::warn!(?method, channel, %error, failures, ?wait, "a message could not be sent; trying again");
                self.lanes.retry_at(id, now + wait);
            }
        }
    }
}

fn stopped(maybe_done: bool) -> Done {
    let why = "the sending has stopped";
    Done::GaveUp(if maybe_done { Error::unclear(why) } else { Error::not_done(why) })
}
