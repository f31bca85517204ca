//! What goes wrong on the node while it is backed up. Nothing is committed, the snapshot goes, the message says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::{Node, Options, Release};
use crate::lab::tree;
use crate::support::{
    SmallDisk, assert_fails, hold, keyspace, listed, load, manifest, manifest_objects, medusa, object_file, program,
    signal, wait_for, wrap_nodetool,
};

/// A node with a loaded keyspace for all and some for one test each. The tests only back it up: where tables come and go at the
/// same time, a snapshot is taken again.
fn shop() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Node::start(Options::new(Release::V5_0));
        for keyspace in ["shop", "corrupt", "unreadable", "big", "names", "times", "again"] {
            load(&node.session(), keyspace, 5);
        }
        node.nodetool(&["flush"]);
        node
    })
}

/// A node whose tables may be created and dropped, for one test at a time.
fn changing() -> MutexGuard<'static, Node> {
    static NODE: LazyLock<Mutex<Node>> = LazyLock::new(|| Mutex::new(Node::start(Options::new(Release::V5_0))));
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts these lines before nodetool's `snapshot`: they may end the script, or call `$REAL`.
fn on_snapshot(medusa: &mut Medusa, node: &Node, body: &str) {
    wrap_nodetool(medusa, node, &format!("case \"$*\" in *' snapshot '*)\n{body}\n;; esac\nexec $REAL \"$@\"\n"));
}

/// One more case for `on_snapshot`, where nodetool has little time: a flush takes none of it.
const QUICK_FLUSH: &str = ";; *' flush'*) exit 0";

fn snapshots_of(node: &Node, name: &str) -> BTreeSet<String> {
    node.snapshots().into_iter().filter(|tag| tag.ends_with(name)).collect()
}

/// The backup failed with a message, is not finished, and left no snapshot.
#[track_caller]
fn assert_not_done(node: &Node, medusa: &Medusa, name: &str, run: &Run, parts: &[&str]) {
    assert_fails(run, 1, parts);
    assert!(!manifest(medusa, &node.address, name).exists(), "{run}");
    assert_eq!(snapshots_of(node, name), BTreeSet::new(), "{run}");
}

/// Lines that put a file into the snapshot that was just taken: `$3` is its tag.
fn add_to_snapshot(node: &Node, how: &str) -> String {
    let table = node.table_folders("shop", "t").remove(0);
    format!(
        "$REAL \"$@\" || exit 1\nfor tag; do :; done\ncd {}/snapshots/$tag || exit 1\n{how}\nexit 0",
        table.display()
    )
}

/// A snapshot of one keyspace, taken by hand. Returns its folder of the table `t`.
fn snapshot_by_hand(node: &Node, keyspace: &str, name: &str) -> PathBuf {
    node.nodetool(&["snapshot", "-t", name, keyspace]);
    node.table_folders(keyspace, "t").remove(0).join("snapshots").join(name)
}

fn only(folder: &Path, end: &str) -> PathBuf {
    let mut found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    found
        .find(|path| path.to_str().unwrap().ends_with(end))
        .unwrap_or_else(|| panic!("no {end} in {}", folder.display()))
}

/// Replaces a file: the live one, which is the same file under another name, stays as it is.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

fn flip_middle_byte(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    replace(path, &content);
}

#[test]
fn p1_a_failing_snapshot_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, "echo 'No space left for links' >&2; exit 2");
    let run = medusa.run(&["backup-node", "--backup-name", "failing"]);
    assert_not_done(node, &medusa, "failing", &run, &["nodetool snapshot failed", "No space left for links", "hint: "]);
}

#[test]
fn p1_a_hanging_snapshot_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, &format!("sleep 1000\n{QUICK_FLUSH}"));
    medusa.set("cassandra", "snapshot_timeout", "5");
    let run = medusa.run(&["backup-node", "--backup-name", "hanging"]);
    assert_not_done(node, &medusa, "hanging", &run, &["nodetool snapshot failed", "5 s", "snapshot_timeout"]);
}

#[test]
fn p1_a_snapshot_that_says_done_and_is_not_there_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, "exit 0");
    let run = medusa.run(&["backup-node", "--backup-name", "nothing"]);
    assert_not_done(node, &medusa, "nothing", &run, &["the snapshot medusa-nothing is empty"]);
}

