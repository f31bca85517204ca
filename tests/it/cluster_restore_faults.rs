//! Coordinators of a restore that lose a host, are told to end, or find another ring than they were told of. The hosts are those
//! of `cluster_restore`.

use std::fs;
use std::process::Child;

use crate::cluster_restore::{HOSTS, LIST, Lab, SOURCES, begun, hosts, states};
use crate::lab::medusa::{Run, finish};
use crate::support::{assert_fails, signal, wait_for};

/// An address at which nothing is.
const NOBODY: &str = "127.254.254.254";

fn words(lab: &Lab, more: &[&str]) -> Vec<String> {
    let jobs = lab.path("jobs").display().to_string();
    let words = ["restore-cluster", "--backup-name", "b1", "--temp-dir", &jobs];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// Without the host list.
fn run(lab: &Lab, more: &[&str]) -> Run {
    let arguments = words(lab, more);
    lab.medusa.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn spawn(lab: &Lab, more: &[&str]) -> Child {
    let arguments = lab.arguments(more);
    lab.medusa.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn ended(child: Child) -> Run {
    finish(child.wait_with_output().unwrap(), "medusa", &["restore-cluster"])
}

fn wait_for_line(lab: &Lab, line: &str) {
    wait_for(line, || fs::read_to_string(lab.path("log")).unwrap_or_default().contains(line));
}

/// Ends a connection with the shell at its other end. The run there has a session of its own.
fn cut(connection: &str) {
    let shells = fs::read_to_string(format!("/proc/{connection}/task/{connection}/children")).unwrap();
    for process in std::iter::once(connection).chain(shells.split_whitespace()) {
        let process = nix::unistd::Pid::from_raw(process.parse().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

/// Another cluster than the one that was meant is never taken for it.
#[test]
fn p3_a_ring_that_cannot_be_asked_is_not_guessed() {
    let lab = Lab::new();
    let refused = run(&lab, &["-y", "--seed-target", NOBODY]);
    let said = format!("the ring of {NOBODY} cannot be asked, and the backup has no node of that name");
    assert_fails(&refused, 1, &[&said, "--host-list"]);
    // All may be down; but Cassandra answers on one.
    run(&lab, &["--dry-run"]).expect_code(0);
    fs::write(lab.path("release-n4"), "5.0.9").unwrap();
    let refused = run(&lab, &["-y"]);
    assert_fails(&refused, 1, &["the ring was not asked, and Cassandra answers on n4", "--seed-target n4"]);
    let log = lab.log();
    assert!(log.iter().all(|line| line.contains(" check ") || line.contains(" state ")), "{log:#?}");
}

/// The ring does not know its hosts any more: the plan of then says how to go on.
#[test]
fn p2_a_remote_restore_of_which_only_one_host_is_known_is_gone_on_with() {
    let lab = Lab::new();
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let plan: Vec<_> = lines.clone().collect();
    let begun_there = |phase: &str| state(phase, &plan);
    // The seed has been restored, and another one waits.
    fs::write(lab.path(&format!("state-{NOBODY}")), begun_there("restored")).unwrap();
    let seed_target = ["--seed-target", NOBODY];
    assert_fails(&run(&lab, &[&seed_target[..], &["-y"]].concat()), 1, &["cannot be asked"]);
    fs::write(lab.path("state-m5"), begun_there("stopped")).unwrap();
    assert_fails(&run(&lab, &[&seed_target[..], &["-y", "--again"]].concat()), 1, &["cannot be asked"]);
    assert_fails(&run(&lab, &[&seed_target[..], &["-y", "--keyspace", "ks"]].concat()), 1, &["cannot be asked"]);
    lab.log();
    let plan = run(&lab, &[&seed_target[..], &["--dry-run"]].concat()).expect_code(0);
    assert!(plan.stdout.contains("a run that was interrupted is gone on with"), "{plan}");
    lab.log();
    let done = run(&lab, &[&seed_target[..], &["-y", "--output", "json"]].concat()).expect_code(0);
    assert_eq!(states(&done.json()), HOSTS.map(|host| (host, "restored")), "{done}");
    let log = lab.log();
    let given: Vec<_> = begun(&log, "start").into_iter().map(|(host, source, _)| (host, source)).collect();
    assert_eq!(given[0], ("m3", "n1"), "{log:#?}");
    assert_eq!(given.len(), SOURCES.len());
    // The plan goes along, so that the next one could do the same.
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    let stage = arguments.lines().find(|line| line.contains("--stage-only")).unwrap();
    for line in lines {
        assert!(stage.contains(&format!("--host={line}")), "{line} is not in {stage}");
    }
}

/// What a host that was asked for its state says of a remote run `r1` with this plan.
fn state(phase: &str, plan: &[&str]) -> String {
    let asked = r#""backup": "b1", "source": "n1", "remote": true, "keep_auth": false, "keyspaces": [], "tables": [], "with_system": false"#;
    let hosts: Vec<_> = plan.iter().map(|line| format!("\"{line}\"")).collect();
    let hosts = hosts.join(", ");
    format!(r#"{{"version": 1, "runs": [{{"run": "r1", {asked}, "phase": "{phase}", "hosts": [{hosts}]}}]}}"#)
}

/// A cluster that was set up anew under its old names has other tokens: each host takes its old ones back.
#[test]
fn p3_an_interrupted_remote_restore_stays_one_where_every_host_gets_its_own() {
    let lab = Lab::new();
    let own = ["True,n1,n1", "False,n2,n2", "False,n3,n3", "False,n4,n4", "False,n5,n5"];
    fs::write(lab.path("state-n1"), state("stopped", &own)).unwrap();
    let done = run(&lab, &["-y", "--seed-target", "n1", "--output", "json"]).expect_code(0);
    assert_eq!(states(&done.json()).len(), own.len(), "{done}");
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    let work = arguments.lines().filter(|line| !line.contains("--version"));
    assert!(work.clone().count() > own.len() && work.clone().all(|line| line.contains("--remote")), "{arguments}");
}

/// Journals of older versions have no plan: nothing can be made of one alone.
#[test]
fn p2_a_run_without_a_plan_is_not_taken_for_one_of_no_host() {
    let lab = Lab::new();
    let seed_target = ["--seed-target", NOBODY, "-y"];
    fs::write(lab.path(&format!("state-{NOBODY}")), state("stopped", &[])).unwrap();
    assert_fails(&run(&lab, &seed_target), 1, &["cannot be asked"]);
    assert!(begun(&lab.log(), "stage").is_empty());
}

#[test]
fn p3_a_target_that_cannot_be_asked_is_not_taken_for_restored() {
    let lab = Lab::new();
    let plan: Vec<_> = LIST.lines().filter(|line| line.contains(',')).collect();
    fs::write(lab.path(&format!("state-{NOBODY}")), state("restored", &plan)).unwrap();
    lab.touch("lost-m5");
    let refused = run(&lab, &["-y", "--seed-target", NOBODY]);
    let told = ["run r1", "of 1 target it is not known whether it has ended there", "m5: ", "timed out", "--again"];
    assert_fails(&refused, 1, &told);
    assert!(begun(&lab.log(), "check").is_empty());
}

#[test]
fn p4_a_target_that_could_not_be_told_to_start_is_down() {
    let lab = Lab::new();
    lab.touch("hold-start-m3");
    lab.touch("kill-start-m2");
    let child = spawn(&lab, &["-y", "--output", "json"]);
    wait_for_line(&lab, "begin start m3");
    lab.touch("lost-m5");
    fs::remove_file(lab.path("hold-start-m3")).unwrap();
    let run = ended(child);
    assert_fails(&run, 3, &["of 2 of 5 targets it is not known what they have, or they are down", "the same command"]);
    let document = run.json();
    let state_of = |host: &str| states(&document).into_iter().find(|(target, _)| *target == host).unwrap().1.to_owned();
    assert_eq!([state_of("m3"), state_of("m5"), state_of("m2")], ["restored", "down", "not known"], "{run}");

    for left in ["lost-m5", "kill-start-m2"] {
        fs::remove_file(lab.path(left)).unwrap();
    }
    let run = lab.run(&["-y", "--output", "json"]).expect_code(0);
    assert!(states(&run.json()).iter().all(|(_, state)| state.ends_with("restored")), "{run}");
}

#[test]
fn p3_owners_of_the_tokens_that_come_up_while_files_are_brought_stop_nobody() {
    let lab = Lab::new();
    lab.touch("hold-stage-m5");
    let child = spawn(&lab, &["-y"]);
    wait_for_line(&lab, "begin stage m5");
    fs::write(lab.path("owners-m1"), r#"{"host": "m9", "host_id": "id-m9"}"#).unwrap();
    fs::remove_file(lab.path("hold-stage-m5")).unwrap();
    assert_fails(&ended(child), 1, &["the tokens of n4 are owned by m9, which is up, is no target"]);
    let log = lab.log();
    assert_eq!((begun(&log, "stage").len(), begun(&log, "stop").len()), (5, 0), "{log:#?}");
    // Tokens of a target are no obstacle: it gets others.
    fs::write(lab.path("owners-m1"), r#"{"host": "m3", "host_id": "id-m3"}"#).unwrap();
    lab.run(&["-y"]).expect_code(0);
}

/// Nobody knows whether the seed has the restored data: beside it, the others would be wrong with either.
#[test]
fn p4_when_the_only_seed_is_lost_the_others_wait_for_the_same_command() {
    let mut lab = Lab::new();
    lab.medusa.set("ssh", "reconnect_timeout", "1");
    lab.touch("hold-start-m3");
    let child = spawn(&lab, &["-y", "--output", "json"]);
    wait_for_line(&lab, "begin start m3");
    lab.touch("lost-m3");
    cut(fs::read_to_string(lab.path("pid-m3")).unwrap().trim());
    let run = ended(child);
    assert_fails(&run, 1, &["of 5 of 5 targets it is not known what they have", "the same command takes it up again"]);
    let document = run.json();
    let mut expected = HOSTS.map(|host| (host, "down"));
    expected[0].1 = "not known";
    assert_eq!(states(&document), expected, "{run}");
    let log = lab.log();
    assert_eq!((hosts(&log, "start"), begun(&log, "undo").len()), (["m3"].into(), 0), "{log:#?}");

    fs::remove_file(lab.path("hold-start-m3")).unwrap();
    fs::remove_file(lab.path("lost-m3")).unwrap();
    wait_for_line(&lab, "end start m3");
    lab.log();
    let run = lab.run(&["-y", "--output", "json"]).expect_code(0);
    let mut expected = HOSTS.map(|host| (host, "restored"));
    expected[0].1 = "already restored";
    assert_eq!(states(&run.json()), expected, "{run}");
}

#[test]
fn p4_a_signal_before_the_swap_takes_everything_back() {
    // A SIGHUP may be ignored by whoever runs the tests (nohup), and then it is by medusa.
    for name in ["INT", "TERM"] {
        let lab = Lab::new();
        lab.touch("hold-stage-m1");
        let child = spawn(&lab, &["-y"]);
        wait_for_line(&lab, "begin stage m1");
        signal(&child, name);
        let run = ended(child);
        assert_ne!(run.code, 0, "{run}");
        let log = lab.log();
        assert_eq!((begun(&log, "stop").len(), begun(&log, "start").len()), (0, 0), "{name}: {log:#?}");
    }
    let lab = Lab::new();
    lab.touch("hold-stop-m1");
    let child = spawn(&lab, &["-y"]);
    wait_for_line(&lab, "begin stop m1");
    signal(&child, "TERM");
    fs::remove_file(lab.path("hold-stop-m1")).unwrap();
    let run = ended(child);
    assert_ne!(run.code, 0, "{run}");
    let log = lab.log();
    assert_eq!((hosts(&log, "undo"), begun(&log, "start").len()), (HOSTS.into(), 0), "{log:#?}");
}

#[test]
fn p4_a_signal_while_seeds_start_names_those_that_are_down() {
    let lab = Lab::new();
    lab.touch("hold-start-m3");
    let child = spawn(&lab, &["-y"]);
    wait_for_line(&lab, "begin start m3");
    signal(&child, "TERM");
    let run = ended(child);
    assert_ne!(run.code, 0, "{run}");
    assert!(run.stderr.contains("being started with the restored data: m3"), "{run}");
    assert!(run.stderr.contains("until the same command goes on: m1, m4, m2, m5"), "{run}");
    fs::remove_file(lab.path("hold-start-m3")).unwrap();
    wait_for_line(&lab, "end start m3");
    lab.run(&["-y"]).expect_code(0);
}

#[test]
fn options_of_a_load_without_one_are_told_to_have_no_effect() {
    let lab = Lab::new();
    let plan = lab.run(&["--dry-run", "--dc-map", "dc1=east"]).expect_code(0);
    assert!(plan.stdout.contains("have no effect: nothing is loaded"), "{plan}");
    assert!(plan.stdout.contains("Cassandra does not answer on 5 targets: nobody compared its release"), "{plan}");
    let plan = lab.run(&["--dry-run", "--version-target", "5.0.9"]).expect_code(0);
    assert!(!plan.stdout.contains("have no effect") && !plan.stdout.contains("nobody compared"), "{plan}");
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    let checks = arguments.lines().filter(|line| line.contains("--version-target=5.0.9") && line.contains("--dry-run"));
    assert_eq!(checks.count(), HOSTS.len(), "{arguments}");
    // They have compared it themselves.
    for host in &HOSTS[1..] {
        fs::write(lab.path(&format!("installed-{host}")), "5.0.9").unwrap();
    }
    let plan = lab.run(&["--dry-run"]).expect_code(0);
    assert!(plan.stdout.contains("Cassandra does not answer on 1 target: nobody compared its release"), "{plan}");
}
