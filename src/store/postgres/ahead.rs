//! Reading ahead: what the jobs of a commit will look at is read for all of them together, in two ways to
//! the server and back. The second reads what the gates look at for the remediations that the first found.

use std::collections::{BTreeSet, HashMap};

use super::known::{ATTEMPTS, OfRule, Row};
use super::tx::pause;
use super::work::{PostgresTx, limited, text, values};
use super::{session::Param, sql};
use crate::lifecycle::RemediationId;
use crate::store::columns::parse;
use crate::store::needs::{Needs, Stand};
use crate::store::{Error, Result};

impl PostgresTx<'_> {
    /// Reads what is needed and not known. What cannot be read is left to whoever asks for it.
    pub(super) fn read_ahead(&mut self, needs: &Needs) -> Result<()> {
        self.read_rows(needs)?;
        let mut stands: BTreeSet<Stand> = BTreeSet::new();
        let mut waited: BTreeSet<String> = BTreeSet::new();
        for row in needs.remediations.iter().filter_map(|id| self.known.remediations.get(id)) {
            let this = &row.remediation;
            let Some(target) = &this.target else { continue };
            if this.state.is_before_sending() {
                stands.insert(Stand {
                    rule: this.rule_key.to_string(),
                    instance: target.instance_id.clone(),
                    role: this.role().to_owned(),
                });
            }
            // What it may free.
            if this.state.takes_instance() {
                waited.insert(format!("instance:{}", target.instance_id));
            }
            if this.state.takes_role_slot() {
                waited.insert(format!("role:{}", this.role()));
            }
        }
        stands.extend(needs.standings.iter().cloned());
        self.read_standings(&stands, waited)
    }

    fn read_rows(&mut self, needs: &Needs) -> Result<()> {
        let mut asking = Asking::default();
        let deliveries = unknown(&needs.deliveries, &self.known.deliveries);
        if !deliveries.is_empty() {
            asking.ask(Asked::Deliveries(deliveries.clone()), sql::DELIVERIES, values![deliveries]);
        }
        let notes = unknown(&needs.notes, &self.known.notes);
        if !notes.is_empty() {
            asking.ask(Asked::Notes(notes.clone()), sql::NOTES, values![notes]);
        }
        let ids: BTreeSet<&RemediationId> =
            needs.remediations.iter().filter(|id| !self.known.has_asked_for(id)).collect();
        if !ids.is_empty() {
            let names: Vec<String> = ids.iter().map(|id| text(&id.0)).collect();
            let ids = ids.into_iter().cloned().collect();
            asking.ask(Asked::Remediations(ids), sql::REMEDIATIONS, values![names]);
        }
        let threads: BTreeSet<(String, String)> =
            needs.threads.iter().filter(|thread| !self.known.threads.contains_key(thread)).cloned().collect();
        if !threads.is_empty() {
            let threads: Vec<(String, String)> = threads.into_iter().collect();
            let (channels, ts): (Vec<String>, Vec<String>) =
                threads.iter().map(|(channel, ts)| (text(channel), text(ts))).unzip();
            asking.ask(Asked::Threads(threads), sql::THREADS, values![channels, ts]);
        }
        if !needs.alerts.is_empty() {
            let columns = [
                needs.alerts.iter().map(|alert| text(&alert.channel)).collect::<Vec<_>>(),
                needs.alerts.iter().map(|alert| text(&alert.ts)).collect(),
                needs.alerts.iter().map(|alert| text(&alert.sender)).collect(),
                needs.alerts.iter().map(|alert| text(&alert.identity)).collect(),
            ];
            let [channels, ts, senders, identities] = columns.clone();
            asking.ask(Asked::Coming(columns), sql::COMING, values![channels, ts, senders, identities]);
            let wanting = needs.alerts.len().saturating_sub(self.numbers.len());
            if wanting > 0 {
                asking.ask(Asked::Numbers, sql::ALERT_NUMBERS, values![limited(wanting)]);
            }
        }
        let gates = !needs.remediations.is_empty() || !needs.standings.is_empty();
        if gates && self.known.pauses.is_none() {
            asking.ask(Asked::Pauses, sql::PAUSES, values![]);
        }
        self.take_in(asking)
    }

    fn take_in(&mut self, asking: Asking) -> Result<()> {
        if asking.kinds.is_empty() {
            return Ok(());
        }
        let answers = self.ask_all(asking.statements)?;
        for (kind, rows) in asking.kinds.into_iter().zip(answers) {
            match kind {
                Asked::Deliveries(ids) => {
                    self.known.deliveries.extend(ids.into_iter().map(|id| (id, false)));
                    self.known.deliveries.extend(rows.iter().map(|row| (row.get(0), true)));
                }
                Asked::Notes(names) => {
                    self.known.notes.extend(names.into_iter().map(|name| (name, None)));
                    self.known.notes.extend(rows.iter().map(|row| (row.get(0), Some(row.get(1)))));
                }
                Asked::Remediations(ids) => {
                    // One that cannot be read is not absent: who asks for it is told.
                    let all = rows.iter().filter(|row| self.learn(row).is_err()).count() == 0;
                    let known = &mut *self.known;
                    if all {
                        let there = &known.remediations;
                        known.absent.extend(ids.into_iter().filter(|id| !there.contains_key(id)));
                    }
                }
                Asked::Threads(threads) => {
                    let mut whole: HashMap<_, _> =
                        threads.into_iter().map(|thread| (thread, Some(Vec::new()))).collect();
                    for row in &rows {
                        let learnt = self.learn(row);
                        let Some(thread) = whole.get_mut(&(row.get(4), row.get(5))) else { continue };
                        match (learnt, thread.as_mut()) {
                            (Ok(()), Some(ids)) => ids.push(RemediationId(row.get(6))),
                            // Who asks for it is told what of it cannot be read.
                            _ => *thread = None,
                        }
                    }
                    let whole = whole.into_iter().filter_map(|(thread, ids)| Some((thread, ids?)));
                    self.known.threads.extend(whole);
                }
                Asked::Coming([channels, ts, senders, identities]) => {
                    let coming = channels.into_iter().zip(ts).zip(senders.into_iter().zip(identities));
                    for (row, (message, alert)) in rows.iter().zip(coming) {
                        let taken: Vec<i64> = row.get(0);
                        self.known.messages.entry(message).or_default().extend(taken);
                        self.known.ends.entry(alert).or_insert(row.get(1));
                    }
                }
                Asked::Pauses => self.known.pauses = Some(rows.iter().map(pause).collect()),
                Asked::Numbers => self.numbers.extend(rows.iter().map(|row| row.get::<_, i64>(0))),
            }
        }
        Ok(())
    }

    /// Takes one of [`sql::REMEDIATIONS`] into account, unless more is known of it already.
    pub(super) fn learn(&mut self, row: &tokio_postgres::Row) -> Result<()> {
        let remediation = std::sync::Arc::new(parse(row.get(0))?);
        let id = remediation.id.clone();
        let row = Row { remediation, alert: row.get(1), claimed_by: row.get(2), resolved_at: row.get(3) };
        self.known.remediations.entry(id).or_insert(row);
        Ok(())
    }

    pub(super) fn read_standings(&mut self, all: &BTreeSet<Stand>, waited: BTreeSet<String>) -> Result<()> {
        let known = &mut *self.known;
        let of_rules: Vec<&Stand> =
            all.iter().filter(|stand| known.of_rule(&stand.rule, &stand.instance).is_none()).collect();
        let roles: BTreeSet<String> = all
            .iter()
            .map(|stand| stand.role.clone())
            .filter(|role| !known.roles.contains_key(role))
            .collect();
        let waited: Vec<String> = waited.into_iter().filter(|what| !known.unwaited.contains(what)).collect();
        let mut statements: Vec<(&'static str, Vec<Param>)> = Vec::new();
        let (rules, instances): (Vec<String>, Vec<String>) =
            of_rules.iter().map(|stand| (text(&stand.rule), text(&stand.instance))).unzip();
        let roles: Vec<String> = roles.into_iter().collect();
        statements.push((sql::STANDINGS, values![rules, instances, limited(ATTEMPTS)]));
        statements.push((sql::ROLES, values![roles.iter().map(|role| text(role)).collect::<Vec<_>>()]));
        statements.push((sql::WAITED, values![waited.iter().map(|what| text(what)).collect::<Vec<_>>()]));
        // Nobody is asked for nothing.
        let asks = [!of_rules.is_empty(), !roles.is_empty(), !waited.is_empty()];
        let mut asked = asks.iter();
        statements.retain(|_| asked.next().copied().unwrap_or(false));
        if statements.is_empty() {
            return Ok(());
        }
        let of_rules: Vec<Stand> = of_rules.into_iter().cloned().collect();
        let mut answers = self.ask_all(statements)?.into_iter();
        let mut next = |asked: bool| if asked { answers.next().unwrap_or_default() } else { Vec::new() };
        let (of_rule_rows, role_rows, waited_rows) = (next(asks[0]), next(asks[1]), next(asks[2]));
        if asks[0] && of_rule_rows.len() != of_rules.len() {
            return Err(Error::Database("PostgreSQL answered another question".to_owned()));
        }
        for (stand, row) in of_rules.into_iter().zip(&of_rule_rows) {
            let (taken, by): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
            let on = self.known.instances.entry(stand.instance).or_default();
            on.taken = taken.into_iter().map(RemediationId).zip(by).collect();
            let open: Option<String> = row.get(0);
            let of_rule =
                OfRule { open: open.map(RemediationId), last_acted: row.get(1), attempts: row.get(2) };
            on.rules.insert(stand.rule, of_rule);
        }
        for role in roles {
            self.known.roles.entry(role).or_default();
        }
        for row in &role_rows {
            if let Some(role) = self.known.roles.get_mut(row.get::<_, &str>(0)) {
                role.take(row.get(1), row.get(2));
            }
        }
        let mut unwaited: BTreeSet<String> = waited.into_iter().collect();
        for row in &waited_rows {
            unwaited.remove(row.get::<_, &str>(0));
        }
        self.known.unwaited.extend(unwaited);
        Ok(())
    }
}

/// Names, as the database has them, of which nothing is known.
fn unknown<T>(names: &[String], known: &HashMap<String, T>) -> Vec<String> {
    names.iter().map(|name| text(name)).filter(|name| !known.contains_key(name)).collect()
}

/// What an answer is about.
enum Asked {
    Deliveries(Vec<String>),
    Notes(Vec<String>),
    Remediations(Vec<RemediationId>),
    Threads(Vec<(String, String)>),
    Coming([Vec<String>; 4]),
    Pauses,
    Numbers,
}

#[derive(Default)]
struct Asking {
    kinds: Vec<Asked>,
    statements: Vec<(&'static str, Vec<Param>)>,
}

impl Asking {
    fn ask(&mut self, kind: Asked, sql: &'static str, values: Vec<Param>) {
        self.kinds.push(kind);
        self.statements.push((sql, values));
    }
}
