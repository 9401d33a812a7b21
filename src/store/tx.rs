//! What a transaction can read and write; one implementation per database.

use crate::alert::{Alert, Origin};
use crate::gate::Pause;
use crate::lifecycle::{Effect, Outcome, Remediation, RemediationId};
use crate::rule::RuleKey;
use crate::time::Timestamp;

use super::Result;

/// An alert as it was read, to be kept.
#[derive(Clone, Debug)]
pub struct NewAlert<'a> {
    pub origin: &'a Origin,
    /// Its place among the message's alerts, from 0.
    pub position: u32,
    pub alert: &'a Alert,
    pub rule: Option<&'a RuleKey>,
    pub received_at: Timestamp,
}

/// A stored alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    pub id: i64,
    pub origin: Origin,
    pub alert: Alert,
    pub resolved_at: Option<Timestamp>,
}

/// An effect that is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    pub remediation: RemediationId,
    pub effect: Effect,
    /// Grows each time the same effect is owed anew before it was done.
    pub generation: i64,
}

/// A line of the journal.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub at: Timestamp,
    pub remediation: Option<&'a RemediationId>,
    /// What happened, one word: `opened`, `approved`, `refused`, `paused`, …
    pub what: &'a str,
    /// A Slack user id, a sender's name, or `heal`.
    pub who: &'a str,
    /// Anything that explains it; never a secret.
    pub why: &'a str,
}

/// A remediation as `/heal history` shows it.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    pub remediation: Remediation,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<Outcome>,
}

/// A counter with the moment of its last count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub name: String,
    pub count: i64,
    pub last_at: Timestamp,
    pub sample: String,
}

/// The store within one transaction.
pub trait Tx {
    /// Remembers that this delivery was taken; false where it was before.
    fn take_delivery(&mut self, id: &str, at: Timestamp) -> Result<bool>;

    /// Keeps an alert and returns its row id.
    fn insert_alert(&mut self, new: &NewAlert<'_>) -> Result<i64>;
    /// Marks what the sender says is over, as far as it fired before `at`; returns the row ids.
    fn resolve_alerts(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Vec<i64>>;
    /// When the sender last said that this is over, if that was not before `at`.
    fn resolved_since(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Option<Timestamp>>;
    /// Marks one alert as over, unless it was before.
    fn resolve_alert(&mut self, alert: i64, at: Timestamp) -> Result<bool>;
    /// The alerts that a message carried.
    fn alerts_of(&mut self, channel: &str, ts: &str) -> Result<Vec<AlertRow>>;
    fn alert_resolved_at(&mut self, alert: i64) -> Result<Option<Timestamp>>;

    /// Keeps a new remediation. [`super::Error::Claimed`] where its rule is at work on its instance.
    fn insert_remediation(&mut self, new: &Remediation, alert: Option<i64>) -> Result<()>;
    /// Keeps what a step made of a remediation.
    fn update_remediation(&mut self, changed: &Remediation) -> Result<()>;
    /// Takes a remediation that cannot be read out of everybody's way; the row stays for people.
    fn set_aside(&mut self, id: &RemediationId) -> Result<()>;
    /// A remediation and its alert's row id.
    fn remediation(&mut self, id: &RemediationId) -> Result<Option<(Remediation, Option<i64>)>>;
    /// All remediations in the thread of a message.
    fn remediations_of(&mut self, channel: &str, ts: &str) -> Result<Vec<Remediation>>;
    fn open_remediations_of_alert(&mut self, alert: i64) -> Result<Vec<RemediationId>>;
    /// Open ones, oldest first.
    fn open_remediations(&mut self) -> Result<Vec<Remediation>>;
    /// Open ones before their sending, whatever they wait for.
    fn unsent_remediations(&mut self) -> Result<Vec<(RemediationId, RuleKey)>>;
    /// Those that wait for this ([`crate::gate::Reason::waits_for`]), oldest first, at most `limit`.
    fn waiting_for(&mut self, what: &str, limit: usize) -> Result<Vec<RemediationId>>;
    /// Those whose deadline has come, earliest first, at most `limit`.
    fn due_remediations(&mut self, now: Timestamp, limit: usize) -> Result<Vec<RemediationId>>;
    fn next_due_at(&mut self) -> Result<Option<Timestamp>>;
    /// The newest, most recent first; `pattern` may hold `*`.
    fn history(&mut self, pattern: Option<&str>, limit: usize) -> Result<Vec<HistoryRow>>;

    /// An open remediation of this rule on this instance, other than `but`.
    fn under_way(
        &mut self,
        rule: &RuleKey,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<RemediationId>>;
    /// Another remediation between its sending and its outcome on the instance.
    fn instance_taken(
        &mut self,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<(RemediationId, String)>>;
    /// How many other instances of the role are between sending and answer.
    fn role_running(&mut self, role: &str, but: &RemediationId) -> Result<u32>;
    /// The last outcome of this rule on this instance whose commands ran.
    fn last_acted(&mut self, rule: &RuleKey, instance: &str) -> Result<Option<Timestamp>>;
    /// When commands of this rule were sent to this instance since then, newest first.
    fn attempts_since(&mut self, rule: &RuleKey, instance: &str, since: Timestamp) -> Result<Vec<Timestamp>>;

    /// Owes an effect; owing what is owed already makes it newer. It is performed right after the
    /// commit, so from then on it may have happened: found after a restart, it is looked up first.
    fn owe(&mut self, remediation: &RemediationId, effect: Effect) -> Result<Owed>;
    /// The effect is done; false where it was owed anew meanwhile, with the newer one.
    fn settle(&mut self, owed: &Owed) -> Result<Option<Owed>>;
    /// All that is owed, oldest first.
    fn owed(&mut self) -> Result<Vec<Owed>>;

    fn insert_pause(&mut self, pause: &Pause) -> Result<i64>;
    /// Ends the active pauses of exactly this pattern; returns them.
    fn end_pauses(&mut self, pattern: &str, by: &str, now: Timestamp) -> Result<Vec<Pause>>;
    fn active_pauses(&mut self, now: Timestamp) -> Result<Vec<Pause>>;

    fn record(&mut self, record: &Record<'_>) -> Result<()>;
    /// The journal of a remediation: when, what, who, why.
    fn journal_of(&mut self, id: &RemediationId) -> Result<Vec<(Timestamp, String, String, String)>>;
    fn tally(&mut self, name: &str, sample: &str, now: Timestamp) -> Result<()>;
    fn tallies(&mut self) -> Result<Vec<Tally>>;
    /// A small named value.
    fn note(&mut self, name: &str) -> Result<Option<String>>;
    fn set_note(&mut self, name: &str, value: &str) -> Result<()>;
}
