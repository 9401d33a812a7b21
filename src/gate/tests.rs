//! Each gate by a table, the order they are asked in, and where their boundaries lie.

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_795_410_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

type Gate = fn(&Facts) -> Verdict;

fn ago(back: Duration) -> Timestamp {
    NOW.minus(back)
}

/// Facts under which every gate says go: an alert of a minute ago.
fn calm() -> Facts {
    Facts {
        now: NOW,
        resolved_at: None,
        raised_at: ago(MINUTE),
        max_age: MAX_AGE,
        pause: None,
        under_way: None,
        cooldown_until: None,
        attempts: Vec::new(),
        instance_taken: None,
        role_running: 0,
        at_once: 1,
        deaf: false,
        rule_changed: false,
        ordered: false,
    }
}

fn id(text: &str) -> RemediationId {
    RemediationId(text.to_owned())
}

fn a_pause() -> Pause {
    Pause { id: 7, pattern: "web:*".into(), by: "U1".into(), reason: None, since: ago(HOUR), until: None }
}

fn window(used: u32, count: u32, window: Duration, free_in: Duration) -> Used {
    Used { allowed: Attempts { count, window }, used, free_at: NOW.plus(free_in) }
}

/// Facts that every gate objects to.
fn everything_against_it() -> Facts {
    Facts {
        raised_at: ago(HOUR),
        pause: Some(a_pause()),
        under_way: Some(id("other")),
        cooldown_until: Some(NOW.plus(MINUTE)),
        attempts: vec![window(3, 3, HOUR, MINUTE)],
        instance_taken: Some((id("other"), "web:DiskFull".into())),
        role_running: 1,
        deaf: true,
        rule_changed: true,
        ..calm()
    }
}

fn name(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Go => "go".to_owned(),
        Verdict::Wait(reason) => format!("wait {}", reason.name()),
        Verdict::Hold(reason) => format!("hold {}", reason.name()),
    }
}

#[test]
fn every_gate_lets_a_fresh_alert_on_a_quiet_instance_through() {
    assert_eq!(on_arrival(&calm()), Verdict::Go);
    assert_eq!(before_declaring(&calm()), Verdict::Go);
    assert_eq!(before_sending(&calm()), Verdict::Go);
}

#[test]
fn an_alert_is_too_old_only_after_max_age_has_passed() {
    for (age, expected) in [
        (Duration::ZERO, "go"),
        (MAX_AGE - SECOND, "go"),
        (MAX_AGE, "go"),
        (MAX_AGE + Duration::from_millis(1), "hold stale"),
        (24 * HOUR, "hold stale"),
    ] {
        assert_eq!(name(&stale(&Facts { raised_at: ago(age), ..calm() })), expected, "{age:?}");
    }
    // Slack's clock may be ahead of ours.
    assert_eq!(stale(&Facts { raised_at: NOW.plus(MINUTE), ..calm() }), Verdict::Go);
    let told = stale(&Facts { raised_at: ago(HOUR), ..calm() });
    assert_eq!(told, Verdict::Hold(Reason::Stale { age: HOUR, max_age: MAX_AGE }));
}

#[test]
fn cooldown_is_over_at_its_last_moment() {
    for (until, expected) in [
        (ago(SECOND), "go"),
        (NOW, "go"),
        (Timestamp(NOW.0 + 1), "hold cooldown"),
        (NOW.plus(HOUR), "hold cooldown"),
    ] {
        assert_eq!(name(&cooldown(&Facts { cooldown_until: Some(until), ..calm() })), expected, "{until}");
    }
    let until = NOW.plus(12 * MINUTE);
    let told = cooldown(&Facts { cooldown_until: Some(until), ..calm() });
    assert_eq!(told, Verdict::Hold(Reason::CoolingDown { until }));
}

#[test]
fn every_window_of_attempts_holds_and_the_one_that_frees_last_is_named() {
    let day = 24 * HOUR;
    let judge = |windows: Vec<Used>| attempts(&Facts { attempts: windows, ..calm() });
    assert_eq!(judge(vec![]), Verdict::Go);
    assert_eq!(judge(vec![window(2, 3, HOUR, MINUTE), window(6, 7, 7 * day, day)]), Verdict::Go);
    let told = |verdict: Verdict| match verdict {
        Verdict::Hold(Reason::TooManyAttempts { used, count, window, free_at }) => {
            (used, count, window, free_at)
        }
        other => panic!("{other:?}"),
    };
    let short = window(3, 3, HOUR, 10 * MINUTE);
    let long = window(7, 7, 7 * day, day);
    let short_told = (3, 3, HOUR, NOW.plus(10 * MINUTE));
    let long_told = (7, 7, 7 * day, NOW.plus(day));
    assert_eq!(told(judge(vec![short.clone(), window(5, 7, 7 * day, day)])), short_told);
    assert_eq!(told(judge(vec![window(1, 3, HOUR, MINUTE), long.clone()])), long_told);
    assert_eq!(told(judge(vec![short.clone(), long.clone()])), long_told);
    assert_eq!(told(judge(vec![long, short])), long_told, "whichever is written first");
    // The rule was made stricter since: more were used than are allowed now.
    assert_eq!(told(judge(vec![window(5, 2, HOUR, MINUTE)])), (5, 2, HOUR, NOW.plus(MINUTE)));
}

