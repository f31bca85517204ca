//! Hooks: when they run, what they are told, and what becomes of the command if one fails.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::lab::medusa::{Medusa, finish};
use crate::lab::node::{Node, Options, Release};
use crate::made::{self, object};
use crate::support::{assert_fails, hold, medusa, node, program, shared_node, signal, wait_for, wrap_nodetool};

const HOOKS: [&str; 4] = ["before_backup", "after_backup", "on_failure", "after_restore"];

/// Every hook writes down what it was told, in order, and what is in its environment.
struct Recorder {
    events: PathBuf,
    environment: PathBuf,
}

impl Recorder {
    fn install(medusa: &mut Medusa) -> Self {
        let folder = medusa.folder.path();
        let recorder = Self { events: folder.join("events"), environment: folder.join("environment") };
        let body = format!("cat >>{}\nenv >>{}\n", recorder.events.display(), recorder.environment.display());
        let path = program(medusa, "recorder", &body);
        for hook in HOOKS {
            medusa.set("hooks", hook, &format!("{path} 'an argument'"));
        }
        recorder
    }

    /// Those since the last call.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.events).unwrap_or_default();
        let _ = std::fs::remove_file(&self.events);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Sets a hook to a shell script.
fn script(medusa: &mut Medusa, hook: &str, body: &str) {
    let path = program(medusa, hook, body);
    medusa.set("hooks", hook, &path);
}

/// A bucket with one backup.
fn bucket() -> Medusa {
    let medusa = made::medusa();
    made::backup(&medusa.bucket(), "127.0.0.1", "b1", &["127.0.0.1"], &[object("127.0.0.1", "nb-1-big-Data.db", "x")]);
    medusa
}

#[test]
fn a_backup_and_a_restore_call_their_hooks_in_order_with_their_results() {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    let recorder = Recorder::install(&mut medusa);
    let result = medusa.ok(&["backup-node", "--backup-name", "b1", "--mode", "full", "--output", "json"]).json();
    let before = json!({ "version": 1, "event": "before_backup", "name": "b1", "fqdn": node.address, "mode": "full" });
    let after = json!({ "version": 1, "event": "after_backup", "result": result });
    assert_eq!(recorder.events(), [before, after]);

    let failed = medusa.run(&["backup-node", "--backup-name", "b1", "--mode", "full"]).expect_code(1);
    let events = recorder.events();
    assert_eq!(events.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["before_backup", "on_failure"]);
    assert_eq!((&events[1]["command"], &events[1]["exit_code"]), (&"backup-node".into(), &1.into()), "{failed}");

    let result = medusa.ok(&["restore-node", "--backup-name", "b1", "--output", "json"]).json();
    assert_eq!(recorder.events(), [json!({ "version": 1, "event": "after_restore", "result": result })]);

    medusa.set("hooks", "required", "True");
    script(&mut medusa, "after_restore", "exit 4\n");
    let run = medusa.run(&["restore-node", "--backup-name", "b1"]);
    assert_fails(&run, 1, &["backup b1 is restored, and the hook after it failed", "after_restore", "exit status: 4"]);
    assert_eq!(recorder.events()[0]["error"], "backup b1 is restored, and the hook after it failed");
    drop(node.session());
}

#[test]
fn a_required_hook_that_fails_stops_a_backup_before_anything_is_touched() {
    let node = Node::prepare(Options::new(Release::V5_0));
    let mut medusa = medusa(&node);
    medusa.set("hooks", "required", "True");
    script(&mut medusa, "before_backup", "echo first >&2\necho the array is busy >&2\nexit 7\n");
    wrap_nodetool(&mut medusa, &node, "touch called\nexit 1\n");
    let arguments = ["backup-node", "--backup-name", "b1"];
    let run = medusa.run(&arguments);
    let parts =
        ["error: backup b1 was not begun: its hook failed", "exit status: 7): the array is busy", "required = False"];
    assert_fails(&run, 1, &parts);
    assert!(run.stdout.is_empty() && !medusa.bucket().exists(), "{run}");
    assert!(!medusa.folder.path().join("called").exists());

    // Otherwise the backup goes on, as far as it comes without Cassandra.
    medusa.set("hooks", "required", "False");
    let run = medusa.run(&arguments).expect_code(1);
    assert!(run.stderr.contains("WARNING: the hook before_backup of [hooks] failed: "), "{run}");
    assert!(!run.stderr.contains("was not begun"), "{run}");
}

#[test]
fn the_failure_of_a_hook_after_a_backup_is_a_warning_or_exit_1() {
    let node = shared_node();
    let mut medusa = medusa(node);
    script(&mut medusa, "after_backup", "echo no mail today\nexit 1\n");
    let run = medusa.ok(&["backup-node", "--backup-name", "hooks-warned"]);
    assert!(
        run.stderr.contains("the hook after_backup of [hooks] failed") && run.stderr.contains("no mail today"),
        "{run}"
    );
    medusa.set("hooks", "required", "True");
    let run = medusa.run(&["backup-node", "--backup-name", "hooks-required"]);
    assert_fails(&run, 1, &["error: backup hooks-required is complete, and the hook after it failed", "no mail today"]);
    assert!(run.stdout.contains("hooks-required complete on"), "{run}");
    medusa.ok(&["verify", "--backup-name", "hooks-required"]);
}

#[test]
fn a_hook_that_does_not_end_is_killed() {
    let mut medusa = bucket();
    medusa.set("hooks", "timeout", "5");
    let pid = medusa.folder.path().join("pid");
    script(&mut medusa, "on_failure", &format!("echo $$ >{}\nexec sleep 600\n", pid.display()));
    let run = medusa.run(&["delete-backup", "--backup-name", "none"]).expect_code(1);
    assert!(run.stderr.contains("on_failure did not end within 5 s and was killed"), "{run}");
    let pid = std::fs::read_to_string(pid).unwrap();
    wait_for("the end of the hook", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_hook_that_cannot_be_started_or_does_not_read_changes_nothing() {
    let mut medusa = bucket();
    medusa.set("hooks", "on_failure", "/no/such/program");
    let run = medusa.run(&["delete-backup", "--backup-name", "none"]);
    assert_fails(
        &run,
        1,
        &["the hook on_failure of [hooks] failed: could not start /no/such/program", "there is no backup none"],
    );
    medusa.set("hooks", "on_failure", "/bin/true");
    let run = medusa.run(&["delete-backup", "--backup-name", "none"]).expect_code(1);
    assert!(!run.stderr.contains("WARNING"), "{run}");
}

#[test]
fn commands_that_write_tell_their_failures_and_others_do_not() {
    let mut medusa = bucket();
    let recorder = Recorder::install(&mut medusa);
    let run = medusa.run(&["delete-backup", "--backup-name", "none"]).expect_code(1);
    let event = json!({
        "version": 1,
        "event": "on_failure",
        "command": "delete-backup",
        "error": format!("there is no backup none in {}", medusa.bucket().display()),
        "causes": [],
        "details": [],
        "hint": "medusa list-backups --show-all lists them",
        "exit_code": 1,
    });
    assert_eq!(recorder.events(), [event], "{run}");

    // Damage keeps purge and build-index from their work.
    std::fs::write(medusa.bucket().join("127.0.0.1/b1/meta/manifest.json"), "[").unwrap();
    for command in ["purge", "build-index"] {
        medusa.run(&[command]).expect_code(3);
        let event = recorder.events().remove(0);
        assert_eq!((&event["command"], &event["exit_code"]), (&command.into(), &3.into()));
        assert!(!event["details"].as_array().unwrap().is_empty(), "{event}");
    }
    // What keeps a command from beginning its work is a failure too.
    medusa.set("cassandra", "config_file", "/no/such/cassandra.yaml");
    for command in [&["backup-node"][..], &["restore-node", "--backup-name", "b1"], &["purge-decommissioned"]] {
        medusa.run(command).expect_code(2);
        let event = recorder.events().remove(0);
        assert_eq!(event["command"], command[0]);
        assert!(event.to_string().contains("/no/such/cassandra.yaml"), "{event}");
    }
    medusa.set("storage", "storage_provider", "carrier_pigeon");
    medusa.run(&["purge"]).expect_code(2);
    assert_eq!(recorder.events()[0]["exit_code"], 2);
    medusa.set("storage", "storage_provider", "local");

    for command in [&["status", "--backup-name", "none"][..], &["verify", "--backup-name", "none"]] {
        medusa.run(command).expect_code(1);
    }
    for command in [
        &["delete-backup", "--backup-name", "none", "--dry-run"][..],
        &["purge", "--dry-run"],
        &["build-index", "--noop"],
        &["backup-node", "--dry-run"],
        &["restore-node", "--backup-name", "b1", "--dry-run"],
    ] {
        assert_ne!(medusa.run(command).code, 0, "{command:?}");
    }
    assert_eq!(recorder.events(), [Value::Null; 0]);
}

#[test]
fn an_interrupted_backup_is_told_as_a_failure() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let recorder = Recorder::install(&mut medusa);
    let (wait, begun, go) = hold(&medusa);
    wrap_nodetool(&mut medusa, node, &format!("case \"$*\" in *' snapshot '*) {wait} ;; esac\nexec $REAL \"$@\"\n"));
    let child = medusa.spawn(&["backup-node", "--backup-name", "hooks-interrupted"]);
    wait_for("nodetool", || begun.exists());
    signal(&child, "TERM");
    std::fs::write(&go, "").unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
    assert_fails(&run, 143, &["interrupted by SIGTERM"]);
    let events = recorder.events();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[1]["event"], &events[1]["exit_code"]), (&"on_failure".into(), &143.into()));
}

