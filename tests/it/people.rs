//! What people and scripts see: results on stdout, everything else on stderr, and neither mixed up nor cut off.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::Node;
use crate::made;
use crate::support::{
    assert_fails, binary, keyspace, load, medusa, own_data, program, shared_node, snapshot_folder, wait_for,
};

/// medusa with a terminal, which gets stdout and stderr.
pub fn on_terminal(medusa: &Medusa, arguments: &[&str]) -> Run {
    on_columns(medusa, 120, arguments)
}

/// The same with a terminal of another width.
fn on_columns(medusa: &Medusa, columns: usize, arguments: &[&str]) -> Run {
    let inner = medusa.prepare(arguments);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args()).map(|word| word.to_str().unwrap());
    let script = format!("stty cols {columns} rows 40; exec {}", shell_words::join(words));
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
    let rest = run.stdout.split("large \x1b[32mcomplete\x1b[0m on ").nth(1).unwrap();
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

/// Without a node: a host with a long name whose backup is damaged, and one whose backup is not.
fn damaged() -> Medusa {
    let medusa = made::medusa();
    let hosts = ["ip-10-20-30-40.eu-central-1.compute.internal", "ip-10-20-30-41.eu-central-1.compute.internal"];
    for fqdn in hosts {
        let objects = ["nb-1-big-Data.db", "nb-2-big-Data.db"].map(|file| made::object(fqdn, file, "content"));
        made::backup(&medusa.bucket(), fqdn, "nightly-0412", &hosts, &objects);
    }
    let pool = medusa.bucket().join(hosts[0]).join("data/ks").join(made::TABLE);
    std::fs::remove_file(pool.join("nb-1-big-Data.db")).unwrap();
    std::fs::write(pool.join("nb-2-big-Data.db"), "cut").unwrap();
    medusa
}

const VERIFY: [&str; 4] = ["verify", "--backup-name", "nightly-0412", "--read-data"];

#[test]
fn states_have_colours_on_terminals_that_want_them() {
    let mut medusa = damaged();
    let coloured = on_terminal(&medusa, &VERIFY).expect_code(3);
    for part in ["\x1b[1;31mdamaged\x1b[0m", "\x1b[32mok\x1b[0m     ", "\x1b[33mhint:\x1b[0m"] {
        assert!(coloured.stdout.contains(part), "{part:?} is not in {coloured}");
    }
    for arguments in [&VERIFY[..], &["purge", "--dry-run", "--keep-last", "1"], &["storage-check"], &["config"]] {
        let piped = medusa.run(arguments);
        assert!(!piped.stdout.contains('\x1b') && !piped.stderr.contains('\x1b'), "{piped}");
        assert!(!piped.stdout.contains('\u{fdd0}') && !piped.stdout.contains('\u{fdd3}'), "{piped}");
    }
    // What cassandra-medusa prints has none on a terminal, either; and neither has JSON.
    let list = on_terminal(&medusa, &["list-backups", "--show-all"]).expect_code(0);
    let document = on_terminal(&medusa, &[&VERIFY[..], &["-q", "--output", "json"]].concat()).expect_code(3);
    assert!(list.stdout.contains("nightly-0412 (started: ") && !list.stdout.contains('\x1b'), "{list}");
    assert!(!document.stdout.lines().next().unwrap().contains('\x1b'), "{document}");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        medusa.env(name, value);
        // Bars are redrawn with other codes.
        let plain = on_terminal(&medusa, &[&["-q"], &VERIFY[..]].concat()).expect_code(3);
        assert!(plain.stdout.contains("damaged") && !plain.stdout.contains('\x1b'), "{plain}");
        medusa.env("NO_COLOR", "");
    }
}

#[test]
fn terminals_get_lines_that_fit_and_programs_get_them_whole() {
    let mut medusa = damaged();
    medusa.env("NO_COLOR", "1");
    let narrow = on_columns(&medusa, 80, &VERIFY).expect_code(3);
    // Names and hints are for copying, and are not broken.
    let is_whole = |line: &str| line.starts_with("hint: ") || line.split_whitespace().any(|word| word.len() > 60);
    // A bar is drawn over the one before it.
    let drawn = narrow.stdout.lines().map(|line| line.rsplit("\r\x1b[2K").next().unwrap());
    for line in drawn.filter(|line| !is_whole(line)) {
        assert!(line.trim_end().chars().count() <= 80, "{line:?} in {narrow}");
    }
    let host = "  ip-10-20-30-40.eu-central-1.compute.internal   damaged";
    assert!(narrow.stdout.contains(&format!("{host}\r\n    0 ok, 1 missing, 1 wrong size\r\n")), "{narrow}");
    let piped = medusa.run(&VERIFY).expect_code(3);
    assert!(piped.stdout.contains(&format!("{host}   0 ok, 1 missing, 1 wrong size\n")), "{piped}");
    assert!(piped.stdout.contains("nb-2-big-Data.db   expected 7, found 3\n"), "{piped}");
    let wide = on_columns(&medusa, 250, &VERIFY).expect_code(3);
    assert!(wide.stdout.contains("nb-2-big-Data.db   expected 7, found 3\r\n"), "{wide}");
}

