use super::*;

fn one(database: &Database, sql: &str) -> String {
    database.sql(sql).unwrap()[0][0].clone().unwrap()
}

#[test]
fn every_test_has_a_database_of_its_own_on_one_server() {
    let server = Server::shared().unwrap();
    assert!(Arc::ptr_eq(&server, &Server::shared().unwrap()));
    let (one_of, other) = (server.database().unwrap(), server.database().unwrap());
    one_of.sql("CREATE TABLE here (n int)").unwrap();
    assert_eq!(one(&other, "SELECT count(*) FROM pg_tables WHERE tablename = 'here'"), "0");
    let name = other.name().to_owned();
    drop(other);
    let left = format!("SELECT count(*) FROM pg_database WHERE datname IN ('{name}', '{}')", one_of.name());
    assert_eq!(one(&one_of, &left), "1", "what is dropped is gone");
    for (setting, value) in [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")] {
        assert_eq!(one(&one_of, &format!("SHOW {setting}")), value, "{setting}");
    }
}

#[test]
fn what_is_committed_outlives_every_end_of_the_server() {
    let server = Arc::new(Server::start(&[]).unwrap());
    let database = server.database().unwrap();
    database.sql("CREATE TABLE kept (n int)").unwrap();
    for (number, how) in [End::Stop, End::Crash, End::Kill].into_iter().enumerate() {
        database.sql(&format!("INSERT INTO kept VALUES ({number})")).unwrap();
        server.end(how);
        assert!(database.sql("SELECT 1").is_err(), "{how:?}");
        server.run().unwrap();
        assert_eq!(one(&database, "SELECT count(*) FROM kept"), (number + 1).to_string(), "{how:?}");
    }
}

/// The part of the next test that is killed; by itself it does nothing.
#[test]
fn a_server_for_another_test_to_find_orphaned() {
    let Some(told) = std::env::var_os("HEAL_TEST_ORPHAN") else { return };
    let server = Server::shared().unwrap();
    fs::write(told, server.folder().display().to_string()).unwrap();
    std::process::abort();
}

#[test]
fn a_server_does_not_outlive_the_process_that_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::postgres::tests::a_server_for_another_test_to_find_orphaned"])
        .env("HEAL_TEST_ORPHAN", &told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let server = PathBuf::from(fs::read_to_string(told).unwrap());
    let begun = Instant::now();
    while server.exists() {
        assert!(begun.elapsed() < PATIENCE, "{} is still there", server.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
