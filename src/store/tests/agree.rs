//! Decisions drawn at random, on SQLite and on PostgreSQL by one and by several replicas: whatever shares a
//! commit, is read ahead or known from before, all see the same world.

use std::sync::Mutex;

use super::*;
use crate::lifecycle::{Effect, Final, Ran};

const ROUNDS: usize = 12;
const DECISIONS: usize = 120;
const RULES: [&str; 3] = ["web:A", "web:B", "db:A"];
const INSTANCES: [&str; 3] = ["i-1", "i-2", "i-3"];
const THREADS: [&str; 4] =
    ["1795410000.000001", "1795410000.000002", "1795410000.000003", "1795410000.000004"];

/// One decision, drawn before it is known on which store it is made.
#[derive(Clone, Debug)]
struct Drawn {
    /// Places in the lists; each use takes them modulo.
    numbers: [usize; 6],
    now: Timestamp,
    what: What,
    /// Says no after all that it did.
    fails: bool,
    /// Its needs are told beforehand.
    foretold: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Open,
    Step,
    Owe,
    Settle,
    Note,
    Look,
    Resolve,
    Ask,
}

fn draw(rng: &mut fastrand::Rng, number: usize) -> Drawn {
    let all = [
        What::Open,
        What::Open,
        What::Step,
        What::Step,
        What::Step,
        What::Step,
        What::Owe,
        What::Settle,
        What::Note,
        What::Look,
        What::Look,
        What::Resolve,
        What::Ask,
    ];
    Drawn {
        numbers: std::array::from_fn(|_| rng.usize(..1000)),
        now: at(i64::try_from(number).unwrap()),
        what: all[rng.usize(..all.len())],
        fails: rng.usize(..8) == 0,
        foretold: rng.usize(..3) > 0,
    }
}

impl Drawn {
    fn of<T: Clone>(&self, place: usize, list: &[T]) -> T {
        list[self.numbers[place] % list.len()].clone()
    }

    /// Mostly what comes next in this state.
    fn input(&self, state: &State) -> Input {
        let ran = Ran {
            ended_as: Final::Success,
            exit: Some(0),
            steps: Vec::new(),
            output: String::new(),
            output_cut: false,
            started_at: self.now,
            ended_at: self.now,
        };
        match (self.numbers[2] % 8, state) {
            (0, _) => Input::Held { user: "U1".into() },
            (1, _) => Input::SendRefused { why: "no".into() },
            (2, _) => Input::SendThrottled { retry_after: Duration::from_secs(1) },
            (_, State::Resolving { .. }) => found(self.of(1, &INSTANCES)),
            (_, State::Declaring { .. }) => {
                Input::DeclarationPosted { ts: format!("{}.000100", self.now.as_secs()) }
            }
            (_, State::Sending { .. }) => Input::SendAccepted { command_id: "c-1".into() },
            (_, State::Running { .. }) => Input::RunEnded { ran },
            _ => Input::Woken,
        }
    }

    fn needs(&self, ids: &[String]) -> Needs {
        let (rule, instance) = (self.of(0, &RULES), self.of(1, &INSTANCES));
        let needs = Needs::default()
            .note(format!("n{}", self.numbers[3] % 3))
            .thread("C0ALERTS", self.of(3, &THREADS));
        let needs =
            needs.standing(&key(rule), instance, "web").delivery(format!("d{}", self.numbers[4] % 20));
        match ids.is_empty() {
            true => needs,
            false => needs.remediation(&id(&self.of(0, ids))),
        }
    }

