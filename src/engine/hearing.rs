//! Whether this process hears Slack: what could stop a cure ("resolved", a pause, Hold) has to have
//! arrived, or been read from the history, before a cure may be sent.
//!
//! Every moment in which something may have been lost on its way is a gap. It is over for cures once the
//! channel's history was looked at after it. Each replica has its own ears, and decides by them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::time::Instant;

use super::Engine;
use super::decide::{Decided, apply};
use crate::gate::Reason;
use crate::lifecycle::{Input, State};
use crate::slack::socket::Status;
use crate::store::{self, Tx};

/// What waits for the channels' history waits so long at most where it can go on without.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// While deliveries come again and again, the history is read so often for their sake …
const REPEATS_SPACING: Duration = Duration::from_secs(10);
/// … and what was read so short a time ago is good enough for a cure.
const FRESH: Duration = Duration::from_secs(20);
/// Remediations that wait for the history, woken at once; the others look again by themselves.
const WOKEN_AT_ONCE: usize = 500;
/// What waits looks again within this (`LOOK_AGAIN` of the lifecycle, and a moment).
const LOOKS_WITHIN: Duration = Duration::from_secs(16);

/// How often something may have been missed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Lines of Socket Mode that went while Slack may have been handing them something.
    lines: u64,
    /// Deliveries that were not kept, or came only when Slack repeated them: others may not have come at all.
    deliveries: u64,
}

/// A channel's history was looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Everything up to these is in it.
    gaps: Gaps,
    began: Instant,
}

/// Cheap to clone; decisions look at it in their transaction.
#[derive(Clone, Debug)]
pub(super) struct Hearing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// In HTTP mode Slack calls heal, and there is no line that could be down.
    socket: Option<channel::Receiver<Status>>,
    /// The channels where alerts are read.
    channels: Vec<String>,
    deliveries: channel::Sender<u64>,
    looks: channel::Sender<HashMap<String, Look>>,
    /// The gaps that were over when a channel was last read to its end, second look included.
    read: Mutex<HashMap<String, Gaps>>,
}

impl Hearing {
    pub(super) fn new(socket: Option<channel::Receiver<Status>>, channels: Vec<String>) -> Hearing {
        Hearing(Arc::new(Inner {
            socket,
            channels,
            deliveries: channel::Sender::default(),
            looks: channel::Sender::default(),
            read: Mutex::default(),
        }))
    }

    /// Whether Slack can reach this process, and all that was posted in the channel before is known.
    pub(super) fn hears(&self, channel: &str) -> bool {
        let (connected, gaps) = self.stands();
        if !connected || !self.0.channels.iter().any(|watched| watched == channel) {
            return connected;
        }
        self.0.looks.borrow().get(channel).is_some_and(|look| {
            let repeats_only = look.gaps.lines == gaps.lines && look.began.elapsed() < FRESH;
            look.gaps == gaps || repeats_only
        })
    }

    pub(super) fn gaps(&self) -> Gaps {
        self.stands().1
    }

    /// Whether Slack can deliver, and the gaps, of one moment.
    fn stands(&self) -> (bool, Gaps) {
        let deliveries = *self.0.deliveries.borrow();
        match &self.0.socket {
            None => (true, Gaps { lines: 0, deliveries }),
            Some(socket) => {
                let status = socket.borrow();
                (status.connected > 0, Gaps { lines: status.gaps, deliveries })
            }
        }
    }

    /// A delivery was not kept, or came late.
    pub(super) fn delivery_lost(&self) {
        self.0.deliveries.send_modify(|count| *count += 1);
    }

    /// A look that `began` then has the channel's history up to these gaps.
    pub(super) fn looked(&self, channel: &str, gaps: Gaps, began: Instant) {
        self.0.looks.send_modify(|looks| {
            looks.insert(channel.to_owned(), Look { gaps, began });
        });
    }

    /// Nothing that was posted before these gaps can be missing any more.
    pub(super) fn has_read(&self, channel: &str, gaps: Gaps) {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.to_owned(), gaps);
    }

    /// Whether every delivery of this channel since the last reading came, so that the next one may move
    /// the note of how far everything is known. In HTTP mode nobody tells of what did not come.
    pub(super) fn is_caught_up(&self, channel: &str) -> bool {
        let read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.get(channel) == Some(&self.gaps())
    }

    /// Awaits a gap after these that is worth another look than the one that `began` then.
    pub(super) async fn gap_after(&self, gaps: Gaps, began: Instant) {
        let mut socket = self.0.socket.clone();
        let mut socket = socket.as_mut();
        let mut deliveries = self.0.deliveries.subscribe();
        loop {
            let now = self.gaps();
            if now.lines != gaps.lines {
                return;
            }
            tokio::select! {
                () = changed(&mut socket) => {}
                Ok(()) = deliveries.changed(), if now == gaps => {}
                () = tokio::time::sleep_until(began + REPEATS_SPACING), if now != gaps => return,
            }
        }
    }

    /// Awaits that Slack can deliver; the gaps of that moment. A line that drops right after is one more.
    pub(super) async fn connected(&self) -> Gaps {
        let Some(mut socket) = self.0.socket.clone() else { return self.gaps() };
        loop {
            let (connected, gaps) = self.stands();
            if connected {
                return gaps;
            }
            changed(&mut Some(&mut socket)).await;
        }
    }

    /// Awaits that this channel is heard; whether it is within a bound.
    pub(super) async fn heard(&self, channel: &str) -> bool {
        let mut socket = self.0.socket.clone();
        let mut socket = socket.as_mut();
        let mut looks = self.0.looks.subscribe();
        let heard = async {
            while !self.hears(channel) {
                tokio::select! {
                    () = changed(&mut socket) => {}
                    Ok(()) = looks.changed() => {}
                }
            }
        };
        tokio::time::timeout(HEARD_WITHIN, heard).await.is_ok()
    }

    /// Awaits that every channel was looked at once since the start; whether that is within a bound.
    async fn first_looks(&self) -> bool {
        let mut looks = self.0.looks.subscribe();
        let all = looks.wait_for(|looks| looks.len() >= self.0.channels.len());
        tokio::time::timeout(HEARD_WITHIN, all).await.is_ok()
    }
}

