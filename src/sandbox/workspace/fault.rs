//! Things that go wrong on Slack's side or on the way there, ordered by a test in advance.

use std::time::Duration;

/// What happens to one Web API call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// HTTP 429 with this `Retry-After` in seconds; nothing is done.
    RateLimited(u64),
    /// HTTP 500; nothing is done.
    ServerError,
    /// The connection closes; nothing is done.
    ResetBefore,
    /// It is done, but the connection closes in place of the answer.
    ResetAfter,
    /// The call is handled after this time, unless the caller has hung up by then.
    Stalled(Duration),
    /// It is done, and the answer comes this much later.
    AnsweredLate(Duration),
    /// `ok: false` with this error; nothing is done.
    Refused(String),
}
