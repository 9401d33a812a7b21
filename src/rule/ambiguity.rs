//! Pairs of equally specific keys that fit one alert: an error when loading, since nobody could say
//! which rule would run.
//!
//! Exact keys are never part of one. A pair is fine when both `when`s can never hold at once, or when
//! a rule stands exactly where the two cross (`web:Down` for `web:*` and `*:Down`) and always applies.

use std::collections::HashMap;

use super::sides::{Id, Overlaps, Sides};
use super::{Rule, RuleKey, glob};

/// So many are reported; more would be noise.
const MOST: usize = 50;

/// The ambiguous pairs, as positions in `rules`, each pair once, smaller position first.
pub fn find(rules: &[Rule]) -> Vec<(usize, usize)> {
    let mut roles = Sides::default();
    let mut alerts = Sides::default();
    let mut by_role: HashMap<Id, Vec<(Id, usize)>> = HashMap::new();
    let mut by_sides: HashMap<(Id, Id), usize> = HashMap::new();
    let mut patterns = Vec::new();
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.key.is_exact()) {
        let pair = (roles.add(&rule.key.role), alerts.add(&rule.key.alert));
        by_role.entry(pair.0).or_default().push((pair.1, at));
        by_sides.insert(pair, at);
        patterns.push((pair, at));
    }
    let always: std::collections::HashSet<&RuleKey> =
        rules.iter().filter(|rule| rule.when.is_empty()).map(|rule| &rule.key).collect();
    let (role_overlaps, alert_overlaps) = (Overlaps::new(&roles), Overlaps::new(&alerts));
    // Many rules share a side (`*:Alert1`, `*:Alert2`, …): the last one's answer is at hand.
    patterns.sort_unstable();
    let mut last: Option<(Id, Vec<Id>)> = None;
    let mut found = Vec::new();
    for ((role, alert), at) in patterns {
        let near_roles = match last.take() {
            Some((of, near)) if of == role => near,
            _ => role_overlaps.of(role),
        };
        let near_alerts = alert_overlaps.of(alert);
        for near_role in &near_roles {
            let neighbours = by_role.get(near_role).map_or(&[][..], Vec::as_slice);
            let mut weigh = |other: usize| {
                if other > at && ambiguous(&rules[at], &rules[other], &always) {
                    found.push((at, other));
                }
            };
            if neighbours.len() <= near_alerts.len() {
                let fits = |near: Id| glob::overlap(alerts.text(alert), alerts.text(near));
                neighbours.iter().filter(|(near, _)| fits(*near)).for_each(|(_, other)| weigh(*other));
            } else {
                let pairs = near_alerts.iter().filter_map(|near| by_sides.get(&(*near_role, *near)));
                pairs.for_each(|other| weigh(*other));
            }
        }
        last = Some((role, near_roles));
        if found.len() >= MOST {
            break;
        }
    }
    found.sort_unstable();
    found.truncate(MOST);
    found
}

fn ambiguous(a: &Rule, b: &Rule, always: &std::collections::HashSet<&RuleKey>) -> bool {
    a.key.compare(&b.key).is_none()
        && !exclude_each_other(a, b)
        && !crossing(&a.key, &b.key).is_some_and(|key| always.contains(&key))
}

/// Some label would need two values at once.
fn exclude_each_other(a: &Rule, b: &Rule) -> bool {
    a.when.iter().any(|(name, value)| b.when.get(name).is_some_and(|other| !glob::overlap(value, other)))
}

/// The key of exactly the alerts that fit both, where it can be written down and is neither of them.
pub fn crossing(a: &RuleKey, b: &RuleKey) -> Option<RuleKey> {
    let side = |x: &str, y: &str| match (x, y) {
        (x, y) if x == y || y == "*" || !glob::is_pattern(x) => Some(x.to_owned()),
        (x, y) if x == "*" || !glob::is_pattern(y) => Some(y.to_owned()),
        _ => None,
    };
    let key = RuleKey { role: side(&a.role, &b.role)?, alert: side(&a.alert, &b.alert)? };
    (key != *a && key != *b).then_some(key)
}
