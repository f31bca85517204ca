//! What the tests share.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::lab::cql::Session;
use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::{Node, Options, Release};
use crate::lab::{tree, unique};

/// The program under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_medusa"))
}

/// A node that tests share which only back it up. Each uses keyspaces of its own. The watchdog ends it with the program.
pub fn shared_node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node::start(Options::new(Release::V5_0)))
}

/// A node of its own.
pub fn node(release: Release) -> Node {
    Node::start(Options::new(release))
}

pub fn medusa(node: &Node) -> Medusa {
    Medusa::new(binary(), node)
}

/// A keyspace name that no other test of this run has.
pub fn keyspace(name: &str) -> String {
    format!("{name}_{}", unique())
}

/// Creates a keyspace with one indexed table of so many rows.
pub fn load(session: &Session, keyspace: &str, rows: u32) {
    session.run(&format!(
        "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}
         CREATE TABLE {keyspace}.t (id int PRIMARY KEY, v text)
         CREATE INDEX {keyspace}_t_v ON {keyspace}.t (v)"
    ));
    insert(session, keyspace, 0..rows);
}

pub fn insert(session: &Session, keyspace: &str, ids: std::ops::Range<u32>) {
    for id in ids {
        session.query(&format!("INSERT INTO {keyspace}.t (id, v) VALUES ({id}, 'value {}')", id % 7));
    }
}

/// Rows of the table that `load` made, and an answer of its index.
pub fn answers(session: &Session, keyspace: &str) -> [Vec<Vec<String>>; 2] {
    [
        session.rows(&format!("SELECT * FROM {keyspace}.t")),
        session.rows(&format!("SELECT id FROM {keyspace}.t WHERE v = 'value 3'")),
    ]
}

/// Puts a program before nodetool: `$REAL` is the real one, `$*` the arguments.
pub fn wrap_nodetool(medusa: &mut Medusa, node: &Node, body: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = medusa.folder.path().join("nodetool");
    let real = node.program("nodetool");
    std::fs::write(&path, format!("#!/bin/sh\nREAL={}\n{body}", real.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    medusa.set("cassandra", "nodetool_executable", &path.display().to_string());
}

/// Lines of a script that wait until `go` is there. Returns them with `reached`, which they create before, and `go`.
pub fn hold(medusa: &Medusa) -> (String, PathBuf, PathBuf) {
    let (reached, go) = (medusa.folder.path().join("reached"), medusa.folder.path().join("go"));
    let lines = format!("touch {}; until [ -e {} ]; do sleep 0.1; done", reached.display(), go.display());
    (lines, reached, go)
}

/// An executable shell script in the folder of a medusa.
pub fn program(medusa: &Medusa, name: &str, body: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = medusa.folder.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// The pid of the node's Cassandra.
pub fn pid(node: &Node) -> String {
    std::fs::read_to_string(node.path("pid")).unwrap().trim().to_owned()
}

/// The names that list-backups shows, with whether they are finished.
pub fn listed(medusa: &Medusa) -> BTreeMap<String, bool> {
    let documents = medusa.ok(&["list-backups", "--show-all", "--output", "json"]).json();
    let of =
        |document: &serde_json::Value| (document["name"].as_str().unwrap().to_owned(), !document["finished"].is_null());
    documents.as_array().unwrap().iter().map(of).collect()
}

/// Objects of a manifest, by path.
pub fn manifest_objects(manifest: &Path) -> BTreeMap<String, serde_json::Value> {
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let sections = document.as_array().unwrap().iter();
    let objects = sections.flat_map(|section| section["objects"].as_array().unwrap().clone());
    objects.map(|object| (object["path"].as_str().unwrap().to_owned(), object)).collect()
}

/// The manifest of one node backup.
pub fn manifest(medusa: &Medusa, fqdn: &str, name: &str) -> PathBuf {
    medusa.bucket().join(fqdn).join(name).join("meta/manifest.json")
}

/// The first object of a backup whose path ends so, as a file.
pub fn object_file(medusa: &Medusa, fqdn: &str, name: &str, contains: &str, end: &str) -> PathBuf {
    let objects = manifest_objects(&manifest(medusa, fqdn, name));
    let found = objects.keys().find(|path| path.contains(contains) && path.ends_with(end));
    medusa.bucket().join(found.unwrap_or_else(|| panic!("no object {contains}…{end} in {objects:?}")))
}

/// Waits for something that a process brings about, on a busy machine too.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_mins(5), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `SEED` in the environment, else the time; printed either way.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(u64::from(now.subsec_nanos()) | 1);
    println!("{test}: SEED={seed}");
    seed
}

/// Random numbers that can be had again from their seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeds that follow each other give numbers that have nothing in common (the finalizer of splitmix64).
    pub fn new(seed: u64) -> Self {
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(mixed ^ (mixed >> 31))
    }

    pub fn seeded(test: &str) -> Self {
        Self::new(seed(test))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// A failed run says what is wrong, and with what exit code.
#[track_caller]
pub fn assert_fails(run: &Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, code, "{run}");
    assert!(run.stderr.contains("error: "), "{run}");
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?} is not in {run}");
    }
}

/// One thing for the tests of a file, used by one of them at a time. It ends with the last test that waits for it.
pub struct Shared<T>(Mutex<Weak<Mutex<T>>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub fn with<R>(&self, make: impl FnOnce() -> T, test: impl FnOnce(&T) -> R) -> R {
        // A test that failed must not make the others fail.
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = current.upgrade().unwrap_or_else(|| Arc::new(Mutex::new(make())));
        *current = Arc::downgrade(&shared);
        drop(current);
        let guard = shared.lock().unwrap_or_else(PoisonError::into_inner);
        test(&guard)
    }
}

