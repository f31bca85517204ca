//! Hosts that are reached by ssh: a real sshd per loopback address, each with a key and an environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scratch;
use super::stores::process::{self, Process};

/// Keys and the client's configuration for some hosts.
#[derive(Debug)]
pub struct SshLab {
    pub folder: tempfile::TempDir,
    /// Of each host what stands in the client's configuration and in `known_hosts`.
    known: Mutex<Vec<[String; 2]>>,
}

/// A host with its sshd. Dropping it ends the sshd and its connections; what runs there goes on.
#[derive(Debug)]
pub struct SshHost {
    pub address: String,
    sshd: Process,
}

impl SshLab {
    pub fn new() -> Self {
        let lab = Self { folder: scratch("ssh"), known: Mutex::default() };
        make_key(&lab.path("id"));
        std::fs::copy(lab.path("id.pub"), lab.path("authorized_keys")).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an authority, and a certificate of it for the key of this user. Returns both: what hosts trust, and what is shown to them.
    pub fn certificate(&self) -> [PathBuf; 2] {
        let (authority, certificate) = (self.path("authority"), self.path("certificate"));
        make_key(&authority);
        // Beside its key, ssh would find it by itself.
        let copy = self.path("copy.pub");
        std::fs::copy(self.path("id.pub"), &copy).unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let signed = [&authority, &copy].map(|path| path.display().to_string());
        keygen(&["-q", "-s", &signed[0], "-I", "lab", "-n", &user, "-V", "-1m:+1d", &signed[1]]);
        std::fs::rename(self.path("copy-cert.pub"), &certificate).unwrap();
        [self.path("authority.pub"), certificate]
    }

    /// For `[ssh] config_file`. Knows the hosts that were started until now.
    pub fn config(&self) -> PathBuf {
        let known = self.known.lock().unwrap();
        let keys: String = known.iter().map(|[_, key]| format!("{key}\n")).collect();
        std::fs::write(self.path("known_hosts"), keys).unwrap();
        let hosts: String = known.iter().map(|[host, _]| host.as_str()).collect();
        let all = format!(
            "{hosts}Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            self.path("id").display(),
            self.path("known_hosts").display()
        );
        std::fs::write(self.path("config"), all).unwrap();
        self.path("config")
    }

    /// Starts a host on a loopback address (`127.0.0.1`, `127.0.0.2`, …). `environment` is what its commands see, apart from
    /// what sshd itself sets; `more` are further lines of `sshd_config`.
    pub fn host(&self, address: &str, environment: &[(&str, &str)], more: &str) -> SshHost {
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let folder = process::folder("sshd");
        make_key(&folder.join("host_key"));
        let variables: String = environment.iter().map(|(name, value)| format!(" \"{name}={value}\"")).collect();
        let set = if variables.is_empty() { String::new() } else { format!("SetEnv{variables}\n") };
        let settings = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nMaxStartups 200\n{set}{more}\n",
            folder.join("host_key").display(),
            self.path("authorized_keys").display(),
        );
        let file = folder.join("sshd_config");
        std::fs::write(&file, settings).unwrap();
        let command = |port: u16| {
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-D", "-e", "-f"]).arg(&file).args(["-o", &format!("ListenAddress={address}:{port}")]);
            command
        };
        let sshd = Process::start(&folder, command, |port| std::net::TcpStream::connect((address, port)).is_ok());
        let key = std::fs::read_to_string(folder.join("host_key.pub")).unwrap();
        let entry = [format!("Host {address}\n  Port {}\n", sshd.port), format!("[{address}]:{} {key}", sshd.port)];
        let mut known = self.known.lock().unwrap();
        // It may have been here before, on another port.
        known.retain(|[host, _]| !host.starts_with(&format!("Host {address}\n")));
        known.push(entry);
        SshHost { address: address.to_owned(), sshd }
    }
}

impl Default for SshLab {
    fn default() -> Self {
        Self::new()
    }
}

impl SshHost {
    pub fn port(&self) -> u16 {
        self.sshd.port
    }

    /// The processes that hold its connections.
    pub fn connections(&self) -> Vec<u32> {
        children(self.sshd.id())
    }

    /// Breaks its connections as a lost network would, without a word.
    pub fn break_connections(&self) {
        self.signal_connections(Signal::SIGKILL);
    }

    /// Keeps its connections open, and silent.
    pub fn freeze_connections(&self) {
        self.signal_connections(Signal::SIGSTOP);
    }

    fn signal_connections(&self, signal: Signal) {
        for first in self.connections() {
            // A user other than root has a second process.
            for process in children(first).into_iter().chain([first]) {
                if is_sshd(process) {
                    let _ = kill(Pid::from_raw(i32::try_from(process).unwrap()), signal);
                }
            }
        }
    }
}

impl Drop for SshHost {
    fn drop(&mut self) {
        self.break_connections();
    }
}

fn make_key(file: &Path) {
    keygen(&["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", &file.display().to_string()]);
}

fn keygen(arguments: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(arguments).stdin(Stdio::null());
    assert!(command.status().unwrap().success(), "ssh-keygen failed");
}

/// The living processes that a process started.
fn children(of: u32) -> Vec<u32> {
    let parent = |process: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        words.next().filter(|state| *state != "Z")?;
        words.next()?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|process| parent(*process) == Some(of)).collect()
}

fn is_sshd(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.starts_with("sshd"))
}
