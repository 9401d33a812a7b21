//! Slack's rate limits: about one message a second and channel with short bursts, and the tiers of
//! the other methods (docs.slack.dev/apis/web-api/rate-limits).

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many messages one channel takes at once before the second's rule holds.
const BURST: f64 = 4.0;

/// A call that was on its way when "wait" was said is not to blame; a busy machine may be slow with it.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// Whoever was told to wait, and calls that did not.
#[derive(Default)]
pub(super) struct Patience {
    /// By method (and channel, for posts): when "wait" was said, and until when.
    told: HashMap<String, (Instant, Instant)>,
    pub too_soon: Vec<String>,
}

impl Patience {
    /// A call arrived. A new process, which begins with `auth.test`, knows nothing of what was said before.
    pub fn called(&mut self, method: &str, channel: &str, now: Instant) {
        if method == "auth.test" {
            self.told.clear();
        }
        let Some((at, until)) = self.told.get(&key(method, channel)) else { return };
        if now > *at + ON_ITS_WAY && now < *until {
            let early = (*until - now).as_secs_f64();
            self.too_soon
                .push(format!("{method} {channel} came {early:.2} s before its Retry-After was over"));
        }
    }

    /// It was told to wait.
    pub fn told(&mut self, method: &str, channel: &str, seconds: u64, now: Instant) {
        let until = now + Duration::from_secs(seconds);
        let told = self.told.entry(key(method, channel)).or_insert((now, until));
        // What else was on its way is told the same, and is no new beginning.
        let at = if told.1 > now { told.0 } else { now };
        *told = (at, until.max(told.1));
    }
}

/// Posting is limited by channel, everything else in the whole workspace.
fn key(method: &str, channel: &str) -> String {
    if method == "chat.postMessage" { format!("{method} {channel}") } else { method.to_owned() }
}

/// The buckets, by what they pace.
#[derive(Default)]
pub(super) struct Pacing {
    buckets: HashMap<String, (f64, Instant)>,
}

impl Pacing {
    /// `Err(seconds)`: wait so long (`Retry-After`).
    pub fn take(&mut self, method: &str, channel: &str, now: Instant) -> Result<(), u64> {
        let (size, per_second) = match method {
            "chat.postMessage" => (BURST, 1.0),
            _ => (per_minute(method), per_minute(method) / 60.0),
        };
        let (left, at) = self.buckets.entry(key(method, channel)).or_insert((size, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * per_second).min(size);
        *at = now;
        if *left >= 1.0 {
            *left -= 1.0;
            return Ok(());
        }
        let wait = ((1.0 - *left) / per_second).ceil().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 60 seconds")]
        Err(wait as u64)
    }
}

/// The method's tier: requests a minute.
fn per_minute(method: &str) -> f64 {
    match method {
        "apps.connections.open" => 20.0,
        "conversations.list"
        | "users.list"
        | "usergroups.list"
        | "usergroups.users.list"
        | "reactions.remove" => 20.0,
        "chat.postEphemeral"
        | "users.info"
        | "auth.test"
        | "files.completeUploadExternal"
        | "files.getUploadURLExternal" => 100.0,
        _ => 50.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_takes_a_short_burst_and_then_one_message_a_second() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        let mut post =
            |channel: &str, ms| pacing.take("chat.postMessage", channel, start + Duration::from_millis(ms));
        assert_eq!((0..6).filter(|_| post("C1", 0).is_ok()).count(), 4);
        assert_eq!(post("C1", 0), Err(1));
        assert_eq!(post("C2", 0), Ok(()), "each channel for itself");
        assert_eq!(post("C1", 1_100), Ok(()));
        assert_eq!(post("C1", 1_200), Err(1));
    }

    #[test]
    fn other_methods_have_a_budget_a_minute() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        let granted = (0..80).filter(|_| pacing.take("chat.update", "C1", start).is_ok()).count();
        assert_eq!(granted, 50);
        assert_eq!(pacing.take("chat.update", "C1", start), Err(2));
    }

    #[test]
    fn a_call_before_its_time_is_seen_and_one_on_its_way_is_not_blamed() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        patience.told("chat.postMessage", "C1", 2, at(0));
        patience.called("chat.postMessage", "C1", at(100));
        patience.told("chat.postMessage", "C1", 2, at(100));
        patience.called("chat.postMessage", "C2", at(1_000));
        patience.called("chat.update", "C1", at(1_000));
        patience.called("chat.postMessage", "C1", at(2_101));
        assert_eq!(patience.too_soon, Vec::<String>::new());
        patience.called("chat.postMessage", "C1", at(2_050));
        assert_eq!(patience.too_soon.len(), 1);
        patience.told("chat.update", "C1", 5, at(3_000));
        patience.called("chat.update", "C2", at(4_000));
        assert_eq!(patience.too_soon.len(), 2);
        patience.called("auth.test", "", at(4_100));
        patience.called("chat.update", "C2", at(4_200));
        assert_eq!(patience.too_soon.len(), 2);
    }
}
