//! Checks everything that one node's backups name. The pool is listed once, and an object is read once, however many backups
//! name it.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::{Depth, Fault, Finding, NodeReport, Unknown};
use crate::context::Context;
use crate::error::one_line;
use crate::model::backups::{BackupMode, NodeBackup, ServerVersion};
use crate::model::cql::{self, Subject};
use crate::model::digest::{self, ContentDigest, RecordedMd5, Sha256};
use crate::model::manifest::Manifest;
use crate::model::names::Fqdn;
use crate::model::tokenmap::Tokenmap;
use crate::model::units::{count, rate, size};
use crate::monitor::Amount;
use crate::storage::blocking::on_threads;
use crate::storage::layout::{Meta, ObjectKey, Pool};
use crate::storage::transfer::{TransferError, Watch};
use crate::storage::{Storage, StorageError};

/// A report for each backup, in the order of the question.
pub(super) struct Checked {
    pub(super) reports: Vec<NodeReport>,
    pub(super) read: Amount,
}

/// What manifests say of one object. Usually all of them say the same.
#[derive(Debug)]
struct Record {
    size: u64,
    sha256: Option<Sha256>,
    md5: RecordedMd5,
    /// Which of the backups say so.
    backups: Vec<u32>,
    fault: Option<Fault>,
}

/// Everything that the manifests of a node name.
#[derive(Debug, Default)]
struct Expected {
    by_path: HashMap<Box<str>, (Vec<Record>, Seen)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Listed,
}

/// Checks the backups of one node. Only an interrupt is an error; all else is reported.
pub(super) async fn check(
    context: &Context,
    fqdn: &Fqdn,
    backups: &[NodeBackup],
    depth: Depth,
) -> anyhow::Result<Checked> {
    let mut reports: Vec<_> = backups.iter().map(|_| NodeReport::new(fqdn)).collect();
    let mut expected = Expected::default();
    let reading = context.monitor.count("manifests", backups.len());
    for (index, (backup, report)) in backups.iter().zip(&mut reports).enumerate() {
        match context.interrupt.or(look_at_meta(&context.storage, backup, report)).await {
            Ok(Some(manifest)) => {
                report.objects = Amount { files: manifest.object_count(), bytes: manifest.total_bytes() };
                expected.add(u32::try_from(index)?, manifest);
            }
            Ok(None) => {}
            Err(error) => not_checked(context, report, &error)?,
        }
        reading.counters.add_file();
    }
    drop(reading);
    let mut read = Amount::default();
    if let Err(error) = compare_with_listings(context, fqdn, backups, &mut expected, &mut reports).await {
        for report in &mut reports {
            not_checked(context, report, &error)?;
        }
        return Ok(Checked { reports, read });
    }
    if depth != Depth::Listed {
        read = read_objects(context, fqdn, depth, &mut expected, &mut reports).await?;
    }
    expected.tell(&mut reports);
    for report in &mut reports {
        report.findings.sort_by(|a, b| a.path.cmp(&b.path));
        report.only_size_known.sort_unstable();
    }
    Ok(Checked { reports, read })
}

fn not_checked(context: &Context, report: &mut NodeReport, error: &anyhow::Error) -> anyhow::Result<()> {
    context.interrupt.check()?;
    report.unknown.get_or_insert_with(|| Unknown::Storage(one_line(error)));
    Ok(())
}

