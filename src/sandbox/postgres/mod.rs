//! A PostgreSQL of its own: Debian's server in a temporary folder, for tests and the benchmark.
//!
//! It listens on a socket in its folder, where everybody is who they say they are, and on a free port
//! of 127.0.0.1, where a password is asked for. A watching shell ends it and removes the folder when
//! this process ends, however it ends, so that nothing is left behind by a test that was killed. The server
//! refuses to run as root; where we are root, it runs as another user. It syncs to disk as in production.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const WATCH: &str = include_str!("watch.sh");

/// The user that heal connects as; it owns its databases and may do nothing else.
pub const USER: &str = "heal";
/// Its password, asked for on the port. It has to be escaped in a URL, as a good one has.
pub const PASSWORD: &str = "correct/horse@battery";
const PASSWORD_IN_URL: &str = "correct%2Fhorse%40battery";
/// Who owns the server.
const OWNER: &str = "postgres";

/// Of a start, with the recovery after a crash; a busy machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server. Dropped, it ends and its folder goes.
#[derive(Debug)]
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// Whom it runs as; None is: as ourselves.
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<(String, String)>,
    running: Mutex<Option<Child>>,
    databases: AtomicU32,
}

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Connections are cut, what is committed is written out (`pg_ctl stop -m fast`).
    Stop,
    /// Everything is dropped where it stands; the next start recovers (`-m immediate`).
    Crash,
    /// `kill -9` of the server.
    Kill,
}

impl Server {
    /// The one of this process, started when first asked for; it ends with the process.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn shared() -> anyhow::Result<Arc<Server>> {
        static SHARED: LazyLock<Mutex<Option<Arc<Server>>>> = LazyLock::new(Mutex::default);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*shared {
            return Ok(server.clone());
        }
        let server = Arc::new(Server::start(&[])?);
        *shared = Some(server.clone());
        Ok(server)
    }

    /// Makes a cluster in a new folder and starts it with these settings (of `postgresql.conf`) on top.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not come up; its log is in the error.
    pub fn start(settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let folder = tempfile::Builder::new().prefix("heal-pg-").tempdir()?;
        // Our own user, as the file system sees it.
        let root = fs::metadata(folder.path())?.uid() == 0;
        let user = if root { Some(unprivileged()?) } else { None };
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        let mut server = Server {
            folder,
            programs: programs()?,
            user,
            port: 0,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            running: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        let made = server
            .as_user(&server.programs.join("initdb"))
            .arg("--pgdata")
            .arg(server.data())
            .args(["--username", OWNER, "--encoding", "UTF8", "--no-locale", "--no-sync"])
            .args(["--auth-local", "trust", "--auth-host", "scram-sha-256"])
            .output()
            .context("initdb cannot be run")?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
        }
        // Between the choice of a free port and its use another process may take it.
        for _ in 0..4 {
            server.port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            match server.run() {
                Ok(()) => break,
                Err(_) if server.log().contains("Address already in use") => {
                    fs::remove_file(server.folder.path().join("log")).ok();
                }
                Err(error) => return Err(error),
            }
        }
        server.sql(OWNER, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"))?;
        Ok(server)
    }

    /// Starts it again after [`Server::end`], on the same port with the same data.
    ///
    /// # Errors
    /// It does not come up; its log is in the error.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let mut child = self.spawn()?;
            // The watching shell ends with its server.
            while begun.elapsed() < PATIENCE && child.try_wait()?.is_none() {
                if self.sql(OWNER, "SELECT 1").is_ok() {
                    *running = Some(child);
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            tell(&mut child, "KILL");
            // After kill -9 the old server's children need a moment to see that they are orphans; and while
            // it is down, somebody's outgoing connection may have its port for a moment.
            if begun.elapsed() > PATIENCE {
                bail!("PostgreSQL does not start:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let folder = self.folder.path();
        let mut command = self.as_user(Path::new("/bin/sh"));
        command.args(["-c", WATCH, "watch"]).arg(folder).arg(self.programs.join("postgres"));
        command.arg("-D").arg(self.data());
        let port = self.port.to_string();
        let socket = folder.display().to_string();
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            ("unix_socket_directories", socket.as_str()),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
        ];
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.into_iter().chain(settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // Its own group: an interrupt at the terminal ends the tests, and by that the server.
        let command =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("the watching shell cannot be started")
    }

    /// Ends the server and returns once it has; does nothing where it does not run.
    pub fn end(&self, how: End) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = running.take() else { return };
        let signal = match how {
            End::Stop => "INT",
            End::Crash => "QUIT",
            End::Kill => "KILL",
        };
        tell(&mut child, signal);
    }

    /// A new, empty database of [`USER`]'s.
    ///
    /// # Errors
    /// The server does not run or refuses.
    pub fn database(self: &Arc<Server>) -> anyhow::Result<Database> {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(OWNER, &format!("CREATE DATABASE {name} OWNER {USER}"))?;
        Ok(Database { server: self.clone(), name })
    }

    /// Runs statements as the server's owner and returns the rows of all, as text.
    ///
    /// # Errors
    /// No connection, or the server's own words.
    pub fn sql(&self, database: &str, statements: &str) -> anyhow::Result<Vec<Vec<Option<String>>>> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).port(self.port).user(OWNER).dbname(database);
        let statements = statements.to_owned();
        // On a thread of its own: whoever asks may be inside a runtime.
        let thread = std::thread::spawn(move || -> anyhow::Result<_> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
                let driving = tokio::spawn(connection);
                let answer = client.simple_query(&statements).await?;
                drop(client);
                driving.await??;
                let rows = answer.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                    }
                    _ => None,
                });
                Ok(rows.collect())
            })
        });
        thread.join().map_err(|_| anyhow::anyhow!("the statement panicked"))?
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read(self.folder.path().join("log"))
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with its socket; files put there go with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives a file to the user whom the server runs as, for that one alone.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn give(&self, file: &Path) -> std::io::Result<()> {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        match self.user {
            Some((uid, gid)) => chown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn as_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        // The settings of a client (PGPORT, PGDATA, …) are none of its business.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(self.folder.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The folder goes after, by its own drop.
        self.end(End::Crash);
    }
}

