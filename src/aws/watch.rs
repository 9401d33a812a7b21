//! Follows the runs under way with one poll for all of them.
//!
//! A few are asked for one by one; many are read from the listing, fifty a page, and so few calls
//! beside it that a look costs pages and not commands. SSM shows a command late
//! (`InvocationDoesNotExist`, or an empty list): that is "not yet" and never an end. At the first
//! throttled call a look makes no more of them; whoever polls slows down. Where SSM does not know the
//! truth of a shell run, its host is asked (`ask`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey, CommandInvocation, CommandPlugin};
use futures_util::stream::{self, StreamExt};

use super::client::Ssm;
use super::fault::Fault;
use super::status::{self, Standing};
use crate::lifecycle::{Final, Ran, StepRan};
use crate::plan::{Plan, ReadOutput, RemediationId, Work, read_output};
use crate::text::redact;
use crate::time::Timestamp;

/// Up to so many commands are asked for one by one.
const FEW: usize = 5;
/// Of many, so many that the listing does not show are asked for in one look.
const UNLISTED: usize = 10;
/// Calls at a time; SSM's limits per second are not published.
const AT_A_TIME: usize = 4;
/// Characters of `CommandPlugin.Output` (API model); as long, it may have been longer.
const PLUGIN_OUTPUT: usize = 2500;
/// Between two looks that found little new, for each page of fifty runs; and at most.
const APART: Duration = Duration::from_millis(100);
const APART_AT_MOST: Duration = Duration::from_secs(3);
/// SSM's clock and ours may differ that much.
const CLOCKS: Duration = Duration::from_secs(300);
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
    pub plan: Plan,
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
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// In the order of the runs.
    pub seen: Vec<(RemediationId, Seen)>,
    /// SSM asks for fewer calls.
    pub throttled: bool,
}

/// How fast a poll may go on: one for all runs, so that it slows down as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Looks that were throttled, about in a row; it falls faster than it grows.
    throttled: u32,
}

impl Pace {
    /// How long the next look waits at least, after one that ended `over` of `looked` runs. While runs
    /// end one after the other it does not wait; a listing that shows little new is not read so often.
    pub fn after(&mut self, ssm: &Ssm, sight: &Sight) -> Duration {
        self.throttled = if sight.throttled { self.throttled.saturating_add(1) } else { self.throttled / 2 };
        let looked = sight.seen.len();
        let over = sight.seen.iter().filter(|(_, seen)| matches!(seen, Seen::Ended(_))).count();
        let pages = u32::try_from(looked / 50).unwrap_or(u32::MAX);
        let apart = if over * 2 >= looked { Duration::ZERO } else { (APART * pages).min(APART_AT_MOST) };
        ssm.rest(self.throttled).max(apart)
    }
}

impl From<Fault> for Seen {
    fn from(fault: Fault) -> Seen {
        let passing = !matches!(fault, Fault::Refused { .. });
        Seen::Problem { why: fault.why(), passing }
    }
}

impl Ssm {
    /// How each of `running` stands. `now` ends a run that SSM gives no time for.
    pub async fn observe(&self, running: &[Watched], now: Timestamp) -> Sight {
        let commands: Vec<&Watched> = running.iter().filter(|run| key(run).is_some()).collect();
        let throttled = AtomicBool::new(false);
        let mut listed = HashMap::new();
        let mut unlisted = usize::MAX;
        if commands.len() > FEW {
            let (found, fault) = self.list(&commands).await;
            listed = found;
            unlisted = UNLISTED;
            match fault {
                Some(Fault::Throttled { .. }) => throttled.store(true, Ordering::Relaxed),
                Some(fault) => tracing::warn!("commands could not be listed: {}", fault.why()),
                None => {}
            }
        }
        let mut order: Vec<usize> = (0..running.len()).collect();
        // Which of the unlisted are asked for is drawn, so that each has its turn.
        fastrand::shuffle(&mut order);
        let mut looks = Vec::with_capacity(running.len());
        for at in order {
            let Some(run) = running.get(at) else { continue };
            let invocation = key(run).and_then(|key| listed.remove(&key));
            let alone = key(run).is_some() && invocation.is_none();
            let skipped = alone && unlisted == 0;
            if alone {
                unlisted = unlisted.saturating_sub(1);
            }
            let throttled = &throttled;
            looks.push(async move {
                if skipped {
                    return (at, Seen::NotYet);
                }
                if throttled.load(Ordering::Relaxed) && invocation.is_none() {
                    return (at, Fault::Throttled { retry_after: Duration::ZERO }.into());
                }
                let seen = match (run.kind, &run.command_id) {
                    (Kind::Automation, Some(id)) => self.see_automation(run, id, now).await,
                    (Kind::Command, Some(_)) => self.see_command(run, invocation, throttled, now).await,
                    (Kind::Command, None) => self.ask(run, None).await,
                    (Kind::Automation, None) => Ok(Seen::NotYet),
                };
                if matches!(seen, Err(Fault::Throttled { .. })) {
                    throttled.store(true, Ordering::Relaxed);
                }
                (at, seen.unwrap_or_else(Seen::from))
            });
        }
        let mut seen: Vec<(usize, Seen)> = stream::iter(looks).buffered(AT_A_TIME).collect().await;
        seen.sort_by_key(|(at, _)| *at);
        let named = |(at, seen): (usize, Seen)| Some((running.get(at)?.run.clone(), seen));
        Sight { seen: seen.into_iter().filter_map(named).collect(), throttled: throttled.into_inner() }
    }

