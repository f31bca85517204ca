//! Where the files of a restore go: which data directory, beside or below which folder they are staged, and whether they fit.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fs_err as fs;

use super::RestoreOptions;
use super::journal::FOLDER;
use super::plan::{Directory, PlannedFile};
use super::select::SYSTEM_KEYSPACES;
use super::swap::KEPT;
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::files::{self, Mount};
use crate::model::digest::Sha256;
use crate::model::manifest::{Object, Section};
use crate::model::names::TableFolder;
use crate::model::sstable::{self, SstableFile};
use crate::model::units::size;

/// What stays free: Cassandra writes its tables when it is stopped, and more when it starts. A twentieth of the file system,
/// and not more than this.
const MOST_RESERVE: u64 = 1 << 30;

/// The data directories, with their owners and what is free.
pub(super) fn directories(options: &RestoreOptions, yaml: &CassandraYaml) -> anyhow::Result<Vec<Directory>> {
    let mut directories = Vec::new();
    for (index, data) in yaml.table_directories().into_iter().enumerate() {
        let metadata = fs::metadata(&data).map_err(|error| {
            Failure::failed(format!("the data directory {} cannot be used", data.display()))
                .cause(error)
                .hint(format!("it stands in {} as one of data_file_directories", yaml.path.display()))
        })?;
        let owner = (metadata.uid(), metadata.gid());
        let ours = nix::unistd::geteuid();
        if !ours.is_root() && ours.as_raw() != owner.0 {
            return Err(Failure::failed(format!("the data directory {} belongs to another user", data.display()))
                .hint("run the restore as root or as the user that Cassandra runs as")
                .into());
        }
        let space =
            nix::sys::statvfs::statvfs(&data).with_context(|| format!("could not look at {}", data.display()))?;
        let block = space.fragment_size() as u64;
        let free = space.blocks_available() as u64 * block;
        let reserve = MOST_RESERVE.min(space.blocks() as u64 * block / 20);
        let work = options.work_folder(&data, index);
        directories.push(Directory { data, work, needed: 0, free, reserve, owner });
    }
    Ok(directories)
}

/// # Errors
/// The files do not fit.
pub(super) fn check_space(directories: &[Directory]) -> anyhow::Result<()> {
    let mut systems: BTreeMap<u64, (u64, u64, u64, Vec<String>)> = BTreeMap::new();
    for directory in directories {
        let system = systems.entry(fs::metadata(&directory.data)?.dev()).or_default();
        system.0 += directory.needed;
        system.1 = directory.free;
        system.2 = directory.reserve;
        system.3.push(directory.data.display().to_string());
    }
    for (needed, free, reserve, folders) in systems.into_values() {
        if needed > 0 && needed.saturating_add(reserve) > free {
            let places = folders.join(", ");
            return Err(Failure::failed(format!(
                "not enough space: {} must be downloaded into {places}, where {} are free, of which Cassandra needs {}",
                size(needed),
                size(free),
                size(reserve)
            ))
            .hint("the present files stay until Cassandra runs with the restored ones; --table restores less at a time")
            .into());
        }
    }
    Ok(())
}

/// # Errors
/// A folder that will be renamed lies on another disk, or in another mount of the same one, than what takes its place: that would
/// be found with Cassandra down.
pub(super) fn check_renames<'a>(
    directories: &[Directory],
    tables: impl Iterator<Item = &'a TableFolder>,
) -> Result<(), Failure> {
    let mut elsewhere = std::collections::BTreeSet::new();
    let tables: Vec<_> = tables.collect();
    for directory in directories {
        let Some(mount) = mount(&directory.data) else { continue };
        for table in &tables {
            let keyspace = directory.data.join(&table.keyspace);
            let folder = keyspace.join(&table.folder);
            let kept = KEPT.map(|kept| folder.join(kept));
            let mut folders = [&keyspace, &folder].into_iter().chain(&kept);
            let other = folders.find_map(|path| Some((path, self::mount(path).filter(|found| *found != mount)?)));
            elsewhere.extend(other.map(|(path, found)| {
                let what = if found.device == mount.device { "in another mount" } else { "on another disk" };
                format!("{} is {what} than {}", path.display(), directory.data.display())
            }));
        }
    }
    if elsewhere.is_empty() {
        return Ok(());
    }
    Err(Failure::failed("folders of tables cannot be swapped by renaming them")
        .details(elsewhere)
        .hint("nothing was changed; move them into the data directory, name their disk in data_file_directories, or leave these tables out"))
}

/// Of what is there.
fn mount(path: &Path) -> Option<Mount> {
    Mount::of(path).ok()
}

/// Decides which directory gets which SSTable: all its files the same one.
pub(super) struct Placement {
    folders: Vec<(PathBuf, PathBuf, u64)>,
    needed: Vec<u64>,
    /// For the node's own system tables.
    system: usize,
    ordinary: usize,
}

impl Placement {
    pub(super) fn new(directories: &[Directory], yaml: &CassandraYaml) -> Self {
        let folders: Vec<_> = directories.iter().map(|d| (d.data.clone(), d.work.clone(), d.free)).collect();
        let system = yaml.local_system_directory.as_ref();
        let system = system.and_then(|system| folders.iter().position(|(data, ..)| data == system)).unwrap_or(0);
        Self { needed: vec![0; folders.len()], ordinary: yaml.data_directories.len(), folders, system }
    }

