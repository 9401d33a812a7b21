//! `/heal …`, and the same words as a mention: orders and questions of people, answered in private;
//! a pause, a resume and a run are announced where everybody sees them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::decide::{Decided, Ground, Opening, apply, open, pause_matches};
use super::people::Denied;
use super::receive::held_for;
use super::{Engine, fresh_id, notices};
use crate::alert::{Alert, Origin, Status};
use crate::gate::{Pause, Reason};
use crate::lifecycle::{Input, Trigger};
use crate::message::answer;
use crate::message::command::{self, Command};
use crate::message::{self, Said};
use crate::rule::{Rule, RuleKey, RuleSet, Stage};
use crate::slack::send::{Call, Job, Priority};
use crate::slack::{Ack, Respond, Secret};
use crate::store::{self, Record, Tx};
use crate::time::Timestamp;

/// Slack waits 3 s for an answer; what takes longer is answered by `response_url`.
const ANSWER_WITHIN: Duration = Duration::from_millis(2200);

/// Who asks, and how to know that Slack asks twice.
pub(super) struct Asker {
    user: String,
    team: Option<String>,
    delivery: String,
}

impl Engine {
    pub(super) async fn take_command(&self, payload: Value, ack: Ack) {
        let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
        let asker = Asker {
            user: text("user_id"),
            team: payload["team_id"].as_str().map(str::to_owned),
            delivery: match text("trigger_id") {
                id if id.is_empty() => format!("command:{}", fresh_id()),
                id => format!("command:{id}"),
            },
        };
        if asker.user.is_empty() {
            self.metrics().malformed.inc();
            tracing::warn!("a slash command without a user; it changes nothing");
            ack.done(None);
            return;
        }
        let engine = self.clone();
        let line = text("text");
        let mut answer = tokio::spawn(async move { engine.obey(&asker, &line, None).await });
        match tokio::time::timeout(ANSWER_WITHIN, &mut answer).await {
            Ok(answer) => {
                let said = answer.ok().flatten();
                ack.done(said.map(|said| {
                    serde_json::json!({
                        "response_type": "ephemeral",
                        "text": said.text,
                        "blocks": said.blocks,
                    })
                }));
            }
            Err(_) => {
                ack.done(None);
                if let Ok(Some(said)) = answer.await {
                    let respond = Respond {
                        response_url: Secret::new(text("response_url")),
                        text: super::perform::text(said),
                        replace_original: false,
                        ephemeral: true,
                    };
                    drop(self.parts().queue.submit(Job::new(Call::Respond(respond), Priority::People)));
                }
            }
        }
    }

