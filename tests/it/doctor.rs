//! `heal doctor`, the real binary, against a workspace and a fleet that have what goes wrong in life.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};

use heal::sandbox::fleet::{self, Fleet, HostSpec};
use heal::sandbox::postgres::Server;
use heal::sandbox::workspace::{self, Group, Workspace};
use heal::store::{Location, Store};

const CONFIG: &str = "slack: {channels: [\"#alerts\"]}
senders: [{name: prometheus, format: alertmanager, bot_id: B0PROM}]
approvers: [\"@sre\", U0LEAD]
aws: {region: ap-northeast-1, role_tag: Role}
store: sqlite:heal.db
listen: 127.0.0.1:0
";
const RULES: &str = "web:NginxDown: {commands: [systemctl restart nginx]}\n";

/// A folder with a config, and what it talks of.
struct Ward {
    home: tempfile::TempDir,
    slack: Workspace,
    fleet: Fleet,
    environment: Vec<(&'static str, String)>,
}

struct Said {
    code: i32,
    out: String,
}

impl Said {
    /// The line that begins so, with its hints.
    fn finding(&self, begin: &str) -> &str {
        let at = self.out.find(begin).unwrap_or_else(|| panic!("no `{begin}` in:\n{}", self.out));
        let rest = &self.out[at..];
        let end = rest.match_indices('\n').map(|(at, _)| at).find(|at| !rest[at + 1..].starts_with("      "));
        &rest[..end.unwrap_or(rest.len())]
    }
}

impl Ward {
    async fn new(config: &str, options: workspace::Options) -> Ward {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("heal.yaml"), config).unwrap();
        std::fs::create_dir(home.path().join("rules")).unwrap();
        std::fs::write(home.path().join("rules/web.yaml"), RULES).unwrap();
        let (bot, app) = (options.bot_token.clone(), options.app_token.clone());
        let slack = Workspace::start(options).unwrap();
        let fleet = Fleet::start(fleet::Options::of(vec![HostSpec::new("web-1", "web")])).await.unwrap();
        let environment = vec![
            ("SLACK_BOT_TOKEN", bot),
            ("SLACK_APP_TOKEN", app),
            ("SLACK_API_URL", slack.api_url()),
            ("AWS_ENDPOINT_URL_SSM", fleet.endpoint_url().to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIAWARD".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "very-secret-key".to_owned()),
        ];
        Ward { home, slack, fleet, environment }
    }

    async fn well() -> Ward {
        Ward::new(CONFIG, workspace::Options::default()).await
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.environment.push((name, value.to_owned()));
        }
    }

    async fn doctor(&self) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heal"));
        command
            .arg("doctor")
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // No credentials from the machine that runs the tests, nor a search for them on the network.
            .env("HOME", self.home.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let out = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        for (name, secret) in &self.environment {
            let shown = name.ends_with("TOKEN") || name.ends_with("KEY");
            assert!(!(shown && out.contains(secret.as_str())), "{name} is shown:\n{out}");
        }
        Said { code: done.status.code().unwrap(), out }
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        self.fleet.stop();
        self.slack.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_is_well_every_check_says_ok_and_nothing_is_done() {
    let ward = Ward::well().await;
    let said = ward.doctor().await;
    assert_eq!(said.code, 0, "{}", said.out);
    let findings: Vec<&str> = said.out.lines().take_while(|line| !line.is_empty()).collect();
    assert!(findings.iter().all(|line| line.starts_with("ok    ")), "{}", said.out);
    for what in [
        "1 rule in rules",
        "SLACK_APP_TOKEN opens a Socket Mode connection",
        "scopes",
        "heal is in #alerts",
        "@sre has 2 people",
        "mika (U0LEAD) may approve",
        "ssm:SendCommand: allowed",
        "the tag Role: web 1",
        "heal.db is not there yet",
    ] {
        assert!(said.out.contains(what), "no `{what}` in:\n{}", said.out);
    }
    assert!(said.out.ends_with("all is well\n"), "{}", said.out);
    assert!(!Path::new(&ward.home.path().join("heal.db")).exists());
    assert!(ward.fleet.runs().is_empty());
    assert!(ward.slack.messages("C0ALERTS").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_scope_is_named_with_what_it_is_for() {
    let mut options = workspace::Options::default();
    options.scopes.retain(|scope| scope != "reactions:write");
    let said = Ward::new(CONFIG, options).await.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    let finding = said.finding("FAIL  the bot token lacks the scope reactions:write");
    assert!(
        finding.contains("the reaction on the alert") && finding.contains("hint: update the app"),
        "{finding}"
    );
    assert!(said.out.ends_with("1 problem\n"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_heal_is_not_in_or_that_is_not_there_is_a_failure() {
    let config = CONFIG.replace("\"#alerts\"", "\"#random\", \"#no-such\", C0ALERTS");
    let said = Ward::new(&config, workspace::Options::default()).await.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.finding("FAIL  heal is not in #random").contains("/invite @heal"), "{}", said.out);
    assert!(said.finding("FAIL  Slack shows no channel #no-such").contains("hint: "), "{}", said.out);
    said.finding("ok    heal is in C0ALERTS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_slack_refuses_or_of_the_wrong_kind_is_a_failure_and_not_shown() {
    let mut ward = Ward::well().await;
    ward.set("SLACK_BOT_TOKEN", "xoxb-of-another-app");
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.finding("FAIL  Slack does not take the bot token").contains("invalid_auth"), "{}", said.out);

    ward.set("SLACK_BOT_TOKEN", "xapp-swapped-by-mistake");
    ward.set("SLACK_APP_TOKEN", "");
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    let finding = said.finding("FAIL  SLACK_BOT_TOKEN holds an app-level token (xapp-…)");
    assert!(finding.contains("must begin with xoxb-"), "{finding}");
    said.finding("FAIL  SLACK_APP_TOKEN is not set");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_token_that_slack_refuses_is_a_failure() {
    let mut ward = Ward::well().await;
    ward.set("SLACK_APP_TOKEN", "xapp-revoked");
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    said.finding("FAIL  SLACK_APP_TOKEN opens no Socket Mode connection");
    said.finding("ok    heal is in #alerts");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_away_without_credentials_or_denied_is_said_once_and_clearly() {
    let mut ward = Ward::well().await;
    ward.set("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:9");
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.finding("FAIL  ssm:DescribeInstanceInformation").contains("cannot be reached"),
        "{}",
        said.out
    );
    assert!(!said.out.contains("ssm:SendCommand"), "{}", said.out);

    let endpoint = ward.fleet.endpoint_url().to_owned();
    ward.set("AWS_ENDPOINT_URL_SSM", &endpoint);
    ward.set("AWS_ACCESS_KEY_ID", "");
    ward.set("AWS_SECRET_ACCESS_KEY", "");
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(
        said.finding("FAIL  ssm:DescribeInstanceInformation").contains("no AWS credentials"),
        "{}",
        said.out
    );

    ward.set("AWS_ACCESS_KEY_ID", "AKIAWARD");
    ward.set("AWS_SECRET_ACCESS_KEY", "very-secret-key");
    let denied = fleet::Fault::refused("AccessDeniedException", "not authorized");
    ward.fleet.fault("SendCommand", 1, &denied);
    ward.fleet.fault("StartAutomationExecution", 1, &denied);
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.finding("FAIL  ssm:SendCommand").contains("hint: "), "{}", said.out);
    // No rule needs it, so it breaks nothing.
    said.finding("warn  ssm:StartAutomationExecution");
}

#[tokio::test(flavor = "multi_thread")]
async fn approvers_who_cannot_approve_are_failures() {
    let mut options = workspace::Options::default();
    options.groups.push(Group { id: "S0EMPTY".to_owned(), handle: "empty".to_owned(), members: Vec::new() });
    let config = CONFIG.replace("U0LEAD", "\"@empty\", \"@nobody\", U0EXTERN, U0GONE");
    let said = Ward::new(&config, options).await.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    said.finding("FAIL  nobody is in @empty");
    said.finding("FAIL  there is no user group @nobody");
    said.finding("FAIL  Slack knows nobody with the id U0GONE");
    assert!(said.finding("FAIL  external-eve (U0EXTERN)").contains("another organisation"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_a_running_heal_holds_is_no_failure() {
    let ward = Ward::well().await;
    let location = Location::Sqlite(ward.home.path().join("heal.db"));
    let held = Store::open(&location).unwrap();
    let said = ward.doctor().await;
    assert_eq!(said.code, 0, "{}", said.out);
    said.finding("ok    sqlite:heal.db is in use");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_made_or_used_is_a_failure() {
    let config = CONFIG.replace("sqlite:heal.db", "sqlite:no/such/folder/heal.db");
    let ward = Ward::new(&config, workspace::Options::default()).await;
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    said.finding("FAIL  sqlite:no/such/folder/heal.db cannot be made");

    std::fs::create_dir_all(ward.home.path().join("no/such/folder")).unwrap();
    std::fs::write(ward.home.path().join("no/such/folder/heal.db"), "no database at all, but a text")
        .unwrap();
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    said.finding("FAIL  sqlite:no/such/folder/heal.db cannot be used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_is_looked_at_and_not_changed_and_its_password_is_not_shown() {
    let database = Server::shared().unwrap().database().unwrap();
    let config = CONFIG.replace("sqlite:heal.db", &database.url_by_port());
    let ward = Ward::new(&config, workspace::Options::default()).await;
    let said = ward.doctor().await;
    assert_eq!(said.code, 0, "{}", said.out);
    let found = said.finding("ok    postgres://heal@127.0.0.1");
    assert!(found.contains("makes its tables there when it starts"), "{found}");
    let tables = database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").unwrap();
    assert_eq!(tables[0][0].as_deref(), Some("0"));

    let running = Store::open(&Location::parse(&database.url()).unwrap()).unwrap();
    let said = ward.doctor().await;
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(said.finding("ok    postgres://heal@127.0.0.1").contains("processes of heal on it: 1"));
    drop(running);

    let wrong = config.replace("correct", "s3cret");
    std::fs::write(ward.home.path().join("heal.yaml"), &wrong).unwrap();
    let said = ward.doctor().await;
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.finding("FAIL  the store cannot be used").contains("password authentication failed"));
    assert!(!said.out.contains("s3cret"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_cannot_be_read_ends_it_with_2() {
    let ward = Ward::well().await;
    std::fs::write(ward.home.path().join("heal.yaml"), "slack: [\n").unwrap();
    let said = ward.doctor().await;
    assert_eq!(said.code, 2, "{}", said.out);
    assert!(said.out.contains("heal.yaml:"), "{}", said.out);

    std::fs::remove_file(ward.home.path().join("heal.yaml")).unwrap();
    assert_eq!(ward.doctor().await.code, 2);
}
