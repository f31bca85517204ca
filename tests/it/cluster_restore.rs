//! What `restore-cluster` has the hosts do, and in which order: hosts and ssh are scripts here, and keep a log.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use nix::pty::openpty;
use serde_json::Value;

use crate::lab::medusa::{Medusa, Run, finish};
use crate::made::{self, object};
use crate::support::{assert_fails, program, wait_for};

/// Runs the remote command on this host, as the one that was named.
const SSH: &str = r#"
while [ $# -gt 0 ]; do
  case "$1" in
    -O) exit 0 ;;
    --) shift; break ;;
    -[oFplSiEeJWbcDILmQRw]) shift 2 ;;
    -*) shift ;;
    *) break ;;
  esac
done
HOST=${1##*@}; export HOST; shift
if [ -e "$D/lost-$HOST" ]; then
  echo "Connection timed out" >&2
  exit 255
fi
echo $$ >"$D/pid-$HOST"
exec /bin/sh -c "$*"
"#;

/// medusa on a host: it logs what it is asked for, and remembers how far it got.
const MEDUSA: &str = r#"
step=start; source=; run=; seeds=-
for word; do
  case "$word" in
    --version) cat "$D/version"; exit 0 ;;
    --dry-run) step=check ;;
    --state) step=state ;;
    --stage-only) step=stage ;;
    --stop-only) step=stop ;;
    --undo) step=undo ;;
    --schema-only) step=schema ;;
    --no-schema) step=load ;;
    --after-load) step=indexes ;;
    --fqdn=*) source=${word#*=} ;;
    --run=*) run=${word#*=} ;;
    --seeds=*) seeds=${word#*=} ;;
  esac
done
echo "$*" >>"$D/arguments"
echo "begin $step $HOST $source $seeds" >>"$D/log"
phase() { echo "$1" >"$D/phase-$HOST"; echo "$run" >"$D/run-$HOST"; }
while [ -e "$D/hold-$step-$HOST" ]; do sleep 0.1; done
[ -e "$D/kill-$step-$HOST" ] && kill -9 $$
if [ -e "$D/fail-$step-$HOST" ]; then
  [ $step = start ] && phase staging
  echo "end $step $HOST" >>"$D/log"
  echo "error: $step broke on $HOST" >&2
  exit 1
fi
case $step in
  state) cat "$D/state-$HOST" 2>/dev/null || echo '{"version": 1, "runs": []}' ;;
  check)
    said=null; of=null; finished=null; release=null; installed=null; owners=
    [ -e "$D/owners-$HOST" ] && owners=$(cat "$D/owners-$HOST")
    [ -e "$D/release-$HOST" ] && release="\"$(cat "$D/release-$HOST")\""
    [ -e "$D/installed-$HOST" ] && installed="\"$(cat "$D/installed-$HOST")\""
    [ -e "$D/phase-$HOST" ] && said="\"$(cat "$D/phase-$HOST")\"" && of="\"$(cat "$D/run-$HOST")\""
    [ "$said" = '"restored"' ] && finished=1700000000
    echo "{\"version\": 1, \"tables\": [{}], \"bytes\": 10, \"local_bytes\": 4, \"statements\": [\"CREATE TABLE ks.t (id int)\"], \"notes\": [\"a note\"], \"cassandra\": $release, \"installed\": $installed, \"owners\": [$owners], \"host_id\": \"id-$HOST\", \"directories\": [{\"path\": \"/data\", \"needed_bytes\": 6, \"free_bytes\": 100}], \"progress\": {\"phase\": $said, \"run\": $of, \"finished\": $finished}}" ;;
  stage) phase staged; echo '{}' ;;
  stop) phase stopped; echo '{}' ;;
  start) phase restored; echo '{}' ;;
  undo) phase staged; echo '{}' ;;
  schema | load | indexes) echo '{}' ;;
esac
echo "end $step $HOST" >>"$D/log"
"#;

/// A coordinator, and as many hosts as sources.
pub struct Lab {
    pub medusa: Medusa,
}

/// Targets `m1`, `m2`, … of sources `n1`, `n2`, …, in another order; the first line is the seed.
pub const LIST: &str = "# a cluster\nTrue,m3,n1\n\nFalse,m1,n4\nFalse,m4,n2\nFalse,m2,n5\nFalse,m5,n3\n";
pub const HOSTS: [&str; 5] = ["m3", "m1", "m4", "m2", "m5"];
pub const SOURCES: [&str; 5] = ["n1", "n4", "n2", "n5", "n3"];

