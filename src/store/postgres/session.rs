//! One connection to PostgreSQL: opened with the settings that heal relies on, and spoken to without
//! waiting where nobody needs the answer.
//!
//! What is sent without waiting goes into the same stream of messages; its answer is looked at when the
//! next answer is waited for, at the commit at the latest. After the first failure nothing counts any more.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::tls::Tls;
use crate::config::Postgres;
use crate::store::{Error, Result};

/// Of one statement, by our own clock; the server gives up earlier ([`SETTINGS`]).
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The oldest version that is still tested against.
const OLDEST: i32 = 130_000;

/// A session that stops in the middle of a transaction (a process stopped, a cable pulled) must not hold
/// the others up for long. What the planner knows of tables that grow quickly is old, so it is told to
/// use the indexes, which fit every statement.
const SETTINGS: &str = "SET lock_timeout = '10s';
    SET statement_timeout = '15s';
    SET idle_in_transaction_session_timeout = '5s';
    SET client_min_messages = warning;
    SET jit = off;
    SET enable_seqscan = off;
    SET plan_cache_mode = force_generic_plan;
    SET bytea_output = hex;
    SET extra_float_digits = 1;";

pub(super) type Param = Box<dyn ToSql + Sync + Send>;

type Answer = Pin<Box<dyn Future<Output = std::result::Result<Vec<Row>, tokio_postgres::Error>>>>;

/// What the server says of itself when it is met.
#[derive(Clone, Debug)]
pub(super) struct Met {
    pub(super) schema: u32,
    pub(super) process: i32,
    pub(super) fsync: bool,
    pub(super) raised: bool,
}

impl Met {
    /// The key of the lock that a replica's session holds; apart from those of other schemas.
    pub(super) fn replica_key(&self, number: i64) -> i64 {
        (i64::from(self.schema) << 32) | (number & 0xffff_ffff)
    }
}

pub(super) struct Session {
    runtime: Arc<Runtime>,
    client: Arc<Client>,
    pub(super) met: Met,
    statements: HashMap<&'static str, Statement>,
    /// Sent, and not looked at yet.
    unread: VecDeque<Answer>,
    /// Why nothing of the transaction counts.
    failed: Option<Error>,
    /// The connection is of no use any more.
    lost: bool,
    driving: tokio::task::JoinHandle<()>,
    /// How many statements were sent.
    pub(super) sent: u64,
}

impl Session {
    /// Connects, and makes sure of what heal relies on.
    pub(super) fn open(runtime: &Arc<Runtime>, at: &Postgres, tls: &Tls) -> Result<Session> {
        let opening = async {
            let (client, connection) =
                at.client().connect(tls.clone()).await.map_err(|error| unmet(&error))?;
            let driving = tokio::spawn(async move {
                // Whoever waits for an answer is told as well.
                if let Err(error) = connection.await {
                    tracing::debug!(error = %text(&error), "the connection to PostgreSQL ended");
                }
            });
            let met = meet(&client).await?;
            Ok((client, met, driving))
        };
        let within = at.client().get_connect_timeout().copied().unwrap_or(ANSWER_WITHIN);
        let (client, met, driving) = runtime
            .block_on(async { timeout(within + within, opening).await })
            .map_err(|_| Error::Database("PostgreSQL does not answer in time".to_owned()))
            .flatten()
            .map_err(|error| match error {
                Error::Database(why) => Error::Database(format!("{at}: {why}")),
                other => other,
            })?;
        Ok(Session {
            runtime: runtime.clone(),
            client: Arc::new(client),
            met,
            statements: HashMap::new(),
            unread: VecDeque::new(),
            failed: None,
            lost: false,
            driving,
            sent: 0,
        })
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.lost || self.client.is_closed()
    }

    /// Why nothing of the transaction counts, where that is so.
    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Sends a statement and does not wait for it.
    pub(super) fn send(&mut self, sql: &'static str, values: Vec<Param>) -> Result<()> {
        let answer = self.ask(sql, values)?;
        self.unread.push_back(answer);
        Ok(())
    }

    /// Sends a statement and waits for its rows, and for all that was sent before.
    pub(super) fn rows(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Vec<Row>> {
        let mut all = self.all(vec![(sql, values)])?;
        Ok(all.pop().unwrap_or_default())
    }

    /// Sends statements together and waits for the rows of each, and for all that was sent before.
    pub(super) fn all(&mut self, statements: Vec<(&'static str, Vec<Param>)>) -> Result<Vec<Vec<Row>>> {
        let asked = statements.len();
        // To prepare one takes what was not looked at, so it comes before.
        for (sql, _) in &statements {
            self.prepared(sql)?;
        }
        for (sql, values) in statements {
            self.send(sql, values)?;
        }
        let unread = std::mem::take(&mut self.unread);
        let before = unread.len() - asked;
        // In their order: the connection reads no further while an earlier answer is not taken.
        let reading = async {
            let mut rows = Vec::with_capacity(asked);
            for (place, answer) in unread.into_iter().enumerate() {
                let read = answer.await?;
                if place >= before {
                    rows.push(read);
                }
            }
            Ok(rows)
        };
        self.wait(reading)
    }

    /// Drives the connection until `done`; a failure is kept.
    fn wait<T>(
        &mut self,
        done: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let waited = self.runtime.block_on(async { timeout(ANSWER_WITHIN, done).await });
        let error = match waited {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                self.lost |= ends_the_session(&error);
                told(&error)
            }
            Err(_) => {
                self.lost = true;
                Error::Database("PostgreSQL does not answer in time".to_owned())
            }
        };
        self.failed = Some(error.clone());
        Err(error)
    }

    /// Takes leave of the server.
    pub(super) fn close(self) {
        let Session { runtime, client, unread, driving, .. } = self;
        drop((unread, client));
        drop(runtime.block_on(async { timeout(Duration::from_secs(1), driving).await }));
    }

    /// Forgets the failure of a transaction that has been rolled back.
    pub(super) fn begin_anew(&mut self) {
        self.failed = None;
        self.unread.clear();
    }

    /// Runs statements that are no part of the daily work, one after another.
    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        let client = self.client.clone();
        self.wait(async move { client.batch_execute(sql).await })
    }

