//! A full disk: what cannot be kept is not acknowledged, `/readyz` says so, and all goes on when there is room.
//!
//! The disk is a real and small one, mounted where only the bot's process sees it, or, beside it and
//! where nobody may mount, the kernel's limit on the size of the bot's files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use heal::sandbox::fleet::{HostSpec, Options as Hosts};
use heal::sandbox::workspace::Options;

use crate::kill::place::Place;
use crate::kill::siege::say;
use crate::story::{BOUND, CHANNEL, SRE};

const RULES: &str = "\
web:Approved: {commands: [\"echo ran >> /var/lib/approved\"]}
web:Soon: {stage: auto, grace: 4s, commands: [\"echo ran >> /var/lib/soon\"]}
web:Slow: {stage: auto, grace: 0s, commands: [\"while ! test -e /var/run/go; do sleep 0.05; done\"]}
";

/// What runs out.
enum Room {
    /// A file system of some megabytes, in the process's own mount namespace.
    Disk { ballast: PathBuf },
    /// `RLIMIT_FSIZE`: a file that would grow over it is refused (`EFBIG`).
    Limit,
}

impl Room {
    /// No byte more fits.
    fn runs_out(&self, place: &Place) {
        match self {
            Room::Disk { ballast } => {
                let mut file = std::fs::File::create(ballast).unwrap();
                let mut piece = vec![b'.'; 64 << 10];
                while !piece.is_empty() {
                    if let Err(error) = file.write_all(&piece) {
                        assert_eq!(error.raw_os_error(), Some(28), "ENOSPC was expected: {error}");
                        piece.truncate(piece.len() / 2);
                    }
                }
            }
            Room::Limit => {
                let log = std::fs::metadata(place.folder.path().join("small/heal.db-wal")).unwrap();
                limit(place, &log.len().to_string());
            }
        }
    }

    fn comes_back(&self, place: &Place) {
        match self {
            Room::Disk { ballast } => std::fs::remove_file(ballast).unwrap(),
            Room::Limit => limit(place, "unlimited"),
        }
    }
}

/// The soft limit may be moved at will below the hard one.
fn limit(place: &Place, bytes: &str) {
    let pid = place.bot.pid().unwrap().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).status();
    assert!(set.unwrap().success());
}

/// `unshare` with what it takes to mount as this user; none where the kernel or a sandbox forbids it.
fn unshare() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-r", "-m"]];
    ways.into_iter().find(|way| {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).args(["mount", "-t", "tmpfs", "-o", "size=1m", "heal", "/mnt"]);
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    })
}

async fn full(on_a_disk: bool) {
    let options = Options { redeliver_after: Duration::from_secs(1), ..Options::default() };
    let hosts = ["web-1", "web-2", "web-3", "web-4"].map(|name| HostSpec::new(name, "web"));
    let mut place =
        Place::new(RULES, "small/heal.db", "channels: [\"#alerts\"]", options, Hosts::of(hosts.to_vec()))
            .await;
    let small = place.folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let small = small.to_str().unwrap().to_owned();
    let way = if on_a_disk { unshare() } else { None };
    if on_a_disk && way.is_none() {
        say("nothing can be mounted here: the disk of this test is a limit on the files' size instead");
    }
    let mut words = way.unwrap_or_default().to_vec();
    let script = match way {
        Some(_) => "mount -t tmpfs -o size=16m heal \"$1\" && shift && exec \"$@\"",
        // SQLite is to see the error; by default the kernel ends the process.
        None => "trap '' XFSZ; shift; exec \"$@\"",
    };
    words.extend(["/bin/sh", "-c", script, "sh", &small]);
    place.bot = place.bot.wrapped(&words);
    place.bot.start();
    place.bot.ready().await;
    let room = match way {
        Some(_) => {
            let seen = format!("/proc/{}/root{small}/ballast", place.bot.pid().unwrap());
            Room::Disk { ballast: Path::new(&seen).to_owned() }
        }
        None => Room::Limit,
    };

    // In hand when the room runs out: a question to people, a grace that ends, a run that ends.
    let asked = place.post(true, "Approved", "web-1");
    let declared = place.said(&asked, "Waits for Approve").await;
    let slow = place.post(true, "Slow", "web-2");
    place.said(&slow, "With SSM since").await;
    let soon = place.post(true, "Soon", "web-3");
    place.said(&soon, "unless somebody presses Hold").await;
    room.runs_out(&place);
    let why = place.readyz(503).await;
    assert!(why.contains("the store cannot be written"), "{why}");
    assert!(why.contains("no room left") || why.contains("disk may be full"), "{why}");

    std::fs::write(place.fleet.host("web-2").unwrap().root().join("var/run/go"), "").unwrap();
    let new = place.post(true, "Approved", "web-4");
    let tried = |view: &heal::sandbox::workspace::View| view.deliveries().last().unwrap().attempts >= 3;
    place.workspace.wait_until(BOUND, tried).await.unwrap();
    assert_eq!(place.newest_delivery().acknowledged_after, None, "{}", place.bot.tail());
    assert_eq!(place.workspace.thread(CHANNEL, &new).len(), 0);
    let press = place.workspace.click(SRE, CHANNEL, &declared.ts, "Approve").await;
    assert!(press.is_err(), "a press that is not on disk is not acknowledged");
    let told = |view: &heal::sandbox::workspace::View| {
        view.ephemerals(SRE).iter().any(|told| told.read().contains("may have been kept or not"))
    };
    place.workspace.wait_until(BOUND, told).await.unwrap();
    let over = |fleet: &heal::sandbox::fleet::Fleet| fleet.runs().iter().all(|run| run.ended.is_some());
    assert!(place.fleet.wait_until(BOUND, over).await);
    assert_eq!(place.fleet.runs().len(), 1, "nothing is sent that is not on disk");
    assert_eq!(place.bot.probe().await.0, 503);

    room.comes_back(&place);
    place.readyz(200).await;
    let declared_late = place.said(&new, "Waits for Approve").await;
    place.said(&slow, "ran well").await;
    place.said(&soon, "ran well").await;
    for (alert, declared) in [(&asked, &declared), (&new, &declared_late)] {
        place.workspace.click(SRE, CHANNEL, &declared.ts, "Approve").await.unwrap();
        place.said(alert, "exit code 0").await;
    }
    for (alert, name, host) in [
        (&asked, "Approved", "web-1"),
        (&new, "Approved", "web-4"),
        (&slow, "Slow", "web-2"),
        (&soon, "Soon", "web-3"),
    ] {
        place.post(false, name, host);
        place.said(alert, "*healed*").await;
        let done = |view: &heal::sandbox::workspace::View| {
            let all = view.reactions(CHANNEL, alert);
            all.len() == 1 && all[0].0 == "white_check_mark"
        };
        place.workspace.wait_until(BOUND, done).await.unwrap();
        assert_eq!(place.workspace.thread(CHANNEL, alert).len(), 2);
    }
    assert_eq!(place.fleet.runs().len(), 4);
    assert_eq!(place.said_twice(), Vec::<String>::new());
    place.bot.terminate().await;
}

#[test]
fn on_a_full_disk_nothing_is_acknowledged_and_all_goes_on_when_there_is_room() {
    crate::story::tell(full(true));
}

#[test]
fn at_the_limit_of_a_files_size_nothing_is_acknowledged_and_all_goes_on_above_it() {
    crate::story::tell(full(false));
}
