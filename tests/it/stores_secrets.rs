//! What opens an object store is shown by no command: not in results, messages, logs and files, nor in the list of processes.

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use medusa::cli::args::Cli;
use serde_json::{Value, json};

use crate::lab::medusa::Medusa;
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::{Credentials, Minio, Options};
use crate::lab::{scratch, tree};
use crate::made;
use crate::secrets::watched_for;
use crate::stores_backup::with_files;
use crate::support::{medusa, program, shared_node, snapshot_folder};

/// In every secret that these tests make up.
const MARK: &str = "hush-hush";

/// Base64 of 32 bytes with that in them.
const SSE_C: &str = "aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoLWh1c2gtaHU=";

/// What must not be seen.
struct Secrets(Vec<String>);

impl Secrets {
    fn new(secrets: &[&str]) -> Self {
        let all = secrets.iter().chain(&[MARK, SSE_C]).map(|secret| (*secret).to_owned()).collect::<Vec<_>>();
        assert!(all.iter().all(|secret| secret.len() > 5), "{all:?}");
        Self(all)
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().any(|secret| text.contains(secret))
    }

    /// Runs a command with all messages that there are.
    #[track_caller]
    fn check(&self, medusa: &Medusa, words: &[&str], codes: &[i32]) {
        let run = watched_for(medusa, &[&["-vvv"], words].concat(), |bytes| self.are_in(bytes));
        println!("{} ended with {}", run.command, run.code);
        assert!(codes.contains(&run.code), "{run}");
    }

    /// Nothing that was written holds one, but what gives them.
    #[track_caller]
    fn check_files(&self, folder: &Path, given: &[&str]) {
        for (path, content) in tree(folder) {
            assert!(given.contains(&path.as_str()) || !self.are_in(&content), "{path} holds a secret");
        }
    }
}

/// Everything goes into a log.
fn log_all(medusa: &mut Medusa) {
    let log = medusa.folder.path().join("medusa.log").display().to_string();
    for (key, value) in [("enabled", "True"), ("file", &log), ("level", "NOTSET")] {
        medusa.set("logging", key, value);
    }
}

/// The commands, in an order that works, with the exit codes that they may have. None of the hosts is reached by ssh.
const ROWS: [(&str, &[i32]); 26] = [
    (
        "init --dry-run --provider s3_compatible --host 127.0.0.1 --bucket-name {bucket} --key-file {key_file} \
         --set storage.port={port} --set storage.ca_file={ca}",
        &[0],
    ),
    ("storage-check", &[0]),
    ("backup-node --backup-name b1 --use-existing-snapshot --dry-run", &[0]),
    ("backup-node --backup-name b1 --use-existing-snapshot --keep-snapshot", &[0]),
    ("backup-node --backup-name b2 --use-existing-snapshot --keep-snapshot --output json", &[0]),
    ("backup-cluster --backup-name b3 --hosts {fqdn}", &[1]),
    ("doctor", &[0, 3]),
    ("list-backups --show-all", &[0]),
    ("status --backup-name b1", &[0]),
    ("verify --all --read-data", &[0]),
    ("verify --repository", &[0]),
    ("download --backup-name b1 --download-destination {target}", &[0]),
    // The node belongs to other tests, too.
    ("restore-node --backup-name b1 --dry-run", &[0]),
    ("restore-cluster --backup-name b1 --dry-run", &[1]),
    ("fetch-tokenmap --backup-name b1", &[0]),
    ("get-last-complete-cluster-backup", &[0]),
    ("report-last-backup --push-metrics", &[0]),
    ("build-index", &[0]),
    ("purge --all-nodes --output json", &[0]),
    ("purge-decommissioned", &[0]),
    ("leases", &[0]),
    ("leases --break {fqdn}", &[1]),
    ("config", &[0]),
    ("delete-backup --backup-name b1", &[0]),
    ("completions bash", &[0]),
    ("man-pages {target}", &[0]),
];

