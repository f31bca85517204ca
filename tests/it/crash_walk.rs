//! A backup and a deletion that are stopped at every single operation on the storage, before and after its effect.
//!
//! After each stop a model, which knows what every finished backup contained, looks at the bucket: finished backups have
//! every byte, the stopped one is not shown as finished unless it is, and the same command run again comes to the end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ::medusa::backup::{BackupOptions, NodeBackupRun};
use ::medusa::cassandra::naming::Resolver;
use ::medusa::config::values::Origin;
use ::medusa::config::{Config, Overrides};
use ::medusa::context::Context;
use ::medusa::interrupt::Interrupt;
use ::medusa::listing;
use ::medusa::model::backups::BackupMode;
use ::medusa::model::names::{BackupName, Fqdn};
use ::medusa::monitor::Silent;
use ::medusa::purge::delete::DeletePlan;
use ::medusa::storage::{Storage, provider};

use crate::lab::medusa::Medusa;
use crate::lab::scratch;
use crate::stopper::{Stop, Stopper};
use crate::support::{medusa, own_data, shared_node, snapshot_folder};

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
        for backup in listing::cluster_backups(storage, None).await.unwrap() {
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

/// Runs something with a storage that stops at every operation in turn. `run` fails where it was stopped. Returns how many
/// operations there are.
fn walk<F>(world: &World, run: impl Fn(Context) -> F, checks: impl Fn(&World, Context)) -> usize
where
    F: Future<Output = anyhow::Result<()>>,
{
    for at in 0.. {
        for stop in [Stop::Before, Stop::After] {
            let bucket = world.copy();
            let mut stopper = None;
            let context = world.context(bucket.path(), |storage| {
                provider::wrapped(storage, |inner| {
                    let wrapped = Stopper::new(inner, at, stop);
                    stopper = Some(wrapped.clone());
                    Arc::new(wrapped)
                })
            });
            let outcome = runtime().block_on(run(context));
            if !stopper.unwrap().has_stopped() {
                outcome.unwrap();
                return at;
            }
            checks(world, world.context(bucket.path(), |storage| storage));
        }
    }
    unreachable!("an endless run")
}

fn walk_backup(mode: BackupMode) {
    let world = world();
    let first = world.context(world.pristine.path(), |storage| storage);
    runtime().block_on(async { NodeBackupRun::new(&first, &options("b1", mode)).unwrap().run().await.unwrap() });
    let run = |context: Context| async move {
        let options = options("b2", mode);
        NodeBackupRun::new(&context, &options)?.run().await.map(drop)
    };
    let operations = walk(&world, run, |world, context| {
        runtime().block_on(async {
            let finished = world.check(&context).await;
            assert!(finished.contains(&"b1".to_owned()));
            // The process that was stopped would be gone.
            context.storage.break_lease(&world.fqdn).await.unwrap();
            let options = options("b2", mode);
            let again = NodeBackupRun::new(&context, &options).unwrap().run().await;
            if let Err(error) = again {
                // It was stopped when nothing was left to do.
                assert!(finished.contains(&"b2".to_owned()), "{error:?}");
                assert!(error.to_string().contains("already exists"), "{error:?}");
            }
            assert_eq!(world.check(&context).await, ["b1", "b2"]);
            assert!(context.storage.leases().await.unwrap().is_empty());
            let shown = listing::latest_complete(&context.storage).await.unwrap().map(|backup| backup.name.to_string());
            assert_eq!(shown.as_deref(), Some("b2"));
        });
    });
    println!("backup, {mode}: stopped before and after each of {operations} operations");
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

fn walk_deletion(mode: BackupMode) {
    let world = world();
    let both = world.context(world.pristine.path(), |storage| storage);
    runtime().block_on(async {
        for name in ["b1", "b2"] {
            NodeBackupRun::new(&both, &options(name, mode)).unwrap().run().await.unwrap();
        }
    });
    let fqdn = world.fqdn.clone();
    let run = |context: Context| {
        let fqdn = fqdn.clone();
        async move {
            let plan = DeletePlan::gather(&context.storage, &BackupName::new("b2").unwrap(), &fqdn).await?;
            plan.execute(&context.storage).await
        }
    };
    let operations = walk(&world, run, |world, context| {
        runtime().block_on(async {
            assert!(world.check(&context).await.contains(&"b1".to_owned()));
            let name = BackupName::new("b2").unwrap();
            let plan = DeletePlan::gather(&context.storage, &name, &world.fqdn).await.unwrap();
            plan.execute(&context.storage).await.unwrap();
            assert_eq!(world.check(&context).await, ["b1"]);
            assert!(DeletePlan::gather(&context.storage, &name, &world.fqdn).await.unwrap().is_empty());
            let shown = listing::cluster_backups(&context.storage, None).await.unwrap();
            assert_eq!(shown.iter().map(|backup| backup.name.to_string()).collect::<Vec<_>>(), ["b1"]);
        });
    });
    println!("deletion, {mode}: stopped before and after each of {operations} operations");
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
