//! Deliveries of Slack, told apart; and alert messages, from raw JSON to opened remediations in one
//! transaction, acknowledged after its commit.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::decide::{Decided, Ground, Opening, apply, open, open_missed};
use super::metrics::SenderLabel;
use super::{Engine, catch_up, fresh_id};
use crate::alert::{self, Alert, Event, Message, Origin, Reading, Sender, Status};
use crate::gate::Reason;
use crate::lifecycle::{Input, RemediationId, Trigger};
use crate::message::{Missed, WhyMissed};
use crate::plan::{Target, Unusable};
use crate::slack::{Ack, Delivery, Payload};
use crate::store::{self, Kept, Needs, NewAlert, Record, Tx};
use crate::text::clean;
use crate::time::Timestamp;

/// Alerts of one message that are acted on; a group of more is a storm, not a list.
const MAX_ALERTS: usize = 100;

/// What a name in the store may hold of an identity: an index of PostgreSQL takes some 2.7 KB.
const LONGEST_NAME: usize = 500;

/// Deliveries whose acknowledgement waits for its commit; further ones wait unread with Slack. More than
/// two commits can share would only take memory, some 10 KiB each.
pub(super) const TAKEN_AT_ONCE: usize = 512;

impl Engine {
    /// The next delivery, once there is room for it; `None` when no more will come.
    pub(super) async fn next(&self, deliveries: &mut mpsc::Receiver<Delivery>) -> Option<Delivery> {
        let place = Arc::clone(&self.0.places).acquire_owned().await.ok();
        let mut delivery = deliveries.recv().await?;
        delivery.ack.holding(place);
        Some(delivery)
    }

    /// Takes one delivery. Returns as soon as its transaction is queued, so deliveries keep their order
    /// and many share a commit.
    pub(super) fn take(&self, delivery: Delivery) {
        let Delivery { payload, ack, retry_attempt, .. } = delivery;
        if retry_attempt > 0 {
            // Slack gives up after a few tries: what it tried before this may have come to nothing.
            self.delivery_lost();
        }
        match payload {
            Payload::Event(envelope) => self.take_event(&envelope, ack),
            Payload::Interaction(payload) => {
                let engine = self.clone();
                tokio::spawn(async move { engine.take_interaction(payload, ack).await });
            }
            Payload::Command(payload) => {
                let engine = self.clone();
                tokio::spawn(async move { engine.take_command(payload, ack).await });
            }
        }
    }

    fn take_event(&self, envelope: &Value, ack: Ack) {
        let event = &envelope["event"];
        match event["type"].as_str() {
            Some("message") => self.take_message(envelope, event, ack),
            Some("app_mention") => {
                let engine = self.clone();
                let event_id = envelope["event_id"].as_str().unwrap_or_default().to_owned();
                let event = event.clone();
                tokio::spawn(async move { engine.take_mention(&event_id, &event, ack).await });
            }
            Some(other) => {
                tracing::debug!(kind = other, "an event that heal does not ask for");
                ack.done(None);
            }
            None => {
                self.metrics().malformed.inc();
                tracing::warn!("an event without a type; it cannot be an alert");
                ack.done(None);
            }
        }
    }

    fn take_message(&self, envelope: &Value, event: &Value, ack: Ack) {
        let read = match Message::from_event(event) {
            Ok(read) => read,
            Err(why) => {
                self.metrics().malformed.inc();
                tracing::warn!(%why, "a message event that cannot be read");
                ack.done(None);
                return;
            }
        };
        let shared = envelope["is_ext_shared_channel"].as_bool() == Some(true);
        match read {
            Event::Posted(message) => match self.sender_of(&message, shared) {
                Some(sender) => self.take_posted(sender, message, ack),
                None => {
                    self.passed_by(&message.channel, &message.ts);
                    ack.done(None);
                }
            },
            Event::Edited { message, .. } => match self.sender_of(&message, shared) {
                Some(sender) => {
                    let event_id = envelope["event_id"].as_str().unwrap_or_default();
                    self.take_edited(&sender, &message, event_id, ack);
                }
                None => {
                    ack.done(None);
                }
            },
            Event::Deleted { .. } | Event::Other { .. } => {
                ack.done(None);
            }
        }
    }

