//! The one sending of a remediation: what was declared goes to SSM, and what SSM said goes to the
//! lifecycle. An unclear answer was looked up by the adapter before it is called unclear here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::Engine;
use super::perform::is_sending;
use crate::aws::Sent;
use crate::lifecycle::{Input, Remediation};
use crate::plan::Work;
use crate::store::Owed;
use crate::time::Timestamp;

/// After this an Automation that may not have been started is not started.
const STILL_WANTED: Duration = Duration::from_secs(120);

impl Engine {
    /// Gives the plan to SSM. `again`: it may have been given before a restart, so it is only looked up.
    /// `turn` is over when SSM has answered.
    pub(super) async fn send(
        &self,
        owed: Owed,
        remediation: &Arc<Remediation>,
        again: bool,
        turn: SemaphorePermit<'_>,
    ) {
        let (Some(plan), Some(target), true) =
            (&remediation.plan, &remediation.target, is_sending(remediation))
        else {
            tracing::error!(remediation = %remediation.id, "a sending was owed without a plan; nothing is sent");
            return self.settled(&owed).await;
        };
        let _under_way = self.0.sending.read().await;
        let ssm = &self.parts().ssm;
        let sent = if again {
            let since = remediation.sent_at.unwrap_or(remediation.opened_at);
            match self.no_repeat(remediation, since).await {
                None => ssm.find(plan, target, &remediation.id, since).await,
                Some(why) => Sent::Unclear { why },
            }
        } else {
            ssm.send(plan, target, &remediation.id).await
        };
        drop(turn);
        let input = match sent {
            Sent::Accepted { command_id } => {
                tracing::info!(remediation = %remediation.id, %command_id, instance = %target.instance_id, "sent {} to {}", remediation.id, target.instance_id);
                Input::SendAccepted { command_id }
            }
            Sent::Refused { why } => Input::SendRefused { why },
            Sent::Throttled { retry_after } => Input::SendThrottled { retry_after },
            Sent::Unclear { why } => Input::SendUnclear { why },
        };
        self.settle_with(owed, input).await;
    }

    /// An Automation is looked up by starting it again under its token. Where it was never started
    /// that is its start, so it must still be wanted: why it is not, if so.
    async fn no_repeat(&self, remediation: &Remediation, since: Timestamp) -> Option<String> {
        if !matches!(remediation.plan.as_ref()?.work, Work::Automation { .. }) {
            return None;
        }
        let stopped = "heal stopped while it was being sent, and it was not started again because";
        if self.clock().now().since(since) > STILL_WANTED {
            return Some(format!("{stopped} that was long ago"));
        }
        let (id, now) = (remediation.id.clone(), self.clock().now());
        let wanted = self.store().transact(move |tx| super::decide::still_wanted(tx, &id, now)).await;
        match wanted {
            Ok(true) => None,
            Ok(false) => Some(format!("{stopped} the alert resolved or the rule was paused meanwhile")),
            Err(error) => Some(format!("{stopped} the database could not be read: {error}")),
        }
    }
}
