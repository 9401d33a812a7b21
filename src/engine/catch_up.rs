//! What was posted while heal was not running, or had no connection to Slack, is read from each
//! channel's history and taken as if it had been delivered.
//!
//! Per channel a note in the store says up to where everything is known. A delivery moves it on only
//! while nothing before it can be missing ([`Engine::is_caught_up`]); else the reading does, at its end,
//! so that a crash on the way loses nothing. What is read twice, or delivered too, is one delivery.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Engine;
use super::decide::Decided;
use super::missed::{add_missed, close_missed};
use super::receive::{Came, Heard, keep_edit, keep_heard, read};
use crate::alert::{Alert, Event, Message, Reading, Sender, Status};
use crate::config::Mode;
use crate::slack;
use crate::store::{self, Tx};
use crate::time::Timestamp;

/// Messages of one reading, chatter included.
const AT_MOST: usize = 1000;
/// Nothing older is read; nobody acts on it, and people have seen it.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// Deliveries come about in order. So long before the newest one, another may still be missing.
const OUT_OF_ORDER: Duration = Duration::from_secs(60);
/// After the first look a second one: clocks differ, and history may lag behind what was posted.
const SECOND_LOOK: Duration = Duration::from_secs(15);
/// What is younger than this at a later look may be on its way yet, and was not missed.
const DELIVERED_WITHIN: Duration = Duration::from_secs(5);
/// Between two readings, when one gap follows the other.
const SPACING: Duration = Duration::from_secs(1);
/// In HTTP mode nobody tells heal what Slack gave up, so the history is read every so often: one call a
/// channel, of fifty a minute (docs.slack.dev, rate limits: tier 3).
const READ_EVERY: Duration = Duration::from_secs(180);
/// How often the place in a channel where only people talk is kept.
const KEPT_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest wait after a reading that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The longest wait where it may be read again at any moment.
const WHILE_AWAY: Duration = Duration::from_secs(15);

/// How far the readings have come, in this process.
#[derive(Debug, Default)]
pub(super) struct CaughtUp {
    /// The newest message of nobody's concern that was delivered in each channel, while not kept.
    passed: Mutex<HashMap<String, String>>,
}

/// Why a reading failed.
#[derive(Debug)]
pub(super) enum Trouble {
    Slack(slack::Error),
    Store(store::Error),
}

impl From<slack::Error> for Trouble {
    fn from(error: slack::Error) -> Trouble {
        Trouble::Slack(error)
    }
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Trouble {
        Trouble::Store(error)
    }
}

/// Where a channel's reading begins.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Everything before is known, as far as deliveries tell.
    seen: Timestamp,
    /// Everything before was read from the history. Without gaps that can be noticed only this is certain.
    read: Timestamp,
    /// heal looks after this channel since then.
    watched: Timestamp,
}

/// A message of a sender, as history has it.
struct Told {
    sender: Arc<Sender>,
    message: Message,
    reading: Reading,
    heard: Heard,
}

impl Engine {
    /// Reads what each channel holds that was not delivered, now and after every gap. The readings
    /// begin once the sender says that what was owed before is taken up again.
    pub(super) fn catch_up_channels(&self) -> (channel::Sender<bool>, JoinSet<()>) {
        let (resumed, wait) = channel::channel(false);
        let mut all = JoinSet::new();
        for channel in &self.parts().channels {
            let (engine, channel, wait) = (self.clone(), channel.clone(), wait.clone());
            all.spawn(async move { engine.keep_caught_up(&channel, wait).await });
        }
        (resumed, all)
    }

    /// Whether nothing that was posted before can be missing, so that a delivery moves the note on.
    pub(super) fn is_caught_up(&self, channel: &str) -> bool {
        self.hearing().is_caught_up(channel)
    }

    /// A delivery was not kept, and Slack may not repeat it for long enough.
    pub(super) fn delivery_lost(&self) {
        self.hearing().delivery_lost();
    }

