//! Random interleavings of backups, purges, deletions and rebuilt indexes of several nodes, of processes that are killed, of
//! a storage whose clock steps and whose listings are behind, and of writers that work as cassandra-medusa does.
//!
//! A model knows what every backup contained when its snapshot was taken. A seed makes a schedule, and the same one again:
//! `SEED=n SCHEDULES=1 TRACE=1` runs that of one seed and prints every change, `SCHEDULES=n` runs that many.
//!
//! Two things are left out, because nothing protects against them: cassandra-medusa takes no lease, so where it writes,
//! listings are up to date and the clock does not step while it runs. And its backups hold what it stored, not what it
//! should have stored: it takes a name of the same size for the same file, and overwrites what other backups name.

mod bucket;
mod data;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ::medusa::backup::BackupOptions;
use ::medusa::backup::store::Storing;
use ::medusa::cassandra::facts::{ClusterFacts, Schema};
use ::medusa::cassandra::naming::Resolver;
use ::medusa::config::values::Origin;
use ::medusa::config::{Config, Overrides, Retention};
use ::medusa::context::Context;
use ::medusa::index;
use ::medusa::interrupt::Interrupt;
use ::medusa::listing;
use ::medusa::model::backups::{BackupMode, ServerVersion};
use ::medusa::model::digest::Sha256;
use ::medusa::model::manifest::Manifest;
use ::medusa::model::names::{BackupName, Fqdn};
use ::medusa::model::tokenmap::{Tokenmap, TokenmapEntry, Tokens};
use ::medusa::monitor::Silent;
use ::medusa::purge::delete::delete;
use ::medusa::purge::retention::Policy;
use ::medusa::purge::{self, NodeOutcome, PoolPlan, PurgeOptions, purge_node};
use ::medusa::storage::provider;
use ::medusa::verify::{self, Depth, VerifyOptions};
use md5::{Digest as _, Md5};
use serde_json::json;

use self::bucket::{Bucket, Client};
use self::data::{Contents, Data};
use crate::stopper::Fault;
use crate::support::{Random, seed};

const SCHEDULES: u64 = 2_000;

/// One is the beginning of the other.
const NODES: [&str; 2] = ["n1", "n10"];
const OPERATORS: u64 = 3;
const ACTIONS: u64 = 4;

/// The longest time in milliseconds that listings are behind: longer than a backup takes, shorter than two.
const LAG: u64 = 90_000;

/// More than any schedule takes.
const END: Duration = Duration::from_hours(24);

/// Longer than any clock step, so that leases and grace periods are over.
const LATER: i64 = 30 * 86_400;

/// What was seen of all schedules: a simulation in which something never happens proves nothing about it.
#[derive(Debug, Default)]
struct Seen {
    finished: AtomicU64,
    continued: AtomicU64,
    failed: AtomicU64,
    killed: AtomicU64,
    withdrawn: AtomicU64,
    foreign: AtomicU64,
    overwritten: AtomicU64,
    deleted: AtomicU64,
    swept: AtomicU64,
    stopped: AtomicU64,
    hidden: AtomicU64,
    rebuilt: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What a snapshot held, and when the backup was begun.
#[derive(Debug)]
struct Attempt {
    begun: u64,
    contents: Contents,
}

#[derive(Debug, Default)]
struct Model {
    data: BTreeMap<&'static str, Data>,
    /// By node and name.
    attempts: BTreeMap<(&'static str, String), (BackupMode, Vec<Attempt>)>,
    names: u64,
    foreign_running: u32,
}

struct World {
    seed: u64,
    files: Arc<tempfile::TempDir>,
    bucket: Arc<Bucket>,
    model: Mutex<Model>,
    with_medusa: bool,
    /// Listings are not up to date.
    is_behind: bool,
    seen: Arc<Seen>,
}

/// A run of cassandra-medusa.
struct Running<'a>(&'a World);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.model.lock().unwrap().foreign_running -= 1;
    }
}