#[test]
fn p7_hooks_are_told_no_secret() {
    const MARK: &str = "s3cr3t";
    let node = shared_node();
    let mut medusa = medusa(node);
    let recorder = Recorder::install(&mut medusa);
    for (section, key) in [
        ("cassandra", "cql_password"),
        ("cassandra", "nodetool_password"),
        ("cassandra", "sstableloader_tspw"),
        ("cassandra", "sstableloader_kspw"),
    ] {
        medusa.set(section, key, &format!("{MARK}-of-the-file"));
    }
    // Base64 of 32 bytes.
    medusa.set("storage", "sse_c_key", &format!("{MARK:A<43}="));
    medusa.set("cassandra", "nodetool_username", "operator");
    for name in ["CQL_PASSWORD", "NODETOOL_PASSWORD", "SSTABLELOADER_TSPW", "SSTABLELOADER_KSPW"] {
        medusa.env(&format!("MEDUSA_{name}"), &format!("{MARK}-of-the-environment"));
    }
    medusa.env("CQL_PASSWORD", MARK);
    medusa.env("HARMLESS", "stays");
    medusa.ok(&["backup-node", "--backup-name", "hooks-secret-1"]);
    wrap_nodetool(&mut medusa, node, "echo \"nodetool: refused $*\" >&2\nexit 1\n");
    medusa.run(&["backup-node", "--backup-name", "hooks-secret-2"]).expect_code(1);
    let events = recorder.events();
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(!Value::from(events).to_string().contains(MARK));
    let environment = std::fs::read_to_string(&recorder.environment).unwrap();
    assert!(!environment.contains(MARK) && environment.matches("HARMLESS=stays").count() == 4, "{environment}");
}
