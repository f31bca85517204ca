//! Two writers of one node: the second one is told who the first one is, and nothing is lost.

use std::fs;
use std::process::Child;

use crate::lab::medusa::{Medusa, finish};
use crate::lab::node::Node;
use crate::support::{assert_fails, listed, medusa, shared_node, wait_for, wrap_nodetool};

/// A backup that stands still before it takes its snapshot, until it is let go.
fn standing_backup(medusa: &mut Medusa, node: &Node, name: &str) -> Child {
    let go = medusa.folder.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    wrap_nodetool(medusa, node, &format!("case \"$*\" in *' snapshot '*) {wait} ;; esac\nexec $REAL \"$@\"\n"));
    let child = medusa.spawn(&["backup-node", "--backup-name", name]);
    let lease = medusa.bucket().join("index/leases").join(format!("{}.json", node.address));
    wait_for("the lease", || lease.exists());
    child
}

fn let_go(medusa: &Medusa) {
    fs::write(medusa.folder.path().join("go"), "").unwrap();
}

#[test]
fn p3_a_running_backup_keeps_other_writers_of_its_node_out() {
    let node = shared_node();
    let mut medusa = medusa(node);
    medusa.ok(&["backup-node", "--backup-name", "l0"]);
    let child = standing_backup(&mut medusa, node, "l1");
    let who = format!("process {} on ", child.id());
    let what = format!("backs up {} (l1), since ", node.address);
    for words in [
        ["backup-node", "--backup-name", "l1"],
        ["backup-node", "--backup-name", "l2"],
        ["delete-backup", "--backup-name", "l0"],
        ["delete-backup", "--backup-name", "l1"],
    ] {
        assert_fails(&medusa.run(&words), 1, &[&who, &what, "medusa leases --break"]);
    }
    for words in [&["purge"][..], &["build-index"]] {
        assert_fails(&medusa.run(words), 3, &[&who, &what]);
    }
    let shown = medusa.ok(&["leases"]).stdout;
    let line = shown.lines().nth(1).unwrap_or_default();
    let begin = format!("  {}   backup   {} on ", node.address, child.id());
    assert!(shown.starts_with("  node ") && line.starts_with(&begin), "{shown}");
    let document = medusa.ok(&["leases", "--output", "json"]).json();
    let lease = &document["leases"][0];
    assert_eq!((&lease["work"], &lease["backup"], &lease["stale"]), (&"backup".into(), &"l1".into(), &false.into()));
    let_go(&medusa);
    finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]).expect_code(0);
    assert_eq!(medusa.ok(&["leases"]).stdout, "no leases\n");
    for name in ["l0", "l1"] {
        medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
    }
}

#[test]
fn p2_the_lease_of_a_killed_backup_does_not_stop_the_next_one() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let mut child = standing_backup(&mut medusa, node, "k1");
    child.kill().unwrap();
    child.wait().unwrap();
    let_go(&medusa);
    assert!(medusa.ok(&["leases"]).stdout.contains("stale since"));
    let run = medusa.ok(&["backup-node", "--backup-name", "k1"]);
    assert!(run.stderr.contains("is stale and is taken over"), "{run}");
    assert_eq!(medusa.ok(&["leases"]).stdout, "no leases\n");
}

#[test]
fn p3_a_backup_whose_lease_was_broken_is_not_committed() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let child = standing_backup(&mut medusa, node, "j1");
    assert_fails(&medusa.run(&["leases", "--break", "no-such-node"]), 1, &["there is no lease of no-such-node"]);
    medusa.ok(&["leases", "--break", &node.address]);
    let_go(&medusa);
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
    assert_fails(&run, 1, &["the lease of ", "was lost", "medusa leases"]);
    assert!(!listed(&medusa)["j1"]);
    assert!(!node.snapshots().contains("medusa-j1"));
    medusa.ok(&["backup-node", "--backup-name", "j1"]);
}
