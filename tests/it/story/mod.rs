//! Stories: a Slack-like workspace, an SSM-like fleet, and the bot between them, all over real sockets.
//!
//! A story posts alerts and presses buttons, and reads what comes of it. Nothing sleeps: conditions are
//! awaited with a bound, and the bot's clock is moved. At its end [`Story::finish`] fails on whatever
//! the story did not read or allow: a message, an error in the log, a call that Slack refused, a
//! message said twice, a command run twice, a secret in the log.

pub mod alert;
mod end;
pub mod log;
mod text;
pub mod web;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heal::app::{self, Running, Secrets, Settings};
use heal::config;
use heal::engine::Clock;
use heal::sandbox::fleet::{self, Fleet, HostSpec};
use heal::sandbox::postgres::{Database, Server};
use heal::sandbox::workspace::{Delivery, Message, Options, View, Workspace};
use heal::slack::Secret;

pub use alert::Alert;
use log::Log;
pub use text::assert_reads;

/// What is awaited happens within milliseconds; a busy machine may take longer.
pub const BOUND: Duration = Duration::from_secs(20);
pub const CHANNEL: &str = "C0ALERTS";
/// Approvers, as members of `@sre`.
pub const LEAD: &str = "U0LEAD";
pub const SRE: &str = "U0SRE";
/// Of the workspace, and no approver.
pub const DEV: &str = "U0DEV";
/// Of another workspace.
pub const EXTERN: &str = "U0EXTERN";

/// What `/heal status` calls what does not wait for anybody.
const UNDER_WAY: &[&str] = &["• looking up", "• being declared", "• starting", "• running"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Socket,
    Http,
}

/// Tells each story twice: over a socket and over HTTP.
macro_rules! stories {
    ($($(#[doc = $doc:literal])* async fn $name:ident($mode:ident: Mode) $body:block)*) => {$(
        $(#[doc = $doc])*
        async fn $name($mode: $crate::story::Mode) $body

        mod $name {
            #[test]
            fn over_a_socket() {
                $crate::story::tell(super::$name($crate::story::Mode::Socket));
            }

            #[test]
            fn over_http() {
                $crate::story::tell(super::$name($crate::story::Mode::Http));
            }
        }
    )*};
}

/// Runs a story to its end on this thread; see [`Log`].
pub fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), story).await.unwrap() });
}

const NAGIOS: &str = r"  - name: nagios
    bot_id: B0NAGIOS
    pattern: '^\[(?<status>\w+)\] (?<instance>\S+) (?<role>[\w-]+):(?<alert>[\w-]+)'
    firing: [CRITICAL]
    resolved: [OK]
    resolves: false
";

/// What a story begins with.
pub struct Plot {
    rules: String,
    config: String,
    pub fleet: fleet::Options,
    pub workspace: Options,
    /// Whether there is a sender that is read by a pattern. Patterns take their time when heal starts.
    pub nagios: bool,
    store: Option<String>,
}

impl Plot {
    /// These rules, three web hosts, and `@sre` as approvers.
    pub fn new(rules: &str) -> Plot {
        let hosts = ["web-1", "web-2", "web-3"].map(|name| HostSpec::new(name, "web"));
        Plot {
            rules: rules.to_owned(),
            config: String::new(),
            nagios: true,
            fleet: fleet::Options::of(hosts.to_vec()),
            workspace: Options {
                redeliver_after: Duration::from_secs(10),
                // What comes while the bot is down is given up within seconds, not minutes.
                http_retries: vec![Duration::from_millis(200); 5],
                ..Options::default()
            },
            store: None,
        }
    }

    /// On this store, whatever the others are told on.
    pub fn store(mut self, url: &str) -> Plot {
        self.store = Some(url.to_owned());
        self
    }

