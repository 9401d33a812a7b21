//! One line to Slack: a connection, and its replacement when it goes.
//!
//! `keep` decides when to open, when to wait and for how long; what a connection does is in
//! [`super::connection`].

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Uri, header};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::connection::{Connection, Ended, Order, Signal};
use super::{Options, Shared};
use crate::slack::wire::Opened;
use crate::slack::{Counters, Error};

/// A connection that is being opened or served by a task of its own.
struct Served {
    id: u64,
    signals: mpsc::UnboundedReceiver<Signal>,
    order: watch::Sender<Order>,
    task: JoinHandle<Ended>,
    since: Instant,
}

/// What a wait for a connection's next word gave.
enum Word {
    Leaving(String),
    Over(Ended),
}

/// Why there is no connection, and when to try again.
enum Trouble {
    /// A person must mend it.
    Person(String),
    /// Not before that.
    Told(Duration),
    /// Nobody was reached.
    Away(String),
    Other(String),
    /// Too many connections: as far from a quick retry as the back-off goes.
    TooMany,
}

/// How the line fared lately.
#[derive(Debug, Default)]
struct Fortune {
    /// Tries since the last hello that gave none.
    failures: u32,
    failing_since: Option<Instant>,
    /// Connections one after another that did not last.
    short_lived: u32,
}

impl Fortune {
    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert_with(Instant::now);
    }

    fn connected(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }

    /// A connection is over that lasted so long.
    fn dropped(&mut self, lasted: Duration, options: &Options) {
        self.short_lived = if lasted >= options.steady { 1 } else { self.short_lived.saturating_add(1) };
    }

    /// After a try that failed. `away`: nobody was there to be bothered.
    fn wait(&self, away: bool, options: &Options) -> Duration {
        let (first, longest) = options.backoff;
        let eager = away || self.failing_since.is_none_or(|since| since.elapsed() < options.eager_for);
        let longest = if eager { longest.min(options.eager) } else { longest };
        jitter((first, longest), self.failures)
    }

    /// After a connection that dropped: the first is opened anew at once.
    fn wait_after_drop(&self, options: &Options) -> Duration {
        match self.short_lived {
            0 | 1 => Duration::ZERO,
            more => jitter(options.backoff, more - 1),
        }
    }
}

