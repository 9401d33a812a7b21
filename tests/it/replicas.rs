//! Several bots on one PostgreSQL: what is decided at one is done once, by whoever has claimed it; who dies
//! is replaced; who was only asleep does no harm when it wakes.

use std::process::Command;
use std::time::{Duration, Instant};

use heal::app::{self, Running};
use heal::sandbox::fleet::{Fleet, HostSpec, Options as Hosts};
use heal::sandbox::postgres::{Database, End, Server};
use heal::sandbox::workspace::{Fault, Message, Options, Posting, View, Workspace};

use crate::kill::place::furnish;
use crate::kill::replica::Replica;
use crate::story::alert::attachments;
use crate::story::{BOUND, CHANNEL, LEAD, Mode, Plot, SRE, Story, http_delivery, tell, web};

const APPROVE: &str = "web:NginxDown: {commands: [\"true\"], at_once: 3}";

/// What a takeover may take at most.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);

fn database() -> Database {
    Server::shared().unwrap().database().unwrap()
}

/// A story with a second bot on the same store; the first one is the story's own.
struct Pair {
    story: Story,
    second: Running,
    database: Database,
}

impl Pair {
    async fn of(plot: Plot) -> Pair {
        let database = database();
        let story = plot.store(&database.url()).start(Mode::Http).await;
        let second = app::start(story.settings()).await.unwrap();
        let ready = async {
            while web::get(second.listen, "/readyz").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, ready).await.unwrap();
        Pair { story, second, database }
    }

    /// What Slack says next goes to the first, or to the second.
    fn tell_first(&self) {
        self.story.workspace.set_delivery(http_delivery(self.story.listen()));
    }

    fn tell_second(&self) {
        self.story.workspace.set_delivery(http_delivery(self.second.listen));
    }

    async fn finish(self) {
        self.tell_first();
        self.second.stop().await;
        self.story.finish().await;
    }
}

#[test]
fn two_clicks_on_two_replicas_are_one_approval() {
    tell(async {
        for _ in 0..3 {
            let mut pair = Pair::of(Plot::new(APPROVE)).await;
            let alert = pair.story.alert("web", "NginxDown", "web-1");
            let declaration = pair.story.declaration(&alert, "Approve").await;
            pair.tell_first();
            let first = pair.story.click(LEAD, &declaration, "Approve");
            // The delivery of a click is chosen when it is pressed.
            let second = async {
                pair.tell_second();
                pair.story.click(SRE, &declaration, "Approve").await;
            };
            tokio::join!(first, second);
            pair.story.report(&alert, "ran well").await;
            pair.story.runs(1).await;
            let told = |view: &View| {
                let all = [LEAD, SRE].map(|user| view.ephemerals(user).len());
                all.iter().sum::<usize>() == 1
            };
            pair.story.workspace.wait_until(BOUND, told).await.unwrap();
            for user in [LEAD, SRE] {
                for whisper in pair.story.workspace.ephemerals(user) {
                    pair.story.see(&whisper.ts);
                }
            }
            pair.story.resolve(&alert);
            pair.story.report(&alert, "*healed*").await;
            pair.story.declaration(&alert, "*healed*").await;
            pair.story.runs(1).await;
            pair.finish().await;
        }
    });
}

