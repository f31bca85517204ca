//! A snapshot on this node: taken, checked, walked, cleared.
//!
//! A snapshot is hard links in `<data>/K/T/snapshots/<tag>/`, so its files do not change, whatever Cassandra does to the
//! live ones. nodetool reports success too easily: whether a snapshot is whole is seen on the disk. Every table that
//! Cassandra knows has a folder, every file that the folder's own manifest.json names is there, and beside every Data.db is
//! what belongs to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use fs_err as fs;
use serde::Deserialize;

use super::facts::{EXCLUDED_KEYSPACES, LiveTable};
use super::nodetool::Nodetool;
use crate::error::Failure;
use crate::files;
use crate::model::names::{TableFile, TableFolder};
use crate::model::sstable::{self, SstableFile};
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
        for live in live_folders(&self.data_directories)? {
            let path = live.path.join("snapshots").join(&self.tag);
            if path.is_dir() {
                folders.push(Folder { path, ..live });
            }
        }
        Ok(folders)
    }

    /// The tables that have a folder in it, of keyspaces that are backed up.
    pub fn held(&self) -> anyhow::Result<BTreeSet<TableFolder>> {
        let folders = self.folders()?.into_iter().map(|folder| folder.table);
        Ok(folders.filter(|table| !EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str())).collect())
    }

    /// When its first table was taken. Now, if it is not there.
    pub fn taken(&self) -> anyhow::Result<SystemTime> {
        let mut oldest = SystemTime::now();
        for folder in self.folders()? {
            oldest = oldest.min(fs::metadata(&folder.path)?.modified()?);
        }
        Ok(oldest)
    }

    /// How long ago it was taken. Zero if it is not there, or comes from the future.
    pub fn age(&self) -> anyhow::Result<Duration> {
        Ok(self.taken()?.elapsed().unwrap_or_default())
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
        let tables = with_files(&self.folders()?, |folder, files| walk(folder, None, files))?;
        let mut pairs = tables.iter().flat_map(|table| table.files.windows(2));
        if let Some(twice) = pairs.find(|pair| pair[0].file == pair[1].file) {
            bail!("{} and {} are the same file of one table", twice[0].path.display(), twice[1].path.display());
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

/// The snapshots whose tag begins so, with the time of the first of their folders that is found.
pub fn tagged(data_directories: &[PathBuf], prefix: &str) -> anyhow::Result<BTreeMap<String, SystemTime>> {
    let mut found = BTreeMap::new();
    for folder in live_folders(data_directories)? {
        let snapshots = folder.path.join("snapshots");
        for tag in subfolders(&snapshots)?.into_iter().filter(|tag| tag.starts_with(prefix)) {
            if let (false, Ok(metadata)) = (found.contains_key(&tag), fs::metadata(snapshots.join(&tag))) {
                found.insert(tag, metadata.modified()?);
            }
        }
    }
    Ok(found)
}

/// The live SSTables of all tables, for an estimate of what a snapshot would hold.
pub fn live_tables(data_directories: &[PathBuf]) -> anyhow::Result<Vec<SnapshotTable>> {
    let mut tables = with_files(&live_folders(data_directories)?, |folder, files| walk_live(folder, None, files))?;
    for table in &mut tables {
        table.files.dedup_by(|a, b| a.file == b.file);
    }
    Ok(tables)
}

/// The tables of these folders that are backed up, with the files that are found in each folder.
fn with_files(
    folders: &[Folder],
    find: impl Fn(&Path, &mut Vec<SnapshotFile>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<SnapshotTable>> {
    let mut tables = Vec::new();
    for (table, folders) in by_table(folders) {
        if EXCLUDED_KEYSPACES.contains(&table.keyspace.as_str()) {
            continue;
        }
        let mut files = Vec::new();
        for folder in folders {
            find(&folder.path, &mut files)?;
        }
        files.sort_by(|a, b| a.file.cmp(&b.file));
        tables.push(SnapshotTable { table: table.clone(), files });
    }
    Ok(tables)
}

/// The folders of tables, with their live files. What cannot be a keyspace is passed over: `lost+found`, which only root reads.
fn live_folders(data_directories: &[PathBuf]) -> anyhow::Result<Vec<Folder>> {
    let may_be_keyspace = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut folders = Vec::new();
    for data in data_directories {
        for keyspace in subfolders(data)?.into_iter().filter(may_be_keyspace) {
            for table in subfolders(&data.join(&keyspace))? {
                let path = data.join(&keyspace).join(&table);
                folders.push(Folder { table: TableFolder::new(&keyspace, &table)?, path });
            }
        }
    }
    Ok(folders)
}

/// Names of folders that may be keyspaces, tables or snapshots. A data directory that does not exist has none.
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
    let names = folders.iter().map(|folder| names_in(&folder.path)).collect::<anyhow::Result<Vec<_>>>()?;
    for (folder, own) in folders.iter().zip(&names) {
        check_sstables(table, &folder.path, own)?;
        let path = folder.path.join("manifest.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let manifest: SnapshotManifest =
            serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display()))?;
        for file in &manifest.files {
            if !names.iter().any(|names| names.contains(file)) {
                bail!("the snapshot of {table} lacks {file}, which {} names", path.display());
            }
        }
        described = true;
    }
    Ok(described)
}

/// The names of all files of a table's snapshot. Those of an index begin with its folder.
fn names_in(folder: &Path) -> anyhow::Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            names.extend(names_in(&entry.path())?.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Beside every Data.db is what it cannot be read without, and what its TOC.txt lists. Cassandra writes TOC.txt anew while an
/// index is built, so what is listed of indexes does not count; nor does what the live SSTable has lost as well.
fn check_sstables(table: &TableFolder, folder: &Path, names: &HashSet<String>) -> anyhow::Result<()> {
    let live = folder.ancestors().nth(2).unwrap_or(folder);
    for name in names {
        let Some(sstable) = SstableFile::parse(name).filter(|file| file.component == sstable::DATA) else { continue };
        let is_there = |component: &str| names.contains(&sstable.sibling(component));
        let is_live = |component: &str| live.join(sstable.sibling(component)).exists();
        // Data.db alone, and nothing that says there ever was more, is not Cassandra's work.
        let was_there = |component: &str| is_there(sstable::TOC) || is_live(component);
        let is_missing = |component: &&&str| !is_there(component) && was_there(component);
        if let Some(missing) = sstable.needed().iter().find(is_missing) {
            let missing = sstable.sibling(missing);
            bail!("the snapshot of {table} lacks {missing}, without which {name} cannot be read");
        }
        // Few SSTables are left for which a file must be read.
        if sstable.is_usual(is_there) {
            continue;
        }
        let toc = folder.join(sstable.sibling(sstable::TOC));
        let listed = match fs::read(&toc) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            listed => listed?,
        };
        let is_lost = |component: &str| sstable::is_rebuilt(component) && is_live(sstable::DATA) && !is_live(component);
        for component in String::from_utf8_lossy(&listed).lines().map(str::trim) {
            if sstable::is_own(component) && !is_there(component) && !is_lost(component) {
                let missing = sstable.sibling(component);
                bail!("the snapshot of {table} lacks {missing}, which {} lists", toc.display());
            }
        }
    }
    Ok(())
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
        for (data, sstable, content) in [(&one, "nb-1-big", "1234"), (&one, ".i/nb-1-big", ""), (&two, "nb-2-big", "1")]
        {
            for component in ["Data.db", "Index.db", "Statistics.db"] {
                write(&data.path().join(&folder).join(format!("{sstable}-{component}")), content);
            }
        }
        write(&one.path().join(format!("shop/orders-{ID}/snapshots/other/x")), "1");
        write(&one.path().join(format!("system_traces/events-{ID}/snapshots/medusa-b1/x")), "1");
        write(&one.path().join(format!(".medusa-restore/shop-{ID}/snapshots/medusa-b1/x")), "1");
        let snapshot = snapshot(&[one.path(), two.path(), Path::new("/does/not/exist")]);
        snapshot.check(&[live("shop", "orders")]).unwrap();
        let tables = snapshot.tables().unwrap();
        assert_eq!(tables.len(), 1);
        let data = tables[0].files.iter().filter(|file| file.file.name.ends_with("Data.db"));
        let names: Vec<_> = data.map(|file| (file.file.to_string(), file.size)).collect();
        assert_eq!(
            names,
            [("nb-1-big-Data.db".into(), 4), ("nb-2-big-Data.db".into(), 1), (".i/nb-1-big-Data.db".into(), 0)]
        );
    }

    #[test]
    fn snapshots_are_found_by_the_beginning_of_their_tag() {
        let data = tempfile::tempdir().unwrap();
        for (keyspace, tag) in [("shop", "medusa-b1"), ("shop", "medusa-b2"), ("more", "medusa-b1"), ("more", "mine")] {
            write(&data.path().join(format!("{keyspace}/orders-{ID}/snapshots/{tag}/x")), "1");
        }
        let found = tagged(&[data.path().to_owned(), "/does/not/exist".into()], "medusa-").unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["medusa-b1", "medusa-b2"]);
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

    /// Writes components of an SSTable.
    fn sstable(folder: &Path, sstable: &str, components: &[&str]) {
        for component in components {
            write(&folder.join(format!("{sstable}-{component}")), "");
        }
    }

    #[test]
    fn an_sstable_that_is_not_whole_is_an_error() {
        let data = tempfile::tempdir().unwrap();
        let live = data.path().join(format!("shop/orders-{ID}"));
        let folder = live.join("snapshots/medusa-b1");
        let snapshot = snapshot(&[data.path()]);
        let lacks = |what: &str| {
            let error = snapshot.check(&[]).unwrap_err().to_string();
            assert!(error.contains(&format!("lacks {what}")), "{error}");
        };
        sstable(&folder, "nb-1-big", &["Data.db", "Index.db"]);
        snapshot.check(&[]).unwrap();
        sstable(&live, "nb-1-big", &["Statistics.db"]);
        lacks("nb-1-big-Statistics.db");
        sstable(&folder, "nb-1-big", &["Statistics.db"]);
        snapshot.check(&[]).unwrap();
        sstable(&folder, ".i/da-2-bti", &["Data.db", "Statistics.db", "Partitions.db", "TOC.txt"]);
        lacks(".i/da-2-bti-Rows.db");
        sstable(&folder, ".i/da-2-bti", &["Rows.db"]);
        snapshot.check(&[]).unwrap();

        let toc = folder.join("nb-1-big-TOC.txt");
        write(&toc, "Data.db\nTOC.txt\nSAI+aa+i+Meta.db\nSI_i.db\nFilter.db\nCompressionInfo.db\n");
        lacks("nb-1-big-Filter.db");
        sstable(&folder, "nb-1-big", &["Filter.db"]);
        lacks("nb-1-big-CompressionInfo.db");
        sstable(&folder, "nb-1-big", &["CompressionInfo.db"]);
        snapshot.check(&[]).unwrap();
        write(&toc, "Digest.crc32\n");
        lacks("nb-1-big-Digest.crc32");
        sstable(&live, "nb-1-big", &["Data.db"]);
        snapshot.check(&[]).unwrap();
        sstable(&live, "nb-1-big", &["Digest.crc32"]);
        lacks("nb-1-big-Digest.crc32");
    }

    #[test]
    fn what_cannot_be_a_keyspace_is_passed_over() {
        let data = tempfile::tempdir().unwrap();
        write(&data.path().join(format!("lost+found/t-{ID}/snapshots/medusa-b1/x")), "1");
        assert!(!snapshot(&[data.path()]).exists().unwrap());
        write(&data.path().join(format!("Shop_1/t-{ID}/snapshots/medusa-b1/x")), "1");
        assert!(snapshot(&[data.path()]).exists().unwrap());
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
