//! All wiring: from a checked configuration to a bot that runs. It embeds in a test.
//!
//! The web server comes up first, so that a start that hangs can be asked why; then Slack, then the
//! engine. Slack being away delays the start; a token that Slack refuses ends it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::aws::{Ssm, Targets};
use crate::config::{Config, Mode};
use crate::engine::metrics::{Metrics, NameLabel};
use crate::engine::{Clock, Engine, Lease, Parts, Patience};
use crate::rule::RuleSet;
use crate::slack::{self, Secret};
use crate::store::{self, Location, Store};
use crate::web;

/// Deliveries read from Slack and not yet handed to the store.
const DELIVERIES: usize = 1024;

/// A probe of the store that takes longer has failed.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Secrets; from the environment only.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    pub bot_token: Option<Secret>,
    pub app_token: Option<Secret>,
    pub signing_secret: Option<Secret>,
}

impl Secrets {
    /// `SLACK_BOT_TOKEN`, `SLACK_APP_TOKEN`, `SLACK_SIGNING_SECRET`.
    pub fn from_env() -> Secrets {
        let read = |name: &str| {
            std::env::var(name)
                .ok()
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .map(Secret::new)
        };
        Secrets {
            bot_token: read("SLACK_BOT_TOKEN"),
            app_token: read("SLACK_APP_TOKEN"),
            signing_secret: read("SLACK_SIGNING_SECRET"),
        }
    }
}

/// What the bot starts from.
#[derive(Debug)]
pub struct Settings {
    pub config: Config,
    pub rules: RuleSet,
    pub secrets: Secrets,
    /// `SLACK_API_URL`
    pub slack_api_url: Option<String>,
    /// An SSM on this machine in place of AWS; see [`Ssm::on_loopback`]. `None` everywhere but in tests:
    /// environment variables, as `heal sandbox` sets them, belong to the whole process.
    pub ssm_endpoint: Option<String>,
    pub clock: Clock,
    pub store: store::Options,
    /// Among replicas; the default everywhere but in tests.
    pub patience: Patience,
}

impl Settings {
    /// What is missing to serve, each with a hint; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let secrets = &self.secrets;
        if secrets.bot_token.is_none() {
            missing.push("SLACK_BOT_TOKEN is not set\nhint: the bot token (xoxb-…) from your Slack app's page \"OAuth & Permissions\"".to_owned());
        }
        match self.config.slack.mode {
            Mode::Socket if secrets.app_token.is_none() => missing.push("SLACK_APP_TOKEN is not set\nhint: an app-level token (xapp-…) with connections:write, from \"Basic Information\"; or set slack.mode: http".to_owned()),
            Mode::Http if secrets.signing_secret.is_none() => missing.push("SLACK_SIGNING_SECRET is not set\nhint: from your Slack app's page \"Basic Information\"".to_owned()),
            Mode::Socket | Mode::Http => {}
        }
        let path = self.config.path.display();
        if self.config.slack.channels.is_empty() {
            missing.push(format!("{path} names no channels\nhint: slack: {{channels: [\"#alerts\"]}}"));
        }
        if self.config.senders.is_empty() {
            missing.push(format!(
                "{path} names no senders, so nobody can raise an alert\nhint: add one under senders:"
            ));
        }
        missing
    }
}

/// A bot that runs.
#[derive(Debug)]
pub struct Running {
    /// Where health and metrics are.
    pub listen: SocketAddr,
    shutdown: watch::Sender<bool>,
    /// Ends when the bot cannot go on.
    main: JoinHandle<anyhow::Result<()>>,
    web: JoinHandle<()>,
    store: Store,
}

impl Running {
    /// Waits until the bot ends by itself, which is an error.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match (&mut self.main).await {
            Ok(result) => result,
            Err(error) => bail!("the bot stopped: {error}"),
        }
    }

    /// Takes no more events, lets go what is in hand (at most ten seconds), leaves the rest owed.
    pub async fn stop(mut self) {
        self.shutdown.send_replace(true);
        if tokio::time::timeout(Duration::from_secs(10), &mut self.main).await.is_err() {
            tracing::warn!("something was still under way after 10 s; the next start goes on with it");
            self.main.abort();
        }
        self.web.abort();
        // What is still held by a task on its way, or by a connection kept alive, must not hold the file.
        self.store.close().await;
    }
}

/// How far the start has come, for `/readyz`.
#[derive(Default)]
struct Progress {
    problem: Mutex<Option<String>>,
}

