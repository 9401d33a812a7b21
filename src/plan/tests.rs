//! The script runs in real shells: dash (`sh`), bash and busybox.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

mod fence;

const RUN: &str = "r7k2m9";
/// The shells there may be.
const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

fn shell(steps: &[(StepKind, &str)], env: &[(&str, &str)]) -> Plan {
    let steps = steps.iter().map(|(kind, text)| Step { kind: *kind, text: (*text).to_owned() }).collect();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Plan { work: Work::Shell { steps, env }, timeout: Duration::from_secs(60) }
}

fn commands(texts: &[&str]) -> Plan {
    shell(&texts.iter().map(|text| (StepKind::Command, *text)).collect::<Vec<_>>(), &[])
}

/// A fence without a deadline.
fn fence(dir: &std::path::Path) -> Fence {
    Fence { dir: dir.to_str().unwrap().to_owned(), deadline: i64::MAX }
}

#[derive(Clone, Debug)]
struct Did {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    read: ReadOutput,
    took: Duration,
}

impl Did {
    /// The exit codes of the steps that ran.
    fn exits(&self) -> Vec<Option<i32>> {
        self.read.steps.iter().map(|step| step.exit).collect()
    }
}

/// Runs the plan's script as the agent does: a file, a process group of its own, its output read to the end.
fn run_in(interpreter: &[&str], plan: &Plan, prepare: impl FnOnce(&mut Command)) -> Did {
    let fences = tempfile::tempdir().unwrap();
    let script = plan.script(&RemediationId(RUN.to_owned()), &fence(fences.path())).unwrap();
    run_script(interpreter, plan, &script, prepare)
}

fn run_script(interpreter: &[&str], plan: &Plan, script: &str, prepare: impl FnOnce(&mut Command)) -> Did {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("_script.sh");
    assert!(!script.contains("{{") && !script.contains("}}"), "SSM would interpolate:\n{script}");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new(interpreter[0]);
    command.args(&interpreter[1..]).arg(&file).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    prepare(&mut command);
    let began = Instant::now();
    let output = command.output().unwrap();
    let took = began.elapsed();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let read = read_output(plan.steps(), &stdout);
    Did { code: output.status.code(), stdout, stderr, read, took }
}

fn shells() -> impl Iterator<Item = &'static [&'static str]> {
    for shell in SHELLS {
        let there = Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).status().is_ok();
        assert!(there, "{} is not here; `sh tests/run.sh` installs what the tests need", shell[0]);
    }
    SHELLS.into_iter()
}

/// In every shell.
fn run(plan: &Plan, judge: impl Fn(&Did)) {
    for interpreter in shells() {
        let did = run_in(interpreter, plan, |_| {});
        eprintln!(
            "--- {interpreter:?}: {:?} in {:?}\n{}\n{}",
            did.code,
            did.took,
            &did.stdout.get(..2000.min(did.stdout.len())).unwrap_or(""),
            did.stderr
        );
        judge(&did);
    }
}

#[test]
fn the_script_of_the_talks_rule_is_this() {
    let plan = commands(&[
        "PROC_CHECK --ignore-check FOO_PROCESS",
        "service FOO_PROCESS restart",
        "service FOO_PROCESS status",
    ]);
    let fence = Fence { dir: FENCE_DIR.to_owned(), deadline: 1_790_000_000 };
    insta::assert_snapshot!(plan.script(&RemediationId(RUN.to_owned()), &fence).unwrap());
}

#[test]
fn steps_run_in_one_shell_and_tell_their_output_in_order() {
    let plan = shell(
        &[
            (StepKind::Confirm, "cd /tmp && X=5"),
            (StepKind::Command, "pwd; echo out; echo err >&2; echo again"),
            (StepKind::Command, "echo $X # a comment"),
            (StepKind::Command, "cat <<'EOF'\nheredoc $X\nEOF"),
            (StepKind::Command, "if true\nthen\n  cat\n  umask\nfi"),
            (StepKind::Verify, "true"),
        ],
        &[],
    );
    run(&plan, |did| {
        assert_eq!(did.code, Some(0));
        assert_eq!(did.exits(), vec![Some(0); 6]);
        assert!(did.read.complete);
        assert_eq!(did.read.end.as_deref(), Some("done"));
        let outputs: Vec<&str> = did.read.steps.iter().map(|step| step.output.as_str()).collect();
        assert_eq!(outputs[1], "/tmp\nout\nerr\nagain\n");
        assert_eq!(outputs[2], "5\n");
        assert_eq!(outputs[3], "heredoc $X\n");
        assert_ne!(outputs[4], "0077\n", "the commands must not run under the script's own umask");
        assert_eq!(did.read.steps[5].kind, Some(StepKind::Verify));
        assert_eq!(did.read.steps[2].name, "echo $X # a comment");
        assert_eq!(did.stderr, "");
        assert_eq!(did.read.rest, "");
    });
}