#[test]
fn quiet_runs_say_how_they_ended_and_nothing_else() {
    let node = shared_node();
    let medusa = medusa(node);
    let quiet = medusa.ok(&["backup-node", "--backup-name", "q1", "--quiet"]);
    assert_eq!(quiet.stderr, "");
    let begin = format!("q1 complete on {} in {}\n", node.address, medusa.bucket().display());
    assert!(quiet.stdout.starts_with(&begin), "{quiet}");
    let screen = on_terminal(&medusa, &["-q", "backup-node", "--backup-name", "q2"]).expect_code(0);
    assert!(
        screen.stdout.contains("q2 \x1b[32mcomplete\x1b[0m on ") && !screen.stdout.contains("snapshot "),
        "{screen}"
    );
    // What is wrong is said.
    assert_fails(&medusa.run(&["-q", "status", "--backup-name", "q3"]), 1, &["there is no backup q3", "hint: "]);
    let warned = medusa.ok(&["-q", "list-backups", "--node", "nobody"]);
    assert!(warned.stderr.contains("WARNING: there is no backup of nobody"), "{warned}");
    for words in [["-q", "-v", "list-backups"], ["-v", "list-backups", "--quiet"]] {
        assert_fails(&medusa.run(&words), 2, &["'--quiet' cannot be used with '--verbosity"]);
    }
}

/// What a person pastes into a ticket says when it was, of which bucket.
#[test]
fn summaries_say_when_and_where() {
    let medusa = made::medusa();
    let object = made::object("127.0.0.1", "nb-1-big-Data.db", "content");
    made::backup(&medusa.bucket(), "127.0.0.1", "b1", &["127.0.0.1"], &[object]);
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let (bucket, target) = (medusa.bucket().display().to_string(), target.display().to_string());
    let download = ["download", "--backup-name", "b1", "--download-destination", &target];
    for words in
        [&["verify", "--backup-name", "b1", "--read-data"][..], &["verify", "--repository"], &download, &["purge"]]
    {
        let run = medusa.ok(words);
        let last = run.stdout.lines().last().unwrap();
        assert!(last.starts_with("started 20") && last.contains(", finished ") && last.ends_with(" s)"), "{run}");
        assert!(words != ["purge"] || run.stdout.contains(&format!("purged 0 objects (0 B) in {bucket}\n")), "{run}");
        assert!(words != download || run.stdout.contains(": 1 file, 7 B\n"), "{run}");
    }
    let plan = medusa.ok(&[&download[..], &["--dry-run"]].concat());
    assert_eq!(plan.stdout.lines().count(), 1, "{plan}");
    // That of cassandra-medusa stays as it is.
    let text = medusa.ok(&["verify", "--backup-name", "b1"]).stdout;
    assert_eq!(text, "Validating b1 ...\n- Completion: OK!\n- Manifest validated: OK!!\n");
}

