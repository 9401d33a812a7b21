//! Buttons. A click is checked (who, on what, still waiting?), recorded with its answer, and answered:
//! nobody who presses is left in silence, and a refusal changes nothing.

use serde_json::Value;

use super::commands::pause_now;
use super::decide::{Decided, Opening, apply, open};
use super::people::Denied;
use super::{Engine, fresh_id, notices};
use crate::lifecycle::{Ending, Input, Outcome, Refused, Remediation, RemediationId, State, Trigger};
use crate::message::{self, AGAIN, APPROVE, HOLD, PAUSE, REJECT};
use crate::slack::send::{Call, Job, Priority};
use crate::slack::{Ack, Blocks, Text};
use crate::store::{self, Record, Tx};
use crate::text::clean;
use crate::time::Timestamp;

/// A press, read leniently: what is missing is empty and matches nothing.
struct Press {
    user: String,
    team: Option<String>,
    channel: String,
    message_ts: String,
    thread_ts: Option<String>,
    action: String,
    value: String,
    /// Names the press; Slack may deliver it twice.
    delivery: String,
}

fn read(payload: &Value) -> Option<Press> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let action = payload["actions"].as_array()?.first()?;
    let user = text(&payload["user"]["id"])?;
    let channel = text(&payload["channel"]["id"]).or_else(|| text(&payload["container"]["channel_id"]))?;
    let message_ts = text(&payload["message"]["ts"]).or_else(|| text(&payload["container"]["message_ts"]))?;
    let action_ts = text(&action["action_ts"]).unwrap_or_default();
    let delivery = match text(&payload["trigger_id"]).filter(|id| !id.is_empty()) {
        Some(id) => id,
        None if action_ts.is_empty() => fresh_id().0,
        None => format!("{user}:{message_ts}:{action_ts}"),
    };
    Some(Press {
        team: text(&payload["user"]["team_id"]),
        thread_ts: text(&payload["message"]["thread_ts"])
            .or_else(|| text(&payload["container"]["thread_ts"])),
        action: text(&action["action_id"])?,
        value: text(&action["value"]).unwrap_or_default(),
        user,
        channel,
        message_ts,
        delivery,
    })
}

/// What a press came to.
enum Came {
    /// It did what it says; the messages show it.
    Done(Decided),
    Refused(Decided, String),
    /// Slack delivered it twice.
    Repeated,
}

impl Engine {
    pub(super) async fn take_interaction(&self, payload: Value, ack: Ack) {
        let Some(press) = read(&payload) else {
            if payload["type"].as_str() == Some("block_actions") {
                self.metrics().malformed.inc();
                tracing::warn!("a click that cannot be read; it changes nothing");
            }
            ack.done(None);
            return;
        };
        match self.press(&press).await {
            Ok(came) => {
                ack.done(None);
                match came {
                    Came::Done(decided) => self.carry_out(decided),
                    Came::Refused(decided, why) => {
                        self.carry_out(decided);
                        self.metrics().refused_clicks.inc();
                        self.tell(&press, why);
                    }
                    Came::Repeated => {
                        self.metrics().duplicates.inc();
                    }
                }
            }
            Err(error) => {
                self.store_failed("keeping a click (not acknowledged)", &error);
                // A commit whose answer was lost may count.
                let uncertain = "heal's database did not answer, so your press may have been kept or not. Look at the declaration in a moment, and press again if it does not show it.";
                self.tell(&press, uncertain.to_owned());
            }
        }
    }

    /// Answers the presser in private, where the message stands.
    fn tell(&self, press: &Press, text: String) {
        let call = Call::Ephemeral {
            channel: press.channel.clone(),
            user: press.user.clone(),
            thread_ts: press.thread_ts.clone(),
            text: Text { text, blocks: Blocks::default() },
        };
        drop(self.parts().queue.submit(Job::new(call, Priority::People)));
    }

    async fn press(&self, press: &Press) -> crate::store::Result<Came> {
        let id = RemediationId(press.value.clone());
        let found = {
            let id = id.clone();
            self.store().transact(move |tx| tx.remediation(&id)).await?
        };
        // The button must stand on a message of this very remediation.
        let on_its_message = |this: &Remediation| {
            this.origin.channel == press.channel
                && (this.declaration.as_deref() == Some(&press.message_ts)
                    || this.report.as_deref() == Some(&press.message_ts)
                    // Pressed before the post's own answer was read.
                    || this.declaration.is_none()
                    || this.sent_at.is_some() && this.report.is_none())
        };
        let Some((this, _)) = found.filter(|(this, _)| on_its_message(this)) else {
            let why =
                "heal does not know this remediation (any more). Your press changed nothing.".to_owned();
            return self.record_refusal(press, None, &why).await;
        };
        if let Some(why) = self.denied(press, &this).await {
            return self.record_refusal(press, Some(&id), &why).await;
        }
        match press.action.as_str() {
            APPROVE => self.input(press, id, |user| Input::Approved { user }).await,
            REJECT => self.input(press, id, |user| Input::Rejected { user }).await,
            HOLD => self.input(press, id, |user| Input::Held { user }).await,
            PAUSE => self.pause_rule(press, &this).await,
            AGAIN => self.run_again(press, this).await,
            other => {
                let why = format!("heal does not know the button {}.", clean(other, 40));
                self.record_refusal(press, Some(&id), &why).await
            }
        }
    }

