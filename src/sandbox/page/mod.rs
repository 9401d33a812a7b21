//! The sandbox's web page.
mod hosts;
pub use hosts::{HostAction, HostLine, HostView, Hosts, NoHosts};

/// The emoji the page can draw, one `name character` a line. The workspace knows the same ones.
pub(crate) const EMOJI: &str = include_str!("emoji.txt");
