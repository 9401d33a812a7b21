//! The store's transaction on PostgreSQL; how it works is in [`super::work`].

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;

use super::work::{PostgresTx, limited, text, values};
use super::{Touched, pending, sql, trim};
use crate::alert::{Origin, Status};
use crate::gate::Pause;
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::rule::RuleKey;
use crate::store::columns::{HISTORY_SEARCHED, corrupt, effect, parse};
use crate::store::needs::Needs;
use crate::store::{
    AlertRow, Beat, Error, HistoryRow, Kept, Limit, NewAlert, Notice, Orphans, Owed, Past, Record, Result,
    Standing, Subject, Tally, Trimmed, Tx,
};
use crate::time::Timestamp;

/// One of [`sql::PAUSES`].
pub(super) fn pause(row: &Row) -> Pause {
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
        let id = text(id);
        let taken = match self.known.deliveries.get(&id) {
            Some(taken) => *taken,
            None => !self.rows(sql::DELIVERIES, values![vec![id.clone()]])?.is_empty(),
        };
        self.known.deliveries.insert(id.clone(), true);
        if !taken {
            self.job.wrote = true;
            self.job.pending.deliveries.push((id, at.0));
        }
        Ok(!taken)
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
        let body = text(&serde_json::to_string(alert).map_err(corrupt("alert"))?);
        let (message, told) =
            ((text(&origin.channel), text(&origin.ts)), (text(&origin.sender), text(&alert.identity())));
        if !self.known.messages.contains_key(&message) || !self.known.ends.contains_key(&told) {
            self.read_ahead(&Needs::default().alert(origin, alert))?;
        }
        let position = i64::from(new.position);
        if !self.known.messages.entry(message.clone()).or_default().insert(position) {
            let place = format!("alert {} of message {} in {}", new.position, origin.ts, origin.channel);
            return Err(Error::Claimed(place));
        }
        let id = self.alert_number()?;
        let end = self.known.ends.entry(told.clone()).or_default();
        if alert.status == Status::Resolved {
            *end = (*end).max(Some(origin.at.0));
        }
        let resolved_at = end.filter(|at| *at >= origin.at.0).map(Timestamp);
        self.known.fresh.insert(id, None);
        self.job.wrote = true;
        self.job.pending.alerts.push(pending::Alert {
            id,
            channel: message.0,
            ts: message.1,
            position,
            sender: told.0,
            identity: told.1,
            status,
            at: origin.at.0,
            received_at: new.received_at.0,
            rule: new.rule.map(|rule| text(&rule.to_string())),
            body,
        });
        let noted = !note.is_empty() && self.note(note)?.is_some();
        Ok(Kept { id, resolved_at, noted })
    }

    fn resolve_alerts(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Vec<i64>> {
        let rows = self.write(
            "UPDATE alerts SET resolved_at = $3 WHERE sender = $1
             AND hashtextextended(identity, 0) = hashtextextended($2, 0) AND identity = $2
             AND status = 'firing' AND resolved_at IS NULL AND at <= $3 RETURNING id",
            values![text(sender), text(identity), at.0],
        )?;
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        if !ids.is_empty() {
            self.job.touched = Touched::All;
        }
        ids.iter().for_each(|id| self.known.resolved(*id, at.0));
        Ok(ids)
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
        let resolved = !self.write(sql, values![alert, at.0])?.is_empty();
        if resolved {
            // One that was kept in this transaction nobody else knows.
            if !self.known.fresh.contains_key(&alert) {
                self.job.touched = Touched::All;
            }
            self.known.resolved(alert, at.0);
        }
        Ok(resolved)
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
        Ok(self.resolved_at(alert)?.map(Timestamp))
    }

    fn keep_step(
        &mut self,
        next: &Arc<Remediation>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        self.step(next, record, effects)
    }

    fn keep_new(
        &mut self,
        new: &Arc<Remediation>,
        alert: Option<i64>,
        records: &[Record<'_>],
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        self.insert(new, alert, records, effects)
    }

    fn set_aside(&mut self, id: &RemediationId) -> Result<bool> {
        let sql = "UPDATE remediations SET open = false, unsent = false, takes_instance = false,
                   takes_role = false, due_at = NULL, waits_for = NULL, state = 'unreadable'
                   WHERE id = $1 AND claimed_by = $2 RETURNING 1";
        let mine = !self.try_to_write(sql, values![text(&id.0), self.me])?.is_empty();
        // It was counted where its row said.
        self.known.forget();
        Ok(mine)
    }

    fn remediation(&mut self, id: &RemediationId) -> Result<Option<(Remediation, Option<i64>)>> {
        Ok(self.read(id)?.map(|row| (row.remediation.as_ref().clone(), row.alert)))
    }

    fn subject(&mut self, id: &RemediationId) -> Result<Option<Subject>> {
        Ok(self.read(id)?.map(|row| row.subject()))
    }

    fn remediations_of(&mut self, channel: &str, ts: &str) -> Result<Vec<Remediation>> {
        let thread = (channel.to_owned(), ts.to_owned());
        if let Some(ids) = self.known.threads.get(&thread) {
            let rows = ids.iter().filter_map(|id| self.known.remediations.get(id));
            return Ok(rows.map(|row| row.remediation.as_ref().clone()).collect());
        }
        let sql = "SELECT body FROM remediations WHERE channel = $1 AND ts = $2 ORDER BY opened_at, id";
        self.whole(sql, values![text(channel), text(ts)])
    }

    fn open_remediations_of_alert(&mut self, alert: i64) -> Result<Vec<RemediationId>> {
        self.ids("SELECT id FROM remediations WHERE alert = $1 AND open", values![alert])
    }

    fn open_remediations(&mut self) -> Result<Vec<Remediation>> {
        self.whole("SELECT body FROM remediations WHERE open ORDER BY opened_at", values![])
    }

    fn claimed_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open AND claimed_by = $1 ORDER BY opened_at";
        self.whole(sql, values![self.me])
    }

    fn running_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open AND claimed_by = $1 AND state = 'running'";
        self.whole(sql, values![self.me])
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
        if self.known.unwaited.contains(what) {
            return Ok(Vec::new());
        }
        let sql = "SELECT id FROM remediations WHERE waits_for = $1 AND open ORDER BY opened_at, id LIMIT $2";
        let ids = self.ids(sql, values![text(what), limited(limit)])?;
        if ids.is_empty() {
            self.known.unwaited.insert(what.to_owned());
        }
        Ok(ids)
    }

    fn due_remediations(&mut self, now: Timestamp, limit: usize) -> Result<Vec<RemediationId>> {
        let sql = "SELECT id FROM remediations WHERE open AND claimed_by = $1 AND due_at <= $2
                   ORDER BY due_at LIMIT $3";
        let ids = self.ids(sql, values![self.me, now.0, limited(limit)])?;
        self.read_these(&ids)?;
        Ok(ids)
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
        let (rule, role) = (this.rule_key.to_string(), this.role().to_owned());
        self.look_at(&rule, instance, &role)?;
        match self.known.standing(this, instance, attempts_since) {
            Some(standing) => Ok(standing),
            // It looks back on more than is read at once.
            None => {
                let standing = self.known.standing(this, instance, None).ok_or(Error::Stopped)?;
                let since = attempts_since.unwrap_or(Timestamp(i64::MAX));
                Ok(Standing { attempts: self.attempts_since(&this.rule_key, instance, since)?, ..standing })
            }
        }
    }

    fn owe(&mut self, remediation: &RemediationId, effect: Effect) -> Result<Owed> {
        let claimed_by = self.read(remediation)?.map_or(self.me, |row| row.claimed_by);
        Ok(self.owing(remediation, effect, claimed_by))
    }

    fn settle(&mut self, owed: &Owed) -> Result<()> {
        self.job.pending.settle(owed);
        self.job.wrote = true;
        Ok(())
    }

    fn owed_since(&mut self, generation: i64) -> Result<Vec<Owed>> {
        let sql = "SELECT remediation, effect, generation FROM outbox
                   WHERE claimed_by = $1 AND generation > $2 ORDER BY id";
        let rows = self.rows(sql, values![self.me, generation])?;
        let me = self.me;
        let read = rows.iter().filter_map(|row| {
            let effect = effect(row.get(1))?;
            Some(Owed {
                remediation: RemediationId(row.get(0)),
                effect,
                generation: row.get(2),
                claimed_by: me,
            })
        });
        Ok(read.collect())
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
        // Whoever does not know whether it counts beats again.
        self.aside(sql::BEAT, values![self.me]);
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
        let rows = self.try_to_write(sql::CLAIM_OPEN, values![self.me])?;
        let open: Vec<RemediationId> = rows.iter().map(|row| RemediationId(row.get(0))).collect();
        if !open.is_empty() {
            self.known.forget();
            // Each is looked at next.
            self.read_these(&open)?;
        }
        let owed: Option<i64> = self.one(sql::CLAIM_OWED, values![self.me])?;
        self.job.wrote |= owed.is_some_and(|owed| owed > 0);
        Ok(Orphans { open, owed: owed.map_or(0, |owed| usize::try_from(owed).unwrap_or(0)) })
    }

    fn keep_limit(&mut self, limit: &Limit, _: Timestamp) -> Result<()> {
        let wait = i64::try_from(limit.wait.as_millis()).unwrap_or(i64::MAX);
        self.later(sql::KEEP_LIMIT, values![text(&limit.lane), wait]);
        // Everybody is called: see [`sql::EVERYBODY`].
        self.job.called.insert(0);
        Ok(())
    }

    fn limits(&mut self, _: Timestamp) -> Result<Vec<Limit>> {
        let (mut limits, mut over) = (Vec::new(), false);
        for row in self.rows(sql::LIMITS, values![])? {
            match u64::try_from(row.get::<_, i64>(1)) {
                Ok(left) if left > 0 => {
                    limits.push(Limit { lane: row.get(0), wait: Duration::from_millis(left) });
                }
                _ => over = true,
            }
        }
        if over {
            self.later(sql::FORGET_LIMITS, values![]);
        }
        Ok(limits)
    }

    fn insert_pause(&mut self, pause: &Pause) -> Result<i64> {
        self.known.pauses = None;
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
        self.known.pauses = None;
        let rows = self.write(
            "UPDATE pauses SET ended_at = $3, ended_by = $2
             WHERE pattern = $1 AND ended_at IS NULL AND (until IS NULL OR until > $3)
             RETURNING id, pattern, by, reason, since, until",
            values![text(pattern), text(by), now.0],
        )?;
        Ok(rows.iter().map(pause).collect())
    }

    fn active_pauses(&mut self, now: Timestamp) -> Result<Vec<Pause>> {
        if self.known.pauses.is_none() {
            let rows = self.rows(sql::PAUSES, values![])?;
            self.known.pauses = Some(rows.iter().map(pause).collect());
        }
        let all = self.known.pauses.iter().flatten();
        Ok(all.filter(|pause| pause.until.is_none_or(|until| until > now)).cloned().collect())
    }

    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        self.job.pending.record(record);
        self.job.wrote = true;
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
        let name = text(name);
        if let Some(value) = self.known.notes.get(&name) {
            return Ok(value.clone());
        }
        let value = self.one("SELECT value FROM notes WHERE name = $1", values![name.clone()])?;
        self.known.notes.insert(name, value.clone());
        Ok(value)
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<()> {
        self.put_note(name, value, None)
    }

    fn set_passing_note(&mut self, name: &str, value: &str, at: Timestamp) -> Result<()> {
        self.put_note(name, value, Some(at.0))
    }

    fn trim(&mut self, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed> {
        let trimmed = trim::trim(self, past, before, limit)?;
        if trimmed.rows > 0 {
            // What went may be known.
            self.known.forget();
            self.job.touched = Touched::All;
        }
        Ok(trimmed)
    }
}