    /// What it sees and does, in words that are the same on every database.
    fn run(&self, tx: &mut dyn Tx, ids: &[String], new: &str) -> Result<String> {
        let said = match self.what {
            What::Open => self.open(tx, new)?,
            What::Step if !ids.is_empty() => self.step(tx, &self.of(0, ids))?,
            What::Owe if !ids.is_empty() => {
                let owed = tx.owe(&id(&self.of(0, ids)), self.of(2, &[Effect::React, Effect::Report]))?;
                format!("owed {:?} of {}", owed.effect, owed.remediation)
            }
            What::Settle => match owed(tx)?.as_slice() {
                [] => "nothing to settle".to_owned(),
                all => {
                    let done = self.of(1, all);
                    tx.settle(&done)?;
                    format!("settled {:?} of {}", done.effect, done.remediation)
                }
            },
            What::Note => {
                let name = format!("n{}", self.numbers[3] % 3);
                let before = tx.note(&name)?;
                tx.set_note(&name, &self.numbers[5].to_string())?;
                format!("{name} was {before:?}")
            }
            What::Resolve => {
                let alert = alert("NginxDown", self.of(1, &INSTANCES), Status::Firing);
                let over = tx.resolve_alerts("prometheus", &alert.identity(), self.now)?;
                let mut woken = Vec::new();
                for row in &over {
                    woken.extend(tx.open_remediations_of_alert(*row)?.into_iter().map(|id| id.0));
                }
                woken.sort();
                format!("{} over, of {woken:?}", over.len())
            }
            What::Ask | What::Step | What::Owe | What::Look => self.look(tx, ids)?,
        };
        match self.fails {
            true => Err(Error::Database("it says no".to_owned())),
            false => Ok(said),
        }
    }

    fn open(&self, tx: &mut dyn Tx, new: &str) -> Result<String> {
        if !tx.take_delivery(&format!("d{}", self.numbers[4] % 20), self.now)? {
            return Ok("taken before".to_owned());
        }
        let mut opened = opened(new, self.of(0, &RULES), self.now);
        opened.origin = origin(self.of(3, &THREADS), self.now);
        opened.alert = alert("NginxDown", self.of(1, &INSTANCES), Status::Firing);
        let position = u32::try_from(self.numbers[5] % 50).unwrap();
        let kept = tx.keep_alert(
            &NewAlert {
                origin: &opened.origin,
                position,
                alert: &opened.alert,
                rule: Some(&opened.rule_key),
                received_at: self.now,
            },
            "n1",
        )?;
        let line =
            Record { at: self.now, remediation: Some(&opened.id), what: "opened", who: "heal", why: "" };
        let owed = tx.keep_new(&Arc::new(opened.clone()), Some(kept.id), &[line], &[Effect::Declare])?;
        Ok(format!("opened {}, {:?}, {}, owes {}", opened.id, kept.resolved_at, kept.noted, owed.len()))
    }

    fn step(&self, tx: &mut dyn Tx, this: &str) -> Result<String> {
        let Some(subject) = tx.subject(&id(this))? else { return Ok(format!("{this} is not there")) };
        let before = subject.remediation;
        let instance = match &before.target {
            Some(target) => target.instance_id.clone(),
            None => self.of(1, &INSTANCES).to_owned(),
        };
        let standing = tx.standing(&before, &instance, Some(at(0)))?;
        let seen = format!("{standing:?} {:?}", subject.resolved_at);
        let facts = Facts {
            at_once: 1,
            role_running: standing.role_running,
            under_way: standing.under_way.clone(),
            instance_taken: standing.instance_taken.clone(),
            ..calm(self.now.plus(Duration::from_secs(60)))
        };
        let Ok(step) = lifecycle::step(&before, &self.input(&before.state), &facts) else {
            return Ok(format!("{this} refuses; {seen}"));
        };
        let (next, effects) = (Arc::new(step.next), step.effects);
        let line =
            Record { at: self.now, remediation: Some(&next.id), what: "stepped", who: "heal", why: "" };
        let owed = tx.keep_step(&next, Some(&line), &effects)?;
        let mut woken = Vec::new();
        for what in [format!("instance:{instance}"), format!("role:{}", next.role())] {
            woken.extend(tx.waiting_for(&what, 8)?);
        }
        Ok(format!("{this} is {}, owes {:?}, wakes {woken:?}; {seen}", next.state.name(), owed.len()))
    }