    /// The sender of a message that may raise or resolve an alert: in a watched channel, at the top
    /// level, not the bot itself, not from another workspace. `shared`: the channel is shared with one.
    pub(super) fn sender_of(&self, message: &Message, shared: bool) -> Option<Arc<Sender>> {
        let parts = self.parts();
        if !parts.channels.contains(&message.channel) || !message.is_top_level() {
            return None;
        }
        // An id that Slack did not tell is empty and is nobody's.
        let own = message.bot_id.as_deref().is_some_and(|bot| bot == parts.identity.bot_id)
            || message.user.as_deref().is_some_and(|user| user == parts.identity.user_id);
        if own {
            return None;
        }
        let home = parts.identity.team_id.as_str();
        let foreign = message.team.as_deref().is_some_and(|team| team != home)
            || shared && message.team.as_deref() != Some(home);
        let sender = alert::trusted(self.senders(), message).filter(|_| !foreign);
        if sender.is_none() {
            self.metrics().untrusted.inc();
            tracing::debug!(channel = %message.channel, ts = %message.ts, "a message from no configured sender");
        }
        sender.cloned()
    }

    fn take_posted(&self, sender: Arc<Sender>, message: Message, ack: Ack) {
        let received = std::time::Instant::now();
        let ground = self.ground();
        let reading = read(&sender, &message, &ground);
        self.count_reading(&sender, &message, &reading);
        let heard = self.hear(sender, &message, reading, &ground);
        // What came before it may be missing still; then the reading of the past moves the note on.
        let follows = self.is_caught_up(&heard.origin.channel);
        let mut needs = heard.needs();
        if follows {
            needs = needs.note(catch_up::seen(&heard.origin.channel));
        }
        let committed = self.store().with(needs).transact_first(move |tx| {
            let mut out = Decided::default();
            let (channel, ts) = (heard.origin.channel.clone(), heard.origin.ts.clone());
            if keep_heard(tx, &ground, heard, Came::Delivered, &mut out)?.is_none() {
                return Ok(None);
            }
            if follows {
                catch_up::move_seen(tx, &channel, &ts)?;
            }
            Ok(Some(out))
        });
        self.acknowledge(committed, ack, received);
    }

    /// What a posted message tells, with all that can be known before the transaction.
    pub(super) fn hear(
        &self,
        sender: Arc<Sender>,
        message: &Message,
        reading: Reading,
        ground: &Ground,
    ) -> Heard {
        let news: Vec<News> = match &reading {
            Reading::Alerts(alerts) => bounded(alerts).map(|alert| self.news(alert, ground)).collect(),
            Reading::NotAnAlert(_) | Reading::Unreadable(_) => Vec::new(),
        };
        let unreadable = match reading {
            Reading::Unreadable(why) => Some(why),
            Reading::Alerts(alerts) if news.len() < alerts.len() => {
                Some(format!("{} alerts in one message; the first {MAX_ALERTS} were taken", alerts.len()))
            }
            Reading::Alerts(_) | Reading::NotAnAlert(_) => None,
        };
        let origin = Origin {
            sender: sender.name.clone(),
            channel: message.channel.clone(),
            ts: message.ts.clone(),
            at: message.at,
        };
        let unanswered =
            news.iter().filter(|news| news.rule.is_none() && news.alert.status == Status::Firing);
        self.metrics().without_rule.inc_by(u64::try_from(unanswered.count()).unwrap_or(0));
        Heard { sender, origin, edited: message.edited, news, unreadable }
    }

    /// After the commit: the acknowledgement, then the effects. A commit that failed acknowledges
    /// nothing, so Slack delivers again.
    fn acknowledge(
        &self,
        committed: impl Future<Output = store::Result<Option<Decided>>> + Send + 'static,
        ack: Ack,
        received: std::time::Instant,
    ) {
        let engine = self.clone();
        tokio::spawn(async move {
            match committed.await {
                Ok(decided) => {
                    engine.metrics().commit_seconds.observe(received.elapsed().as_secs_f64());
                    match decided {
                        Some(decided) => engine.carry_out(decided),
                        None => {
                            engine.metrics().duplicates.inc();
                        }
                    }
                    ack.done(None);
                }
                Err(error) => {
                    engine.store_failed("keeping an alert message (not acknowledged)", &error);
                    // Slack gives up after a few tries; then only the channel still has it.
                    engine.delivery_lost();
                }
            }
        });
    }

