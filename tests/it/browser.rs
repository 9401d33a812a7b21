//! The sandbox as a newcomer meets it: the real binary, its page in a real browser, real clicks.
//!
//! One session tells the stories one after another, as one person at one page would. Whatever
//! happens, the browser, its driver and the sandbox are ended by their process ids.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use futures_util::FutureExt as _;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
/// The longest that anything may take to show; the slowest is the count-down of an auto rule.
const BOUND: Duration = Duration::from_secs(40);
const OPEN_THREAD: &str = "[data-testid=thread-messages]";
const CHANNEL: &str = "[data-testid=messages]";

/// A process that ends with this value.
struct Ending(Child);

impl Ending {
    fn start(command: &mut Command) -> Ending {
        let name = command.get_program().to_owned();
        Ending(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", name.display())),
        )
    }

    /// The first line of standard output with `word` in it; the rest is read away, so that it never blocks.
    fn line_with(&mut self, word: &'static str) -> String {
        let (found, line) = std::sync::mpsc::channel();
        let out = BufReader::new(self.0.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if line.contains(word) {
                    drop(found.send(line));
                }
            }
        });
        line.recv_timeout(BOUND).unwrap_or_else(|_| panic!("no line with `{word}` was printed"))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // First politely: the sandbox has hosts of its own to end.
        end(self.0.id());
        let until = Instant::now() + Duration::from_secs(8);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn end(pid: u32) {
    drop(Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status());
}

/// The browser's own process, should its driver not have ended it.
struct Browser(Option<u32>);

impl Drop for Browser {
    fn drop(&mut self) {
        let Some(pid) = self.0 else { return };
        // Only if this process id is still that program's.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.starts_with("chrom") {
            end(pid);
        }
    }
}

/// The page, as somebody uses it.
struct Page {
    client: Client,
}

