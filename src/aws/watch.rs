//! Follows the runs under way with one poll for all of them.
//!
//! A few are asked for one by one; many are read from the listing, fifty a page, and so few calls
//! beside it that a look costs pages and not commands. SSM shows a command late
//! (`InvocationDoesNotExist`, or an empty list): that is "not yet" and never an end. At the first
//! throttled call a look makes no more of them; whoever polls slows down. Where SSM does not know the
//! truth of a shell run, its host is asked (`ask`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::{CommandInvocation, CommandPlugin};
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::client::Ssm;
use super::fault::Fault;
use super::list::{DEEPEST, Listing};
use super::status::{self, Standing};
use crate::lifecycle::{Final, Ran, StepRan};
use crate::plan::{Plan, ReadOutput, RemediationId, Step, Work, read_output};
use crate::text::redact;
use crate::time::Timestamp;

/// Up to so many commands are asked for one by one.
const FEW: usize = 5;
/// Of many, so many that the listing does not show are asked for in one look.
pub(super) const UNLISTED: usize = 10;
/// Calls at a time; SSM's limits per second are not published.
pub(super) const AT_A_TIME: usize = 4;
/// Characters of `CommandPlugin.Output` (API model); as long, it may have been longer.
const PLUGIN_OUTPUT: usize = 2500;
/// Between two looks that found little new, for each page of fifty runs; and at most.
const APART: Duration = Duration::from_millis(100);
const APART_AT_MOST: Duration = Duration::from_secs(3);
/// What agents print between the two outputs in `CommandPlugin.Output` (amazon-ssm-agent, `TruncateOutput`).
const ERROR_LINE: &str = "----------ERROR-------";

/// Which of SSM's two kinds of run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Command,
    Automation,
}

impl Kind {
    pub fn of(plan: &Plan) -> Kind {
        match plan.work {
            Work::Shell { .. } | Work::Document { .. } => Kind::Command,
            Work::Automation { .. } => Kind::Automation,
        }
    }
}

/// A run that SSM has taken, or may have.
#[derive(Clone, Debug)]
pub struct Watched {
    pub run: RemediationId,
    /// `None`: the answer to its sending was lost, and SSM did not show it so far.
    pub command_id: Option<String>,
    pub kind: Kind,
    pub instance_id: String,
    pub first_sent_at: Timestamp,
    /// When its newest copy was sent.
    pub sent_at: Timestamp,
    /// Where it made its fence; `None` where that was not kept.
    pub fence_dir: Option<String>,
    /// How many were sent.
    pub copies: u32,
    /// The host is to be asked, whatever SSM says or does not say.
    pub asking: bool,
    /// Those of a shell rule, by which its output is read; all its runs may share them. `None`: it runs a
    /// document.
    pub steps: Option<Arc<[Step]>>,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// SSM does not show it yet, or the host does not have it.
    NotYet,
    /// The host is at it; an Automation's steps so far.
    Progress(Vec<StepRan>),
    /// SSM shows what was thought lost.
    Found {
        command_id: String,
    },
    Ended(Ran),
    /// SSM does not know what became of it, and the host could not be asked; why.
    Silent(String),
    /// It could not be seen this time; why, and whether that may pass by itself.
    Problem {
        why: String,
        passing: bool,
    },
}

/// One look at many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub looked: usize,
    /// How many of them have ended.
    pub over: usize,
    /// Those that had no turn: the listing was not read as far as them, and others were asked for.
    pub passed_over: Vec<RemediationId>,
    /// Pages of the listing that were read.
    pub pages: usize,
    /// SSM asks for fewer calls.
    pub throttled: bool,
}

/// How fast a poll may go on: one for all runs, so that it slows down as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Looks that were throttled, about in a row; it falls faster than it grows.
    throttled: u32,
    depth: u32,
}

