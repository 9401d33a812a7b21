//! Time as the core knows it: a moment is a number, and "now" is always handed in.
//!
//! Nothing in the core reads a clock; a test, a replay and a recovery give the moment themselves.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    pub const fn from_secs(secs: i64) -> Timestamp {
        Timestamp(secs.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment and `duration` later; stops at the end of time instead of wrapping.
    pub fn plus(self, duration: Duration) -> Timestamp {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }

    /// This moment and `duration` earlier.
    pub fn minus(self, duration: Duration) -> Timestamp {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }

    /// How long ago `earlier` was; nothing when it lies ahead (clocks of two machines differ).
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// How long until `later`; nothing when it is past.
    pub fn until(self, later: Timestamp) -> Duration {
        later.since(self)
    }

    /// The moment in a Slack message `ts` (`"1795133413.007919"`), which is its id and its time.
    pub fn from_slack_ts(ts: &str) -> Option<Timestamp> {
        let (secs, micros) = ts.split_once('.')?;
        let secs: i64 = secs.parse().ok()?;
        let micros: i64 = micros.parse().ok()?;
        if !(0..=999_999).contains(&micros) || !(0..=i64::MAX / 2000).contains(&secs) {
            return None;
        }
        Some(Timestamp(secs * 1000 + micros / 1000))
    }

    /// RFC 3339 in UTC with seconds, for logs and texts: `2026-11-23T05:06:24Z`.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_second(self.as_secs())
            .map_or_else(|_| format!("@{}", self.as_secs()), |moment| moment.to_string())
    }

    /// The time of day in UTC, `18:00 UTC`.
    pub fn clock_utc(self) -> String {
        jiff::Timestamp::from_second(self.as_secs()).map_or_else(
            |_| format!("@{}", self.as_secs()),
            |moment| moment.strftime("%H:%M UTC").to_string(),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Reads a duration as configuration writes it: `0s`, `30s`, `5m`, `2h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is not a duration; write 0s, 30s, 5m, 2h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = &text[..text.len() - unit.len_utf8()];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is too long"))?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let total = number.checked_mul(seconds).filter(|total| *total <= 10 * 366 * 86_400);
    total.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is longer than ten years"))
}

/// Writes a duration as people say it, rounded to two units: `12 minutes`, `1 hour 5 minutes`, `0.4 seconds`.
pub fn say_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if (1..50).contains(&millis) {
        return "under 0.1 seconds".to_owned();
    }
    if millis < 10_000 && !millis.is_multiple_of(1000) {
        return format!("{:.1} seconds", duration.as_secs_f64());
    }
    let seconds = duration.as_secs();
    let units = [("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)];
    let mut left = seconds;
    let mut parts: Vec<String> = Vec::new();
    for (name, size) in units {
        let count = left / size;
        left %= size;
        if count > 0 {
            parts.push(format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(" ") }
}

/// Writes a duration as configuration does, in the largest unit that holds it whole: `90s`, `2h`.
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    for (unit, size) in [('d', 86_400), ('h', 3600), ('m', 60)] {
        if seconds > 0 && seconds.is_multiple_of(size) {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        for text in ["0s", "30s", "5m", "2h", "7d"] {
            assert_eq!(short_duration(parse_duration(text).unwrap()), text);
        }
        for text in
            ["", "5", "m", "-5m", "5 m", "5w", "1.5h", "99999999999999999999s", "9999999d", "５m", "5é"]
        {
            assert!(parse_duration(text).is_err(), "{text:?} was read");
        }
    }

    #[test]
    fn durations_are_said_in_two_units() {
        let say = |seconds| say_duration(Duration::from_secs(seconds));
        assert_eq!(say(0), "0 seconds");
        assert_eq!(say_duration(Duration::from_millis(40)), "under 0.1 seconds");
        assert_eq!(say(61), "1 minute 1 second");
        assert_eq!(say(720), "12 minutes");
        assert_eq!(say(3600), "1 hour");
        assert_eq!(say(90_061), "1 day 1 hour");
        assert_eq!(say_duration(Duration::from_millis(1400)), "1.4 seconds");
    }

    #[test]
    fn a_slack_ts_is_a_moment() {
        assert_eq!(Timestamp::from_slack_ts("1795133413.007919"), Some(Timestamp(1_795_133_413_007)));
        for odd in ["", "1", "1.x", "-1.000000", "1.-1", "99999999999999999999.000000"] {
            assert_eq!(Timestamp::from_slack_ts(odd), None, "{odd:?}");
        }
    }
}