impl Lab {
    pub fn new() -> Self {
        let mut medusa = made::medusa();
        medusa.set("storage", "fqdn", "n1");
        for fqdn in SOURCES {
            made::backup(&medusa.bucket(), fqdn, "b1", &SOURCES, &[object(fqdn, "nb-1-big-Data.db", fqdn)]);
        }
        let folder = medusa.folder.path().join("hosts");
        fs::create_dir_all(folder.join("jobs")).unwrap();
        fs::write(folder.join("version"), concat!(env!("CARGO_PKG_VERSION"), "\n")).unwrap();
        let ssh = program(&medusa, "ssh", &format!("D='{}'\n{SSH}", folder.display()));
        let remote = program(&medusa, "remote", &format!("D='{}'\n{MEDUSA}", folder.display()));
        medusa.set("ssh", "ssh_program", &ssh);
        medusa.set("ssh", "medusa_program", &remote);
        medusa.set("cassandra", "use_sudo", "False");
        let lab = Self { medusa };
        fs::write(lab.path("list"), LIST).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.medusa.folder.path().join("hosts").join(name)
    }

    pub fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    pub fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (list, jobs) = (self.path("list").display().to_string(), self.path("jobs").display().to_string());
        let words = ["restore-cluster", "--backup-name", "b1", "--host-list", &list, "--temp-dir", &jobs];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    pub fn run(&self, more: &[&str]) -> Run {
        let arguments = self.arguments(more);
        self.medusa.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The log since the last time.
    pub fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        log.lines().map(str::to_owned).collect()
    }
}

/// `begin step host source seeds` lines of a step.
pub fn begun<'a>(log: &'a [String], step: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let of_step = log.iter().filter_map(|line| line.strip_prefix("begin ")?.strip_prefix(step)?.strip_prefix(' '));
    of_step
        .map(|rest| {
            let words: Vec<_> = rest.split(' ').collect();
            (words[0], words[1], words[2])
        })
        .collect()
}

pub fn hosts<'a>(log: &'a [String], step: &str) -> BTreeSet<&'a str> {
    begun(log, step).into_iter().map(|(host, ..)| host).collect()
}

/// Where a line is in the log.
#[track_caller]
fn at(log: &[String], line: &str) -> usize {
    log.iter().position(|logged| logged.starts_with(line)).unwrap_or_else(|| panic!("{line:?} is not in {log:#?}"))
}

pub fn states(document: &Value) -> Vec<(&str, &str)> {
    let targets = document["targets"].as_array().unwrap().iter();
    targets.map(|target| (target["target"].as_str().unwrap(), target["state"].as_str().unwrap())).collect()
}

#[test]
fn nobody_is_stopped_before_all_have_their_files_and_seeds_start_first() {
    let lab = Lab::new();
    // The last one is slow: a window that slides does not wait for it, and a step does.
    lab.touch("hold-stage-m5");
    let arguments = lab.arguments(&["-y", "-pr", "2", "--output", "json"]);
    let child = lab.medusa.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("the others", || {
        let log = fs::read_to_string(lab.path("log")).unwrap_or_default();
        log.matches("end stage").count() == 4
    });
    fs::remove_file(lab.path("hold-stage-m5")).unwrap();
    let output = child.wait_with_output().unwrap();
    let run = crate::lab::medusa::finish(output, "medusa", &["restore-cluster", "--output", "json"]).expect_code(0);
    let log = lab.log();
    for step in ["check", "stage", "stop", "start"] {
        let given: Vec<_> = begun(&log, step).into_iter().map(|(host, source, _)| (host, source)).collect();
        let expected: BTreeSet<_> = HOSTS.into_iter().zip(SOURCES).collect();
        // Once more before the first one is stopped.
        let times = if step == "check" { 10 } else { 5 };
        assert_eq!((given.len(), given.into_iter().collect::<BTreeSet<_>>()), (times, expected), "{step}: {log:#?}");
    }
    let first_stop = at(&log, "begin stop");
    assert!(log[first_stop..].iter().all(|line| !line.contains("stage")), "{log:#?}");
    // The first one alone: it may create tables.
    assert_eq!(at(&log, "end stop m3"), first_stop + 1, "{log:#?}");
    let first_start = at(&log, "begin start m3");
    assert!(log[first_start..].iter().all(|line| !line.contains("stop")), "{log:#?}");
    assert_eq!(at(&log, "end start m3"), first_start + 1, "{log:#?}");
    for (host, _, seeds) in begun(&log, "start") {
        assert_eq!(seeds, if host == "m3" { "-" } else { "m3" }, "{host}");
    }
    let document = run.json();
    assert_eq!(states(&document), HOSTS.map(|host| (host, "restored")), "{run}");
    assert_eq!((&document["method"], &document["complete"]), (&"remote".into(), &true.into()));
    // Every host is told all that decides, and nothing secret.
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    let stage = arguments.lines().find(|line| line.contains("--stage-only")).unwrap();
    for word in ["--config-file=", "restore-node", "--backup-name=b1", "--remote", "--output=json", "--run="] {
        assert!(stage.contains(word), "{word} is not in {stage}");
    }
}

