//! Ends the bot between two instants, as `kill -9` does: a test names a point, and the step there
//! either never takes effect, or it does and nobody is told. From then on nothing of the bot has any effect.
//!
//! One [`Cut`] is given to both emulators (and, by a test, to the bot's store), so that all that a bot
//! does outside of its memory is one sequence of steps, and before and after each is a point. A step that
//! only reads has one: the world is the same on both its sides. Run once without an end it counts them; run
//! again it ends the bot at any of them. The emulators drop all connections at the end and take none until
//! [`Cut::revive`], by which a test says that nothing of the ended bot is left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// On which side of a step the bot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The step has no effect.
    Before,
    /// The step has its effect, and the bot never learns of it.
    After,
}

/// The bot has ended; the step or its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bot has ended")]
pub struct Ended;

/// A step under way, from [`Cut::begin`] to [`Cut::finish`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a step that is not finished cannot end the bot after it"]
pub struct Step {
    /// Its place in what was begun.
    at: usize,
    /// The points before and after it; those of a step that only reads are one.
    points: (usize, usize),
    life: u64,
}

/// Where the bot ends, if it does. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Cut(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
}

#[derive(Debug, Default)]
struct State {
    /// What was begun since the counting began, in order.
    steps: Vec<String>,
    counting: bool,
    /// Points so far.
    points: usize,
    planned: Option<usize>,
    /// At how many points after the end another follows.
    then: Option<usize>,
    /// What the bot ended at.
    end: Option<(String, Moment)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    /// Grows with each revival: what an ended bot still tries comes to nothing.
    life: u64,
    ended: bool,
}

impl Default for Cut {
    fn default() -> Self {
        Cut::new()
    }
}

impl Cut {
    /// Ends nothing and counts nothing yet.
    #[must_use]
    pub fn new() -> Cut {
        Cut(Arc::new(Inner { state: Mutex::default(), phase: watch::Sender::new(Phase::default()) }))
    }

    /// Counts from here on, and ends the bot at the point of this number (from 1) if one is given.
    pub fn arm(&self, end: Option<usize>) {
        let mut state = self.state();
        state.counting = true;
        state.planned = end;
        state.points = 0;
        state.steps.clear();
    }

    /// Ends the bot once more after the planned end: at the point of this number (from 1) of what it does
    /// after its revival.
    pub fn then(&self, end: usize) {
        self.state().then = Some(end);
    }

    /// Whether an end is still to come.
    #[must_use]
    pub fn is_to_come(&self) -> bool {
        let state = self.state();
        state.planned.is_some() || state.then.is_some()
    }

    /// Counts no more and ends nothing any more.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.counting = false;
    }

    /// What was begun since [`Cut::arm`], in order: `chat.postMessage`, `SendCommand`, `commit`, ….
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        self.state().steps.clone()
    }

    /// At how many points the bot could have been ended since [`Cut::arm`].
    #[must_use]
    pub fn points(&self) -> usize {
        self.state().points
    }

    /// The step at which the bot was ended last, if it was.
    #[must_use]
    pub fn end(&self) -> Option<(String, Moment)> {
        self.state().end.clone()
    }

    /// The bot's life now, for whoever begins steps from inside of the bot.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.phase().life
    }

    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.phase().ended
    }

    /// Resolves when the bot of that life has ended.
    pub async fn end_of(&self, life: u64) {
        let mut phase = self.0.phase.subscribe();
        // The sender lives in `self`.
        let _ = phase.wait_for(|phase| phase.ended || phase.life != life).await;
    }

    /// Nothing of the ended bot is left, and another may come.
    pub fn revive(&self) {
        self.0.phase.send_modify(|phase| *phase = Phase { life: phase.life + 1, ended: false });
    }

    /// A step of the bot that lives now begins, if it still lives.
    ///
    /// # Errors
    /// It has ended, or ends here: the step must not take effect.
    pub fn begin(&self, what: &str) -> Result<Step, Ended> {
        let mut state = self.state();
        let life = self.life();
        self.begin_in(&mut state, life, what)
    }

    /// As [`Cut::begin`], of the bot that lived when [`Cut::life`] was asked.
    ///
    /// # Errors
    /// That bot has ended, or ends here.
    pub fn begin_of(&self, life: u64, what: &str) -> Result<Step, Ended> {
        let mut state = self.state();
        self.begin_in(&mut state, life, what)
    }

    fn begin_in(&self, state: &mut State, life: u64, what: &str) -> Result<Step, Ended> {
        if self.is_over(life) {
            return Err(Ended);
        }
        if !state.counting {
            return Ok(Step { at: 0, points: (0, 0), life });
        }
        let before = state.points + 1;
        state.points += if only_reads(what) { 1 } else { 2 };
        let step = Step { at: state.steps.len(), points: (before, state.points), life };
        state.steps.push(what.to_owned());
        self.pass(state, step, Moment::Before)?;
        Ok(step)
    }

    /// The step has taken effect.
    ///
    /// # Errors
    /// The bot has ended meanwhile, or ends here: it must not learn what came of the step.
    pub fn finish(&self, step: Step) -> Result<(), Ended> {
        let mut state = self.state();
        if self.is_over(step.life) {
            return Err(Ended);
        }
        self.pass(&mut state, step, Moment::After)
    }

    fn pass(&self, state: &mut State, step: Step, moment: Moment) -> Result<(), Ended> {
        let point = if moment == Moment::Before { step.points.0 } else { step.points.1 };
        if !state.counting || state.planned != Some(point) {
            return Ok(());
        }
        state.planned = state.then.take().map(|later| state.points + later);
        let what = state.steps.get(step.at).cloned().unwrap_or_default();
        state.end = Some((what, moment));
        // Under the lock: no other step passes between the decision and the end.
        self.0.phase.send_modify(|phase| phase.ended = true);
        Err(Ended)
    }

    fn is_over(&self, life: u64) -> bool {
        let phase = self.phase();
        phase.ended || phase.life != life
    }

    fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a step leaves Slack and SSM as they were.
