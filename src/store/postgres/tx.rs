//! The store's transaction on PostgreSQL.
//!
//! Each answer that is waited for costs a way to the server and back, under the lock that all wait for.
//! So what nobody asks the result of is held back to the end of its job and sent without waiting; that
//! also lets a job that says no be undone without a savepoint, unless it had to be sent before.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::session::{Param, Session};
use super::{Done, sql};
use crate::alert::{Origin, Status};
use crate::gate::Pause;
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::rule::RuleKey;
use crate::store::columns::{HISTORY_SEARCHED, body, columns, corrupt, parse, parse_all};
use crate::store::{
    AlertRow, Beat, Error, HistoryRow, Kept, Limit, NewAlert, Notice, Orphans, Owed, Record, Result,
    Standing, Subject, Tally, Tx,
};
use crate::time::Timestamp;

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$(Box::new($value) as Param),*] };
}

/// What this job knows of a remediation that it has read or written.
struct Known {
    claimed_by: i64,
    /// Of an open one.
    claims: Option<String>,
}

pub(super) struct PostgresTx<'a> {
    session: &'a mut Session,
    me: i64,
    /// The next number of what is owed anew.
    generation: i64,
    /// Other jobs share the transaction.
    shared: bool,
    wrote: bool,
    called: BTreeSet<i64>,
    undone: bool,
    job: This,
}