impl Progress {
    fn say(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn get(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the bot. Fails on what only a person can mend: missing secrets, an unusable store, an
/// address in use. Slack is met afterwards; see [`Running::ended`].
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let problems = settings.problems();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let location = Location::parse(url.as_deref().unwrap_or(&settings.config.store))
        .map_err(|why| anyhow::anyhow!(why))?;
    let store = Store::open_with(&location, settings.store.clone())?;
    let bot_token = settings.secrets.bot_token.clone().context("SLACK_BOT_TOKEN is not set")?;
    let options = slack::Options { api_url: settings.slack_api_url.clone(), ..slack::Options::default() };
    let client =
        slack::Client::new(&bot_token, &options).map_err(|why| anyhow::anyhow!("SLACK_API_URL: {why}"))?;
    let ssm = match &settings.ssm_endpoint {
        Some(url) => Ssm::on_loopback(url).await?,
        None => Ssm::connect(settings.config.aws.region.as_deref()).await?,
    }
    .with_fence_dir(&settings.config.aws.fence_dir);
    let address = settings.config.listen;
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}\nhint: is another heal running? set listen: in heal.yaml")
    })?;
    let listen = listener.local_addr().context("the address listened on")?;

    let (shutdown, stopping) = watch::channel(false);
    let (status_writer, status) = watch::channel(slack::socket::Status::default());
    let (deliveries_writer, deliveries) = mpsc::channel(DELIVERIES);
    let counters = Arc::new(slack::Counters::default());
    let metrics = Arc::new(Metrics::default());
    let progress = Arc::new(Progress::default());
    progress.say(Some("Slack has not been reached yet".to_owned()));

    let mode = settings.config.slack.mode;
    let lease = Lease::new(settings.patience);
    let held = lease.clone();
    let options = slack::send::Options {
        may_send: Some(Arc::new(move || held.is_held())),
        ..slack::send::Options::default()
    };
    let (queue, sending) = slack::send::Queue::new(client.clone(), options, stopping.clone());
    let seen = Seen { metrics: Arc::clone(&metrics), counters: Arc::clone(&counters), queue: queue.clone() };
    let probes = probes(mode, &store, &status, &progress, seen, &stopping);
    let mut router = web::router(Arc::new(probes));
    if let (Mode::Http, Some(secret)) = (mode, &settings.secrets.signing_secret) {
        let options = slack::http::Options::new(secret.clone());
        router = router.merge(slack::http::router(options, deliveries_writer.clone(), Arc::clone(&counters)));
    }
    let web = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the web server stopped");
        }
    });
    let listening = Listening { client: client.clone(), status_writer, deliveries_writer, counters };
    let main = Main {
        settings,
        store: store.clone(),
        client,
        queue,
        lease,
        ssm,
        metrics,
        progress,
        status,
        stopping,
    };
    let main = tokio::spawn(main.run(listening, deliveries, tokio::spawn(sending)));
    Ok(Running { listen, shutdown, main, web, store })
}

fn probes(
    mode: Mode,
    store: &Store,
    status: &watch::Receiver<slack::socket::Status>,
    progress: &Arc<Progress>,
    seen: Seen,
    stopping: &watch::Receiver<bool>,
) -> web::Probes {
    let (store, progress, stopping) = (store.clone(), Arc::clone(progress), stopping.clone());
    let (status, connections) = (status.clone(), status.clone());
    let (queue, refusing) = (seen.queue.clone(), seen.queue.clone());
    web::Probes {
        problems: Box::new(move || {
            let (store, progress) = (store.clone(), Arc::clone(&progress));
            let refused = queue.troubles().of_all();
            let (status, stopping) = (status.clone(), stopping.clone());
            Box::pin(async move {
                let mut problems: Vec<String> = Vec::new();
                if *stopping.borrow() {
                    problems.push("stopping".to_owned());
                }
                problems.extend(progress.get());
                problems.extend(refused);
                let socket = status.borrow().clone();
                if mode == Mode::Socket && socket.connected == 0 && problems.is_empty() {
                    problems
                        .push(socket.problem.unwrap_or_else(|| "no Socket Mode connection is up".to_owned()));
                }
                // Another value each time: SQLite writes no page for what it holds already.
                let value = fastrand::u64(..).to_string();
                let wrote = store.transact_first(move |tx| tx.set_note("ready", &value));
                match tokio::time::timeout(STORE_ANSWERS_WITHIN, wrote).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => problems.push(format!("the store cannot be written: {error}")),
                    // Whoever probes does not wait for ever either.
                    Err(_) => problems.push("the store cannot be written: it does not answer".to_owned()),
                }
                problems
            })
        }),
        remarks: Box::new(move || refusing.troubles().lines()),
        metrics: Box::new(move || {
            seen.metrics.connections.set(i64::from(connections.borrow().connected));
            seen.text()
        }),
    }
}

/// What `/metrics` tells of.
struct Seen {
    metrics: Arc<Metrics>,
    counters: Arc<slack::Counters>,
    queue: slack::send::Queue,
}

