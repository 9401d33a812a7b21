//! Who is next: the queue's order, without time or network of its own.
//!
//! Channels take turns; within a channel the higher priority goes first, then the older, among what may
//! go at all: a job waits for its method's pace, for its method's pace in the channel, for the pace of the
//! search that it begins with, and for Slack's limits. Only the first job of an order key is in line.
//! When all of Slack is away, one call at a time finds out when it is back, and then nobody waits for
//! a back-off of his own any more.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pace::{Pace, Turn};
use super::{Call, Done, Job, Method, Priority};
use crate::slack::limits::Known;

/// A job's number, in the order of submission.
pub(super) type Id = u64;

/// So many failures one after another are an outage and no accident.
const OUTAGE: u32 = 3;

/// Lines within a channel: jobs that begin with a search stand apart from those that do not.
const LINES: [(Method, Option<Method>); 10] = [
    (Method::Post, None),
    (Method::Post, Some(Method::Replies)),
    (Method::Post, Some(Method::History)),
    (Method::Update, None),
    (Method::React, None),
    (Method::Unreact, None),
    (Method::Upload, None),
    (Method::Upload, Some(Method::Replies)),
    (Method::Ephemeral, None),
    (Method::Respond, None),
];

/// A job in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub call: Arc<Call>,
    pub priority: Priority,
    order: Option<u64>,
    merge: Option<String>,
    pub maybe_done: bool,
    pub failures: u32,
    /// When the last try began.
    pub began: Option<Instant>,
    /// An earlier try may land until then: it is looked for, and not repeated.
    pub lands_by: Option<Instant>,
    place: Place,
    pub done: oneshot::Sender<Done>,
    channel: usize,
    /// What it searches with while it is under way.
    search: Option<Method>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind another job of its order key.
    Behind,
    Ready,
    UnderWay,
    /// Waiting for its next try.
    BackingOff {
        until: Option<Instant>,
    },
}

/// How a call came back, as far as the pace is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// Slack said no, so Slack is there.
    Refused,
    /// It was not made, or Slack limits it: nothing is learned of Slack's health.
    NotYet,
    /// No answer that makes sense.
    Unclear,
    /// Slack could not be reached at all.
    Away,
}

#[derive(Debug)]
struct Channel {
    name: String,
    lines: [BinaryHeap<(Priority, Reverse<Id>)>; LINES.len()],
    paces: [Pace; Method::COUNT],
    in_ring: bool,
    under_way: usize,
    /// When it is looked at again; one timer is enough.
    wakes: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Job(Id),
    Channel(usize),
}

/// The whole queue.
#[derive(Debug)]
pub(super) struct Lanes {
    jobs: HashMap<Id, Queued>,
    next: Id,
    chains: HashMap<u64, VecDeque<Id>>,
    merging: HashMap<String, Id>,
    names: HashMap<String, usize>,
    channels: Vec<Channel>,
    /// Of each method in the whole workspace.
    methods: [Pace; Method::COUNT],
    /// Of everything that goes to Slack.
    slack: Pace,
    /// Channels that may have something to start.
    ring: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Instant, Wake)>>,
    per_channel: usize,
}

