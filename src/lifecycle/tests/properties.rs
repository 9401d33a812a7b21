//! Arbitrary lives, judged by a witness that keeps its own account of who said what when and knows
//! nothing of the machine but its inputs and effects.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::plan::Unusable;

/// What happens next in a life.
#[derive(Clone, Debug)]
enum Event {
    /// So many seconds pass, with nothing heard.
    Passes(u64),
    /// Time passes to the next deadline, and it is woken.
    Due,
    Heard(Input),
    Pause(bool),
    Resolves,
    InstanceTaken(bool),
    RoleFull(bool),
    RuleChanges(bool),
    CoolsDown(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let user = || prop_oneof![Just("U1"), Just("U2"), Just("U3")];
    let finals = prop_oneof![
        4 => Just(Final::Success),
        1 => Just(Final::Failed),
        1 => Just(Final::DeliveryTimedOut),
        1 => Just(Final::Undeliverable),
        2 => Just(Final::Late),
        1 => Just(Final::Other("Odd".into())),
    ];
    let why = || "why".to_owned();
    let input = prop_oneof![
        5 => Just(resolved()),
        1 => Just(Input::TargetResolved(Ok((target(), documented(sending()).plan.unwrap())))),
        1 => Just(Input::TargetResolved(Err(Unusable::NotNamed))),
        6 => Just(posted()),
        1 => Just(Input::DeclarationRefused { why: why() }),
        8 => user().prop_map(approved),
        1 => user().prop_map(|user| Input::Rejected { user: user.into() }),
        1 => user().prop_map(held),
        6 => Just(Input::Woken),
        6 => Just(Input::SendAccepted { command_id: "c-1".into() }),
        1 => Just(Input::SendRefused { why: why() }),
        4 => (0_u64..40).prop_map(|wait| Input::SendThrottled { retry_after: Duration::from_secs(wait) }),
        4 => Just(Input::SendLost { why: why() }),
        1 => Just(Input::SendUnclear { why: why() }),
        1 => Just(Input::RunUnseen { why: why() }),
        1 => Just(Input::HostSilent { why: why() }),
        2 => Just(Input::RunSeen { steps: ran(Final::Success).steps }),
        3 => finals.prop_map(|ended_as| Input::RunEnded { ran: ran(ended_as) }),
        3 => Just(Input::ReportPosted { ts: "1795410070.000100".into() }),
    ];
    prop_oneof![
        4 => (0_u64..30).prop_map(Event::Passes),
        1 => (0_u64..2000).prop_map(Event::Passes),
        5 => Just(Event::Due),
        30 => input.prop_map(Event::Heard),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => Just(Event::Resolves),
        2 => any::<bool>().prop_map(Event::InstanceTaken),
        2 => any::<bool>().prop_map(Event::RoleFull),
        1 => any::<bool>().prop_map(Event::RuleChanges),
        1 => any::<bool>().prop_map(Event::CoolsDown),
    ]
}

/// Often the way a life goes, so that what comes late is reached as well.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let usual = prop_oneof![
        Just(Vec::new()),
        Just(vec![Event::Heard(resolved())]),
        Just(vec![Event::Heard(resolved()), Event::Heard(posted())]),
    ];
    (usual, prop::collection::vec(event(), 0..40))
        .prop_map(|(first, rest)| first.into_iter().chain(rest).collect())
}

fn remediations() -> impl Strategy<Value = Remediation> {
    let stage = prop_oneof![1 => Just(Stage::Observe), 3 => Just(Stage::Approve), 3 => Just(Stage::Auto)];
    let trigger = prop_oneof![
        3 => Just(Trigger::Alert),
        1 => Just(Trigger::Person { user: "U1".into() }),
        1 => Just(Trigger::Again { user: "U1".into(), of: RemediationId("earlier".into()) }),
    ];
    let grace = prop_oneof![Just(Duration::ZERO), Just(GRACE)];
    (stage, 1_u32..=3, trigger, grace, any::<bool>()).prop_map(
        |(stage, approvals, trigger, grace, resolves)| {
            let mut this = new(stage, approvals, trigger);
            this.policy.grace = grace;
            this.policy.resolves &= resolves;
            this
        },
    )
}

/// What the presser of `Run again` saw of what it will do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Saw {
    All,
    /// The rule had changed before the press.
    AnotherRule,
    /// The node turns out to be another one.
    AnotherNode,
}

/// The witness.
struct Life {
    this: Remediation,
    facts: Facts,
    /// Everybody whose yes was said to a posted declaration, and the presser of `Run again`.
    said_yes: BTreeSet<String>,
    ordered_again: bool,
    saw: Saw,
    posted_at: Option<Timestamp>,
    /// Sendings that SSM may have taken.
    maybe_taken: u32,
    owed: Vec<Effect>,
}