impl Pace {
    /// How long the next look waits at least. While runs end one after the other it does not wait; a
    /// listing that shows little new is not read so often.
    pub fn after(&mut self, ssm: &Ssm, sight: &Sight) -> Duration {
        self.throttled = if sight.throttled { self.throttled.saturating_add(1) } else { self.throttled / 2 };
        // What this look did not get at stands further down, where the next one looks.
        self.depth = match sight.passed_over.is_empty() {
            true => 0,
            false => (self.depth + u32::from(!sight.throttled)).min(DEEPEST),
        };
        let pages = u32::try_from((sight.looked / 50).max(sight.pages)).unwrap_or(u32::MAX);
        let apart =
            if sight.over * 2 >= sight.looked { Duration::ZERO } else { (APART * pages).min(APART_AT_MOST) };
        ssm.rest(self.throttled).max(apart)
    }

    /// How deep the next look reads the listing.
    pub fn depth(&self) -> u32 {
        self.depth
    }
}

impl From<Fault> for Seen {
    fn from(fault: Fault) -> Seen {
        let passing = !matches!(fault, Fault::Refused { .. });
        Seen::Problem { why: fault.why(), passing }
    }
}

/// One look under way: what was seen is told at once, so that of thousands of runs no more is in memory
/// than one page shows.
pub(super) struct Look {
    now: Timestamp,
    told: mpsc::Sender<(RemediationId, Seen)>,
    throttled: AtomicBool,
    over: AtomicUsize,
}

impl Look {
    pub(super) fn is_throttled(&self) -> bool {
        self.throttled.load(Ordering::Relaxed)
    }

