//! PostgreSQL by what can go wrong with a server and between replicas.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::*;
use crate::lifecycle::Effect;
use crate::sandbox::postgres::{Database, End, PASSWORD, Server};

/// Of anything that has to come about.
const BOUND: Duration = Duration::from_secs(30);

fn open(url: &str) -> Result<Store> {
    Store::open(&Location::parse(url).unwrap())
}

fn refused(url: &str) -> String {
    open(url).expect_err("it opened").to_string()
}

fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// Waits until a look at the store says so.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < BOUND, "it does not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_said_within_seconds_and_used_again_when_it_is_back() {
    let server = Arc::new(Server::start(&[]).unwrap());
    let database = server.database().unwrap();
    let store = open(&database.url()).unwrap();
    does(&store, |tx| tx.set_note("before", "kept")).await;
    for how in [End::Stop, End::Kill] {
        server.end(how);
        let begun = Instant::now();
        let failed = store.transact(|tx| tx.set_note("away", "lost")).await;
        assert!(matches!(failed, Err(Error::Database(_))), "{failed:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // Who comes while it is known to be away is told at once.
        let begun = Instant::now();
        for _ in 0..3 {
            assert!(store.transact(|tx| tx.set_note("away", "lost")).await.is_err());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        server.run().unwrap();
        until(async || store.transact(|tx| tx.set_note("back", "yes")).await.is_ok()).await;
        let read = does(&store, |tx| Ok((tx.note("before")?, tx.note("away")?))).await;
        assert_eq!(read, (Some("kept".to_owned()), None), "{how:?}");
    }
}

#[tokio::test]
async fn a_session_that_ended_while_nobody_used_it_costs_nobody_anything() {
    let (database, store) = shared();
    does(&store, |tx| tx.set_note("n", "1")).await;
    end_sessions(&database);
    does(&store, |tx| tx.set_note("n", "2")).await;
    assert_eq!(does(&store, |tx| tx.note("n")).await.as_deref(), Some("2"));
}

fn shared() -> (Database, Store) {
    let database = Server::shared().unwrap().database().unwrap();
    let store = open(&database.url()).unwrap();
    (database, store)
}

fn end_sessions(database: &Database) {
    let sql = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'heal'";
    database.sql(sql).unwrap();
}

/// Between heal and the server: hands everything on until it is told otherwise.
struct Wire {
    port: u16,
    state: Arc<AtomicU8>,
}

const OPEN: u8 = 0;
/// The next thing heal says does not arrive, and the connection breaks.
const LOSES_REQUEST: u8 = 1;
/// The connection breaks when the server has said that it has committed, before heal hears it.
const LOSES_ANSWER: u8 = 2;

impl Wire {
    fn new(server: u16) -> Wire {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(AtomicU8::new(OPEN));
        let seen = state.clone();
        std::thread::spawn(move || {
            for heal in listener.incoming() {
                let heal = heal.unwrap();
                let there = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (from, to) = (heal.try_clone().unwrap(), there.try_clone().unwrap());
                let (up, down) = (seen.clone(), seen.clone());
                std::thread::spawn(move || pass(from, to, &up, |state, _| state == LOSES_REQUEST));
                std::thread::spawn(move || {
                    let committed = |bytes: &[u8]| bytes.windows(7).any(|word| word == b"COMMIT\0");
                    pass(there, heal, &down, |state, bytes| state == LOSES_ANSWER && committed(bytes));
                });
            }
        });
        Wire { port, state }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8, breaks: impl Fn(u8, &[u8]) -> bool) {
    let mut bytes = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if breaks(state.load(Ordering::SeqCst), &bytes[..length]) {
            state.store(OPEN, Ordering::SeqCst);
            break;
        }
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_looked_up_and_the_truth_is_told() {
    let server = Server::shared().unwrap();
    let database = server.database().unwrap();
    let wire = Wire::new(server.port());
    let url = database.url_by_port().replace(&format!(":{}/", server.port()), &format!(":{}/", wire.port));
    let (state, breaking) = (wire.state.clone(), Arc::new(AtomicU8::new(OPEN)));
    let next = breaking.clone();
    let cut = Cut::new(move |moment| {
        if moment == Moment::Before {
            state.store(next.swap(OPEN, Ordering::SeqCst), Ordering::SeqCst);
        }
        Verdict::GoOn
    });
    let store = Store::open_with(&Location::parse(&url).unwrap(), Options { cut }).unwrap();
    does(&store, |tx| tx.set_note("first", "yes")).await;
    for (breaks, name) in [(LOSES_ANSWER, "counts"), (LOSES_REQUEST, "lost"), (LOSES_ANSWER, "again")] {
        breaking.store(breaks, Ordering::SeqCst);
        let answer = store.transact(move |tx| tx.set_note(name, "yes")).await;
        assert_eq!(answer.is_ok(), breaks == LOSES_ANSWER, "{name}: {answer:?}");
        assert_eq!(does(&store, move |tx| tx.note(name)).await.is_some(), answer.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn who_was_taken_off_the_list_can_do_nothing_more_and_another_goes_on_with_its_work() {
    let (database, silent) = shared();
    let living = open(&database.url()).unwrap();
    assert_ne!(silent.number(), living.number());
    let left = declaring("left", "web:A", "i-1", NOW);
    let owed = does(&silent, move |tx| {
        let record = Record { at: NOW, remediation: None, what: "opened", who: "heal", why: "" };
        tx.keep_new(&Arc::new(left), None, &[record], &[Effect::Declare])
    });
    let owed = owed.await;
    assert_eq!(owed[0].claimed_by, silent.number());
    let (number, other) = (silent.number(), living.number());
    let beats = does(&living, |tx| tx.beat()).await;
    let seen = beats.iter().map(|beat| (beat.number, beat.connected)).collect::<Vec<_>>();
    assert_eq!(seen, [(number, true), (other, true)]);
    let old = beats[0];
    assert!(does(&silent, |tx| tx.beat()).await[0].beat > old.beat);
    assert!(!does(&living, move |tx| tx.bury(old)).await, "it moved since");
    assert_eq!(does(&living, |tx| tx.claim_orphans()).await, Orphans::default());
    let now = does(&living, |tx| tx.beat()).await[0];
    assert!(does(&living, move |tx| tx.bury(now)).await);
    assert!(!does(&living, move |tx| tx.bury(now)).await, "once");
    for _ in 0..2 {
        assert!(matches!(silent.transact(|tx| tx.set_note("late", "yes")).await, Err(Error::Fenced)));
    }
    assert_eq!(does(&living, |tx| tx.owed()).await, []);
    let orphans = does(&living, |tx| tx.claim_orphans()).await;
    assert_eq!(orphans, Orphans { open: vec![id("left")], owed: 1 });
    let mine = does(&living, |tx| Ok((tx.owed()?, tx.claimed_remediations()?.len(), tx.note("late")?)));
    let (mine, claimed, late) = mine.await;
    assert_eq!((mine, claimed, late), (vec![Owed { claimed_by: other, ..owed[0].clone() }], 1, None));
}

#[tokio::test]
async fn under_a_newer_heals_tables_nothing_is_decided_and_the_older_one_leaves_the_list() {
    let (database, old) = shared();
    let newer = open(&database.url()).unwrap();
    does(&old, |tx| tx.set_note("before", "yes")).await;
    database.sql("INSERT INTO heal_schema VALUES (99)").unwrap();
    for _ in 0..2 {
        let late = old.transact(|tx| tx.set_note("late", "yes")).await.unwrap_err();
        assert!(matches!(late, Error::Outdated { have: 99, .. }) && late.is_final(), "{late:?}");
    }
    old.close().await;
    database.sql("DELETE FROM heal_schema WHERE version = 99").unwrap();
    let seen = does(&newer, |tx| Ok((tx.beat()?, tx.note("before")?, tx.note("late")?))).await;
    let listed: Vec<i64> = seen.0.iter().map(|beat| beat.number).collect();
    assert_eq!((listed, seen.1.as_deref(), seen.2), (vec![newer.number()], Some("yes"), None));
}

#[tokio::test]
async fn a_row_that_vanished_beside_heal_fails_its_commit_as_a_whole() {
    let (database, store) = shared();
    inserts(&store, vec![counting("r", "web:A", "i-1", NOW)]).await;
    // Nobody told whoever knows it.
    database.sql("DELETE FROM remediations").unwrap();
    let next = held(&counting("r", "web:A", "i-1", NOW), at(1));
    let failed = store.transact(move |tx| {
        tx.set_note("beside", "it")?;
        tx.update_remediation(&next)
    });
    let failed = failed.await.unwrap_err().to_string();
    assert!(failed.contains("a row that was read is not there any more"), "{failed}");
    let after = does(&store, |tx| Ok((tx.note("beside")?, tx.remediation(&id("r"))?.is_some()))).await;
    assert_eq!(after, (None, false), "nothing of it counts, and what was known is forgotten");
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_only_by_the_replica_that_has_claimed_it() {
    let (database, claimer) = shared();
    let other = open(&database.url()).unwrap();
    inserts(&claimer, vec![counting("r", "web:A", "i-1", NOW)]).await;
    // Who changes rows has to say so to who has claimed them.
    database.sql("UPDATE remediations SET body = '{}'").unwrap();
    database.sql("UPDATE replicas SET touched = touched + 1").unwrap();
    for (store, mine) in [(&other, false), (&claimer, true)] {
        let read = store.transact(|tx| tx.remediation(&id("r"))).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
        assert_eq!(does(store, |tx| tx.set_aside(&id("r"))).await, mine);
        let open = database.sql("SELECT open FROM remediations").unwrap();
        assert_eq!(open[0][0].as_deref(), Some(if mine { "f" } else { "t" }));
    }
}

#[tokio::test]
async fn a_replica_that_died_is_not_connected_and_one_that_closed_is_off_the_list() {
    let (database, living) = shared();
    let dying = Options { cut: Cut::new(|_| Verdict::Die) };
    let dying = Store::open_with(&Location::parse(&database.url()).unwrap(), dying).unwrap();
    let closing = open(&database.url()).unwrap();
    let (dead, closed) = (dying.number(), closing.number());
    assert!(dying.transact(|tx| tx.set_note("n", "x")).await.is_err());
    closing.close().await;
    let seen = async || {
        let beats = does(&living, |tx| tx.beat()).await;
        let find = |number| beats.iter().find(|beat| beat.number == number).map(|beat| beat.connected);
        (find(dead), find(closed))
    };
    until(async || seen().await == (Some(false), None)).await;
    assert_eq!(does(&living, |tx| tx.note("n")).await, None, "it died before its commit");
}

#[tokio::test]
async fn who_owes_something_to_another_replica_calls_it() {
    let (database, claimer) = shared();
    let clicked = open(&database.url()).unwrap();
    inserts(&claimer, vec![counting("r", "web:A", "i-1", NOW)]).await;
    // The listener connects on its own; it says so once, in case somebody called before.
    tokio::time::timeout(BOUND, claimer.called()).await.unwrap();
    for round in 0..2 {
        let owed = does(&clicked, move |tx| {
            let this = tx.subject(&id("r"))?.unwrap().remediation;
            let next = if round == 0 { this } else { Arc::new(held(&this, at(1))) };
            let mut owed = tx.keep_step(&next, None, &[Effect::UpdateDeclaration])?;
            owed.push(tx.owe(&next.id, Effect::React)?);
            Ok(owed)
        });
        let owed = owed.await;
        assert_eq!(owed.iter().map(|owed| owed.claimed_by).collect::<Vec<_>>(), [claimer.number(); 2]);
        tokio::time::timeout(BOUND, claimer.called()).await.unwrap();
        assert_eq!(does(&claimer, |tx| tx.owed()).await, owed, "and not by who owes it");
        assert_eq!(does(&clicked, |tx| tx.owed()).await, []);
    }
}

#[tokio::test]
async fn decisions_of_two_replicas_come_one_after_another() {
    let (database, one_of) = shared();
    let other = open(&database.url_by_port()).unwrap();
    let counts = |store: &Store| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                let count = store.transact(|tx| {
                    let count: i32 = tx.note("count")?.map_or(0, |count| count.parse().unwrap());
                    tx.set_note("count", &(count + 1).to_string())
                });
                count.await.unwrap();
            }
        })
    };
    let (first, second) = (counts(&one_of), counts(&other));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(does(&one_of, |tx| tx.note("count")).await.as_deref(), Some("200"));
}

#[tokio::test]
async fn a_transaction_that_did_not_get_the_lock_is_out_of_the_way_of_the_next() {
    let (database, store) = shared();
    let other = open(&database.url()).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let held = other.transact(move |_| {
        begun.send(()).unwrap();
        wait.recv().ok();
        Ok(())
    });
    has_begun.await.unwrap();
    let late = tokio::spawn(store.transact(|tx| tx.set_note("n", "late")));
    // As `lock_timeout` does, and without its ten seconds.
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until(async || !database.sql(cancel).unwrap().is_empty()).await;
    assert!(matches!(late.await.unwrap(), Err(Error::Database(_))));
    drop(go);
    held.await.unwrap();
    does(&store, |tx| tx.set_note("n", "next")).await;
    assert_eq!(does(&other, |tx| tx.note("n")).await.as_deref(), Some("next"));
}

#[tokio::test]
async fn a_replica_with_much_to_do_lets_the_others_have_their_turns() {
    let (database, busy) = shared();
    let other = open(&database.url()).unwrap();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let first = busy.transact(move |_| {
        begun.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    });
    has_begun.await.unwrap();
    // Together two seconds and more.
    let many: Vec<_> = (0..100)
        .map(|_| {
            busy.transact(|_| {
                std::thread::sleep(Duration::from_millis(20));
                Ok(())
            })
        })
        .collect();
    first.await.unwrap();
    let since = Instant::now();
    does(&other, |tx| tx.set_note("n", "in between")).await;
    assert!(since.elapsed() < Duration::from_millis(1200), "{:?}", since.elapsed());
    for one in many {
        one.await.unwrap();
    }
    assert!(since.elapsed() > Duration::from_millis(1500), "it was not between: {:?}", since.elapsed());
}

#[tokio::test]
async fn many_that_start_at_once_make_the_tables_once() {
    let database = Server::shared().unwrap().database().unwrap();
    let (tell, told) = mpsc::channel();
    for _ in 0..4 {
        let (url, tell) = (database.url(), tell.clone());
        std::thread::spawn(move || tell.send(open(&url)).unwrap());
    }
    let mut numbers: Vec<i64> = told.iter().take(4).map(|store| store.unwrap().number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_others_go_on() {
    let (database, store) = shared();
    // As PostgreSQL says it.
    database
        .sql(
            "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
             END $$;
             CREATE TRIGGER full_ BEFORE INSERT ON notes FOR EACH ROW WHEN (NEW.name = 'large')
             EXECUTE FUNCTION full_()",
        )
        .unwrap();
    let large = store.transact(|tx| tx.set_note("large", "x")).await;
    assert!(matches!(large, Err(Error::Full(_))), "{large:?}");
    contains(&large.unwrap_err().to_string(), &["no room left", "53100"]);
    does(&store, |tx| tx.set_note("small", "fits")).await;
    let read = does(&store, |tx| Ok((tx.note("small")?, tx.note("large")?))).await;
    assert_eq!(read, (Some("fits".to_owned()), None));
}

#[tokio::test]
async fn text_that_postgresql_cannot_keep_or_index_is_kept_all_the_same() {
    let (_database, store) = shared();
    let odd = "a\0b";
    let mut long = alert("Long", "web-1", Status::Firing);
    // Random, so that it cannot be made short enough for an index by compression.
    let mut label = String::new();
    while label.len() < 20_000 {
        label.push_str(&fastrand::u64(..).to_string());
    }
    long.labels.insert("query".to_owned(), label);
    let identity = long.identity();
    let resolved = does(&store, move |tx| {
        tx.set_note(odd, odd)?;
        let origin = origin("1.000001", NOW);
        tx.insert_alert(&NewAlert {
            origin: &origin,
            position: 0,
            alert: &long,
            rule: None,
            received_at: NOW,
        })?;
        Ok((tx.note(odd)?, tx.resolve_alerts("prometheus", &identity, NOW)?.len()))
    });
    assert_eq!(resolved.await, (Some("a\u{fffd}b".to_owned()), 1));
}

#[test]
fn a_store_that_cannot_be_used_is_refused_with_what_to_do_and_without_its_password() {
    let server = Server::shared().unwrap();
    let database = server.database().unwrap();
    let wrong = database.url_by_port().replace("correct", "s3cret");
    contains(&refused(&wrong), &["heal@127.0.0.1", "password authentication failed"]);
    assert!(!refused(&wrong).contains("s3cret"));
    let store = open(&database.url_by_port()).unwrap();
    let shown = format!("{store:?} {:?}", Location::parse(&database.url_by_port()).unwrap());
    assert!(!shown.contains(PASSWORD) && !shown.contains("correct"), "{shown}");
    contains(&refused("postgres://heal:s3cret@127.0.0.1:1/heal"), &["127.0.0.1:1/heal", "refused"]);
    contains(
        &refused(&format!("{}&options=-csearch_path%3Dnowhere", database.url())),
        &["no schema", "hint:"],
    );
    server.sql("postgres", "CREATE DATABASE of_others").unwrap();
    let others = database.url().replace(database.name(), "of_others");
    contains(&refused(&others), &["of_others", "CREATE DATABASE heal OWNER heal"]);
    database.sql("INSERT INTO heal_schema VALUES (99)").unwrap();
    contains(
        &refused(&database.url()),
        &["written by a newer heal", "schema 99", "start that version instead"],
    );
}

#[test]
fn two_schemas_of_one_database_are_two_stores() {
    let database = Server::shared().unwrap().database().unwrap();
    database.sql("CREATE SCHEMA own AUTHORIZATION heal").unwrap();
    let own = format!("{}&options=-csearch_path%3Down", database.url());
    drop((open(&database.url()).unwrap(), open(&own).unwrap()));
    let count =
        "SELECT count(*) FROM pg_tables WHERE tablename = 'remediations' AND schemaname IN ('own', 'public')";
    assert_eq!(database.sql(count).unwrap()[0][0].as_deref(), Some("2"));
}

#[test]
fn a_commit_waits_for_the_disk_whatever_the_servers_default_is() {
    let server = Arc::new(Server::start(&[("synchronous_commit", "off")]).unwrap());
    let database = server.database().unwrap();
    let Location::Postgres(at) = Location::parse(&database.url()).unwrap() else { panic!("not PostgreSQL") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let setting = postgres::setting(&Arc::new(runtime), &at, "synchronous_commit");
    assert_eq!(setting.unwrap(), "on");
    let seen = look(&at).unwrap();
    assert_eq!(seen, Seen { schema: None, older: false, fsync: true, raised: true, alive: 0 });
}

#[test]
fn the_server_is_believed_as_far_as_sslmode_says() {
    let certificates = tempfile::tempdir().unwrap();
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let (key, certificate) = (file("server.key"), file("server.crt"));
    // For itself, and good for 127.0.0.1 only.
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=heal"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Server::start(&[]).unwrap();
    for name in ["server.key", "server.crt"] {
        let there = server.folder().join(name);
        std::fs::copy(file(name), &there).unwrap();
        server.give(&there).unwrap();
    }
    let own = server.folder().display().to_string();
    for (name, value) in
        [("ssl_cert_file", format!("{own}/server.crt")), ("ssl_key_file", format!("{own}/server.key"))]
    {
        server.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on").unwrap();
    server.end(End::Stop);
    server.run().unwrap();
    let server = Arc::new(server);
    let database = server.database().unwrap();
    let with = |parameters: &str| format!("{}?{parameters}", database.url_by_port());
    let encrypted = || {
        let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'heal'";
        database.sql(sql).unwrap()[0][0].as_deref() != Some("0")
    };
    let root = format!("sslmode=verify-full&sslrootcert={certificate}");
    for (mode, is_encrypted) in
        [("sslmode=disable", false), ("", true), ("sslmode=require", true), (root.as_str(), true)]
    {
        let store = open(&with(mode)).unwrap();
        assert_eq!(encrypted(), is_encrypted, "{mode}");
        drop(store);
        end_sessions(&database);
    }
    contains(&refused(&with("sslmode=verify-full")), &["TLS", "certificate"]);
    let by_name = with(&root).replace("127.0.0.1", "localhost");
    contains(&refused(&by_name), &["TLS", "not valid for"]);
    contains(&refused(&with("sslmode=verify-full&sslrootcert=/dev/null")), &["/dev/null", "no certificate"]);
}
