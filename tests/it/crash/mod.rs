//! The crash matrix: stories replayed with a kill of the bot at every commit and at every call outside,
//! before it takes effect and after it did with the answer lost.
//!
//! Whatever the instant, the story ends as without the kill: the cure did its work once, each message
//! stands once, the outcome is shown in every place, every event was taken, and nothing is left to do.

mod database;
mod ends;
mod life;
mod people;
mod replay;
mod runs;
mod shown;
mod stories;
mod world;

use database::Database;

/// A kill is told apart from an end by the silence of a replica, which takes seconds: one story, for the
/// way of the others is the same.
#[test]
fn an_alert_that_a_person_approves_is_healed_on_postgresql() {
    let story = stories::an_alert_that_a_person_approves_is_healed;
    replay::everywhere("an_alert_that_a_person_approves_is_healed", Database::Postgres, 60, story);
}