    fn look(&self, tx: &mut dyn Tx, ids: &[String]) -> Result<String> {
        let thread = tx.remediations_of("C0ALERTS", self.of(3, &THREADS))?;
        let thread: Vec<&str> = thread.iter().map(|this| this.id.0.as_str()).collect();
        let (rule, instance) = (key(self.of(0, &RULES)), self.of(1, &INSTANCES));
        let nobody = id("nobody");
        let direct = (
            tx.under_way(&rule, instance, &nobody)?,
            tx.instance_taken(instance, &nobody)?.is_some(),
            tx.role_running("web", &nobody)?,
            tx.last_acted(&rule, instance)?,
            tx.attempts_since(&rule, instance, at(0))?,
        );
        let mut like = opened("nobody", self.of(0, &RULES), self.now);
        like.alert.role = Some("web".to_owned());
        let standing = tx.standing(&like, instance, Some(at(0)))?;
        // What is known must be what the rows say.
        assert_eq!(standing.under_way, direct.0);
        assert_eq!(standing.instance_taken.is_some(), direct.1);
        assert_eq!(standing.role_running, direct.2);
        assert_eq!((standing.last_acted, &standing.attempts), (direct.3, &direct.4));
        let due = tx.due_remediations(self.now.plus(Duration::from_secs(3600)), 5);
        // Which are due is the claimer's to see, and each replica has its own.
        due?;
        let one = match ids.is_empty() {
            true => None,
            false => tx.remediation(&id(&self.of(0, ids)))?.map(|(this, alert)| (this, alert.is_some())),
        };
        Ok(format!("{thread:?} {direct:?} {one:?}"))
    }
}

/// All that is owed by anybody; the order of the list is not the contract's.
fn owed(tx: &mut dyn Tx) -> Result<Vec<Owed>> {
    let mut all = tx.owed()?;
    all.sort_by_key(|owed| (owed.remediation.clone(), owed.effect));
    Ok(all)
}

/// Makes the decisions one after another on these replicas by turns, some at a time so that they share
/// commits; what each came to.
async fn decide(replicas: &[Store], decisions: &[Drawn], together: usize) -> Vec<String> {
    let ids: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut came = Vec::new();
    for (round, some) in decisions.chunks(together).enumerate() {
        let store = &replicas[round % replicas.len()];
        // Ids that every store knows by then, whatever shares a commit.
        let known = ids.lock().unwrap().clone();
        let mut asked = Vec::new();
        for (place, drawn) in some.iter().cloned().enumerate() {
            let (known, new) = (known.clone(), format!("r{round}n{place}"));
            let needs = if drawn.foretold { drawn.needs(&known) } else { Needs::default() };
            asked.push((new.clone(), store.with(needs).transact(move |tx| drawn.run(tx, &known, &new))));
        }
        for (new, asked) in asked {
            let said = match asked.await {
                Ok(said) => said,
                Err(Error::Claimed(_)) => "claimed".to_owned(),
                Err(error) => error.to_string(),
            };
            if said.starts_with("opened") {
                ids.lock().unwrap().push(new);
            }
            came.push(said);
        }
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_drawn_at_random_see_the_same_world_on_every_database() {
    let seed = std::env::var("HEAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut waited, mut claimed, mut shared) = (0, 0, 0);
    for round in 0..ROUNDS {
        // By several replicas each sees only what it has claimed as owed, so there nothing is settled.
        let several = round % 3 == 2;
        let decisions: Vec<Drawn> = (0..DECISIONS)
            .map(|number| draw(&mut rng, number))
            .filter(|drawn| !several || !matches!(drawn.what, What::Settle))
            .collect();
        let together = [1, 7, 40][round % 3];
        let file = InFile::new();
        let expected = decide(&[file.open()], &decisions, together).await;
        let server = InPostgres::new();
        let replicas: Vec<Store> = (0..if several { 3 } else { 1 }).map(|_| server.open()).collect();
        let came = decide(&replicas, &decisions, together).await;
        for (number, (expected, came)) in expected.iter().zip(&came).enumerate() {
            let drawn = &decisions[number];
            assert_eq!(came, expected, "HEAL_SEED={seed}: round {round}, decision {number}: {drawn:?}");
        }
        waited += came.iter().filter(|said| said.contains("is waiting")).count();
        claimed += came.iter().filter(|said| *said == "claimed").count();
        shared += usize::from(together > 1);
    }
    assert!(shared > 0 && waited > 0 && claimed > 0, "HEAL_SEED={seed} draws little: {waited}, {claimed}");
}
