//! One binary for all integration tests: linking heal takes seconds, so it is done once.

mod browser;
mod doctor;
mod sandbox;
