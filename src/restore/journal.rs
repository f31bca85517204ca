//! The swap of old and new files, and the journal that makes it survive a crash.
//!
//! Everything happens by renaming. The list of renames is written to the journal before the first one, and whether one of
//! them was made is seen on the disk. So the list can be carried out again from the beginning after a crash, or backwards,
//! until everything is where it was. What somebody else made in between, as a Cassandra that was started too early does, is
//! put away (`discarded/`) where it stands in the way of the old files, and is an error where it stands in the way of the new.
//!
//! The journal lies in the folder of the restore, `<data directory>/.medusa-restore-<backup>/`, beside the staged files
//! (`stage/`) and the set-aside ones (`undo/`).

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::{Deserialize, Serialize};

/// The folder that a restore makes in a directory of Cassandra.
pub const FOLDER: &str = ".medusa-restore-";

/// What every file system has at its top, and root owns.
const LOST_AND_FOUND: &str = "lost+found";

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

/// What a rename is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// From its place into `undo/`.
    SetAside,
    /// From `stage/` into its place.
    Place,
    /// From `undo/` back into its place: what a table keeps.
    Keep,
}

/// One rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub purpose: Purpose,
    pub from: PathBuf,
    pub to: PathBuf,
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
}

/// What stays of a restore that was a part of a run for a whole cluster: that run, when it is gone on with, must not restore
/// the node again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub version: u32,
    pub command: String,
    pub run: String,
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

    /// Makes all moves that are not made yet, and rewrites the file.
    ///
    /// # Errors
    /// Something stands where restored files must go. Nothing is lost: [`Self::backward`] puts everything back.
    pub fn forward(&self) -> anyhow::Result<()> {
        // Once all restored files are in their places, a Cassandra may have run with them: its commit log is theirs.
        if !self.are_placed()? {
            for folder in &self.emptied {
                self.discard_new_content(folder)?;
            }
        }
        for step in &self.moves {
            step.make()?;
        }
        if let Some(rewrite) = &self.rewrite {
            crate::cassandra::yaml::replace_file(&rewrite.path, rewrite.after.as_bytes())?;
        }
        Ok(())
    }

    fn are_placed(&self) -> io::Result<bool> {
        for step in self.moves.iter().filter(|step| step.purpose == Purpose::Place) {
            if exists(&step.from)? || !exists(&step.to)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes back whatever was made, last first.
    pub fn backward(&self) -> anyhow::Result<()> {
        if let Some(rewrite) = &self.rewrite
            && fs::read_to_string(&rewrite.path)? != rewrite.before
        {
            crate::cassandra::yaml::replace_file(&rewrite.path, rewrite.before.as_bytes())?;
        }
        for folder in &self.emptied {
            self.discard_new_content(folder)?;
        }
        for step in self.moves.iter().rev() {
            self.take_back(step)?;
        }
        for folder in &self.made {
            match fs::remove_dir(folder) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_back(&self, step: &Move) -> anyhow::Result<()> {
        // Its folder was never moved, or was moved back already.
        let was_made = exists(&step.to)? && step.from.parent().is_some_and(Path::exists);
        if !was_made {
            return Ok(());
        }
        if exists(&step.from)? {
            match step.purpose {
                // The old files go back in any case.
                Purpose::SetAside => self.discard(&step.from, &step.to)?,
                Purpose::Place | Purpose::Keep => return Ok(()),
            }
        }
        Ok(fs::rename(&step.to, &step.from)?)
    }

    /// Puts something away beside the `undo/` that `set_aside` lies in.
    fn discard(&self, path: &Path, set_aside: &Path) -> anyhow::Result<()> {
        let own = self.folders.iter().find(|own| set_aside.starts_with(own));
        let own = own.with_context(|| format!("{} lies in no folder of this restore", set_aside.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let discarded = own.join("discarded");
        make_as_its_parent(&discarded)?;
        Ok(fs::rename(path, discarded.join(format!("{}-{name}", uuid::Uuid::new_v4().simple())))?)
    }

    /// Puts away what a start with the new data left in a folder that was emptied.
    fn discard_new_content(&self, folder: &Path) -> anyhow::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_owned();
            let old = self.moves.iter().find(|step| step.from == path);
            let not_moved_yet = match old {
                Some(step) => !exists(&step.to)?,
                None => false,
            };
            if not_moved_yet || is_left_alone(&name) {
                continue;
            }
            let Some(own) = self.folders.iter().find(|own| own.parent() == Some(folder)) else { continue };
            self.discard(&path, own)?;
        }
        Ok(())
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
        let restored = Restored { version: Self::VERSION, command: self.command.clone(), run, finished: now };
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

impl Move {
    fn make(&self) -> anyhow::Result<()> {
        if !exists(&self.from)? {
            return Ok(());
        }
        if exists(&self.to)? {
            if self.purpose != Purpose::SetAside {
                bail!("{} was made while the restore was interrupted, and is in the way", self.to.display());
            }
            return Ok(());
        }
        if let Some(parent) = self.to.parent() {
            make_as_its_parent(parent)?;
        }
        fs::rename(&self.from, &self.to)?;
        Ok(())
    }
}

/// Makes a folder, and those above it that are missing, with owner and mode of what it is made in: Cassandra must be able to
/// use what lies in its directories, whoever we are.
pub fn make_as_its_parent(folder: &Path) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().with_context(|| format!("{} cannot be made", folder.display()))?;
    make_as_its_parent(parent)?;
    let metadata = fs::metadata(parent)?;
    fs::create_dir(folder)?;
    give(folder, &metadata)?;
    Ok(fs::set_permissions(folder, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?)
}

/// Gives it the owner of something else, if we may and it is not ours anyway.
fn give(path: &Path, like: &std::fs::Metadata) -> anyhow::Result<()> {
    if let Some((user, group)) = super::swap::owner_to_set((like.uid(), like.gid())) {
        std::os::unix::fs::chown(path, Some(user), Some(group))
            .with_context(|| format!("could not give {} to user {user}", path.display()))?;
    }
    Ok(())
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
    use super::*;

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn state(root: &Path) -> Vec<(String, String)> {
        let files = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        files.map(|entry| (relative(entry.path()), fs::read_to_string(entry.path()).unwrap())).collect()
    }

    fn step(root: &Path, from: &str, to: &str) -> Move {
        let purpose = match (from.contains("stage/"), from.contains("undo/")) {
            (true, _) => Purpose::Place,
            (_, true) => Purpose::Keep,
            _ => Purpose::SetAside,
        };
        Move { purpose, from: root.join(from), to: root.join(to) }
    }

    /// A table with a user's snapshot that is swapped, one that is new, and a commit log that goes.
    fn prepare(root: &Path) -> Journal {
        write(&root.join("data/ks/t-1/old.db"), "old");
        write(&root.join("data/ks/t-1/snapshots/mine/x"), "mine");
        write(&root.join("work/stage/ks/t-1/new.db"), "new");
        write(&root.join("work/stage/ks/u-2/u.db"), "u");
        write(&root.join("commitlog/CommitLog-1.log"), "log");
        write(&root.join("cassandra.yaml"), "num_tokens: 1\n");
        let moves = vec![
            step(root, "data/ks/t-1", "work/undo/ks/t-1"),
            step(root, "work/stage/ks/t-1", "data/ks/t-1"),
            step(root, "work/undo/ks/t-1/snapshots", "data/ks/t-1/snapshots"),
            step(root, "work/stage/ks/u-2", "data/ks/u-2"),
            step(root, "commitlog/CommitLog-1.log", "commitlog/.medusa-restore-b1/undo/CommitLog-1.log"),
        ];
        let rewrite = Rewrite {
            path: root.join("cassandra.yaml"),
            before: "num_tokens: 1\n".into(),
            after: "num_tokens: 2\n".into(),
        };
        let folders = vec![root.join("work"), root.join("commitlog/.medusa-restore-b1")];
        let emptied = vec![root.join("commitlog")];
        Journal {
            version: 1,
            command: "x".into(),
            phase: Phase::Swapping,
            moves,
            made: Vec::new(),
            emptied,
            rewrite: Some(rewrite),
            folders,
            tables: 2,
            was_running: true,
            run: None,
        }
    }

    #[test]
    fn moves_are_made_taken_back_and_made_again_from_every_point() {
        let reference = tempfile::tempdir().unwrap();
        let journal = prepare(reference.path());
        let before = state(reference.path());
        journal.forward().unwrap();
        let after = state(reference.path());
        assert!(after.contains(&("data/ks/t-1/snapshots/mine/x".into(), "mine".into())), "{after:?}");
        assert!(!after.iter().any(|(path, _)| path.starts_with("data") && path.ends_with("old.db")));
        assert_eq!(fs::read_to_string(reference.path().join("cassandra.yaml")).unwrap(), "num_tokens: 2\n");
        journal.backward().unwrap();
        assert_eq!(state(reference.path()), before);

        for made in 0..=journal.moves.len() {
            let folder = tempfile::tempdir().unwrap();
            let journal = prepare(folder.path());
            let crash = || journal.moves.iter().take(made).for_each(|step| step.make().unwrap());
            crash();
            journal.backward().unwrap();
            assert_eq!(state(folder.path()), before, "taken back after {made} moves");
            crash();
            journal.forward().unwrap();
            assert_eq!(state(folder.path()), after, "gone on with after {made} moves");
            journal.forward().unwrap();
            assert_eq!(state(folder.path()), after, "repeated");
        }
    }

    /// A node that was wiped: Cassandra, which is another user than we are, must be able to use the folder of the keyspace.
    #[test]
    fn a_keyspace_folder_is_made_like_the_data_directory_and_taken_back() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        write(&data.join(".medusa-restore-b1/stage/ks/t-1/new.db"), "new");
        fs::set_permissions(&data, std::fs::Permissions::from_mode(0o710)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&data, Some(4711), Some(4712)).unwrap();
        }
        let made = vec![data.join("ks")];
        let moves = vec![step(root.path(), "data/.medusa-restore-b1/stage/ks/t-1", "data/ks/t-1")];
        let journal =
            Journal { moves, made, rewrite: None, emptied: Vec::new(), ..prepare(&root.path().join("other")) };
        journal.forward().unwrap();
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid(), found.mode())).unwrap();
        assert!(data.join("ks/t-1/new.db").exists());
        assert_eq!(identity(&data.join("ks")), identity(&data));
        journal.backward().unwrap();
        assert!(!data.join("ks").exists());
        assert!(data.join(".medusa-restore-b1/stage/ks/t-1/new.db").exists());
    }

    #[test]
    fn what_an_early_start_made_is_in_the_way_of_the_new_files_and_not_of_the_old() {
        let root = tempfile::tempdir().unwrap();
        let journal = prepare(root.path());
        let before = state(root.path());
        journal.moves[0].make().unwrap();
        write(&root.path().join("data/ks/t-1/early.db"), "early");
        let error = journal.forward().unwrap_err().to_string();
        assert!(error.contains("data/ks/t-1") && error.contains("in the way"), "{error}");
        journal.backward().unwrap();
        let now = state(root.path()).into_iter().filter(|(path, _)| !path.contains("discarded"));
        assert_eq!(now.collect::<Vec<_>>(), before);
    }

    #[test]
    fn what_a_failed_start_wrote_into_an_emptied_folder_is_put_away() {
        let root = tempfile::tempdir().unwrap();
        let journal = prepare(root.path());
        let before = state(root.path());
        journal.forward().unwrap();
        write(&root.path().join("commitlog/CommitLog-1.log"), "new with an old name");
        write(&root.path().join("commitlog/CommitLog-2.log"), "new");
        write(&root.path().join("data/ks/t-1/compacted.db"), "by the failed start");
        fs::create_dir(root.path().join("commitlog/lost+found")).unwrap();
        journal.backward().unwrap();
        assert!(root.path().join("commitlog/lost+found").exists());
        let discarded = |path: &str| path.contains("discarded") || path.contains("compacted");
        let now: Vec<_> = state(root.path()).into_iter().filter(|(path, _)| !discarded(path)).collect();
        assert_eq!(now, before);
    }

    #[test]
    fn what_a_start_with_the_restored_files_wrote_stays_when_the_moves_are_repeated() {
        let root = tempfile::tempdir().unwrap();
        let journal = prepare(root.path());
        journal.forward().unwrap();
        write(&root.path().join("commitlog/CommitLog-2.log"), "new");
        journal.forward().unwrap();
        assert_eq!(fs::read_to_string(root.path().join("commitlog/CommitLog-2.log")).unwrap(), "new");
    }

    #[test]
    fn a_journal_is_found_again_until_it_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(".medusa-restore-b1");
        fs::create_dir_all(folder.join("stage")).unwrap();
        fs::create_dir_all(data.path().join(".medusa-restore-other")).unwrap();
        let journal = Journal { folders: vec![folder.clone()], ..prepare(&data.path().join("x")) };
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
        let journal =
            Journal { folders: vec![folder.clone()], run: Some("r1".into()), ..prepare(&data.path().join("x")) };
        journal.write(&folder).unwrap();
        journal.complete(&folder, 7).unwrap();
        assert_eq!(Journal::unfinished(data.path()).unwrap(), []);
        let restored = Restored { version: 1, command: "x".into(), run: "r1".into(), finished: 7 };
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