async fn changed(socket: &mut Option<&mut channel::Receiver<Status>>) {
    let gone = match socket {
        Some(socket) => socket.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

impl Engine {
    /// Awaits that every channel was looked at once since the start, for a bounded time.
    pub(super) async fn first_looks(&self) {
        if !self.hearing().first_looks().await {
            tracing::warn!(
                "the channels' history could not be read yet; what is due goes on without it, and cures wait"
            );
        }
    }

    /// This channel is heard again: what waited for that goes on, as far as this replica has claimed it.
    pub(super) async fn wake_heard(&self) {
        let ground = self.ground();
        let woken = self.store().transact(move |tx| {
            let mut out = Decided::default();
            for id in tx.due_remediations(ground.now.plus(LOOKS_WITHIN), WOKEN_AT_ONCE)? {
                if waits_to_hear(tx, &id)? {
                    drop(apply(tx, &ground, &id, &Input::Woken, "heal", &mut out)?);
                }
            }
            Ok(out)
        });
        match woken.await {
            Ok(decided) => self.carry_out(decided),
            Err(error) => self.store_failed("waking what waited for the history of Slack", &error),
        }
    }
}

fn waits_to_hear(tx: &mut dyn Tx, id: &crate::lifecycle::RemediationId) -> store::Result<bool> {
    match tx.subject(id) {
        Ok(subject) => Ok(subject.is_some_and(|subject| {
            matches!(subject.remediation.state, State::Waiting { reason: Reason::Deaf, .. })
        })),
        // Its own timer tells of it.
        Err(store::Error::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: &str = "C0ALERTS";

    fn ears() -> (channel::Sender<Status>, Hearing) {
        let (lines, status) = channel::channel(Status { connected: 2, wanted: 2, ..Status::default() });
        (lines, Hearing::new(Some(status), vec![CHANNEL.to_owned()]))
    }

    fn looks(hearing: &Hearing) {
        hearing.looked(CHANNEL, hearing.gaps(), Instant::now());
    }

    #[test]
    fn after_a_gap_nothing_is_heard_until_the_history_was_looked_at() {
        let (lines, hearing) = ears();
        assert!(!hearing.hears(CHANNEL), "what came before the start is not read yet");
        looks(&hearing);
        assert!(hearing.hears(CHANNEL));
        // A refresh, or a line that Slack closed in order: the other one hears.
        lines.send_modify(|status| status.connected = 1);
        assert!(hearing.hears(CHANNEL));
        lines.send_modify(|status| (status.connected, status.gaps) = (0, 1));
        assert!(!hearing.hears(CHANNEL) && !hearing.hears("C0OTHER"));
        let gaps = hearing.gaps();
        lines.send_modify(|status| status.connected = 2);
        assert!(!hearing.hears(CHANNEL), "the gap is unread");
        assert!(hearing.hears("C0OTHER"), "there is no history to read where no alerts are");
        hearing.looked(CHANNEL, gaps, Instant::now());
        assert!(hearing.hears(CHANNEL));
    }

    #[test]
    fn deliveries_that_slack_repeats_without_end_do_not_hold_up_every_cure() {
        let hearing = Hearing::new(None, vec![CHANNEL.to_owned()]);
        hearing.looked(CHANNEL, hearing.gaps(), Instant::now());
        hearing.delivery_lost();
        assert!(hearing.hears(CHANNEL), "the history was read a moment ago");
        let long_ago = Instant::now().checked_sub(FRESH).unwrap();
        hearing.looked(CHANNEL, Gaps::default(), long_ago);
        assert!(!hearing.hears(CHANNEL));
        looks(&hearing);
        assert!(hearing.hears(CHANNEL));
    }

    #[tokio::test]
    async fn a_line_that_went_is_looked_after_at_once_and_repeated_deliveries_now_and_then() {
        let (lines, hearing) = ears();
        let (before, now) = (hearing.gaps(), Instant::now());
        let again = hearing.gap_after(before, now);
        tokio::pin!(again);
        assert!(futures_util::poll!(&mut again).is_pending());
        hearing.delivery_lost();
        assert!(futures_util::poll!(&mut again).is_pending());
        lines.send_modify(|status| status.gaps += 1);
        again.await;
        // The last look was long ago.
        let (before, long_ago) = (hearing.gaps(), now.checked_sub(REPEATS_SPACING).unwrap());
        hearing.delivery_lost();
        hearing.gap_after(before, long_ago).await;
    }

    #[tokio::test]
    async fn the_gaps_of_a_line_that_is_down_are_not_taken_for_read() {
        let (lines, hearing) = ears();
        lines.send_modify(|status| (status.connected, status.gaps) = (0, 1));
        let up = hearing.connected();
        tokio::pin!(up);
        assert!(futures_util::poll!(&mut up).is_pending());
        lines.send_modify(|status| (status.connected, status.gaps) = (1, 5));
        assert_eq!(up.await, Gaps { lines: 5, deliveries: 0 });
    }
}
