//! What SSM runs for us, followed to its end by one shared poll.
//!
//! A look costs pages of a listing, whatever the number of runs, so what is due about now is looked at
//! together; looks that find nothing new come further apart, and when SSM throttles one the whole poll
//! slows down, and recovers step by step.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use tokio::sync::{Notify, mpsc};

use super::Engine;
use super::decide::{Decided, apply};
use crate::aws::{Kind, Pace, Seen};
use crate::lifecycle::{Input, Refused, Remediation, RemediationId, State};
use crate::plan::Step;
use crate::store::Needs;
use crate::time::Timestamp;

/// The first look after the sending, and the longest between two.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);

/// What had no turn in a look has the next one soon, however long it has been running.
const PASSED_OVER: Duration = Duration::from_millis(300);

/// While AWS cannot be asked, the lifecycle puts off a deadline that is as near as that.
const SOON: Duration = Duration::from_secs(60);

/// Answers per transaction.
const PIECE: usize = 50;
/// Transactions under way, so that commits are shared and the listing need not wait for each.
const PIECES: usize = 4;

/// What is kept of a run while it runs: a whole remediation takes some 5 KiB, and thousands may run.
struct Entry {
    run: Arc<crate::aws::Watched>,
    due_at: Option<Timestamp>,
    next: Instant,
    pause: Duration,
}

#[derive(Default)]
struct Runs {
    by_id: HashMap<RemediationId, Entry>,
    /// The steps of all of them; the runs of one rule share theirs.
    steps: HashSet<Arc<[Step]>>,
}

/// The remediations in state running.
#[derive(Default)]
pub(super) struct Watched {
    running: Mutex<Runs>,
    /// When the next look is, as far as [`Engine::keep_watching`] knows; it is woken for what comes before.
    awaited: Mutex<Option<Instant>>,
    more: Notify,
}

impl Runs {
    /// `None`: there is nothing to look for, which no running remediation is without.
    fn watched(&mut self, running: &Remediation) -> Option<crate::aws::Watched> {
        let plan = running.plan.as_ref()?;
        Some(crate::aws::Watched {
            run: running.id.clone(),
            command_id: running.command_id.clone(),
            kind: Kind::of(plan),
            instance_id: running.target.as_ref()?.instance_id.clone(),
            first_sent_at: running.sent_at?,
            sent_at: running.last_sent_at()?,
            fence_dir: running.fence_dir.clone(),
            copies: 1 + u32::try_from(running.sent_again.len()).unwrap_or(u32::MAX - 1),
            asking: matches!(running.state, State::Running { asking: true, .. }),
            steps: plan.steps().map(|steps| self.shared(steps)),
        })
    }

    fn shared(&mut self, steps: &[Step]) -> Arc<[Step]> {
        if let Some(shared) = self.steps.get(steps) {
            return Arc::clone(shared);
        }
        // A rule set that was exchanged has left its own.
        self.steps.retain(|steps| Arc::strong_count(steps) > 1);
        let shared: Arc<[Step]> = steps.into();
        self.steps.insert(Arc::clone(&shared));
        shared
    }

