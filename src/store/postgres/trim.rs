//! Deleting what is old, a few rows at a time. What was freed PostgreSQL's autovacuum makes room of.

use super::session::Param;
use crate::store::Past;
use crate::time::Timestamp;

/// Rows that one remediation comes to with its journal, about.
const EACH: usize = 8;

/// How many went ($1 before, $2 at most, $3 until so many rows): remediations, and rows in all.
const REMEDIATIONS: &str = "WITH
    old AS (SELECT id, coalesce(ended_at, opened_at) AS over_at,
            1 + (SELECT count(*) FROM journal WHERE remediation = r.id) AS size
        FROM remediations r WHERE NOT open AND coalesce(ended_at, opened_at) < $1::int8
        AND id IS DISTINCT FROM (SELECT remediation FROM journal ORDER BY id DESC LIMIT 1)
        AND NOT EXISTS (SELECT FROM outbox WHERE remediation = r.id)
        AND NOT EXISTS (SELECT FROM journal WHERE remediation = r.id AND at >= $1::int8)
        ORDER BY coalesce(ended_at, opened_at) LIMIT $2::int8),
    few AS (SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY over_at, id) - size AS before FROM old) o
        WHERE before < $3::int8),
    lines AS (DELETE FROM journal WHERE remediation IN (SELECT id FROM few) RETURNING 1),
    gone AS (DELETE FROM remediations WHERE id IN (SELECT id FROM few) RETURNING 1)
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM gone) + (SELECT count(*) FROM lines)";

/// How many went; $1 before, $2 at most.
const JOURNAL: &str = "WITH gone AS (DELETE FROM journal WHERE id IN (
        SELECT id FROM journal WHERE remediation IS NULL AND at < $1::int8
        AND id < (SELECT max(id) FROM journal) ORDER BY at LIMIT $2::int8) RETURNING 1)
    SELECT count(*) FROM gone";
const ALERTS: &str = "WITH gone AS (DELETE FROM alerts WHERE id IN (
        SELECT id FROM alerts old WHERE received_at < $1::int8
        AND NOT EXISTS (SELECT FROM remediations WHERE alert = old.id)
        ORDER BY received_at LIMIT $2::int8) RETURNING 1)
    SELECT count(*) FROM gone";
const DELIVERIES: &str = "WITH gone AS (DELETE FROM deliveries WHERE id IN (
        SELECT id FROM deliveries WHERE at < $1::int8 ORDER BY at LIMIT $2::int8) RETURNING 1)
    SELECT count(*) FROM gone";
const PAUSES: &str = "WITH gone AS (DELETE FROM pauses WHERE id IN (
        SELECT id FROM pauses WHERE coalesce(ended_at, until) < $1::int8 ORDER BY id LIMIT $2::int8) RETURNING 1)
    SELECT count(*) FROM gone";
const NOTES: &str = "WITH gone AS (DELETE FROM notes WHERE name IN (
        SELECT name FROM notes WHERE at < $1::int8 ORDER BY at LIMIT $2::int8) RETURNING 1)
    SELECT count(*) FROM gone";

/// One batch: its statement and parameters, and how many of the first column mean that there may be more.
pub(super) fn batch(past: Past, before: Timestamp, limit: usize) -> (&'static str, Vec<Param>, usize) {
    let number = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = match past {
        Past::Remediations => {
            let at_once = limit.div_ceil(EACH);
            let values: Vec<Param> =
                vec![Box::new(before.0), Box::new(number(at_once)), Box::new(number(limit))];
            return (REMEDIATIONS, values, at_once);
        }
        Past::Journal => JOURNAL,
        Past::Alerts => ALERTS,
        Past::Deliveries => DELIVERIES,
        Past::Pauses => PAUSES,
        Past::Notes => NOTES,
    };
    (sql, vec![Box::new(before.0), Box::new(number(limit))], limit)
}
