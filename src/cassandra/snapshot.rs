//! A snapshot on this node: taken, checked, walked, cleared.
//!
//! A snapshot is hard links in `<data>/K/T/snapshots/<tag>/`, so its files do not change, whatever Cassandra does to the
//! live ones. nodetool reports success too easily: whether a snapshot is whole is seen on the disk. Every table that
//! Cassandra knows has a folder, and every file that the folder's own manifest.json names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fs_err as fs;
use serde::Deserialize;

use super::facts::{EXCLUDED_KEYSPACES, LiveTable};
use super::nodetool::Nodetool;
use crate::error::Failure;
use crate::files;
use crate::model::names::{TableFile, TableFolder};
use crate::model::sstable::SstableFile;
use crate::model::units;

/// Files that Cassandra writes into a snapshot and that belong to no SSTable.
const NOT_DATA: [&str; 2] = ["manifest.json", "schema.cql"];

/// The folder of one table's snapshot in one data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    table: TableFolder,
    path: PathBuf,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub file: TableFile,
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
}

/// A table with its files, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTable {
    pub table: TableFolder,
    pub files: Vec<SnapshotFile>,
}

/// A snapshot that lies on the disk.
#[derive(Debug, Clone)]
pub struct Snapshot {
    tag: String,
    data_directories: Vec<PathBuf>,
}

impl Snapshot {
    /// The snapshot of this tag, there or not.
    pub fn of(tag: &str, data_directories: &[PathBuf]) -> Self {
        Self { tag: tag.to_owned(), data_directories: data_directories.to_vec() }
    }

    pub fn tag(&self) -> &str {
        &self.tag
    }

    pub fn exists(&self) -> anyhow::Result<bool> {
        Ok(!self.folders()?.is_empty())
    }

    fn folders(&self) -> anyhow::Result<Vec<Folder>> {
        let mut folders = Vec::new();
        for data in &self.data_directories {
            for keyspace in subfolders(data)? {
                for table in subfolders(&data.join(&keyspace))? {
                    let path = data.join(&keyspace).join(&table).join("snapshots").join(&self.tag);
                    if path.is_dir() {
                        folders.push(Folder { table: TableFolder::new(&keyspace, &table)?, path });
                    }
                }
            }
        }
        Ok(folders)
    }

    /// How long ago it was taken. Zero if it is not there, or comes from the future.
    pub fn age(&self) -> anyhow::Result<std::time::Duration> {
        let mut oldest = std::time::Duration::ZERO;
        for folder in self.folders()? {
            let taken = fs::metadata(&folder.path)?.modified()?;
            oldest = oldest.max(taken.elapsed().unwrap_or_default());
        }
        Ok(oldest)
    }

