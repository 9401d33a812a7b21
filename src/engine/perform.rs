//! Effects, carried out. Each is owed in the store before and settled there after; texts are rendered
//! from the remediation as it is now, so that of several owed updates only the newest is sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::Engine;
use super::decide::{Decided, apply, plan_for};
use super::receive::held_for;
use crate::lifecycle::{Effect, Input, Remediation, RemediationId, State};
use crate::message::{self, Said};
use crate::plan::Unusable;
use crate::slack::send::{Call, Done, Job, Priority};
use crate::slack::{Metadata, Post, Text, Upload};
use crate::store::{self, Owed};

impl Engine {
    /// Carries an owed effect out. `again`: it may have happened before a restart.
    pub(super) fn perform(&self, owed: Owed, remediation: Arc<Remediation>, again: bool) {
        let engine = self.clone();
        match owed.effect {
            Effect::Resolve => drop(tokio::spawn(async move { engine.resolve(owed, &remediation).await })),
            Effect::Declare => {
                let said = message::declaration(&remediation, &self.words());
                let job = self.post(&remediation, "declaration", said, Priority::Declaration, again);
                let done = self.parts().queue.submit(job);
                tokio::spawn(async move { engine.declared(owed, done.await).await });
            }
            Effect::UpdateDeclaration => match &remediation.declaration {
                Some(ts) => {
                    let said = message::declaration(&remediation, &self.words());
                    self.update(owed, &remediation, ts, said, Priority::Declaration);
                }
                // It is still on its way; the step that takes its `ts` owes the update again.
                None => drop(tokio::spawn(async move { engine.settled(&owed).await })),
            },
            Effect::SayWhyNot => self.say_why_not(owed, &remediation, again),
            Effect::Send => drop(tokio::spawn(async move { engine.send(owed, &remediation, again).await })),
            Effect::Report => {
                let said = message::report(&remediation, &self.words());
                let job = self.post(&remediation, "report", said, Priority::Report, again);
                let done = self.parts().queue.submit(job);
                tokio::spawn(async move { engine.reported(owed, &remediation, done.await, again).await });
            }
            Effect::UpdateReport => match &remediation.report {
                Some(ts) => {
                    let said = message::report(&remediation, &self.words());
                    self.update(owed, &remediation, ts, said, Priority::Report);
                }
                None => drop(tokio::spawn(async move { engine.settled(&owed).await })),
            },
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

    /// An update of a message; a newer one takes the place of one that still waits.
    fn update(&self, owed: Owed, remediation: &Remediation, ts: &str, said: Said, priority: Priority) {
        let channel = remediation.origin.channel.clone();
        let merge = format!("{channel}:{ts}");
        let call = Call::Update { channel, ts: ts.to_owned(), text: text(said) };
        let job = Job::new(call, priority).in_order(order(&remediation.id)).merging(merge);
        let done = self.parts().queue.submit(job);
        let engine = self.clone();
        tokio::spawn(async move {
            if let Done::GaveUp(error) = done.await {
                engine.gave_up("updating a message", &owed, &error);
                if !error.is_permanent() {
                    return; // Still owed; the next start does it.
                }
            }
            engine.settled(&owed).await;
        });
    }

    fn say_why_not(&self, owed: Owed, remediation: &Remediation, again: bool) {
        let engine = self.clone();
        let reason = held_for(remediation).filter(|_| !remediation.origin.ts.is_empty());
        let Some(reason) = reason else {
            // Nothing to answer to: who asked by `/heal run` was told in private.
            tokio::spawn(async move { engine.settled(&owed).await });
            return;
        };
        let said = message::why_not(reason, &remediation.rule_key.to_string(), &self.words());
        let done =
            self.parts().queue.submit(self.post(remediation, "why_not", said, Priority::Declaration, again));
        tokio::spawn(async move {
            if let Done::GaveUp(error) = done.await {
                engine.gave_up("saying why nothing runs", &owed, &error);
                if !error.is_permanent() {
                    return;
                }
            }
            engine.settled(&owed).await;
        });
    }

    /// Slack took the declaration, or never will.
    async fn declared(&self, owed: Owed, done: Done) {
        let input = match done {
            Done::Sent { ts: Some(ts) } => Input::DeclarationPosted { ts },
            Done::Sent { ts: None } => {
                Input::DeclarationRefused { why: "Slack did not say where it stands".to_owned() }
            }
            Done::Superseded => return,
            Done::GaveUp(error) => {
                self.gave_up("posting a declaration", &owed, &error);
                if !error.is_permanent() {
                    return;
                }
                Input::DeclarationRefused { why: error.to_string() }
            }
        };
        self.settle_with(owed, input).await;
    }

    /// Slack took the report: the output goes after it where it did not fit.
    async fn reported(&self, owed: Owed, rendered: &Remediation, done: Done, again: bool) {
        let ts = match done {
            Done::Sent { ts: Some(ts) } => ts,
            Done::Sent { ts: None } | Done::Superseded => return,
            Done::GaveUp(error) => {
                self.gave_up("posting a report", &owed, &error);
                if error.is_permanent() {
                    self.settled(&owed).await;
                }
                return;
            }
        };
        if let Some(file) = message::attachment(rendered) {
            let upload = Upload {
                channel: rendered.origin.channel.clone(),
                thread_ts: rendered.origin.ts.clone(),
                filename: file.name,
                title: file.title,
                bytes: Bytes::from(file.content.into_bytes()),
            };
            let job = Job::new(Call::Upload(upload), Priority::Report);
            let job = if again { job.maybe_done() } else { job };
            if let Done::GaveUp(error) = self.parts().queue.submit(job).await {
                self.gave_up("uploading the output", &owed, &error);
            }
        }
        let said_of = rendered.state.clone();
        let ground = self.ground();
        let settled = self.store().transact(move |tx| {
            let mut out = Decided::default();
            tx.settle(&owed)?;
            drop(apply(tx, &ground, &owed.remediation, &Input::ReportPosted { ts }, "heal", &mut out)?);
            // The outcome came while the report was on its way: it has to say so.
            if let Some((now, _)) = tx.remediation(&owed.remediation)?
                && now.state != said_of
            {
                let update = tx.owe(&owed.remediation, Effect::UpdateReport)?;
                out.changed.insert(owed.remediation.clone(), Arc::new(now));
                out.owed.push(update);
            }
            Ok(out)
        });
        match settled.await {
            Ok(out) => self.carry_out(out),
            Err(error) => self.store_failed("keeping a report's place", &error),
        }
    }

    /// Looks the node up, and hands the plan for it to the lifecycle.
    async fn resolve(&self, owed: Owed, remediation: &Remediation) {
        let found = self.parts().targets.resolve(&remediation.alert).await;
        let rules = self.rules();
        let found = match rules.get(&remediation.rule_key) {
            Some(rule) => found.and_then(|target| plan_for(rule, &remediation.alert, target)),
            None => Err(Unusable::Unfit { why: format!("the rule {} is gone", remediation.rule_key) }),
        };
        self.settle_with(owed, Input::TargetResolved(found)).await;
    }

    /// The effect is done, and this came of it: both in one transaction.
    pub(super) async fn settle_with(&self, owed: Owed, input: Input) {
        let ground = self.ground();
        let decided = self.store().transact(move |tx| {
            let mut out = Decided::default();
            tx.settle(&owed)?;
            drop(apply(tx, &ground, &owed.remediation, &input, "heal", &mut out)?);
            Ok(out)
        });
        match decided.await {
            Ok(decided) => self.carry_out(decided),
            Err(error) => self.store_failed("keeping what came of an effect", &error),
        }
    }

    /// The effect is done and nothing came of it.
    pub(super) async fn settled(&self, owed: &Owed) {
        let owed = owed.clone();
        let settled: store::Result<_> = self.store().transact(move |tx| tx.settle(&owed)).await;
        if let Err(error) = settled {
            self.store_failed("settling an effect", &error);
        }
    }

    pub(super) fn gave_up(&self, doing: &str, owed: &Owed, error: &crate::slack::Error) {
        self.metrics().slack_given_up.inc();
        let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        tracing::error!(
            remediation = %owed.remediation, %error,
            "{doing} of remediation {} failed for good: {error}{hint}", owed.remediation
        );
    }
}

/// Messages of one remediation go in order.
pub(super) fn order(id: &RemediationId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn text(said: Said) -> Text {
    Text { text: said.text, blocks: said.blocks }
}

/// Whether a remediation's plan may be given to SSM now.
pub(super) fn is_sending(remediation: &Remediation) -> bool {
    matches!(remediation.state, State::Sending { .. })
}
