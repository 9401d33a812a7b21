//! Ends the bot between two instants, as `kill -9` does: a test names a step, and either it never
//! takes effect, or it does and nobody is told. From then on nothing of the bot has any effect.
//!
//! One [`Cut`] is given to both emulators (and, by a test, to the bot's store), so that all that a bot
//! does outside of its memory is one sequence of steps. Run once without an end it counts them; run
//! again it ends the bot at any one of them. The emulators drop all connections at the end and take
//! none until [`Cut::revive`], by which a test says that nothing of the ended bot is left.

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
    number: usize,
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
    planned: Option<(usize, Moment)>,
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

    /// Counts from here on, and ends the bot at the step of this number (from 1) if one is given.
    pub fn arm(&self, end: Option<(usize, Moment)>) {
        let mut state = self.state();
        state.counting = true;
        state.planned = end;
        state.steps.clear();
    }

    /// Counts no more and ends nothing any more.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.counting = false;
        state.planned = None;
    }

    /// What was begun since [`Cut::arm`], in order: `chat.postMessage`, `SendCommand`, `commit`, ….
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        self.state().steps.clone()
    }

    /// The step at which the bot was ended, if it was.
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
        if state.counting {
            state.steps.push(what.to_owned());
        }
        let step = Step { number: state.steps.len(), life };
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
        if !state.counting || state.planned != Some((step.number, moment)) {
            return Ok(());
        }
        state.planned = None;
        let what = state.steps.get(step.number - 1).cloned().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bot_ends_at_the_planned_step_and_every_later_one_fails_until_it_is_revived() {
        let cut = Cut::new();
        cut.begin("before the counting").and_then(|step| cut.finish(step)).unwrap();
        cut.arm(Some((2, Moment::After)));
        let first = cut.begin("one").unwrap();
        let second = cut.begin("two").unwrap();
        cut.finish(first).unwrap();
        assert_eq!(cut.finish(second), Err(Ended));
        assert!(cut.begin("three").is_err());
        assert_eq!(cut.end(), Some(("two".to_owned(), Moment::After)));
        cut.revive();
        cut.begin("four").and_then(|step| cut.finish(step)).unwrap();
        assert_eq!(cut.steps(), ["one", "two", "four"]);
    }

    #[test]
    fn what_an_ended_bot_still_tries_after_the_revival_comes_to_nothing() {
        let cut = Cut::new();
        let life = cut.life();
        let step = cut.begin_of(life, "begun").unwrap();
        cut.arm(Some((1, Moment::Before)));
        assert!(cut.begin("one").is_err());
        cut.revive();
        assert!(cut.begin_of(life, "late").is_err());
        assert_eq!(cut.finish(step), Err(Ended));
        assert!(cut.begin_of(cut.life(), "new").is_ok());
    }
}
