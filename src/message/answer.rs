//! Answers to `/heal …` and the announcements that follow from it. Lists say how much they leave out.

use std::time::Duration;

use crate::gate::Pause;
use crate::lifecycle::Outcome;
use crate::plan::{Plan, Step, StepKind, Work};
use crate::rule::{Action, Rule};
use crate::text::clip;
use crate::time::{Timestamp, say_duration, short_duration};

use super::line::Line;
use super::{Context, Said, kit, plan};

/// Characters of a list; the rest is counted.
const LIST: usize = 4_500;
/// Entries of a list that people still read.
const ENTRIES: usize = 40;

/// One remediation that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub id: String,
    pub key: String,
    pub host: String,
    /// [`crate::lifecycle::State::name`].
    pub state: &'static str,
    pub since: Timestamp,
    /// Permalink of its declaration.
    pub link: Option<String>,
}

/// What `/heal status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusView {
    pub version: String,
    pub started_at: Timestamp,
    /// `socket` or `http`.
    pub mode: String,
    /// Connections to Slack that are up, of those wanted (both 0 in http mode).
    pub connections: u32,
    pub connections_wanted: u32,
    pub rules: usize,
    pub open: Vec<Open>,
    pub pauses: Vec<Pause>,
    /// Messages per sender that its format could not read.
    pub unreadable: Vec<(String, u64)>,
    /// Alerts without a rule.
    pub without_rule: u64,
    /// Of them, those in which no role could be read.
    pub without_role: u64,
}

/// One remediation of the past, for `/heal history`; newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub at: Timestamp,
    pub key: String,
    pub host: String,
    /// `None`: not over yet, or stage observe; then `state` says so.
    pub outcome: Option<Outcome>,
    pub state: &'static str,
    pub took: Option<Duration>,
    /// Who approved or asked.
    pub by: Option<String>,
    pub link: Option<String>,
}

/// Lines as one message.
pub(super) fn said(lines: Vec<Line>) -> Said {
    let mut blocks = Vec::new();
    let mut block = Line::new();
    let mut length = 0;
    let mut text = Line::new();
    for line in lines {
        let count = line.count();
        if length > 0 && length + count + 1 > kit::TEXT {
            blocks.push(kit::section(std::mem::take(&mut block)));
            length = 0;
        }
        if length > 0 {
            block = block.ours("\n");
        }
        if !text.is_empty() {
            text = text.ours("\n");
        }
        text = text.then(line.clone());
        block = block.then(line);
        length += count + 1;
    }
    if length > 0 {
        blocks.push(kit::section(block));
    }
    Said { text: text.done(), blocks: kit::fit(blocks) }
}

/// As many as one message holds, and a last line that says how many more there are.
fn listed(mut lines: Vec<Line>, entries: Vec<Line>, more: impl FnOnce(Line) -> Line) -> Vec<Line> {
    let all = entries.len();
    let mut shown = 0;
    let mut length = 0;
    for entry in entries {
        length += entry.count() + 1;
        if shown == ENTRIES || length > LIST {
            break;
        }
        lines.push(entry);
        shown += 1;
    }
    if shown < all {
        lines.push(more(Line::new().said(format_args!("{} more", all - shown))));
    }
    lines
}

/// `/heal` and `/heal help`.
pub fn help() -> Said {
    let pause = Line::new().ours("matching rules do not run; KEY may hold ").code("*");
    let rows = [
        ("/heal pause KEY [DURATION] [reason…]", pause.ours(", and ").code("*").ours(" alone is everything")),
        ("/heal resume KEY", Line::new().ours("ends the pause")),
        ("/heal status", Line::new().ours("connections, what is open, pauses, what could not be read")),
        ("/heal rules [TEXT]", Line::new().ours("the rules in force")),
        ("/heal show KEY", Line::new().ours("all that a rule does")),
        ("/heal history [KEY]", Line::new().ours("what came of the last remediations")),
        (
            "/heal run KEY HOST",
            Line::new().ours("declares a rule on a host; by stage, somebody else approves it"),
        ),
        ("/heal why LINK", Line::new().ours("what was decided about an alert message, and why")),
    ];
    let mut lines = vec![Line::new().ours("*heal* declares in an alert's thread what it will do, does it through AWS SSM once it may, and reports there.")];
    lines.extend(rows.into_iter().map(|(how, what)| Line::new().code(how).ours("  ").then(what)));
    lines.push(
        Line::new()
            .ours("A KEY is ")
            .code("ROLE:ALERT")
            .ours(", a DURATION ")
            .code("30m")
            .ours(", ")
            .code("2h")
            .ours(" or ")
            .code("7d")
            .ours(". In a thread, where Slack has no slash commands: ")
            .code("@heal pause")
            .ours("; there KEY is the thread's rule unless you name one."),
    );
    said(lines)
}

