//! What a lease says: who holds it, for what, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::names::Fqdn;

/// What is done under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    Backup,
    Delete,
    Purge,
    BuildIndex,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Delete => "delete",
            Self::Purge => "purge",
            Self::BuildIndex => "build-index",
        })
    }
}

impl Work {
    fn verb(self) -> &'static str {
        match self {
            Self::Backup => "backs up",
            Self::Delete => "deletes backups of",
            Self::Purge => "purges",
            Self::BuildIndex => "builds the index of",
        }
    }
}

/// A process, and how it is told from others with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
    /// Of this run of the machine; numbers of processes are used again after a boot.
    pub boot: String,
    /// Numbers mean something only inside of their namespace.
    pub pid_namespace: String,
    /// Field 22 of proc(5) `stat`: when the process was started.
    pub started: String,
}

impl Holder {
    pub fn this_process() -> Self {
        let pid = std::process::id();
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default().trim().to_owned();
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let namespace = fs_err::read_link("/proc/self/ns/pid").map(|link| link.display().to_string());
        Self {
            host,
            pid,
            boot: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.unwrap_or_default(),
            started: start_time(pid).unwrap_or_default(),
        }
    }

    /// Whether it is certain that the process ended. Only one of this machine can be judged.
    pub fn is_gone(&self) -> bool {
        let own = Self::this_process();
        let judged = !self.boot.is_empty() && (&self.boot, &self.pid_namespace) == (&own.boot, &own.pid_namespace);
        judged && is_over(self.pid, &self.started)
    }
}

/// Whether a process that was started then is no more. One that cannot be looked at (`hidepid` of /proc) is there.
fn is_over(pid: u32, started: &str) -> bool {
    if fs_err::read_to_string(format!("/proc/{pid}/stat")).is_ok() {
        return start_time(pid).as_deref() != Some(started);
    }
    let Ok(number) = i32::try_from(pid) else { return false };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), None) == Err(nix::errno::Errno::ESRCH)
}

/// `None`: there is no such process.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain blanks and parentheses; it ends with the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie does nothing any more.
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18).map(str::to_owned) }
}

/// The content of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub version: u32,
    /// Of this holding of it; two of one process differ.
    pub id: String,
    pub work: Work,
    /// The backup that is made or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    pub holder: Holder,
    /// Unix seconds by the holder's clock, for people.
    pub since: i64,
    /// Seconds.
    pub ttl: u64,
}

impl Terms {
    pub const VERSION: u32 = 1;
    /// Several times the time between two renewals: a slow storage must not cost the lease.
    pub const TTL: Duration = Duration::from_mins(2);
    pub const RENEWAL: Duration = Duration::from_secs(30);

    /// `process 4711 on node1 backs up n1 (b1)`
    pub fn describe(&self, fqdn: &Fqdn) -> String {
        let backup = self.backup.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("process {} on {} {} {fqdn}{backup}", self.holder.pid, self.holder.host, self.work.verb())
    }
}
