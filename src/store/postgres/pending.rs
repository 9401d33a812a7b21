//! What was written and not sent yet. Of one kind everything goes out in one statement, and of what was
//! written several times the last; so a commit of a hundred decisions costs a handful of statements.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem::take;
use std::sync::Arc;

use super::session::{Param, Session};
use super::sql;
use super::work::{limited, text, values};
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::store::columns::{Columns, body, columns};
use crate::store::{Owed, Record, Result};

/// An alert's row.
pub(super) struct Alert {
    pub(super) id: i64,
    pub(super) channel: String,
    pub(super) ts: String,
    pub(super) position: i64,
    pub(super) sender: String,
    pub(super) identity: String,
    pub(super) status: &'static str,
    pub(super) at: i64,
    pub(super) received_at: i64,
    pub(super) rule: Option<String>,
    pub(super) body: String,
}

/// A remediation's row.
struct Changed {
    remediation: Arc<Remediation>,
    /// Of a new one its alert and who has claimed it.
    new: Option<(Option<i64>, i64)>,
}

struct Line {
    at: i64,
    remediation: Option<String>,
    what: String,
    who: String,
    why: String,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) deliveries: Vec<(String, i64)>,
    pub(super) alerts: Vec<Alert>,
    /// In the order of their ids, so that no two replicas wait for each other's rows.
    remediations: BTreeMap<RemediationId, Changed>,
    /// Claims of a rule on an instance that were given up.
    released: HashSet<(String, String)>,
    journal: Vec<Line>,
    /// Generation and claimer.
    owed: HashMap<(RemediationId, Effect), (i64, i64)>,
    settled: BTreeMap<(RemediationId, Effect), BTreeSet<i64>>,
    /// With the moment after which they may be trimmed.
    notes: BTreeMap<String, (String, Option<i64>)>,
    /// What has no kind of its own.
    others: Vec<(&'static str, Vec<Param>)>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let Pending { deliveries, alerts, remediations, released: _, journal, owed, settled, notes, others } =
            self;
        deliveries.is_empty()
            && alerts.is_empty()
            && remediations.is_empty()
            && journal.is_empty()
            && owed.is_empty()
            && settled.is_empty()
            && notes.is_empty()
            && others.is_empty()
    }

    pub(super) fn has(&self, id: &RemediationId) -> bool {
        self.remediations.contains_key(id)
    }

    pub(super) fn insert(&mut self, new: &Arc<Remediation>, alert: Option<i64>, claimed_by: i64) {
        let new_one = Changed { remediation: new.clone(), new: Some((alert, claimed_by)) };
        self.remediations.insert(new.id.clone(), new_one);
    }

    pub(super) fn update(&mut self, next: &Arc<Remediation>) {
        let changed = self
            .remediations
            .entry(next.id.clone())
            .or_insert_with(|| Changed { remediation: next.clone(), new: None });
        changed.remediation = next.clone();
    }

    pub(super) fn release(&mut self, claim: &(String, String)) {
        self.released.insert(claim.clone());
    }

    /// Whether somebody gives this claim up, so that nobody may have it in the same statement.
    pub(super) fn releases(&self, claim: &(String, String)) -> bool {
        self.released.contains(claim)
    }

    pub(super) fn record(&mut self, record: &Record<'_>) {
        self.journal.push(Line {
            at: record.at.0,
            remediation: record.remediation.map(|id| text(&id.0)),
            what: text(record.what),
            who: text(record.who),
            why: text(record.why),
        });
    }

    pub(super) fn owe(&mut self, owed: &Owed) {
        let key = (owed.remediation.clone(), owed.effect);
        self.owed.insert(key, (owed.generation, owed.claimed_by));
    }

    pub(super) fn settle(&mut self, owed: &Owed) {
        let key = (owed.remediation.clone(), owed.effect);
        self.settled.entry(key).or_default().insert(owed.generation);
    }

    pub(super) fn note(&mut self, name: String, value: String, at: Option<i64>) {
        self.notes.insert(name, (value, at));
    }

    pub(super) fn other(&mut self, sql: &'static str, values: Vec<Param>) {
        self.others.push((sql, values));
    }

    /// Takes over what another one holds, which came later.
    pub(super) fn append(&mut self, more: Pending) {
        let Pending { deliveries, alerts, remediations, released, journal, owed, settled, notes, others } =
            more;
        self.deliveries.extend(deliveries);
        self.alerts.extend(alerts);
        for (id, later) in remediations {
            match self.remediations.get_mut(&id) {
                Some(changed) => changed.remediation = later.remediation,
                None => drop(self.remediations.insert(id, later)),
            }
        }
        self.released.extend(released);
        self.journal.extend(journal);
        self.owed.extend(owed);
        for (key, generations) in settled {
            self.settled.entry(key).or_default().extend(generations);
        }
        self.notes.extend(notes);
        self.others.extend(others);
    }

    /// Sends everything and waits for nothing.
    pub(super) fn send(&mut self, session: &mut Session) -> Result<()> {
        let Pending { deliveries, alerts, remediations, released: _, journal, owed, settled, notes, others } =
            take(self);
        if !deliveries.is_empty() {
            let (ids, at): (Vec<String>, Vec<i64>) = deliveries.into_iter().unzip();
            session.send(sql::TAKE, values![ids, at])?;
        }
        send_alerts(alerts, session)?;
        let (new, changed): (Vec<_>, Vec<_>) =
            remediations.into_values().partition(|changed| changed.new.is_some());
        send_remediations(new, sql::NEW, session)?;
        send_remediations(changed, sql::STEP, session)?;
        send_journal(journal, session)?;
        send_owed(owed, settled, session)?;
        if !notes.is_empty() {
            let (names, kept): (Vec<String>, Vec<(String, Option<i64>)>) = notes.into_iter().unzip();
            let (kept, at): (Vec<String>, Vec<Option<i64>>) = kept.into_iter().unzip();
            session.send(sql::NOTE, values![names, kept, at])?;
        }
        others.into_iter().try_for_each(|(sql, values)| session.send(sql, values))
    }
}