fn pause_words(line: Line, pause: &Pause, context: &Context) -> Line {
    let line = match pause.until {
        Some(until) => line.ours(" until ").time(until, context.now),
        None => line.ours(" until somebody resumes it"),
    };
    match &pause.reason {
        Some(reason) => line.ours(": ").plain(&clip(reason, 400)),
        None => line,
    }
}

fn scope(line: Line, pattern: &str) -> Line {
    if pattern == "*" { line.ours("*everything*") } else { line.code(pattern) }
}

/// For the alert channels. `held`: what it held back that was not sent yet.
pub fn paused(pause: &Pause, held: usize, context: &Context) -> Said {
    let line =
        scope(Line::new().ours(":double_vertical_bar: ").user(&pause.by).ours(" paused "), &pause.pattern);
    let line = pause_words(line, pause, context).ours(".");
    let line = match held {
        0 => line,
        1 => line.ours(" 1 remediation that was not sent yet is held."),
        many => line.said(format_args!(" {many} remediations that were not sent yet are held.")),
    };
    said(vec![line.ours(" To end it: ").code(&format!("/heal resume {}", pause.pattern))])
}

/// For who paused. `matches`: how many rules the pattern matches now.
pub fn pause_answer(pause: &Pause, matches: usize, context: &Context) -> Said {
    let line = pause_words(scope(Line::new().ours("Paused "), &pause.pattern), pause, context).ours(".");
    said(vec![match matches {
        0 => line.ours(" No rule matches that now; ").code("/heal rules").ours(" lists them."),
        1 => line.ours(" It stops 1 rule; what runs already is not stopped."),
        many => line.said(format_args!(" It stops {many} rules; what runs already is not stopped.")),
    }])
}

/// For the alert channels.
pub fn resumed(pattern: &str, by: &str) -> Said {
    let line = scope(Line::new().ours(":arrow_forward: ").user(by).ours(" resumed "), pattern);
    said(vec![line.ours(". Later alerts run again; what was held stays held.")])
}

/// For who resumed; `ended` pauses of exactly this pattern were ended, `still` pauses match it all the same.
pub fn resume_answer(pattern: &str, ended: usize, still: &[Pause], context: &Context) -> Said {
    let line = scope(Line::new(), pattern);
    let mut lines = vec![if ended > 0 { line.ours(" is resumed.") } else { line.ours(" is not paused.") }];
    if !still.is_empty() {
        lines.push(Line::new().ours("These pauses stand:"));
        lines =
            listed(lines, still.iter().map(|one| pause_line(one, context)).collect(), |line| line.ours("."));
    }
    said(lines)
}

fn pause_line(pause: &Pause, context: &Context) -> Line {
    let line = scope(Line::new().ours("• "), &pause.pattern)
        .ours(" by ")
        .user(&pause.by)
        .ours(" since ")
        .time(pause.since, context.now);
    pause_words(line.ours(","), pause, context)
}

/// All pauses in force.
pub fn pauses(all: &[Pause], context: &Context) -> Said {
    if all.is_empty() {
        return said(vec![Line::new().ours("Nothing is paused.")]);
    }
    let entries = all.iter().map(|one| pause_line(one, context)).collect();
    said(listed(vec![Line::new().ours("*Paused*")], entries, |line| line.ours(".")))
}

/// `/heal status`.
pub fn status(view: &StatusView, context: &Context) -> Said {
    let now = context.now;
    let up = view.mode == "http" || view.connections > 0;
    let line = Line::new()
        .ours(if up { ":large_green_circle: " } else { ":red_circle: " })
        .ours("*heal* ")
        .plain(&view.version);
    let line = line.said(format_args!(", up for {}", say_duration(whole(now.since(view.started_at)))));
    let line = if view.mode == "http" {
        line.ours(", Slack by HTTP")
    } else {
        line.said(format_args!(", {} of {} connections to Slack", view.connections, view.connections_wanted))
    };
    let mut lines =
        vec![line.said(format_args!(", {} {}", view.rules, if view.rules == 1 { "rule" } else { "rules" }))];

    if view.open.is_empty() {
        lines.push(Line::new().ours("No remediation is open."));
    } else {
        let mut open: Vec<&Open> = view.open.iter().collect();
        open.sort_by_key(|one| (one.state, one.since));
        lines.push(Line::new().said(format_args!("{} open:", view.open.len())));
        let entries = open.into_iter().map(|one| {
            let line = Line::new()
                .ours("• ")
                .ours(state_words(one.state))
                .ours(" ")
                .code(&one.key)
                .ours(" on ")
                .code(&one.host);
            link(line.ours(" since ").time(one.since, now), one.link.as_deref())
        });
        lines = listed(lines, entries.collect(), |line| line.ours(" open."));
    }
    if view.pauses.is_empty() {
        lines.push(Line::new().ours("Nothing is paused."));
    } else {
        lines.push(Line::new().ours("Paused:"));
        let entries = view.pauses.iter().map(|one| pause_line(one, context)).collect();
        lines = listed(lines, entries, |line| line.ours(" pauses."));
    }
    for (sender, count) in view.unreadable.iter().filter(|(_, count)| *count > 0).take(20) {
        let line = Line::new()
            .ours(":warning: ")
            .said(format_args!("{count} {} of ", if *count == 1 { "message" } else { "messages" }));
        lines.push(line.code(sender).ours(" could not be read; the log says why."));
    }
    let line = Line::new().said(format_args!(
        "{} {} without a rule so far",
        view.without_rule,
        if view.without_rule == 1 { "alert" } else { "alerts" }
    ));
    lines.push(match view.without_role {
        0 => line.ours("."),
        some => line.said(format_args!(", {some} of them without a role that could be read.")),
    });
    said(lines)
}

