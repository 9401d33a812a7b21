//! What surrounds heal at its worst: Slack, SSM and the disk. Later, and never twice.

mod disk;
mod line;
mod order;
mod slack;
mod ssm;
mod weather;
