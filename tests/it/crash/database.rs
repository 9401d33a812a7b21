//! Where a replayed bot keeps what must survive.

use std::path::Path;

use heal::sandbox::postgres;

/// A kind of database that heal runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// A database that nobody has used; it goes when this is dropped.
pub struct Fresh {
    /// The `store` setting.
    pub url: String,
    _postgres: Option<postgres::Database>,
}

impl Database {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Database::Sqlite => "SQLite",
            Database::Postgres => "PostgreSQL",
        }
    }

    /// `dir` is the replay's own folder.
    pub fn fresh(self, dir: &Path) -> Fresh {
        match self {
            Database::Sqlite => {
                let url = format!("sqlite://{}", dir.join("heal.db").display());
                Fresh { url, _postgres: None }
            }
            Database::Postgres => {
                let database = postgres::Server::shared().unwrap().database().unwrap();
                Fresh { url: database.url(), _postgres: Some(database) }
            }
        }
    }
}
