//! A restore changes nothing on the node before it knows that it will work, and whatever fails later, the node has its data
//! afterwards.

use std::fs;

use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Options, Release};
use crate::support::{
    OwnMount, Shared, State, assert_fails, copy_bucket, edit, insert, interrupt, left_by_restores, manifest,
    manifest_objects, medusa, node, object_file, program, wait_for, wrap_nodetool,
};

/// A node with a backup `b1`, and with newer rows in other files since.
struct Lab {
    node: Node,
    backup: Medusa,
}

fn lab(test: impl FnOnce(&Lab)) {
    static LAB: Shared<Lab> = Shared::new();
    let make = || {
        let node = node(Release::V5_0);
        let backup = medusa(&node);
        let session = node.session();
        // No index: its file would be the same before and after.
        session.run(
            "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}
             CREATE TABLE shop.t (id int PRIMARY KEY, v text)",
        );
        insert(&session, "shop", 0..50);
        backup.ok(&["backup-node", "--backup-name", "b1"]);
        insert(&session, "shop", 50..80);
        node.nodetool(&["flush", "shop"]);
        node.nodetool(&["compact", "shop"]);
        // Otherwise a restore would link files instead of fetching them.
        let backed_up = object_file(&backup, &node.address, "b1", "/shop/", "-Data.db");
        let same = node.table_folders("shop", "t").remove(0).join(backed_up.file_name().unwrap());
        wait_for("the end of the old SSTable", || !same.exists());
        Lab { node, backup }
    };
    LAB.with(make, |lab| {
        if !lab.node.is_up() {
            lab.node.kill();
            lab.node.boot();
        }
        for left in left_by_restores(&lab.node) {
            fs::remove_dir_all(left).unwrap();
        }
        test(lab);
    });
}

impl Lab {
    /// A copy of the repository that may be damaged.
    fn copy(&self) -> Medusa {
        let copy = medusa(&self.node);
        copy_bucket(&self.backup, &copy);
        copy
    }

    fn state(&self) -> State {
        State::of(&self.node, &self.node.session(), &["shop"])
    }

    /// A file of the backup.
    fn stored(&self, medusa: &Medusa, end: &str) -> std::path::PathBuf {
        object_file(medusa, &self.node.address, "b1", "/shop/", end)
    }

    fn meta(&self, medusa: &Medusa, name: &str) -> std::path::PathBuf {
        manifest(medusa, &self.node.address, "b1").with_file_name(name)
    }

    /// The restore fails, and the running Cassandra and its files are the same as before.
    fn refused(&self, medusa: &Medusa, arguments: &[&str], code: i32, parts: &[&str]) {
        let before = self.state();
        let run = medusa.run(&[&["restore-node"], arguments].concat());
        assert_fails(&run, code, parts);
        assert_eq!(self.state(), before, "{run}");
        assert_eq!(left_by_restores(&self.node), [].into(), "{run}");
    }
}

const B1: [&str; 2] = ["--backup-name", "b1"];

#[test]
fn p4_missing_and_short_objects_are_found_before_anything_is_touched() {
    lab(|lab| {
        let medusa = lab.copy();
        let (gone, short) = (lab.stored(&medusa, "-Data.db"), lab.stored(&medusa, "-Index.db"));
        fs::remove_file(&gone).unwrap();
        let bytes = fs::read(&short).unwrap();
        fs::write(&short, &bytes[1..]).unwrap();
        let name = |path: &std::path::Path| path.strip_prefix(medusa.bucket()).unwrap().display().to_string();
        let (gone, short) = (name(&gone), name(&short));
        let problems = [
            format!("{gone} is missing"),
            format!("{short} has {} bytes, should have {}", bytes.len() - 1, bytes.len()),
            format!("backup b1 of {} is damaged: 2 objects", lab.node.address),
            "hint: restore another backup, or only tables that are not damaged: --table".to_owned(),
        ];
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        lab.refused(&medusa, &B1, 1, &problems);
        lab.refused(&medusa, &[&B1[..], &["--dry-run"]].concat(), 1, &problems);
        lab.refused(&medusa, &[&B1[..], &["--keyspace", "shop"]].concat(), 1, &problems);
    });
}

