//! `backup-cluster` over three real nodes and sshds: what it stores is complete for both tools, and what fails on one node is
//! finished by the same command.

use std::process::Stdio;

use crate::lab::cluster::Ring;
use crate::lab::medusa::{Run, finish};
use crate::lab::node::Release;
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::minio::Minio;
use crate::support::{answers, assert_fails, binary, left_by_restores, load, signal, wait_for};

fn ring() -> Ring {
    let ring = Ring::start(binary(), Release::V5_0, 3);
    load(&ring.members[0].node.session(), "shop", 50);
    ring
}

/// No snapshot of a backup, no run and no folder of one is left on any host.
#[track_caller]
fn nothing_is_left(ring: &Ring) {
    for (at, member) in ring.members.iter().enumerate() {
        assert_eq!(ring.running(at), []);
        assert_eq!(member.node.snapshots().iter().filter(|tag| tag.starts_with("medusa-")).count(), 0);
    }
    assert_eq!(ring.jobs(), [""; 0]);
}

/// The tokens of the first node are the highest: the last one has the first turn, and while it uploads the others wait.
fn backed_up_in_the_order_of_the_ring(ring: &Ring, arguments: &[&str]) -> Run {
    let index = ring.medusa.bucket().join("index/backup_index/b1");
    let finished = || {
        let entries = std::fs::read_dir(&index).into_iter().flatten().map(Result::unwrap);
        let mut finished: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let (address, _) = name.to_str().unwrap().strip_prefix("finished_")?.split_once('_')?;
                // The name tells whole seconds.
                Some((entry.metadata().unwrap().modified().unwrap(), address.to_owned()))
            })
            .collect();
        finished.sort();
        finished
    };
    let last = &ring.members[2];
    last.hold_uploads(true);
    let child = ring.medusa.spawn(arguments);
    wait_for("the uploads", || (0..3).all(|at| ring.running(at).iter().any(|(_, line)| line.contains("--stagger"))));
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(finished(), []);
    last.hold_uploads(false);
    let run = finish(child.wait_with_output().unwrap(), "medusa", arguments).expect_code(0);
    assert_eq!(finished()[0].1, last.node.address, "{:?}", finished());
    run
}

fn backup<'a>(name: &'a str, temporary: &'a str) -> Vec<&'a str> {
    vec!["backup-cluster", "--backup-name", name, "--temp-dir", temporary, "--parallel-uploads", "3"]
}

fn nobody_gets_the_tokens_of_a_node_that_is_up(ring: &Ring) {
    let (target, owner) = (&ring.members[0], &ring.members[1].node.address);
    let yaml = std::fs::read_to_string(target.node.yaml()).unwrap();
    let remote = ["restore-node", "--remote", "--backup-name", "b1", "--fqdn", owner];
    for arguments in [&remote[..], &[&remote[..], &["--dry-run"]].concat()] {
        let refused = target.medusa.run(arguments);
        let why = format!("the tokens of {owner} are owned by {owner}, which is up in the ring of this node");
        assert_fails(&refused, 1, &[&why, "hint: two nodes of a ring cannot own the same tokens"]);
    }
    let list = ring.medusa.folder.path().join("one.csv");
    std::fs::write(&list, format!("True,{},{owner}\n", target.node.address)).unwrap();
    let (list, jobs) = (list.display().to_string(), ring.temporary());
    let refused = ring.medusa.run(&[
        "restore-cluster",
        "--backup-name",
        "b1",
        "--host-list",
        &list,
        "--temp-dir",
        &jobs,
        "--bypass-checks",
    ]);
    assert_fails(&refused, 1, &[&format!("the tokens of {owner} are owned by {owner}, which is up, is no target")]);
    assert_eq!(std::fs::read_to_string(target.node.yaml()).unwrap(), yaml);
    assert_eq!(left_by_restores(&target.node), [].into());
}