    /// What can be known of an alert before the transaction: its rule, and its node if the cache knows it.
    fn news(&self, alert: &Alert, ground: &Ground) -> News {
        let rule = alert.role.as_deref().and_then(|role| ground.rules.find(role, &alert.name, &alert.labels));
        let target = match (alert.status, rule) {
            (Status::Firing, Some(_)) => self.parts().targets.resolve_cached(alert).map(Ok),
            _ => None,
        };
        News { alert: alert.clone(), id: fresh_id(), rule: rule.cloned(), target, over: None, again: false }
    }

    pub(super) fn count_reading(&self, sender: &Sender, message: &Message, reading: &Reading) {
        let label = SenderLabel { sender: sender.name.clone() };
        match reading {
            Reading::Alerts(alerts) => {
                let count = u64::try_from(alerts.len()).unwrap_or(u64::MAX);
                self.metrics().alerts.get_or_create(&label).inc_by(count);
            }
            Reading::NotAnAlert(why) => {
                tracing::debug!(sender = %sender.name, channel = %message.channel, ts = %message.ts, why, "not an alert");
            }
            Reading::Unreadable(why) => {
                self.metrics().unreadable.get_or_create(&label).inc();
                tracing::warn!(
                    sender = %sender.name, channel = %message.channel, ts = %message.ts, why,
                    "a message of {} cannot be read: {why}", sender.name
                );
            }
        }
    }

    /// An edit may resolve the alert that the message carried; it never raises one.
    fn take_edited(&self, sender: &Arc<Sender>, message: &Message, event_id: &str, ack: Ack) {
        let ground = self.ground();
        let reading = read(sender, message, &ground);
        self.count_reading(sender, message, &reading);
        let (channel, ts) = (message.channel.clone(), message.ts.clone());
        let name = if event_id.is_empty() { fresh_id().0 } else { event_id.to_owned() };
        let delivery = format!("edit:{name}");
        let sender_name = sender.name.clone();
        let received = std::time::Instant::now();
        let committed = self.store().transact_first(move |tx| {
            let mut out = Decided::default();
            if !tx.take_delivery(&delivery, ground.now)? {
                return Ok(None);
            }
            let now_says = match reading {
                Reading::Alerts(alerts) => alerts,
                Reading::NotAnAlert(_) => Vec::new(),
                Reading::Unreadable(why) => {
                    tx.tally(&format!("unreadable:{sender_name}"), &clean(&why, 200), ground.now)?;
                    Vec::new()
                }
            };
            keep_edit(tx, &ground, (&channel, &ts), now_says, &mut out)?;
            Ok(Some(out))
        });
        self.acknowledge(committed, ack, received);
    }
}

/// A message of a sender, read.
pub(super) struct Heard {
    pub sender: Arc<Sender>,
    pub origin: Origin,
    /// It does not stand as it was posted any more, so it raises nothing.
    pub edited: bool,
    pub news: Vec<News>,
    unreadable: Option<String>,
}

impl Heard {
    /// What keeping it will look at.
    pub(super) fn needs(&self) -> Needs {
        let Heard { origin, news, .. } = self;
        news.iter().fold(Needs::default().delivery(delivery(origin)), |needs, news| {
            let alert = &news.alert;
            let needs = needs
                .alert(origin, alert)
                .note(overtaken(&origin.channel, &origin.ts, alert))
                .remediation(&news.id);
            match (&news.rule, &news.target) {
                (Some(rule), Some(Ok(target))) => {
                    let role = alert.role.as_deref().unwrap_or(&rule.key.role);
                    needs.standing(&rule.key, &target.instance_id, role)
                }
                _ => needs,
            }
        })
    }
}

/// The name under which a message is taken once.
fn delivery(origin: &Origin) -> String {
    format!("message:{}:{}", origin.channel, origin.ts)
}

