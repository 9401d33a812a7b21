//! The fence and the deadline, in real shells: whatever is sent how often, it runs once at most, and
//! every copy tells the same.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

/// A host: where the fences stand, and what the commands left behind.
struct Host {
    shell: &'static [&'static str],
    folder: tempfile::TempDir,
}

impl Host {
    /// One host for every shell there is.
    fn each(judge: impl Fn(&Host)) {
        for shell in shells() {
            judge(&Host { shell, folder: tempfile::tempdir().unwrap() });
        }
    }

    /// Made by the first run, with all above it.
    fn fences(&self) -> PathBuf {
        self.folder.path().join("var/heal")
    }

    fn of_run(&self) -> PathBuf {
        self.fences().join(RUN)
    }

    /// A rule that notes that it ran, then does `more`.
    fn plan(&self, more: &str) -> Plan {
        let ran = self.folder.path().join("ran");
        commands(&[&format!("echo x >>{}", ran.display()), more])
    }

    /// How often the rule ran.
    fn ran(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("ran")).map_or(0, |text| text.lines().count())
    }

    fn script(&self, plan: &Plan) -> String {
        plan.script(&RemediationId(RUN.to_owned()), &fence(&self.fences())).unwrap()
    }

    fn run(&self, plan: &Plan) -> Did {
        run_script(self.shell, plan, &self.script(plan), |_| {})
    }

    fn ask(&self, plan: &Plan, deadline: i64) -> Did {
        let fence = Fence { deadline, ..fence(&self.fences()) };
        let did = run_script(self.shell, plan, &ask_script(&RemediationId(RUN.to_owned()), &fence), |_| {});
        assert_eq!(did.code, Some(0));
        did
    }

    /// A copy in a process group of its own that is at work until it is killed or the host has `go`.
    fn begin(&self, plan: &Plan) -> std::process::Child {
        let file = self.folder.path().join("begun.sh");
        std::fs::write(&file, self.script(plan)).unwrap();
        let mut command = Command::new(self.shell[0]);
        command.args(&self.shell[1..]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let begun = command.spawn().unwrap();
        until(|| self.ran() > 0);
        begun
    }

    /// A run whose second step prints, and is then killed with all that belongs to it.
    fn killed_half_way(&self, prints: &str) -> Plan {
        let begun = self.folder.path().join("begun");
        let plan = self.plan(&format!("{prints}; echo >{}; sleep 60", begun.display()));
        let mut first = self.begin(&plan);
        until(|| begun.exists());
        let group = format!("-{}", first.id());
        assert!(Command::new("kill").args(["-9", "--", &group]).status().unwrap().success());
        first.wait().unwrap();
        plan
    }

    fn waiting(&self) -> Plan {
        let go = self.folder.path().join("go");
        self.plan(&format!("while ! [ -e {} ]; do sleep 0.02; done; echo gone", go.display()))
    }

    fn go(&self) {
        std::fs::write(self.folder.path().join("go"), "").unwrap();
    }
}

fn until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "it did not come");
        std::thread::yield_now();
    }
}

