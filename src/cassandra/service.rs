//! Cassandra as a service: whether it is up, down, or answers, and the commands that start and stop it.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::cql::{self, Cql};
use super::installed::{self, Release};
use super::naming::first_address;
use super::yaml::CassandraYaml;
use crate::config::{self, HealthCheck};
use crate::error::Failure;
use crate::exec::command::Invocation;
use crate::interrupt::Interrupt;

/// How Cassandra's process is called.
const JAVA: &str = "java";
/// Between two looks.
const POLL: Duration = Duration::from_millis(250);
/// How long Cassandra may still be going down by itself when the stop command failed.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at the process of a Cassandra that starts, and how long it may be away until it counts as ended: systemd
/// may start it again.
const LIFE_POLL: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_mins(1);
/// Of one attempt to connect to a port.
const CONNECT: Duration = Duration::from_secs(3);

/// The local Cassandra.
#[derive(Debug)]
pub struct Service<'a> {
    cassandra: &'a config::Cassandra,
    health_check: HealthCheck,
    yaml: &'a CassandraYaml,
    /// Where it listens: clients and, on its own address, its peers.
    native: Option<SocketAddr>,
    storage: SocketAddr,
}

impl<'a> Service<'a> {
    /// # Errors
    /// There is no command to stop or start it with.
    pub fn new(config: &'a config::Config, yaml: &'a CassandraYaml) -> Result<Self, Failure> {
        for (key, words) in [("stop_cmd", &config.cassandra.stop_cmd), ("start_cmd", &config.cassandra.start_cmd)] {
            if words.is_empty() {
                return Err(Failure::usage(format!("{key} in [cassandra] is empty, and a restore needs it"))
                    .hint("without the line, it is sudo service cassandra stop or start"));
            }
        }
        let native = cql::local_address(yaml)?;
        let listen = yaml.listen_address.as_deref().and_then(first_address).unwrap_or(native.ip());
        Ok(Self {
            cassandra: &config.cassandra,
            health_check: config.checks.health_check,
            yaml,
            native: yaml.native_transport.then_some(native),
            storage: SocketAddr::new(listen, yaml.storage_port),
        })
    }

    pub fn stop_command(&self) -> String {
        Invocation::from_words(&self.cassandra.stop_cmd).to_string()
    }

    /// The release that is installed here, where that can be told.
    pub fn installed(&self) -> Option<Release> {
        installed::find_release(&self.yaml.path, &self.cassandra.start_cmd)
    }

    pub fn start_command(&self) -> String {
        Invocation::from_words(&self.cassandra.start_cmd).to_string()
    }

    /// What is waited for after a start.
    pub fn endpoint(&self) -> SocketAddr {
        self.native.unwrap_or(self.storage)
    }

    /// Whether any of its ports is open.
    pub fn is_up(&self) -> bool {
        self.native.into_iter().chain([self.storage]).any(is_open)
    }

    /// Whether it runs, be it without serving anybody.
    pub fn is_running(&self) -> bool {
        self.is_up() || self.users_of_files().iter().any(|user| user.ends_with(&format!("({JAVA})")))
    }

    /// Processes that hold files of Cassandra open. A closed port does not mean that nothing is written any more.
    fn users_of_files(&self) -> Vec<String> {
        let mut folders = self.yaml.table_directories();
        folders.push(self.yaml.commitlog_directory.clone());
        let folders: Vec<PathBuf> = folders.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
        processes_with_open_files(&folders)
    }