#[test]
fn p1_a_snapshot_without_one_table_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, &add_to_snapshot(node, "rm -r \"$PWD\""));
    let run = medusa.run(&["backup-node", "--backup-name", "partial"]);
    assert_not_done(node, &medusa, "partial", &run, &["medusa-partial lacks 1 table", "shop.t"]);
}

#[test]
fn p1_a_snapshot_without_one_file_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, &add_to_snapshot(node, "rm *-Data.db"));
    let run = medusa.run(&["backup-node", "--backup-name", "holes"]);
    assert_not_done(node, &medusa, "holes", &run, &["Data.db", "shop/t-"]);
}

#[test]
fn p1_a_snapshot_without_a_component_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    for (name, component, parts) in [
        ("unindexed", "Index.db", ["-Index.db", "cannot be read"]),
        ("undigested", "Digest.crc32", ["-Digest.crc32", "TOC.txt lists"]),
    ] {
        on_snapshot(&mut medusa, node, &add_to_snapshot(node, &format!("rm *-{component}")));
        let run = medusa.run(&["backup-node", "--backup-name", name]);
        assert_not_done(node, &medusa, name, &run, &parts);
    }
}

#[test]
fn p1_a_snapshot_whose_table_is_an_empty_folder_is_an_error() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, &add_to_snapshot(node, "rm -r ./* ./.[!.]*"));
    let run = medusa.run(&["backup-node", "--backup-name", "hollow"]);
    assert_not_done(node, &medusa, "hollow", &run, &["is not whole", "manifest.json"]);
}

#[test]
fn p1_a_missing_nodetool_is_named() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    medusa.set("cassandra", "nodetool_executable", "/no/such/nodetool");
    let run = medusa.run(&["backup-node", "--backup-name", "tool"]);
    assert_not_done(node, &medusa, "tool", &run, &["/no/such/nodetool", "nodetool_executable"]);
}

#[test]
fn p1_a_corrupt_sstable_is_named_and_stored_only_on_request() {
    let (node, medusa) = (shop(), medusa(shop()));
    let data = only(&snapshot_by_hand(node, "corrupt", "damaged"), "-Data.db");
    flip_middle_byte(&data);
    let arguments = ["backup-node", "--backup-name", "damaged", "--use-existing-snapshot"];
    let run = medusa.run(&arguments);
    assert_fails(&run, 1, &[data.to_str().unwrap(), "Digest.crc32", "1 file could not be stored", "--allow-corrupt"]);
    assert!(!manifest(&medusa, &node.address, "damaged").exists());
    assert!(data.exists(), "a snapshot that was handed over stays until it is stored");

    let run = medusa.ok(&[&arguments[..], &["--allow-corrupt"]].concat());
    assert!(run.stdout.contains("corrupt: ") && run.stdout.contains(data.to_str().unwrap()), "{run}");
    let objects = manifest_objects(&manifest(&medusa, &node.address, "damaged"));
    let marked: Vec<_> = objects.values().filter(|object| object["corrupt"] == true).collect();
    assert_eq!(marked.len(), 1, "{objects:?}");
    assert!(marked[0]["path"].as_str().unwrap().ends_with("-Data.db"));
    assert!(!data.exists());
    medusa.peer_ok(&["verify", "--backup-name", "damaged"]);
}

#[test]
fn p1_an_unreadable_file_is_named() {
    let (node, medusa) = (shop(), medusa(shop()));
    let folder = snapshot_by_hand(node, "unreadable", "lost");
    let broken = folder.join("nb-702-big-TOC.txt");
    std::os::unix::fs::symlink("/no/such/disk", &broken).unwrap();
    let run = medusa.run(&["backup-node", "--backup-name", "lost", "--use-existing-snapshot"]);
    assert_fails(&run, 1, &[broken.to_str().unwrap(), "could not be read", "the same command continues"]);
    assert!(!manifest(&medusa, &node.address, "lost").exists());
}

