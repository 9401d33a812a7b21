//! The siege: replicas of the real binary on one store, killed at random instants while alerts come in, and
//! what must be true when it is over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heal::sandbox::fleet::{Fleet, Options as Hosts};
use heal::sandbox::workspace::{Message as Said, Options, Workspace};

use super::place::furnish;
use super::replica::Replica;
use super::stream::{self, FAILS, LONG, Message, Stream, UNFENCED};
use super::told::{Told, missed_lists, told};
use crate::story::CHANNEL;

/// After the last kill everything goes on and ends within this, and a little more for each alert. On an idle
/// machine it takes a few seconds.
const QUIET_WITHIN: (Duration, Duration) = (Duration::from_secs(90), Duration::from_millis(100));

/// What is besieged, and how hard.
pub struct Siege {
    pub replicas: usize,
    /// Of the replicas' common store; `None`: an SQLite file of its own.
    pub store: Option<String>,
    /// Alerts in all, spread over all kills.
    pub alerts: usize,
    pub kills: usize,
    /// From being ready to the kill, in milliseconds; short ones are commoner.
    pub lives: Range<u64>,
    /// Of a hundred kills, those before the process is ready.
    pub in_start: u8,
}

/// What was seen, for the closing line.
#[derive(Default)]
struct Figures {
    starts: Vec<Duration>,
    early: usize,
}

