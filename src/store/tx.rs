//! What a transaction can read and write; one implementation per database.

use std::sync::Arc;
use std::time::Duration;

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
    /// The replica that performs it; see [`super::Store::number`].
    pub claimed_by: i64,
}

/// A remediation with what decisions about it look at first.
#[derive(Clone, Debug)]
pub struct Subject {
    pub remediation: Arc<Remediation>,
    /// Its alert's row, where it has one.
    pub alert: Option<i64>,
    /// When that alert was over.
    pub resolved_at: Option<Timestamp>,
}

/// How a rule, an instance and a role stand for one remediation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub under_way: Option<RemediationId>,
    pub instance_taken: Option<(RemediationId, String)>,
    pub role_running: u32,
    pub last_acted: Option<Timestamp>,
    /// Newest first.
    pub attempts: Vec<Timestamp>,
}

/// An alert that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub id: i64,
    /// When its sender said that it is over, if that came before it.
    pub resolved_at: Option<Timestamp>,
    /// Whether the note that was asked for is there.
    pub noted: bool,
}

/// A post that belongs to no remediation, owed until Slack has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// By which it is found in the channel when the answer to its posting was lost.
    pub id: String,
    pub owed_at: Timestamp,
    pub channel: String,
    /// What it says; the engine's to read.
    pub body: String,
}

/// Slack's "come back later" for one lane of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub lane: String,
    /// From the moment of telling or asking, so that no two clocks are compared.
    pub wait: Duration,
}

/// A replica as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub number: i64,
    /// Moves on at least every second while it lives.
    pub beat: i64,
    /// Whether its session with the database stands.
    pub connected: bool,
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

/// What was claimed by a replica that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Open remediations.
    pub open: Vec<RemediationId>,
    /// How many effects and notices are owed by them and others.
    pub owed: usize,
}

/// What grows with every alert, and goes when it is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Past {
    /// Finished remediations, each with all its lines in the journal, by the moment of their end. One that
    /// owes something stays, as does one with a younger line.
    Remediations,
    /// Lines of the journal that belong to no remediation.
    Journal,
    /// Alerts that no remediation refers to, by the moment they were read.
    Alerts,
    /// Deliveries that were taken.
    Deliveries,
    /// Pauses, by the moment of their end.
    Pauses,
    /// Notes with a time ([`Tx::set_passing_note`]).
    Notes,
}

impl Past {
    /// In the order in which they are trimmed: an alert can go once its remediations went.
    pub const ALL: [Past; 6] =
        [Past::Remediations, Past::Journal, Past::Alerts, Past::Deliveries, Past::Pauses, Past::Notes];

    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Past::Remediations => "remediations",
            Past::Journal => "journal",
            Past::Alerts => "alerts",
            Past::Deliveries => "deliveries",
            Past::Pauses => "pauses",
            Past::Notes => "notes",
        }
    }
}

/// What one batch of trimming did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Rows that went, lines of the journal included.
    pub rows: usize,
    /// Whether the limit ended it, so that there may be more.
    pub more: bool,
}

/// The store within one transaction.
pub trait Tx {
    /// This replica's number; see [`super::Store::number`].
    fn me(&self) -> i64;

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
    fn insert_remediation(&mut self, new: &Remediation, alert: Option<i64>) -> Result<()> {
        self.keep_new(&Arc::new(new.clone()), alert, &[], &[]).map(drop)
    }
    /// Keeps what a step made of a remediation.
    fn update_remediation(&mut self, changed: &Remediation) -> Result<()> {
        self.keep_step(&Arc::new(changed.clone()), None, &[]).map(drop)
    }
    /// Takes a remediation that cannot be read out of everybody's way, if this replica has claimed it; the row
    /// stays for people. False where another has claimed it, who may be able to read it.
    fn set_aside(&mut self, id: &RemediationId) -> Result<bool>;
    /// A remediation and its alert's row id.
    fn remediation(&mut self, id: &RemediationId) -> Result<Option<(Remediation, Option<i64>)>>;
    /// All remediations in the thread of a message.
    fn remediations_of(&mut self, channel: &str, ts: &str) -> Result<Vec<Remediation>>;
    fn open_remediations_of_alert(&mut self, alert: i64) -> Result<Vec<RemediationId>>;
    /// Open ones of all replicas, oldest first.
    fn open_remediations(&mut self) -> Result<Vec<Remediation>>;
    /// Open ones that this replica has claimed, oldest first.
    fn claimed_remediations(&mut self) -> Result<Vec<Remediation>>;
    /// Claimed ones in state running.
    fn running_remediations(&mut self) -> Result<Vec<Remediation>>;
    /// Open ones before their sending, whatever they wait for.
    fn unsent_remediations(&mut self) -> Result<Vec<(RemediationId, RuleKey)>>;
    /// Those that wait for this ([`crate::gate::Reason::waits_for`]), oldest first, at most `limit`.
    fn waiting_for(&mut self, what: &str, limit: usize) -> Result<Vec<RemediationId>>;
    /// Claimed ones whose deadline has come, earliest first, at most `limit`.
    fn due_remediations(&mut self, now: Timestamp, limit: usize) -> Result<Vec<RemediationId>>;
    /// When the next claimed one is due.
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

