//! The monitor of the simulated fleet: it looks at the hosts once a second, lets a fault stand for
//! two, and posts what Alertmanager would post, once when it fires and once when it is resolved.
//!
//! It looks from outside, at real processes, files and heartbeats. So an alert is resolved because
//! the host is well again, and never because heal said so.

mod message;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use message::{Alert, body};
use probe::{Change, Track};
pub use probe::{Check, Probe};

use super::fleet::{Fleet, HostView};

/// How the monitor watches.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between two looks.
    pub interval: Duration,
    /// How long a fault must stand before it fires: the `for` of a Prometheus rule.
    pub hold: Duration,
    /// How long `PROC_CHECK --ignore-check` keeps a process from firing.
    pub mute: Duration,
    /// Where the alert's title leads.
    pub link: String,
    pub checks: Vec<Check>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            hold: Duration::from_secs(2),
            mute: Duration::from_secs(10),
            link: "https://alertmanager.example.com/#/alerts?receiver=slack".to_owned(),
            checks: Check::standard(),
        }
    }
}

/// The running monitor; it stops when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    task: tokio::task::JoinHandle<()>,
}

impl Monitor {
    /// Begins to watch. `post` gets the members of a bot message (`username`, `icons`, `text`,
    /// `attachments`), which the caller puts into the alert channel as the monitoring's webhook.
    #[must_use]
    pub fn start(fleet: Fleet, options: Options, post: impl Fn(Value) + Send + Sync + 'static) -> Self {
        Self { task: tokio::spawn(watch(fleet, options, post)) }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(fleet: Fleet, options: Options, post: impl Fn(Value) + Send + Sync) {
    // Where each alert of each host stands, and what was said when it fired: as in Prometheus,
    // the resolved message carries the last words of the firing one.
    let mut tracks: HashMap<(String, String), (Track, String)> = HashMap::new();
    let mut shown: Vec<HostView> = Vec::new();
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for host in fleet.all_hosts() {
            for check in options.checks.iter().filter(|check| check.role == host.spec.role()) {
                let Some(seen) = check.probe.look(host, options.mute) else { continue };
                let key = (host.spec.name.clone(), check.alert.clone());
                let (track, said) = tracks.entry(key).or_default();
                let change = track.saw(Instant::now(), &seen, options.hold);
                let Some(change) = change else { continue };
                let firing = change == Change::Fired;
                if firing {
                    *said = seen.said;
                }
                let alert = Alert::of(check, host, said, firing);
                tracing::info!(alert = %check.alert, host = %host.spec.name, firing, "the monitor posts");
                post(body(&alert, &options.link));
            }
        }
        let view = fleet.hosts();
        if view != shown {
            shown = view;
            fleet.notice();
        }
    }
}
