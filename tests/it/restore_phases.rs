//! The steps of a restore that are run one by one on all nodes of a cluster: stage, stop, start, and the way back.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::medusa::{Medusa, Run};
use crate::lab::node::{Node, Release};
use crate::support::{
    Shared, State, answers, assert_fails, edit, insert, left_by_restores, load, medusa, node, pid, program, wait_for,
};

const RESTORE: [&str; 3] = ["restore-node", "--backup-name", "b1"];

/// A node with a backup `b1`, and with other rows since.
struct Lab {
    node: Node,
    medusa: Medusa,
    /// As the backup has them.
    then: [Vec<Vec<String>>; 2],
}

fn lab(test: impl FnOnce(&Lab)) {
    static LAB: Shared<Lab> = Shared::new();
    let make = || {
        let node = node(Release::V5_0);
        let medusa = medusa(&node);
        let session = node.session();
        load(&session, "shop", 60);
        medusa.ok(&["backup-node", "--backup-name", "b1"]);
        let then = answers(&session, "shop");
        Lab { node, medusa, then }
    };
    LAB.with(make, |lab| {
        if !lab.node.is_up() {
            lab.node.kill();
            lab.node.boot();
        }
        for left in left_by_restores(&lab.node) {
            fs::remove_dir_all(left).unwrap();
        }
        insert(&lab.node.session(), "shop", 500..520);
        lab.node.nodetool(&["flush", "shop"]);
        test(lab);
    });
}

impl Lab {
    fn run(&self, more: &[&str]) -> Run {
        self.medusa.run(&[&RESTORE[..], more].concat())
    }

    fn state(&self) -> State {
        State::of(&self.node, &self.node.session(), &["shop"])
    }

    /// The state that a step ends with.
    #[track_caller]
    fn ends(&self, more: &[&str], state: &str) -> Value {
        let document = self.run(&[more, &["--output", "json"]].concat()).expect_code(0).json();
        assert_eq!(document["state"], state, "{document}");
        document
    }

    fn phase(&self, more: &[&str]) -> Value {
        let document = self.run(&[more, &["--dry-run", "--output", "json"]].concat()).expect_code(0).json();
        document["progress"]["phase"].clone()
    }

    #[track_caller]
    fn is_restored(&self) {
        assert_eq!(answers(&self.node.session(), "shop"), self.then);
    }

    fn journal(&self) -> PathBuf {
        self.node.data_directories()[0].join(".medusa-restore-b1/journal.json")
    }
}

#[test]
fn a_stage_changes_nothing_and_is_used_by_the_next_run() {
    lab(|lab| {
        let before = lab.state();
        assert_eq!(lab.phase(&[]), Value::Null);
        let staged = lab.ends(&["--stage-only"], "staged");
        assert!(staged["downloaded_files"].as_u64() > Some(0), "{staged}");
        assert_eq!(lab.state(), before);
        assert_eq!(lab.phase(&[]), "staged");
        // Twice is the same, and brings nothing again.
        let again = lab.ends(&["--stage-only"], "staged");
        assert_eq!(again["downloaded_files"], 0, "{again}");
        assert_eq!(lab.state(), before);
        let restored = lab.ends(&[], "restored");
        assert_eq!(restored["downloaded_files"], 0, "{restored}");
        lab.is_restored();
        assert_eq!(left_by_restores(&lab.node), [].into());
    });
}

#[test]
fn a_stopped_node_is_down_until_the_same_command_starts_it_with_the_restored_files() {
    lab(|lab| {
        let hints = lab.node.path("hints");
        fs::write(hints.join("left.hints"), "for a node that is down").unwrap();
        lab.ends(&["--stop-only"], "stopped");
        assert!(!lab.node.is_up());
        assert_eq!(lab.phase(&[]), "stopped");
        // Twice is the same, also as another step, and nothing was moved.
        lab.ends(&["--stop-only"], "stopped");
        lab.ends(&["--stage-only"], "stopped");
        assert!(hints.join("left.hints").exists());
        let restored = lab.ends(&[], "restored");
        assert!(restored["down_seconds"].as_f64() > Some(0.0), "{restored}");
        lab.is_restored();
        assert_eq!(left_by_restores(&lab.node), [].into());
        let left: Vec<_> = fs::read_dir(&hints).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "hints were not set aside");
    });
}

