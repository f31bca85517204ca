//! What a crash must not make a restore forget: how far it got, and the list of renames ([`super::moves`]) that it makes.
//!
//! The journal lies in the folder of the restore, `<data directory>/.medusa-restore-<backup>/`, beside the staged files
//! (`stage/`) and the set-aside ones (`undo/`).

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::{Deserialize, Serialize};

use super::moves::{Move, give};
use crate::files::LOST_AND_FOUND;

/// The folder that a restore makes in a directory of Cassandra.
pub const FOLDER: &str = ".medusa-restore-";

/// Whether this entry of a folder that is emptied stays where it is.
pub fn is_left_alone(name: &std::ffi::OsStr) -> bool {
    name == LOST_AND_FOUND || name.to_string_lossy().starts_with(FOLDER)
}

/// How far a restore got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Files are being brought. Nothing that Cassandra uses was touched.
    Staging,
    /// All files are there and were compared. Nothing that Cassandra uses was touched.
    Staged,
    /// Cassandra is down for the restore, and nothing was moved.
    Stopped,
    /// Cassandra is down, and the moves are being made.
    Swapping,
    /// All moves are made, and Cassandra is being started.
    Starting,
    /// Cassandra runs with the restored files. What was set aside is being removed.
    Done,
}

impl Phase {
    /// As JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::Stopped => "stopped",
            Self::Swapping => "swapping",
            Self::Starting => "starting",
            Self::Done => "done",
        }
    }

    /// Whether Cassandra's files are as they were.
    pub fn is_before_swap(&self) -> bool {
        matches!(self, Self::Staging | Self::Staged | Self::Stopped)
    }
}

/// A file whose content is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    pub path: PathBuf,
    pub before: String,
    pub after: String,
}

/// What a crash must not make us forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub version: u32,
    /// What was asked for: the same command continues, another one first takes back what was begun.
    pub command: String,
    pub phase: Phase,
    pub moves: Vec<Move>,
    /// Keyspace folders that are made for the moves.
    #[serde(default)]
    pub made: Vec<PathBuf>,
    /// Folders whose whole content is set aside. What Cassandra puts there afterwards does not belong to the old state.
    pub emptied: Vec<PathBuf>,
    /// cassandra.yaml, if the node takes over tokens.
    pub rewrite: Option<Rewrite>,
    /// Folders to remove when all is over.
    pub folders: Vec<PathBuf>,
    /// How many are restored.
    pub tables: usize,
    /// Whether Cassandra ran before. If it did not, it is not started with what is put back: a new node would join its
    /// cluster with an identity that nobody meant it to have.
    pub was_running: bool,
    /// The run of a whole cluster that this belongs to.
    #[serde(default)]
    pub run: Option<String>,
    /// Its plan, as the lines of a host list.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// What stays of a restore that was a part of a run for a whole cluster: that run, when it is gone on with, must not restore
/// the node again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub version: u32,
    pub command: String,
    pub run: String,
    /// Its plan, as the lines of a host list.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Unix seconds.
    pub finished: i64,
}

impl Restored {
    fn file(folder: &Path) -> PathBuf {
        folder.join("restored.json")
    }

    /// All that are in a data directory, with their folders. One that cannot be read says nothing.
    pub fn all(data_directory: &Path) -> anyhow::Result<Vec<(PathBuf, Self)>> {
        let folders = own_folders(data_directory)?.into_iter();
        let read = |folder: PathBuf| {
            let restored = serde_json::from_slice(&fs::read(Self::file(&folder)).ok()?).ok()?;
            Some((folder, restored))
        };
        Ok(folders.filter_map(read).collect())
    }

