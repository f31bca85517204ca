//! Whether what can be computed again (index, summaries, latest markers) agrees with the backups, and what lies in the bucket
//! that no backup needs. `meta/` is the truth.
//!
//! A problem endangers a backup or hides it, from us or from cassandra-medusa. All else is a note.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::one_line;
use crate::model::backups::BackupMode;
use crate::model::digest::Sha256;
use crate::model::look::Look;
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, Fqdn};
use crate::model::summary::{HostsDigest, Summary};
use crate::model::tokenmap::parse_hosts;
use crate::model::units::{counted, size, time, took};
use crate::monitor::Amount;
use crate::storage::layout::{InIndex, InNode, IndexKind, Meta, ObjectKey, Pool, SummaryEntry};
use crate::storage::{Storage, StorageError};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Endangers or hides a backup.
    Problem,
    Note,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    pub weight: Weight,
    pub object: String,
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// A backup that was begun and has no manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub name: BackupName,
    pub fqdn: Fqdn,
    /// Seconds since it was begun.
    pub age: u64,
}

#[derive(Debug)]
pub struct RepositoryReport {
    pub location: String,
    pub nodes: u64,
    /// Finished backups of nodes.
    pub node_backups: u64,
    /// What their manifests name, each object once.
    pub named: Amount,
    pub issues: Vec<Issue>,
    pub unfinished: Vec<Unfinished>,
    /// Data that no manifest names. `None`: a manifest is lost or cannot be read, so nobody can tell.
    pub garbage: BTreeMap<Fqdn, Option<Amount>>,
}

const BUILD_INDEX: &str = "medusa build-index writes it again";

/// The key of a summary with what it says. `None`: it is one of another version.
type Told = (ObjectKey, Option<Summary>);

/// What the index holds.
#[derive(Debug, Default)]
struct Index {
    entries: BTreeMap<(Fqdn, BackupName), Vec<IndexKind>>,
    summaries: BTreeMap<(Fqdn, BackupName), Vec<Told>>,
    latest: BTreeSet<Fqdn>,
    leases: BTreeSet<Fqdn>,
}

/// What is kept of a token map: it is large where nodes have many tokens, and a node has many backups.
#[derive(Debug, Clone)]
struct TokenmapFacts {
    /// `None`: it cannot be used.
    hosts: Option<HostsDigest>,
    hash: Sha256,
}

impl TokenmapFacts {
    fn of(bytes: &Bytes) -> Self {
        Self { hosts: parse_hosts(bytes).ok().map(|hosts| HostsDigest::of(&hosts)), hash: Sha256::of(bytes) }
    }
}

/// A node with what its manifests name.
struct NodeCheck<'a> {
    context: &'a Context,
    fqdn: &'a Fqdn,
    index: &'a Index,
    report: &'a mut RepositoryReport,
    named: HashSet<Box<str>>,
    /// Finished backups with their time and token map.
    finished: Vec<(i64, BackupName, Option<TokenmapFacts>)>,
    existing: BTreeSet<BackupName>,
    all_readable: bool,
}

/// Looks at the whole repository. What cannot be read is reported and hides nothing else.
pub async fn check(context: &Context) -> anyhow::Result<RepositoryReport> {
    let storage = &context.storage;
    let mut report = RepositoryReport {
        location: storage.location().to_owned(),
        nodes: 0,
        node_backups: 0,
        named: Amount::default(),
        issues: Vec::new(),
        unfinished: Vec::new(),
        garbage: BTreeMap::new(),
    };
    let index = read_index(storage, &mut report).await?;
    let mut nodes: BTreeMap<Fqdn, BTreeSet<BackupName>> = BTreeMap::new();
    for (fqdn, names) in storage.node_folders().await? {
        nodes.entry(fqdn).or_default().extend(names);
    }
    for (fqdn, name) in index.entries.keys() {
        nodes.entry(fqdn.clone()).or_default().insert(name.clone());
    }
    check_leases(context, &index, &mut report).await?;
    let transfer = context.monitor.count("nodes", nodes.len());
    for (fqdn, names) in &nodes {
        context.interrupt.check()?;
        transfer.counters.add_file();
        let mut node = NodeCheck {
            context,
            fqdn,
            index: &index,
            report: &mut report,
            named: HashSet::new(),
            finished: Vec::new(),
            existing: BTreeSet::new(),
            all_readable: true,
        };
        if let Err(error) = node.check(names).await {
            context.interrupt.check()?;
            report.issue(
                Weight::Problem,
                fqdn,
                format!("could not be checked: {}", one_line(&error)),
                "look at the storage",
            );
        }
    }
    report.issues.sort();
    Ok(report)
}

