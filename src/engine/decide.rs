//! One decision inside one transaction: facts are read, the lifecycle steps, and the new state, the
//! journal line and the effects owed are written together. Nothing here touches the world.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::hearing::Hearing;
use crate::alert::{Alert, Origin};
use crate::gate::{Facts, Pause, Used};
use crate::lifecycle::{self, Effect, Input, Policy, Refused, Remediation, RemediationId, State, Trigger};
use crate::plan::{Plan, Target, Unusable};
use crate::rule::{Rule, RuleSet, glob_match};
use crate::store::{self, Notice, Owed, Record, Subject, Tx};
use crate::time::Timestamp;

/// How many that wait are tried when something becomes free. The next release tries the next ones.
const WOKEN_AT_ONCE: usize = 8;

/// What decisions look at besides the store; a snapshot, so that one transaction sees one rule set.
#[derive(Clone)]
pub(super) struct Ground {
    pub rules: Arc<RuleSet>,
    pub now: Timestamp,
    pub max_age: Duration,
    /// Looked at in the transaction, so that what was read just before counts.
    pub hearing: Hearing,
    /// Where shell runs that are sent from now on make their fences.
    pub fence_dir: Arc<str>,
}

/// What a transaction decided, for the shell to carry out after the commit.
#[derive(Default)]
pub(super) struct Decided {
    /// Effects owed here, in the order they were owed; what another replica has claimed it performs itself.
    pub owed: Vec<Owed>,
    /// Posts owed.
    pub notices: Vec<Notice>,
    /// The newest snapshot of every remediation that changed, with its alert's row.
    pub changed: HashMap<RemediationId, Arc<Remediation>>,
    /// The earliest moment something is due.
    pub due_at: Option<Timestamp>,
    /// Names of states entered and outcomes reached, for metrics.
    pub entered: Vec<&'static str>,
}

impl Decided {
    /// What `me` has claimed it performs after the commit; others are called for theirs.
    pub(super) fn owe(&mut self, me: i64, owed: Owed) {
        if owed.claimed_by != me {
            return;
        }
        self.owed.retain(|have| have.remediation != owed.remediation || have.effect != owed.effect);
        self.owed.push(owed);
    }
}

/// What a new remediation is opened for.
pub(super) struct Opening<'a> {
    pub id: RemediationId,
    pub rule: &'a Rule,
    pub trigger: Trigger,
    pub alert: &'a Alert,
    /// Its row, where there is an alert.
    pub row: Option<i64>,
    pub origin: &'a Origin,
    /// Whether its sender says when it is over.
    pub resolves: bool,
    /// The node, where the cache knew it.
    pub target: Option<Result<Target, Unusable>>,
}

/// Opens a remediation and takes it as far as it goes at once.
pub(super) fn open(
    tx: &mut dyn Tx,
    ground: &Ground,
    opening: Opening<'_>,
    out: &mut Decided,
) -> store::Result<RemediationId> {
    begin(tx, ground, opening, false, out)
}

/// Keeps on record what came too late to be acted on, and says nothing of it: whoever reads the past
/// says it for many at once. What turns out to be worth acting on goes on as with [`open`].
pub(super) fn open_missed(
    tx: &mut dyn Tx,
    ground: &Ground,
    opening: Opening<'_>,
    out: &mut Decided,
) -> store::Result<RemediationId> {
    begin(tx, ground, opening, true, out)
}

