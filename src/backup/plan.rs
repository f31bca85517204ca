//! Which files of a node must be uploaded, and which are stored already. Pure: facts in, plan out.
//!
//! An SSTable's name says nothing about its content: numbers are used again, and Statistics.db and Summary.db are rewritten
//! in place. A stored object stands for a local file only if a manifest recorded the same size and modification time with
//! it, or if the content is compared.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::cassandra::snapshot::{SnapshotFile, SnapshotTable};
use crate::model::digest::{RecordedMd5, Sha256};
use crate::model::manifest::{Manifest, Object};
use crate::model::names::{Fqdn, TableFile, TableFolder};
use crate::monitor::Amount;
use crate::storage::layout::{Layout, ObjectKey, Pool};

/// An object in the pool, with what manifests say about its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub key: ObjectKey,
    pub size: u64,
    pub sha256: Option<Sha256>,
    /// As recorded; goes into the next manifest unchanged.
    pub md5: Option<Box<str>>,
    /// Of the source file when it was stored or last compared.
    pub mtime: Option<i64>,
    /// A manifest says that it is there.
    pub named: bool,
    /// Stored on request although it did not match its digest.
    pub corrupt: bool,
}

impl Stored {
    pub fn recorded_md5(&self) -> RecordedMd5 {
        RecordedMd5::parse(self.md5.as_deref())
    }
}

/// What a manifest recorded, and when it was written: an object that was modified later is another one.
#[derive(Debug, Clone)]
struct Record {
    object: Object,
    written: DateTime<Utc>,
}

/// Everything that a pool holds, by table and file.
#[derive(Debug, Default)]
pub struct StoredFiles {
    /// By path, newest first. Only a record without our digest is followed by another one.
    records: HashMap<Box<str>, Vec<Record>>,
    files: HashMap<Box<str>, Vec<Stored>>,
}

impl StoredFiles {
    /// Takes over what a manifest says. Call with the newest manifest first.
    pub fn add_manifest(&mut self, manifest: Manifest, written: DateTime<Utc>) {
        for object in manifest.sections.into_iter().flat_map(|section| section.objects) {
            let records = self.records.entry(object.path.clone()).or_default();
            if records.iter().all(|known| known.object.sha256.is_none()) {
                records.push(Record { object, written });
            }
        }
    }

    /// Takes over an object that the listing of a pool returned. What is no file of a table is passed over. `lists_digests`: the
    /// `ETag` of an object that no manifest names says what it holds.
    pub fn add_object(&mut self, pool: &Path, meta: ObjectMeta, lists_digests: bool) {
        let Some((table, file)) = file_of(pool, &meta.location) else { return };
        let records = self.records.get(meta.location.as_ref()).map_or(&[][..], Vec::as_slice);
        let of_this =
            |record: &&Record| record.object.size == meta.size && !is_later(meta.last_modified, record.written);
        let objects: Vec<_> = records.iter().filter(of_this).map(|record| &record.object).collect();
        let ours = objects.iter().find(|object| object.sha256.is_some());
        let listed = meta.e_tag.as_ref().filter(|_| lists_digests).map(|tag| tag.trim_matches('"').into());
        let stored = Stored {
            size: meta.size,
            sha256: ours.and_then(|object| object.sha256),
            md5: objects.iter().find_map(|object| object.md5.clone()).or(listed),
            mtime: ours.and_then(|object| object.mtime),
            corrupt: ours.is_some_and(|object| object.corrupt),
            named: !objects.is_empty(),
            key: ObjectKey::listed(meta.location),
        };
        self.files.entry(place(&table, &file)).or_default().push(stored);
    }

    /// All objects that may stand for the file.
    pub fn of(&self, table: &TableFolder, file: &TableFile) -> &[Stored] {
        self.files.get(&place(table, file)).map_or(&[], Vec::as_slice)
    }
}

fn place(table: &TableFolder, file: &TableFile) -> Box<str> {
    format!("{table}/{file}").into()
}

/// Whether an object was modified after a manifest was written. Listings tell milliseconds, and the answer about a single object
/// whole seconds: what was stored in the last second before the manifest is not taken for another one.
fn is_later(modified: DateTime<Utc>, written: DateTime<Utc>) -> bool {
    if written.timestamp_subsec_nanos() == 0 { modified.timestamp() > written.timestamp() } else { modified > written }
}

