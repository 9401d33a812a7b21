//! Gives a plan to SSM, once. What became of a lost answer is looked up before anybody is told.
//!
//! A Run Command carries the run's id in its Comment, an Automation in its ClientToken. Whatever
//! certainly was not accepted is *refused* (for good) or *throttled* (later); what can be found out
//! in neither way is *unclear*. Nothing here sends a Run Command a second time after that: whether
//! another copy of a shell run may go out is a decision, and made by the lifecycle.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey};

use super::client::Ssm;
use super::fault::Fault;
use crate::plan::{Fence, Plan, RemediationId, Target, Work};
use crate::time::Timestamp;

/// Seconds SSM may take to hand the command to the agent: its least (API model: 30). An agent that
/// is there takes it within a second; one that comes back later would cure another outage.
pub(super) const DELIVER_WITHIN: i32 = 30;
/// The document that runs shell lines.
pub(super) const RUN_SHELL: &str = "AWS-RunShellScript";
/// How far SSM's clock and ours may be apart in a look-up.
const CLOCKS: Duration = Duration::from_secs(300);
/// Attempts where nothing left this machine; a second apart.
const UNSENT_ATTEMPTS: u32 = 3;
/// After that many seconds a network that was down is tried again.
const UNREACHED: Duration = Duration::from_secs(15);
/// All look-ups of one sending together, however slowly SSM answers.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(60);
/// A sending that is older than this is in the lists of SSM if it ever will be; how soon they show a
/// command is nowhere promised.
const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// What became of a sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// SSM has it, under this id.
    Accepted { command_id: String },
    /// Certainly not accepted, and it will not be.
    Refused { why: String },
    /// Certainly not accepted; it may be later.
    Throttled { retry_after: Duration },
    /// Looked for and not found: it may or may not run.
    Unclear { why: String },
}

/// A copy of a run, for SSM.
#[derive(Clone, Copy, Debug)]
pub struct Copy<'a> {
    pub plan: &'a Plan,
    pub target: &'a Target,
    pub run: &'a RemediationId,
    /// When the first copy was decided; SSM's lists are searched from there.
    pub first_sent_at: Timestamp,
    /// When this copy was; its deadline on the host comes from that.
    pub sent_at: Timestamp,
    /// Where the first copy makes its fence; `None` where that was not kept.
    pub fence_dir: Option<&'a str>,
    /// 1 for the first. Later ones are looked for longer before the next.
    pub number: u32,
}

impl Ssm {
    /// Gives a plan to SSM for its target. A Run Command makes one call that can take effect.
    pub async fn send(&self, copy: Copy<'_>) -> Sent {
        let mut unsent = 1;
        loop {
            let fault = match self.attempt(copy).await {
                Ok(command_id) => return Sent::Accepted { command_id },
                Err(fault) => fault,
            };
            match fault {
                Fault::Refused { why } => return Sent::Refused { why },
                Fault::Throttled { retry_after } => return Sent::Throttled { retry_after },
                // Nothing was sent, so this is the one case in which it is simply done again.
                Fault::NoCredentials { .. } | Fault::Unreached { .. } if unsent < UNSENT_ATTEMPTS => {
                    unsent += 1;
                    tokio::time::sleep(self.timing.unsent).await;
                }
                Fault::NoCredentials { why } => {
                    // The metadata service may be slow; nothing was sent, and the alert's age bounds this.
                    tracing::error!(
                        why,
                        "no AWS credentials: {why}; hint: give heal an instance role, or AWS_ACCESS_KEY_ID or AWS_PROFILE"
                    );
                    return Sent::Throttled { retry_after: UNREACHED };
                }
                Fault::Unreached { .. } => return Sent::Throttled { retry_after: UNREACHED },
                Fault::Unclear { why } => return self.clear_up(copy, self.patience(copy), why).await,
            }
        }
    }

    /// What became of a sending of which only the intent is known (after a restart). Sends no Run
    /// Command; an Automation is started again under its token, which starts nothing twice.
    pub async fn find(&self, copy: Copy<'_>, now: Timestamp) -> Sent {
        let why = "heal stopped while it was being sent".to_owned();
        let mut pauses = self.patience(copy);
        if now.since(copy.sent_at) > LISTED_WITHIN {
            pauses.truncate(1);
        }
        pauses.insert(0, Duration::ZERO);
        self.clear_up(copy, pauses, why).await
    }

    /// Pauses before each look for a copy. A second copy of a shell run is harmless, so it is not
    /// waited for long; for what cannot be repeated as long as it may help.
    fn patience(&self, copy: Copy<'_>) -> Vec<Duration> {
        match copy.plan.work {
            Work::Shell { .. } => {
                let longer = 2_u32.saturating_pow(copy.number.saturating_sub(1).min(3));
                self.timing.fenced.iter().map(|pause| *pause * longer).collect()
            }
            Work::Document { .. } | Work::Automation { .. } => self.timing.look_ups.to_vec(),
        }
    }

