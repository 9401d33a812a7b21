//! What the page shows of the fleet and may ask of it: plain data and one trait, so that the page
//! knows nothing of how hosts are simulated and the fleet knows nothing of HTTP.

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::watch;

/// A fleet as the page sees it. Implemented by the sandbox's fleet.
pub trait Hosts: Send + Sync {
    /// Every host, in the order in which the page lists them.
    fn hosts(&self) -> Vec<HostView>;
    /// Does the action with this id (one of [`HostView::actions`]) on the host of this name.
    fn act(&self, host: &str, action: &str) -> BoxFuture<'_, anyhow::Result<()>>;
    /// A number that grows whenever [`Hosts::hosts`] would answer differently.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// One host: what it is and how it is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// Short name, unique in the fleet; also part of the page's `data-testid`s.
    pub name: String,
    /// `i-…` or `mi-…`.
    pub instance_id: String,
    /// The service group the host belongs to.
    pub role: String,
    /// IP address or private DNS name.
    pub address: String,
    /// Whether SSM reaches it.
    pub online: bool,
    /// State of processes, disk and the like.
    pub lines: Vec<HostLine>,
    /// What the page's buttons can do to it now.
    pub actions: Vec<HostAction>,
}

/// One line of a host's state, such as `nginx · running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostLine {
    /// What it is about: `nginx`, `disk /`.
    pub label: String,
    /// Whether that is as it should be.
    pub ok: bool,
    /// `running`, `stopped`, `97 %`.
    pub detail: String,
}

/// One button on a host's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostAction {
    /// Stable id, handed back to [`Hosts::act`]: lower case words joined by `-`.
    pub id: String,
    /// What the button says: `stop nginx`.
    pub label: String,
}

/// A workspace without any fleet: the page then shows no hosts panel.
#[derive(Debug)]
pub struct NoHosts(watch::Sender<u64>);

impl Default for NoHosts {
    fn default() -> Self {
        NoHosts(watch::Sender::new(0))
    }
}

impl Hosts for NoHosts {
    fn hosts(&self) -> Vec<HostView> {
        Vec::new()
    }

    fn act(&self, host: &str, _action: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let host = host.to_owned();
        Box::pin(async move { anyhow::bail!("there is no host {host} here") })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