    /// Hands the statement to the connection; its answer comes in turn.
    fn ask(&mut self, sql: &'static str, values: Vec<Param>) -> Result<Answer> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let statement = self.prepared(sql)?;
        let client = self.client.clone();
        let mut answer: Answer =
            Box::pin(async move { client.query_raw(&statement, values).await?.try_collect().await });
        self.sent += 1;
        // The first poll puts it into the connection's queue, before whatever is asked next.
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let std::task::Poll::Ready(done) = polled {
            answer = Box::pin(std::future::ready(done));
        }
        Ok(answer)
    }

    fn prepared(&mut self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let client = self.client.clone();
        // What was sent before is answered before; nobody else would take those answers.
        let unread = std::mem::take(&mut self.unread);
        let preparing = async {
            for answer in unread {
                answer.await?;
            }
            client.prepare(sql).await
        };
        let statement = self.wait(preparing)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

async fn meet(client: &Client) -> Result<Met> {
    client.batch_execute(SETTINGS).await.map_err(|error| told(&error))?;
    let asked = "SELECT current_setting('server_version_num')::int, current_setting('fsync') = 'on',
        pg_is_in_recovery(), current_setting('synchronous_commit') = 'off', pg_backend_pid(),
        (SELECT oid FROM pg_namespace WHERE nspname = current_schema())";
    let row = client.query_one(asked, &[]).await.map_err(|error| told(&error))?;
    let version: i32 = row.get(0);
    if version < OLDEST {
        return Err(Error::Database(format!(
            "this is PostgreSQL {}, heal needs {} or later",
            version / 10_000,
            OLDEST / 10_000
        )));
    }
    if row.get(2) {
        return Err(Error::Database(
            "this server is a standby and only reads; hint: name the primary, or all hosts with commas"
                .to_owned(),
        ));
    }
    let raised: bool = row.get(3);
    if raised {
        // With `off` a commit that was answered may be gone after a crash. What is stronger than `on` stays.
        client.batch_execute("SET synchronous_commit = on").await.map_err(|error| told(&error))?;
    }
    let Some(schema) = row.get::<_, Option<u32>>(5) else {
        return Err(Error::Database(
            "the search_path names no schema that exists; hint: create the schema, or let heal use public"
                .to_owned(),
        ));
    };
    Ok(Met { schema, process: row.get(4), fsync: row.get(1), raised })
}

/// Whether a connection that answered so is of no use any more: it broke, the server goes down, or it is a
/// standby by now.
fn ends_the_session(error: &tokio_postgres::Error) -> bool {
    let Some(said) = error.as_db_error() else { return true };
    let code = said.code().code();
    said.parsed_severity() == Some(Severity::Fatal)
        || code.starts_with("08")
        || code.starts_with("57P")
        || code == SqlState::READ_ONLY_SQL_TRANSACTION.code()
}

/// What an error of the driver means here.
pub(super) fn told(error: &tokio_postgres::Error) -> Error {
    match error.code() {
        // By this a statement that must find its rows says no ([`super::sql::STEP`]).
        Some(code) if *code == SqlState::DIVISION_BY_ZERO => {
            Error::Database("a row that was read is not there any more".to_owned())
        }
        Some(code) if *code == SqlState::DISK_FULL => Error::Full(text(error)),
        Some(code) if *code == SqlState::UNIQUE_VIOLATION => Error::Claimed(text(error)),
        _ => Error::Database(text(error)),
    }
}

/// An error in words: the server's own where it spoke. Never the address, which holds the password.
pub(super) fn text(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// A failed connection in words, with what to do about it.
fn unmet(error: &tokio_postgres::Error) -> Error {
    let hint = match error.as_db_error().map(|said| said.code().code()) {
        None => "; hint: is the server up, and does this host reach it by that name and port?",
        Some("28P01" | "28000") => "; hint: check user, password and the server's pg_hba.conf",
        Some("3D000") => "; hint: create the database, owned by heal's user",
        Some("53300") => "; hint: the server's max_connections are used up",
        Some(_) => "",
    };
    match told(error) {
        Error::Database(why) => Error::Database(format!("{why}{hint}")),
        other => other,
    }
}
