//! What `heal sandbox` leaves behind, however it ends: no process. The real binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(20);

/// A sandbox whose temporary folders are all under `home`, by which its processes are known.
struct Sandbox {
    home: tempfile::TempDir,
    child: Child,
}

impl Sandbox {
    fn start() -> Sandbox {
        let home = tempfile::Builder::new().prefix("heal-ends-").tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_heal"))
            .args(["sandbox", "--port", "0"])
            .current_dir(home.path())
            .env("TMPDIR", home.path())
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("http://127.0.0.1:"), "{line}");
        Sandbox { home, child }
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// The command lines of all processes that have to do with this sandbox's folders, itself apart.
    fn processes(&self) -> Vec<String> {
        let own = self.home.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().into_string().unwrap_or_default();
            let read =
                |name: &str| std::fs::read(Path::new("/proc").join(&pid).join(name)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if pid != self.child.id().to_string() && line.contains(own) {
                found.push(line);
            }
        }
        found
    }

    fn until_alone(&self) {
        let until = Instant::now() + BOUND;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "still there: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn killed_at_once_it_leaves_neither_bot_nor_host_processes() {
    let mut sandbox = Sandbox::start();
    let running = sandbox.processes();
    assert!(running.iter().any(|line| line.contains("serve --config")), "no bot: {running:#?}");
    assert!(running.iter().any(|line| line.contains("nginx")), "no host's process: {running:#?}");
    sandbox.signal("KILL");
    sandbox.child.wait().unwrap();
    sandbox.until_alone();
}

#[test]
fn on_ctrl_c_it_ends_well_and_cleans_up_its_folders() {
    let mut sandbox = Sandbox::start();
    sandbox.signal("INT");
    assert!(sandbox.child.wait().unwrap().success());
    sandbox.until_alone();
    let left: Vec<_> = std::fs::read_dir(sandbox.home.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_port_that_is_taken_is_said_with_another_to_take() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let done = Command::new(env!("CARGO_BIN_EXE_heal"))
        .args(["sandbox", "--port", &port.to_string()])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains(&format!("port {port} is taken")) && said.contains("hint: "), "{said}");
    assert!(said.contains("heal sandbox --port "), "{said}");
}
