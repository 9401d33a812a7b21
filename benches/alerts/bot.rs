//! The bot: the real binary, its configuration and rules, and what the kernel says of its process.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::slack::CHANNEL;
use super::storage::Storage;

/// Clock ticks of `/proc/PID/stat` per second: USER_HZ, 100 on every Linux architecture we know.
const TICKS: f64 = 100.0;
/// Rules in one file.
const FILE: usize = 1000;

/// A `heal serve` that runs; ended when dropped.
pub struct Bot {
    child: Child,
    folder: TempDir,
    listen: String,
    /// From exec to the first 200 of `/readyz`.
    pub ready: Duration,
}

/// What bots are made of.
#[derive(Clone, Debug)]
pub struct Making {
    /// The program.
    pub binary: PathBuf,
    /// Where folders are made; a commit of SQLite costs what the disk there costs.
    pub place: PathBuf,
    /// `sqlite`, `postgres` (one of our own), or the URL of an empty PostgreSQL database.
    pub store: String,
    /// Bots on one store.
    pub replicas: usize,
}

/// Memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

impl Bot {
    /// Starts the bot on fakes at these addresses and waits until it is ready.
    pub async fn start(
        making: &Making,
        storage: &Storage,
        slack: &str,
        ssm: &str,
        rules: usize,
    ) -> anyhow::Result<Bot> {
        let folder = TempDir::with_prefix_in("heal-bench-", &making.place).context("a folder for the bot")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        write_config(folder.path(), &listen, &storage.url(), rules)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let began = Instant::now();
        let child = Command::new(&making.binary)
            .args(["serve", "--config"])
            .arg(folder.path().join("heal.yaml"))
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .env_remove("DATABASE_URL")
            .env("SLACK_BOT_TOKEN", "xoxb-bench")
            .env("SLACK_APP_TOKEN", "xapp-bench")
            .env("SLACK_API_URL", format!("http://{slack}/api"))
            .env("AWS_ENDPOINT_URL_SSM", format!("http://{ssm}"))
            .env("AWS_REGION", "ap-northeast-1")
            .env("AWS_ACCESS_KEY_ID", "AKIABENCH")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("heal serve")?;
        let mut bot = Bot { child, folder, listen, ready: Duration::ZERO };
        while !bot.is_ready().await {
            if let Some(status) = bot.child.try_wait()? {
                bail!("heal serve ended with {status}:\n{}", bot.log());
            }
            if began.elapsed() > Duration::from_secs(60) {
                bail!("heal serve is not ready after 60 s:\n{}", bot.log());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bot.ready = began.elapsed();
        Ok(bot)
    }

    async fn is_ready(&self) -> bool {
        let asked = async {
            let mut stream = TcpStream::connect(&self.listen).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        asked.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// CPU time of the process so far, user and system, in seconds; to 10 ms.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu_of(self.child.id())
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mib = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
        };
        Ok(Memory { now: mib("VmRSS:").context("VmRSS")?, peak: mib("VmHWM:").context("VmHWM")? })
    }

    /// The end of what the bot logged.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lines of the log that say error or warning.
    pub fn complaints(&self) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).count()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        // As a crash would: what it leaves is what the next one has to go on with.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// CPU seconds of a process.
pub fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in brackets and may hold anything; utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS)
}

fn write_config(folder: &Path, listen: &str, store: &str, rules: usize) -> anyhow::Result<()> {
    let config = format!(
        "slack:\n  channels: [{CHANNEL}]\nsenders:\n  - name: prometheus\n    format: alertmanager\n    bot_id: B0PROM\napprovers: [U0LEAD]\naws:\n  region: ap-northeast-1\nrules: rules\nstore: {store}\nlisten: {listen}\n"
    );
    fs::write(folder.join("heal.yaml"), config)?;
    let place: PathBuf = folder.join("rules");
    fs::create_dir(&place)?;
    let steps = "  confirm: \"! systemctl is-active --quiet app\"\n  commands: [systemctl restart app]\n  verify: systemctl is-active --quiet app\n";
    let auto = "  stage: auto\n  grace: 0s\n  at_once: 10000\n";
    let mut files =
        vec![format!("web:AppDown:\n{steps}{auto}\"shop-*:Queue*\":\n{steps}{auto}web:DiskFull:\n{steps}")];
    for number in 3..rules {
        if number % FILE == 0 {
            files.push(String::new());
        }
        let Some(file) = files.last_mut() else { continue };
        // Half of the keys are exact, half are patterns.
        if number % 2 == 0 {
            write!(file, "role{number}:Alert{number}:\n{steps}")?;
        } else {
            write!(file, "\"team{number}-*:Disk{number}*\":\n{steps}")?;
        }
    }
    for (number, text) in files.iter().enumerate() {
        fs::write(place.join(format!("{number:03}.yaml")), text)?;
    }
    Ok(())
}
