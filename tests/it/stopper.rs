//! A storage that stops at the n-th operation, as the program does when it is killed: that operation has its effect or not,
//! and nothing works afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Where a run stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Before,
    After,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Stopper {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    at: usize,
    stop: Stop,
    operations: AtomicUsize,
    is_dead: AtomicBool,
}

impl Stopper {
    pub fn new(inner: Arc<dyn ObjectStore>, at: usize, stop: Stop) -> Self {
        let (operations, is_dead) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { inner, state: Arc::new(State { at, stop, operations, is_dead }) }
    }

    /// Whether it came to the operation at which it stops.
    pub fn has_stopped(&self) -> bool {
        self.state.is_dead.load(Ordering::SeqCst)
    }
}

fn dead() -> Error {
    Error::Generic { store: "stopper", source: "the process is gone".into() }
}

impl State {
    /// Before the effect. Returns whether to stop after it.
    fn begin(&self) -> Result<bool> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(dead());
        }
        let is_it = self.operations.fetch_add(1, Ordering::SeqCst) == self.at;
        if is_it {
            self.is_dead.store(true, Ordering::SeqCst);
            if self.stop == Stop::Before {
                return Err(dead());
            }
        }
        Ok(is_it)
    }

    fn end<T>(stops: bool, result: Result<T>) -> Result<T> {
        if stops { Err(dead()) } else { result }
    }
}

impl std::fmt::Display for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopper({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Stopper {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let stops = self.state.begin()?;
        State::end(stops, self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let stops = self.state.begin()?;
        let upload = self.inner.put_multipart_opts(location, opts).await;
        let state = Arc::clone(&self.state);
        State::end(stops, upload.map(|inner| Box::new(StoppingUpload { inner, state }) as Box<dyn MultipartUpload>))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let stops = self.state.begin()?;
        State::end(stops, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let delete = move |location: Result<Path>| {
            let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
            async move {
                let stops = state.begin()?;
                let one = futures::stream::iter([location]).boxed();
                let deleted = inner.delete_stream(one).next().await.unwrap_or_else(|| Err(dead()));
                State::end(stops, deleted)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.begin() {
            Ok(false) => self.inner.list(prefix),
            Ok(true) | Err(_) => futures::stream::iter([Err(dead())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let stops = self.state.begin()?;
        State::end(stops, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let stops = self.state.begin()?;
        State::end(stops, self.inner.copy_opts(from, to, options).await)
    }
}

#[derive(Debug)]
struct StoppingUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

#[async_trait]
impl MultipartUpload for StoppingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.state.begin() {
            Ok(false) => self.inner.put_part(data),
            Ok(true) => {
                let part = self.inner.put_part(data);
                Box::pin(async move { part.await.and(Err(dead())) })
            }
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let stops = self.state.begin()?;
        State::end(stops, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        // A process that is gone does not clean up.
        if self.state.is_dead.load(Ordering::SeqCst) {
            return Err(dead());
        }
        self.inner.abort().await
    }
}
