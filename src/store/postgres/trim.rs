//! Deleting what is old, a few rows at a time; the server's autovacuum gives their room to later ones.

use super::work::{PostgresTx, limited, values};
use crate::store::{Past, Result, Trimmed};
use crate::time::Timestamp;

/// Rows that one remediation comes to with its journal, about.
const EACH: usize = 8;

/// Deletes at most $2 rows that are older than $1, the oldest first; a remediation with its journal. One
/// row: how many went, and how many of what is limited.
fn statement(past: Past) -> &'static str {
    match past {
        Past::Remediations => {
            "WITH old AS (SELECT id FROM remediations r WHERE NOT open AND coalesce(ended_at, opened_at) < $1
                AND id IS DISTINCT FROM (SELECT remediation FROM journal ORDER BY id DESC LIMIT 1)
                AND NOT EXISTS (SELECT FROM outbox WHERE remediation = r.id)
                AND NOT EXISTS (SELECT FROM journal WHERE remediation = r.id AND at >= $1)
                ORDER BY coalesce(ended_at, opened_at) LIMIT $2),
             lines AS (DELETE FROM journal WHERE remediation IN (SELECT id FROM old) RETURNING 1),
             gone AS (DELETE FROM remediations WHERE id IN (SELECT id FROM old) RETURNING 1)
             SELECT (SELECT count(*) FROM lines) + (SELECT count(*) FROM gone), (SELECT count(*) FROM gone)"
        }
        Past::Journal => {
            "WITH gone AS (DELETE FROM journal WHERE id IN (SELECT id FROM journal
                WHERE remediation IS NULL AND at < $1
                AND id < (SELECT max(id) FROM journal) ORDER BY at LIMIT $2) RETURNING 1)
             SELECT count(*), count(*) FROM gone"
        }
        Past::Alerts => {
            "WITH gone AS (DELETE FROM alerts WHERE id IN (SELECT id FROM alerts a WHERE received_at < $1
                AND NOT EXISTS (SELECT FROM remediations WHERE alert = a.id)
                ORDER BY received_at LIMIT $2) RETURNING 1)
             SELECT count(*), count(*) FROM gone"
        }
        Past::Deliveries => {
            "WITH gone AS (DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE at < $1
                ORDER BY at LIMIT $2) RETURNING 1)
             SELECT count(*), count(*) FROM gone"
        }
        // People make few of them.
        Past::Pauses => {
            "WITH gone AS (DELETE FROM pauses WHERE id IN (SELECT id FROM pauses
                WHERE coalesce(ended_at, until) < $1 ORDER BY id LIMIT $2) RETURNING 1)
             SELECT count(*), count(*) FROM gone"
        }
        Past::Notes => {
            "WITH gone AS (DELETE FROM notes WHERE name IN (SELECT name FROM notes WHERE at < $1
                ORDER BY at LIMIT $2) RETURNING 1)
             SELECT count(*), count(*) FROM gone"
        }
    }
}

pub(super) fn trim(tx: &mut PostgresTx<'_>, past: Past, before: Timestamp, limit: usize) -> Result<Trimmed> {
    let at_once = if past == Past::Remediations { limit.div_ceil(EACH) } else { limit };
    let rows = tx.write(statement(past), values![before.0, limited(at_once)])?;
    let count = |column: usize| {
        let count: i64 = rows.first().map_or(0, |row| row.get(column));
        usize::try_from(count).unwrap_or_default()
    };
    Ok(Trimmed { rows: count(0), more: count(1) >= at_once })
}
