//! A ring of real Cassandra nodes, an sshd in front of each, and a configuration of medusa for each: what the commands about
//! a cluster need. All of them lie on this machine; an sshd runs medusa with the configuration of its node.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::medusa::Medusa;
use super::node::{Node, Options, Release, free_address};
use super::sshd::{SshHost, SshLab};
use super::{scratch, search_path};

/// Of each node.
const TOKENS: usize = 4;

/// How long nodes on a busy machine may take to hear of each other.
const PATIENCE: Duration = Duration::from_mins(10);

/// Seconds, on a busy machine.
const CQL_TIMEOUT: &str = "180";

/// The nodes, in the order in which they joined. The first one is the seed. Everything ends when it is dropped.
pub struct Ring {
    pub members: Vec<Member>,
    /// The coordinator: knows how the hosts are reached, and asks the first node about the ring.
    pub medusa: Medusa,
    binary: PathBuf,
    release: Release,
    ssh: SshLab,
    folder: tempfile::TempDir,
}

pub struct Member {
    pub node: Node,
    /// With the storage that all share.
    pub medusa: Medusa,
    pub sshd: Option<SshHost>,
}

impl Member {
    /// Whether uploads of a cluster's backup wait before they begin: they can be killed then, however busy the machine is.
    pub fn hold_uploads(&self, hold: bool) {
        let file = self.medusa.folder.path().join("medusa.ini.hold");
        if hold { std::fs::write(file, "") } else { std::fs::remove_file(file) }.unwrap();
    }
}

impl Ring {
    /// Starts so many nodes, one after the other, of racks `r1`, `r2` and so on. Their tokens have another order than their
    /// addresses: the first one owns the highest.
    pub fn start(binary: &Path, release: Release, count: usize) -> Self {
        let medusa = Medusa::without_node(binary);
        std::fs::create_dir_all(medusa.bucket()).unwrap();
        let (ssh, folder) = (SshLab::new(), scratch("ring"));
        let mut ring = Self { members: Vec::new(), medusa, binary: binary.to_owned(), release, ssh, folder };
        ring.write_remote();
        let tokens = (0..count).rev().map(|at| {
            let step = u64::MAX / (TOKENS * count) as u64;
            let tokens = (0..TOKENS).map(|turn| i64::MIN.wrapping_add_unsigned(step * (turn * count + at) as u64 + 1));
            format!("initial_token: {}\n", tokens.map(|token| token.to_string()).collect::<Vec<_>>().join(","))
        });
        ring.members = ring.start_with(tokens);
        let yaml = ring.members[0].node.yaml();
        for (section, key, value) in [
            ("ssh", "config_file", ring.ssh.config().display().to_string()),
            ("ssh", "connect_timeout", "60".to_owned()),
            ("cassandra", "cql_timeout", CQL_TIMEOUT.to_owned()),
            ("ssh", "medusa_program", ring.path("medusa").display().to_string()),
            ("cassandra", "use_sudo", "False".to_owned()),
            ("cassandra", "config_file", yaml.display().to_string()),
        ] {
            ring.medusa.set(section, key, &value);
        }
        ring
    }

    /// Starts nodes that are a ring of their own, with the same name and storage.
    pub fn start_others(&self, count: usize) -> Vec<Member> {
        self.start_with(std::iter::repeat_n(String::new(), count))
    }

    /// Each one with its lines of cassandra.yaml.
    fn start_with(&self, yamls: impl Iterator<Item = String>) -> Vec<Member> {
        let seed = free_address();
        let members = (1..).zip(yamls).map(|(at, yaml)| {
            let address = if at == 1 { seed.clone() } else { free_address() };
            let node = Node::start(Options {
                address: Some(address),
                seed: Some(seed.clone()),
                rack: format!("r{at}"),
                num_tokens: u32::try_from(TOKENS).unwrap(),
                yaml,
                ..Options::new(self.release)
            });
            let mut medusa = Medusa::new(&self.binary, &node);
            medusa.set("storage", "base_path", &self.medusa.base_path().display().to_string());
            medusa.set("cassandra", "cql_timeout", CQL_TIMEOUT);
            let sshd = Some(self.sshd(&node, &medusa));
            Member { node, medusa, sshd }
        });
        let members: Vec<_> = members.collect();
        know_each_other(&members);
        members
    }

    /// Keeps the backups in an object store instead of a folder.
    pub fn use_store(&mut self, settings: &[(&'static str, String)]) {
        self.medusa.use_store(settings);
        for Member { medusa, .. } in &mut self.members {
            medusa.use_store(settings);
            medusa.ini();
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Runs medusa with the configuration of the node whose sshd was asked. See [`Member::hold_uploads`].
    fn write_remote(&self) {
        let body = format!(
            "#!/bin/sh\nPATH={}; export PATH\nfor word; do shift; case $word in --config-file=*) ;; *) set -- \"$@\" \"$word\" ;; esac; done\n\
             set -- {} --config-file=\"$LAB_INI\" \"$@\"\n\
             case \"$*\" in *--snapshot-taken*) exec sh -c 'while [ -e \"$LAB_INI.hold\" ]; do sleep 0.1; done; exec \"$@\"' sh \"$@\" ;; esac\n\
             exec \"$@\"\n",
            search_path(),
            self.binary.display()
        );
        std::fs::write(self.path("medusa"), body).unwrap();
        std::fs::set_permissions(self.path("medusa"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn sshd(&self, node: &Node, medusa: &Medusa) -> SshHost {
        let temporary = medusa.folder.path().join("tmp");
        let (ini, temporary) = (medusa.ini().display().to_string(), temporary.display().to_string());
        let host = self.ssh.host(&node.address, &[("LAB_INI", &ini), ("TMPDIR", &temporary)], "");
        self.ssh.config();
        host
    }

    /// Starts the sshd of a node again.
    pub fn start_sshd(&mut self, at: usize) {
        let Member { node, medusa, .. } = &self.members[at];
        self.members[at].sshd = Some(self.sshd(node, medusa));
    }

    pub fn stop_sshd(&mut self, at: usize) {
        self.members[at].sshd = None;
    }

    /// Where runs keep their files on the hosts.
    pub fn temporary(&self) -> String {
        let folder = self.path("jobs");
        std::fs::create_dir_all(&folder).unwrap();
        folder.display().to_string()
    }

    /// Folders of runs that are still there.
    pub fn jobs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.temporary()).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// The medusas that run on a host: process numbers and command lines.
    pub fn running(&self, at: usize) -> Vec<(String, String)> {
        let ini = self.members[at].medusa.folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&format!("--config-file={ini}")) {
                found.push((entry.file_name().into_string().unwrap(), line));
            }
        }
        found
    }
}

/// Waits until every node has heard of all others, and of their tokens.
fn know_each_other(members: &[Member]) {
    let begin = Instant::now();
    for Member { node, .. } in members {
        let session = node.session();
        loop {
            let peers = session.query("SELECT peer, tokens FROM system.peers_v2");
            if peers.iter().filter(|peer| peer[1] != "null").count() + 1 == members.len() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{} knows only {peers:?}", node.address);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
