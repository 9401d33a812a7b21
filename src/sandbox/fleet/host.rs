//! A simulated host: a temporary folder with a few real long-running processes, and the
//! commands that act on them.
//!
//! A folder is no chroot, so absolute paths under [`REDIRECTED`] are rewritten in a script, both
//! ways: the script works inside the folder, and its output reads as on a real host. With that
//! the shipped rules run here as they are, and touch nothing else on the machine.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use regex::Regex;

use super::spec::{Action, HostSpec};

/// Absolute paths that mean the host's folder in a script. Not `/tmp`: that is where the folder
/// itself is, and where tests keep their marks.
pub const REDIRECTED: &[&str] = &["/var/lib", "/var/log", "/var/cache", "/var/run", "/var/tmp", "/run"];

/// Not behind another path, variable or address: `$ROOT/var/log` and `x/var/log` stay. A bare
/// `/run` must stand alone or after `=`, for it is a pattern of awk as often as a path.
static REDIRECT: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns = [r"(^|[^\w./}-])(/var/(?:lib|log|cache|run|tmp))\b", r"(^|[\s=])(/run)\b"];
    patterns.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect()
});

const HOSTCTL: &str = include_str!("hostctl.sh");
const WORKER: &str = include_str!("worker.sh");
const NAMES: &[&str] = &[
    "service",
    "systemctl",
    "PROC_CHECK",
    "df",
    "pgrep",
    "pkill",
    "killall",
    "reboot",
    "shutdown",
    "poweroff",
    "halt",
    "init",
];

/// How a process is, read from the operating system and not from what was last asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    Running {
        pid: u32,
    },
    /// Alive, and stopped by a signal: it does nothing.
    Stopped {
        pid: u32,
    },
    Gone,
}

/// One simulated host; its processes end with [`Host::kill_all`].
#[derive(Debug)]
pub struct Host {
    pub spec: HostSpec,
    root: PathBuf,
    /// Process groups of the scripts that run now.
    scripts: Mutex<HashSet<u32>>,
}

impl Host {
    /// Makes the folder and starts the services.
    ///
    /// # Errors
    /// The folder cannot be written, or a service does not come up.
    pub async fn boot(base: &Path, spec: HostSpec) -> anyhow::Result<Self> {
        let root = base.join(&spec.name);
        // The folder's name is written into scripts as it is, unquoted.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
        if !root.to_string_lossy().chars().all(plain) {
            bail!("{}: only letters, digits and /._-+ here; hint: set TMPDIR", root.display());
        }
        lay_out(&root, &spec).with_context(|| format!("the folder of {}", spec.name))?;
        let host = Self { spec, root, scripts: Mutex::default() };
        if !host.spec.services.is_empty() {
            host.control(&["up"]).await?;
        }
        Ok(host)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The environment of everything that runs on this host. Nothing is inherited: the bot's
    /// secrets are in the same process, and must not reach a script.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = if path.is_empty() { "/usr/sbin:/usr/bin:/sbin:/bin".to_owned() } else { path };
        BTreeMap::from([
            ("PATH".to_owned(), format!("{}:{path}", text(&self.root.join("bin")))),
            ("HOME".to_owned(), text(&self.root.join("home"))),
            ("TMPDIR".to_owned(), text(&self.root.join("tmp"))),
            ("HEAL_HOST_ROOT".to_owned(), text(&self.root)),
            ("HOSTNAME".to_owned(), self.spec.name.clone()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ])
    }

    /// A script with its redirected paths inside this host's folder.
    #[must_use]
    pub fn inward(&self, script: &str) -> String {
        let root = self.root.to_string_lossy();
        REDIRECT.iter().fold(script.to_owned(), |script, redirect| {
            let inside = |found: &regex::Captures<'_>| format!("{}{root}{}", &found[1], &found[2]);
            redirect.replace_all(&script, inside).into_owned()
        })
    }

    /// Output as a real host would have written it: without the folder's name.
    #[must_use]
    pub fn outward(&self, output: &str) -> String {
        let root = self.root.to_string_lossy();
        output.replace(&format!("{root}/"), "/").replace(root.as_ref(), "/")
    }

    /// Does to the host what a person does on the sandbox's page, or a test.
    ///
    /// # Errors
    /// The host has no such service or disk, or the process did not follow.
    pub async fn act(&self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Stop(name) => self.control(&["stop", self.service(name)?]).await,
            Action::Start(name) => self.control(&["start", self.service(name)?]).await,
            Action::Wedge(name) => self.control(&["wedge", self.service(name)?]).await,
            Action::Release(name) => self.control(&["release", self.service(name)?]).await,
            Action::BreakRestart(name) => {
                Ok(std::fs::write(self.root.join("etc/broken").join(self.service(name)?), "")?)
            }
            Action::MendRestart(name) => {
                remove_if_there(&self.root.join("etc/broken").join(self.service(name)?))
            }
            Action::Fill(mount) => self.fill(mount),
            Action::Empty(mount) => self.empty(mount),
            Action::Lag(name, seconds) => Ok(std::fs::write(
                self.state_file(self.service(name)?, "lag_seconds"),
                format!("{seconds}\n"),
            )?),
            // The fleet knows who is online; a host does not.
            Action::GoOffline | Action::GoOnline => Ok(()),
        }
    }

