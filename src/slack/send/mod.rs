//! Sending with one policy: what is durable and goes to Slack goes through here.
//!
//! A [`Queue`] runs jobs, at most a few dozen at a time, fairly between channels and the urgent first.
//! It decides when a call is made again: after a 429 exactly when Slack says, and nothing else that the
//! same limit covers goes before; after a failure that was surely not done, with back-off; after an unclear
//! one only once it has looked whether the thing is there. It keeps nothing: what must survive a crash is
//! owed by the caller's outbox, which waits for the [`Done`].

mod lanes;
mod pace;
mod queue;
#[cfg(test)]
mod tests;
mod trouble;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

pub use queue::{MaySend, Options, Queue};
pub use trouble::Troubles;

use super::limits;
use super::{Client, Error, Post, Respond, Text, Upload};

/// Something to tell Slack.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Without `metadata` a post whose answer was lost is given up as unclear: it could not be found.
    Post(Post),
    Update {
        channel: String,
        ts: String,
        text: Text,
    },
    React {
        channel: String,
        ts: String,
        name: String,
    },
    Unreact {
        channel: String,
        ts: String,
        name: String,
    },
    /// Found again by its file name, which should therefore be its own within the thread.
    Upload(Upload),
    Ephemeral {
        channel: String,
        user: String,
        thread_ts: Option<String>,
        text: Text,
    },
    Respond(Respond),
}

/// What goes first when not all can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    Reaction,
    Report,
    Declaration,
    /// A person waits for it.
    People,
}

/// A call with its place in the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub call: Call,
    pub priority: Priority,
    /// Jobs of one order key run one after another, in the order of their submission.
    pub order: Option<u64>,
    /// A waiting job with the same merge key is replaced by this one, which takes its place.
    pub merge: Option<String>,
    /// It may have been done before a restart: look for it before the first try.
    pub maybe_done: bool,
}

impl Job {
    pub fn new(call: Call, priority: Priority) -> Job {
        Job { call, priority, order: None, merge: None, maybe_done: false }
    }

    pub fn in_order(mut self, key: u64) -> Job {
        self.order = Some(key);
        self
    }

    pub fn merging(mut self, key: impl Into<String>) -> Job {
        self.merge = Some(key.into());
        self
    }

    pub fn maybe_done(mut self) -> Job {
        self.maybe_done = true;
        self
    }
}

/// What became of a job. Nothing else becomes of it: trouble that may pass is waited out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Slack has it. `ts` is a post's.
    Sent { ts: Option<String> },
    /// Slack refused it, for good or until a person changes something ([`Error::is_final`]), or refused
    /// to let it be looked for; or it is unclear and cannot be looked up; or nobody waits that long.
    /// [`Error::NotDone`] says that the queue stopped before it was tried again.
    GaveUp(Error),
    /// A newer job with the same merge key took its place.
    Superseded,
}

/// Waits for what becomes of a job. Dropping it changes nothing.
#[derive(Debug)]
pub struct Completion(oneshot::Receiver<Done>);

impl Future for Completion {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        // A queue that is gone has not done it, or told nobody: the outbox still owes it.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|done| done.unwrap_or_else(|_| Done::GaveUp(Error::unclear("the sending stopped"))))
    }
}

/// The methods, as Slack limits them one by one; the last two only search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Method {
    Post,
    Update,
    React,
    Unreact,
    Upload,
    Ephemeral,
    Respond,
    Replies,
    History,
}

impl Method {
    const COUNT: usize = 9;

    /// As Slack spells them.
    fn names(self) -> &'static [&'static str] {
        match self {
            Method::Post => &[limits::POST],
            Method::Update => &["chat.update"],
            Method::React => &["reactions.add"],
            Method::Unreact => &["reactions.remove"],
            Method::Upload => &["files.getUploadURLExternal", "files.completeUploadExternal"],
            Method::Ephemeral => &["chat.postEphemeral"],
            Method::Respond => &[limits::RESPOND],
            Method::Replies => &["conversations.replies"],
            Method::History => &["conversations.history"],
        }
    }

    /// Its name, or that of its first call.
    fn name(self) -> &'static str {
        self.names().first().copied().unwrap_or_default()
    }

    /// Somebody waits for it now: late is worthless, and twice is harmless.
    fn answers_people(self) -> bool {
        matches!(self, Method::Ephemeral | Method::Respond)
    }
}

