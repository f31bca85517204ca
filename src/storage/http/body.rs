//! Bodies that are not held in memory: parts of files on their way out, and answers on their way in.

use std::future::poll_fn;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;
use futures::Stream;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep};

use super::Shared;
use super::gate::Pass;

/// Bytes that are read and sent at a time.
const CHUNK: u64 = 256 << 10;

/// What the next request uploads, beyond what `object_store` lets through: it takes bodies in memory only.
#[derive(Debug, Clone)]
pub struct Content {
    /// `None`: the body that the request has.
    pub file: Option<FilePart>,
    /// Of the body. Sent along, so that the server refuses what was damaged on the way.
    pub md5: [u8; 16],
    /// Of the whole object, for the request that completes an upload of parts.
    pub whole_md5: Option<[u8; 16]>,
}

/// A part of a file that does not change.
#[derive(Debug, Clone)]
pub struct FilePart {
    pub file: Arc<fs::File>,
    pub offset: u64,
    pub length: u64,
}

tokio::task_local! {
    /// Set around one call of the store.
    pub static CONTENT: Content;
}

/// When a request last made progress.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Instant>);

impl Progress {
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Instant::now())))
    }

    pub(super) fn made(&self) {
        self.expected(Instant::now());
    }

    /// Nothing can move before: our own limit of bytes says so.
    fn expected(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Returns when nothing has moved for so long.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Reads the part in chunks, no faster than the bandwidth allows.
pub(super) fn sent(
    part: FilePart,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    futures::stream::try_unfold((part, shared, progress), async |(part, shared, progress)| {
        if part.length == 0 {
            return Ok(None);
        }
        let wanted = part.length.min(CHUNK);
        let file = Arc::clone(&part.file);
        let offset = part.offset;
        let chunk = spawn_blocking(move || {
            let mut chunk = vec![0; usize::try_from(wanted).unwrap_or_default()];
            file.file().read_exact_at(&mut chunk, offset).map(|()| Bytes::from(chunk))
        });
        let chunk = chunk.await.map_err(std::io::Error::other)??;
        allow(wanted, &shared, &progress).await;
        let rest = FilePart { file: part.file, offset: offset + wanted, length: part.length - wanted };
        Ok(Some((chunk, (rest, shared, progress))))
    })
}

async fn allow(bytes: u64, shared: &Shared, progress: &Progress) {
    if let Some(until) = shared.bandwidth.take(bytes) {
        progress.expected(until);
        tokio::time::sleep_until(until).await;
    }
    progress.made();
}

/// The same with a body that is in memory.
pub(super) fn sliced(
    body: HttpRequestBody,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
) -> impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static {
    let state = (body, Bytes::new(), shared, progress);
    futures::stream::try_unfold(state, async |(mut body, mut rest, shared, progress)| {
        while rest.is_empty() {
            match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(frame) => rest = frame?.into_data().unwrap_or_default(),
                None => return Ok(None),
            }
        }
        let slice = rest.split_to(rest.len().min(usize::try_from(CHUNK).unwrap_or(usize::MAX)));
        allow(slice.len() as u64, &shared, &progress).await;
        Ok(Some((slice, (body, rest, shared, progress))))
    })
}

/// The body of an answer: no faster than the bandwidth allows, and with an end where nothing comes any more.
pub(super) struct Received {
    pub(super) inner: reqwest::Body,
    pub(super) shared: Arc<Shared>,
    pub(super) pass: Option<Pass>,
    /// Until when nothing more is taken.
    pub(super) held: Option<Pin<Box<Sleep>>>,
    /// Until when something has to come.
    pub(super) patience: Pin<Box<Sleep>>,
    pub(super) is_waiting: bool,
}

impl Body for Received {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Some(held) = &mut self.held {
            ready!(held.as_mut().poll(context));
            self.held = None;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            // Only while somebody wants more: the disk may be what is slow.
            if !self.is_waiting {
                self.is_waiting = true;
                let patience = Instant::now() + self.shared.patience;
                self.patience.as_mut().reset(patience);
            }
            ready!(self.patience.as_mut().poll(context));
            self.pass = None;
            return Poll::Ready(Some(Err(self.shared.stalled())));
        };
        self.is_waiting = false;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let until = self.shared.bandwidth.take(bytes);
                self.held = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                // Whoever reads on asks anew, and keeps this body until then.
                self.pass = None;
                Some(Err(HttpError::new(HttpErrorKind::Interrupted, error.without_url())))
            }
            None => {
                self.pass = None;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
