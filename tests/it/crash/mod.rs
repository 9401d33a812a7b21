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

/// A recovery is killed as well.
mod a_second_kill_while_it_recovers {
    use super::database::Database::{Postgres, Sqlite};
    use super::{replay, stories};

    #[test]
    fn of_an_approved_alert_on_sqlite() {
        replay::twice("approved twice killed", Sqlite, stories::an_alert_that_a_person_approves_is_healed);
    }

    #[test]
    fn of_an_approved_alert_on_postgresql() {
        replay::twice("approved twice killed", Postgres, stories::an_alert_that_a_person_approves_is_healed);
    }

    #[test]
    fn of_an_automatic_run_on_sqlite() {
        replay::twice("auto twice killed", Sqlite, stories::an_alert_of_stage_auto_is_healed);
    }

    #[test]
    fn of_an_automatic_run_on_postgresql() {
        replay::twice("auto twice killed", Postgres, stories::an_alert_of_stage_auto_is_healed);
    }
}