fn end(did: &Did) -> &str {
    did.read.end.as_deref().unwrap_or_else(|| panic!("no verdict: {did:?}"))
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// As if the folder had last changed then.
fn aged(path: &Path, then: &str) {
    assert!(Command::new("touch").args(["-d", then]).arg(path).status().unwrap().success());
}

fn root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

#[test]
fn a_second_copy_runs_nothing_and_tells_what_the_first_did() {
    Host::each(|host| {
        let plan = host.plan("echo out; exit 7");
        let first = host.run(&plan);
        assert_eq!((first.code, end(&first), first.read.exit), (Some(7), "done", Some(7)));
        assert_eq!((mode(&host.fences()), mode(&host.of_run())), (0o700, 0o700));
        assert_eq!(mode(&host.of_run().join("result")), 0o600);
        let second = host.run(&plan);
        assert_eq!((second.code, &second.stdout, &second.read), (first.code, &first.stdout, &first.read));
        assert_eq!(host.ask(&plan, 0).read, first.read);
        assert_eq!(host.ran(), 1);
    });
}

#[test]
fn of_many_copies_at_once_one_runs_and_all_tell_the_same() {
    Host::each(|host| {
        for round in 0..25 {
            // The first rounds race for the directory of all fences too.
            let round = Host { shell: host.shell, folder: tempfile::tempdir_in(host.folder.path()).unwrap() }
                .having_fences(round > 5);
            let plan = round.plan("echo out");
            let copies: Vec<Did> = std::thread::scope(|scope| {
                let copies: Vec<_> = (0..6).map(|_| scope.spawn(|| round.run(&plan))).collect();
                copies.into_iter().map(|copy| copy.join().unwrap()).collect()
            });
            assert_eq!(round.ran(), 1);
            for copy in &copies {
                assert_eq!((copy.code, end(copy)), (Some(0), "done"), "{copy:?}");
                assert_eq!(copy.stdout, copies[0].stdout);
            }
        }
    });
}

impl Host {
    fn having_fences(self, there: bool) -> Host {
        if there {
            std::fs::create_dir_all(self.fences()).unwrap();
        }
        self
    }
}

#[test]
fn a_second_copy_waits_for_the_first_and_not_for_ever() {
    Host::each(|host| {
        let plan = host.waiting();
        let mut first = host.begin(&plan);
        let hasty = Plan { timeout: Duration::from_secs(1), ..plan.clone() };
        let second = host.run(&hasty);
        assert_eq!((second.code, end(&second)), (Some(UNTOLD), "working"));
        assert_eq!(end(&host.ask(&plan, 0)), "working");
        let patient = std::thread::scope(|scope| {
            let patient = scope.spawn(|| host.run(&plan));
            host.go();
            patient.join().unwrap()
        });
        assert_eq!((patient.code, end(&patient)), (Some(0), "done"));
        assert_eq!(patient.read.steps[1].output, "gone\n");
        first.wait().unwrap();
        assert_eq!(host.ran(), 1);
    });
}

#[test]
fn a_copy_that_was_killed_half_way_is_said_to_be_and_nothing_runs_again() {
    Host::each(|host| {
        let plan = host.killed_half_way("echo half of it");
        let second = host.run(&plan);
        assert_eq!((second.code, end(&second)), (Some(UNTOLD), "interrupted"));
        let told = host.ask(&plan, 0);
        assert_eq!((end(&told), told.read.complete), ("interrupted", true));
        assert_eq!(told.read, second.read);
        // How far it came, as far as it is known.
        let steps: Vec<_> = told.read.steps.iter().map(|step| (step.exit, step.output.as_str())).collect();
        assert_eq!(steps, [(Some(0), ""), (None, "half of it\n")]);
        assert!(told.read.steps[0].millis.is_some() && told.read.steps[1].millis.is_none());
        assert!(told.read.rest.contains("ended half-way"), "{}", told.read.rest);
        assert_eq!(host.ran(), 1);
        // Its work folder goes with it, once nobody asks any more.
        let work = std::fs::read_link(host.of_run().join("work")).unwrap();
        assert!(work.join("steps").exists());
        aged(&host.of_run(), "40 days ago");
        let other = RemediationId("another".to_owned());
        let script = commands(&["true"]).script(&other, &fence(&host.fences())).unwrap();
        run_script(host.shell, &plan, &script, |_| {});
        assert!(!work.exists() && !host.of_run().exists());
    });
}

#[test]
fn of_a_killed_flood_the_end_is_told_and_no_half_line() {
    Host::each(|host| {
        let plan = host.killed_half_way("seq 1 30000 | sed 's/^/password=x/'");
        let told = host.ask(&plan, 0);
        assert!(told.stdout.len() < STDOUT_KEPT, "{}", told.stdout.len());
        let output = &told.read.steps[1].output;
        assert!(output.starts_with("[heal: ") && output.trim_end().ends_with("[redacted]"), "{output}");
        assert!(!output.contains("x30000"), "{output}");
    });
}

#[test]
fn a_run_that_ended_leaves_no_trace_of_where_it_worked() {
    Host::each(|host| {
        assert_eq!(end(&host.run(&host.plan("true"))), "done");
        assert!(host.of_run().join("work").symlink_metadata().is_err());
    });
}

#[test]
fn a_copy_that_is_asked_to_end_leaves_what_it_knows() {
    Host::each(|host| {
        let plan = host.plan("echo two; kill 0; sleep 5");
        let first = host.run(&plan);
        assert_eq!((first.code, end(&first), first.read.exit), (Some(143), "terminated", Some(143)));
        assert_eq!(host.run(&plan).stdout, first.stdout);
    });
}

#[test]
fn a_copy_after_its_deadline_runs_nothing_and_no_later_copy_does() {
    Host::each(|host| {
        let plan = host.plan("true");
        let past = Fence { deadline: 1_700_000_000, ..fence(&host.fences()) };
        let late = plan.script(&RemediationId(RUN.to_owned()), &past).unwrap();
        let late = run_script(host.shell, &plan, &late, |_| {});
        assert_eq!((late.code, end(&late), late.read.complete), (Some(LATE), "late", true));
        assert!(late.read.rest.contains("after its deadline; nothing was run"), "{}", late.read.rest);
        // What was said to have run nothing must not run in another copy.
        assert_eq!((end(&host.run(&plan)), end(&host.ask(&plan, 0))), ("late", "late"));
        assert_eq!(host.ran(), 0);
    });
}

#[test]
fn a_late_copy_of_what_ran_tells_what_ran() {
    Host::each(|host| {
        let plan = host.plan("true");
        let first = host.run(&plan);
        let past = Fence { deadline: 1_700_000_000, ..fence(&host.fences()) };
        let late = plan.script(&RemediationId(RUN.to_owned()), &past).unwrap();
        assert_eq!(run_script(host.shell, &plan, &late, |_| {}).stdout, first.stdout);
        assert_eq!(host.ran(), 1);
    });
}

#[test]
fn a_host_without_a_readable_clock_is_late() {
    Host::each(|host| {
        let bin = tempfile::tempdir().unwrap();
        let date = bin.path().join("date");
        std::fs::write(&date, "#!/bin/sh\necho soon\n").unwrap();
        std::fs::set_permissions(&date, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plan = host.plan("true");
        let did = run_script(host.shell, &plan, &host.script(&plan), |command| {
            command.env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()));
        });
        assert_eq!((end(&did), host.ran()), ("late", 0));
    });
}