impl Lanes {
    pub(super) fn new(per_channel: usize) -> Lanes {
        Lanes {
            jobs: HashMap::new(),
            next: 0,
            chains: HashMap::new(),
            merging: HashMap::new(),
            names: HashMap::new(),
            channels: Vec::new(),
            methods: std::array::from_fn(|_| Pace::new(per_channel)),
            slack: Pace::new(per_channel),
            ring: VecDeque::new(),
            timers: BinaryHeap::new(),
            per_channel,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Takes a job in; or lets it replace a waiting one of its merge key.
    pub(super) fn submit(&mut self, job: Job, done: oneshot::Sender<Done>) {
        if let Some(waiting) = self.waiting(job.merge.as_deref())
            && waiting.1.may_be_replaced_by(&job)
        {
            let (id, waiting) = waiting;
            waiting.call = Arc::new(job.call);
            waiting.maybe_done |= job.maybe_done;
            let replaced = std::mem::replace(&mut waiting.done, done);
            // Nobody may be waiting for it.
            let _ = replaced.send(Done::Superseded);
            if job.priority > waiting.priority {
                // The entry with the old priority stays in the heap and is skipped when it comes up.
                waiting.priority = job.priority;
                if waiting.place == Place::Ready {
                    self.make_ready(id);
                }
            }
            return;
        }
        let id = self.next;
        self.next += 1;
        let channel = self.channel(job.call.channel());
        if let Some(key) = &job.merge {
            self.merging.insert(key.clone(), id);
        }
        let first = match job.order {
            Some(key) => {
                let chain = self.chains.entry(key).or_default();
                chain.push_back(id);
                chain.len() == 1
            }
            None => true,
        };
        self.jobs.insert(
            id,
            Queued {
                call: Arc::new(job.call),
                priority: job.priority,
                order: job.order,
                merge: job.merge,
                maybe_done: job.maybe_done,
                failures: 0,
                began: None,
                lands_by: None,
                place: Place::Behind,
                done,
                channel,
                search: None,
            },
        );
        if first {
            self.make_ready(id);
        }
    }

    /// A waiting job of this merge key says this instead. Where there is none, nothing happens.
    pub(super) fn freshen(&mut self, merge: &str, call: Call) {
        if let Some((_, waiting)) = self.waiting(Some(merge))
            && waiting.call.is_same_thing(&call)
        {
            waiting.call = Arc::new(call);
        }
    }

    fn waiting(&mut self, merge: Option<&str>) -> Option<(Id, &mut Queued)> {
        let id = *self.merging.get(merge?)?;
        let job = self.jobs.get_mut(&id)?;
        (job.place != Place::UnderWay).then_some((id, job))
    }

    /// The next job to start, now under way; None when nothing may start before [`Lanes::wakes_at`] or an end.
    /// Unless all may go, only answers to people who wait do.
    pub(super) fn start(&mut self, now: Instant, limits: &Known<'_>, all_may: bool) -> Option<(Id, &Queued)> {
        self.wake(now);
        let started = loop {
            let index = self.ring.pop_front()?;
            self.channels[index].in_ring = false;
            let Some(id) = self.pick(index, now, limits, all_may) else { continue };
            // Its turn is over; it goes to the end of the line.
            self.enter_ring(index);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.place = Place::UnderWay;
                job.began = Some(now);
                break Some(id);
            }
        };
        let id = started?;
        self.jobs.get(&id).map(|job| (id, job))
    }

    /// When something sleeping wakes.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// A job that was under way. Where it goes now is the caller's to say. `searching`: it came no
    /// further than its search. `wait` is how long to rest after so many troubles.
    pub(super) fn returned(
        &mut self,
        id: Id,
        answer: Answer,
        searching: bool,
        now: Instant,
        wait: impl Fn(u32) -> Duration,
    ) -> Option<&mut Queued> {
        let job = self.jobs.get_mut(&id)?;
        job.place = Place::BackingOff { until: None };
        let (index, method, search) = (job.channel, job.call.method(), job.search.take());
        // An upload is a row of calls; that its first ones came to nothing does not say that Slack is away.
        let ill = answer == Answer::Away && method == Method::Upload;
        let answer = if ill { Answer::Unclear } else { answer };
        let channel = &mut self.channels[index];
        channel.under_way = channel.under_way.saturating_sub(1);
        let in_channel = &mut channel.paces[method as usize];
        in_channel.ended();
        self.methods[method as usize].ended();
        self.slack.ended();
        if let Some(search) = search {
            self.methods[search as usize].ended();
            if !searching {
                self.methods[search as usize].succeeded();
            }
        }
        let mut over = 0;
        match answer {
            Answer::Done => {
                over = in_channel.succeeded();
                self.methods[method as usize].succeeded();
            }
            Answer::Unclear | Answer::Away => match search.filter(|_| searching) {
                Some(search) => self.methods[search as usize].troubled(now, &wait),
                None => in_channel.troubled(now, &wait),
            },
            Answer::Refused | Answer::NotYet => {}
        }
        match answer {
            Answer::Done | Answer::Refused => over = over.max(self.slack.succeeded()),
            Answer::Away => self.slack.troubled(now, &wait),
            // One method may be ill; when nothing at all succeeds any more it is Slack.
            Answer::Unclear => self.slack.troubled(now, |troubles| match troubles.checked_sub(OUTAGE) {
                Some(more @ 1..) => wait(more),
                _ => Duration::ZERO,
            }),
            Answer::NotYet => {}
        }
        if over >= OUTAGE {
            self.clear_up();
        }
        if self.channels.len() > 1 && self.methods.iter().chain([&self.slack]).any(Pace::is_narrow) {
            self.enter_all();
        } else {
            self.enter_ring(index);
        }
        self.jobs.get_mut(&id)
    }

    /// Slack is back: what backed off while it was away is in line again, the important first.
    fn clear_up(&mut self) {
        for pace in &mut self.methods {
            pace.rested();
        }
        for pace in self.channels.iter_mut().flat_map(|channel| &mut channel.paces) {
            pace.rested();
        }
        let off = |(id, job): (&Id, &Queued)| match job.place {
            Place::BackingOff { until: Some(_) } => Some(*id),
            _ => None,
        };
        let mut waiting: Vec<Id> = self.jobs.iter().filter_map(off).collect();
        waiting.sort_unstable();
        for id in waiting {
            self.make_ready(id);
        }
        self.enter_all();
    }

    /// Every channel is looked at again.
    pub(super) fn enter_all(&mut self) {
        for index in 0..self.channels.len() {
            self.enter_ring(index);
        }
    }

    /// The job is over: the next of its order key may go.
    pub(super) fn finish(&mut self, id: Id, outcome: Done) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(key) = &job.merge
            && self.merging.get(key) == Some(&id)
        {
            self.merging.remove(key);
        }
        if let Some(key) = job.order
            && let Some(chain) = self.chains.get_mut(&key)
        {
            chain.pop_front();
            match chain.front().copied() {
                Some(next) => self.make_ready(next),
                None => drop(self.chains.remove(&key)),
            }
        }
        let _ = job.done.send(outcome);
    }

