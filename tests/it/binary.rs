//! The real binary as a child, with the environment it has in production.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heal::sandbox::fleet::{Fleet, HostSpec, Options as Hosts};
use heal::sandbox::workspace::{Options, Posting, View, Workspace};

use crate::story::alert::attachments;
use crate::story::{BOUND, CHANNEL, Mode, SRE, http_delivery, web};

/// A bot that runs as a process of its own.
struct Binary {
    child: Child,
    log: Arc<Mutex<String>>,
    workspace: Workspace,
    fleet: Fleet,
    dir: tempfile::TempDir,
}

impl Binary {
    async fn start(mode: Mode) -> Binary {
        let workspace = Workspace::start(Options::default()).unwrap();
        let fleet = Fleet::start(Hosts::of(vec![HostSpec::new("web-1", "web")])).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mode_name = if mode == Mode::Socket { "socket" } else { "http" };
        let config = format!(
            "slack: {{mode: {mode_name}, channels: [\"#alerts\"]}}\nsenders: [{{name: prometheus, format: alertmanager, bot_id: B0PROM}}]\napprovers: [\"@sre\"]\naws: {{region: ap-northeast-1}}\nlisten: 127.0.0.1:0\n"
        );
        std::fs::write(dir.path().join("heal.yaml"), config).unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        std::fs::write(dir.path().join("rules/web.yaml"), "web:NginxDown: {commands: [\"echo cured\"]}\n")
            .unwrap();
        let mut binary = Binary {
            child: spawn(&workspace, &fleet, dir.path()),
            log: Arc::default(),
            workspace,
            fleet,
            dir,
        };
        binary.follow();
        binary.ready(mode).await;
        binary
    }

