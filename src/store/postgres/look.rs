//! A look at a PostgreSQL that heal is to use, which changes nothing there: for `heal doctor`.

use std::sync::Arc;

use super::session::Session;
use super::tls::Tls;
use super::{migrate, sql};
use crate::config::Postgres;
use crate::store::{Error, Result};

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The version of heal's tables; None where there are none yet.
    pub schema: Option<i64>,
    /// The tables are older than this heal's; it brings them up to date when it starts.
    pub older: bool,
    /// Whether the server waits for its disk; without, a crash of its machine may lose all.
    pub fsync: bool,
    /// The server's default does not wait for the disk at a commit; heal's own commits do.
    pub raised: bool,
}

/// Connects and looks. Blocks; not for a thread of a runtime.
///
/// # Errors
/// It cannot be reached or used, with a hint.
pub fn look(at: &Postgres) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Database(error.to_string()))?;
    let mut session = Session::open(&Arc::new(runtime), at, &Tls::new(at.trust())?)?;
    let met = session.met.clone();
    let kept = session.rows(sql::HAS_SCHEMA, vec![Box::new(met.schema)])?;
    let schema = if kept.is_empty() {
        let rights = session.rows(sql::MAY_CREATE, vec![Box::new(met.schema)])?;
        if !rights.first().is_some_and(|row| row.get(0)) {
            return Err(Error::Database(format!(
                "{at}: heal's user may not make tables there; {}",
                migrate::OWN
            )));
        }
        None
    } else {
        let rows = session.rows(sql::SCHEMA, Vec::new())?;
        Some(rows.first().map_or(0, |row| row.get(0)))
    };
    session.close();
    let known = migrate::known();
    if schema.is_some_and(|schema| schema > known) {
        return Err(migrate::newer(at, schema.unwrap_or_default()));
    }
    let older = schema.is_some_and(|schema| schema < known);
    Ok(Seen { schema, older, fsync: met.fsync, raised: met.raised })
}
