//! The store's transaction on PostgreSQL; how it works is in [`super::work`].

use tokio_postgres::Row;

use std::time::Duration;

use super::work::{PostgresTx, text, values};
use super::{sql, trim};
use crate::alert::{Origin, Status};
use crate::gate::Pause;
use crate::lifecycle::{Effect, Remediation, RemediationId};
use crate::rule::RuleKey;
use crate::store::columns::{HISTORY_SEARCHED, corrupt, parse};
use crate::store::{
    AlertRow, Beat, Error, HistoryRow, Kept, Limit, NewAlert, Notice, Orphans, Owed, Past, Record, Result,
    Standing, Subject, Tally, Trimmed, Tx,
};
use crate::time::Timestamp;

pub(super) fn limited(limit: usize) -> i64 {
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
        let note = text(note);
        let gathered = self.job.gathered.notes.contains_key(&note) || self.gathered.notes.contains_key(&note);
        Ok(Kept { id: row.get(0), resolved_at, noted: gathered || row.get(2) })
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
        let key = (text(&owed.remediation.0), owed.effect.as_str());
        self.job.gathered.settled.entry(key).or_default().insert(owed.generation);
        self.job.wrote = true;
        Ok(())
    }

    fn owed_since(&mut self, generation: i64) -> Result<Vec<Owed>> {
        let sql = "SELECT remediation, effect, generation FROM outbox
                   WHERE claimed_by = $1 AND generation > $2 ORDER BY id";
        let rows = self.rows(sql, values![self.me, generation])?;
        let read = rows.iter().map(|row| {
            let effect = serde_json::Value::String(row.get(1));
            let effect: Effect = serde_json::from_value(effect).map_err(corrupt("effect"))?;
            let remediation = RemediationId(row.get(0));
            Ok(Owed { remediation, effect, generation: row.get(2), claimed_by: self.me })
        });
        let mut all = read.collect::<Result<Vec<Owed>>>()?;
        all.retain(|owed| !self.gathered.has_settled(owed) && !self.job.gathered.has_settled(owed));
        Ok(all)
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
        let open = rows.iter().map(|row| RemediationId(row.get(0))).collect();
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
        self.pauses = None;
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
        self.pauses = None;
        let rows = self.write(
            "UPDATE pauses SET ended_at = $3, ended_by = $2
             WHERE pattern = $1 AND ended_at IS NULL AND (until IS NULL OR until > $3)
             RETURNING id, pattern, by, reason, since, until",
            values![text(pattern), text(by), now.0],
        )?;
        Ok(rows.iter().map(pause).collect())
    }

    fn active_pauses(&mut self, now: Timestamp) -> Result<Vec<Pause>> {
        if self.pauses.is_none() {
            let sql = "SELECT id, pattern, by, reason, since, until FROM pauses
                       WHERE ended_at IS NULL AND (until IS NULL OR until > $1) ORDER BY since, id";
            let rows = self.rows(sql, values![now.0])?;
            self.pauses = Some(rows.iter().map(pause).collect());
        }
        let all = self.pauses.iter().flatten();
        Ok(all.filter(|pause| pause.until.is_none_or(|until| until > now)).cloned().collect())
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
        let name = text(name);
        let gathered = self.job.gathered.notes.get(&name).or_else(|| self.gathered.notes.get(&name));
        if let Some(value) = gathered {
            return Ok(Some(value.0.clone()));
        }
        self.one("SELECT value FROM notes WHERE name = $1", values![name])
    }

    fn set_note(&mut self, name: &str, value: &str) -> Result<()> {
        self.job.gathered.notes.insert(text(name), (text(value), None));
        self.job.wrote = true;
        Ok(())
    }

    fn set_passing_note(&mut self, name: &str, value: &str, at: Timestamp) -> Result<()> {
        self.job.gathered.notes.insert(text(name), (text(value), Some(at.0)));
        self.job.wrote = true;
        Ok(())
    }

    fn trim(&mut self, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed> {
        trim::trim(self, past, before, limit)
    }
}