async fn read_index(storage: &Storage, report: &mut RepositoryReport) -> anyhow::Result<Index> {
    let mut index = Index::default();
    let mut listing = storage.list(&storage.layout().whole_index());
    while let Some(object) = listing.try_next().await? {
        match storage.layout().parse_in_index(&object.location) {
            InIndex::Entry(entry) => index.entries.entry((entry.fqdn, entry.name)).or_default().push(entry.kind),
            InIndex::Summary(SummaryEntry { name, fqdn, summary }) => {
                index.summaries.entry((fqdn, name)).or_default().push((ObjectKey::listed(object.location), summary));
            }
            InIndex::Latest(fqdn) => drop(index.latest.insert(fqdn)),
            InIndex::Lease(fqdn) => drop(index.leases.insert(fqdn)),
            InIndex::Clock => {
                let what = "was left by a command that was killed";
                report.issue(Weight::Note, &object.location, what, "medusa purge removes it");
            }
            InIndex::Other => report.unknown(&object.location),
        }
    }
    Ok(index)
}

/// Who works on the bucket, or did. Nothing is written, so the time is that of this host.
async fn check_leases(context: &Context, index: &Index, report: &mut RepositoryReport) -> anyhow::Result<()> {
    for fqdn in &index.leases {
        context.interrupt.check()?;
        let key = context.storage.layout().lease(fqdn);
        let found = match context.storage.look_at_lease(fqdn).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                let what = format!("could not be read: {}", one_line(&error));
                report.issue(Weight::Note, &key, what, "look at the storage");
                continue;
            }
        };
        let until = time(found.until().timestamp());
        let is_over = found.is_stale || context.now > found.until();
        let (what, mend) = match &found.terms {
            _ if is_over => ("is a lease that nobody renews".to_owned(), "the next command takes it over".into()),
            None => (
                format!("is a lease that cannot be read; it keeps others away until {until}"),
                format!("then the next command takes it over; medusa leases --break {fqdn} removes it"),
            ),
            Some(terms) => (
                format!("is held until {until}: {}", terms.describe(fqdn)),
                "it goes when that is done, and what is noted here may be what is being done".into(),
            ),
        };
        report.issue(Weight::Note, &key, what, mend);
    }
    Ok(())
}

