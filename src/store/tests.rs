//! The store by its contract, the same list on every database, and by what can go wrong with a file.

mod agree;
mod claims;
mod columns;
mod contract;
mod copies;
mod file;
mod growth;
mod retention;
mod server;
mod transactions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::alert::{Alert, Origin, Status};
use crate::gate::Facts;
use crate::lifecycle::{self, Input, Policy, Remediation, RemediationId, State, Trigger};
use crate::plan::{Plan, Platform, Step, StepKind, Target, Work};
use crate::rule::{RuleKey, Stage};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_795_410_000);

/// A database that can be opened, closed and opened again.
trait Backend {
    fn open(&self) -> Store;
}

/// SQLite in a file that goes with the test.
struct InFile(tempfile::TempDir);

impl InFile {
    fn new() -> InFile {
        InFile(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("heal.db")
    }

    fn location(&self) -> Location {
        Location::Sqlite(self.path())
    }
}

impl Backend for InFile {
    fn open(&self) -> Store {
        Store::open(&self.location()).unwrap()
    }
}

/// PostgreSQL, in a database that goes with the test.
struct InPostgres(crate::sandbox::postgres::Database);

impl InPostgres {
    fn new() -> InPostgres {
        InPostgres(crate::sandbox::postgres::Server::shared().unwrap().database().unwrap())
    }

    fn location(&self) -> Location {
        Location::parse(&self.0.url()).unwrap()
    }
}

impl Backend for InPostgres {
    fn open(&self) -> Store {
        Store::open(&self.location()).unwrap()
    }
}

/// The contract, once per database: a new database is one more module here.
macro_rules! on_every_database {
    ($($part:ident: $($name:ident),+;)+) => {
        mod on_sqlite {
            $($(
                #[tokio::test]
                async fn $name() {
                    super::$part::$name(&super::InFile::new()).await;
                }
            )+)+
        }

        mod on_postgres {
            $($(
                #[tokio::test]
                async fn $name() {
                    super::$part::$name(&super::InPostgres::new()).await;
                }
            )+)+
        }
    };
}

on_every_database! {
    claims:
        a_notice_is_owed_until_it_is_settled,
        what_a_closed_process_has_claimed_is_claimed_by_the_next,
        a_limit_holds_until_it_is_over_and_the_longer_one_counts,
        a_step_is_kept_whole;
    contract:
        a_delivery_is_taken_once,
        an_alert_is_kept_with_its_place_and_read_back,
        one_place_of_a_message_holds_one_alert,
        a_resolved_message_ends_only_what_fired_before_it,
        one_alert_is_over_once,
        a_rule_at_work_on_an_instance_is_claimed_and_free_again_afterwards,
        an_update_may_claim_as_well_as_an_insert,
        a_remediation_is_found_by_id_thread_and_alert,
        a_run_by_a_person_is_found_in_the_thread_its_declaration_began,
        what_was_never_inserted_cannot_be_updated,
        those_that_wait_are_found_oldest_first,
        those_that_are_due_are_found_earliest_first,
        what_is_owed_anew_outlives_the_settling_of_the_old,
        pauses_end_by_time_and_by_order,
        the_journal_keeps_its_order,
        tallies_count_and_keep_the_last_sample,
        notes_keep_the_last_value,
        history_is_newest_first_and_minds_patterns;
    columns:
        what_counts_as_an_attempt_and_where_cooldown_begins,
        attempts_are_counted_per_rule_and_instance_within_their_window,
        an_instance_is_taken_from_sending_to_outcome_and_its_role_slot_to_the_answer,
        a_role_counts_instances_and_not_remediations;
    retention:
        a_finished_remediation_goes_with_its_journal_and_then_its_alert,
        what_is_open_stays_whole_however_old,
        who_owes_something_or_was_spoken_of_lately_stays,
        one_that_cannot_be_read_goes_by_its_opening,
        a_batch_stops_at_its_limit_and_takes_the_oldest_first,
        the_newest_line_of_the_journal_stays_and_effects_are_numbered_on,
        pauses_go_when_they_ended_long_ago,
        a_note_passes_only_where_it_was_set_with_a_time;
    transactions:
        a_failing_transaction_leaves_nothing_and_its_companions_commit,
        what_goes_first_overtakes_the_others_and_stops_none,
        a_claim_refused_within_a_shared_commit_costs_only_its_own_transaction,
        a_transaction_sees_what_its_companions_wrote_before,
        transactions_run_in_the_order_they_were_handed_over,
        a_transaction_whose_asker_has_gone_commits_all_the_same,
        a_transaction_that_panics_is_rolled_back_and_the_store_goes_on,
        a_closed_store_kept_what_came_before_and_refuses_what_comes_after,
        what_was_committed_is_there_after_a_restart;
}

fn key(text: &str) -> RuleKey {
    text.parse().unwrap()
}

fn id(text: &str) -> RemediationId {
    RemediationId(text.to_owned())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW.0 + seconds * 1000)
}

