//! `ROLE:ALERT`, split at the first colon. Case counts: `web:Down` and `Web:down` are two keys.

use super::{RuleKey, glob};

/// Longest key, in characters.
const MAX_LENGTH: usize = 250;
/// Most `*` on one side.
const MAX_STARS: usize = 8;

impl RuleKey {
    /// Reads a key; the error says what is wrong and what to do.
    pub fn parse(text: &str) -> Result<RuleKey, (String, &'static str)> {
        let quoted = super::diagnostic::quoted(text);
        let Some((role, alert)) = text.split_once(':') else {
            return Err((
                format!("{quoted} is no rule key"),
                "a rule key is ROLE:ALERT, with a colon between",
            ));
        };
        if role.trim().is_empty() || alert.trim().is_empty() {
            let side = if role.trim().is_empty() { "role" } else { "alert" };
            return Err((
                format!("the rule key {quoted} has no {side}"),
                "a rule key is ROLE:ALERT; `*` stands for any role or alert",
            ));
        }
        if role.trim() != role || alert.trim() != alert {
            return Err((
                format!("the rule key {quoted} has white space at the edge of a side"),
                "write ROLE:ALERT without spaces around the colon",
            ));
        }
        if let Some(ch) =
            text.chars().find(|ch| crate::text::invisible(*ch) || (ch.is_whitespace() && *ch != ' '))
        {
            return Err((
                format!("the rule key {quoted} holds the invisible character U+{:04X}", u32::from(ch)),
                "type the key anew",
            ));
        }
        if text.chars().count() > MAX_LENGTH {
            return Err((
                format!("the rule key {quoted} is longer than {MAX_LENGTH} characters"),
                "shorten it",
            ));
        }
        if [role, alert].iter().any(|side| side.matches('*').count() > MAX_STARS) {
            return Err((
                format!("the rule key {quoted} has more than {MAX_STARS} `*` on a side"),
                "use fewer",
            ));
        }
        Ok(RuleKey { role: role.to_owned(), alert: alert.to_owned() })
    }

    /// Neither side holds a `*`.
    pub fn is_exact(&self) -> bool {
        !glob::is_pattern(&self.role) && !glob::is_pattern(&self.alert)
    }

    /// Whether an alert of this role and name is this key's.
    pub fn matches(&self, role: &str, alert: &str) -> bool {
        glob::glob_match(&self.role, role) && glob::glob_match(&self.alert, alert)
    }

    /// Which of two keys that fit one alert is the more specific: the one that is so on one side and not
    /// less on the other. Two that beat each other on different sides (`web:*` and `*:Down`), or on
    /// none, are equally specific: `None`.
    pub fn compare(&self, other: &RuleKey) -> Option<std::cmp::Ordering> {
        use std::cmp::Ordering::Equal;
        let role = glob::specificity(&self.role).cmp(&glob::specificity(&other.role));
        let alert = glob::specificity(&self.alert).cmp(&glob::specificity(&other.alert));
        match (role, alert) {
            (Equal, Equal) => None,
            (Equal, one) | (one, Equal) => Some(one),
            (one, two) if one == two => Some(one),
            _ => None,
        }
    }

    /// Sorts the most specific first; agrees with [`RuleKey::compare`] wherever two keys fit one alert.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let (role_exact, role) = glob::specificity(&self.role);
        let (alert_exact, alert) = glob::specificity(&self.alert);
        std::cmp::Reverse((u8::from(role_exact) + u8::from(alert_exact), role + alert))
    }
}

impl std::str::FromStr for RuleKey {
    type Err = String;

    fn from_str(text: &str) -> Result<RuleKey, String> {
        RuleKey::parse(text).map_err(|(message, hint)| format!("{message}; {hint}"))
    }
}