#[test]
fn what_one_replica_decides_the_other_does_at_once() {
    tell(async {
        let mut pair = Pair::of(Plot::new(APPROVE)).await;
        pair.tell_first();
        let alert = pair.story.alert("web", "NginxDown", "web-1");
        let declaration = pair.story.declaration(&alert, "Approve").await;
        pair.tell_second();
        let pressed = Instant::now();
        pair.story.click(SRE, &declaration, "Approve").await;
        pair.story.runs(1).await;
        let took = pressed.elapsed();
        println!("approved at the second, run by the first after {took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        pair.story.report(&alert, "ran well").await;
        // Resolved at the second too; the first says so.
        pair.story.resolve(&alert);
        pair.story.report(&alert, "*healed*").await;
        pair.story.declaration(&alert, "*healed*").await;
        pair.story.reaction(&alert, "white_check_mark").await;
        pair.finish().await;
    });
}

#[test]
fn an_alert_that_reaches_both_replicas_is_one_alert() {
    tell(async {
        let database = database();
        let rule = "web:NginxDown: {stage: auto, grace: 0s, commands: [\"true\"]}";
        let mut story = Plot::new(rule).store(&database.url()).start(Mode::Socket).await;
        let second = app::start(story.settings()).await.unwrap();
        story.workspace.wait_until(BOUND, |view| view.connections() >= 2).await.unwrap();
        // Each goes out on the next connection in turn.
        story.workspace.deliver_twice_every(1);
        for host in ["web-1", "web-2", "web-3"] {
            let alert = story.alert("web", "NginxDown", host);
            story.report(&alert, "ran well").await;
            story.resolve(&alert);
            story.report(&alert, "*healed*").await;
            story.declaration(&alert, "*healed*").await;
        }
        story.runs(3).await;
        second.stop().await;
        story.finish().await;
    });
}

#[test]
fn at_once_and_a_pause_hold_across_replicas() {
    tell(async {
        let rules = "web:NginxDown: {stage: auto, grace: 10m, at_once: 1, commands: [\"true\"]}";
        let mut pair = Pair::of(Plot::new(rules)).await;
        pair.tell_first();
        let first = pair.story.alert("web", "NginxDown", "web-1");
        pair.story.declaration(&first, "Hold").await;
        pair.tell_second();
        let second = pair.story.alert("web", "NginxDown", "web-2");
        pair.story.declaration(&second, "Hold").await;
        // The pause comes to the second, and holds what the first has declared.
        let answer = pair.story.slash(LEAD, "pause web:NginxDown").await;
        assert!(answer.contains("Paused"), "{answer}");
        pair.story.announced("paused").await;
        for alert in [&first, &second] {
            pair.story.declaration(alert, "*held*").await;
        }
        pair.tell_first();
        pair.story.slash(LEAD, "resume web:NginxDown").await;
        pair.story.announced("resumed").await;
        pair.story.runs(0).await;
        pair.finish().await;
    });
}

#[test]
fn what_slack_limits_for_one_replica_the_other_does_not_call() {
    tell(async {
        let mut pair = Pair::of(Plot::new(APPROVE)).await;
        pair.story.workspace.fail_next("chat.postMessage", 1, Fault::RateLimited(4));
        pair.tell_first();
        let began = Instant::now();
        let first = pair.story.alert("web", "NginxDown", "web-1");
        let limited = |view: &View| view.calls_of("chat.postMessage").any(|call| call.status == 429);
        pair.story.workspace.wait_until(BOUND, limited).await.unwrap();
        // The limit is known to the other within a beat.
        tokio::time::sleep(Duration::from_secs(1)).await;
        pair.tell_second();
        let second = pair.story.alert("web", "NginxDown", "web-2");
        for alert in [&first, &second] {
            let declaration = pair.story.declaration(alert, "Approve").await;
            pair.story.click(LEAD, &declaration, "Reject").await;
            pair.story.declaration(alert, "*rejected*").await;
        }
        assert!(began.elapsed() > Duration::from_secs(4));
        let refused = pair
            .story
            .workspace
            .view(|view| view.calls_of("chat.postMessage").filter(|call| call.status == 429).count());
        assert_eq!(refused, 1, "nobody tried before the time");
        pair.finish().await;
    });
}

/// Cause: the row was in the way of each beat, so that one replica after the other lost its lease, was taken
/// for dead, and left the row to the next.
#[test]
fn a_row_that_no_replica_can_read_is_in_the_way_of_nothing_else() {
    tell(async {
        let mut pair = Pair::of(Plot::new(APPROVE)).await;
        pair.story.allow_error("cannot be read");
        pair.tell_first();
        let odd = pair.story.alert("web", "NginxDown", "web-1");
        pair.story.declaration(&odd, "Approve").await;
        pair.story.reaction(&odd, "raised_hand").await;
        let spoil = "UPDATE remediations SET body = '{\"is\": \"newer\"}';
            INSERT INTO outbox (remediation, effect, generation, claimed_by)
            SELECT id, effect, nextval('generations'), claimed_by
            FROM remediations, (VALUES ('update_declaration'), ('react')) AS owed (effect)
            ON CONFLICT DO NOTHING";
        pair.database.sql(spoil).unwrap();
        beats(&pair.database, 8).await;
        let other = pair.story.alert("web", "NginxDown", "web-2");
        pair.story.declaration(&other, "Approve").await;
        // Its heir meets the row as well.
        pair.tell_second();
        pair.story.stop_bot().await;
        beats(&pair.database, 8).await;
        let last = pair.story.alert("web", "NginxDown", "web-3");
        for alert in [&other, &last] {
            let declaration = pair.story.declaration(alert, "Approve").await;
            pair.story.click(LEAD, &declaration, "Reject").await;
            pair.story.declaration(alert, "*rejected*").await;
        }
        pair.story.start_bot().await;
        let told = pair.story.log().matches("cannot be read").count();
        assert!(told < 20, "each look tells of it anew: {told} times");
        pair.finish().await;
    });
}

/// Awaits that every replica shows so many times that it lives.
async fn beats(database: &Database, times: i64) {
    let least = || {
        let rows = database.sql("SELECT number, beat FROM replicas ORDER BY number").unwrap();
        let read = |cell: &Option<String>| cell.as_deref().unwrap().parse::<i64>().unwrap();
        rows.iter().map(|row| (read(&row[0]), read(&row[1]))).collect::<Vec<_>>()
    };
    let before = least();
    let shown = async {
        while !least().iter().zip(&before).all(|(now, then)| now.0 == then.0 && now.1 - then.1 >= times) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BOUND, shown).await.unwrap();
}

/// Processes on one database, between a workspace and a fleet.
struct Processes {
    workspace: Workspace,
    fleet: Fleet,
    replicas: Vec<Replica>,
    _folder: tempfile::TempDir,
    database: Database,
}

impl Processes {
    async fn of(rules: &str, count: usize) -> Processes {
        let database = database();
        let workspace = Workspace::start(Options::default()).unwrap();
        let hosts = ["web-1", "web-2", "web-3"].map(|name| HostSpec::new(name, "web"));
        let fleet = Fleet::start(Hosts::of(hosts.to_vec())).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        furnish(folder.path(), &database.url(), rules, "slack: {channels: [\"#alerts\"]}");
        let replicas = (0..count)
            .map(|number| Replica::new(&format!("replica-{number}"), folder.path(), &workspace, &fleet))
            .collect();
        Processes { workspace, fleet, replicas, _folder: folder, database }
    }

    fn post(&self, firing: bool, host: &str) -> String {
        let posting = Posting::of_sender("B0PROM", CHANNEL, "");
        let alert = posting.attachments(attachments(firing, "web", "NginxDown", &[host]));
        self.workspace.post_message(alert).unwrap()
    }

    async fn said(&self, alert: &str, text: &str, within: Duration) -> Message {
        let look = |view: &View| {
            view.thread(CHANNEL, alert).into_iter().find(|message| message.read().contains(text))
        };
        match self.workspace.wait_for(within, look).await {
            Ok(found) => found,
            Err(_) => {
                let thread: Vec<_> =
                    self.workspace.thread(CHANNEL, alert).iter().map(Message::read).collect();
                let logs: Vec<_> = self.replicas.iter().map(Replica::tail).collect();
                panic!("{text:?} was not said: {thread:#?}\n{}", logs.join("\n---\n"))
            }
        }
    }
}

#[test]
fn when_a_replica_dies_another_goes_on_with_its_work_within_fifteen_seconds() {
    tell(async {
        let mut all = Processes::of(APPROVE, 2).await;
        all.replicas[0].start();
        all.replicas[0].ready().await;
        let alert = all.post(true, "web-1");
        let declaration = all.said(&alert, "Approve", BOUND).await;
        all.replicas[1].start();
        all.replicas[1].ready().await;
        all.replicas[0].kill();
        let died = Instant::now();
        // Slack may still take the dead one's connections for good.
        while all.workspace.click(SRE, CHANNEL, &declaration.ts, "Approve").await.is_err() {
            assert!(died.elapsed() < BOUND);
        }
        all.said(&alert, "ran well", TAKEN_OVER_WITHIN).await;
        let took = died.elapsed();
        println!("the second went on with the first's remediation {took:?} after its death");
        assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
        all.post(false, "web-1");
        all.said(&alert, "*healed*", BOUND).await;
        assert_eq!(all.fleet.runs().len(), 1);
        all.replicas[1].terminate().await;
    });
}

#[test]
fn a_replica_that_was_only_asleep_finds_out_that_others_took_over_and_ends() {
    tell(async {
        let rules = "web:NginxDown: {stage: auto, grace: 4s, commands: [\"true\"]}";
        let mut all = Processes::of(rules, 2).await;
        all.replicas[0].start();
        all.replicas[0].ready().await;
        let alert = all.post(true, "web-1");
        all.said(&alert, "Hold", BOUND).await;
        signal(&all.replicas[0], "-STOP");
        all.replicas[1].start();
        all.replicas[1].ready().await;
        let asleep = Instant::now();
        // Its session stands, so this is the longest that a takeover takes.
        all.said(&alert, "ran well", BOUND).await;
        println!("taken over from a sleeper after {:?}", asleep.elapsed());
        signal(&all.replicas[0], "-CONT");
        assert_eq!(all.replicas[0].ended().await, Some(1));
        let log = all.replicas[0].log();
        assert!(log.contains("another replica took over"), "{log}");
        all.post(false, "web-1");
        all.said(&alert, "*healed*", BOUND).await;
        let parts = all.workspace.thread(CHANNEL, &alert).len();
        assert_eq!((all.fleet.runs().len(), parts), (1, 2), "one run; a declaration and a report");
        all.replicas[1].terminate().await;
    });
}

/// Two versions at work, as while one replica after the other is upgraded.
#[test]
fn an_older_heal_ends_when_a_newer_one_has_changed_the_tables() {
    tell(async {
        let mut all = Processes::of(APPROVE, 1).await;
        all.replicas[0].start();
        all.replicas[0].ready().await;
        all.database.sql("INSERT INTO heal_schema VALUES (99)").unwrap();
        assert_eq!(all.replicas[0].ended().await, Some(1));
        let log = all.replicas[0].log();
        assert!(
            log.contains("a newer heal has taken over this database") && log.contains("upgrade this one"),
            "{log}"
        );
    });
}

fn signal(replica: &Replica, signal: &str) {
    let pid = replica.pid().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[test]
fn a_database_that_is_gone_for_a_minute_delays_and_loses_nothing() {
    tell(async {
        let server = std::sync::Arc::new(Server::start(&[]).unwrap());
        let database = server.database().unwrap();
        let rules = "web:NginxDown: {stage: auto, grace: 0s, at_once: 3, commands: [\"true\"]}
web:DiskFull: {commands: [\"true\"], at_once: 3}";
        let mut story = Plot::new(rules).store(&database.url()).start(Mode::Socket).await;
        for part in
            ["cannot be reached", "could not commit", "failed in the store", "PostgreSQL", "connection"]
        {
            story.allow_error(part);
        }
        let waiting = story.alert("web", "DiskFull", "web-2");
        let declaration = story.declaration(&waiting, "Approve").await;
        // Not by `kill -9`: its workers would go on for a moment, and might still commit.
        server.end(End::Crash);
        let gone = Instant::now();
        let missed = story.alert("web", "NginxDown", "web-1");
        let early = story.workspace.click(LEAD, CHANNEL, &declaration.ts, "Approve").await;
        let unready = async {
            loop {
                let (status, why) = web::get(story.listen(), "/readyz").await;
                if status == 503 && why.contains("store") {
                    return why;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let why = tokio::time::timeout(BOUND, unready).await.unwrap();
        println!("while it is away: {why} (a press: {early:?})");
        let taken =
            |view: &View| view.deliveries().iter().filter(|one| one.acknowledged_after.is_none()).count();
        assert!(story.workspace.view(taken) > 0, "what is not kept is not acknowledged");
        while gone.elapsed() < Duration::from_secs(60) {
            assert_eq!(web::get(story.listen(), "/readyz").await.0, 503);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        server.run().unwrap();
        let back = Instant::now();
        story.report(&missed, "ran well").await;
        println!("what was posted meanwhile was healed {:?} after the database was back", back.elapsed());
        for whisper in story.workspace.ephemerals(LEAD) {
            story.see(&whisper.ts);
        }
        let declaration = story.declaration(&waiting, "Approve").await;
        story.click(LEAD, &declaration, "Approve").await;
        story.report(&waiting, "ran well").await;
        for alert in [&missed, &waiting] {
            story.resolve(alert);
            story.report(alert, "*healed*").await;
            story.declaration(alert, "*healed*").await;
        }
        story.runs(2).await;
        story.finish().await;
    });
}
