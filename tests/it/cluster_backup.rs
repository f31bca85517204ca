//! `backup-cluster` over hosts that are scripts: what it asks of which host, how many at a time, and what becomes of it when
//! hosts, or the coordinator itself, fail.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::lab::medusa::{Medusa, finish};
use crate::made;
use crate::support::{assert_fails, program, signal, wait_for};

/// Hosts behind a program in the place of ssh. What runs on them is a program in the place of medusa, which writes down what
/// it is asked for, and stores a backup that was made up.
pub struct Hosts {
    pub medusa: Medusa,
    pub names: Vec<String>,
}

/// In place of ssh: `-- HOST COMMAND` ends its arguments.
const SSH: &str = r#"
while [ "$1" != -- ]; do [ "$1" = -O ] && exit 0; shift; done
if [ -e "$ROOT/down/$2" ]; then echo "ssh: connect to host $2 port 22: Connection refused" >&2; exit 255; fi
TEST_HOST=$2 exec /bin/sh -c "$3"
"#;

/// In place of medusa on a host. `do/WHAT-HOST` may change what it does.
const REMOTE: &str = r#"
host=$TEST_HOST what=upload
if [ "$1" = --version ]; then
    if [ -e "$ROOT/do/version-$host" ]; then cat "$ROOT/do/version-$host"; else echo VERSION; fi
    exit 0
fi
for word; do case $word in --snapshot-only) what=snapshot ;; --clear-snapshot) what=clear ;; esac; done
echo "begin $what $host $*" >>"$ROOT/log"
[ "$what" = snapshot ] && touch "$ROOT/snapshots/$host"
if [ -e "$ROOT/do/$what-$host" ]; then . "$ROOT/do/$what-$host"; elif [ -e "$ROOT/do/$what" ]; then . "$ROOT/do/$what"; fi
case $what in
snapshot) printf '{"version": 1, "fqdn": "%s", "snapshot": "medusa-b1", "taken": 17000000%s.5}\n' "$host" "${host##*.}" ;;
clear) rm -f "$ROOT/snapshots/$host"; printf '{"version": 1, "fqdn": "%s", "snapshot": "medusa-b1", "cleared": true}\n' "$host" ;;
upload)
    cp -a "$ROOT/made/$host/." "$ROOT/backups/bucket/"
    rm -f "$ROOT/snapshots/$host"
    printf '{"version": 1, "fqdn": "%s", "files": 2, "uploaded_bytes": 10}\n' "$host" ;;
esac
echo "end $what $host" >>"$ROOT/log"
"#;

/// Hangs until it is told to end, and ends then.
const HANG: &str = "trap 'echo \"ended $what $host\" >>\"$ROOT/log\"; kill $!; exit 143' TERM
echo \"hangs $what $host\" >>\"$ROOT/log\"; sleep 600 & wait $!\n";

impl Hosts {
    /// A ring of so many hosts, with a backup `b1` that each of them can store.
    pub fn new(count: u8) -> Self {
        let mut medusa = made::medusa();
        let names: Vec<_> = (1..=count).map(|i| format!("127.9.0.{}", i + 10)).collect();
        let root = medusa.folder.path().display().to_string();
        for folder in ["down", "do", "snapshots", "made", "backups/bucket"] {
            std::fs::create_dir_all(medusa.folder.path().join(folder)).unwrap();
        }
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        for name in &all {
            let objects = [made::object(name, "nb-1-big-Data.db", "1"), made::object(name, "nb-2-big-Data.db", "2")];
            made::backup(&medusa.folder.path().join("made").join(name), name, "b1", &all, &objects);
        }
        let ssh = program(&medusa, "ssh", &format!("ROOT={root}\n{SSH}"));
        let remote = REMOTE.replace("VERSION", env!("CARGO_PKG_VERSION"));
        let remote = program(&medusa, "remote-medusa", &format!("ROOT={root}\n{remote}"));
        medusa.set("ssh", "ssh_program", &ssh);
        medusa.set("ssh", "medusa_program", &remote);
        medusa.set("cassandra", "use_sudo", "False");
        Self { medusa, names }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.medusa.folder.path().join(below)
    }

