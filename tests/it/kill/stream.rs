//! The stream of alerts: which there are, when they come, who presses Approve, and when they resolve.
//!
//! Every pair of rule and host comes once, so each remediation has marks of its own on its host, and
//! several rules on one host have to wait for each other.

use std::time::{Duration, Instant};

use heal::sandbox::fleet::{Content, Document, HostSpec};
use heal::sandbox::workspace::{Posting, View, Workspace};

use super::told::{Told, missed_since, told};
use crate::story::alert::attachments;
use crate::story::{CHANNEL, SRE};

/// What the rules of the stream are called; each leaves one line in `/var/lib/marks/NAME` for each run.
pub const RULES: [&str; 7] = ["AutoNow", "AutoSoon", "Approved", "Narrow", "Failing", "Long", "Document"];
const ROLE: &str = "web";
/// A document has no fence on the host.
pub const UNFENCED: &str = "Document";
/// Runs with an exit code of its own.
pub const FAILS: &str = "Failing";
/// Prints more than a message holds.
pub const LONG: &str = "Long";

/// So many open alerts are read at each look; more would take the machine from the bots.
const AT_ONCE: usize = 64;

/// The rule files' text.
pub fn rules() -> String {
    let mark = |name: &str| format!("mkdir -p /var/lib/marks; echo ran >> /var/lib/marks/{name}");
    let shell = |name: &str, more: &str| format!("web:{name}:\n  commands: [\"{}\"]\n{more}\n", mark(name));
    [
        shell("AutoNow", "  stage: auto\n  grace: 0s\n  confirm: \"! test -e /var/lib/marks/AutoNow\"\n  verify: test -e /var/lib/marks/AutoNow"),
        shell("AutoSoon", "  stage: auto\n  grace: 1s"),
        shell("Approved", "  stage: approve"),
        shell("Narrow", "  stage: auto\n  grace: 0s\n  at_once: 2"),
        format!("web:{FAILS}:\n  commands: [\"{}\", \"exit 3\"]\n  stage: auto\n  grace: 0s\n", mark(FAILS)),
        format!("web:{LONG}:\n  commands: [\"{}\", \"seq 1 2000\"]\n  stage: auto\n  grace: 0s\n", mark(LONG)),
        format!("web:{UNFENCED}: {{document: Test-Cure, stage: auto, grace: 0s}}\n"),
    ]
    .concat()
}

pub fn document() -> Document {
    let script = format!("mkdir -p /var/lib/marks; echo ran >> /var/lib/marks/{UNFENCED}");
    Document {
        name: "Test-Cure".to_owned(),
        about: "leaves a mark".to_owned(),
        parameters: Vec::new(),
        content: Content::Command { step: "cure".to_owned(), script },
    }
}

/// So many hosts that every alert has a pair of rule and host of its own.
pub fn hosts(alerts: usize) -> Vec<HostSpec> {
    (0..alerts.div_ceil(RULES.len())).map(|number| HostSpec::new(&format!("web-{number}"), ROLE)).collect()
}

/// One message of the monitoring: an alert on one host, or on a few.
#[derive(Clone, Debug)]
pub struct Message {
    pub ts: String,
    pub rule: &'static str,
    pub hosts: Vec<String>,
    posted: Instant,
    /// It resolves then, whatever heal does; else when heal has done what it can.
    early: Option<Duration>,
    resolved: bool,
    pressed: Option<Instant>,
}

impl Message {
    /// As it was drawn: its alerts stay until heal has done what it can, and the rule cures.
    pub fn is_to_be_healed(&self) -> bool {
        self.early.is_none() && self.rule != FAILS
    }

    /// Nothing more will come of it: what is told is the end, and it is shown.
    pub fn is_over(&self, told: &Told) -> bool {
        self.resolved && told.is_over(self)
    }
}