#[test]
fn p1_a_file_that_changes_while_it_is_read_is_an_error() {
    for change in [Change::Grows, Change::Shrinks, Change::SameSize] {
        let (node, mut medusa) = (shop(), medusa(shop()));
        on_snapshot(&mut medusa, node, &add_to_snapshot(node, "truncate -s 512M nb-900-big-Index.db"));
        let child = medusa.spawn(&["backup-node", "--backup-name", "moving"]);
        let file = wait_until_it_reads(&child, "nb-900-big-Index.db");
        signal(&child, "STOP");
        let opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
        match change {
            Change::Grows => opened.set_len((512 << 20) + 1).unwrap(),
            Change::Shrinks => opened.set_len(100 << 20).unwrap(),
            Change::SameSize => {
                use std::os::unix::fs::FileExt as _;
                opened.write_at(b"x", 511 << 20).unwrap();
            }
        }
        signal(&child, "CONT");
        let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
        assert_not_done(node, &medusa, "moving", &run, &["nb-900-big-Index.db changed while it was read"]);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Grows,
    Shrinks,
    SameSize,
}

/// Waits until the process has a file of this name open, and returns its path.
fn wait_until_it_reads(child: &Child, name: &str) -> PathBuf {
    let mut found = None;
    wait_for(&format!("reading {name}"), || {
        let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
        found = open.filter_map(|entry| fs::read_link(entry.path()).ok()).find(|path| path.ends_with(name));
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn p5_sigint_ends_with_130_and_clears_the_snapshot() {
    interrupted("INT", 130);
}

#[test]
fn p5_sigterm_ends_with_143_and_clears_the_snapshot() {
    interrupted("TERM", 143);
}

fn interrupted(name: &str, code: i32) {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let backup = format!("sig{}", name.to_lowercase());
    // Its name ends like ours: only the exact tag is ours.
    let foreign = format!("other-medusa-{backup}");
    node.nodetool(&["snapshot", "-t", &foreign, "shop"]);
    on_snapshot(&mut medusa, node, &add_to_snapshot(node, "truncate -s 1G nb-900-big-Index.db"));
    let child = medusa.spawn(&["backup-node", "--backup-name", &backup]);
    wait_until_it_reads(&child, "nb-900-big-Index.db");
    signal(&child, name);
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
    assert_fails(&run, code, &[&format!("interrupted by SIG{name}")]);
    assert_eq!(snapshots_of(node, &backup), [foreign.clone()].into(), "{run}");
    assert!(!listed(&medusa)[&backup]);

    wrap_nodetool(&mut medusa, node, "exec $REAL \"$@\"\n");
    let run = medusa.ok(&["backup-node", "--backup-name", &backup]);
    assert!(run.stderr.contains("continues the backup"), "{run}");
    assert!(listed(&medusa)[&backup]);
    assert_eq!(snapshots_of(node, &backup), [foreign.clone()].into());
    node.nodetool(&["clearsnapshot", "-t", &foreign]);
}

#[test]
fn p5_a_signal_while_nodetool_takes_the_snapshot_leaves_none() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let (wait, taking, go) = hold(&medusa);
    on_snapshot(&mut medusa, node, &format!("{wait}; $REAL \"$@\"; exit $?"));
    let child = medusa.spawn(&["backup-node", "--backup-name", "early"]);
    wait_for("the snapshot", || taking.exists());
    signal(&child, "TERM");
    fs::write(&go, "").unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
    assert_fails(&run, 143, &["interrupted by SIGTERM"]);
    assert_eq!(snapshots_of(node, "early"), BTreeSet::new(), "{run}");
}

/// As `timeout` and a terminal that hangs up do it.
#[test]
fn p5_signals_that_come_together_are_one() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let (wait, taking, go) = hold(&medusa);
    on_snapshot(&mut medusa, node, &format!("{wait}; $REAL \"$@\"; exit $?"));
    let said = medusa.folder.path().join("said");
    let mut command = medusa.prepare(&["-q", "backup-node", "--backup-name", "twice"]);
    let child = command.stdout(Stdio::piped()).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    wait_for("the snapshot", || taking.exists());
    signal(&child, "TERM");
    signal(&child, "TERM");
    // Of signals that wait together, the one with the lowest number comes first.
    wait_for("the first signal", || fs::read_to_string(&said).unwrap().contains("SIGTERM: ends in order"));
    signal(&child, "HUP");
    signal(&child, "HUP");
    fs::write(&go, "").unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = fs::read(&said).unwrap();
    let run = finish(output, "medusa", &["backup-node"]);
    assert_fails(&run, 143, &["interrupted by SIGTERM"]);
    assert_eq!(snapshots_of(node, "twice"), BTreeSet::new(), "{run}");
}

#[test]
fn p5_the_snapshot_goes_even_if_nodetool_cannot_clear_it() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    wrap_nodetool(&mut medusa, node, "case \"$*\" in *clearsnapshot*) exit 1 ;; esac\nexec $REAL \"$@\"\n");
    medusa.ok(&["backup-node", "--backup-name", "stuck"]);
    assert_eq!(snapshots_of(node, "stuck"), BTreeSet::new());
}

#[test]
fn p2_a_full_disk_loses_nothing_and_the_same_command_finishes() {
    let (node, medusa) = (shop(), medusa(shop()));
    fs::create_dir_all(medusa.base_path()).unwrap();
    let disk = SmallDisk::mount(&medusa.base_path());
    medusa.ok(&["backup-node", "--backup-name", "before"]);
    let folder = snapshot_by_hand(node, "big", "full");
    fs::write(folder.join("nb-901-big-Index.db"), vec![7; 9 << 20]).unwrap();
    let arguments = ["backup-node", "--backup-name", "full", "--use-existing-snapshot"];
    let run = medusa.run(&arguments);
    assert_fails(&run, 1, &["No space left on device", medusa.bucket().to_str().unwrap()]);
    assert!(!listed(&medusa)["full"]);
    medusa.ok(&["verify", "--backup-name", "before", "--enable-md5-checks"]);

    disk.grow();
    medusa.ok(&arguments);
    medusa.ok(&["verify", "--backup-name", "full", "--enable-md5-checks"]);
}

/// Lines that take the snapshot and then wait until `go` is there. Returns them with `taken` and `go`.
fn held_snapshot(medusa: &Medusa) -> (String, PathBuf, PathBuf) {
    let (wait, taken, go) = hold(medusa);
    (format!("$REAL \"$@\" || exit 1\n{wait}\nexit 0"), taken, go)
}

#[test]
fn p1_a_table_that_is_dropped_right_after_the_snapshot_keeps_its_schema() {
    let node = &*changing();
    let mut medusa = medusa(node);
    let keyspace = keyspace("dropped");
    load(&node.session(), &keyspace, 3);
    let (body, taken, go) = held_snapshot(&medusa);
    on_snapshot(&mut medusa, node, &body);
    let child = medusa.spawn(&["backup-node", "--backup-name", "gone-table"]);
    wait_for("the snapshot", || taken.exists());
    node.session().run(&format!("DROP TABLE {keyspace}.t"));
    fs::write(&go, "").unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]).expect_code(0);
    let objects = manifest_objects(&manifest(&medusa, &node.address, "gone-table"));
    assert!(objects.keys().any(|path| path.contains(&format!("/{keyspace}/t-"))), "{run}");
    let meta = medusa.bucket().join(&node.address).join("gone-table/meta");
    for file in fs::read_dir(meta).unwrap().map(|entry| entry.unwrap().path()) {
        if file.to_str().unwrap().contains("schema") {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(&format!("CREATE TABLE {keyspace}.t ")), "{}", file.display());
        }
    }
}

