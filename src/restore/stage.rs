//! The staging of a restore: files are brought beside the tables, while Cassandra runs.
//!
//! A crash leaves files in the stage, which the next attempt compares and uses.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use super::fetch::{AtTarget, Wanted, bring_all};
use super::plan::{PlannedFile, PlannedTable, RestorePlan};
use super::swap;
use crate::context::Context;
use crate::model::units::size;
use crate::monitor::Amount;

/// What staging did.
#[derive(Debug, Default)]
pub struct Staged {
    pub linked: Amount,
    pub downloaded: Amount,
    /// Files of which nothing is recorded that they could be compared with.
    pub unchecked: usize,
}

/// Brings all files into the stage. Everything there afterwards has the recorded content. `are_staged`: a run before did so.
pub async fn stage(context: &Context, plan: &RestorePlan, are_staged: bool) -> anyhow::Result<Staged> {
    let begin = Instant::now();
    prepare_stage(plan)?;
    let wanted = |(table, file): (&PlannedTable, &PlannedFile)| Wanted {
        object: file.object.clone(),
        key: file.key.clone(),
        target: swap::stage_folder(plan, file.directory, &table.target).join(file.file.relative()),
        candidates: file.candidates.clone(),
        owner: swap::owner_to_set(plan.directories[file.directory].owner),
    };
    let files = plan.tables.iter().flat_map(|table| table.files.iter().map(move |file| (table, file)));
    let at_target = if are_staged { AtTarget::Compared } else { AtTarget::Ours };
    let brought = bring_all(context, at_target, plan.amounts().0, files.map(wanted).collect()).await?;
    brought.check(&plan.backup, "restore another backup, or leave these tables out")?;
    for directory in &plan.directories {
        sync_file_system(&directory.work)?;
    }
    context.monitor.step("download", &size(brought.downloaded.bytes), begin.elapsed());
    Ok(Staged { linked: brought.local, downloaded: brought.downloaded, unchecked: brought.unchecked })
}

/// Makes the folders of the stage, and removes what an earlier attempt with another plan left there.
fn prepare_stage(plan: &RestorePlan) -> anyhow::Result<()> {
    let mut expected = HashSet::new();
    for table in &plan.tables {
        for (index, directory) in plan.directories.iter().enumerate() {
            let folder = swap::stage_folder(plan, index, &table.target);
            let of_directory: Vec<_> = table.files.iter().filter(|file| file.directory == index).collect();
            if of_directory.is_empty()
                && !directory.data.join(&table.target.keyspace).join(&table.target.folder).exists()
            {
                continue;
            }
            swap::make_folder(&folder, directory.owner)?;
            for file in of_directory {
                if let Some(index) = &file.file.index {
                    swap::make_folder(&folder.join(index), directory.owner)?;
                }
                expected.insert(folder.join(file.file.relative()));
            }
        }
    }
    for table in &plan.set_aside {
        for (index, directory) in plan.directories.iter().enumerate() {
            if directory.data.join(&table.keyspace).join(&table.folder).exists() {
                swap::make_folder(&swap::stage_folder(plan, index, table), directory.owner)?;
            }
        }
    }
    for directory in &plan.directories {
        for entry in walkdir::WalkDir::new(directory.work.join("stage")).into_iter().flatten() {
            if entry.file_type().is_file() && !expected.contains(entry.path()) {
                fs_err::remove_file(entry.path())?;
            }
        }
        remove_kept(&directory.work.join("stage"))?;
    }
    Ok(())
}

/// Removes what a Cassandra that was started with staged files made in their tables. The table's own ones come back to it.
fn remove_kept(stage: &Path) -> anyhow::Result<()> {
    // stage/keyspace/table/snapshots: a keyspace may have such a name, too.
    for entry in walkdir::WalkDir::new(stage).min_depth(3).max_depth(3).into_iter().flatten() {
        let is_kept = swap::KEPT.iter().any(|kept| entry.file_name() == *kept);
        if entry.file_type().is_dir() && is_kept {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Makes durable what was staged.
pub fn sync_file_system(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        nix::unistd::syncfs(fs_err::File::open(folder)?.file()).map_err(std::io::Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspaces_may_be_called_as_folders_that_a_table_keeps() {
        let stage = tempfile::tempdir().unwrap();
        let folders = ["ks/t-1/snapshots/s1", "ks/t-1/.idx", "snapshots/t-2", "backups/backups-3/backups"];
        for folder in folders {
            fs_err::create_dir_all(stage.path().join(folder)).unwrap();
        }
        remove_kept(stage.path()).unwrap();
        let left = |folder: &str| stage.path().join(folder).exists();
        assert!(left("ks/t-1/.idx") && left("snapshots/t-2") && left("backups/backups-3"));
        assert!(!left("ks/t-1/snapshots") && !left("backups/backups-3/backups"));
    }
}