fn only_reads(what: &str) -> bool {
    const READS: &[&str] = &[
        "auth.test",
        "apps.connections.open",
        "connect",
        "conversations.history",
        "conversations.info",
        "conversations.list",
        "conversations.replies",
        "reactions.get",
        "usergroups.list",
        "usergroups.users.list",
        "users.info",
        "users.list",
    ];
    READS.contains(&what) || ["Describe", "Get", "List"].iter().any(|word| what.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bot_ends_at_the_planned_step_and_every_later_one_fails_until_it_is_revived() {
        let cut = Cut::new();
        cut.begin("before the counting").and_then(|step| cut.finish(step)).unwrap();
        cut.arm(Some(5));
        let first = cut.begin("one").unwrap();
        cut.begin("users.info").and_then(|step| cut.finish(step)).unwrap();
        let second = cut.begin("two").unwrap();
        cut.finish(first).unwrap();
        assert_eq!(cut.finish(second), Err(Ended));
        assert!(cut.begin("three").is_err());
        assert_eq!(cut.end(), Some(("two".to_owned(), Moment::After)));
        cut.revive();
        cut.begin("four").and_then(|step| cut.finish(step)).unwrap();
        assert_eq!(cut.steps(), ["one", "users.info", "two", "four"]);
        assert_eq!(cut.points(), 7);
    }

    #[test]
    fn a_second_end_is_counted_from_the_revival() {
        let cut = Cut::new();
        cut.arm(Some(2));
        cut.then(3);
        let first = cut.begin("one").unwrap();
        let lost = cut.begin("two").unwrap();
        assert_eq!(cut.finish(first), Err(Ended));
        cut.revive();
        assert_eq!(cut.finish(lost), Err(Ended), "of a life that is over");
        cut.begin("three").and_then(|step| cut.finish(step)).unwrap();
        assert!(cut.is_to_come());
        assert!(cut.begin("four").is_err());
        assert_eq!(cut.end(), Some(("four".to_owned(), Moment::Before)));
        assert!(!cut.is_to_come());
        cut.revive();
        assert!(cut.begin("five").is_ok());
    }

    #[test]
    fn what_an_ended_bot_still_tries_after_the_revival_comes_to_nothing() {
        let cut = Cut::new();
        let life = cut.life();
        let step = cut.begin_of(life, "begun").unwrap();
        cut.arm(Some(1));
        assert!(cut.begin("one").is_err());
        cut.revive();
        assert!(cut.begin_of(life, "late").is_err());
        assert_eq!(cut.finish(step), Err(Ended));
        assert!(cut.begin_of(cut.life(), "new").is_ok());
    }
}