#[test]
fn a_stopped_node_is_started_with_what_it_had() {
    lab(|lab| {
        let before = lab.state();
        // Nothing was begun: nothing to take back.
        lab.ends(&["--undo"], "undone");
        assert_eq!(lab.state(), before);
        lab.ends(&["--stop-only"], "stopped");
        lab.ends(&["--undo"], "undone");
        let after = lab.state();
        assert_eq!(after.rows, before.rows);
        assert_ne!(after.pid, before.pid);
        assert_eq!(lab.phase(&[]), "staged");
        lab.ends(&["--undo"], "undone");
        assert_eq!(lab.state().pid, after.pid, "it was started again");
        let restored = lab.ends(&[], "restored");
        assert_eq!(restored["downloaded_files"], 0, "{restored}");
        lab.is_restored();
    });
}

/// Somebody starts Cassandra in between: what it writes belongs to the old data.
#[test]
fn a_node_that_was_started_in_between_is_stopped_again_or_left_running() {
    lab(|lab| {
        lab.ends(&["--stop-only"], "stopped");
        lab.node.boot();
        insert(&lab.node.session(), "shop", 600..605);
        let rows = answers(&lab.node.session(), "shop");
        let running = pid(&lab.node);
        lab.ends(&["--undo"], "undone");
        assert_eq!((answers(&lab.node.session(), "shop"), pid(&lab.node)), (rows, running));
        lab.ends(&["--stop-only"], "stopped");
        lab.node.boot();
        lab.ends(&["--stop-only"], "stopped");
        assert!(!lab.node.is_up());
        lab.ends(&[], "restored");
        lab.is_restored();
    });
}