    /// Stops Cassandra and waits until it is down and lets go of its files.
    ///
    /// # Errors
    /// If it is still up when `stop_timeout` has passed.
    pub async fn stop(&self) -> Result<(), Failure> {
        let deadline = self.cassandra.stop_timeout;
        let begin = Instant::now();
        let stopped = Invocation::from_words(&self.cassandra.stop_cmd).run_successfully(deadline).await;
        loop {
            let (up, users) = (self.is_up(), self.users_of_files());
            if !up && users.is_empty() {
                // A stop command that fails where nothing runs has nothing to say.
                return Ok(());
            }
            let failed = stopped.is_err() && (up || begin.elapsed() > GRACE);
            if failed || begin.elapsed() > deadline {
                let message = if up {
                    format!("Cassandra is still up after {} ({} s)", self.stop_command(), begin.elapsed().as_secs())
                } else {
                    format!("Cassandra's ports are closed, but its files are still open in {}", users.join(", "))
                };
                let failure =
                    Failure::failed(message).hint("stop_cmd in [cassandra] must stop it, within stop_timeout seconds");
                return Err(match stopped {
                    Err(error) => failure.cause(error),
                    Ok(_) => failure,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts Cassandra.
    pub async fn start(&self) -> Result<(), Failure> {
        let started =
            Invocation::from_words(&self.cassandra.start_cmd).run_successfully(self.cassandra.start_timeout).await;
        started.map(drop).map_err(|error| {
            Failure::failed("Cassandra could not be started")
                .cause(error)
                .hint("start_cmd in [cassandra] must start it")
        })
    }

    /// Waits until Cassandra answers.
    ///
    /// # Errors
    /// If it does not within `start_timeout`, or ends before.
    pub async fn wait_until_healthy(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        let begin = Instant::now();
        let (mut looked, mut alive): (_, Option<Instant>) = (begin, None);
        loop {
            interrupt.check()?;
            let Err(last) = self.check_health().await else { return Ok(()) };
            if looked.elapsed() > LIFE_POLL {
                looked = Instant::now();
                if self.is_running() {
                    alive = Some(looked);
                } else if alive.is_some_and(|alive| alive.elapsed() > AWAY) {
                    return Err(Failure::failed("Cassandra ended while it was starting")
                        .cause(last)
                        .hint("its log says why"));
                }
            }
            if begin.elapsed() > self.cassandra.start_timeout {
                let waited = self.cassandra.start_timeout.as_secs();
                return Err(Failure::failed(format!(
                    "Cassandra did not answer on {} within {waited} s",
                    self.endpoint()
                ))
                .cause(last)
                .hint("its log says why; start_timeout in [cassandra] sets how long to wait"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// One look by the rule of `health_check`.
    pub async fn check_health(&self) -> Result<(), Failure> {
        if self.health_check == HealthCheck::All {
            self.check_storage()?;
        }
        self.check_cql().await
    }

    fn check_storage(&self) -> Result<(), Failure> {
        let closed = || Failure::failed(format!("the storage port {} is closed", self.storage));
        if is_open(self.storage) { Ok(()) } else { Err(closed()) }
    }

    /// Where clients are served, a query must be answered. A refused password is an answer, too.
    async fn check_cql(&self) -> Result<(), Failure> {
        let Some(native) = self.native else { return self.check_storage() };
        if !is_open(native) {
            return Err(Failure::failed(format!("the CQL port {native} is closed")));
        }
        match Cql::connect(self.cassandra, self.yaml).await {
            Ok(cql) => cql.rows::<(String,)>("SELECT cluster_name FROM system.local").await.map(drop),
            Err(refused) if refused.message.contains("user name and password") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether something accepts connections there.
pub fn is_open(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, CONNECT).is_ok()
}

/// `pid (name)` of the processes that we may look into and that have a file below one of the folders open: any Java program,
/// and any other one that may write.
fn processes_with_open_files(folders: &[PathBuf]) -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if !has_open_file(&process.path(), folders, name.trim() != JAVA) {
            continue;
        }
        found.push(format!("process {pid} ({})", name.trim()));
    }
    found
}

fn has_open_file(process: &Path, folders: &[PathBuf], only_for_writing: bool) -> bool {
    // Not ours to look into, or gone.
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    let is_inside =
        |path: &Path| fs::read_link(path).is_ok_and(|file| folders.iter().any(|folder| file.starts_with(folder)));
    files.flatten().any(|file| {
        is_inside(&file.path()) && (!only_for_writing || is_for_writing(process, &file.file_name().to_string_lossy()))
    })
}

/// By the octal `flags` of proc(5).
fn is_for_writing(process: &Path, descriptor: &str) -> bool {
    let info = fs::read_to_string(process.join("fdinfo").join(descriptor)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_none_or(|flags| flags & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_found_with_the_process_that_holds_them() {
        let folder = tempfile::tempdir().unwrap();
        let canonical = vec![fs::canonicalize(folder.path()).unwrap()];
        let path = folder.path().join("held");
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("exec 9>{}; exec sleep 30", path.display())])
            .spawn()
            .unwrap();
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let users = processes_with_open_files(&canonical);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(users.iter().any(|user| user.starts_with(&format!("process {} (", child.id()))), "{users:?}");
    }
}