    /// [`Tx::remediation`] with the moment its alert was over.
    fn subject(&mut self, id: &RemediationId) -> Result<Option<Subject>>;

    /// All that the gates count, at once; `attempts` since then.
    fn standing(
        &mut self,
        this: &Remediation,
        instance: &str,
        attempts_since: Option<Timestamp>,
    ) -> Result<Standing> {
        let (key, id) = (&this.rule_key, &this.id);
        Ok(Standing {
            under_way: self.under_way(key, instance, id)?,
            instance_taken: self.instance_taken(instance, id)?,
            role_running: self.role_running(this.role(), id)?,
            last_acted: self.last_acted(key, instance)?,
            attempts: match attempts_since {
                Some(since) => self.attempts_since(key, instance, since)?,
                None => Vec::new(),
            },
        })
    }

    /// What one step made of a remediation, its line in the journal and what it owes, at once.
    fn keep_step(
        &mut self,
        next: &Arc<Remediation>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>>;

    /// A new remediation, its lines in the journal and what it owes, at once.
    /// [`super::Error::Claimed`] where its rule is at work on its instance.
    fn keep_new(
        &mut self,
        new: &Arc<Remediation>,
        alert: Option<i64>,
        records: &[Record<'_>],
        effects: &[Effect],
    ) -> Result<Vec<Owed>>;

    /// [`Tx::insert_alert`] with what is known of its end, and whether the note `note` is there.
    fn keep_alert(&mut self, new: &NewAlert<'_>, note: &str) -> Result<Kept> {
        let id = self.insert_alert(new)?;
        let resolved_at = self.resolved_since(&new.origin.sender, &new.alert.identity(), new.origin.at)?;
        let noted = self.note(note)?.is_some();
        Ok(Kept { id, resolved_at, noted })
    }

    /// Owes an effect; owing what is owed already makes it newer. It is performed right after the
    /// commit, so from then on it may have happened: found after a restart, it is looked up first.
    fn owe(&mut self, remediation: &RemediationId, effect: Effect) -> Result<Owed>;
    /// The effect is done. Where it was owed anew meanwhile, the newer one stays owed.
    fn settle(&mut self, owed: &Owed) -> Result<()>;
    /// All that is owed and claimed by this replica, oldest first.
    fn owed(&mut self) -> Result<Vec<Owed>> {
        self.owed_since(i64::MIN)
    }
    /// The same of what was owed after this generation.
    fn owed_since(&mut self, generation: i64) -> Result<Vec<Owed>>;

    /// Owes a post; claimed by this replica.
    fn owe_notice(&mut self, notice: &Notice) -> Result<()>;
    /// The posts that are owed and claimed by this replica, oldest first.
    fn owed_notices(&mut self) -> Result<Vec<Notice>>;
    fn settle_notice(&mut self, id: &str) -> Result<()>;

    /// This replica lives: moves its beat on, and shows all replicas, this one as well.
    fn beat(&mut self) -> Result<Vec<Beat>>;
    /// Takes a replica that was not heard of off the list, unless its beat moved since; true where it
    /// was taken off. From then on nothing that it does counts.
    fn bury(&mut self, silent: Beat) -> Result<bool>;
    /// Claims what is open or owed and claimed by nobody on the list. What it owes is in [`Tx::owed`]
    /// and [`Tx::owed_notices`] from then on.
    fn claim_orphans(&mut self) -> Result<Orphans>;

    /// Keeps a limit, unless a later one is kept. `now` where the database has no clock of its own.
    fn keep_limit(&mut self, limit: &Limit, now: Timestamp) -> Result<()>;
    /// Limits that are not over, and forgets the others.
    fn limits(&mut self, now: Timestamp) -> Result<Vec<Limit>>;

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
    /// Sets a note that stays until it is set anew.
    fn set_note(&mut self, name: &str, value: &str) -> Result<()>;
    /// Sets a note about something that passes: it is trimmed once `at` is long ago.
    fn set_passing_note(&mut self, name: &str, value: &str, at: Timestamp) -> Result<()>;

    /// Deletes what is older than `before`, the oldest first, and stops at about `limit` rows (a
    /// remediation goes with its journal or not at all, so the last one may go beyond it).
    ///
    /// - `Remediations`: `open = 0 AND coalesce(ended_at, opened_at) < before`, no row in `outbox`, no line in
    ///   `journal` with `at >= before`, and not the one that the newest line of the journal belongs to;
    ///   with them `journal WHERE remediation = id`.
    /// - `Journal`: `remediation IS NULL AND at < before`, but never the newest line: effects are numbered
    ///   after it, and those numbers only grow.
    /// - `Alerts`: `received_at < before`, and no row in `remediations` has it as its `alert`.
    /// - `Deliveries`: `at < before`. `Pauses`: `coalesce(ended_at, until) < before`. `Notes`: `at < before`.
    ///
    /// An open remediation, its alert and its journal never go.
    fn trim(&mut self, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed>;
}
