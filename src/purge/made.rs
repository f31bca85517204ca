//! Buckets that are made up for tests, in a local folder and behind a store that fails or changes on request.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::json;

use super::retention::DAY;
use crate::config::forward::Forward;
use crate::config::{Config, Overrides};
use crate::context::Context;
use crate::interrupt::Interrupt;
use crate::monitor::Silent;
use crate::storage::provider;

/// What happens when the content of an object is read, or an object deleted.
pub(crate) type Hook = Box<dyn Fn(&Path) -> Option<Error> + Send + Sync>;

/// A store that asks a hook before it reads, and another one before it deletes.
struct Hooked {
    inner: Arc<dyn ObjectStore>,
    read: Hook,
    delete: Arc<Hook>,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hooked")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Hooked {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let error = if options.head { None } else { (self.read)(location) };
        match error {
            Some(error) => Err(error),
            None => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        use futures::StreamExt as _;
        let hook = Arc::clone(&self.delete);
        let asked = locations.map(move |location| {
            let location = location?;
            hook(&location).map_or(Ok(location), Err)
        });
        self.inner.delete_stream(asked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub(crate) fn denied(path: &Path) -> Error {
    Error::PermissionDenied { path: path.to_string(), source: "403 Forbidden".into() }
}

/// A bucket in a folder.
#[derive(Clone)]
pub(crate) struct Made {
    folder: Arc<tempfile::TempDir>,
    /// From which ages are counted: a minute ago.
    begin: SystemTime,
}

pub(crate) const TABLE: &str = "ks/t-34998de0e59711f199fcf93f14538dd2";

impl Made {
    pub(crate) fn new() -> Self {
        let begin = SystemTime::now() - Duration::from_mins(1);
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), begin }
    }

    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("bucket").join(key)
    }

    /// An object that was written so many days ago.
    pub(crate) fn put(&self, key: &str, content: &str, days: u64) {
        let path = self.file(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let time = self.begin - Duration::from_hours(24 * days);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }

    fn started(&self, days: u64) -> i64 {
        DateTime::<Utc>::from(self.begin).timestamp() - i64::try_from(days).unwrap() * DAY
    }

    /// A file of the pool of node `n1`.
    pub(crate) fn pool(&self, file: &str, days: u64) -> String {
        let key = format!("n1/data/{TABLE}/{file}");
        self.put(&key, file, days);
        key
    }

    /// A backup of `n1` that was begun, with its index entries.
    pub(crate) fn begun(&self, name: &str, days: u64) {
        let started = self.started(days).to_string();
        let tokenmap = r#"{"n1": {"tokens": [1], "is_up": true}}"#;
        for (key, content) in [
            (format!("n1/{name}/meta/schema.cql"), "schema"),
            (format!("n1/{name}/meta/tokenmap.json"), tokenmap),
            (format!("n1/{name}/meta/differential"), "differential"),
            (format!("index/backup_index/{name}/tokenmap_n1.json"), tokenmap),
            (format!("index/backup_index/{name}/schema_n1.cql"), "schema"),
            (format!("index/backup_index/{name}/started_n1_{started}.timestamp"), &started),
            (format!("index/backup_index/{name}/differential_n1"), "differential"),
        ] {
            self.put(&key, content, days);
        }
    }

    /// A finished backup of `n1` that names these keys.
    pub(crate) fn backup(&self, name: &str, days: u64, keys: &[&str]) {
        self.begun(name, days);
        let objects: Vec<_> = keys.iter().map(|key| json!({ "path": key, "MD5": null, "size": 1 })).collect();
        let (keyspace, folder) = TABLE.split_once('/').unwrap();
        let manifest = json!([{ "keyspace": keyspace, "columnfamily": folder, "objects": objects }]).to_string();
        self.put(&format!("n1/{name}/meta/manifest.json"), &manifest, days);
        self.put(&format!("index/backup_index/{name}/manifest_n1.json"), &manifest, days);
        let finished = self.started(days).to_string();
        self.put(&format!("index/backup_index/{name}/finished_n1_{finished}.timestamp"), &finished, days);
        let count = keys.len();
        let facts = format!("differential_{finished}_{finished}_{count}_{count}_0_0_0123456789abcdef_cassandra_5.0.9");
        self.put(&format!("index/summaries/{name}/n1_{facts}.summary"), "", days);
    }

    pub(crate) fn keys(&self) -> BTreeSet<String> {
        let root = self.file("");
        let files = walkdir::WalkDir::new(&root).into_iter().flatten().filter(|entry| entry.file_type().is_file());
        files.map(|file| file.path().strip_prefix(&root).unwrap().display().to_string()).collect()
    }

    pub(crate) fn pool_keys(&self) -> BTreeSet<String> {
        self.keys().into_iter().filter(|key| key.starts_with("n1/data/")).collect()
    }

    pub(crate) async fn context(&self) -> Context {
        let text = format!(
            "[storage]\nstorage_provider = local\nbucket_name = bucket\nfqdn = n1\nbase_path = {}\n[cassandra]\nresolve_ip_addresses = False\n",
            self.folder.path().display()
        );
        let config = Config::from_text(&text, "medusa.ini".as_ref(), &Overrides::default(), &BTreeMap::new()).unwrap();
        Context::new(config, Forward::default(), Arc::new(Silent), Interrupt::default()).await.unwrap()
    }

    /// With hooks before reading and before deleting.
    pub(crate) async fn hooked(&self, read: Hook, delete: Hook) -> Context {
        let context = self.context().await;
        let wrap = |inner| Arc::new(Hooked { inner, read, delete: Arc::new(delete) }) as Arc<dyn ObjectStore>;
        Context { storage: provider::wrapped(context.storage.clone(), wrap), ..context }
    }
}

/// A folder says by itself what may be deleted there; an object store is asked.
pub(crate) fn as_object_store(context: Context) -> Context {
    let mut store = None;
    let _ = provider::wrapped(context.storage.clone(), |inner| Arc::clone(store.insert(inner)));
    Context { storage: provider::over(store.unwrap(), "bucket"), ..context }
}

/// A hook that does nothing.
pub(crate) fn nothing() -> Hook {
    Box::new(|_| None)
}