    /// More lines of `heal.yaml`.
    pub fn config(mut self, lines: &str) -> Plot {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    pub fn host(mut self, host: HostSpec) -> Plot {
        self.fleet.hosts.retain(|have| have.name != host.name);
        self.fleet.hosts.push(host);
        self
    }

    pub fn fleet(mut self, change: impl FnOnce(&mut fleet::Options)) -> Plot {
        change(&mut self.fleet);
        self
    }

    pub fn workspace(mut self, change: impl FnOnce(&mut Options)) -> Plot {
        change(&mut self.workspace);
        self
    }

    /// Writes `heal.yaml` and the rules into a folder; the path of the former.
    pub fn write(&self, dir: &Path, mode: Mode, store: &str) -> PathBuf {
        let path = dir.join("heal.yaml");
        let rules = dir.join("rules");
        std::fs::create_dir(&rules).unwrap();
        std::fs::write(rules.join("rules.yaml"), &self.rules).unwrap();
        let defaults = if self.config.contains("approvers:") { "" } else { "approvers: [\"@sre\"]\n" };
        let text = format!(
            r##"slack: {{mode: {mode}, channels: ["#alerts"], connections: 1}}
senders:
  - {{name: prometheus, format: alertmanager, bot_id: B0PROM}}
{nagios}rules: {rules:?}
store: "{store}"
listen: 127.0.0.1:0
{defaults}{more}"##,
            mode = if mode == Mode::Socket { "socket" } else { "http" },
            nagios = if self.nagios { NAGIOS } else { "" },
            more = self.config,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the workspace, the fleet and the bot.
    pub async fn start(self, mode: Mode) -> Story {
        let log = Log::default();
        let guard = log.catch();
        let dir = tempfile::tempdir().unwrap();
        let database = if self.store.is_some() { None } else { database() };
        let store = match (&self.store, &database) {
            (Some(store), _) => store.clone(),
            (None, Some(database)) => database.url(),
            (None, None) => format!("sqlite://{}", dir.path().join("heal.db").display()),
        };
        let path = self.write(dir.path(), mode, &store);
        let workspace = Workspace::start(self.workspace).unwrap();
        let fleet = Fleet::start(self.fleet).await.unwrap();
        let mut story = Story {
            mode,
            workspace,
            fleet,
            clock: Clock::default(),
            cut: heal::store::Cut::default(),
            log,
            path,
            bot: None,
            seen: HashSet::new(),
            errors: Vec::new(),
            refusals: Vec::new(),
            stamps: 0,
            _dir: dir,
            _database: database,
            _guard: guard,
        };
        story.start_bot().await;
        story
    }
}

/// All stories are told on PostgreSQL with `HEAL_TEST_STORE=postgres`, else on SQLite.
fn database() -> Option<Database> {
    let postgres = std::env::var_os("HEAL_TEST_STORE").is_some_and(|store| store == "postgres");
    postgres.then(|| Server::shared().unwrap().database().unwrap())
}

/// A story under way.
pub struct Story {
    pub mode: Mode,
    pub workspace: Workspace,
    pub fleet: Fleet,
    pub clock: Clock,
    /// Beside which commits the story has something to say, from the next start on.
    pub cut: heal::store::Cut,
    log: Log,
    path: PathBuf,
    bot: Option<Running>,
    /// Stamps of messages that the story read.
    seen: HashSet<String>,
    /// Parts of error lines that the story allows.
    errors: Vec<String>,
    /// Slack's error codes that the story allows.
    refusals: Vec<String>,
    /// Alerts posted so far; keeps their stamps apart.
    stamps: u64,
    _dir: tempfile::TempDir,
    _database: Option<Database>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Story {
    /// What the bot starts with.
    pub fn settings(&self) -> Settings {
        let loaded = config::load(&self.path, true, None);
        assert!(!loaded.has_errors(), "{}", heal::rule::diagnostic::render_all(&loaded.problems, false));
        self.workspace.view(|view| {
            let options = view.options();
            let secret = |text: &str| Some(Secret::new(text.to_owned()));
            Settings {
                config: loaded.config.unwrap(),
                rules: loaded.rules,
                secrets: Secrets {
                    bot_token: secret(&options.bot_token),
                    app_token: secret(&options.app_token),
                    signing_secret: secret(&options.signing_secret),
                },
                slack_api_url: Some(self.workspace.api_url()),
                ssm_endpoint: Some(self.fleet.endpoint_url().to_owned()),
                clock: self.clock.clone(),
                store: heal::store::Options { cut: self.cut.clone() },
                patience: heal::engine::Patience::default(),
            }
        })
    }

    pub async fn start_bot(&mut self) {
        self.begin_bot().await;
        self.until_ready().await;
    }

    /// Starts the bot and does not wait for it to be ready.
    pub async fn begin_bot(&mut self) {
        let bot = app::start(self.settings()).await.unwrap();
        if self.mode == Mode::Http {
            self.workspace.set_delivery(http_delivery(bot.listen));
        }
        self.bot = Some(bot);
    }

    pub async fn until_ready(&self) {
        let ready = async {
            while web::get(self.listen(), "/readyz").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, ready).await.unwrap();
    }

    /// Ends the bot as SIGTERM does.
    pub async fn stop_bot(&mut self) {
        if let Some(bot) = self.bot.take() {
            bot.stop().await;
        }
    }

    pub fn listen(&self) -> std::net::SocketAddr {
        self.bot.as_ref().unwrap().listen
    }

    /// Moves the bot's clock on, once nothing is on its way any more: a message stands in Slack
    /// before the bot knows that it does.
    pub async fn later(&mut self, minutes: u64) {
        let still = async {
            loop {
                let status = self.slash(LEAD, "status").await;
                if !UNDER_WAY.iter().any(|words| status.contains(words)) {
                    return;
                }
            }
        };
        tokio::time::timeout(BOUND, still).await.unwrap();
        self.clock.advance(Duration::from_secs(minutes * 60));
    }

    /// Replaces the rules on disk; they count from the next start.
    pub fn rewrite_rules(&self, rules: &str) {
        std::fs::write(self.path.with_file_name("rules").join("rules.yaml"), rules).unwrap();
    }

    async fn find(&self, what: &str, look: impl FnMut(&View) -> Option<Message>) -> Message {
        match self.workspace.wait_for(BOUND, look).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not come.\n{}", self.transcript()),
        }
    }

    /// Awaits the message of the bot in the alert's thread that is this part (declaration, report,
    /// why_not) of a remediation and can be read so.
    pub async fn part(&mut self, alert: &Alert, part: &str, text: &str) -> Message {
        let what = format!("a {part} with {text:?}");
        let ts = alert.ts.clone();
        let look = |view: &View| {
            let thread = view.thread(CHANNEL, &ts);
            thread.into_iter().find(|message| part_of(message) == part && message.read().contains(text))
        };
        let found = self.find(&what, look).await;
        self.seen.insert(found.ts.clone());
        found
    }

    /// Awaits that the bot has said so much in the alert's thread, and reads it all.
    pub async fn read_thread(&mut self, alert: &Alert, count: usize) -> Vec<Message> {
        let ts = alert.ts.clone();
        let own = |view: &View| -> Vec<Message> {
            let thread = view.thread(CHANNEL, &ts).into_iter();
            thread.filter(|message| message.bot_id.as_deref() == Some("B0HEAL")).collect()
        };
        if self.workspace.wait_until(BOUND, |view| own(view).len() == count).await.is_err() {
            panic!("not {count} messages.\n{}", self.transcript());
        }
        let all = self.workspace.view(own);
        self.seen.extend(all.iter().map(|message| message.ts.clone()));
        all
    }

    pub async fn declaration(&mut self, alert: &Alert, text: &str) -> Message {
        self.part(alert, "declaration", text).await
    }

    pub async fn report(&mut self, alert: &Alert, text: &str) -> Message {
        self.part(alert, "report", text).await
    }

    pub async fn why_not(&mut self, alert: &Alert, text: &str) -> Message {
        self.part(alert, "why_not", text).await
    }

    /// Awaits a message of the bot at the top level of the channel.
    pub async fn announced(&mut self, text: &str) -> Message {
        let seen = self.seen.clone();
        let look = |view: &View| {
            let own = |message: &Message| message.bot_id.as_deref() == Some("B0HEAL");
            let mut all = view.messages(CHANNEL).into_iter();
            all.find(|message| own(message) && !seen.contains(&message.ts) && message.read().contains(text))
        };
        let found = self.find(&format!("an announcement with {text:?}"), look).await;
        self.seen.insert(found.ts.clone());
        found
    }

    /// Awaits what only this user is shown.
    pub async fn whispered(&mut self, user: &str, text: &str) -> String {
        let seen = self.seen.clone();
        let look = |view: &View| {
            let mut all = view.ephemerals(user).into_iter();
            all.find(|message| !seen.contains(&message.ts) && message.read().contains(text))
        };
        match self.workspace.wait_for(BOUND, look).await {
            Ok(found) => {
                self.seen.insert(found.ts.clone());
                found.read()
            }
            Err(_) => panic!("{user} was not told {text:?}.\n{}", self.transcript()),
        }
    }

    pub async fn click(&self, user: &str, message: &Message, button: &str) {
        self.workspace.click(user, CHANNEL, &message.ts, button).await.unwrap();
    }

    /// Types `/heal {text}`; the answer.
    pub async fn slash(&mut self, user: &str, text: &str) -> String {
        let answer = self.workspace.slash(user, CHANNEL, text).await.unwrap();
        assert!(answer.ephemeral, "an answer to a command is private: {}", answer.read());
        let shown = self.workspace.ephemerals(user);
        let own = shown.iter().filter(|message| message.text == answer.text);
        self.seen.extend(own.map(|message| message.ts.clone()));
        answer.read().to_owned()
    }

    /// Awaits that the alert has exactly this one reaction of the bot.
    pub async fn reaction(&self, alert: &Alert, name: &str) {
        let ts = alert.ts.clone();
        let alone = |view: &View| {
            let all = view.reactions(CHANNEL, &ts);
            all.len() == 1 && all[0].0 == name && all[0].1 == ["U0HEAL"]
        };
        if self.workspace.wait_until(BOUND, alone).await.is_err() {
            let all = self.workspace.reactions(CHANNEL, &ts);
            panic!("the reaction is not {name} alone but {all:?}.\n{}", self.transcript());
        }
    }

    /// Awaits that the hosts have executed so many scripts in all, to their end.
    pub async fn runs(&self, count: usize) {
        let done = |fleet: &Fleet| {
            let runs = fleet.runs();
            runs.len() == count && runs.iter().all(|run| run.ended.is_some())
        };
        if !self.fleet.wait_until(BOUND, done).await {
            panic!("{count} runs were expected: {:?}\n{}", self.fleet.runs(), self.transcript());
        }
    }

    /// Marks a message as read.
    pub fn see(&mut self, ts: &str) {
        self.seen.insert(ts.to_owned());
    }

    /// An error in the log that belongs to the story.
    pub fn allow_error(&mut self, part: &str) {
        self.errors.push(part.to_owned());
    }

    /// A refusal of Slack that belongs to the story.
    pub fn allow_refusal(&mut self, code: &str) {
        self.refusals.push(code.to_owned());
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// One figure of `/metrics`, by the whole name with its labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (status, text) = web::get(self.listen(), "/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }
}

/// Where Slack posts to in HTTP mode.
pub fn http_delivery(listen: std::net::SocketAddr) -> Delivery {
    let url = |path: &str| format!("http://{listen}/slack/{path}");
    Delivery::Http { events: url("events"), interactions: url("interactions"), commands: url("commands") }
}

/// Which part of a remediation a message of the bot is.
fn part_of(message: &Message) -> String {
    message.raw["metadata"]["event_payload"]["part"].as_str().unwrap_or_default().to_owned()
}
