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

/// Of the points of a story, each so-manieth begins a replay with two kills …
const SAMPLED: usize = 10;
/// … the second of them at one of so many points after the first.
const RECOVERY: usize = 16;

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

/// The point of the kill, and that of another one in the life after it.
type Ends = (Option<usize>, Option<usize>);

/// One telling; where the bot was killed, if it was, and how it went.
fn tell<S>(story: &S, database: Database, ends: Ends) -> (Cut, Told)
where
    S: AsyncFn(Stage) -> Told,
{
    let _turn = Turn::take();
    let cut = Cut::new();
    let stage = Stage { database, cut: cut.clone(), end: ends.0 };
    if let Some(second) = ends.1 {
        cut.then(second);
    }
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
    let whole = whole(name, database, &story);
    let all: Vec<Ends> = (1..=whole.points() + MORE).map(|number| (Some(number), None)).collect();
    let commits = whole.steps().iter().filter(|step| *step == "commit").count();
    let killed = replay(name, database, &all, &story);
    let all = ALL[database as usize].fetch_add(killed, Ordering::Relaxed) + killed;
    let calls = whole.steps().len() - commits;
    say(&format!(
        "crash matrix on {}: {name}: {killed} cut points ({commits} commits and {calls} calls); {all} so far\n",
        database.name(),
    ));
    // A busy machine merges commits and updates, and with them points.
    let least = least * 2 / 3;
    assert!(killed >= least, "{killed} cut points are too few; at least {least} were to be seen");
    assert!(commits >= 5, "{commits} commits are too few to be all of them");
}

/// As [`everywhere`] with two kills: at a sample of points, and each time at any point of what the next
/// life does first.
pub fn twice<S>(name: &str, database: Database, story: S)
where
    S: AsyncFn(Stage) -> Told + Sync,
{
    let points = whole(name, database, &story).points();
    let firsts = (SAMPLED / 2..=points).step_by(SAMPLED);
    let pairs = firsts.flat_map(|first| (1..=RECOVERY).map(move |second| (Some(first), Some(second))));
    let killed = replay(name, database, &pairs.collect::<Vec<Ends>>(), &story);
    say(&format!("crash matrix on {}: {name}: {killed} times killed twice\n", database.name()));
    // Not every recovery has so many points.
    assert!(killed >= points / SAMPLED * RECOVERY / 2, "{killed} are too few");
}

/// The story without a kill.
fn whole<S>(name: &str, database: Database, story: &S) -> Cut
where
    S: AsyncFn(Stage) -> Told + Sync,
{
    let (whole, told) = tell(story, database, (None, None));
    if let Err(why) = told {
        panic!("{name} fails without a kill: {why}");
    }
    whole
}

/// Tells the story once for each of these; how often the bot was killed as planned. Fails where that
/// changes the story's end.
fn replay<S>(name: &str, database: Database, all: &[Ends], story: &S) -> usize
where
    S: AsyncFn(Stage) -> Told + Sync,
{
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let faults: Mutex<Vec<(Ends, String)>> = Mutex::default();
    let replays = || {
        while let Some(ends) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (cut, told) = tell(story, database, *ends);
            if !cut.is_to_come() {
                killed.fetch_add(1, Ordering::Relaxed);
            }
            let Err(why) = told else { continue };
            let fault = match cut.end() {
                None => format!("without a kill: {why}"),
                Some((step, Moment::Before)) => format!("killed before {step} (points {ends:?}): {why}"),
                Some((step, Moment::After)) => format!("killed after {step} (points {ends:?}): {why}"),
            };
            faults.lock().unwrap().push((*ends, fault));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..Turn::at_a_time() {
            scope.spawn(replays);
        }
    });
    let killed = killed.into_inner();
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    let heads: Vec<&str> = faults.iter().filter_map(|(_, fault)| fault.lines().next()).collect();
    if let Some((_, first)) = faults.first() {
        let file = format!("crash-{name}-{}.txt", database.name());
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        let all: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
        drop(std::fs::write(&file, all.join("\n\n======== ")));
        let (count, heads) = (faults.len(), heads.join("\n"));
        panic!(
            "{count} of {killed} fail:\n{heads}\n\nall is told in {}; the first:\n{first}",
            file.display()
        );
    }
    killed
}

/// Not `println!`, which the test harness keeps to itself.
fn say(line: &str) {
    drop(std::io::stderr().write_all(line.as_bytes()));
}