    /// Reads the log as it comes.
    fn follow(&mut self) {
        let mut stderr = self.child.stderr.take().unwrap();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read) = stderr.read(&mut piece) {
                if read == 0 {
                    return;
                }
                let text = String::from_utf8_lossy(&piece[..read]).into_owned();
                log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Awaits that it is up; in HTTP mode tells the workspace where.
    async fn ready(&self, mode: Mode) {
        let up = async {
            loop {
                let log = self.log();
                let line = log.lines().rev().find(|line| line.contains("health and metrics on"));
                let event = line.and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                if let Some(listen) = event.and_then(|event| event["listen"].as_str()?.parse().ok())
                    && web::get(listen, "/readyz").await.0 == 200
                {
                    if mode == Mode::Http {
                        self.workspace.set_delivery(http_delivery(listen));
                    }
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(BOUND, up).await.is_ok(), "it did not come up:\n{}", self.log());
    }

    /// Sends a signal and awaits the end; the exit code.
    async fn end(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(BOUND, ended).await.unwrap()
    }

    /// A message in the thread that can be read so.
    async fn said(&self, ts: &str, text: &str) -> String {
        let look =
            |view: &View| view.thread(CHANNEL, ts).into_iter().find(|message| message.read().contains(text));
        match self.workspace.wait_for(BOUND, look).await {
            Ok(message) => message.ts,
            Err(_) => {
                panic!("{text:?} was not said: {:#?}\n{}", self.workspace.thread(CHANNEL, ts), self.log())
            }
        }
    }

    async fn until_reaction(&self, ts: &str, name: &str) {
        let alone = |view: &View| {
            let all = view.reactions(CHANNEL, ts);
            all.len() == 1 && all[0].0 == name
        };
        assert!(
            self.workspace.wait_until(BOUND, alone).await.is_ok(),
            "{:?}",
            self.workspace.reactions(CHANNEL, ts)
        );
    }

    async fn go_on(&mut self, mode: Mode) {
        self.child = spawn(&self.workspace, &self.fleet, self.dir.path());
        self.log = Arc::default();
        self.follow();
        self.ready(mode).await;
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(workspace: &Workspace, fleet: &Fleet, dir: &std::path::Path) -> Child {
    let secrets = workspace.view(|view| {
        let options = view.options();
        [
            ("SLACK_BOT_TOKEN", options.bot_token.clone()),
            ("SLACK_APP_TOKEN", options.app_token.clone()),
            ("SLACK_SIGNING_SECRET", options.signing_secret.clone()),
        ]
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_heal"));
    command.arg("serve").current_dir(dir).env_clear().envs(secrets);
    command.env("SLACK_API_URL", workspace.api_url()).env("AWS_ENDPOINT_URL_SSM", fleet.endpoint_url());
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "very-secret-key");
    command.env("HEAL_LOG", "json").env("RUST_LOG", "info,heal=trace").env("HOME", dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

async fn the_binary_heals_ends_on_sigterm_and_goes_on(mode: Mode) {
    let mut bot = Binary::start(mode).await;
    let post = |bot: &Binary, firing: bool| {
        let posting = Posting::of_sender("B0PROM", CHANNEL, "");
        bot.workspace
            .post_message(posting.attachments(attachments(firing, "web", "NginxDown", &["web-1"])))
            .unwrap()
    };
    let alert = post(&bot, true);
    let declared = bot.said(&alert, "Waits for Approve").await;
    assert_eq!(bot.end("-TERM").await, Some(0), "{}", bot.log());
    let mut logs = bot.log();
    bot.go_on(mode).await;
    bot.workspace.click(SRE, CHANNEL, &declared, "Approve").await.unwrap();
    bot.said(&alert, "exit code 0").await;
    post(&bot, false);
    bot.said(&alert, "It ran well, and the alert resolved").await;
    bot.until_reaction(&alert, "white_check_mark").await;
    assert_eq!(bot.workspace.thread(CHANNEL, &alert).len(), 2);
    assert_eq!(bot.fleet.runs().len(), 1);
    assert_eq!(bot.end("-INT").await, Some(0), "{}", bot.log());
    logs.push_str(&bot.log());
    for line in logs.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not for machines: {line}");
        assert!(!line.contains("\"level\":\"ERROR\""), "{line}");
    }
    for secret in ["xoxb-sandbox", "xapp-sandbox", "sandbox-signing-secret", "very-secret-key"] {
        assert!(!logs.contains(secret), "the log holds {secret}");
    }
}

/// Runs `heal store backup` beside the bot; its exit code and what it says.
fn back_up(bot: &Binary, to: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heal"));
    let output =
        command.args(["store", "backup", to]).current_dir(bot.dir.path()).env_clear().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn a_backup_under_a_stream_of_alerts_agrees_with_itself() {
    let mut bot = Binary::start(Mode::Socket).await;
    let post = || {
        let posting = Posting::of_sender("B0PROM", CHANNEL, "");
        bot.workspace
            .post_message(posting.attachments(attachments(true, "web", "NginxDown", &["web-1"])))
            .unwrap()
    };
    let mut alerts = vec![post()];
    bot.said(&alerts[0], "Waits for Approve").await;
    for number in 0..5 {
        alerts.extend((0..20).map(|_| post()));
        let (code, said) = back_up(&bot, &format!("{number}.db"));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("heal.db is copied to {number}.db")), "{said}");
    }
    let (code, said) = back_up(&bot, "4.db");
    assert_eq!(code, Some(1));
    assert!(said.contains("4.db is there already") && said.contains("hint:"), "{said}");
    // Every alert is answered: the first by its declaration, the others by why not.
    for alert in &alerts {
        bot.said(alert, "").await;
    }
    assert_eq!(bot.end("-TERM").await, Some(0), "{}", bot.log());
    let mut before = 0;
    for number in 0..5 {
        let copy = rusqlite::Connection::open(bot.dir.path().join(format!("{number}.db"))).unwrap();
        let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let all = count("SELECT count(*) FROM remediations");
        assert!((before..=101).contains(&all), "copy {number} holds {all} remediations, the last {before}");
        before = all;
        for (what, sql) in [
            (
                "a remediation without the line of its opening",
                "SELECT count(*) FROM remediations AS r WHERE NOT EXISTS
                 (SELECT 1 FROM journal WHERE remediation = r.id AND what = 'opened')",
            ),
            (
                "a line or an effect of nothing",
                "SELECT (SELECT count(*) FROM journal WHERE remediation NOT IN (SELECT id FROM remediations))
                 + (SELECT count(*) FROM outbox WHERE remediation NOT IN (SELECT id FROM remediations))",
            ),
            (
                "one to be declared that owes no declaration",
                "SELECT count(*) FROM remediations AS r WHERE state = 'declaring' AND NOT EXISTS
                 (SELECT 1 FROM outbox WHERE remediation = r.id AND effect = 'declare')",
            ),
            (
                "a remediation without its alert",
                "SELECT count(*) FROM remediations WHERE alert NOT IN (SELECT id FROM alerts)",
            ),
            (
                "an alert whose delivery was not taken",
                "SELECT max(0, (SELECT count(*) FROM alerts) - (SELECT count(*) FROM deliveries))",
            ),
        ] {
            assert_eq!(count(sql), 0, "copy {number}: {what}");
        }
    }
    assert!(before > 0, "the last copy holds nothing");
    // A copy takes the database's place, and heal goes on with it.
    for name in ["heal.db", "heal.db-wal", "heal.db-shm"] {
        drop(std::fs::remove_file(bot.dir.path().join(name)));
    }
    std::fs::rename(bot.dir.path().join("0.db"), bot.dir.path().join("heal.db")).unwrap();
    bot.go_on(Mode::Socket).await;
    assert_eq!(bot.end("-TERM").await, Some(0), "{}", bot.log());
}

#[test]
fn a_backup_of_the_binary_under_a_stream_of_alerts_agrees_with_itself() {
    crate::story::tell(a_backup_under_a_stream_of_alerts_agrees_with_itself());
}

#[test]
fn for_a_postgresql_store_the_backup_names_the_tool_and_not_the_password() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heal"));
    command.args(["store", "backup", "copy.db"]).env_clear();
    let output = command.env("DATABASE_URL", "postgres://heal:secret@db/heal").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("hint: pg_dump --format=custom") && !said.contains("secret"), "{said}");
}

#[test]
fn over_a_socket_the_binary_heals_ends_on_sigterm_and_goes_on() {
    crate::story::tell(the_binary_heals_ends_on_sigterm_and_goes_on(Mode::Socket));
}

#[test]
fn over_http_the_binary_heals_ends_on_sigterm_and_goes_on() {
    crate::story::tell(the_binary_heals_ends_on_sigterm_and_goes_on(Mode::Http));
}

#[test]
fn without_its_secrets_the_binary_says_which_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("heal.yaml"),
        "slack: {channels: [\"#alerts\"]}\nsenders: [{name: p, format: alertmanager, bot_id: B0PROM}]\n",
    )
    .unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_heal"));
    let output = command.arg("serve").current_dir(dir.path()).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for name in ["SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "hint:"] {
        assert!(said.contains(name), "{said}");
    }
}