#[test]
fn a_host_that_knows_nothing_of_a_run_says_whether_it_may_still_come() {
    Host::each(|host| {
        let plan = host.plan("true");
        assert_eq!(end(&host.ask(&plan, i64::MAX)), "awaited");
        assert_eq!(end(&host.ask(&plan, 1_700_000_000)), "nothing");
        assert!(!host.fences().exists(), "asking changes nothing");
    });
}

#[test]
fn without_a_fence_nothing_runs() {
    Host::each(|host| {
        let plan = host.plan("true");
        // A file where the directory of all fences belongs.
        std::fs::create_dir_all(host.fences().parent().unwrap()).unwrap();
        std::fs::write(host.fences(), "").unwrap();
        let did = host.run(&plan);
        assert_eq!((did.code, end(&did), did.read.exit), (Some(UNFENCED), "unfenced", Some(UNFENCED)));
        assert!(did.read.rest.contains("nothing was run"), "{}", did.read.rest);
        assert_eq!(host.ran(), 0);
    });
}

#[test]
fn on_a_read_only_disk_nothing_runs() {
    // No write permission stops root, a kernel's own file system does.
    for dir in ["/proc/heal", "/sys/heal"] {
        let plan = commands(&["echo never"]);
        let fence = Fence { dir: dir.to_owned(), deadline: i64::MAX };
        let script = plan.script(&RemediationId(RUN.to_owned()), &fence).unwrap();
        let did = run_script(&["sh"], &plan, &script, |_| {});
        assert_eq!((did.code, end(&did)), (Some(UNFENCED), "unfenced"));
        assert!(did.read.steps.is_empty() && did.read.rest.contains(dir), "{did:?}");
    }
}

