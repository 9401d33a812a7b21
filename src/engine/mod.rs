//! claim → read facts → step → commit → perform effects.
//!
//! The engine joins the adapters; what may happen is decided in [`decide`], inside transactions, by
//! the core. Everything said or sent is owed in the store first and carried out after the commit, so
//! start-up is nothing special: what is owed is carried out, what runs is watched, what is due is woken.

mod catch_up;
mod clicks;
mod clock;
mod commands;
mod decide;
mod hearing;
mod in_hand;
mod later;
mod lease;
pub mod metrics;
mod missed;
mod notices;
mod owed;
mod people;
mod perform;
mod react;
mod receive;
mod resume;
mod send;
mod tell;
#[cfg(test)]
mod tests;
mod timer;
mod trim;
mod watch;

use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, watch as channel};

use crate::alert::Sender;
use crate::aws::{Ssm, Targets};
use crate::config::{Config, Mode};
use crate::lifecycle::RemediationId;
use crate::rule::RuleSet;
use crate::slack::{self, Delivery, Identity, send::Queue};
use crate::store::{self, Store};

pub use clock::Clock;
use decide::{Decided, Ground};
pub use lease::{Lease, Patience};
use metrics::Metrics;
use people::People;

/// What the engine is made of.
pub struct Parts {
    pub config: Arc<Config>,
    pub rules: Arc<RuleSet>,
    pub store: Store,
    pub slack: slack::Client,
    pub queue: Queue,
    pub ssm: Ssm,
    pub targets: Targets,
    pub clock: Clock,
    pub identity: Identity,
    /// Ids of the channels where alerts are read; the first takes what belongs to no alert.
    pub channels: Vec<String>,
    pub metrics: Arc<Metrics>,
    /// Held while this process may act for what it has claimed; the queue asks it too.
    pub lease: Lease,
    /// How Socket Mode stands, for `/heal status`.
    pub socket: channel::Receiver<slack::socket::Status>,
}

/// Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    rules: RwLock<Arc<RuleSet>>,
    people: People,
    hearing: hearing::Hearing,
    caught_up: catch_up::CaughtUp,
    alarm: timer::Alarm,
    watched: watch::Watched,
    reactions: react::Reactions,
    newest: perform::Newest,
    in_hand: in_hand::InHand,
    later: later::Later,
    /// Sendings are read as these allow …
    at_hand: tokio::sync::Semaphore,
    /// … and begin as these do.
    turns: tokio::sync::Semaphore,
    /// Deliveries are taken as these allow.
    places: Arc<tokio::sync::Semaphore>,
    /// Read-held by sendings under way, so that a stop can wait for them.
    sending: tokio::sync::RwLock<()>,
    /// The store failed; see [`Engine::keep_minding`].
    in_doubt: tokio::sync::Notify,
    started_at: crate::time::Timestamp,
}

impl Engine {
    pub fn new(parts: Parts) -> Engine {
        let people = People::new(parts.slack.clone(), parts.identity.team_id.clone());
        let rules = RwLock::new(Arc::clone(&parts.rules));
        let started_at = parts.clock.now();
        let socket = (parts.config.slack.mode == Mode::Socket).then(|| parts.socket.clone());
        let hearing = hearing::Hearing::new(socket, parts.channels.clone());
        Engine(Arc::new(Inner {
            parts,
            rules,
            people,
            hearing,
            caught_up: catch_up::CaughtUp::default(),
            alarm: timer::Alarm::default(),
            watched: watch::Watched::default(),
            reactions: react::Reactions::default(),
            newest: perform::Newest::default(),
            in_hand: in_hand::InHand::default(),
            later: later::Later::default(),
            at_hand: tokio::sync::Semaphore::new(send::AT_HAND),
            turns: tokio::sync::Semaphore::new(send::SENT_AT_ONCE),
            places: Arc::new(tokio::sync::Semaphore::new(receive::TAKEN_AT_ONCE)),
            sending: tokio::sync::RwLock::new(()),
            in_doubt: tokio::sync::Notify::new(),
            started_at,
        }))
    }

