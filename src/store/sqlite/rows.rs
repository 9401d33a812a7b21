//! Statements and rows, as the transaction on SQLite uses them.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::gate::Pause;
use crate::lifecycle::RemediationId;
use crate::store::Result;
use crate::time::Timestamp;

/// A transaction under way.
pub(super) struct SqliteTx<'a> {
    pub(super) db: &'a Connection,
    /// This replica's number.
    pub(super) me: i64,
}

impl<'a> SqliteTx<'a> {
    pub(super) fn new(db: &'a Connection, me: i64) -> SqliteTx<'a> {
        SqliteTx { db, me }
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
