//! Passwords and keys are used and never shown: not in logs, results, errors, command lines or environments of programs, and
//! not in files that stay.

use std::path::{Path, PathBuf};

use crate::lab::cql::Session;
use crate::lab::medusa::{Medusa, Run, finish};
use crate::lab::node::{Node, Options, Release};
use crate::lab::tree;
use crate::support::{assert_fails, hold, medusa, program, shared_node, signal, wait_for, wrap_nodetool};

/// In every secret of these tests.
const MARK: &str = "s3cr3t";

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// What started programs were given.
struct Recorder {
    /// Words and environment of each call.
    calls: PathBuf,
    /// Mode and path of each password file.
    files: PathBuf,
    passwords: PathBuf,
}

impl Recorder {
    fn new(medusa: &Medusa) -> Self {
        let folder = medusa.folder.path();
        Self { calls: folder.join("calls"), files: folder.join("files"), passwords: folder.join("passwords") }
    }

    /// The beginning of a shell script.
    fn script(&self) -> String {
        format!(
            "{{ echo \"call: $0 $*\"; env; }} >>{}\n\
             for word; do\n\
             if [ \"$before\" = -pwf ]; then stat -c '%a %n' \"$word\" >>{}; cat \"$word\" >>{}; fi\n\
             before=$word\ndone\n",
            self.calls.display(),
            self.files.display(),
            self.passwords.display()
        )
    }

    /// Checks all calls; returns how many there were.
    #[track_caller]
    fn check(&self, user_and_password: &str) -> usize {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let calls = read(&self.calls);
        assert!(!calls.contains(MARK), "{calls}");
        for line in read(&self.files).lines() {
            let path = line.strip_prefix("600 ").unwrap_or_else(|| panic!("{line} is not private"));
            assert!(!Path::new(path).exists(), "{path} was left behind");
        }
        assert!(read(&self.passwords).lines().all(|line| line == user_and_password), "nodetool got another password");
        calls.matches("call: ").count()
    }
}

/// Runs medusa to its end, and looks at the command lines of all processes meanwhile.
#[track_caller]
fn watched(medusa: &Medusa, arguments: &[&str]) -> Run {
    watched_for(medusa, arguments, holds_secret)
}

/// The same with other secrets.
#[track_caller]
pub fn watched_for(medusa: &Medusa, arguments: &[&str], holds: impl Fn(&[u8]) -> bool) -> Run {
    let child = medusa.spawn(arguments);
    let running = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !running.is_finished() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            // Most entries are no processes, and processes end.
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            // The lab's own programs are given keys in this way.
            assert!(!holds(words.as_bytes()) || words.contains("tests/lab/stores/"), "{words}");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let run = finish(running.join().unwrap(), "medusa", arguments);
    assert!(!holds(run.stdout.as_bytes()) && !holds(run.stderr.as_bytes()), "{run}");
    run
}

/// Nothing that medusa wrote holds a secret, and the folder for temporary files is empty.
#[track_caller]
fn nothing_is_left(medusa: &Medusa, recorder: &Recorder) {
    assert_eq!(tree(&medusa.folder.path().join("tmp")).into_keys().collect::<Vec<_>>(), [""; 0]);
    for (path, content) in tree(medusa.folder.path()) {
        let given = path == "medusa.ini" || medusa.folder.path().join(&path) == recorder.passwords;
        assert!(given || !holds_secret(&content), "{path} holds a secret");
    }
}