impl Siege {
    /// Runs it; panics with all that is wrong at its end.
    pub async fn lay(self) {
        let seed = std::env::var("HEAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        say(&format!("siege: HEAL_SEED={seed}"));
        let began = Instant::now();
        let mut rng = fastrand::Rng::with_seed(seed);
        let workspace = Workspace::start(Options::default()).unwrap();
        workspace.deliver_twice_every(7);
        let mut options = Hosts::of(stream::hosts(self.alerts));
        options.documents.push(stream::document());
        let fleet = Fleet::start(options).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let own = format!("sqlite://{}", dir.path().join("heal.db").display());
        let store = self.store.as_deref().unwrap_or(&own);
        let more = "slack: {channels: [\"#alerts\"]}\ndefaults: {at_once: 50}";
        furnish(dir.path(), store, &stream::rules(), more);
        let mut replicas: Vec<Replica> = (0..self.replicas)
            .map(|number| Replica::new(&format!("replica-{number}"), dir.path(), &workspace, &fleet))
            .collect();
        let mut stream = Stream::new(&workspace, self.alerts, rng.fork());
        let mut figures = Figures::default();
        for replica in &mut replicas {
            replica.start();
            figures.starts.push(replica.ready().await);
        }

        let (killed, come) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let killing = self.kill(&mut replicas, &mut rng, (&killed, &come), &mut figures);
        let raging = async {
            let mut pace = fastrand::Rng::with_seed(seed);
            while killed.load(Ordering::Relaxed) < self.kills || stream.come() < self.alerts {
                // As many alerts as kills so far allow, so that every kill falls into a stream of them.
                let share = self.alerts * (killed.load(Ordering::Relaxed) + 1) / self.kills;
                if stream.come() < share.min(self.alerts) && pace.u8(..3) == 0 {
                    stream.post();
                    come.store(stream.come(), Ordering::Relaxed);
                }
                stream.look();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::join!(killing, raging);
        let raged = began.elapsed();

        let last = Instant::now();
        let patience = QUIET_WITHIN.0 + QUIET_WITHIN.1 * u32::try_from(self.alerts).unwrap();
        while !stream.is_over() {
            stream.look();
            if last.elapsed() > patience {
                panic!("HEAL_SEED={seed}: not everything came to its end:\n{}", left(&stream, &replicas));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let quiet = last.elapsed();
        // An orderly end lets nothing undone, and the next start finds nothing to do.
        for replica in &mut replicas {
            replica.terminate().await;
        }
        replicas[0].start();
        replicas[0].ready().await;
        replicas[0].terminate().await;

        let verdict = Verdict::of(&stream, &workspace, &fleet);
        figures.starts.sort();
        say(&format!(
            "siege: {} kills ({} before it was ready), {} alerts in {} messages, {} remediations ({}), healed {} of {} that could be, {} missed; ready after {:?} (median; slowest {:?}); {:.1} s, quiet {:.1} s after the last kill",
            self.kills,
            figures.early,
            self.alerts,
            stream.messages.len(),
            verdict.outcomes.values().sum::<usize>(),
            verdict
                .outcomes
                .iter()
                .map(|(name, count)| format!("{count} {name}"))
                .collect::<Vec<_>>()
                .join(", "),
            verdict.healed,
            verdict.to_be_healed,
            verdict.missed,
            figures.starts[figures.starts.len() / 2],
            figures.starts.last().unwrap(),
            raged.as_secs_f64(),
            quiet.as_secs_f64(),
        ));
        let mut wrong = verdict.wrong;
        for replica in &replicas {
            let log = replica.log();
            let errors = log.lines().filter(|line| line.contains("\"level\":\"ERROR\""));
            wrong.extend(errors.map(|line| format!("logged: {line}")));
        }
        assert!(wrong.is_empty(), "HEAL_SEED={seed}: {} wrong\n{}", wrong.len(), wrong.join("\n"));
        fleet.stop();
        workspace.stop();
    }

    /// Kills one after another, and starts each again at once; at the end all are ready.
    async fn kill(
        &self,
        replicas: &mut [Replica],
        rng: &mut fastrand::Rng,
        (killed, come): (&AtomicUsize, &AtomicUsize),
        figures: &mut Figures,
    ) {
        for number in 0..self.kills {
            // The kills are spread over the stream too, however slowly the machine lets it come.
            while come.load(Ordering::Relaxed) < self.alerts * number / self.kills {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let victim = rng.usize(..replicas.len());
            let victim = &mut replicas[victim];
            // Squared, so that short lives are the commoner ones.
            let draw = rng.f64().powi(2);
            if rng.u8(..100) < self.in_start {
                let mut usual = figures.starts.clone();
                usual.sort();
                tokio::time::sleep(usual[usual.len() / 2].mul_f64(draw)).await;
                figures.early += 1;
            } else {
                figures.starts.push(victim.ready().await);
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of less than a minute")]
                let life = self.lives.start as f64 + (self.lives.end - self.lives.start) as f64 * draw;
                tokio::time::sleep(Duration::from_secs_f64(life / 1000.0)).await;
            }
            victim.kill();
            killed.fetch_add(1, Ordering::Relaxed);
            victim.start();
        }
        for replica in replicas {
            replica.ready().await;
        }
    }
}

/// What is true at the end.
#[derive(Default)]
pub struct Verdict {
    /// Declared remediations by their outcome, and those that were only told why not.
    pub outcomes: BTreeMap<&'static str, usize>,
    pub missed: usize,
    /// Alerts that were drawn to be healed, and how many of them were.
    pub to_be_healed: usize,
    pub healed: usize,
    pub wrong: Vec<String>,
}

/// Of what is drawn to be healed at least one of so many is; the others may be unknown, or waited for too long.
const HEALED_OF: usize = 2;
/// Of all alerts at most one of so many is only listed as missed: it resolved while no bot was there.
const MISSED_OF: usize = 5;

impl Verdict {
    pub fn of(stream: &Stream, workspace: &Workspace, fleet: &Fleet) -> Verdict {
        let mut verdict = Verdict::default();
        let top = workspace.messages(CHANNEL);
        let lists = missed_lists(&top);
        let mut ran: HashMap<String, usize> = HashMap::new();
        for run in fleet.runs() {
            *ran.entry(run.comment).or_default() += 1;
        }
        for message in &stream.messages {
            let told = workspace.view(|view| told(view, message, &lists));
            verdict.judge(message, &told, fleet, &ran);
        }
        verdict.judge_all(&top, stream, workspace);
        verdict.judge_share(stream.alerts);
        verdict
    }

    /// Whether enough was done: to every single alert "missed" or "why not" is an answer.
    fn judge_share(&mut self, alerts: usize) {
        if self.healed * HEALED_OF < self.to_be_healed {
            self.wrong.push(format!("only {} of {} were healed", self.healed, self.to_be_healed));
        }
        if self.missed * MISSED_OF > alerts {
            self.wrong.push(format!("{} of {alerts} were missed", self.missed));
        }
    }

    /// One message and what was told and done about it.
    fn judge(&mut self, message: &Message, told: &Told, fleet: &Fleet, ran: &HashMap<String, usize>) {
        let mut wrong = Vec::new();
        self.missed += told.missed;
        if told.count() != message.hosts.len() {
            wrong.push(format!("{} of {} alerts answered", told.count(), message.hosts.len()));
        }
        let reactions = usize::from(!told.remediations.is_empty());
        if told.reactions.len() != reactions {
            wrong.push(format!("{reactions} reaction was expected: {:?}", told.reactions));
        }
        let mut healed = 0;
        for (id, one) in &told.remediations {
            let (declared, reported, why_not) =
                (one.declarations.len(), one.reports.len(), one.why_nots.len());
            let outcome = one.outcome().unwrap_or("why not");
            *self.outcomes.entry(outcome).or_default() += 1;
            healed += usize::from(outcome == "healed");
            if declared > 1 || reported > 1 || why_not > 1 || !one.others.is_empty() {
                wrong.push(format!("{id}: said twice: {one:?}"));
            }
            if declared + why_not == 0 {
                wrong.push(format!("{id}: neither declared nor said why not: {one:?}"));
            }
            // Whatever reached a host is reported; and only that, or what may have reached it.
            let has_run = ran.contains_key(&format!("heal {id}"));
            if has_run != (reported == 1) && outcome != "unknown" {
                wrong.push(format!("{id}: {outcome}, run: {has_run}, reports: {reported}"));
            }
            let fits = match message.rule {
                FAILS => matches!(outcome, "failed" | "cancelled" | "why not"),
                UNFENCED => matches!(outcome, "healed" | "unknown" | "cancelled" | "why not"),
                _ => matches!(outcome, "healed" | "cancelled" | "why not"),
            };
            if !fits {
                wrong.push(format!("{id}: ended {outcome}"));
            }
        }
        let mut marks = 0;
        for host in &message.hosts {
            let root = fleet.host(host).unwrap().root().join("var/lib/marks").join(message.rule);
            let here = std::fs::read_to_string(root).unwrap_or_default().lines().count();
            if here > 1 {
                wrong.push(format!("{here} side effects on {host}"));
            }
            marks += here;
        }
        if message.is_to_be_healed() {
            self.to_be_healed += message.hosts.len();
            self.healed += healed;
        }
        if marks < healed {
            wrong.push(format!("{healed} healed, {marks} side effects"));
        }
        for what in wrong {
            let mut text = format!("{} on {:?} ({}): {what}", message.rule, message.hosts, message.ts);
            let _ = write!(text, "\n    {told:?}");
            self.wrong.push(text);
        }
    }

    /// What holds for everything that was said.
    fn judge_all(&mut self, top: &[Said], stream: &Stream, workspace: &Workspace) {
        let mut said = HashSet::new();
        let alerts = stream.messages.iter().flat_map(|message| workspace.thread(CHANNEL, &message.ts));
        for message in top.iter().cloned().chain(alerts) {
            let payload = &message.raw["metadata"]["event_payload"];
            if payload.is_object() && !said.insert(payload.to_string()) {
                self.wrong.push(format!("said twice: {payload}: {}", message.read()));
            }
            // A file is found by its name instead.
            let is_file = message.raw["files"].is_array();
            if message.bot_id.as_deref() == Some("B0HEAL") && !payload.is_object() && !is_file {
                self.wrong.push(format!("not to be found again: {}", message.read()));
            }
        }
        let mut names = HashSet::new();
        for file in workspace.files().into_iter().filter(|file| file.channel.is_some()) {
            if !names.insert(file.name.clone()) {
                self.wrong.push(format!("uploaded twice: {}", file.name));
            }
        }
        let long = stream.messages.iter().filter(|message| message.rule == LONG);
        let reports = |message: &Message| {
            let told = workspace.view(|view| told(view, message, &[]));
            told.remediations.values().map(|one| one.reports.len()).sum::<usize>()
        };
        let reports: usize = long.map(reports).sum();
        if reports != names.len() {
            self.wrong.push(format!("{reports} long reports, {} files", names.len()));
        }
    }
}

/// What has no end yet.
pub fn left(stream: &Stream, replicas: &[Replica]) -> String {
    let mut text = String::new();
    for (message, told) in stream.open() {
        let _ = writeln!(text, "{message:?}\n    {told:?}");
    }
    for replica in replicas {
        let _ = writeln!(text, "--- warnings\n{}\n--- the log's end\n{}", replica.warnings(), replica.tail());
    }
    text
}

/// To standard error itself: also of a test that passes.
pub fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Cause: a bot that holds or misses everything passed, as each alert had its answer.
#[test]
fn a_bot_that_heals_little_or_misses_much_does_not_pass() {
    let shares = |healed, missed| {
        let mut verdict = Verdict { healed, to_be_healed: 200, missed, ..Verdict::default() };
        verdict.judge_share(280);
        verdict.wrong
    };
    assert!(shares(100, 56).is_empty());
    assert_eq!(shares(99, 56), ["only 99 of 200 were healed"]);
    assert_eq!(shares(200, 57), ["57 of 280 were missed"]);
}
