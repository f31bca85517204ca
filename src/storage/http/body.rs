//! Bodies that are not held in memory: parts of files on their way out, and answers on their way in.

use std::future::poll_fn;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::monitor::Counters;

/// Bytes that are read and sent at a time.
const CHUNK: u64 = 256 << 10;

/// What the next request uploads, beyond what `object_store` lets through: it takes bodies in memory only.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// It belongs to a file, and waits for its turn where the storage asked to slow down. Leases do not.
    pub of_file: bool,
    /// `None`: the body that the request has.
    pub file: Option<FilePart>,
    /// Of the body. Sent along, so that the server refuses what was damaged on the way.
    pub md5: [u8; 16],
    /// Of the part of the file, where the store is to compare it, too.
    pub crc64: Option<u64>,
    /// Of the whole object, for the request that completes an upload of parts.
    pub whole_md5: Option<[u8; 16]>,
}

/// A part of a file that does not change.
#[derive(Debug, Clone)]
pub struct FilePart {
    pub file: Arc<fs::File>,
    pub offset: u64,
    pub length: u64,
    /// Count what is sent of it.
    pub counters: Arc<Counters>,
}

tokio::task_local! {
    /// Set around one call of the store.
    pub static CONTENT: Content;
}

/// Bytes per second below which a request hangs rather than being slow.
const LEAST_RATE: u64 = 4 << 10;

/// So many times longer than nothing may move a request may wait for the other side, and as long as its bytes take at the
/// least rate. A body that trickles would go on for ever otherwise.
const WAITS: u32 = 10;

/// For how long a request may still wait for the other side. Waiting for our own disk and our own limit does not count.
#[derive(Debug)]
pub(super) struct Budget {
    /// For how long nothing may move.
    patience: Duration,
    moved: u64,
    waited: Duration,
}

impl Budget {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, moved: 0, waited: Duration::ZERO }
    }

    /// How long the next wait may be.
    fn left(&self) -> Duration {
        let all = self.patience.saturating_mul(WAITS).saturating_add(Duration::from_secs(self.moved / LEAST_RATE));
        self.patience.min(all.saturating_sub(self.waited))
    }

    /// After a wait of more than what was left.
    fn error(&self, wait: Duration) -> HttpError {
        let message = if self.left() == self.patience {
            format!("nothing moved for {} seconds (read_timeout)", self.patience.as_secs())
        } else {
            let (moved, waited) = (self.moved, (self.waited + wait).as_secs());
            format!(
                "only {moved} bytes moved in {waited} seconds; a request may take {WAITS} times read_timeout, and a second for each {LEAST_RATE} bytes"
            )
        };
        // Trying again is harmless: what is created is created only once, and what is replaced is the same.
        HttpError::new_boxed(HttpErrorKind::Request, message.into())
    }
}

/// How the body of a request gets on.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// Since when it is the other side's turn.
    since: Instant,
    budget: Budget,
    counters: Option<Arc<Counters>>,
}

impl Progress {
    pub(super) fn begin(patience: Duration, counters: Option<Arc<Counters>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Waiting { since: Instant::now(), budget: Budget::new(patience), counters })))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before was our own doing.
    pub(super) fn sent(&self) {
        self.waiting().since = Instant::now();
    }

    /// The other side wants more.
    fn asked(&self) {
        let (mut waiting, now) = (self.waiting(), Instant::now());
        let wait = now.saturating_duration_since(waiting.since);
        waiting.budget.waited += wait;
        waiting.since = now;
    }

    /// It has so many bytes to take.
    fn made(&self, bytes: u64) {
        let mut waiting = self.waiting();
        waiting.budget.moved += bytes;
        waiting.since = Instant::now();
        if let Some(counters) = &waiting.counters {
            counters.add_bytes(bytes);
        }
    }

    /// What was sent did not arrive, and what is still under way will not.
    pub(super) fn was_in_vain(&self) {
        let mut waiting = self.waiting();
        if let Some(counters) = waiting.counters.take() {
            counters.take_back_bytes(waiting.budget.moved);
        }
    }

    /// Nothing can move before: our own limit of bytes says so.
    fn expected(&self, at: Instant) {
        self.waiting().since = at;
    }

    /// Returns why the request is given up, when it is.
    pub(super) async fn stalled(&self) -> HttpError {
        loop {
            let until = {
                let waiting = self.waiting();
                let until = waiting.since + waiting.budget.left();
                if until <= Instant::now() {
                    return waiting.budget.error(waiting.since.elapsed());
                }
                until
            };
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
        progress.asked();
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
        let rest = FilePart { offset: offset + wanted, length: part.length - wanted, ..part };
        Ok(Some((chunk, (rest, shared, progress))))
    })
}

