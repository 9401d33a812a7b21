//! How a transaction works on PostgreSQL: what is read ahead, what is known, and what is sent together.
//!
//! Each answer that is waited for costs a way to the server and back, under the lock that all wait for, and
//! each statement costs both sides some work. So what a commit's jobs will look at is read for all of them
//! before they run ([`super::ahead`]), what they write is known at once ([`super::known`]) and sent at the
//! end for all of them together ([`super::pending`]). Whatever is asked for besides goes to the server after
//! what was written has gone there, so every answer is that of the one-by-one order. Nothing of a job that
//! says no was sent, unless something of it had to be; then a savepoint undoes it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio_postgres::Row;

use super::known::{Known, claim_of};
use super::pending::Pending;
use super::session::{Param, Session};
use super::{Done, Touched, known, sql};
use crate::lifecycle::{Effect, Remediation, RemediationId, Trigger};
use crate::store::columns::parse;
use crate::store::needs::{Needs, Stand};
use crate::store::{Error, Owed, Record, Result};

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(Box::new($value) as $crate::store::postgres::session::Param),*] };
}
pub(super) use values;

/// What is owed takes its numbers from a block of 65,536 that a transaction has.
const NUMBERS: i64 = 32_768;

pub(super) struct PostgresTx<'a> {
    pub(super) session: &'a mut Session,
    pub(super) known: &'a mut Known,
    /// Numbers that no alert has.
    pub(super) numbers: &'a mut VecDeque<i64>,
    pub(super) me: i64,
    /// The last number of what was owed.
    generation: i64,
    first: i64,
    /// Other jobs share the transaction.
    shared: bool,
    wrote: bool,
    called: BTreeSet<i64>,
    touched: Touched,
    undone: bool,
    /// Of jobs that were kept.
    pending: Pending,
    pub(super) job: This,
}

/// What the job that runs has done.
#[derive(Default)]
pub(super) struct This {
    pub(super) pending: Pending,
    /// Its savepoint was sent.
    saved: bool,
    pub(super) wrote: bool,
    pub(super) called: BTreeSet<i64>,
    pub(super) touched: Touched,
}

