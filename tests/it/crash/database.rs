//! Where a replayed bot keeps what must survive.
//!
//! A database of PostgreSQL is dear to make, so each is used by one replay after another, emptied in
//! between. Nobody of the replay before is left in it: their sessions are ended first, and the numbers of
//! replicas only grow, so that whoever comes late is refused by the store itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use heal::sandbox::postgres::{self, Server};

/// A kind of database that heal runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// A database in which nothing is; others may have it when this is dropped.
pub struct Fresh {
    /// The `store` setting.
    pub url: String,
    place: Place,
    /// No bot is left that could come late.
    unused: bool,
}

enum Place {
    File(PathBuf),
    Server(Option<postgres::Database>),
}

/// Databases that nobody uses; no more than there were replays at a time.
static UNUSED: Mutex<Vec<postgres::Database>> = Mutex::new(Vec::new());

/// Empties every table of heal's and leaves the sequences where they are.
const EMPTY: &str = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    DO $$ DECLARE name text; BEGIN
        -- What refers to others goes before them; nobody is here to see the order.
        SET LOCAL session_replication_role = replica;
        FOR name IN SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'heal_schema'
        LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
    END $$";

/// What is owed to the world, whoever has claimed it.
const OWED: &str = "SELECT effect || ' of ' || remediation FROM outbox
    UNION ALL SELECT 'notice ' || id FROM notices";

/// The server of all replays. A bot that is killed needs nothing of the disk, only what PostgreSQL
/// promises while it runs itself; so it does not sync, which changes nothing else.
fn server() -> Arc<Server> {
    static SERVER: LazyLock<Arc<Server>> = LazyLock::new(|| {
        let settings = [("fsync", "off"), ("full_page_writes", "off")];
        Arc::new(Server::start(&settings).unwrap())
    });
    SERVER.clone()
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
                let file = dir.join("heal.db");
                Fresh { url: format!("sqlite://{}", file.display()), place: Place::File(file), unused: true }
            }
            Database::Postgres => {
                let unused = UNUSED.lock().unwrap().pop();
                let database = unused.unwrap_or_else(|| server().database().unwrap());
                Fresh { url: database.url(), place: Place::Server(Some(database)), unused: false }
            }
        }
    }
}

impl Fresh {
    /// What is owed to the world now.
    pub fn owed(&self) -> Vec<String> {
        match &self.place {
            Place::File(file) => {
                let database = rusqlite::Connection::open(file).unwrap();
                database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
                let mut asked = database.prepare(OWED).unwrap();
                let rows = asked.query_map([], |row| row.get::<_, String>(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            Place::Server(_) => self.on_server(OWED),
        }
    }

    /// What an orderly end must not leave: effects and notices that are owed, and replicas on the list.
    /// Asked once no bot is left; another replay may use it after this one.
    pub fn left_over(&mut self) -> Vec<String> {
        self.unused = true;
        let mut left = self.owed();
        left.extend(self.on_server("SELECT 'replica ' || number || ' on the list' FROM replicas"));
        left.into_iter().map(|what| format!("left over: {what}")).collect()
    }

    fn on_server(&self, sql: &str) -> Vec<String> {
        let Place::Server(Some(database)) = &self.place else { return Vec::new() };
        database.sql(sql).unwrap().into_iter().flatten().flatten().collect()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Place::Server(database) = &mut self.place
            && let Some(database) = database.take()
            // Else it goes, and the next replay has another.
            && self.unused
            && database.sql(EMPTY).is_ok()
        {
            UNUSED.lock().unwrap().push(database);
        }
    }
}
