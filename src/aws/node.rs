//! Which managed node an alert means. A name that could mean two nodes means none.
//!
//! Known of a node are its id, its computer name and its address (`DescribeInstanceInformation`; the
//! `Name` tag of EC2 is not among them). Names are compared without case, trailing dot and port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use aws_sdk_ssm::types::InstanceInformation;

use crate::alert::Alert;
use crate::plan::{Platform, Target, Unusable};

/// A managed node as SSM knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub target: Target,
    /// `Online`, `ConnectionLost`, `Inactive`.
    pub ping: String,
}

impl Node {
    pub(super) fn of(info: InstanceInformation) -> Option<Node> {
        let instance_id = info.instance_id?;
        let platform = match info.platform_type.as_ref().map(|platform| platform.as_str()) {
            Some("Linux") => Platform::Linux,
            Some("MacOS") => Platform::MacOs,
            Some("Windows") => Platform::Windows,
            _ => Platform::Unknown,
        };
        let name =
            info.computer_name.map(|name| crate::text::clean(&name, 255)).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| instance_id.clone());
        let ping = info.ping_status.map_or_else(|| "unknown".to_owned(), |ping| ping.as_str().to_owned());
        Some(Node { target: Target { instance_id, name, address: info.ip_address, platform }, ping })
    }

    pub(super) fn online(&self) -> bool {
        self.ping == "Online"
    }

    fn names(&self) -> (String, String) {
        let full = folded(&self.target.name);
        let short = full.split('.').next().unwrap_or_default().to_owned();
        (full, short)
    }
}

/// All managed nodes, by everything an alert may call them.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: Vec<Node>,
    by_id: HashMap<String, usize>,
    by_short_name: HashMap<String, Vec<usize>>,
    by_address: HashMap<IpAddr, Vec<usize>>,
}

impl Table {
    pub(super) fn new(nodes: Vec<Node>) -> Table {
        let mut table = Table::default();
        for node in nodes {
            table.put(node);
        }
        table
    }

