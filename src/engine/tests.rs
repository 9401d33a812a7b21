//! Decisions on a real store: alerts, people and time against a small set of rules, without Slack or AWS.

mod changes;
mod clocks;
mod gates;
mod trim;
mod turns;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Decided, Ground, Opening, apply, open};
use super::hearing::Hearing;
use crate::alert::{Alert, Origin, Status};
use crate::gate::Reason;
use crate::lifecycle::{
    Effect, Ending, Final, Input, Outcome, Ran, Refused, Remediation, RemediationId, State, Trigger,
};
use crate::plan::{Platform, Target};
use crate::rule::{Defaults, RuleSet};
use crate::store::{Location, NewAlert, Store, Tx};
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_secs(1_795_410_000);

/// A remediation that runs, of a rule of one step.
pub(super) async fn running() -> Remediation {
    let mut world = World::of(AUTO);
    let id = world.alerts("NginxDown", "i-1").await;
    world.takes(&id, posted()).await;
    world.takes(&id, Input::SendAccepted { command_id: "c-1".into() }).await;
    world.get(&id).await
}

/// Rules of stage auto without grace: what is declared may run at once.
const AUTO: &str = "
web:NginxDown: {commands: [systemctl restart nginx], stage: auto, grace: 0s}
web:DiskFull: {commands: [journalctl --vacuum-size=1G], stage: auto, grace: 0s}
";

struct World {
    store: Store,
    rules: Arc<RuleSet>,
    now: Timestamp,
    opened: u32,
    hearing: Hearing,
    fence_dir: &'static str,
    /// What the last decision owes, in order.
    owed: Vec<(String, Effect)>,
    _folder: tempfile::TempDir,
}

fn rules(text: &str) -> Arc<RuleSet> {
    let files = vec![(PathBuf::from("rules.yaml"), text.as_bytes().to_vec())];
    let (rules, problems) = crate::rule::load(files, &Defaults::default());
    assert!(problems.is_empty(), "{problems:?}");
    Arc::new(rules)
}

fn target(instance: &str) -> Target {
    Target { instance_id: instance.into(), name: "a-host".into(), address: None, platform: Platform::Linux }
}

fn alert(name: &str, instance: &str) -> Alert {
    Alert {
        name: name.into(),
        status: Status::Firing,
        role: Some("web".into()),
        host: None,
        instance: None,
        instance_id: Some(instance.into()),
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: BTreeMap::new(),
    }
}

fn posted() -> Input {
    Input::DeclarationPosted { ts: "1795410001.000100".into() }
}

fn approved(user: &str) -> Input {
    Input::Approved { user: user.into() }
}

fn ended(ended_as: Final, now: Timestamp) -> Input {
    Input::RunEnded {
        ran: Ran {
            ended_as,
            exit: None,
            steps: Vec::new(),
            output: String::new(),
            output_cut: false,
            started_at: now,
            ended_at: now,
        },
    }
}

impl World {
    fn of(text: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let hearing = Hearing::new(None, Vec::new());
        let store = Store::open(&Location::Sqlite(folder.path().join("heal.db"))).unwrap();
        World {
            store,
            rules: rules(text),
            now: START,
            opened: 0,
            hearing,
            fence_dir: "/var/lib/heal",
            owed: Vec::new(),
            _folder: folder,
        }
    }

    fn ground(&self) -> Ground {
        Ground {
            rules: Arc::clone(&self.rules),
            now: self.now,
            max_age: Duration::from_secs(900),
            hearing: self.hearing.clone(),
            fence_dir: self.fence_dir.into(),
        }
    }

