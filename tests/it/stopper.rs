//! A storage with a fault at the n-th operation. The program is killed there: the operation has its effect or not, and nothing
//! works afterwards. Or that one operation fails, or returns half of what it should, and the program goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What happens at the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillBefore,
    KillAfter,
    FailBefore,
    /// It has its effect, and the answer is lost.
    FailAfter,
    /// An object is cut in half. Only where one is read.
    Truncate,
}

impl Fault {
    pub const ALL: [Self; 5] = [Self::KillBefore, Self::KillAfter, Self::FailBefore, Self::FailAfter, Self::Truncate];

    fn kills(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }

    fn is_before(self) -> bool {
        matches!(self, Self::KillBefore | Self::FailBefore)
    }
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
    fault: Fault,
    operations: AtomicUsize,
    is_dead: AtomicBool,
    has_fired: AtomicBool,
}

impl Stopper {
    pub fn new(inner: Arc<dyn ObjectStore>, at: usize, fault: Fault) -> Self {
        let (operations, is_dead, has_fired) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Self { inner, state: Arc::new(State { at, fault, operations, is_dead, has_fired }) }
    }

    /// How many there were so far.
    pub fn operations(&self) -> usize {
        self.state.operations.load(Ordering::SeqCst)
    }

    pub fn has_fired(&self) -> bool {
        self.state.has_fired.load(Ordering::SeqCst)
    }
}

fn dead() -> Error {
    Error::Generic { store: "stopper", source: "the process is gone".into() }
}

impl State {
    /// Before the effect. Returns whether this is the operation.
    fn begin(&self) -> Result<bool> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(dead());
        }
        let is_it = self.operations.fetch_add(1, Ordering::SeqCst) == self.at;
        if is_it && self.fault != Fault::Truncate {
            self.has_fired.store(true, Ordering::SeqCst);
            self.is_dead.store(self.fault.kills(), Ordering::SeqCst);
            if self.fault.is_before() {
                return Err(dead());
            }
        }
        Ok(is_it)
    }

    /// After the effect.
    fn end<T>(&self, is_it: bool, result: Result<T>) -> Result<T> {
        if is_it && self.fault != Fault::Truncate { Err(dead()) } else { result }
    }

    async fn truncated(&self, result: GetResult) -> Result<GetResult> {
        self.has_fired.store(true, Ordering::SeqCst);
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let mut bytes = result.bytes().await?;
        bytes.truncate(bytes.len() / 2);
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
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
        let is_it = self.state.begin()?;
        self.state.end(is_it, self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let is_it = self.state.begin()?;
        let upload = self.inner.put_multipart_opts(location, opts).await;
        let state = Arc::clone(&self.state);
        self.state.end(is_it, upload.map(|inner| Box::new(StoppingUpload { inner, state }) as Box<dyn MultipartUpload>))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_it = self.state.begin()?;
        let is_content = !options.head;
        let result = self.state.end(is_it, self.inner.get_opts(location, options).await)?;
        if is_it && is_content && result.range.end > result.range.start {
            return self.state.truncated(result).await;
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let delete = move |location: Result<Path>| {
            let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
            async move {
                let is_it = state.begin()?;
                let one = futures::stream::iter([location]).boxed();
                let deleted = inner.delete_stream(one).next().await.unwrap_or_else(|| Err(dead()));
                state.end(is_it, deleted)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.state.begin() {
            Ok(is_it) if !is_it || self.state.fault == Fault::Truncate => self.inner.list(prefix),
            _ => futures::stream::iter([Err(dead())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let is_it = self.state.begin()?;
        self.state.end(is_it, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let is_it = self.state.begin()?;
        self.state.end(is_it, self.inner.copy_opts(from, to, options).await)
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
            Ok(is_it) if !is_it || self.state.fault == Fault::Truncate => self.inner.put_part(data),
            Ok(_) => {
                let part = self.inner.put_part(data);
                Box::pin(async move { part.await.and(Err(dead())) })
            }
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let is_it = self.state.begin()?;
        self.state.end(is_it, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        // A process that is gone does not clean up.
        if self.state.is_dead.load(Ordering::SeqCst) {
            return Err(dead());
        }
        self.inner.abort().await
    }
}