    fn forget(&mut self, id: &RemediationId) {
        self.by_id.remove(id);
        if self.by_id.is_empty() {
            // After a storm this gives its room back.
            *self = Runs::default();
        }
    }
}

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, Runs> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change of a remediation into account.
    pub(super) fn mind(&self, changed: &Remediation) {
        let mut running = self.lock();
        if !matches!(changed.state, State::Running { .. }) {
            return running.forget(&changed.id);
        }
        let Some(run) = running.watched(changed) else { return };
        let (due_at, asking) = (changed.state.due_at(), run.asking);
        let run = Arc::new(run);
        match running.by_id.entry(changed.id.clone()) {
            Vacant(entry) => {
                let next = Instant::now() + FIRST;
                self.hurry(next);
                entry.insert(Entry { run, due_at, next, pause: FIRST });
            }
            Occupied(mut entry) => {
                let entry = entry.get_mut();
                if asking && !entry.run.asking {
                    (entry.next, entry.pause) = (Instant::now(), FIRST);
                    self.more.notify_one();
                }
                (entry.run, entry.due_at) = (run, due_at);
            }
        }
    }

    /// Something has to be looked at by then. Called with the runs locked.
    fn hurry(&self, by: Instant) {
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        if awaited.is_none_or(|at| by < at) {
            *awaited = Some(by);
            self.more.notify_one();
        }
    }

    /// When to look next; `None` while nothing runs.
    fn next(&self) -> Option<Instant> {
        let running = self.lock();
        let next = running.by_id.values().map(|entry| entry.next).min();
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = next;
        next
    }

    /// What is due for a look, each put off for longer than the last time; and all others.
    fn due(&self) -> (Vec<Arc<crate::aws::Watched>>, Vec<Arc<crate::aws::Watched>>) {
        // Looks that come soon anyway are made together.
        let now = Instant::now();
        let (mut due, mut others) = (Vec::new(), Vec::new());
        for entry in self.lock().by_id.values_mut() {
            if entry.next > now + entry.pause / 2 {
                others.push(Arc::clone(&entry.run));
                continue;
            }
            entry.pause = (entry.pause * 3 / 2).min(LONGEST);
            entry.next = now + entry.pause;
            due.push(Arc::clone(&entry.run));
        }
        (due, others)
    }

    /// Whether the deadline of what runs comes within a minute or so.
    fn is_due_soon(&self, id: &RemediationId, now: Timestamp) -> bool {
        let due = self.lock().by_id.get(id).and_then(|entry| entry.due_at);
        due.is_some_and(|due| now.until(due) <= SOON)
    }

    /// These had no turn in a look.
    fn passed_over(&self, passed: &[RemediationId]) {
        let mut running = self.lock();
        for id in passed {
            if let Some(entry) = running.by_id.get_mut(id) {
                (entry.next, entry.pause) = (Instant::now() + PASSED_OVER, FIRST);
            }
        }
    }

    /// These run no more, whatever a late snapshot said.
    fn forget(&self, over: &[RemediationId]) {
        let mut running = self.lock();
        over.iter().for_each(|id| running.forget(id));
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_id.len()
    }
}