    fn passes(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    /// One transaction that decides something.
    async fn decides<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Tx, &Ground, &mut Decided) -> crate::store::Result<R> + Send + 'static,
    ) -> R {
        let ground = self.ground();
        let decided = self.store.transact(move |tx| {
            let mut out = Decided::default();
            let came = work(tx, &ground, &mut out)?;
            Ok((came, out))
        });
        let (came, out) = decided.await.unwrap();
        self.owed = out.owed.iter().map(|owed| (owed.remediation.0.clone(), owed.effect)).collect();
        for owed in &out.owed {
            assert!(out.changed.contains_key(&owed.remediation), "{owed:?} has nothing to be rendered from");
        }
        came
    }

    /// An alert of now, with its node known to the cache.
    async fn alerts(&mut self, name: &str, instance: &str) -> RemediationId {
        self.opens(name, instance, Trigger::Alert).await
    }

    async fn opens(&mut self, name: &str, instance: &str, trigger: Trigger) -> RemediationId {
        self.opened += 1;
        let (id, position) = (RemediationId(format!("r{}", self.opened)), self.opened);
        let alert = alert(name, instance);
        let rule = Arc::clone(self.rules.find("web", name, &alert.labels).expect("no such rule"));
        let target = target(instance);
        let origin = Origin {
            sender: "prometheus".into(),
            channel: "C0ALERTS".into(),
            ts: format!("{}.000001", self.now.as_secs()),
            at: self.now,
        };
        let by_alert = !matches!(trigger, Trigger::Person { .. });
        self.decides(move |tx, ground, out| {
            let new = NewAlert {
                origin: &origin,
                position,
                alert: &alert,
                rule: Some(&rule.key),
                received_at: ground.now,
            };
            let row = by_alert.then(|| tx.insert_alert(&new)).transpose()?;
            let opening = Opening {
                id,
                rule: &rule,
                trigger,
                alert: &alert,
                row,
                origin: &origin,
                resolves: by_alert,
                target: Some(Ok(target)),
            };
            open(tx, ground, opening, out)
        })
        .await
    }

    async fn hears(&mut self, id: &RemediationId, input: Input) -> Result<(), Refused> {
        let id = id.clone();
        let who = match &input {
            Input::Approved { user } | Input::Rejected { user } | Input::Held { user } => user.clone(),
            _ => "heal".to_owned(),
        };
        self.decides(move |tx, ground, out| apply(tx, ground, &id, &input, &who, out)).await
    }

    /// Hears something that has to be taken.
    async fn takes(&mut self, id: &RemediationId, input: Input) {
        let said = format!("{id}: {input:?}");
        self.hears(id, input).await.unwrap_or_else(|refused| panic!("{said}: {refused:?}"));
    }

    /// SSM takes the command, and it ends.
    async fn runs(&mut self, id: &RemediationId, ended_as: Final) {
        self.takes(id, Input::SendAccepted { command_id: "c".into() }).await;
        let now = self.now;
        self.takes(id, ended(ended_as, now)).await;
    }

    async fn resolves(&mut self, id: &RemediationId) {
        let id = id.clone();
        self.decides(move |tx, ground, out| {
            let (_, row) = tx.remediation(&id)?.expect("there is none");
            assert!(tx.resolve_alert(row.expect("no alert"), ground.now)?);
            apply(tx, ground, &id, &Input::Woken, "heal", out)
        })
        .await
        .unwrap();
    }

    async fn get(&self, id: &RemediationId) -> Remediation {
        let id = id.clone();
        self.store.transact(move |tx| tx.remediation(&id)).await.unwrap().expect("there is none").0
    }

    async fn state(&self, id: &RemediationId) -> State {
        self.get(id).await.state
    }

    async fn name(&self, id: &RemediationId) -> &'static str {
        self.state(id).await.name()
    }

    /// The reason of a gate that holds it or makes it wait.
    async fn reason(&self, id: &RemediationId) -> Reason {
        match self.state(id).await {
            State::Waiting { reason, .. } | State::Ended { why: Ending::Gate { reason }, .. } => reason,
            other => panic!("no gate stands against it: {other:?}"),
        }
    }

    async fn outcome(&self, id: &RemediationId) -> Outcome {
        self.get(id).await.outcome().expect("it is not over")
    }

    /// `who what: why`, a line each.
    async fn journal(&self, id: &RemediationId) -> Vec<String> {
        let id = id.clone();
        let lines = self.store.transact(move |tx| tx.journal_of(&id)).await.unwrap();
        lines.into_iter().map(|(_, what, who, why)| format!("{who} {what}: {why}")).collect()
    }

    fn owes(&self, id: &RemediationId) -> Vec<Effect> {
        self.owed.iter().filter(|(of, _)| *of == id.0).map(|(_, effect)| *effect).collect()
    }
}
