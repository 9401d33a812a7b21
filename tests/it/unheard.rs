//! Commits that count and of which nobody hears, as the connection broke and the database stayed away for too
//! long to be asked: what they decided is found out and done once. And one that was heard of too late.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use heal::engine::Clock;
use heal::sandbox::fleet::HostSpec;
use heal::sandbox::postgres::{Database, Server};
use heal::store::{Cut, Moment, Verdict};

use crate::story::{BOUND, LEAD, Mode, Plot, SRE, Story, tell};

const IDLE: u8 = 0;
const ARMED: u8 = 1;
const DONE: u8 = 2;

/// A story on a database of its own, and one commit of it.
struct Watched {
    story: Story,
    database: Arc<Database>,
    state: Arc<AtomicU8>,
}

impl Watched {
    /// Once it is armed, `then` is asked after the first commit after which `so` finds a row.
    async fn of(plot: Plot, so: &'static str, then: impl Fn() -> Verdict + Send + Sync + 'static) -> Watched {
        let database = Arc::new(Server::shared().unwrap().database().unwrap());
        let mut story = plot.store(&database.url()).start(Mode::Socket).await;
        for part in ["could not commit", "failed in the store"] {
            story.allow_error(part);
        }
        story.stop_bot().await;
        let state = Arc::new(AtomicU8::new(IDLE));
        let (asked, seen) = (Arc::clone(&database), Arc::clone(&state));
        story.cut = Cut::new(move |moment| {
            if moment == Moment::Before
                || seen.load(Ordering::SeqCst) != ARMED
                || asked.sql(so).unwrap().is_empty()
            {
                return Verdict::GoOn;
            }
            seen.store(DONE, Ordering::SeqCst);
            then()
        });
        story.start_bot().await;
        Watched { story, database, state }
    }

    fn arm(&self) {
        self.state.store(ARMED, Ordering::SeqCst);
    }

    /// Awaits that nothing is owed, and, once armed, that it happened.
    async fn settles(&self) {
        let owed = || !self.database.sql("SELECT 1 FROM outbox").unwrap().is_empty();
        let over = async {
            while self.state.load(Ordering::SeqCst) == ARMED || owed() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(BOUND, over).await.is_err() {
            panic!("it does not come about.\n{}", self.story.transcript());
        }
    }
}

fn document() -> Plot {
    let rules = "db:ReplicaLag: {document: Acme-RestartReplica, parameters: {Mode: [soft]}}\n";
    Plot::new(rules).host(HostSpec::new("db-1", "db").replica("replica"))
}

/// Cause: what was claimed by the commit looked as if another replica had just decided it, and was posted
/// (or sent) without a look whether the dead one had done so.
#[test]
fn what_was_taken_over_by_a_commit_nobody_heard_of_is_looked_for_before_it_is_done_again() {
    tell(async {
        let claimed = "SELECT 1 FROM outbox WHERE effect = 'declare' AND claimed_by <> 1000000";
        let mut at = Watched::of(document(), claimed, || Verdict::Unheard).await;
        let alert = at.story.alert("db", "ReplicaLag", "db-1");
        at.story.declaration(&alert, "Approve").await;
        at.story.reaction(&alert, "raised_hand").await;
        at.settles().await;
        // As a replica leaves it that dies between Slack's answer and its commit.
        let dead = "INSERT INTO replicas (number) OVERRIDING SYSTEM VALUE VALUES (1000000);
            UPDATE remediations SET claimed_by = 1000000;
            INSERT INTO outbox (remediation, effect, generation, claimed_by)
            SELECT id, 'declare', nextval('generations'), 1000000 FROM remediations";
        at.arm();
        at.database.sql(dead).unwrap();
        at.settles().await;
        let declaration = at.story.declaration(&alert, "Approve").await;
        at.story.click(LEAD, &declaration, "Reject").await;
        at.story.declaration(&alert, "*rejected*").await;
        assert_eq!(at.story.read_thread(&alert, 1).await.len(), 1);
        at.story.finish().await;
    });
}

/// Cause: kept again, the acceptance was refused, as it was there; so nobody followed the run, and in the end
/// nobody knew what a command had come to of which SSM could tell.
#[test]
fn a_run_whose_acceptance_nobody_heard_of_is_followed_to_its_end() {
    tell(async {
        let runs = "SELECT 1 FROM remediations WHERE state = 'running'";
        let mut at = Watched::of(document(), runs, || Verdict::Unheard).await;
        at.arm();
        let alert = at.story.alert("db", "ReplicaLag", "db-1");
        let declaration = at.story.declaration(&alert, "Approve").await;
        at.story.click(SRE, &declaration, "Approve").await;
        at.story.report(&alert, "restarting the replica (soft)").await;
        assert_eq!(at.state.load(Ordering::SeqCst), DONE);
        at.story.resolve(&alert);
        at.story.report(&alert, "*healed*").await;
        at.story.declaration(&alert, "*healed*").await;
        at.story.runs(1).await;
        at.story.finish().await;
    });
}

/// Cause: the lease was awaited without a bound (and a suspended machine knows no bounds), and then it was sent
/// as it had been decided.
#[test]
fn what_was_decided_before_a_long_sleep_is_decided_anew_before_it_is_sent() {
    tell(async {
        let asleep: Arc<OnceLock<(Clock, Arc<Database>)>> = Arc::default();
        let sleeps = {
            let asleep = Arc::clone(&asleep);
            move || {
                let (clock, database) = asleep.get().unwrap();
                // Somebody pauses it meanwhile, at another replica.
                database.sql("INSERT INTO pauses (pattern, by, since) VALUES ('*', 'U0LEAD', 0)").unwrap();
                database.sql("UPDATE replicas SET touched = touched + 1").unwrap();
                clock.advance(Duration::from_secs(20));
                Verdict::GoOn
            }
        };
        let sending = "SELECT 1 FROM remediations WHERE state = 'sending'";
        let mut at = Watched::of(document(), sending, sleeps).await;
        asleep.set((at.story.clock.clone(), Arc::clone(&at.database))).unwrap();
        at.arm();
        let alert = at.story.alert("db", "ReplicaLag", "db-1");
        let declaration = at.story.declaration(&alert, "Approve").await;
        at.story.click(SRE, &declaration, "Approve").await;
        at.story.declaration(&alert, "*held*").await;
        at.story.runs(0).await;
        assert_eq!(at.story.fleet.count_calls("SendCommand"), 0);
        at.story.finish().await;
    });
}
