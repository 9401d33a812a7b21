//! What `/heal status` and `/heal history` tell, read from the store.

use super::Engine;
use crate::lifecycle::{Remediation, Trigger};
use crate::message::Said;
use crate::message::answer::{self, HistoryRow, Open, StatusView};
use crate::store;

/// Rows of `/heal history`.
const HISTORY: usize = 50;

impl Engine {
    pub(super) async fn tell_status(&self) -> store::Result<Said> {
        let now = self.clock().now();
        let (open, pauses, tallies) = self
            .store()
            .transact(move |tx| Ok((tx.open_remediations()?, tx.active_pauses(now)?, tx.tallies()?)))
            .await?;
        let parts = self.parts();
        let socket = parts.socket.borrow().clone();
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        let view = StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.0.started_at,
            mode: match parts.config.slack.mode {
                crate::config::Mode::Socket => "socket".to_owned(),
                crate::config::Mode::Http => "http".to_owned(),
            },
            connections: socket.connected,
            connections_wanted: socket.wanted,
            rules: self.rules().len(),
            open: open
                .iter()
                .map(|remediation| Open {
                    id: remediation.id.0.clone(),
                    key: remediation.rule_key.to_string(),
                    host: host_of(remediation),
                    state: remediation.state.name(),
                    since: remediation.opened_at,
                    link: self.link(remediation),
                })
                .collect(),
            pauses,
            unreadable: tallies
                .iter()
                .filter_map(|tally| {
                    Some((tally.name.strip_prefix("unreadable:")?.to_owned(), count(tally.count)))
                })
                .collect(),
            without_rule: tallies
                .iter()
                .find(|tally| tally.name == "without_rule")
                .map_or(0, |tally| count(tally.count)),
        };
        Ok(answer::status(&view, &self.words()))
    }

    pub(super) async fn tell_history(&self, key: Option<String>) -> store::Result<Said> {
        let pattern = key.clone();
        let rows = self.store().transact(move |tx| tx.history(pattern.as_deref(), HISTORY)).await?;
        let shown: Vec<HistoryRow> = rows
            .iter()
            .map(|row| {
                let remediation = &row.remediation;
                let by = match &remediation.trigger {
                    Trigger::Person { user } | Trigger::Again { user, .. } => Some(user.clone()),
                    Trigger::Alert => remediation.approvals.last().map(|approval| approval.user.clone()),
                };
                HistoryRow {
                    at: remediation.opened_at,
                    key: remediation.rule_key.to_string(),
                    host: host_of(remediation),
                    outcome: row.outcome,
                    state: remediation.state.name(),
                    took: row.ended_at.map(|ended| ended.since(remediation.opened_at)),
                    by,
                    link: self.link(remediation),
                }
            })
            .collect();
        Ok(answer::history(&shown, shown.len(), key.as_deref(), &self.words()))
    }

    /// Where a remediation's declaration is to be read; made, as asking Slack for each would be slow.
    fn link(&self, remediation: &Remediation) -> Option<String> {
        let ts = remediation.declaration.as_deref().or(Some(remediation.origin.ts.as_str()))?;
        let base = self.parts().identity.url.trim_end_matches('/');
        if ts.is_empty() || base.is_empty() {
            return None;
        }
        let (channel, thread) = (&remediation.origin.channel, &remediation.origin.ts);
        let place = ts.replace('.', "");
        let mut link = format!("{base}/archives/{channel}/p{place}");
        if !thread.is_empty() && thread != ts {
            link.push_str(&format!("?thread_ts={thread}&cid={channel}"));
        }
        Some(link)
    }
}

fn host_of(remediation: &Remediation) -> String {
    let named = remediation.alert.host.as_deref().unwrap_or("-");
    remediation.target.as_ref().map_or(named, |target| target.name.as_str()).to_owned()
}