impl Seen {
    fn text(&self) -> String {
        let counters = &self.counters;
        for (name, counter) in [
            ("delivered", &counters.delivered),
            ("redelivered", &counters.redelivered),
            ("malformed", &counters.malformed),
            ("unknown", &counters.unknown),
            ("oversized", &counters.oversized),
            ("forged", &counters.forged),
            ("acknowledged", &counters.acknowledged),
            ("unacknowledged", &counters.unacknowledged),
            ("connects", &counters.connects),
            ("breaks", &counters.breaks),
        ] {
            let count = counter.load(std::sync::atomic::Ordering::Relaxed);
            let gauge = self.metrics.deliveries.get_or_create(&NameLabel { name });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.queue_depth.set(i64::try_from(self.queue.depth()).unwrap_or(i64::MAX));
        self.metrics.text()
    }
}

/// What the Socket Mode listener needs.
struct Listening {
    client: slack::Client,
    status_writer: watch::Sender<slack::socket::Status>,
    deliveries_writer: mpsc::Sender<slack::Delivery>,
    counters: Arc<slack::Counters>,
}

/// The bot from the first word with Slack on.
struct Main {
    settings: Settings,
    store: Store,
    client: slack::Client,
    queue: slack::send::Queue,
    lease: Lease,
    ssm: Ssm,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    status: watch::Receiver<slack::socket::Status>,
    stopping: watch::Receiver<bool>,
}

impl Main {
    async fn run(
        self,
        listening: Listening,
        deliveries: mpsc::Receiver<slack::Delivery>,
        sending: JoinHandle<()>,
    ) -> anyhow::Result<()> {
        let mut stopping = self.stopping.clone();
        let met = tokio::select! {
            met = self.meet_slack() => met?,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        let (identity, channels) = met;
        let Main { settings, store, client, queue, lease, ssm, metrics, progress, status, stopping } = self;
        let targets = Targets::new(ssm.clone(), settings.config.aws.role_tag.clone());
        warm(&targets);
        let config = Arc::new(settings.config);
        let engine = Engine::new(Parts {
            config: Arc::clone(&config),
            rules: Arc::new(settings.rules),
            store,
            slack: client,
            queue,
            ssm,
            targets,
            clock: settings.clock,
            identity,
            channels,
            metrics,
            lease,
            socket: status,
        });
        engine.warm();
        let listener = match (config.slack.mode, settings.secrets.app_token) {
            (Mode::Socket, Some(app_token)) => {
                let options = slack::socket::Options {
                    connections: config.slack.connections,
                    ..slack::socket::Options::default()
                };
                let Listening { client, status_writer, deliveries_writer, counters } = listening;
                Some(tokio::spawn(slack::socket::listen(
                    client,
                    app_token,
                    options,
                    deliveries_writer,
                    status_writer,
                    counters,
                    stopping.clone(),
                )))
            }
            _ => None,
        };
        progress.say(None);
        // An engine that ends by itself ends everything: a new start is better than half a bot.
        engine.run(deliveries, stopping).await?;
        if let Some(listener) = listener {
            drop(listener.await);
        }
        drop(sending.await);
        Ok(())
    }

    /// Who we are and where we listen. Tries on while Slack is away; fails where it says no.
    async fn meet_slack(&self) -> anyhow::Result<(slack::Identity, Vec<String>)> {
        let mut wait = Duration::from_millis(500);
        loop {
            let error = match self.client.auth_test().await {
                Ok(identity) => match self.find_channels().await {
                    Ok(_) if identity.bot_id.is_empty() && identity.user_id.is_empty() => {
                        bail!(
                            "Slack does not say which bot this token is, so heal could not tell its own messages\nhint: SLACK_BOT_TOKEN has to be a bot token (xoxb-…)"
                        )
                    }
                    Ok(channels) => return Ok((identity, channels)),
                    Err(Lookup::Slack(error)) => error,
                    Err(Lookup::Missing(why)) => bail!(why),
                },
                Err(error) => error,
            };
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            if error.is_permanent() {
                bail!(
                    "Slack refused the start: {error}{hint}\nhint: `heal doctor` tries each call; channels named by id (C…) need no look-up"
                );
            }
            tracing::warn!(%error, "Slack cannot be reached yet; trying again in {wait:?}");
            self.progress.say(Some(format!("Slack cannot be reached: {error}")));
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// The ids of the configured channels, in their order.
    async fn find_channels(&self) -> Result<Vec<String>, Lookup> {
        let wanted = &self.settings.config.slack.channels;
        let by_name = wanted.iter().any(|channel| channel.starts_with('#'));
        let known = if by_name { self.client.channels().await.map_err(Lookup::Slack)? } else { Vec::new() };
        let mut ids = Vec::new();
        for channel in wanted {
            let id = match channel.strip_prefix('#') {
                None => channel.clone(),
                Some(name) => match known.iter().find(|known| known.name == name) {
                    Some(found) => {
                        if !found.is_member {
                            tracing::warn!(%channel, "heal is not in {channel}, so it sees no alerts there; hint: /invite it");
                        }
                        found.id.clone()
                    }
                    None => {
                        return Err(Lookup::Missing(format!(
                            "Slack shows no channel {channel}\nhint: check its spelling in slack.channels; a private channel is seen only after /invite; an id (C…) works too"
                        )));
                    }
                },
            };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

enum Lookup {
    Slack(slack::Error),
    Missing(String),
}

/// Reads the managed nodes, so that the first alert need not wait for it.
fn warm(targets: &Targets) {
    let targets = targets.clone();
    tokio::spawn(async move {
        match targets.warm().await {
            Ok(nodes) => tracing::info!(nodes, "{nodes} managed nodes"),
            Err(why) => tracing::warn!(why, "the managed nodes could not be read: {why}"),
        }
    });
}
