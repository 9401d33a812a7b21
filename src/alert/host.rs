//! Which part of a label names a host, and which values are no host name at all.
//!
//! A host name from an alert chooses the machine that commands run on. What is not plainly a name,
//! an address or an instance id is refused here, so that the target cannot be resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::text::invisible;

/// The host in an instance label, without port: `web-012:9100`, `[fe80::1]:9100`, `10.0.12.12`.
/// `None` for anything that is not plainly a host, for this machine (`localhost`), and for a name
/// with invisible characters in it, which is not the name that it looks like.
pub(super) fn host_of(raw: &str) -> Option<String> {
    let value = raw.trim();
    if value.is_empty() || value.len() > 300 || value.chars().any(invisible) {
        return None;
    }
    if let Some(rest) = value.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if port_fits { usable_address(address.parse::<Ipv6Addr>().ok()?.into()) } else { None };
    }
    let host = match value.split_once(':') {
        None => value,
        Some((host, port)) if !port.contains(':') => is_port(port).then_some(host)?,
        Some(_) => return usable_address(value.parse::<Ipv6Addr>().ok()?.into()),
    };
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return usable_address(address.into());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let first = host.split('.').next().unwrap_or_default();
    let shaped = host.len() <= 253
        && host.starts_with(|ch: char| ch.is_ascii_alphanumeric())
        && host.contains(|ch: char| ch.is_ascii_alphanumeric())
        && host.chars().all(|ch| ch.is_ascii_alphanumeric() || matches!(ch, '.' | '_' | '-'))
        && !host.contains("..");
    (shaped && !first.eq_ignore_ascii_case("localhost")).then(|| host.to_owned())
}

/// An address that can be another machine's. What is written in two ways is given back in one.
fn usable_address(address: IpAddr) -> Option<String> {
    (!address.is_loopback() && !address.is_unspecified() && !address.is_multicast())
        .then(|| address.to_string())
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether this is an SSM node id: `i-` (EC2) or `mi-` (hybrid) and 8 to 17 hexadecimal digits.
pub(super) fn is_instance_id(value: &str) -> bool {
    let Some(digits) = value.strip_prefix("mi-").or_else(|| value.strip_prefix("i-")) else { return false };
    (8..=17).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The instance id that a host name says: the name itself, or the first part of EC2's
/// resource-name DNS (`i-0123456789abcdef.ap-northeast-1.compute.internal`).
pub(super) fn instance_id_in(host: &str) -> Option<String> {
    let first = host.split('.').next().unwrap_or_default();
    is_instance_id(first).then(|| first.to_owned())
}

/// How plainly a value without a name is a host; the plainest wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    WithPort,
    Address,
    Inventory,
}

/// The one host among label values that stand without their names, and the value that said it.
/// `None` when no value is plainly a host, or two are equally so.
pub(super) fn guess<'a>(values: &[&'a str]) -> Option<(String, &'a str)> {
    let mut found: Vec<(Shape, String, &'a str)> = Vec::new();
    for value in values {
        if let Some((shape, host)) = shape(value) {
            found.push((shape, host, value));
        }
    }
    let plainest = found.iter().map(|(shape, ..)| *shape).min()?;
    let mut hosts = found.into_iter().filter(|(shape, ..)| *shape == plainest);
    let (_, host, value) = hosts.next()?;
    hosts.all(|(_, other, _)| other == host).then_some((host, value))
}

fn shape(value: &str) -> Option<(Shape, String)> {
    let host = host_of(value)?;
    let address = host.parse::<IpAddr>().is_ok() || is_instance_id(&host);
    let lettered = host.contains(|ch: char| ch.is_ascii_alphabetic());
    let with_port = value.starts_with('[') || (value.contains(':') && value.matches(':').count() == 1);
    if with_port && (lettered || address) {
        Some((Shape::WithPort, host))
    } else if address {
        Some((Shape::Address, host))
    } else if inventory_like(&host) {
        Some((Shape::Inventory, host))
    } else {
        None
    }
}

/// `web-012`, `db-master-01`, `web-012.prod.example.com`, `ip-10-0-12-12`; no region, no pod hash.
fn inventory_like(host: &str) -> bool {
    let first = host.split('.').next().unwrap_or_default();
    let Some((stem, number)) = first.rsplit_once('-') else { return false };
    let numbered = (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    numbered && stem.starts_with(|ch: char| ch.is_ascii_alphabetic()) && !is_region(first)
}

/// `ap-northeast-1`, `us-gov-west-1`: AWS regions, which are common label values.
fn is_region(value: &str) -> bool {
    let mut parts = value.split('-');
    let area = parts.next().unwrap_or_default();
    let compass = ["north", "south", "east", "west", "central"];
    area.len() == 2 && parts.any(|part| compass.iter().any(|word| part.starts_with(word)))
}