    /// Changes what a host does: `snapshot-HOST`, `upload-HOST`, `version-HOST`; or all: `upload`.
    pub fn behave(&self, what: &str, script: &str) {
        std::fs::write(self.path("do").join(what), script).unwrap();
    }

    fn behave_well(&self) {
        for folder in ["do", "down"] {
            std::fs::remove_dir_all(self.path(folder)).unwrap();
            std::fs::create_dir(self.path(folder)).unwrap();
        }
    }

    fn list(&self) -> String {
        self.names.join(",")
    }

    pub fn arguments<'a>(hosts: &'a str, temporary: &'a str) -> Vec<&'a str> {
        vec!["backup-cluster", "--backup-name", "b1", "--hosts", hosts, "--temp-dir", temporary]
    }

    pub fn temporary(&self) -> String {
        self.path("tmp").display().to_string()
    }

    /// Lines of the log, and a new log.
    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("log"));
        log.lines().map(str::to_owned).collect()
    }

    fn has_logged(&self, start: &str) -> bool {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().any(|line| line.starts_with(start))
    }

    fn snapshots(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path("snapshots")).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Folders of runs that are still there.
    fn jobs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("tmp")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("medusa-job-")).collect()
    }
}

/// The most runs of one kind that were there at one time.
fn most_at_once(log: &[String], what: &str) -> usize {
    let (mut now, mut most) = (0, 0);
    for line in log {
        if line.starts_with(&format!("begin {what} ")) {
            now += 1;
        } else if line.starts_with(&format!("end {what} ")) || line.starts_with(&format!("ended {what} ")) {
            now -= 1;
        }
        most = most.max(now);
    }
    most
}