#[test]
fn p7_no_command_shows_a_secret() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(ROWS.iter().any(|(line, _)| line.split(' ').next() == Some(name)), "{name} is not run here");
    }
    // By https all of them are in use.
    let minio = Minio::start(Options { tls: true, kms: None });
    let bucket = minio.new_bucket("secrets");
    let all = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"},
    ]});
    let given = minio.restricted(&all);
    let secrets = Secrets::new(&[&given.secret_key, given.session_token.as_ref().unwrap()]);
    let node = shared_node();
    let mut medusa = medusa(node);
    with_files(&mut medusa, 2, 2 << 20);
    let snapshot = snapshot_folder(&medusa.folder.path().join("data"), "b2");
    std::fs::write(snapshot.join("nb-9-big-Index.db"), "content").unwrap();
    medusa.use_store(&minio.settings(&bucket));
    let key_file = minio.key_file(&given).display().to_string();
    medusa.set("storage", "key_file", &key_file);
    medusa.set("storage", "sse_c_key", SSE_C);
    for (user, key) in [("cql_username", "cql_password"), ("nodetool_username", "nodetool_password")] {
        medusa.set("cassandra", user, "operator");
        medusa.set("cassandra", key, &format!("{MARK}-{key}"));
    }
    for key in ["sstableloader_tspw", "sstableloader_kspw"] {
        medusa.set("cassandra", key, &format!("{MARK}-{key}"));
    }
    let ssh = program(&medusa, "ssh", "exit 255\n");
    medusa.set("ssh", "ssh_program", &ssh);
    medusa.set("ssh", "reconnect_timeout", "1");
    medusa.set("monitoring", "monitoring_provider", "local");
    log_all(&mut medusa);
    let target = medusa.folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let values = [
        ("{bucket}", bucket.clone()),
        ("{key_file}", key_file),
        ("{port}", minio.port.to_string()),
        ("{ca}", minio.ca.as_ref().unwrap().display().to_string()),
        ("{fqdn}", node.address.clone()),
        ("{target}", target.display().to_string()),
    ];
    let filled = |word: &str| values.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value));
    for (line, codes) in ROWS {
        let words: Vec<_> = line.split_whitespace().map(filled).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        secrets.check(&medusa, &words, codes);
        let command = Cli::try_parse_from([&["medusa"][..], &words[..]].concat()).unwrap().command;
        if !command.writes() || command.is_dry_run() {
            secrets.check(&medusa, &[&words[..], &["--output", "json"]].concat(), codes);
        }
    }
    let objects = minio.objects(&bucket);
    let data = objects.keys().find(|key| key.contains("/data/")).unwrap();
    let without_key = minio.attempt_as(&minio.credentials(), "get", &json!({ "bucket": bucket, "key": data }));
    assert!(without_key.is_err(), "it is not encrypted");
    assert!(std::fs::metadata(medusa.folder.path().join("medusa.log")).unwrap().len() > 0);
    secrets.check_files(medusa.folder.path(), &["medusa.ini"]);
}

/// Else the tests of this file prove nothing.
#[test]
fn what_is_on_a_command_line_is_seen() {
    let medusa = made::medusa();
    let word = "seen-on-the-command-line";
    let shows = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(word);
    let run = || watched_for(&medusa, &["--fqdn", word, "completions", "bash"], shows);
    let run = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    // It may be over before anybody looks.
    let seen = (0..20).find_map(|_| run().err()).expect("nobody saw it");
    let text = seen.downcast_ref::<String>().unwrap();
    assert!(text.contains("medusa.ini\0--fqdn\0"), "{text:?}");
}

#[test]
fn p7_credentials_that_do_not_work_are_as_secret() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("secrets");
    let folder = scratch("secrets");
    let secrets = Secrets::new(&[&minio.password]);
    let mut medusa = made::medusa();
    medusa.use_store(&minio.settings(&bucket));
    log_all(&mut medusa);
    let right = minio.credentials();
    for wrong in [
        Credentials { access_key: "nobody".into(), ..right.clone() },
        Credentials { secret_key: format!("{MARK}-key"), ..right.clone() },
        Credentials { session_token: Some(format!("{MARK}-token")), ..right.clone() },
    ] {
        medusa.set("storage", "key_file", &minio.key_file(&wrong).display().to_string());
        secrets.check(&medusa, &["list-backups"], &[1]);
        secrets.check(&medusa, &["storage-check"], &[3]);
    }
    let key_file = folder.path().join("credentials");
    medusa.set("storage", "key_file", &key_file.display().to_string());
    for broken in [
        format!("[default]\naws_access_key_id = x\naws_secret_access_key {MARK}\n"),
        format!("[default]\naws_access_key_id = x\n{MARK}\n"),
        format!("aws_secret_access_key = {MARK}\n"),
        format!("{{\"aws_secret_access_key\": \"{MARK}\"}}"),
        format!("[default\naws_secret_access_key = {MARK}\n"),
    ] {
        std::fs::write(&key_file, broken).unwrap();
        secrets.check(&medusa, &["list-backups"], &[1, 2]);
    }
    // A key that the server does not take over http.
    medusa.set("storage", "key_file", &minio.key_file(&right).display().to_string());
    medusa.set("storage", "sse_c_key", SSE_C);
    secrets.check(&medusa, &["config"], &[0]);
    secrets.check(&medusa, &["storage-check"], &[3]);
    // It is no key.
    medusa.set("storage", "sse_c_key", MARK);
    secrets.check(&medusa, &["config"], &[2]);
    secrets.check_files(medusa.folder.path(), &["medusa.ini"]);
}