    pub(super) fn place(
        &mut self,
        context: &Context,
        section: &Section,
        source: &TableFolder,
        target: &TableFolder,
    ) -> anyhow::Result<Vec<PlannedFile>> {
        let mut sstables: HashMap<(Option<String>, String), usize> = HashMap::new();
        let mut files = Vec::with_capacity(section.objects.len());
        for object in &section.objects {
            let file = object.file(source)?;
            let key = context.storage.layout().recorded(&context.fqdn, &object.path)?;
            let sstable = SstableFile::parse(&file.name).map_or(file.name.as_str(), |name| name.sstable).to_owned();
            let local = self.local_files(object, &file.relative(), source, target);
            let directory =
                *sstables.entry((file.index.clone(), sstable)).or_insert_with(|| self.choose(source, &local));
            // A link cannot leave its file system.
            // Cassandra appends to TOC.txt in place, so that one is never shared with the live table.
            let is_shared = !file.name.ends_with(sstable::TOC);
            let candidates: Vec<_> = local.iter().filter(|(of, ..)| is_shared && *of == directory).collect();
            let on_this_node = candidates.iter().any(|(.., same_time)| *same_time);
            let staged_file = self.folders[directory]
                .1
                .join("stage")
                .join(&target.keyspace)
                .join(&target.folder)
                .join(file.relative());
            let staged = fs::symlink_metadata(staged_file).is_ok_and(|metadata| metadata.len() == object.size);
            if !on_this_node && !staged {
                self.needed[directory] += object.size;
            }
            let candidates = candidates.into_iter().map(|(_, path, _)| path.clone()).collect();
            files.push(PlannedFile { object: object.clone(), key, file, directory, candidates, on_this_node, staged });
        }
        Ok(files)
    }

    /// Files of this node with the name and size: directory, path, and whether the modification time is the recorded one.
    fn local_files(
        &self,
        object: &Object,
        file: &Path,
        source: &TableFolder,
        target: &TableFolder,
    ) -> Vec<(usize, PathBuf, bool)> {
        let mut found = Vec::new();
        for (index, (data, ..)) in self.folders.iter().enumerate() {
            let mut tables = vec![target];
            if source != target {
                tables.push(source);
            }
            for table in tables {
                let path = data.join(&table.keyspace).join(&table.folder).join(file);
                if let Ok(metadata) = fs::symlink_metadata(&path)
                    && metadata.is_file()
                    && metadata.len() == object.size
                {
                    found.push((index, path, object.mtime == Some(files::mtime(&metadata))));
                }
            }
        }
        found
    }

    fn choose(&self, table: &TableFolder, local: &[(usize, PathBuf, bool)]) -> usize {
        if let Some((directory, ..)) = local.first() {
            return *directory;
        }
        if SYSTEM_KEYSPACES[..2].contains(&table.keyspace.as_str()) {
            return self.system;
        }
        let left = |index: usize| self.folders[index].2.saturating_sub(self.needed[index]);
        (0..self.ordinary).max_by_key(|index| (left(*index), std::cmp::Reverse(*index))).unwrap_or(0)
    }

    pub(super) fn record(self, directories: &mut [Directory]) {
        for (directory, needed) in directories.iter_mut().zip(self.needed) {
            directory.needed = needed;
        }
    }
}

/// Tells the nodes of one machine apart: they may be given the same folder.
pub fn mark_of_node(data: &Path) -> String {
    let mut mark = Sha256::of(data.as_os_str().as_encoded_bytes()).to_string();
    mark.truncate(8);
    mark
}

/// Where files are staged for a data directory: beside its tables, or below `--temp-dir` if a rename can bring them over.
pub fn work_folder(data: &Path, index: usize, name: &str, temporary: Option<&Path>) -> PathBuf {
    let beside = data.join(format!("{FOLDER}{name}"));
    let Some(temporary) = temporary else { return beside };
    let below = temporary.join(format!("{FOLDER}{name}-{index}-{}", mark_of_node(data)));
    if can_rename(temporary, data) {
        return below;
    }
    tracing::info!(
        "{} is on another file system than {}: files are staged beside the tables",
        temporary.display(),
        data.display()
    );
    beside
}

fn can_rename(from: &Path, to: &Path) -> bool {
    let target = to.join(format!("{FOLDER}probe-{}", std::process::id()));
    let moved = tempfile::NamedTempFile::new_in(from).is_ok_and(|probe| probe.persist(&target).is_ok());
    moved && fs::remove_file(&target).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(data: &Path) -> Directory {
        let (data, work) = (data.to_owned(), data.join(".medusa-restore-b1"));
        Directory { data, work, needed: 0, free: 1000, reserve: 100, owner: (0, 0) }
    }

    #[test]
    fn a_keyspace_on_another_disk_is_refused() {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let is_other = mount(data.path()) != mount(other.path());
        let table = TableFolder::new("ks", "t-3dccf260e59711f199fcf93f14538dd2").unwrap();
        let check = || check_renames(&[directory(data.path())], [&table].into_iter());
        check().unwrap();
        std::os::unix::fs::symlink(other.path(), data.path().join("ks")).unwrap();
        assert_eq!(check().is_err(), is_other);
        if let Err(failure) = check() {
            let told =
                format!("{} is on another disk than {}", data.path().join("ks").display(), data.path().display());
            assert_eq!(failure.details, [told]);
        }
    }

    #[test]
    fn a_disk_is_not_filled_to_its_end() {
        let data = tempfile::tempdir().unwrap();
        let check = |needed| check_space(&[Directory { needed, ..directory(data.path()) }]);
        check(900).unwrap();
        let error = check(901).unwrap_err().to_string();
        assert!(error.contains("901 B") && error.contains("of which Cassandra needs 100 B"), "{error}");
        // What is on the node already needs no room.
        check_space(&[Directory { free: 0, ..directory(data.path()) }]).unwrap();
    }
}
