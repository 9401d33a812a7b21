//! What is done to the bot, and what of it is measured.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::bot::{Bot, Making, Memory, cpu_of};
use super::http;
use super::slack::{CHANNEL, Slack};
use super::ssm::{self, Ssm};
use super::storage::Storage;

/// Alerts sent before anything is measured: connections, caches and statements are warm then.
const WARM_UP: usize = 40;
/// Without any progress for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bot, or several on one store, between the two fakes.
pub struct Scene {
    pub bots: Vec<Bot>,
    making: Making,
    storage: Storage,
    rules: usize,
    at: (String, String),
    slack: Rc<Slack>,
    ssm: Rc<Ssm>,
    alerts: usize,
}

/// Which rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Declares and waits for a person.
    Approve,
    /// Runs at once.
    Auto,
}

/// One burst.
#[derive(Debug)]
pub struct Burst {
    /// From the first event sent to the last report taken.
    pub took: Duration,
    /// The bot's CPU until then; until its reactions and reports were all out; and for the resolving.
    pub cpu: f64,
    pub cpu_quiet: f64,
    pub cpu_resolved: f64,
    /// The fakes' own, for scale.
    pub cpu_fakes: f64,
    /// To the last declaration, and to the last command.
    pub declared: Duration,
    pub commanded: Duration,
    /// From the first resolved message to the last report that says healed.
    pub healed: Duration,
    /// Milliseconds from delivery to acknowledgement, sorted.
    pub acks: Vec<f64>,
    pub memory: Memory,
    pub slack_calls: u64,
    pub ssm_calls: u64,
}

impl Scene {
    /// Fakes for this many alerts, an empty store, and bots on them.
    pub async fn set(making: &Making, alerts: usize, rules: usize) -> anyhow::Result<Scene> {
        let alerts = alerts + WARM_UP;
        if alerts > 499_999 {
            bail!("too many alerts: their numbers are fractions of one second");
        }
        let slack_listener = TcpListener::bind("127.0.0.1:0").await?;
        let ssm_listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = (slack_listener.local_addr()?.to_string(), ssm_listener.local_addr()?.to_string());
        let slack = Rc::new(Slack::new(at.0.clone(), alerts));
        let ssm = Rc::new(Ssm::new(alerts.max(1000)));
        spawn_local(http::serve(slack_listener, Rc::clone(&slack)));
        spawn_local(http::serve(ssm_listener, Rc::clone(&ssm)));
        let storage = Storage::new(making)?;
        let mut scene =
            Scene { bots: Vec::new(), making: making.clone(), storage, rules, at, slack, ssm, alerts };
        scene.start().await?;
        Ok(scene)
    }

    /// Starts the bots, one after another.
    async fn start(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.making.replicas {
            let connections = self.slack.connections();
            let bot = Bot::start(&self.making, &self.storage, &self.at.0, &self.at.1, self.rules).await?;
            self.bots.push(bot);
            self.wait("a second connection", || self.slack.connections() >= connections + 2).await?;
        }
        Ok(())
    }

    /// Kills the bots, leaves a past of so many finished remediations in their store, and starts them
    /// again; from the start to the first bot's readiness.
    pub async fn restart(&mut self, finished: usize) -> anyhow::Result<Duration> {
        self.bots.clear();
        self.wait("the connections' end", || self.slack.connections() == 0).await?;
        self.storage.age(finished)?;
        self.start().await?;
        Ok(self.bots.first().map_or(Duration::ZERO, |bot| bot.ready))
    }