    /// The invocations of many commands, out of the listing, as far as it could be read. It ends after
    /// a few times the pages that heal's own commands fill: in a busy account they may be few among others'.
    async fn list(&self, runs: &[&Watched]) -> (HashMap<(String, String), CommandInvocation>, Option<Fault>) {
        let since = runs.iter().map(|run| run.first_sent_at).min().unwrap_or_default().minus(CLOCKS);
        let mut found = HashMap::new();
        let after =
            match CommandFilter::builder().key(CommandFilterKey::InvokedAfter).value(since.rfc3339()).build()
            {
                Ok(after) => after,
                Err(error) => return (found, Some(Fault::Refused { why: error.to_string() })),
            };
        let mut missing: std::collections::HashSet<_> = runs.iter().filter_map(|run| key(run)).collect();
        let call = self.sends.list_command_invocations().filters(after).details(true);
        let mut pages = call.into_paginator().page_size(50).send();
        for _ in 0..runs.len().div_ceil(50) * 3 + 2 {
            let Some(page) = pages.next().await else { break };
            let page = match page {
                Ok(page) => page,
                Err(error) => return (found, Some(Fault::of(&error))),
            };
            for invocation in page.command_invocations.unwrap_or_default() {
                let ids = (invocation.command_id.clone(), invocation.instance_id.clone());
                if let (Some(command), Some(instance)) = ids
                    && missing.remove(&(command.clone(), instance.clone()))
                {
                    found.insert((command, instance), invocation);
                }
            }
            if missing.is_empty() {
                break;
            }
        }
        (found, None)
    }

    async fn see_command(
        &self,
        run: &Watched,
        listed: Option<CommandInvocation>,
        throttled: &AtomicBool,
        now: Timestamp,
    ) -> Result<Seen, Fault> {
        let invocation = match listed {
            Some(invocation) => invocation,
            None => match self.invocation(run).await? {
                Some(invocation) => invocation,
                None => return Ok(Seen::NotYet),
            },
        };
        let word = invocation.status.as_ref().map(|status| status.as_str());
        match status::of_invocation(word, invocation.status_details.as_deref()) {
            Standing::Waiting | Standing::Working if run.asking => self.ask(run, None).await,
            Standing::Waiting => Ok(Seen::NotYet),
            Standing::Working => Ok(Seen::Progress(Vec::new())),
            // What it printed is fetched when SSM has time for it.
            Standing::Over(_) if throttled.load(Ordering::Relaxed) => {
                Err(Fault::Throttled { retry_after: Duration::ZERO })
            }
            Standing::Over(ended_as) => {
                let (ran, told) = self.ran(run, ended_as, invocation, now).await?;
                if is_doubtful(run, &ran, told) {
                    return self.ask(run, Some(ran)).await;
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
            if matches!(run.plan.work, Work::Shell { .. }) {
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
        let read = read_output(&run.plan, stdout);
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
        match call.send().await {
            Ok(answer) => {
                let stdout = answer.standard_output_content.unwrap_or_default();
                let stderr = answer.standard_error_content.unwrap_or_default();
                let cut = stdout.chars().count() >= crate::plan::STDOUT_KEPT;
                Ok(Printed { read: read_output(&run.plan, &stdout), stderr, cut })
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

/// By what the listing names a command that SSM has taken.
fn key(run: &Watched) -> Option<(String, String)> {
    let command_id = run.command_id.clone().filter(|_| run.kind == Kind::Command)?;
    Some((command_id, run.instance_id.clone()))
}

/// Whether the host knows better than SSM what became of a shell run.
fn is_doubtful(run: &Watched, ran: &Ran, told: bool) -> bool {
    if !matches!(run.plan.work, Work::Shell { .. }) {
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