    fn put(&mut self, node: Node) {
        // A page may repeat what another held when nodes come and go between two pages.
        if self.by_id.contains_key(&node.target.instance_id) {
            return;
        }
        let at = self.nodes.len();
        self.by_id.insert(node.target.instance_id.clone(), at);
        self.by_short_name.entry(node.names().1).or_default().push(at);
        if let Some(address) = node.target.address.as_deref().and_then(|text| text.parse().ok()) {
            self.by_address.entry(IpAddr::to_canonical(&address)).or_default().push(at);
        }
        self.nodes.push(node);
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn by_id(&self, instance_id: &str) -> Option<&Node> {
        self.by_id.get(instance_id).and_then(|at| self.nodes.get(*at))
    }

    /// The one node that the alert means. An id and a host have to mean the same.
    pub(super) fn find(&self, alert: &Alert) -> Result<&Node, Unusable> {
        let host =
            alert.host.as_deref().or(alert.instance.as_deref()).map(bare).filter(|host| !host.is_empty());
        let Some(id) = alert.instance_id.as_deref().map(str::trim).filter(|id| !id.is_empty()) else {
            return self.by_host(&host.ok_or(Unusable::NotNamed)?);
        };
        let node = self.by_id(id).ok_or_else(|| Unusable::NotFound { host: id.to_owned() })?;
        let Some(host) = host else { return Ok(node) };
        let disagree =
            |host_is: String| Unusable::Disagree { host: host.clone(), host_is, instance_id: id.to_owned() };
        match self.by_host(&host) {
            Ok(named) if named.target.instance_id != id => Err(disagree(named.target.instance_id.clone())),
            Err(Unusable::Several { instance_ids, .. }) if !instance_ids.iter().any(|other| other == id) => {
                Err(disagree(instance_ids.join(", ")))
            }
            // A host that SSM does not know contradicts nothing.
            _ => Ok(node),
        }
    }

    fn by_host(&self, host: &str) -> Result<&Node, Unusable> {
        if is_instance_id(host) {
            return self.by_id(host).ok_or_else(|| Unusable::NotFound { host: host.to_owned() });
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.only(host, self.at_address(address));
        }
        let (short, domain) = host.split_once('.').unwrap_or((host, ""));
        // EC2's own private names: `i-….region.compute.internal` and `ip-10-0-12-12.…`.
        let internal = domain.ends_with("compute.internal") || domain.ends_with("ec2.internal");
        if internal && is_instance_id(short) {
            return self.by_id(short).ok_or_else(|| Unusable::NotFound { host: host.to_owned() });
        }
        match self.by_name(host, short, domain) {
            Err(Unusable::NotFound { .. }) => {
                match private_address(short).filter(|_| internal || domain.is_empty()) {
                    Some(address) => self.only(host, self.at_address(address)),
                    None => Err(Unusable::NotFound { host: host.to_owned() }),
                }
            }
            found => found,
        }
    }

    fn at_address(&self, address: IpAddr) -> Vec<&Node> {
        let found = self.by_address.get(&address.to_canonical());
        found.into_iter().flatten().filter_map(|at| self.nodes.get(*at)).collect()
    }

    /// The full name of one node; else a short name on one of the two sides, if only one node has it.
    fn by_name(&self, host: &str, short: &str, domain: &str) -> Result<&Node, Unusable> {
        let alike = self.by_short_name.get(short);
        let alike: Vec<&Node> = alike.into_iter().flatten().filter_map(|at| self.nodes.get(*at)).collect();
        if !domain.is_empty() {
            let exact: Vec<&Node> = alike.iter().copied().filter(|node| node.names().0 == host).collect();
            if !exact.is_empty() {
                return self.only(host, exact);
            }
        }
        let fits =
            |node: &&&Node| agree(domain, node.names().0.split_once('.').map_or("", |(_, domain)| domain));
        if alike.iter().any(|node| fits(&node)) {
            // One that fits beside one that does not is still two of that name.
            return self.only(host, alike);
        }
        Err(Unusable::NotFound { host: host.to_owned() })
    }

    fn only<'a>(&self, host: &str, found: Vec<&'a Node>) -> Result<&'a Node, Unusable> {
        match found.as_slice() {
            [node] => Ok(node),
            [] => Err(Unusable::NotFound { host: host.to_owned() }),
            several => Err(Unusable::Several {
                host: host.to_owned(),
                instance_ids: several.iter().map(|node| node.target.instance_id.clone()).collect(),
            }),
        }
    }
}

/// Whether two domains may be one: equal, or one is left out or cut short (`prod` of `prod.example.com`).
fn agree(one: &str, other: &str) -> bool {
    let starts = |long: &str, short: &str| {
        short.is_empty()
            || long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    starts(one, other) || starts(other, one)
}

/// A host as an alert writes it, without port, brackets, final dot and capitals.
fn bare(host: &str) -> String {
    let host = host.trim();
    if let Some((inside, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return folded(inside);
    }
    match host.rsplit_once(':') {
        // One colon is a port; more are an IPv6 address, which carries a port only in brackets.
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            folded(name)
        }
        _ => folded(host),
    }
}

fn folded(name: &str) -> String {
    name.trim().trim_end_matches('.').to_lowercase()
}

/// `i-` or `mi-` and 8 to 17 hexadecimal digits (API model: `InstanceId`).
fn is_instance_id(text: &str) -> bool {
    let digits = text.strip_prefix("mi-").or_else(|| text.strip_prefix("i-"));
    digits.is_some_and(|digits| {
        (8..=17).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// `ip-10-0-12-12` is 10.0.12.12.
fn private_address(short: &str) -> Option<IpAddr> {
    let address: Ipv4Addr = short.strip_prefix("ip-")?.replace('-', ".").parse().ok()?;
    Some(IpAddr::V4(address))
}
