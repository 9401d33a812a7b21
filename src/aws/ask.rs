//! Asks the host what became of a run of which SSM does not know the truth: one whose sending was
//! lost, that SSM gave up (finished runs were seen as DeliveryTimedOut, amazon-ssm-agent issues 316
//! and 430), or that ended without the verdict its script prints (agent restarted, script killed).
//!
//! The asking is a command of its own that reads the run's folder and changes nothing, so it may be
//! lost or repeated. It is followed by the same poll as the runs and holds up none of them. How long
//! it goes on is the lifecycle's to say; a host that does not answer leaves what SSM said.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::Ssm;
use super::fault::Fault;
use super::send::{DELIVER_WITHIN, RUN_SHELL};
use super::status::{self, Standing};
use super::watch::{Seen, Watched, join};
use crate::lifecycle::{Final, Ran};
use crate::plan::{Fence, ReadOutput, RemediationId, ask_script};

/// Seconds the script may take; it reads a few files.
const READ_WITHIN: u64 = 15;
/// A host that is at it for long is asked again after this, in the end.
const AT_LAST: Duration = Duration::from_secs(60);
/// Askings without an answer, a minute each, before the host counts as silent: it may be starting anew.
const UNANSWERED: u32 = 3;
/// What nobody came back for is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What was asked, by run; lost at a restart, after which it is asked anew.
#[derive(Debug, Default)]
pub(super) struct Asking(Mutex<HashMap<RemediationId, Asked>>);

#[derive(Clone, Debug)]
struct Asked {
    /// When the asking was sent, or the last one was over.
    at: Instant,
    /// The asking under way; `None` between two.
    command_id: Option<String>,
    /// The wait before the next one.
    pause: Duration,
    unanswered: u32,
}

impl Asking {
    fn get(&self, run: &RemediationId) -> Option<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    fn set(&self, run: &RemediationId, asked: Asked) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, asked| asked.at.elapsed() < FORGOTTEN);
        all.insert(run.clone(), asked);
    }

    /// The asking is over.
    fn forget(&self, run: &RemediationId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }
}

impl Ssm {
    /// What became of the run in truth, once the host has said it; [`Seen::NotYet`] until then.
    /// `ran` is what SSM says of it, if anything: it stands where the host cannot be asked.
    pub(super) async fn ask(&self, run: &Watched, ran: Option<Ran>) -> Result<Seen, Fault> {
        let pause = self.timing.ask_again;
        let Some(mut asked) = self.asking.get(&run.run) else {
            let first = Asked { at: Instant::now(), command_id: None, pause, unanswered: 0 };
            return self.ask_now(run, ran, first).await;
        };
        let Some(command_id) = asked.command_id.clone() else {
            if asked.at.elapsed() < asked.pause {
                return Ok(Seen::NotYet);
            }
            return self.ask_now(run, ran, asked).await;
        };
        let asking = Watched { command_id: Some(command_id), ..run.clone() };
        let (at, answer) = (asked.at, self.answer(&asking).await?);
        let again = |mut asked: Asked| {
            (asked.at, asked.command_id) = (Instant::now(), None);
            asked.pause = (asked.pause * 2).min(AT_LAST.max(pause));
            self.asking.set(&run.run, asked);
            Ok(Seen::NotYet)
        };
        let read = match answer {
            Answer::None if at.elapsed() < self.timing.answer_within => return Ok(Seen::NotYet),
            Answer::None | Answer::Undelivered if asked.unanswered + 1 < UNANSWERED => {
                asked.unanswered += 1;
                return again(asked);
            }
            Answer::None | Answer::Undelivered => return Ok(self.silent(run, ran, "it did not answer")),
            Answer::Read(read) => read,
        };
        asked.unanswered = 0;
        // What SSM has ended for good does not come to the host any more, unless in another copy.
        let may_come = run.copies > 1 || ran.as_ref().is_none_or(|ran| ran.ended_as.is_given_up());
        match read.end.as_deref() {
            None => Ok(self.silent(run, ran, "its answer could not be read")),
            Some("working") => again(asked),
            Some("awaited") if may_come => again(asked),
            Some(_) => {
                self.asking.forget(&run.run);
                Ok(Seen::Ended(told(run, ran, read)))
            }
        }
    }