#[test]
fn p1_a_toc_that_cassandra_rewrites_meanwhile_is_stored_as_it_is_then() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, &add_to_snapshot(node, "truncate -s 512M nb-900-big-TOC.txt"));
    let child = medusa.spawn(&["backup-node", "--backup-name", "toc"]);
    let file = wait_until_it_reads(&child, "nb-900-big-TOC.txt");
    signal(&child, "STOP");
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1000).unwrap();
    signal(&child, "CONT");
    finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]).expect_code(0);
    let stored = object_file(&medusa, &node.address, "toc", "shop/t-", "nb-900-big-TOC.txt");
    assert_eq!(fs::metadata(stored).unwrap().len(), 1000);
    medusa.ok(&["verify", "--backup-name", "toc", "--read-data"]);
    medusa.peer_ok(&["verify", "--backup-name", "toc"]);
}

#[test]
fn a_snapshot_that_takes_too_long_is_not_tried_again() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let calls = medusa.folder.path().join("calls");
    let snapshots = node.table_folders("shop", "t").remove(0).join("snapshots");
    let call = format!("echo call >> {}", calls.display());
    let begun = format!("for tag; do :; done; mkdir -p {}/$tag; sleep 1000", snapshots.display());
    for (name, then, timeout, count) in [("slow", begun.as_str(), "5", 1), ("unfit", "exit 0", "600", 2)] {
        medusa.set("cassandra", "snapshot_timeout", timeout);
        on_snapshot(&mut medusa, node, &format!("{call}\n{then}\n{QUICK_FLUSH}"));
        let run = medusa.run(&["backup-node", "--backup-name", name]);
        assert_not_done(node, &medusa, name, &run, &[]);
        assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), count, "{run}");
        fs::remove_file(&calls).unwrap();
    }
}

