//! Where the bots keep what must survive, and a long past for it.

use anyhow::{Context, bail};
use heal::sandbox::postgres::{Database, Server};
use rusqlite::Connection;
use tempfile::TempDir;

use super::bot::Making;

/// Columns of a table that a copy of a row gets anew.
type Anew<'a> = &'a [(&'a str, &'a str)];

/// One database, empty at first.
pub enum Storage {
    Sqlite {
        folder: TempDir,
    },
    /// In a server of the benchmark's own, which syncs to disk as in production.
    Postgres(Database),
    /// Somebody else's PostgreSQL.
    Given {
        url: String,
    },
}

impl Storage {
    pub fn new(making: &Making) -> anyhow::Result<Storage> {
        match making.store.as_str() {
            "sqlite" if making.replicas > 1 => bail!("several replicas need PostgreSQL"),
            "sqlite" => {
                let folder = TempDir::with_prefix_in("heal-bench-", &making.place);
                Ok(Storage::Sqlite { folder: folder.context("a folder for the database")? })
            }
            "postgres" => Ok(Storage::Postgres(Server::shared()?.database()?)),
            url if url.starts_with("postgres") => Ok(Storage::Given { url: url.to_owned() }),
            other => bail!("`{other}` is no store that the benchmark knows"),
        }
    }

    /// As heal's configuration has it.
    pub fn url(&self) -> String {
        match self {
            Storage::Sqlite { folder } => format!("sqlite://{}", folder.path().join("heal.db").display()),
            Storage::Postgres(database) => database.url(),
            Storage::Given { url } => url.clone(),
        }
    }

    /// Copies one finished remediation, with its alert, its delivery and its journal, so many times into
    /// the past. Whatever columns the tables have, they are copied.
    pub fn age(&self, finished: usize) -> anyhow::Result<()> {
        let found = self.sql("SELECT id, ts, instance_id, alert FROM remediations WHERE NOT open LIMIT 1")?;
        let [id, ts, instance, alert] =
            found.first().map(Vec::as_slice).context("nothing is finished that could be copied")?
        else {
            bail!("four columns were asked for");
        };
        // In both SQL dialects: 6 and 17 digits of the copy's number.
        let new_ts = "'1500000000.' || substr('000000' || i, length('' || i) + 1)";
        let new_instance = "'i-' || substr('00000000000000000' || i, length('' || i) + 1)";
        let new_id = "'bench' || i";
        let body = format!(
            "replace(replace(replace(body, '{id}', {new_id}), '{ts}', {new_ts}), '{instance}', {new_instance})"
        );
        let earlier = |column: &str| format!("{column} - i * 300000");
        let (at, received_at, opened_at) = (earlier("at"), earlier("received_at"), earlier("opened_at"));
        let (acted_at, cools_from, ended_at) =
            (earlier("acted_at"), earlier("cools_from"), earlier("ended_at"));
        let row = format!(
            "(SELECT theirs.id FROM alerts AS theirs
              WHERE theirs.channel = remediations.channel AND theirs.ts = {new_ts})"
        );
        let alerts: Anew<'_> = &[("ts", new_ts), ("body", &body), ("at", &at), ("received_at", &received_at)];
        self.copy("alerts", &format!("id = {alert}"), finished, alerts)?;
        let remediations: Anew<'_> = &[
            ("id", new_id),
            ("ts", new_ts),
            ("instance_id", new_instance),
            ("alert", &row),
            ("body", &body),
            ("opened_at", &opened_at),
            ("acted_at", &acted_at),
            ("cools_from", &cools_from),
            ("ended_at", &ended_at),
        ];
        self.copy("remediations", &format!("id = '{id}'"), finished, remediations)?;
        let journal: Anew<'_> = &[("remediation", new_id), ("at", &at)];
        self.copy("journal", &format!("remediation = '{id}'"), finished, journal)?;
        let delivery = format!("replace(id, '{ts}', {new_ts})");
        self.copy("deliveries", &format!("id LIKE '%{ts}'"), finished, &[("id", &delivery), ("at", &at)])
    }

    fn copy(&self, table: &str, which: &str, times: usize, anew: Anew<'_>) -> anyhow::Result<()> {
        let columns = self.columns(table)?;
        let value = |column: &String| {
            let new = anew.iter().find(|(name, _)| name == column);
            new.map_or(column.clone(), |(_, expression)| (*expression).to_owned())
        };
        // A number that the database gives out itself is left to it.
        let copied: Vec<&String> =
            columns.iter().filter(|name| *name != "id" || anew.iter().any(|(new, _)| new == name)).collect();
        let names: Vec<&str> = copied.iter().map(|name| name.as_str()).collect();
        let values: Vec<String> = copied.iter().map(|name| value(name)).collect();
        self.sql(&format!(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {times})
             INSERT INTO {table} ({}) SELECT {} FROM {table} CROSS JOIN numbers WHERE {which}",
            names.join(", "),
            values.join(", ")
        ))?;
        Ok(())
    }

    fn columns(&self, table: &str) -> anyhow::Result<Vec<String>> {
        let sql = match self {
            Storage::Sqlite { .. } => format!("SELECT name FROM pragma_table_info('{table}')"),
            Storage::Postgres(_) | Storage::Given { .. } => format!(
                "SELECT column_name FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = '{table}'"
            ),
        };
        Ok(self.sql(&sql)?.into_iter().flatten().collect())
    }

    /// Runs one statement and returns its rows as text.
    fn sql(&self, statement: &str) -> anyhow::Result<Vec<Vec<String>>> {
        match self {
            Storage::Sqlite { folder } => {
                let connection = Connection::open(folder.path().join("heal.db"))?;
                // It is made once and thrown away.
                connection.pragma_update(None, "synchronous", "OFF")?;
                let mut statement = connection.prepare(statement)?;
                let width = statement.column_count();
                let rows = statement.query_map([], |row| {
                    (0..width)
                        .map(|column| {
                            Ok(match row.get_ref(column)? {
                                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                                other => other.as_str_or_null()?.unwrap_or_default().to_owned(),
                            })
                        })
                        .collect()
                })?;
                Ok(rows.collect::<rusqlite::Result<Vec<Vec<String>>>>()?)
            }
            Storage::Postgres(database) => {
                let rows = database.sql(statement)?.into_iter();
                Ok(rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
            }
            Storage::Given { .. } => bail!("a past is made in a database of the benchmark's own only"),
        }
    }
}