    async fn ask_now(&self, run: &Watched, ran: Option<Ran>, mut asked: Asked) -> Result<Seen, Fault> {
        asked.at = Instant::now();
        self.asking.set(&run.run, asked.clone());
        if run.command_id.is_none() {
            // SSM may show by now what it did not show before.
            match self.look_up(&run.instance_id, &run.run, run.first_sent_at).await {
                Ok(Some(command_id)) => {
                    self.asking.forget(&run.run);
                    return Ok(Seen::Found { command_id });
                }
                // Who may not look may ask all the same.
                Ok(None) | Err(Fault::Refused { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
        match self.send_asking(run).await {
            Ok(command_id) => {
                asked.command_id = Some(command_id);
                self.asking.set(&run.run, asked);
                Ok(Seen::NotYet)
            }
            // The node is stopped or its agent is down, which may pass.
            Err(Fault::Refused { why }) if why.contains("InvalidInstanceId") => {
                asked.unanswered += 1;
                if asked.unanswered >= UNANSWERED {
                    return Ok(self.silent(run, ran, &why));
                }
                self.asking.set(&run.run, asked);
                Ok(Seen::NotYet)
            }
            Err(Fault::Refused { why }) => Ok(self.silent(run, ran, &why)),
            Err(fault) => Err(fault),
        }
    }

    fn silent(&self, run: &Watched, ran: Option<Ran>, why: &str) -> Seen {
        tracing::warn!(run = %run.run, "the host of run {} could not be asked about it: {why}", run.run);
        self.asking.forget(&run.run);
        match ran {
            Some(ran) => Seen::Ended(ran),
            None => Seen::Silent(format!("the host could not be asked about it: {why}")),
        }
    }

    async fn send_asking(&self, run: &Watched) -> Result<String, Fault> {
        let dir = run.fence_dir.as_deref().unwrap_or(&self.fence_dir);
        let fence = Fence::of_copy(dir, run.sent_at);
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

    /// What an asking printed, if it is over.
    async fn answer(&self, asking: &Watched) -> Result<Answer, Fault> {
        let Some(invocation) = self.invocation(asking).await? else { return Ok(Answer::None) };
        let word = invocation.status.as_ref().map(|status| status.as_str());
        match status::of_invocation(word, invocation.status_details.as_deref()) {
            Standing::Waiting | Standing::Working => Ok(Answer::None),
            Standing::Over(ended_as) => {
                let plugins = invocation.command_plugins.unwrap_or_default();
                let read = match plugins.first() {
                    Some(plugin) => self.printed(asking, plugin, false).await?.read,
                    None => ReadOutput::default(),
                };
                let unheard = read.end.is_none() && ended_as != Final::Success;
                Ok(if unheard { Answer::Undelivered } else { Answer::Read(read) })
            }
        }
    }
}

/// What an asking came to.
enum Answer {
    None,
    /// It is over, and the host said nothing.
    Undelivered,
    Read(ReadOutput),
}

/// A run as the host tells it.
fn told(run: &Watched, ran: Option<Ran>, read: ReadOutput) -> Ran {
    let mut ran = ran.unwrap_or_else(|| Ran {
        ended_as: Final::TimedOut,
        exit: None,
        steps: Vec::new(),
        output: String::new(),
        output_cut: false,
        started_at: run.sent_at,
        ended_at: run.sent_at,
    });
    ran.ended_as = ran.ended_as.corrected(read.end.as_deref(), read.exit);
    // The code of an asking that found no end is the asking's own.
    if !matches!(read.end.as_deref(), Some("interrupted" | "awaited" | "nothing")) {
        ran.exit = read.exit.or(ran.exit);
    }
    if !read.steps.is_empty() {
        // SSM's times are those of its waiting; the host measured the steps.
        let took = read.steps.iter().filter_map(|step| step.millis).sum();
        ran.ended_at = ran.started_at.plus(Duration::from_millis(took));
        ran.output_cut |= !read.complete;
        ran.steps = read.steps;
    }
    join(&mut ran.output, &read.rest);
    ran
}