/// As where the node itself goes on with the snapshot of a nodetool that was killed.
#[test]
fn a_snapshot_that_is_in_the_way_is_taken_again_for_a_while() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let calls = medusa.folder.path().join("calls");
    for (name, good) in [("third", 3), ("never", 99)] {
        let enough = format!("[ $(wc -l < {calls}) -ge {good} ] && exit 0", calls = calls.display());
        let body = format!("echo call >> {}\n$REAL \"$@\" || exit 1\n{enough}\nexit 1", calls.display());
        on_snapshot(&mut medusa, node, &body);
        let run = medusa.run(&["backup-node", "--backup-name", name]);
        let count = fs::read_to_string(&calls).unwrap().lines().count();
        if name == "third" {
            let run = run.expect_code(0);
            // Once more where a table was created at the same time.
            assert!([3, 4].contains(&count), "{count}: {run}");
            medusa.ok(&["verify", "--backup-name", name]);
            assert_eq!(snapshots_of(node, name), BTreeSet::new());
        } else {
            assert_not_done(node, &medusa, name, &run, &[]);
            assert_eq!(count, 4, "{run}");
        }
        fs::remove_file(&calls).unwrap();
    }
}

/// Killed with its snapshot taken, and tables were created and dropped before it is gone on with.
#[test]
fn p2_the_schema_of_a_backup_that_goes_on_describes_its_tables_here_and_in_the_index() {
    let node = &*changing();
    for name in ["grown", "shrunk"] {
        let mut medusa = medusa(node);
        let keyspace = keyspace(name);
        load(&node.session(), &keyspace, 3);
        let (body, taken, go) = held_snapshot(&medusa);
        on_snapshot(&mut medusa, node, &body);
        let mut child = medusa.spawn(&["backup-node", "--backup-name", name]);
        wait_for("the snapshot", || taken.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        let change = if name == "grown" {
            format!("CREATE TABLE {keyspace}.later (id int PRIMARY KEY)\nINSERT INTO {keyspace}.later (id) VALUES (1)")
        } else {
            format!("DROP TABLE {keyspace}.t")
        };
        node.session().run(&change);
        fs::write(&go, "").unwrap();
        wrap_nodetool(&mut medusa, node, "exec $REAL \"$@\"\n");
        let run = medusa.ok(&["backup-node", "--backup-name", name]);
        assert!(run.stderr.contains("continues the backup"), "{run}");

        let meta = manifest(&medusa, &node.address, name).with_file_name("schema.cql");
        let index = medusa.bucket().join(format!("index/backup_index/{name}/schema_{}.cql", node.address));
        let schema = fs::read_to_string(&meta).unwrap();
        assert!(schema == fs::read_to_string(&index).unwrap(), "the index holds another schema: {run}");
        let internals = fs::read_to_string(meta.with_file_name("schema_internals.cql")).unwrap();
        let objects = manifest_objects(&manifest(&medusa, &node.address, name));
        let holds = |table: &str| objects.keys().any(|path| path.contains(&format!("/{keyspace}/{table}-")));
        for table in ["t", "later"].into_iter().filter(|table| holds(table)) {
            let create = format!("CREATE TABLE {keyspace}.{table} ");
            assert!(schema.contains(&create) && internals.contains(&create), "{create}is missing: {run}");
        }
        if name == "grown" {
            assert!(holds("t") && holds("later"), "the old snapshot was stored: {run}");
        }
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
    }
}

#[test]
fn a_backup_beside_another_one_waits_for_nothing_and_leaves_its_marker() {
    let (node, mut first) = (shop(), medusa(shop()));
    let mut second = medusa(node);
    let temporary = first.folder.path().to_owned();
    for medusa in [&mut first, &mut second] {
        medusa.env("TMPDIR", temporary.to_str().unwrap());
    }
    let marker = temporary.join("medusa_backup_in_progress");
    let (body, taken, go) = held_snapshot(&first);
    on_snapshot(&mut first, node, &body);
    let child = first.spawn(&["backup-node", "--backup-name", "slowly"]);
    wait_for("the snapshot", || taken.exists());
    assert!(marker.exists());
    // The node has a lease already.
    let refused = first.run(&["backup-node", "--backup-name", "refused"]);
    assert_fails(&refused, 1, &["slowly"]);
    assert!(marker.exists(), "the marker of the other run is gone");
    // Into another bucket.
    let run = second.ok(&["backup-node", "--backup-name", "beside"]);
    assert!(!run.stderr.contains("waiting for"), "{run}");
    fs::write(&go, "").unwrap();
    finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]).expect_code(0);
}

