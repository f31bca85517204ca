//! A backup, a deletion, a purge and a rebuilt index with every fault at every single operation on the storage: killed before
//! and after its effect, the operation failed before and after its effect, an object cut in half. And the real program on a
//! local bucket, killed before every single change of the file system.
//!
//! After each fault a model, which knows what every finished backup contained, looks at the bucket: finished backups have
//! every byte, the stopped one is not shown as finished unless it is, and the same command run again comes to the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ::medusa::backup::{BackupOptions, NodeBackupRun};
use ::medusa::cassandra::naming::Resolver;
use ::medusa::config::forward::Forward;
use ::medusa::config::values::Origin;
use ::medusa::config::{Config, Overrides, Retention};
use ::medusa::context::Context;
use ::medusa::index;
use ::medusa::interrupt::Interrupt;
use ::medusa::listing;
use ::medusa::model::backups::BackupMode;
use ::medusa::model::names::{BackupName, Fqdn};
use ::medusa::monitor::Silent;
use ::medusa::purge::bucket::Bucket;
use ::medusa::purge::delete::DeletePlan;
use ::medusa::purge::retention::Policy;
use ::medusa::purge::{NodeOutcome, PoolPlan, PurgeOptions, purge_node};
use ::medusa::storage::{Storage, provider};

use crate::lab::medusa::Medusa;
use crate::lab::scratch;
use crate::stopper::{Fault, Stopper};
use crate::support::{medusa, own_data, shared_node, snapshot_folder};
use crate::tracer::{Ended, run_until};

type Files = BTreeMap<String, Vec<u8>>;

/// A node whose snapshots are made up, and what its backups must contain.
struct World {
    medusa: Medusa,
    fqdn: Fqdn,
    contents: BTreeMap<&'static str, Files>,
    data: PathBuf,
    /// The bucket with the backups that are finished when a walk begins.
    pristine: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let node = shared_node();
        let mut medusa = medusa(node);
        let data = own_data(&mut medusa, node);
        let fqdn = Fqdn::new(&node.address).unwrap();
        Self { medusa, fqdn, contents: BTreeMap::new(), data, pristine: scratch("pristine") }
    }

    /// A snapshot of that name: files and their contents.
    fn snapshot(&mut self, name: &'static str, files: &[(&str, &[u8])]) {
        let folder = snapshot_folder(&self.data, name);
        for (file, content) in files {
            fs::write(folder.join(file), content).unwrap();
        }
        let contents = files.iter().map(|(file, content)| ((*file).to_owned(), content.to_vec()));
        self.contents.insert(name, contents.collect());
    }

    fn context(&self, base: &std::path::Path, wrap: impl FnOnce(Storage) -> Storage) -> Context {
        let ini = fs::read_to_string(self.medusa.ini()).unwrap();
        let own = self.medusa.base_path().display().to_string();
        let text = ini.replace(&own, &base.display().to_string());
        let path = std::path::Path::new("medusa.ini");
        let config = Config::from_text(&text, path, &Overrides::default(), &BTreeMap::new()).unwrap();
        Context {
            storage: wrap(provider::open(&config.storage).unwrap()),
            resolver: Resolver::new(&config),
            fqdn: self.fqdn.clone(),
            fqdn_origin: Origin::Default,
            forward: Forward::default(),
            monitor: Arc::new(Silent),
            interrupt: Interrupt::default(),
            now: chrono::Local::now(),
            config: Arc::new(config),
        }
    }

    /// A copy of the bucket as it was when the walk began.
    fn copy(&self) -> tempfile::TempDir {
        let folder = scratch("walk");
        let from = self.pristine.path().join("bucket");
        if from.exists() {
            let copied = std::process::Command::new("cp").arg("-a").args([from.as_path(), folder.path()]).status();
            assert!(copied.unwrap().success());
        }
        folder
    }

    /// Every finished backup has every byte. Returns the names of the finished ones.
    async fn check(&self, context: &Context) -> Vec<String> {
        let storage = &context.storage;
        let mut finished = Vec::new();
        for (name, files) in &self.contents {
            let backup = BackupName::new(name).unwrap();
            let Some(manifest) = storage.manifest(&self.fqdn, &backup).await.unwrap() else { continue };
            finished.push((*name).to_owned());
            let mut found = Files::new();
            for object in manifest.objects() {
                let key = storage.layout().recorded(&self.fqdn, &object.path).unwrap();
                let bytes = storage.read(&key).await.unwrap();
                let bytes = bytes.unwrap_or_else(|| panic!("{name} names {key}, which is gone"));
                found.insert(object.path.rsplit('/').next().unwrap().to_owned(), bytes.to_vec());
            }
            assert_eq!(&found, files, "the content of {name}");
        }
        for backup in listing::cluster_backups(storage).await.unwrap() {
            for node in &backup.nodes {
                let is_finished = finished.contains(&backup.name.to_string());
                assert!(node.finished.is_none() || is_finished, "{} is shown as finished", backup.name);
            }
        }
        finished
    }
}

