//! kill -9 at random moments of a backup and of a restore: what was finished stays whole, and the same command run again
//! succeeds. `SEED=n` repeats a run.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::lab::medusa::{Medusa, finish};
use crate::lab::node::Release;
use crate::support::{Random, answers, hold, insert, listed, load, medusa, node, program, wait_for, wrap_nodetool};

const MOMENTS: u32 = 20;

/// How often it is tried: a run may have ended before its moment came.
const TRIES: u32 = 3 * MOMENTS;

/// Starts medusa, kills it after a random part of the time, and returns whether it was still running.
fn killed(medusa: &Medusa, arguments: &[&str], random: &mut Random, longest: Duration) -> bool {
    let moment = Duration::from_millis(random.below(u64::try_from(longest.as_millis()).unwrap()));
    let mut child = medusa.spawn(arguments);
    sleep(moment);
    child.kill().unwrap();
    let running = child.wait().unwrap().signal() == Some(9);
    println!("{arguments:?}: {} after {moment:?}", if running { "killed" } else { "had ended" });
    running
}

#[test]
fn p2_a_backup_killed_at_20_moments_is_finished_by_the_same_command() {
    let mut random = Random::seeded("backup killed");
    let node = node(Release::V5_0);
    let medusa = medusa(&node);
    let session = node.session();
    load(&session, "shop", 20);
    let begin = Instant::now();
    medusa.ok(&["backup-node", "--backup-name", "base"]);
    let mut longest = begin.elapsed();
    let mut states = vec![("base".to_owned(), answers(&session, "shop"))];
    let mut kills = 0;
    for moment in 0..TRIES {
        if kills == MOMENTS {
            break;
        }
        insert(&session, "shop", 100 * moment..100 * moment + 5);
        let name = format!("kill-{moment:02}");
        let mode = if moment % 4 == 3 { "full" } else { "differential" };
        let arguments = ["backup-node", "--backup-name", &name, "--mode", mode];
        let was_killed = killed(&medusa, &arguments, &mut random, longest);
        kills += u32::from(was_killed);
        let finished = listed(&medusa);
        for (earlier, _) in &states {
            assert!(finished[earlier], "{earlier} is no longer finished");
        }
        medusa.ok(&["verify", "--backup-name", &random.pick(&states).0]);
        if was_killed {
            let run = medusa.run(&arguments);
            // It had done everything.
            let is_done = run.code == 1 && run.stderr.contains("already exists") && finished.get(&name) == Some(&true);
            assert!(run.code == 0 || is_done, "{run}");
        } else {
            // The machine is faster now.
            longest = longest.mul_f64(0.8);
        }
        states.push((name, answers(&session, "shop")));
        assert_eq!(
            node.snapshots().into_iter().filter(|tag| tag.starts_with("medusa-")).count(),
            0,
            "a snapshot is left after {moment}"
        );
    }
    assert_eq!(kills, MOMENTS, "too few runs were killed");
    for (name, _) in &states {
        medusa.ok(&["verify", "--backup-name", name, "--enable-md5-checks"]);
        medusa.peer_ok(&["verify", "--backup-name", name]);
    }
    drop(session);
    for pick in [1, MOMENTS as usize / 2, MOMENTS as usize] {
        let (name, state) = &states[pick];
        medusa.ok(&["restore-node", "--backup-name", name]);
        assert_eq!(&answers(&node.session(), "shop"), state, "{name}");
    }
}

