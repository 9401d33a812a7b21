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
