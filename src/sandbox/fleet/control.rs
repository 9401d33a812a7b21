//! What a test says to a fleet and reads from it: what becomes of a command, what goes wrong with
//! a call, which calls arrived, and what was really executed.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A call that reached the fleet.
#[derive(Clone, Debug)]
pub struct Call {
    /// Without `AmazonSSM.`.
    pub operation: String,
    pub body: Value,
    pub at: SystemTime,
    /// The error code of the answer, where it was one.
    pub refused: Option<String>,
}

/// One real execution of a script on a host. A command that ran twice has two.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command's id, or the automation execution's.
    pub command_id: String,
    pub host: String,
    pub instance_id: String,
    /// The command's Comment, or the automation step's name.
    pub comment: String,
    pub script: String,
    pub started: SystemTime,
    pub ended: Option<SystemTime>,
    /// `None` while it runs, and when it was killed.
    pub exit: Option<i32>,
}

/// A command on its way to one host, as a test's override sees it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub command_id: String,
    pub host: String,
    pub instance_id: String,
    pub document: String,
    pub comment: String,
    pub parameters: Vec<(String, Vec<String>)>,
}

/// What becomes of a command on a host.
#[derive(Clone, Debug)]
pub enum Scripted {
    /// It runs, as usual.
    Run,
    /// It is delivered this much later, and runs.
    DeliverAfter(Duration),
    /// It stays pending until its delivery times out.
    NeverDeliver,
    /// Nothing runs; after a while SSM says this. `code` is the ResponseCode.
    Finish { after: Duration, status: String, details: String, code: i32, stdout: String, stderr: String },
    /// It runs, and SSM says something else: "finished ones shown as DeliveryTimedOut".
    RunButReport { status: String, details: String },
    /// The agent takes it twice, the second time this much after the first.
    RunTwice { apart: Duration },
}

impl Scripted {
    /// Ends at once with a status, an exit code and an output, and runs nothing.
    #[must_use]
    pub fn finish(status: &str, details: &str, code: i32, stdout: &str) -> Self {
        Self::Finish {
            after: Duration::ZERO,
            status: status.to_owned(),
            details: details.to_owned(),
            code,
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }
}

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is refused with this code, and nothing happens.
    Refuse { status: u16, code: String, message: String },
    /// The connection breaks before anything happens.
    ResetBefore,
    /// It is carried out, and the connection breaks without an answer.
    ResetAfter,
    /// It is carried out, and the answer comes this much later.
    Stall(Duration),
}

impl Fault {
    #[must_use]
    pub fn throttled() -> Self {
        Self::refused("ThrottlingException", "Rate exceeded")
    }

    #[must_use]
    pub fn refused(code: &str, message: &str) -> Self {
        Self::Refuse { status: 400, code: code.to_owned(), message: message.to_owned() }
    }

    #[must_use]
    pub fn internal() -> Self {
        Self::Refuse {
            status: 500,
            code: "InternalServerError".to_owned(),
            message: "An error occurred".to_owned(),
        }
    }
}