#[test]
fn p7_of_a_whole_life_of_a_backup() {
    let yaml = "authenticator: PasswordAuthenticator\n".to_owned();
    let node = Node::start(Options { yaml, ..Options::new(Release::V5_0) });
    Session::connect_as(&node.address, Some(("cassandra", "cassandra")))
        .query(&format!("ALTER ROLE cassandra WITH PASSWORD = '{MARK}-cql'"));
    // Cassandra remembers the old one for a while.
    drop(Session::connect_as(&node.address, Some(("cassandra", &format!("{MARK}-cql")))));
    let mut medusa = medusa(&node);
    let recorder = Recorder::new(&medusa);
    wrap_nodetool(&mut medusa, &node, &format!("{}exec $REAL \"$@\"\n", recorder.script()));
    for key in ["start_cmd", "stop_cmd"] {
        let name = key.strip_suffix("_cmd").unwrap();
        let body = format!("{}exec {} \"$@\"\n", recorder.script(), node.program(name).display());
        let path = program(&medusa, name, &body);
        medusa.set("cassandra", key, &path);
    }
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
    medusa.set("cassandra", "cql_username", "cassandra");
    medusa.set("cassandra", "nodetool_username", "operator");
    medusa.env("MEDUSA_CQL_PASSWORD", &format!("{MARK}-cql"));
    medusa.env("MEDUSA_NODETOOL_PASSWORD", &format!("{MARK}-jmx"));
    medusa.env("MEDUSA_SSTABLELOADER_TSPW", &format!("{MARK}-tspw"));
    medusa.env("MEDUSA_SSTABLELOADER_KSPW", &format!("{MARK}-kspw"));
    let log = medusa.folder.path().join("medusa.log").display().to_string();
    for (key, value) in [("enabled", "True"), ("file", &log), ("level", "NOTSET")] {
        medusa.set("logging", key, value);
    }
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let (target, name) = (target.display().to_string(), ["--backup-name", "x1"]);
    let verbose = |words: &[&'static str]| [&["-vvv"], words].concat();
    for words in [
        verbose(&["config"]),
        verbose(&["config", "--output", "json"]),
        verbose(&["backup-node", "--dry-run"]),
        [&verbose(&["backup-node"])[..], &name].concat(),
        verbose(&["list-backups", "--output", "json"]),
        [&verbose(&["status"])[..], &name].concat(),
        verbose(&["doctor"]),
        verbose(&["doctor", "--output", "json"]),
        [&verbose(&["verify", "--enable-md5-checks"])[..], &name].concat(),
        [&verbose(&["download", "--download-destination"])[..], &[&target], &name].concat(),
        [&verbose(&["restore-node", "--dry-run", "--output", "json"])[..], &name].concat(),
        [&verbose(&["restore-node"])[..], &name].concat(),
        [&verbose(&["backup-node", "--output", "json", "--backup-name"])[..], &["x2"]].concat(),
        [&verbose(&["delete-backup"])[..], &name].concat(),
    ] {
        watched(&medusa, &words).expect_code(0);
    }
    // Two backups with a snapshot taken and cleared, and a restore with a stop and a start.
    let calls = recorder.check(&format!("operator {MARK}-jmx"));
    assert!(calls >= 6, "{calls} calls");
    nothing_is_left(&medusa, &recorder);
    assert!(!tree(&medusa.bucket()).is_empty() && std::fs::metadata(&log).unwrap().len() > 0);

    medusa.env("MEDUSA_CQL_PASSWORD", &format!("{MARK}-wrong"));
    let run = watched(&medusa, &["-vvv", "backup-node", "--backup-name", "x3"]);
    assert_fails(&run, 1, &["refused the user name and password"]);
    nothing_is_left(&medusa, &recorder);
}

#[test]
fn p7_an_interrupted_backup_leaves_no_password_file() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let recorder = Recorder::new(&medusa);
    let (wait, begun, go) = hold(&medusa);
    let wait = format!("case \"$*\" in *' snapshot '*) {wait} ;; esac\n");
    wrap_nodetool(&mut medusa, node, &format!("{}{wait}exec $REAL \"$@\"\n", recorder.script()));
    medusa.set("cassandra", "nodetool_username", "operator");
    medusa.set("cassandra", "nodetool_password", &format!("{MARK}-jmx"));
    let child = medusa.spawn(&["-vvv", "backup-node", "--backup-name", "x1"]);
    wait_for("nodetool", || begun.exists());
    signal(&child, "TERM");
    std::fs::write(&go, "").unwrap();
    let run = finish(child.wait_with_output().unwrap(), "medusa", &["backup-node"]);
    assert_fails(&run, 143, &["interrupted by SIGTERM"]);
    assert!(!holds_secret(run.stderr.as_bytes()), "{run}");
    assert!(recorder.check(&format!("operator {MARK}-jmx")) >= 1);
    nothing_is_left(&medusa, &recorder);
}