    async fn tell(&self, run: &Watched, seen: Result<Seen, Fault>) {
        if matches!(seen, Err(Fault::Throttled { .. })) {
            self.throttled.store(true, Ordering::Relaxed);
        }
        let seen = seen.unwrap_or_else(Seen::from);
        match seen {
            Seen::NotYet => return,
            Seen::Ended(_) => drop(self.over.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        // Who went away sees it at the next look.
        drop(self.told.send((run.run.clone(), seen)).await);
    }
}

impl Ssm {
    /// How `running` stand, told one by one; of which nothing is told it is [`Seen::NotYet`]. `now` ends a
    /// run that SSM gives no time for. Of those `besides` only the end is told, where the listing that is
    /// read for the others shows it. `depth` ([`Pace::depth`]): the listing is read twice as far for each, as
    /// what is looked for stands below others' commands.
    pub async fn observe(
        &self,
        (running, besides): (&[Arc<Watched>], &[Arc<Watched>]),
        depth: u32,
        now: Timestamp,
        told: mpsc::Sender<(RemediationId, Seen)>,
    ) -> Sight {
        let look = Look { now, told, throttled: AtomicBool::new(false), over: AtomicUsize::new(0) };
        let mut unlisted: HashMap<&str, &Watched> =
            running.iter().filter_map(|run| Some((command(run)?, &**run))).collect();
        let (mut asked, mut listing) = (usize::MAX, Listing::default());
        if unlisted.len() > FEW {
            asked = UNLISTED;
            let mut besides = besides.iter().filter_map(|run| Some((command(run)?, &**run))).collect();
            listing = self.list(&look, depth, &mut unlisted, &mut besides).await;
        }
        // Which of the unlisted are asked for is drawn, so that each has its turn.
        let mut unlisted: Vec<&Watched> = unlisted.into_values().collect();
        fastrand::shuffle(&mut unlisted);
        let passed_over = unlisted.split_off(unlisted.len().min(asked));
        match &listing.fault {
            Some(Fault::Throttled { .. }) => look.throttled.store(true, Ordering::Relaxed),
            Some(fault) => tracing::warn!("commands could not be listed: {}", fault.why()),
            None => {}
        }
        let others = running.iter().map(|run| &**run).filter(|run| command(run).is_none());
        stream::iter(unlisted.into_iter().chain(others))
            .for_each_concurrent(AT_A_TIME, |run| self.see(&look, run))
            .await;
        if let Some(fault) = &listing.fault {
            // Nobody could see them, so no deadline of theirs may pass for that.
            for run in &passed_over {
                look.tell(run, Err(fault.clone())).await;
            }
        }
        let passed_over = match listing.whole {
            true => Vec::new(),
            false => passed_over.into_iter().map(|run| run.run.clone()).collect(),
        };
        Sight {
            looked: running.len(),
            over: look.over.into_inner(),
            passed_over,
            pages: listing.pages,
            throttled: look.throttled.into_inner(),
        }
    }

    pub(super) async fn see_listed(&self, look: &Look, run: &Watched, listed: CommandInvocation) {
        let seen = self.see_invocation(run, listed, look).await;
        look.tell(run, seen).await;
    }

    /// Sees one run by calls of its own.
    async fn see(&self, look: &Look, run: &Watched) {
        if look.is_throttled() {
            return look.tell(run, Err(Fault::Throttled { retry_after: Duration::ZERO })).await;
        }
        let seen = match (run.kind, &run.command_id) {
            (Kind::Automation, Some(id)) => self.see_automation(run, id, look.now).await,
            (Kind::Command, Some(_)) => self.see_command(run, look).await,
            (Kind::Command, None) => self.ask(run, None).await,
            (Kind::Automation, None) => Ok(Seen::NotYet),
        };
        look.tell(run, seen).await;
    }

    async fn see_command(&self, run: &Watched, look: &Look) -> Result<Seen, Fault> {
        match self.invocation(run).await? {
            Some(invocation) => self.see_invocation(run, invocation, look).await,
            None => Ok(Seen::NotYet),
        }
    }

    async fn see_invocation(
        &self,
        run: &Watched,
        invocation: CommandInvocation,
        look: &Look,
    ) -> Result<Seen, Fault> {
        let word = invocation.status.as_ref().map(|status| status.as_str());
        match status::of_invocation(word, invocation.status_details.as_deref()) {
            // Boxed, as below: of the many that are listed few need a call, and what waits should be small.
            Standing::Waiting | Standing::Working if run.asking => Box::pin(self.ask(run, None)).await,
            Standing::Waiting => Ok(Seen::NotYet),
            Standing::Working => Ok(Seen::Progress(Vec::new())),
            // What it printed is fetched when SSM has time for it.
            Standing::Over(_) if look.is_throttled() => Err(Fault::Throttled { retry_after: Duration::ZERO }),
            Standing::Over(ended_as) => {
                let (ran, told) = self.ran(run, ended_as, invocation, look.now).await?;
                if is_doubtful(run, &ran, told) {
                    return Box::pin(self.ask(run, Some(ran))).await;
                }
                Ok(Seen::Ended(ran))
            }
        }
    }

    /// One command's invocation; `None` while SSM does not show it.
    pub(super) async fn invocation(&self, run: &Watched) -> Result<Option<CommandInvocation>, Fault> {
        let Some(command_id) = &run.command_id else { return Ok(None) };
        let call = self.sends.list_command_invocations().command_id(command_id).details(true);
        match call.instance_id(&run.instance_id).send().await {
            Ok(answer) => {
                let mut found = answer.command_invocations.unwrap_or_default().into_iter();
                Ok(found.find(|found| found.instance_id.as_ref().is_none_or(|id| *id == run.instance_id)))
            }
            Err(error) if not_shown(error.code()) => Ok(None),
            Err(error) => Err(Fault::of(&error)),
        }
    }

    /// What an ended invocation came to, with its output fetched whole where the listing cut it; and
    /// whether a shell run's verdict was in it.
    async fn ran(
        &self,
        run: &Watched,
        ended_as: Final,
        invocation: CommandInvocation,
        now: Timestamp,
    ) -> Result<(Ran, bool), Fault> {
        let plugins = invocation.command_plugins.unwrap_or_default();
        let millis = |time: Option<&aws_sdk_ssm::primitives::DateTime>| {
            time.and_then(|time| time.to_millis().ok()).map(Timestamp)
        };
        let started =
            plugins.iter().filter_map(|plugin| millis(plugin.response_start_date_time.as_ref())).min();
        let ended =
            plugins.iter().filter_map(|plugin| millis(plugin.response_finish_date_time.as_ref())).max();
        let started_at = started.unwrap_or(run.sent_at);
        let mut ran = Ran {
            ended_as,
            exit: None,
            steps: Vec::new(),
            output: String::new(),
            output_cut: false,
            started_at,
            ended_at: ended.unwrap_or(now).max(started_at),
        };
        // -1 means that the plugin did not start (API model: `ResponseCode`).
        let exit = |plugin: &CommandPlugin| (plugin.response_code != -1).then_some(plugin.response_code);
        ran.exit =
            plugins.iter().filter_map(exit).find(|code| *code != 0).or_else(|| plugins.iter().find_map(exit));
        let several = plugins.len() > 1;
        let mut told = false;
        for plugin in &plugins {
            let printed = self.printed(run, plugin, several).await?;
            ran.output_cut |= printed.cut;
            if run.steps.is_some() {
                let read = printed.read;
                told |= read.end.is_some();
                ran.output_cut |= !read.complete && !read.steps.is_empty();
                ran.ended_as = ran.ended_as.corrected(read.end.as_deref(), read.exit);
                ran.steps.extend(read.steps);
                join(&mut ran.output, &read.rest);
                join(&mut ran.output, &redact(&printed.stderr));
            } else if several {
                let mut output = printed.read.rest;
                join(&mut output, &redact(&printed.stderr));
                ran.steps.push(StepRan {
                    kind: None,
                    name: plugin.name.clone().unwrap_or_default(),
                    exit: exit(plugin),
                    status: plugin
                        .status_details
                        .clone()
                        .or(plugin.status.as_ref().map(|word| word.as_str().to_owned())),
                    millis: None,
                    output,
                });
            } else {
                join(&mut ran.output, &printed.read.rest);
                join(&mut ran.output, &redact(&printed.stderr));
            }
        }
        Ok((ran, told))
    }

    /// What one plugin printed: from the listing where that is certainly all, else by a call of its own.
    pub(super) async fn printed(
        &self,
        run: &Watched,
        plugin: &CommandPlugin,
        several: bool,
    ) -> Result<Printed, Fault> {
        let listed = plugin.output.as_deref().unwrap_or_default();
        let (stdout, stderr) = split_error(listed);
        let read = read_output(run.steps.as_deref(), stdout);
        let whole = listed.chars().count() < PLUGIN_OUTPUT;
        if whole && read.complete && !listed.is_empty() {
            return Ok(Printed { read, stderr: stderr.to_owned(), cut: false });
        }
        let mut call = self
            .sends
            .get_command_invocation()
            .set_command_id(run.command_id.clone())
            .instance_id(&run.instance_id);
        if several {
            call = call.set_plugin_name(plugin.name.clone());
        }
        match Box::pin(call.send()).await {
            Ok(answer) => {
                let stdout = answer.standard_output_content.unwrap_or_default();
                let stderr = answer.standard_error_content.unwrap_or_default();
                let cut = stdout.chars().count() >= crate::plan::STDOUT_KEPT;
                Ok(Printed { read: read_output(run.steps.as_deref(), &stdout), stderr, cut })
            }
            Err(error) => match Fault::of(&error) {
                // The run ended all the same; without this permission the head of its output has to do.
                Fault::Refused { why } => {
                    tracing::warn!(run = %run.run, "the output of run {} could not be read: {why}", run.run);
                    Ok(Printed { read, stderr: stderr.to_owned(), cut: !whole })
                }
                fault => Err(fault),
            },
        }
    }

    async fn see_automation(&self, run: &Watched, id: &str, now: Timestamp) -> Result<Seen, Fault> {
        let call = self.sends.get_automation_execution().automation_execution_id(id);
        let execution = match call.send().await {
            Ok(answer) => answer.automation_execution,
            Err(error) if not_shown(error.code()) => None,
            Err(error) => return Err(Fault::of(&error)),
        };
        let Some(execution) = execution else { return Ok(Seen::NotYet) };
        let mut found = execution.step_executions.unwrap_or_default();
        if execution.step_executions_truncated {
            found = self.all_steps(id).await?;
        }
        let steps = found.into_iter().map(automation_step).collect();
        let word = execution.automation_execution_status.as_ref().map_or("", |status| status.as_str());
        let millis = |time: Option<aws_sdk_ssm::primitives::DateTime>| {
            time.and_then(|time| time.to_millis().ok()).map(Timestamp)
        };
        match status::of_automation(word) {
            Standing::Waiting => Ok(Seen::NotYet),
            Standing::Working => Ok(Seen::Progress(steps)),
            Standing::Over(ended_as) => {
                let started_at = millis(execution.execution_start_time).unwrap_or(run.sent_at);
                Ok(Seen::Ended(Ran {
                    ended_as,
                    exit: None,
                    steps,
                    output: redact(&execution.failure_message.unwrap_or_default()),
                    output_cut: false,
                    started_at,
                    ended_at: millis(execution.execution_end_time).unwrap_or(now).max(started_at),
                }))
            }
        }
    }

    async fn all_steps(&self, id: &str) -> Result<Vec<aws_sdk_ssm::types::StepExecution>, Fault> {
        let call = self.sends.describe_automation_step_executions().automation_execution_id(id);
        let mut pages = call.into_paginator().page_size(50).send();
        let mut steps = Vec::new();
        while let Some(page) = pages.next().await {
            steps.extend(page.map_err(|error| Fault::of(&error))?.step_executions.unwrap_or_default());
        }
        Ok(steps)
    }
}

/// The output of one plugin.
pub(super) struct Printed {
    pub read: ReadOutput,
    stderr: String,
    cut: bool,
}

/// The id of a command that SSM has taken.
fn command(run: &Watched) -> Option<&str> {
    run.command_id.as_deref().filter(|_| run.kind == Kind::Command)
}

/// Whether the host knows better than SSM what became of a shell run.
fn is_doubtful(run: &Watched, ran: &Ran, told: bool) -> bool {
    if run.steps.is_none() {
        return false;
    }
    match ran.ended_as {
        // Another copy was at it still.
        Final::AtWork => true,
        // Nothing ran of this copy; of another one it may have.
        Final::Unfenced
        | Final::Undeliverable
        | Final::Terminated
        | Final::AccessDenied
        | Final::InvalidPlatform => run.copies > 1,
        Final::Late | Final::Interrupted => false,
        // Killed, or its agent was: the verdict comes first in what a run prints. Without it a success is none
        // either: a confirm that failed ends with 0 too.
        Final::Success | Final::Failed | Final::ExecutionTimedOut | Final::Cancelled => !told,
        Final::DeliveryTimedOut | Final::TimedOut | Final::Other(_) => true,
    }
}

/// SSM answers so for about a second after the sending (boto3 issue 2701).
fn not_shown(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("InvocationDoesNotExist" | "InvalidCommandId" | "AutomationExecutionNotFoundException")
    )
}

/// Standard output and standard error of `CommandPlugin.Output`.
fn split_error(output: &str) -> (&str, &str) {
    match output.split_once(&format!("\n{ERROR_LINE}\n")) {
        Some((stdout, stderr)) => (stdout, stderr),
        None => match output.strip_prefix(ERROR_LINE) {
            Some(stderr) => ("", stderr),
            None => (output, ""),
        },
    }
}

pub(super) fn join(text: &mut String, more: &str) {
    if !more.trim().is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(more);
    }
}

fn automation_step(step: aws_sdk_ssm::types::StepExecution) -> StepRan {
    let millis =
        |time: Option<aws_sdk_ssm::primitives::DateTime>| time.and_then(|time| time.to_millis().ok());
    let began = millis(step.execution_start_time);
    let ended = millis(step.execution_end_time);
    let took = began.zip(ended).and_then(|(began, ended)| u64::try_from(ended.saturating_sub(began)).ok());
    StepRan {
        kind: None,
        name: step.step_name.unwrap_or_default(),
        exit: None,
        status: step.step_status.map(|status| status.as_str().to_owned()),
        millis: took,
        output: redact(&step.failure_message.unwrap_or_default()),
    }
}