async fn allow(bytes: u64, shared: &Shared, progress: &Progress) {
    if let Some(until) = shared.bandwidth.take(bytes) {
        progress.expected(until);
        tokio::time::sleep_until(until).await;
    }
    progress.made(bytes);
}

/// The same with a body that is in memory.
pub(super) fn sliced(
    body: HttpRequestBody,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
) -> impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static {
    let state = (body, Bytes::new(), shared, progress);
    futures::stream::try_unfold(state, async |(mut body, mut rest, shared, progress)| {
        progress.asked();
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
    inner: reqwest::Body,
    shared: Arc<Shared>,
    /// Until when nothing more is taken.
    held: Option<Pin<Box<Sleep>>>,
    /// Until when something has to come.
    patience: Pin<Box<Sleep>>,
    waiting_since: Option<Instant>,
    budget: Budget,
}

impl Received {
    pub(super) fn new(inner: reqwest::Body, shared: &Arc<Shared>) -> Self {
        Self {
            inner,
            shared: Arc::clone(shared),
            held: None,
            patience: Box::pin(tokio::time::sleep(shared.patience)),
            waiting_since: None,
            budget: Budget::new(shared.patience),
        }
    }
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
            let since = if let Some(since) = self.waiting_since {
                since
            } else {
                let now = Instant::now();
                let until = now + self.budget.left();
                self.patience.as_mut().reset(until);
                *self.waiting_since.insert(now)
            };
            ready!(self.patience.as_mut().poll(context));
            return Poll::Ready(Some(Err(self.budget.error(since.elapsed()))));
        };
        if let Some(since) = self.waiting_since.take() {
            self.budget.waited += since.elapsed();
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.budget.moved += bytes;
                let until = self.shared.bandwidth.take(bytes);
                self.held = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(HttpError::new(HttpErrorKind::Interrupted, error.without_url()))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// Sends pieces of so many bytes, one after each pause, until the request is given up.
    async fn given_up(bytes: u64, pause: Duration) -> (String, Duration) {
        let begin = Instant::now();
        let progress = Progress::begin(PATIENCE, None);
        let sending = async {
            loop {
                progress.asked();
                progress.made(bytes);
                tokio::time::sleep(pause).await;
                if begin.elapsed() > Duration::from_hours(10) {
                    return "it goes on".to_owned();
                }
            }
        };
        let why = tokio::select! {
            error = progress.stalled() => error.to_string(),
            end = sending => end,
        };
        (why, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_and_a_slow_one_is_not() {
        let (why, after) = given_up(1, Duration::from_secs(59)).await;
        assert!(why.contains("bytes moved in 600 seconds"), "{why}");
        assert_eq!(after.as_secs(), 600);
        let (why, _) = given_up(LEAST_RATE, Duration::from_secs(1)).await;
        assert_eq!(why, "it goes on");
        let (why, after) = given_up(1 << 30, Duration::from_secs(61)).await;
        assert!(why.contains("nothing moved for 60 seconds (read_timeout)"), "{why}");
        assert_eq!(after.as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_limit_and_our_own_disk_take_no_time_of_it() {
        let progress = Progress::begin(PATIENCE, None);
        for _ in 0..100 {
            progress.asked();
            let held = Instant::now() + 10 * PATIENCE;
            progress.expected(held);
            tokio::time::sleep_until(held).await;
            progress.made(1);
        }
        assert_eq!(progress.waiting().budget.waited, Duration::ZERO);
    }
}
