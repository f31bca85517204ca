//! Ten differential backups of one node, taken in turn by cassandra-medusa and by this program, with everything between them
//! that gives names of SSTables to other contents.
//!
//! cassandra-medusa overwrites objects in place. The table is truncated before we have named anything of it, so that what is
//! overwritten then is its own.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Release};
use crate::lab::tree;
use crate::support::{answers, insert, listed, load, manifest, manifest_objects, medusa, node};

/// Even numbers are cassandra-medusa's.
const BACKUPS: u32 = 10;

fn name(number: u32) -> String {
    let who = if number.is_multiple_of(2) { "theirs" } else { "ours" };
    format!("{number:02}-{who}")
}

/// What happens to the node before a backup.
fn change(node: &Node, number: u32) {
    let restart = || {
        node.nodetool(&["drain"]);
        node.stop();
        node.boot();
    };
    match number {
        0 => load(&node.session(), "shop", 40),
        1 => {
            node.session().run("TRUNCATE shop.t");
            restart();
        }
        3 | 6 => drop(node.nodetool(&["compact", "shop"])),
        4 | 8 => restart(),
        7 => {
            for id in 100..110 {
                node.session().query(&format!("DELETE FROM shop.t WHERE id = {id}"));
            }
        }
        _ => {}
    }
    insert(&node.session(), "shop", 100 * number..100 * number + 20);
}

#[test]
fn p1_ten_backups_by_both_tools_in_turn() {
    let node = node(Release::V5_0);
    let medusa = medusa(&node);
    let mut states = Vec::new();
    for number in 0..BACKUPS {
        change(&node, number);
        states.push(answers(&node.session(), "shop"));
        let arguments = ["backup-node", "--backup-name", &name(number), "--mode", "differential"];
        if number.is_multiple_of(2) {
            medusa.peer_ok(&arguments)
        } else {
            medusa.ok(&arguments)
        };
    }

    let names: Vec<_> = (0..BACKUPS).map(name).collect();
    assert_eq!(listed(&medusa).into_keys().collect::<Vec<_>>(), names);
    let (ours, theirs) = (medusa.ok(&["list-backups"]), medusa.peer_ok(&["list-backups"]));
    assert_eq!(ours.stdout, theirs.stdout);
    let mut damaged = 0;
    for (number, name) in names.iter().enumerate() {
        let run = medusa.run(&["verify", "--backup-name", name, "--read-data"]);
        let overwritten = overwritten(&medusa, &node, name);
        if number % 2 == 1 || overwritten.is_empty() {
            assert_eq!(run.code, 0, "{run}");
        } else {
            damaged += 1;
            println!("{name} lost {} objects to a later backup of cassandra-medusa", overwritten.len());
        }
    }
    assert!(damaged > 0, "no name was used again");

    for number in (1..BACKUPS).step_by(2) {
        let (name, state) = (name(number), &states[number as usize]);
        medusa.peer_ok(&["restore-node", "--backup-name", &name]);
        node.wait_until_up();
        assert_eq!(&answers(&node.session(), "shop"), state, "Medusa restores {name}");
        medusa.ok(&["restore-node", "--backup-name", &name]);
        assert_eq!(&answers(&node.session(), "shop"), state, "we restore {name}");
    }
    both_purge(medusa, &node);
}

/// Objects that were written again after the backup was finished.
fn overwritten(medusa: &Medusa, node: &Node, name: &str) -> Vec<String> {
    let manifest = manifest(medusa, &node.address, name);
    let written = |path: &std::path::Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let finished: SystemTime = written(&manifest);
    let objects = manifest_objects(&manifest).into_keys();
    objects.filter(|path| written(&medusa.bucket().join(path)) > finished).collect()
}

fn both_purge(mut medusa: Medusa, node: &Node) {
    medusa.set("storage", "max_backup_count", "4");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    medusa.peer_ok(&["purge"]);
    medusa.ok(&["purge"]);
    let names: BTreeSet<_> = listed(&medusa).into_keys().collect();
    assert_eq!(names, (BACKUPS - 4..BACKUPS).map(name).collect());
    let expected: BTreeSet<_> =
        names.iter().flat_map(|name| manifest_objects(&manifest(&medusa, &node.address, name)).into_keys()).collect();
    let pool = format!("{}/data/", node.address);
    let stored: BTreeSet<_> = tree(&medusa.bucket()).into_keys().filter(|key| key.starts_with(&pool)).collect();
    assert_eq!(stored, expected);
}