/// One alert of a message with what is known about it.
pub(super) struct News {
    pub alert: Alert,
    id: RemediationId,
    rule: Option<Arc<crate::rule::Rule>>,
    target: Option<Result<Target, Unusable>>,
    /// A later message of the past says that it is over.
    pub over: Option<Timestamp>,
    /// A later message of the past says the same again, and is what people should look at.
    pub again: bool,
}

/// How a message came to heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Delivered,
    /// Read from the channel's history: what is over or old is missed, and said for all at once.
    Late,
}

/// Keeps a message and opens what it calls for; the alerts that were missed. `None`: it was taken before.
pub(super) fn keep_heard(
    tx: &mut dyn Tx,
    ground: &Ground,
    heard: Heard,
    came: Came,
    out: &mut Decided,
) -> store::Result<Option<Vec<Missed>>> {
    let Heard { sender, origin, edited, news, unreadable } = heard;
    if !tx.take_delivery(&delivery(&origin), ground.now)? {
        return Ok(None);
    }
    if let Some(why) = &unreadable {
        let name = format!("unreadable:{}", sender.name);
        tx.tally(&name, &clean(why, 200), ground.now)?;
        let why = format!("{}:{} {why}", origin.channel, origin.ts);
        tx.record(&Record {
            at: ground.now,
            remediation: None,
            what: "unreadable",
            who: &sender.name,
            why: &why,
        })?;
    }
    let told = Told { sender: &sender, origin: &origin, edited, came };
    let mut missed = Vec::new();
    for (position, news) in news.into_iter().enumerate() {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        missed.extend(keep_news(tx, ground, &told, position, news, out)?);
    }
    Ok(Some(missed))
}

/// What all alerts of one message share.
struct Told<'a> {
    sender: &'a Sender,
    origin: &'a Origin,
    edited: bool,
    came: Came,
}

fn keep_news(
    tx: &mut dyn Tx,
    ground: &Ground,
    told: &Told<'_>,
    position: u32,
    news: News,
    out: &mut Decided,
) -> store::Result<Option<Missed>> {
    let News { alert, id, rule, target, over: over_later, again } = news;
    let Told { sender, origin, edited, came } = *told;
    let key = rule.as_ref().map(|rule| &rule.key);
    let new = NewAlert { origin, position, alert: &alert, rule: key, received_at: ground.now };
    // Slack does not keep the order: "resolved", or an edit that says so, may have come before.
    let overtaken = overtaken(&origin.channel, &origin.ts, &alert);
    let Kept { id: row, resolved_at, noted } = tx.keep_alert(&new, &overtaken)?;
    if alert.status == Status::Resolved {
        for row in tx.resolve_alerts(&sender.name, &alert.identity(), origin.at)? {
            wake_alert(tx, ground, row, out)?;
        }
        return Ok(None);
    }
    let over = resolved_at.or(over_later).or(noted.then_some(ground.now));
    if let Some(at) = over {
        tx.resolve_alert(row, at)?;
    }
    let Some(rule) = rule else {
        let what = format!("{}:{}", alert.role.as_deref().unwrap_or("-"), alert.name);
        if alert.role.is_none() {
            // Not even `*:ALERT` answers these: which role a host has is never guessed.
            tx.tally("without_role", &what, ground.now)?;
        }
        tx.tally("without_rule", &what, ground.now)?;
        return Ok(None);
    };
    let why = match came {
        Came::Delivered => None,
        Came::Late if over.is_some() => Some(WhyMissed::Resolved),
        Came::Late if edited => Some(WhyMissed::Edited),
        Came::Late if ground.now.since(origin.at) > ground.max_age => Some(WhyMissed::Old),
        Came::Late => None,
    };
    let opening = Opening {
        id,
        rule: &rule,
        trigger: Trigger::Alert,
        alert: &alert,
        row: Some(row),
        origin,
        resolves: sender.resolves,
        target,
    };
    let Some(why) = why else {
        open(tx, ground, opening, out)?;
        return Ok(None);
    };
    let opened = match why {
        // It cannot be known what it said when it was posted.
        WhyMissed::Edited => None,
        WhyMissed::Resolved | WhyMissed::Old => Some(open_missed(tx, ground, opening, out)?),
    };
    let account = format!("{}: {} at {}:{}", rule.key, why.name(), origin.channel, origin.ts);
    tx.record(&Record {
        at: ground.now,
        remediation: opened.as_ref(),
        what: "missed",
        who: &sender.name,
        why: &account,
    })?;
    let host = alert.host.as_deref().or(alert.instance_id.as_deref()).unwrap_or_default();
    let missed = Missed {
        key: rule.key.to_string(),
        host: clean(host, 100),
        why,
        at: origin.at,
        ts: origin.ts.clone(),
    };
    Ok((!again).then_some(missed))
}

