//! Who is next: the queue's order, without time or network of its own.
//!
//! Every channel has a lane for each method. A lane that Slack has limited sleeps, and then finds its
//! pace again from one call at a time; the other lanes go on. Channels take turns; within a channel the
//! higher priority goes first, then the older. Only the first job of an order key is in a lane.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Call, Done, Job, Method, Priority};

/// A job's number, in the order of submission.
pub(super) type Id = u64;

/// A job in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub call: Arc<Call>,
    pub priority: Priority,
    order: Option<u64>,
    merge: Option<String>,
    pub maybe_done: bool,
    pub failures: u32,
    place: Place,
    pub done: oneshot::Sender<Done>,
    channel: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind another job of its order key.
    Behind,
    Ready,
    UnderWay,
    /// Waiting for its next try.
    BackingOff,
}

#[derive(Debug)]
struct Channel {
    lanes: [Lane; Method::COUNT],
    in_ring: bool,
    under_way: usize,
}

#[derive(Debug)]
struct Lane {
    ready: BinaryHeap<(Priority, Reverse<Id>)>,
    /// Limited by Slack until then.
    asleep_until: Option<Instant>,
    under_way: usize,
    /// Failures since the last success, other than refusals.
    troubles: u32,
    /// How many calls may be under way; falls to 1 on a 429 and grows again with every success.
    window: f64,
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
        if let Some(id) = job.merge.as_ref().and_then(|key| self.merging.get(key)).copied()
            && let Some(waiting) = self.jobs.get_mut(&id)
            && waiting.may_be_replaced_by(&job)
        {
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
                place: Place::Behind,
                done,
                channel,
            },
        );
        if first {
            self.make_ready(id);
        }
    }

    /// The next job to start, now under way; None when nothing may start before [`Lanes::wakes_at`] or an end.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Id, Arc<Call>, bool)> {
        self.wake(now);
        while let Some(index) = self.ring.pop_front() {
            self.channels[index].in_ring = false;
            let Some(id) = self.pick(index, now) else { continue };
            // Its turn is over; it goes to the end of the line.
            self.enter_ring(index);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.place = Place::UnderWay;
                return Some((id, Arc::clone(&job.call), job.maybe_done));
            }
        }
        None
    }

    /// When something sleeping wakes.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// A job that was under way; how it stands now is the caller's to say.
    pub(super) fn returned(&mut self, id: Id, success: bool) -> Option<&mut Queued> {
        let per_channel = self.per_channel;
        let job = self.jobs.get_mut(&id)?;
        job.place = Place::BackingOff;
        let index = job.channel;
        let channel = &mut self.channels[index];
        channel.under_way = channel.under_way.saturating_sub(1);
        let lane = &mut channel.lanes[job.call.method() as usize];
        lane.under_way = lane.under_way.saturating_sub(1);
        if success {
            lane.troubles = 0;
            lane.window = (lane.window + 1.0 / lane.window).min(per_channel as f64);
        }
        self.enter_ring(index);
        self.jobs.get_mut(&id)
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

    /// The job tries again at `at`.
    pub(super) fn retry_at(&mut self, id: Id, at: Instant) {
        self.timers.push(Reverse((at, Wake::Job(id))));
    }

    /// Slack limits this job's method and channel until `until`; the job is next when it wakes.
    pub(super) fn sleep_lane(&mut self, id: Id, until: Instant) {
        let Some(job) = self.jobs.get(&id) else { return };
        let index = job.channel;
        let lane = &mut self.channels[index].lanes[job.call.method() as usize];
        lane.asleep_until = Some(lane.asleep_until.map_or(until, |at| at.max(until)));
        lane.window = 1.0;
        self.timers.push(Reverse((until, Wake::Channel(index))));
        self.make_ready(id);
    }

    /// A call of this job's method and channel failed for no fault of its own: the lane rests a little, so
    /// that an outage is probed by one call at a time and not by everything that waits.
    pub(super) fn rest_lane(&mut self, id: Id, now: Instant, wait: impl FnOnce(u32) -> Duration) {
        let Some(job) = self.jobs.get(&id) else { return };
        let index = job.channel;
        let lane = &mut self.channels[index].lanes[job.call.method() as usize];
        if lane.asleep_until.is_some_and(|until| now < until) {
            return;
        }
        lane.troubles = lane.troubles.saturating_add(1);
        let until = now + wait(lane.troubles);
        lane.asleep_until = Some(until);
        lane.window = 1.0;
        self.timers.push(Reverse((until, Wake::Channel(index))));
    }

    /// Everything that is not done, given back; true where an earlier try may have done it.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (oneshot::Sender<Done>, bool)> + '_ {
        self.jobs.drain().map(|(_, job)| (job.done, job.maybe_done))
    }

    fn pick(&mut self, index: usize, now: Instant) -> Option<Id> {
        let channel = &mut self.channels[index];
        if channel.under_way >= self.per_channel {
            return None;
        }
        let mut best: Option<(usize, (Priority, Reverse<Id>))> = None;
        for (at, lane) in channel.lanes.iter_mut().enumerate() {
            if lane.asleep_until.is_some_and(|until| now < until) || lane.under_way >= lane.window as usize {
                continue;
            }
            lane.asleep_until = None;
            // Entries that a merge or a finish left behind.
            while let Some(top) = lane.ready.peek() {
                let current = self
                    .jobs
                    .get(&top.1.0)
                    .is_some_and(|job| job.place == Place::Ready && job.priority == top.0);
                if current {
                    break;
                }
                lane.ready.pop();
            }
            if let Some(top) = lane.ready.peek()
                && best.is_none_or(|(_, found)| *top > found)
            {
                best = Some((at, *top));
            }
        }
        let (at, (_, Reverse(id))) = best?;
        let lane = &mut channel.lanes[at];
        lane.ready.pop();
        lane.under_way += 1;
        channel.under_way += 1;
        Some(id)
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            match self.timers.pop() {
                Some(Reverse((_, Wake::Job(id)))) => self.make_ready(id),
                Some(Reverse((_, Wake::Channel(index)))) => self.enter_ring(index),
                None => break,
            }
        }
    }

    fn make_ready(&mut self, id: Id) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.place = Place::Ready;
        let index = job.channel;
        self.channels[index].lanes[job.call.method() as usize].ready.push((job.priority, Reverse(id)));
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
        let window = self.per_channel as f64;
        let lane =
            || Lane { ready: BinaryHeap::new(), asleep_until: None, troubles: 0, under_way: 0, window };
        self.channels.push(Channel { lanes: std::array::from_fn(|_| lane()), in_ring: false, under_way: 0 });
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
}
