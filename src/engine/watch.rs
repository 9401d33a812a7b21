//! What SSM runs for us, followed to its end by one shared poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Engine;
use super::decide::{Decided, apply};
use crate::aws::{Kind, Seen};
use crate::lifecycle::{Input, Refused, Remediation, RemediationId, State};

/// The first look after the sending, and the longest between two.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);

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
            let entry = running.entry(changed.id.clone()).or_insert_with(|| {
                self.hurry(Instant::now() + FIRST);
                Entry { remediation: Arc::clone(changed), next: Instant::now() + FIRST, pause: FIRST }
            });
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
        let soon = Instant::now() + FIRST / 2;
        let mut running = self.lock();
        let due = running.values_mut().filter(|entry| entry.next <= soon);
        due.map(|entry| {
            entry.pause = (entry.pause * 3 / 2).min(LONGEST);
            entry.next = Instant::now() + entry.pause;
            Arc::clone(&entry.remediation)
        })
        .collect()
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
        loop {
            match self.0.watched.next() {
                None => self.0.watched.more.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = self.0.watched.more.notified() => continue,
                    }
                    self.look().await;
                }
            }
        }
    }

    async fn look(&self) {
        let due = self.0.watched.due();
        self.metrics().running.set(i64::try_from(self.0.watched.len()).unwrap_or(i64::MAX));
        let watching: Vec<crate::aws::Watched> = due
            .iter()
            .filter_map(|remediation| {
                let plan = remediation.plan.clone()?;
                Some(crate::aws::Watched {
                    run: remediation.id.clone(),
                    command_id: remediation.command_id.clone()?,
                    kind: Kind::of(&plan),
                    instance_id: remediation.target.as_ref()?.instance_id.clone(),
                    sent_at: remediation.sent_at?,
                    plan,
                })
            })
            .collect();
        if watching.is_empty() {
            return;
        }
        let seen = self.parts().ssm.observe(&watching, self.clock().now()).await;
        let mut inputs = Vec::new();
        for (id, seen) in seen {
            match seen {
                Seen::NotYet => {}
                Seen::Progress(steps) => inputs.push((id, Input::RunSeen { steps })),
                Seen::Ended(ran) => inputs.push((id, Input::RunEnded { ran })),
                Seen::Problem(why) => {
                    tracing::warn!(remediation = %id, why, "SSM could not be asked about {id}: {why}");
                }
            }
        }
        // In pieces: a thousand answers in one transaction would let an alert's acknowledgement wait.
        while !inputs.is_empty() {
            let rest = inputs.split_off(inputs.len().min(PIECE));
            self.keep_seen(std::mem::replace(&mut inputs, rest)).await;
        }
    }

    /// One transaction of what SSM said.
    async fn keep_seen(&self, inputs: Vec<(RemediationId, Input)>) {
        let ground = self.ground();
        let decided = self.store().transact(move |tx| {
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