#[test]
fn a_dry_run_asks_the_hosts_and_shows_the_plan() {
    let lab = Lab::new();
    let plan = lab.run(&["--dry-run"]).expect_code(0);
    assert!(plan.stdout.starts_with("restore b1 into 5 targets from 5 sources, as a remote restore "), "{plan}");
    for part in
        ["m3  (seed)   n1", "all targets: a note", "first    run CREATE TABLE ks.t (id", "are down at the same time"]
    {
        assert!(plan.stdout.contains(part), "{part:?} is not in {plan}");
    }
    assert!(plan.stdout.contains("roles and passwords"), "{plan}");
    let document = lab.run(&["--dry-run", "--output", "json"]).expect_code(0).json();
    assert_eq!(document["targets"][1]["sources"], serde_json::json!(["n4"]));
    let kept = lab.run(&["--dry-run", "--keep-auth"]).expect_code(0);
    assert!(!kept.stdout.contains("roles and passwords"), "{kept}");
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    assert_eq!(arguments.lines().filter(|line| line.contains(" --keep-auth ")).count(), 5, "{arguments}");
    let log = lab.log();
    assert!(log.iter().all(|line| line.contains(" check ")), "{log:#?}");
}

#[test]
fn a_host_that_cannot_do_its_part_is_named_before_anything_is_done() {
    let lab = Lab::new();
    lab.touch("fail-check-m1");
    lab.touch("fail-check-m2");
    let run = lab.run(&["-y"]);
    assert_fails(
        &run,
        1,
        &["2 of 5 hosts cannot restore their part; nothing was changed", "m1: ", "check broke on m2"],
    );
    let log = lab.log();
    assert!(log.iter().all(|line| line.contains(" check ")), "{log:#?}");
    fs::write(lab.path("version"), "0.0.1\n").unwrap();
    let run = lab.run(&["-y"]);
    assert_fails(&run, 1, &["5 of 5 hosts cannot be used; nothing was changed", "0.0.1"]);
    assert_eq!(lab.log(), Vec::<String>::new());
}

#[test]
fn a_host_that_does_not_get_its_files_stops_nobody() {
    let lab = Lab::new();
    lab.touch("fail-stage-m4");
    let run = lab.run(&["-y"]);
    assert_fails(&run, 1, &["1 of 5 targets could not bring the files; nothing was stopped", "m4: stage broke on m4"]);
    let log = lab.log();
    assert_eq!((begun(&log, "stage").len(), begun(&log, "stop").len(), begun(&log, "undo").len()), (5, 0, 0));
    fs::remove_file(lab.path("fail-stage-m4")).unwrap();
    lab.run(&["-y"]).expect_code(0);
    assert_eq!(begun(&lab.log(), "start").len(), 5);
}

#[test]
fn those_that_were_stopped_are_started_again_if_another_cannot_be() {
    let lab = Lab::new();
    lab.touch("fail-stop-m4");
    let run = lab.run(&["-y"]);
    let said = "1 of 5 targets could not be stopped; those that were stopped run again with their previous data";
    assert_fails(&run, 1, &[said, "m4: stop broke on m4", "nothing was restored"]);
    let log = lab.log();
    assert_eq!(hosts(&log, "undo"), HOSTS.into());
    assert_eq!(begun(&log, "start").len(), 0);
    // The first one fails: no other was touched.
    fs::remove_file(lab.path("fail-stop-m4")).unwrap();
    lab.touch("fail-stop-m3");
    lab.touch("fail-undo-m3");
    let run = lab.run(&["-y"]);
    assert_fails(
        &run,
        1,
        &["not all of those that were stopped could be started again", "m3: could not be taken back"],
    );
    let log = lab.log();
    assert_eq!((hosts(&log, "stop"), hosts(&log, "undo")), (["m3"].into(), ["m3"].into()));
}

