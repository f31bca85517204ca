//! The lab: real Cassandra nodes and object stores on loopback, started, stopped, wiped and queried. One implementation for
//! the tests, the demo and the benches. `setup.sh` brings what it needs.
//!
//! No process survives its owner: dropping a node or a store kills it, and a watchdog beside each of them kills it within a
//! second after the process that started it is gone.

#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "tests, demo and benches each use a part")]

pub mod cluster;
pub mod cql;
pub mod medusa;
pub mod node;
pub mod schemas;
pub mod servers;
pub mod sshd;
pub mod stores;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The project's folder.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What `setup.sh` brought.
pub fn cache(path: &str) -> PathBuf {
    let found = project().join(".cache").join(path);
    assert!(found.exists(), "{} is missing: run tests/lab/setup.sh", found.display());
    found
}

/// `PATH` for what is tested: with the programs of the lab before the system's.
pub fn search_path() -> String {
    let system = std::env::var("PATH").unwrap_or_default();
    format!("{}:{system}", project().join("tests/lab/path").display())
}

/// A number that no other caller of this process gets.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A new folder that is removed when dropped, on the disk of the project (not in memory, as /tmp may be). `LAB_FOLDER` names
/// another place.
pub fn scratch(name: &str) -> tempfile::TempDir {
    let parent = std::env::var_os("LAB_FOLDER").map_or_else(|| project().join("target/lab"), PathBuf::from);
    std::fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).unwrap()
}

/// All files below a folder with their contents, by relative path.
pub fn tree(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
        files.insert(name, std::fs::read(entry.path()).unwrap());
    }
    files
}