#[test]
fn p7_errors_do_not_quote_what_they_cannot_use() {
    let node = Node::prepare(Options::new(Release::V5_0));
    let mut medusa = medusa(&node);
    let good = std::fs::read_to_string(medusa.ini()).unwrap();
    let ini = medusa.folder.path().join("broken.ini");
    let fails = |medusa: &Medusa, text: Option<&str>, code: i32, parts: &[&str]| {
        let mut command = medusa.prepare(&["-vvv", "backup-node", "--backup-name", "x1"]);
        if let Some(text) = text {
            std::fs::write(&ini, text).unwrap();
            command.arg("--config-file").arg(&ini);
        }
        let run = finish(command.output().unwrap(), "medusa", &["backup-node"]);
        assert_fails(&run, code, parts);
        assert!(!holds_secret(run.stderr.as_bytes()) && run.stdout.is_empty(), "{run}");
    };
    // Mistakes of people who write a password into the file.
    for (text, parts) in [
        (format!("[cassandra]\ncql_password {MARK}\n"), ["line 2", "key = value"]),
        (format!("[cassandra]\ncql_password =\n{MARK}\n"), ["line 3", "key = value"]),
        (format!("cql_password = {MARK}\n[cassandra]\n"), ["line 1", "before the first [section]"]),
        (format!("[cassandra]\ncql_password = {MARK}\ncql_password = {MARK}\n"), ["line 3", "already given on line 2"]),
    ] {
        fails(&medusa, Some(&text), 2, &parts);
    }
    let blank = format!("{good}\n[checks]\n")
        .replace("[cassandra]\n", &format!("[cassandra]\nnodetool_username = u\nnodetool_password = {MARK} {MARK}\n"));
    fails(&medusa, Some(&blank), 2, &["nodetool_password contains a blank"]);
    let alone = good.replace("[cassandra]\n", &format!("[cassandra]\nnodetool_password = {MARK}\n"));
    fails(&medusa, Some(&alone), 2, &["nodetool_password is set", "nodetool_username is not"]);

    // cassandra.yaml has passwords too.
    let yaml = std::fs::read_to_string(node.yaml()).unwrap();
    let secret = format!("client_encryption_options:\n  enabled: true\n  keystore_password: {MARK}\n");
    for broken in ["  truststore_password: [\n", " odd: indentation\n", "native_transport_port: high\n"] {
        std::fs::write(node.yaml(), format!("{yaml}{secret}{broken}")).unwrap();
        fails(&medusa, None, 1, &["cassandra.yaml cannot be used"]);
    }
    std::fs::write(node.yaml(), &yaml).unwrap();

    // Where secrets come as files, only their path is told.
    let secrets = medusa.folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("password"), MARK).unwrap();
    medusa.set("cassandra", "cql_k8s_secrets_path", secrets.to_str().unwrap());
    fails(&medusa, None, 2, &["cql_k8s_secrets_path", "secrets/username"]);
    std::fs::write(secrets.join("username"), "operator").unwrap();
    let run = watched(&medusa, &["config"]).expect_code(0);
    assert!(run.stdout.contains("cql_username = operator\n") && run.stdout.contains("cql_password = ****\n"), "{run}");
    medusa.env("CQL_PASSWORD", MARK);
    let run = watched(&medusa, &["-vvv", "config"]).expect_code(0);
    assert!(run.stderr.contains("CQL_PASSWORD is deprecated"), "{run}");
}