/// Reads what stands beside the data and returns the manifest. An error means that the storage failed.
async fn look_at_meta(
    storage: &Storage,
    backup: &NodeBackup,
    report: &mut NodeReport,
) -> anyhow::Result<Option<Manifest>> {
    let (fqdn, name) = (&backup.fqdn, &backup.name);
    let manifest = match storage.manifest(fqdn, name).await {
        // Every node has tables of its own. cassandra-medusa writes such a one where nodetool failed.
        Ok(Some(manifest)) if manifest.sections.is_empty() => {
            Err("it names no table: no snapshot was taken".to_owned())
        }
        Ok(manifest) => manifest.ok_or_else(|| "it is gone".to_owned()),
        Err(error) if StorageError::is_cause_of(&error) => return Err(error),
        Err(error) => Err(one_line(&error)),
    };
    let is_ours = manifest.as_ref().is_ok_and(|manifest| manifest.objects().any(|object| object.sha256.is_some()));
    let mut schema: Option<Bytes> = None;
    for meta in [Meta::Schema, Meta::SchemaInternals, Meta::Tokenmap, Meta::ServerVersion] {
        let key = storage.layout().meta(fqdn, name, meta);
        let content = storage.read(&key).await?;
        let fault = match &content {
            Some(content) => {
                let differs =
                    || (meta == Meta::SchemaInternals).then(|| other_tables(schema.as_ref()?, content)).flatten();
                meta_fault(meta, content).or_else(differs).map(Fault::Unusable)
            }
            // Medusa writes no internals, and its old versions wrote no version.
            None if is_ours || matches!(meta, Meta::Schema | Meta::Tokenmap) => Some(Fault::Missing),
            None => None,
        };
        if meta == Meta::Schema && fault.is_none() {
            schema = content;
        }
        report.findings.extend(fault.map(|fault| Finding { path: key.as_str().into(), fault }));
    }
    manifest.map(Some).or_else(|why| {
        report.unknown = Some(Unknown::Manifest(why));
        Ok(None)
    })
}

/// Why such a document cannot be used, as far as it can be told by itself.
fn meta_fault(meta: Meta, content: &[u8]) -> Option<String> {
    match meta {
        Meta::Schema | Meta::SchemaInternals => {
            let Ok(text) = std::str::from_utf8(content) else { return Some("is no text".into()) };
            let text = text.trim_end();
            match text {
                // There may be no keyspace but Cassandra's own, which the internals leave out.
                "" => (meta == Meta::Schema).then(|| "is empty".into()),
                _ => (!text.ends_with(';') && !text.ends_with("*/")).then(|| "does not end with a statement".into()),
            }
        }
        Meta::Tokenmap => Tokenmap::parse(content).err().map(|error| format!("is no token map: {error}")),
        Meta::ServerVersion => {
            serde_json::from_slice::<ServerVersion>(content).err().map(|error| format!("names no version: {error}"))
        }
        Meta::Differential | Meta::Incremental | Meta::Manifest => None,
    }
}

/// What the two forms of the schema disagree about. The internals leave out Cassandra's own keyspaces.
fn other_tables(schema: &[u8], internals: &[u8]) -> Option<String> {
    let defined = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let subjects = cql::statements(&text).into_iter().map(cql::subject);
        let named = subjects.filter_map(|subject| match subject {
            Subject::Keyspace(keyspace) => Some((keyspace, String::new())),
            Subject::Table(keyspace, table) => Some((keyspace, table)),
            _ => None,
        });
        let of_users = |keyspace: &str| keyspace != "system" && !keyspace.starts_with("system_");
        named.filter(|(keyspace, _)| of_users(keyspace)).collect::<BTreeSet<_>>()
    };
    let (schema, internals) = (defined(schema), defined(internals));
    let (keyspace, table) = schema.symmetric_difference(&internals).next()?;
    let what = if table.is_empty() { keyspace.clone() } else { format!("{keyspace}.{table}") };
    Some(format!("and schema.cql do not both define {what}"))
}

impl Expected {
    fn add(&mut self, backup: u32, manifest: Manifest) {
        for object in manifest.sections.into_iter().flat_map(|section| section.objects) {
            let (size, sha256, md5) = (object.size, object.sha256, object.recorded_md5());
            let (records, _) = self.by_path.entry(object.path).or_insert_with(|| (Vec::with_capacity(1), Seen::No));
            let same = |record: &&mut Record| (record.size, record.sha256) == (size, sha256) && record.md5 == md5;
            match records.iter_mut().find(same) {
                Some(record) => record.backups.push(backup),
                None => records.push(Record { size, sha256, md5, backups: vec![backup], fault: None }),
            }
        }
    }

    fn names_below(&self, pool: &Path) -> bool {
        self.by_path.keys().any(|path| is_below(pool, path))
    }

