//! The command line and the configuration, without a node.

use std::process::Command;

use crate::lab::medusa::{Medusa, Run, finish};
use crate::made;
use crate::support::{assert_fails, binary};

fn medusa() -> Medusa {
    Medusa::without_node(binary())
}

fn bare(arguments: &[&str]) -> Run {
    finish(Command::new(binary()).args(arguments).output().unwrap(), "medusa", arguments)
}

#[test]
fn help_and_version_need_no_configuration() {
    let help = bare(&["--help"]).expect_code(0).stdout;
    for command in [
        "backup-node",
        "restore-node",
        "list-backups",
        "status",
        "verify",
        "download",
        "delete-backup",
        "purge",
        "build-index",
        "config",
    ] {
        assert!(help.contains(command), "{help}");
    }
    assert_eq!(bare(&["--version"]).expect_code(0).stdout, format!("{}\n", env!("CARGO_PKG_VERSION")));
    assert!(bare(&["backup", "--help"]).expect_code(0).stdout.contains("--use-existing-snapshot"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        vec!["no-such-command"],
        vec!["status"],
        vec!["backup-node", "--mode", "partial"],
        vec!["backup-node", "--use-existing-snapshot"],
        vec!["restore-node"],
        vec!["list-backups", "--output", "xml"],
    ] {
        let run = bare(&arguments).expect_code(2);
        assert!(run.stdout.is_empty() && run.stderr.contains("error: "), "{run}");
    }
    for list in ["--hosts", "--host-list"] {
        let run = bare(&["backup-cluster", "--stagger", "9", list, "n1"]);
        assert_fails(&run, 2, &["'--stagger <SECONDS>' cannot be used with", list]);
    }
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(bare(&["completions", shell]).expect_code(0).stdout.contains("backup-node"));
    }
    let folder = tempfile::tempdir().unwrap();
    bare(&["man-pages", folder.path().to_str().unwrap()]).expect_code(0);
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(pages > 8, "{pages} pages");
}

#[test]
fn a_missing_or_broken_configuration_ends_with_2_and_says_where() {
    const OK: &str = "[storage]\nstorage_provider = local\nbucket_name = b\nbase_path = /tmp/none\n";
    assert_fails(&bare(&["list-backups"]), 2, &["/etc/medusa/medusa.ini does not exist", "--config-file"]);
    assert_fails(&bare(&["--config-file", "/no/such.ini", "list-backups"]), 2, &["could not read", "/no/such.ini"]);
    let folder = tempfile::tempdir().unwrap();
    let ini = folder.path().join("m.ini");
    let run = |text: &str| {
        std::fs::write(&ini, text).unwrap();
        bare(&["--config-file", ini.to_str().unwrap(), "list-backups"])
    };
    assert_fails(&run("bucket_name = b\n"), 2, &["m.ini: line 1", "before the first [section]"]);
    assert_fails(&run(&format!("{OK}prefix = p1\nprefix = p2\n")), 2, &["m.ini: line 6", "already given on line 5"]);
    assert_fails(&run("[storage]\nstorage_provider = local\n"), 2, &["bucket_name is missing in [storage]"]);
    assert_fails(&run("[storage]\nbucket_name = b\n"), 2, &["storage_provider is missing"]);
    assert_fails(&run("[storage]\nbucket_name = b\nstorage_provider = local\n"), 2, &["base_path is missing"]);
    assert_fails(
        &run(&format!("{OK}multipart_chunksize = much\n")),
        2,
        &["multipart_chunksize", "\"much\"", "m.ini:5"],
    );
    assert_fails(&run(&format!("{OK}[cassandra]\nstop_cmd = 'x\n")), 2, &["stop_cmd", "balanced quotes"]);
    assert_fails(
        &run("[storage]\nbucket_name = b\nstorage_provider = carrier_pigeon\n"),
        2,
        &["carrier_pigeon", "hint:"],
    );
}

#[test]
fn an_unreadable_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Root may read everything, but no folder is a file.
    assert_fails(
        &bare(&["--config-file", folder.path().to_str().unwrap(), "status", "--backup-name", "x"]),
        2,
        &["could not read the configuration", folder.path().to_str().unwrap()],
    );
}

#[test]
fn unknown_keys_are_warned_of_once_and_ignored() {
    let mut medusa = medusa();
    medusa.set("storage", "buket_name", "x");
    let run = medusa.ok(&["list-backups"]);
    assert_eq!(run.stderr.matches("buket_name").count(), 1, "{run}");
    assert!(run.stderr.contains("WARNING"), "{run}");
    let plain = medusa.ok(&["--without-log-timestamp", "list-backups"]);
    assert!(plain.stderr.starts_with("WARNING: "), "{plain}");
}

#[test]
fn config_shows_every_value_with_its_origin_and_no_secret() {
    let mut medusa = medusa();
    medusa.set("cassandra", "cql_password", "hunter2");
    medusa.set("cassandra", "start_cmd", "one\n  two");
    medusa.env("MEDUSA_CQL_USERNAME", "of-the-environment");
    let run = medusa.ok(&["config", "--prefix", "of-the-flag"]);
    for part in [
        "cql_password = ****",
        "; environment variable MEDUSA_CQL_USERNAME\ncql_username = of-the-environment",
        "; --prefix\nprefix = of-the-flag",
        "; default\nregion = default",
        "fqdn = 127.0.0.1",
        ";key_file is not set",
    ] {
        assert!(run.stdout.contains(part), "{part:?} is not in {run}");
    }
    assert!(run.stdout.contains("medusa.ini:"), "{run}");
    let document = medusa.ok(&["config", "--output", "json"]).json();
    assert_eq!(document["sections"]["cassandra"]["cql_password"]["value"], "****");
    assert!(!format!("{run}{document}").contains("hunter2"));
    // What it prints is a configuration again.
    let again = medusa.folder.path().join("again.ini");
    std::fs::write(&again, run.stdout.replace("cql_password = ****", "")).unwrap();
    let second = bare(&["--config-file", again.to_str().unwrap(), "config"]).expect_code(0);
    assert!(second.stdout.contains("prefix = of-the-flag"), "{second}");
}