#[test]
fn p4_metadata_that_cannot_be_used_is_found_before_anything_is_touched() {
    lab(|lab| {
        let medusa = lab.copy();
        let path = lab.meta(&medusa, "manifest.json");
        let good = fs::read_to_string(&path).unwrap();
        let key = path.strip_prefix(medusa.bucket()).unwrap().display().to_string();
        for garbage in ["", "no json", &good[..good.len() / 2], "{}", "[{\"keyspace\": 1}]"] {
            fs::write(&path, garbage).unwrap();
            lab.refused(&medusa, &B1, 1, &[&key, "hint: "]);
        }
        let elsewhere = good.replacen(&lab.node.address, "../..", 1);
        fs::write(&path, elsewhere).unwrap();
        lab.refused(&medusa, &B1, 1, &[&format!("{key} cannot be used"), "../..", "hint: "]);
        fs::remove_file(&path).unwrap();
        lab.refused(&medusa, &B1, 1, &["was begun, but not finished", "hint: restore another one"]);
        fs::write(&path, &good).unwrap();
        let tokens = lab.meta(&medusa, "tokenmap.json");
        fs::write(&tokens, "[]").unwrap();
        lab.refused(&medusa, &B1, 1, &["tokenmap.json", "hint: "]);
    });
}

#[test]
fn p4_names_that_do_not_exist_are_refused_with_those_that_do() {
    lab(|lab| {
        let (medusa, node) = (&lab.backup, &lab.node.address);
        let hint = "hint: did you mean b1? medusa list-backups --show-all lists them";
        lab.refused(medusa, &["--backup-name", "b2"], 1, &[&format!("there is no backup b2 of {node} in"), hint]);
        let elsewhere = [&B1[..], &["--fqdn", "node9"]].concat();
        let hint = format!("hint: b1 is a backup of {node}; --fqdn says of which node");
        lab.refused(medusa, &elsewhere, 1, &["there is no backup b1 of node9 in", &hint]);
        for (filter, message, hint) in [
            (["--keyspace", "shopp"], "the backup holds no keyspace \"shopp\"", "did you mean shop?"),
            (["--table", "shop.tt"], "the backup holds no table \"shop.tt\"", "did you mean shop.t?"),
            (["--table", "t"], "table \"t\" has no keyspace", "--table takes keyspace.table"),
            (["--keyspace", "system"], "system is a system keyspace", "--with-system"),
        ] {
            lab.refused(medusa, &[&B1[..], &filter].concat(), 2, &[message, hint]);
        }
        // One good name does not make up for a bad one.
        lab.refused(medusa, &[&B1[..], &["--keyspace", "shop", "--table", "shop.u"]].concat(), 2, &["shop.u"]);
    });
}

#[test]
fn p4_a_backup_that_does_not_match_the_node_is_refused() {
    lab(|lab| {
        let medusa = lab.copy();
        let tokens = lab.node.session().query("SELECT tokens FROM system.local")[0][0].clone();
        let token = tokens.split('"').nth(1).unwrap();
        edit(&lab.meta(&medusa, "tokenmap.json"), |text| text.replace(token, "4711"));
        let not_this = format!("this node is not {}: it owns other tokens", lab.node.address);
        lab.refused(&medusa, &B1, 1, &[&not_this, "hint: --remote"]);
        lab.refused(&medusa, &[&B1[..], &["--keyspace", "shop"]].concat(), 1, &[&not_this]);

        let medusa = lab.copy();
        edit(&lab.meta(&medusa, "server_version.json"), |text| text.replace("5.0.9", "6.1.0"));
        let too_new = "this node runs Cassandra 5.0.9, which cannot read what 6.1.0 wrote";
        lab.refused(&medusa, &B1, 1, &[too_new, "hint: install the newer release first"]);

        let medusa = lab.copy();
        edit(&lab.meta(&medusa, "manifest.json"), |text| text.replace("/nb-", "/la-"));
        let too_old = "this node runs Cassandra 5.0.9, which cannot read ";
        let more = ["SSTables that 2.2 or an older release wrote", "/la-", "nodetool upgradesstables there"];
        lab.refused(&medusa, &B1, 1, &[&[too_old], &more[..]].concat());
        lab.refused(&medusa, &[&B1[..], &["--table", "shop.t"]].concat(), 1, &[too_old, "/la-"]);

        let both = [&B1[..], &["--keep-auth"]].concat();
        lab.refused(&lab.backup, &both, 1, &["system_auth cannot be kept", "hint: --keep-auth goes with --remote"]);
    });
}