impl Life {
    fn begin(new: Remediation, saw: Saw) -> Life {
        let ordered = new.is_ordered();
        let facts = Facts { ordered, rule_changed: saw == Saw::AnotherRule, ..calm(RAISED) };
        let mut said_yes = BTreeSet::new();
        let mut ordered_again = false;
        if let Trigger::Again { user, .. } = &new.trigger
            && saw == Saw::All
        {
            said_yes.insert(user.clone());
            ordered_again = true;
        }
        let opened = open(new, &facts);
        let facts = Facts { rule_changed: false, ..facts };
        let owed = opened.effects.clone();
        Life { this: opened.next, facts, said_yes, ordered_again, saw, posted_at: None, maybe_taken: 0, owed }
    }

    fn happens(&mut self, event: &Event) {
        let facts = &mut self.facts;
        match event {
            Event::Passes(seconds) => facts.now = facts.now.plus(Duration::from_secs(*seconds)),
            Event::Pause(on) => facts.pause = on.then(pause),
            Event::Resolves => facts.resolved_at = facts.resolved_at.or(Some(facts.now)),
            Event::InstanceTaken(on) => {
                facts.instance_taken = on.then(|| (RemediationId("other".into()), "web:DiskFull".into()));
            }
            Event::RoleFull(on) => facts.role_running = u32::from(*on),
            Event::RuleChanges(on) => facts.rule_changed = *on,
            Event::CoolsDown(on) => facts.cooldown_until = on.then(|| facts.now.plus(MAX_AGE)),
            Event::Due => self.comes_due(),
            Event::Heard(input) => self.hears(input),
        }
    }

    /// At its deadline, [`Input::Woken`] has to be taken in every state, whatever the facts.
    fn comes_due(&mut self) {
        let Some(due) = self.this.state.due_at() else {
            assert!(self.this.is_over(), "{:?} has no deadline", self.this.state);
            return;
        };
        self.facts.now = self.facts.now.max(due);
        let taken = step(&self.this, &Input::Woken, &self.facts);
        assert!(taken.is_ok(), "stuck: {taken:?} in {:?}", self.this.state);
        self.hears(&Input::Woken);
    }

    fn hears(&mut self, input: &Input) {
        let before = self.this.clone();
        // What people see counts for them, whether or not it is taken.
        if let (Input::Approved { user }, Some(_)) = (input, self.posted_at)
            && !matches!(&before.trigger, Trigger::Person { user: asker } if asker == user)
        {
            self.said_yes.insert(user.clone());
        }
        if matches!(input, Input::DeclarationPosted { .. }) && matches!(before.state, State::Declaring { .. })
        {
            self.posted_at = Some(self.facts.now);
        }
        let mut facts = self.facts.clone();
        if matches!(input, Input::TargetResolved(Ok(_))) && matches!(before.state, State::Resolving { .. }) {
            facts.rule_changed |= self.saw == Saw::AnotherNode;
            if facts.rule_changed {
                self.said_yes.clear();
                self.ordered_again = false;
            }
        }
        let taken = step(&before, input, &facts);
        let in_sending = matches!(before.state, State::Sending { .. });
        if matches!(input, Input::SendThrottled { .. }) && in_sending {
            self.maybe_taken -= 1;
        }
        let by_person = matches!(before.trigger, Trigger::Person { .. });
        let stops = self.facts.pause.is_some()
            || self.facts.resolved_at.is_some() && !by_person
            || self.facts.rule_changed && before.plan.is_some();
        if stops && *input == Input::Woken && before.state.is_before_sending() {
            let over = taken.as_ref().is_ok_and(|step| step.next.is_over());
            assert!(over, "a pause, a changed rule or the alert's end did not stop {:?}", before.state);
        }
        let Ok(taken) = taken else { return };
        if taken.effects.contains(&Effect::Send) {
            self.maybe_taken += 1;
            if in_sending {
                self.may_send_again(&taken.next);
            } else {
                self.may_send();
                assert_eq!(self.maybe_taken, 1, "two for one approval");
            }
        }
        let asked = matches!(before.state, State::Running { asking: true, .. });
        if *input == Input::Woken && taken.next.outcome() == Some(Outcome::Unknown) && before.is_fenced() {
            assert!(asked, "unknown, and the host was not asked: {before:?}");
        }
        for once in [Effect::Resolve, Effect::Declare, Effect::Report] {
            let again = taken.effects.contains(&once) && self.owed.contains(&once);
            assert!(!again, "{once:?} is owed twice");
        }
        if taken.effects.contains(&Effect::UpdateReport) {
            assert!(self.owed.contains(&Effect::Report), "an update of no report");
        }
        self.owed.extend(&taken.effects);
        if before.is_over() {
            assert_eq!(taken.next.state, before.state, "it was over");
        }
        assert_eq!(taken.next.state.due_at().is_none(), taken.next.is_over(), "no deadline, not over");
        let mut bounded = taken.next.clone();
        bounded.not_due_after_its_term(facts.now, facts.max_age);
        assert_eq!(bounded, taken.next, "a deadline of a clock that is right");
        self.this = taken.next;
    }