/// What the job that runs has done.
#[derive(Default)]
struct This {
    /// Its savepoint was sent.
    saved: bool,
    wrote: bool,
    /// Its writes that are not sent yet.
    held: Vec<(&'static str, Vec<Param>)>,
    called: BTreeSet<i64>,
    known: HashMap<RemediationId, Known>,
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
        } else if self.job.saved {
            self.session.send(sql::UNDO, Vec::new())?;
        } else {
            self.undone |= self.job.wrote;
        }
        if self.job.saved {
            self.session.send(sql::RELEASE, Vec::new())?;
        }
        Ok(())
    }

    pub(super) fn done(self) -> Done {
        Done { wrote: self.wrote, called: self.called, undone: self.undone && !self.shared }
    }

    /// Sends what was held back: what follows may read it.
    fn flush(&mut self) -> Result<()> {
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
    fn rows(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        self.flush()?;
        self.session.rows(sql, values)
    }

    /// Reads the first column of the first row.
    fn one<T: for<'r> tokio_postgres::types::FromSql<'r>>(
        &mut self,
        sql: &'static str,
        values: Vec<Param>,
    ) -> Result<Option<T>> {
        Ok(self.rows(sql, values)?.first().and_then(|row| row.get(0)))
    }

    fn ids(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<RemediationId>> {
        Ok(self.rows(sql, values)?.iter().map(|row| RemediationId(row.get(0))).collect())
    }

    fn bodies(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Remediation>> {
        parse_all(self.rows(sql, values)?.iter().map(|row| row.get(0)).collect())
    }

    /// Writes and waits for what came of it.
    fn write(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        self.save()?;
        self.job.wrote = true;
        self.rows(sql, values)
    }

    /// Writes at the end of the job, where nothing can come of it that the job would want to know.
    fn later(&mut self, sql: &'static str, values: Vec<Param>) {
        self.job.wrote = true;
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
    fn read(&mut self, id: &RemediationId) -> Result<Option<Subject>> {
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
    fn step(
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

    fn insert(
        &mut self,
        new: &Remediation,
        alert: Option<i64>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        let columns = columns(new);
        let owed = self.owing(&new.id, effects, self.me);
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
            self.me,
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
        self.learn(new, self.me);
        Ok(owed)
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
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn pause(row: &Row) -> Pause {
    Pause {
        id: row.get(0),
        pattern: row.get(1),
        by: row.get(2),
        reason: row.get(3),
        since: Timestamp(row.get(4)),
        until: row.get::<_, Option<i64>>(5).map(Timestamp),
    }
}

impl Tx for PostgresTx<'_> {
    fn me(&self) -> i64 {
        self.me
    }

    fn take_delivery(&mut self, id: &str, at: Timestamp) -> Result<bool> {
        let sql = "INSERT INTO deliveries (id, at) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1";
        Ok(!self.write(sql, values![text(id), at.0])?.is_empty())
    }

    fn insert_alert(&mut self, new: &NewAlert<'_>) -> Result<i64> {
        self.keep_alert(new, "").map(|kept| kept.id)
    }

    fn keep_alert(&mut self, new: &NewAlert<'_>, note: &str) -> Result<Kept> {
        let (origin, alert) = (new.origin, new.alert);
        let status = match alert.status {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        };
        let kept = serde_json::to_string(alert).map_err(corrupt("alert"))?;
        let values = values![
            text(&origin.channel),
            text(&origin.ts),
            i64::from(new.position),
            text(&origin.sender),
            text(&alert.identity()),
            status,
            origin.at.0,
            new.received_at.0,
            new.rule.map(|rule| text(&rule.to_string())),
            text(&kept),
            text(note),
        ];
        let rows = self.write(sql::KEEP_ALERT, values)?;
        let Some(row) = rows.first() else {
            let place = format!("alert {} of message {} in {}", new.position, origin.ts, origin.channel);
            return Err(Error::Claimed(place));
        };
        // What said so itself is not among those that were there before.
        let itself = (alert.status == Status::Resolved).then_some(origin.at.0);
        let resolved_at = row.get::<_, Option<i64>>(1).max(itself).map(Timestamp);
        Ok(Kept { id: row.get(0), resolved_at, noted: row.get(2) })
    }

    fn resolve_alerts(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Vec<i64>> {
        let rows = self.write(
            "UPDATE alerts SET resolved_at = $3 WHERE sender = $1
             AND hashtextextended(identity, 0) = hashtextextended($2, 0) AND identity = $2
             AND status = 'firing' AND resolved_at IS NULL AND at <= $3 RETURNING id",
            values![text(sender), text(identity), at.0],
        )?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn resolved_since(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Option<Timestamp>> {
        let found = self.one(
            "SELECT max(at) FROM alerts WHERE sender = $1
             AND hashtextextended(identity, 0) = hashtextextended($2, 0) AND identity = $2
             AND status = 'resolved' AND at >= $3",
            values![text(sender), text(identity), at.0],
        )?;
        Ok(found.map(Timestamp))
    }

    fn resolve_alert(&mut self, alert: i64, at: Timestamp) -> Result<bool> {
        let sql = "UPDATE alerts SET resolved_at = $2
                   WHERE id = $1 AND resolved_at IS NULL AND status = 'firing' RETURNING 1";
        Ok(!self.write(sql, values![alert, at.0])?.is_empty())
    }

    fn alerts_of(&mut self, channel: &str, ts: &str) -> Result<Vec<AlertRow>> {
        let rows = self.rows(
            "SELECT id, sender, channel, ts, at, resolved_at, body FROM alerts
             WHERE channel = $1 AND ts = $2 ORDER BY position",
            values![text(channel), text(ts)],
        )?;
        let read = rows.iter().map(|row| {
            let alert = serde_json::from_str(row.get(6)).map_err(corrupt("alert"))?;
            let origin =
                Origin { sender: row.get(1), channel: row.get(2), ts: row.get(3), at: Timestamp(row.get(4)) };
            let resolved_at = row.get::<_, Option<i64>>(5).map(Timestamp);
            Ok(AlertRow { id: row.get(0), origin, alert, resolved_at })
        });
        read.collect()
    }

    fn alert_resolved_at(&mut self, alert: i64) -> Result<Option<Timestamp>> {
        let found = self.one("SELECT resolved_at FROM alerts WHERE id = $1", values![alert])?;
        Ok(found.map(Timestamp))
    }

    fn insert_remediation(&mut self, new: &Remediation, alert: Option<i64>) -> Result<()> {
        self.insert(new, alert, None, &[]).map(drop)
    }

    fn update_remediation(&mut self, changed: &Remediation) -> Result<()> {
        self.step(changed, None, &[]).map(drop)
    }

    fn keep_step(
        &mut self,
        next: &Remediation,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        self.step(next, record, effects)
    }

    fn keep_new(
        &mut self,
        new: &Remediation,
        alert: Option<i64>,
        record: &Record<'_>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        self.insert(new, alert, Some(record), effects)
    }

    fn set_aside(&mut self, id: &RemediationId) -> Result<()> {
        self.job.known.remove(id);
        self.later(
            "UPDATE remediations SET open = false, unsent = false, takes_instance = false, takes_role = false,
             due_at = NULL, waits_for = NULL, state = 'unreadable' WHERE id = $1",
            values![text(&id.0)],
        );
        Ok(())
    }

    fn remediation(&mut self, id: &RemediationId) -> Result<Option<(Remediation, Option<i64>)>> {
        Ok(self.read(id)?.map(|subject| (subject.remediation, subject.alert)))
    }

    fn subject(&mut self, id: &RemediationId) -> Result<Option<Subject>> {
        self.read(id)
    }

    fn remediations_of(&mut self, channel: &str, ts: &str) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE channel = $1 AND ts = $2 ORDER BY opened_at, id";
        self.bodies(sql, values![text(channel), text(ts)])
    }

    fn open_remediations_of_alert(&mut self, alert: i64) -> Result<Vec<RemediationId>> {
        self.ids("SELECT id FROM remediations WHERE alert = $1 AND open", values![alert])
    }

    fn open_remediations(&mut self) -> Result<Vec<Remediation>> {
        self.bodies("SELECT body FROM remediations WHERE open ORDER BY opened_at", values![])
    }

    fn claimed_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open AND claimed_by = $1 ORDER BY opened_at";
        self.bodies(sql, values![self.me])
    }

    fn unsent_remediations(&mut self) -> Result<Vec<(RemediationId, RuleKey)>> {
        let sql = "SELECT id, rule_key FROM remediations WHERE open AND unsent ORDER BY opened_at";
        let rows = self.rows(sql, values![])?;
        let read = rows.iter().filter_map(|row| {
            let (role, alert) = row.get::<_, &str>(1).split_once(':')?;
            let key = RuleKey { role: role.to_owned(), alert: alert.to_owned() };
            Some((RemediationId(row.get(0)), key))
        });
        Ok(read.collect())
    }

    fn waiting_for(&mut self, what: &str, limit: usize) -> Result<Vec<RemediationId>> {
        let sql = "SELECT id FROM remediations WHERE waits_for = $1 AND open ORDER BY opened_at, id LIMIT $2";
        self.ids(sql, values![text(what), limited(limit)])
    }

    fn due_remediations(&mut self, now: Timestamp, limit: usize) -> Result<Vec<RemediationId>> {
        let sql = "SELECT id FROM remediations WHERE open AND claimed_by = $1 AND due_at <= $2
                   ORDER BY due_at LIMIT $3";
        self.ids(sql, values![self.me, now.0, limited(limit)])
    }

    fn next_due_at(&mut self) -> Result<Option<Timestamp>> {
        let sql = "SELECT due_at FROM remediations WHERE open AND claimed_by = $1 AND due_at IS NOT NULL
                   ORDER BY due_at LIMIT 1";
        Ok(self.one(sql, values![self.me])?.map(Timestamp))
    }

    fn history(&mut self, pattern: Option<&str>, limit: usize) -> Result<Vec<HistoryRow>> {
        let newest = limited(limit);
        let rows = match pattern {
            None => self.rows(
                "SELECT body, ended_at FROM remediations ORDER BY opened_at DESC, id DESC LIMIT $1",
                values![newest],
            )?,
            Some(key) if !key.contains('*') => self.rows(
                "SELECT body, ended_at FROM remediations WHERE rule_key = $1
                 ORDER BY opened_at DESC, id DESC LIMIT $2",
                values![text(key), newest],
            )?,
            // Searched for, but not through all of the past.
            Some(pattern) => {
                let escaped = pattern.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                self.rows(
                    "SELECT body, ended_at FROM (SELECT rule_key, body, ended_at, opened_at, id FROM remediations
                        ORDER BY opened_at DESC, id DESC LIMIT $3) newest
                     WHERE rule_key LIKE $1 ORDER BY opened_at DESC, id DESC LIMIT $2",
                    values![text(&escaped.replace('*', "%")), newest, limited(HISTORY_SEARCHED)],
                )?
            }
        };
        let read = rows.iter().filter_map(|row| {
            let remediation = parse(row.get(0)).ok()?;
            let ended_at = row.get::<_, Option<i64>>(1).map(Timestamp);
            let outcome = remediation.outcome();
            Some(HistoryRow { remediation, ended_at, outcome })
        });
        Ok(read.collect())
    }

    fn under_way(
        &mut self,
        rule: &RuleKey,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<RemediationId>> {
        let found = self.one(
            "SELECT id FROM remediations WHERE rule_key = $1 AND instance_id = $2 AND open AND id <> $3",
            values![text(&rule.to_string()), text(instance), text(&but.0)],
        )?;
        Ok(found.map(RemediationId))
    }

    fn instance_taken(
        &mut self,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<(RemediationId, String)>> {
        let rows = self.rows(
            "SELECT id, rule_key FROM remediations WHERE instance_id = $1 AND takes_instance AND id <> $2 LIMIT 1",
            values![text(instance), text(&but.0)],
        )?;
        Ok(rows.first().map(|row| (RemediationId(row.get(0)), row.get(1))))
    }

    fn role_running(&mut self, role: &str, but: &RemediationId) -> Result<u32> {
        let count: Option<i64> = self.one(
            "SELECT count(DISTINCT instance_id) FROM remediations WHERE role = $1 AND takes_role AND id <> $2",
            values![text(role), text(&but.0)],
        )?;
        Ok(count.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    fn last_acted(&mut self, rule: &RuleKey, instance: &str) -> Result<Option<Timestamp>> {
        let found = self.one(
            "SELECT max(cools_from) FROM remediations
             WHERE rule_key = $1 AND instance_id = $2 AND acted_at IS NOT NULL",
            values![text(&rule.to_string()), text(instance)],
        )?;
        Ok(found.map(Timestamp))
    }

    fn attempts_since(&mut self, rule: &RuleKey, instance: &str, since: Timestamp) -> Result<Vec<Timestamp>> {
        let rows = self.rows(
            "SELECT acted_at FROM remediations WHERE rule_key = $1 AND instance_id = $2 AND acted_at > $3
             ORDER BY acted_at DESC LIMIT 1000",
            values![text(&rule.to_string()), text(instance), since.0],
        )?;
        Ok(rows.iter().map(|row| Timestamp(row.get(0))).collect())
    }

    fn standing(
        &mut self,
        this: &Remediation,
        instance: &str,
        attempts_since: Option<Timestamp>,
    ) -> Result<Standing> {
        let values = values![
            text(&this.rule_key.to_string()),
            text(instance),
            text(&this.id.0),
            text(this.role()),
            attempts_since.map_or(i64::MAX, |since| since.0),
        ];
        let rows = self.rows(sql::STANDING, values)?;
        let row = rows.first().ok_or(Error::Stopped)?;
        let taken: Option<Vec<String>> = row.get(1);
        let instance_taken = taken.and_then(|taken| match <[String; 2]>::try_from(taken) {
            Ok([id, key]) => Some((RemediationId(id), key)),
            Err(_) => None,
        });
        Ok(Standing {
            under_way: row.get::<_, Option<String>>(0).map(RemediationId),
            instance_taken,
            role_running: u32::try_from(row.get::<_, i64>(2)).unwrap_or(u32::MAX),
            last_acted: row.get::<_, Option<i64>>(3).map(Timestamp),
            attempts: row.get::<_, Vec<i64>>(4).into_iter().map(Timestamp).collect(),
        })
    }

    fn owe(&mut self, remediation: &RemediationId, effect: Effect) -> Result<Owed> {
        self.generation += 1;
        let generation = self.generation;
        let values = values![text(&remediation.0), effect.as_str(), generation, self.me];
        let claimed_by = match self.job.known.get(remediation) {
            Some(known) => {
                let claimed_by = known.claimed_by;
                self.later(sql::OWE, values);
                claimed_by
            }
            None => self.write(sql::OWE, values)?.first().map_or(self.me, |row| row.get(0)),
        };
        if claimed_by != self.me {
            self.job.called.insert(claimed_by);
        }
        Ok(Owed { remediation: remediation.clone(), effect, generation, claimed_by })
    }

    fn settle(&mut self, owed: &Owed) -> Result<()> {
        self.later(
            "DELETE FROM outbox WHERE remediation = $1 AND effect = $2 AND generation = $3",
            values![text(&owed.remediation.0), owed.effect.as_str(), owed.generation],
        );
        Ok(())
    }

    fn owed(&mut self) -> Result<Vec<Owed>> {
        let sql = "SELECT remediation, effect, generation FROM outbox WHERE claimed_by = $1 ORDER BY id";
        let rows = self.rows(sql, values![self.me])?;
        let read = rows.iter().map(|row| {
            let effect = serde_json::Value::String(row.get(1));
            let effect: Effect = serde_json::from_value(effect).map_err(corrupt("effect"))?;
            let remediation = RemediationId(row.get(0));
            Ok(Owed { remediation, effect, generation: row.get(2), claimed_by: self.me })
        });
        read.collect()
    }

    fn owe_notice(&mut self, notice: &Notice) -> Result<()> {
        let sql = "INSERT INTO notices (id, owed_at, channel, body, claimed_by) VALUES ($1, $2, $3, $4, $5)
                   ON CONFLICT DO NOTHING RETURNING 1";
        let (id, channel) = (text(&notice.id), text(&notice.channel));
        let rows = self.write(sql, values![id, notice.owed_at.0, channel, text(&notice.body), self.me])?;
        match rows.first() {
            Some(_) => Ok(()),
            None => Err(Error::Claimed(format!("notice {}", notice.id))),
        }
    }

    fn owed_notices(&mut self) -> Result<Vec<Notice>> {
        let sql = "SELECT id, owed_at, channel, body FROM notices WHERE claimed_by = $1 ORDER BY owed_at, id";
        let rows = self.rows(sql, values![self.me])?;
        let read = rows.iter().map(|row| Notice {
            id: row.get(0),
            owed_at: Timestamp(row.get(1)),
            channel: row.get(2),
            body: row.get(3),
        });
        Ok(read.collect())
    }

    fn settle_notice(&mut self, id: &str) -> Result<()> {
        self.later("DELETE FROM notices WHERE id = $1", values![text(id)]);
        Ok(())
    }

    fn beat(&mut self) -> Result<Vec<Beat>> {
        self.later(sql::BEAT, values![self.me]);
        let schema = self.session.met.schema;
        let rows = self.rows(sql::BEATS, values![schema])?;
        let read =
            rows.iter().map(|row| Beat { number: row.get(0), beat: row.get(1), connected: row.get(2) });
        Ok(read.collect())
    }

    fn bury(&mut self, silent: Beat) -> Result<bool> {
        Ok(!self.write(sql::BURY, values![silent.number, silent.beat])?.is_empty())
    }

    fn claim_orphans(&mut self) -> Result<Orphans> {
        let rows = self.write(sql::CLAIM_OPEN, values![self.me])?;
        let open = rows.iter().map(|row| RemediationId(row.get(0))).collect();
        let owed: Option<i64> = self.one(sql::CLAIM_OWED, values![self.me])?;
        Ok(Orphans { open, owed: owed.map_or(0, |owed| usize::try_from(owed).unwrap_or(0)) })
    }

    fn keep_limit(&mut self, limit: &Limit) -> Result<()> {
        self.later(
            "INSERT INTO limits (lane, until) VALUES ($1, $2)
             ON CONFLICT (lane) DO UPDATE SET until = greatest(limits.until, excluded.until)",
            values![text(&limit.lane), limit.until.0],
        );
        Ok(())
    }

    fn limits(&mut self, now: Timestamp) -> Result<Vec<Limit>> {
        let gone = self.one::<i64>("SELECT count(*) FROM limits WHERE until <= $1", values![now.0])?;
        if gone != Some(0) {
            self.later("DELETE FROM limits WHERE until <= $1", values![now.0]);
        }
        let rows = self.rows("SELECT lane, until FROM limits ORDER BY lane", values![])?;
        Ok(rows.iter().map(|row| Limit { lane: row.get(0), until: Timestamp(row.get(1)) }).collect())
    }

    fn insert_pause(&mut self, pause: &Pause) -> Result<i64> {
        let rows = self.write(
            "INSERT INTO pauses (pattern, by, reason, since, until) VALUES ($1, $2, $3, $4, $5) RETURNING id",
            values![
                text(&pause.pattern),
                text(&pause.by),
                pause.reason.as_deref().map(text),
                pause.since.0,
                pause.until.map(|until| until.0),
            ],
        )?;
        rows.first().map(|row| row.get(0)).ok_or(Error::Stopped)
    }

    fn end_pauses(&mut self, pattern: &str, by: &str, now: Timestamp) -> Result<Vec<Pause>> {
        let rows = self.write(
            "UPDATE pauses SET ended_at = $3, ended_by = $2
             WHERE pattern = $1 AND ended_at IS NULL AND (until IS NULL OR until > $3)
             RETURNING id, pattern, by, reason, since, until",
            values![text(pattern), text(by), now.0],
        )?;
        Ok(rows.iter().map(pause).collect())
    }

    fn active_pauses(&mut self, now: Timestamp) -> Result<Vec<Pause>> {
        let rows = self.rows(
            "SELECT id, pattern, by, reason, since, until FROM pauses
             WHERE ended_at IS NULL AND (until IS NULL OR until > $1) ORDER BY since, id",
            values![now.0],
        )?;
        Ok(rows.iter().map(pause).collect())
    }

    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        self.later(
            "INSERT INTO journal (at, remediation, what, who, why) VALUES ($1, $2, $3, $4, $5)",
            values![
                record.at.0,
                record.remediation.map(|id| text(&id.0)),
                text(record.what),
                text(record.who),
                text(record.why),
            ],
        );
        Ok(())
    }

    fn journal_of(&mut self, id: &RemediationId) -> Result<Vec<(Timestamp, String, String, String)>> {
        let sql = "SELECT at, what, who, why FROM journal WHERE remediation = $1 ORDER BY id";
        let rows = self.rows(sql, values![text(&id.0)])?;
        Ok(rows.iter().map(|row| (Timestamp(row.get(0)), row.get(1), row.get(2), row.get(3))).collect())
    }

    fn tally(&mut self, name: &str, sample: &str, now: Timestamp) -> Result<()> {
        self.later(
            "INSERT INTO tallies (name, count, last_at, sample) VALUES ($1, 1, $2, $3)
             ON CONFLICT (name)
             DO UPDATE SET count = tallies.count + 1, last_at = excluded.last_at, sample = excluded.sample",
            values![text(name), now.0, text(sample)],
        );
        Ok(())
    }

    fn tallies(&mut self) -> Result<Vec<Tally>> {
        let rows = self.rows("SELECT name, count, last_at, sample FROM tallies ORDER BY name", values![])?;
        let read = rows.iter().map(|row| Tally {
            name: row.get(0),
            count: row.get(1),
            last_at: Timestamp(row.get(2)),
            sample: row.get(3),
        });
        Ok(read.collect())
    }

    fn note(&mut self, name: &str) -> Result<Option<String>> {
        self.one("SELECT value FROM notes WHERE name = $1", values![text(name)])
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<()> {
        self.later(
            "INSERT INTO notes (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            values![text(name), text(value)],
        );
        Ok(())
    }
}
