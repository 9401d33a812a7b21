//! What a workspace is made of before anybody speaks: people, channels, senders, tokens, and how
//! strictly and by which road Slack's side behaves.

use std::time::Duration;

use crate::sandbox::Cut;

/// A person. Somebody of another team is an external member of a shared channel (Slack Connect).
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub name: String,
    /// `None`: of the workspace's own team.
    pub team_id: Option<String>,
}

/// A user group: `@handle`.
#[derive(Debug, Clone)]
pub struct Group {
    pub id: String,
    /// Without the `@`.
    pub handle: String,
    /// User ids.
    pub members: Vec<String>,
}

/// A public channel.
#[derive(Debug, Clone)]
pub struct Channel {
    pub id: String,
    /// Without the `#`.
    pub name: String,
    /// Whether the bot under test is in it.
    pub is_member: bool,
}

/// Something that posts alerts: an incoming webhook or another app's bot.
#[derive(Debug, Clone)]
pub struct Sender {
    pub bot_id: String,
    /// Old custom integrations have none.
    pub app_id: Option<String>,
    pub name: String,
}

/// Who the bot under test is in this workspace.
#[derive(Debug, Clone)]
pub struct Bot {
    pub user_id: String,
    pub bot_id: String,
    pub app_id: String,
    pub name: String,
}

/// By which road events reach the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Over the WebSockets the bot opens.
    Socket,
    /// By signed POST to these three addresses.
    Http { events: String, interactions: String, commands: String },
}

/// Everything [`super::Workspace::start`] wants to know. `Options::default()` is a small team that
/// tests can use as it stands.
#[derive(Debug, Clone)]
pub struct Options {
    /// 0: any free port.
    pub port: u16,
    pub bot_token: String,
    pub app_token: String,
    pub signing_secret: String,
    pub team_id: String,
    pub team_name: String,
    pub bot: Bot,
    pub users: Vec<User>,
    pub groups: Vec<Group>,
    /// The free plan: `usergroups.*` answer `plan_upgrade_required`.
    pub groups_need_upgrade: bool,
    pub channels: Vec<Channel>,
    pub senders: Vec<Sender>,
    /// The bot token's scopes. A method whose scope is not among them answers `missing_scope`.
    pub scopes: Vec<String>,
    /// The event types the app subscribes to; others are not delivered.
    pub subscriptions: Vec<String>,
    /// Slack's limits: about one message a second and channel, and the methods' tiers.
    pub limits: bool,
    pub delivery: Delivery,
    /// Socket Mode: an envelope not acknowledged for so long is sent again (Slack: 3 to 4 s).
    /// Also how long a click or a slash command waits for its acknowledgement.
    pub redeliver_after: Duration,
    /// How often an unacknowledged event is sent again before it is given up (Slack: 3).
    pub redeliveries: u32,
    /// Whether clicks and commands are sent again too. Slack's documents do not say.
    pub redeliver_interactive: bool,
    /// HTTP mode: the wait before each retry (Slack: at once, 1 minute, 5 minutes).
    pub http_retries: Vec<Duration>,
    /// From a `disconnect` of reason `warning` to the closing of the socket (Slack: about 10 s).
    pub disconnect_grace: Duration,
    /// Between two WebSocket pings to the bot.
    pub ping_every: Duration,
    /// Where the bot ends. Steps are Web API calls by their method, uploads (`upload`), uses of a
    /// `response_url` (`respond`), opened sockets (`connect`) and acknowledgements (`acknowledge`).
    pub cut: Option<Cut>,
}

/// The scopes heal's manifest asks for.
pub const SCOPES: &[&str] = &[
    "app_mentions:read",
    "channels:history",
    "channels:join",
    "channels:read",
    "chat:write",
    "commands",
    "files:write",
    "groups:history",
    "groups:read",
    "metadata.message:read",
    "reactions:read",
    "reactions:write",
    "usergroups:read",
    "users:read",
];

impl Default for Options {
    fn default() -> Self {
        Options {
            port: 0,
            bot_token: "xoxb-sandbox-bot".to_owned(),
            app_token: "xapp-sandbox-app".to_owned(),
            signing_secret: "sandbox-signing-secret".to_owned(),
            team_id: "T0SANDBOX".to_owned(),
            team_name: "sandbox".to_owned(),
            bot: Bot {
                user_id: "U0HEAL".to_owned(),
                bot_id: "B0HEAL".to_owned(),
                app_id: "A0HEAL".to_owned(),
                name: "heal".to_owned(),
            },
            users: vec![
                User::new("U0LEAD", "mika"),
                User::new("U0SRE", "ren"),
                User::new("U0DEV", "dana"),
                User { team_id: Some("T0PARTNER".to_owned()), ..User::new("U0EXTERN", "external-eve") },
            ],
            groups: vec![Group {
                id: "S0SRE".to_owned(),
                handle: "sre".to_owned(),
                members: vec!["U0LEAD".to_owned(), "U0SRE".to_owned()],
            }],
            groups_need_upgrade: false,
            channels: vec![
                Channel::new("C0ALERTS", "alerts"),
                Channel::new("C0OPS", "ops"),
                Channel { is_member: false, ..Channel::new("C0RANDOM", "random") },
            ],
            senders: vec![
                Sender::new("B0PROM", Some("A0PROM"), "Alertmanager"),
                Sender::new("B0NAGIOS", None, "nagios"),
                Sender::new("B0FOREIGN", Some("A0FOREIGN"), "some-webhook"),
            ],
            scopes: SCOPES.iter().map(|s| (*s).to_owned()).collect(),
            subscriptions: vec!["message".to_owned(), "app_mention".to_owned()],
            limits: false,
            delivery: Delivery::Socket,
            redeliver_after: Duration::from_secs(3),
            redeliveries: 3,
            redeliver_interactive: false,
            http_retries: vec![Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(300)],
            disconnect_grace: Duration::from_secs(10),
            ping_every: Duration::from_secs(10),
            cut: None,
        }
    }
}

impl User {
    /// Somebody of the workspace's own team.
    pub fn new(id: &str, name: &str) -> Self {
        User { id: id.to_owned(), name: name.to_owned(), team_id: None }
    }
}

impl Channel {
    /// A channel the bot is in.
    pub fn new(id: &str, name: &str) -> Self {
        Channel { id: id.to_owned(), name: name.to_owned(), is_member: true }
    }
}

impl Sender {
    /// A sender; without an app id it is an old custom integration.
    pub fn new(bot_id: &str, app_id: Option<&str>, name: &str) -> Self {
        Sender { bot_id: bot_id.to_owned(), app_id: app_id.map(str::to_owned), name: name.to_owned() }
    }
}
