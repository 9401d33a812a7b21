//! Statements and rows, as the transaction on SQLite uses them.

use rusqlite::{Connection, OptionalExtension, Row};

use super::roles::Roles;
use crate::gate::Pause;
use crate::lifecycle::{Remediation, RemediationId};
use crate::store::Result;
use crate::time::Timestamp;

/// A transaction under way.
pub(super) struct SqliteTx<'a> {
    pub(super) db: &'a Connection,
    /// This replica's number.
    pub(super) me: i64,
    pub(super) roles: &'a mut Roles,
}

impl SqliteTx<'_> {
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
