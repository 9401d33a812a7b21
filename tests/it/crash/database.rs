//! Where a replayed bot keeps what must survive.

use std::path::Path;

/// A kind of database that heal runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
}

impl Database {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Database::Sqlite => "SQLite",
        }
    }

    /// The `store` setting of a database that nobody has used; `dir` is the replay's own folder.
    pub fn fresh(self, dir: &Path) -> String {
        match self {
            Database::Sqlite => format!("sqlite://{}", dir.join("heal.db").display()),
        }
    }
}
