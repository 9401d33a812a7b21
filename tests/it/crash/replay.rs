//! Tells a story once without a kill, counting the points before and after each of the bot's steps, and
//! then once for each point with a kill there.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use heal::sandbox::{Cut, Moment};

use super::database::Database;
use super::world::{Stage, Told};

/// Replays at a time for each core, of all stories together; most of a replay is waiting.
const A_CORE: usize = 8;
/// Each has sessions with PostgreSQL, and files.
const MOST: usize = 24;
/// A replay that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(90);
/// The number of steps differs a little from replay to replay: so many more points are tried.
const MORE: usize = 8;

/// Cut points of all stories so far, on SQLite and on PostgreSQL.
static ALL: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// The right to replay, of which there are as many as the machine carries.
struct Turn;

/// How many replays there are now, and a call when that is one less.
static TURNS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn at_a_time() -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (cores * A_CORE).min(MOST)
    }

    fn take() -> Turn {
        let (count, ended) = &TURNS;
        let mut count = ended.wait_while(count.lock().unwrap(), |count| *count >= Turn::at_a_time()).unwrap();
        *count += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.0.lock().unwrap() -= 1;
        TURNS.1.notify_one();
    }
}

/// One telling; where the bot was killed, if it was, and how it went.
fn tell<S>(story: &S, database: Database, end: Option<usize>) -> (Cut, Told)
where
    S: AsyncFn(Stage) -> Told,
{
    let _turn = Turn::take();
    let cut = Cut::new();
    let stage = Stage { database, cut: cut.clone(), end };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(async { tokio::time::timeout(LONGEST, story(stage)).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    (cut, told.unwrap_or_else(|_| Err("it hangs".to_owned())))
}

/// Fails where a kill anywhere changes the story's end, or where there are fewer than `least` cut points.
pub fn everywhere<S>(name: &str, database: Database, least: usize, story: S)
where
    S: AsyncFn(Stage) -> Told + Sync,
{
    let (whole, told) = tell(&story, database, None);
    if let Err(why) = told {
        panic!("{name} fails without a kill: {why}");
    }
    let (steps, points) = (whole.steps().len(), whole.points());
    let commits = whole.steps().iter().filter(|step| *step == "commit").count();
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let faults: Mutex<Vec<(usize, String)>> = Mutex::default();
    let replays = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) + 1;
            if number > points + MORE {
                return;
            }
            let (cut, told) = tell(&story, database, Some(number));
            let Some((step, moment)) = cut.end() else {
                if let Err(why) = told {
                    faults.lock().unwrap().push((number, format!("without a kill: {why}")));
                }
                continue;
            };
            killed.fetch_add(1, Ordering::Relaxed);
            if let Err(why) = told {
                let side = if moment == Moment::Before { "before" } else { "after" };
                let fault = format!("killed {side} {step} (point {number}): {why}");
                faults.lock().unwrap().push((number, fault));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..Turn::at_a_time() {
            scope.spawn(replays);
        }
    });
    let killed = killed.into_inner();
    let all = ALL[database as usize].fetch_add(killed, Ordering::Relaxed) + killed;
    // Not `println!`, which the test harness keeps to itself.
    let line = format!(
        "crash matrix on {}: {name}: {killed} cut points ({commits} commits and {} calls); {all} so far\n",
        database.name(),
        steps - commits,
    );
    drop(std::io::stderr().write_all(line.as_bytes()));
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    let heads: Vec<&str> = faults.iter().filter_map(|(_, fault)| fault.lines().next()).collect();
    let first = faults.first().map(|(_, fault)| fault.as_str()).unwrap_or_default();
    if !faults.is_empty() {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{name}-{}.txt", database.name()));
        let all: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
        drop(std::fs::write(&file, all.join("\n\n======== ")));
        let (count, heads) = (faults.len(), heads.join("\n"));
        panic!(
            "{count} of {killed} fail:\n{heads}\n\nall is told in {}; the first:\n{first}",
            file.display()
        );
    }
    assert!(killed >= least, "{killed} cut points are too few; at least {least} were to be seen");
    assert!(commits >= 5, "{commits} commits are too few to be all of them");
}
