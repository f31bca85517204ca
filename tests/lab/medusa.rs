//! Running medusa, and cassandra-medusa as its peer, with a configuration and an environment of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::node::Node;
use super::{cache, project, schemas, scratch, search_path, servers, unique};

/// Storage and configuration for one node, and the programs that use it.
pub struct Medusa {
    pub folder: tempfile::TempDir,
    /// The built program.
    binary: PathBuf,
    /// Replaced or added keys, by section.
    settings: Vec<(&'static str, String, String)>,
    environment: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Medusa {
    /// Without a node: for commands that only read a bucket.
    pub fn without_node(binary: &Path) -> Self {
        let folder = scratch("medusa");
        std::fs::create_dir_all(folder.path().join("tmp")).unwrap();
        let mut medusa = Self { folder, binary: binary.to_owned(), settings: Vec::new(), environment: Vec::new() };
        let base = medusa.base_path().display().to_string();
        for (key, value) in [
            ("storage_provider", "local"),
            ("bucket_name", "bucket"),
            ("base_path", &base),
            ("fqdn", "127.0.0.1"),
            ("use_sudo_for_restore", "False"),
        ] {
            medusa.set("storage", key, value);
        }
        medusa.set("cassandra", "resolve_ip_addresses", "False");
        medusa
    }

    pub fn new(binary: &Path, node: &Node) -> Self {
        let mut medusa = Self::without_node(binary);
        medusa.attach(node);
        medusa
    }

    /// Points the configuration to a node.
    pub fn attach(&mut self, node: &Node) {
        self.set("storage", "fqdn", &node.address);
        let program = |name: &str| node.program(name).display().to_string();
        self.set("cassandra", "config_file", &node.yaml().display().to_string());
        self.set("cassandra", "start_cmd", &program("start"));
        self.set("cassandra", "stop_cmd", &program("stop"));
        self.set("cassandra", "nodetool_executable", &program("nodetool"));
        self.set("cassandra", "sstableloader_bin", &program("sstableloader"));
    }

    pub fn set(&mut self, section: &'static str, key: &str, value: &str) {
        self.settings.retain(|(s, k, _)| (*s, k.as_str()) != (section, key));
        self.settings.push((section, key.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, section: &str, key: &str) {
        self.settings.retain(|(s, k, _)| (*s, k.as_str()) != (section, key));
    }

    /// Keeps the backups in an object store instead of a folder: the settings of `stores`.
    pub fn use_store(&mut self, settings: &[(&'static str, String)]) {
        self.unset("storage", "base_path");
        for (key, value) in settings {
            self.set("storage", key, value);
        }
    }

    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn base_path(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    pub fn bucket(&self) -> PathBuf {
        self.base_path().join("bucket")
    }

    pub fn ini(&self) -> PathBuf {
        let mut sections: Vec<&str> = self.settings.iter().map(|(section, ..)| *section).collect();
        sections.sort_unstable();
        sections.dedup();
        let mut text = String::new();
        for section in sections {
            text.push_str(&format!("[{section}]\n"));
            for (_, key, value) in self.settings.iter().filter(|(s, ..)| *s == section) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        let path = self.folder.path().join("medusa.ini");
        // Another command may be reading it.
        let new = self.folder.path().join(format!("medusa.ini.{}", unique()));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", search_path())
            .env("PYTHONPATH", project().join("tests/lab/path"))
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("TZ", "UTC")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .arg("--config-file")
            .arg(self.ini())
            .stdin(Stdio::null());
        command
    }

    /// medusa with these arguments, ready to run.
    pub fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.binary);
        command.args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        finish(self.prepare(arguments).output().unwrap(), "medusa", arguments)
    }

    /// Runs medusa and expects success.
    pub fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).expect_code(0)
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.prepare(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// cassandra-medusa 0.31.0 with the same configuration, ready to run.
    pub fn prepare_peer(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&cache("peer/bin/medusa"));
        command.args(arguments);
        command
    }

    pub fn peer(&self, arguments: &[&str]) -> Run {
        let mut command = self.prepare_peer(arguments);
        // A fork waits for ever in Azure's client.
        let is_azure = self.settings.iter().any(|(.., value)| value == "azure_blobs");
        let output = if is_azure { command.output().unwrap() } else { servers::peer(&command) };
        finish(output, "peer", arguments)
    }

    pub fn peer_ok(&self, arguments: &[&str]) -> Run {
        self.peer(arguments).expect_code(0)
    }
}

/// How a run ended. What it printed as JSON agrees with its schema, or this fails.
#[track_caller]
pub fn finish(output: Output, program: &str, arguments: &[&str]) -> Run {
    use std::os::unix::process::ExitStatusExt as _;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let run = Run {
        command: format!("{program} {}", arguments.join(" ")),
        code,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    // The documents that cassandra-medusa has, too, are the same.
    if ["medusa", "peer"].contains(&program) {
        schemas::check(arguments, &run.stdout);
    }
    run
}

impl Run {
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\n$ {}\n--- exit {}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