/// A file system of 64 KiB, in a mount namespace of its own.
fn on_a_small_disk(host: &Host, words: &str) -> Option<std::process::Output> {
    if !root() {
        return None;
    }
    let fences = host.fences();
    std::fs::create_dir_all(&fences).unwrap();
    let mount = format!(
        "mount -t tmpfs -o size=64k,nr_inodes=24,mode=700 none {0} || exit 77; cd / || exit 77; {words}",
        fences.display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &mount]).output().ok()?;
    // Not every machine lets a test mount.
    (output.status.code() != Some(77) && !String::from_utf8_lossy(&output.stderr).contains("unshare"))
        .then_some(output)
}

#[test]
fn on_a_full_disk_the_cure_runs_once_and_is_told_from_memory() {
    Host::each(|host| {
        let plan = host.plan("echo cured");
        let file = host.folder.path().join("script.sh");
        std::fs::write(&file, host.script(&plan)).unwrap();
        let run = format!("{} {}", host.shell.join(" "), file.display());
        let fill = format!("cat /dev/zero >{}/full 2>/dev/null", host.fences().display());
        let words = format!(
            "{fill}; {run}; echo; {run}; k=$(readlink {0}/{RUN}/kept) && rm -r \"$k\"",
            host.fences().display()
        );
        let Some(output) = on_a_small_disk(host, &words) else { return };
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let (first, second) = stdout.split_once("end\n\nheal/1 run=").unwrap_or_else(|| panic!("{output:?}"));
        let read = read_output(plan.steps(), &format!("{first}end\n"));
        assert_eq!((read.end.as_deref(), read.exit), (Some("done"), Some(0)), "{output:?}");
        assert_eq!(read.steps[1].output, "cured\n");
        assert_eq!(format!("{first}end\n"), format!("heal/1 run={second}"));
        assert!(output.status.success(), "it was kept in memory: {output:?}");
        assert_eq!(host.ran(), 1);
    });
}

#[test]
fn on_a_disk_without_room_for_a_folder_the_runs_of_the_past_make_room() {
    Host::each(|host| {
        let plan = host.plan("echo cured");
        let file = host.folder.path().join("script.sh");
        std::fs::write(&file, host.script(&plan)).unwrap();
        let run = format!("{} {}", host.shell.join(" "), file.display());
        let fences = host.fences().display().to_string();
        let fill = format!("i=0; while touch {fences}/full$i; do i=$((i + 1)); done 2>/dev/null");
        // Without a past nothing runs, with one it does.
        let Some(output) = on_a_small_disk(host, &format!("{fill}; {run}")) else { return };
        let read = read_output(plan.steps(), &String::from_utf8_lossy(&output.stdout));
        assert_eq!((read.end.as_deref(), host.ran()), (Some("unfenced"), 0), "{output:?}");
        let past = format!(
            "mkdir {fences}/past && ln -s 1.0.x {fences}/past/heal-by && : >{fences}/past/result && touch -d '3 hours ago' {fences}/past"
        );
        let output = on_a_small_disk(host, &format!("{past}; {fill}; {run}")).unwrap();
        let read = read_output(plan.steps(), &String::from_utf8_lossy(&output.stdout));
        assert_eq!((read.end.as_deref(), host.ran()), (Some("done"), 1), "{output:?}");
    });
}