/// Turns rows into columns: one list for each.
macro_rules! unnest {
    ($rows:expr, $row:ident => $($value:expr),* $(,)?) => {{
        let rows: &mut [_] = $rows;
        values![$({
            let column: Vec<_> = rows.iter_mut().map(|$row| $value).collect();
            column
        }),*]
    }};
}

fn send_alerts(mut alerts: Vec<Alert>, session: &mut Session) -> Result<()> {
    if alerts.is_empty() {
        return Ok(());
    }
    let values = unnest!(&mut alerts, row =>
        row.id, take(&mut row.channel), take(&mut row.ts), row.position, take(&mut row.sender),
        take(&mut row.identity), row.status, row.at, row.received_at, row.rule.take(), take(&mut row.body));
    session.send(sql::KEEP_ALERTS, values)
}

/// A remediation's row, ready to be sent.
struct Written<'a> {
    this: &'a Remediation,
    columns: Columns,
    body: String,
    new: Option<(Option<i64>, i64)>,
}

fn send_remediations(all: Vec<Changed>, sql: &'static str, session: &mut Session) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(all.len());
    for Changed { remediation: this, new } in &all {
        rows.push(Written { this, columns: columns(this), body: text(&body(this)?), new: *new });
    }
    // What every step may change.
    let mut values = unnest!(&mut rows, row =>
        text(&row.this.id.0),
        row.columns.instance_id.as_deref().map(text),
        text(&row.this.origin.ts),
        row.this.state.name(),
        !row.this.is_over(),
        row.this.state.is_before_sending(),
        row.this.state.takes_instance(),
        row.this.state.takes_role_slot(),
        row.this.state.due_at().map(|due| due.0),
        row.columns.acted_at,
        row.columns.cools_from,
        row.columns.ended_at,
        row.columns.outcome,
        row.columns.waits_for.as_deref().map(text),
        take(&mut row.body));
    if sql == sql::NEW {
        let always: Vec<Param> = unnest!(&mut rows, row =>
            text(&row.this.rule_key.to_string()),
            text(row.this.role()),
            row.new.and_then(|(alert, _)| alert),
            text(&row.this.origin.channel),
            row.this.opened_at.0,
            row.new.map_or(0, |(_, claimed_by)| claimed_by));
        values.extend(always);
    }
    if sql == sql::STEP {
        values.push(Box::new(limited(rows.len())));
    }
    session.send(sql, values)
}

fn send_journal(mut lines: Vec<Line>, session: &mut Session) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let values = unnest!(&mut lines, line =>
        line.at, line.remediation.take(), take(&mut line.what), take(&mut line.who), take(&mut line.why));
    session.send(sql::RECORD, values)
}

/// What was owed anew and settled in the same commit goes by its generation.
fn send_owed(
    owed: HashMap<(RemediationId, Effect), (i64, i64)>,
    settled: BTreeMap<(RemediationId, Effect), BTreeSet<i64>>,
    session: &mut Session,
) -> Result<()> {
    if !owed.is_empty() {
        let mut rows: Vec<_> = owed.into_iter().collect();
        // In the order in which it was owed, which is that of the rows' numbers.
        rows.sort_unstable_by_key(|(_, (generation, _))| *generation);
        let values = unnest!(&mut rows, row =>
            text(&row.0.0.0), row.0.1.as_str(), row.1.0, row.1.1);
        session.send(sql::OWE, values)?;
    }
    if !settled.is_empty() {
        let mut rows: Vec<_> = settled
            .iter()
            .flat_map(|(key, generations)| generations.iter().map(move |generation| (key, *generation)))
            .collect();
        let values = unnest!(&mut rows, row => text(&row.0.0.0), row.0.1.as_str(), row.1);
        session.send(sql::SETTLE, values)?;
    }
    Ok(())
}
