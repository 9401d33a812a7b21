//! Statements and rows, as the transaction on SQLite uses them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::kept::Kept;
use super::roles::Roles;
use crate::gate::Pause;
use crate::lifecycle::{Remediation, RemediationId};
use crate::store::columns::{body, columns, parse};
use crate::store::{Error, Result};
use crate::time::Timestamp;

/// A transaction under way.
pub(super) struct SqliteTx<'a> {
    pub(super) db: &'a Connection,
    /// This replica's number.
    pub(super) me: i64,
    pub(super) roles: &'a mut Roles,
    pub(super) kept: &'a mut Kept,
}

impl SqliteTx<'_> {
    /// Something that was known was undone.
    pub(super) fn forget(&mut self) {
        self.roles.forget();
        self.kept.forget();
    }

    /// A remediation and its alert's row.
    pub(super) fn kept(&mut self, id: &RemediationId) -> Result<Option<(Arc<Remediation>, Option<i64>)>> {
        if let Some(kept) = self.kept.get(id) {
            return Ok(Some(kept));
        }
        let found = self.one("SELECT body, alert FROM remediations WHERE id = ?1", params![id.0], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })?;
        let Some((body, alert)) = found else { return Ok(None) };
        let remediation = Arc::new(parse(&body)?);
        self.kept.put(&remediation, alert);
        Ok(Some((remediation, alert)))
    }

    /// Keeps a new remediation.
    pub(super) fn insert(&mut self, new: &Remediation, alert: Option<i64>) -> Result<()> {
        let columns = columns(new);
        self.run(
            "INSERT INTO remediations (id, rule_key, role, instance_id, alert, channel, ts, state, open, unsent,
             takes_instance, takes_role, due_at, opened_at, acted_at, cools_from, ended_at, outcome, body,
             waits_for, claimed_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21)",
            params![
                new.id.0,
                new.rule_key.to_string(),
                new.role(),
                columns.instance_id,
                alert,
                new.origin.channel,
                new.origin.ts,
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
                body(new)?,
                columns.waits_for,
                self.me
            ],
        )?;
        self.count(new, columns.instance_id.as_deref());
        Ok(())
    }

    /// Keeps what became of a remediation.
    pub(super) fn write(&mut self, changed: &Remediation) -> Result<()> {
        let columns = columns(changed);
        let rows = self.run(
            "UPDATE remediations SET instance_id = ?2, ts = ?3, state = ?4, open = ?5, unsent = ?6,
             takes_instance = ?7, takes_role = ?8, due_at = ?9, acted_at = ?10, cools_from = ?11, ended_at = ?12,
             outcome = ?13, body = ?14, waits_for = ?15 WHERE id = ?1",
            params![
                changed.id.0,
                columns.instance_id,
                changed.origin.ts,
                changed.state.name(),
                !changed.is_over(),
                changed.state.is_before_sending(),
                changed.state.takes_instance(),
                changed.state.takes_role_slot(),
                changed.state.due_at().map(|due| due.0),
                columns.acted_at,
                columns.cools_from,
                columns.ended_at,
                columns.outcome,
                body(changed)?,
                columns.waits_for
            ],
        )?;
        if rows != 1 {
            return Err(Error::Corrupt { what: "remediation", why: format!("{} is not there", changed.id) });
        }
        self.count(changed, columns.instance_id.as_deref());
        Ok(())
    }

    /// Keeps the count of what runs after `written` was.
    pub(super) fn count(&mut self, written: &Remediation, instance: Option<&str>) {
        let takes = instance.filter(|_| written.state.takes_role_slot());
        self.roles.written(written.role(), &written.id, takes);
    }

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        Ok(self.db.prepare_cached(sql)?.execute(values)?)
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.db.prepare_cached(sql)?.query_row(values, read).optional()?)
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map(values, read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }
}

pub(super) fn id(row: &Row<'_>) -> rusqlite::Result<RemediationId> {
    row.get(0).map(RemediationId)
}

pub(super) fn at(row: &Row<'_>) -> rusqlite::Result<Timestamp> {
    row.get(0).map(Timestamp)
}

pub(super) fn pause(row: &Row<'_>) -> rusqlite::Result<Pause> {
    Ok(Pause {
        id: row.get(0)?,
        pattern: row.get(1)?,
        by: row.get(2)?,
        reason: row.get(3)?,
        since: Timestamp(row.get(4)?),
        until: row.get::<_, Option<i64>>(5)?.map(Timestamp),
    })
}