#[test]
fn p5_a_complete_backup_whose_snapshot_stays_says_both() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    let busy = node.table_folders("shop", "t").remove(0).join("snapshots/medusa-stays/.busy");
    let mount = add_to_snapshot(node, "mkdir .busy && mount -t tmpfs -o size=1m tmpfs .busy || exit 1");
    wrap_nodetool(
        &mut medusa,
        node,
        &format!("case \"$*\" in *' snapshot '*)\n{mount}\n;; *' clearsnapshot '*) exit 1;; esac\nexec $REAL \"$@\"\n"),
    );
    let arguments = ["backup-node", "--backup-name", "stays"];
    let run = medusa.run(&arguments);
    let unmounted = std::process::Command::new("umount").arg(&busy).status().unwrap();
    assert!(unmounted.success(), "{run}");
    assert_fails(
        &run,
        3,
        &["stays of", "is complete, but its snapshot could not be cleared", "clearsnapshot -t medusa-stays"],
    );
    assert!(run.stdout.contains("stays complete"), "{run}");
    assert!(listed(&medusa)["stays"]);
    assert_eq!(snapshots_of(node, "stays"), ["medusa-stays".to_owned()].into());

    wrap_nodetool(&mut medusa, node, "exec $REAL \"$@\"\n");
    assert_fails(&medusa.run(&arguments), 1, &["medusa-stays was left and is cleared now", "already exists"]);
    assert_eq!(snapshots_of(node, "stays"), BTreeSet::new());
}

#[test]
fn a_snapshot_that_a_coordinator_took_hours_ago_is_kept() {
    let (node, medusa) = (shop(), medusa(shop()));
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(3);
    let take = |name: &str| {
        let tag = format!("medusa-{name}");
        node.nodetool(&["snapshot", "-t", &tag]);
        for entry in walkdir::WalkDir::new(&node.data_directories()[0]).into_iter().flatten() {
            if entry.file_type().is_dir() && entry.file_name().to_str() == Some(&tag) {
                fs::File::open(entry.path()).unwrap().set_modified(old).unwrap();
            }
        }
    };
    take("alone");
    let run = medusa.ok(&["backup-node", "--backup-name", "alone"]);
    assert!(run.stderr.contains("medusa-alone is 3 h"), "{run}");

    take("common");
    let index = medusa.bucket().join("index/backup_index/common");
    fs::create_dir_all(&index).unwrap();
    let began = old.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 60;
    fs::write(index.join(format!("started_other.example_{began}.timestamp")), began.to_string()).unwrap();
    let run = medusa.ok(&["backup-node", "--backup-name", "common"]);
    assert!(run.stderr.contains("medusa-common was there"), "{run}");
    assert_eq!(snapshots_of(node, "common"), BTreeSet::new());
}

#[test]
fn storage_that_cannot_be_written_is_named() {
    let (node, medusa) = (shop(), medusa(shop()));
    fs::write(medusa.base_path(), "a file in the place of a folder").unwrap();
    let run = medusa.run(&["backup-node", "--backup-name", "nowhere"]);
    assert_not_done(node, &medusa, "nowhere", &run, &[medusa.base_path().to_str().unwrap()]);
}