#[test]
fn a_step_that_is_killed_is_repeated() {
    lab(|lab| {
        let before = lab.state();
        // The program that stops Cassandra does not come back.
        let mut slow = medusa(&lab.node);
        let stop = program(
            &slow,
            "stop",
            &format!(
                "{}\ntouch {}\nsleep 1000\n",
                lab.node.program("stop").display(),
                slow.folder.path().join("down").display()
            ),
        );
        slow.set("cassandra", "stop_cmd", &stop);
        slow.set("storage", "base_path", &lab.medusa.base_path().display().to_string());
        let mut child = slow.spawn(&[&RESTORE[..], &["--stop-only"]].concat());
        wait_for("the stop", || slow.folder.path().join("down").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!lab.node.is_up());
        lab.ends(&["--stop-only"], "stopped");
        // As the one that was killed has left it: it is started again.
        edit(&lab.journal(), |text| text.replace("\"stopped\"", "\"staged\""));
        lab.ends(&["--undo"], "undone");
        assert_eq!(lab.state().rows, before.rows);

        // Killed while it waits for Cassandra to start.
        let mut slow = medusa(&lab.node);
        slow.set("storage", "base_path", &lab.medusa.base_path().display().to_string());
        let start = program(&slow, "start", "sleep 1000\n");
        slow.set("cassandra", "start_cmd", &start);
        lab.ends(&["--stop-only"], "stopped");
        let mut child = slow.spawn(&RESTORE);
        wait_for("the start", || fs::read_to_string(lab.journal()).is_ok_and(|text| text.contains("starting")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lab.phase(&[]), "starting");
        lab.ends(&["--stop-only"], "stopped");
        lab.ends(&["--undo"], "undone");
        assert_eq!(lab.state().rows, before.rows);
        lab.ends(&[], "restored");
        lab.is_restored();
        let gone = lab.run(&["--undo"]).expect_code(0);
        assert!(gone.stdout.contains("is taken back"), "{gone}");
        lab.is_restored();
    });
}

#[test]
fn what_a_run_has_restored_it_does_not_restore_again() {
    lab(|lab| {
        let mine = ["--run", "r1"];
        lab.ends(&[&["--stage-only"], &mine[..]].concat(), "staged");
        lab.ends(&mine, "restored");
        lab.is_restored();
        assert_eq!(lab.phase(&[]), "restored");
        insert(&lab.node.session(), "shop", 700..710);
        let rows = answers(&lab.node.session(), "shop");
        for step in [&["--stage-only"][..], &["--stop-only"], &[]] {
            lab.ends(&[step, &mine].concat(), "restored");
        }
        assert_eq!(answers(&lab.node.session(), "shop"), rows);
        // Another run, and one by hand, do.
        lab.ends(&["--run", "r2"], "restored");
        lab.is_restored();
        lab.ends(&[], "restored");
        assert_eq!(left_by_restores(&lab.node), [].into());
    });
}

/// Whoever asks later is told of the run that had the last word.
#[test]
fn a_node_that_is_down_for_one_run_belongs_to_the_next_one() {
    lab(|lab| {
        for (run, host) in [("r1", "True,m1,n1"), ("r2", "True,m2,n1")] {
            lab.ends(&["--stop-only", "--run", run, "--host", host], "stopped");
            let state = lab.run(&["--state", "--output", "json"]).expect_code(0).json();
            assert_eq!(
                (&state["runs"][0]["run"], &state["runs"][0]["hosts"][0]),
                (&run.into(), &host.into()),
                "{state}"
            );
        }
        lab.ends(&["--run", "r2"], "restored");
        lab.is_restored();
    });
}

/// Only one step at a time, and tables that a part leaves alone keep their hints.
#[test]
fn steps_exclude_each_other_and_a_part_leaves_hints() {
    lab(|lab| {
        let both = lab.run(&["--stage-only", "--stop-only"]);
        assert_fails(&both, 2, &["cannot be used with"]);
        let hints = lab.node.path("hints");
        let told = "would bring newer rows back to other nodes";
        // A disk of its own has this at its top.
        fs::create_dir(hints.join("lost+found")).unwrap();
        let plan = lab.run(&["--table", "shop.t", "--dry-run"]).expect_code(0);
        assert!(!plan.stdout.contains(told), "{plan}");
        fs::remove_dir(hints.join("lost+found")).unwrap();
        fs::write(hints.join("left.hints"), "for a node that is down").unwrap();
        let plan = lab.run(&["--table", "shop.t", "--dry-run"]).expect_code(0);
        assert!(plan.stdout.contains(told), "{plan}");
        lab.ends(&["--table", "shop.t", "--stop-only"], "stopped");
        lab.ends(&["--table", "shop.t"], "restored");
        lab.is_restored();
        assert!(hints.join("left.hints").exists());
        fs::remove_file(hints.join("left.hints")).unwrap();
    });
}

/// One that waits for Cassandra to stop has the node for itself, until it ends.
#[test]
fn a_restore_leaves_a_node_alone_on_which_another_one_works() {
    lab(|lab| {
        let before = lab.state();
        let mut slow = medusa(&lab.node);
        slow.set("storage", "base_path", &lab.medusa.base_path().display().to_string());
        let reached = slow.folder.path().join("reached");
        let stop = program(&slow, "stop", &format!("touch {}\nexec sleep 1000\n", reached.display()));
        slow.set("cassandra", "stop_cmd", &stop);
        let mut child = slow.spawn(&RESTORE);
        wait_for("the stop", || reached.exists());
        let who = format!("another restore works on this node (process {})", child.id());
        for step in [&[][..], &["--stage-only"], &["--stop-only"], &["--undo"], &["--table", "shop.t"]] {
            assert_fails(&lab.run(step), 1, &[&who, "hint: wait for its end"]);
        }
        // A dry run needs no lock, and makes no plan for a Cassandra that goes down at any moment.
        let looked = lab.run(&["--dry-run", "--output", "json"]).expect_code(0).json();
        assert_eq!((&looked["progress"]["phase"], &looked["tables"]), (&"staged".into(), &Value::Null));
        // The next coordinator, after one that was killed.
        let next = [&RESTORE[..], &["--stop-only", "--run", "r1"]].concat();
        let said = slow.folder.path().join("said");
        let mut waiting = lab.medusa.prepare(&next).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
        wait_for("the second step", || fs::read_to_string(&said).unwrap().contains("waits for an earlier step"));
        assert!(lab.node.is_up(), "it did not wait");
        assert_eq!(lab.state(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(waiting.wait().unwrap().success(), "{}", fs::read_to_string(&said).unwrap());
        assert_eq!(lab.phase(&[]), "stopped");
        lab.ends(&[], "restored");
        lab.is_restored();
    });
}

/// Killed while it waits for a seed: what a Cassandra that others started has written must not be taken for old.
#[test]
fn what_is_written_while_a_restore_waits_for_its_seeds_stays() {
    lab(|lab| {
        let mut child = lab.medusa.spawn(&[&RESTORE[..], &["--seeds", "192.0.2.1"]].concat());
        wait_for("the moves", || fs::read_to_string(lab.journal()).is_ok_and(|text| text.contains("starting")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lab.phase(&[]), "starting");
        lab.node.boot();
        insert(&lab.node.session(), "shop", 800..810);
        let rows = answers(&lab.node.session(), "shop");
        // A kill would lose what the commit log has not synced yet.
        lab.node.stop();
        lab.ends(&[], "restored");
        assert_eq!(answers(&lab.node.session(), "shop"), rows);
    });
}

/// As with a disk that the last flush has filled.
#[test]
fn cassandra_is_started_again_where_the_journal_cannot_be_written() {
    lab(|lab| {
        let before = lab.state();
        let mut full = medusa(&lab.node);
        full.set("storage", "base_path", &lab.medusa.base_path().display().to_string());
        let in_the_way = lab.journal().with_extension("new");
        let stop = lab.node.program("stop").display().to_string();
        let body = format!("{stop} || exit 1\nmkdir {}\n", in_the_way.display());
        full.set("cassandra", "stop_cmd", &program(&full, "stop", &body));
        let run = full.run(&RESTORE);
        assert_fails(&run, 1, &["the previous data is back and Cassandra was started with it", "journal.new"]);
        assert_eq!(lab.state().rows, before.rows, "{run}");
        fs::remove_dir(in_the_way).unwrap();
        lab.ends(&[], "restored");
        lab.is_restored();
    });
}

/// It has no port open yet, and its files are in use.
#[test]
fn nothing_is_moved_beneath_a_cassandra_that_is_booting() {
    lab(|lab| {
        let mut slow = medusa(&lab.node);
        slow.set("storage", "base_path", &lab.medusa.base_path().display().to_string());
        slow.set("cassandra", "start_cmd", &program(&slow, "start", "sleep 1000\n"));
        let mut child = slow.spawn(&RESTORE);
        wait_for("the start", || fs::read_to_string(lab.journal()).is_ok_and(|text| text.contains("starting")));
        child.kill().unwrap();
        child.wait().unwrap();
        // As if it had been killed between two moves.
        edit(&lab.journal(), |text| text.replace("\"starting\"", "\"swapping\""));
        let undo = lab.journal().with_file_name("undo/shop");
        let set_aside = || fs::read_dir(&undo).into_iter().flatten().count();
        assert_eq!(set_aside(), 1, "the table of the keyspace");
        let java = slow.folder.path().join("java");
        fs::copy("/bin/sleep", &java).unwrap();
        let held = fs::File::open(undo.parent().unwrap().parent().unwrap().join("journal.json")).unwrap();
        let mut booting = std::process::Command::new(&java).arg("1000").stdin(held).spawn().unwrap();
        slow.set("cassandra", "stop_timeout", "1");
        let run = slow.run(&[&RESTORE[..], &["--undo"]].concat());
        assert_fails(&run, 1, &["its files are still open in", &format!("process {} (java)", booting.id())]);
        assert_eq!(set_aside(), 1, "{run}");
        booting.kill().unwrap();
        booting.wait().unwrap();
        lab.ends(&["--undo"], "undone");
        assert_eq!(set_aside(), 0, "it is back in its place");
        assert!(lab.node.is_up());
    });
}
