//! What is known of the database's rows without asking: what was read under the lock, and what was
//! written since. It is right as long as nobody else writes, so it is kept from one commit to the next
//! only while this replica is alone; and it is forgotten as a whole whenever a job is undone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::pending::Pending;
use crate::gate::Pause;
use crate::lifecycle::{Remediation, RemediationId};
use crate::store::columns::columns;
use crate::store::role::Role;
use crate::store::{Standing, Subject};
use crate::time::Timestamp;

/// What is kept between commits: a remediation takes some 8 KiB, the others far less.
const REMEDIATIONS: usize = 1000;
const OTHERS: usize = 4000;

/// Attempts that are read ahead; a rule that looks back on more asks for them itself.
pub(super) const ATTEMPTS: usize = 100;

/// A remediation with what stands beside it.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) remediation: Arc<Remediation>,
    pub(super) alert: Option<i64>,
    pub(super) resolved_at: Option<i64>,
    pub(super) claimed_by: i64,
}

impl Row {
    pub(super) fn subject(&self) -> Subject {
        Subject {
            remediation: self.remediation.clone(),
            alert: self.alert,
            resolved_at: self.resolved_at.map(Timestamp),
        }
    }
}

/// How a rule stands on an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfRule {
    /// The open one; the unique key lets there be one only.
    pub(super) open: Option<RemediationId>,
    pub(super) last_acted: Option<i64>,
    /// Newest first, at most [`ATTEMPTS`].
    pub(super) attempts: Vec<i64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Instance {
    /// Between sending and outcome, with the rule.
    pub(super) taken: BTreeMap<RemediationId, String>,
    pub(super) rules: HashMap<String, OfRule>,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) remediations: HashMap<RemediationId, Row>,
    /// All remediations in the thread of a message, the oldest first.
    pub(super) threads: HashMap<(String, String), Vec<RemediationId>>,
    /// `None`: there is no such note.
    pub(super) notes: HashMap<String, Option<String>>,
    pub(super) instances: HashMap<String, Instance>,
    pub(super) roles: HashMap<String, Role>,
    /// All pauses that were not ended when they were read.
    pub(super) pauses: Option<Vec<Pause>>,
    /// What nobody waits for, as [`crate::gate::Reason::waits_for`] has it.
    pub(super) unwaited: HashSet<String>,
    /// Remediations that are not there. This and what follows is of use within a commit only.
    pub(super) absent: HashSet<RemediationId>,
    /// Whether it was taken.
    pub(super) deliveries: HashMap<String, bool>,
    /// The places that are taken among a message's alerts.
    pub(super) messages: HashMap<(String, String), BTreeSet<i64>>,
    /// When the newest alert of a sender and identity said that it is over.
    pub(super) ends: HashMap<(String, String), Option<i64>>,
    /// When alerts that were kept within the commit were over.
    pub(super) fresh: HashMap<i64, Option<i64>>,
}

/// Where a remediation is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    instance: Option<String>,
    rule: String,
    role: String,
    thread: (String, String),
    claim: Option<(String, String)>,
    takes_instance: bool,
    takes_role: bool,
    acted: (Option<i64>, Option<i64>),
    waits_for: Option<String>,
}

impl Place {
    fn of(this: &Remediation) -> Place {
        let columns = columns(this);
        Place {
            instance: columns.instance_id,
            rule: this.rule_key.to_string(),
            role: this.role().to_owned(),
            thread: (this.origin.channel.clone(), this.origin.ts.clone()),
            claim: claim_of(this),
            takes_instance: this.state.takes_instance(),
            takes_role: this.state.takes_role_slot(),
            acted: (columns.acted_at, columns.cools_from),
            waits_for: columns.waits_for,
        }
    }
}

/// The rule and the instance on which an open remediation holds its rule's claim.
pub(super) fn claim_of(this: &Remediation) -> Option<(String, String)> {
    let target = this.target.as_ref().filter(|_| !this.is_over())?;
    Some((this.rule_key.to_string(), target.instance_id.clone()))
}

impl Known {
    pub(super) fn forget(&mut self) {
        *self = Known::default();
    }

    /// Only what this replica has claimed is as it was left.
    pub(super) fn forget_but(&mut self, me: i64) {
        let mut mine = std::mem::take(&mut self.remediations);
        mine.retain(|_, row| row.claimed_by == me);
        *self = Known { remediations: mine, ..Known::default() };
    }