#[test]
fn a_wrong_cassandra_yaml_is_named() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    medusa.set("cassandra", "config_file", "/no/such/cassandra.yaml");
    let run = medusa.run(&["backup-node", "--backup-name", "yaml"]);
    assert_fails(&run, 2, &["/no/such/cassandra.yaml", "config_file"]);

    let real = fs::read_to_string(node.yaml()).unwrap();
    let yaml = medusa.folder.path().join("cassandra.yaml");
    let data = node.data_directories()[0].display().to_string();
    fs::write(&yaml, real.replace(&data, "/no/such/data")).unwrap();
    medusa.set("cassandra", "config_file", yaml.to_str().unwrap());
    let run = medusa.run(&["backup-node", "--backup-name", "yaml"]);
    assert_not_done(node, &medusa, "yaml", &run, &["/no/such/data does not exist", yaml.to_str().unwrap()]);

    // A folder that is there and is not the node's.
    let other = medusa.folder.path().join("data");
    fs::create_dir(&other).unwrap();
    fs::write(&yaml, real.replace(&data, other.to_str().unwrap())).unwrap();
    let run = medusa.run(&["backup-node", "--backup-name", "yaml"]);
    assert_fails(&run, 1, &["the snapshot medusa-yaml is empty", "config_file"]);
    assert_eq!(snapshots_of(node, "yaml"), BTreeSet::new(), "{run}");
}

#[test]
fn names_that_would_harm_are_refused_before_anything_is_touched() {
    let (node, medusa) = (shop(), medusa(shop()));
    for name in ["../up", "a/b", "", ".", "..", "a b\nc"] {
        let run = medusa.run(&["backup-node", &format!("--backup-name={name}")]);
        assert_fails(&run, 2, &["backup name"]);
    }
    assert!(!medusa.bucket().exists());
    medusa.ok(&["backup-node", "--backup-name", "week-10"]);
    let before = crate::lab::tree(&medusa.bucket());
    let run = medusa.run(&["backup-node", "--backup-name", "week-1"]);
    assert_fails(&run, 2, &["week-1", "week-10"]);
    let run = medusa.run(&["backup-node", "--backup-name", "week-10"]);
    assert_fails(&run, 1, &["already exists", "delete-backup"]);
    assert_eq!(crate::lab::tree(&medusa.bucket()), before);
    assert_eq!(snapshots_of(node, "week-1"), BTreeSet::new());
}

#[test]
fn an_unfinished_backup_is_not_continued_in_another_mode() {
    let (node, mut medusa) = (shop(), medusa(shop()));
    on_snapshot(&mut medusa, node, "exit 1");
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "modes"]), 1, &["nodetool snapshot failed"]);
    wrap_nodetool(&mut medusa, node, "exec $REAL \"$@\"\n");
    let run = medusa.run(&["backup-node", "--backup-name", "modes", "--mode", "full"]);
    assert_fails(&run, 1, &["was begun in differential mode", "--mode differential"]);
    medusa.ok(&["backup-node", "--backup-name", "modes"]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let (node, medusa) = (shop(), medusa(shop()));
    let run = medusa.ok(&["backup-node", "--backup-name", "dry", "--dry-run"]);
    assert!(run.stdout.contains("nothing has been written yet"), "{run}");
    assert!(!medusa.bucket().exists());
    assert_eq!(snapshots_of(node, "dry"), BTreeSet::new());
}

#[test]
fn snapshots_are_kept_or_taken_over_on_request() {
    let (node, medusa) = (shop(), medusa(shop()));
    medusa.ok(&["backup-node", "--backup-name", "keep", "--keep-snapshot"]);
    assert_eq!(snapshots_of(node, "keep"), ["medusa-keep".to_owned()].into());
    node.nodetool(&["clearsnapshot", "-t", "medusa-keep"]);

    let arguments = ["backup-node", "--backup-name", "given", "--use-existing-snapshot"];
    assert_fails(&medusa.run(&arguments), 1, &["there is no snapshot given", "nodetool snapshot -t given"]);
    let folder = snapshot_by_hand(node, "shop", "given");
    let names: BTreeSet<_> = crate::lab::tree(&folder).into_keys().collect();
    medusa.ok(&arguments);
    assert!(!folder.exists());
    let objects = manifest_objects(&manifest(&medusa, &node.address, "given"));
    let stored = objects.keys().filter(|path| path.contains("/shop/")).map(|path| {
        let (_, below) = path.split_once("/shop/").unwrap();
        below.split_once('/').unwrap().1.to_owned()
    });
    let names = names.into_iter().filter(|name| name != "manifest.json" && name != "schema.cql");
    assert_eq!(stored.collect::<BTreeSet<_>>(), names.collect::<BTreeSet<_>>());
}