/// What an edited message says now may resolve the alerts it carried; it raises none.
pub(super) fn keep_edit(
    tx: &mut dyn Tx,
    ground: &Ground,
    (channel, ts): (&str, &str),
    now_says: Vec<Alert>,
    out: &mut Decided,
) -> store::Result<()> {
    let (resolved, fires): (Vec<Alert>, Vec<Alert>) =
        now_says.into_iter().partition(|alert| alert.status == Status::Resolved);
    let carried = tx.alerts_of(channel, ts)?;
    if carried.is_empty() {
        // The edit overtook its message: what it says is kept for when that comes.
        for alert in &resolved {
            tx.set_passing_note(&overtaken(channel, ts, alert), "resolved", ground.now)?;
        }
    }
    let firing: Vec<_> = carried.iter().filter(|row| row.alert.status == Status::Firing).collect();
    for row in &firing {
        let same = resolved.iter().any(|alert| alert.identity() == row.alert.identity());
        // A template whose resolved form drops labels still speaks of the one alert it carried.
        let only = firing.len() == 1
            && fires.is_empty()
            && resolved.len() == 1
            && resolved[0].name == row.alert.name;
        let still = fires.iter().any(|alert| alert.identity() == row.alert.identity());
        if (same || only) && !still && tx.resolve_alert(row.id, ground.now)? {
            wake_alert(tx, ground, row.id, out)?;
        }
    }
    Ok(())
}

/// Reads a message. A reader that fails must not take the bot with it, nor the message: it counts as
/// unreadable, and people hear of it.
pub(super) fn read(sender: &Sender, message: &Message, ground: &Ground) -> Reading {
    let known = |role: &str| ground.rules.is_known_role(role);
    let reading =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| alert::read(sender, message, &known)));
    reading.unwrap_or_else(|_| {
        Reading::Unreadable("the reader failed on it; this is a defect of heal".to_owned())
    })
}

/// All that resolved, and as many firing ones as one message may raise.
fn bounded(alerts: &[Alert]) -> impl Iterator<Item = &Alert> {
    let mut firing = 0;
    alerts.iter().filter(move |alert| {
        firing += usize::from(alert.status == Status::Firing);
        alert.status == Status::Resolved || firing <= MAX_ALERTS
    })
}

/// Where it is kept that an edit resolved an alert whose message has not come yet.
fn overtaken(channel: &str, ts: &str, alert: &Alert) -> String {
    let identity = alert.identity();
    if identity.len() <= LONGEST_NAME {
        return format!("overtaken:{channel}:{ts}:{identity}");
    }
    let digest = Sha256::digest(identity.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("overtaken:{channel}:{ts}:sha256:{digest}")
}

/// Lets the remediations of an alert that resolved look at the facts.
fn wake_alert(tx: &mut dyn Tx, ground: &Ground, row: i64, out: &mut Decided) -> store::Result<()> {
    for id in tx.open_remediations_of_alert(row)? {
        drop(apply(tx, ground, &id, &Input::Woken, "heal", out)?);
    }
    Ok(())
}

/// A held remediation's reason, if it was held.
pub(super) fn held_for(remediation: &crate::lifecycle::Remediation) -> Option<&Reason> {
    match &remediation.state {
        crate::lifecycle::State::Ended { why: crate::lifecycle::Ending::Gate { reason }, .. } => Some(reason),
        _ => None,
    }
}