impl Engine {
    /// Looks at what runs, for ever.
    pub(super) async fn keep_watching(&self) {
        let mut not_before = Instant::now();
        let mut pace = Pace::default();
        loop {
            match self.0.watched.next() {
                None => self.0.watched.more.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.max(not_before).into()) => {}
                        () = self.0.watched.more.notified() => continue,
                    }
                    let rest = self.look(&mut pace).await;
                    not_before = Instant::now() + rest;
                }
            }
        }
    }

    /// One look at all that is due; how long the next one waits at least.
    async fn look(&self, pace: &mut Pace) -> Duration {
        let (due, others) = self.0.watched.due();
        self.metrics().running.set(i64::try_from(self.0.watched.len()).unwrap_or(i64::MAX));
        if due.is_empty() {
            return Duration::ZERO;
        }
        // What is seen is kept while the next page comes.
        let (tell, told) = mpsc::channel(PIECE);
        let observe = self.parts().ssm.observe((&due, &others), pace.depth(), self.clock().now(), tell);
        let (sight, ()) = tokio::join!(observe, self.keep_told(told));
        let rest = pace.after(&self.parts().ssm, &sight);
        self.0.watched.passed_over(&sight.passed_over);
        if sight.throttled {
            let running = self.0.watched.len();
            tracing::warn!(running, ?rest, "SSM throttles the polling of what runs; it rests");
        }
        rest
    }

    /// Keeps what a look sees, in pieces: a thousand answers in one transaction would let an alert's
    /// acknowledgement wait.
    async fn keep_told(&self, mut told: mpsc::Receiver<(RemediationId, Seen)>) {
        let mut problems = 0;
        let pieces = stream::poll_fn(|context| {
            let mut piece = Vec::with_capacity(PIECE);
            told.poll_recv_many(context, &mut piece, PIECE).map(|count| (count > 0).then_some(piece))
        });
        let inputs = pieces.map(|piece| -> Vec<_> {
            piece.into_iter().filter_map(|(id, seen)| self.worth_keeping(id, seen, &mut problems)).collect()
        });
        let keep = |inputs: Vec<_>| async {
            if !inputs.is_empty() {
                self.keep_seen(inputs).await;
            }
        };
        inputs.for_each_concurrent(PIECES, keep).await;
        if problems > 1 {
            tracing::warn!(problems, "nor about {} others", problems - 1);
        }
    }

    /// What was seen of a run, as far as it is worth a transaction.
    fn worth_keeping(
        &self,
        id: RemediationId,
        seen: Seen,
        problems: &mut usize,
    ) -> Option<(RemediationId, Input)> {
        let input = match seen {
            Seen::NotYet => return None,
            Seen::Progress(steps) => Input::RunSeen { steps },
            Seen::Found { command_id } => Input::SendAccepted { command_id },
            Seen::Ended(ran) => Input::RunEnded { ran },
            Seen::Silent(why) => Input::HostSilent { why },
            Seen::Problem { why, passing } => {
                if *problems == 0 {
                    tracing::warn!(remediation = %id, why, "SSM could not be asked about {id}: {why}");
                }
                *problems += 1;
                // Only a deadline that is near is put off.
                if !passing || !self.0.watched.is_due_soon(&id, self.clock().now()) {
                    return None;
                }
                Input::RunUnseen { why }
            }
        };
        Some((id, input))
    }

    /// One transaction of what SSM said.
    async fn keep_seen(&self, inputs: Vec<(RemediationId, Input)>) {
        let ground = self.ground();
        let needs = Needs::default().remediations(inputs.iter().map(|(id, _)| id));
        let decided = self.store().with(needs).transact(move |tx| {
            let mut out = Decided::default();
            let mut over = Vec::new();
            for (id, input) in inputs {
                match apply(tx, &ground, &id, &input, "ssm", &mut out)? {
                    // It runs and was told this before, by a commit of which nobody heard.
                    Err(Refused::NotWaiting { state: "running" }) => {
                        if let Some((now, _)) = tx.remediation(&id)? {
                            out.changed.insert(id, Arc::new(now));
                        }
                    }
                    Err(Refused::Over { .. } | Refused::NotWaiting { .. }) => over.push(id),
                    Ok(()) | Err(_) => {}
                }
            }
            Ok((out, over))
        });
        match decided.await {
            Ok((decided, over)) => {
                self.carry_out(decided);
                self.0.watched.forget(&over);
            }
            // Nothing is lost: the next look sees the same.
            Err(error) => self.store_failed("keeping what SSM said", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::running;
    use crate::plan::Work;

    #[tokio::test]
    async fn runs_of_one_rule_share_its_steps_and_nothing_is_left_when_all_are_over() {
        let (watched, mut one) = (Watched::default(), running().await);
        let mut ids = Vec::new();
        for number in 0..100 {
            one.id = RemediationId(format!("r{number}"));
            ids.push(one.id.clone());
            watched.mind(&one);
        }
        one.id = RemediationId("other".to_owned());
        if let Some(Work::Shell { steps, .. }) = one.plan.as_mut().map(|plan| &mut plan.work) {
            steps[0].text.push('!');
        }
        watched.mind(&one);
        assert_eq!((watched.len(), watched.lock().steps.len()), (101, 2));
        watched.forget(&ids);
        assert_eq!(watched.len(), 1);
        one.state = State::Settling { until: Timestamp(0) };
        watched.mind(&one);
        let runs = watched.lock();
        assert_eq!((runs.by_id.capacity(), runs.steps.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_to_be_asked_for_on_its_host_is_looked_at_at_once() {
        let (watched, mut one) = (Watched::default(), running().await);
        watched.mind(&one);
        assert!(watched.next().unwrap() > Instant::now());
        if let State::Running { asking, .. } = &mut one.state {
            *asking = true;
        }
        watched.mind(&one);
        assert!(watched.next().unwrap() <= Instant::now());
        let (due, _) = watched.due();
        assert!(due[0].asking && due[0].steps.is_some(), "{due:?}");
    }
}