const FEW: [&[&str]; 6] = [
    &["config"],
    &["config", "--output", "json"],
    &["storage-check"],
    &["storage-check", "--output", "json"],
    &["list-backups", "--show-all"],
    &["build-index"],
];

#[test]
fn p7_no_command_shows_a_key_of_google() {
    let gcs = FakeGcs::shared();
    let mut medusa = made::medusa();
    medusa.use_store(&gcs.settings(&gcs.new_bucket("secrets")));
    log_all(&mut medusa);
    let secrets = Secrets::new(&[]);
    let key_file = medusa.folder.path().join("account.json");
    medusa.set("storage", "key_file", &key_file.display().to_string());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n");
    let account = |is_open: bool, private_key: &str| {
        json!({
            "type": "service_account",
            "gcs_base_url": gcs.endpoint,
            "disable_oauth": is_open,
            "client_email": "lab@example.net",
            "private_key": private_key,
            "private_key_id": "1",
        })
    };
    std::fs::write(&key_file, account(true, &pem).to_string()).unwrap();
    for words in FEW {
        secrets.check(&medusa, words, &[0]);
    }
    let whole = account(false, &pem).to_string();
    for broken in [
        whole.clone(),
        account(false, MARK).to_string(),
        account(false, &format!("{MARK} {pem}")).to_string(),
        account(false, &pem.replace("-----END", MARK)).to_string(),
        whole.replace("\"private_key\":", "\"private_key\" "),
        whole.replace("\"private_key\":", "\"private_key\": 1, \"key\":"),
        whole.replace("service_account", "authorized_user"),
        whole.replace("service_account", "no_such_account"),
        // As `jq -r .private_key` gives it, and `jq`.
        pem.clone(),
        json!(pem).to_string(),
    ] {
        std::fs::write(&key_file, broken).unwrap();
        secrets.check(&medusa, &["list-backups"], &[2]);
    }
    secrets.check_files(medusa.folder.path(), &["account.json"]);
}

#[test]
fn p7_no_command_shows_a_key_of_azure() {
    let azurite = Azurite::shared();
    let mut medusa = made::medusa();
    medusa.use_store(&azurite.settings(&azurite.new_bucket("secrets")));
    log_all(&mut medusa);
    let account: Value = serde_json::from_slice(&std::fs::read(azurite.key_file()).unwrap()).unwrap();
    let key = account["key"].as_str().unwrap();
    let secrets = Secrets::new(&[key]);
    for words in FEW {
        secrets.check(&medusa, words, &[0]);
    }
    let key_file = medusa.folder.path().join("account.json");
    medusa.set("storage", "key_file", &key_file.display().to_string());
    let wrong = json!({ "storage_account": account["storage_account"], "key": SSE_C });
    std::fs::write(&key_file, wrong.to_string()).unwrap();
    secrets.check(&medusa, &["list-backups"], &[1]);
    secrets.check(&medusa, &["storage-check"], &[3]);
    for broken in [
        json!({ "storage_account": "a", "key": format!("no base64: {key}") }).to_string(),
        json!({ "storage_account": "a", "key": [key] }).to_string(),
        format!("{{\"storage_account\": \"a\", \"key\": \"{key}\" x"),
        json!(key).to_string(),
        key.to_owned(),
    ] {
        std::fs::write(&key_file, broken).unwrap();
        secrets.check(&medusa, &["list-backups"], &[2]);
    }
    secrets.check_files(medusa.folder.path(), &["account.json"]);
}
