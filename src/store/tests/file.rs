//! A file that is in use, of another make, unwritable or full; and what a killed process leaves.

use std::process::Command;

use super::*;

fn refused(path: impl Into<PathBuf>) -> String {
    Store::open(&Location::Sqlite(path.into())).expect_err("it opened").to_string()
}

/// A store on a database that the test has prepared.
fn serving(database: sqlite::Database, number: i64) -> Store {
    let opened = move || Ok(Opened { database, number });
    Store::start("heal.db", false, Arc::default(), Options::default(), opened).unwrap()
}

fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn every_commit_is_on_disk_before_it_counts() {
    let file = InFile::new();
    let Opened { database, .. } = sqlite::Database::open(&file.path()).unwrap();
    let pragma = |name: &str| -> String {
        let value = database
            .connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0));
        match value.unwrap() {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2", "FULL: the log is synced at every commit");
    assert_eq!(pragma("locking_mode"), "normal", "others may read");
    assert_eq!(pragma("foreign_keys"), "1");
}

#[tokio::test]
async fn a_second_store_on_one_file_is_refused_and_the_first_goes_on() {
    let file = InFile::new();
    let store = file.open();
    // Another way to it is the same file.
    let link = file.path().with_file_name("link.db");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    contains(&refused(link), &["link.db", "heal.db.lock is locked"]);
    let pid = format!("its process id is {}", std::process::id());
    contains(&refused(file.path()), &["heal.db", &pid]);
    let second = Store::open(&file.location()).unwrap_err();
    assert!(matches!(second, Error::InUse(_)), "{second:?}");
    contains(&second.to_string(), &["in use by another process", "heal.db", "hint: stop the other heal"]);
    does(&store, |tx| tx.set_note("still", "here")).await;
}

/// What a child process does for the tests below; nothing in an ordinary run.
#[tokio::test]
async fn in_a_process_of_its_own() {
    let Ok(path) = std::env::var("HEAL_TEST_STORE") else { return };
    match Store::open(&Location::Sqlite(path.into())) {
        Err(error) => println!("child: {error}"),
        Ok(store) => {
            does(&store, |tx| {
                tx.owe(&id("r"), lifecycle::Effect::Send)?;
                tx.set_note("committed", "yes")
            })
            .await;
            // Begun, and never to be committed.
            drop(store.transact(|tx| -> Result<()> {
                tx.set_note("torn", "yes")?;
                println!("child: committed");
                std::process::abort()
            }));
            std::future::pending::<()>().await;
        }
    }
}

