//! The store's transaction on SQLite. Statements are prepared once and kept by the connection.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Row, params};

use super::rows::{SqliteTx, at, id, pause};
use super::trim;
use crate::alert::Status;
use crate::gate::Pause;
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::rule::{RuleKey, glob_match};
use crate::store::columns::{HISTORY_SEARCHED, corrupt, effect, parse, parse_all};
use crate::store::{
    AlertRow, Beat, HistoryRow, Limit, NewAlert, Notice, Orphans, Owed, Past, Record, Result, Subject, Tally,
    Trimmed, Tx,
};
use crate::time::Timestamp;

/// Slack lets nobody wait for longer.
const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

impl Tx for SqliteTx<'_> {
    fn me(&self) -> i64 {
        self.me
    }

    fn take_delivery(&mut self, id: &str, at: Timestamp) -> Result<bool> {
        Ok(self.run("INSERT OR IGNORE INTO deliveries (id, at) VALUES (?1, ?2)", params![id, at.0])? == 1)
    }

    fn insert_alert(&mut self, new: &NewAlert<'_>) -> Result<i64> {
        let status = match new.alert.status {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        };
        let body = serde_json::to_string(new.alert).map_err(corrupt("alert"))?;
        self.run(
            "INSERT INTO alerts (channel, ts, position, sender, identity, status, at, received_at, rule_key, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                new.origin.channel,
                new.origin.ts,
                new.position,
                new.origin.sender,
                new.alert.identity(),
                status,
                new.origin.at.0,
                new.received_at.0,
                new.rule.map(ToString::to_string),
                body
            ],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    fn resolve_alerts(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Vec<i64>> {
        self.all(
            "UPDATE alerts SET resolved_at = ?3 WHERE sender = ?1 AND identity = ?2 AND status = 'firing'
             AND resolved_at IS NULL AND at <= ?3 RETURNING id",
            params![sender, identity, at.0],
            |row| row.get(0),
        )
    }

    fn resolved_since(&mut self, sender: &str, identity: &str, at: Timestamp) -> Result<Option<Timestamp>> {
        let found = self.one(
            "SELECT max(at) FROM alerts WHERE sender = ?1 AND identity = ?2 AND status = 'resolved' AND at >= ?3",
            params![sender, identity, at.0],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        Ok(found.flatten().map(Timestamp))
    }

    fn resolve_alert(&mut self, alert: i64, at: Timestamp) -> Result<bool> {
        let sql =
            "UPDATE alerts SET resolved_at = ?2 WHERE id = ?1 AND resolved_at IS NULL AND status = 'firing'";
        Ok(self.run(sql, params![alert, at.0])? == 1)
    }

    fn alerts_of(&mut self, channel: &str, ts: &str) -> Result<Vec<AlertRow>> {
        let rows = self.all(
            "SELECT id, sender, channel, ts, at, resolved_at, body FROM alerts
             WHERE channel = ?1 AND ts = ?2 ORDER BY position",
            params![channel, ts],
            |row| {
                let origin = crate::alert::Origin {
                    sender: row.get(1)?,
                    channel: row.get(2)?,
                    ts: row.get(3)?,
                    at: Timestamp(row.get(4)?),
                };
                Ok((row.get(0)?, origin, row.get::<_, Option<i64>>(5)?, row.get::<_, String>(6)?))
            },
        )?;
        rows.into_iter()
            .map(|(id, origin, resolved_at, body)| {
                let alert = serde_json::from_str(&body).map_err(corrupt("alert"))?;
                Ok(AlertRow { id, origin, alert, resolved_at: resolved_at.map(Timestamp) })
            })
            .collect()
    }

    fn alert_resolved_at(&mut self, alert: i64) -> Result<Option<Timestamp>> {
        let found = self.one("SELECT resolved_at FROM alerts WHERE id = ?1", params![alert], |row| {
            row.get::<_, Option<i64>>(0)
        })?;
        Ok(found.flatten().map(Timestamp))
    }

    fn keep_step(
        &mut self,
        next: &Arc<Remediation>,
        record: Option<&Record<'_>>,
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        if let Some(record) = record {
            self.record(record)?;
        }
        self.write(next)?;
        self.kept.step(next);
        effects.iter().map(|effect| self.owe(&next.id, *effect)).collect()
    }

    fn keep_new(
        &mut self,
        new: &Arc<Remediation>,
        alert: Option<i64>,
        records: &[Record<'_>],
        effects: &[Effect],
    ) -> Result<Vec<Owed>> {
        self.insert(new, alert)?;
        self.kept.put(new, alert);
        records.iter().try_for_each(|record| self.record(record))?;
        effects.iter().map(|effect| self.owe(&new.id, *effect)).collect()
    }

    fn subject(&mut self, id: &RemediationId) -> Result<Option<Subject>> {
        let Some((remediation, alert)) = self.kept(id)? else { return Ok(None) };
        let resolved_at = match alert {
            Some(alert) => self.alert_resolved_at(alert)?,
            None => None,
        };
        Ok(Some(Subject { remediation, alert, resolved_at }))
    }

    fn remediation(&mut self, id: &RemediationId) -> Result<Option<(Remediation, Option<i64>)>> {
        Ok(self.kept(id)?.map(|(remediation, alert)| (remediation.as_ref().clone(), alert)))
    }

    fn set_aside(&mut self, id: &RemediationId) -> Result<bool> {
        let mine = self.run(
            "UPDATE remediations SET open = 0, unsent = 0, takes_instance = 0, takes_role = 0, due_at = NULL,
             waits_for = NULL, state = 'unreadable' WHERE id = ?1 AND claimed_by = ?2",
            params![id.0, self.me],
        )?;
        self.kept.remove(id);
        // Of which role it was cannot be read.
        self.roles.forget();
        Ok(mine > 0)
    }

    fn remediations_of(&mut self, channel: &str, ts: &str) -> Result<Vec<Remediation>> {
        parse_all(self.all(
            "SELECT body FROM remediations WHERE channel = ?1 AND ts = ?2 ORDER BY opened_at, id",
            params![channel, ts],
            |row| row.get(0),
        )?)
    }

    fn open_remediations_of_alert(&mut self, alert: i64) -> Result<Vec<RemediationId>> {
        self.all("SELECT id FROM remediations WHERE alert = ?1 AND open = 1", params![alert], id)
    }

    fn open_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open = 1 ORDER BY opened_at";
        parse_all(self.all(sql, [], |row| row.get(0))?)
    }

    fn claimed_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open = 1 AND claimed_by = ?1 ORDER BY opened_at";
        parse_all(self.all(sql, params![self.me], |row| row.get(0))?)
    }

    fn running_remediations(&mut self) -> Result<Vec<Remediation>> {
        let sql = "SELECT body FROM remediations WHERE open = 1 AND claimed_by = ?1 AND state = 'running'";
        parse_all(self.all(sql, params![self.me], |row| row.get(0))?)
    }

    fn unsent_remediations(&mut self) -> Result<Vec<(RemediationId, RuleKey)>> {
        let rows = self.all(
            "SELECT id, rule_key FROM remediations WHERE open = 1 AND unsent = 1 ORDER BY opened_at",
            [],
            |row| Ok((RemediationId(row.get(0)?), row.get::<_, String>(1)?)),
        )?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, key)| {
                let (role, alert) = key.split_once(':')?;
                Some((id, RuleKey { role: role.to_owned(), alert: alert.to_owned() }))
            })
            .collect())
    }

    fn waiting_for(&mut self, what: &str, limit: usize) -> Result<Vec<RemediationId>> {
        self.all(
            "SELECT id FROM remediations WHERE waits_for = ?1 AND open = 1 ORDER BY opened_at, id LIMIT ?2",
            params![what, i64::try_from(limit).unwrap_or(i64::MAX)],
            id,
        )
    }

    fn due_remediations(&mut self, now: Timestamp, limit: usize) -> Result<Vec<RemediationId>> {
        self.all(
            "SELECT id FROM remediations WHERE open = 1 AND due_at <= ?1 ORDER BY due_at LIMIT ?2",
            params![now.0, i64::try_from(limit).unwrap_or(i64::MAX)],
            id,
        )
    }

    fn next_due_at(&mut self) -> Result<Option<Timestamp>> {
        self.one(
            "SELECT due_at FROM remediations WHERE open = 1 AND due_at IS NOT NULL ORDER BY due_at LIMIT 1",
            [],
            at,
        )
    }

    fn history(&mut self, pattern: Option<&str>, limit: usize) -> Result<Vec<HistoryRow>> {
        // A key is looked up; a pattern is searched for, but not through all of the past.
        let exact = pattern.filter(|pattern| !pattern.contains('*'));
        let sql = if exact.is_some() {
            "SELECT rule_key, body, ended_at FROM remediations WHERE rule_key = ?1
             ORDER BY opened_at DESC, id DESC LIMIT ?2"
        } else {
            "SELECT rule_key, body, ended_at FROM remediations WHERE ?1 IS NULL
             ORDER BY opened_at DESC, id DESC LIMIT ?2"
        };
        let most = if exact.is_some() { limit } else { HISTORY_SEARCHED };
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![exact, i64::try_from(most).unwrap_or(i64::MAX)])?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            let key: String = row.get(0)?;
            if pattern.is_some_and(|pattern| !glob_match(pattern, &key)) {
                continue;
            }
            let Ok(remediation) = parse(&row.get::<_, String>(1)?) else { continue };
            let ended_at = row.get::<_, Option<i64>>(2)?.map(Timestamp);
            let outcome = remediation.outcome();
            found.push(HistoryRow { remediation, ended_at, outcome });
        }
        Ok(found)
    }

    fn under_way(
        &mut self,
        rule: &RuleKey,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<RemediationId>> {
        self.one(
            "SELECT id FROM remediations WHERE rule_key = ?1 AND instance_id = ?2 AND open = 1 AND id <> ?3",
            params![rule.to_string(), instance, but.0],
            id,
        )
    }

    fn instance_taken(
        &mut self,
        instance: &str,
        but: &RemediationId,
    ) -> Result<Option<(RemediationId, String)>> {
        self.one(
            "SELECT id, rule_key FROM remediations WHERE instance_id = ?1 AND takes_instance = 1 AND id <> ?2 LIMIT 1",
            params![instance, but.0],
            |row| Ok((RemediationId(row.get(0)?), row.get(1)?)),
        )
    }

    fn role_running(&mut self, role: &str, but: &RemediationId) -> Result<u32> {
        self.roles.running(self.db, role, but)
    }

    fn last_acted(&mut self, rule: &RuleKey, instance: &str) -> Result<Option<Timestamp>> {
        let found = self.one(
            "SELECT max(cools_from) FROM remediations
             WHERE rule_key = ?1 AND instance_id = ?2 AND acted_at IS NOT NULL",
            params![rule.to_string(), instance],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        Ok(found.flatten().map(Timestamp))
    }

    fn attempts_since(&mut self, rule: &RuleKey, instance: &str, since: Timestamp) -> Result<Vec<Timestamp>> {
        self.all(
            "SELECT acted_at FROM remediations WHERE rule_key = ?1 AND instance_id = ?2 AND acted_at > ?3
             ORDER BY acted_at DESC LIMIT 1000",
            params![rule.to_string(), instance, since.0],
            at,
        )
    }

    fn owe(&mut self, remediation: &RemediationId, effect: Effect) -> Result<Owed> {
        // Not one upsert with RETURNING: SQLite keeps a way back for such a statement, and where a
        // transaction is large that costs more than all else in it. The generation grows over the life
        // of a row too, so that of two performers the later is known.
        let key = params![remediation.0, effect.as_str()];
        let new = "INSERT OR IGNORE INTO outbox (remediation, effect, generation, claimed_by)
                   VALUES (?1, ?2, (SELECT coalesce(max(id), 0) + 1 FROM journal), ?3)";
        if self.run(new, params![remediation.0, effect.as_str(), self.me])? == 0 {
            let again = "UPDATE outbox SET generation =
                         max(generation, (SELECT coalesce(max(id), 0) FROM journal)) + 1
                         WHERE remediation = ?1 AND effect = ?2";
            self.run(again, key)?;
        }
        let sql = "SELECT generation FROM outbox WHERE remediation = ?1 AND effect = ?2";
        let generation = self.one(sql, key, |row| row.get(0))?;
        Ok(Owed {
            remediation: remediation.clone(),
            effect,
            generation: generation.unwrap_or(1),
            // One process has the file, and claimed all at its start.
            claimed_by: self.me,
        })
    }

    fn settle(&mut self, owed: &Owed) -> Result<()> {
        self.run(
            "DELETE FROM outbox WHERE remediation = ?1 AND effect = ?2 AND generation = ?3",
            params![owed.remediation.0, owed.effect.as_str(), owed.generation],
        )?;
        Ok(())
    }

    fn owed_since(&mut self, generation: i64) -> Result<Vec<Owed>> {
        let sql = "SELECT remediation, effect, generation FROM outbox
                   WHERE claimed_by = ?1 AND generation > ?2 ORDER BY id";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let rows = self.all(sql, params![self.me, generation], read)?;
        let known = rows.into_iter().filter_map(|(remediation, name, generation)| {
            let effect = effect(&name)?;
            Some(Owed { remediation: RemediationId(remediation), effect, generation, claimed_by: self.me })
        });
        Ok(known.collect())
    }

    fn owe_notice(&mut self, notice: &Notice) -> Result<()> {
        self.run(
            "INSERT INTO notices (id, owed_at, channel, body, claimed_by) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![notice.id, notice.owed_at.0, notice.channel, notice.body, self.me],
        )?;
        Ok(())
    }

    fn owed_notices(&mut self) -> Result<Vec<Notice>> {
        self.all(
            "SELECT id, owed_at, channel, body FROM notices WHERE claimed_by = ?1 ORDER BY owed_at, id",
            params![self.me],
            |row| {
                Ok(Notice {
                    id: row.get(0)?,
                    owed_at: Timestamp(row.get(1)?),
                    channel: row.get(2)?,
                    body: row.get(3)?,
                })
            },
        )
    }

    fn settle_notice(&mut self, id: &str) -> Result<()> {
        self.run("DELETE FROM notices WHERE id = ?1", params![id])?;
        Ok(())
    }

    fn beat(&mut self) -> Result<Vec<Beat>> {
        // Nobody else can look; the beat need not move.
        Ok(vec![Beat { number: self.me, beat: 0, connected: true }])
    }

    fn bury(&mut self, _: Beat) -> Result<bool> {
        Ok(false)
    }

    fn claim_orphans(&mut self) -> Result<Orphans> {
        let open = self.all(
            "UPDATE remediations SET claimed_by = ?1 WHERE open = 1 AND claimed_by <> ?1 RETURNING id",
            params![self.me],
            id,
        )?;
        let owed = self.run("UPDATE outbox SET claimed_by = ?1 WHERE claimed_by <> ?1", params![self.me])?;
        let told = self.run("UPDATE notices SET claimed_by = ?1 WHERE claimed_by <> ?1", params![self.me])?;
        Ok(Orphans { open, owed: owed + told })
    }

    fn keep_limit(&mut self, limit: &Limit, now: Timestamp) -> Result<()> {
        self.run(
            "INSERT INTO limits (lane, until) VALUES (?1, ?2)
             ON CONFLICT (lane) DO UPDATE
             SET until = CASE WHEN until > ?3 THEN excluded.until ELSE max(until, excluded.until) END",
            params![limit.lane, now.plus(limit.wait).0, now.plus(LONGEST_LIMIT).0],
        )?;
        Ok(())
    }

    fn limits(&mut self, now: Timestamp) -> Result<Vec<Limit>> {
        // What lies too far ahead was kept by a clock that was; if it still holds, Slack says so again.
        let last = now.plus(LONGEST_LIMIT);
        self.run("DELETE FROM limits WHERE until <= ?1 OR until > ?2", params![now.0, last.0])?;
        self.all("SELECT lane, until FROM limits ORDER BY lane", [], |row| {
            Ok(Limit { lane: row.get(0)?, wait: now.until(Timestamp(row.get(1)?)) })
        })
    }

    fn insert_pause(&mut self, pause: &Pause) -> Result<i64> {
        self.run(
            "INSERT INTO pauses (pattern, by, reason, since, until) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![pause.pattern, pause.by, pause.reason, pause.since.0, pause.until.map(|until| until.0)],
        )?;
        Ok(self.db.last_insert_rowid())
    }

    fn end_pauses(&mut self, pattern: &str, by: &str, now: Timestamp) -> Result<Vec<Pause>> {
        self.all(
            "UPDATE pauses SET ended_at = ?3, ended_by = ?2
             WHERE pattern = ?1 AND ended_at IS NULL AND (until IS NULL OR until > ?3)
             RETURNING id, pattern, by, reason, since, until",
            params![pattern, by, now.0],
            pause,
        )
    }

    fn active_pauses(&mut self, now: Timestamp) -> Result<Vec<Pause>> {
        self.all(
            "SELECT id, pattern, by, reason, since, until FROM pauses
             WHERE ended_at IS NULL AND (until IS NULL OR until > ?1) ORDER BY since, id",
            params![now.0],
            pause,
        )
    }

    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        self.run(
            "INSERT INTO journal (at, remediation, what, who, why) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![record.at.0, record.remediation.map(|id| &id.0), record.what, record.who, record.why],
        )?;
        Ok(())
    }

    fn journal_of(&mut self, id: &RemediationId) -> Result<Vec<(Timestamp, String, String, String)>> {
        self.all(
            "SELECT at, what, who, why FROM journal WHERE remediation = ?1 ORDER BY id",
            params![id.0],
            |row| Ok((Timestamp(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?)),
        )
    }

    fn tally(&mut self, name: &str, sample: &str, now: Timestamp) -> Result<()> {
        self.run(
            "INSERT INTO tallies (name, count, last_at, sample) VALUES (?1, 1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET count = count + 1, last_at = excluded.last_at, sample = excluded.sample",
            params![name, now.0, sample],
        )?;
        Ok(())
    }

    fn tallies(&mut self) -> Result<Vec<Tally>> {
        self.all("SELECT name, count, last_at, sample FROM tallies ORDER BY name", [], |row| {
            Ok(Tally {
                name: row.get(0)?,
                count: row.get(1)?,
                last_at: Timestamp(row.get(2)?),
                sample: row.get(3)?,
            })
        })
    }

    fn note(&mut self, name: &str) -> Result<Option<String>> {
        self.one("SELECT value FROM notes WHERE name = ?1", params![name], |row| row.get(0))
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<()> {
        self.run(
            "INSERT INTO notes (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = NULL",
            params![name, value],
        )?;
        Ok(())
    }

    fn set_passing_note(&mut self, name: &str, value: &str, at: Timestamp) -> Result<()> {
        self.run(
            "INSERT INTO notes (name, value, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
            params![name, value, at.0],
        )?;
        Ok(())
    }

    fn trim(&mut self, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed> {
        trim::trim(self, past, before, limit)
    }
}
