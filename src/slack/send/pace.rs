//! How fast: one method, one method in one channel, or all of Slack.
//!
//! A pace lets a window of calls be under way. It falls to one call at a time when Slack limits it or
//! fails, and widens with what succeeds: slowly after a limit, and with a gap between calls that Slack's own
//! wait taught it, so that a limited method is not tried in bursts of refusals; quickly after trouble.

use std::time::Duration;

use tokio::time::Instant;

/// The widest gap that a limit teaches: beyond that Slack's own waits rule.
const WIDEST_GAP: Duration = Duration::from_secs(2);
/// What a first limit teaches at most (posting: about one message a second and channel).
const FIRST_GAP: Duration = Duration::from_secs(1);
/// A gap that has shrunk to this is none.
const NO_GAP: Duration = Duration::from_millis(20);

/// May a call start?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Not before.
    At(Instant),
    /// When one that is under way has come back.
    Full,
}

#[derive(Debug)]
pub(super) struct Pace {
    widest: f64,
    window: f64,
    under_way: usize,
    gap: Duration,
    /// Slack's limit that was last heeded.
    limited_until: Option<Instant>,
    rests_until: Option<Instant>,
    /// Failures one after another, as far as they were not of one and the same moment.
    pub troubles: u32,
}

impl Pace {
    pub(super) fn new(widest: usize) -> Pace {
        let widest = widest as f64;
        Pace {
            widest,
            window: widest,
            under_way: 0,
            gap: Duration::ZERO,
            limited_until: None,
            rests_until: None,
            troubles: 0,
        }
    }

    pub(super) fn turn(&self, now: Instant) -> Turn {
        match self.rests_until.max(self.limited_until) {
            Some(until) if now < until => Turn::At(until),
            _ if self.under_way >= self.window as usize => Turn::Full,
            _ => Turn::Now,
        }
    }

    /// Fewer calls than could be may be under way: others wait for one to come back.
    pub(super) fn is_narrow(&self) -> bool {
        self.window < self.widest
    }

    pub(super) fn begun(&mut self, now: Instant) {
        self.under_way += 1;
        if !self.gap.is_zero() {
            self.rests_until = self.rests_until.max(Some(now + self.gap));
        }
    }

    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A call was done. How many troubles that ended.
    pub(super) fn succeeded(&mut self) -> u32 {
        if self.gap.is_zero() {
            self.rests_until = None;
            self.window = (self.window + 1.0).min(self.widest);
        } else {
            self.window = (self.window + 1.0 / self.window).min(self.widest);
            self.gap = self.gap.mul_f64(0.8);
            if self.gap < NO_GAP {
                self.gap = Duration::ZERO;
            }
        }
        std::mem::take(&mut self.troubles)
    }

    /// Slack lets nothing through before `until`. Told of one limit twice, it learns once.
    pub(super) fn limited(&mut self, until: Instant, now: Instant) {
        if self.limited_until.is_none_or(|known| known <= now) {
            let taught = (until - now).min(FIRST_GAP);
            self.gap = self.gap.mul_f64(1.5).max(taught).min(WIDEST_GAP);
            self.window = 1.0;
        }
        self.limited_until = self.limited_until.max(Some(until));
    }

    /// A call failed for no fault of its own: rest a little, and then one at a time. What was under way
    /// together fails together, and counts once.
    pub(super) fn troubled(&mut self, now: Instant, wait: impl FnOnce(u32) -> Duration) {
        if self.troubles > 0 && self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.troubles = self.troubles.saturating_add(1);
        let wait = wait(self.troubles);
        if !wait.is_zero() {
            self.window = 1.0;
            self.rests_until = self.rests_until.max(Some(now + wait));
        }
    }

    /// The trouble was everybody's and is over; limits and gaps stay.
    pub(super) fn rested(&mut self) {
        if self.troubles > 0 {
            self.troubles = 0;
            self.rests_until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_limit_calls_go_one_by_one_with_a_gap_that_success_closes() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(8);
        pace.begun(start);
        pace.begun(start);
        pace.limited(ms(3_000), start);
        // The second of those under way is told the same.
        pace.limited(ms(3_010), ms(10));
        pace.ended();
        pace.ended();
        assert_eq!(pace.turn(ms(2_999)), Turn::At(ms(3_010)));
        assert_eq!(pace.turn(ms(3_010)), Turn::Now);
        pace.begun(ms(3_010));
        assert_eq!(pace.turn(ms(3_500)), Turn::At(ms(4_010)));
        assert_eq!(pace.turn(ms(4_010)), Turn::Full);
        let mut now = ms(4_010);
        for _ in 0..30 {
            pace.succeeded();
            pace.ended();
            if let Turn::At(at) = pace.turn(now) {
                now = at;
            }
            pace.begun(now);
        }
        assert_eq!(pace.turn(now), Turn::Now);
        assert!(now < ms(4_010) + Duration::from_secs(5), "{:?}", now - start);
        assert!(!pace.is_narrow());
    }

    #[test]
    fn a_limit_met_again_and_again_widens_the_gap_up_to_a_bound() {
        let mut now = Instant::now();
        let mut pace = Pace::new(8);
        for _ in 0..5 {
            pace.limited(now + FIRST_GAP, now);
            now += 2 * FIRST_GAP;
        }
        assert_eq!(pace.gap, WIDEST_GAP);
    }

    #[test]
    fn trouble_is_rested_off_and_one_success_ends_it() {
        let start = Instant::now();
        let mut pace = Pace::new(4);
        for _ in 0..4 {
            pace.begun(start);
        }
        for _ in 0..4 {
            pace.ended();
            pace.troubled(start, |_| Duration::from_secs(1));
        }
        assert_eq!(pace.troubles, 1, "four of one moment are one trouble");
        assert_eq!(pace.turn(start), Turn::At(start + Duration::from_secs(1)));
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.turn(later), Turn::Now);
        pace.begun(later);
        assert_eq!(pace.turn(later), Turn::Full);
        pace.ended();
        assert_eq!(pace.succeeded(), 1);
        pace.begun(later);
        assert_eq!(pace.turn(later), Turn::Now);
    }
}