static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let text = "[storage]\nstorage_provider = local\nbucket_name = b\nbase_path = /nowhere\n\
        [cassandra]\nresolve_ip_addresses = False\n";
    Arc::new(Config::from_text(text, "x".as_ref(), &Overrides::default(), &BTreeMap::new()).unwrap())
});

fn facts(fqdn: &str) -> ClusterFacts {
    let entry = |token: usize| TokenmapEntry {
        tokens: Tokens(vec![token.to_string()]),
        is_up: Some(true),
        rack: Some("r1".into()),
        dc: Some("dc1".into()),
    };
    let hosts = NODES.iter().enumerate().map(|(token, host)| ((*host).to_owned(), entry(token))).collect();
    ClusterFacts {
        cluster_name: "simulated".into(),
        version: ServerVersion { server_type: "cassandra".into(), release_version: "5.0.9".into() },
        tokens: Tokens(vec!["0".into()]),
        tokenmap: Tokenmap { hosts },
        own_name: fqdn.into(),
        id: uuid::Uuid::nil(),
        ring_size: NODES.len(),
        schema_version: uuid::Uuid::nil(),
        tables: Vec::new(),
    }
}

fn schema() -> Schema {
    let plain = "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'};".to_owned();
    Schema { internals: plain.clone(), plain, version: uuid::Uuid::nil() }
}

impl World {
    fn context(node: &str, client: &Client) -> Context {
        Context {
            storage: provider::over(Arc::new(client.clone()), "simulated"),
            resolver: Resolver::new(&CONFIG),
            fqdn: Fqdn::new(node).unwrap(),
            fqdn_origin: Origin::Default,
            forward: medusa::config::forward::Forward::default(),
            monitor: Arc::new(Silent),
            interrupt: Interrupt::default(),
            now: chrono::Local::now(),
            config: Arc::clone(&CONFIG),
        }
    }

    fn manifest_key(node: &str, name: &str) -> String {
        format!("{node}/{name}/meta/manifest.json")
    }

    /// A finished backup has exactly what one of its snapshots held.
    fn check(&self, node: &'static str, name: &str) {
        let seed = self.seed;
        let bytes = self.bucket.content(&Self::manifest_key(node, name)).unwrap();
        let mut found = BTreeMap::new();
        for object in Manifest::parse(&bytes).unwrap().objects() {
            let parts: Vec<_> = object.path.split('/').collect();
            let table = parts[parts.iter().position(|part| *part == "ks").unwrap() + 1];
            let content = self.bucket.content(&object.path);
            let content = content.unwrap_or_else(|| panic!("SEED={seed}: {name} of {node} lost {}", object.path));
            let file = format!("{table}/{}", parts.last().unwrap());
            assert!(
                found.insert(file, (object.path.to_string(), Sha256::of(&content))).is_none(),
                "SEED={seed}: twice"
            );
        }
        let model = self.model.lock().unwrap();
        let (_, attempts) = &model.attempts[&(node, name.to_owned())];
        let is_it = |attempt: &Attempt| {
            attempt.contents.len() == found.len()
                && attempt.contents.iter().all(|(file, expected)| {
                    found.get(file).is_some_and(|(path, sha256)| {
                        sha256 == expected || self.bucket.was_overwritten_since(path, attempt.begun)
                    })
                })
        };
        assert!(attempts.iter().any(is_it), "SEED={seed}: {name} of {node} has {found:#?}, not {attempts:#?}");
    }