    /// Removes it, with its folder if that is empty.
    pub fn forget(folder: &Path) -> anyhow::Result<()> {
        match fs::remove_file(Self::file(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match fs::remove_dir(folder) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}

impl Journal {
    pub const VERSION: u32 = 1;

    fn file(folder: &Path) -> PathBuf {
        folder.join("journal.json")
    }

    /// Writes the journal so that it survives a power cut.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_durably(&Self::file(folder), &serde_json::to_vec(self)?)
    }

    /// Writes down that everything is where it was. Where that cannot be written, be it that the disk is full, the journal
    /// goes: its moves must not be made again, and Cassandra must not stay down for it.
    pub fn write_taken_back(&self, folder: &Path, phase: Phase) -> anyhow::Result<()> {
        let none = Self { moves: Vec::new(), made: Vec::new(), emptied: Vec::new(), ..self.clone() };
        let Err(error) = (Self { phase, rewrite: None, ..none }).write(folder) else { return Ok(()) };
        tracing::warn!("{}; the next restore begins anew", crate::error::one_line(&error));
        match fs::remove_file(Self::file(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// When the journal of the folder was written last.
    pub fn written(folder: &Path) -> anyhow::Result<std::time::SystemTime> {
        Ok(fs::metadata(Self::file(folder))?.modified()?)
    }

    /// The journals of restores that did not come to their end, with their folders.
    pub fn unfinished(data_directory: &Path) -> anyhow::Result<Vec<(PathBuf, Self)>> {
        let mut found = Vec::new();
        for folder in own_folders(data_directory)? {
            let path = Self::file(&folder);
            if path.exists() {
                let journal: Self = serde_json::from_slice(&fs::read(&path)?)
                    .with_context(|| format!("{} cannot be read", path.display()))?;
                found.push((folder, journal));
            }
        }
        Ok(found)
    }

    /// Removes everything that the restore made beside Cassandra's files. The journal goes last.
    pub fn remove(&self, folder: &Path) -> anyhow::Result<()> {
        // Half of what was set aside must never be taken for all of it.
        Self { phase: Phase::Done, ..self.clone() }.write(folder)?;
        for other in self.folders.iter().filter(|other| *other != folder) {
            remove_tree(other)?;
        }
        for below in ["undo", "stage"] {
            remove_tree(&folder.join(below))?;
        }
        remove_tree(folder)
    }

    /// The end of a restore that succeeded: what it made beside Cassandra's files goes, and what [`Restored`] says stays.
    pub fn complete(&self, folder: &Path, now: i64) -> anyhow::Result<()> {
        let Some(run) = self.run.clone() else { return self.remove(folder) };
        let (version, hosts) = (Self::VERSION, self.hosts.clone());
        let restored = Restored { version, command: self.command.clone(), run, hosts, finished: now };
        write_durably(&Restored::file(folder), &serde_json::to_vec(&restored)?)?;
        Self { phase: Phase::Done, ..self.clone() }.write(folder)?;
        for other in self.folders.iter().filter(|other| *other != folder) {
            remove_tree(other)?;
        }
        for below in ["undo", "stage", "discarded"] {
            remove_tree(&folder.join(below))?;
        }
        match fs::remove_file(Self::file(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The folders of restores in a data directory.
fn own_folders(data_directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(data_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER)) {
            folders.push(folder);
        }
    }
    Ok(folders)
}

fn write_durably(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    let written = write_privately(&temporary, folder, content).and_then(|()| Ok(fs::rename(&temporary, path)?));
    if written.is_err() {
        // What there is room for may be needed.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    Ok(sync_folder(folder)?)
}

/// A file for the owner of its folder only: cassandra.yaml, which may hold passwords, stands in the journal.
fn write_privately(path: &Path, folder: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    give(path, &fs::metadata(folder)?)?;
    io::Write::write_all(&mut file, content)?;
    Ok(file.sync_all()?)
}

/// Removes a folder with all it holds; one that is not there is no error.
pub fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::moves::Purpose;
    use super::*;

    fn journal(folder: &Path) -> Journal {
        Journal {
            version: 1,
            command: "x".into(),
            phase: Phase::Swapping,
            moves: vec![Move { purpose: Purpose::Place, from: folder.join("stage/ks"), to: "/data/ks".into() }],
            made: Vec::new(),
            emptied: vec!["/commitlog".into()],
            rewrite: Some(Rewrite { path: "/c.yaml".into(), before: "a: 1\n".into(), after: "a: 2\n".into() }),
            folders: vec![folder.to_owned()],
            tables: 1,
            was_running: true,
            run: None,
            hosts: Vec::new(),
        }
    }

    #[test]
    fn a_journal_is_found_again_until_it_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(".medusa-restore-b1");
        fs::create_dir_all(folder.join("stage")).unwrap();
        fs::create_dir_all(data.path().join(".medusa-restore-other")).unwrap();
        let journal = journal(&folder);
        journal.write(&folder).unwrap();
        let mode = fs::metadata(folder.join("journal.json")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds cassandra.yaml");
        assert_eq!(Journal::unfinished(data.path()).unwrap(), [(folder.clone(), journal.clone())]);
        journal.remove(&folder).unwrap();
        assert_eq!(Journal::unfinished(data.path()).unwrap(), []);
        assert!(!folder.exists());
        assert_eq!(Journal::unfinished(Path::new("/no/such/folder")).unwrap(), []);
    }

    #[test]
    fn what_a_run_for_a_cluster_has_restored_is_remembered_until_it_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(".medusa-restore-b1");
        fs::create_dir_all(folder.join("undo/x")).unwrap();
        let journal = Journal { run: Some("r1".into()), hosts: vec!["True,m1,n1".into()], ..journal(&folder) };
        journal.write(&folder).unwrap();
        journal.complete(&folder, 7).unwrap();
        assert_eq!(Journal::unfinished(data.path()).unwrap(), []);
        let hosts = vec!["True,m1,n1".to_owned()];
        let restored = Restored { version: 1, command: "x".into(), run: "r1".into(), hosts, finished: 7 };
        assert_eq!(Restored::all(data.path()).unwrap(), [(folder.clone(), restored)]);
        assert!(!folder.join("undo").exists());
        Restored::forget(&folder).unwrap();
        assert!(!folder.exists());
        Restored::forget(&folder).unwrap();
        // One that belongs to no such run leaves nothing.
        fs::create_dir_all(&folder).unwrap();
        Journal { run: None, ..journal }.complete(&folder, 7).unwrap();
        assert!(!folder.exists());
    }
}