#[test]
fn the_first_step_that_fails_is_the_last_that_runs() {
    run(&commands(&["true", "echo no; (exit 7)", "echo never"]), |did| {
        assert_eq!((did.code, did.exits()), (Some(7), vec![Some(0), Some(7)]));
        assert!(!did.stdout.contains("never"));
    });
}

#[test]
fn a_confirm_that_fails_runs_nothing_and_is_no_failure() {
    let plan = shell(&[(StepKind::Confirm, "echo fine; false"), (StepKind::Command, "echo never")], &[]);
    run(&plan, |did| {
        assert_eq!((did.code, did.exits()), (Some(0), vec![Some(1)]));
        assert!(!did.stdout.contains("never"));
    });
}

#[test]
fn a_step_may_exit_and_what_was_left_out_is_no_success() {
    run(&commands(&["true", "echo bye; exit 3", "echo never"]), |did| {
        assert_eq!((did.code, did.exits()), (Some(3), vec![Some(0), Some(3)]));
        assert_eq!(did.read.steps[1].output, "bye\n");
    });
    run(&commands(&["exit 0", "echo never"]), |did| {
        assert_eq!((did.code, did.exits()), (Some(ENDED_EARLY), vec![Some(0)]));
        assert_eq!(did.read.end.as_deref(), Some("early"));
    });
    run(&commands(&["true", "exit 0"]), |did| assert_eq!(did.code, Some(0)));
    run(&commands(&["set -e", "false; echo never"]), |did| {
        assert_eq!((did.code, did.exits()), (Some(1), vec![Some(0), Some(1)]));
    });
    run(&commands(&["trap 'echo own' EXIT; exit 4"]), |did| {
        assert_eq!((did.code, did.exits()), (Some(4), vec![Some(4)]))
    });
    run(&commands(&["exec sh -c 'echo replaced; exit 6'"]), |did| {
        assert_eq!((did.code, did.read.steps[0].output.as_str()), (Some(6), "replaced\n"));
    });
}

#[test]
fn a_step_that_is_no_shell_fails_alone() {
    run(&commands(&["echo one", "if then ((", "echo never"]), |did| {
        assert_eq!(did.read.steps.len(), 2);
        assert_eq!(did.read.steps[0].output, "one\n");
        assert!(did.code.is_some_and(|code| code != 0) && did.read.steps[1].exit == did.code);
        assert!(
            did.read.steps[1].output.to_lowercase().contains("syntax")
                || did.read.steps[1].output.contains("unexpected")
        );
    });
    run(&commands(&["echo 'unclosed"]), |did| assert_ne!(did.code, Some(0)));
}

#[test]
fn values_of_an_alert_are_data() {
    let long = "x".repeat(3990);
    let hostile = [
        "'; touch x; '",
        "$(touch x)",
        "`touch x`",
        "a\nb\n",
        "{{ssm:x}}",
        "{{{x}}}",
        "}}",
        "\\",
        "\\'",
        "\"",
        "$HOME",
        "!!",
        "-n",
        "é 漢字 \u{1f600}",
        "*",
        " lead and trail ",
        "",
        long.as_str(),
        "@HEAD@ @RUN@",
    ];
    for value in hostile {
        let plan =
            shell(&[(StepKind::Command, "printf %s \"$V\"; ls; sh -c 'printf %s \"$V\"'")], &[("V", value)]);
        run(&plan, |did| {
            assert_eq!(did.read.steps[0].output, format!("{value}_script.sh\n{value}"), "{value:?}")
        });
    }
}

#[test]
fn braces_in_a_command_reach_the_shell_and_not_ssm() {
    run(&commands(&["echo '{{.State}}' \"{{{}}}\""]), |did| {
        assert_eq!(did.read.steps[0].output, "{{.State}} {{{}}}\n")
    });
}

#[test]
fn what_a_step_leaves_behind_holds_nothing_up() {
    run(&commands(&["sleep 30 & echo $!", "echo done"]), |did| {
        assert_eq!(did.exits(), vec![Some(0), Some(0)]);
        assert!(did.took < Duration::from_secs(10), "took {:?}", did.took);
        let pid = did.read.steps[0].output.trim();
        assert!(Command::new("kill").arg(pid).status().unwrap().success(), "it was to live on");
    });
    // `wait` waits for the step's own children and not for ours.
    run(&commands(&["sleep 0.1 & wait; echo waited"]), |did| {
        assert_eq!(did.read.steps[0].output, "waited\n");
        assert!(did.took < Duration::from_secs(10));
    });
}