    /// Sends all alerts and waits until each of their commands is with SSM, which does not end them.
    pub async fn hold(&self) -> anyhow::Result<()> {
        self.ssm.holds.set(true);
        for number in WARM_UP..self.alerts {
            self.fire(number, Stage::Auto, 0);
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let commands = || self.ssm.commands.borrow();
        self.wait("commands", || commands()[WARM_UP..self.alerts].iter().all(|one| *one > 0)).await?;
        // What SSM is asked in the meantime is no sign of work; what Slack is told is.
        let mut told = 0;
        while told < self.slack.calls.get() {
            told = self.slack.calls.get();
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }

    /// Waits until all is reported; how long that took.
    pub async fn released(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let alerts = || self.slack.alerts.borrow();
        let reported = || alerts()[WARM_UP..].iter().all(|one| one.reported.is_some());
        self.wait("reports", reported).await?;
        let took = began.elapsed();
        self.quiet().await;
        self.check(Stage::Auto, false)?;
        Ok(took)
    }

    /// Lets the commands end.
    pub fn let_go(&self) {
        self.ssm.holds.set(false);
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        self.bots.iter().map(Bot::cpu).sum()
    }

    /// Of the bot that takes most.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let each: Vec<Memory> = self.bots.iter().map(Bot::memory).collect::<anyhow::Result<_>>()?;
        let most = |of: fn(&Memory) -> f64| each.iter().map(of).fold(0.0, f64::max);
        Ok(Memory { now: most(|one| one.now), peak: most(|one| one.peak) })
    }

    fn log(&self) -> String {
        self.bots.iter().map(Bot::log).collect::<Vec<_>>().join("\n")
    }

    /// Sends a few alerts, heals them, and lets all become quiet.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        for number in 0..WARM_UP {
            self.fire(number, Stage::Auto, 0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let alerts = || self.slack.alerts.borrow();
        self.wait("reports of the warm-up", || alerts()[..WARM_UP].iter().all(|one| one.reports > 0)).await?;
        self.quiet().await;
        self.resolve(0..WARM_UP).await?;
        self.quiet().await;
        Ok(())
    }

    /// Sends alerts at a steady rate; milliseconds from each delivery to its declaration, sorted.
    pub async fn steady(&self, stage: Stage, rate: f64) -> anyhow::Result<Vec<f64>> {
        let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        for number in WARM_UP..self.alerts {
            tick.tick().await;
            self.fire(number, stage, 0);
        }
        let alerts = || self.slack.alerts.borrow();
        self.wait("declarations", || alerts()[WARM_UP..].iter().all(|one| one.declared.is_some())).await?;
        self.quiet().await;
        if stage == Stage::Auto {
            self.wait("reports", || alerts()[WARM_UP..].iter().all(|one| one.reports > 0)).await?;
        }
        self.check(stage, false)?;
        let alerts = alerts();
        let took = alerts[WARM_UP..].iter().filter_map(|one| Some((one.declared?, one.delivered?)));
        let mut took: Vec<f64> = took.map(|(to, from)| (to - from).as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    /// Sends all alerts at once, every tenth twice where `doubled`; then, when all is reported, their
    /// resolved messages. Fails when anything is lost or done twice.
    pub async fn burst(&self, doubled: bool) -> anyhow::Result<Burst> {
        let earlier = self.slack.acknowledgements().len();
        let calls = (self.slack.calls.get(), self.ssm.calls.get());
        let cpu = || self.cpu();
        let (cpu_before, fakes_before) = (cpu()?, cpu_of(std::process::id())?);
        let began = Instant::now();
        for number in WARM_UP..self.alerts {
            self.fire(number, Stage::Auto, 0);
            if doubled && number % 10 == 0 {
                self.fire(number, Stage::Auto, 1);
            }
            // The fakes run on this thread too: what is sent has to leave it.
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let alerts = || self.slack.alerts.borrow();
        let reported = || alerts()[WARM_UP..].iter().all(|one| one.reported.is_some());
        self.wait("reports", reported).await?;
        let (cpu_reported, fakes) = (cpu()?, cpu_of(std::process::id())?);
        let calls = (self.slack.calls.get() - calls.0, self.ssm.calls.get() - calls.1);
        let last = |of: fn(&super::slack::Alert) -> Option<Instant>| {
            let last = alerts()[WARM_UP..].iter().filter_map(of).max();
            last.map_or(Duration::ZERO, |last| last - began)
        };
        let (took, declared) = (last(|one| one.reported), last(|one| one.declared));
        let commanded = self.ssm.last_command.get().map_or(Duration::ZERO, |last| last - began);
        self.quiet().await;
        let cpu_quiet = cpu()?;
        let acks: Option<Vec<Duration>> = self.slack.acknowledgements().into_iter().skip(earlier).collect();
        let acks = acks.context("a delivery was not acknowledged")?;
        let mut acks: Vec<f64> = acks.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        acks.sort_by(f64::total_cmp);
        let healed = self.resolve(WARM_UP..self.alerts).await?;
        self.quiet().await;
        let cpu_resolved = cpu()? - cpu_quiet;
        self.check(Stage::Auto, true)?;
        Ok(Burst {
            took,
            cpu: cpu_reported - cpu_before,
            cpu_quiet: cpu_quiet - cpu_before,
            cpu_resolved,
            cpu_fakes: fakes - fakes_before,
            declared,
            commanded,
            healed,
            acks,
            memory: self.memory()?,
            slack_calls: calls.0,
            ssm_calls: calls.1,
        })
    }

    /// Says that alerts are over; how long until all reports and declarations say healed.
    async fn resolve(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for number in numbers.clone() {
            let message = self.message(number, Stage::Auto, false);
            self.slack.deliver(usize::MAX, &message, &format!("EvR{number}"), 0);
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let alerts = || self.slack.alerts.borrow();
        let healed = || alerts()[numbers.clone()].iter().all(|one| one.healed == (true, true));
        self.wait("messages that say healed", healed).await?;
        Ok(began.elapsed())
    }

    /// Exactly once: each alert declared, and where it ran commanded and reported.
    fn check(&self, stage: Stage, healed: bool) -> anyhow::Result<()> {
        let (alerts, commands) = (self.slack.alerts.borrow(), self.ssm.commands.borrow());
        let runs = u32::from(stage == Stage::Auto);
        for number in WARM_UP..self.alerts {
            let (alert, commands) = (&alerts[number], commands[number]);
            let fine = alert.declarations == 1 && commands == runs && alert.reports == runs;
            if !fine || healed && alert.healed != (true, true) {
                bail!("alert {number}: {commands} commands, {alert:?}\n{}", self.log());
            }
        }
        if self.slack.others.get() > 0 {
            bail!("{} messages that nobody expected\n{}", self.slack.others.get(), self.log());
        }
        Ok(())
    }

    fn fire(&self, number: usize, stage: Stage, retry: u32) {
        let message = self.message(number, stage, true);
        self.slack.deliver(number, &message, &format!("EvF{number}"), retry);
    }

    /// A message event, as Alertmanager's receiver posts it.
    fn message(&self, number: usize, stage: Stage, firing: bool) -> String {
        let (role, alert) = match (stage, number % 2) {
            (Stage::Approve, _) => ("web".to_owned(), "DiskFull"),
            (Stage::Auto, 0) => ("web".to_owned(), "AppDown"),
            // Every other alert is answered by a pattern.
            (Stage::Auto, _) => (format!("shop-{}", number % 7), "QueueStuck"),
        };
        let (status, color) = if firing { ("[FIRING:1]", "a30200") } else { ("[RESOLVED]", "2eb886") };
        let host = ssm::name(number);
        let (second, fraction) = (self.slack.second, if firing { number } else { number + self.alerts });
        format!(
            r#"{{"type":"message","subtype":"bot_message","text":"","username":"Alertmanager","bot_id":"B0PROM","app_id":"A0PROM","team":"T0BENCH","attachments":[{{"id":1,"color":"{color}","fallback":"{status} {alert} ({role} {host} critical) | <https://alertmanager.example.com/#/alerts?receiver=slack>","title":"{status} {alert} for {role}","title_link":"https://alertmanager.example.com/#/alerts?receiver=slack","text":"*Alert:* {alert} on {host} - `critical`\n*Description:* {host} of {role} has been unwell for more than 2 minutes.\n*Details:*\n  • *alertname:* `{alert}`\n  • *instance:* `{host}:9100`\n  • *job:* `node`\n  • *role:* `{role}`\n  • *severity:* `critical`","mrkdwn_in":["fallback","pretext","text"]}}],"ts":"{second}.{fraction:06}","event_ts":"{second}.{fraction:06}","channel":"{CHANNEL}","channel_type":"channel"}}"#
        )
    }

    /// Waits for something, as long as the bot goes on calling.
    async fn wait(&self, what: &str, mut is_there: impl FnMut() -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_there() {
            let heard = self.last_call().map_or(began, |last| last.max(began));
            if heard.elapsed() > PATIENCE {
                let alerts = self.slack.alerts.borrow();
                let count =
                    |of: fn(&super::slack::Alert) -> bool| alerts.iter().filter(|one| of(one)).count();
                bail!(
                    "{what} did not come; of {} alerts {} were delivered, {} declared, {} reported, {} healed\n{}",
                    alerts.len(),
                    count(|one| one.delivered.is_some()),
                    count(|one| one.declarations > 0),
                    count(|one| one.reports > 0),
                    count(|one| one.healed == (true, true)),
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until the bot has not called for a second.
    async fn quiet(&self) {
        let began = Instant::now();
        while self.last_call().map_or(began, |last| last.max(began)).elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn last_call(&self) -> Option<Instant> {
        self.slack.last_call.get().max(self.ssm.last_call.get())
    }
}