    /// Hands what was found to the reports of the backups that name the object.
    fn tell(self, reports: &mut [NodeReport]) {
        for (path, (records, _)) in self.by_path {
            for record in records {
                let Some(fault) = record.fault else { continue };
                let rewritten = record.sha256.is_none() && is_rewritten_in_place(&path);
                // What is empty was never written to its end.
                let tolerated = rewritten && matches!(fault, Fault::WrongSize { found: 1.., .. } | Fault::WrongHash);
                if tolerated {
                    tracing::warn!("{path} was rewritten by cassandra-medusa after this backup; Cassandra can read it");
                }
                for backup in record.backups {
                    let report = &mut reports[backup as usize];
                    if tolerated {
                        report.rewritten += 1;
                    } else {
                        report.findings.push(Finding { path: path.clone(), fault: fault.clone() });
                    }
                }
            }
        }
    }
}

/// Medusa overwrites these two when Cassandra rewrites them, and Cassandra can do without the exact bytes.
fn is_rewritten_in_place(path: &str) -> bool {
    ["-Statistics.db", "-Summary.db"].iter().any(|end| path.ends_with(end))
}

fn is_below(folder: &Path, path: &str) -> bool {
    path.strip_prefix(folder.as_ref()).is_some_and(|rest| rest.starts_with('/'))
}

impl Record {
    fn look_at_listed(&mut self, found: &ObjectMeta) {
        if self.size != found.size {
            self.fault = Some(Fault::WrongSize { expected: self.size, found: found.size });
        } else if contradicts(&self.md5, &RecordedMd5::parse(found.e_tag.as_deref())) {
            self.fault = Some(Fault::WrongHash);
        }
    }

    /// Whether something was recorded that the content may be compared with.
    fn is_comparable(&self, part_size: u64) -> bool {
        match self.md5 {
            _ if self.sha256.is_some() => true,
            RecordedMd5::Whole(_) => true,
            RecordedMd5::Parts(..) => !digest::part_sizes(self.size, part_size, [self.md5.clone()]).is_empty(),
            RecordedMd5::Unknown => false,
        }
    }

    /// Returns whether it could be compared.
    fn look_at_content(&mut self, found: &ContentDigest, part_size: u64) -> bool {
        let is_same = match self.sha256 {
            Some(sha256) => Some(sha256 == found.sha256),
            None => found.matches(&self.md5, part_size),
        };
        if self.size != found.size {
            self.fault = Some(Fault::WrongSize { expected: self.size, found: found.size });
        } else if is_same == Some(false) {
            self.fault = Some(Fault::WrongHash);
        }
        self.fault.is_some() || is_same.is_some()
    }
}

/// Digests of the same form that differ. Other forms say nothing about each other.
fn contradicts(recorded: &RecordedMd5, listed: &RecordedMd5) -> bool {
    match (recorded, listed) {
        (RecordedMd5::Whole(recorded), RecordedMd5::Whole(listed)) => recorded != listed,
        (RecordedMd5::Parts(recorded, n), RecordedMd5::Parts(listed, m)) => n == m && recorded != listed,
        _ => false,
    }
}

/// Lists the pools that the manifests name, each once.
async fn compare_with_listings(
    context: &Context,
    fqdn: &Fqdn,
    backups: &[NodeBackup],
    expected: &mut Expected,
    reports: &mut [NodeReport],
) -> anyhow::Result<()> {
    let (storage, layout) = (&context.storage, context.storage.layout());
    let shared = layout.pool(fqdn, Pool::Differential);
    let own = backups.iter().enumerate().filter_map(|(index, backup)| {
        let pool = layout.pool(fqdn, Pool::Full(&backup.name));
        // Without its manifest nobody knows what belongs to it.
        let known = reports[index].unknown.is_none();
        (known && (backup.mode == BackupMode::Full || expected.names_below(&pool))).then_some((pool, Some(index)))
    });
    let mut pools: Vec<_> = own.collect();
    if expected.names_below(&shared) {
        pools.push((shared, None));
    }
    for (pool, owner) in &pools {
        let mut listing = storage.list(pool);
        while let Some(found) = context.interrupt.or(listing.try_next()).await? {
            match (expected.by_path.get_mut(found.location.as_ref()), owner) {
                (Some((records, seen)), _) => {
                    *seen = Seen::Listed;
                    for record in records {
                        record.look_at_listed(&found);
                    }
                }
                (None, Some(owner)) => {
                    let path = found.location.as_ref().into();
                    reports[*owner].findings.push(Finding { path, fault: Fault::Unreferenced });
                }
                (None, None) => {}
            }
        }
    }
    for (path, (records, seen)) in &mut expected.by_path {
        if *seen == Seen::Listed {
            continue;
        }
        let listed = pools.iter().any(|(pool, _)| is_below(pool, path));
        let found = if listed { None } else { storage.head(&layout.recorded(fqdn, path)?).await? };
        match found {
            Some(found) => records.iter_mut().for_each(|record| record.look_at_listed(&found)),
            None => records.iter_mut().for_each(|record| record.fault = Some(Fault::Missing)),
        }
    }
    Ok(())
}