    fn service<'a>(&self, name: &'a str) -> anyhow::Result<&'a str> {
        if self.spec.services.iter().any(|service| service == name) {
            return Ok(name);
        }
        bail!("{} runs no {name}; it runs {}", self.spec.name, self.spec.services.join(", "))
    }

    async fn control(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = tokio::process::Command::new("sh")
            .arg(self.root.join("libexec/hostctl"))
            .args(words)
            .current_dir(&self.root)
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .output()
            .await
            .context("hostctl cannot be started")?;
        if output.status.success() {
            return Ok(());
        }
        bail!("{}: {}: {}", self.spec.name, words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
    }

    /// How a service's process is.
    #[must_use]
    pub fn process(&self, service: &str) -> ProcessState {
        let pid = std::fs::read_to_string(self.root.join("run").join(format!("{service}.pid")));
        let Some(pid) = pid.ok().and_then(|pid| pid.trim().parse::<u32>().ok()) else {
            return ProcessState::Gone;
        };
        match state_letter(pid, &self.root) {
            None | Some('Z' | 'X') => ProcessState::Gone,
            Some('T' | 't') => ProcessState::Stopped { pid },
            Some(_) => ProcessState::Running { pid },
        }
    }

    /// How long a service's heartbeat has been silent; `None` when it never beat.
    #[must_use]
    pub fn silence(&self, service: &str) -> Option<Duration> {
        age(&self.state_file(service, "heartbeat"))
    }

    /// Whether `PROC_CHECK --ignore-check` asked the monitor to leave the service alone just now.
    #[must_use]
    pub fn is_muted(&self, service: &str, within: Duration) -> bool {
        age(&self.root.join("run").join(format!("{service}.muted"))).is_some_and(|age| age < within)
    }

    /// Seconds that a replica is behind; 0 when it says nothing.
    #[must_use]
    pub fn lag_seconds(&self, service: &str) -> u64 {
        let text = std::fs::read_to_string(self.state_file(service, "lag_seconds"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// How full a disk is, in percent, rounded up as `df` does; `None` when there is no such disk.
    #[must_use]
    pub fn disk_percent(&self, mount: &str) -> Option<u64> {
        let disk = self.spec.disks.iter().find(|disk| disk.mount == mount)?;
        let used = bytes_under(&self.inside(mount)).div_ceil(1024).min(disk.kib);
        Some((used * 100).div_ceil(disk.kib.max(1)))
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn state_file(&self, service: &str, file: &str) -> PathBuf {
        self.root.join("var/lib").join(service).join(file)
    }

    /// Fills a disk to 97% with rotated logs that are some days old, as a disk fills in life.
    fn fill(&self, mount: &str) -> anyhow::Result<()> {
        let disk = self.spec.disks.iter().find(|disk| disk.mount == mount);
        let disk = disk.with_context(|| format!("{} has no disk at {mount}", self.spec.name))?;
        let folder = self.inside(mount);
        let missing = (disk.kib * 1024 * 97 / 100).saturating_sub(bytes_under(&folder));
        for day in 1..=4u32 {
            let file = std::fs::File::create(folder.join(format!("app.log.{day}.gz")))?;
            std::io::Write::write_all(&mut &file, &vec![b'.'; usize::try_from(missing / 4)?])?;
            if let Some(then) =
                SystemTime::now().checked_sub(Duration::from_secs(u64::from(day + 2) * 86_400))
            {
                file.set_modified(then)?;
            }
        }
        Ok(())
    }

    fn empty(&self, mount: &str) -> anyhow::Result<()> {
        for day in 1..=4u32 {
            remove_if_there(&self.inside(mount).join(format!("app.log.{day}.gz")))?;
        }
        Ok(())
    }

    /// Notes that a script's process group began, so that the host's end is its end too.
    pub(super) fn script_began(&self, pid: u32) {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    pub(super) fn script_ended(&self, pid: u32) {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// Kills the host's processes at once. Blocking and best effort: it is called on drop.
    pub fn kill_all(&self) {
        for pid in self.scripts.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            kill_group(pid);
        }
        for service in &self.spec.services {
            if let ProcessState::Running { pid } | ProcessState::Stopped { pid } = self.process(service) {
                kill_group(pid);
            }
        }
    }
}

/// Kills a process group, by `kill`: there is no safe call for it in the standard library.
pub(super) fn kill_group(pid: u32) {
    let killed = std::process::Command::new("sh")
        .args(["-c", "kill -s KILL -- \"-$1\" 2>/dev/null || kill -s KILL \"$1\"", "kill", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = killed {
        tracing::warn!(pid, %error, "a simulated process could not be killed");
    }
}

fn lay_out(root: &Path, spec: &HostSpec) -> anyhow::Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for folder in [
        "bin",
        "libexec",
        "etc/services",
        "etc/broken",
        "run",
        "home",
        "tmp",
        "var/lib",
        "var/log",
        "var/cache",
        "var/run",
        "var/tmp",
    ] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for (name, text) in [("hostctl", HOSTCTL), ("worker", WORKER)] {
        let path = root.join("libexec").join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    for name in NAMES {
        symlink("../libexec/hostctl", root.join("bin").join(name))?;
    }
    std::fs::write(root.join("etc/owner"), format!("{}\n", std::process::id()))?;
    std::fs::write(root.join("etc/hostname"), format!("{}\n", spec.name))?;
    for service in &spec.services {
        std::fs::write(root.join("etc/services").join(service), "")?;
        std::fs::create_dir_all(root.join("var/lib").join(service))?;
    }
    for service in &spec.replicas {
        std::fs::write(root.join("var/lib").join(service).join("lag_seconds"), "0\n")?;
    }
    let mut disks = String::new();
    for disk in &spec.disks {
        disks.push_str(&format!("{} {}\n", disk.mount, disk.kib));
        let folder = root.join(disk.mount.trim_start_matches('/'));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("app.log"), vec![b'.'; usize::try_from(disk.kib * 1024 / 5)?])?;
    }
    Ok(std::fs::write(root.join("etc/disks"), disks)?)
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

fn bytes_under(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_under(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The state letter of ps, of a process that is one of this folder's; a number used again by a
/// stranger is none. `/proc` where there is one, else `ps`.
fn state_letter(pid: u32, root: &Path) -> Option<char> {
    let root = root.to_string_lossy();
    if Path::new("/proc/self").exists() {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let letter = stat.rsplit_once(") ")?.1.chars().next();
        return letter.filter(|_| String::from_utf8_lossy(&command).contains(root.as_ref()));
    }
    let output =
        std::process::Command::new("ps").args(["-o", "stat=,args=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    line.chars().next().filter(|_| line.contains(root.as_ref()))
}
