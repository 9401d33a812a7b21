//! The world of a replay: the workspace, the fleet, and a bot that is started again when it was killed.
//!
//! Its people do what people do: who pressed a button and still sees it presses it again, who typed an
//! order and sees nothing of it types it again. Nothing sleeps; conditions are awaited with a bound.

use std::path::PathBuf;
use std::time::Duration;

use heal::app::{Secrets, Settings};
use heal::config;
use heal::engine::{Clock, Patience};
use heal::sandbox::Cut;
use heal::sandbox::fleet::Fleet;
use heal::sandbox::workspace::{Message, Posting, View, Workspace};
use heal::slack::Secret;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::database::{Database, Fresh};
use super::life::Life;
use super::shown::{self, Shown};
use crate::story::alert::attachments;
use crate::story::log::Log;
use crate::story::{Alert, CHANNEL, Mode, Plot};

/// What is awaited happens within some hundred milliseconds; a busy machine may take longer.
pub const BOUND: Duration = Duration::from_secs(20);
/// After so long people look whether something came of what they did.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Slack itself shows them that nobody answered.
const SOON: Duration = Duration::from_millis(300);
/// And so often they do it again.
const TRIES: usize = 12;

/// How long a bot waits for one that was killed; a tenth of what it does in production. Only one lives at
/// a time, so nobody takes over from a bot that is only slow.
const PATIENCE_OF_REPLICAS: Patience = Patience {
    beat: Duration::from_millis(50),
    held: Duration::from_millis(200),
    silent: Duration::from_millis(250),
    silent_in_session: Duration::from_millis(900),
};

/// How something went; the error says what went wrong, with all that happened.
pub type Told = Result<(), String>;

/// What a replay happens on.
#[derive(Clone, Debug)]
pub struct Stage {
    pub database: Database,
    pub cut: Cut,
    /// The point at which the bot is killed.
    pub end: Option<usize>,
}

/// A replay under way.
pub struct World {
    pub workspace: Workspace,
    pub fleet: Fleet,
    pub clock: Clock,
    pub cut: Cut,
    pub database: Fresh,
    pub log: Log,
    leave: watch::Sender<bool>,
    keeper: Option<JoinHandle<Told>>,
    path: PathBuf,
    stamps: u64,
    /// A command that was lost on its way cannot be repeated, so its outcome may be *unknown*.
    pub may_be_unknown: bool,
    /// So many deliveries were given up by Slack on purpose.
    pub forgotten: usize,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// Starts the emulators and the bot, and counts its steps from the moment in which it listens.
    pub async fn set(&self, mut plot: Plot) -> World {
        plot.nagios = false;
        self.set_with_nagios(plot).await
    }

    /// As [`Stage::set`], with the sender that never says that something is over.
    pub async fn set_with_nagios(&self, plot: Plot) -> World {
        let world = self.begin(plot).await;
        let connected = |view: &View| view.connections() > 0;
        world.workspace.wait_until(BOUND, connected).await.unwrap();
        self.cut.arm(self.end);
        world
    }

    /// As [`Stage::set`], and counts from the bot's very first step.
    pub async fn set_early(&self, mut plot: Plot) -> World {
        plot.nagios = false;
        self.cut.arm(self.end);
        self.begin(plot).await
    }

    async fn begin(&self, mut plot: Plot) -> World {
        let cut = self.cut.clone();
        plot.workspace.cut = Some(cut.clone());
        plot.workspace.redeliver_after = Duration::from_millis(400);
        plot.workspace.redeliveries = 40;
        plot.fleet.cut = Some(cut.clone());
        let dir = in_memory().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
        plot.fleet.folder = in_memory();
        let database = self.database.fresh(dir.path());
        let path = plot.write(dir.path(), Mode::Socket, &database.url);
        let workspace = Workspace::start(plot.workspace).unwrap();
        let fleet = Fleet::start(plot.fleet).await.unwrap();
        let (leave, leaving) = watch::channel(false);
        let mut world = World {
            workspace,
            fleet,
            clock: Clock::default(),
            cut,
            database,
            log: Log::default(),
            leave,
            keeper: None,
            path,
            stamps: 0,
            may_be_unknown: false,
            forgotten: 0,
            _dir: dir,
        };
        world.keep(leaving);
        world
    }
}

/// Thousands of hosts are made and taken away; in memory that costs nothing.
fn in_memory() -> Option<PathBuf> {
    Some(PathBuf::from("/dev/shm")).filter(|shared| shared.is_dir())
}

impl World {
    /// Starts the bot, and starts it again when it was killed, until it is to leave.
    fn keep(&mut self, leaving: watch::Receiver<bool>) {
        let starts = self.starts();
        let (cut, log) = (self.cut.clone(), self.log.clone());
        self.keeper = Some(tokio::spawn(async move {
            loop {
                Life::begin(starts(), &cut, &log, leaving.clone()).ended().await?;
                if !cut.has_ended() {
                    return Ok(());
                }
                cut.revive();
            }
        }));
    }