    /// Checks that the snapshot is whole. `tables` are those that must be in it; none where somebody else took it.
    ///
    /// # Errors
    /// Names the tables or files that are missing.
    pub fn check(&self, tables: &[LiveTable]) -> anyhow::Result<()> {
        let folders = self.folders()?;
        if folders.is_empty() {
            let places: Vec<_> = self.data_directories.iter().map(|folder| folder.display().to_string()).collect();
            let message =
                format!("the snapshot {} is empty: there is no folder of it below {}", self.tag, places.join(", "));
            return Err(Failure::failed(message)
                .hint("does config_file in [cassandra] name the cassandra.yaml of the node that nodetool talks to?")
                .into());
        }
        let found: BTreeSet<_> = folders.iter().map(|folder| identity(&folder.table)).collect();
        let required: BTreeSet<_> = tables
            .iter()
            .map(|table| (table.keyspace.as_str(), table.name.as_str(), Some(table.id.as_str())))
            .collect();
        let missing = required.difference(&found).map(|(keyspace, name, _)| format!("{keyspace}.{name}"));
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            let count = units::counted(missing.len() as u64, "table");
            return Err(Failure::failed(format!("the snapshot {} lacks {count}", self.tag)).details(missing).into());
        }
        for (table, folders) in by_table(&folders) {
            let described = check_files(table, &folders)?;
            if !described && required.contains(&identity(table)) {
                bail!("the snapshot of {table} is not whole: {} has no manifest.json", folders[0].path.display());
            }
        }
        Ok(())
    }

    /// All tables with their files, ordered by keyspace and folder.
    ///
    /// # Errors
    /// What cannot be backed up faithfully: an unknown sub-folder, or one name in two data directories.
    pub fn tables(&self) -> anyhow::Result<Vec<SnapshotTable>> {
        let folders = self.folders()?;
        let mut tables = Vec::new();
        for (table, folders) in by_table(&folders) {
            if EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str()) {
                continue;
            }
            let mut files = Vec::new();
            for folder in folders {
                walk(&folder.path, None, &mut files)?;
            }
            files.sort_by(|a, b| a.file.cmp(&b.file));
            if let Some(twice) = files.windows(2).find(|pair| pair[0].file == pair[1].file) {
                bail!("{} and {} are the same file of one table", twice[0].path.display(), twice[1].path.display());
            }
            tables.push(SnapshotTable { table: table.clone(), files });
        }
        Ok(tables)
    }

    /// Removes the snapshot: through nodetool, and where that fails or leaves something, by hand. nodetool is asked even if
    /// nothing is seen here: the node may keep its data elsewhere than its cassandra.yaml says.
    pub async fn clear(&self, nodetool: &Nodetool) -> anyhow::Result<()> {
        let cleared = nodetool.clear_snapshot(&self.tag).await;
        let left = self.folders()?;
        if left.is_empty() {
            return Ok(());
        }
        // They are hard links and ours; nodetool would do no more.
        if let Err(error) = &cleared {
            tracing::debug!("{error}; the snapshot's folders are removed without it");
        }
        for folder in left {
            match fs::remove_dir_all(&folder.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let message = format!("the snapshot {} could not be cleared", self.tag);
                    let hint =
                        format!("it keeps old SSTables on the disk; nodetool clearsnapshot -t {} removes it", self.tag);
                    return Err(Failure::failed(message).cause(error).hint(hint).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The live SSTables of all tables, for an estimate of what a snapshot would hold.
pub fn live_tables(data_directories: &[PathBuf]) -> anyhow::Result<Vec<SnapshotTable>> {
    let mut folders = Vec::new();
    for data in data_directories {
        for keyspace in subfolders(data)? {
            for table in subfolders(&data.join(&keyspace))? {
                let path = data.join(&keyspace).join(&table);
                folders.push(Folder { table: TableFolder::new(&keyspace, &table)?, path });
            }
        }
    }
    let mut tables = Vec::new();
    for (table, folders) in by_table(&folders) {
        if EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str()) {
            continue;
        }
        let mut files = Vec::new();
        for folder in folders {
            walk_live(&folder.path, None, &mut files)?;
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        files.dedup_by(|a, b| a.file == b.file);
        tables.push(SnapshotTable { table: table.clone(), files });
    }
    Ok(tables)
}

/// Names of folders that may be keyspaces or tables. A data directory that does not exist has none.
fn subfolders(path: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A data directory on its own file system may be a link.
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Keyspace, name and id.
fn identity(table: &TableFolder) -> (&str, &str, Option<&str>) {
    (table.keyspace.as_str(), table.table(), table.id())
}

fn by_table(folders: &[Folder]) -> BTreeMap<&TableFolder, Vec<&Folder>> {
    let mut tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for folder in folders {
        tables.entry(&folder.table).or_default().push(folder);
    }
    tables
}

/// What Cassandra itself wrote about a table's snapshot.
#[derive(Debug, Deserialize)]
struct SnapshotManifest {
    files: Vec<String>,
}

/// One table may be spread over several data directories, with one manifest or with one in each. Returns whether there was
/// one.
fn check_files(table: &TableFolder, folders: &[&Folder]) -> anyhow::Result<bool> {
    let mut described = false;
    for folder in folders {
        let path = folder.path.join("manifest.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let manifest: SnapshotManifest =
            serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display()))?;
        for file in &manifest.files {
            if !folders.iter().any(|folder| folder.path.join(file).is_file()) {
                bail!("the snapshot of {table} lacks {file}, which {} names", path.display());
            }
        }
        described = true;
    }
    Ok(described)
}

fn walk(folder: &Path, index: Option<&str>, found: &mut Vec<SnapshotFile>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            bail!("{} has a name that is not Unicode and cannot be stored", path.display());
        };
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            if index.is_some() || !name.starts_with('.') {
                bail!("{} is an unknown kind of folder in a snapshot", path.display());
            }
            walk(&path, Some(&name), found)?;
        } else if index.is_some() || !NOT_DATA.contains(&name.as_str()) {
            let file = TableFile { index: index.map(str::to_owned), name };
            let mtime = files::mtime(&metadata);
            found.push(SnapshotFile { file, path, size: metadata.len(), mtime });
        }
    }
    Ok(())
}

/// Files may vanish while they are looked at: Cassandra is running.
fn walk_live(folder: &Path, index: Option<&str>, found: &mut Vec<SnapshotFile>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if metadata.is_dir() {
            if index.is_none() && name.starts_with('.') {
                walk_live(&entry.path(), Some(&name), found)?;
            }
        } else if SstableFile::parse(&name).is_some_and(|file| file.version().is_some()) {
            let file = TableFile { index: index.map(str::to_owned), name };
            found.push(SnapshotFile { file, path: entry.path(), size: metadata.len(), mtime: files::mtime(&metadata) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "34998de0e59711f199fcf93f14538dd2";

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn live(keyspace: &str, name: &str) -> LiveTable {
        LiveTable { keyspace: keyspace.into(), name: name.into(), id: ID.into() }
    }

    fn snapshot(data: &[&Path]) -> Snapshot {
        Snapshot::of("medusa-b1", &data.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>())
    }

    #[test]
    fn files_of_all_data_directories_are_found_with_their_index_folders() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = format!("shop/orders-{ID}/snapshots/medusa-b1");
        write(
            &one.path().join(&folder).join("manifest.json"),
            r#"{"files": ["nb-1-big-Data.db", "nb-2-big-Data.db", ".i/nb-1-big-Data.db"]}"#,
        );
        write(&one.path().join(&folder).join("schema.cql"), "x");
        write(&one.path().join(&folder).join("nb-1-big-Data.db"), "1234");
        write(&one.path().join(&folder).join(".i/nb-1-big-Data.db"), "");
        write(&two.path().join(&folder).join("nb-2-big-Data.db"), "1");
        write(&one.path().join(format!("shop/orders-{ID}/snapshots/other/x")), "1");
        write(&one.path().join(format!("system_traces/events-{ID}/snapshots/medusa-b1/x")), "1");
        write(&one.path().join(format!(".medusa-restore/shop-{ID}/snapshots/medusa-b1/x")), "1");
        let snapshot = snapshot(&[one.path(), two.path(), Path::new("/does/not/exist")]);
        snapshot.check(&[live("shop", "orders")]).unwrap();
        let tables = snapshot.tables().unwrap();
        assert_eq!(tables.len(), 1);
        let names: Vec<_> = tables[0].files.iter().map(|file| (file.file.to_string(), file.size)).collect();
        assert_eq!(
            names,
            [("nb-1-big-Data.db".into(), 4), ("nb-2-big-Data.db".into(), 1), (".i/nb-1-big-Data.db".into(), 0)]
        );
    }

    #[test]
    fn an_empty_or_partial_snapshot_is_an_error() {
        let data = tempfile::tempdir().unwrap();
        let snapshot = snapshot(&[data.path()]);
        assert!(!snapshot.exists().unwrap());
        assert!(snapshot.check(&[]).unwrap_err().to_string().contains("is empty"));

        let folder = data.path().join(format!("shop/orders-{ID}/snapshots/medusa-b1"));
        write(&folder.join("manifest.json"), r#"{"files": []}"#);
        snapshot.check(&[live("shop", "orders")]).unwrap();
        let error = snapshot.check(&[live("shop", "orders"), live("shop", "items")]).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().details, ["shop.items"]);

        write(&folder.join("manifest.json"), r#"{"files": ["nb-1-big-Data.db"]}"#);
        assert!(snapshot.check(&[]).unwrap_err().to_string().contains("lacks nb-1-big-Data.db"));
    }

    #[test]
    fn what_cannot_be_stored_faithfully_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = format!("shop/orders-{ID}/snapshots/medusa-b1");
        write(&one.path().join(&folder).join("nb-1-big-Data.db"), "a");
        write(&two.path().join(&folder).join("nb-1-big-Data.db"), "b");
        assert!(snapshot(&[one.path(), two.path()]).tables().unwrap_err().to_string().contains("same file"));
        write(&one.path().join(&folder).join("odd/x"), "a");
        assert!(snapshot(&[one.path()]).tables().unwrap_err().to_string().contains("unknown kind of folder"));
    }
}