fn options(name: &str, mode: BackupMode) -> BackupOptions {
    BackupOptions {
        name: BackupName::new(name).unwrap(),
        mode,
        stagger: None,
        compare_contents: false,
        keep_snapshot: true,
        use_existing_snapshot: true,
        snapshot_taken: false,
        allow_corrupt: false,
    }
}

/// Files that make a backup use every way to store one: new, kept, the same name with other content.
fn world() -> World {
    let mut world = World::new();
    world.snapshot("b1", &[("nb-1-big-Index.db", b"kept"), ("nb-2-big-Index.db", b"first"), ("nb-3-big-TOC.txt", b"")]);
    let both =
        [("nb-1-big-Index.db", b"kept" as &[u8]), ("nb-2-big-Index.db", b"other"), ("nb-4-big-Index.db", b"new")];
    world.snapshot("b2", &both);
    // The clock of files is coarse, and content that was written in one tick with the same size would count as the same.
    for (name, file, seconds) in [
        ("b1", "nb-1-big-Index.db", 1_700_000_000),
        ("b2", "nb-1-big-Index.db", 1_700_000_000),
        ("b1", "nb-2-big-Index.db", 1_700_000_001),
        ("b2", "nb-2-big-Index.db", 1_700_000_002),
    ] {
        let path = snapshot_folder(&world.data, name).join(file);
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    }
    world
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs something with a storage that has a fault at every operation in turn. Returns how many operations there are.
fn walk<F>(world: &World, run: impl Fn(Context) -> F, checks: impl Fn(&World, Context)) -> usize
where
    F: Future<Output = anyhow::Result<()>>,
{
    for at in 0.. {
        for fault in Fault::ALL {
            let bucket = world.copy();
            let mut stopper = None;
            let context = world.context(bucket.path(), |storage| {
                provider::wrapped(storage, |inner| {
                    let wrapped = Stopper::new(inner, at, fault);
                    stopper = Some(wrapped.clone());
                    Arc::new(wrapped)
                })
            });
            let outcome = runtime().block_on(run(context));
            if stopper.unwrap().has_fired() {
                checks(world, world.context(bucket.path(), |storage| storage));
            } else {
                outcome.unwrap();
                // Only some operations read an object.
                if fault != Fault::Truncate {
                    return at;
                }
            }
        }
    }
    unreachable!("an endless run")
}

/// Kills the real program before every change that it makes. Returns how many there are.
fn walk_changes(world: &mut World, arguments: &[&str], checks: impl Fn(&World, Context)) -> usize {
    for at in 0.. {
        let bucket = world.copy();
        world.medusa.set("storage", "base_path", &bucket.path().display().to_string());
        let ended = run_until(&world.medusa.prepare(arguments), &bucket.path().join("bucket"), at);
        if ended == Ended::Exited(0) {
            return at;
        }
        assert_eq!(ended, Ended::Killed, "{arguments:?}");
        checks(world, world.context(bucket.path(), |storage| storage));
    }
    unreachable!("an endless run")
}

/// A world in which `names` are finished.
fn world_with(names: &[&str], mode: BackupMode) -> World {
    let world = world();
    let context = world.context(world.pristine.path(), |storage| storage);
    runtime().block_on(async {
        for name in names {
            NodeBackupRun::new(&context, &options(name, mode)).unwrap().run().await.unwrap();
        }
    });
    world
}

fn after_backup(world: &World, context: &Context, mode: BackupMode) {
    runtime().block_on(async {
        let finished = world.check(context).await;
        assert!(finished.contains(&"b1".to_owned()));
        // The process that was stopped would be gone.
        context.storage.break_lease(&world.fqdn).await.unwrap();
        let options = options("b2", mode);
        let again = NodeBackupRun::new(context, &options).unwrap().run().await;
        if let Err(error) = again {
            // It was stopped when nothing was left to do.
            assert!(finished.contains(&"b2".to_owned()), "{error:?}");
            assert!(error.to_string().contains("already exists"), "{error:?}");
        }
        assert_eq!(world.check(context).await, ["b1", "b2"]);
        assert!(context.storage.leases().await.unwrap().is_empty());
        assert_eq!(latest_complete(context).await.as_deref(), Some("b2"));
    });
}

async fn latest_complete(context: &Context) -> Option<String> {
    listing::latest_complete(&context.storage).await.unwrap().map(|backup| backup.name.to_string())
}

fn walk_backup(mode: BackupMode) {
    let world = world_with(&["b1"], mode);
    let run = |context: Context| async move {
        let options = options("b2", mode);
        NodeBackupRun::new(&context, &options)?.run().await.map(drop)
    };
    let operations = walk(&world, run, |world, context| after_backup(world, &context, mode));
    println!("backup, {mode}: five faults at each of {operations} operations");
    assert!(operations > 20, "{operations}");
}

#[test]
fn p2_a_differential_backup_stopped_at_every_operation() {
    walk_backup(BackupMode::Differential);
}

#[test]
fn p2_a_full_backup_stopped_at_every_operation() {
    walk_backup(BackupMode::Full);
}

#[test]
fn p2_a_backup_killed_before_every_change_of_the_file_system() {
    let mut world = world_with(&["b1"], BackupMode::Differential);
    let arguments = ["backup-node", "--backup-name", "b2", "--use-existing-snapshot", "--keep-snapshot"];
    let changes =
        walk_changes(&mut world, &arguments, |world, context| after_backup(world, &context, BackupMode::Differential));
    println!("backup: killed before each of {changes} changes of the file system");
    assert!(changes > 50, "{changes}");
}

fn after_deletion(world: &World, context: &Context) {
    runtime().block_on(async {
        assert!(world.check(context).await.contains(&"b1".to_owned()));
        let name = BackupName::new("b2").unwrap();
        let plan = DeletePlan::gather(&context.storage, &name, &world.fqdn).await.unwrap();
        plan.execute(&context.storage, async || Ok(())).await.unwrap();
        assert_eq!(world.check(context).await, ["b1"]);
        assert!(DeletePlan::gather(&context.storage, &name, &world.fqdn).await.unwrap().is_empty());
        let shown = listing::cluster_backups(&context.storage).await.unwrap();
        assert_eq!(shown.iter().map(|backup| backup.name.to_string()).collect::<Vec<_>>(), ["b1"]);
    });
}

fn walk_deletion(mode: BackupMode) {
    let world = world_with(&["b1", "b2"], mode);
    let fqdn = world.fqdn.clone();
    let run = |context: Context| {
        let fqdn = fqdn.clone();
        async move {
            let plan = DeletePlan::gather(&context.storage, &BackupName::new("b2").unwrap(), &fqdn).await?;
            plan.execute(&context.storage, async || Ok(())).await
        }
    };
    let operations = walk(&world, run, |world, context| after_deletion(world, &context));
    println!("deletion, {mode}: five faults at each of {operations} operations");
    assert!(operations > 10, "{operations}");
}

#[test]
fn p3_the_deletion_of_a_differential_backup_stopped_at_every_operation() {
    walk_deletion(BackupMode::Differential);
}

#[test]
fn p3_the_deletion_of_a_full_backup_stopped_at_every_operation() {
    walk_deletion(BackupMode::Full);
}

#[test]
fn p3_a_deletion_killed_before_every_change_of_the_file_system() {
    let mut world = world_with(&["b1", "b2"], BackupMode::Full);
    let arguments = ["delete-backup", "--backup-name", "b2"];
    let changes = walk_changes(&mut world, &arguments, |world, context| after_deletion(world, &context));
    println!("deletion: killed before each of {changes} changes of the file system");
    assert!(changes > 20, "{changes}");
}

/// What lies below a folder of the bucket, apart from times.
fn below(base: &std::path::Path, folder: &str) -> Files {
    crate::lab::tree(&base.join("bucket").join(folder))
}

fn graceless(count: u64) -> PurgeOptions {
    let retention = Retention { max_backup_count: count, backup_grace_period_in_days: 0, ..Retention::default() };
    PurgeOptions { policy: Policy { retention, allow_last: false, decommissioned: false }, dry_run: false }
}

async fn purge_to_the_newest(context: &Context) -> anyhow::Result<NodeOutcome> {
    let bucket = Bucket::gather(&context.storage).await?;
    purge_node(context, &bucket, &context.fqdn, &graceless(1)).await
}

/// Two backups, and what a run stored that was killed.
fn world_to_purge() -> World {
    let world = world_with(&["b1", "b2"], BackupMode::Differential);
    let pool = world.pristine.path().join("bucket").join(world.fqdn.as_str()).join("data");
    let first = |folder: PathBuf| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    fs::write(first(first(pool)).join("nb-9-big-Data.db"), "nobody's").unwrap();
    world
}

fn after_purge(world: &World, context: &Context) {
    runtime().block_on(async {
        assert!(world.check(context).await.contains(&"b2".to_owned()));
        context.storage.break_lease(&world.fqdn).await.unwrap();
        let outcome = purge_to_the_newest(context).await.unwrap();
        assert_eq!(outcome.stopped, None);
        assert!(matches!(outcome.plan.pool, PoolPlan::Sweep(_)), "{:?}", outcome.plan.pool);
        assert_eq!(world.check(context).await, ["b2"]);
        let base = context.config.storage.base_path.clone().unwrap();
        let own = below(&base, world.fqdn.as_str());
        let data = own.keys().filter(|key| key.starts_with("data/")).count();
        assert_eq!(data, world.contents["b2"].len(), "{:?}", own.keys());
        let keys = below(&base, "").into_keys().filter(|key| key.contains("b1")).collect::<Vec<_>>();
        assert!(keys.is_empty(), "{keys:?}");
        assert_eq!(latest_complete(context).await.as_deref(), Some("b2"));
    });
}

#[test]
fn p3_a_purge_stopped_at_every_operation() {
    let world = world_to_purge();
    let run = |context: Context| async move { purge_to_the_newest(&context).await.map(drop) };
    let operations = walk(&world, run, |world, context| after_purge(world, &context));
    println!("purge: five faults at each of {operations} operations");
    assert!(operations > 30, "{operations}");
}

#[test]
fn p3_a_purge_killed_before_every_change_of_the_file_system() {
    let mut world = world_to_purge();
    world.medusa.set("storage", "max_backup_count", "1");
    world.medusa.set("storage", "backup_grace_period_in_days", "0");
    let changes = walk_changes(&mut world, &["purge"], |world, context| after_purge(world, &context));
    println!("purge: killed before each of {changes} changes of the file system");
    assert!(changes > 20, "{changes}");
}

/// Two backups with half an index. Also returns the whole one.
fn world_without_index() -> (World, Files) {
    let world = world_with(&["b1", "b2"], BackupMode::Differential);
    let whole = below(world.pristine.path(), "index");
    let index = world.pristine.path().join("bucket/index");
    fs::remove_dir_all(index.join("backup_index/b1")).unwrap();
    fs::remove_dir_all(index.join("summaries/b2")).unwrap();
    fs::remove_dir_all(index.join("latest_backup")).unwrap();
    // Something is left of a backup that is gone.
    fs::create_dir_all(index.join("backup_index/b0")).unwrap();
    fs::write(index.join(format!("backup_index/b0/finished_{}_1.timestamp", world.fqdn)), "1").unwrap();
    (world, whole)
}

fn after_rebuild(world: &World, context: &Context, whole: &Files) {
    runtime().block_on(async {
        assert_eq!(world.check(context).await, ["b1", "b2"]);
        context.storage.break_lease(&world.fqdn).await.unwrap();
        index::rebuild(context, false).await.unwrap();
        let rebuilt = below(&context.config.storage.base_path.clone().unwrap(), "index");
        // When a backup was begun is rounded by another clock, and what was uploaded is known to its summary only.
        let same = |key: &&String| !key.contains("started_") && !key.contains("summaries");
        let summaries = |files: &Files| files.keys().filter(|key| key.contains("summaries")).count();
        assert_eq!((summaries(&rebuilt), summaries(whole)), (2, 2));
        assert_eq!(rebuilt.keys().filter(same).collect::<Vec<_>>(), whole.keys().filter(same).collect::<Vec<_>>());
        for key in whole.keys().filter(same) {
            assert_eq!(rebuilt[key], whole[key], "{key}");
        }
    });
}

#[test]
fn p2_build_index_stopped_at_every_operation() {
    let (world, whole) = world_without_index();
    let run = |context: Context| async move {
        let report = index::rebuild(&context, false).await?;
        report.failure().map_or(Ok(()), |failure| Err(failure.into()))
    };
    let operations = walk(&world, run, |world, context| after_rebuild(world, &context, &whole));
    println!("build-index: five faults at each of {operations} operations");
    assert!(operations > 30, "{operations}");
}

#[test]
fn p2_build_index_killed_before_every_change_of_the_file_system() {
    let (mut world, whole) = world_without_index();
    let changes = walk_changes(&mut world, &["build-index"], |world, context| after_rebuild(world, &context, &whole));
    println!("build-index: killed before each of {changes} changes of the file system");
    assert!(changes > 20, "{changes}");
}
