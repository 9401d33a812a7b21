//! Who may raise alerts: a sender is known by its ids, never by a name or an icon.

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