#[test]
fn times_are_local_unless_utc_is_asked_for() {
    let mut medusa = damaged();
    medusa.env("TZ", "XYZ-9");
    // All made-up backups are of this moment, 2023-11-14 22:13:20 UTC.
    for (arguments, expected) in [
        (vec!["list-backups", "--show-all"], "(started: 2023-11-15 07:13:20, finished: 2023-11-15 07:15:00)"),
        (vec!["list-backups", "--show-all", "--utc"], "(started: 2023-11-14 22:13:20, finished: 2023-11-14 22:15:00)"),
        (vec!["--utc", "status", "--backup-name", "nightly-0412"], "- Started: 2023-11-14 22:13:20,"),
        // What is typed is of the same zone as what is read.
        (vec!["list-backups", "--show-all", "--utc", "--since", "2023-11-14 22:13"], "nightly-0412"),
        (vec!["list-backups", "--show-all", "--since", "2023-11-15 07:13"], "nightly-0412"),
    ] {
        let run = medusa.ok(&arguments);
        assert!(run.stdout.contains(expected), "{expected:?} is not in {run}");
    }
    assert_eq!(medusa.ok(&["list-backups", "--show-all", "--since", "2023-11-15 07:14"]).stdout, "");
    assert_eq!(medusa.ok(&["list-backups", "--show-all", "--utc", "--since", "2023-11-14 22:14"]).stdout, "");
    let hour = |arguments: &[&str]| {
        let run = medusa.ok(arguments);
        let line = run.stderr.lines().find(|line| line.contains("WARNING: ")).unwrap_or_default().to_owned();
        let time = line.trim_start_matches('[').split(',').next().unwrap().to_owned();
        chrono::NaiveDateTime::parse_from_str(&time, "%Y-%m-%d %H:%M:%S").unwrap_or_else(|_| panic!("{run}"))
    };
    let local = hour(&["list-backups", "--node", "nobody"]);
    let utc = hour(&["list-backups", "--node", "nobody", "--utc"]);
    // The two runs lie less than half an hour apart.
    assert_eq!((local - utc).num_minutes().unsigned_abs().div_ceil(30), 18);
}

#[test]
fn misspelt_names_are_answered_with_what_was_meant() {
    let mut medusa = damaged();
    let host = "ip-10-20-30-40.eu-central-1.compute.internal";
    let near = "ip-10-20-30-40.eu-central-1.compute.interna";
    let target = medusa.folder.path().display().to_string();
    let backup = "did you mean nightly-0412?";
    for (arguments, code, hint) in [
        (vec!["status", "--backup-name", "nigthly-0412"], 1, backup),
        (vec!["verify", "--backup-name", "nightly-042"], 1, backup),
        (vec!["fetch-tokenmap", "--backup-name", "nightly-412"], 1, backup),
        (vec!["delete-backup", "--all-nodes", "--backup-name", "nightly-0413"], 1, backup),
        (
            vec!["download", "--download-destination", &target, "--backup-name", "nightly_0412", "--fqdn", host],
            1,
            backup,
        ),
        (vec!["verify", "--backup-name", "nightly-0412", "--node", near], 1, host),
        (vec!["download", "--download-destination", &target, "--backup-name", "nightly-0412", "--fqdn", near], 1, host),
        (vec!["list-backup"], 2, "'list-backups'"),
        (vec!["list-backups", "--show-al"], 2, "'--show-all'"),
    ] {
        let run = medusa.run(&arguments);
        assert_fails(&run, code, &[hint]);
    }
    // Others have it: nothing to do is no error, as in cassandra-medusa.
    let run = medusa.ok(&["delete-backup", "--backup-name", "nightly-0412", "--fqdn", near]);
    assert!(run.stderr.contains(&format!("did you mean --fqdn {host}?")), "{run}");
    medusa.set("storage", "fqdn", host);
    for (option, name, meant) in [("--keyspace", "ka", "did you mean ks?"), ("--table", "ks.tt", "did you mean ks.t?")]
    {
        let words = ["download", "--backup-name", "nightly-0412", "--download-destination", &target, option, name];
        assert_fails(&medusa.run(&words), 2, &[meant]);
    }
    assert!(medusa.ok(&["list-backups", "--node", near]).stderr.contains(&format!("did you mean {host}?")));
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
    assert_fails(&medusa.run(&["backup-node", "--backup-name", "half"]), 1, &["nodetool flush failed"]);
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
    let (name, table, target) = (["--backup-name", "r1"], format!("{keyspace}.t"), target.display().to_string());

    let summary = medusa.ok(&["-vv", "backup-node", "--backup-name", "r0"]);
    let begin = format!("r0 complete on {} in {}\n", node.address, medusa.bucket().display());
    assert!(summary.stdout.starts_with(&begin), "{summary}");
    for part in
        [" files, ", " uploaded (", " already stored\n", "  started ", ", finished ", "every uploaded byte hashed"]
    {
        assert!(summary.stdout.contains(part), "{part:?} is not in {summary}");
    }
    for part in ["backup r0 of ", "  snapshot ", "  compare ", "  upload ", "DEBUG: "] {
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
    for words in [vec!["list-backups"], vec!["config"], vec!["status", "--backup-name", "r0"]] {
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
    medusa.ok(&["backup-node", "--backup-name", "t1"]);
    for words in [
        vec!["list-backups"],
        vec!["status", "--backup-name", "t1"],
        vec!["config"],
        vec!["verify", "--backup-name", "t1", "--output", "json"],
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