#[test]
fn what_stands_in_the_fences_place_is_not_taken_for_one() {
    Host::each(|host| {
        let plan = host.plan("true");
        std::fs::create_dir_all(host.fences()).unwrap();
        std::os::unix::fs::symlink("/nowhere", host.of_run()).unwrap();
        assert_eq!(end(&host.run(&plan)), "unfenced");
        std::fs::remove_file(host.of_run()).unwrap();
        std::fs::write(host.of_run(), "heal/1 run=r7k2m9 end=done exit=0\n").unwrap();
        assert_eq!(end(&host.run(&plan)), "unfenced");
        std::fs::remove_file(host.of_run()).unwrap();
        // A folder with another run's result, and one with what is no result at all.
        std::fs::create_dir(host.of_run()).unwrap();
        std::os::unix::fs::symlink("1.2.x", host.of_run().join("heal-by")).unwrap();
        std::fs::write(host.of_run().join("result"), "heal/1 run=other end=done exit=0\n").unwrap();
        assert_eq!(end(&host.run(&plan)), "interrupted");
        std::fs::remove_file(host.of_run().join("result")).unwrap();
        assert!(Command::new("mkfifo").arg(host.of_run().join("result")).status().unwrap().success());
        assert_eq!(end(&host.run(&plan)), "interrupted");
        assert_eq!(host.ran(), 0);
    });
}

#[test]
fn another_process_of_the_same_number_is_not_the_first_copy() {
    Host::each(|host| {
        let plan = host.plan("true");
        std::fs::create_dir_all(host.of_run()).unwrap();
        let mark = format!("{}.1.x", std::process::id());
        std::os::unix::fs::symlink(mark, host.of_run().join("heal-by")).unwrap();
        assert_eq!((end(&host.run(&plan)), host.ran()), ("interrupted", 0));
    });
}

#[test]
fn old_runs_go_and_nothing_else_does() {
    Host::each(|host| {
        let fences = host.fences();
        let run = |name: &str, then: &str| {
            let folder = fences.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink("1.0.x", folder.join("heal-by")).unwrap();
            std::fs::write(folder.join("result"), "x").unwrap();
            aged(&folder, then);
            folder
        };
        for number in 0..210 {
            run(&format!("past{number}"), "3 hours ago");
        }
        let ancient = run("ancient", "40 days ago");
        let odd: Vec<PathBuf> =
            ["a b", "-rf", "x\ny", "*", ".hidden", "é"].iter().map(|name| run(name, "50 days ago")).collect();
        // Somebody else's, by what stands in it.
        let foreign = fences.join("mysql");
        std::fs::create_dir(&foreign).unwrap();
        aged(&foreign, "50 days ago");
        let more = run("more", "50 days ago");
        std::fs::write(more.join("notes"), "mine").unwrap();
        aged(&more, "50 days ago");
        let link = fences.join("link");
        std::os::unix::fs::symlink(&ancient, &link).unwrap();
        assert_eq!(end(&host.run(&host.plan("true"))), "done");
        assert!(!ancient.exists() && link.symlink_metadata().is_ok());
        assert!(odd.iter().all(|odd| odd.join("result").exists()) && foreign.exists());
        assert_eq!(std::fs::read_to_string(more.join("notes")).unwrap(), "mine");
        assert!(host.of_run().join("result").exists(), "its own stays");
        let left = std::fs::read_dir(&fences).unwrap().count();
        assert!(left <= 201 + odd.len() + 3, "{left} are left");
    });
}

#[test]
fn a_run_of_this_hour_stays_however_many_there_are() {
    Host::each(|host| {
        let fences = host.fences();
        for number in 0..205 {
            let folder = fences.join(format!("now{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink("1.0.x", folder.join("heal-by")).unwrap();
        }
        assert_eq!(end(&host.run(&host.plan("true"))), "done");
        // A copy of it may still be on its way.
        assert_eq!(std::fs::read_dir(&fences).unwrap().count(), 206);
    });
}
