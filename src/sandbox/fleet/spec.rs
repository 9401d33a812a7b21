//! What a fleet is made of: its hosts, their disks and services, its documents, and what can be
//! done to a host. Plain data, so that a test says in three lines which fleet it wants.

use std::time::Duration;

use crate::sandbox::Cut;

/// How a fleet starts. `Default` is the fleet of the sandbox, with answers at once.
#[derive(Clone, Debug)]
pub struct Options {
    pub hosts: Vec<HostSpec>,
    /// Documents beside `AWS-RunShellScript`.
    pub documents: Vec<Document>,
    pub region: String,
    /// How long one second of SSM's time-outs (delivery, execution) lasts.
    pub second: Duration,
    /// Until ListCommands and ListCommandInvocations show a new command. The service is
    /// eventually consistent, by how much is nowhere promised.
    pub list_delay: Duration,
    /// Until GetCommandInvocation knows a new command; before, InvocationDoesNotExist.
    pub invocation_delay: Duration,
    /// The least time that a step of an automation takes, so that it can be seen.
    pub step_pause: Duration,
    /// Where the bot ends. Steps are SSM's calls by their operation.
    pub cut: Option<Cut>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: HostSpec::standard(),
            documents: Document::standard(),
            region: "ap-northeast-1".to_owned(),
            second: Duration::from_secs(1),
            list_delay: Duration::ZERO,
            invocation_delay: Duration::ZERO,
            step_pause: Duration::ZERO,
            cut: None,
        }
    }
}

impl Options {
    /// A fleet of these hosts.
    #[must_use]
    pub fn of(hosts: Vec<HostSpec>) -> Self {
        Self { hosts, ..Self::default() }
    }
}

/// A host before it is started.
#[derive(Clone, Debug)]
pub struct HostSpec {
    pub name: String,
    /// `i-` and 17 hex digits, made from the name: the same at every start.
    pub instance_id: String,
    pub computer_name: String,
    pub address: String,
    pub private_dns_name: String,
    pub tags: Vec<(String, String)>,
    /// Each is a process that runs from the start.
    pub services: Vec<String>,
    /// Which of the services follow a primary, and so can lag behind.
    pub replicas: Vec<String>,
    pub disks: Vec<Disk>,
    pub agent_version: String,
    pub online: bool,
}

/// A disk of a known capacity; what is on it are the real files under its mount point.
#[derive(Clone, Debug)]
pub struct Disk {
    pub mount: String,
    pub kib: u64,
}

impl HostSpec {
    /// A host without services, tagged with its role.
    #[must_use]
    pub fn new(name: &str, role: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (third, fourth) = (hash >> 8 & 0xff, 10 + (hash & 0xff) % 240);
        Self {
            name: name.to_owned(),
            instance_id: format!("i-0{hash:016x}"),
            computer_name: name.to_owned(),
            address: format!("10.77.{third}.{fourth}"),
            private_dns_name: format!("ip-10-77-{third}-{fourth}.ap-northeast-1.compute.internal"),
            tags: vec![("Name".to_owned(), name.to_owned()), ("Role".to_owned(), role.to_owned())],
            services: Vec::new(),
            replicas: Vec::new(),
            disks: Vec::new(),
            agent_version: "3.3.2746.0".to_owned(),
            online: true,
        }
    }

    #[must_use]
    pub fn service(mut self, name: &str) -> Self {
        self.services.push(name.to_owned());
        self
    }

    /// A service that follows a primary.
    #[must_use]
    pub fn replica(mut self, name: &str) -> Self {
        self.replicas.push(name.to_owned());
        self.service(name)
    }

    #[must_use]
    pub fn disk(mut self, mount: &str, kib: u64) -> Self {
        self.disks.push(Disk { mount: mount.to_owned(), kib });
        self
    }

    #[must_use]
    pub fn offline(mut self) -> Self {
        self.online = false;
        self
    }

    /// The role of its `Role` tag; empty where there is none.
    #[must_use]
    pub fn role(&self) -> &str {
        self.tags.iter().find(|(key, _)| key == "Role").map_or("", |(_, value)| value)
    }

    /// The five hosts of the sandbox, one for each kind of shipped rule.
    #[must_use]
    pub fn standard() -> Vec<Self> {
        vec![
            Self::new("app-1", "SOME_ROLE").service("FOO_PROCESS"),
            Self::new("web-1", "web").service("nginx").service("app"),
            Self::new("web-2", "web").service("nginx").service("app"),
            Self::new("db-1", "db").replica("replica").disk("/var/log/app", 2048),
            Self::new("batch-1", "batch").service("node-agent").service("batch-worker"),
        ]
    }
}

/// How far a replica falls behind at the press of a button, in seconds.
pub(super) const LAG: u64 = 900;