/// What one try gave.
#[derive(Debug)]
enum Tried {
    Sent(Option<String>),
    Failed(Error),
    /// The search for an earlier try failed; whether that was done is still open.
    NotFoundOut(Error),
    /// Searched for and not there; and it may not be sent now.
    MayNot,
}

impl Call {
    fn method(&self) -> Method {
        match self {
            Call::Post(_) => Method::Post,
            Call::Update { .. } => Method::Update,
            Call::React { .. } => Method::React,
            Call::Unreact { .. } => Method::Unreact,
            Call::Upload(_) => Method::Upload,
            Call::Ephemeral { .. } => Method::Ephemeral,
            Call::Respond(_) => Method::Respond,
        }
    }

    fn channel(&self) -> &str {
        match self {
            Call::Post(post) => &post.channel,
            Call::Upload(upload) => &upload.channel,
            Call::Update { channel, .. }
            | Call::React { channel, .. }
            | Call::Unreact { channel, .. }
            | Call::Ephemeral { channel, .. } => channel,
            // Limited by themselves, not by channel.
            Call::Respond(_) => "",
        }
    }

    /// Doing it twice is doing it once.
    fn is_idempotent(&self) -> bool {
        matches!(self, Call::Update { .. } | Call::React { .. } | Call::Unreact { .. })
    }

    /// By which method it is looked for when it is unclear whether it was done; where there is none, it
    /// cannot be.
    fn searched_with(&self) -> Option<Method> {
        match self {
            Call::Post(Post { metadata: None, .. }) => None,
            Call::Post(Post { thread_ts: None, .. }) => Some(Method::History),
            Call::Post(_) | Call::Upload(_) => Some(Method::Replies),
            _ => None,
        }
    }

    /// May one be said in place of the other, even where the other was perhaps said already?
    fn is_same_thing(&self, other: &Call) -> bool {
        match (self, other) {
            (Call::Post(one), Call::Post(other)) => {
                (&one.channel, &one.thread_ts, &one.metadata)
                    == (&other.channel, &other.thread_ts, &other.metadata)
            }
            _ => false,
        }
    }

    /// How many failures are borne of a call that answers somebody.
    fn patience(&self) -> Option<u32> {
        self.method().answers_people().then_some(4)
    }

    /// One try; with `look_first` only after a search for an earlier one, and then only if it may be sent
    /// after that, for the search takes its time.
    async fn attempt(&self, client: &Client, look_first: bool, may_send: impl Fn() -> bool) -> Tried {
        if look_first && !self.is_idempotent() {
            match self.look_up(client).await {
                Ok(Some(ts)) => return Tried::Sent(Some(ts)),
                Ok(None) if may_send() => {}
                Ok(None) => return Tried::MayNot,
                Err(error) => return Tried::NotFoundOut(error),
            }
        }
        let done = match self {
            Call::Post(post) => client.post(post).await.map(Some),
            Call::Update { channel, ts, text } => client.update(channel, ts, text).await.map(|()| None),
            Call::React { channel, ts, name } => client.add_reaction(channel, ts, name).await.map(|()| None),
            Call::Unreact { channel, ts, name } => {
                client.remove_reaction(channel, ts, name).await.map(|()| None)
            }
            Call::Upload(upload) => client.upload(upload).await.map(|()| None),
            Call::Ephemeral { channel, user, thread_ts, text } => {
                client.post_ephemeral(channel, user, thread_ts.as_deref(), text).await.map(|()| None)
            }
            Call::Respond(respond) => client.respond(respond).await.map(|()| None),
        };
        match done {
            Ok(ts) => Tried::Sent(ts),
            Err(error) => Tried::Failed(error),
        }
    }

    async fn look_up(&self, client: &Client) -> Result<Option<String>, Error> {
        match self {
            Call::Post(post) => match &post.metadata {
                Some(metadata) => {
                    client
                        .find_own(&post.channel, post.thread_ts.as_deref(), |found| metadata.is(found))
                        .await
                }
                None => Ok(None),
            },
            Call::Upload(upload) => {
                client
                    .find_message(&upload.channel, Some(&upload.thread_ts), |message| {
                        let files = message["files"].as_array();
                        files.is_some_and(|files| {
                            files.iter().any(|file| file["name"].as_str() == Some(&upload.filename))
                        })
                    })
                    .await
            }
            _ => Ok(None),
        }
    }
}

/// Exponential back-off with jitter: half of the wait is fixed, half is drawn.
fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let bound = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    (bound / 2 + (bound / 2).mul_f64(fastrand::f64())).max(first)
}