    /// A backup of a node. `None`: a new one.
    async fn backup(
        &self,
        node: &'static str,
        name: Option<String>,
        client: &Client,
        random: &mut Random,
    ) -> anyhow::Result<()> {
        let resumed = name.is_some();
        let (name, mode) = {
            let mut model = self.model.lock().unwrap();
            let name = name.unwrap_or_else(|| {
                model.names += 1;
                format!("b{:03}", model.names)
            });
            let full = random.below(5) == 0;
            let mode = if full { BackupMode::Full } else { BackupMode::Differential };
            let (mode, _) = model.attempts.entry((node, name.clone())).or_insert((mode, Vec::new()));
            (name, *mode)
        };
        let options = BackupOptions {
            name: BackupName::new(&name)?,
            mode,
            stagger: None,
            compare_contents: random.below(4) == 0,
            keep_snapshot: true,
            use_existing_snapshot: true,
            snapshot_taken: false,
            allow_corrupt: false,
        };
        let context = Self::context(node, client);
        let storing = Storing { context: &context, options: &options };
        if storing.begun().await?.is_some_and(|backup| backup.finished.is_some()) {
            anyhow::ensure!(!storing.is_published().await?, "it exists");
        }
        let (facts, schema) = (facts(node), schema());
        let lease = storing.lease().await?;
        let work = async {
            if let Some(backup) = storing.begun().await?.filter(|backup| backup.finished.is_some()) {
                storing.check_committed().await?;
                storing.publish_committed(&backup, std::time::Instant::now()).await?;
                self.bucket.acknowledge(&Self::manifest_key(node, &name));
                return Ok(());
            }
            let begun = self.bucket.now();
            let started = storing.begin(&facts, &schema).await?.started;
            // At times somebody stands still for longer than a lease lasts.
            let pause = if random.below(10) == 0 { 300_000 } else { 5_000 };
            client.pause(1 + random.below(pause)).await;
            lease.confirm().await?;
            let tables = {
                let mut model = self.model.lock().unwrap();
                let data = model.data.entry(node).or_default();
                data.evolve(random);
                let (tables, contents) = data.snapshot(self.files.path());
                let (_, attempts) = model.attempts.get_mut(&(node, name.clone())).unwrap();
                attempts.push(Attempt { begun, contents });
                tables
            };
            let done = storing.store(&lease, tables).await?;
            let manifest = storing.commit(&lease, &done).await?;
            // From here on nobody may take away what it needs.
            self.bucket.acknowledge(&Self::manifest_key(node, &name));
            storing.publish(started, &facts, done, manifest, std::time::Instant::now()).await.map(drop)
        };
        let outcome = work.await;
        if let Err(error) = &outcome
            && error.to_string().contains("could not be finished")
        {
            count(&self.seen.withdrawn, 1);
        }
        lease.release().await;
        if outcome.is_ok() {
            count(if resumed { &self.seen.continued } else { &self.seen.finished }, 1);
        }
        outcome
    }

