//! Staggering: the first, long backups of a cluster run one after the other, in the order of the ring.

use std::time::{Duration, Instant};

use crate::cassandra::facts::ClusterFacts;
use crate::context::Context;
use crate::error::Failure;
use crate::model::names::BackupName;
use crate::model::tokenmap::Tokenmap;
use crate::storage::layout::{IndexEntry, IndexKind};

/// Between two looks at the index: as long as it was waited until then, between these two. Small nodes do not wait for long.
const POLL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// Waits until it is this node's turn.
///
/// # Errors
/// When the patience ends first.
pub async fn wait_for_turn(
    context: &Context,
    facts: &ClusterFacts,
    name: &BackupName,
    patience: Duration,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let index = context.storage.index_entries().await?;
        let Some(before) = must_wait_for(&facts.tokenmap, context.fqdn.as_str(), &index, name, context.now.timestamp())
        else {
            return Ok(());
        };
        let rest = patience.saturating_sub(begin.elapsed());
        if rest.is_zero() {
            return Err(Failure::failed(format!(
                "{before}, the node before this one in the ring, did not finish a backup within {} s",
                patience.as_secs()
            ))
            .hint("a longer --stagger waits longer; the same command goes on from here")
            .into());
        }
        context.monitor.title(&format!("  waits for {before}, the node before this one in the ring"));
        tokio::time::sleep(begin.elapsed().clamp(POLL.0, POLL.1).min(rest)).await;
    }
}

/// The node that this one must wait for. None if this node is the first, or has a finished backup of its own, so that little
/// is to be done; or if the node before has finished this backup, or any one since `began`.
fn must_wait_for(
    tokenmap: &Tokenmap,
    own: &str,
    index: &[IndexEntry],
    name: &BackupName,
    began: i64,
) -> Option<String> {
    let finished = |host: &str, counts: &dyn Fn(&IndexEntry, i64) -> bool| {
        index.iter().any(|entry| match entry.kind {
            IndexKind::Finished(at) => entry.fqdn.as_str() == host && counts(entry, at),
            _ => false,
        })
    };
    if finished(own, &|_, _| true) {
        return None;
    }
    let ring = in_ring_order(tokenmap);
    let position = ring.iter().position(|host| *host == own)?;
    let before = *ring.get(position.checked_sub(1)?)?;
    let done = finished(before, &|entry, at| entry.name == *name || at >= began);
    (!done).then(|| before.to_owned())
}

/// The hosts in the order in which they take their turn.
pub fn in_ring_order(tokenmap: &Tokenmap) -> Vec<&str> {
    let mut ring: Vec<_> = tokenmap.hosts.iter().map(|(host, entry)| (token_order(&entry.tokens.0), host)).collect();
    ring.sort();
    ring.into_iter().map(|(_, host)| host.as_str()).collect()
}

/// The smallest token decides the place in the ring.
fn token_order(tokens: &[String]) -> Option<i128> {
    tokens.iter().filter_map(|token| token.parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Fqdn;

    fn finished(fqdn: &str, name: &str, at: i64) -> IndexEntry {
        let (name, fqdn) = (BackupName::existing(name).unwrap(), Fqdn::new(fqdn).unwrap());
        IndexEntry { name, fqdn, kind: IndexKind::Finished(at) }
    }

    #[test]
    fn nodes_take_their_turn_in_the_order_of_the_ring() {
        let map = br#"{"a": {"tokens": [50], "is_up": true}, "b": {"tokens": [-10, 99], "is_up": true}, "c": {"tokens": [7], "is_up": true}}"#;
        let map = Tokenmap::parse(map).unwrap();
        let name = BackupName::new("b1").unwrap();
        let waits = |own, index: &[IndexEntry]| must_wait_for(&map, own, index, &name, 1000);
        assert_eq!(waits("b", &[]), None, "first in the ring");
        assert_eq!(waits("c", &[]).as_deref(), Some("b"));
        assert_eq!(waits("a", &[]).as_deref(), Some("c"));
        assert_eq!(waits("c", &[finished("b", "b1", 5)]), None, "the same backup");
        assert_eq!(waits("c", &[finished("b", "other", 1001)]), None, "a backup since this one began");
        assert_eq!(waits("c", &[finished("b", "old", 5)]).as_deref(), Some("b"), "an old backup does not count");
        assert_eq!(waits("c", &[finished("c", "old", 5)]), None, "little to do");
        assert_eq!(waits("stranger", &[]), None);
    }
}
