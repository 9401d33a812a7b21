//! The hosts as the sandbox's page shows them: how each service, disk and replica is, read from
//! the host itself, and the buttons that break and mend it.

use std::time::Duration;

use anyhow::Context;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::Fleet;
use super::host::{Host, ProcessState};
use super::spec::{Action, LAG};
use crate::sandbox::page::{HostAction, HostLine, HostView, Hosts};

/// A heartbeat is once a second; silent for this long, a service is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

impl Fleet {
    /// The hosts as they are now.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostView> {
        self.all_hosts().iter().map(|host| view(host, self.is_online(&host.spec.name))).collect()
    }

    /// Does what a button says, by its id.
    ///
    /// # Errors
    /// There is no such host or button, or it cannot be done.
    pub async fn act(&self, host: &str, action: &str) -> anyhow::Result<()> {
        let known = self.host(host).with_context(|| format!("there is no host {host}"))?;
        let possible = Action::all_of(&known.spec).into_iter().find(|possible| possible.id() == action);
        let action = possible.with_context(|| format!("{action} cannot be done to {host}"))?;
        self.break_it(host, &action).await
    }
}

impl Hosts for Fleet {
    fn hosts(&self) -> Vec<HostView> {
        Fleet::hosts(self)
    }

    fn act(&self, host: &str, action: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let (host, action) = (host.to_owned(), action.to_owned());
        Box::pin(async move { Fleet::act(self, &host, &action).await })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        Fleet::changed(self)
    }
}

fn view(host: &Host, online: bool) -> HostView {
    let spec = &host.spec;
    let mut lines = Vec::new();
    let mut actions = Vec::new();
    for service in &spec.services {
        let (line, action) = service_line(host, service);
        lines.push(line);
        actions.push(button(&action.0, action.1));
    }
    for replica in &spec.replicas {
        let lag = host.lag_seconds(replica);
        lines.push(HostLine {
            label: format!("{replica} lag"),
            ok: lag < 300,
            detail: format!("{lag} s behind"),
        });
        if lag < 300 {
            actions.push(button(&Action::Lag(replica.clone(), LAG), format!("Let {replica} fall behind")));
        }
    }
    for disk in &spec.disks {
        let percent = host.disk_percent(&disk.mount).unwrap_or(0);
        lines.push(HostLine {
            label: disk.mount.clone(),
            ok: percent < 90,
            detail: format!("{percent}% used"),
        });
        actions.push(if percent < 90 {
            button(&Action::Fill(disk.mount.clone()), format!("Fill {}", disk.mount))
        } else {
            button(&Action::Empty(disk.mount.clone()), format!("Empty {}", disk.mount))
        });
    }
    let detail = if online { "Online" } else { "ConnectionLost" };
    lines.push(HostLine { label: "SSM agent".to_owned(), ok: online, detail: detail.to_owned() });
    actions.push(if online {
        button(&Action::GoOffline, "Take SSM away".to_owned())
    } else {
        button(&Action::GoOnline, "Give SSM back".to_owned())
    });
    HostView {
        name: spec.name.clone(),
        instance_id: spec.instance_id.clone(),
        role: spec.role().to_owned(),
        address: spec.address.clone(),
        online,
        lines,
        actions,
    }
}

fn button(action: &Action, label: String) -> HostAction {
    HostAction { id: action.id(), label }
}

/// A service's line, and the one button that makes sense for it now. An agent is worth hanging,
/// for that is how agents fail; any other service is worth stopping.
fn service_line(host: &Host, service: &str) -> (HostLine, (Action, String)) {
    let hangs = service.contains("agent") || service.contains("worker");
    let line = |ok: bool, detail: String| HostLine { label: service.to_owned(), ok, detail };
    let name = service.to_owned();
    match host.process(service) {
        ProcessState::Gone => {
            (line(false, "stopped".to_owned()), (Action::Start(name), format!("Start {service}")))
        }
        ProcessState::Stopped { pid } => (
            line(false, format!("hangs, pid {pid}")),
            (Action::Release(name), format!("Let {service} go on")),
        ),
        ProcessState::Running { pid } => {
            let silence = host.silence(service).unwrap_or_default();
            let line = if silence > STUCK_AFTER {
                line(false, format!("silent for {} s, pid {pid}", silence.as_secs()))
            } else {
                line(true, format!("running, pid {pid}"))
            };
            let action = if hangs {
                (Action::Wedge(name), format!("Hang {service}"))
            } else {
                (Action::Stop(name), format!("Stop {service}"))
            };
            (line, action)
        }
    }
}
