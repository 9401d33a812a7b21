//! What was missed, said in its channel once: gathered in a note while history is read, and owed as one
//! post when the reading is over.

use serde::{Deserialize, Serialize};

use super::decide::Decided;
use super::notices;
use crate::message::{self, Context, Missed};
use crate::store::{self, Tx};

/// What was missed in a channel so far, while its history is read.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Untold {
    named: Vec<Missed>,
    more: usize,
}

/// What one message of the past tells of is added to what is to be said.
pub(super) fn add_missed(tx: &mut dyn Tx, channel: &str, missed: Vec<Missed>) -> store::Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    let name = untold(channel);
    let mut untold = untold_in(tx, &name)?.unwrap_or_default();
    for one in missed {
        if untold.named.len() < message::missed::NAMED {
            untold.named.push(one);
        } else {
            untold.more += 1;
        }
    }
    let body = serde_json::to_string(&untold)
        .map_err(|error| store::Error::Corrupt { what: "note", why: error.to_string() })?;
    tx.set_note(&name, &body)
}

/// The reading is over: what it missed is owed to the channel. How many that were. `base`: the
/// workspace's address, for links.
pub(super) fn close_missed(
    tx: &mut dyn Tx,
    channel: &str,
    cut: bool,
    base: &str,
    words: &Context,
    out: &mut Decided,
) -> store::Result<usize> {
    let name = untold(channel);
    let found = untold_in(tx, &name)?;
    if found.is_none() && !cut {
        return Ok(0);
    }
    let untold = found.unwrap_or_default();
    let base = base.trim_end_matches('/');
    let link = |ts: &str| format!("{base}/archives/{channel}/p{}", ts.replace('.', ""));
    let said = message::missed::missed(&untold.named, untold.more, cut, link, words);
    notices::owe(tx, &[channel.to_owned()], &said, words.now, out)?;
    tx.set_note(&name, "")?;
    Ok(untold.named.len() + untold.more)
}

/// What is kept under this name; a note that cannot be read is none.
fn untold_in(tx: &mut dyn Tx, name: &str) -> store::Result<Option<Untold>> {
    Ok(tx.note(name)?.and_then(|body| serde_json::from_str(&body).ok()))
}

/// Where it is kept what is still to be said in a channel.
fn untold(channel: &str) -> String {
    format!("missed:{channel}")
}