#[test]
fn the_log_file_gets_what_stderr_gets() {
    let mut medusa = medusa();
    let log = medusa.folder.path().join("medusa.log");
    medusa.set("logging", "enabled", "True");
    medusa.set("logging", "file", log.to_str().unwrap());
    medusa.set("logging", "format", "%(levelname)s %(message)s");
    medusa.set("storage", "typo", "x");
    medusa.ok(&["list-backups"]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("WARNING") && text.contains("typo"), "{text}");
}

/// stderr is gone when somebody looks for the reason of last night.
#[test]
fn the_log_file_tells_how_a_command_ended() {
    let mut medusa = medusa();
    let log = medusa.folder.path().join("medusa.log");
    for (key, value) in [("enabled", "True"), ("file", log.to_str().unwrap()), ("format", "%(levelname)s %(message)s")]
    {
        medusa.set("logging", key, value);
    }
    medusa.ok(&["-q", "list-backups"]);
    let run = medusa.run(&["-vv", "status", "--backup-name", "x"]).expect_code(1);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (start, part) in [
        ("INFO list-backups of medusa ", " begins"),
        ("INFO list-backups ended after ", " with exit code 0"),
        ("INFO status ended after ", " with exit code 1"),
        ("ERROR there is no backup x in ", ""),
        ("ERROR   hint: medusa list-backups", ""),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start) && line.contains(part)), "{start}: {text}");
    }
    assert_eq!(run.stderr.matches("there is no backup x").count(), 1, "{run}");
    assert!(!run.stderr.contains("exit code"), "{run}");
    // The level of the file holds for all of it.
    std::fs::remove_file(&log).unwrap();
    medusa.set("logging", "level", "FATAL");
    medusa.run(&["status", "--backup-name", "x"]).expect_code(1);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("there is no backup x") && !text.contains("INFO"), "{text}");
}

/// A file that Medusa reads ends no command that does not need what is empty.
#[test]
fn what_is_empty_in_the_configuration_is_unset() {
    let mut medusa = medusa();
    let empty = [
        ("storage", "secure"),
        ("storage", "read_timeout"),
        ("storage", "transfer_max_bandwidth"),
        ("storage", "multi_part_upload_threshold"),
        ("cassandra", "start_cmd"),
        ("cassandra", "stop_cmd"),
        ("cassandra", "nodetool_ssl"),
        ("ssh", "port"),
        ("checks", "md5_check_concurrency"),
        ("logging", "level"),
        ("grpc", "port"),
    ];
    for (section, key) in empty {
        medusa.set(section, key, "");
    }
    assert_eq!(medusa.ok(&["list-backups"]).stdout, "");
    let shown = medusa.ok(&["config", "--output", "json"]).json();
    let of = |section: &str, key: &str| shown["sections"][section][key].clone();
    assert_eq!(of("storage", "read_timeout"), serde_json::json!({"value": "60", "origin": "default"}));
    assert_eq!(of("cassandra", "start_cmd")["value"], "");
    assert_eq!(of("storage", "transfer_max_bandwidth")["value"], "0");
    assert!(of("storage", "transfer_max_bandwidth")["origin"].as_str().unwrap().contains(".ini:"), "{shown}");
}

#[test]
fn who_acts_as_a_node_that_nobody_knows_is_warned() {
    let medusa = made::medusa();
    made::backup(&medusa.bucket(), "node1.example.net", "b1", &["node1.example.net"], &[]);
    for command in ["purge", "report-last-backup"] {
        let run = medusa.ok(&["--fqdn", "node1.exmaple.net", command]);
        let warning = "the bucket has nothing of node1.exmaple.net; did you mean --fqdn node1.example.net?";
        assert!(run.stderr.contains(warning), "{run}");
        let run = medusa.ok(&["--fqdn", "node1.example.net", command]);
        assert!(!run.stderr.contains("the bucket has nothing"), "{run}");
    }
}

#[test]
fn an_empty_bucket_is_no_error() {
    let medusa = medusa();
    assert_eq!(medusa.ok(&["list-backups"]).stdout, "");
    assert_eq!(medusa.ok(&["list-backups", "--output", "json"]).stdout, "[]\n");
    assert_eq!(
        medusa.ok(&["get-last-complete-cluster-backup"]).stdout,
        "Could not find any full backup for the cluster\n"
    );
    assert_eq!(medusa.run(&["status", "--backup-name", "x", "--output", "json"]).expect_code(1).stdout, "{}\n");
    for command in ["status", "verify", "fetch-tokenmap", "delete-backup"] {
        assert_fails(
            &medusa.run(&[command, "--backup-name", "x"]),
            1,
            &["there is no backup x", "hint: medusa list-backups"],
        );
    }
    assert!(!medusa.bucket().exists(), "reading must not create anything");
}
