//! Who may raise alerts: a sender is known by its ids, never by a name or an icon.

use std::sync::Arc;

use super::Message;

/// The built-in formats, and the one the user writes.
#[derive(Clone, Debug)]
pub enum Format {
    Alertmanager,
    /// Named groups `status`, `instance`, `role`, `alert` and any other name become members and labels.
    Pattern {
        pattern: regex::Regex,
        firing: Vec<String>,
        resolved: Vec<String>,
    },
}

/// A trusted source of alert messages. Every id that is given must agree with the message.
#[derive(Clone, Debug)]
pub struct Sender {
    pub name: String,
    pub format: Format,
    pub bot_id: Option<String>,
    pub app_id: Option<String>,
    pub user_id: Option<String>,
    /// The label that is ROLE; `None` means `role`, then `job`.
    pub role: Option<String>,
    /// The label that names the host; `None` means `instance`, then `host`.
    pub instance: Option<String>,
    /// Whether it sends resolved messages; where it does not, `verify` decides.
    pub resolves: bool,
}

impl Sender {
    /// Whether the message is this sender's: every id in the config is the message's own. User
    /// names, icons and profile names prove nothing, since any webhook sets them. A sender without
    /// an id is nobody.
    pub fn matches(&self, message: &Message) -> bool {
        let pairs = [
            (&self.bot_id, &message.bot_id),
            (&self.app_id, &message.app_id),
            (&self.user_id, &message.user),
        ];
        self.ids() > 0 && pairs.iter().all(|(wanted, given)| wanted.is_none() || wanted == given)
    }

    /// How many ids the config gives.
    fn ids(&self) -> usize {
        [&self.bot_id, &self.app_id, &self.user_id].iter().filter(|id| id.is_some()).count()
    }
}

/// The configured sender of this message. When several match, the one with most ids is meant, and
/// of those the first in the config.
pub fn trusted<'a>(senders: &'a [Arc<Sender>], message: &Message) -> Option<&'a Arc<Sender>> {
    let matching = senders.iter().filter(|sender| sender.matches(message));
    matching.reduce(|best, other| if other.ids() > best.ids() { other } else { best })
}
