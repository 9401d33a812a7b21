//! The one sending of a remediation: what was declared goes to SSM, and what SSM said goes to the
//! lifecycle. An unclear answer was looked up by the adapter before it is called unclear here.

use std::sync::Arc;

use super::Engine;
use super::perform::is_sending;
use crate::aws::Sent;
use crate::lifecycle::{Input, Remediation};
use crate::store::Owed;

impl Engine {
    /// Gives the plan to SSM. `again`: it may have been given before a restart, so it is only looked up.
    pub(super) async fn send(&self, owed: Owed, remediation: &Arc<Remediation>, again: bool) {
        let (Some(plan), Some(target), true) =
            (&remediation.plan, &remediation.target, is_sending(remediation))
        else {
            tracing::error!(remediation = %remediation.id, "a sending was owed without a plan; nothing is sent");
            return self.settled(&owed).await;
        };
        let ssm = &self.parts().ssm;
        let sent = if again {
            let since = remediation.sent_at.unwrap_or(remediation.opened_at);
            ssm.find(plan, target, &remediation.id, since).await
        } else {
            ssm.send(plan, target, &remediation.id).await
        };
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
}