    /// Takes deliveries and does all that follows from them, until `shutdown` says true. An error when
    /// a part of it ended by itself: then nothing is right any more, and a new start is better.
    pub async fn run(
        &self,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut shutdown: channel::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (resumed, mut catching_up) = self.catch_up_channels();
        while let Err(error) = self.resume().await {
            self.store_failed("reading what is owed", &error);
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                _ = shutdown.wait_for(|stop| *stop) => return Ok(()),
            }
        }
        resumed.send_replace(true);
        let mut time = tokio::spawn({
            let engine = self.clone();
            async move {
                // What resolved while nobody listened must not run because its grace is over.
                engine.first_looks().await;
                engine.keep_time().await
            }
        });
        let mut begin = tokio::spawn({
            let engine = self.clone();
            async move { engine.keep_begun().await }
        });
        let mut watch = tokio::spawn({
            let engine = self.clone();
            async move { engine.keep_watching().await }
        });
        let mut lease = tokio::spawn({
            let engine = self.clone();
            async move {
                tokio::select! {
                    fenced = engine.keep_lease() => fenced,
                    () = engine.keep_limits() => std::future::pending().await,
                    () = engine.keep_minding() => std::future::pending().await,
                }
            }
        });
        let mut trim = tokio::spawn({
            let engine = self.clone();
            async move { engine.keep_trimmed().await }
        });
        let ended = loop {
            tokio::select! {
                delivery = self.next(&mut deliveries) => match delivery {
                    Some(delivery) => self.take(delivery),
                    None => break Ok(()),
                },
                ended = &mut time => break Err(anyhow::anyhow!("the timers ended: {ended:?}")),
                ended = &mut lease => break Err(match ended {
                    Ok(taken) => lease::taken_over(&taken),
                    Err(error) => anyhow::anyhow!("the lease ended: {error}"),
                }),
                ended = &mut begin => break Err(anyhow::anyhow!("the look for room ended: {ended:?}")),
                ended = &mut watch => break Err(anyhow::anyhow!("the watching of SSM ended: {ended:?}")),
                ended = &mut trim => break Err(anyhow::anyhow!("the trimming of the store ended: {ended:?}")),
                Some(ended) = catching_up.join_next() => break Err(anyhow::anyhow!("the reading of history ended: {ended:?}")),
                _ = shutdown.wait_for(|stop| *stop) => break Ok(()),
            }
        };
        catching_up.abort_all();
        time.abort();
        begin.abort();
        watch.abort();
        lease.abort();
        trim.abort();
        self.keep_passed().await;
        // A command on its way to SSM gets its answer: what is unclear needs a person.
        let patience = std::time::Duration::from_secs(8);
        if tokio::time::timeout(patience, self.0.sending.write()).await.is_err() {
            tracing::warn!("a command was still on its way to SSM; the next start looks it up");
        }
        ended
    }

    /// Looks up who the approvers are, so that the first click need not wait, and says which groups
    /// do not resolve: nobody of those may approve.
    pub fn warm(&self) {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut all = engine.config().approvers.clone();
            all.extend(engine.rules().iter().flat_map(|rule| rule.approvers.iter().cloned()));
            all.sort();
            all.dedup();
            for problem in engine.people().warm(&all).await {
                tracing::error!("approvers that cannot be looked up may do nothing: {problem}");
            }
        });
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn store(&self) -> &Store {
        &self.0.parts.store
    }

    fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    fn config(&self) -> &Config {
        &self.0.parts.config
    }

    fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    fn people(&self) -> &People {
        &self.0.people
    }

    fn hearing(&self) -> &hearing::Hearing {
        &self.0.hearing
    }

    fn alarm(&self) -> &timer::Alarm {
        &self.0.alarm
    }

    fn rules(&self) -> Arc<RuleSet> {
        Arc::clone(&self.0.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What decisions of this moment look at.
    fn ground(&self) -> Ground {
        Ground {
            rules: self.rules(),
            now: self.clock().now(),
            max_age: self.config().limits.max_age,
            hearing: self.hearing().clone(),
            fence_dir: self.config().aws.fence_dir.as_str().into(),
        }
    }

    fn senders(&self) -> &[Arc<Sender>] {
        &self.0.parts.config.senders
    }

    fn store_failed(&self, doing: &str, error: &store::Error) {
        if matches!(error, store::Error::Stopped) {
            // The bot is ending; what is owed stays owed, and the next start goes on with it.
            tracing::debug!("{doing} came after the store was closed");
            return;
        }
        self.metrics().store_errors.inc();
        self.0.in_doubt.notify_one();
        tracing::error!(%error, "{doing} failed in the store");
    }

    /// After the commit: performs what is owed and minds what is due.
    fn carry_out(&self, decided: Decided) {
        for name in &decided.entered {
            self.metrics().remediations.get_or_create(&metrics::NameLabel { name }).inc();
        }
        for changed in decided.changed.values() {
            self.note_change(changed);
        }
        if let Some(due) = decided.due_at {
            self.alarm().set(due);
        }
        for notice in decided.notices {
            if self.0.in_hand.begin_notice(&notice.id) {
                self.announce(notice, false);
            }
        }
        for owed in decided.owed {
            if let Some(remediation) = decided.changed.get(&owed.remediation) {
                self.perform(owed, Arc::clone(remediation), false);
            }
        }
    }

    /// Minds what was claimed from a process that is gone.
    fn mind(&self, claimed: Arc<crate::lifecycle::Remediation>) {
        if let Some(due) = claimed.state.due_at() {
            self.alarm().set(due);
        }
        self.0.watched.mind(&claimed);
    }

    /// Logs a change, counts what was held, and watches what runs.
    fn note_change(&self, changed: &Arc<crate::lifecycle::Remediation>) {
        use crate::lifecycle::{Ending, State};
        let (id, key, state) = (&changed.id, &changed.rule_key, changed.state.name());
        match &changed.state {
            State::Ended { outcome, why, .. } => {
                if let Ending::Gate { reason } = why {
                    self.metrics().held.get_or_create(&metrics::NameLabel { name: reason.name() }).inc();
                }
                tracing::info!(remediation = %id, rule = %key, outcome = outcome.as_str(), "remediation {id} of {key}: {}", outcome.as_str());
            }
            _ => {
                tracing::debug!(remediation = %id, rule = %key, state, "remediation {id} of {key} is {state}")
            }
        }
        self.0.watched.mind(changed);
    }
}

/// A fresh id: 12 characters, 60 bits. Without `x`, which counts successors of a withdrawn one.
fn fresh_id() -> RemediationId {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwyz2345679";
    let id = (0..12).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect();
    RemediationId(id)
}