/// nodetool outlives the medusa that started it, and takes its snapshot when nobody expects it any more.
#[test]
fn p5_the_nodetool_of_a_killed_backup_leaves_no_snapshot() {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    load(&node.session(), "shop", 10);
    let (wait, begun, go) = hold(&medusa);
    let (ended, said) = (medusa.folder.path().join("ended"), medusa.folder.path().join("said"));
    let first = format!("{{ {wait}; $REAL \"$@\"; touch {}; exit; }}", ended.display());
    let snapshot = format!("[ -e {} ] || {first}", begun.display());
    wrap_nodetool(
        &mut medusa,
        &node,
        &format!("case \"$*\" in *' snapshot '*) {snapshot} ;; esac\nexec $REAL \"$@\"\n"),
    );
    let arguments = ["backup-node", "--backup-name", "b1"];
    let mut child = medusa.spawn(&arguments);
    wait_for("nodetool", || begun.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let stderr = std::fs::File::create(&said).unwrap();
    let child = medusa.prepare(&arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let waits = "waiting for another run on snapshot medusa-b1";
    wait_for("the second run", || std::fs::read_to_string(&said).unwrap().contains(waits));
    std::fs::write(&go, "").unwrap();
    finish(child.wait_with_output().unwrap(), "medusa", &arguments).expect_code(0);
    wait_for("the end of nodetool", || ended.exists());
    assert_eq!(node.snapshots().into_iter().filter(|tag| tag.starts_with("medusa-")).count(), 0);
    medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
}

#[test]
fn p2_a_restore_killed_at_20_moments_is_finished_by_the_same_command() {
    let mut random = Random::seeded("restore killed");
    let node = node(Release::V5_0);
    let medusa = medusa(&node);
    load(&node.session(), "shop", 50);
    medusa.ok(&["backup-node", "--backup-name", "base"]);
    let state = answers(&node.session(), "shop");
    let arguments = ["restore-node", "--backup-name", "base"];
    let begin = Instant::now();
    medusa.ok(&arguments);
    let mut longest = begin.elapsed();
    let mut kills = 0;
    for moment in 0..TRIES {
        if kills == MOMENTS {
            break;
        }
        insert(&node.session(), "shop", 1000..1003);
        node.nodetool(&["flush", "shop"]);
        let was_killed = killed(&medusa, &arguments, &mut random, longest);
        kills += u32::from(was_killed);
        medusa.ok(&["verify", "--backup-name", "base", "--enable-md5-checks"]);
        if was_killed {
            medusa.ok(&arguments);
        } else {
            // The machine is faster now.
            longest = longest.mul_f64(0.8);
        }
        assert_eq!(answers(&node.session(), "shop"), state, "after moment {moment}");
        let left: Vec<_> = std::fs::read_dir(&node.data_directories()[0])
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "after moment {moment}");
    }
    assert_eq!(kills, MOMENTS, "too few runs were killed");
}

/// Cassandra looks at every file below its data directories when it starts.
#[test]
fn p2_cassandra_starts_with_what_a_killed_restore_left() {
    let node = node(Release::V5_0);
    let medusa = medusa(&node);
    load(&node.session(), "shop", 50);
    medusa.ok(&["backup-node", "--backup-name", "base"]);
    let state = answers(&node.session(), "shop");
    node.nodetool(&["snapshot", "-t", "big", "shop"]);
    let snapshot = node.table_folders("shop", "t")[0].join("snapshots/big");
    std::fs::File::create(snapshot.join("nb-900-big-Index.db")).unwrap().set_len(1 << 30).unwrap();
    medusa.ok(&["backup-node", "--backup-name", "big", "--use-existing-snapshot"]);

    let mut child = medusa.spawn(&["restore-node", "--backup-name", "big", "--keyspace", "shop"]);
    let staged = node.data_directories()[0].join(".medusa-restore-big/stage");
    let mut files = Vec::new();
    wait_for("the download of the large file", || {
        let below = walkdir::WalkDir::new(&staged).into_iter().flatten().filter(|entry| entry.file_type().is_file());
        files = below.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect();
        files.iter().any(|name| name.contains("nb-900"))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!files.contains(&"nb-900-big-Index.db".to_owned()), "it was quicker than the kill: {files:?}");
    node.kill();
    node.boot();
    medusa.ok(&["restore-node", "--backup-name", "base"]);
    assert_eq!(answers(&node.session(), "shop"), state);
}

/// A restore that was killed when Cassandra was up already is over: what was written since must stay.
#[test]
fn p2_what_was_written_after_a_killed_restore_stays() {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    load(&node.session(), "shop", 10);
    medusa.ok(&["backup-node", "--backup-name", "base"]);
    // The program that starts Cassandra does not come back, so that medusa is killed while it waits for it.
    let start = program(&medusa, "start", &format!("{}\nsleep 1000\n", node.program("start").display()));
    medusa.set("cassandra", "start_cmd", &start);
    let arguments = ["restore-node", "--backup-name", "base"];
    let mut child = medusa.spawn(&arguments);
    let folder = node.data_directories()[0].join(".medusa-restore-base");
    let journal = folder.join("journal.json");
    wait_for("the start", || std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("starting")));
    node.wait_until_up();
    child.kill().unwrap();
    child.wait().unwrap();
    insert(&node.session(), "shop", 500..510);
    let state = answers(&node.session(), "shop");
    // Down again. A kill would lose what the commit log has not synced yet.
    node.stop();
    medusa.set("cassandra", "start_cmd", &node.program("start").display().to_string());
    medusa.ok(&arguments);
    assert_eq!(answers(&node.session(), "shop"), state);
    assert!(!folder.exists());
}