/// An object to read.
#[derive(Debug)]
struct ToRead {
    key: ObjectKey,
    size: u64,
    /// In which MD5 is computed. `None`: it is not needed.
    part_sizes: Option<Vec<u64>>,
}

/// Reads every object that is there and of whose content something was recorded. Returns what could be compared.
async fn read_objects(
    context: &Context,
    fqdn: &Fqdn,
    depth: Depth,
    expected: &mut Expected,
    reports: &mut [NodeReport],
) -> anyhow::Result<Amount> {
    let (storage, part_size) = (&context.storage, context.config.storage.multipart_chunksize);
    let mut objects = Vec::new();
    for (path, (records, _)) in &expected.by_path {
        let mut sound = records.iter().filter(|record| record.fault.is_none()).peekable();
        if sound.peek().is_none() || !depth.reads(path) {
            continue;
        }
        let size = records[0].size;
        let comparable: Vec<_> = sound.filter(|record| record.is_comparable(part_size)).collect();
        if comparable.is_empty() {
            only_size_known(path, records, reports);
            continue;
        }
        let by_md5 = || comparable.iter().filter(|record| record.sha256.is_none());
        let recorded = by_md5().map(|record| record.md5.clone());
        let part_sizes = by_md5().next().map(|_| digest::part_sizes(size, part_size, recorded));
        objects.push(ToRead { key: storage.layout().recorded(fqdn, path)?, size, part_sizes });
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let begin = Instant::now();
    let transfer = context.monitor.transfer("verify", objects.iter().map(|object| object.size).sum());
    let reader = Reader { storage: storage.clone(), watch: context.watch(&transfer.counters) };
    let mut work = on_threads(storage.files_in_flight(), objects, move |object: ToRead| {
        let reader = reader.clone();
        async move { reader.read(object).await }
    });
    let mut done = Amount::default();
    let all = async {
        while let Some((key, digest)) = work.recv().await {
            let (records, _) = expected.by_path.get_mut(key.as_str()).context("only what is expected is read")?;
            match digest {
                Ok(digest) => {
                    let mut is_compared = false;
                    for record in records.iter_mut().filter(|record| record.fault.is_none()) {
                        is_compared |= record.look_at_content(&digest, part_size);
                    }
                    if is_compared {
                        done.add(digest.size);
                    } else {
                        only_size_known(key.as_str(), records, reports);
                    }
                }
                Err(TransferError::Interrupted(failure)) => return Err(failure.into()),
                Err(error) => {
                    let fault = match &error {
                        TransferError::Storage(StorageError {
                            source: object_store::Error::NotFound { .. }, ..
                        }) => Fault::Missing,
                        _ => Fault::Unusable(one_line(&error.into())),
                    };
                    for record in records {
                        record.fault = Some(fault.clone());
                    }
                }
            }
        }
        anyhow::Ok(())
    };
    context.interrupt.or(all).await?;
    drop(transfer);
    if done.files > 0 {
        let detail = format!("{fqdn}: {} objects, {}", count(done.files), size(done.bytes));
        context.monitor.step("read", &format!("{detail}, {}", rate(done.bytes, begin.elapsed())), begin.elapsed());
    }
    Ok(done)
}

/// Tells the backups in which the object is sound as far as that can be known.
fn only_size_known(path: &str, records: &[Record], reports: &mut [NodeReport]) {
    for backup in records.iter().filter(|record| record.fault.is_none()).flat_map(|record| &record.backups) {
        reports[*backup as usize].only_size_known.push(path.into());
    }
}

/// Reads objects of one node.
#[derive(Debug, Clone)]
struct Reader {
    storage: Storage,
    watch: Watch,
}

impl Reader {
    async fn read(&self, object: ToRead) -> (ObjectKey, Result<ContentDigest, TransferError>) {
        let digest = self.storage.digest_object(&object.key, object.part_sizes, &self.watch).await;
        self.watch.counters.add_file();
        (object.key, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(md5: &str) -> Record {
        Record { size: 3, sha256: None, md5: RecordedMd5::parse(Some(md5)), backups: vec![0], fault: None }
    }

    fn listed(size: u64, e_tag: Option<&str>) -> ObjectMeta {
        let e_tag = e_tag.map(str::to_owned);
        ObjectMeta {
            location: Path::default(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag,
            version: None,
        }
    }

    #[test]
    fn a_listing_proves_size_and_the_digest_that_it_gives() {
        let (abc, other) = ("900150983cd24fb0d6963f7d28e17f72", "00000000000000000000000000000000");
        let fault = |recorded: &str, listed: ObjectMeta| {
            let mut record = record(recorded);
            record.look_at_listed(&listed);
            record.fault
        };
        assert_eq!(fault(abc, listed(3, None)), None);
        assert_eq!(fault(abc, listed(4, None)), Some(Fault::WrongSize { expected: 3, found: 4 }));
        assert_eq!(fault(abc, listed(3, Some(abc))), None);
        assert_eq!(fault(abc, listed(3, Some("\"900150983cd24fb0d6963f7d28e17f72\""))), None);
        assert_eq!(fault(abc, listed(3, Some(other))), Some(Fault::WrongHash));
        assert_eq!(fault("kAFQmDzST7DWlj99KOF/cg==", listed(3, Some(abc))), None);
        let parts = |digest: &str, number: u32| format!("{digest}-{number}");
        assert_eq!(fault(&parts(abc, 2), listed(3, Some(&parts(abc, 2)))), None);
        assert_eq!(fault(&parts(abc, 2), listed(3, Some(&parts(other, 2)))), Some(Fault::WrongHash));
        // Copied with other parts, encrypted, or of another kind: nothing is known.
        for says_nothing in [parts(other, 3), "0x8DB1234".into(), "1a2b-3c-4d-5e".into(), other.to_owned() + "x"] {
            assert_eq!(fault(&parts(abc, 2), listed(3, Some(&says_nothing))), None, "{says_nothing}");
        }
        assert_eq!(fault("no-md5-hash", listed(3, Some(other))), None);
    }

    #[test]
    fn both_forms_of_the_schema_must_define_the_same_tables() {
        let schema = b"CREATE KEYSPACE system WITH x;\nCREATE TABLE system.local (a int);\nCREATE KEYSPACE ks WITH x;\nCREATE TABLE ks.\"T\" (a int PRIMARY KEY);";
        assert_eq!(
            other_tables(schema, b"CREATE KEYSPACE ks WITH y;\nCREATE TABLE ks.\"T\" (a int PRIMARY KEY) WITH ID = 1;"),
            None
        );
        for (internals, missing) in [
            (&b"CREATE KEYSPACE ks WITH y;"[..], "ks.T"),
            (b"CREATE TABLE ks.\"T\" (a int PRIMARY KEY);", "define ks"),
            (b"CREATE KEYSPACE ks WITH y;\nCREATE TABLE ks.\"T\" (a int);\nCREATE TABLE ks.u (a int);", "ks.u"),
            (b"", "define ks"),
        ] {
            let said = other_tables(schema, internals).unwrap();
            assert!(said.ends_with(missing), "{said}");
        }
        assert_eq!(other_tables(b"CREATE KEYSPACE system_auth WITH x;", b""), None);
    }
}