#[test]
fn p3_a_name_that_is_used_again_for_other_content_gets_a_key_of_its_own() {
    let (node, medusa) = (shop(), medusa(shop()));
    let contents: [&[u8]; 3] = [b"first content", b"other content", b"third content"];
    for (number, content) in (1..).zip(contents) {
        let name = format!("gen{number}");
        let folder = snapshot_by_hand(node, "names", &name);
        fs::write(folder.join("nb-700-big-TOC.txt"), content).unwrap();
        medusa.ok(&["backup-node", "--backup-name", &name, "--use-existing-snapshot"]);
    }
    for (number, content) in (1..).zip(contents) {
        let name = format!("gen{number}");
        let file = object_file(&medusa, &node.address, &name, "names", "nb-700-big-TOC.txt");
        assert_eq!(fs::read(&file).unwrap(), content, "{}", file.display());
        for check in
            [&["verify", "--backup-name", &name][..], &["verify", "--enable-md5-checks", "--backup-name", &name]]
        {
            medusa.ok(check);
            medusa.peer_ok(check);
        }
    }
}

#[test]
fn p1_equal_size_and_time_are_seen_through_when_contents_are_compared() {
    let (node, medusa) = (shop(), medusa(shop()));
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for (name, content) in [("time1", b"aaaa"), ("time2", b"bbbb")] {
        let folder = snapshot_by_hand(node, "times", name);
        let path = folder.join("nb-701-big-TOC.txt");
        fs::write(&path, content).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        medusa.ok(&["backup-node", "--backup-name", name, "--use-existing-snapshot", "--enable-md5-checks"]);
        let stored = object_file(&medusa, &node.address, name, "times", "nb-701-big-TOC.txt");
        assert_eq!(fs::read(stored).unwrap(), content);
    }
}

#[test]
fn a_second_backup_moves_only_what_is_new() {
    let (node, medusa) = (shop(), medusa(shop()));
    let backup = |name: &str| {
        snapshot_by_hand(node, "again", name);
        medusa.ok(&["backup-node", "--backup-name", name, "--use-existing-snapshot", "--output", "json"]).json()
    };
    let first = backup("one");
    assert!(first["uploaded_files"].as_u64() > Some(0), "{first}");
    let second = backup("two");
    assert_eq!((&second["uploaded_files"], &second["kept_files"]), (&0.into(), &first["files"]), "{second}");
    // An object that was lost is stored again, whatever the manifests say.
    fs::remove_file(object_file(&medusa, &node.address, "two", "again", "-Data.db")).unwrap();
    let third = backup("three");
    assert_eq!(third["uploaded_files"], 1, "{third}");
    medusa.ok(&["verify", "--backup-name", "one", "--enable-md5-checks"]);
}

#[test]
fn a_start_command_is_not_needed_to_back_up() {
    let (_, mut medusa) = (shop(), medusa(shop()));
    let failing = program(&medusa, "fails", "exit 1\n");
    medusa.set("cassandra", "start_cmd", &failing);
    medusa.set("cassandra", "stop_cmd", &failing);
    medusa.ok(&["backup", "--backup-name", "alias"]);
    assert!(listed(&medusa)["alias"]);
}

/// What is left of a finished backup may be put together again.
#[test]
fn p3_a_damaged_backup_is_not_taken_for_the_beginning_of_a_new_one() {
    let node = shop();
    for mode in ["full", "differential"] {
        let medusa = medusa(node);
        let backup = ["backup-node", "--backup-name", "b1", "--mode", mode];
        medusa.ok(&backup);
        let meta = manifest(&medusa, &node.address, "b1").with_file_name("");
        for (lost, message) in
            [("schema.cql", "has lost its schema.cql"), ("manifest.json", "manifest.json is missing")]
        {
            let aside = medusa.folder.path().join(lost);
            fs::rename(meta.join(lost), &aside).unwrap();
            let before = tree(&medusa.bucket());
            assert_fails(&medusa.run(&backup), 1, &[message, "delete-backup --backup-name b1"]);
            assert_eq!(tree(&medusa.bucket()), before, "{mode}, {lost}");
            fs::rename(&aside, meta.join(lost)).unwrap();
        }
        medusa.ok(&["verify", "--backup-name", "b1", "--read-data"]);
    }
}