    /// Keeps what may be of use in the next commit.
    pub(super) fn rest(&mut self) {
        self.absent.clear();
        self.deliveries.clear();
        self.messages.clear();
        self.ends.clear();
        self.fresh.clear();
        let others = [self.threads.len(), self.notes.len(), self.instances.len(), self.unwaited.len()];
        if self.remediations.len() > REMEDIATIONS || others.into_iter().any(|count| count > OTHERS) {
            self.forget();
        }
    }

    /// Whether it is known, there or not.
    pub(super) fn has_asked_for(&self, id: &RemediationId) -> bool {
        self.remediations.contains_key(id) || self.absent.contains(id)
    }

    /// How a rule stands on an instance, as the gates count it; `None` where not all of it is known.
    pub(super) fn standing(
        &self,
        this: &Remediation,
        instance: &str,
        attempts_since: Option<Timestamp>,
    ) -> Option<Standing> {
        let on = self.instances.get(instance)?;
        let of_rule = on.rules.get(&this.rule_key.to_string())?;
        let role = self.roles.get(this.role())?;
        let taken = on.taken.iter().find(|(id, _)| **id != this.id);
        let attempts = match attempts_since {
            None => Vec::new(),
            Some(since) => {
                let cut = of_rule.attempts.len() >= ATTEMPTS;
                if cut && of_rule.attempts.last().is_some_and(|last| *last > since.0) {
                    return None;
                }
                let newer = of_rule.attempts.iter().take_while(|at| **at > since.0);
                newer.map(|at| Timestamp(*at)).collect()
            }
        };
        Some(Standing {
            under_way: of_rule.open.clone().filter(|open| *open != this.id),
            instance_taken: taken.map(|(id, rule)| (id.clone(), rule.clone())),
            role_running: u32::try_from(role.count(&this.id.0)).unwrap_or(u32::MAX),
            last_acted: of_rule.last_acted.map(Timestamp),
            attempts,
        })
    }

    /// Takes a remediation into account that was written: where it is counted now, and no more.
    pub(super) fn put(&mut self, row: Row, pending: &mut Pending) {
        let next = row.remediation.clone();
        self.absent.remove(&next.id);
        let before = self.remediations.insert(next.id.clone(), row);
        let (was, is) = (before.as_ref().map(|row| Place::of(&row.remediation)), Place::of(&next));
        if was.as_ref() == Some(&is) {
            return;
        }
        let was = was.unwrap_or_default();
        if was.thread != is.thread {
            // Where it stands among the others is read anew.
            self.threads.remove(&was.thread);
            self.threads.remove(&is.thread);
        }
        if let Some(claim) = was.claim.as_ref().filter(|_| was.claim != is.claim) {
            pending.release(claim);
            let open = self.of_rule(&claim.0, &claim.1).map(|of_rule| &mut of_rule.open);
            if let Some(open) = open.filter(|open| open.as_ref() == Some(&next.id)) {
                *open = None;
            }
        }
        if let Some((rule, instance)) = &is.claim
            && let Some(of_rule) = self.of_rule(rule, instance)
        {
            of_rule.open = Some(next.id.clone());
        }
        let mut on = |place: &Place, takes: bool| {
            let Some(instance) = place.instance.as_ref().and_then(|id| self.instances.get_mut(id)) else {
                return;
            };
            match takes {
                true => drop(instance.taken.insert(next.id.clone(), place.rule.clone())),
                false => drop(instance.taken.remove(&next.id)),
            }
            if was.acted != is.acted {
                instance.rules.remove(&place.rule);
            }
        };
        on(&was, false);
        on(&is, is.takes_instance);
        if let Some(role) = self.roles.get_mut(&was.role) {
            role.leave(&next.id.0);
        }
        if let (Some(role), Some(instance), true) =
            (self.roles.get_mut(&is.role), &is.instance, is.takes_role)
        {
            role.take(&next.id.0, instance);
        }
        if let Some(what) = &is.waits_for {
            self.unwaited.remove(what);
        }
    }

    pub(super) fn of_rule(&mut self, rule: &str, instance: &str) -> Option<&mut OfRule> {
        self.instances.get_mut(instance)?.rules.get_mut(rule)
    }

    /// An alert is over.
    pub(super) fn resolved(&mut self, alert: i64, at: i64) {
        for row in self.remediations.values_mut().filter(|row| row.alert == Some(alert)) {
            row.resolved_at = Some(at);
        }
        if let Some(fresh) = self.fresh.get_mut(&alert) {
            *fresh = Some(at);
        }
    }
}