#[test]
fn a_host_that_fails_is_named_and_finished_by_the_same_command() {
    let lab = Lab::new();
    lab.touch("fail-start-m2");
    let run = lab.run(&["-y", "--output", "json"]);
    assert_fails(&run, 3, &["1 of 5 targets were not restored"]);
    let document = run.json();
    assert_eq!(states(&document)[3], ("m2", "failed"));
    assert!(document["targets"][3]["reason"].as_str().unwrap().contains("start broke on m2"), "{run}");
    assert_eq!(begun(&lab.log(), "start").len(), 5);

    fs::remove_file(lab.path("fail-start-m2")).unwrap();
    let plan = lab.run(&["--dry-run"]).expect_code(0);
    assert!(plan.stdout.contains("m1 was restored at") && plan.stdout.contains("restored already"), "{plan}");
    lab.log();
    let run = lab.run(&["-y", "--output", "json"]).expect_code(0);
    let document = run.json();
    assert_eq!(states(&document)[3], ("m2", "restored"));
    assert_eq!(states(&document)[0], ("m3", "already restored"));
    let log = lab.log();
    for step in ["stage", "stop", "start"] {
        assert_eq!(hosts(&log, step), ["m2"].into(), "{step}");
    }
    // All are done: the next one is another restore.
    lab.run(&["-y"]).expect_code(0);
    assert_eq!(begun(&lab.log(), "start").len(), 5);
}

#[test]
fn without_a_seed_the_others_get_their_previous_data_back() {
    let lab = Lab::new();
    lab.touch("fail-start-m3");
    let run = lab.run(&["-y"]);
    assert_fails(&run, 1, &["no target was restored", "no seed was restored"]);
    assert!(run.stdout.contains("m1   taken back"), "{run}");
    let log = lab.log();
    assert_eq!(hosts(&log, "start"), ["m3"].into());
    assert_eq!(hosts(&log, "undo"), ["m1", "m2", "m4", "m5"].into());
}

