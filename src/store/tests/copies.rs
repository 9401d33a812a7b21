//! Copies of a database that is in use, and where a copy must not be put.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::lifecycle::Effect;
use crate::store::backup::{Error, backup};

/// A remediation, its line and what it owes, as one decision keeps them.
async fn decides(store: &Store, number: usize) {
    does(store, move |tx| {
        let this = Arc::new(declaring(&format!("r{number}"), "web:NginxDown", &format!("i-{number}"), NOW));
        let line = |what| Record { at: NOW, remediation: Some(&this.id), what, who: "heal", why: "because" };
        tx.keep_new(&this, None, &[line("opened")], &[Effect::Declare])?;
        tx.keep_step(&this, Some(&line("target_resolved")), &[Effect::React]).map(drop)
    })
    .await;
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_taken_while_decisions_are_made_is_whole_and_agrees_with_itself() {
    let (file, shelf) = (InFile::new(), tempfile::tempdir().unwrap());
    let store = file.open();
    decides(&store, 0).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let deciding = tokio::spawn({
        let store = store.clone();
        async move {
            let mut made = 1;
            while !*stopped.borrow() {
                decides(&store, made).await;
                made += 1;
            }
            made
        }
    });
    let mut before = 0;
    for number in 0..3 {
        let to = shelf.path().join(format!("{number}.db"));
        let copied = tokio::task::spawn_blocking({
            let (from, to) = (file.path(), to.clone());
            move || backup(&from, &to, false).unwrap()
        });
        let copied = copied.await.unwrap();
        let meta = std::fs::metadata(&to).unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o600, copied.bytes));
        let copy = Store::open(&Location::Sqlite(to)).unwrap();
        let (open, owed) = does(&copy, |tx| {
            tx.claim_orphans()?;
            Ok((tx.open_remediations()?, tx.owed()?))
        })
        .await;
        assert_eq!(open.len() as u64, copied.remediations);
        assert!(open.len() > before, "it went on between the copies");
        before = open.len();
        assert_eq!(owed.len(), 2 * open.len(), "each owes its declaration and its reaction");
        for this in open {
            assert_eq!(does(&copy, move |tx| tx.journal_of(&this.id)).await.len(), 2);
        }
        copy.close().await;
    }
    stop.send_replace(true);
    assert!(deciding.await.unwrap() >= before);
    let left: Vec<String> = names(shelf.path()).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_copy_replaces_only_what_it_is_told_to() {
    let file = InFile::new();
    let store = file.open();
    let to = file.path().with_file_name("copy.db");
    std::fs::write(&to, "a letter").unwrap();
    let refused = backup(&file.path(), &to, false).unwrap_err();
    assert!(matches!(refused, Error::Exists(_)), "{refused:?}");
    assert_eq!(std::fs::read(&to).unwrap(), b"a letter");
    assert_eq!(backup(&file.path(), &to, true).unwrap().remediations, 0);
    decides(&store, 0).await;
    assert_eq!(backup(&file.path(), &to, true).unwrap().remediations, 1);
    // Not the database, nor what belongs to it or to another one that is in use.
    let beside = |name: &str| file.path().with_file_name(name);
    std::os::unix::fs::symlink(file.path(), beside("link.db")).unwrap();
    std::fs::write(beside("other.db-wal"), "").unwrap();
    for name in ["heal.db", "link.db", "heal.db-wal", "heal.db-shm", "heal.db.lock", "other.db"] {
        let refused = backup(&file.path(), &beside(name), true).unwrap_err();
        assert!(matches!(refused, Error::Database(_)), "{name}: {refused:?}");
    }
    decides(&store, 1).await;
    assert_eq!(does(&store, |tx| tx.open_remediations()).await.len(), 2, "the database goes on");
    let expected =
        ["copy.db", "heal.db", "heal.db-shm", "heal.db-wal", "heal.db.lock", "link.db", "other.db-wal"];
    assert_eq!(names(file.path().parent().unwrap()), expected);
}

#[tokio::test]
async fn what_cannot_be_copied_is_said_and_nothing_is_left() {
    let file = InFile::new();
    file.open().close().await;
    let folder = file.path().parent().unwrap().to_owned();
    let place = |name: &str| folder.join(name);
    let before = names(&folder);
    let said = |from: PathBuf, to: PathBuf| backup(&from, &to, false).unwrap_err().to_string();
    let missing = said(place("none.db"), place("copy.db"));
    assert!(missing.contains("no database at") && missing.contains("none.db"), "{missing}");
    let nowhere = said(file.path(), place("no/such/copy.db"));
    assert!(nowhere.contains("cannot be written") && nowhere.contains("hint: its folder"), "{nowhere}");
    assert!(said(file.path(), PathBuf::from("/proc/copy.db")).contains("/proc/copy.db cannot be written"));
    assert_eq!(names(&folder), before);
    std::fs::write(place("letter.db"), "Dear database, ".repeat(100)).unwrap();
    assert!(said(place("letter.db"), place("copy.db")).contains("is no store of heal"));
    rusqlite::Connection::open(place("empty.db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(said(place("empty.db"), place("copy.db")).contains("nothing of heal is in it"));
    assert!(!place("copy.db").exists());
}

#[tokio::test]
async fn a_damaged_database_makes_no_copy() {
    let file = InFile::new();
    let store = file.open();
    for number in 0..60 {
        decides(&store, number).await;
    }
    store.close().await;
    let mut bytes = std::fs::read(file.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    std::fs::write(file.path(), bytes).unwrap();
    let to = file.path().with_file_name("copy.db");
    assert!(backup(&file.path(), &to, false).is_err());
    assert!(!to.exists());
    let left = names(file.path().parent().unwrap());
    assert!(!left.iter().any(|name| name.starts_with(".heal-backup")), "{left:?}");
}

#[tokio::test]
async fn what_a_reader_keeps_from_being_folded_is_folded_when_it_ends() {
    use super::serve::Database as _;
    let file = InFile::new();
    let Opened { mut database, .. } = sqlite::Database::open(&file.path()).unwrap();
    let writes = |database: &sqlite::Database, times: usize| {
        for _ in 0..times {
            database
                .connection
                .execute("INSERT OR REPLACE INTO notes (name, value) VALUES ('n', 'x')", [])
                .unwrap();
        }
    };
    writes(&database, 10);
    database.rest();
    assert_eq!(database.rests_after(), None, "all is folded");
    let reader = rusqlite::Connection::open(file.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM notes").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    writes(&database, 10);
    database.rest();
    assert_eq!(database.rests_after(), Some(Duration::from_secs(1)), "it is tried again");
    reader.execute_batch("COMMIT").unwrap();
    database.rest();
    assert_eq!(database.rests_after(), None);
    let log = || std::fs::metadata(file.path().with_extension("db-wal")).unwrap().len();
    let long = log();
    writes(&database, 5);
    assert_eq!(log(), long, "it is written anew from its beginning");
}