impl NodeCheck<'_> {
    async fn check(&mut self, names: &BTreeSet<BackupName>) -> anyhow::Result<()> {
        for name in names {
            self.context.interrupt.check()?;
            self.check_backup(name).await?;
        }
        for ((fqdn, name), summaries) in &self.index.summaries {
            if fqdn == self.fqdn && !self.existing.contains(name) {
                for (key, _) in summaries {
                    self.note(key, "speaks of a backup that is gone", "it does no harm");
                }
            }
        }
        self.check_latest().await?;
        self.check_objects().await
    }

    fn issue(&mut self, weight: Weight, key: &ObjectKey, what: impl Into<String>, mend: impl Into<String>) {
        self.report.issue(weight, key, what, mend);
    }

    fn note(&mut self, key: &ObjectKey, what: impl Into<String>, mend: impl Into<String>) {
        self.issue(Weight::Note, key, what, mend);
    }

    async fn check_backup(&mut self, name: &BackupName) -> anyhow::Result<()> {
        let (storage, fqdn) = (&self.context.storage, self.fqdn);
        let layout = storage.layout();
        let kinds = self.index.entries.get(&(fqdn.clone(), name.clone())).map_or(&[][..], Vec::as_slice);
        let schema = storage.head(&layout.meta(fqdn, name, Meta::Schema)).await?;
        let manifest_key = layout.meta(fqdn, name, Meta::Manifest);
        let has_manifest = storage.head(&manifest_key).await?.is_some();
        let schema_key = layout.meta(fqdn, name, Meta::Schema);
        let delete = format!("medusa --fqdn {fqdn} delete-backup --backup-name {name} removes what is left");
        match (&schema, has_manifest) {
            (None, false) => {
                if let Some(kind) = kinds.first() {
                    let entry = layout.index_entry(name, fqdn, *kind);
                    self.note(&entry, "is of a backup that is gone", delete);
                }
                return Ok(());
            }
            (None, true) => {
                self.existing.insert(name.clone());
                let what = "is missing, so that the backup is not seen, although it has a manifest";
                let mend = "copy it from the index, or from another backup of the same time";
                self.issue(Weight::Problem, &schema_key, what, mend);
            }
            (Some(schema), false) => {
                self.existing.insert(name.clone());
                let age = self.context.now.timestamp() - schema.last_modified.timestamp();
                let age = u64::try_from(age).unwrap_or(0);
                self.report.unfinished.push(Unfinished { name: name.clone(), fqdn: fqdn.clone(), age });
                let copy = kinds.contains(&IndexKind::Manifest);
                if copy || kinds.iter().any(|kind| matches!(kind, IndexKind::Finished(_))) {
                    self.all_readable = false;
                    let mend = if copy {
                        format!("copy {} there", layout.index_entry(name, fqdn, IndexKind::Manifest))
                    } else {
                        format!("the backup is lost; {delete}")
                    };
                    let what = "is gone, although the index says that the backup is finished";
                    self.issue(Weight::Problem, &manifest_key, what, mend);
                }
                return Ok(());
            }
            (Some(_), true) => drop(self.existing.insert(name.clone())),
        }
        let manifest = match storage.manifest(fqdn, name).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(()),
            Err(error) if StorageError::is_cause_of(&error) => return Err(error),
            Err(error) => {
                self.all_readable = false;
                let mend = "copy it from the index if that copy is sound; else the backup is lost";
                self.issue(Weight::Problem, &manifest_key, format!("cannot be read: {}", one_line(&error)), mend);
                return self.check_copies(name, kinds, true).await;
            }
        };
        self.report.node_backups += 1;
        self.check_copies(name, kinds, self.uses_pool(&manifest)).await?;
        self.check_summaries(name, &manifest);
        for object in manifest.sections.into_iter().flat_map(|section| section.objects) {
            let size = object.size;
            if self.named.insert(object.path) {
                self.report.named.files += 1;
                self.report.named.bytes = self.report.named.bytes.saturating_add(size);
            }
        }
        Ok(())
    }

    fn uses_pool(&self, manifest: &Manifest) -> bool {
        let pool = self.context.storage.layout().pool(self.fqdn, Pool::Differential);
        manifest
            .objects()
            .any(|object| object.path.strip_prefix(pool.as_ref()).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The index entries of a backup that has a manifest, each against what it is a copy of.
    async fn check_copies(&mut self, name: &BackupName, kinds: &[IndexKind], in_pool: bool) -> anyhow::Result<()> {
        let (storage, fqdn) = (&self.context.storage, self.fqdn);
        let layout = storage.layout();
        let read = async |meta| storage.read(&layout.meta(fqdn, name, meta)).await;
        let marker = read(Meta::Differential).await?.is_some() || read(Meta::Incremental).await?.is_some();
        if in_pool && !marker {
            let key = layout.meta(fqdn, name, Meta::Differential);
            let what = "is missing: a purge by cassandra-medusa would delete the files that the backup needs";
            self.issue(Weight::Problem, &key, what, "write it again: its content is the word differential");
        }
        let tokenmap = read(Meta::Tokenmap).await?;
        for (kind, meta) in [
            (IndexKind::Tokenmap, Meta::Tokenmap),
            (IndexKind::Schema, Meta::Schema),
            (IndexKind::Manifest, Meta::Manifest),
        ] {
            let entry = layout.index_entry(name, fqdn, kind);
            let original = read(meta).await?;
            match (storage.read(&entry).await?, original) {
                (None, _) => self.missing_entry(&entry),
                (Some(copy), Some(original)) if copy != original => {
                    let original = layout.meta(fqdn, name, meta);
                    let mend = format!(
                        "if medusa verify --backup-name {name} --read-data finds no fault in the backup, {BUILD_INDEX}"
                    );
                    self.issue(Weight::Problem, &entry, format!("is not the same as {original}"), mend);
                }
                (Some(_), None) if meta == Meta::Tokenmap => {
                    let key = layout.meta(fqdn, name, meta);
                    self.issue(Weight::Problem, &key, "is missing, and a restore needs it", "copy it from the index");
                }
                _ => {}
            }
        }
        let has = |wanted: fn(&IndexKind) -> bool| kinds.iter().any(wanted);
        if marker && !has(|kind| *kind == IndexKind::Differential) {
            self.missing_entry(&layout.index_entry(name, fqdn, IndexKind::Differential));
        }
        // Their names carry a time, which is not known here.
        for (word, found) in [
            ("started", has(|kind| matches!(kind, IndexKind::Started(_)))),
            ("finished", has(|kind| matches!(kind, IndexKind::Finished(_)))),
        ] {
            if !found {
                let folder = layout.index_of(name);
                let what = format!("has no entry {word}_{fqdn}_…, so that the backup is not seen as it is");
                self.report.issue(Weight::Problem, &folder, what, BUILD_INDEX);
            }
        }
        let mut finished = None;
        for kind in kinds {
            let (IndexKind::Started(at) | IndexKind::Finished(at)) = kind else { continue };
            let entry = layout.index_entry(name, fqdn, *kind);
            let content = storage.read(&entry).await?.unwrap_or_default();
            if content != at.to_string().as_bytes() {
                self.note(&entry, "holds another time than its name says", BUILD_INDEX);
            }
            if matches!(kind, IndexKind::Finished(_)) {
                finished = finished.max(Some(*at));
            }
        }
        if let Some(finished) = finished {
            self.finished.push((finished, name.clone(), tokenmap.as_ref().map(TokenmapFacts::of)));
        }
        Ok(())
    }

    fn missing_entry(&mut self, entry: &ObjectKey) {
        self.issue(Weight::Problem, entry, "is missing, so that the backup is not seen as it is", BUILD_INDEX);
    }

    /// Backups of Medusa have none.
    fn check_summaries(&mut self, name: &BackupName, manifest: &Manifest) {
        let summaries = self.index.summaries.get(&(self.fqdn.clone(), name.clone())).map_or(&[][..], Vec::as_slice);
        let known = self.finished.iter().find(|(_, known, _)| known == name);
        let finished = known.map(|(at, ..)| *at);
        let hosts = known.and_then(|(.., tokenmap)| tokenmap.as_ref()?.hosts.clone());
        for (key, summary) in summaries {
            let Some(summary) = summary else {
                self.note(key, "cannot be read, so that listings read the manifest", BUILD_INDEX);
                continue;
            };
            let says = (summary.num_objects, summary.size);
            let is = (manifest.object_count(), manifest.total_bytes());
            let mode = if self.uses_pool(manifest) { BackupMode::Differential } else { BackupMode::Full };
            if Some(summary.finished) != finished {
                self.note(key, "speaks of an earlier backup of that name", "it does no harm");
            } else if says != is {
                let what = format!("says {} objects and {} bytes, the manifest {} and {}", says.0, says.1, is.0, is.1);
                self.note(key, what, BUILD_INDEX);
            } else if summary.mode != mode && says.0 > 0 {
                self.note(key, format!("says {}, the manifest {mode}", summary.mode), BUILD_INDEX);
            } else if hosts.as_ref().is_some_and(|hosts| *hosts != summary.hosts) {
                self.note(key, "was written for other nodes than the token map names", BUILD_INDEX);
            }
        }
    }

    /// What the latest marker is for: the next backup finds the newest manifest by it, and reports the newest backup.
    async fn check_latest(&mut self) -> anyhow::Result<()> {
        let (storage, fqdn) = (&self.context.storage, self.fqdn);
        let (name_key, tokenmap_key) = (storage.layout().latest_name(fqdn), storage.layout().latest_tokenmap(fqdn));
        let newest = self.finished.iter().max_by_key(|(at, ..)| *at).cloned();
        let Some((newest_at, newest, _)) = newest else {
            if self.index.latest.contains(fqdn) {
                self.note(&name_key, "stays, although the node has no finished backup", BUILD_INDEX);
            }
            return Ok(());
        };
        let named = storage.latest_name(fqdn).await?;
        let marked = named.as_ref().and_then(|name| self.finished.iter().find(|(_, known, _)| known == name)).cloned();
        match marked {
            None => self.note(&name_key, format!("names no finished backup; the newest is {newest}"), BUILD_INDEX),
            Some((at, name, _)) if at < newest_at => {
                self.note(&name_key, format!("names {name}, but {newest} is newer"), BUILD_INDEX);
            }
            Some((_, name, tokenmap)) => {
                let copy = storage.read(&tokenmap_key).await?.as_deref().map(Sha256::of);
                if copy != tokenmap.map(|tokenmap| tokenmap.hash) {
                    self.note(&tokenmap_key, format!("is not the token map of {name}"), BUILD_INDEX);
                }
            }
        }
        Ok(())
    }

    /// Everything in the node's folder that no backup names.
    async fn check_objects(&mut self) -> anyhow::Result<()> {
        let (storage, fqdn) = (&self.context.storage, self.fqdn);
        let mut listing = storage.list(&storage.layout().node(fqdn));
        let mut garbage = Amount::default();
        let mut unknown = Vec::new();
        let mut found = false;
        while let Some(object) = self.context.interrupt.or(listing.try_next()).await? {
            found = true;
            if self.named.contains(object.location.as_ref()) {
                continue;
            }
            match storage.layout().parse_in_node(fqdn, &object.location) {
                InNode::Meta(name) if self.existing.contains(&name) => {}
                // An unfinished backup has no manifest that could name its files.
                InNode::Full(name)
                    if self.report.unfinished.iter().any(|one| one.name == name && one.fqdn == *fqdn) => {}
                // Folders of another prefix look like backups, too.
                InNode::Full(name) if self.existing.contains(&name) => garbage.add(object.size),
                InNode::Pool if !self.existing.is_empty() => garbage.add(object.size),
                _ => unknown.push(object.location),
            }
        }
        if !self.existing.is_empty() {
            self.report.nodes += 1;
        }
        if garbage.files > 0 {
            self.report.garbage.insert(fqdn.clone(), self.all_readable.then_some(garbage));
        }
        if found && self.existing.is_empty() {
            let what = format!("holds {} and no backup", counted(unknown.len() as u64, "object"));
            let folder = storage.layout().node(fqdn);
            self.report.issue(Weight::Note, &folder, what, "another prefix, or what is left of a node's backups");
        } else {
            for path in &unknown {
                self.report.unknown(path);
            }
        }
        Ok(())
    }
}

impl RepositoryReport {
    fn issue(&mut self, weight: Weight, object: &impl ToString, what: impl Into<String>, mend: impl Into<String>) {
        self.issues.push(Issue { weight, object: object.to_string(), what: what.into(), mend: mend.into() });
    }

    fn unknown(&mut self, path: &impl ToString) {
        self.issue(Weight::Note, path, "is nothing that belongs into this layout", "look who put it there");
    }

    pub fn problems(&self) -> usize {
        self.issues.iter().filter(|issue| issue.weight == Weight::Problem).count()
    }

    pub fn is_good(&self) -> bool {
        self.problems() == 0
    }

    pub fn text(&self, look: Look) -> String {
        let head = format!(
            "{}   {}, {} of nodes, {}, {}",
            self.location,
            counted(self.nodes, "node"),
            counted(self.node_backups, "finished backup"),
            counted(self.named.files, "object"),
            size(self.named.bytes)
        );
        let mut text = look.folded(&head, 2);
        for Issue { weight, object, what, mend } in &self.issues {
            let weight = if *weight == Weight::Problem { "problem" } else { "note" };
            text.push_str(&look.labelled(weight, 10, &format!("{object} {what}")));
            text.push_str(&look.labelled("", 10, mend));
        }
        for Unfinished { name, fqdn, age } in &self.unfinished {
            let age = took(Duration::from_secs(*age));
            text.push_str(&look.labelled("unfinished", 10, &format!("{name} of {fqdn}, begun {age} ago")));
            let mend = format!(
                "medusa backup-node --backup-name {name} on that node finishes it, \
                 medusa --fqdn {fqdn} delete-backup --backup-name {name} removes it"
            );
            text.push_str(&look.labelled("", 10, &mend));
        }
        for (fqdn, garbage) in &self.garbage {
            let _ = match garbage {
                Some(garbage) => writeln!(
                    text,
                    "  garbage    {fqdn}: {}, {} that no manifest names\n             \
                     medusa purge deletes them after their grace period",
                    counted(garbage.files, "object"),
                    size(garbage.bytes)
                ),
                None => writeln!(text, "  garbage    {fqdn}: cannot be told without all manifests"),
            };
        }
        let _ = match self.problems() {
            0 => writeln!(text, "No backup is endangered or hidden."),
            problems => writeln!(text, "{}.", counted(problems as u64, "problem")),
        };
        text
    }

    pub fn json(&self) -> Value {
        let issue = |Issue { weight, object, what, mend }: &Issue| json!({ "problem": *weight == Weight::Problem, "object": object, "what": what, "mend": mend });
        let unfinished = |Unfinished { name, fqdn, age }: &Unfinished| json!({ "name": name.as_str(), "fqdn": fqdn.as_str(), "age_seconds": age });
        let garbage = |(fqdn, garbage): (&Fqdn, &Option<Amount>)| {
            json!({
                "fqdn": fqdn.as_str(),
                "objects": garbage.map(|garbage| garbage.files),
                "bytes": garbage.map(|garbage| garbage.bytes),
            })
        };
        json!({
            "version": 1,
            "ok": self.is_good(),
            "problems": self.problems(),
            "nodes": self.nodes,
            "node_backups": self.node_backups,
            "objects": self.named.files,
            "bytes": self.named.bytes,
            "issues": self.issues.iter().map(issue).collect::<Vec<_>>(),
            "unfinished": self.unfinished.iter().map(unfinished).collect::<Vec<_>>(),
            "garbage": self.garbage.iter().map(garbage).collect::<Vec<_>>(),
        })
    }
}