    /// A message was delivered that is no alert. It is kept now and then how far that was, or the next
    /// reading of a channel full of talk would begin at its last alert.
    pub(super) fn passed_by(&self, channel: &str, ts: &str) {
        if self.parts().channels.iter().any(|watched| watched == channel) && self.is_caught_up(channel) {
            let mut passed = self.0.caught_up.passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.insert(channel.to_owned(), ts.to_owned());
        }
    }

    /// Keeps how far each channel was heard.
    pub(super) async fn keep_passed(&self) {
        let passed: Vec<(String, String)> = {
            let mut passed = self.0.caught_up.passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.drain().filter(|(channel, _)| self.is_caught_up(channel)).collect()
        };
        if passed.is_empty() {
            return;
        }
        let kept = self
            .store()
            .transact(move |tx| passed.iter().try_for_each(|(channel, ts)| move_seen(tx, channel, ts)));
        if let Err(error) = kept.await {
            self.store_failed("keeping how far a channel was heard", &error);
        }
    }

    async fn keep_caught_up(&self, channel: &str, mut resumed: channel::Receiver<bool>) {
        // Slack posts to a server that was listening before the engine was.
        let hearing = self.hearing();
        let mut gaps = hearing.connected().await;
        let mut until = match self.config().slack.mode {
            Mode::Http => self.0.started_at,
            Mode::Socket => self.clock().now(),
        };
        if resumed.wait_for(|resumed| *resumed).await.is_err() {
            return;
        }
        loop {
            let mut began = Instant::now();
            self.read_past_until_done(channel, until).await;
            // Cures go on; the second look is for what is not in the history yet.
            hearing.looked(channel, gaps, began);
            self.wake_heard().await;
            let again = self.in_a_while(SECOND_LOOK);
            tokio::time::sleep(SPACING).await;
            tokio::select! {
                () = self.clock_strikes(again) => {}
                () = hearing.gap_after(gaps, began) => {}
            }
            if hearing.gaps() == gaps {
                began = Instant::now();
                self.read_past_until_done(channel, self.clock().now().minus(DELIVERED_WITHIN)).await;
                hearing.looked(channel, gaps, began);
                hearing.has_read(channel, gaps);
            }
            let mut next = self.in_a_while(READ_EVERY);
            loop {
                tokio::select! {
                    () = hearing.gap_after(gaps, began) => break,
                    () = self.clock_strikes(next), if self.config().slack.mode == Mode::Http => {
                        self.read_past_until_done(channel, self.clock().now().minus(DELIVERED_WITHIN)).await;
                        next = self.in_a_while(READ_EVERY);
                    }
                    () = tokio::time::sleep(KEPT_EVERY) => self.keep_passed().await,
                }
            }
            // What is posted later is delivered.
            gaps = hearing.connected().await;
            until = self.clock().now();
        }
    }

    /// So long after now by the bot's clock, which a test can move …
    fn in_a_while(&self, wait: Duration) -> (Timestamp, Instant) {
        (self.clock().now().plus(wait), Instant::now() + wait)
    }

    /// … and no later, should that clock be put back.
    async fn clock_strikes(&self, (at, latest): (Timestamp, Instant)) {
        // Either way it is time.
        let _ = tokio::time::timeout_at(latest, self.clock().sleep_until(at)).await;
    }

