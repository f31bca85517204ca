//! A server of another project as a process that never outlives its owner.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::scratch;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

/// A running server with its folder. Dropping it kills the one and removes the other.
#[derive(Debug)]
pub struct Process {
    pub port: u16,
    /// What the server keeps, and `log`.
    pub folder: PathBuf,
    /// From the start of the program until it answered.
    pub started_in: Duration,
    server: Child,
    watchdog: Child,
}

/// A new folder for a server. It goes with the server, so it must not go with what made it.
pub fn folder(name: &str) -> PathBuf {
    scratch(name).keep()
}

impl Process {
    /// Runs the command that is made for a free port, until it is ready there.
    pub fn start(folder: &Path, command: impl Fn(u16) -> Command, ready: impl Fn(u16) -> bool) -> Self {
        // A port that was free may be taken before the server asks for it.
        for _ in 0..5 {
            let mut started = Self::spawn(folder, free_port(), &command);
            if started.wait_until(&ready) {
                return started;
            }
            started.kill();
            // Its folder is for the next attempt.
            std::mem::forget(started);
        }
        panic!("the server does not start: {}", log(folder));
    }

    /// False where the server ended.
    fn wait_until(&mut self, ready: &impl Fn(u16) -> bool) -> bool {
        let begin = Instant::now();
        while !ready(self.port) {
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begin.elapsed() < PATIENCE, "the server is not ready: {}", log(&self.folder));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.started_in = begin.elapsed();
        true
    }

    fn spawn(folder: &Path, port: u16, command: &impl Fn(u16) -> Command) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        // Groups of their own: what ends the owner at a terminal must not end the watchdog.
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let server = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The pipe ends with its owner, however that goes.
        let watchdog = Command::new("sh")
            .args(["-c", "read _; kill -9 $1; rm -rf \"$2\"", "watchdog", &server.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { port, folder: folder.to_owned(), started_in: Duration::ZERO, server, watchdog }
    }

    pub fn id(&self) -> u32 {
        self.server.id()
    }

    fn kill(&mut self) {
        // The watchdog first: it must not kill another process that gets the number of this one.
        for child in [&mut self.watchdog, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
