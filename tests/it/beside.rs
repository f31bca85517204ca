//! Purges beside backups of the same node, without a grace period, for as long as `LOOP_SECONDS` says.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::lab::node::Release;
use crate::lab::tree;
use crate::support::{insert, listed, load, manifest, manifest_objects, medusa, node};

const SECONDS: u64 = 30;

/// So many backups and purges are not enough to have met each other.
const LEAST: u32 = 2;

/// For a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(5);

#[test]
fn p3_purges_beside_backups() {
    let seconds = std::env::var("LOOP_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    medusa.set("storage", "max_backup_count", "3");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    load(&node.session(), "shop", 20);
    medusa.ok(&["backup-node", "--backup-name", "b0000"]);
    let (end, is_over) = (Instant::now() + Duration::from_secs(seconds), AtomicBool::new(false));
    let (purges, waited) = (AtomicU32::new(0), AtomicU32::new(0));
    let medusa = &medusa;
    let backups = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) && Instant::now() < end + PATIENCE {
                let run = medusa.run(&["purge"]);
                let is_held = run.stderr.contains("its lease lasts until");
                assert!(run.code == 0 || (run.code == 3 && is_held), "{run}");
                (if is_held { &waited } else { &purges }).fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut number = 0;
        // On a busy machine until there is something to look at.
        while Instant::now() < end || number <= LEAST || purges.load(Ordering::SeqCst) <= LEAST {
            assert!(Instant::now() < end + PATIENCE, "{number} backups beside {purges:?} purges");
            number += 1;
            insert(&node.session(), "shop", 10 * number..10 * number + 5);
            if number % 3 == 0 {
                node.nodetool(&["compact", "shop"]);
            }
            let name = format!("b{number:04}");
            // The purge has the lease at times; the backup waits for it.
            medusa.ok(&["backup-node", "--backup-name", &name]);
            medusa.ok(&["verify", "--backup-name", &name, "--read-data"]);
        }
        is_over.store(true, Ordering::SeqCst);
        number
    });
    println!(
        "{backups} backups beside {purges:?} purges; {waited:?} more were turned away by a backup, in {seconds} s"
    );
    medusa.ok(&["purge"]);
    let names = listed(medusa);
    assert_eq!(names.len(), 3, "{names:?}");
    for (name, finished) in &names {
        assert!(finished, "{name}");
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
    }
    let of = |name: &String| manifest_objects(&manifest(medusa, &node.address, name)).into_keys();
    let expected: BTreeSet<_> = names.keys().flat_map(of).collect();
    let pool = format!("{}/data/", node.address);
    let stored: BTreeSet<_> = tree(&medusa.bucket()).into_keys().filter(|key| key.starts_with(&pool)).collect();
    assert_eq!(stored, expected);
}
