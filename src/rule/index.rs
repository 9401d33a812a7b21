//! All rules in force, immutable, and the way from an alert to the most specific one that answers it.
//!
//! Exact keys and patterns share one index: each side of a key has an id ([`Sides`]), a rule hangs at its
//! pair of ids. An alert's role and name fit a few ids each, however many rules there are, and the
//! pairs among these are the candidates. Ambiguous keys were refused when loading, so that the
//! order of rank decides alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::sides::{Id, Sides};
use super::{Rule, RuleKey, glob};

/// The rules, by key and by what they match.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// In the order of their keys.
    rules: Vec<Arc<Rule>>,
    by_key: HashMap<RuleKey, u32>,
    roles: Sides,
    alerts: Sides,
    /// From a pair of sides to the rule.
    by_sides: HashMap<(Id, Id), u32>,
}

impl RuleSet {
    /// Indexes `rules`; of two with one key the first is kept (loading has refused the file by then).
    pub fn new(mut rules: Vec<Rule>) -> RuleSet {
        rules.sort_by(|a, b| a.key.cmp(&b.key));
        rules.dedup_by(|later, first| later.key == first.key);
        let mut set = RuleSet::default();
        for (at, rule) in rules.into_iter().enumerate() {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            let pair = (set.roles.add(&rule.key.role), set.alerts.add(&rule.key.alert));
            set.by_sides.insert(pair, at);
            set.by_key.insert(rule.key.clone(), at);
            set.rules.push(Arc::new(rule));
        }
        set
    }

    /// The rule that answers an alert of this role and name with these labels: the most specific key whose
    /// `when` fits. Case counts.
    pub fn find(&self, role: &str, alert: &str, labels: &BTreeMap<String, String>) -> Option<&Arc<Rule>> {
        let roles = self.roles.matching(role);
        if roles.is_empty() {
            return None;
        }
        let alerts = self.alerts.matching(alert);
        let candidates = roles.iter().flat_map(|role| alerts.iter().map(move |alert| (*role, *alert)));
        candidates
            .filter_map(|pair| self.by_sides.get(&pair))
            .filter_map(|at| self.rules.get(*at as usize))
            .filter(|rule| rule.applies(labels))
            .min_by_key(|rule| rule.key.rank())
    }

    pub fn get(&self, key: &RuleKey) -> Option<&Arc<Rule>> {
        self.by_key.get(key).and_then(|at| self.rules.get(*at as usize))
    }

    /// All rules, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The roles that rules name in full, each once, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.rules.iter().map(|rule| rule.key.role.as_str()).filter(move |role| {
            let new = last != Some(*role);
            last = Some(*role);
            new && !glob::is_pattern(role)
        })
    }

    /// Whether some rule is about this role by name or by a pattern that says more than `*`.
    pub fn is_known_role(&self, role: &str) -> bool {
        self.roles.matching(role).iter().any(|id| self.roles.text(*id).bytes().any(|byte| byte != b'*'))
    }

    /// The rules whose keys fit `pattern` (as in `/heal pause web:*`), in the order of their keys.
    pub fn matching<'s>(&'s self, pattern: &'s str) -> impl Iterator<Item = &'s Arc<Rule>> + 's {
        self.rules.iter().filter(move |rule| glob::glob_match(pattern, &rule.key.to_string()))
    }

    /// The key nearest to a slip of the pen, for "did you mean".
    pub fn closest(&self, text: &str) -> Option<String> {
        let keys: Vec<String> = self.rules.iter().map(|rule| rule.key.to_string()).collect();
        super::yaml::closest(text, keys.iter().map(String::as_str)).map(str::to_owned)
    }
}

impl Rule {
    /// Whether the alert's labels are those that `when` asks for.
    pub fn applies(&self, labels: &BTreeMap<String, String>) -> bool {
        self.when
            .iter()
            .all(|(name, pattern)| labels.get(name).is_some_and(|value| glob::glob_match(pattern, value)))
    }
}
