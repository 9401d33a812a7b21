//! How a transaction works on PostgreSQL: what is sent at once, what later, and what together.
//!
//! Each answer that is waited for costs a way to the server and back, under the lock that all wait for.
//! So what nobody asks the result of is held back to the end of its job and sent without waiting; that
//! also lets a job that says no be undone without a savepoint, unless it had to be sent before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;

use super::session::{Param, Session};
use super::{Done, sql};
use crate::gate::Pause;
use crate::lifecycle::{Effect, Remediation, RemediationId, Trigger};
use crate::store::columns::{body, columns, parse, parse_all};
use crate::store::{Error, Owed, Record, Result, Subject};
use crate::time::Timestamp;

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(Box::new($value) as $crate::store::postgres::session::Param),*] };
}
pub(super) use values;

/// What this job knows of a remediation that it has read or written.
pub(super) struct Known {
    pub(super) claimed_by: i64,
    /// Of an open one.
    claims: Option<String>,
}

pub(super) struct PostgresTx<'a> {
    pub(super) session: &'a mut Session,
    pub(super) me: i64,
    /// The next number of what is owed anew.
    pub(super) generation: i64,
    /// Other jobs share the transaction.
    shared: bool,
    wrote: bool,
    called: BTreeSet<i64>,
    undone: bool,
    pub(super) gathered: Gathered,
    /// All that were not ended, once read: nobody else changes them under the lock.
    pub(super) pauses: Option<Vec<Pause>>,
    pub(super) job: This,
}

/// Small writes that come many to a transaction and that nothing else of it reads in the database: they
/// go out together at its end.
#[derive(Default)]
pub(super) struct Gathered {
    /// By remediation and effect's name.
    pub(super) settled: HashMap<(String, &'static str), BTreeSet<i64>>,
    /// With the moment after which they may be trimmed.
    pub(super) notes: BTreeMap<String, (String, Option<i64>)>,
}

impl Gathered {
    fn append(&mut self, more: Gathered) {
        for (key, generations) in more.settled {
            self.settled.entry(key).or_default().extend(generations);
        }
        self.notes.extend(more.notes);
    }

    pub(super) fn has_settled(&self, owed: &Owed) -> bool {
        let key = (text(&owed.remediation.0), owed.effect.as_str());
        self.settled.get(&key).is_some_and(|generations| generations.contains(&owed.generation))
    }
}

/// What the job that runs has done.
#[derive(Default)]
pub(super) struct This {
    pub(super) gathered: Gathered,
    /// Its savepoint was sent.
    saved: bool,
    pub(super) wrote: bool,
    /// Its writes that are not sent yet.
    held: Vec<(&'static str, Vec<Param>)>,
    pub(super) called: BTreeSet<i64>,
    pub(super) known: HashMap<RemediationId, Known>,
}

impl<'a> PostgresTx<'a> {
    pub(super) fn new(session: &'a mut Session, me: i64, generation: i64, shared: bool) -> PostgresTx<'a> {
        PostgresTx {
            session,
            me,
            generation,
            shared,
            wrote: false,
            called: BTreeSet::new(),
            undone: false,
            gathered: Gathered::default(),
            pauses: None,
            job: This::default(),
        }
    }

    pub(super) fn begin_job(&mut self) {
        self.job = This::default();
    }

    pub(super) fn end_job(&mut self, keep: bool) -> Result<()> {
        if keep {
            for (sql, values) in std::mem::take(&mut self.job.held) {
                self.session.send_checked(sql, values)?;
            }
            self.wrote |= self.job.wrote;
            self.called.append(&mut self.job.called);
            self.gathered.append(std::mem::take(&mut self.job.gathered));
        } else if self.job.saved {
            // It may have read what it changed itself.
            self.pauses = None;
            self.session.send(sql::UNDO, Vec::new())?;
        } else {
            self.undone |= self.job.wrote;
        }
        if self.job.saved {
            self.session.send(sql::RELEASE, Vec::new())?;
        }
        Ok(())
    }

    /// Sends what was gathered; the end of the transaction's own work.
    pub(super) fn done(self) -> Result<Done> {
        let Gathered { settled, notes } = self.gathered;
        if !settled.is_empty() {
            let mut rows: (Vec<String>, Vec<&str>, Vec<i64>) = Default::default();
            for ((remediation, effect), generations) in settled {
                for generation in generations {
                    rows.0.push(remediation.clone());
                    rows.1.push(effect);
                    rows.2.push(generation);
                }
            }
            self.session.send(sql::SETTLE, values![rows.0, rows.1, rows.2])?;
        }
        if !notes.is_empty() {
            let (names, kept): (Vec<String>, Vec<(String, Option<i64>)>) = notes.into_iter().unzip();
            let (kept, at): (Vec<String>, Vec<Option<i64>>) = kept.into_iter().unzip();
            self.session.send(sql::NOTE, values![names, kept, at])?;
        }
        Ok(Done { ran: 0, wrote: self.wrote, called: self.called, undone: self.undone && !self.shared })
    }

    /// Sends what was held back: what follows may read it.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.job.held.is_empty() {
            return Ok(());
        }
        self.save()?;
        for (sql, values) in std::mem::take(&mut self.job.held) {
            self.session.send_checked(sql, values)?;
        }
        Ok(())
    }