    async fn clear_up(&self, copy: Copy<'_>, pauses: Vec<Duration>, mut why: String) -> Sent {
        let look = async {
            let mut pauses = pauses.into_iter().peekable();
            while let Some(pause) = pauses.next() {
                tokio::time::sleep(pause).await;
                let found = match copy.plan.work {
                    Work::Automation { .. } => self.attempt(copy).await.map(Some),
                    Work::Shell { .. } | Work::Document { .. } => {
                        self.look_up(&copy.target.instance_id, copy.run, copy.first_sent_at).await
                    }
                };
                match found {
                    Ok(Some(command_id)) => return Sent::Accepted { command_id },
                    Ok(None) => {}
                    Err(Fault::Refused { why }) if matches!(copy.plan.work, Work::Automation { .. }) => {
                        return Sent::Unclear { why };
                    }
                    Err(fault) => {
                        tracing::warn!(run = %copy.run, "what became of run {} could not be looked up: {}", copy.run, fault.why());
                        // Not to be told is not to be told "no": the last look is made until it is one.
                        if pauses.peek().is_none() && !matches!(fault, Fault::Refused { .. }) {
                            pauses = vec![pause.max(self.timing.unsent)].into_iter().peekable();
                        }
                        if matches!(copy.plan.work, Work::Automation { .. }) {
                            why = fault.why();
                        }
                    }
                }
            }
            Sent::Unclear { why: why.clone() }
        };
        match tokio::time::timeout(LOOK_UP_WITHIN, look).await {
            Ok(sent) => sent,
            Err(_) => Sent::Unclear { why: "AWS answered too slowly to find out".to_owned() },
        }
    }

    /// One call that can take effect.
    async fn attempt(&self, copy: Copy<'_>) -> Result<String, Fault> {
        let Copy { plan, target, run, .. } = copy;
        match &plan.work {
            Work::Shell { .. } => {
                let fence = Fence::of_copy(copy.fence_dir.unwrap_or(&self.fence_dir), copy.sent_at);
                let script = plan.script(run, &fence).unwrap_or_default();
                let timeout = plan.timeout.as_secs().clamp(1, 172_800).to_string();
                let parameters = HashMap::from([
                    ("commands".to_owned(), vec![script]),
                    ("executionTimeout".to_owned(), vec![timeout]),
                ]);
                self.send_command(RUN_SHELL, parameters, target, run).await
            }
            Work::Document { name, parameters } => {
                let parameters = parameters.clone().into_iter().collect();
                self.send_command(name, parameters, target, run).await
            }
            Work::Automation { name, parameters } => {
                self.start_automation(name, parameters.clone().into_iter().collect(), run).await
            }
        }
    }

    async fn send_command(
        &self,
        document: &str,
        parameters: HashMap<String, Vec<String>>,
        target: &Target,
        run: &RemediationId,
    ) -> Result<String, Fault> {
        let answer = self
            .sends
            .send_command()
            .document_name(document)
            .instance_ids(&target.instance_id)
            .comment(comment(run))
            .set_parameters(Some(parameters))
            .timeout_seconds(DELIVER_WITHIN)
            .max_concurrency("1")
            .max_errors("0")
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        answer
            .command
            .and_then(|command| command.command_id)
            .ok_or_else(|| Fault::Unclear { why: "AWS answered without a command id".to_owned() })
    }

    async fn start_automation(
        &self,
        document: &str,
        parameters: HashMap<String, Vec<String>>,
        run: &RemediationId,
    ) -> Result<String, Fault> {
        let answer = self
            .sends
            .start_automation_execution()
            .document_name(document)
            .set_parameters(Some(parameters))
            .client_token(client_token(run))
            .send()
            .await
            .map_err(|error| Fault::of(&error))?;
        answer
            .automation_execution_id
            .ok_or_else(|| Fault::Unclear { why: "AWS answered without an execution id".to_owned() })
    }

    /// The command with the run's id in its Comment, if SSM knows one. `ListCommands` has no filter
    /// for the Comment (API model), so the node's commands of the time are paged through.
    pub(super) async fn look_up(
        &self,
        instance_id: &str,
        run: &RemediationId,
        since: Timestamp,
    ) -> Result<Option<String>, Fault> {
        let after = CommandFilter::builder()
            .key(CommandFilterKey::InvokedAfter)
            .value(since.minus(CLOCKS).rfc3339())
            .build()
            .map_err(|error| Fault::Refused { why: error.to_string() })?;
        let wanted = comment(run);
        let mut pages = self
            .reads
            .list_commands()
            .instance_id(instance_id)
            .filters(after)
            .into_paginator()
            .page_size(50)
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Fault::of(&error))?;
            let found = page
                .commands
                .unwrap_or_default()
                .into_iter()
                .find(|command| command.comment.as_deref() == Some(&wanted));
            if let Some(id) = found.and_then(|command| command.command_id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// The token in the Comment; SSM takes 100 characters (API model).
fn comment(run: &RemediationId) -> String {
    crate::text::clip(&format!("heal {run}"), 100)
}

/// The run's id as a UUID, the shape of a ClientToken (36 characters, API model). FNV-1a twice: the
/// ids are our own and unique, so it has to be the same again and spread, and nothing more.
pub(super) fn client_token(run: &RemediationId) -> String {
    let hash = |seed: u64| {
        run.0.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let (high, low) = (hash(0), hash(0x9e37_79b9_7f4a_7c15));
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff,
    )
}