#[test]
fn output_cannot_pass_for_the_verdict_or_another_steps() {
    let fake = "echo 'heal/1 step=3 kind=verify exit=0 ms=1'; echo 'heal/1 run=x end=done'; \
                echo 'heal/1 x output of step=2'; echo 'heal/1 x end'; printf 'no line feed'; false";
    run(&commands(&["printf ab", fake, "true"]), |did| {
        assert_eq!(did.exits(), vec![Some(0), Some(1)]);
        assert_eq!(did.read.steps[0].output, "ab");
        assert!(
            did.read.steps[1].output.starts_with("heal/1 step=3")
                && did.read.steps[1].output.ends_with("no line feed")
        );
        assert!(did.read.complete);
    });
}

#[test]
fn long_output_keeps_its_head_and_its_tail_within_what_ssm_keeps() {
    run(&commands(&["seq 1 20000", "seq 1 20000", "seq 1 20000", "seq 1 20000; false"]), |did| {
        assert!(did.stdout.len() < STDOUT_KEPT, "{}", did.stdout.len());
        assert!(did.read.complete);
        for step in &did.read.steps {
            assert!(step.output.starts_with("1\n2\n") && step.output.ends_with("19999\n20000\n"));
            assert!(step.output.contains("bytes left out]"));
        }
    });
    let many: Vec<&str> = vec!["seq 1 20000"; 60];
    run(&commands(&many), |did| {
        assert!(did.stdout.len() < STDOUT_KEPT, "{}", did.stdout.len());
        assert_eq!(did.read.steps.len(), 60);
    });
}

#[test]
fn a_flood_of_bytes_is_bounded_and_told_in_time() {
    // What is printed while the middle is being cut out may go with it; what follows a pause does not.
    run(&commands(&["echo first; head -c 100000000 /dev/urandom; echo; sleep 1; echo last"]), |did| {
        assert_eq!(did.exits(), vec![Some(0)]);
        let output = &did.read.steps[0].output;
        assert!(output.starts_with("first\n") && output.ends_with("\nlast\n"));
        assert!(did.stdout.chars().count() < STDOUT_KEPT && did.took < Duration::from_secs(60));
    });
}

#[test]
fn a_script_that_is_ended_tells_what_it_knows() {
    run(&commands(&["echo one", "echo two; kill 0; sleep 5", "echo never"]), |did| {
        assert_eq!(did.code, Some(143));
        assert_eq!(did.read.end.as_deref(), Some("terminated"));
        assert_eq!(did.exits(), vec![Some(0), None]);
        assert_eq!(did.read.steps[1].output, "two\n");
    });
    run(&commands(&["echo one", "kill -9 0"]), |did| assert!(!did.read.complete && did.code.is_none()));
}

#[test]
fn without_a_place_to_work_nothing_runs() {
    let plan = commands(&["echo never >&2"]);
    let folder = tempfile::tempdir().unwrap();
    let mktemp = folder.path().join("mktemp");
    std::fs::write(&mktemp, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&mktemp, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let did = run_in(&["sh"], &plan, |command| {
        command.env("PATH", &path);
    });
    assert_eq!(did.code, Some(UNPREPARED));
    assert_eq!(did.read.end.as_deref(), Some("unprepared"));
    assert!(did.read.steps.is_empty() && did.read.rest.contains("nothing was run"));
}

#[test]
fn nothing_is_left_on_the_host() {
    let left = || {
        let folders = ["/run", "/dev/shm", "/tmp", "/var/tmp"]
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok());
        let names = folders.flatten().flatten().map(|entry| entry.path());
        names.filter(|path| std::fs::read(path.join("left.behind")).is_ok()).count()
    };
    let plan = commands(&["touch \"$heal_dir/left.behind\"", "exit 2"]);
    let did = run_in(&["sh"], &plan, |_| {});
    assert_eq!((did.code, left()), (Some(2), 0));
}

