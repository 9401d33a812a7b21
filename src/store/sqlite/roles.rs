//! How many instances of each role are under remediation, counted once and then kept up.
//!
//! The gates ask before every sending, and counting rows takes the longer the more runs. This process
//! alone writes to the file, so what it counted stays true while each of its writes is told here; whatever
//! is undone makes all of it be counted anew.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::lifecycle::RemediationId;
use crate::store::Result;
use crate::store::role::Role;

/// By role; only roles of which something runs.
#[derive(Debug, Default)]
pub(super) struct Roles(HashMap<String, Role>);

impl Roles {
    /// Something that was told here was undone.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// A remediation was written: on this instance it takes a place of its role, or it takes none.
    pub(super) fn written(&mut self, role: &str, id: &RemediationId, takes: Option<&str>) {
        // A role that is not here is counted when it is asked for, and finds this in the file.
        let Some(known) = self.0.get_mut(role) else { return };
        match takes {
            Some(instance) => known.take(&id.0, instance),
            None => known.leave(&id.0),
        }
        if known.is_idle() {
            self.0.remove(role);
        }
    }

    /// See [`crate::store::Tx::role_running`].
    pub(super) fn running(&mut self, db: &Connection, role: &str, but: &RemediationId) -> Result<u32> {
        let count = match self.0.get(role) {
            Some(known) => known.count(&but.0),
            None => {
                let mut counted = Role::default();
                let sql = "SELECT id, instance_id FROM remediations
                           WHERE role = ?1 AND takes_role = 1 AND instance_id IS NOT NULL";
                let mut statement = db.prepare_cached(sql)?;
                let mut rows = statement.query([role])?;
                while let Some(row) = rows.next()? {
                    counted.take(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?);
                }
                let count = counted.count(&but.0);
                if !counted.is_idle() {
                    self.0.insert(role.to_owned(), counted);
                }
                count
            }
        };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}