/// The table and the file whose content an object below a pool holds.
fn file_of(pool: &Path, location: &Path) -> Option<(TableFolder, TableFile)> {
    let parts: Vec<_> = location.prefix_match(pool)?.collect();
    let (keyspace, rest) = parts.split_first()?;
    let (folder, rest) = rest.split_first()?;
    let table = TableFolder::new(keyspace.as_ref(), folder.as_ref()).ok()?;
    let (name, folders) = rest.split_last()?;
    let index = folders.last().filter(|folder| folder.as_ref().starts_with('.'));
    let index = index.map(|folder| folder.as_ref().to_owned());
    Some((table, TableFile { index, name: name.as_ref().to_owned() }))
}

/// What to do with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Stored, by its recorded size and modification time.
    Keep(Stored),
    /// Objects of the same size are stored; reading the file decides whether one of them has its content.
    Compare(Vec<Stored>),
    Upload,
}

/// One file with what is done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlan {
    pub source: SnapshotFile,
    pub action: Action,
    /// Medusa's own key for the file.
    pub key: ObjectKey,
    /// That key holds something else; a new content goes to its content key.
    pub taken: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    pub table: TableFolder,
    pub files: Vec<FilePlan>,
}

/// The whole plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupPlan {
    pub tables: Vec<TablePlan>,
}

/// How the plan's files divide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub all: Amount,
    pub upload: Amount,
    pub compare: Amount,
    pub keep: Amount,
}

/// What does not depend on a file.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub layout: &'a Layout,
    pub fqdn: &'a Fqdn,
    pub pool: Pool<'a>,
    /// Compare contents even where size and modification time agree.
    pub always_compare: bool,
}

impl BackupPlan {
    pub fn make(tables: Vec<SnapshotTable>, stored: &StoredFiles, rules: Rules<'_>) -> Self {
        let tables = tables.into_iter().map(|SnapshotTable { table, files }| {
            let plan = |source: SnapshotFile| plan_file(source, &table, stored, rules);
            let files = files.into_iter().map(plan).collect();
            TablePlan { table, files }
        });
        Self { tables: tables.collect() }
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for file in self.tables.iter().flat_map(|table| &table.files) {
            let size = file.source.size;
            totals.all.add(size);
            match file.action {
                Action::Keep(_) => totals.keep.add(size),
                Action::Compare(_) => totals.compare.add(size),
                Action::Upload => totals.upload.add(size),
            }
        }
        totals
    }
}