/// On a new machine nobody answers; what is installed there can be told even so.
#[test]
fn p4_an_installed_release_that_cannot_read_the_backup_is_refused() {
    lab(|lab| {
        let down = Node::prepare(Options::new(Release::V5_0));
        let mut medusa = medusa(&down);
        copy_bucket(&lab.backup, &medusa);
        medusa.set("storage", "fqdn", &lab.node.address);
        let home = medusa.folder.path().join("home");
        for folder in ["conf", "lib"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        fs::copy(down.yaml(), home.join("conf/cassandra.yaml")).unwrap();
        medusa.set("cassandra", "config_file", &home.join("conf/cassandra.yaml").display().to_string());
        let jar = |number: &str| home.join(format!("lib/apache-cassandra-{number}.jar"));
        fs::write(jar("4.1.10"), "").unwrap();
        let remote = [&["restore-node"], &B1[..], &["--remote"]].concat();
        let told = [
            &format!("what is installed is {}", jar("4.1.10").display()),
            "this node runs Cassandra 4.1.10, which cannot read what 5.0.9 wrote",
            "hint: install the newer release first",
            "--version-target",
        ];
        assert_fails(&medusa.run(&remote), 1, &told);
        assert_eq!(fs::read_dir(down.path("data")).unwrap().count(), 0);
        let installed = |more: &[&str]| {
            let plan = medusa.run(&[&remote[..], &["--dry-run", "--output", "json"], more].concat());
            plan.expect_code(0).json()["installed"].clone()
        };
        assert_eq!(installed(&["--version-target", "5.0.9"]), serde_json::Value::Null);
        fs::rename(jar("4.1.10"), jar("5.0.9")).unwrap();
        assert_eq!(installed(&[]), "5.0.9");
    });
}

#[test]
fn p4_a_backup_that_does_not_fit_the_disk_is_refused() {
    lab(|lab| {
        const SIZE: u64 = 8 << 40;
        let medusa = lab.copy();
        let path = lab.stored(&medusa, "-Data.db");
        let size = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
        resize(lab, &medusa, &path, size, SIZE);
        let data = lab.node.path("data").display().to_string();
        lab.refused(&medusa, &B1, 1, &["not enough space: 8.0 TiB", &data, "are free", "hint: "]);
        lab.refused(&medusa, &[&B1[..], &["--keyspace", "shop"]].concat(), 1, &["not enough space: 8.0 TiB"]);
    });
}

/// Renames would fail there with Cassandra down, though it is the same disk.
#[test]
fn p4_a_keyspace_in_a_mount_of_its_own_is_refused() {
    lab(|lab| {
        let keyspace = lab.node.data_directories()[0].join("shop");
        let mounted = OwnMount::over(&keyspace);
        let told = format!("{} is in another mount than", keyspace.display());
        let parts = ["folders of tables cannot be swapped by renaming them", &told, "hint: nothing was changed"];
        lab.refused(&lab.backup, &B1, 1, &parts);
        lab.refused(&lab.backup, &[&B1[..], &["--table", "shop.t"]].concat(), 1, &parts);
        drop(mounted);
        lab.backup.ok(&["restore-node", "--backup-name", "b1", "--table", "shop.t", "--dry-run"]);
    });
}

/// Writes another size for an object into the manifest.
fn resize(lab: &Lab, medusa: &Medusa, path: &std::path::Path, from: u64, to: u64) {
    let key = path.strip_prefix(medusa.bucket()).unwrap().display().to_string();
    edit(&lab.meta(medusa, "manifest.json"), |text| {
        let at = text.find(&key).unwrap();
        let (head, tail) = text.split_at(at);
        head.to_owned() + &tail.replacen(&format!("\"size\": {from}"), &format!("\"size\": {to}"), 1)
    });
    assert_eq!(manifest_objects(&lab.meta(medusa, "manifest.json"))[&key]["size"], to);
}

#[test]
fn p4_a_dry_run_changes_nothing() {
    lab(|lab| {
        let before = lab.state();
        let run = lab.backup.ok(&["restore-node", "--backup-name", "b1", "--dry-run"]);
        for part in ["restore b1 in place", "nothing has been changed", "stop Cassandra", "to download"] {
            assert!(run.stdout.contains(part), "{part:?} is not in {run}");
        }
        let arguments = ["restore-node", "--backup-name", "b1", "--table", "shop.t", "--dry-run", "--output", "json"];
        let plan = lab.backup.ok(&arguments).json();
        assert_eq!(
            (&plan["dry_run"], &plan["drain"], plan["tables"].as_array().unwrap().len()),
            (&true.into(), &true.into(), 1)
        );
        assert!(plan["bytes"].as_u64() > plan["local_bytes"].as_u64(), "{plan}");
        assert_eq!(lab.state(), before);
        assert_eq!(left_by_restores(&lab.node), [].into());
    });
}

#[test]
fn p4_a_changed_byte_is_found_before_cassandra_is_stopped() {
    lab(|lab| {
        let medusa = lab.copy();
        let path = lab.stored(&medusa, "-Data.db");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let key = path.strip_prefix(medusa.bucket()).unwrap().display().to_string();
        for filter in [&[][..], &["--table", "shop.t"]] {
            let before = lab.state();
            let run = medusa.run(&[&["restore-node", "--backup-name", "b1"], filter].concat());
            let folder = lab.node.path("data/.medusa-restore-b1");
            let stays = format!("files that were brought stay in {}", folder.display());
            let parts =
                ["backup b1 is damaged: 1 object", &key, "SHA-256", "nothing was changed", &stays, "another backup"];
            assert_fails(&run, 1, &parts);
            assert_eq!(lab.state(), before, "{run}");
            let staged: Vec<_> =
                walkdir::WalkDir::new(&folder).into_iter().flatten().map(walkdir::DirEntry::into_path).collect();
            let damaged = path.file_name().unwrap();
            assert!(
                !staged
                    .iter()
                    .any(|staged| staged.ends_with(damaged) && staged.display().to_string().contains("/shop/")),
                "{staged:?}"
            );
        }
    });
}

#[test]
fn p4_a_signal_while_files_are_fetched_changes_nothing() {
    lab(|lab| {
        const SIZE: u64 = 6 << 30;
        let medusa = lab.copy();
        let path = lab.stored(&medusa, "-Data.db");
        let size = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
        resize(lab, &medusa, &path, size, SIZE);
        let before = lab.state();
        let arguments = ["restore-node", "--backup-name", "b1", "--table", "shop.t"];
        let child = medusa.spawn(&arguments);
        let folder = lab.node.path("data/.medusa-restore-b1");
        let being_fetched = || {
            let parts = walkdir::WalkDir::new(&folder).into_iter().flatten();
            parts.filter(|entry| entry.file_name().to_str().unwrap().ends_with(".medusa-part")).count() > 0
        };
        wait_for("the beginning of the download", being_fetched);
        let run = interrupt(child, &arguments);
        let stays = format!("nothing was changed; files that were brought stay in {}", folder.display());
        assert_fails(&run, 143, &["interrupted by SIGTERM", &stays]);
        assert_eq!(lab.state(), before, "{run}");
    });
}

#[test]
fn p4_cassandra_that_does_not_stop_keeps_its_files() {
    lab(|lab| {
        let mut medusa = lab.copy();
        let ignores = program(&medusa, "ignores", "exit 0\n");
        let fails = program(&medusa, "fails", "echo 'Unit cassandra.service not found.' >&2\nexit 5\n");
        for (command, timeout, said) in
            [(ignores, "1", "still up after"), (fails, "600", "Unit cassandra.service not found.")]
        {
            medusa.set("cassandra", "stop_cmd", &command);
            medusa.set("cassandra", "stop_timeout", timeout);
            let before = lab.state();
            let run = medusa.run(&["restore-node", "--backup-name", "b1"]);
            let parts = [
                "nothing was changed: Cassandra could not be stopped",
                said,
                &command,
                "hint: stop_cmd in [cassandra]",
            ];
            assert_fails(&run, 1, &parts);
            assert_eq!(lab.state(), before, "{run}");
        }
    });
}

/// Cassandra must write what is in its commit log only, before single tables are swapped.
#[test]
fn p4_single_tables_are_not_swapped_if_cassandra_does_not_flush_or_stop() {
    lab(|lab| {
        let mut medusa = lab.copy();
        wrap_nodetool(
            &mut medusa,
            &lab.node,
            "case \"$*\" in *drain*) echo 'no space left' >&2; exit 2 ;; esac\nexec $REAL \"$@\"\n",
        );
        let before = lab.state();
        let arguments = ["restore-node", "--backup-name", "b1", "--table", "shop.t"];
        let run = medusa.run(&arguments);
        assert_fails(&run, 1, &["nothing was changed", "nodetool drain failed", "no space left"]);
        assert_eq!(lab.state(), before, "{run}");

        // stop_timeout is minutes: a failure is told at once.
        let mut medusa = lab.copy();
        let fails = program(&medusa, "fails", "echo 'Unit cassandra.service not found.' >&2\nexit 5\n");
        medusa.set("cassandra", "stop_cmd", &fails);
        medusa.set("cassandra", "stop_timeout", "100000");
        let run = medusa.run(&arguments);
        let drained = "it was drained and serves no clients until it is restarted";
        assert_fails(&run, 1, &["Cassandra could not be stopped", drained, "Unit cassandra.service not found."]);
        lab.node.stop();
        lab.node.boot();
        assert_eq!(lab.state().rows, before.rows, "{run}");
    });
}

#[test]
fn p4_the_old_data_is_back_if_cassandra_cannot_be_started() {
    lab(|lab| {
        let mut medusa = lab.copy();
        let session = lab.node.session();
        insert(&session, "shop", 100..110);
        let before = lab.state();
        let fails = program(&medusa, "fails", "echo 'no Java here' >&2\nexit 3\n");
        medusa.set("cassandra", "start_cmd", &fails);
        let run = medusa.run(&["restore-node", "--backup-name", "b1"]);
        let parts = [
            "the restore failed; the previous data is back, but Cassandra could not be started with it",
            &fails,
            "no Java here",
            "hint: start_cmd in [cassandra]",
        ];
        assert_fails(&run, 1, &parts);
        assert!(!lab.node.is_up());
        lab.node.boot();
        assert_eq!(lab.state().rows, before.rows, "{run}");

        let real = lab.node.program("start");
        let once = medusa.folder.path().join("once");
        let body = format!(
            "[ -e {once} ] && exec {real}\ntouch {once}\necho 'no Java yet' >&2\nexit 3\n",
            once = once.display(),
            real = real.display()
        );
        medusa.set("cassandra", "start_cmd", &program(&medusa, "fails-once", &body));
        let run = medusa.run(&["restore-node", "--backup-name", "b1"]);
        let back = "the restore failed; the previous data is back and Cassandra was started with it";
        assert_fails(&run, 1, &[back, "no Java yet", "hint: start_cmd in [cassandra]"]);
        let after = lab.state();
        assert_eq!((after.rows, after.yaml), (before.rows, before.yaml), "{run}");
        assert_eq!(lab.node.snapshots(), [].into());
    });
}