    /// From here on the job is undone by its savepoint.
    fn save(&mut self) -> Result<()> {
        if self.shared && !self.job.saved {
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

    pub(super) fn bodies(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Remediation>> {
        parse_all(self.rows(sql, values)?.iter().map(|row| row.get(0)).collect())
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

    /// Writes at the end of the job, where nothing can come of it that the job would want to know.
    pub(super) fn later(&mut self, sql: &'static str, values: Vec<Param>) {
        self.job.wrote = true;
        self.aside(sql, values);
    }

    /// As [`PostgresTx::later`], where nobody need ever know whether it counts.
    pub(super) fn aside(&mut self, sql: &'static str, values: Vec<Param>) {
        self.job.held.push((sql, values));
    }

    fn owing(&mut self, remediation: &RemediationId, effects: &[Effect], claimed_by: i64) -> Vec<Owed> {
        if claimed_by != self.me && !effects.is_empty() {
            self.job.called.insert(claimed_by);
        }
        let owed = effects.iter().map(|effect| {
            self.generation += 1;
            let (remediation, effect) = (remediation.clone(), *effect);
            Owed { remediation, effect, generation: self.generation, claimed_by }
        });
        owed.collect()
    }

    /// Reads a remediation with its alert's row and moment.
    pub(super) fn read(&mut self, id: &RemediationId) -> Result<Option<Subject>> {
        let rows = self.rows(sql::SUBJECT, values![text(&id.0)])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let remediation = parse(row.get(0))?;
        self.learn(&remediation, row.get(2));
        let resolved_at: Option<i64> = row.get(4);
        Ok(Some(Subject { remediation, alert: row.get(1), resolved_at: resolved_at.map(Timestamp) }))
    }

    fn learn(&mut self, this: &Remediation, claimed_by: i64) {
        self.job.known.insert(this.id.clone(), Known { claimed_by, claims: claims(this) });
    }

    /// What a step changed, with its line in the journal and what it owes.
    pub(super) fn step(
        &mut self,
        next: &Remediation,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        let columns = columns(next);
        let known = self.job.known.get(&next.id);
        let claims = claims(next);
        let claims_anew = claims.is_some() && known.is_none_or(|known| known.claims != claims);
        let claimed_by = known.map(|known| known.claimed_by);
        let mut owed = self.owing(&next.id, effects, claimed_by.unwrap_or(self.me));
        let (at, what, who, why) = line(record);
        let values = values![
            text(&next.id.0),
            columns.instance_id.as_deref().map(text),
            text(&next.origin.ts),
            next.state.name(),
            !next.is_over(),
            next.state.is_before_sending(),
            next.state.takes_instance(),
            next.state.takes_role_slot(),
            next.state.due_at().map(|due| due.0),
            columns.acted_at,
            columns.cools_from,
            columns.ended_at,
            columns.outcome,
            text(&body(next)?),
            columns.waits_for.as_deref().map(text),
            claims_anew,
            at,
            what,
            who,
            why,
            effects.iter().map(|effect| effect.as_str()).collect::<Vec<_>>(),
            owed.iter().map(|owed| owed.generation).collect::<Vec<_>>(),
        ];
        if let (Some(claimed_by), false) = (claimed_by, claims_anew) {
            self.later(sql::STEP, values);
            self.learn(next, claimed_by);
            return Ok(owed);
        }
        let rows = self.write(sql::STEP, values)?;
        let Some(row) = rows.first() else {
            let there: Option<i32> =
                self.one("SELECT 1 FROM remediations WHERE id = $1", values![text(&next.id.0)])?;
            return Err(match there {
                Some(_) => Error::Claimed(format!("{} is at work there", next.rule_key)),
                None => Error::Corrupt { what: "remediation", why: format!("{} is not there", next.id) },
            });
        };
        let claimed_by = row.get(0);
        for owed in &mut owed {
            owed.claimed_by = claimed_by;
        }
        if claimed_by != self.me && !owed.is_empty() {
            self.job.called.insert(claimed_by);
        }
        self.learn(next, claimed_by);
        Ok(owed)
    }

    pub(super) fn insert(
        &mut self,
        new: &Remediation,
        alert: Option<i64>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        let columns = columns(new);
        let claimer = self.claimer_of(new)?;
        let owed = self.owing(&new.id, effects, claimer);
        let (at, what, who, why) = line(record);
        let values = values![
            text(&new.id.0),
            text(&new.rule_key.to_string()),
            text(new.role()),
            columns.instance_id.as_deref().map(text),
            alert,
            text(&new.origin.channel),
            text(&new.origin.ts),
            new.state.name(),
            !new.is_over(),
            new.state.is_before_sending(),
            new.state.takes_instance(),
            new.state.takes_role_slot(),
            new.state.due_at().map(|due| due.0),
            new.opened_at.0,
            columns.acted_at,
            columns.cools_from,
            columns.ended_at,
            columns.outcome,
            text(&body(new)?),
            columns.waits_for.as_deref().map(text),
            claimer,
            at,
            what,
            who,
            why,
            effects.iter().map(|effect| effect.as_str()).collect::<Vec<_>>(),
            owed.iter().map(|owed| owed.generation).collect::<Vec<_>>(),
        ];
        if claims(new).is_none() {
            self.later(sql::NEW, values);
        } else if self.write(sql::NEW, values)?.is_empty() {
            return Err(Error::Claimed(format!("{} is at work there", new.rule_key)));
        }
        self.learn(new, claimer);
        Ok(owed)
    }

    /// Who has the thread has what follows in it: one message's reaction is set by one replica.
    fn claimer_of(&mut self, new: &Remediation) -> Result<i64> {
        if matches!(new.trigger, Trigger::Alert | Trigger::Person { .. }) {
            return Ok(self.me);
        }
        let found = self.one(sql::CLAIMER, values![text(&new.origin.channel), text(&new.origin.ts)])?;
        Ok(found.unwrap_or(self.me))
    }
}

/// The instance on which an open remediation holds its rule's claim.
fn claims(this: &Remediation) -> Option<String> {
    this.target.as_ref().filter(|_| !this.is_over()).map(|target| target.instance_id.clone())
}

/// The journal's line as parameters; all null without one.
fn line(record: Option<&Record<'_>>) -> (Option<i64>, Option<String>, Option<String>, Option<String>) {
    let Some(record) = record else { return (None, None, None, None) };
    (Some(record.at.0), Some(text(record.what)), Some(text(record.who)), Some(text(record.why)))
}

/// Text as PostgreSQL can keep it: it knows no zero character.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