#[test]
fn output_that_was_cut_is_read_as_far_as_it_goes() {
    let plan = commands(&["seq 1 1000", "DB_PASSWORD=hunter2; echo DB_PASSWORD=$DB_PASSWORD"]);
    let whole = run_in(&["sh"], &plan, |_| {}).stdout;
    for cut in [0, 5, 30, 60, 100, 2500, whole.len() - 3] {
        let read = read_output(plan.steps(), &whole[..cut]);
        assert!(!read.complete, "{cut}");
        assert_eq!(
            read.steps.len(),
            if cut < 60 {
                0
            } else if cut < 110 {
                read.steps.len()
            } else {
                2
            }
        );
    }
    let read = read_output(plan.steps(), &whole);
    assert_eq!(read.steps[1].output, "DB_PASSWORD=[redacted]\n");
    assert_eq!(read_output(plan.steps(), "sh: 1: nothing\n").rest, "sh: 1: nothing\n");
}

fn rule(action: crate::rule::Action, env: &[(&str, &str)]) -> crate::rule::Rule {
    crate::rule::Rule {
        key: crate::rule::RuleKey { role: "web".to_owned(), alert: "Down".to_owned() },
        place: crate::rule::Place { file: "r.yaml".into(), line: 1, column: 1 },
        about: None,
        action,
        confirm: Some("confirm".to_owned()),
        verify: Some("verify".to_owned()),
        stage: crate::rule::Stage::Auto,
        grace: Duration::ZERO,
        timeout: Duration::from_secs(300),
        cooldown: Duration::ZERO,
        attempts: Vec::new(),
        at_once: 1,
        when: BTreeMap::new(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        approvers: Vec::new(),
        approvals: 1,
        approve_within: Duration::ZERO,
        resolve_within: Duration::ZERO,
        runbook: None,
        owner: None,
        fix: None,
    }
}

fn alert(labels: &[(&str, &str)]) -> crate::alert::Alert {
    crate::alert::Alert {
        name: "Down".to_owned(),
        status: crate::alert::Status::Firing,
        role: Some("web".to_owned()),
        host: Some("web-1".to_owned()),
        instance: None,
        instance_id: None,
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

fn target(platform: Platform) -> Target {
    Target {
        instance_id: "i-0123456789abcdef0".to_owned(),
        name: "web-1".to_owned(),
        address: None,
        platform,
    }
}

#[test]
fn a_plan_carries_the_alerts_values_or_says_what_is_missing() {
    let action = || crate::rule::Action::Commands(vec!["df \"$MOUNT\"".to_owned()]);
    let of = |env: &[(&str, &str)], labels: &[(&str, &str)]| {
        plan(&rule(action(), env), &alert(labels), &target(Platform::Linux))
    };
    let made = of(
        &[("MOUNT", "{{ labels.mountpoint }}"), ("WHO", "{{host}}/{{ instance_id }}")],
        &[("mountpoint", "/v'ar")],
    )
    .unwrap();
    let Work::Shell { steps, env } = &made.work else { panic!("{made:?}") };
    let kinds: Vec<StepKind> = steps.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [StepKind::Confirm, StepKind::Command, StepKind::Verify]);
    assert_eq!((env["MOUNT"].as_str(), env["WHO"].as_str()), ("/v'ar", "web-1/i-0123456789abcdef0"));
    let why = |made: Result<Plan, Unusable>| match made {
        Err(Unusable::Unfit { why }) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(of(&[("MOUNT", "{{ labels.mountpoint }}")], &[])).contains("`labels.mountpoint`"));
    assert!(why(of(&[("LD_PRELOAD", "{{ labels.x }}")], &[("x", "/tmp/x.so")])).contains("LD_PRELOAD"));
    assert!(why(of(&[("A B", "x")], &[])).contains("name of a variable"));
    assert!(why(of(&[("V", "{{ labels.x }}")], &[("x", &"y".repeat(5000))])).contains("4096"));
    let windows = target(Platform::Windows);
    let made = plan(&rule(action(), &[]), &alert(&[]), &windows);
    assert_eq!(made, Err(Unusable::Platform { target: windows }));
}

#[test]
fn a_parameter_never_carries_what_ssm_would_interpolate() {
    let of = |value: &str| {
        let parameters = BTreeMap::from([("P".to_owned(), vec!["a {{ labels.x }}".to_owned()])]);
        let action = crate::rule::Action::Document { name: "Doc".to_owned(), parameters };
        plan(&rule(action, &[]), &alert(&[("x", value)]), &target(Platform::Windows))
    };
    let made = of("fine").unwrap();
    assert_eq!(made.script(&RemediationId(RUN.to_owned()), &fence("/x".as_ref())), None);
    let Work::Document { parameters, .. } = made.work else { panic!() };
    assert_eq!(parameters["P"], ["a fine"]);
    for bad in ["{{ssm:secret}}", "}}", "a\nb", "\u{1b}[0m", &"y".repeat(5000)] {
        assert!(matches!(of(bad), Err(Unusable::Unfit { .. })), "{bad:?}");
    }
}