    /// The answer to somebody who may not press this.
    async fn denied(&self, press: &Press, this: &Remediation) -> Option<String> {
        let own = &this.policy.approvers;
        let approvers = if own.is_empty() { &self.config().approvers } else { own };
        let safer = matches!(press.action.as_str(), HOLD | PAUSE);
        if safer && self.config().open_pause {
            return None;
        }
        let mut may = self.people().may(&press.user, press.team.as_deref(), approvers).await;
        if may == Err(Denied::NotListed) && safer && !own.is_empty() {
            // Holding and pausing only make it safer, so the config's approvers may always.
            may = self.people().may(&press.user, press.team.as_deref(), &self.config().approvers).await;
        }
        let verb = match press.action.as_str() {
            APPROVE => "approve this",
            REJECT => "reject this",
            HOLD => "hold this",
            PAUSE => "pause rules",
            _ => "run this again",
        };
        Some(match may {
            Ok(()) => return None,
            Err(denied) => self.say_denied(&denied, verb, approvers),
        })
    }

    pub(super) fn say_denied(&self, denied: &Denied, verb: &str, approvers: &[String]) -> String {
        match denied {
            Denied::NotListed => message::not_an_approver(verb, approvers, &self.words()),
            Denied::Outsider => {
                format!("You may not {verb}: guests and people of other workspaces never may.")
            }
            Denied::Unknown { why } => {
                tracing::warn!(why, "an approver could not be looked up, so the press was refused");
                format!(
                    "heal could not look up whether you may {verb}, so you may not now ({}). Press again in a moment.",
                    crate::text::escape(&clean(why, 200))
                )
            }
        }
    }

    async fn input(
        &self,
        press: &Press,
        id: RemediationId,
        input: impl FnOnce(String) -> Input,
    ) -> crate::store::Result<Came> {
        let input = input(press.user.clone());
        let ground = self.ground();
        let (delivery, user) = (press.delivery.clone(), press.user.clone());
        let pressed_on = press.message_ts.clone();
        self.store()
            .transact(move |tx| {
                if !tx.take_delivery(&format!("click:{delivery}"), ground.now)? {
                    return Ok(Came::Repeated);
                }
                let mut out = Decided::default();
                let declaring = tx
                    .remediation(&id)?
                    .is_some_and(|(this, _)| matches!(this.state, State::Declaring { .. }));
                if declaring {
                    // Slack showed the declaration before its answer reached us: the press proves it.
                    let posted = Input::DeclarationPosted { ts: pressed_on };
                    drop(apply(tx, &ground, &id, &posted, "heal", &mut out)?);
                }
                Ok(match apply(tx, &ground, &id, &input, &user, &mut out)? {
                    Ok(()) => match out.changed.get(&id).and_then(|now| overtaken(&input, now)) {
                        Some(why) => Came::Refused(out, why.to_owned()),
                        None => Came::Done(out),
                    },
                    Err(refused) => {
                        let this = tx.remediation(&id)?.map(|(this, _)| this);
                        Came::Refused(
                            out,
                            match this {
                                Some(this) => message::refused(&refused, &this),
                                None => "heal does not know this remediation any more.".to_owned(),
                            },
                        )
                    }
                })
            })
            .await
    }

    async fn record_refusal(
        &self,
        press: &Press,
        id: Option<&RemediationId>,
        why: &str,
    ) -> crate::store::Result<Came> {
        let now = self.clock().now();
        let (id, who) = (id.cloned(), press.user.clone());
        let (action, answer) = (press.action.clone(), why.to_owned());
        let delivery = format!("click:{}", press.delivery);
        self.store()
            .transact(move |tx| {
                if !tx.take_delivery(&delivery, now)? {
                    return Ok(Came::Repeated);
                }
                let why = format!("{}: {answer}", clean(&action, 40));
                tx.record(&Record {
                    at: now,
                    remediation: id.as_ref(),
                    what: "refused",
                    who: &who,
                    why: &why,
                })?;
                Ok(Came::Refused(Decided::default(), answer))
            })
            .await
    }

