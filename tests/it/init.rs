//! `init`: what it writes is a configuration that works.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::medusa::{Run, finish};
use crate::lab::{scratch, search_path};
use crate::support::{assert_fails, binary, shared_node};

/// A folder with a configuration of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(scratch("init"));
        fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn ini(&self) -> PathBuf {
        self.path("etc/medusa.ini")
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(binary());
        command.env_clear().env("PATH", search_path()).env("HOME", self.0.path()).env("TMPDIR", self.path("tmp"));
        command.current_dir(self.0.path()).arg("--config-file").arg(self.ini()).args(arguments);
        command.stdin(std::process::Stdio::null());
        finish(command.output().unwrap(), "medusa", arguments)
    }
}

/// The lines that are in effect.
fn set(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with([';', '['])).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_it_writes_backs_up_the_node() {
    let node = shared_node();
    let place = Place::new();
    let base = place.path("backups");
    fs::create_dir_all(base.join("prod")).unwrap();
    let program = |key: &str, name: &str| format!("cassandra.{key}={}", node.program(name).display());
    let (yaml, base) = (node.yaml().display().to_string(), base.display().to_string());
    let fqdn = format!("storage.fqdn={}", node.address);
    let (nodetool, start, stop) =
        (program("nodetool_executable", "nodetool"), program("start_cmd", "start"), program("stop_cmd", "stop"));
    let mut arguments = vec!["init", "--provider", "local", "--bucket-name", "prod", "--base-path", &base];
    arguments.extend(["--cassandra-yaml", &yaml, "--set", &fqdn, "--set", "cassandra.resolve_ip_addresses=False"]);
    arguments.extend(["--set", &nodetool, "--set", &start, "--set", &stop]);

    let printed = place.run(&[&arguments[..], &["--dry-run"]].concat()).expect_code(0);
    assert!(!place.ini().exists());
    let run = place.run(&arguments).expect_code(0);
    println!("{run}");
    let text = read(&place.ini());
    assert_eq!(printed.stdout, text);
    assert_eq!(fs::metadata(place.ini()).unwrap().permissions().mode() & 0o777, 0o640);
    for part in ["wrote ", "nodetool", "answered in", "can be listed, and is empty", "doctor", "backup-node"] {
        assert!(run.stdout.contains(part), "{part:?} is not in {run}");
    }
    // Everything else is there with its default, and is not in effect.
    assert_eq!(set(&text).len(), 9, "{text}");
    assert!(text.contains("\n;cql_timeout = 30\n") && text.contains("; Where backups go"), "{text}");

    let config = place.run(&["config"]).expect_code(0);
    assert!(!config.stderr.contains("unknown"), "{config}");
    assert!(
        config.stdout.contains("bucket_name = prod") && config.stdout.contains("; default\ncql_timeout = 30"),
        "{config}"
    );
    let doctor = place.run(&["doctor"]).expect_code(0);
    assert!(doctor.stdout.contains("\nok           storage"), "{doctor}");
    place.run(&["backup-node", "--backup-name", "init-1"]).expect_code(0);
    place.run(&["verify", "--backup-name", "init-1"]).expect_code(0);
    let doctor = place.run(&["doctor"]).expect_code(0);
    assert!(doctor.stdout.contains("init-1, finished"), "{doctor}");
}

#[test]
fn a_file_that_is_there_stays() {
    let place = Place::new();
    let base = place.0.path().display().to_string();
    let arguments = ["init", "--provider", "local", "--bucket-name", "b", "--base-path", &base];
    place.run(&arguments).expect_code(0);
    fs::write(place.ini(), "[storage]\nprefix = mine\n").unwrap();
    let run = place.run(&arguments);
    assert_fails(&run, 2, &["medusa.ini is there already", "--force"]);
    assert_eq!(read(&place.ini()), "[storage]\nprefix = mine\n");
    let run = place.run(&[&arguments[..], &["--force", "--prefix", "p1"]].concat()).expect_code(0);
    assert!(run.stdout.contains("the previous one is") && run.stdout.contains("medusa.ini.bak"), "{run}");
    assert_eq!(read(&place.path("etc/medusa.ini.bak")), "[storage]\nprefix = mine\n");
    assert!(set(&read(&place.ini())).contains(&"prefix = p1"));
    // One that sets nothing, as a package brings it, is in nobody's way, and is kept all the same.
    fs::write(place.ini(), "; mine\n[storage]\n;prefix = x\n").unwrap();
    place.run(&arguments).expect_code(0);
    assert!(set(&read(&place.ini())).contains(&"bucket_name = b"));
    assert_eq!(read(&place.path("etc/medusa.ini.bak2")), "; mine\n[storage]\n;prefix = x\n");
    assert_eq!(fs::read_dir(place.path("etc")).unwrap().count(), 3);
}

#[test]
fn a_bucket_that_does_not_answer_is_a_warning() {
    let place = Place::new();
    let mut arguments = vec!["init", "--provider", "s3_compatible", "--bucket-name", "backups", "--key-file", "/keys"];
    arguments.extend(["--host", "127.0.0.1", "--set", "storage.port=1", "--region", "eu-west-1", "--prefix", "prod"]);
    let run = place.run(&arguments).expect_code(0);
    assert!(run.stdout.contains("warning      storage"), "{run}");
    let expected = [
        "storage_provider = s3_compatible",
        "bucket_name = backups",
        "prefix = prod",
        "key_file = /keys",
        "region = eu-west-1",
        "host = 127.0.0.1",
        "port = 1",
    ];
    assert_eq!(set(&read(&place.ini())), expected);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let place = Place::new();
    for (arguments, parts) in [
        (&["init"][..], &["--provider is missing", "hint: "][..]),
        (&["init", "--provider", "local", "--bucket-name", "b"], &["--base-path is missing"]),
        (&["init", "--provider", "pigeon", "--bucket-name", "b"], &["pigeon", "is not known"]),
        (&["init", "--provider", "s3", "--bucket-name", "a/b"], &["must not contain a slash"]),
        (&["init", "--provider", "s3", "--bucket-name", "b", "--set", "storage.buket=x"], &["no key buket"]),
        (&["init", "--provider", "s3", "--bucket-name", "b", "--set", "cassandra.cql_password=x"], &["is a secret"]),
    ] {
        assert_fails(&place.run(arguments), 2, parts);
        assert!(!place.ini().exists(), "{arguments:?}");
    }
}