fn origin(ts: &str, posted: Timestamp) -> Origin {
    Origin { sender: "prometheus".into(), channel: "C0ALERTS".into(), ts: ts.into(), at: posted }
}

fn alert(name: &str, host: &str, status: Status) -> Alert {
    Alert {
        name: name.into(),
        status,
        role: Some("web".into()),
        host: Some(host.into()),
        instance: None,
        instance_id: None,
        severity: None,
        summary: None,
        fingerprint: None,
        link: None,
        start: None,
        labels: BTreeMap::from([("mountpoint".to_owned(), "/var \u{1f980} 'x'".to_owned())]),
    }
}

fn calm(now: Timestamp) -> Facts {
    Facts {
        now,
        resolved_at: None,
        raised_at: now,
        max_age: Duration::from_secs(900),
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

/// A remediation that was just opened.
fn opened(id_: &str, rule: &str, now: Timestamp) -> Remediation {
    let new = Remediation {
        id: id(id_),
        rule_key: key(rule),
        policy: Policy {
            stage: Stage::Auto,
            grace: Duration::from_secs(20),
            approvals: 1,
            approve_within: Duration::from_secs(1800),
            resolve_within: Duration::from_secs(600),
            cooldown: Duration::from_secs(1800),
            at_once: 1,
            approvers: Vec::new(),
            about: None,
            runbook: None,
            owner: None,
            fix_ticket: None,
            fix_due: None,
            resolves: true,
        },
        trigger: Trigger::Alert,
        alert: alert("NginxDown", "web-1", Status::Firing),
        origin: origin("1795410000.000001", now),
        target: None,
        plan: None,
        opened_at: now,
        approvals: Vec::new(),
        declaration: None,
        report: None,
        sent_at: None,
        sent_again: Vec::new(),
        fence_dir: None,
        command_id: None,
        ran: None,
        state: State::Resolving { until: now },
    };
    lifecycle::open(new, &calm(now)).next
}

fn found(instance: &str) -> Input {
    let target = Target {
        instance_id: instance.into(),
        name: "web-1".into(),
        address: None,
        platform: Platform::Linux,
    };
    let step = Step { kind: StepKind::Command, text: "systemctl restart nginx".into() };
    let work = Work::Shell { steps: vec![step], env: BTreeMap::new() };
    Input::TargetResolved(Ok((target, Plan { work, timeout: Duration::from_secs(60) })))
}

fn stepped(this: &Remediation, input: &Input, facts: &Facts) -> Remediation {
    lifecycle::step(this, input, facts).unwrap().next
}

/// One whose target is known: it holds its rule's claim on the instance.
fn declaring(id: &str, rule: &str, instance: &str, now: Timestamp) -> Remediation {
    stepped(&opened(id, rule, now), &found(instance), &calm(now))
}

fn counting(id: &str, rule: &str, instance: &str, now: Timestamp) -> Remediation {
    let posted = Input::DeclarationPosted { ts: format!("{}.000100", now.as_secs()) };
    stepped(&declaring(id, rule, instance, now), &posted, &calm(now))
}

/// One whose command is on its way to SSM since 20 s after `now`.
fn sending(id: &str, rule: &str, instance: &str, now: Timestamp) -> Remediation {
    let after = now.plus(Duration::from_secs(20));
    stepped(&counting(id, rule, instance, now), &Input::Woken, &calm(after))
}

/// The end by a person's Hold, wherever nothing was sent yet.
fn held(this: &Remediation, now: Timestamp) -> Remediation {
    stepped(this, &Input::Held { user: "U1".into() }, &calm(now))
}

/// Runs something in a transaction and insists.
async fn does<R: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
) -> R {
    store.transact(work).await.unwrap()
}

async fn inserts(store: &Store, all: Vec<Remediation>) {
    does(store, move |tx| all.iter().try_for_each(|new| tx.insert_remediation(new, None))).await;
}

async fn updates(store: &Store, changed: Remediation) {
    does(store, move |tx| tx.update_remediation(&changed)).await;
}
