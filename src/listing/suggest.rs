//! What to say to somebody who named a backup that is not there.

use std::collections::BTreeSet;

use crate::model::names::{BackupName, Fqdn};
use crate::model::nearest::{few, nearest};
use crate::storage::Storage;

/// Warns who acts as a node of which the bucket has nothing, while it has other nodes.
pub async fn warn_of_unknown_node(storage: &Storage, fqdn: &Fqdn) {
    // What cannot be read is told by who needs it.
    let (Ok(entries), Ok(folders)) = (storage.index_entries().await, storage.nodes().await) else { return };
    let known: BTreeSet<_> = entries.into_iter().map(|entry| entry.fqdn).chain(folders).collect();
    if let Some(warning) = unknown_node(fqdn.as_str(), &known.iter().map(Fqdn::as_str).collect()) {
        tracing::warn!("{warning}");
    }
}

fn unknown_node(fqdn: &str, known: &BTreeSet<&str>) -> Option<String> {
    if known.is_empty() || known.contains(fqdn) {
        return None;
    }
    let forward = match nearest(fqdn, known.iter().copied()) {
        Some(meant) => format!("did you mean --fqdn {meant}?"),
        None => format!("it holds backups of {}", few(known.iter().copied())),
    };
    Some(format!("the bucket has nothing of {fqdn}; {forward}"))
}

const LISTS: &str = "medusa list-backups --show-all lists them";

/// The hint: which backup, or which node, was meant. `fqdn`: the node whose backup was asked for.
pub async fn hint(storage: &Storage, name: &BackupName, fqdn: Option<&Fqdn>) -> String {
    // What is wrong is known. That it cannot be said better is no other error.
    let entries = storage.index_entries().await.unwrap_or_default();
    let known: BTreeSet<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.fqdn.as_str())).collect();
    text(name.as_str(), fqdn.map(Fqdn::as_str), &known)
}

/// `known`: names of backups with a node that has them.
fn text(name: &str, fqdn: Option<&str>, known: &BTreeSet<(&str, &str)>) -> String {
    let holders: BTreeSet<_> = known.iter().filter(|(backup, _)| *backup == name).map(|(_, node)| *node).collect();
    if let (Some(fqdn), false) = (fqdn, holders.is_empty()) {
        let has = format!("{name} is a backup of {}", few(holders.iter().copied()));
        return match nearest(fqdn, holders) {
            Some(meant) => format!("{has}; did you mean --fqdn {meant}?"),
            None => format!("{has}; --fqdn says of which node"),
        };
    }
    let of = |wanted: Option<&str>| {
        let names: BTreeSet<_> = known.iter().filter(|(_, node)| wanted.is_none_or(|wanted| wanted == *node)).collect();
        nearest(name, names.into_iter().map(|(backup, _)| *backup))
    };
    match fqdn.and_then(|fqdn| of(Some(fqdn))).or_else(|| of(None)) {
        Some(meant) => format!("did you mean {meant}? {LISTS}"),
        None => LISTS.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_the_bucket_does_not_know_is_told_with_the_one_that_was_meant() {
        let known = BTreeSet::from(["node1.example.net", "node2.example.net"]);
        assert_eq!(unknown_node("node1.example.net", &known), None);
        assert_eq!(unknown_node("node1", &BTreeSet::new()), None);
        assert_eq!(
            unknown_node("node2.exmaple.net", &known).unwrap(),
            "the bucket has nothing of node2.exmaple.net; did you mean --fqdn node2.example.net?"
        );
        assert_eq!(
            unknown_node("x", &known).unwrap(),
            "the bucket has nothing of x; it holds backups of node1.example.net, node2.example.net"
        );
    }

    #[test]
    fn the_backup_or_the_node_that_was_meant_is_named() {
        let known =
            BTreeSet::from([("nightly-0411", "n1"), ("nightly-0412", "n1"), ("nightly-0412", "node2"), ("w", "n1")]);
        let said = |name, fqdn| text(name, fqdn, &known);
        assert_eq!(said("nigthly-0412", None), format!("did you mean nightly-0412? {LISTS}"));
        assert_eq!(said("nightly-041", Some("n1")), format!("did you mean nightly-0411? {LISTS}"));
        assert_eq!(said("nightly-041", Some("node2")), format!("did you mean nightly-0412? {LISTS}"));
        assert_eq!(
            said("nightly-0412", Some("node3")),
            "nightly-0412 is a backup of n1, node2; did you mean --fqdn node2?"
        );
        assert_eq!(said("w", Some("db.example.net")), "w is a backup of n1; --fqdn says of which node");
        assert_eq!(said("something-else", None), LISTS);
        assert_eq!(text("x", None, &BTreeSet::new()), LISTS);
    }
}
