//! Slack's rate limits: about one message a second and channel with short bursts, and the tiers of
//! the other methods (docs.slack.dev/apis/web-api/rate-limits).

use std::collections::HashMap;
use std::time::Instant;

/// How many messages one channel takes at once before the second's rule holds.
const BURST: f64 = 4.0;

/// The buckets, by what they pace.
#[derive(Default)]
pub(super) struct Pacing {
    buckets: HashMap<String, (f64, Instant)>,
}

impl Pacing {
    /// `Err(seconds)`: wait so long (`Retry-After`).
    pub fn take(&mut self, method: &str, channel: &str, now: Instant) -> Result<(), u64> {
        let (key, size, per_second) = match method {
            "chat.postMessage" => (format!("{method} {channel}"), BURST, 1.0),
            _ => {
                let minute = per_minute(method);
                (method.to_owned(), minute, minute / 60.0)
            }
        };
        let (left, at) = self.buckets.entry(key).or_insert((size, now));
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
    use std::time::Duration;

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
}