fn state_words(state: &str) -> &'static str {
    match state {
        "resolving" => "looking up the instance",
        "declaring" => "being declared",
        "awaiting_approval" => "waits for Approve",
        "counting" => "about to run",
        "waiting" => "waits for its turn",
        "sending" => "starting",
        "running" => "running",
        "settling" => "ran well, waits for the alert to resolve",
        "observed" => "declared only",
        _ => "over",
    }
}

fn whole(up: Duration) -> Duration {
    Duration::from_secs(up.as_secs())
}

fn link(line: Line, url: Option<&str>) -> Line {
    match url {
        Some(url) => line.ours(" · ").link(url, "thread"),
        None => line,
    }
}

/// `/heal rules [TEXT]`: every rule whose key or `about` holds the text.
pub fn rules<'a>(all: impl Iterator<Item = &'a Rule>, filter: Option<&str>) -> Said {
    let filter = filter.map(str::to_lowercase);
    let holds = |rule: &&Rule| match &filter {
        None => true,
        Some(text) => {
            rule.key.to_string().to_lowercase().contains(text)
                || rule.about.as_ref().is_some_and(|about| about.to_lowercase().contains(text))
        }
    };
    let mut found: Vec<&Rule> = all.filter(holds).collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    if found.is_empty() {
        return said(vec![match &filter {
            Some(text) => Line::new()
                .ours("No rule has ")
                .code(text)
                .ours(" in its key or its about. ")
                .code("/heal rules")
                .ours(" lists all."),
            None => Line::new().ours("There are no rules yet."),
        }]);
    }
    let head =
        Line::new().said(format_args!("{} {}", found.len(), if found.len() == 1 { "rule" } else { "rules" }));
    let entries = found.iter().map(|rule| {
        let line = Line::new().ours("• ").code(&rule.key.to_string()).ours("  ").ours(rule.stage.as_str());
        match &rule.about {
            Some(about) => line.ours("  ").plain(&clip(about, 120)),
            None => line,
        }
    });
    said(listed(vec![head], entries.collect(), |line| {
        line.ours(": ").code("/heal rules TEXT").ours(" narrows the list.")
    }))
}

/// `/heal show KEY`: all that the rule does, what it does not say included.
pub fn show(rule: &Rule) -> Said {
    let line = |name: &'static str| Line::new().ours(name).ours(": ");
    let mut lines =
        vec![Line::new().code(&rule.key.to_string()).ours("  stage *").ours(rule.stage.as_str()).ours("*")];
    if let Some(about) = &rule.about {
        lines.push(Line::new().plain(&clip(about, 600)));
    }
    lines.push(
        line("grace")
            .said(short_duration(rule.grace))
            .ours(" · timeout ")
            .said(short_duration(rule.timeout))
            .ours(" · cooldown ")
            .said(short_duration(rule.cooldown))
            .said(format_args!(" · at once {}", rule.at_once)),
    );
    let attempts: Vec<String> =
        rule.attempts.iter().map(|one| format!("{} in {}", one.count, short_duration(one.window))).collect();
    lines.push(line("attempts").said(if attempts.is_empty() {
        "no limit".to_owned()
    } else {
        attempts.join(", ")
    }));
    lines.push(
        line("approvals")
            .said(rule.approvals)
            .ours(" within ")
            .said(short_duration(rule.approve_within))
            .ours(", by ")
            .plain(&if rule.approvers.is_empty() {
                "the config's approvers".to_owned()
            } else {
                clip(&rule.approvers.join(", "), 300)
            }),
    );
    lines.push(Line::new().ours("the alert must resolve within ").said(short_duration(rule.resolve_within)));
    if !rule.when.is_empty() {
        let when: Vec<String> = rule.when.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.push(line("when").code(&when.join(", ")));
    }
    if let Some(owner) = &rule.owner {
        lines.push(line("owner").plain(owner));
    }
    if let Some(runbook) = &rule.runbook {
        lines.push(Line::new().link(runbook, "Runbook"));
    }
    if let Some(fix) = &rule.fix {
        let fixed = line("permanent fix").plain(&clip(&fix.ticket, 200));
        lines.push(match fix.due {
            Some(due) => fixed.said(format_args!(", due {due}")),
            None => fixed,
        });
    }
    lines.push(Line::new().ours("from ").code(&rule.place.to_string()));
    let mut said = said(lines);
    let work = of(rule);
    match plan::fits(&work) {
        Ok(()) => said.blocks.extend(plan::block(&work)),
        Err(why) => said.blocks.push(kit::section(
            Line::new().ours(":warning: It cannot run: ").plain(&clip(&why, 600)).ours("."),
        )),
    }
    said.blocks = kit::fit(said.blocks);
    said
}

