//! The schema, brought up to date at the start by whichever process comes first, and this process's place
//! on the list of replicas.

use super::session::Session;
use super::sql;
use crate::config::Postgres;
use crate::store::{Error, Result};

/// Each entry brings the schema one version up; entries are never edited once released.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/postgres/1.sql"), include_str!("../migrations/postgres/2.sql")];

/// What the user lacks that may not make tables.
pub(super) const OWN: &str =
    "hint: heal's user needs a database (or schema) of its own: CREATE DATABASE heal OWNER heal";

/// The newest schema that this heal knows.
pub(super) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

pub(super) fn newer(at: &Postgres, have: i64) -> Error {
    let known = known();
    Error::Database(format!(
        "{at} was written by a newer heal (schema {have}, this one knows {known}); start that version instead"
    ))
}

/// Several may start at once: under the lock of all decisions one migrates, and the others find it done.
/// Returns this process's number.
pub(super) fn bring_up_to_date(session: &mut Session, at: &Postgres) -> Result<i64> {
    let schema = session.met.schema;
    // To migrate much takes long, and whoever starts meanwhile waits for it.
    session.batch("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'")?;
    session.rows(sql::LOCK, vec![Box::new(schema)])?;
    let kept = session.rows(sql::HAS_SCHEMA, vec![Box::new(schema)])?;
    if kept.is_empty() {
        session.batch("CREATE TABLE heal_schema (version BIGINT NOT NULL PRIMARY KEY)").map_err(|error| {
            match error {
                Error::Database(why) => Error::Database(format!("{at}: {why}; {OWN}")),
                other => other,
            }
        })?;
    }
    let rows = session.rows(sql::SCHEMA, Vec::new())?;
    let have: i64 = rows.first().map_or(0, |row| row.get(0));
    if have > known() {
        return Err(newer(at, have));
    }
    for (version, statements) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > have) {
        session.batch(statements)?;
        session.rows(sql::MIGRATED, vec![Box::new(version)])?;
    }
    let rows = session.rows(sql::REGISTER, Vec::new())?;
    let number = rows.first().map(|row| row.get(0)).ok_or(Error::Stopped)?;
    hold(session, number)?;
    session.batch("COMMIT")?;
    Ok(number)
}

/// Takes this replica's lock, for as long as the session lives.
pub(super) fn hold(session: &mut Session, number: i64) -> Result<()> {
    let key = session.met.replica_key(number);
    session.rows(sql::HOLD, vec![Box::new(key)])?;
    Ok(())
}
