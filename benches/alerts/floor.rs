//! The floor under every figure: what a commit on disk costs here, without heal.

use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use tempfile::TempDir;

/// Milliseconds: median, over some rounds.
pub struct Floor {
    pub lone: Vec<f64>,
    pub group: Vec<f64>,
}

/// Commits rows of the size of an alert, one by one and a hundred at a time, as the store does (WAL, FULL).
pub fn measure(place: &Path) -> anyhow::Result<Floor> {
    let folder = TempDir::with_prefix_in("heal-bench-", place)?;
    let mut connection = Connection::open(folder.path().join("floor.db"))?;
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
    let text = "x".repeat(1500);
    let mut round = |rows: usize, rounds: usize| -> anyhow::Result<f64> {
        let mut took = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let began = Instant::now();
            let transaction = connection.transaction()?;
            for _ in 0..rows {
                transaction.prepare_cached("INSERT INTO rows (text) VALUES (?1)")?.execute([&text])?;
            }
            transaction.commit()?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        Ok(super::report::quantile(&took, 0.5))
    };
    let mut floor = Floor { lone: Vec::new(), group: Vec::new() };
    for _ in 0..3 {
        floor.lone.push(round(1, 200)?);
        floor.group.push(round(100, 20)?);
    }
    Ok(floor)
}
