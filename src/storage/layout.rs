//! Where everything lives in a bucket. The only code that builds or takes apart an object key.
//!
//! The keys of cassandra-medusa, with `P` the prefix, `F` the node, `N` the backup, `K` keyspace and `T` table folder:
//!
//! ```text
//! P/F/N/meta/…                       what a backup is: schema.cql first, manifest.json last
//! P/F/data/K/T/[.index/]file         files of differential backups, one pool per node
//! P/F/N/data/K/T/[.index/]file       files of a full backup
//! P/index/backup_index/N/…           copies, for listing
//! P/index/latest_backup/F/…          the node's newest backup
//! ```
//!
//! Ours: `P/F/data/K/T/<content>/[.index/]file` where the key is taken by other content, `meta/schema_internals.cql`, and
//! `P/index/summaries/N/F_….summary`. While somebody writes `P/index/leases/F.json`, and for a moment `P/index/clock/…`: an object that
//! is written to learn the storage's time. Where a permission is tried, `…/data-medusa-probe/…`: see [`Spot`].

use std::fmt;

use object_store::path::Path;

use crate::model::names::{BackupName, Fqdn, TableFile, TableFolder};
use crate::model::summary::Summary;

/// The key of one object. Only [`Layout`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Path);

impl ObjectKey {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The key of an object that a listing returned.
    pub fn listed(path: Path) -> Self {
        Self(path)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    #[error("{0:?} is no object key")]
    Malformed(String),
    #[error("{path:?} lies outside of the folder of {fqdn}")]
    Foreign { path: String, fqdn: String },
}

/// Objects under `meta/` of a node backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    Schema,
    /// Ours: with table ids and dropped columns.
    SchemaInternals,
    Tokenmap,
    ServerVersion,
    Differential,
    /// What old versions of Medusa wrote in place of `differential`.
    Incremental,
    Manifest,
}

impl Meta {
    pub const ALL: [Self; 7] = [
        Self::Schema,
        Self::SchemaInternals,
        Self::Tokenmap,
        Self::ServerVersion,
        Self::Differential,
        Self::Incremental,
        Self::Manifest,
    ];

    fn file(self) -> &'static str {
        match self {
            Self::Schema => "schema.cql",
            Self::SchemaInternals => "schema_internals.cql",
            Self::Tokenmap => "tokenmap.json",
            Self::ServerVersion => "server_version.json",
            Self::Differential => "differential",
            Self::Incremental => "incremental",
            Self::Manifest => "manifest.json",
        }
    }
}

/// Entries of the backup index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    Tokenmap,
    Schema,
    /// Unix seconds.
    Started(i64),
    Differential,
    Manifest,
    /// Unix seconds.
    Finished(i64),
}

impl IndexKind {
    /// Whether it is written when a backup is finished.
    pub fn is_of_the_end(&self) -> bool {
        matches!(self, Self::Manifest | Self::Finished(_))
    }
}

/// An entry of the backup index, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    pub name: BackupName,
    pub fqdn: Fqdn,
    pub kind: IndexKind,
}

/// A summary, as its key tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryEntry {
    pub name: BackupName,
    pub fqdn: Fqdn,
    /// `None`: one of another version.
    pub summary: Option<Summary>,
}

/// What an object below `index/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InIndex {
    Entry(IndexEntry),
    Summary(SummaryEntry),
    /// One of the two markers of the node's newest backup.
    Latest(Fqdn),
    /// Of a command that runs, or was killed.
    Lease(Fqdn),
    /// Left by a command that was killed while it looked at the time or tried a permission, or by a storage check.
    Clock,
    Other,
}

/// What an object below a node's folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InNode {
    Meta(BackupName),
    /// Data of differential backups.
    Pool,
    /// Data of this full backup.
    Full(BackupName),
    Other,
}

/// Where a backup keeps its data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool<'a> {
    Differential,
    Full(&'a BackupName),
}

/// To what an object in the folder of a node belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The pool that all differential backups share.
    Pool,
    /// The folder of one backup.
    Backup(BackupName),
}