    /// What the bot starts from, as often as it starts.
    fn starts(&self) -> impl Fn() -> Settings + Send + 'static {
        let secrets = self.workspace.view(|view| {
            let options = view.options();
            let secret = |text: &str| Some(Secret::new(text.to_owned()));
            Secrets {
                bot_token: secret(&options.bot_token),
                app_token: secret(&options.app_token),
                signing_secret: secret(&options.signing_secret),
            }
        });
        let (path, clock) = (self.path.clone(), self.clock.clone());
        let (slack, ssm) = (self.workspace.api_url(), self.fleet.endpoint_url().to_owned());
        move || {
            let loaded = config::load(&path, true, None);
            assert!(!loaded.has_errors(), "{}", heal::rule::diagnostic::render_all(&loaded.problems, false));
            Settings {
                config: loaded.config.unwrap(),
                rules: loaded.rules,
                secrets: secrets.clone(),
                slack_api_url: Some(slack.clone()),
                ssm_endpoint: Some(ssm.clone()),
                clock: clock.clone(),
                store: heal::store::Options::default(),
                patience: PATIENCE_OF_REPLICAS,
            }
        }
    }

    /// Ends the bot as SIGTERM does; where it is killed on the way, it has ended too.
    pub async fn leave(&mut self) -> Told {
        self.leave.send_replace(true);
        let kept = match self.keeper.take() {
            Some(keeper) => keeper.await.unwrap_or_else(|error| Err(error.to_string())),
            None => Ok(()),
        };
        kept.map_err(|why| self.fault(&why))
    }

    /// Starts it again after [`World::leave`].
    pub fn come_back(&mut self) {
        let (leave, leaving) = watch::channel(false);
        self.leave = leave;
        self.keep(leaving);
    }

    /// Replaces the rules on disk; they count from the next start.
    pub fn rewrite_rules(&self, rules: &str) {
        std::fs::write(self.path.with_file_name("rules").join("rules.yaml"), rules).unwrap();
    }

    /// What went wrong, with all that can be seen.
    pub fn fault(&self, what: &str) -> String {
        format!("{what}\n{}", shown::transcript(self))
    }

    /// Whether the bot can go on; it ends by itself only where something is wrong.
    pub async fn lives(&mut self) -> Told {
        if self.keeper.as_ref().is_some_and(JoinHandle::is_finished) {
            self.leave().await?;
        }
        Ok(())
    }

    /// Awaits a condition over the workspace.
    pub async fn until(&mut self, what: &str, condition: impl FnMut(&View) -> bool) -> Told {
        if self.workspace.wait_until(BOUND, condition).await.is_ok() {
            return Ok(());
        }
        self.lives().await?;
        Err(self.fault(&format!("{what}: that did not come")))
    }

    /// Awaits a condition, and moves the clock on while it does not hold.
    pub async fn until_later(
        &mut self,
        seconds: u64,
        what: &str,
        mut condition: impl FnMut(&View) -> bool,
    ) -> Told {
        for _ in 0..TRIES {
            self.clock.advance(Duration::from_secs(seconds));
            if self.workspace.wait_until(PATIENCE, &mut condition).await.is_ok() {
                return Ok(());
            }
        }
        self.until(what, condition).await
    }

    /// Awaits that the part (declaration, report, why_not) of some remediation in the thread reads so.
    pub async fn reads(&mut self, alert: &Alert, part: &str, text: &str) -> Told {
        let ts = alert.ts.clone();
        self.until(&format!("a {part} with {text:?}"), move |view| shown::has(view, &ts, part, text)).await
    }

    /// As [`World::reads`], while the time goes on.
    pub async fn reads_later(&mut self, seconds: u64, alert: &Alert, part: &str, text: &str) -> Told {
        let ts = alert.ts.clone();
        let what = format!("a {part} with {text:?}");
        self.until_later(seconds, &what, move |view| shown::has(view, &ts, part, text)).await
    }

    /// Presses a button of the newest message in the thread that has it and holds `text`, until no
    /// message has it any more.
    pub async fn press(&mut self, user: &str, alert: &Alert, button: &str, text: &str) -> Told {
        let ts = alert.ts.clone();
        let with = {
            let (button, text) = (button.to_owned(), text.to_owned());
            move |view: &View| shown::with_button(view, &ts, &button, &text)
        };
        self.until(&format!("a button {button}"), |view| with(view).is_some()).await?;
        for _ in 0..TRIES {
            let Some(message) = self.workspace.view(&with) else { return Ok(()) };
            let answered = self.workspace.click(user, CHANNEL, &message.ts, button).await.is_ok();
            let patience = if answered { PATIENCE } else { SOON };
            if self.workspace.wait_until(patience, |view| with(view).is_none()).await.is_ok() {
                return Ok(());
            }
        }
        Err(self.fault(&format!("{button} did not go away, however often it was pressed")))
    }

    /// As [`World::press`], until something else is seen: not every button goes away.
    pub async fn press_until(
        &mut self,
        user: &str,
        alert: &Alert,
        button: &str,
        mut seen: impl FnMut(&View) -> bool,
    ) -> Told {
        let ts = alert.ts.clone();
        let with = |view: &View| shown::with_button(view, &ts, button, "");
        for _ in 0..TRIES {
            let ready = |view: &View| with(view).is_some() || seen(view);
            self.until(&format!("a button {button}"), ready).await?;
            if self.workspace.view(&mut seen) {
                return Ok(());
            }
            let mut patience = SOON;
            if let Some(message) = self.workspace.view(with)
                && self.workspace.click(user, CHANNEL, &message.ts, button).await.is_ok()
            {
                patience = PATIENCE;
            }
            if self.workspace.wait_until(patience, &mut seen).await.is_ok() {
                return Ok(());
            }
        }
        Err(self.fault(&format!("nothing came of {button}, however often it was pressed")))
    }

    /// Types `/heal {text}` until something is seen of it.
    pub async fn order(&mut self, user: &str, text: &str, mut seen: impl FnMut(&View) -> bool) -> Told {
        for _ in 0..TRIES {
            let answered = self.workspace.slash(user, CHANNEL, text).await.is_ok();
            let patience = if answered { PATIENCE } else { SOON };
            if self.workspace.wait_until(patience, &mut seen).await.is_ok() {
                return Ok(());
            }
        }
        self.lives().await?;
        Err(self.fault(&format!("nothing came of `/heal {text}`")))
    }

    /// Awaits that the run is well. Where it was lost on its way to SSM, and only a person may say
    /// that it is to be sent again, `user` does so.
    pub async fn runs_well(&mut self, user: &str, alert: &Alert, host: &str) -> Told {
        loop {
            let ts = alert.ts.clone();
            let place = format!("`{host}`");
            let newest = move |view: &View| shown::newest(view, &ts, &place);
            let ended = |this: &Shown| this.reports("*ran well*") || this.reports("*unknown*");
            self.until("a run that is well", |view| newest(view).is_some_and(|this| ended(&this))).await?;
            let Some(this) = self.workspace.view(&newest) else { continue };
            if this.reports("*ran well*") {
                return Ok(());
            }
            let sent = self.commands_of(&this.id);
            if !self.may_be_unknown || sent > 0 {
                return Err(self.fault(&format!("unknown, although {sent} commands of it came to SSM")));
            }
            let (id, before) = (this.id, newest.clone());
            let seen = move |view: &View| before(view).is_some_and(|newer| newer.id != id);
            self.press_until(user, alert, "Run again", seen).await?;
        }
    }

    /// How many commands of a remediation SSM took.
    fn commands_of(&self, id: &str) -> usize {
        let calls = self.fleet.calls();
        let of = |call: &&heal::sandbox::fleet::Call| {
            call.operation == "SendCommand" && call.body["Comment"] == format!("heal {id}")
        };
        calls.iter().filter(of).count()
    }

    /// How often the cure did its work on a host.
    pub fn cures(&self, host: &str) -> usize {
        let file = self.fleet.host(host).unwrap().root().join("var/run/cured");
        std::fs::read_to_string(file).unwrap_or_default().lines().count()
    }

    /// A file under `/var/run` of a host.
    pub fn touch(&self, host: &str, name: &str) {
        std::fs::write(self.fleet.host(host).unwrap().root().join("var/run").join(name), "").unwrap();
    }

    fn stamp(&mut self) -> String {
        self.stamps += 1;
        let now = self.clock.now().0;
        format!("{}.{:03}{:03}", now / 1000, now % 1000, self.stamps % 1000)
    }

    /// Alertmanager posts that this fires on these hosts.
    pub fn alert(&mut self, name: &str, hosts: &[&str]) -> Alert {
        let ts = self.post(true, "web", name, hosts);
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Alert { role: "web".to_owned(), name: name.to_owned(), hosts, ts }
    }

    /// Alertmanager posts that it is over.
    pub fn resolve(&mut self, alert: &Alert) {
        let hosts: Vec<&str> = alert.hosts.iter().map(String::as_str).collect();
        self.post(false, &alert.role, &alert.name, &hosts);
    }

    pub fn post(&mut self, firing: bool, role: &str, name: &str, hosts: &[&str]) -> String {
        let ts = self.stamp();
        let posting = Posting::of_sender("B0PROM", CHANNEL, "");
        let posting = posting.attachments(attachments(firing, role, name, hosts));
        self.workspace.post_message(posting.with_raw("ts", ts.into())).unwrap()
    }

    /// The bot's messages at the top level of the channel.
    pub fn announcements(&self) -> Vec<Message> {
        let mut all = self.workspace.messages(CHANNEL);
        all.retain(|message| message.bot_id.as_deref() == Some("B0HEAL"));
        all
    }
}
