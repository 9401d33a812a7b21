//! A remediation as every database keeps it: a body that is read whole, and beside it the columns that
//! are looked for, derived from it.

use super::{Error, Result};
use crate::lifecycle::{Effect, Ending, Remediation, State};

/// Rows of the past that a pattern is looked for in; everybody else waits meanwhile.
pub(super) const HISTORY_SEARCHED: usize = 20_000;

pub(super) fn corrupt(what: &'static str) -> impl FnOnce(serde_json::Error) -> Error {
    move |error| Error::Corrupt { what, why: error.to_string() }
}

pub(super) fn body(remediation: &Remediation) -> Result<String> {
    serde_json::to_string(remediation).map_err(corrupt("remediation"))
}

pub(super) fn parse(body: &str) -> Result<Remediation> {
    serde_json::from_str(body).map_err(corrupt("remediation"))
}

/// What is owed, by its name; `None` for one that this heal does not know: a newer one owed it, and goes on
/// with it. It must not hide the others.
pub(super) fn effect(name: &str) -> Option<Effect> {
    static TOLD: std::sync::Once = std::sync::Once::new();
    let effect = serde_json::from_value(serde_json::Value::String(name.to_owned()));
    effect
        .inspect_err(|_| {
            TOLD.call_once(|| {
                tracing::error!(
                    effect = name,
                    "an effect is owed that this heal does not know; it is left to a newer one"
                );
            });
        })
        .ok()
}

/// Those that can be read; one that cannot must not hide the others.
pub(super) fn parse_all(bodies: Vec<String>) -> Result<Vec<Remediation>> {
    let read = bodies.iter().filter_map(|body| match parse(body) {
        Ok(remediation) => Some(remediation),
        Err(error) => {
            tracing::error!(%error, "a stored remediation cannot be read and is passed over");
            None
        }
    });
    Ok(read.collect())
}

/// The columns that are looked for, derived from the remediation itself.
pub(super) struct Columns {
    pub(super) instance_id: Option<String>,
    pub(super) acted_at: Option<i64>,
    pub(super) cools_from: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) outcome: Option<&'static str>,
    pub(super) waits_for: Option<String>,
}

pub(super) fn columns(remediation: &Remediation) -> Columns {
    let ended_at = match &remediation.state {
        State::Ended { at, .. } | State::Observed { at } => Some(at.0),
        _ => None,
    };
    // A run that did nothing (confirm failed, never delivered) is no attempt. What SSM refused
    // was not one either; what may have run is.
    let acted = match (&remediation.ran, remediation.sent_at, &remediation.state) {
        (Some(ran), Some(sent), _) if ran.commands_ran() => Some(sent.0),
        (Some(_), _, _) => None,
        (None, _, State::Ended { why: Ending::SendRefused { .. }, .. }) => None,
        (None, sent, _) => sent.map(|sent| sent.0),
    };
    let waits_for = match &remediation.state {
        State::Waiting { reason, .. } => {
            let instance = remediation.target.as_ref().map_or("", |target| target.instance_id.as_str());
            reason.waits_for(instance, remediation.role())
        }
        _ => None,
    };
    Columns {
        waits_for,
        instance_id: remediation.target.as_ref().map(|target| target.instance_id.clone()),
        acted_at: acted,
        cools_from: acted.and(ended_at),
        ended_at,
        outcome: remediation.outcome().map(|outcome| outcome.as_str()),
    }
}