    /// `@heal pause` in a thread, where slash commands do not work.
    pub(super) async fn take_mention(&self, event_id: &str, event: &Value, ack: Ack) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let (user, channel) = (text("user"), text("channel"));
        if user.is_empty() || event["bot_id"].is_string() || user == self.parts().identity.user_id {
            ack.done(None);
            return;
        }
        let team = event["user_team"].as_str().or(event["team"].as_str()).map(str::to_owned);
        let thread = event["thread_ts"].as_str().map(str::to_owned);
        let key = match &thread {
            Some(ts) => self.key_of_thread(&channel, ts).await,
            None => None,
        };
        let delivery = match event_id {
            "" => format!("mention:{}", fresh_id()),
            id => format!("mention:{id}"),
        };
        let asker = Asker { user: user.clone(), team, delivery };
        let said = self.obey(&asker, &text("text"), key.as_ref()).await;
        ack.done(None);
        if let Some(said) = said {
            let call = Call::Ephemeral { channel, user, thread_ts: thread, text: super::perform::text(said) };
            drop(self.parts().queue.submit(Job::new(call, Priority::People)));
        }
    }

    /// The one rule that a thread is about.
    async fn key_of_thread(&self, channel: &str, ts: &str) -> Option<RuleKey> {
        let (channel, ts) = (channel.to_owned(), ts.to_owned());
        let all = self.store().transact(move |tx| tx.remediations_of(&channel, &ts)).await.ok()?;
        let first = all.first()?.rule_key.clone();
        all.iter().all(|remediation| remediation.rule_key == first).then_some(first)
    }

    /// Does what a line says and answers it. `None`: Slack delivered it twice.
    async fn obey(&self, asker: &Asker, line: &str, thread: Option<&RuleKey>) -> Option<Said> {
        if asker.team.as_deref().is_some_and(|team| team != self.parts().identity.team_id) {
            // Rules show commands and hosts: nothing for people of other workspaces.
            let text = self.say_denied(&Denied::Outsider, "ask heal", &[]);
            return Some(Said { text, blocks: Vec::new() });
        }
        let command = match command::parse(line, thread) {
            Ok(command) => command,
            Err(slip) => return Some(Said { text: slip.text, blocks: Vec::new() }),
        };
        let answered = match command {
            Command::Help => Ok(Some(answer::help())),
            Command::Pause { pattern, duration, reason } => {
                self.order_pause(asker, &pattern, duration, reason).await
            }
            Command::Resume { pattern } => self.order_resume(asker, &pattern).await,
            Command::Status => self.tell_status().await.map(Some),
            Command::Rules { filter } => {
                let rules = self.rules();
                Ok(Some(answer::rules(rules.iter().map(AsRef::as_ref), filter.as_deref())))
            }
            Command::Show { key } => Ok(Some(match self.known_rule(&key) {
                Ok(rule) => answer::show(&rule),
                Err(said) => said,
            })),
            Command::History { key } => self.tell_history(key).await.map(Some),
            Command::Why { .. } => Ok(Some(answer::why_not_yet())),
            Command::Run { key, host } => self.order_run(asker, &key, &host).await,
        };
        match answered {
            Ok(said) => said,
            Err(error) => {
                self.store_failed("obeying a command", &error);
                Some(answer::sorry(
                    "heal's database did not answer, so what you asked for may have been kept or not.",
                    "Look at /heal status in a moment, and ask again if it does not show it.",
                ))
            }
        }
    }

    /// The rule of this key, or the one that would answer an alert of this `ROLE:ALERT`; the answer
    /// with what may have been meant where there is none.
    fn known_rule(&self, written: &str) -> Result<std::sync::Arc<Rule>, Said> {
        let rules = self.rules();
        let answers = |key: RuleKey| {
            let exact = rules.get(&key).cloned();
            exact.or_else(|| rules.find(&key.role, &key.alert, &BTreeMap::new()).cloned())
        };
        if let Some(rule) = key_of(written).and_then(answers) {
            return Ok(rule);
        }
        let keys = || rules.iter().map(|rule| rule.key.to_string()).collect();
        let slip = |slip: command::Slip| Said { text: slip.text, blocks: Vec::new() };
        let key = command::known_key(written, keys).map_err(slip)?;
        match key_of(&key).and_then(|key| rules.get(&key).cloned()) {
            Some(rule) => Ok(rule),
            None => Err(answer::sorry("that rule is not loaded", "/heal rules lists them")),
        }
    }

    /// Whether the asker may pause or resume what this pattern names; the answer where not.
    async fn may_pause(&self, asker: &Asker, pattern: &str, verb: &str) -> Result<(), Said> {
        if verb == "pause" && self.config().open_pause {
            return Ok(());
        }
        let own = key_of(pattern).and_then(|key| self.rules().get(&key).map(|rule| rule.approvers.clone()));
        let mut approvers = self.config().approvers.clone();
        approvers.extend(own.unwrap_or_default());
        self.may(asker, &approvers, &format!("{verb} rules")).await
    }

    async fn may(&self, asker: &Asker, approvers: &[String], verb: &str) -> Result<(), Said> {
        match self.people().may(&asker.user, asker.team.as_deref(), approvers).await {
            Ok(()) => Ok(()),
            Err(denied) => {
                self.metrics().refused_clicks.inc();
                let text = self.say_denied(&denied, verb, approvers);
                self.record(&asker.user, "refused", &text).await;
                Err(Said { text, blocks: Vec::new() })
            }
        }
    }

    async fn record(&self, who: &str, what: &'static str, why: &str) {
        let (who, why, at) = (who.to_owned(), why.to_owned(), self.clock().now());
        let kept = self
            .store()
            .transact(move |tx| tx.record(&Record { at, remediation: None, what, who: &who, why: &why }))
            .await;
        if let Err(error) = kept {
            self.store_failed("recording a refusal", &error);
        }
    }

    async fn order_pause(
        &self,
        asker: &Asker,
        pattern: &str,
        duration: Option<Duration>,
        reason: Option<String>,
    ) -> store::Result<Option<Said>> {
        let rules = self.rules();
        // A slip at 3 a.m. must not look like a pause: what matches no rule pauses nothing.
        let mut pattern = pattern.to_owned();
        if count_matches(&rules, &pattern) == 0 {
            let keys = || rules.iter().map(|rule| rule.key.to_string()).collect();
            match command::known_key(&pattern, keys) {
                Ok(key) => pattern = key,
                Err(slip) => return Ok(Some(Said { text: slip.text, blocks: Vec::new() })),
            }
        }
        let pattern = pattern.as_str();
        let matches = count_matches(&rules, pattern);
        if let Err(said) = self.may_pause(asker, pattern, "pause").await {
            return Ok(Some(said));
        }
        let ground = self.ground();
        let until = duration.map(|duration| ground.now.plus(duration));
        let (pattern, user, delivery) = (pattern.to_owned(), asker.user.clone(), asker.delivery.clone());
        let (channels, words) = (self.parts().channels.clone(), self.words());
        let done = self
            .store()
            .transact(move |tx| {
                if !tx.take_delivery(&delivery, ground.now)? {
                    return Ok(None);
                }
                let mut out = Decided::default();
                let (pause, held) = pause_now(tx, &ground, &pattern, &user, until, reason, &mut out)?;
                let said = answer::paused(&pause, held, &words);
                notices::owe(tx, &channels, &said, ground.now, &mut out)?;
                Ok(Some((out, pause)))
            })
            .await?;
        let Some((decided, pause)) = done else { return Ok(None) };
        self.carry_out(decided);
        Ok(Some(answer::pause_answer(&pause, matches, &self.words())))
    }

    async fn order_resume(&self, asker: &Asker, pattern: &str) -> store::Result<Option<Said>> {
        if let Err(said) = self.may_pause(asker, pattern, "resume").await {
            return Ok(Some(said));
        }
        let now = self.clock().now();
        let (by, delivery, key) = (asker.user.clone(), asker.delivery.clone(), pattern.to_owned());
        let channels = self.parts().channels.clone();
        let done = self
            .store()
            .transact(move |tx| {
                if !tx.take_delivery(&delivery, now)? {
                    return Ok(None);
                }
                let mut ended = tx.end_pauses(&key, &by, now)?.len();
                if ended == 0 {
                    // The same in other letters is meant.
                    for pause in tx.active_pauses(now)? {
                        if pause.pattern.eq_ignore_ascii_case(&key) {
                            ended += tx.end_pauses(&pause.pattern, &by, now)?.len();
                        }
                    }
                }
                tx.record(&Record { at: now, remediation: None, what: "resumed", who: &by, why: &key })?;
                let mut out = Decided::default();
                if ended > 0 {
                    notices::owe(tx, &channels, &answer::resumed(&key, &by), now, &mut out)?;
                }
                Ok(Some((out, ended, tx.active_pauses(now)?)))
            })
            .await?;
        let Some((decided, ended, still)) = done else { return Ok(None) };
        self.carry_out(decided);
        Ok(Some(answer::resume_answer(pattern, ended, &still, &self.words())))
    }

    async fn order_run(&self, asker: &Asker, key: &str, host: &str) -> store::Result<Option<Said>> {
        let rule = match self.known_rule(key) {
            Ok(rule) => rule,
            Err(said) => return Ok(Some(said)),
        };
        let approvers =
            if rule.approvers.is_empty() { self.config().approvers.clone() } else { rule.approvers.clone() };
        if let Err(said) = self.may(asker, &approvers, "run this").await {
            return Ok(Some(said));
        }
        if let Err(said) = self.somebody_else(&asker.user, &rule).await {
            self.record(&asker.user, "refused", &format!("run {key}: nobody else may approve")).await;
            return Ok(Some(said));
        }
        let alert = ordered_alert(&rule, key, host);
        let found = self.parts().targets.resolve(&alert).await;
        if let Err(unusable) = &found {
            let reason = Reason::Unusable { unusable: unusable.clone() };
            return Ok(Some(message::why_not(&reason, &rule.key.to_string(), &self.words())));
        }
        let ground = self.ground();
        let origin = Origin {
            sender: "heal run".to_owned(),
            channel: self.parts().channels.first().cloned().unwrap_or_default(),
            ts: String::new(),
            at: ground.now,
        };
        let (user, delivery, id) = (asker.user.clone(), asker.delivery.clone(), fresh_id());
        let opened = {
            let (rule, id) = (std::sync::Arc::clone(&rule), id.clone());
            // The declaration announces it in the first channel.
            let others: Vec<String> = self.parts().channels.iter().skip(1).cloned().collect();
            let said = answer::run_announced(&rule.key.to_string(), host, &asker.user);
            self.store()
                .transact(move |tx| {
                    if !tx.take_delivery(&delivery, ground.now)? {
                        return Ok(None);
                    }
                    let mut out = Decided::default();
                    let opening = Opening {
                        id,
                        rule: &rule,
                        trigger: Trigger::Person { user },
                        alert: &alert,
                        row: None,
                        origin: &origin,
                        resolves: false,
                        target: Some(found),
                    };
                    let id = open(tx, &ground, opening, &mut out)?;
                    if out.changed.get(&id).is_none_or(|opened| held_for(opened).is_none()) {
                        notices::owe(tx, &others, &said, ground.now, &mut out)?;
                    }
                    Ok(Some(out))
                })
                .await?
        };
        let Some(decided) = opened else { return Ok(None) };
        let held = decided.changed.get(&id).and_then(|remediation| held_for(remediation).cloned());
        self.carry_out(decided);
        if let Some(reason) = held {
            return Ok(Some(message::why_not(&reason, &rule.key.to_string(), &self.words())));
        }
        Ok(Some(answer::run_answer(&rule.key.to_string(), host, None)))
    }

    /// Whether somebody else than who asks can approve, where the rule wants approvals.
    pub(super) async fn somebody_else(&self, asker: &str, rule: &Rule) -> Result<(), Said> {
        if rule.stage != Stage::Approve {
            return Ok(());
        }
        let own = &rule.approvers;
        let approvers = if own.is_empty() { &self.config().approvers } else { own };
        let (mut others, unknown) = self.people().members(approvers).await;
        others.remove(asker);
        if u32::try_from(others.len()).is_ok_and(|count| count >= rule.approvals) {
            return Ok(());
        }
        Err(match unknown {
            Some(why) => {
                let text = self.say_denied(&Denied::Unknown { why }, "run this", approvers);
                Said { text, blocks: Vec::new() }
            }
            None => answer::nobody_else(&rule.key.to_string()),
        })
    }
}

