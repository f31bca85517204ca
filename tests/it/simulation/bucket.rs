//! A bucket in memory, on a clock that does not wait, behind which every request takes a random time.
//!
//! The clock is that of the runtime, paused: it jumps to the next request that is due. No two requests are due at the same
//! time, so the order of all effects depends on the seed alone. The bucket checks the one thing that must never happen at
//! the moment it happens: that an object goes, or is missing, which the manifest of a finished backup names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ::medusa::model::manifest::Manifest;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stopper::Fault;
use crate::support::Random;

/// The longest time from a request to its effect, and from there to the answer.
const SLOWEST: u64 = 1_500;

/// 2026-01-01, when every schedule begins.
const EPOCH: i64 = 1_767_225_600;

#[derive(Debug, Clone)]
struct Object {
    content: Bytes,
    /// By the storage's clock, milliseconds since 1970.
    modified: i64,
    version: u64,
}

/// One change, so that a listing can look back.
#[derive(Debug)]
struct Change {
    /// Milliseconds since the beginning.
    at: u64,
    key: String,
    before: Option<Object>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    changes: Vec<Change>,
    /// What the manifests that are there name, by the key of the manifest.
    named: BTreeMap<String, BTreeMap<String, u64>>,
    /// Objects that manifests name and that are not there, by the key of the manifest.
    lost: BTreeMap<String, BTreeSet<String>>,
    /// Manifests of backups that were told to be finished.
    acknowledged: BTreeSet<String>,
    /// What was deleted although one of those names it.
    violations: Vec<String>,
    /// When cassandra-medusa overwrote an object with another content.
    overwritten: BTreeMap<String, u64>,
    due: BTreeSet<u64>,
    versions: u64,
}

/// The bucket.
#[derive(Debug)]
pub struct Bucket {
    begin: Instant,
    /// Milliseconds that listings may be behind.
    lag: AtomicU64,
    /// Seconds that the storage's clock is off.
    clock: AtomicI64,
    state: Mutex<State>,
}

impl Bucket {
    pub fn new(lag: u64) -> Arc<Self> {
        let (begin, lag, clock) = (Instant::now(), AtomicU64::new(lag), AtomicI64::new(0));
        let state = Mutex::default();
        Arc::new(Self { begin, lag, clock, state })
    }

    /// A process that uses it.
    pub fn client(self: &Arc<Self>, seed: u64, kill: Option<(usize, Fault)>) -> Client {
        let process = Process {
            kill,
            random: Mutex::new(Random::new(seed)),
            requests: AtomicUsize::new(0),
            is_dead: AtomicBool::new(false),
            death: Notify::new(),
        };
        Client { bucket: Arc::clone(self), process: Arc::new(process) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }

    pub fn step_clock(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn storage_time(&self) -> i64 {
        (EPOCH + self.clock.load(Ordering::SeqCst)) * 1000 + i64::try_from(self.now()).unwrap()
    }

    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub fn content(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|object| object.content.clone())
    }

    pub fn was_overwritten_since(&self, key: &str, at: u64) -> bool {
        self.state().overwritten.get(key).is_some_and(|when| *when >= at)
    }

    /// A backup was told to be finished.
    pub fn acknowledge(&self, manifest: &str) {
        self.state().acknowledged.insert(manifest.to_owned());
    }

    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// From now on listings are up to date.
    pub fn settle(&self) {
        self.lag.store(0, Ordering::SeqCst);
    }

    /// What finished backups have lost.
    pub fn lost(&self) -> Vec<String> {
        let lost = |(manifest, keys): (&String, &BTreeSet<String>)| format!("{manifest} names {keys:?}, gone");
        self.state().lost.iter().map(lost).collect()
    }

    pub fn named(&self) -> BTreeSet<String> {
        self.state().named.values().flat_map(|paths| paths.keys().cloned()).collect()
    }

    /// Waits for a time at which nothing else happens.
    async fn wait(&self, milliseconds: u64) {
        let due = {
            let mut state = self.state();
            let mut due = self.now() + milliseconds.max(1);
            while !state.due.insert(due) {
                due += 1;
            }
            due
        };
        tokio::time::sleep_until(self.begin + Duration::from_millis(due)).await;
    }
}

impl State {
    fn change(&mut self, at: u64, key: &str, object: Option<Object>) {
        if std::env::var_os("TRACE").is_some() {
            println!("{at:>8} {} {key}", if object.is_some() { "put   " } else { "delete" });
        }
        let before = match object {
            Some(object) => self.objects.insert(key.to_owned(), object),
            None => self.objects.remove(key),
        };
        self.changes.push(Change { at, key: key.to_owned(), before });
        if key.ends_with("/meta/manifest.json") {
            self.change_manifest(key);
        } else if !self.objects.contains_key(key) {
            for (manifest, paths) in &self.named {
                if paths.contains_key(key) {
                    self.lost.entry(manifest.clone()).or_default().insert(key.to_owned());
                    if self.acknowledged.contains(manifest) {
                        self.violations.push(format!("{key} was deleted, and {manifest} names it"));
                    }
                }
            }
        }
    }

