//! Effects, carried out. Each is owed in the store before and settled there after; texts are rendered
//! from the remediation as it is now, so that of several owed updates only the newest is sent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Engine;
use super::decide::{Decided, Ground, apply, plan_for};
use crate::lifecycle::{Effect, Ending, Input, Remediation, RemediationId, State};
use crate::message::{self, Said};
use crate::plan::Unusable;
use crate::rule::Stage;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::slack::{Metadata, Post, Text, Upload};
use crate::store::{self, Needs, Owed, Tx};

/// "Sent" and "running" wait so long for what comes next where nobody pressed anything, as reactions do:
/// Slack takes some fifty updates a minute, and what is over by then is one.
const GATHER: Duration = Duration::from_millis(250);

/// The newest generation of each update that was handed to the queue.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    generations: HashMap<(RemediationId, Effect), (i64, Instant)>,
    /// Grown to this size, what is old goes.
    sweep_at: usize,
}

impl Newest {
    /// Whether this is the newest so far, or as new.
    fn take(&self, owed: &Owed) -> bool {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.generations.len() > taken.sweep_at {
            taken.generations.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(600));
            // Where little was old the next sweep is far off, or a burst would sweep at every turn.
            taken.sweep_at = (taken.generations.len() * 2).max(10_000);
        }
        let newest = &mut taken.generations;
        let key = (owed.remediation.clone(), owed.effect);
        let (generation, at) = newest.entry(key).or_insert((owed.generation, Instant::now()));
        if owed.generation < *generation {
            return false;
        }
        (*generation, *at) = (owed.generation, Instant::now());
        true
    }

    /// Whether none came after it.
    fn is_newest(&self, owed: &Owed) -> bool {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (owed.remediation.clone(), owed.effect);
        taken.generations.get(&key).is_none_or(|(generation, _)| *generation <= owed.generation)
    }
}

impl Engine {
    /// Carries an owed effect out, unless somebody has it in hand; later, where there is no room. `again`:
    /// it may have happened before, by a process that is gone.
    pub(super) fn perform(&self, owed: Owed, remediation: Arc<Remediation>, again: bool) {
        if self.0.in_hand.begin(&owed) {
            self.carry_or_keep(owed, remediation, again);
        }
    }

    /// Carries out what is in hand, now or when there is room.
    pub(super) fn carry_or_keep(&self, owed: Owed, remediation: Arc<Remediation>, again: bool) {
        if self.0.in_hand.has_room(&owed, &remediation.origin.channel, again) {
            self.carry(owed, remediation, again);
        }
    }

    /// Carries out what is in hand and has its place.
    pub(super) fn carry(&self, owed: Owed, remediation: Arc<Remediation>, again: bool) {
        let updates = matches!(owed.effect, Effect::UpdateDeclaration | Effect::UpdateReport);
        if updates && !self.0.newest.take(&owed) {
            // A newer one is on its way already; two tasks carried out two commits.
            return self.0.in_hand.end(&owed);
        }
        let engine = self.clone();
        match owed.effect {
            Effect::Resolve => drop(tokio::spawn(async move { engine.resolve(owed, &remediation).await })),
            Effect::Declare => {
                let said = message::declaration(&remediation, &self.words());
                let job = self.post(&remediation, "declaration", said, Priority::Declaration, again);
                let done = self.parts().queue.submit(job.merging(waiting("declaration", &remediation.id)));
                tokio::spawn(async move {
                    // Boxed, here and below: thousands may wait, and what waits should be small.
                    let done = done.await;
                    Box::pin(engine.declared(owed, done)).await;
                });
            }
            Effect::UpdateDeclaration => match &remediation.declaration {
                Some(_) if passes(&remediation) => {
                    tokio::spawn(async move {
                        tokio::time::sleep(GATHER).await;
                        match engine.0.newest.is_newest(&owed) {
                            true => engine.update_declaration(owed, &remediation),
                            // What took its place settles it.
                            false => engine.0.in_hand.end(&owed),
                        }
                    });
                }
                Some(_) => self.update_declaration(owed, &remediation),
                // It is still on its way; the step that takes its `ts` owes the update again. While it
                // waits, it learns what it has to say now: what is over must not be declared as if it were not.
                None => {
                    let said = message::declaration(&remediation, &self.words());
                    self.freshen(&remediation, "declaration", said);
                    tokio::spawn(async move { engine.settled(&owed).await });
                }
            },
            Effect::SayWhyNot => self.say_why_not(owed, &remediation, again),
            Effect::Send => {
                drop(tokio::spawn(async move { engine.send_in_turn(owed, remediation, again).await }));
            }
            Effect::Report => {
                let said = message::report(&remediation, &self.words());
                let job = self.post(&remediation, "report", said, Priority::Report, again);
                let done = self.parts().queue.submit(job.merging(waiting("report", &remediation.id)));
                tokio::spawn(async move {
                    let done = done.await;
                    Box::pin(engine.reported(owed, &remediation, done, again)).await;
                });
            }
            Effect::UpdateReport => match &remediation.report {
                Some(ts) => {
                    let said = message::report(&remediation, &self.words());
                    self.update(owed, &remediation, ts, said, Priority::Report);
                }
                None => {
                    let said = message::report(&remediation, &self.words());
                    self.freshen(&remediation, "report", said);
                    tokio::spawn(async move { engine.settled(&owed).await });
                }
            },
            Effect::Attach => self.attach(owed, &remediation, again),
            Effect::React => self.react(owed, &remediation),
            // Decided within the transaction; nothing is left to do outside.
            Effect::Reopen => drop(tokio::spawn(async move { engine.settled(&owed).await })),
        }
    }