/// A database on a [`Server`]; dropped, it goes, whoever is connected.
#[derive(Debug)]
pub struct Database {
    server: Arc<Server>,
    name: String,
}

impl Database {
    /// `postgres://…` by the socket in the server's folder: no password, and the quickest.
    pub fn url(&self) -> String {
        let folder = self.server.folder.path().display();
        format!("postgres://{USER}@/{}?host={folder}&port={}", self.name, self.server.port)
    }

    /// `postgres://…` by the port on 127.0.0.1, with its password.
    pub fn url_by_port(&self) -> String {
        format!("postgres://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{}/{}", self.server.port, self.name)
    }

    /// Runs statements in it as the server's owner and returns the rows, as text.
    ///
    /// # Errors
    /// As [`Server::sql`].
    pub fn sql(&self, statements: &str) -> anyhow::Result<Vec<Vec<Option<String>>>> {
        self.server.sql(&self.name, statements)
    }

    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Where the server is down, its folder goes some time, and this with it.
        self.server.sql(OWNER, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).ok();
    }
}

/// Hands a signal's name to a watching shell and waits until the server and the shell have ended.
fn tell(child: &mut Child, signal: &str) {
    if let Some(mut input) = child.stdin.take() {
        writeln!(input, "{signal}").ok();
    }
    child.wait().ok();
}

/// The folder of the newest PostgreSQL's programs: Debian's, or where `PATH` has them.
fn programs() -> anyhow::Result<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = debian
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| folder.join("postgres").exists() && folder.join("initdb").exists())
        .max();
    if let Some((_, folder)) = newest {
        return Ok(folder);
    }
    std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).find(|folder| folder.join("initdb").exists()))
        .context("no PostgreSQL server here; hint: sh tests/run.sh installs it (Debian: apt-get install postgresql)")
}

/// The user and group that a server of root's runs as.
fn unprivileged() -> anyhow::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect())
            .find(|fields: &Vec<&str>| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find(OWNER)
        .or_else(|| find("nobody"))
        .context("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

#[cfg(test)]
mod tests;