    async fn read_past_until_done(&self, channel: &str, until: Timestamp) {
        let mut wait = BACKOFF.0;
        loop {
            let mut longest = WHILE_AWAY;
            match self.read_past(channel, until).await {
                Ok(()) => return,
                Err(Trouble::Store(store::Error::Stopped)) => return std::future::pending().await,
                Err(Trouble::Store(error)) => self.store_failed("reading the past of a channel", &error),
                Err(Trouble::Slack(error)) => {
                    let hint = error.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                    if error.is_permanent() {
                        longest = BACKOFF.1;
                        tracing::error!(channel, %error, "the history of {channel} cannot be read, so alerts posted while heal was away are not seen: {error}{hint}; trying again in {wait:?}");
                    } else {
                        tracing::warn!(channel, %error, "the history of {channel} could not be read; trying again in {wait:?}");
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
    }

    /// One reading: everything after the note is taken, however young: Slack's clock is not ours, and what
    /// is delivered too is one delivery. What was posted until then, by our clock, came late; the rest is
    /// taken as if it had been delivered.
    async fn read_past(&self, channel: &str, until: Timestamp) -> Result<(), Trouble> {
        let position = self.position(channel).await?;
        let ground = self.ground();
        // What is young may have been edited in place since, also where it was taken long ago.
        let known = match self.config().slack.mode {
            Mode::Http => position.seen.min(position.read),
            Mode::Socket => position.seen,
        };
        let oldest = known.minus(ground.max_age.max(OUT_OF_ORDER));
        let oldest = oldest.max(position.watched).max(ground.now.minus(OLDEST));
        let history = self.parts().slack.history(channel, oldest, AT_MOST).await?;
        let first = history.messages.first().and_then(|one| Timestamp::from_slack_ts(one["ts"].as_str()?));
        let cut = history.cut && first > Some(position.seen);
        if cut {
            tracing::warn!(
                channel,
                "more than {AT_MOST} messages were posted in {channel} meanwhile; the oldest are not read"
            );
        }
        let shared = match history.messages.is_empty() {
            true => false,
            false => self.parts().slack.channel_info(channel).await?.is_ext_shared,
        };
        let newest =
            history.messages.iter().filter_map(|one| one["ts"].as_str()).next_back().map(str::to_owned);
        let mut told: Vec<Told> = Vec::new();
        for raw in &history.messages {
            let Ok(Event::Posted(message)) = Message::from_history(channel, raw) else { continue };
            let Some(sender) = self.sender_of(&message, shared) else { continue };
            let reading = read(&sender, &message, &ground);
            let heard = self.hear(Arc::clone(&sender), &message, reading.clone(), &ground);
            told.push(Told { sender, message, reading, heard });
        }
        together(&mut told);
        let raises_after = known.minus(OUT_OF_ORDER);
        let mut taken = Vec::new();
        for one in told {
            let came = match one.message.at > until && !one.message.edited {
                true => Came::Delivered,
                false => Came::Late,
            };
            let Told { sender, message, reading, heard } = one;
            let (ground, raises, edited) = (ground.clone(), message.at > raises_after, message.edited);
            let says = reading.clone();
            // All are handed in before the first is awaited, so that they share commits.
            let kept = self.store().with(heard.needs()).transact(move |tx| {
                let mut out = Decided::default();
                let place = (heard.origin.channel.clone(), heard.origin.ts.clone());
                if raises && let Some(missed) = keep_heard(tx, &ground, heard, came, &mut out)? {
                    add_missed(tx, &place.0, missed)?;
                    return Ok((out, true));
                }
                if let (true, Reading::Alerts(says)) = (edited, says)
                    && !tx.alerts_of(&place.0, &place.1)?.is_empty()
                {
                    keep_edit(tx, &ground, (&place.0, &place.1), says, &mut out)?;
                }
                Ok((out, false))
            });
            taken.push((kept, sender, message, reading));
        }
        let (mut count, mut failed) = (0, None);
        for (kept, sender, message, reading) in taken {
            match kept.await {
                Ok((decided, new)) => {
                    if new {
                        count += 1;
                        self.count_reading(&sender, &message, &reading);
                    }
                    self.carry_out(decided);
                }
                // Trying this one again would not help it, and hold up all others.
                Err(error @ (store::Error::Corrupt { .. } | store::Error::Claimed(_))) => {
                    self.store_failed("keeping a message of the past", &error);
                }
                // The others may be kept all the same, and then what they owe is carried out.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let name = channel.to_owned();
        let (base, words) = (self.parts().identity.url.clone(), self.words());
        let closed = self.store().transact(move |tx| {
            let mut out = Decided::default();
            if let Some(newest) = newest {
                move_seen(tx, &name, &newest)?;
                tx.set_note(&read_to(&name), &newest)?;
            }
            let missed = close_missed(tx, &name, cut, &base, &words, &mut out)?;
            Ok((out, missed))
        });
        let (decided, missed) = closed.await?;
        self.carry_out(decided);
        if count > 0 {
            tracing::info!(
                channel,
                count,
                missed,
                "{count} messages of {channel} were read from its history; {missed} alerts in them were missed"
            );
        }
        Ok(())
    }

    /// Where this channel's reading begins. Of a channel that is new to the store nothing before the
    /// start is read: who installs heal does not ask it to heal the past.
    async fn position(&self, channel: &str) -> store::Result<Position> {
        let (watched_name, seen_name, read_name) = (watched(channel), seen(channel), read_to(channel));
        let started = self.0.started_at;
        self.store()
            .transact(move |tx| {
                let since = tx.note(&watched_name)?.and_then(|millis| millis.parse().ok()).map(Timestamp);
                let seen = stamp(tx, &seen_name)?;
                let watched = match since {
                    Some(since) => since,
                    None => {
                        tx.set_note(&watched_name, &started.as_millis().to_string())?;
                        started
                    }
                };
                let seen = seen.unwrap_or(watched);
                let read = stamp(tx, &read_name)?;
                if read.is_none() {
                    // From here on deliveries move the other note alone.
                    let millis = seen.as_millis();
                    tx.set_note(&read_name, &format!("{}.{:03}000", millis / 1000, millis % 1000))?;
                }
                Ok(Position { seen, read: read.unwrap_or(seen), watched })
            })
            .await
    }
}

/// Firing and what came of it are seen together: what a later message says is over is not acted on,
/// and of one condition that was told of again and again only the last is shown to people.
fn together(told: &mut [Told]) {
    let mut over: HashMap<(String, String), Timestamp> = HashMap::new();
    let mut fires: HashSet<(String, String)> = HashSet::new();
    for one in told.iter_mut().rev() {
        let condition = |alert: &Alert| (one.sender.name.clone(), alert.identity());
        for news in one.heard.news.iter_mut().filter(|news| news.alert.status == Status::Firing) {
            let condition = condition(&news.alert);
            news.over = over.get(&condition).copied();
            news.again = fires.contains(&condition);
        }
        for news in &one.heard.news {
            let condition = condition(&news.alert);
            match news.alert.status {
                Status::Firing => drop(fires.insert(condition)),
                Status::Resolved => drop(over.insert(condition, one.message.at)),
            }
        }
    }
}

/// Everything up to this message of the channel is known now.
pub(super) fn move_seen(tx: &mut dyn Tx, channel: &str, ts: &str) -> store::Result<()> {
    let name = seen(channel);
    if Timestamp::from_slack_ts(ts) > stamp(tx, &name)? {
        tx.set_note(&name, ts)?;
    }
    Ok(())
}

/// A note that holds the `ts` of a message.
pub(super) fn stamp(tx: &mut dyn Tx, name: &str) -> store::Result<Option<Timestamp>> {
    Ok(tx.note(name)?.and_then(|ts| Timestamp::from_slack_ts(&ts)))
}

/// The `ts` of the newest message up to which everything is known.
pub(super) fn seen(channel: &str) -> String {
    format!("seen:{channel}")
}

/// The `ts` of the newest message that was read from the history.
fn read_to(channel: &str) -> String {
    format!("read:{channel}")
}

/// When heal first looked after the channel, in milliseconds.
fn watched(channel: &str) -> String {
    format!("watched:{channel}")
}