fn child(file: &InFile) -> String {
    let this_test = std::env::current_exe().unwrap();
    let output = Command::new(this_test)
        .args(["--exact", "store::tests::file::in_a_process_of_its_own", "--nocapture"])
        .env("HEAL_TEST_STORE", file.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_second_process_on_one_file_is_refused_with_what_to_do() {
    let file = InFile::new();
    let _store = file.open();
    contains(
        &child(&file),
        &["child: the database is in use by another process", "hint: stop the other heal"],
    );
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_what_it_committed_and_nothing_half() {
    let file = InFile::new();
    contains(&child(&file), &["child: committed"]);
    let store = file.open();
    assert_eq!(does(&store, |tx| tx.note("committed")).await.as_deref(), Some("yes"));
    assert_eq!(does(&store, |tx| tx.note("torn")).await, None);
    assert_eq!(does(&store, |tx| tx.claim_orphans()).await.owed, 1);
    assert_eq!(does(&store, |tx| tx.owed()).await.len(), 1);
}

/// Cause: until the moment that a wrong clock had reckoned nothing was posted any more, whatever the restarts.
#[tokio::test]
async fn a_limit_that_a_clock_years_ahead_has_kept_is_forgotten_when_the_clock_is_right_again() {
    let file = InFile::new();
    let limit = |wait| Limit { lane: "chat.postMessage".to_owned(), wait: Duration::from_secs(wait) };
    let years_ahead = at(5 * 365 * 86_400);
    let store = file.open();
    does(&store, move |tx| tx.keep_limit(&limit(30), years_ahead)).await;
    assert_eq!(does(&store, |tx| tx.limits(NOW)).await, []);
    does(&store, move |tx| tx.keep_limit(&limit(30), years_ahead)).await;
    // What is told by the right clock counts beside it at once.
    does(&store, move |tx| tx.keep_limit(&limit(20), NOW)).await;
    assert_eq!(does(&store, |tx| tx.limits(NOW)).await, [limit(20)]);
}

#[test]
fn a_database_of_a_newer_heal_is_left_alone() {
    let file = InFile::new();
    let newer = rusqlite::Connection::open(file.path()).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    contains(&refused(file.path()), &["heal.db", "newer heal (schema 99", "start that version instead"]);
}

#[test]
fn what_is_no_database_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    contains(&refused(folder.path()), &["cannot be opened", "hint:"]);
    contains(&refused(folder.path().join("missing/heal.db")), &["missing/heal.db", "its folder must exist"]);
    let letter = folder.path().join("letter.txt");
    std::fs::write(&letter, "Dear database, ".repeat(100)).unwrap();
    contains(&refused(&letter), &["letter.txt", "not a database"]);
    // Not even root may make a file there.
    contains(&refused("/proc/heal.db"), &["/proc/heal.db", "allowed to write there"]);
}

#[test]
fn a_store_that_forgets_is_no_store() {
    contains(&refused(":memory:"), &[":memory:", "keeps no write-ahead log"]);
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("file:x?mode=memory");
    drop(Store::open(&Location::Sqlite(odd.clone())).unwrap());
    assert!(odd.exists(), "a path is a path");
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_was_there_stays() {
    let file = InFile::new();
    let Opened { database, number } = sqlite::Database::open(&file.path()).unwrap();
    let pages: i64 = database.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    database.connection.pragma_update(None, "max_page_count", pages + 1).unwrap();
    let store = serving(database, number);
    does(&store, |tx| tx.set_note("small", "fits")).await;
    let large = store.transact(|tx| tx.set_note("large", &"x".repeat(1 << 20))).await;
    assert!(matches!(large, Err(Error::Full(_))), "{large:?}");
    contains(&large.unwrap_err().to_string(), &["no room left"]);
    let read = does(&store, |tx| Ok((tx.note("small")?, tx.note("large")?))).await;
    assert_eq!(read, (Some("fits".to_owned()), None));
    does(&store, |tx| tx.set_note("small", "goes on")).await;
}

#[tokio::test]
async fn when_no_transaction_can_begin_everybody_is_told_and_nobody_waits_for_ever() {
    let file = InFile::new();
    let Opened { database, number } = sqlite::Database::open(&file.path()).unwrap();
    // Stands for a disk that fails: with one begun already, SQLite begins no other.
    database.connection.execute_batch("BEGIN").unwrap();
    let store = serving(database, number);
    let all: Vec<_> = (0..10).map(|_| store.transact(|tx| tx.set_note("n", "x"))).collect();
    for answer in all {
        assert!(matches!(answer.await, Err(Error::Database(_))));
    }
}

#[test]
fn locations_are_read_as_the_contract_writes_them() {
    let sqlite = |path: &str| Ok(Location::Sqlite(PathBuf::from(path)));
    assert_eq!(Location::parse("sqlite:heal.db"), sqlite("heal.db"));
    assert_eq!(Location::parse("sqlite:///var/lib/heal/heal.db"), sqlite("/var/lib/heal/heal.db"));
    for (odd, word) in [
        ("postgres:///heal", "no host"),
        ("heal.db", "write sqlite:heal.db"),
        ("sqlite:", "names no file"),
        ("", "is not a store"),
    ] {
        contains(&Location::parse(odd).unwrap_err(), &[word]);
    }
}
