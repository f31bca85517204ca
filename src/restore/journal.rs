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
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

/// The folder that a restore makes in a directory of Cassandra.
pub const FOLDER: &str = ".medusa-restore-";

/// How far a restore got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Files are being brought. Nothing that Cassandra uses was touched.
    Staging,
    /// Cassandra is down, and the moves are being made.
    Swapping,
    /// All moves are made, and Cassandra is being started.
    Starting,
    /// Cassandra runs with the restored files. What was set aside is being removed.
    Done,
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
}

impl Journal {
    pub const VERSION: u32 = 1;

    fn file(folder: &Path) -> PathBuf {
        folder.join("journal.json")
    }

    /// Writes the journal so that it survives a power cut.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = Self::file(folder);
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        io::Write::write_all(&mut file, &serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder(folder)?;
        Ok(())
    }

    /// When the journal of the folder was written last.
    pub fn written(folder: &Path) -> anyhow::Result<std::time::SystemTime> {
        Ok(fs::metadata(Self::file(folder))?.modified()?)
    }

    /// The journals of restores that did not come to their end, with their folders.
    pub fn unfinished(data_directory: &Path) -> anyhow::Result<Vec<(PathBuf, Self)>> {
        let entries = match fs::read_dir(data_directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            let is_ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER));
            let path = Self::file(&folder);
            if is_ours && path.exists() {
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
        for folder in &self.emptied {
            self.discard_new_content(folder)?;
        }
        for step in &self.moves {
            step.make()?;
        }
        if let Some(rewrite) = &self.rewrite {
            crate::cassandra::yaml::replace_file(&rewrite.path, rewrite.after.as_bytes())?;
        }
        Ok(())
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
        fs::create_dir_all(&discarded)?;
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
            if not_moved_yet || name.to_string_lossy().starts_with(FOLDER) {
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
            fs::create_dir_all(parent)?;
        }
        fs::rename(&self.from, &self.to)?;
        Ok(())
    }
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
            emptied,
            rewrite: Some(rewrite),
            folders,
            tables: 2,
            was_running: true,
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
        journal.backward().unwrap();
        let discarded = |path: &str| path.contains("discarded") || path.contains("compacted");
        let now: Vec<_> = state(root.path()).into_iter().filter(|(path, _)| !discarded(path)).collect();
        assert_eq!(now, before);
    }

    #[test]
    fn a_journal_is_found_again_until_it_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(".medusa-restore-b1");
        fs::create_dir_all(folder.join("stage")).unwrap();
        fs::create_dir_all(data.path().join(".medusa-restore-other")).unwrap();
        let journal = Journal { folders: vec![folder.clone()], ..prepare(&data.path().join("x")) };
        journal.write(&folder).unwrap();
        assert_eq!(Journal::unfinished(data.path()).unwrap(), [(folder.clone(), journal.clone())]);
        journal.remove(&folder).unwrap();
        assert_eq!(Journal::unfinished(data.path()).unwrap(), []);
        assert!(!folder.exists());
        assert_eq!(Journal::unfinished(Path::new("/no/such/folder")).unwrap(), []);
    }
}
