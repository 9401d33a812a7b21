//! Asks the host what became of a run that SSM gave up: SSM's status is not the truth (finished runs
//! were seen as DeliveryTimedOut, amazon-ssm-agent issues 316 and 430).
//!
//! The asking is a command of its own that reads the run's folder and changes nothing, so it may be
//! lost or repeated. It is followed by the same poll as the runs and holds up none of them. A host
//! that does not answer in time leaves what SSM said, which is *unknown*.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::Ssm;
use super::fault::Fault;
use super::send::{DELIVER_WITHIN, HOST_CLOCKS, RUN_SHELL};
use super::status::{self, Standing};
use super::watch::{Seen, Watched, join};
use crate::lifecycle::Ran;
use crate::plan::{Fence, ReadOutput, RemediationId, ask_script};

/// Seconds the script may take; it reads one file.
const READ_WITHIN: u64 = 15;
/// What is not answered by then is not waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// A host that is still at it, or may still get the run, is asked again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// From the first asking on; a run that long is given up as SSM gave it up.
const ALL_WITHIN: Duration = Duration::from_secs(15 * 60);
/// Seconds from the intent to send to the sending, which sets the run's own deadline. With the
/// default timeout SSM gives a delivery up after that deadline, so that "nothing" is final.
const SENDING_TAKES: i64 = 60;

/// What was asked, by run; lost at a restart, after which it is asked anew.
#[derive(Debug, Default)]
pub(super) struct Asking(Mutex<HashMap<RemediationId, Asked>>);

#[derive(Clone, Debug)]
struct Asked {
    first: Instant,
    at: Instant,
    /// The asking under way; `None` between two.
    command_id: Option<String>,
}

impl Asking {
    fn get(&self, run: &RemediationId) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    /// `None`: it is over. Forgets as well what nobody came back for.
    fn set(&self, run: &RemediationId, asked: Option<Asked>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, asked| asked.first.elapsed() < ALL_WITHIN * 2);
        match asked {
            Some(asked) => all.insert(run.clone(), asked),
            None => all.remove(run),
        };
    }
}

impl Ssm {
    /// What `ran` is in truth, once the host has said it; [`Seen::NotYet`] until then. `ran` as it
    /// is where the host cannot be asked.
    pub(super) async fn ask(&self, run: &Watched, ran: Ran) -> Result<Seen, Fault> {
        let now = Instant::now();
        let asked = self.asking.get(&run.run);
        let first = asked.as_ref().map_or(now, |asked| asked.first);
        let waits = |at, command_id| {
            self.asking.set(&run.run, Some(Asked { first, at, command_id }));
            Ok(Seen::NotYet)
        };
        let silent = |why: &str, ran| {
            tracing::warn!(run = %run.run, "the host of run {} could not be asked about it: {why}", run.run);
            self.asking.set(&run.run, None);
            Ok(Seen::Ended(ran))
        };
        if now.duration_since(first) > ALL_WITHIN {
            return silent("it did not come to an end", ran);
        }
        let asked = match asked {
            Some(Asked { at, command_id: Some(command_id), .. }) => (at, command_id),
            Some(Asked { at, command_id: None, .. }) if at.elapsed() < AGAIN => return Ok(Seen::NotYet),
            _ => {
                return match self.send_asking(run).await {
                    Ok(command_id) => waits(now, Some(command_id)),
                    Err(Fault::Throttled { .. }) => waits(now, None),
                    Err(fault) => silent(&fault.why(), ran),
                };
            }
        };
        let (at, command_id) = asked;
        match self.answer(&Watched { command_id: command_id.clone(), ..run.clone() }).await? {
            None if at.elapsed() > ANSWER_WITHIN => silent("it did not answer", ran),
            None => Ok(Seen::NotYet),
            Some(read) => match read.end.as_deref() {
                None => silent("its answer could not be read", ran),
                Some("working" | "awaited") => waits(now, None),
                Some(_) => {
                    self.asking.set(&run.run, None);
                    Ok(Seen::Ended(told(ran, read)))
                }
            },
        }
    }

    async fn send_asking(&self, run: &Watched) -> Result<String, Fault> {
        let deadline = run.sent_at.0 / 1000 + i64::from(DELIVER_WITHIN) + HOST_CLOCKS + SENDING_TAKES;
        let fence = Fence { dir: self.fence_dir.to_string(), deadline };
        let parameters = HashMap::from([
            ("commands".to_owned(), vec![ask_script(&run.run, &fence)]),
            ("executionTimeout".to_owned(), vec![READ_WITHIN.to_string()]),
        ]);
        // It changes nothing, so it goes by the client that may repeat.
        let call = self.reads.send_command().document_name(RUN_SHELL).instance_ids(&run.instance_id);
        let call = call.comment(crate::text::clip(&format!("heal ask {}", run.run), 100));
        let call = call.set_parameters(Some(parameters)).timeout_seconds(DELIVER_WITHIN);
        let answer = call.max_concurrency("1").max_errors("0").send().await;
        let answer = answer.map_err(|error| Fault::of(&error))?;
        answer
            .command
            .and_then(|command| command.command_id)
            .ok_or_else(|| Fault::Unclear { why: "AWS answered without a command id".to_owned() })
    }

    /// What an asking printed; `None` while it is not over.
    async fn answer(&self, asking: &Watched) -> Result<Option<ReadOutput>, Fault> {
        let Some(invocation) = self.invocation(asking).await? else { return Ok(None) };
        let word = invocation.status.as_ref().map(|status| status.as_str());
        match status::of_invocation(word, invocation.status_details.as_deref()) {
            Standing::Waiting | Standing::Working => Ok(None),
            Standing::Over(_) => match invocation.command_plugins.unwrap_or_default().first() {
                Some(plugin) => Ok(Some(self.printed(asking, plugin, false).await?.read)),
                None => Ok(Some(ReadOutput::default())),
            },
        }
    }
}

/// A run as the host tells it.
fn told(mut ran: Ran, read: ReadOutput) -> Ran {
    ran.ended_as = ran.ended_as.corrected(read.end.as_deref(), read.exit);
    ran.exit = read.exit.or(ran.exit);
    if !read.steps.is_empty() {
        ran.output_cut |= !read.complete;
        ran.steps = read.steps;
    }
    join(&mut ran.output, &read.rest);
    ran
}
