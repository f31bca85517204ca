//! Work that blocks: file system calls, hashing, and moving many files.
//!
//! A file of a few kilobytes takes less time than changing threads for it. So files are moved by threads of their own, each
//! doing everything for one file after the other, and file system calls are made where they stand.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::task::{block_in_place, spawn_blocking};

/// Makes a call that blocks. A worker of the runtime is replaced by another one meanwhile.
pub fn inline<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

/// Runs `work` on every item, on so many threads. Results come in no particular order. Nobody receiving any more, the threads
/// end after the item at hand. On a runtime of one thread, tasks take the place of threads.
pub fn on_threads<T, R, W, F>(threads: usize, items: Vec<T>, work: W) -> Results<R>
where
    T: Send + 'static,
    R: Send + 'static,
    W: Fn(T) -> F + Clone + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let expected = items.len();
    let (sender, receiver) = mpsc::channel(threads.max(1) * 4);
    let threads = threads.clamp(1, items.len().max(1));
    let items = Arc::new(Mutex::new(items.into_iter()));
    for _ in 0..threads {
        let (items, work, sender, handle) = (Arc::clone(&items), work.clone(), sender.clone(), Handle::current());
        let each = async move {
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(item) = next() {
                if sender.send(work(item).await).await.is_err() {
                    return;
                }
            }
        };
        if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
            tokio::spawn(each);
        } else {
            spawn_blocking(move || handle.block_on(each));
        }
    }
    Results { receiver, missing: expected }
}

/// What workers return.
#[derive(Debug)]
pub struct Results<R> {
    receiver: mpsc::Receiver<R>,
    missing: usize,
}

impl<R> Results<R> {
    /// The next one. `None`: all items are done.
    ///
    /// # Panics
    /// A worker panicked. Its item must not be taken for done.
    pub async fn recv(&mut self) -> Option<R> {
        let result = self.receiver.recv().await;
        match &result {
            Some(_) => self.missing -= 1,
            None => assert!(self.missing == 0, "a worker came to no result"),
        }
        result
    }

    /// Waits for the workers' end. What they still return is of no interest.
    pub async fn end(mut self) {
        while self.receiver.recv().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn every_item_is_worked_on_once() {
        let mut results = on_threads(4, (0..1000).collect(), |n: u32| async move { n });
        let mut seen = Vec::new();
        while let Some(n) = results.recv().await {
            seen.push(n);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn threads_end_when_nobody_receives() {
        static DONE: AtomicU32 = AtomicU32::new(0);
        let mut results = on_threads(2, (0..10_000).collect(), |n: u32| async move {
            DONE.fetch_add(1, Ordering::SeqCst);
            n
        });
        results.recv().await;
        drop(results);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(DONE.load(Ordering::SeqCst) < 10_000);
        assert_eq!(on_threads(2, Vec::new(), |n: u32| async move { n }).recv().await, None);
    }
}