    /// What messages need to know besides their subject.
    pub(super) fn words(&self) -> message::Context {
        message::Context {
            now: self.clock().now(),
            approvers: self.config().approvers.clone(),
            groups: self.people().groups(),
        }
    }

    /// A post in the alert's thread, marked so that it is found again when its answer is lost.
    fn post(
        &self,
        remediation: &Remediation,
        part: &str,
        said: Said,
        priority: Priority,
        again: bool,
    ) -> Job {
        let thread = Some(remediation.origin.ts.clone()).filter(|ts| !ts.is_empty());
        let post = Post {
            channel: remediation.origin.channel.clone(),
            thread_ts: thread,
            text: text(said),
            metadata: Some(Metadata {
                event_type: "heal".to_owned(),
                payload: serde_json::json!({ "remediation": remediation.id.0, "part": part }),
            }),
        };
        let job = Job::new(Call::Post(post), priority).in_order(order(&remediation.id));
        if again { job.maybe_done() } else { job }
    }

    fn update_declaration(&self, owed: Owed, remediation: &Remediation) {
        let Some(ts) = &remediation.declaration else { return };
        let said = message::declaration(remediation, &self.words());
        self.update(owed, remediation, ts, said, Priority::Declaration);
    }

    /// A post that still waits in the queue says this instead.
    fn freshen(&self, remediation: &Remediation, part: &str, said: Said) {
        let job = self.post(remediation, part, said, Priority::Report, false);
        self.parts().queue.freshen(waiting(part, &remediation.id), job.call);
    }

    /// An update of a message; a newer one takes the place of one that still waits.
    fn update(&self, owed: Owed, remediation: &Remediation, ts: &str, said: Said, priority: Priority) {
        let channel = remediation.origin.channel.clone();
        let merge = format!("{channel}:{ts}");
        let call = Call::Update { channel, ts: ts.to_owned(), text: text(said) };
        let job = Job::new(call, priority).in_order(order(&remediation.id)).merging(merge);
        let done = self.parts().queue.submit(job);
        let engine = self.clone();
        tokio::spawn(async move {
            match done.await {
                Done::Sent { .. } => Box::pin(engine.settled(&owed)).await,
                // What took its place settles it.
                Done::Superseded => engine.0.in_hand.end(&owed),
                Done::GaveUp(error) => {
                    engine.gave_up("updating a message", &owed, &error);
                    Box::pin(engine.settle_or_retry(owed, &error)).await;
                }
            }
        });
    }

    fn say_why_not(&self, owed: Owed, remediation: &Remediation, again: bool) {
        let engine = self.clone();
        let key = remediation.rule_key.to_string();
        let said = match &remediation.state {
            // Nothing to answer to: who asked by `/heal run` was told in private.
            _ if remediation.origin.ts.is_empty() => None,
            State::Ended { why: Ending::Gate { reason }, .. } => {
                Some(message::why_not_here(reason, &key, remediation.policy.owner.as_deref(), &self.words()))
            }
            State::Ended { why: Ending::ResolvedItself, .. } => Some(message::resolved_itself(&key)),
            _ => None,
        };
        let Some(said) = said else {
            tokio::spawn(async move { engine.settled(&owed).await });
            return;
        };
        let done =
            self.parts().queue.submit(self.post(remediation, "why_not", said, Priority::Declaration, again));
        tokio::spawn(async move {
            match done.await {
                Done::Sent { .. } | Done::Superseded => engine.settled(&owed).await,
                Done::GaveUp(error) => {
                    engine.gave_up("saying why nothing runs", &owed, &error);
                    engine.settle_or_retry(owed, &error).await;
                }
            }
        });
    }

