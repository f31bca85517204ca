//! What is common to all that is done on other hosts.

use std::collections::BTreeMap;
use std::future::Future;

use futures::StreamExt as _;

use crate::config::forward::Forward;
use crate::exec::ssh::{Ssh, SshError};
use crate::model::digest::Sha256;

/// Hosts that are asked for their version at a time.
const ASKED_AT_ONCE: usize = 64;

/// A job's id: the same for the same work, so that a coordinator finds what an earlier one began. How much is logged, and in
/// which time zone, is no part of it.
pub fn job_id(kind: &str, arguments: &[String]) -> String {
    let work: Vec<_> = arguments.iter().filter(|word| !Forward::is_of_messages(word)).map(String::as_str).collect();
    let digest = Sha256::of(work.join("\0").as_bytes()).to_string();
    format!("{kind}-{}", &digest[..16])
}

/// Runs the work of each host, at most `parallel` at once, as a sliding window; a host that fails does not stop the others.
/// Results in the order of the hosts.
pub async fn on_hosts<'a, H, T, F, Fut>(hosts: &'a [H], parallel: usize, work: F) -> Vec<T>
where
    F: Fn(&'a H) -> Fut,
    Fut: Future<Output = T>,
{
    let numbered = hosts.iter().enumerate().map(|(number, host)| {
        let done = work(host);
        async move { (number, done.await) }
    });
    // Not `buffered`: there a host that has ended keeps its place until those before it have.
    let ended: BTreeMap<usize, T> = futures::stream::iter(numbered).buffer_unordered(parallel.max(1)).collect().await;
    ended.into_values().collect()
}

/// Why the medusa of a host is not run.
#[derive(Debug)]
pub enum Unfit {
    /// It is of another version, or no medusa: what it said.
    Other(String),
    /// It is not known which one it is.
    Silent(SshError),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Other(said) => write!(f, "medusa is {said} there, and {} here", env!("CARGO_PKG_VERSION")),
            Self::Silent(error) => write!(f, "{error}"),
        }
    }
}

/// Hosts whose medusa is of another version or does not answer, with what is wrong.
pub async fn check_versions(ssh: &Ssh, hosts: &[String]) -> Vec<(String, Unfit)> {
    let question = ["--version".to_owned()];
    let checked = on_hosts(hosts, ASKED_AT_ONCE, |host| {
        let question = &question;
        async move {
            let unfit = match ssh.ask(host, question).await {
                Ok(end) if end.code == 0 && end.stdout.trim() == env!("CARGO_PKG_VERSION") => return None,
                Ok(end) if end.code == 0 => Unfit::Other(end.stdout.trim().to_owned()),
                Ok(end) => Unfit::Other(format!("broken ({})", end.reason())),
                Err(error) => Unfit::Silent(error),
            };
            Some((host.clone(), unfit))
        }
    });
    checked.await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_same_work_has_the_same_id() {
        let id = |text| job_id("upload", &words(text));
        assert_eq!(id("-vv --utc backup-node --backup-name a"), id("backup-node --backup-name a"));
        assert_ne!(id("backup-node --backup-name a"), id("backup-node --backup-name b"));
        assert_ne!(id("--prefix=v x"), id("x"));
        assert!(id("x y").chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{}", id("x y"));
    }

    #[tokio::test]
    async fn a_slow_host_holds_one_place_only_and_results_keep_their_order() {
        // The first one ends only after all others, of which there are more than places.
        let hosts: Vec<usize> = (0..10).collect();
        let (others_done, running, most) = (Semaphore::new(0), Mutex::new(0), Mutex::new(0));
        let results = on_hosts(&hosts, 3, |host| {
            let (others_done, running, most) = (&others_done, &running, &most);
            async move {
                {
                    let mut running = running.lock().unwrap();
                    *running += 1;
                    let mut most = most.lock().unwrap();
                    *most = (*most).max(*running);
                }
                tokio::task::yield_now().await;
                if *host == 0 {
                    others_done.acquire_many(9).await.unwrap().forget();
                } else {
                    others_done.add_permits(1);
                }
                *running.lock().unwrap() -= 1;
                *host
            }
        });
        assert_eq!(results.await, hosts);
        assert_eq!(*most.lock().unwrap(), 3);
    }
}