fn begin(
    tx: &mut dyn Tx,
    ground: &Ground,
    opening: Opening<'_>,
    missed: bool,
    out: &mut Decided,
) -> store::Result<RemediationId> {
    let new = Remediation {
        id: opening.id,
        rule_key: opening.rule.key.clone(),
        policy: Policy::new(opening.rule, opening.resolves),
        trigger: opening.trigger,
        alert: opening.alert.clone(),
        origin: opening.origin.clone(),
        target: None,
        plan: None,
        opened_at: ground.now,
        approvals: Vec::new(),
        declaration: None,
        report: None,
        sent_at: None,
        sent_again: Vec::new(),
        fence_dir: None,
        command_id: None,
        ran: None,
        state: State::Resolving { until: ground.now },
    };
    let id = new.id.clone();
    let resolved_at = match opening.row {
        Some(row) => tx.alert_resolved_at(row)?,
        None => None,
    };
    let mut facts = facts(tx, ground, &new, resolved_at, None)?;
    if let Trigger::Again { of, .. } = &new.trigger {
        // What the presser saw is the earlier declaration.
        facts.rule_changed =
            tx.remediation(of)?.is_none_or(|(earlier, _)| rule_changed(&ground.rules, &earlier));
    }
    let mut step = lifecycle::open(new, &facts);
    if missed {
        // An alert that resolved ends here, without a look-up of its node.
        if let Ok(ended) = lifecycle::step(&step.next, &Input::Woken, &facts) {
            step = ended;
        }
        if step.next.is_over() {
            step.effects.clear();
        }
    }
    let who = who_began(&step.next);
    let why = step.next.rule_key.to_string();
    let opened = Record { at: ground.now, remediation: Some(&id), what: "opened", who: &who, why: &why };
    let Some(found) = opening.target.filter(|_| step.effects == [Effect::Resolve]) else {
        let next = Arc::new(step.next);
        let owed = tx.keep_new(&next, opening.row, &[opened], &step.effects)?;
        keep(tx.me(), &next, owed, out);
        return Ok(id);
    };
    // Its node is known, so that nothing has to be looked up in between: two steps, and one row is written.
    let input = Input::TargetResolved(found.and_then(|target| plan_for(opening.rule, opening.alert, target)));
    out.entered.push(name_of(&step.next));
    let before = Arc::new(step.next);
    let subject = Subject { remediation: before, alert: opening.row, resolved_at };
    // The machine just asked for this, so it cannot refuse it.
    drop(advance(tx, ground, subject, Some(opened), (&input, "heal"), out)?);
    Ok(id)
}

fn who_began(remediation: &Remediation) -> String {
    match &remediation.trigger {
        Trigger::Alert => remediation.origin.sender.clone(),
        Trigger::Person { user } | Trigger::Again { user, .. } => user.clone(),
    }
}

/// The exact plan, checked to fit into one declaration: what is not shown whole is not run.
pub(super) fn plan_for(rule: &Rule, alert: &Alert, target: Target) -> Result<(Target, Plan), Unusable> {
    let plan = crate::plan::plan(rule, alert, &target)?;
    crate::message::fits(&plan).map_err(|why| Unusable::Unfit { why })?;
    Ok((target, plan))
}

/// One input to one remediation. The inner error is the machine's refusal: nothing changed but the journal.
pub(super) fn apply(
    tx: &mut dyn Tx,
    ground: &Ground,
    id: &RemediationId,
    input: &Input,
    who: &str,
    out: &mut Decided,
) -> store::Result<Result<(), Refused>> {
    let subject = match tx.subject(id) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Err(Refused::Over { outcome: None })),
        Err(store::Error::Corrupt { what, why }) => {
            // One row that cannot be read must not stop the others; but who has claimed it may be able to read it.
            if !tx.set_aside(id)? {
                tracing::warn!(remediation = %id, why, "a stored {what} cannot be read; {id} is left to the replica that has it");
                return Ok(Err(Refused::Over { outcome: None }));
            }
            tracing::error!(remediation = %id, why, "a stored {what} cannot be read; {id} is set aside");
            tx.record(&Record {
                at: ground.now,
                remediation: Some(id),
                what: "set_aside",
                who: "heal",
                why: &why,
            })?;
            return Ok(Err(Refused::Over { outcome: None }));
        }
        Err(error) => return Err(error),
    };
    advance(tx, ground, subject, None, (input, who), out)
}