    /// The only conditions under which a command goes out.
    fn may_send(&self) {
        let (policy, facts) = (&self.this.policy, &self.facts);
        let posted_at = self.posted_at.expect("sent before its declaration was posted");
        match policy.stage {
            Stage::Observe => panic!("stage observe sent a command"),
            Stage::Approve => {
                let yes = self.said_yes.len();
                assert!(yes >= policy.approvals as usize, "{yes} of {} approvals", policy.approvals);
            }
            Stage::Auto => {
                let passed = facts.now.since(posted_at);
                assert!(self.ordered_again || passed >= policy.grace, "{passed:?} of {:?}", policy.grace);
            }
        }
        assert!(facts.pause.is_none(), "sent while paused");
        assert!(!facts.rule_changed, "sent what the rule no longer says");
        assert!(facts.instance_taken.is_none(), "sent to an instance that another one has");
        assert!(facts.role_running < facts.at_once, "sent beyond at_once");
        let by_person = matches!(self.this.trigger, Trigger::Person { .. });
        assert!(facts.resolved_at.is_none() || by_person, "sent after the alert resolved");
        let cooling = facts.cooldown_until.is_some_and(|until| until > facts.now);
        assert!(!cooling || facts.ordered, "sent in cooldown");
    }

    /// The only conditions under which another copy of a run goes out.
    fn may_send_again(&self, next: &Remediation) {
        let facts = &self.facts;
        assert!(self.this.is_fenced(), "only a fence makes a second copy harmless");
        assert!(self.maybe_taken <= 4 && next.sent_again.len() <= 3, "copies without end");
        assert_eq!(next.last_sent_at(), Some(facts.now), "its deadline on the host would be wrong");
        assert_eq!(next.sent_at, self.this.sent_at, "the first one was when it was");
        assert!(facts.pause.is_none() && !facts.rule_changed, "sent again though it was stopped");
        let by_person = matches!(next.trigger, Trigger::Person { .. });
        assert!(facts.resolved_at.is_none() || by_person, "sent again after the alert resolved");
        let allowed_at = next.approvals.last().map_or(RAISED.plus(next.policy.grace), |one| one.at);
        assert!(facts.now.since(allowed_at) <= facts.max_age, "a late cure answers another outage");
    }

    /// With nothing heard any more and time passing, every life ends.
    fn ends(mut self) {
        let stored = serde_json::to_string(&self.this).unwrap();
        assert_eq!(serde_json::from_str::<Remediation>(&stored).unwrap(), self.this);
        for _ in 0..200 {
            if self.this.is_over() {
                return;
            }
            self.comes_due();
        }
        panic!("never ends: {:?}", self.this.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_life_sends_what_was_not_declared_and_allowed_or_sends_twice_or_is_forgotten(
        new in remediations(),
        saw in prop_oneof![Just(Saw::All), Just(Saw::AnotherRule), Just(Saw::AnotherNode)],
        events in events(),
    ) {
        let mut life = Life::begin(new, saw);
        for event in &events {
            life.happens(event);
        }
        life.ends();
    }
}

#[test]
fn the_lives_that_are_tried_reach_every_state_and_most_outcomes() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    let mut sent_again = 0;
    for _ in 0..2000 {
        let (new, events) = (remediations(), events()).new_tree(&mut runner).unwrap().current();
        let mut life = Life::begin(new, Saw::All);
        for event in &events {
            life.happens(event);
            seen.insert(life.this.outcome().map_or(life.this.state.name(), Outcome::as_str));
        }
        sent_again += usize::from(life.owed.iter().filter(|effect| **effect == Effect::Send).count() > 1);
    }
    let states = [
        "resolving",
        "declaring",
        "awaiting_approval",
        "counting",
        "waiting",
        "sending",
        "running",
        "settling",
        "observed",
    ];
    let outcomes = ["healed", "failed", "unresolved", "rejected", "expired", "held", "cancelled", "unknown"];
    for name in states.iter().chain(&outcomes) {
        assert!(seen.contains(name), "{name} was never reached; the property proves nothing about it");
    }
    assert!(sent_again > 10, "only {sent_again} lives were throttled and sent again");
}