#[test]
fn p1_a_backup_of_a_ring_is_complete_for_both_tools_and_failures_are_finished_by_the_same_command() {
    let mut ring = ring();
    let temporary = ring.temporary();
    let addresses: Vec<_> = ring.members.iter().map(|member| member.node.address.clone()).collect();

    let planned = ring.medusa.ok(&[&backup("b1", &temporary)[..], &["--dry-run"]].concat());
    for address in &addresses {
        let of_host = |line: &str| line.split_whitespace().next() == Some(address);
        let line = planned.stdout.lines().find(|line| of_host(line)).unwrap_or_else(|| panic!("{address}: {planned}"));
        assert!(line.ends_with(" snapshot, then upload"), "{planned}");
    }
    let staggered = [&backup("b1", &temporary)[..], &["--stagger", "600"]].concat();
    let first = backed_up_in_the_order_of_the_ring(&ring, &staggered);
    assert!(first.stdout.starts_with("b1   3 of 3 nodes complete\n"), "{first}");
    assert!(first.stdout.contains("  snapshots were taken within "), "{first}");
    nothing_is_left(&ring);
    let (ours, theirs) =
        (ring.medusa.ok(&["status", "--backup-name", "b1"]), ring.medusa.peer_ok(&["status", "--backup-name", "b1"]));
    assert_eq!(ours.stdout, theirs.stdout);
    assert!(ours.stdout.contains("3 nodes completed, 0 nodes incomplete, 0 nodes missing"), "{ours}");
    ring.medusa.ok(&["verify", "--backup-name", "b1", "--enable-md5-checks"]);
    ring.medusa.peer_ok(&["verify", "--backup-name", "b1"]);

    nobody_gets_the_tokens_of_a_node_that_is_up(&ring);

    // What cassandra-medusa backed up on the same nodes comes back.
    for member in &ring.members {
        member.medusa.peer_ok(&["backup-node", "--backup-name", "theirs"]);
    }
    let session = ring.members[0].node.session();
    let then = answers(&session, "shop");
    session.run("DELETE FROM shop.t WHERE id = 1\nINSERT INTO shop.t (id, v) VALUES (1000, 'new')");
    drop(session);
    let restore =
        ["restore-cluster", "--backup-name", "theirs", "--temp-dir", &temporary, "--bypass-checks", "--verify"];
    ring.medusa.set("checks", "query", "SELECT key FROM system.local");
    ring.medusa.set("checks", "expected_rows", "2");
    let restored = ring.medusa.run(&restore);
    assert_fails(&restored, 3, &["all targets were restored, and 3 failed the query of [checks]"]);
    assert!(restored.stdout.contains("3 of 3 targets restored"), "{restored}");
    assert_eq!(restored.stdout.matches("gave 1 row instead of 2").count(), 3, "{restored}");
    assert_eq!(answers(&ring.members[0].node.session(), "shop"), then);

    // One host is away.
    ring.stop_sshd(1);
    let without = ring.medusa.run(&backup("b2", &temporary));
    assert_fails(&without, 3, &["backup b2 failed on 1 host", &format!("finishes {} only", addresses[1])]);
    assert!(without.stdout.starts_with("b2   2 of 3 nodes complete\n"), "{without}");
    ring.start_sshd(1);
    let again = ring.medusa.ok(&backup("b2", &temporary));
    assert_eq!(again.stdout.matches("complete before").count(), 2, "{again}");
    nothing_is_left(&ring);
    assert_fails(&ring.medusa.run(&backup("b2", &temporary)), 1, &["backup b2 already exists"]);

    // One Cassandra is down.
    ring.members[2].node.stop();
    let down = ring.medusa.run(&backup("b3", &temporary));
    assert_fails(&down, 3, &["backup b3 failed on 1 host"]);
    assert!(down.stdout.contains("nothing listens for CQL"), "{down}");
    ring.members[2].node.boot();
    ring.medusa.ok(&backup("b3", &temporary));
    nothing_is_left(&ring);
}

#[test]
fn p2_whoever_is_killed_the_same_command_finishes() {
    let mut ring = ring();
    let minio = Minio::shared();
    ring.use_store(&minio.settings(&minio.new_bucket("ring")));
    let temporary = ring.temporary();
    ring.members[1].hold_uploads(true);
    let child = ring.medusa.spawn(&backup("b1", &temporary));
    let uploads = |ring: &Ring| ring.running(1).into_iter().find(|(_, line)| line.contains("--snapshot-taken"));
    wait_for("the upload", || uploads(&ring).is_some());
    // What was found may be a child of it that was not yet another program.
    wait_for("its end", || {
        let upload = uploads(&ring);
        if let Some((upload, _)) = &upload {
            let _ = std::process::Command::new("kill").args(["-9", upload]).status();
        }
        upload.is_none()
    });
    let killed = finish(child.wait_with_output().unwrap(), "medusa", &[]);
    assert_fails(&killed, 3, &["backup b1 failed on 1 host"]);
    nothing_is_left(&ring);
    ring.members[1].hold_uploads(false);
    let again = ring.medusa.ok(&backup("b1", &temporary));
    assert_eq!(again.stdout.matches("complete before").count(), 2, "{again}");
    nothing_is_left(&ring);

    // The coordinator is killed while a host uploads: the host goes on, and the same command waits for it.
    ring.members[1].hold_uploads(true);
    let full = [&backup("b2", &temporary)[..], &["--mode", "full"]].concat();
    let mut child = ring.medusa.spawn(&full);
    wait_for("the upload", || uploads(&ring).is_some());
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(!ring.running(1).is_empty(), "the host went on");
    let said = ring.medusa.folder.path().join("said");
    let stderr = std::fs::File::create(&said).unwrap();
    let again = ring.medusa.prepare(&full).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let attached = format!("{}  goes on since an earlier run of this command", ring.members[1].node.address);
    wait_for("the second run", || std::fs::read_to_string(&said).unwrap().contains(&attached));
    ring.members[1].hold_uploads(false);
    let again = finish(again.wait_with_output().unwrap(), "medusa", &full).expect_code(0);
    assert!(again.stdout.starts_with("b2   3 of 3 nodes complete\n"), "{again}");
    nothing_is_left(&ring);
    ring.medusa.ok(&["verify", "--backup-name", "b2", "--enable-md5-checks"]);

    // The coordinator of a restore is killed while nodes are down.
    let session = ring.members[0].node.session();
    let then = answers(&session, "shop");
    session.run("DELETE FROM shop.t WHERE id = 1\nINSERT INTO shop.t (id, v) VALUES (1000, 'new')");
    drop(session);
    let restore = ["restore-cluster", "--backup-name", "b2", "--temp-dir", &temporary, "--bypass-checks", "--verify"];
    ring.medusa.set("checks", "query", "SELECT key FROM system.local");
    ring.medusa.set("checks", "expected_result", "local");
    let mut child = ring.medusa.spawn(&restore);
    wait_for("the stop of a node", || ring.members.iter().any(|member| !member.node.is_up()));
    signal(&child, "KILL");
    child.wait().unwrap();
    let again = ring.medusa.ok(&restore);
    assert!(again.stdout.contains("3 of 3 targets restored"), "{again}");
    assert!(again.stderr.contains("3 targets asked, 0 answered otherwise"), "{again}");
    assert_eq!(answers(&ring.members[0].node.session(), "shop"), then);
    nothing_is_left(&ring);
}
