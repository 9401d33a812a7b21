//! The managed nodes, kept at hand: an alert in a storm costs no call to SSM.
//!
//! The table is read whole (there is no filter by name), kept for five minutes and read again on
//! use. Before anybody is told "not found" or "not online" SSM is asked afresh, at most every ten
//! seconds. One reader reads; the others wait for what it brings.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_sdk_ssm::types::InstanceInformationStringFilter;

use super::client::Ssm;
use super::fault::Fault;
use super::node::{Node, Table};
use crate::alert::Alert;
use crate::plan::{Target, Unusable};

/// How long what SSM said is taken for true.
const FRESH: Duration = Duration::from_secs(300);
/// When SSM cannot be asked, a node that was Online that long ago may still be tried.
const STALE: Duration = Duration::from_secs(1800);
/// How often the table may be read again because of a miss.
const AFRESH: Duration = Duration::from_secs(2);
/// Roles kept; they come from alerts, so somebody else decides how many there are.
const ROLES: usize = 1000;

/// Finds the node of an alert. Cheap to clone; clones share the table.
#[derive(Clone, Debug)]
pub struct Targets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ssm: Ssm,
    role_tag: Option<String>,
    ages: Ages,
    nodes: Kept<Table>,
    roles: RwLock<HashMap<String, Arc<Kept<HashSet<String>>>>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    pub fresh: Duration,
    pub afresh: Duration,
}

/// Something read from SSM, when it was read, and the one who may read it again.
#[derive(Debug)]
struct Kept<T> {
    value: RwLock<Option<(Instant, Arc<T>)>>,
    reader: tokio::sync::Mutex<()>,
}

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept { value: RwLock::new(None), reader: tokio::sync::Mutex::new(()) }
    }
}

impl<T> Kept<T> {
    fn newer_than(&self, age: Duration) -> Option<Arc<T>> {
        let kept = self.value.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(read_at, _)| read_at.elapsed() < age).map(|(_, value)| Arc::clone(value))
    }

    /// How long until what is kept is as old as `age`.
    fn rest_of(&self, age: Duration) -> Duration {
        let kept = self.value.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map_or(Duration::ZERO, |(read_at, _)| age.saturating_sub(read_at.elapsed()))
    }

    /// What is newer than `age`, read now where nothing is.
    async fn get(
        &self,
        age: Duration,
        read: impl Future<Output = Result<T, Fault>>,
    ) -> Result<Arc<T>, Fault> {
        if let Some(value) = self.newer_than(age) {
            return Ok(value);
        }
        let _reading = self.reader.lock().await;
        // Another one may have read it while this one waited.
        if let Some(value) = self.newer_than(age) {
            return Ok(value);
        }
        let began = Instant::now();
        let value = Arc::new(read.await?);
        *self.value.write().unwrap_or_else(PoisonError::into_inner) = Some((began, Arc::clone(&value)));
        Ok(value)
    }
}

impl Targets {
    /// `role_tag`: the tag of managed nodes that holds their role; `None`: roles are not checked.
    pub fn new(ssm: Ssm, role_tag: Option<String>) -> Targets {
        Targets::with_ages(ssm, role_tag, Ages { fresh: FRESH, afresh: AFRESH })
    }

    pub(super) fn with_ages(ssm: Ssm, role_tag: Option<String>, ages: Ages) -> Targets {
        let (nodes, roles) = (Kept::default(), RwLock::default());
        Targets { inner: Arc::new(Inner { ssm, role_tag, ages, nodes, roles }) }
    }

    /// The alert's node out of what is at hand: fresh, the only one, Online, of its role. `None`
    /// means that [`Targets::resolve`] has to be asked. Does not wait for anything.
    pub fn resolve_cached(&self, alert: &Alert) -> Option<Target> {
        let inner = &self.inner;
        let table = inner.nodes.newer_than(inner.ages.fresh)?;
        let node = table.find(alert).ok().filter(|node| node.online())?;
        if let (Some(_), Some(role)) = (&inner.role_tag, &alert.role) {
            let of_role = inner.kept_role(role)?.newer_than(inner.ages.fresh)?;
            of_role.contains(&node.target.instance_id).then_some(())?;
        }
        Some(node.target.clone())
    }