    /// As cassandra-medusa makes one: no lease, a listing of the pool at the beginning, a file of the same size under the
    /// same name is the same one, and any other size overwrites.
    async fn foreign_backup(&self, node: &'static str, client: &Client, random: &mut Random) {
        let begun = self.bucket.now();
        let name = {
            let mut model = self.model.lock().unwrap();
            model.names += 1;
            model.foreign_running += 1;
            format!("m{:03}", model.names)
        };
        let _running = Running(self);
        let started = self.bucket.storage_time() / 1000;
        let tokenmap = serde_json::to_vec(&facts(node).tokenmap).unwrap();
        let index = format!("index/backup_index/{name}");
        for (key, content) in [
            (format!("{node}/{name}/meta/schema.cql"), b"schema".to_vec()),
            (format!("{node}/{name}/meta/tokenmap.json"), tokenmap.clone()),
            (
                format!("{node}/{name}/meta/server_version.json"),
                br#"{"server_type": "cassandra", "release_version": "5.0.9"}"#.to_vec(),
            ),
            (format!("{node}/{name}/meta/differential"), b"differential".to_vec()),
            (format!("{index}/tokenmap_{node}.json"), tokenmap.clone()),
            (format!("{index}/schema_{node}.cql"), b"schema".to_vec()),
            (format!("{index}/started_{node}_{started}.timestamp"), started.to_string().into_bytes()),
            (format!("{index}/differential_{node}"), b"differential".to_vec()),
        ] {
            client.overwrite(&key, content.into()).await;
        }
        client.pause(5_000 + random.below(55_000)).await;
        let tables = {
            let mut model = self.model.lock().unwrap();
            let data = model.data.entry(node).or_default();
            data.evolve(random);
            data.snapshot(self.files.path()).0
        };
        let pool: BTreeSet<_> = self.bucket.keys().into_iter().collect();
        let (mut sections, mut contents) = (Vec::new(), Contents::new());
        for table in tables {
            let mut objects = Vec::new();
            for file in table.files {
                let key = format!("{node}/data/ks/{}/{}", table.table.folder, file.file.name);
                let own = std::fs::read(&file.path).unwrap();
                let stored =
                    self.bucket.content(&key).filter(|stored| pool.contains(&key) && stored.len() == own.len());
                let content = if let Some(stored) = stored {
                    stored
                } else {
                    if self.bucket.content(&key).is_some() {
                        count(&self.seen.overwritten, 1);
                    }
                    client.overwrite(&key, own.clone().into()).await;
                    own.into()
                };
                contents.insert(format!("{}/{}", table.table.folder, file.file.name), Sha256::of(&content));
                let md5 = (random.below(4) > 0).then(|| hex::encode(Md5::digest(&content)));
                objects.push(json!({ "path": key, "MD5": md5, "size": content.len() }));
            }
            sections.push(json!({ "keyspace": "ks", "columnfamily": table.table.folder, "objects": objects }));
        }
        let manifest = serde_json::to_vec(&sections).unwrap();
        let attempt = Attempt { begun, contents };
        let attempts = (BackupMode::Differential, vec![attempt]);
        self.model.lock().unwrap().attempts.insert((node, name.clone()), attempts);
        let key = Self::manifest_key(node, &name);
        client.overwrite(&key, manifest.clone().into()).await;
        self.bucket.acknowledge(&key);
        let finished = self.bucket.storage_time() / 1000;
        for (key, content) in [
            (format!("{index}/manifest_{node}.json"), manifest),
            (format!("{index}/finished_{node}_{finished}.timestamp"), finished.to_string().into_bytes()),
            (format!("index/latest_backup/{node}/tokenmap.json"), tokenmap),
            (format!("index/latest_backup/{node}/backup_name.txt"), name.clone().into_bytes()),
        ] {
            client.overwrite(&key, content.into()).await;
        }
        count(&self.seen.foreign, 1);
    }

    async fn purge(
        &self,
        node: &str,
        client: &Client,
        retention: Retention,
        allow_last: bool,
    ) -> anyhow::Result<NodeOutcome> {
        let context = Self::context(node, client);
        let options = PurgeOptions { policy: Policy { retention, allow_last, decommissioned: false }, dry_run: false };
        let bucket = purge::bucket::Bucket::gather(&context.storage).await?;
        let outcome = purge_node(&context, &bucket, &context.fqdn, &options).await?;
        count(&self.seen.swept, outcome.swept.files);
        count(&self.seen.deleted, outcome.deleted.files);
        count(&self.seen.stopped, u64::from(outcome.stopped.is_some()));
        if let PoolPlan::Refuse(reasons) = &outcome.plan.pool {
            let behind = reasons.iter().all(|reason| reason.contains("is behind"));
            count(&self.seen.hidden, u64::from(behind));
        }
        Ok(outcome)
    }