fn hosts_of(log: &[String], start: &str) -> BTreeSet<String> {
    let lines = log.iter().filter_map(|line| line.strip_prefix(start));
    lines.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

fn set(names: &[&String]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn hosts_that_fail_do_not_hold_up_the_others_and_are_all_that_is_done_again() {
    let mut hosts = Hosts::new(20);
    // Of a snapshot 56 s, of clearing it 30 s: enough for those that do not hang.
    for (key, seconds) in [("snapshot_timeout", "11"), ("nodetool_timeout", "14"), ("cql_timeout", "1")] {
        hosts.medusa.set("cassandra", key, seconds);
    }
    hosts.medusa.set("storage", "read_timeout", "1");
    let [refuses, breaks, hangs, down] = [2, 6, 10, 14].map(|i: usize| hosts.names[i].clone());
    hosts.behave(
        &format!("snapshot-{refuses}"),
        "rm \"$ROOT/snapshots/$host\"; echo \"end snapshot $host\" >>\"$ROOT/log\"; echo 'error: no space left' >&2; exit 1\n",
    );
    hosts.behave(
        &format!("upload-{breaks}"),
        "echo \"end upload $host\" >>\"$ROOT/log\"; echo 'error: the bucket is away' >&2; exit 1\n",
    );
    hosts.behave(&format!("snapshot-{hangs}"), HANG);
    std::fs::write(hosts.path("down").join(&down), "").unwrap();
    // Nobody ends before as many are there as may be: a smaller window would wait for ever.
    let gather = "i=0; until [ $(grep -c '^begin upload' \"$ROOT/log\") -ge 4 ] || [ $i -gt 600 ]; do sleep 0.1; i=$((i+1)); done\n";
    hosts.behave("upload", gather);

    let (list, temporary) = (hosts.list(), hosts.temporary());
    let arguments = Hosts::arguments(&list, &temporary);
    let first = hosts.medusa.run(&[&arguments[..], &["-ps", "8", "-pu", "4", "--output", "json"]].concat());
    let log = hosts.log();
    assert_fails(&first, 3, &["backup b1 failed on 4 hosts", "the same command again, with all its options, finishes"]);
    let document = first.json();
    let state =
        |host: &String| document["hosts"].as_array().unwrap().iter().find(|found| found["host"] == **host).unwrap();
    for (host, problem) in [
        (&refuses, "no space left"),
        (&breaks, "the bucket is away"),
        (&hangs, "did not finish within 56 s"),
        (&down, "Connection refused"),
    ] {
        let found = state(host);
        assert_eq!(found["state"], "failed", "{first}");
        assert!(found["problem"].as_str().unwrap().contains(problem), "{problem}: {first}");
    }
    assert_eq!(document["hosts"].as_array().unwrap().iter().filter(|host| host["state"] == "complete").count(), 16);
    assert_eq!(document["complete"], false);
    let (snapshots, uploads) = (most_at_once(&log, "snapshot"), most_at_once(&log, "upload"));
    println!("20 hosts: {snapshots} snapshots and {uploads} uploads at once, {} s in all", document["seconds"]);
    assert_eq!(uploads, 4, "{log:?}");
    assert!(snapshots <= 8, "{log:?}");
    // One of which no snapshot was taken may have one of an earlier run.
    assert_eq!(hosts_of(&log, "begin clear "), set(&[&refuses, &breaks, &hangs]), "{log:?}");
    assert_eq!(hosts_of(&log, "ended snapshot "), set(&[&hangs]), "it is ended on the host: {log:?}");
    assert_eq!(hosts.snapshots(), BTreeSet::new());
    assert_eq!(hosts.jobs(), [""; 0]);

    hosts.behave_well();
    let again = hosts.medusa.ok(&arguments);
    let log = hosts.log();
    let four = set(&[&refuses, &breaks, &hangs, &down]);
    assert_eq!(hosts_of(&log, "begin upload "), four, "{log:?}");
    assert_eq!(hosts_of(&log, "begin snapshot "), four, "{log:?}");
    assert!(again.stdout.starts_with("b1   20 of 20 nodes complete\n"), "{again}");
    assert_eq!(again.stdout.matches("complete before").count(), 16, "{again}");
    assert!(hosts.medusa.ok(&["status", "--backup-name", "b1"]).stdout.contains("20 nodes completed"));
    let third = hosts.medusa.run(&arguments);
    assert_fails(&third, 1, &["backup b1 already exists: it is complete on 20 hosts"]);
    assert_eq!(hosts.log(), [""; 0]);
}

#[test]
fn nodes_are_given_what_the_coordinator_was_given() {
    let hosts = Hosts::new(2);
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let further = ["-v", "--prefix", "pp", "--enable-md5-checks", "--mode", "full", "--allow-corrupt"];
    let run = hosts.medusa.run(&[&Hosts::arguments(&list, &temporary)[..], &further].concat());
    let log = hosts.log();
    assert!(!log.is_empty(), "{run}");
    let ini = hosts.path("medusa.ini");
    let host = &hosts.names[0];
    let global = format!("--config-file={} --prefix=pp -v backup-node --backup-name=b1 --mode=full", ini.display());
    let snapshot = format!("begin snapshot {host} {global} --snapshot-only --output=json");
    let upload =
        format!("begin upload {host} {global} --enable-md5-checks --snapshot-taken --allow-corrupt --output=json");
    for line in [snapshot, upload] {
        assert!(log.contains(&line), "{line:?} is not in {log:#?}");
    }
}

#[test]
fn what_a_host_says_it_stored_must_be_there() {
    let hosts = Hosts::new(2);
    hosts.behave(&format!("upload-{}", hosts.names[1]), "printf '{\"fqdn\": \"x\", \"files\": 1}\\n'; exit 0\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.run(&Hosts::arguments(&list, &temporary));
    assert_fails(&run, 3, &["do all hosts have the same bucket and prefix"]);
    assert!(run.stdout.contains("the storage does not have what this host says it stored"), "{run}");
}

#[test]
fn another_version_is_named_before_anything_begins() {
    let hosts = Hosts::new(3);
    hosts.behave(&format!("version-{}", hosts.names[1]), "9.9.9\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.run(&Hosts::arguments(&list, &temporary));
    let told = format!("{}: medusa is 9.9.9 there, and {} here", hosts.names[1], env!("CARGO_PKG_VERSION"));
    assert_fails(&run, 1, &["1 host cannot take part", &told, "nothing was begun"]);
    assert_eq!(hosts.log(), [""; 0]);
}

#[test]
fn a_dry_run_asks_no_host() {
    let hosts = Hosts::new(2);
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.ok(&[&Hosts::arguments(&list, &temporary)[..], &["--dry-run"]].concat());
    assert!(run.stdout.contains("127.9.0.11   snapshot, then upload\n"), "{run}");
    assert!(run.stdout.ends_with("  at once: 2 snapshots, 1 upload\n"), "{run}");
    assert_eq!(hosts.log(), [""; 0]);
}

#[test]
fn hosts_come_from_a_file_too() {
    let hosts = Hosts::new(3);
    let file = hosts.path("hosts");
    std::fs::write(&file, "# two of three\n127.9.0.11\nTrue,127.9.0.12,old\n").unwrap();
    let (file, temporary) = (file.display().to_string(), hosts.temporary());
    let run = hosts.medusa.ok(&["backup-cluster", "--backup-name=b1", "--host-list", &file, "--temp-dir", &temporary]);
    assert!(run.stdout.contains("note: 1 node of the ring have no part in it: 127.9.0.13"), "{run}");
    std::fs::write(&file, "-oProxyCommand=evil\n").unwrap();
    let run = hosts.medusa.run(&["backup-cluster", "--backup-name=b2", "--host-list", &file]);
    assert_fails(&run, 2, &["line 1: \"-oProxyCommand=evil\" is not the name or the address of a host"]);
}

#[test]
fn nothing_that_succeeds_is_exit_code_1() {
    let hosts = Hosts::new(2);
    hosts.behave("upload", "echo 'error: no bucket' >&2; exit 1\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.run(&Hosts::arguments(&list, &temporary));
    assert_fails(&run, 1, &["backup b1 is complete on no host"]);
    assert_eq!(hosts.snapshots(), BTreeSet::new());
}

/// Begins a backup whose uploads hang, and waits for the first one.
fn begun(hosts: &Hosts, arguments: &[&str]) -> Child {
    hosts.behave("upload", HANG);
    let child = hosts.medusa.spawn(arguments);
    wait_for("an upload", || hosts.has_logged("hangs upload"));
    child
}

#[test]
fn p5_an_interrupt_ends_the_runs_and_clears_the_snapshots() {
    for name in ["INT", "TERM"] {
        let hosts = Hosts::new(3);
        let (list, temporary) = (hosts.list(), hosts.temporary());
        let arguments = Hosts::arguments(&list, &temporary);
        let child = begun(&hosts, &arguments);
        assert_eq!(hosts.snapshots().len(), 3);
        signal(&child, name);
        let run = finish(child.wait_with_output().unwrap(), "medusa", &arguments);
        assert_fails(&run, if name == "INT" { 130 } else { 143 }, &["interrupted by"]);
        let log = hosts.log();
        assert_eq!(hosts_of(&log, "ended upload ").len(), 1, "{log:?}");
        assert_eq!(hosts_of(&log, "begin clear ").len(), 3, "{log:?}");
        assert_eq!(hosts.snapshots(), BTreeSet::new());
        assert_eq!(hosts.jobs(), [""; 0]);
    }
}

#[test]
fn p2_a_killed_coordinator_is_followed_by_one_that_finds_what_goes_on() {
    let hosts = Hosts::new(3);
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let arguments = Hosts::arguments(&list, &temporary);
    let wait = "i=0; until [ -e \"$ROOT/go\" ] || [ $i -gt 3000 ]; do sleep 0.1; i=$((i+1)); done\n";
    hosts.behave("upload", wait);
    let mut child = hosts.medusa.spawn(&arguments);
    wait_for("an upload", || hosts.has_logged("begin upload"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(hosts.snapshots().len(), 3, "they wait for the same command");
    let said = hosts.path("said");
    let stderr = std::fs::File::create(&said).unwrap();
    let child = hosts.medusa.prepare(&arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let attached = format!("{}  goes on since an earlier run of this command", hosts.names[0]);
    wait_for("the second run", || std::fs::read_to_string(&said).unwrap().contains(&attached));
    std::fs::write(hosts.path("go"), "").unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &arguments).expect_code(0);
    assert!(run.stdout.starts_with("b1   3 of 3 nodes complete\n"), "{run}");
    let log = hosts.log();
    let uploads = log.iter().filter(|line| line.starts_with("begin upload ")).count();
    assert_eq!(uploads, 3, "none was begun twice: {log:?}");
    assert_eq!(hosts.jobs(), [""; 0]);
}

/// Its run was killed: what it took, or was about to take, lies on the host.
#[test]
fn p5_the_snapshot_of_a_run_that_was_killed_is_cleared() {
    let hosts = Hosts::new(2);
    hosts.behave(&format!("snapshot-{}", hosts.names[0]), "kill -9 $$\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.run(&Hosts::arguments(&list, &temporary));
    assert_fails(&run, 3, &["backup b1 failed on 1 host"]);
    assert!(run.stdout.contains("medusa was ended by SIGKILL"), "{run}");
    assert_eq!(hosts_of(&hosts.log(), "begin clear "), set(&[&hosts.names[0]]));
    assert_eq!(hosts.snapshots(), BTreeSet::new());
    assert_eq!(hosts.jobs(), [""; 0]);
}

/// The run of an earlier coordinator ends between two looks.
#[test]
fn what_is_finished_when_its_turn_comes_is_no_failure() {
    let hosts = Hosts::new(2);
    let finished = "cp -a \"$ROOT/made/$host/.\" \"$ROOT/backups/bucket/\"; rm -f \"$ROOT/snapshots/$host\"
echo \"error: backup b1 of $host already exists; it was finished a moment ago\" >&2; exit 1\n";
    hosts.behave(&format!("upload-{}", hosts.names[1]), finished);
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.ok(&Hosts::arguments(&list, &temporary));
    assert!(run.stdout.contains(&format!("{}   complete before", hosts.names[1])), "{run}");
    assert_eq!(hosts.snapshots(), BTreeSet::new());
}

#[test]
fn what_could_not_be_cleared_is_named_with_the_command_that_does() {
    let hosts = Hosts::new(2);
    hosts.behave(&format!("upload-{}", hosts.names[0]), "echo 'error: broken' >&2; exit 1\n");
    hosts.behave(&format!("clear-{}", hosts.names[0]), "echo 'error: no JMX' >&2; exit 1\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let run = hosts.medusa.run(&Hosts::arguments(&list, &temporary));
    assert_fails(&run, 3, &["backup b1 failed on 1 host"]);
    let told = "the snapshot may still be on 127.9.0.11 (no JMX): nodetool clearsnapshot -t medusa-b1 clears it there";
    assert!(run.stdout.contains(told), "{run}");
}

#[test]
fn snapshots_that_are_to_stay_are_left_alone() {
    let hosts = Hosts::new(2);
    hosts.behave("upload", "echo 'error: broken' >&2; exit 1\n");
    let (list, temporary) = (hosts.list(), hosts.temporary());
    let arguments = Hosts::arguments(&list, &temporary);
    hosts.medusa.run(&[&arguments[..], &["--use-existing-snapshot"]].concat()).expect_code(1);
    let log = hosts.log();
    assert!(
        log.iter().all(|line| line.starts_with("begin upload ") && line.contains("--use-existing-snapshot")),
        "{log:?}"
    );
    hosts.medusa.run(&[&arguments[..], &["--keep-snapshot"]].concat()).expect_code(1);
    assert_eq!(hosts_of(&hosts.log(), "begin clear "), BTreeSet::new());
    assert_eq!(hosts.snapshots().len(), 2);
}