/// One step from where it stands; `opened` is the line of one that is not kept yet.
fn advance(
    tx: &mut dyn Tx,
    ground: &Ground,
    subject: Subject,
    opened: Option<Record<'_>>,
    (input, who): (&Input, &str),
    out: &mut Decided,
) -> store::Result<Result<(), Refused>> {
    let Subject { remediation: before, alert: row, resolved_at } = subject;
    let id = &before.id;
    let instance = match input {
        Input::TargetResolved(Ok((target, _))) => Some(target.instance_id.clone()),
        _ => None,
    };
    let mut facts = facts(tx, ground, &before, resolved_at, instance.as_deref())?;
    // Before another copy is sent, it must still be wanted; SSM's plain yes needs no such look.
    if before.is_in_doubt() && !matches!(input, Input::SendAccepted { .. }) {
        facts.pause = pause_of(&tx.active_pauses(ground.now)?, &before);
        facts.rule_changed = rule_changed(&ground.rules, &before);
    }
    if let (Trigger::Again { of, .. }, Input::TargetResolved(Ok((target, plan)))) = (&before.trigger, input) {
        let seen = |earlier: &Remediation| {
            let node = earlier.target.as_ref().map(|target| &target.instance_id);
            earlier.plan.as_ref() == Some(plan) && node == Some(&target.instance_id)
        };
        facts.rule_changed = tx.remediation(of)?.is_none_or(|(earlier, _)| !seen(&earlier));
    }
    let mut step = match lifecycle::step(&before, input, &facts) {
        Ok(step) => step,
        Err(refused) => {
            if let Some(opened) = opened {
                tx.keep_new(&before, row, &[opened], &[])?;
                keep(tx.me(), &before, Vec::new(), out);
            }
            if let Some(due) = before.state.due_at() {
                hint(out, due);
            }
            if refused != Refused::Nothing {
                let why = format!("{} in state {}: {refused:?}", input.name(), before.state.name());
                tx.record(&Record {
                    at: ground.now,
                    remediation: Some(id),
                    what: "refused",
                    who,
                    why: &why,
                })?;
            }
            return Ok(Err(refused));
        }
    };
    if before.sent_at.is_none() && step.next.sent_at.is_some() {
        step.next.fence_dir = Some(ground.fence_dir.to_string());
    }
    // Looking again and waiting on is nothing new to tell.
    let waits_on = step.effects.is_empty()
        && (matches!(step.next.state, State::Waiting { .. }) || matches!(input, Input::RunUnseen { .. }));
    let why = account(&step.next, input);
    let record = Record { at: ground.now, remediation: Some(id), what: input.name(), who, why: &why };
    let record = (!waits_on).then_some(record);
    let frees_role = before.state.takes_role_slot() && !step.next.state.takes_role_slot();
    let frees_instance = before.state.takes_instance() && !step.next.state.takes_instance();
    let reopen = step.effects.contains(&Effect::Reopen);
    let owing: Vec<Effect> = step.effects.into_iter().filter(|effect| *effect != Effect::Reopen).collect();
    let next = Arc::new(step.next);
    let owed = match opened {
        Some(opened) => {
            let lines: Vec<Record<'_>> = [Some(opened), record].into_iter().flatten().collect();
            tx.keep_new(&next, row, &lines, &owing)?
        }
        None => tx.keep_step(&next, record.as_ref(), &owing)?,
    };
    keep(tx.me(), &next, owed, out);
    if let Some(target) = next.target.as_ref().filter(|_| frees_instance) {
        wake(tx, ground, &format!("instance:{}", target.instance_id), out)?;
    }
    if frees_role {
        wake(tx, ground, &format!("role:{}", next.role()), out)?;
    }
    if reopen {
        reopen_under_current_rule(tx, ground, &next, row, out)?;
    }
    Ok(Ok(()))
}

/// What a step came to, for the journal.
fn account(next: &Remediation, input: &Input) -> String {
    match (&next.state, input) {
        (State::Ended { outcome, why, .. }, _) => format!("{}: {}", outcome.as_str(), describe(why)),
        (state, Input::SendAccepted { command_id }) => {
            let instance = next.target.as_ref().map_or("", |target| target.instance_id.as_str());
            format!("{}: command {command_id} on {instance}", state.name())
        }
        (state, _) => state.name().to_owned(),
    }
}