/// What a command that is refused must leave as it was.
#[derive(Debug, PartialEq)]
pub struct State {
    pub pid: String,
    pub yaml: String,
    pub snapshots: BTreeSet<String>,
    /// All rows of the keyspaces.
    pub rows: BTreeMap<String, Vec<Vec<String>>>,
    /// Inode, size and time of every file of the keyspaces.
    pub files: BTreeMap<PathBuf, (u64, u64, i64)>,
}

impl State {
    pub fn of(node: &Node, session: &Session, keyspaces: &[&str]) -> Self {
        let folders = keyspaces
            .iter()
            .flat_map(|keyspace| node.data_directories().into_iter().map(move |data| data.join(keyspace)));
        let entries = folders.flat_map(walkdir::WalkDir::new).flatten().filter(|entry| entry.file_type().is_file());
        let identity = |metadata: std::fs::Metadata| (metadata.ino(), metadata.len(), metadata.mtime());
        Self {
            pid: pid(node),
            yaml: std::fs::read_to_string(node.yaml()).unwrap(),
            snapshots: node.snapshots(),
            rows: keyspaces.iter().flat_map(|keyspace| contents(session, keyspace)).collect(),
            files: entries.map(|entry| (entry.path().to_owned(), identity(entry.metadata().unwrap()))).collect(),
        }
    }
}

/// All rows of a keyspace, by `keyspace.table`.
pub fn contents(session: &Session, keyspace: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let tables =
        session.query(&format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"));
    let names = tables.iter().map(|row| row[0].split('"').nth(1).unwrap());
    let rows = |table: &str| session.rows(&format!("SELECT * FROM \"{keyspace}\".\"{table}\""));
    names.map(|table| (format!("{keyspace}.{table}"), rows(table))).collect()
}

/// Folders of restores in all directories of a node.
pub fn left_by_restores(node: &Node) -> BTreeSet<PathBuf> {
    let folders = node.data_directories().into_iter().chain([node.path("commitlog"), node.path("saved_caches")]);
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()));
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".medusa")).collect()
}

/// The bucket of another medusa, as a copy that may be damaged.
pub fn copy_bucket(from: &Medusa, to: &Medusa) {
    let copied = std::process::Command::new("cp").arg("-a").args([from.base_path(), to.base_path()]).status();
    assert!(copied.unwrap().success());
}

/// Changes a stored text file.
pub fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "{} stays as it was", path.display());
    std::fs::write(path, changed).unwrap();
}

/// Ends a run with a signal and waits for it.
pub fn interrupt(child: Child, arguments: &[&str]) -> Run {
    let killed = std::process::Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.unwrap().success());
    finish(child.wait_with_output().unwrap(), "medusa", arguments)
}

/// The keys of the objects that are in `before` and no longer in the bucket. Data must not have changed.
#[track_caller]
pub fn removed(medusa: &Medusa, before: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let after = tree(&medusa.bucket());
    for (key, content) in before {
        let same = after.get(key).is_none_or(|now| now == content);
        assert!(same || key.starts_with("index/latest_backup/"), "{key} was changed");
    }
    before.keys().filter(|key| !after.contains_key(*key)).cloned().collect()
}

/// Gives the configuration a data directory of its own, while CQL stays with the node: for snapshots that Cassandra never took.
pub fn own_data(medusa: &mut Medusa, node: &Node) -> PathBuf {
    let data = medusa.folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let text = std::fs::read_to_string(node.yaml()).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("data_file_directories:"));
    let own = format!("data_file_directories: [{}]", data.display());
    let yaml = medusa.folder.path().join("cassandra.yaml");
    std::fs::write(&yaml, others.chain([own.as_str()]).collect::<Vec<_>>().join("\n")).unwrap();
    medusa.set("cassandra", "config_file", &yaml.display().to_string());
    data
}

/// The folder of one table's snapshot below a data directory.
pub fn snapshot_folder(data: &Path, tag: &str) -> PathBuf {
    let folder = data.join("made/t-34998de0e59711f199fcf93f14538dd2/snapshots").join(tag);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Sends a signal: `TERM`, `INT`. At once: a program that sends it may take its time to start.
pub fn signal(child: &Child, name: &str) {
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// A file system of 8 MiB in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path) -> Self {
        as_root(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path.to_str().unwrap()]);
        Self(path.to_owned())
    }

    pub fn grow(&self) {
        self.remount("size=64m");
    }

    pub fn remount(&self, option: &str) {
        as_root(&["mount", "-o", &format!("remount,{option}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root(&["umount", "-l", self.0.to_str().unwrap()]);
    }
}

/// A folder that is mounted over itself: the same file system, and out of reach of renames and links.
pub struct OwnMount(PathBuf);

impl OwnMount {
    pub fn over(folder: &Path) -> Self {
        let path = folder.to_str().unwrap();
        as_root(&["mount", "--bind", path, path]);
        Self(folder.to_owned())
    }
}

impl Drop for OwnMount {
    fn drop(&mut self) {
        as_root(&["umount", "-l", self.0.to_str().unwrap()]);
    }
}

fn as_root(command: &[&str]) {
    let sudo: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["sudo", "-n"] };
    let words = [sudo, command].concat();
    assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?} failed");
}