    async fn pause_rule(&self, press: &Press, this: &Remediation) -> crate::store::Result<Came> {
        let ground = self.ground();
        let (delivery, user) = (press.delivery.clone(), press.user.clone());
        let pattern = this.rule_key.to_string();
        let (channels, words) = (self.parts().channels.clone(), self.words());
        self.store()
            .transact(move |tx| {
                if !tx.take_delivery(&format!("click:{delivery}"), ground.now)? {
                    return Ok(Came::Repeated);
                }
                let active = tx.active_pauses(ground.now)?;
                if active.iter().any(|pause| pause.pattern == pattern && pause.until.is_none()) {
                    let why = format!(
                        "This rule is paused already. `/heal resume {}` ends it.",
                        crate::text::escape(&pattern)
                    );
                    return refuse(tx, ground.now, &user, why);
                }
                let mut out = Decided::default();
                let (pause, held) = pause_now(tx, &ground, &pattern, &user, None, None, &mut out)?;
                let said = message::answer::paused(&pause, held, &words);
                notices::owe(tx, &channels, &said, ground.now, &mut out)?;
                Ok(Came::Done(out))
            })
            .await
    }

    /// `Run again`: a new remediation of the same alert, ordered and first approved by the presser.
    async fn run_again(&self, press: &Press, this: Remediation) -> crate::store::Result<Came> {
        let again = matches!(
            this.outcome(),
            Some(Outcome::Failed | Outcome::TimedOut | Outcome::Unresolved | Outcome::Unknown)
        );
        if !again {
            let why = message::refused(&Refused::NotWaiting { state: this.state.name() }, &this);
            return self.record_refusal(press, Some(&this.id), &why).await;
        }
        if matches!(this.trigger, Trigger::Person { .. })
            && let Some(rule) = self.rules().get(&this.rule_key)
            && let Err(said) = self.somebody_else(&press.user, rule).await
        {
            return self.record_refusal(press, Some(&this.id), &said.text).await;
        }
        let ground = self.ground();
        let (delivery, user) = (press.delivery.clone(), press.user.clone());
        let id = fresh_id();
        self.store()
            .transact(move |tx| {
                if !tx.take_delivery(&format!("click:{delivery}"), ground.now)? {
                    return Ok(Came::Repeated);
                }
                let Some(rule) = ground.rules.get(&this.rule_key).cloned() else {
                    let why = "The rule is not there any more, so it cannot run again.".to_owned();
                    return refuse(tx, ground.now, &user, why);
                };
                let note = format!("again:{}", this.id);
                if let Some(successor) = tx.note(&note)?.map(RemediationId)
                    && tx
                        .remediation(&successor)?
                        .is_some_and(|(next, _)| !next.is_over() || next.sent_at.is_some())
                {
                    let why = "Somebody ran this again already; see the newer declaration below.".to_owned();
                    return refuse(tx, ground.now, &user, why);
                }
                let row = tx.remediation(&this.id)?.and_then(|(_, row)| row);
                let resolved = match row {
                    Some(row) => tx.alert_resolved_at(row)?.is_some(),
                    None => false,
                };
                if resolved {
                    let why = "The alert has resolved meanwhile, so there is nothing to heal.".to_owned();
                    return refuse(tx, ground.now, &user, why);
                }
                tx.set_passing_note(&note, &id.0, ground.now)?;
                let trigger = match this.trigger {
                    // What a person asked for stays asked for: somebody else approves it.
                    Trigger::Person { .. } => Trigger::Person { user },
                    Trigger::Alert | Trigger::Again { .. } => Trigger::Again { user, of: this.id.clone() },
                };
                let mut out = Decided::default();
                let opening = Opening {
                    id,
                    rule: &rule,
                    trigger,
                    alert: &this.alert,
                    row,
                    origin: &this.origin,
                    resolves: this.policy.resolves,
                    target: None,
                };
                open(tx, &ground, opening, &mut out)?;
                Ok(Came::Done(out))
            })
            .await
    }
}

/// A private no, on record.
fn refuse(tx: &mut dyn Tx, at: Timestamp, who: &str, why: String) -> store::Result<Came> {
    tx.record(&Record { at, remediation: None, what: "refused", who, why: &why })?;
    Ok(Came::Refused(Decided::default(), why))
}

/// What to tell somebody whose Approve ended it: what stopped it came before the press.
fn overtaken(input: &Input, now: &Remediation) -> Option<&'static str> {
    let (Input::Approved { .. }, State::Ended { why, .. }) = (input, &now.state) else { return None };
    Some(match why {
        Ending::RuleChanged => {
            "The rule changed since this was declared, so your press approved nothing. See the new declaration."
        }
        Ending::ResolvedItself => "The alert has resolved meanwhile, so nothing runs.",
        Ending::Gate { .. } => "A gate holds this now, so nothing runs; the declaration says which.",
        _ => return None,
    })
}
