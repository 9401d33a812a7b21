//! The sending of a remediation: what was declared goes to SSM, and what SSM said goes to the
//! lifecycle. A lost answer was looked up by the adapter before it is called lost here; whether
//! another copy of a fenced run follows is decided, and owed anew, like everything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::Engine;
use super::perform::is_sending;
use crate::aws::{Copy, Sent};
use crate::lifecycle::{Input, Remediation};
use crate::plan::Work;
use crate::store::Owed;
use crate::time::Timestamp;

/// What SSM or the network refused for now is tried again after this at the latest, where an earlier
/// copy may be out: the next try is a decision of its own.
const TRIED_AGAIN: Duration = Duration::from_secs(15);
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
        if !is_sending(remediation) {
            // Its time was over before the answer came; what it became is looked for where it stands now.
            return self.settled(&owed).await;
        }
        let (Some(plan), Some(target)) = (&remediation.plan, &remediation.target) else {
            tracing::error!(remediation = %remediation.id, "a sending was owed without a plan; nothing is sent");
            return self.settled(&owed).await;
        };
        let _under_way = self.0.sending.read().await;
        self.parts().lease.held().await;
        let ssm = &self.parts().ssm;
        let first_sent_at = remediation.sent_at.unwrap_or(remediation.opened_at);
        let copy = Copy {
            plan,
            target,
            run: &remediation.id,
            first_sent_at,
            sent_at: remediation.last_sent_at().unwrap_or(first_sent_at),
            fence_dir: remediation.fence_dir.as_deref(),
            number: 1 + u32::try_from(remediation.sent_again.len()).unwrap_or(u32::MAX - 1),
        };
        let sent = if again {
            match self.no_repeat(remediation, first_sent_at).await {
                None => ssm.find(copy, self.clock().now()).await,
                Some(why) => Sent::Unclear { why },
            }
        } else {
            ssm.send(copy).await
        };
        drop(turn);
        let input = match sent {
            Sent::Accepted { command_id } => {
                tracing::info!(remediation = %remediation.id, %command_id, instance = %target.instance_id, "sent {} to {}", remediation.id, target.instance_id);
                Input::SendAccepted { command_id }
            }
            Sent::Refused { why } => Input::SendRefused { why },
            Sent::Throttled { retry_after } => {
                if copy.number > 1 {
                    tokio::time::sleep(retry_after.min(TRIED_AGAIN)).await;
                }
                Input::SendThrottled { retry_after }
            }
            Sent::Unclear { why } if remediation.is_fenced() => {
                tracing::warn!(remediation = %remediation.id, why, "the answer to the sending of {} was lost, and SSM shows nothing of it", remediation.id);
                // After a start: what resolved while nobody listened is not to be sent again.
                self.first_looks().await;
                Input::SendLost { why }
            }
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
        self.first_looks().await;
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