    fn change_manifest(&mut self, key: &str) {
        self.named.remove(key);
        self.lost.remove(key);
        let Some(object) = self.objects.get(key) else {
            self.acknowledged.remove(key);
            return;
        };
        let manifest = Manifest::parse(&object.content).unwrap();
        let paths: BTreeMap<_, _> = manifest.objects().map(|object| (object.path.to_string(), object.size)).collect();
        let is_there = |(path, size): &(&String, &u64)| {
            let same_size = |object: &Object| object.content.len() as u64 == **size;
            self.overwritten.contains_key(*path) || self.objects.get(*path).is_some_and(same_size)
        };
        let lost: BTreeSet<_> = paths.iter().filter(|entry| !is_there(entry)).map(|(path, _)| path.clone()).collect();
        if !lost.is_empty() {
            self.lost.insert(key.to_owned(), lost);
        }
        self.named.insert(key.to_owned(), paths);
    }

    /// The objects below a prefix as they were at a time.
    fn listing(&self, prefix: &str, at: u64) -> BTreeMap<String, Object> {
        let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let range = self.objects.range::<String, _>((Bound::Included(&below), Bound::Unbounded));
        let range = range.take_while(|(key, _)| key.starts_with(&below));
        let mut listing: BTreeMap<_, _> = range.map(|(key, object)| (key.clone(), object.clone())).collect();
        for change in self.changes.iter().rev().take_while(|change| change.at > at) {
            if change.key.starts_with(&below) {
                match &change.before {
                    Some(object) => drop(listing.insert(change.key.clone(), object.clone())),
                    None => drop(listing.remove(&change.key)),
                }
            }
        }
        listing
    }
}

#[derive(Debug)]
struct Process {
    random: Mutex<Random>,
    /// It is gone at that request.
    kill: Option<(usize, Fault)>,
    requests: AtomicUsize,
    is_dead: AtomicBool,
    death: Notify,
}

/// The bucket as one process sees it.
#[derive(Debug, Clone)]
pub struct Client {
    bucket: Arc<Bucket>,
    process: Arc<Process>,
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated")
    }
}

impl Client {
    /// The process is killed.
    pub async fn death(&self) {
        self.process.death.notified().await;
    }

    fn random(&self, limit: u64) -> u64 {
        self.process.random.lock().unwrap().below(limit)
    }

    async fn die(&self) {
        self.process.is_dead.store(true, Ordering::SeqCst);
        self.process.death.notify_one();
        std::future::pending::<()>().await;
    }

    /// One request: it takes a while until it has its effect, and until that is known.
    async fn request<T>(&self, effect: impl FnOnce(&mut State, u64) -> Result<T> + Send) -> Result<T> {
        if self.process.is_dead.load(Ordering::SeqCst) {
            self.die().await;
        }
        let number = self.process.requests.fetch_add(1, Ordering::SeqCst);
        let killed = self.process.kill.filter(|(at, _)| *at == number).map(|(_, stop)| stop);
        let until_effect = self.random(SLOWEST);
        self.bucket.wait(until_effect).await;
        if killed == Some(Fault::KillBefore) || self.process.is_dead.load(Ordering::SeqCst) {
            self.die().await;
        }
        let now = self.bucket.now();
        let result = effect(&mut self.bucket.state(), now);
        if killed == Some(Fault::KillAfter) {
            self.die().await;
        }
        let until_answer = self.random(SLOWEST);
        self.bucket.wait(until_answer).await;
        result
    }

