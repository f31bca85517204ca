//! What people and scripts see: results on stdout, everything else on stderr, and neither mixed up nor cut off.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::Node;
use crate::support::{
    assert_fails, binary, keyspace, load, medusa, own_data, program, shared_node, snapshot_folder, wait_for,
};

/// medusa with a terminal, which gets stdout and stderr.
pub fn on_terminal(medusa: &Medusa, arguments: &[&str]) -> Run {
    let inner = medusa.prepare(arguments);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args()).map(|word| word.to_str().unwrap());
    let script = format!("stty cols 120 rows 40; exec {}", shell_words::join(words));
    let mut command = Command::new("script");
    command.env_clear().env("TERM", "xterm").args(["-qec", &script, "/dev/null"]);
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    finish(command.current_dir(medusa.folder.path()).output().unwrap(), "script medusa", arguments)
}

/// A snapshot with one large file, called `name`, which Cassandra never took.
fn large_snapshot(medusa: &mut Medusa, node: &Node, name: &str, size: u64) {
    let data = own_data(medusa, node);
    let file = std::fs::File::create(snapshot_folder(&data, name).join("nb-1-big-Index.db")).unwrap();
    file.set_len(size).unwrap();
}

const EXISTING: [&str; 5] = ["backup-node", "--use-existing-snapshot", "--keep-snapshot", "--backup-name", "large"];

#[test]
fn progress_is_a_line_from_time_to_time_where_there_is_no_terminal() {
    let mut medusa = medusa(shared_node());
    large_snapshot(&mut medusa, shared_node(), "large", 512 << 20);
    let child = medusa.spawn(&EXISTING);
    let id = Pid::from_raw(child.id().try_into().unwrap());
    let written = || {
        let text = std::fs::read_to_string(format!("/proc/{id}/io")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse::<u64>().unwrap()
    };
    wait_for("the upload", || written() > 8 << 20);
    // Stopped in the middle of it for longer than the time between two lines.
    kill(id, Signal::SIGSTOP).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(11));
    kill(id, Signal::SIGCONT).unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &EXISTING).expect_code(0);
    let line = run.stderr.lines().find(|line| line.starts_with("  upload ") && line.contains("% ")).unwrap_or_default();
    for part in ["/512.0 MiB ", "0/1 files", "/s", " left"] {
        assert!(line.contains(part), "{part:?} is not in {line:?} of {run}");
    }
    assert!(!run.stderr.contains('\x1b') && !run.stderr.contains('\r'), "{run}");
    assert!(run.stdout.starts_with("large complete on ") && !run.stdout.contains("upload "), "{run}");
}

#[test]
fn progress_is_a_bar_on_a_terminal() {
    let mut medusa = medusa(shared_node());
    large_snapshot(&mut medusa, shared_node(), "large", 256 << 20);
    let run = on_terminal(&medusa, &EXISTING).expect_code(0);
    let bar = run.stdout.split(['\r', '\n']).find(|line| line.contains("upload") && line.contains('━'));
    let bar = bar.unwrap_or_else(|| panic!("no bar in {run}"));
    assert!(bar.contains("256.0 MiB") && bar.contains("0/1 files"), "{bar:?}");
    // The bar is gone in the end, and the summary is whole.
    let rest = run.stdout.split("large complete on ").nth(1).unwrap();
    assert!(rest.contains("1 file, 256.0 MiB") && !rest.contains('━'), "{run}");
}

#[test]
fn colour_only_where_it_is_wanted() {
    let mut medusa = medusa(shared_node());
    let arguments = ["status", "--backup-name", "none"];
    let coloured = on_terminal(&medusa, &arguments).expect_code(1);
    assert!(coloured.stdout.contains("\x1b[1;31merror:\x1b[0m there is no backup none"), "{coloured}");
    let piped = medusa.run(&arguments);
    assert_fails(&piped, 1, &["error: there is no backup none"]);
    assert!(!piped.stderr.contains('\x1b'), "{piped}");
    medusa.env("NO_COLOR", "1");
    let plain = on_terminal(&medusa, &arguments).expect_code(1);
    assert!(plain.stdout.contains("error: there is no backup none") && !plain.stdout.contains('\x1b'), "{plain}");
}

fn time(seconds: &serde_json::Value) -> String {
    let time = chrono::DateTime::from_timestamp(seconds.as_i64().unwrap(), 0).unwrap();
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn lists_and_states_are_the_texts_of_medusa() {
    let mut medusa = medusa(shared_node());
    let fqdn = shared_node().address.clone();
    medusa.ok(&["backup-node", "--backup-name", "good"]);
    let broken = program(&medusa, "broken", "exit 1\n");
    medusa.set("cassandra", "nodetool_executable", &broken);
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "half"]), 1, &["nodetool snapshot failed"]);
    let good = medusa.ok(&["status", "--backup-name", "good", "--output", "json"]).json();
    let half = medusa.ok(&["status", "--backup-name", "half", "--output", "json"]).json();
    assert_eq!(
        medusa.ok(&["list-backups"]).stdout,
        format!(
            "good (started: {}, finished: {})\nhalf (started: {}, finished: Incomplete [0 of 1 nodes finished])\n\n\
             Incomplete backups found. You can run \"medusa status --backup-name <name>\" for more details\n",
            time(&good["started"]),
            time(&good["finished"]),
            time(&half["started"])
        )
    );
    let (files, size) = (good["num_objects"].as_u64().unwrap(), good["size"].as_u64().unwrap());
    assert!((1 << 10..1 << 20).contains(&size), "{size} bytes are shown in KB");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let kilobytes = size as f64 / 1024.0;
    assert_eq!(
        medusa.ok(&["status", "--backup-name", "good"]).stdout,
        format!(
            "good\n- Started: {}, Finished: {}\n- 1 nodes completed, 0 nodes incomplete, 0 nodes missing\n- {files} files, {kilobytes:.2} KB\n",
            time(&good["started"]),
            time(&good["finished"])
        )
    );
    assert_eq!(
        medusa.ok(&["status", "--backup-name", "half"]).stdout,
        format!(
            "half [Incomplete!]\n- Started: {}, Finished: never\n- 0 nodes completed, 1 nodes incomplete, 0 nodes missing\n- Incomplete nodes:\n    {fqdn}\n- 0 files, 0.00 B\n",
            time(&half["started"])
        )
    );
    assert_eq!(medusa.ok(&["get-last-complete-cluster-backup"]).stdout, "good\n");
}