    /// Slack took the declaration, or never will.
    async fn declared(&self, owed: Owed, done: Done) {
        let input = match done {
            Done::Sent { ts: Some(ts) } => Input::DeclarationPosted { ts },
            // It stands somewhere: it is looked for.
            Done::Sent { ts: None } => return self.retry_later(owed, None),
            // What took its place settles it.
            Done::Superseded => return self.0.in_hand.end(&owed),
            Done::GaveUp(error) => {
                self.gave_up("posting a declaration", &owed, &error);
                if !error.is_final() {
                    self.retry_later(owed, Some(error));
                    return;
                }
                Input::DeclarationRefused { why: error.to_string() }
            }
        };
        self.settle_with(owed, input).await;
    }

    /// Slack took the report: its place is kept, and the output is owed after it where it did not fit.
    async fn reported(&self, owed: Owed, rendered: &Arc<Remediation>, done: Done, again: bool) {
        let ts = match done {
            Done::Sent { ts: Some(ts) } => ts,
            // It stands somewhere: it is looked for.
            Done::Sent { ts: None } => return self.retry_later(owed, None),
            // What took its place settles it.
            Done::Superseded => return self.0.in_hand.end(&owed),
            Done::GaveUp(error) => {
                self.gave_up("posting a report", &owed, &error);
                if !error.is_final() {
                    self.retry_later(owed, Some(error));
                    return;
                }
                // Slack may refuse these blocks and still take the text: an outcome is never silent.
                let mut said = message::report(rendered, &self.words());
                said.blocks.clear();
                let plain = self.post(rendered, "report_text", said, Priority::Report, again);
                match self.parts().queue.submit(plain).await {
                    Done::Sent { ts: Some(ts) } => ts,
                    Done::GaveUp(error) if !error.is_final() => {
                        return self.retry_later(owed, Some(error));
                    }
                    _ => return self.settled(&owed).await,
                }
            }
        };
        let (said_of, done) = (rendered.state.clone(), owed.clone());
        let needs = Needs::default().remediation(&done.remediation);
        self.persist("keeping a report's place", needs, {
            let id = owed.remediation.clone();
            move |tx, ground| {
                let mut out = Decided::default();
                tx.settle(&owed)?;
                let posted = Input::ReportPosted { ts: ts.clone() };
                let taken = apply(tx, ground, &id, &posted, "heal", &mut out)?;
                let Some((now, _)) = tx.remediation(&id)? else { return Ok(out) };
                // The outcome came while the report was on its way: it has to say so. One that was found
                // from before a restart may say anything older.
                if again || now.state != said_of {
                    out.owe(tx.me(), tx.owe(&id, Effect::UpdateReport)?);
                }
                if taken.is_ok() && message::attachment(&now).is_some() {
                    out.owe(tx.me(), tx.owe(&id, Effect::Attach)?);
                }
                out.changed.insert(id.clone(), Arc::new(now));
                Ok(out)
            }
        })
        .await;
        self.0.in_hand.end(&done);
    }

    /// The output goes after the report as a file. Repeated, it is looked for by the file's name.
    fn attach(&self, owed: Owed, remediation: &Remediation, again: bool) {
        let engine = self.clone();
        let Some(file) = message::attachment(remediation) else {
            tokio::spawn(async move { engine.settled(&owed).await });
            return;
        };
        let upload = Upload {
            channel: remediation.origin.channel.clone(),
            thread_ts: remediation.origin.ts.clone(),
            filename: file.name,
            title: file.title,
            bytes: Bytes::from(file.content.into_bytes()),
        };
        let job = Job::new(Call::Upload(upload), Priority::Report);
        let done = self.parts().queue.submit(if again { job.maybe_done() } else { job });
        tokio::spawn(async move {
            match done.await {
                Done::Sent { .. } | Done::Superseded => engine.settled(&owed).await,
                Done::GaveUp(error) => {
                    engine.gave_up("uploading the output", &owed, &error);
                    engine.settle_or_retry(owed, &error).await;
                }
            }
        });
    }