/// An ending in one word and its detail, for the journal.
fn describe(ending: &lifecycle::Ending) -> String {
    match ending {
        lifecycle::Ending::Gate { reason } => format!("gate {}", reason.name()),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// Notes what a step came to, for the shell: what this replica, `me`, is to do after the commit.
fn keep(me: i64, next: &Arc<Remediation>, owed: Vec<Owed>, out: &mut Decided) {
    owed.into_iter().for_each(|owed| out.owe(me, owed));
    if let Some(due) = next.state.due_at() {
        hint(out, due);
    }
    out.entered.push(name_of(next));
    out.changed.insert(next.id.clone(), Arc::clone(next));
}

/// The state's or the outcome's name, for metrics.
fn name_of(remediation: &Remediation) -> &'static str {
    remediation.outcome().map_or(remediation.state.name(), lifecycle::Outcome::as_str)
}

fn hint(out: &mut Decided, due: Timestamp) {
    out.due_at = Some(out.due_at.map_or(due, |have| have.min(due)));
}

/// Lets those that wait for what became free look again, oldest first.
fn wake(tx: &mut dyn Tx, ground: &Ground, what: &str, out: &mut Decided) -> store::Result<()> {
    for id in tx.waiting_for(what, WOKEN_AT_ONCE)? {
        drop(apply(tx, ground, &id, &Input::Woken, "heal", out)?);
        let taken = out.changed.get(&id).is_some_and(|woken| woken.state.takes_role_slot());
        if taken {
            break;
        }
    }
    Ok(())
}

/// A declaration under a rule that changed is withdrawn and a new one made.
fn reopen_under_current_rule(
    tx: &mut dyn Tx,
    ground: &Ground,
    withdrawn: &Remediation,
    row: Option<i64>,
    out: &mut Decided,
) -> store::Result<()> {
    let rules = Arc::clone(&ground.rules);
    let Some(rule) = rule_in_force(&rules, withdrawn) else { return Ok(()) };
    let opening = Opening {
        id: successor(&withdrawn.id),
        rule,
        trigger: withdrawn.trigger.clone(),
        alert: &withdrawn.alert,
        row,
        origin: &withdrawn.origin,
        resolves: withdrawn.policy.resolves,
        target: None,
    };
    open(tx, ground, opening, out)?;
    Ok(())
}

/// The id of the remediation that follows a withdrawn one: derived, so that a repeat derives it again.
fn successor(id: &RemediationId) -> RemediationId {
    match id.0.rsplit_once('x') {
        Some((stem, count)) if count.parse::<u32>().is_ok() => {
            RemediationId(format!("{stem}x{}", count.parse::<u32>().unwrap_or(1).saturating_add(1)))
        }
        _ => RemediationId(format!("{id}x2")),
    }
}

/// The rule that answers this remediation's alert today.
fn rule_in_force<'a>(rules: &'a RuleSet, remediation: &Remediation) -> Option<&'a Arc<Rule>> {
    match (&remediation.trigger, &remediation.alert.role) {
        (Trigger::Alert | Trigger::Again { .. }, Some(role)) => {
            rules.find(role, &remediation.alert.name, &remediation.alert.labels)
        }
        _ => rules.get(&remediation.rule_key),
    }
}

/// Whether the rule in force is not the one that was declared.
fn rule_changed(rules: &RuleSet, remediation: &Remediation) -> bool {
    let (Some(target), Some(declared)) = (&remediation.target, &remediation.plan) else { return false };
    let Some(rule) = rule_in_force(rules, remediation) else { return true };
    if rule.key != remediation.rule_key || rule.stage != remediation.policy.stage {
        return true;
    }
    if rule.approvals != remediation.policy.approvals || rule.approvers != remediation.policy.approvers {
        return true;
    }
    match crate::plan::plan(rule, &remediation.alert, target) {
        Ok(plan) => plan != *declared,
        Err(_) => true,
    }
}