/// The coordinator is killed when all are down. The next one finds that, and goes on.
#[test]
fn p2_a_coordinator_that_is_killed_is_followed_by_the_same_command() {
    let lab = Lab::new();
    lab.touch("hold-start-m1");
    let arguments = lab.arguments(&["-y"]);
    let mut child = lab.medusa.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("the start of all", || {
        let log = fs::read_to_string(lab.path("log")).unwrap_or_default();
        log.matches("end start").count() == 4 && log.contains("begin start m1")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    lab.log();
    let plan = lab.run(&["--dry-run"]).expect_code(0);
    assert!(plan.stdout.contains("was begun (stopped)") && plan.stdout.contains("restored already"), "{plan}");
    // Not before the second run has looked at all hosts.
    lab.log();
    let (log, hold) = (lab.path("log"), lab.path("hold-start-m1"));
    let release = std::thread::spawn(move || {
        wait_for("the stop of m1", || fs::read_to_string(&log).unwrap_or_default().contains("end stop m1"));
        fs::remove_file(hold).unwrap();
    });
    let run = lab.run(&["-y", "--output", "json"]).expect_code(0);
    release.join().unwrap();
    let log = lab.log();
    // The job that had been begun was attached to, or was over: it is not begun a second time while it runs.
    let states: Vec<_> = states(&run.json()).into_iter().map(|(_, state)| state.to_owned()).collect();
    assert_eq!(states, ["already restored", "restored", "already restored", "already restored", "already restored"]);
    assert_eq!(hosts(&log, "stop"), ["m1"].into(), "{log:#?}");
}

#[test]
fn what_cannot_be_asked_or_does_not_fit_is_refused() {
    let lab = Lab::new();
    assert_fails(&lab.run(&[]), 2, &["stdin is no terminal", "--bypass-checks"]);
    assert_fails(&lab.run(&["-y", "--seed-target", "m1"]), 2, &["cannot be used with"]);
    for (list, message) in [
        ("True,m1", "line 1: 2 fields"),
        ("\n# x\nperhaps,m1,n1\n", "line 3: \"perhaps\""),
        ("True,m1,n1\nFalse,m1,n2\n", "the target m1 twice"),
        ("True,m1,n1\nFalse,m2,n1\n", "the source n1 twice"),
        ("True,m1,n9\n", "n9, of which there is no backup"),
        ("# nothing\n", "the host list names no host"),
    ] {
        fs::write(lab.path("list"), list).unwrap();
        assert_fails(&lab.run(&["-y"]), 2, &[message]);
    }
    fs::write(lab.path("list"), "True,n1,n1\nFalse,n2,n2\n").unwrap();
    assert_fails(&lab.run(&["-y", "--keep-auth"]), 2, &["system_auth cannot be kept in a restore in place"]);
    let tables = lab.run(&["--dry-run", "--keep-auth", "--keyspace", "ks"]).expect_code(0);
    assert!(!tables.stdout.contains("keep-auth"), "{tables}");
    lab.log();
    // Who runs has compared it; n2 does not.
    fs::write(lab.path("release-n1"), "5.0.9").unwrap();
    let refused = lab.run(&["-y", "--version-target", "3.11.9"]);
    assert_fails(&refused, 1, &["n2 was backed up by Cassandra 5.0.9", "n2, which does not answer, runs 3.11.9"]);
    assert!(lab.log().iter().all(|line| line.contains(" check ")));
    fs::write(lab.path("release-n2"), "5.0.9").unwrap();
    lab.run(&["--dry-run", "--version-target", "3.11.9"]).expect_code(0);
    lab.log();
    // In place: every host gets its own.
    let plan = lab.run(&["--dry-run"]).expect_code(0);
    assert!(plan.stdout.contains("in place") && plan.stdout.contains("n3 is in no line of the host list"), "{plan}");
}

/// Of a step.
fn most_at_once(log: &[String], step: &str) -> usize {
    let (begin, end) = (format!("begin {step} "), format!("end {step} "));
    let (mut now, mut most) = (0, 0);
    for line in log {
        now += usize::from(line.starts_with(&begin));
        most = most.max(now);
        now -= usize::from(line.starts_with(&end));
    }
    most
}

#[test]
fn as_many_targets_work_at_once_as_were_asked_for() {
    for limit in [1, 3] {
        let lab = Lab::new();
        let asked = limit.to_string();
        for host in HOSTS {
            lab.touch(&format!("hold-stage-{host}"));
        }
        let arguments = lab.arguments(&["-y", "--parallel-restores", &asked]);
        let child = lab.medusa.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let log = || fs::read_to_string(lab.path("log")).unwrap_or_default();
        let at_work = || log().lines().filter(|line| line.starts_with("begin stage ")).count();
        wait_for("as many as asked for", || at_work() == limit);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(at_work(), limit);
        for host in HOSTS {
            fs::remove_file(lab.path(&format!("hold-stage-{host}"))).unwrap();
        }
        finish(child.wait_with_output().unwrap(), "medusa", &["restore-cluster"]).expect_code(0);
        let log = lab.log();
        assert_eq!(begun(&log, "start").len(), HOSTS.len(), "{log:#?}");
        for step in ["stage", "stop", "start"] {
            let most = most_at_once(&log, step);
            assert!(most <= limit, "{most} of {limit} at once: {log:#?}");
        }
    }
}

#[test]
fn p3_nothing_is_touched_before_the_answer_is_yes() {
    let ask = |lab: &Lab, answer: &str, more: &[&str]| {
        let terminal = openpty(None, None).unwrap();
        let arguments = lab.arguments(more);
        let mut command = lab.medusa.prepare(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdin(Stdio::from(terminal.slave)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        fs::File::from(terminal.master.try_clone().unwrap()).write_all(answer.as_bytes()).unwrap();
        finish(child.wait_with_output().unwrap(), "medusa", &["restore-cluster"])
    };
    let lab = Lab::new();
    // The last one ends what a person writes.
    for answer in ["n\n", "\n", "yeah\n", "\u{4}"] {
        let refused = ask(&lab, answer, &[]);
        assert_fails(&refused, 1, &["nothing was changed: the answer was not yes"]);
        assert!(refused.stdout.contains("m3") && refused.stdout.ends_with("Proceed? [y/N] "), "{refused}");
        let log = lab.log();
        assert!(log.iter().all(|line| line.contains(" check ") || line.contains(" state ")), "{log:#?}");
    }
    assert_fails(&lab.run(&[]), 2, &["stdin is no terminal", "--dry-run", "-y"]);
    assert_eq!(lab.log(), [""; 0]);
    let done = ask(&lab, "Yes\n", &["--output", "json"]).expect_code(0);
    assert!(done.stderr.contains("Proceed? [y/N] "), "{done}");
    assert_eq!(states(&done.json()), HOSTS.map(|host| (host, "restored")), "{done}");
}

/// As in Medusa: in place it says nothing, and a script that always has it is not stopped.
#[test]
fn keep_auth_has_no_effect_in_place() {
    let lab = Lab::new();
    let jobs = lab.path("jobs").display().to_string();
    // Nobody answers here: every host gets its own backup.
    let words = ["restore-cluster", "--backup-name", "b1", "--temp-dir", &jobs];
    let plan = lab.medusa.run(&[&words[..], &["--dry-run", "--keep-auth"]].concat()).expect_code(0);
    assert!(plan.stdout.contains("in place") && plan.stdout.contains("--keep-auth has no effect in place"), "{plan}");
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    assert!(arguments.contains("--in-place") && !arguments.contains("--keep-auth"), "{arguments}");
}

#[test]
fn a_backup_that_is_not_complete_is_refused_unless_that_is_wanted() {
    let lab = Lab::new();
    fs::remove_file(lab.medusa.bucket().join("n5/b1/meta/manifest.json")).unwrap();
    let run = lab.run(&["-y"]);
    assert_fails(&run, 1, &["backup b1 is not complete: 1 of 5 nodes did not finish", "n5", "--allow-incomplete"]);
    assert_eq!(lab.log(), Vec::<String>::new());
    fs::write(lab.path("list"), LIST.replace("False,m2,n5\n", "")).unwrap();
    let plan = lab.run(&["--dry-run", "--allow-incomplete"]).expect_code(0);
    assert!(plan.stdout.contains("n5 has no part in the backup"), "{plan}");
    let run = lab.run(&["-y", "--allow-incomplete", "--output", "json"]).expect_code(0);
    assert_eq!(states(&run.json()).len(), 4);
}

#[test]
fn loading_prepares_the_schema_once_and_stops_nobody() {
    let lab = Lab::new();
    fs::write(lab.path("list"), "True,m1,n1\nFalse,m2,n2\nFalse,m1,n3\nFalse,m2,n4\nFalse,m1,n5").unwrap();
    let run = lab.run(&[
        "-y",
        "--use-sstableloader",
        "--recreate-tables",
        "--dc-map",
        "dc1=east",
        "--replication",
        "ks=east:2",
        "--output",
        "json",
    ]);
    assert_eq!(run.expect_code(0).json()["method"], "sstableloader");
    let log = lab.log();
    assert_eq!(begun(&log, "schema").len(), 1, "{log:#?}");
    assert!(at(&log, "end schema") < at(&log, "begin load"), "{log:#?}");
    let given: BTreeSet<_> = begun(&log, "load").into_iter().map(|(host, sources, _)| (host, sources)).collect();
    assert_eq!(given, [("m1", "n1,n3,n5"), ("m2", "n2,n4")].into());
    for step in ["stage", "stop", "start"] {
        assert_eq!(begun(&log, step).len(), 0, "{step}");
    }
    let arguments = fs::read_to_string(lab.path("arguments")).unwrap();
    let load = arguments.lines().find(|line| line.contains("--no-schema")).unwrap();
    for word in ["--use-sstableloader", "--dc-map=dc1=east", "--replication=ks=east:2"] {
        assert!(load.contains(word), "{word} is not in {load}");
    }
    let schema = arguments.lines().find(|line| line.contains("--schema-only")).unwrap();
    assert!(schema.contains("--recreate-tables") && !load.contains("--recreate-tables"), "{arguments}");
    assert!(at(&log, "end load") < at(&log, "begin indexes"), "{log:#?}");
    lab.touch("fail-schema-m1");
    assert_fails(
        &lab.run(&["-y", "--use-sstableloader"]),
        1,
        &["the schema could not be prepared; no file was loaded"],
    );
    assert_eq!(begun(&lab.log(), "load").len(), 0);
}

/// Runs that print documents with a value in every field.
pub fn print_documents(mut print: impl FnMut(&Medusa, &[&str])) {
    let lab = Lab::new();
    lab.touch("fail-start-m2");
    let mut run = |more: &[&str]| {
        let arguments = lab.arguments(more);
        print(&lab.medusa, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    };
    run(&["-y"]);
    fs::remove_file(lab.medusa.bucket().join("n5/b1/meta/manifest.json")).unwrap();
    fs::write(lab.path("list"), LIST.replace("False,m2,n5\n", "")).unwrap();
    run(&["--allow-incomplete", "--dry-run"]);
}