#[test]
fn the_role_is_full_from_at_once_on() {
    for (running, at_once_is, expected) in
        [(0, 1, "go"), (1, 1, "wait at_once"), (2, 3, "go"), (3, 3, "wait at_once"), (9, 3, "wait at_once")]
    {
        let facts = Facts { role_running: running, at_once: at_once_is, ..calm() };
        assert_eq!(name(&at_once(&facts)), expected, "{running} of {at_once_is}");
    }
}

#[test]
fn waiting_turns_into_held_when_the_alert_has_become_too_old() {
    let taken = Some((id("other"), "web:DiskFull".to_owned()));
    for (age, word) in [(MAX_AGE, "wait"), (MAX_AGE + Duration::from_millis(1), "hold")] {
        let facts = Facts { raised_at: ago(age), instance_taken: taken.clone(), role_running: 1, ..calm() };
        assert_eq!(name(&instance(&facts)), format!("{word} instance_taken"), "{age:?}");
        assert_eq!(name(&at_once(&facts)), format!("{word} at_once"), "{age:?}");
        // Who asked in person waits no longer than an alert does.
        let ordered = Facts { ordered: true, ..facts };
        assert_eq!(name(&instance(&ordered)), format!("{word} instance_taken"), "{age:?}");
    }
}

#[test]
fn a_person_may_overrule_age_cooldown_and_attempts_and_nothing_else() {
    type Gate = fn(&Facts) -> Verdict;
    let against = everything_against_it();
    let ordered = Facts { ordered: true, ..everything_against_it() };
    let gates: [(&str, Gate); 9] = [
        ("paused", paused),
        ("stale", stale),
        ("under_way", under_way),
        ("cooldown", cooldown),
        ("attempts", attempts),
        ("instance_taken", instance),
        ("at_once", at_once),
        ("deaf", hearing),
        ("rule_changed", rule_unchanged),
    ];
    for (gate, judge) in gates {
        assert_eq!(name(&judge(&against)), format!("hold {gate}"));
        let overruled = ["stale", "cooldown", "attempts"].contains(&gate);
        assert_eq!(judge(&ordered) == Verdict::Go, overruled, "{gate}");
    }
}

/// Asks a group of gates with everything against it, then with each objection taken away in turn.
fn order_of(judge: Gate) -> Vec<String> {
    let mut facts = everything_against_it();
    let mut names = Vec::new();
    loop {
        let reason = match judge(&facts) {
            Verdict::Go => return names,
            Verdict::Wait(reason) | Verdict::Hold(reason) => reason,
        };
        names.push(reason.name().to_owned());
        match reason {
            Reason::Paused { .. } => facts.pause = None,
            Reason::Stale { .. } => facts.raised_at = NOW,
            Reason::UnderWay { .. } => facts.under_way = None,
            Reason::CoolingDown { .. } => facts.cooldown_until = None,
            Reason::TooManyAttempts { .. } => facts.attempts.clear(),
            Reason::InstanceTaken { .. } => facts.instance_taken = None,
            Reason::RoleFull { .. } => facts.role_running = 0,
            Reason::Deaf => facts.deaf = false,
            Reason::RuleChanged => facts.rule_changed = false,
            other => panic!("no gate says {other:?}"),
        }
    }
}

#[test]
fn the_gates_are_asked_in_the_contracts_order() {
    assert_eq!(order_of(on_arrival), ["paused", "stale"]);
    assert_eq!(order_of(before_declaring), ["paused", "stale", "under_way", "cooldown", "attempts"]);
    let sending =
        ["paused", "rule_changed", "under_way", "cooldown", "attempts", "instance_taken", "at_once", "deaf"];
    assert_eq!(order_of(before_sending), sending);
}

#[test]
fn what_only_makes_it_wait_does_not_keep_it_from_being_declared() {
    let busy = Facts {
        instance_taken: Some((id("other"), "web:DiskFull".into())),
        role_running: 5,
        rule_changed: false,
        ..calm()
    };
    assert_eq!(before_declaring(&busy), Verdict::Go);
    assert_eq!(name(&before_sending(&busy)), "wait instance_taken");
}

#[test]
fn only_what_can_become_free_is_waited_for_by_name() {
    let taken = Reason::InstanceTaken { other: id("other"), key: "web:DiskFull".into() };
    assert_eq!(taken.waits_for("i-1", "web").as_deref(), Some("instance:i-1"));
    let full = Reason::RoleFull { running: 1, at_once: 1 };
    assert_eq!(full.waits_for("i-1", "web").as_deref(), Some("role:web"));
    assert_eq!(Reason::Throttled { until: NOW }.waits_for("i-1", "web"), None);
    assert_eq!(Reason::CoolingDown { until: NOW }.waits_for("i-1", "web"), None);
}