impl<'a> PostgresTx<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        known: &'a mut Known,
        numbers: &'a mut VecDeque<i64>,
        (me, generation): (i64, i64),
        shared: bool,
    ) -> PostgresTx<'a> {
        PostgresTx {
            session,
            known,
            numbers,
            me,
            generation,
            first: generation,
            shared,
            wrote: false,
            called: BTreeSet::new(),
            touched: Touched::default(),
            undone: false,
            pending: Pending::default(),
            job: This::default(),
        }
    }

    pub(super) fn begin_job(&mut self) {
        self.job = This::default();
    }

    pub(super) fn end_job(&mut self, keep: bool) -> Result<()> {
        let job = std::mem::take(&mut self.job);
        if keep {
            self.pending.append(job.pending);
            self.wrote |= job.wrote;
            self.called.extend(job.called);
            self.touched.append(job.touched);
        } else {
            if job.wrote {
                // What is known of is what this one would have made.
                self.known.forget();
            }
            match job.saved {
                true => self.session.send(sql::UNDO, Vec::new())?,
                false => self.undone |= job.wrote,
            }
        }
        if job.saved {
            self.session.send(sql::RELEASE, Vec::new())?;
        }
        Ok(())
    }

    /// Whether no further job may run in this transaction.
    pub(super) fn is_full(&self) -> bool {
        self.generation - self.first >= NUMBERS
    }

    /// Sends what was written; the end of the transaction's own work.
    pub(super) fn done(mut self) -> Result<Done> {
        self.pending.send(self.session)?;
        let undone = self.undone && !self.shared;
        Ok(Done { ran: 0, wrote: self.wrote, called: self.called, touched: self.touched, undone })
    }

    /// Sends what was written so far: what follows may read it.
    fn flush(&mut self) -> Result<()> {
        self.pending.send(self.session)?;
        if self.job.pending.is_empty() {
            return Ok(());
        }
        self.save()?;
        self.job.pending.send(self.session)
    }

    /// From here on the job is undone by its savepoint.
    fn save(&mut self) -> Result<()> {
        if self.shared && !self.job.saved {
            // What the jobs before it wrote stays.
            self.pending.send(self.session)?;
            self.session.send(sql::SAVE, Vec::new())?;
            self.job.saved = true;
        }
        Ok(())
    }

    /// Reads rows.
    pub(super) fn rows(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        self.flush()?;
        self.session.rows(sql, values)
    }

    pub(super) fn ask_all(&mut self, statements: Vec<(&'static str, Vec<Param>)>) -> Result<Vec<Vec<Row>>> {
        self.flush()?;
        self.session.all(statements)
    }

    /// Reads the first column of the first row.
    pub(super) fn one<T: for<'r> tokio_postgres::types::FromSql<'r>>(
        &mut self,
        sql: &'static str,
        values: Vec<Param>,
    ) -> Result<Option<T>> {
        Ok(self.rows(sql, values)?.first().and_then(|row| row.get(0)))
    }

    pub(super) fn ids(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<RemediationId>> {
        Ok(self.rows(sql, values)?.iter().map(|row| RemediationId(row.get(0))).collect())
    }

    /// Reads remediations by their columns as in [`sql::REMEDIATIONS`]; one that cannot be read must not hide
    /// the others.
    pub(super) fn whole(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Remediation>> {
        let rows = self.rows(sql, values)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            match parse(row.get(0)) {
                Ok(remediation) => all.push(remediation),
                Err(error) => {
                    tracing::error!(%error, "a stored remediation cannot be read and is passed over");
                }
            }
        }
        Ok(all)
    }

    /// Writes and waits for what came of it.
    pub(super) fn write(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        self.save()?;
        self.job.wrote = true;
        self.rows(sql, values)
    }

    /// As [`PostgresTx::write`], of what mostly finds no row to write.
    pub(super) fn try_to_write(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        self.save()?;
        let rows = self.rows(sql, values)?;
        self.job.wrote |= !rows.is_empty();
        Ok(rows)
    }

    /// Writes where nothing can come of it that the job would want to know.
    pub(super) fn later(&mut self, sql: &'static str, values: Vec<Param>) {
        self.job.wrote = true;
        self.aside(sql, values);
    }

    /// As [`PostgresTx::later`], where nobody need ever know whether it counts.
    pub(super) fn aside(&mut self, sql: &'static str, values: Vec<Param>) {
        self.job.pending.other(sql, values);
    }

    /// A remediation with what stands beside it.
    pub(super) fn read(&mut self, id: &RemediationId) -> Result<Option<known::Row>> {
        if let Some(row) = self.known.remediations.get(id) {
            return Ok(Some(row.clone()));
        }
        if self.known.absent.contains(id) {
            return Ok(None);
        }
        let asked = vec![(sql::REMEDIATIONS, values![vec![text(&id.0)]])];
        // Nothing else that was written shows in it.
        let rows = match self.pending.has(id) || self.job.pending.has(id) {
            true => self.ask_all(asked)?,
            false => self.session.all(asked)?,
        };
        let Some(row) = rows.first().and_then(|rows| rows.first()) else { return Ok(None) };
        self.learn(row)?;
        Ok(self.known.remediations.get(id).cloned())
    }

    /// Has read all that the gates look at for a rule on an instance of a role.
    pub(super) fn look_at(&mut self, rule: &str, instance: &str, role: &str) -> Result<()> {
        let stand = Stand { rule: rule.to_owned(), instance: instance.to_owned(), role: role.to_owned() };
        self.read_standings(&BTreeSet::from([stand]), BTreeSet::new())
    }

    pub(super) fn put_note(&mut self, name: &str, value: &str, at: Option<i64>) -> Result<()> {
        let (name, value) = (text(name), text(value));
        self.known.notes.insert(name.clone(), Some(value.clone()));
        self.job.pending.note(name, value, at);
        self.job.wrote = true;
        Ok(())
    }

    /// The next number of what is owed by this remediation.
    pub(super) fn owing(&mut self, remediation: &RemediationId, effect: Effect, claimed_by: i64) -> Owed {
        self.generation += 1;
        let owed = Owed { remediation: remediation.clone(), effect, generation: self.generation, claimed_by };
        self.job.pending.owe(&owed);
        self.job.wrote = true;
        if claimed_by != self.me {
            self.job.called.insert(claimed_by);
        }
        owed
    }

    /// What a step changed, with its line in the journal and what it owes.
    pub(super) fn step(
        &mut self,
        next: &Arc<Remediation>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        let Some(row) = self.read(&next.id)? else {
            return Err(Error::Corrupt { what: "remediation", why: format!("{} is not there", next.id) });
        };
        if claim_of(next) != claim_of(&row.remediation) {
            self.claim(next)?;
        }
        self.job.wrote = true;
        self.job.pending.update(next);
        self.keep(
            known::Row { remediation: next.clone(), ..row },
            record.map_or(&[], std::slice::from_ref),
            effects,
        )
    }

    pub(super) fn insert(
        &mut self,
        new: &Arc<Remediation>,
        alert: Option<i64>,
        records: &[Record<'_>],
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        if self.read(&new.id)?.is_some() {
            return Err(Error::Claimed(format!("remediation {} is there", new.id)));
        }
        let claimed_by = self.claimer_of(new)?;
        self.claim(new)?;
        self.job.wrote = true;
        self.job.pending.insert(new, alert, claimed_by);
        let resolved_at = match alert {
            Some(alert) => self.resolved_at(alert)?,
            None => None,
        };
        let row = known::Row { remediation: new.clone(), alert, resolved_at, claimed_by };
        self.keep(row, records, effects)
    }

    fn keep(&mut self, row: known::Row, records: &[Record<'_>], effects: &[Effect]) -> Result<Vec<Owed>> {
        records.iter().for_each(|record| self.job.pending.record(record));
        let (id, claimed_by) = (row.remediation.id.clone(), row.claimed_by);
        if claimed_by != self.me {
            self.job.touched.one(claimed_by);
        }
        self.known.put(row, &mut self.job.pending);
        Ok(effects.iter().map(|effect| self.owing(&id, *effect, claimed_by)).collect())
    }

    /// The rule's claim on the instance, if this one is to have one. Of those that give it up and those that
    /// take it over the first must be written first: the unique key looks at each row by itself.
    fn claim(&mut self, this: &Remediation) -> Result<()> {
        let Some((rule, instance)) = claim_of(this) else { return Ok(()) };
        self.look_at(&rule, &instance, this.role())?;
        let open = self.known.of_rule(&rule, &instance).and_then(|of_rule| of_rule.open.as_ref());
        if open.is_some_and(|open| *open != this.id) {
            return Err(Error::Claimed(format!("{} is at work there", this.rule_key)));
        }
        let claim = (rule, instance);
        if self.pending.releases(&claim) || self.job.pending.releases(&claim) {
            self.flush()?;
        }
        Ok(())
    }

    /// When an alert was over.
    pub(super) fn resolved_at(&mut self, alert: i64) -> Result<Option<i64>> {
        match self.known.fresh.get(&alert) {
            Some(resolved_at) => Ok(*resolved_at),
            None => self.one("SELECT resolved_at FROM alerts WHERE id = $1", values![alert]),
        }
    }

    /// A number that no alert has.
    pub(super) fn alert_number(&mut self) -> Result<i64> {
        if let Some(number) = self.numbers.pop_front() {
            return Ok(number);
        }
        self.one(sql::ALERT_NUMBERS, values![1_i64])?.ok_or(Error::Stopped)
    }

    /// Who has the thread has what follows in it: one message's reaction is set by one replica.
    fn claimer_of(&mut self, new: &Remediation) -> Result<i64> {
        if matches!(new.trigger, Trigger::Alert | Trigger::Person { .. }) {
            return Ok(self.me);
        }
        let found = self.one(sql::CLAIMER, values![text(&new.origin.channel), text(&new.origin.ts)])?;
        Ok(found.unwrap_or(self.me))
    }

    /// Reads what is to be asked for next, where many rows are to be looked at one by one.
    pub(super) fn read_these(&mut self, ids: &[RemediationId]) -> Result<()> {
        match ids {
            [] | [_] => Ok(()),
            ids => self.read_ahead(&Needs::default().remediations(ids)),
        }
    }
}

pub(super) fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Text as PostgreSQL can keep it: it knows no zero character.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
