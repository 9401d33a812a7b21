//! The sandbox's web page: a chat client over the workspace and a panel over the fleet.
//!
//! It can run commands on this machine, so it listens on loopback only and believes no request that
//! another site could have caused (`guard`). The page itself is three static files, built into the
//! binary, and loads nothing from anywhere else.

mod guard;
mod hosts;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};

pub use hosts::{HostAction, HostLine, HostView, Hosts, NoHosts};

use super::workspace::Workspace;

/// The emoji the page can draw, one `name character` a line. The workspace knows the same ones.
pub(crate) const EMOJI: &str = include_str!("emoji.txt");

/// A page being served; it stops when dropped.
#[derive(Debug)]
pub struct Page {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Page {
    /// Where a browser finds it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves the page; port 0 takes any free one. Must be called inside a tokio runtime. Fails when the
/// address is not on loopback or the port is taken.
pub fn serve(workspace: Workspace, hosts: Arc<dyn Hosts>, addr: SocketAddr) -> anyhow::Result<Page> {
    if !addr.ip().is_loopback() {
        bail!("the sandbox's page runs commands, so it listens on loopback only, not on {}", addr.ip());
    }
    let listener = std::net::TcpListener::bind(addr).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is taken\nhint: is another sandbox running? Stop it, or choose another port: heal sandbox --port {}",
            addr.port(),
            addr.port().wrapping_add(1).max(1024)
        ),
        _ => anyhow::Error::new(error).context(format!("the page cannot listen on {addr}")),
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener).context("the page cannot listen")?;
    let router = routes::router(workspace, hosts, address.port());
    let serving = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the sandbox's page has stopped");
        }
    });
    Ok(Page { address, serving })
}