/// The monitoring, and the person who approves.
pub struct Stream {
    workspace: Workspace,
    rng: fastrand::Rng,
    /// Still to come.
    pairs: Vec<(&'static str, String)>,
    pub messages: Vec<Message>,
    /// Of `messages`, those not seen to be over.
    open: Vec<usize>,
    pub alerts: usize,
    /// The lists of missed alerts so far, out of so many calls.
    missed: (Vec<String>, usize),
    presses: tokio::task::JoinSet<()>,
}

impl Stream {
    pub fn new(workspace: &Workspace, alerts: usize, mut rng: fastrand::Rng) -> Stream {
        let hosts = hosts(alerts);
        let mut pairs: Vec<_> =
            hosts.iter().flat_map(|host| RULES.map(|rule| (rule, host.name.clone()))).collect();
        rng.shuffle(&mut pairs);
        pairs.truncate(alerts);
        Stream {
            workspace: workspace.clone(),
            rng,
            pairs,
            messages: Vec::new(),
            open: Vec::new(),
            alerts,
            missed: (Vec::new(), 0),
            presses: tokio::task::JoinSet::new(),
        }
    }

    /// Alerts that came so far.
    pub fn come(&self) -> usize {
        self.alerts - self.pairs.len()
    }

    pub fn is_over(&self) -> bool {
        self.pairs.is_empty() && self.open.is_empty()
    }

    /// What is not over yet, for whoever reads the failure.
    pub fn open(&self) -> Vec<(&Message, Told)> {
        let all = self.open.iter().map(|at| &self.messages[*at]);
        let missed = &self.missed.0;
        all.map(|message| (message, self.workspace.view(|view| told(view, message, missed)))).collect()
    }

    /// The next alert is posted; one of ten comes with a second host in the same message.
    pub fn post(&mut self) {
        let Some((rule, host)) = self.pairs.pop() else { return };
        let mut hosts = vec![host];
        if self.rng.u8(..10) == 0
            && let Some(at) = self.pairs.iter().position(|(other, _)| *other == rule)
        {
            hosts.push(self.pairs.swap_remove(at).1);
        }
        let ts = self.say(true, rule, &hosts);
        let early = (self.rng.u8(..8) == 0).then(|| Duration::from_millis(self.rng.u64(0..1200)));
        self.open.push(self.messages.len());
        let posted = Instant::now();
        self.messages.push(Message { ts, rule, hosts, posted, early, resolved: false, pressed: None });
    }

    fn say(&self, firing: bool, rule: &str, hosts: &[String]) -> String {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let posting = Posting::of_sender("B0PROM", CHANNEL, "");
        let posting = posting.attachments(attachments(firing, ROLE, rule, &hosts));
        self.workspace.post_message(posting).unwrap()
    }

    /// Looks at open alerts, each in its turn: presses Approve where it is to be pressed, lets resolve what
    /// is due, and forgets what is over.
    pub fn look(&mut self) {
        while self.presses.try_join_next().is_some() {}
        let (lists, seen) = &mut self.missed;
        lists.extend(self.workspace.view(|view| {
            let from = std::mem::replace(seen, view.calls().len());
            missed_since(view, from)
        }));
        let turn = self.open.len().min(AT_ONCE);
        let mut over = Vec::new();
        let first: Vec<_> = self.open[..turn].to_vec();
        for at in first {
            let message = &self.messages[at];
            let told = self.workspace.view(|view: &View| told(view, message, &self.missed.0));
            let age = message.posted.elapsed();
            let due = message.early.map_or_else(|| told.has_run(message), |early| age >= early);
            if due && !message.resolved {
                self.say(false, message.rule, &message.hosts.clone());
                self.messages[at].resolved = true;
            } else if message.is_over(&told) {
                over.push(at);
            } else if !told.buttons.is_empty()
                && message.pressed.is_none_or(|at| at.elapsed() > Duration::from_millis(700))
            {
                // As a person does: again after a while, when nothing has come of it.
                self.messages[at].pressed = Some(Instant::now());
                for ts in told.buttons {
                    let workspace = self.workspace.clone();
                    self.presses.spawn(async move {
                        // A press into a gap is lost, and pressed again.
                        drop(workspace.click(SRE, CHANNEL, &ts, "Approve").await);
                    });
                }
            }
        }
        self.open.rotate_left(turn);
        self.open.retain(|at| !over.contains(at));
    }
}
