//! What SSM runs for us, followed to its end by one shared poll.
//!
//! A look costs pages of a listing, whatever the number of runs, so what is due about now is looked at
//! together; looks that find nothing new come further apart, and when SSM throttles one the whole poll
//! slows down, and recovers step by step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Engine;
use super::decide::{Decided, apply};
use crate::aws::{Kind, Pace, Seen};
use crate::lifecycle::{Input, Refused, Remediation, RemediationId, State};
use crate::store::Needs;
use crate::time::Timestamp;

/// The first look after the sending, and the longest between two.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);

/// While AWS cannot be asked, the lifecycle puts off a deadline that is as near as that.
const SOON: Duration = Duration::from_secs(60);

/// Answers per transaction.
const PIECE: usize = 50;

struct Entry {
    remediation: Arc<Remediation>,
    next: Instant,
    pause: Duration,
}

/// The remediations in state running.
#[derive(Default)]
pub(super) struct Watched {
    running: Mutex<HashMap<RemediationId, Entry>>,
    /// When the next look is, as far as [`Engine::keep_watching`] knows; it is woken for what comes before.
    awaited: Mutex<Option<Instant>>,
    more: Notify,
}

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RemediationId, Entry>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change of a remediation into account.
    pub(super) fn mind(&self, changed: &Arc<Remediation>) {
        let mut running = self.lock();
        if matches!(changed.state, State::Running { .. }) {
            let asking = |one: &Remediation| matches!(one.state, State::Running { asking: true, .. });
            let entry = running.entry(changed.id.clone()).or_insert_with(|| {
                self.hurry(Instant::now() + FIRST);
                Entry { remediation: Arc::clone(changed), next: Instant::now() + FIRST, pause: FIRST }
            });
            if asking(changed) && !asking(&entry.remediation) {
                (entry.next, entry.pause) = (Instant::now(), FIRST);
                self.more.notify_one();
            }
            entry.remediation = Arc::clone(changed);
        } else {
            running.remove(&changed.id);
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
        let next = running.values().map(|entry| entry.next).min();
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = next;
        next
    }

    /// What is due for a look, each put off for longer than the last time.
    fn due(&self) -> Vec<Arc<Remediation>> {
        // Looks that come soon anyway are made together.
        let now = Instant::now();
        let mut running = self.lock();
        let due = running.values_mut().filter(|entry| entry.next <= now + entry.pause / 2);
        due.map(|entry| {
            entry.pause = (entry.pause * 3 / 2).min(LONGEST);
            entry.next = Instant::now() + entry.pause;
            Arc::clone(&entry.remediation)
        })
        .collect()
    }

    /// Whether the deadline of what runs comes within a minute or so.
    fn is_due_soon(&self, id: &RemediationId, now: Timestamp) -> bool {
        let due = self.lock().get(id).and_then(|entry| entry.remediation.state.due_at());
        due.is_some_and(|due| now.until(due) <= SOON)
    }

    /// These run no more, whatever a late snapshot said.
    fn forget(&self, over: &[RemediationId]) {
        let mut running = self.lock();
        for id in over {
            running.remove(id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
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
        let due = self.0.watched.due();
        self.metrics().running.set(i64::try_from(self.0.watched.len()).unwrap_or(i64::MAX));
        let watching: Vec<crate::aws::Watched> = due
            .iter()
            .filter_map(|remediation| {
                let plan = remediation.plan.clone()?;
                Some(crate::aws::Watched {
                    run: remediation.id.clone(),
                    command_id: remediation.command_id.clone(),
                    kind: Kind::of(&plan),
                    instance_id: remediation.target.as_ref()?.instance_id.clone(),
                    first_sent_at: remediation.sent_at?,
                    sent_at: remediation.last_sent_at()?,
                    fence_dir: remediation.fence_dir.clone(),
                    copies: 1 + u32::try_from(remediation.sent_again.len()).unwrap_or(u32::MAX - 1),
                    asking: matches!(remediation.state, State::Running { asking: true, .. }),
                    plan,
                })
            })
            .collect();
        if watching.is_empty() {
            return Duration::ZERO;
        }
        let sight = self.parts().ssm.observe(&watching, self.clock().now()).await;
        let rest = pace.after(&self.parts().ssm, &sight);
        if sight.throttled {
            let running = self.0.watched.len();
            tracing::warn!(running, ?rest, "SSM throttles the polling of what runs; it rests");
        }
        let mut inputs = Vec::new();
        let mut problems = 0;
        for (id, seen) in sight.seen {
            match seen {
                Seen::NotYet => {}
                Seen::Progress(steps) => inputs.push((id, Input::RunSeen { steps })),
                Seen::Found { command_id } => inputs.push((id, Input::SendAccepted { command_id })),
                Seen::Ended(ran) => inputs.push((id, Input::RunEnded { ran })),
                Seen::Silent(why) => inputs.push((id, Input::HostSilent { why })),
                Seen::Problem { why, passing } => {
                    if problems == 0 {
                        tracing::warn!(remediation = %id, why, "SSM could not be asked about {id}: {why}");
                    }
                    problems += 1;
                    if passing {
                        inputs.push((id, Input::RunUnseen { why }));
                    }
                }
            }
        }
        if problems > 1 {
            tracing::warn!(problems, "nor about {} others", problems - 1);
        }
        let mind = |id: &RemediationId, input: &Input| match input {
            // Only a deadline that is near is put off, and only that is worth a transaction.
            Input::RunUnseen { .. } => self.0.watched.is_due_soon(id, self.clock().now()),
            _ => true,
        };
        inputs.retain(|(id, input)| mind(id, input));
        // In pieces: a thousand answers in one transaction would let an alert's acknowledgement wait.
        while !inputs.is_empty() {
            let rest = inputs.split_off(inputs.len().min(PIECE));
            self.keep_seen(std::mem::replace(&mut inputs, rest)).await;
        }
        rest
    }

    /// One transaction of what SSM said.
    async fn keep_seen(&self, inputs: Vec<(RemediationId, Input)>) {
        let ground = self.ground();
        let needs = Needs::default().remediations(inputs.iter().map(|(id, _)| id));
        let decided = self.store().with(needs).transact(move |tx| {
            let mut out = Decided::default();
            let mut over = Vec::new();
            for (id, input) in inputs {
                let taken = apply(tx, &ground, &id, &input, "ssm", &mut out)?;
                if matches!(taken, Err(Refused::Over { .. } | Refused::NotWaiting { .. })) {
                    over.push(id);
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