/// What can be done to a host, by a person on the page or by a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Stop(String),
    Start(String),
    /// SIGSTOP: alive, and its heartbeat no longer grows.
    Wedge(String),
    Release(String),
    /// From now on the service does not come up again.
    BreakRestart(String),
    MendRestart(String),
    /// Fills the disk at this mount point to 97%.
    Fill(String),
    Empty(String),
    /// The replica falls this many seconds behind.
    Lag(String, u64),
    GoOffline,
    GoOnline,
}

impl Action {
    /// The id of its button, lower case words: `stop-nginx`, `fill-var-log-app`.
    #[must_use]
    pub fn id(&self) -> String {
        let text = match self {
            Self::Stop(name) => format!("stop {name}"),
            Self::Start(name) => format!("start {name}"),
            Self::Wedge(name) => format!("wedge {name}"),
            Self::Release(name) => format!("release {name}"),
            Self::BreakRestart(name) => format!("break restart {name}"),
            Self::MendRestart(name) => format!("mend restart {name}"),
            Self::Fill(mount) => format!("fill {mount}"),
            Self::Empty(mount) => format!("empty {mount}"),
            Self::Lag(name, _) => format!("lag {name}"),
            Self::GoOffline => "offline".to_owned(),
            Self::GoOnline => "online".to_owned(),
        };
        let words =
            text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
    }

    /// Everything that can be done to such a host.
    #[must_use]
    pub fn all_of(spec: &HostSpec) -> Vec<Self> {
        let mut all = vec![Self::GoOffline, Self::GoOnline];
        for name in &spec.services {
            let make =
                [Self::Stop, Self::Start, Self::Wedge, Self::Release, Self::BreakRestart, Self::MendRestart];
            all.extend(make.into_iter().map(|make| make(name.clone())));
        }
        for disk in &spec.disks {
            all.extend([Self::Fill(disk.mount.clone()), Self::Empty(disk.mount.clone())]);
        }
        all.extend(spec.replicas.iter().map(|name| Self::Lag(name.clone(), LAG)));
        all
    }
}

/// An SSM document that the fleet knows.
#[derive(Clone, Debug)]
pub struct Document {
    pub name: String,
    pub about: String,
    pub parameters: Vec<Parameter>,
    pub content: Content,
}

/// A parameter of a document: a list of strings, as on SSM's wire.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub about: String,
    /// Without one the parameter is required.
    pub default: Option<String>,
    /// Empty: anything.
    pub allowed: Vec<String>,
}

/// What a document does. Parameters reach a script as `SSM_<name>` in its environment, as with
/// `interpolationType: ENV_VAR` (documents-schemas-features.html), never as text.
#[derive(Clone, Debug)]
pub enum Content {
    /// A Command document of one `aws:runShellScript` step.
    Command { step: String, script: String },
    /// An Automation; its steps run on the node of its parameter `InstanceId`.
    Automation { steps: Vec<AutomationStep> },
}

#[derive(Clone, Debug)]
pub struct AutomationStep {
    pub name: String,
    pub action: String,
    pub script: String,
}

impl Document {
    /// The documents that the shipped rules use.
    #[must_use]
    pub fn standard() -> Vec<Self> {
        let step = |name: &str, script: &str| AutomationStep {
            name: name.to_owned(),
            action: "aws:runCommand".to_owned(),
            script: script.to_owned(),
        };
        vec![
            Self {
                name: "Acme-RestartReplica".to_owned(),
                about: "Restarts the database replica, softly (it drains) or hard.".to_owned(),
                parameters: vec![Parameter {
                    name: "Mode".to_owned(),
                    about: "soft or hard".to_owned(),
                    default: Some("soft".to_owned()),
                    allowed: vec!["soft".to_owned(), "hard".to_owned()],
                }],
                content: Content::Command {
                    step: "restartReplica".to_owned(),
                    script: "echo \"restarting the replica ($SSM_Mode)\"\n\
                             [ \"$SSM_Mode\" = hard ] && pkill -KILL replica\n\
                             service replica restart || exit 1\n\
                             service replica status\n\
                             echo \"behind by $(cat /var/lib/replica/lag_seconds) s\""
                        .to_owned(),
                },
            },
            Self {
                name: "Acme-ReplaceNode".to_owned(),
                about: "Drains a batch node, replaces it, and waits until it works again.".to_owned(),
                parameters: vec![Parameter {
                    name: "InstanceId".to_owned(),
                    about: "the node to replace".to_owned(),
                    default: None,
                    allowed: Vec::new(),
                }],
                content: Content::Automation {
                    steps: vec![
                        step("drainNode", "service node-agent stop && service batch-worker stop"),
                        step("replaceNode", "service batch-worker start && service node-agent start"),
                        step("waitForNode", "service batch-worker status && service node-agent status"),
                    ],
                },
            },
        ]
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.content {
            Content::Command { .. } => "Command",
            Content::Automation { .. } => "Automation",
        }
    }
}