fn of(rule: &Rule) -> Plan {
    let work = match &rule.action {
        Action::Commands(commands) => {
            let step = |kind, text: &String| Step { kind, text: text.clone() };
            let mut steps: Vec<Step> =
                rule.confirm.iter().map(|text| step(StepKind::Confirm, text)).collect();
            steps.extend(commands.iter().map(|text| step(StepKind::Command, text)));
            steps.extend(rule.verify.iter().map(|text| step(StepKind::Verify, text)));
            Work::Shell { steps, env: rule.env.clone() }
        }
        Action::Document { name, parameters } => {
            Work::Document { name: name.clone(), parameters: parameters.clone() }
        }
        Action::Automation { name, parameters } => {
            Work::Automation { name: name.clone(), parameters: parameters.clone() }
        }
    };
    Plan { work, timeout: rule.timeout }
}

/// `/heal history [KEY]`; `all`: how many there are in the store.
pub fn history(rows: &[HistoryRow], all: usize, key: Option<&str>, context: &Context) -> Said {
    let of = |line: Line| match key {
        Some(key) => line.ours(" of ").code(key),
        None => line,
    };
    if rows.is_empty() {
        return said(vec![of(Line::new().ours("There is no remediation")).ours(" yet.")]);
    }
    let entries = rows.iter().map(|row| {
        let line = Line::new().ours("• ").time(row.at, context.now).ours(" ");
        let line = match row.outcome {
            Some(outcome) => line.bold(outcome.as_str()),
            None => line.ours(state_words(row.state)),
        };
        let line = line.ours(" ").code(&row.key).ours(" on ").code(&row.host);
        let line = match row.took {
            Some(took) => line.said(format_args!(", {}", say_duration(took))),
            None => line,
        };
        let line = match &row.by {
            Some(user) => line.ours(", by ").user(user),
            None => line,
        };
        link(line, row.link.as_deref())
    });
    let mut lines = listed(vec![of(Line::new().ours("*History*"))], entries.collect(), |line| {
        line.ours(" in this list.")
    });
    if all > rows.len() {
        lines.push(Line::new().said(format_args!("{} older ones are in the store.", all - rows.len())));
    }
    said(lines)
}

/// For the alert channels.
pub fn run_announced(key: &str, host: &str, by: &str) -> Said {
    said(vec![
        Line::new()
            .ours(":raised_hand: ")
            .user(by)
            .ours(" asked to run ")
            .code(key)
            .ours(" on ")
            .code(host)
            .ours("."),
    ])
}

/// For who asked for a run. `link`: the declaration's permalink, once there is one.
pub fn run_answer(key: &str, host: &str, link: Option<&str>) -> Said {
    let line = Line::new().ours("Declared ").code(key).ours(" on ").code(host);
    said(vec![match link {
        Some(url) => line.ours(": ").link(url, "declaration"),
        None => line.ours(" in the first alert channel."),
    }])
}

/// A run that nobody but the asker could approve.
pub fn nobody_else(key: &str) -> Said {
    said(vec![Line::new().code(key).ours(" is in stage approve, and nobody but you may approve it, so it cannot be run. Add somebody to its approvers.")])
}

/// `/heal why`, which this version does not answer yet.
pub fn why_not_yet() -> Said {
    said(vec![
        Line::new()
            .code("/heal why")
            .ours(" is not supported yet. The alert's thread says what was decided; ")
            .code("/heal history")
            .ours(" lists the remediations."),
    ])
}

/// Something failed on heal's side. `hint` says what to do.
pub fn sorry(what: &str, hint: &str) -> Said {
    said(vec![Line::new().ours(":warning: ").plain(&clip(what, 600)).ours(" ").plain(&clip(hint, 400))])
}