    /// The job tries again at `at`, or when an outage ends before.
    pub(super) fn retry_at(&mut self, id: Id, at: Instant) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.place = Place::BackingOff { until: Some(at) };
            self.timers.push(Reverse((at, Wake::Job(id))));
        }
    }

    /// Everything that is not done, given back; true where an earlier try may have done it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (oneshot::Sender<Done>, bool)> + '_ {
        self.jobs.drain().map(|(_, job)| (job.done, job.maybe_done))
    }

    fn pick(&mut self, index: usize, now: Instant, limits: &Known<'_>, all_may: bool) -> Option<Id> {
        let (channel, methods) = (&mut self.channels[index], &mut self.methods);
        if channel.under_way >= self.per_channel {
            return None;
        }
        let mut wakes: Option<Instant> = None;
        let mut blocked = |turn: Turn| match turn {
            Turn::Now => false,
            Turn::Full => true,
            Turn::At(at) => {
                wakes = Some(wakes.map_or(at, |wakes| wakes.min(at)));
                true
            }
        };
        let mut best: Option<(usize, (Priority, Reverse<Id>))> = None;
        let away = blocked(self.slack.turn(now));
        for (at, (method, search)) in LINES.iter().enumerate() {
            if away || (!all_may && !method.answers_people()) {
                continue;
            }
            let line = &mut channel.lines[at];
            // Entries that a merge, a finish or a doubt left behind.
            while let Some((priority, Reverse(id))) = line.peek() {
                let job = self.jobs.get(id);
                let stands = |job: &Queued| {
                    job.place == Place::Ready && job.priority == *priority && job.line() == LINES[at]
                };
                if job.is_some_and(stands) {
                    break;
                }
                line.pop();
            }
            let Some(top) = line.peek().copied() else { continue };
            if best.is_some_and(|(_, found)| found > top) {
                continue;
            }
            for method in [Some(*method), *search].into_iter().flatten() {
                for name in method.names() {
                    if let Some(until) = limits.everywhere(name, now) {
                        methods[method as usize].limited(until, now);
                    }
                    if let Some(until) = limits.in_channel(name, &channel.name, now) {
                        channel.paces[method as usize].limited(until, now);
                    }
                }
            }
            let search = search.map_or(Turn::Now, |search| methods[search as usize].turn(now));
            let mut turns =
                [methods[*method as usize].turn(now), channel.paces[*method as usize].turn(now), search];
            // The latest of them decides; a full one has no time.
            turns.sort_by_key(|turn| match turn {
                Turn::Now => (0, None),
                Turn::At(at) => (1, Some(*at)),
                Turn::Full => (2, None),
            });
            if !blocked(turns[2]) {
                best = Some((at, top));
            }
        }
        let Some((at, (_, Reverse(id)))) = best else {
            if let Some(at) = wakes
                && channel.wakes.is_none_or(|known| known <= now || at < known)
            {
                channel.wakes = Some(at);
                self.timers.push(Reverse((at, Wake::Channel(index))));
            }
            return None;
        };
        channel.lines[at].pop();
        let (method, search) = LINES[at];
        channel.under_way += 1;
        channel.paces[method as usize].begun(now);
        methods[method as usize].begun(now);
        self.slack.begun(now);
        if let Some(search) = search {
            methods[search as usize].begun(now);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.search = search;
        }
        Some(id)
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            match self.timers.pop() {
                Some(Reverse((at, Wake::Job(id)))) => {
                    // An outage's end may have woken it before.
                    let asleep = Place::BackingOff { until: Some(at) };
                    if self.jobs.get(&id).is_some_and(|job| job.place == asleep) {
                        self.make_ready(id);
                    }
                }
                Some(Reverse((_, Wake::Channel(index)))) => self.enter_ring(index),
                None => break,
            }
        }
    }

    /// The job is in line, as soon as its paces and Slack's limits let it go.
    pub(super) fn make_ready(&mut self, id: Id) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.place = Place::Ready;
        let (index, line) = (job.channel, job.line());
        if let Some(at) = LINES.iter().position(|one| *one == line) {
            self.channels[index].lines[at].push((job.priority, Reverse(id)));
        }
        self.enter_ring(index);
    }

    fn enter_ring(&mut self, index: usize) {
        let channel = &mut self.channels[index];
        if !channel.in_ring {
            channel.in_ring = true;
            self.ring.push_back(index);
        }
    }

    /// Channels are few (those watched), so they stay once seen.
    fn channel(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        let index = self.channels.len();
        self.channels.push(Channel {
            name: name.to_owned(),
            lines: std::array::from_fn(|_| BinaryHeap::new()),
            paces: std::array::from_fn(|_| Pace::new(self.per_channel)),
            in_ring: false,
            under_way: 0,
            wakes: None,
        });
        self.names.insert(name.to_owned(), index);
        index
    }
}

impl Queued {
    /// Only a call that was surely not done, or that does no harm twice, may be forgotten; and only for
    /// one that goes the same way.
    fn may_be_replaced_by(&self, job: &Job) -> bool {
        self.place != Place::UnderWay
            && (!self.maybe_done || self.call.is_idempotent())
            && self.order == job.order
            && self.call.method() == job.call.method()
            && self.call.channel() == job.call.channel()
    }

    fn line(&self) -> (Method, Option<Method>) {
        (self.call.method(), self.call.searched_with().filter(|_| self.maybe_done))
    }
}