    /// The alert's node, or why there is none to act on.
    pub async fn resolve(&self, alert: &Alert) -> Result<Target, Unusable> {
        let inner = &self.inner;
        let table = match inner.table(inner.ages.fresh).await {
            Ok(table) => table,
            Err(fault) => match inner.nodes.newer_than(STALE) {
                Some(table) if table.find(alert).is_ok_and(Node::online) => {
                    tracing::warn!("the managed nodes could not be read again: {}", fault.why());
                    table
                }
                _ => return Err(Unusable::LookupFailed { why: fault.why() }),
            },
        };
        let node = match table.find(alert) {
            Ok(node) if node.online() => node.clone(),
            Ok(node) => inner.again(node).await?,
            Err(Unusable::NotNamed) => return Err(Unusable::NotNamed),
            Err(Unusable::NotFound { .. }) => {
                // A miss is final for its alert, so it is never answered from what was read before it;
                // many misses at once still share a reading.
                tokio::time::sleep(inner.nodes.rest_of(inner.ages.afresh)).await;
                let afresh = inner.table(inner.ages.afresh).await;
                let afresh = afresh.map_err(|fault| Unusable::LookupFailed { why: fault.why() })?;
                afresh.find(alert)?.clone()
            }
            Err(unusable) => return Err(unusable),
        };
        if !node.online() {
            return Err(Unusable::Offline { target: node.target, ping: node.ping });
        }
        inner.check_role(&node.target, alert.role.as_deref()).await?;
        Ok(node.target)
    }

    /// Reads the table where it is not fresh, and says how many nodes there are.
    pub async fn warm(&self) -> Result<usize, String> {
        let table = self.inner.table(self.inner.ages.fresh).await;
        table.map(|table| table.len()).map_err(|fault| fault.why())
    }
}

impl Inner {
    async fn table(&self, age: Duration) -> Result<Arc<Table>, Fault> {
        self.nodes.get(age, async { Ok(Table::new(self.ssm.nodes(None).await?)) }).await
    }

    /// One node as SSM sees it now.
    async fn again(&self, node: &Node) -> Result<Node, Unusable> {
        let id = &node.target.instance_id;
        let nodes = self.ssm.nodes(Some(("InstanceIds", id))).await;
        let nodes = nodes.map_err(|fault| Unusable::LookupFailed { why: fault.why() })?;
        let found = nodes.into_iter().find(|found| found.target.instance_id == *id);
        found.ok_or_else(|| Unusable::NotFound { host: node.target.name.clone() })
    }

    fn kept_role(&self, role: &str) -> Option<Arc<Kept<HashSet<String>>>> {
        self.roles.read().unwrap_or_else(PoisonError::into_inner).get(role).cloned()
    }

    async fn check_role(&self, target: &Target, role: Option<&str>) -> Result<(), Unusable> {
        let (Some(tag), Some(role)) = (&self.role_tag, role) else { return Ok(()) };
        let kept = {
            let mut roles = self.roles.write().unwrap_or_else(PoisonError::into_inner);
            if roles.len() >= ROLES && !roles.contains_key(role) {
                roles.clear();
            }
            Arc::clone(roles.entry(role.to_owned()).or_default())
        };
        let key = format!("tag:{tag}");
        for age in [self.ages.fresh, self.ages.afresh] {
            // A tag filter cannot be combined with other filters (API model), so the role is read whole.
            let read = async {
                let nodes = self.ssm.nodes(Some((&key, role))).await?;
                Ok(nodes.into_iter().map(|node| node.target.instance_id).collect())
            };
            let of_role = kept.get(age, read).await;
            let of_role = of_role.map_err(|fault| Unusable::LookupFailed { why: fault.why() })?;
            if of_role.contains(&target.instance_id) {
                return Ok(());
            }
        }
        Err(Unusable::WrongRole { target: target.clone(), tag: tag.clone(), role: role.to_owned() })
    }
}

impl Ssm {
    /// The managed nodes, all pages, of one filter or without any.
    pub(super) async fn nodes(&self, filter: Option<(&str, &str)>) -> Result<Vec<Node>, Fault> {
        let mut call = self.reads.describe_instance_information();
        if let Some((key, value)) = filter {
            let filter = InstanceInformationStringFilter::builder().key(key).values(value).build();
            call = call.filters(filter.map_err(|error| Fault::Refused { why: error.to_string() })?);
        }
        let mut pages = call.into_paginator().page_size(50).send();
        let mut nodes = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Fault::of(&error))?;
            nodes.extend(page.instance_information_list.unwrap_or_default().into_iter().filter_map(Node::of));
        }
        Ok(nodes)
    }
}