    /// As cassandra-medusa writes: whatever was there.
    pub async fn overwrite(&self, key: &str, content: Bytes) {
        let storage_time = self.bucket.storage_time();
        let written = self.request(|state, now| {
            let before = state.objects.get(key).map(|object| object.content.clone());
            if before.is_some_and(|before| before != content) {
                state.overwritten.insert(key.to_owned(), now);
            }
            state.versions += 1;
            let version = state.versions;
            state.change(now, key, Some(Object { content, modified: storage_time, version }));
            Ok(())
        });
        written.await.unwrap();
    }

    /// Takes time that belongs to no request.
    pub async fn pause(&self, milliseconds: u64) {
        self.bucket.wait(milliseconds).await;
    }

    /// When a listing shows the bucket.
    fn shown(&self, now: u64) -> u64 {
        now - self.random(self.bucket.lag.load(Ordering::SeqCst) + 1).min(now)
    }
}

fn meta(key: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::parse(key).unwrap(),
        last_modified: DateTime::<Utc>::from_timestamp_millis(object.modified).unwrap(),
        size: object.content.len() as u64,
        e_tag: Some(object.version.to_string()),
        version: None,
    }
}

fn no_such(key: &Path) -> Error {
    Error::NotFound { path: key.to_string(), source: "404".into() }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let content = Bytes::from(payload);
        let bucket = Arc::clone(&self.bucket);
        let effect = move |state: &mut State, now: u64| {
            let key = location.as_ref();
            let current = state.objects.get(key);
            match (&opts.mode, current) {
                (PutMode::Create, Some(_)) => {
                    return Err(Error::AlreadyExists { path: key.into(), source: "412".into() });
                }
                (PutMode::Update(update), current)
                    if current.map(|object| object.version.to_string()) != update.e_tag =>
                {
                    return Err(Error::Precondition { path: key.into(), source: "412".into() });
                }
                _ => {}
            }
            state.versions += 1;
            let version = state.versions;
            state.change(now, key, Some(Object { content, modified: bucket.storage_time(), version }));
            Ok(PutResult { e_tag: Some(version.to_string()), version: None, extensions: opts.extensions })
        };
        self.request(effect).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "the simulation".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let effect = |state: &mut State, _| {
            let object = state.objects.get(location.as_ref()).ok_or_else(|| no_such(location))?;
            let content = if options.head { Bytes::new() } else { object.content.clone() };
            let range = 0..object.content.len() as u64;
            let meta = meta(location.as_ref(), object);
            let payload = GetResultPayload::Stream(futures::stream::iter([Ok(content)]).boxed());
            let (attributes, extensions) = (object_store::Attributes::default(), options.extensions);
            Ok(GetResult { payload, meta, range, attributes, extensions })
        };
        self.request(effect).await
    }

    /// In bulk, as the object stores do it.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        locations
            .chunks(1000)
            .then(move |paths| {
                let client = client.clone();
                async move {
                    let paths: Vec<_> = paths.into_iter().map(Result::unwrap).collect();
                    let effect = |state: &mut State, now| {
                        for path in
                            paths.iter().filter(|path| state.objects.contains_key(path.as_ref())).collect::<Vec<_>>()
                        {
                            state.change(now, path.as_ref(), None);
                        }
                        Ok(())
                    };
                    client.request(effect).await.unwrap();
                    futures::stream::iter(paths.into_iter().map(Ok))
                }
            })
            .flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, prefix) = (self.clone(), prefix.map(ToString::to_string).unwrap_or_default());
        let listed = async move {
            let effect = |state: &mut State, now| Ok(state.listing(&prefix, client.shown(now)));
            let listing = client.request(effect).await.unwrap();
            futures::stream::iter(listing.into_iter().map(|(key, object)| Ok(meta(&key, &object))))
        };
        listed.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(ToString::to_string).unwrap_or_default();
        let effect = |state: &mut State, now| Ok(state.listing(&prefix, self.shown(now)));
        let listing = self.request(effect).await?;
        let below = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
        let (mut folders, mut objects) = (BTreeSet::new(), Vec::new());
        for (key, object) in listing {
            match key[below..].find('/') {
                Some(end) => drop(folders.insert(key[..below + end].to_owned())),
                None => objects.push(meta(&key, &object)),
            }
        }
        let common_prefixes = folders.iter().map(|folder| Path::parse(folder).unwrap()).collect();
        Ok(ListResult { common_prefixes, objects, extensions: object_store::Extensions::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "the simulation".into() })
    }
}