    /// Looks the node up, and hands the plan for it to the lifecycle. While AWS is away it tries on,
    /// for as long as the remediation waits for it.
    async fn resolve(&self, owed: Owed, remediation: &Remediation) {
        let State::Resolving { until } = remediation.state else { return self.settled(&owed).await };
        let mut pause = Duration::from_secs(2);
        let found = loop {
            let found = self.parts().targets.resolve(&remediation.alert).await;
            match &found {
                Err(Unusable::LookupFailed { why }) if self.clock().now().plus(pause) < until => {
                    tracing::warn!(remediation = %owed.remediation, why, "the node of {} could not be looked up; trying again", owed.remediation);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                _ => break found,
            }
        };
        let rules = self.rules();
        let found = match rules.get(&remediation.rule_key) {
            Some(rule) => found.and_then(|target| plan_for(rule, &remediation.alert, target)),
            None => Err(Unusable::Unfit { why: format!("the rule {} is gone", remediation.rule_key) }),
        };
        self.settle_with(owed, Input::TargetResolved(found)).await;
    }

    /// The effect is done, and this came of it: both in one transaction.
    pub(super) async fn settle_with(&self, owed: Owed, input: Input) {
        let done = owed.clone();
        // It frees nothing and counts nothing, so that no other decision has to wait for it.
        let accepted = matches!(input, Input::SendAccepted { .. });
        let needs = Needs::default().remediation(&owed.remediation);
        let work = move |tx: &mut dyn Tx, ground: &Ground| {
            let mut out = Decided::default();
            tx.settle(&owed)?;
            drop(apply(tx, ground, &owed.remediation, &input, "heal", &mut out)?);
            Ok(out)
        };
        match accepted {
            true => self.persist_claimed("keeping what came of an effect", needs, work).await,
            false => self.persist("keeping what came of an effect", needs, work).await,
        }
        self.0.in_hand.end(&done);
    }

    /// The effect is done and nothing came of it.
    pub(super) async fn settled(&self, owed: &Owed) {
        let done = owed.clone();
        let work = move |tx: &mut dyn Tx, _: &Ground| tx.settle(&done).map(|()| Decided::default());
        self.persist_claimed("settling an effect", Needs::default(), work).await;
        self.0.in_hand.end(owed);
    }

    /// Keeps what happened outside, however long the store is in trouble: it cannot be unhappened.
    pub(super) async fn persist<F>(&self, doing: &'static str, needs: Needs, work: F)
    where
        F: Fn(&mut dyn Tx, &Ground) -> store::Result<Decided> + Clone + Send + 'static,
    {
        let keep = || {
            let (ground, work) = (self.ground(), work.clone());
            self.store().with(needs.clone()).transact(move |tx| work(tx, &ground))
        };
        self.keep_trying(doing, keep).await;
    }

    /// As [`Engine::persist`], for what touches only what this process has claimed and counts nothing.
    async fn persist_claimed<F>(&self, doing: &'static str, needs: Needs, work: F)
    where
        F: Fn(&mut dyn Tx, &Ground) -> store::Result<Decided> + Clone + Send + 'static,
    {
        let keep = || {
            let (ground, work) = (self.ground(), work.clone());
            self.store().with(needs.clone()).transact_claimed(move |tx| work(tx, &ground))
        };
        self.keep_trying(doing, keep).await;
    }

    async fn keep_trying<W>(&self, doing: &'static str, keep: impl Fn() -> W)
    where
        W: Future<Output = store::Result<Decided>>,
    {
        let mut pause = Duration::from_millis(200);
        loop {
            match keep().await {
                Ok(decided) => return self.carry_out(decided),
                Err(error) if error.is_final() => return,
                Err(error) => self.store_failed(doing, &error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

/// The key under which a post is found in the queue while it waits.
fn waiting(part: &str, id: &RemediationId) -> String {
    format!("{part}:{}", id.0)
}

/// Messages of one remediation go in order.
pub(super) fn order(id: &RemediationId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn text(said: Said) -> Text {
    Text { text: said.text, blocks: said.blocks.into() }
}

/// Whether it goes on by itself, and soon, and nobody pressed a button and looks for what it does.
fn passes(remediation: &Remediation) -> bool {
    remediation.policy.stage == Stage::Auto
        && matches!(remediation.state, State::Sending { .. } | State::Running { .. })
}

/// Whether a remediation's plan may be given to SSM now.
pub(super) fn is_sending(remediation: &Remediation) -> bool {
    matches!(remediation.state, State::Sending { .. })
}