#[test]
fn stdout_is_the_result_and_nothing_else() {
    let node = shared_node();
    let medusa = medusa(node);
    let keyspace = keyspace("result");
    load(&node.session(), &keyspace, 10);
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let (name, table, target) = (["--backup-name", "b1"], format!("{keyspace}.t"), target.display().to_string());

    let summary = medusa.ok(&["-vv", "backup-node", "--backup-name", "b0"]);
    let begin = format!("b0 complete on {}\n", node.address);
    assert!(summary.stdout.starts_with(&begin), "{summary}");
    for part in
        [" files, ", " uploaded (", " already stored\n", "  started ", ", finished ", "every uploaded byte hashed"]
    {
        assert!(summary.stdout.contains(part), "{part:?} is not in {summary}");
    }
    for part in ["backup b0 of ", "  snapshot ", "  compare ", "  upload ", "DEBUG: "] {
        assert!(summary.stderr.contains(part), "{part:?} is not in {summary}");
    }

    for words in [
        [&["backup-node"][..], &name].concat(),
        vec!["backup-node", "--dry-run"],
        vec!["list-backups"],
        [&["status"][..], &name].concat(),
        [&["verify"][..], &name].concat(),
        [&["fetch-tokenmap"][..], &name].concat(),
        vec!["get-last-complete-cluster-backup"],
        [&["download", "--download-destination", &target][..], &name].concat(),
        [&["restore-node", "--dry-run", "--table", &table][..], &name].concat(),
        [&["delete-backup", "--dry-run"][..], &name].concat(),
        vec!["config"],
        [&["delete-backup"][..], &name].concat(),
    ] {
        let run = medusa.ok(&[&words[..], &["--output", "json", "-vv"]].concat());
        let document = run.json();
        assert!(document.is_object() || document.is_array(), "{run}");
        assert_eq!(run.stdout.lines().count(), 1, "{run}");
        assert!(run.stdout.ends_with('\n'), "{run}");
    }
    for words in [vec!["list-backups"], vec!["config"], vec!["status", "--backup-name", "b0"]] {
        let (quiet, loud) = (medusa.ok(&words), medusa.ok(&[&["-vv"], &words[..]].concat()));
        assert_eq!(quiet.stdout, loud.stdout);
    }
    // A command that fails has no result.
    let run = medusa.run(&["download", "--backup-name", "none", "--download-destination", &target, "--output", "json"]);
    assert_fails(&run, 1, &["there is no finished backup none"]);
    assert_eq!(run.stdout, "");
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let medusa = medusa(shared_node());
    medusa.ok(&["backup-node", "--backup-name", "b1"]);
    for words in [
        vec!["list-backups"],
        vec!["status", "--backup-name", "b1"],
        vec!["config"],
        vec!["verify", "--backup-name", "b1", "--output", "json"],
        vec!["completions", "bash"],
        vec!["--help"],
        vec!["--version"],
    ] {
        let run = |stdout: Stdio| finish(medusa.prepare(&words).stdout(stdout).output().unwrap(), "medusa", &words);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let gone = run(writer.into());
        assert_eq!((gone.code, gone.stderr.as_str()), (0, ""), "{gone}");
        if words[0] != "--help" {
            let full = run(std::fs::File::create("/dev/full").unwrap().into());
            assert_fails(&full, 1, &["could not write the result to stdout", "No space left on device"]);
        }
    }
}

#[test]
fn shells_and_man_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        finish(Command::new(binary()).args(arguments).output().unwrap(), "medusa", arguments).expect_code(0)
    };
    let help = run(&["--help"]).stdout;
    let listed = help.split("Commands:").nth(1).unwrap().lines().skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> =
        listed.filter(|line| !line.starts_with("   ")).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() >= 12, "{commands:?}");

    let script = folder.path().join("medusa.bash");
    std::fs::write(&script, run(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _medusa medusa \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        finish(Command::new("bash").args(["-c", &script]).output().unwrap(), "bash", &[]).expect_code(0).stdout
    };
    assert_eq!(complete("medusa list-b"), "list-backups\n");
    assert_eq!(complete("medusa backup-node --use-ex"), "--use-existing-snapshot\n");

    let man = folder.path().join("man");
    std::fs::create_dir(&man).unwrap();
    run(&["man-pages", man.to_str().unwrap()]);
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(complete(&format!("medusa {command}")).split_whitespace().any(|word| word == *command), "{command}");
        let page = std::fs::read_to_string(man.join(format!("medusa-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{page}");
    }
}