/// Keeps one line up until shutdown.
pub(super) async fn keep(shared: Arc<Shared>, mut shutdown: watch::Receiver<bool>) {
    let mut fortune = Fortune::default();
    let mut current: Option<Served> = None;
    loop {
        let mut serving = match current.take() {
            Some(serving) => serving,
            None => match until_shutdown(&mut shutdown, open(&shared)).await {
                None => return,
                Some(Ok(serving)) => serving,
                Some(Err(trouble)) => {
                    fortune.failed();
                    let wait = say(&shared, trouble, &fortune);
                    if until_shutdown(&mut shutdown, sleep(wait)).await.is_none() {
                        return;
                    }
                    continue;
                }
            },
        };
        fortune.connected();
        let Some(word) = until_shutdown(&mut shutdown, serving.word()).await else {
            serving.close(&shared, Order::Stop).await;
            return;
        };
        fortune.dropped(serving.since.elapsed(), &shared.options);
        match word {
            Word::Leaving(reason) => {
                tracing::info!(
                    connection = serving.id,
                    reason,
                    "Slack will close a connection; opening another first"
                );
                match replace(&shared, &mut shutdown, serving, &mut fortune).await {
                    Some(next) => current = Some(next),
                    None => return,
                }
            }
            Word::Over(Ended::Abandoned) => {
                shared.disconnected(false);
                return;
            }
            Word::Over(ended) => {
                shared.disconnected(ended.is_broken());
                let wait = over(&shared, serving.id, &ended, &fortune);
                if until_shutdown(&mut shutdown, sleep(wait)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Opens the replacement of a connection that Slack will close, while that one serves on. None on shutdown.
async fn replace(
    shared: &Arc<Shared>,
    shutdown: &mut watch::Receiver<bool>,
    mut old: Served,
    fortune: &mut Fortune,
) -> Option<Served> {
    let opening = async {
        sleep(fortune.wait_after_drop(&shared.options)).await;
        loop {
            match open(shared).await {
                Ok(next) => return next,
                Err(trouble) => {
                    fortune.failed();
                    let wait = say(shared, trouble, fortune);
                    sleep(wait).await;
                }
            }
        }
    };
    tokio::pin!(opening);
    let mut old_over = false;
    loop {
        tokio::select! {
            () = stopped(shutdown) => {
                if !old_over {
                    old.close(shared, Order::Stop).await;
                }
                return None;
            }
            next = &mut opening => {
                if !old_over {
                    // The old one may have acknowledgements to send yet; that must not hold up the new one.
                    let shared = Arc::clone(shared);
                    tokio::spawn(async move { old.close(&shared, Order::Retire).await });
                }
                return Some(next);
            }
            word = old.word(), if !old_over => {
                if let Word::Over(ended) = word {
                    old_over = true;
                    shared.disconnected(ended.is_broken());
                    tracing::info!(connection = old.id, ?ended, "a connection closed before its replacement was up");
                    if ended == Ended::Abandoned {
                        return None;
                    }
                }
            }
        }
    }
}

impl Served {
    /// The connection's next word that matters.
    async fn word(&mut self) -> Word {
        loop {
            match self.signals.recv().await {
                Some(Signal::Leaving { reason }) => return Word::Leaving(reason),
                Some(Signal::Hello) => {}
                None => return Word::Over(ended((&mut self.task).await)),
            }
        }
    }

    /// Lets it send what is due and close; it is no longer counted.
    async fn close(self, shared: &Shared, order: Order) {
        shared.disconnected(false);
        // It may be over already.
        let _ = self.order.send(order);
        let _ = timeout(shared.options.ack_grace + Duration::from_secs(2), self.task).await;
    }
}

/// Opens a connection and waits for its hello.
async fn open(shared: &Arc<Shared>) -> Result<Served, Trouble> {
    let limit = shared.options.hello_limit;
    let url = shared.client.connections_open(&shared.app_token).await.map_err(refused)?;
    let uri: Uri = url
        .expose()
        .parse()
        .map_err(|_| Trouble::Other("Slack gave an address that is not a URL".to_owned()))?;
    if !shared.client.wire().permits_socket(&uri) {
        return Err(Trouble::Other("Slack gave an address that is not wss://".to_owned()));
    }
    let late = |_| Trouble::Other(format!("no hello within {:.1} s", limit.as_secs_f64()));
    let until = Instant::now() + limit;

    let connecting = shared.client.wire().open(&uri);
    let opened =
        timeout(limit, connecting).await.map_err(late)?.map_err(|error| Trouble::Away(error.to_string()))?;
    let (signals_out, mut signals) = mpsc::unbounded_channel();
    let (order, order_in) = watch::channel(Order::Serve);
    let id = shared.next_id();
    let connection = Connection {
        id,
        ping_every: shared.options.ping_every,
        silence_limit: shared.options.silence_limit,
        ack_grace: shared.options.ack_grace,
        deliveries: shared.deliveries.clone(),
        counters: Arc::clone(&shared.counters),
        signals: signals_out,
        order: order_in,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_frame_size(Some(shared.options.max_frame))
        .max_message_size(Some(shared.options.max_frame));
    let mut task = tokio::time::timeout_at(until, async move {
        match opened {
            Opened::Plain(stream) => shake_hands(connection, &uri, stream.into_inner(), config).await,
            Opened::Tls(stream) => {
                shake_hands(connection, &uri, hyper_util::rt::TokioIo::new(*stream), config).await
            }
        }
    })
    .await
    .map_err(late)??;

    let hello = tokio::time::timeout_at(until, signals.recv()).await;
    match hello {
        Ok(Some(Signal::Hello)) => {
            shared.connected();
            tracing::info!(connection = id, "connected to Slack");
            Ok(Served { id, signals, order, task, since: Instant::now() })
        }
        Ok(Some(Signal::Leaving { reason })) => {
            task.abort();
            Err(Trouble::Other(format!("Slack closes the connection at once ({reason})")))
        }
        Ok(None) => Err(match ended((&mut task).await) {
            Ended::Refused { reason } => reason_trouble(&reason),
            Ended::Broken { why } => Trouble::Other(why),
            Ended::Retired | Ended::Abandoned => Trouble::Other("shutting down".to_owned()),
        }),
        Err(elapsed) => {
            task.abort();
            Err(late(elapsed))
        }
    }
}

async fn shake_hands<S>(
    connection: Connection,
    uri: &Uri,
    stream: S,
    config: WebSocketConfig,
) -> Result<JoinHandle<Ended>, Trouble>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut request = uri
        .clone()
        .into_client_request()
        .map_err(|_| Trouble::Other("Slack gave an address that is no WebSocket's".to_owned()))?;
    let agent = HeaderValue::from_static(concat!("heal/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(tokio::spawn(connection.run(socket))),
        Err(error) => Err(Trouble::Other(format!("the WebSocket was refused: {error}"))),
    }
}

fn ended(joined: Result<Ended, tokio::task::JoinError>) -> Ended {
    joined.unwrap_or_else(|_| Ended::Broken { why: "its task stopped".to_owned() })
}

/// Sorts a refused `apps.connections.open`.
fn refused(error: Error) -> Trouble {
    match &error {
        Error::RateLimited { retry_after } => Trouble::Told(*retry_after),
        Error::Refused { code, .. } if code == "too_many_websockets" => Trouble::TooMany,
        Error::Refused { code, .. } if code == "link_disabled" || code == "socket_mode_not_enabled" => {
            reason_trouble("link_disabled")
        }
        Error::Refused { .. } => Trouble::Person(format!(
            "SLACK_APP_TOKEN does not open Socket Mode: {error}; hint: {}",
            error.hint().unwrap_or("it must be an app-level token (xapp-…) with the scope connections:write")
        )),
        Error::NotDone { .. } => Trouble::Away(error.to_string()),
        Error::Unclear { .. } => Trouble::Other(error.to_string()),
    }
}

fn reason_trouble(reason: &str) -> Trouble {
    match reason {
        "link_disabled" => Trouble::Person(
            "Socket Mode is switched off for this app (link_disabled); hint: switch it on under Settings, \
             Socket Mode, or use slack.mode: http"
                .to_owned(),
        ),
        "too_many_websockets" => Trouble::TooMany,
        other => Trouble::Other(format!("Slack closed the connection ({other})")),
    }
}

/// Says what is wrong, once for each try, and gives the wait before the next.
fn say(shared: &Shared, trouble: Trouble, fortune: &Fortune) -> Duration {
    let away = matches!(trouble, Trouble::Away(_));
    match trouble {
        Trouble::Person(problem) => {
            tracing::error!(problem, "Slack cannot be listened to");
            shared.problem(problem);
            jittered(shared.options.slow_retry)
        }
        Trouble::TooMany => {
            let problem = "Slack has too many open connections of this app (at most 10); hint: stop other copies \
                           of the bot or lower slack.connections";
            tracing::error!(problem, "Slack cannot be listened to");
            shared.problem(problem.to_owned());
            jittered(shared.options.backoff.1)
        }
        Trouble::Told(wait) => {
            tracing::warn!(seconds = wait.as_secs(), "Slack asks to wait before connecting again");
            shared.problem(format!("Slack asks to wait {} s before connecting", wait.as_secs()));
            // All lines were told the same.
            wait + shared.options.backoff.0.mul_f64(fastrand::f64())
        }
        Trouble::Away(problem) | Trouble::Other(problem) => {
            let wait = fortune.wait(away, &shared.options);
            tracing::warn!(problem, failures = fortune.failures, wait = ?wait, "no connection to Slack");
            shared.problem(problem);
            wait
        }
    }
}

/// A connection that had said hello is over: what to say, and how long to wait.
fn over(shared: &Shared, id: u64, ended: &Ended, fortune: &Fortune) -> Duration {
    match ended {
        Ended::Refused { reason } if reason == "closed by Slack" => {
            tracing::info!(connection = id, "Slack closed a connection");
            fortune.wait_after_drop(&shared.options)
        }
        Ended::Refused { reason } => {
            tracing::warn!(connection = id, reason, "Slack closed a connection");
            match reason_trouble(reason) {
                Trouble::Other(problem) => {
                    let wait = fortune.wait_after_drop(&shared.options);
                    if !wait.is_zero() {
                        shared.problem(problem);
                    }
                    wait
                }
                trouble => say(shared, trouble, fortune),
            }
        }
        Ended::Broken { why } => {
            Counters::add(&shared.counters.breaks);
            tracing::warn!(connection = id, why, "a connection to Slack broke");
            fortune.wait_after_drop(&shared.options)
        }
        Ended::Retired | Ended::Abandoned => Duration::ZERO,
    }
}

/// Full jitter: anything from zero to the exponentially growing bound.
fn jitter((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    bound.mul_f64(fastrand::f64())
}

/// A long wait, spread by half so that many copies do not come back together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Resolves when shutdown was said or can no longer be said.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn until_shutdown<T>(shutdown: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stopped(shutdown) => None,
        done = work => Some(done),
    }
}