/// Reads what the gates and the machine look at.
fn facts(
    tx: &mut dyn Tx,
    ground: &Ground,
    remediation: &Remediation,
    resolved_at: Option<Timestamp>,
    instance: Option<&str>,
) -> store::Result<Facts> {
    let now = ground.now;
    let sent = !remediation.state.is_before_sending();
    let raised_at = match remediation.trigger {
        Trigger::Alert => remediation.origin.at,
        Trigger::Person { .. } | Trigger::Again { .. } => remediation.opened_at,
    };
    let mut facts = Facts {
        now,
        resolved_at,
        raised_at,
        max_age: ground.max_age,
        pause: None,
        under_way: None,
        cooldown_until: None,
        attempts: Vec::new(),
        instance_taken: None,
        role_running: 0,
        at_once: remediation.policy.at_once,
        deaf: !ground.hearing.hears(&remediation.origin.channel),
        rule_changed: false,
        ordered: remediation.is_ordered(),
    };
    if sent {
        // What was sent is beyond the gates; nothing of the rest is looked at.
        return Ok(facts);
    }
    facts.pause = pause_of(&tx.active_pauses(now)?, remediation);
    let known = remediation.target.as_ref().map(|target| target.instance_id.as_str());
    let Some(instance) = instance.or(known) else { return Ok(facts) };
    let rule = ground.rules.get(&remediation.rule_key);
    let longest = rule.and_then(|rule| rule.attempts.iter().map(|allowed| allowed.window).max());
    let standing = tx.standing(remediation, instance, longest.map(|longest| now.minus(longest)))?;
    facts.under_way = standing.under_way;
    facts.instance_taken = standing.instance_taken;
    facts.role_running = standing.role_running;
    facts.cooldown_until = standing.last_acted.map(|at| at.plus(remediation.policy.cooldown));
    if let Some(rule) = rule {
        facts.attempts = attempts(rule, &standing.attempts, now);
    }
    facts.rule_changed = rule_changed(&ground.rules, remediation);
    Ok(facts)
}

/// How much of each of the rule's windows is used.
fn attempts(rule: &Rule, newest_first: &[Timestamp], now: Timestamp) -> Vec<Used> {
    let window = |allowed: &crate::rule::Attempts| {
        let since = now.minus(allowed.window);
        let used = newest_first.iter().take_while(|at| **at > since).count();
        // The attempt that has to leave the window before another fits.
        let blocking = usize::try_from(allowed.count).ok().and_then(|count| count.checked_sub(1));
        let free_at =
            blocking.and_then(|index| newest_first.get(index)).map_or(now, |at| at.plus(allowed.window));
        Used { allowed: *allowed, used: u32::try_from(used).unwrap_or(u32::MAX), free_at }
    };
    rule.attempts.iter().map(window).collect()
}

/// The pause that holds this remediation, by its rule's key or by its alert's own `ROLE:ALERT`; where
/// several do, the one that holds longest.
fn pause_of(active: &[Pause], remediation: &Remediation) -> Option<Pause> {
    if active.is_empty() {
        return None;
    }
    let rule = remediation.rule_key.to_string();
    let alert = format!("{}:{}", remediation.role(), remediation.alert.name);
    let holds = |pattern: &str| pause_matches(pattern, &rule) || pause_matches(pattern, &alert);
    active
        .iter()
        .filter(|pause| holds(&pause.pattern))
        .max_by_key(|pause| (pause.until.is_none(), pause.until, pause.id))
        .cloned()
}

/// Whether nothing stops this remediation: no pause holds it, and its alert has not resolved.
pub(super) fn still_wanted(tx: &mut dyn Tx, id: &RemediationId, now: Timestamp) -> store::Result<bool> {
    let Some((remediation, row)) = tx.remediation(id)? else { return Ok(false) };
    let resolved = match row {
        Some(row) => tx.alert_resolved_at(row)?.is_some(),
        None => false,
    };
    Ok(!resolved && pause_of(&tx.active_pauses(now)?, &remediation).is_none())
}

/// Whether a pause's pattern holds this key; `*` alone is everything.
pub(super) fn pause_matches(pattern: &str, key: &str) -> bool {
    pattern == "*" || glob_match(pattern, key)
}