    /// One thing that an operator does.
    async fn act(&self, client: &Client, random: &mut Random) -> anyhow::Result<()> {
        let node = *random.pick(&NODES);
        match random.below(20) {
            0..=8 => {
                let unfinished: Vec<_> = {
                    let model = self.model.lock().unwrap();
                    let is_unfinished = |(of, name): &&(&str, String)| {
                        *of == node
                            && name.starts_with('b')
                            && self.bucket.content(&Self::manifest_key(of, name)).is_none()
                    };
                    model.attempts.keys().filter(is_unfinished).cloned().collect()
                };
                // The same name may be begun by another operator at the same time.
                let resumes = !unfinished.is_empty() && random.below(2) == 0;
                let name = if resumes { Some(random.pick(&unfinished).1.clone()) } else { None };
                self.backup(node, name, client, random).await
            }
            9..=13 => {
                let grace = if self.with_medusa { 1 } else { random.below(2) };
                let retention = Retention {
                    max_backup_count: random.below(3),
                    backup_grace_period_in_days: grace,
                    ..Retention::default()
                };
                self.purge(node, client, retention, random.below(4) == 0).await.map(drop)
            }
            14 => {
                let known: Vec<_> = self.model.lock().unwrap().attempts.keys().cloned().collect();
                if known.is_empty() {
                    return Ok(());
                }
                let (node, name) = random.pick(&known);
                let storage = Self::context(node, client).storage;
                delete(&storage, &BackupName::new(name)?, &Fqdn::new(node)?).await.map(drop)
            }
            15 => {
                let report = index::rebuild(&Self::context(node, client), false).await?;
                count(&self.seen.rebuilt, u64::from(report.failure().is_none()));
                Ok(())
            }
            16 => Self::context(node, client).storage.break_lease(&Fqdn::new(node)?).await.map(drop),
            17 if self.with_medusa => {
                self.foreign_backup(node, client, random).await;
                Ok(())
            }
            _ => {
                if self.model.lock().unwrap().foreign_running == 0 {
                    self.bucket.step_clock(*random.pick(&[-10_800, -30, 30, 300, 10_800, 100_000, 200_000]));
                }
                Ok(())
            }
        }
    }

    /// Does some things, and is killed in the middle of some.
    async fn operator(&self, number: u64) {
        let mut random = Random::new(self.seed ^ (number + 1) << 40);
        for _ in 0..ACTIONS {
            let kill = (random.below(4) == 0).then(|| {
                let stop = if random.below(2) == 0 { Fault::KillBefore } else { Fault::KillAfter };
                (usize::try_from(random.below(50)).unwrap(), stop)
            });
            let client = self.bucket.client(random.below(u64::from(u32::MAX)), kill);
            client.pause(random.below(60_000)).await;
            tokio::select! {
                done = self.act(&client, &mut random) => count(&self.seen.failed, u64::from(done.is_err())),
                () = client.death() => count(&self.seen.killed, 1),
            }
        }
    }

    /// When all is over: what is finished is whole, what is not can be, and what nobody needs goes.
    async fn finale(&self) {
        let seed = self.seed;
        self.bucket.settle();
        self.bucket.step_clock(LATER);
        let client = self.bucket.client(seed, None);
        let purge = async || {
            for node in NODES {
                let outcome = self.purge(node, &client, Retention::default(), false).await;
                let outcome = outcome.unwrap_or_else(|error| panic!("SEED={seed}: {error:?}"));
                assert_eq!(outcome.stopped, None, "SEED={seed}");
                assert!(matches!(outcome.plan.pool, PoolPlan::Sweep(_)), "SEED={seed}: {:?}", outcome.plan.pool);
                let (named, pool) = (self.bucket.named(), format!("{node}/data/"));
                let garbage: Vec<_> = self
                    .bucket
                    .keys()
                    .into_iter()
                    .filter(|key| key.starts_with(&pool) && !named.contains(key))
                    .collect();
                assert!(garbage.is_empty(), "SEED={seed}: {garbage:?}");
            }
        };
        purge().await;
        assert!(self.bucket.lost().is_empty(), "SEED={seed}: {:?}", self.bucket.lost());
        let known: Vec<_> = self.model.lock().unwrap().attempts.keys().cloned().collect();
        for (node, name) in &known {
            if self.bucket.content(&Self::manifest_key(node, name)).is_some() {
                self.check(node, name);
            }
        }
        let (mut random, context) = (Random::new(seed), Self::context(NODES[0], &client));
        for (node, name) in &known {
            let is_there = |file: &str| self.bucket.content(&format!("{node}/{name}/meta/{file}")).is_some();
            if name.starts_with('b') && is_there("schema.cql") && !is_there("manifest.json") {
                let mut done = self.backup(node, Some(name.clone()), &client, &mut random).await;
                // Whoever took the lease away may have taken the marker of its mode, too. Then the way out is the one that
                // the message names.
                if done.as_ref().is_err_and(|error| error.to_string().contains("was begun in full mode")) {
                    delete(&context.storage, &BackupName::new(name).unwrap(), &Fqdn::new(node).unwrap()).await.unwrap();
                    done = self.backup(node, Some(name.clone()), &client, &mut random).await;
                }
                done.unwrap_or_else(|error| panic!("SEED={seed}: {name} of {node}: {error:?}"));
                self.check(node, name);
            }
        }
        purge().await;
        if let Some(failure) = index::rebuild(&context, false).await.unwrap().failure() {
            panic!("SEED={seed}: {failure:?}");
        }
        for backup in listing::cluster_backups(&context.storage).await.unwrap() {
            for node in backup.nodes {
                let has_manifest =
                    self.bucket.content(&Self::manifest_key(node.fqdn.as_str(), backup.name.as_str())).is_some();
                assert_eq!(node.finished.is_some(), has_manifest, "SEED={seed}: {} of {}", backup.name, node.fqdn);
            }
        }
        if !self.with_medusa {
            let options = VerifyOptions { name: None, nodes: Vec::new(), depth: Depth::Data };
            if let Some(report) = verify::verify(&context, &options).await.unwrap() {
                // A full backup does not see all that a killed run left in its folder where listings are behind.
                let is_tolerated = |node: &verify::NodeReport| {
                    node.is_good()
                        || (self.is_behind
                            && node.findings.iter().all(|finding| finding.fault == verify::Fault::Unreferenced))
                };
                assert!(report.nodes().all(is_tolerated), "SEED={seed}: {report:#?}");
            }
        }
        assert!(self.bucket.lost().is_empty(), "SEED={seed}: {:?}", self.bucket.lost());
        assert!(self.bucket.violations().is_empty(), "SEED={seed}: {:?}", self.bucket.violations());
    }
}