fn key_of(text: &str) -> Option<RuleKey> {
    let (role, alert) = text.split_once(':')?;
    Some(RuleKey { role: role.to_owned(), alert: alert.to_owned() })
}

/// Rules that a pause of this pattern holds, wholly or for some alerts.
fn count_matches(rules: &RuleSet, pattern: &str) -> usize {
    rules
        .iter()
        .filter(|rule| {
            let key = rule.key.to_string();
            pause_matches(pattern, &key) || crate::rule::glob_match(&key, pattern)
        })
        .count()
}

/// What stands in for the alert where a person asks: the names as asked for, and the host.
fn ordered_alert(rule: &Rule, key: &str, host: &str) -> Alert {
    let asked = key_of(key).filter(|key| rule.key.matches(&key.role, &key.alert));
    let RuleKey { role, alert } = asked.unwrap_or_else(|| rule.key.clone());
    let role = Some(role).filter(|role| !role.contains('*'));
    let is_id = host.starts_with("i-") || host.starts_with("mi-");
    Alert {
        name: alert,
        status: Status::Firing,
        role,
        host: Some(host.to_owned()),
        instance: None,
        instance_id: is_id.then(|| host.to_owned()),
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: BTreeMap::new(),
    }
}

/// Begins a pause and holds at once what it matches and was not sent; how many that were.
pub(super) fn pause_now(
    tx: &mut dyn Tx,
    ground: &Ground,
    pattern: &str,
    by: &str,
    until: Option<Timestamp>,
    reason: Option<String>,
    out: &mut Decided,
) -> store::Result<(Pause, usize)> {
    let mut pause =
        Pause { id: 0, pattern: pattern.to_owned(), by: by.to_owned(), reason, since: ground.now, until };
    pause.id = tx.insert_pause(&pause)?;
    tx.record(&Record { at: ground.now, remediation: None, what: "paused", who: by, why: pattern })?;
    let mut held = 0;
    for (id, key) in tx.unsent_remediations()? {
        let Ok(Some((waiting, _))) = tx.remediation(&id) else { continue };
        let own = format!("{}:{}", waiting.role(), waiting.alert.name);
        if !pause_matches(pattern, &key.to_string()) && !pause_matches(pattern, &own) {
            continue;
        }
        drop(apply(tx, ground, &id, &Input::Woken, by, out)?);
        let paused = |reason: &Reason| matches!(reason, Reason::Paused { .. });
        held += usize::from(out.changed.get(&id).and_then(|now| held_for(now)).is_some_and(paused));
    }
    Ok((pause, held))
}