fn plan_file(source: SnapshotFile, table: &TableFolder, stored: &StoredFiles, rules: Rules<'_>) -> FilePlan {
    let key = rules.layout.data(rules.fqdn, rules.pool, table, &source.file, None);
    let stored = stored.of(table, &source.file);
    let taken = stored.iter().any(|stored| stored.key == key);
    let same_size: Vec<_> = stored.iter().filter(|stored| stored.size == source.size).cloned().collect();
    let same_file = |stored: &&Stored| stored.sha256.is_some() && stored.mtime == Some(source.mtime);
    let action = match same_size.iter().find(same_file) {
        // A corrupt one is looked at again: whether it may be kept is asked anew for every backup.
        Some(stored) if !rules.always_compare && !stored.corrupt => Action::Keep(stored.clone()),
        _ if same_size.is_empty() => Action::Upload,
        _ => Action::Compare(same_size),
    };
    FilePlan { source, action, key, taken }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::model::manifest::Section;

    const POOL: &str = "n1/data";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn object(path: &str, size: u64, sha: Option<&str>, mtime: Option<i64>) -> Object {
        let sha256 = sha.map(|content| Sha256::of(content.as_bytes()));
        Object { path: path.into(), md5: None, size, sha256, mtime, corrupt: false }
    }

    fn manifest(objects: Vec<Object>) -> Manifest {
        Manifest { sections: vec![Section { keyspace: "ks".into(), columnfamily: "t-1".into(), objects }] }
    }

    fn listed(path: &str, size: u64, modified: DateTime<Utc>) -> ObjectMeta {
        let location = Path::parse(path).unwrap();
        ObjectMeta { location, last_modified: modified, size, e_tag: None, version: None }
    }

    fn source(name: &str, size: u64, mtime: i64) -> SnapshotFile {
        let (index, name) = name.split_once('/').map_or((None, name), |(index, name)| (Some(index.to_owned()), name));
        SnapshotFile { file: TableFile { index, name: name.into() }, path: "/x".into(), size, mtime }
    }

    fn plan(stored: &StoredFiles, files: Vec<SnapshotFile>, always_compare: bool) -> Vec<FilePlan> {
        let layout = Layout::new(None);
        let fqdn = Fqdn::new("n1").unwrap();
        let rules = Rules { layout: &layout, fqdn: &fqdn, pool: Pool::Differential, always_compare };
        let tables = vec![SnapshotTable { table: TableFolder::new("ks", "t-1").unwrap(), files }];
        BackupPlan::make(tables, stored, rules).tables.remove(0).files
    }

    fn stored(manifests: Vec<(Manifest, DateTime<Utc>)>, objects: Vec<ObjectMeta>) -> StoredFiles {
        let mut stored = StoredFiles::default();
        for (manifest, written) in manifests {
            stored.add_manifest(manifest, written);
        }
        for object in objects {
            stored.add_object(&Path::parse(POOL).unwrap(), object, false);
        }
        stored
    }

    const DATA: &str = "n1/data/ks/t-1/nb-1-big-Data.db";

    #[test]
    fn what_was_stored_in_the_second_of_the_manifest_belongs_to_it() {
        let path = "n1/data/ks/t-1/nb-1-big-Data.db";
        let record = || vec![(manifest(vec![object(path, 1, Some("a"), Some(7))]), at(0))];
        let half = chrono::TimeDelta::milliseconds(500);
        for (modified, kept) in [(at(0) + half, true), (at(1), false), (at(1) + half, false)] {
            let stored = stored(record(), vec![listed(path, 1, modified)]);
            let plan = plan(&stored, vec![source("nb-1-big-Data.db", 1, 7)], false);
            assert_eq!(matches!(plan[0].action, Action::Keep(_)), kept, "{modified}");
        }
        // A storage that tells parts of a second tells the order, too.
        let exact = vec![(manifest(vec![object(path, 1, Some("a"), Some(7))]), at(0) + half / 2)];
        let stored = stored(exact, vec![listed(path, 1, at(0) + half)]);
        assert!(!matches!(plan(&stored, vec![source("nb-1-big-Data.db", 1, 7)], false)[0].action, Action::Keep(_)));
    }

    #[test]
    fn the_same_size_and_time_as_recorded_is_kept() {
        let known =
            stored(vec![(manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10))], vec![listed(DATA, 8, at(9))]);
        let plan = plan(&known, vec![source("nb-1-big-Data.db", 8, 5)], false);
        let Action::Keep(kept) = &plan[0].action else { panic!("{plan:?}") };
        assert_eq!((kept.key.as_str(), kept.sha256), (DATA, Some(Sha256::of(b"a"))));
    }

    #[test]
    fn a_name_alone_is_never_trusted() {
        let record = || (manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10));
        let compared = |known: &StoredFiles, file, always| {
            let plan = plan(known, vec![file], always).remove(0);
            assert!(plan.taken);
            matches!(plan.action, Action::Compare(_))
        };
        let known = stored(vec![record()], vec![listed(DATA, 8, at(9))]);
        assert!(compared(&known, source("nb-1-big-Data.db", 8, 6), false), "another modification time");
        assert!(compared(&known, source("nb-1-big-Data.db", 8, 5), true), "asked to compare");
        let rewritten = stored(vec![record()], vec![listed(DATA, 8, at(11))]);
        assert!(compared(&rewritten, source("nb-1-big-Data.db", 8, 5), false), "the object is newer than its record");
        let unrecorded = stored(vec![], vec![listed(DATA, 8, at(9))]);
        assert!(compared(&unrecorded, source("nb-1-big-Data.db", 8, 5), false), "nothing is recorded");
        let medusa = stored(vec![(manifest(vec![object(DATA, 8, None, None)]), at(10))], vec![listed(DATA, 8, at(9))]);
        assert!(compared(&medusa, source("nb-1-big-Data.db", 8, 5), false), "only Medusa recorded it");
    }

    #[test]
    fn another_size_under_the_same_name_goes_to_its_content_key() {
        let known =
            stored(vec![(manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10))], vec![listed(DATA, 8, at(9))]);
        let plan = plan(&known, vec![source("nb-1-big-Data.db", 9, 5), source("nb-2-big-Data.db", 8, 5)], false);
        assert_eq!((&plan[0].action, plan[0].taken), (&Action::Upload, true));
        assert_eq!((&plan[1].action, plan[1].taken), (&Action::Upload, false));
    }

    #[test]
    fn objects_under_content_keys_and_index_folders_are_found() {
        let content = "n1/data/ks/t-1/0123456789abcdef/nb-1-big-Data.db";
        let index = "n1/data/ks/t-1/.i/nb-1-big-Data.db";
        let indexed_content = "n1/data/ks/t-1/0123456789abcdef/.i/nb-1-big-Data.db";
        let objects = [content, index, indexed_content].map(|path| object(path, 8, Some(path), Some(5)));
        let listing = [content, index, indexed_content].map(|path| listed(path, 8, at(1)));
        let known = stored(vec![(manifest(objects.into()), at(2))], listing.into());
        let plan = plan(&known, vec![source("nb-1-big-Data.db", 8, 5), source(".i/nb-1-big-Data.db", 8, 5)], false);
        assert!(matches!(&plan[0].action, Action::Keep(kept) if kept.key.as_str() == content));
        assert!(!plan[0].taken);
        assert!(matches!(&plan[1].action, Action::Keep(kept) if kept.key.as_str() == index));
    }

    #[test]
    fn a_missing_object_is_uploaded_again_whatever_the_manifest_says() {
        let known = stored(vec![(manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10))], vec![]);
        assert_eq!(plan(&known, vec![source("nb-1-big-Data.db", 8, 5)], false)[0].action, Action::Upload);
        let truncated =
            stored(vec![(manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10))], vec![listed(DATA, 3, at(9))]);
        let plan = plan(&truncated, vec![source("nb-1-big-Data.db", 8, 5)], false);
        assert_eq!((&plan[0].action, plan[0].taken), (&Action::Upload, true));
    }

    #[test]
    fn an_older_record_of_ours_fills_in_what_medusa_did_not_record() {
        let newer = (manifest(vec![object(DATA, 8, None, None)]), at(20));
        let older = (manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10));
        let known = stored(vec![newer.clone(), older.clone()], vec![listed(DATA, 8, at(9))]);
        assert!(matches!(plan(&known, vec![source("nb-1-big-Data.db", 8, 5)], false)[0].action, Action::Keep(_)));
        // Medusa overwrote the object in between: our record is of another content.
        let overwritten = stored(vec![newer, older], vec![listed(DATA, 8, at(15))]);
        let plan = plan(&overwritten, vec![source("nb-1-big-Data.db", 8, 5)], false);
        assert!(matches!(&plan[0].action, Action::Compare(stored) if stored[0].sha256.is_none()));
    }

    #[test]
    fn totals_add_up() {
        let known =
            stored(vec![(manifest(vec![object(DATA, 8, Some("a"), Some(5))]), at(10))], vec![listed(DATA, 8, at(9))]);
        let layout = Layout::new(None);
        let fqdn = Fqdn::new("n1").unwrap();
        let rules = Rules { layout: &layout, fqdn: &fqdn, pool: Pool::Differential, always_compare: false };
        let files = vec![source("nb-1-big-Data.db", 8, 5), source("nb-1-big-Data.db", 8, 6), source("new", 3, 1)];
        let tables = vec![SnapshotTable { table: TableFolder::new("ks", "t-1").unwrap(), files }];
        let totals = BackupPlan::make(tables, &known, rules).totals();
        assert_eq!(totals.all, Amount { files: 3, bytes: 19 });
        assert_eq!(totals.keep, Amount { files: 1, bytes: 8 });
        assert_eq!(totals.compare, Amount { files: 1, bytes: 8 });
        assert_eq!(totals.upload, Amount { files: 1, bytes: 3 });
    }
}