/// Runs the schedule of one seed.
fn run(seed: u64, files: &Arc<tempfile::TempDir>, totals: &Arc<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let schedule = async {
        let mut random = Random::new(seed);
        let lag = if random.below(3) == 0 { 1 + random.below(LAG) } else { 0 };
        let world = World {
            seed,
            files: Arc::clone(files),
            bucket: Bucket::new(lag),
            model: Mutex::default(),
            is_behind: lag > 0,
            with_medusa: lag == 0 && random.below(2) == 0,
            seen: Arc::clone(totals),
        };
        futures::future::join_all((0..OPERATORS).map(|number| world.operator(number))).await;
        world.finale().await;
    };
    let ended = runtime.block_on(async { tokio::time::timeout(END, schedule).await });
    assert!(ended.is_ok(), "SEED={seed}: comes to no end");
    runtime.shutdown_background();
}

#[test]
fn p2_p3_random_interleavings_lose_nothing() {
    let first = seed("interleavings");
    let schedules = std::env::var("SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap());
    let (files, seen, next) = (Arc::new(data::files()), Arc::new(Seen::default()), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= schedules {
                        break;
                    }
                    run(first + number, &files, &seen);
                }
            });
        }
    });
    println!("{schedules} schedules: {seen:?}");
    let Seen {
        finished,
        continued,
        failed,
        killed,
        withdrawn,
        foreign,
        overwritten,
        deleted,
        swept,
        stopped,
        hidden,
        rebuilt,
    } = &*seen;
    let often = [
        (finished, "finished"),
        (continued, "continued"),
        (failed, "failed"),
        (killed, "killed"),
        (foreign, "foreign"),
        (deleted, "deleted"),
        (swept, "swept"),
        (rebuilt, "rebuilt"),
    ];
    // In one of some hundred schedules.
    let rarely = [(withdrawn, "withdrawn"), (overwritten, "overwritten"), (stopped, "stopped"), (hidden, "hidden")];
    for (least, counters) in [(SCHEDULES, &often[..]), (20 * SCHEDULES, &rarely)] {
        for (counter, what) in counters.iter().filter(|_| schedules >= least) {
            assert!(counter.load(Ordering::SeqCst) > 0, "no schedule came to {what}");
        }
    }
}