impl Page {
    async fn open(driver: &str, url: &str, profile: &Path) -> (Page, Browser) {
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
        ];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.display()));
        let wanted =
            json!({ "browserName": "chrome", "goog:chromeOptions": { "binary": CHROMIUM, "args": args } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted.as_object().cloned().unwrap());
        let client = builder.connect(driver).await.expect("the driver starts the browser");
        let pid = client.capabilities().and_then(|has| has.get("goog:processID")).and_then(Value::as_u64);
        let browser = Browser(pid.and_then(|pid| u32::try_from(pid).ok()));
        client.goto(url).await.expect("the page loads");
        (Page { client }, browser)
    }

    /// What a person reads in there; empty while it is not there.
    async fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText || ''";
        let found = self.client.execute(script, vec![json!(css)]).await.expect("the page can be read");
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until `words` can be read in there, in any case.
    async fn reads(&self, css: &str, words: &str) {
        let until = Instant::now() + BOUND;
        loop {
            let text = self.text(css).await;
            if text.to_lowercase().contains(&words.to_lowercase()) {
                return;
            }
            assert!(Instant::now() < until, "`{words}` never showed in {css}; it says:\n{text}");
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    /// Clicks on it as soon as it is there. The page redraws as things happen, so the element that was
    /// found may be replaced before the click: then it is looked for again.
    async fn click(&self, css: &str) {
        let until = Instant::now() + BOUND;
        loop {
            let clicked = match self.client.find(Locator::Css(css)).await {
                Ok(element) => element.click().await,
                Err(error) => Err(error),
            };
            let Err(error) = clicked else { return };
            assert!(Instant::now() < until, "{css} cannot be clicked: {error}");
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    async fn break_host(&self, host: &str, action: &str) {
        self.click(&format!("[data-testid=break-{host}-{action}]")).await;
    }

    /// Presses a button of the open thread.
    async fn press(&self, button: &str) {
        self.click(&format!("{OPEN_THREAD} [data-testid=button-{button}]")).await;
    }

    async fn is_there(&self, css: &str) -> bool {
        self.client.find(Locator::Css(css)).await.is_ok()
    }

    /// Waits for the thread of the alert with these words to open by itself.
    async fn thread_of(&self, words: &str) {
        self.reads(&format!("{OPEN_THREAD} > :first-child"), words).await;
    }

    async fn act_as(&self, name: &str) {
        let choice = self.client.find(Locator::Css("[data-testid=act-as]")).await.unwrap();
        choice.select_by_label(name).await.expect("a person of that name can be chosen");
    }

    async fn say(&self, text: &str) {
        let composer = self.client.find(Locator::Css("[data-testid=composer]")).await.unwrap();
        composer.send_keys(text).await.unwrap();
        self.click("[data-testid=send]").await;
    }

    async fn host_is(&self, host: &str, state: &str) {
        let css = format!("[data-testid=host-{host}][data-state={state}]");
        let until = Instant::now() + BOUND;
        while !self.is_there(&css).await {
            assert!(Instant::now() < until, "{host} never became {state}");
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    /// What can help when a story failed.
    async fn picture(&self) -> String {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser.png");
        let taken = match self.client.screenshot().await {
            Ok(png) => std::fs::write(&path, png).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        taken.map_or_else(
            |why| format!("no picture: {why}"),
            |()| format!("a picture is in {}", path.display()),
        )
    }
}

/// Stop a process, see the alert and the declaration, approve, see the report and the healed alert.
async fn a_fault_is_declared_approved_healed_and_reported(page: &Page) {
    page.break_host("web-1", "stop-nginx").await;
    page.host_is("web-1", "ill").await;
    page.reads(CHANNEL, "[FIRING:1] NginxDown for web").await;
    page.thread_of("nginx on web-1 is down").await;
    page.reads(OPEN_THREAD, "systemctl restart nginx").await;

    page.act_as("dana").await;
    page.press("approve").await;
    page.reads(&format!("{OPEN_THREAD} [data-testid=ephemeral]"), "may not approve").await;
    page.host_is("web-1", "ill").await;

    // A private refusal is for dana's eyes only.
    page.act_as("mika (@sre)").await;
    let until = Instant::now() + BOUND;
    while page.is_there("[data-testid=ephemeral]").await {
        assert!(Instant::now() < until, "the refusal of dana is shown to mika");
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    page.press("approve").await;
    page.host_is("web-1", "well").await;
    page.reads(CHANNEL, "[RESOLVED] NginxDown for web").await;
    let report = format!("{OPEN_THREAD} > :nth-child(3)");
    page.reads(&report, "healed").await;
    let text = page.text(&report).await;
    assert!(text.contains("approved by @mika") && text.contains("exit code 0"), "{text}");
    page.reads(&format!("{OPEN_THREAD} > :nth-child(2)"), "healed").await;
    assert!(!page.is_there(&format!("{OPEN_THREAD} [data-testid=button-approve]")).await);
}

/// An auto rule counts down; Hold stops it for good.
async fn hold_stops_an_automatic_run(page: &Page) {
    page.break_host("web-2", "stop-app").await;
    page.thread_of("app on web-2 is down").await;
    page.press("hold").await;
    page.reads(&format!("{OPEN_THREAD} > :nth-child(2)"), "held").await;
    page.reads(OPEN_THREAD, "@mika pressed Hold").await;
    assert!(!page.is_there(&format!("{OPEN_THREAD} [data-testid=button-hold]")).await);
}

/// A pause by slash command is announced, and the next fault says that it is paused.
async fn a_pause_by_slash_command_is_announced_and_holds(page: &Page) {
    page.say("/heal pause web:* 1h deploying").await;
    page.reads(CHANNEL, "@mika paused web:*").await;
    page.break_host("web-2", "stop-nginx").await;
    page.thread_of("nginx on web-2 is down").await;
    page.reads(OPEN_THREAD, "paused by @mika").await;
    assert!(!page.is_there(&format!("{OPEN_THREAD} [data-testid=button-approve]")).await);
    page.host_is("web-2", "ill").await;
}

/// The rule file of the talk, as it stands.
async fn the_talks_own_rule_heals(page: &Page) {
    page.break_host("app-1", "stop-foo-process").await;
    page.thread_of("FOO_PROCESS on app-1 is down").await;
    page.reads(OPEN_THREAD, "service FOO_PROCESS restart").await;
    page.press("approve").await;
    page.host_is("app-1", "well").await;
    page.reads(&format!("{OPEN_THREAD} > :nth-child(3)"), "healed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_heals_holds_and_pauses_on_the_sandbox_page() {
    for program in [CHROMIUM, CHROMEDRIVER] {
        assert!(
            Path::new(program).exists(),
            "{program} is missing: run the tests with `sh tests/run.sh`, which installs it, \
             or install Debian's chromium and chromium-driver"
        );
    }
    let profile = tempfile::Builder::new().prefix("heal-browser-").tempdir().unwrap();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let mut sandbox = Ending::start(
        Command::new(env!("CARGO_BIN_EXE_heal"))
            .args(["sandbox", "--port", "0", "--rules", rules])
            .current_dir(profile.path())
            .env("RUST_LOG", "error"),
    );
    let line = sandbox.line_with("http://127.0.0.1:");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let mut driver = Ending::start(Command::new(CHROMEDRIVER).arg("--port=0"));
    let line = driver.line_with("successfully on port");
    let port = line.trim().trim_end_matches('.').rsplit(' ').next().unwrap();
    let driver_url = format!("http://127.0.0.1:{port}");
    let (page, _browser) = Page::open(&driver_url, &url, &profile.path().join("profile")).await;

    let stories = async {
        page.reads("[data-testid=connection]", "heal is connected").await;
        a_fault_is_declared_approved_healed_and_reported(&page).await;
        hold_stops_an_automatic_run(&page).await;
        a_pause_by_slash_command_is_announced_and_holds(&page).await;
        the_talks_own_rule_heals(&page).await;
    };
    let told = std::panic::AssertUnwindSafe(stories).catch_unwind().await;
    if told.is_err() {
        let picture = page.picture().await;
        eprintln!("{picture}");
    }
    drop(page.client.close().await);
    if let Err(failure) = told {
        std::panic::resume_unwind(failure);
    }
}
