//! One `heal serve` after another in one place: started, found ready, killed, started again.
//!
//! It is the real binary with the environment it has in production; all it shares with the test are the
//! emulators' ports and a folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heal::sandbox::fleet::Fleet;
use heal::sandbox::workspace::Workspace;
use serde_json::Value;

use crate::story::web;

/// A start takes some tenths of a second; beside other tests it may take longer.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// How a replica is started, each time.
pub struct Replica {
    /// Holds `heal.yaml` and the rules; where the process runs.
    folder: PathBuf,
    /// One for all its lives.
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// A command line to put before the binary's, for instance one that sets a limit.
    wrapper: Vec<String>,
    life: Option<Life>,
}

/// From one start to the next kill.
struct Life {
    child: Child,
    began: Instant,
    /// Where in the log it begins.
    log_from: u64,
    listen: Option<SocketAddr>,
}

impl Replica {
    /// Not started yet. `name` is its own in the folder.
    pub fn new(name: &str, folder: &Path, workspace: &Workspace, fleet: &Fleet) -> Replica {
        let (bot, app, signing) = workspace.view(|view| {
            let options = view.options();
            (options.bot_token.clone(), options.app_token.clone(), options.signing_secret.clone())
        });
        let pairs = [
            ("SLACK_BOT_TOKEN", bot),
            ("SLACK_APP_TOKEN", app),
            ("SLACK_SIGNING_SECRET", signing),
            ("SLACK_API_URL", workspace.api_url()),
            ("AWS_ENDPOINT_URL_SSM", fleet.endpoint_url().to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIATEST".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "very-secret-key".to_owned()),
            ("HEAL_LOG", "json".to_owned()),
            ("RUST_LOG", "info".to_owned()),
            // For what a test wraps it in.
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", folder.display().to_string()),
        ];
        Replica {
            folder: folder.to_owned(),
            log: folder.join(format!("{name}.log")),
            environment: pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            wrapper: Vec::new(),
            life: None,
        }
    }

    /// Its process is started by this command line, to which the binary's is added.
    pub fn wrapped(mut self, words: &[&str]) -> Replica {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn start(&mut self) {
        assert!(self.life.is_none(), "it runs already");
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let log_from = log.metadata().unwrap().len();
        let mut words = self.wrapper.clone();
        words.extend([env!("CARGO_BIN_EXE_heal").to_owned(), "serve".to_owned()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.folder).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        self.life = Some(Life { child: command.spawn().unwrap(), began, log_from, listen: None });
    }

    /// Awaits that `/readyz` says so; how long after its start that was.
    pub async fn ready(&mut self) -> Duration {
        loop {
            if self.probe().await.0 == 200 {
                return self.life.as_ref().unwrap().began.elapsed();
            }
            let life = self.life.as_mut().unwrap();
            if let Some(status) = life.child.try_wait().unwrap() {
                panic!("heal serve ended by itself with {status}:\n{}", self.tail());
            }
            assert!(life.began.elapsed() < STARTS_WITHIN, "it is not ready:\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// What `/readyz` answers; status 0 while nobody listens.
    pub async fn probe(&mut self) -> (u16, String) {
        match self.listen() {
            Some(listen) => web::get(listen, "/readyz").await,
            None => (0, String::new()),
        }
    }

    /// Where it listens, once it has said so.
    pub fn listen(&mut self) -> Option<SocketAddr> {
        let life = self.life.as_mut()?;
        if life.listen.is_none() {
            let text = read_from(&self.log, life.log_from);
            let line = text.lines().find(|line| line.contains("health and metrics on"))?;
            let event: Value = serde_json::from_str(line).ok()?;
            life.listen = event["listen"].as_str()?.parse().ok();
        }
        life.listen
    }

    /// `kill -9`, and its end.
    pub fn kill(&mut self) {
        let mut life = self.life.take().unwrap();
        life.child.kill().unwrap();
        life.child.wait().unwrap();
    }

    /// Ends it by SIGTERM, as an orderly restart does.
    pub async fn terminate(&mut self) {
        let mut life = self.life.take().unwrap();
        let pid = life.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = life.child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Duration::from_secs(20) {
                life.child.kill().unwrap();
                panic!("it does not end on SIGTERM:\n{}", self.tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(status.code(), Some(0), "{}", self.tail());
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.life.as_ref().map(|life| life.child.id())
    }

    /// Everything it logged in all its lives.
    pub fn log(&self) -> String {
        read_from(&self.log, 0)
    }

    /// The last lines of the log that tell of trouble.
    pub fn warnings(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"level\":\"INFO\"")).collect();
        lines[lines.len().saturating_sub(150)..].join("\n")
    }

    /// The end of the log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut life) = self.life.take() {
            // Only a test that fails leaves one; it may be over.
            drop(life.child.kill());
            drop(life.child.wait());
        }
    }
}

fn read_from(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.seek(SeekFrom::Start(from)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
