//! cassandra-medusa 0.31.0 and this program on one node and one bucket: each lists, verifies, downloads and restores what the
//! other wrote, full and differential.

use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Release};
use crate::lab::{scratch, tree};
use crate::support::{answers, insert, load, medusa, node};

/// Backups in the order in which they are taken.
pub const NAMES: [&str; 6] =
    ["ours-full", "ours-diff-1", "theirs-full", "theirs-diff-1", "ours-diff-2", "theirs-diff-2"];

#[test]
fn buckets_with_a_prefix() {
    both_tools(Some("cluster1"));
}

#[test]
fn buckets_without_a_prefix() {
    both_tools(None);
}

fn both_tools(prefix: Option<&str>) {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    if let Some(prefix) = prefix {
        medusa.set("storage", "prefix", prefix);
    }
    let states = back_up_by_turns(&node, &medusa);
    // Only keys differ without a prefix.
    let names = if prefix.is_some() { &NAMES[..] } else { &["ours-diff-2", "theirs-diff-2"] };
    same_listings(&medusa, names);
    for name in names {
        for checks in [&[][..], &["--enable-md5-checks"]] {
            same_verification(&medusa, name, checks);
        }
        same_downloads(&medusa, name);
    }
    restore_each_other(&node, &medusa, &states, names);
}

/// Takes all backups, and returns what the table held at each.
pub fn back_up_by_turns(node: &Node, medusa: &Medusa) -> Vec<[Vec<Vec<String>>; 2]> {
    let session = node.session();
    load(&session, "shop", 50);
    let mut states = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        let i = u32::try_from(i).unwrap();
        insert(&session, "shop", 100 * i..100 * i + 20);
        if i == 3 {
            node.nodetool(&["compact", "shop"]);
        }
        states.push(answers(&session, "shop"));
        let mode = if name.contains("full") { "full" } else { "differential" };
        let arguments = ["backup-node", "--backup-name", name, "--mode", mode];
        if name.starts_with("ours") {
            medusa.ok(&arguments);
        } else {
            medusa.peer_ok(&arguments);
        }
    }
    states
}

pub fn same_verification(medusa: &Medusa, name: &str, checks: &[&str]) {
    let arguments = [&["verify", "--backup-name", name], checks].concat();
    let (ours, theirs) = (medusa.ok(&arguments), medusa.peer_ok(&arguments));
    assert_eq!(ours.stdout, theirs.stdout, "{ours}{theirs}");
}

/// Text byte for byte, JSON key for key.
pub fn same_listings(medusa: &Medusa, names: &[&str]) {
    for arguments in [
        vec!["list-backups"],
        vec!["list-backups", "--show-all"],
        vec!["list-backups", "--output", "json"],
        vec!["get-last-complete-cluster-backup"],
    ] {
        let (ours, theirs) = (medusa.ok(&arguments), medusa.peer_ok(&arguments));
        assert_eq!(ours.stdout, theirs.stdout, "{ours}{theirs}");
    }
    for name in names {
        for arguments in [
            vec!["status", "--backup-name", name],
            vec!["status", "--backup-name", name, "-o", "json"],
            vec!["fetch-tokenmap", "--backup-name", name],
        ] {
            let (ours, theirs) = (medusa.ok(&arguments), medusa.peer_ok(&arguments));
            assert_eq!(ours.stdout, theirs.stdout, "{ours}{theirs}");
        }
    }
}

fn same_downloads(medusa: &Medusa, name: &str) {
    for filter in [vec![], vec!["--table", "shop.t"], vec!["--keyspace", "shop", "--ignore-system-keyspaces"]] {
        let (ours, theirs) = (scratch("ours"), scratch("theirs"));
        for (folder, is_ours) in [(&ours, true), (&theirs, false)] {
            let target = folder.path().to_str().unwrap();
            let arguments =
                [vec!["download", "--backup-name", name, "--download-destination", target], filter.clone()].concat();
            if is_ours {
                medusa.ok(&arguments);
            } else {
                medusa.peer_ok(&arguments);
            }
        }
        let (ours, theirs) = (tree(ours.path()), tree(theirs.path()));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name} {filter:?}");
        assert!(ours == theirs, "{name} {filter:?}: contents differ");
    }
}

fn restore_each_other(node: &Node, medusa: &Medusa, states: &[[Vec<Vec<String>>; 2]], names: &[&str]) {
    let state = |name: &str| &states[NAMES.iter().position(|other| *other == name).unwrap()];
    for name in ["theirs-full", "theirs-diff-2", "theirs-diff-1"].into_iter().filter(|name| names.contains(name)) {
        medusa.ok(&["restore-node", "--backup-name", name]);
        assert_eq!(&answers(&node.session(), "shop"), state(name), "we restore {name}");
    }
    for name in ["ours-full", "ours-diff-2"].into_iter().filter(|name| names.contains(name)) {
        medusa.peer_ok(&["restore-node", "--backup-name", name]);
        node.wait_until_up();
        assert_eq!(&answers(&node.session(), "shop"), state(name), "Medusa restores {name}");
    }
}
