//! The sending of a remediation: what was declared goes to SSM, and what SSM said goes to the
//! lifecycle. A lost answer was looked up by the adapter before it is called lost here; whether
//! another copy of a fenced run follows is decided, and owed anew, like everything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::Instant;

use super::Engine;
use super::perform::is_sending;
use crate::aws::{Copy, Sent};
use crate::lifecycle::{Input, Remediation};
use crate::plan::Work;
use crate::store::Owed;
use crate::time::Timestamp;

/// Commands on their way to SSM at a time: more would only be throttled, each with a connection of its own.
pub(super) const SENT_AT_ONCE: usize = 64;
/// Sendings that wait at hand for their turn: enough that there is always a next one. Of what waits
/// behind them only the key is kept.
pub(super) const AT_HAND: usize = 3 * SENT_AT_ONCE;
/// What got no turn by then is decided anew: its alert may be over meanwhile.
const TURN: Duration = Duration::from_secs(5);
/// What SSM or the network refused for now is tried again after this at the latest, where an earlier
/// copy may be out: the next try is a decision of its own.
const TRIED_AGAIN: Duration = Duration::from_secs(15);
/// What was decided longer ago is decided anew: its alert may be over meanwhile, or a pause begun.
const DECIDED_WITHIN: Duration = Duration::from_secs(15);
/// After this an Automation that may not have been started is not started.
const STILL_WANTED: Duration = Duration::from_secs(120);

impl Engine {
    /// Sends when its turn comes, the first first; what got none in time is decided anew. What may have
    /// been sent before waits on: whether it was has to be found out.
    pub(super) async fn send_in_turn(&self, owed: Owed, remediation: Arc<Remediation>, again: bool) {
        let maybe_sent = again || !remediation.sent_again.is_empty();
        let by = (!maybe_sent).then(|| Instant::now() + TURN);
        let too_late = |owed| {
            // Nothing left this machine; the gates look again before the next try.
            Box::pin(self.settle_with(owed, Input::SendThrottled { retry_after: TURN }))
        };
        let (at_hand, remediation) = match self.0.at_hand.try_acquire() {
            Ok(at_hand) => (at_hand, remediation),
            Err(_) => {
                drop(remediation);
                let Some(at_hand) = in_time(self.0.at_hand.acquire(), by).await else {
                    return too_late(owed).await;
                };
                let Some(remediation) = Box::pin(self.still_owed(&owed)).await else { return };
                (at_hand, Arc::new(remediation))
            }
        };
        let turn = in_time(self.0.turns.acquire(), by).await;
        drop(at_hand);
        match turn {
            Some(turn) => Box::pin(self.send(owed, &remediation, again, turn)).await,
            None => too_late(owed).await,
        }
    }

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
        // The lease may have been away for long, as may the whole machine. Nothing left it yet.
        let first = !again && remediation.sent_again.is_empty();
        if first && self.clock().now().since(first_sent_at) > DECIDED_WITHIN {
            tracing::warn!(remediation = %remediation.id, "the sending of {} was decided too long ago; it is decided anew", remediation.id);
            drop(turn);
            return self.settle_with(owed, Input::SendThrottled { retry_after: Duration::ZERO }).await;
        }
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
                // What resolved while nobody listened is not to be sent again.
                self.hearing().heard(&remediation.origin.channel).await;
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
        if !self.hearing().heard(&remediation.origin.channel).await {
            return Some(format!("{stopped} heal does not hear Slack, where something may have stopped it"));
        }
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

/// A permit, where it comes in time.
async fn in_time<'a>(
    permit: impl Future<Output = Result<SemaphorePermit<'a>, AcquireError>>,
    by: Option<Instant>,
) -> Option<SemaphorePermit<'a>> {
    match by {
        Some(by) => tokio::time::timeout_at(by, permit).await.ok()?.ok(),
        None => permit.await.ok(),
    }
}
