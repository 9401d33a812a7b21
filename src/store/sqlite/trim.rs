//! Deleting what is old, a few rows at a time.
//!
//! The file does not shrink: freed pages are used again first, so it stays at the size of its fullest
//! day. Giving them back (`auto_vacuum`) would move pages at every deletion, and a file of an earlier
//! version had to be rewritten whole for it. A backup is compact, for who wants a small file.

use rusqlite::params;

use super::rows::{SqliteTx, id};
use crate::store::{Past, Result, Trimmed};
use crate::time::Timestamp;

/// Rows that one remediation comes to with its journal, about.
const EACH: usize = 8;

/// What finds (remediations) or deletes at most `?2` rows that are older than `?1`, the oldest first.
pub(in crate::store) fn statement(past: Past) -> &'static str {
    match past {
        Past::Remediations => {
            "SELECT id FROM remediations AS old WHERE open = 0 AND coalesce(ended_at, opened_at) < ?1
             AND id IS NOT (SELECT remediation FROM journal ORDER BY id DESC LIMIT 1)
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE remediation = old.id)
             AND NOT EXISTS (SELECT 1 FROM journal WHERE remediation = old.id AND at >= ?1)
             ORDER BY coalesce(ended_at, opened_at) LIMIT ?2"
        }
        Past::Journal => {
            "DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE remediation IS NULL AND at < ?1
             AND id < (SELECT max(id) FROM journal) ORDER BY at LIMIT ?2)"
        }
        Past::Alerts => {
            "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts AS old WHERE received_at < ?1
             AND NOT EXISTS (SELECT 1 FROM remediations WHERE alert = old.id) ORDER BY received_at LIMIT ?2)"
        }
        Past::Deliveries => {
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE at < ?1 ORDER BY at LIMIT ?2)"
        }
        // People make few of them.
        Past::Pauses => {
            "DELETE FROM pauses WHERE id IN (SELECT id FROM pauses WHERE coalesce(ended_at, until) < ?1
             ORDER BY id LIMIT ?2)"
        }
        Past::Notes => {
            "DELETE FROM notes WHERE name IN (SELECT name FROM notes WHERE at < ?1 ORDER BY at LIMIT ?2)"
        }
    }
}

pub(super) fn trim(tx: &SqliteTx<'_>, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed> {
    if past == Past::Remediations {
        return remediations(tx, before, limit);
    }
    let rows = tx.run(statement(past), params![before.0, number(limit)])?;
    Ok(Trimmed { rows, more: rows >= limit })
}

fn remediations(tx: &SqliteTx<'_>, before: Timestamp, limit: usize) -> Result<Trimmed> {
    let at_once = limit.div_ceil(EACH);
    let old = tx.all(statement(Past::Remediations), params![before.0, number(at_once)], id)?;
    let mut rows = 0;
    for old in &old {
        if rows >= limit {
            return Ok(Trimmed { rows, more: true });
        }
        rows += tx.run("DELETE FROM journal WHERE remediation = ?1", params![old.0])?;
        rows += tx.run("DELETE FROM remediations WHERE id = ?1", params![old.0])?;
    }
    Ok(Trimmed { rows, more: old.len() >= at_once })
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