/// Where commands write and delete, and a permission can be tried on an object that nobody takes for a part of a backup: in
/// a pool it lies where no keyspace can be, beside the backups in a folder that no backup may be called, and in the index
/// deeper than entries. A purge, ours and that of cassandra-medusa, takes what a crash leaves in a pool or beside it for garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot<'a> {
    /// The pool of a node.
    Pool(&'a Fqdn),
    /// Where a full backup keeps its data files.
    Full(&'a Fqdn),
    /// Where a backup keeps its manifest.
    Meta(&'a Fqdn),
    Index,
    Summaries,
    Leases,
}

/// Every element is a checked name or one of ours, so the path is valid and `parse` keeps it byte for byte.
fn below<'a>(base: &Path, elements: impl IntoIterator<Item = &'a str>) -> ObjectKey {
    let mut text = base.to_string();
    for element in elements {
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(element);
    }
    ObjectKey(Path::parse(&text).unwrap_or_else(|_| Path::from(text)))
}

/// The folder of storage checks.
const CHECK: &str = "storage-check";

/// The folder of what is written to try a permission. No keyspace has a dash, and no backup may begin so.
const PROBE: &str = "data-medusa-probe";

/// The folder of everything that is no node.
const INDEX: &str = "index";

/// How the key of a summary ends.
const SUMMARY: &str = ".summary";

/// Bytes. Of the usual file systems of Linux.
const LONGEST_FILE_NAME: usize = 255;

/// The folder of data files, of a node and of a full backup.
const POOL: &str = "data";

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub struct Layout {
    prefix: Option<String>,
}

impl Layout {
    pub fn new(prefix: Option<String>) -> Self {
        Self { prefix: prefix.filter(|prefix| !prefix.is_empty()) }
    }

    fn key<'a>(&'a self, elements: impl IntoIterator<Item = &'a str>) -> ObjectKey {
        below(&Path::default(), self.prefix.as_deref().into_iter().chain(elements))
    }

    /// Everything there is: nodes, and the index.
    pub fn root(&self) -> Path {
        self.prefix.as_deref().map_or_else(Path::default, |prefix| below(&Path::default(), [prefix]).0)
    }

    /// The node whose folder this may be, as a delimited listing of the root shows it.
    pub fn node_folder(&self, folder: &Path) -> Option<Fqdn> {
        let mut below = folder.prefix_match(&self.root())?;
        let name = below.next()?;
        if below.next().is_some() || name.as_ref() == INDEX {
            return None;
        }
        Fqdn::new(name.as_ref()).ok()
    }

    /// What an object below a node's folder is.
    pub fn parse_in_node(&self, fqdn: &Fqdn, path: &Path) -> InNode {
        let Some(below) = path.prefix_match(&self.node(fqdn)) else { return InNode::Other };
        let below: Vec<_> = below.collect();
        match below.iter().map(AsRef::as_ref).collect::<Vec<_>>().as_slice() {
            ["data", _, ..] => InNode::Pool,
            [name, "meta", _] => BackupName::existing(name).map_or(InNode::Other, InNode::Meta),
            [name, "data", _, ..] => BackupName::existing(name).map_or(InNode::Other, InNode::Full),
            _ => InNode::Other,
        }
    }

    /// Everything of a node.
    pub fn node(&self, fqdn: &Fqdn) -> Path {
        self.key([fqdn.as_str()]).0
    }

    /// Everything of one node backup, apart from its files in the differential pool.
    pub fn node_backup(&self, fqdn: &Fqdn, name: &BackupName) -> Path {
        self.key([fqdn.as_str(), name.as_str()]).0
    }

    pub fn meta(&self, fqdn: &Fqdn, name: &BackupName, meta: Meta) -> ObjectKey {
        self.key([fqdn.as_str(), name.as_str(), "meta", meta.file()])
    }

    /// All of [`Meta`].
    pub fn meta_folder(&self, fqdn: &Fqdn, name: &BackupName) -> Path {
        self.key([fqdn.as_str(), name.as_str(), "meta"]).0
    }

    /// All data files of a pool.
    pub fn pool(&self, fqdn: &Fqdn, pool: Pool<'_>) -> Path {
        match pool {
            Pool::Differential => self.key([fqdn.as_str(), POOL]).0,
            Pool::Full(name) => self.key([fqdn.as_str(), name.as_str(), POOL]).0,
        }
    }

    /// All files of one table in a pool.
    pub fn table(&self, fqdn: &Fqdn, pool: Pool<'_>, table: &TableFolder) -> Path {
        below(&self.pool(fqdn, pool), [table.keyspace.as_str(), table.folder.as_str()]).0
    }

    /// The key of a data file: Medusa's own, or with the folder of its content where that one is taken.
    pub fn data(
        &self,
        fqdn: &Fqdn,
        pool: Pool<'_>,
        table: &TableFolder,
        file: &TableFile,
        content: Option<&str>,
    ) -> ObjectKey {
        let pool = self.pool(fqdn, pool);
        let folders = [Some(table.keyspace.as_str()), Some(&table.folder), content, file.index.as_deref()];
        below(&pool, folders.into_iter().flatten().chain([file.name.as_str()]))
    }

    /// The key that a manifest of `fqdn` recorded. It must lie in that node's folder.
    pub fn recorded(&self, fqdn: &Fqdn, path: &str) -> Result<ObjectKey, BadKey> {
        let parsed = Path::parse(path).map_err(|_| BadKey::Malformed(path.to_owned()))?;
        if parsed.as_ref() != path {
            return Err(BadKey::Malformed(path.to_owned()));
        }
        if !parsed.prefix_matches(&self.node(fqdn)) {
            return Err(BadKey::Foreign { path: path.to_owned(), fqdn: fqdn.to_string() });
        }
        Ok(ObjectKey(parsed))
    }

    /// Everything that belongs to no single node.
    pub fn whole_index(&self) -> Path {
        self.key(["index"]).0
    }

    /// What an object below it is.
    pub fn parse_in_index(&self, path: &Path) -> InIndex {
        if let Some(entry) = self.parse_index_entry(path) {
            return InIndex::Entry(entry);
        }
        if let Some(fqdn) = self.lease_of(path) {
            return InIndex::Lease(fqdn);
        }
        if let Some(entry) = self.parse_summary(path) {
            return InIndex::Summary(entry);
        }
        let Some(below) = path.prefix_match(&self.whole_index()) else { return InIndex::Other };
        let below: Vec<_> = below.collect();
        let found = match below.iter().map(AsRef::as_ref).collect::<Vec<_>>().as_slice() {
            ["latest_backup", fqdn, "tokenmap.json" | "backup_name.txt"] => Fqdn::new(fqdn).ok().map(InIndex::Latest),
            ["clock", _] | [CHECK, ..] | [_, PROBE, _, _] => Some(InIndex::Clock),
            _ => None,
        };
        found.unwrap_or(InIndex::Other)
    }

    /// To what a recorded or listed object belongs. `None`: it lies in no folder of the node.
    pub fn place(&self, fqdn: &Fqdn, key: &ObjectKey) -> Option<Place> {
        let mut below = key.path().prefix_match(&self.node(fqdn))?;
        let folder = below.next()?;
        below.next()?;
        if folder.as_ref() == POOL {
            return Some(Place::Pool);
        }
        BackupName::existing(folder.as_ref()).ok().map(Place::Backup)
    }

    /// The whole backup index.
    pub fn index(&self) -> Path {
        self.key([INDEX, "backup_index"]).0
    }

    /// The index entries of one backup name.
    pub fn index_of(&self, name: &BackupName) -> Path {
        self.key([INDEX, "backup_index", name.as_str()]).0
    }

    pub fn index_entry(&self, name: &BackupName, fqdn: &Fqdn, kind: IndexKind) -> ObjectKey {
        let file = match kind {
            IndexKind::Tokenmap => format!("tokenmap_{fqdn}.json"),
            IndexKind::Schema => format!("schema_{fqdn}.cql"),
            IndexKind::Started(seconds) => format!("started_{fqdn}_{seconds}.timestamp"),
            IndexKind::Differential => format!("differential_{fqdn}"),
            IndexKind::Manifest => format!("manifest_{fqdn}.json"),
            IndexKind::Finished(seconds) => format!("finished_{fqdn}_{seconds}.timestamp"),
        };
        self.key([INDEX, "backup_index", name.as_str(), &file])
    }

    /// Takes an index entry apart. `None` for what Medusa and we never wrote there.
    pub fn parse_index_entry(&self, path: &Path) -> Option<IndexEntry> {
        let below: Vec<_> = path.prefix_match(&self.index())?.collect();
        let [name, file] = below.as_slice() else { return None };
        let name = BackupName::existing(name.as_ref()).ok()?;
        let (kind, rest) = file.as_ref().split_once('_')?;
        let stamped = |rest: &str| {
            let (fqdn, seconds) = rest.strip_suffix(".timestamp")?.rsplit_once('_')?;
            Some((fqdn.to_owned(), seconds.parse().ok()?))
        };
        let plain = |suffix: &str, kind| Some((rest.strip_suffix(suffix)?.to_owned(), kind));
        let (fqdn, kind) = match kind {
            "tokenmap" => plain(".json", IndexKind::Tokenmap)?,
            "schema" => plain(".cql", IndexKind::Schema)?,
            "manifest" => plain(".json", IndexKind::Manifest)?,
            "differential" | "incremental" => plain("", IndexKind::Differential)?,
            "started" => stamped(rest).map(|(fqdn, seconds)| (fqdn, IndexKind::Started(seconds)))?,
            "finished" => stamped(rest).map(|(fqdn, seconds)| (fqdn, IndexKind::Finished(seconds)))?,
            _ => return None,
        };
        Some(IndexEntry { name, fqdn: Fqdn::new(&fqdn).ok()?, kind })
    }

    pub fn latest_tokenmap(&self, fqdn: &Fqdn) -> ObjectKey {
        self.key([INDEX, "latest_backup", fqdn.as_str(), "tokenmap.json"])
    }

    pub fn latest_name(&self, fqdn: &Fqdn) -> ObjectKey {
        self.key([INDEX, "latest_backup", fqdn.as_str(), "backup_name.txt"])
    }

    /// An object of a storage check.
    pub fn check(&self, folder: &str, name: &str) -> ObjectKey {
        self.key([INDEX, CHECK, folder, name])
    }

    /// Everything of one storage check.
    pub fn check_folder(&self, folder: &str) -> Path {
        self.key([INDEX, CHECK, folder]).0
    }

    /// Everything of all storage checks.
    pub fn checks(&self) -> Path {
        self.key([INDEX, CHECK]).0
    }

    /// An object that tries a permission. Never a file of a backup, nor an index entry.
    pub fn probe(&self, spot: Spot<'_>, run: &str) -> ObjectKey {
        below(&self.probes(spot), [run])
    }

    /// All objects that try a permission there.
    pub fn probes(&self, spot: Spot<'_>) -> Path {
        // In a pool as deep as a file of a table: cassandra-medusa takes keys apart.
        match spot {
            Spot::Pool(fqdn) => self.key([fqdn.as_str(), POOL, PROBE, PROBE]),
            Spot::Full(fqdn) => self.key([fqdn.as_str(), PROBE, POOL, PROBE, PROBE]),
            Spot::Meta(fqdn) => self.key([fqdn.as_str(), PROBE, "meta"]),
            Spot::Index => self.key([INDEX, "backup_index", PROBE, PROBE]),
            Spot::Summaries => self.key([INDEX, "summaries", PROBE, PROBE]),
            Spot::Leases => self.key([INDEX, "leases", PROBE, PROBE]),
        }
        .0
    }

    /// An object that says what time it is.
    pub fn clock(&self, run: &uuid::Uuid) -> ObjectKey {
        self.key([INDEX, "clock", &run.simple().to_string()])
    }

    pub fn clocks(&self) -> Path {
        self.key([INDEX, "clock"]).0
    }

    /// `None`: its name would be too long for a file, or not be read again. Then the backup has no summary.
    pub fn summary(&self, name: &BackupName, fqdn: &Fqdn, summary: &Summary) -> Option<ObjectKey> {
        let file = format!("{fqdn}_{summary}{SUMMARY}");
        let fits = file.len() <= LONGEST_FILE_NAME && summary.has_text();
        fits.then(|| self.key([INDEX, "summaries", name.as_str(), &file]))
    }

    /// All summaries.
    pub fn summaries(&self) -> Path {
        self.key([INDEX, "summaries"]).0
    }

    /// The summaries of one backup name.
    pub fn summaries_of(&self, name: &BackupName) -> Path {
        self.key([INDEX, "summaries", name.as_str()]).0
    }

    /// Takes the key of a summary apart.
    pub fn parse_summary(&self, path: &Path) -> Option<SummaryEntry> {
        let below: Vec<_> = path.prefix_match(&self.summaries())?.collect();
        let [name, file] = below.as_slice() else { return None };
        let name = BackupName::existing(name.as_ref()).ok()?;
        let file = file.as_ref();
        if let Some(fqdn) = file.strip_suffix(".json") {
            return Some(SummaryEntry { name, fqdn: Fqdn::new(fqdn).ok()?, summary: None });
        }
        let file = file.strip_suffix(SUMMARY)?;
        let (at, _) = file.rmatch_indices('_').nth(Summary::FIELDS - 1)?;
        let summary = file[at + 1..].parse().ok()?;
        Some(SummaryEntry { name, fqdn: Fqdn::new(&file[..at]).ok()?, summary: Some(summary) })
    }

    /// Who works on a node's backups. Outside of everything that Medusa lists.
    pub fn lease(&self, fqdn: &Fqdn) -> ObjectKey {
        self.key(["index", "leases", &format!("{fqdn}.json")])
    }

    pub fn leases(&self) -> Path {
        self.key(["index", "leases"]).0
    }

    pub fn lease_of(&self, path: &Path) -> Option<Fqdn> {
        let mut below = path.prefix_match(&self.leases())?;
        let fqdn = below.next()?;
        if below.next().is_some() { None } else { Fqdn::new(fqdn.as_ref().strip_suffix(".json")?).ok() }
    }

    /// The backup names that a delimited listing of the node's folder shows.
    pub fn backup_folder(&self, fqdn: &Fqdn, folder: &Path) -> Option<BackupName> {
        let mut below = folder.prefix_match(&self.node(fqdn))?;
        let name = below.next()?;
        if below.next().is_some() || name.as_ref() == POOL {
            return None;
        }
        BackupName::existing(name.as_ref()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fqdn(name: &str) -> Fqdn {
        Fqdn::new(name).unwrap()
    }

    fn name(name: &str) -> BackupName {
        BackupName::existing(name).unwrap()
    }

    fn summary() -> Summary {
        "full_5_7_1_2_1_2_0123456789abcdef_cassandra_5.0.9".parse().unwrap()
    }

    #[test]
    fn names_with_separators_keep_their_summary() {
        let layout = Layout::new(None);
        let node = fqdn("a_b_1_2");
        let key = layout.summary(&name("b1"), &node, &summary()).unwrap();
        assert_eq!(layout.parse_summary(key.path()).unwrap().fqdn, node);
        assert_eq!(layout.summary(&name("b1"), &fqdn(&"n".repeat(220)), &summary()), None);
        let file = |file: &str| layout.parse_summary(&Path::from(format!("index/summaries/b1/{file}")));
        let old = SummaryEntry { name: name("b1"), fqdn: fqdn("n1"), summary: None };
        assert_eq!(file("n1.json"), Some(old));
        for other in ["n1", "n1.summary", "n1_full_5.summary", &summary().to_string()] {
            assert_eq!(file(other), None, "{other}");
        }
    }

    /// The keys as cassandra-medusa 0.31 writes them.
    #[test]
    fn keys_are_those_of_medusa() {
        let table = TableFolder::new("ks", "t-01").unwrap();
        let file = TableFile { index: None, name: "nb-1-big-Data.db".into() };
        let indexed = TableFile { index: Some(".t_idx".into()), name: "nb-1-big-Data.db".into() };
        let content = crate::model::digest::Sha256::of(b"abc");
        for (prefix, start) in [(None, ""), (Some("cluster A"), "cluster A/")] {
            let layout = Layout::new(prefix.map(str::to_owned));
            let (f, n) = (fqdn("node~1.example.net"), name("b%1"));
            let data = |pool, file, content| layout.data(&f, pool, &table, file, content).to_string();
            let entry = |kind| layout.index_entry(&n, &f, kind).to_string();
            let expected = [
                (layout.meta(&f, &n, Meta::Schema).to_string(), "node~1.example.net/b%1/meta/schema.cql"),
                (layout.meta(&f, &n, Meta::Manifest).to_string(), "node~1.example.net/b%1/meta/manifest.json"),
                (layout.meta(&f, &n, Meta::Differential).to_string(), "node~1.example.net/b%1/meta/differential"),
                (
                    layout.meta(&f, &n, Meta::ServerVersion).to_string(),
                    "node~1.example.net/b%1/meta/server_version.json",
                ),
                (data(Pool::Differential, &file, None), "node~1.example.net/data/ks/t-01/nb-1-big-Data.db"),
                (data(Pool::Differential, &indexed, None), "node~1.example.net/data/ks/t-01/.t_idx/nb-1-big-Data.db"),
                (data(Pool::Full(&n), &file, None), "node~1.example.net/b%1/data/ks/t-01/nb-1-big-Data.db"),
                (
                    data(Pool::Differential, &indexed, Some(&content.content_folder())),
                    "node~1.example.net/data/ks/t-01/ba7816bf8f01cfea/.t_idx/nb-1-big-Data.db",
                ),
                (entry(IndexKind::Tokenmap), "index/backup_index/b%1/tokenmap_node~1.example.net.json"),
                (entry(IndexKind::Schema), "index/backup_index/b%1/schema_node~1.example.net.cql"),
                (entry(IndexKind::Started(12)), "index/backup_index/b%1/started_node~1.example.net_12.timestamp"),
                (entry(IndexKind::Finished(13)), "index/backup_index/b%1/finished_node~1.example.net_13.timestamp"),
                (entry(IndexKind::Differential), "index/backup_index/b%1/differential_node~1.example.net"),
                (entry(IndexKind::Manifest), "index/backup_index/b%1/manifest_node~1.example.net.json"),
                (layout.latest_name(&f).to_string(), "index/latest_backup/node~1.example.net/backup_name.txt"),
                (layout.latest_tokenmap(&f).to_string(), "index/latest_backup/node~1.example.net/tokenmap.json"),
                (
                    layout.summary(&n, &f, &summary()).unwrap().to_string(),
                    "index/summaries/b%1/node~1.example.net_full_5_7_1_2_1_2_0123456789abcdef_cassandra_5.0.9.summary",
                ),
            ];
            for (key, suffix) in expected {
                assert_eq!(key, format!("{start}{suffix}"));
            }
        }
    }

    #[test]
    fn index_entries_are_taken_apart_as_they_were_built() {
        let layout = Layout::new(Some("p1".into()));
        for f in ["n1", "node_1.example.net", "10.0.0.1", "a_b_3"] {
            for kind in [
                IndexKind::Tokenmap,
                IndexKind::Schema,
                IndexKind::Started(-1),
                IndexKind::Finished(1_700_000_000),
                IndexKind::Differential,
                IndexKind::Manifest,
            ] {
                let entry = IndexEntry { name: name("b 1"), fqdn: fqdn(f), kind };
                let key = layout.index_entry(&entry.name, &entry.fqdn, kind);
                assert_eq!(layout.parse_index_entry(key.path()), Some(entry));
            }
        }
        let old = Path::parse("p1/index/backup_index/b/incremental_n1").unwrap();
        assert_eq!(layout.parse_index_entry(&old).unwrap().kind, IndexKind::Differential);
        for foreign in [
            "p1/index/backup_index/b/readme",
            "p1/index/backup_index/b/x_n1",
            "p1/index/backup_index/b/started_n1",
            "p1/index/backup_index/b/started_n1_x.timestamp",
            "p1/index/backup_index/tokenmap_n1.json",
            "p1/index/backup_index/b/c/tokenmap_n1.json",
            "p2/index/backup_index/b/tokenmap_n1.json",
        ] {
            assert_eq!(layout.parse_index_entry(&Path::parse(foreign).unwrap()), None, "{foreign}");
        }
    }

    #[test]
    fn recorded_paths_stay_in_the_folder_of_their_node() {
        let layout = Layout::new(Some("p1".into()));
        let own = "p1/n1/data/ks/t-1/nb-1-big-SAI+aa+t_sai+TermsData.db";
        assert_eq!(layout.recorded(&fqdn("n1"), own).unwrap().as_str(), own);
        for foreign in [
            "p1/n10/data/ks/t/f",
            "n1/data/ks/t/f",
            "p1/n1/../n2/data/f",
            "/p1/n1/data/f",
            "p1//n1/data/f",
            "p1/n1/data/f/",
            "",
        ] {
            assert!(layout.recorded(&fqdn("n1"), foreign).is_err(), "{foreign}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_key_makes_the_index_unreadable(
            folder in "(index/|p1/index/|backup_index/|summaries/|latest_backup/|n1/)?",
            file in "((tokenmap|schema|manifest|differential|incremental|started|finished)?_?[-a-z0-9_.é%/]{0,24}(.json|.cql|.timestamp)?)",
        ) {
            let Ok(path) = Path::parse(format!("{folder}{file}")) else { return Ok(()) };
            for layout in [Layout::new(None), Layout::new(Some("p1".into()))] {
                if let Some(entry) = layout.parse_index_entry(&path) {
                    let known = layout.index_entry(&entry.name, &entry.fqdn, entry.kind).to_string();
                    // Old markers and numbers with zeros in front are written otherwise.
                    let other_form = file.contains("incremental") || file.contains("_0") || file.contains("-0");
                    proptest::prop_assert!(known == path.as_ref() || other_form || file.contains('+'), "{} {}", known, path);
                }
                let _ = (layout.parse_in_index(&path), layout.node_folder(&path));
                let _ = layout.parse_in_node(&fqdn("n1"), &path);
                let _ = layout.backup_folder(&fqdn("n1"), &path);
            }
        }

        #[test]
        fn a_recorded_path_that_is_taken_stays_where_it_is(path in "(/|p1/|p1/n1/|n1/)?[-a-c.%/ é\\\\]{0,20}") {
            let layout = Layout::new(Some("p1".into()));
            if let Ok(key) = layout.recorded(&fqdn("n1"), &path) {
                proptest::prop_assert_eq!(key.as_str(), &path);
                proptest::prop_assert!(path.starts_with("p1/n1/"));
                proptest::prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }

    #[test]
    fn every_key_is_taken_apart_as_what_it_is() {
        let table = TableFolder::new("ks", "t-01").unwrap();
        let file = TableFile { index: Some(".i".into()), name: "nb-1-big-Data.db".into() };
        for prefix in [None, Some("p1".to_owned())] {
            let layout = Layout::new(prefix);
            let (f, n) = (fqdn("n1"), name("b 1"));
            let in_node = |key: ObjectKey| layout.parse_in_node(&f, key.path());
            assert_eq!(in_node(layout.data(&f, Pool::Differential, &table, &file, None)), InNode::Pool);
            assert_eq!(in_node(layout.data(&f, Pool::Full(&n), &table, &file, None)), InNode::Full(n.clone()));
            for meta in Meta::ALL {
                assert_eq!(in_node(layout.meta(&f, &n, meta)), InNode::Meta(n.clone()));
            }
            assert_eq!(in_node(layout.meta(&fqdn("n10"), &n, Meta::Schema)), InNode::Other);
            let key = layout.summary(&n, &f, &summary()).unwrap();
            assert_eq!(in_node(key.clone()), InNode::Other);
            let in_index = |key: ObjectKey| layout.parse_in_index(key.path());
            let entry = SummaryEntry { name: n.clone(), fqdn: f.clone(), summary: Some(summary()) };
            assert_eq!(in_index(key), InIndex::Summary(entry));
            assert_eq!(in_index(layout.lease(&f)), InIndex::Lease(f.clone()));
            assert_eq!(in_index(layout.latest_name(&f)), InIndex::Latest(f.clone()));
            assert_eq!(in_index(layout.latest_tokenmap(&f)), InIndex::Latest(f.clone()));
            let entry = IndexEntry { name: n.clone(), fqdn: f.clone(), kind: IndexKind::Started(5) };
            assert_eq!(in_index(layout.index_entry(&n, &f, entry.kind)), InIndex::Entry(entry));
            assert_eq!(in_index(layout.meta(&f, &n, Meta::Schema)), InIndex::Other);
            assert_eq!(layout.node_folder(&layout.node(&f)), Some(f.clone()));
            assert_eq!(layout.node_folder(&layout.whole_index()), None);
            assert_eq!(layout.node_folder(&layout.root()), None);
            assert_eq!(layout.node_folder(&layout.node_backup(&f, &n)), None);
        }
    }

    #[test]
    fn what_tries_a_permission_is_no_part_of_a_backup() {
        for prefix in [None, Some("p1".to_owned())] {
            let layout = Layout::new(prefix);
            let f = fqdn("n1");
            let probe = |spot| layout.probe(spot, "0123");
            // A purge takes it for garbage, and cassandra-medusa for what lies in the pool.
            assert_eq!(layout.parse_in_node(&f, probe(Spot::Pool(&f)).path()), InNode::Pool);
            let beside = [Spot::Full(&f), Spot::Meta(&f)].map(|spot| layout.parse_in_node(&f, probe(spot).path()));
            assert_eq!(beside, [InNode::Full(name(PROBE)), InNode::Meta(name(PROBE))]);
            assert!(BackupName::new(PROBE).is_err() && PROBE.starts_with(POOL) && PROBE.contains('-'));
            assert!(Meta::ALL.iter().all(|meta| layout.meta(&f, &name(PROBE), *meta) != probe(Spot::Meta(&f))));
            for spot in [Spot::Index, Spot::Summaries, Spot::Leases] {
                let key = probe(spot);
                assert_eq!(layout.parse_in_index(key.path()), InIndex::Clock, "{key}");
                assert_eq!(layout.parse_in_node(&f, key.path()), InNode::Other);
                assert_eq!(layout.place(&f, &key), None);
            }
            // cassandra-medusa passes over what is deeper in the index than entries, and dies on other names at their depth.
            let depth = |key: &ObjectKey| key.path().parts().count();
            let entry = layout.index_entry(&name("b1"), &f, IndexKind::Differential);
            assert!(depth(&probe(Spot::Index)) > depth(&entry));
        }
    }

    #[test]
    fn backup_folders_of_a_node_are_told_from_its_pool() {
        let layout = Layout::new(None);
        let folder = |path: &str| layout.backup_folder(&fqdn("n1"), &Path::parse(path).unwrap());
        assert_eq!(folder("n1/b1"), Some(name("b1")));
        assert_eq!(folder("n1/data"), None);
        assert_eq!(folder("n10/b1"), None);
        assert_eq!(folder("n1/b1/meta"), None);
    }

    #[test]
    fn what_lies_in_a_node_belongs_to_its_pool_or_to_one_backup() {
        for prefix in [None, Some("p1".to_owned())] {
            let layout = Layout::new(prefix);
            let place = |suffix: &str| {
                let path = below(&layout.root(), suffix.split('/'));
                layout.place(&fqdn("n1"), &path)
            };
            assert_eq!(place("n1/data/ks/t/f"), Some(Place::Pool));
            assert_eq!(place("n1/b1/data/ks/t/f"), Some(Place::Backup(name("b1"))));
            assert_eq!(place("n1/data-1/x"), Some(Place::Backup(name("data-1"))));
            for nothing in ["n1/data", "n10/data/ks/t/f", "index/data/f"] {
                assert_eq!(place(nothing), None, "{nothing}");
            }
        }
    }

    #[test]
    fn folders_of_nodes_are_told_from_the_index() {
        for (prefix, start) in [(None, ""), (Some("p1".to_owned()), "p1/")] {
            let layout = Layout::new(prefix);
            let node = |path: &str| layout.node_folder(&Path::parse(format!("{start}{path}")).unwrap());
            assert_eq!(node("n1"), Some(fqdn("n1")));
            assert_eq!(node("index"), None);
            assert_eq!(node("n1/b1"), None);
        }
        assert_eq!(Layout::new(Some("p1".into())).node_folder(&Path::parse("p2/n1").unwrap()), None);
    }
}
