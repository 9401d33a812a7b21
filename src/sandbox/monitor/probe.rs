//! What the monitor looks at, and when what it saw becomes an alert. [`Track`] is pure: it is
//! told the time.

use std::time::{Duration, Instant};

use crate::sandbox::fleet::{Host, ProcessState};

/// A check of every host of a role, and the alert that it raises.
#[derive(Clone, Debug)]
pub struct Check {
    pub role: String,
    pub alert: String,
    pub severity: String,
    pub probe: Probe,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub enum Probe {
    /// The process is alive.
    Process(String),
    /// The service's heartbeat is younger than this.
    Heartbeat(String, Duration),
    /// The disk at the mount point is less full than this, in percent.
    Disk(String, u64),
    /// The replica is less far behind than this, in seconds.
    Lag(String, u64),
}

/// One look at one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub well: bool,
    /// Bad, but somebody asked to leave it alone for a while.
    pub muted: bool,
    /// What is the matter, or would be, for people.
    pub said: String,
}

impl Check {
    fn new(key: &str, severity: &str, probe: Probe) -> Self {
        let (role, alert) = key.split_once(':').unwrap_or((key, ""));
        Self { role: role.to_owned(), alert: alert.to_owned(), severity: severity.to_owned(), probe }
    }

    /// The checks of the sandbox; their names are the keys of the shipped rules.
    #[must_use]
    pub fn standard() -> Vec<Self> {
        let process = |name: &str| Probe::Process(name.to_owned());
        let beats = |name: &str| Probe::Heartbeat(name.to_owned(), Duration::from_secs(5));
        vec![
            Self::new("SOME_ROLE:SOME_ALERT", "critical", process("FOO_PROCESS")),
            Self::new("web:NginxDown", "critical", process("nginx")),
            Self::new("web:AppDown", "critical", process("app")),
            Self::new("db:DiskFull", "critical", Probe::Disk("/var/log/app".to_owned(), 90)),
            Self::new("db:ReplicaLag", "warning", Probe::Lag("replica".to_owned(), 300)),
            Self::new("db:ReplicaDown", "critical", process("replica")),
            Self::new("batch:AgentStuck", "warning", beats("node-agent")),
            Self::new("batch:NodeStuck", "critical", beats("batch-worker")),
        ]
    }
}

impl Probe {
    /// Looks at a host; `None` when the host has no such thing.
    pub(super) fn look(&self, host: &Host, mute: Duration) -> Option<Seen> {
        let runs = |service: &String| host.spec.services.contains(service).then_some(());
        let name = &host.spec.name;
        let (well, said, service) = match self {
            Self::Process(service) => {
                runs(service)?;
                let well = host.process(service) != ProcessState::Gone;
                (well, format!("{service} on {name} is down"), Some(service))
            }
            Self::Heartbeat(service, most) => {
                runs(service)?;
                let well = host.silence(service).is_some_and(|silence| silence < *most);
                (well, format!("{service} on {name} has stopped beating"), Some(service))
            }
            Self::Disk(mount, most) => {
                let percent = host.disk_percent(mount)?;
                (percent < *most, format!("{mount} on {name} is {percent}% full"), None)
            }
            Self::Lag(service, most) => {
                runs(service)?;
                let lag = host.lag_seconds(service);
                (lag < *most, format!("{service} on {name} is {lag} s behind"), None)
            }
        };
        let muted = !well && service.is_some_and(|service| host.is_muted(service, mute));
        Some(Seen { well, muted, said })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Fired,
    Resolved,
}

/// Where one alert of one host stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Track {
    #[default]
    Well,
    Pending {
        since: Instant,
    },
    Firing,
}

impl Track {
    /// Takes a look in; says when the alert changes. What is muted does not begin to fire, and
    /// does not stop firing either.
    pub fn saw(&mut self, now: Instant, seen: &Seen, hold: Duration) -> Option<Change> {
        let (next, change) = match (*self, seen.well) {
            (Self::Firing, true) => (Self::Well, Some(Change::Resolved)),
            (Self::Firing, false) => (Self::Firing, None),
            (_, true) => (Self::Well, None),
            _ if seen.muted => (Self::Well, None),
            (Self::Well, false) if hold.is_zero() => (Self::Firing, Some(Change::Fired)),
            (Self::Well, false) => (Self::Pending { since: now }, None),
            (Self::Pending { since }, false) if now.duration_since(since) >= hold => {
                (Self::Firing, Some(Change::Fired))
            }
            (pending, false) => (pending, None),
        };
        *self = next;
        change
    }
}
