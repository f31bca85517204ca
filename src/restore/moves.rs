//! The swap of old and new files: a list of renames that can be made, repeated and taken back from any point.
//!
//! The list is written to the journal before the first rename, and whether one of them was made is seen on the disk. So the
//! list can be carried out again from the beginning after a crash, or backwards, until everything is where it was. What
//! somebody else made in between, as a Cassandra that was started too early does, is put away (`discarded/`) where it stands
//! in the way of the old files, and is an error where it stands in the way of the new.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::journal::{Journal, is_left_alone};

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

impl Journal {
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
pub(super) fn give(path: &Path, like: &std::fs::Metadata) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::super::journal::{Phase, Rewrite};
    use super::*;

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
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
            hosts: Vec::new(),
        }
    }

    fn state(root: &Path) -> Vec<(String, String)> {
        let files = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        files.map(|entry| (relative(entry.path()), fs::read_to_string(entry.path()).unwrap())).collect()
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
}
