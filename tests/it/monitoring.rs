//! Metrics: what cassandra-medusa sends, in its form, and what a Prometheus reads. Whatever happens to metrics, the command
//! goes on.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::lab::medusa::{Medusa, finish};
use crate::lab::{self, unique};
use crate::made::{self, begun, object};
use crate::support::{assert_fails, medusa, shared_node, wait_for, wrap_nodetool};

const FQDN: &str = "127.0.0.1";

/// A bucket with two finished backups and one that another node has not finished.
fn bucket(provider: &str) -> Medusa {
    let mut medusa = made::medusa();
    let objects = [object(FQDN, "nb-1-big-Data.db", "one"), object(FQDN, "nb-2-big-Data.db", "two two")];
    made::backup(&medusa.bucket(), FQDN, "b1", &[FQDN], &objects[..1]);
    made::backup(&medusa.bucket(), FQDN, "b2", &[FQDN], &objects);
    made::backup(&medusa.bucket(), FQDN, "b3", &[FQDN, "n2", "n3"], &objects[1..]);
    begun(&medusa.bucket(), "n2", "b3", &[FQDN, "n2", "n3"]);
    for (name, started) in [("b1", 1_700_000_000), ("b2", 1_700_001_000), ("b3", 1_700_002_000)] {
        let index = medusa.bucket().join("index/backup_index").join(name);
        let entry = |kind: &str, at: u64| index.join(format!("{kind}_{FQDN}_{at}.timestamp"));
        std::fs::rename(entry("started", 1_700_000_000), entry("started", started)).unwrap();
        std::fs::rename(entry("finished", 1_700_000_100), entry("finished", started + 100)).unwrap();
        // Of a node's last backup, Medusa takes the time of the file.
        let manifest = medusa.bucket().join(format!("{FQDN}/{name}/meta/manifest.json"));
        let finished = SystemTime::UNIX_EPOCH + Duration::from_secs(started + 100);
        std::fs::File::open(manifest).unwrap().set_modified(finished).unwrap();
    }
    let of_n2 = |at: u64| medusa.bucket().join(format!("index/backup_index/b3/started_n2_{at}.timestamp"));
    std::fs::rename(of_n2(1_700_000_000), of_n2(1_700_002_000)).unwrap();
    medusa.set("monitoring", "monitoring_provider", provider);
    medusa
}

/// An agent of Datadog, as far as packets go.
struct Agent(UdpSocket);

impl Agent {
    fn start(medusa: &mut Medusa) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        medusa.env("DD_DOGSTATSD_PORT", &socket.local_addr().unwrap().port().to_string());
        // Datadog's client adds the id of the container.
        medusa.env("DD_ORIGIN_DETECTION_ENABLED", "false");
        Self(socket)
    }

    /// Those that came since the last call. They are here when their sender has ended.
    fn packets(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut packets = Vec::new();
        while let Ok(length) = self.0.recv(&mut buffer) {
            packets.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        // What Datadog's client says of itself, once it has run for ten seconds.
        packets.retain(|packet| !packet.starts_with("datadog."));
        packets
    }

    /// Value and tags, by name.
    fn gauges(&self) -> BTreeMap<String, String> {
        let packets = self.packets();
        let gauge =
            |packet: &String| packet.split_once(':').map(|(name, rest)| (name.to_owned(), rest.trim_end().to_owned()));
        let gauges: BTreeMap<_, _> = packets.iter().map(|packet| gauge(packet).unwrap()).collect();
        assert_eq!(gauges.len(), packets.len(), "{packets:?}");
        gauges
    }
}

/// Packets and lines that tell an age, without it; of the others those whose name Medusa has.
fn as_medusa_sends(told: &[String]) -> Vec<String> {
    let ours = |told: &&String| {
        ["medusa-command", "medusa-purge", "medusa-verify", "timestamp", "file-count|", "uploaded"]
            .iter()
            .all(|part| !told.contains(part))
    };
    told.iter().filter(ours).map(|told| without_age(told)).collect()
}

fn without_age(told: &str) -> String {
    if !told.contains("seconds-since-backup") || told.contains("TRACKING-ERROR") {
        return told.to_owned();
    }
    // These backups are of 2023.
    let digits = |c: char| c.is_ascii_digit();
    let (first, rest) = told.split_at(told.rfind(": ").map_or_else(|| told.find(':').unwrap() + 1, |at| at + 2));
    let (age, rest) = rest.split_at(rest.find(|c| !digits(c)).unwrap_or(rest.len()));
    assert!(age.parse::<u64>().unwrap() > 1_000_000, "{told}");
    format!("{first}AGE{rest}")
}

/// The lines that a run added to `metrics.json`.
fn new_lines(medusa: &Medusa) -> Vec<String> {
    let path = medusa.folder.path().join("metrics.json");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    text.lines().map(without_age).collect()
}

/// What can be run without a node, and its exit codes in cassandra-medusa and here.
const COMMANDS: [(&[&str], i32, i32); 6] = [
    (&["report-last-backup"], 0, 0),
    (&["report-last-backup", "--push-metrics"], 0, 0),
    (&["purge"], 0, 0),
    (&["delete-backup", "--backup-name", "b1"], 0, 0),
    (&["delete-backup", "--backup-name", "none"], 1, 1),
    (&["list-backups"], 0, 0),
];

#[test]
fn metrics_json_is_that_of_cassandra_medusa() {
    let (ours, theirs) = (bucket("local"), bucket("local"));
    let mut told = 0;
    for (arguments, their_code, our_code) in COMMANDS {
        theirs.peer(arguments).expect_code(their_code);
        ours.run(arguments).expect_code(our_code);
        let (theirs, ours) = (new_lines(&theirs), new_lines(&ours));
        assert_eq!(ours, theirs, "{arguments:?}");
        told += ours.len();
    }
    assert_eq!(told, 7 + 1 + 1 + 1);
    // A second run begins with 0 again and goes on in the same file.
    for _ in 0..2 {
        ours.ok(&["purge"]);
    }
    let line = r#"{"seq": 0, "tags": ["medusa-node-backup", "purge-error", "PURGE-ERROR"], "value": 0}"#;
    assert_eq!(new_lines(&ours), [line, line]);
}

#[test]
fn packets_are_those_of_cassandra_medusa_and_ours_come_after_them() {
    for (with_name, environment) in [("False", None), ("True", None), ("True", Some(("DD_ENV", "lab")))] {
        let (mut ours, mut theirs) = (bucket("dog-statsd"), bucket("dog-statsd"));
        for medusa in [&mut ours, &mut theirs] {
            medusa.set("monitoring", "send_backup_name_tag", with_name);
            if let Some((name, value)) = environment {
                medusa.env(name, value);
            }
        }
        let (our_agent, their_agent) = (Agent::start(&mut ours), Agent::start(&mut theirs));
        for (arguments, their_code, our_code) in COMMANDS {
            theirs.peer(arguments).expect_code(their_code);
            ours.run(arguments).expect_code(our_code);
            let (theirs, ours) = (their_agent.packets(), our_agent.packets());
            let of_medusa: Vec<_> = theirs.iter().map(|packet| without_age(packet)).collect();
            assert_eq!(as_medusa_sends(&ours), of_medusa, "{arguments:?}: {ours:?}");
            assert!(ours.len() >= of_medusa.len() + 4, "{ours:?}");
            assert_eq!(as_medusa_sends(&ours[..of_medusa.len()]), of_medusa, "Medusa's come first");
        }
    }
}

#[test]
fn each_command_tells_how_it_ended_and_what_it_did() {
    let mut medusa = bucket("dog-statsd");
    medusa.set("storage", "max_backup_count", "1");
    medusa.set("storage", "backup_grace_period_in_days", "0");
    let agent = Agent::start(&mut medusa);
    let of_command = |gauges: &BTreeMap<String, String>, command: &str| {
        let value = |name: &str| {
            let (value, tags) = gauges[&format!("medusa-command.{name}")].split_once('|').unwrap();
            assert_eq!(tags, format!("g|#command:{command}"));
            value.to_owned()
        };
        assert!(value("last-run-timestamp").parse::<u64>().unwrap() > 1_700_000_000);
        (value("success"), value("exit-code"))
    };
    let told = |success: &str, code: &str| (success.to_owned(), code.to_owned());

    medusa.ok(&["list-backups"]);
    assert_eq!(of_command(&agent.gauges(), "list-backups"), told("1", "0"));
    medusa.run(&["status", "--backup-name", "none"]).expect_code(1);
    assert_eq!(of_command(&agent.gauges(), "status"), told("0", "1"));

    medusa.ok(&["verify", "--backup-name", "b2"]);
    let gauges = agent.gauges();
    assert_eq!((&*gauges["medusa-verify.problem-count"], of_command(&gauges, "verify")), ("0|g", told("1", "0")));
    std::fs::remove_file(medusa.bucket().join(object(FQDN, "nb-1-big-Data.db", "").path)).unwrap();
    medusa.run(&["verify", "--all"]).expect_code(3);
    let gauges = agent.gauges();
    // The object in two backups, and two nodes of b3.
    assert_eq!((&*gauges["medusa-verify.problem-count"], of_command(&gauges, "verify")), ("4|g", told("0", "3")));
    medusa.run(&["verify", "--repository"]);
    let gauges = agent.gauges();
    assert!(gauges.contains_key("medusa-verify.repository-problem-count"), "{gauges:?}");
    assert!(!gauges.contains_key("medusa-verify.problem-count"), "{gauges:?}");

    let deleted = medusa.ok(&["delete-backup", "--backup-name", "b1", "--output", "json"]).json();
    let gauges = agent.gauges();
    assert_eq!(gauges["medusa-purge.deleted-backup-count"], "1|g|#command:delete-backup");
    let objects = format!("{}|g|#command:delete-backup", deleted["deleted"][0]["objects"]);
    assert_eq!(gauges["medusa-purge.deleted-object-count"], objects);
    assert!(!gauges.contains_key("medusa-purge.kept-for-grace-count"), "nobody looked: {gauges:?}");

    let purged = medusa.ok(&["purge", "--allow-last", "--output", "json"]).json();
    let gauges = agent.gauges();
    assert_eq!(of_command(&gauges, "purge"), told("1", "0"));
    for (metric, value) in [
        ("deleted-backup-count", &Value::from(1)),
        ("deleted-object-count", &purged["deleted"]["objects"]),
        ("freed-size", &purged["deleted"]["bytes"]),
        ("kept-for-grace-count", &purged["nodes"][0]["pool"]["within_grace_period"]["objects"]),
    ] {
        assert_eq!(gauges[&format!("medusa-purge.{metric}")], format!("{value}|g|#command:purge"), "{metric}");
    }
    // A manifest that cannot be read keeps its node from being purged.
    std::fs::write(medusa.bucket().join(format!("{FQDN}/b3/meta/manifest.json")), "[").unwrap();
    medusa.run(&["purge"]).expect_code(3);
    let gauges = agent.gauges();
    assert_eq!(of_command(&gauges, "purge"), told("0", "3"));
    assert_eq!(gauges["medusa-node-backup.purge-error"], "1|g");
    // The summary of b3 is gone with its bucket.
    std::fs::remove_dir_all(medusa.base_path()).unwrap();
    std::fs::write(medusa.base_path(), "no folder").unwrap();
    medusa.run(&["report-last-backup", "--push-metrics"]).expect_code(1);
    let gauges = agent.gauges();
    assert_eq!(gauges["medusa-cluster-backup.seconds-since-backup"], "315365400|g");
    assert_eq!(of_command(&gauges, "report-last-backup"), told("0", "1"));
}

#[test]
fn nothing_is_sent_of_a_dry_run_nor_without_a_provider() {
    let mut medusa = bucket("local, dog-statsd, prometheus");
    let agent = Agent::start(&mut medusa);
    let textfiles = textfiles(&mut medusa);
    for words in ["purge --dry-run", "delete-backup --backup-name b1 --dry-run", "build-index --noop"] {
        medusa.ok(&words.split(' ').collect::<Vec<_>>());
    }
    medusa.set("monitoring", "monitoring_provider", "None");
    medusa.ok(&["purge"]);
    let run = medusa.ok(&["report-last-backup", "--push-metrics"]);
    assert!(run.stderr.contains("monitoring_provider in [monitoring] is None"), "{run}");
    assert_eq!((agent.packets(), new_lines(&medusa)), (vec![], vec![]));
    assert_eq!(std::fs::read_dir(textfiles).unwrap().count(), 0);
}

#[test]
fn an_unknown_provider_is_refused_with_the_choices() {
    let mut medusa = made::medusa();
    medusa.set("monitoring", "monitoring_provider", "graphite");
    let choices = ["monitoring_provider in [monitoring] is \"graphite\"", "None, local, dog-statsd, prometheus"];
    assert_fails(&medusa.run(&["list-backups"]), 2, &choices);
}

#[test]
fn what_cannot_be_sent_is_a_warning() {
    let mut medusa = bucket("local, dog-statsd, prometheus");
    medusa.env("DD_AGENT_HOST", "agent.invalid");
    std::fs::create_dir(medusa.folder.path().join("metrics.json")).unwrap();
    let missing = medusa.folder.path().join("no/such/medusa.prom");
    medusa.set("monitoring", "prometheus_textfile", missing.to_str().unwrap());
    let run = medusa.ok(&["purge"]);
    for part in [
        "WARNING: no metrics were sent (local): ",
        "metrics.json",
        "WARNING: no metrics were sent (dog-statsd): agent agent.invalid:8125, see DD_AGENT_HOST",
        "WARNING: no metrics were sent (prometheus): could not write ",
        "no/such/medusa_purge.prom, see prometheus_textfile in [monitoring]: ",
    ] {
        assert!(run.stderr.contains(part), "{part:?} is not in {run}");
    }
    // Somebody who only looks is not bothered.
    let run = medusa.ok(&["list-backups"]);
    assert!(run.stderr.is_empty(), "{run}");
    assert!(medusa.ok(&["-v", "list-backups"]).stderr.contains("DEBUG: no metrics were sent (prometheus)"));
}

/// A folder for textfiles, in the configuration.
fn textfiles(medusa: &mut Medusa) -> PathBuf {
    let folder = medusa.folder.path().join("textfiles");
    std::fs::create_dir(&folder).unwrap();
    medusa.set("monitoring", "prometheus_textfile", folder.join("medusa.prom").to_str().unwrap());
    folder
}

/// Reads the files as `node_exporter` does, with the parsers of Prometheus' own Python client: of its text format, and of
/// `OpenMetrics`, which forgives nothing.
const READ: &str = r##"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
from prometheus_client.parser import text_string_to_metric_families as plain

samples = []
for path in sys.argv[1:]:
    text = open(path, newline="").read()
    found = [
        {"file": path.rsplit("/", 1)[1], "name": s.name, "labels": s.labels, "value": s.value, "help": f.documentation, "type": f.type}
        for f in plain(text) for s in f.samples
    ]
    assert len(found) == sum(len(f.samples) for f in strict(text + "# EOF\n")), path
    samples += found
print(json.dumps(samples))
"##;

/// One sample of one file.
#[derive(Debug, serde::Deserialize)]
struct Sample {
    file: String,
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    help: String,
    r#type: String,
}

#[track_caller]
fn read(folder: &Path) -> Vec<Sample> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "prom"));
    let mut python = std::process::Command::new(lab::cache("prometheus/bin/python"));
    let run = finish(python.arg("-c").arg(READ).args(&files).output().unwrap(), "python", &[]).expect_code(0);
    let samples: Vec<Sample> = serde_json::from_str(&run.stdout).unwrap();
    // node_exporter refuses all files if two of them say the same, or explain it in two ways.
    let mut series = std::collections::BTreeSet::new();
    let mut helps = BTreeMap::new();
    for Sample { name, labels, help, r#type, .. } in &samples {
        assert!(series.insert((name, labels)), "{name} {labels:?} twice");
        assert_eq!(helps.entry(name).or_insert(help), &help);
        assert_eq!(r#type, "gauge");
    }
    samples
}

#[track_caller]
fn value(samples: &[Sample], file: &str, name: &str) -> f64 {
    let found = samples.iter().find(|sample| sample.file == file && sample.name == name);
    found.unwrap_or_else(|| panic!("{name} is not in {file}: {samples:?}")).value
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < f64::EPSILON
}

#[test]
fn textfiles_are_what_prometheus_reads_and_no_command_erases_anothers() {
    let mut medusa = bucket("prometheus");
    medusa.set("storage", "fqdn", "127.0.0.1");
    let folder = textfiles(&mut medusa);
    medusa.ok(&["report-last-backup", "--push-metrics"]);
    medusa.ok(&["verify", "--backup-name", "b2"]);
    medusa.run(&["verify", "--repository"]);
    medusa.ok(&["delete-backup", "--backup-name", "b1"]);
    // Whatever the umask, the collector runs as another user.
    let purge =
        format!("umask 077; exec {} --config-file {} purge", env!("CARGO_BIN_EXE_medusa"), medusa.ini().display());
    finish(std::process::Command::new("sh").args(["-c", &purge]).output().unwrap(), "sh", &[]).expect_code(0);

    let samples = read(&folder);
    let files: std::collections::BTreeSet<_> = samples.iter().map(|sample| sample.file.as_str()).collect();
    let expected = ["delete_backup", "purge", "report_last_backup", "verify"].map(|name| format!("medusa_{name}.prom"));
    assert_eq!(files, expected.iter().map(String::as_str).collect());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), files.len(), "nothing else is left");
    for file in &files {
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{file}");
        assert!(value(&samples, file, "medusa_command_last_run_timestamp_seconds") > 1_700_000_000.0);
    }
    for sample in &samples {
        assert_eq!(sample.labels["fqdn"], FQDN);
        assert!(!sample.labels.contains_key("backup_name"), "{sample:?}");
    }
    let report = |name: &str| value(&samples, "medusa_report_last_backup.prom", name);
    for (name, expected) in [
        ("medusa_last_node_backup_timestamp_seconds", 1_700_002_100.0),
        ("medusa_last_complete_backup_timestamp_seconds", 1_700_001_100.0),
        ("medusa_latest_backup_complete_nodes", 1.0),
        ("medusa_latest_backup_incomplete_nodes", 1.0),
        ("medusa_latest_backup_missing_nodes", 1.0),
        ("medusa_latest_backup_size_bytes", 7.0),
        ("medusa_latest_backup_files", 1.0),
    ] {
        assert!(same(report(name), expected), "{name} is {}", report(name));
    }
    // The second verify keeps what the first one found.
    for name in ["medusa_verify_problems", "medusa_verify_repository_problems"] {
        assert!(value(&samples, "medusa_verify.prom", name) >= 0.0);
    }

    medusa.set("monitoring", "send_backup_name_tag", "True");
    medusa.ok(&["report-last-backup", "--push-metrics"]);
    let samples = read(&folder);
    let named = samples.iter().find(|sample| sample.name == "medusa_latest_backup_files").unwrap();
    assert_eq!(named.labels["backup_name"], "b3");
}

#[test]
fn a_failed_run_says_so_and_keeps_what_was_known() {
    let mut medusa = bucket("prometheus");
    let folder = textfiles(&mut medusa);
    let of_report = |name: &str| value(&read(&folder), "medusa_report_last_backup.prom", name);
    medusa.ok(&["report-last-backup", "--push-metrics"]);
    assert!(same(of_report("medusa_command_success"), 1.0));
    std::fs::remove_dir_all(medusa.base_path()).unwrap();
    std::fs::write(medusa.base_path(), "no folder").unwrap();
    medusa.run(&["report-last-backup", "--push-metrics"]).expect_code(1);
    assert!(same(of_report("medusa_command_success"), 0.0) && same(of_report("medusa_command_exit_code"), 1.0));
    assert!(same(of_report("medusa_last_complete_backup_timestamp_seconds"), 1_700_001_100.0));
    // An empty bucket has no backup, and that is known.
    std::fs::remove_file(medusa.base_path()).unwrap();
    medusa.ok(&["report-last-backup", "--push-metrics"]);
    assert!(same(of_report("medusa_last_complete_backup_timestamp_seconds"), 0.0));
}

#[test]
fn a_reader_never_sees_half_a_textfile_and_commands_may_run_together() {
    let mut medusa = bucket("prometheus");
    let folder = textfiles(&mut medusa);
    let commands =
        ["purge", "build-index", "report-last-backup --push-metrics", "list-backups", "verify --backup-name b2"];
    for _ in 0..4 {
        let mut running: Vec<_> = commands.map(|words| medusa.spawn(&words.split(' ').collect::<Vec<_>>())).into();
        wait_for("the end of all commands", || {
            let names = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
            for path in names.filter(|path| path.extension().is_some_and(|extension| extension == "prom")) {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(
                    text.ends_with('\n') && text.contains("\nmedusa_command_last_run_timestamp_seconds{"),
                    "{text}"
                );
            }
            running.retain_mut(|child| child.try_wait().unwrap().is_none());
            running.is_empty()
        });
    }
    let samples = read(&folder);
    let commands: Vec<_> = samples.iter().filter(|sample| sample.name == "medusa_command_success").collect();
    assert_eq!(commands.len(), 5, "{commands:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5);
}

#[test]
fn a_backup_of_a_real_node_tells_the_same_to_everybody_as_cassandra_medusa() {
    let node = shared_node();
    let mut medusa = medusa(node);
    medusa.set("monitoring", "monitoring_provider", "local, dog-statsd, prometheus");
    medusa.set("monitoring", "send_backup_name_tag", "True");
    let agent = Agent::start(&mut medusa);
    let folder = textfiles(&mut medusa);
    let outcome = medusa.ok(&["backup-node", "--backup-name", "measured-1", "--output", "json"]).json();
    let lines = new_lines(&medusa);
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed.len(), 3, "{lines:?}");
    assert_eq!(parsed[0]["value"].as_f64().unwrap() > 0.0, parsed[0]["value"].is_f64());
    assert_eq!((&parsed[1]["value"], &parsed[2]["value"]), (&outcome["bytes"], &0.into()));
    let gauges = agent.gauges();
    for (metric, of_outcome) in [
        ("backup-size", "bytes"),
        ("backup-file-count", "files"),
        ("backup-uploaded-size", "uploaded_bytes"),
        ("backup-uploaded-file-count", "uploaded_files"),
        ("backup-finished-timestamp", "finished"),
    ] {
        let expected = format!("{}|g|#backup_name:measured-1", outcome[of_outcome]);
        assert_eq!(gauges[&format!("medusa-node-backup.{metric}")], expected);
    }
    let samples = read(&folder);
    for (name, of_outcome) in [
        ("medusa_backup_size_bytes", "bytes"),
        ("medusa_backup_files", "files"),
        ("medusa_backup_uploaded_bytes", "uploaded_bytes"),
        ("medusa_backup_uploaded_files", "uploaded_files"),
        ("medusa_backup_finished_timestamp_seconds", "finished"),
    ] {
        let told = value(&samples, "medusa_backup_node.prom", name);
        assert!(same(told, outcome[of_outcome].as_f64().unwrap()), "{name} is {told}");
    }
    assert!(value(&samples, "medusa_backup_node.prom", "medusa_backup_duration_seconds") > 0.0);

    // Theirs, of the same node: the same metrics with the same tags, and a size that differs by what was flushed meanwhile.
    medusa.set("monitoring", "monitoring_provider", "dog-statsd");
    let name = format!("theirs-{}", unique());
    medusa.peer_ok(&["backup-node", "--backup-name", &name]);
    let names = |gauges: &[String]| gauges.iter().map(|packet| without_value(packet, &name)).collect::<Vec<_>>();
    let theirs = agent.packets();
    medusa.ok(&["backup-node", "--backup-name", "measured-2"]);
    let ours = agent.packets().iter().map(|packet| packet.replace("measured-2", &name)).collect::<Vec<_>>();
    assert_eq!(names(&ours[..3]), names(&theirs));

    wrap_nodetool(&mut medusa, node, "exit 1\n");
    medusa.run(&["backup-node", "--backup-name", "measured-3"]).expect_code(1);
    let gauges = agent.gauges();
    assert_eq!(gauges["medusa-node-backup.backup-error"], "1|g|#backup_name:measured-3");
    assert!(!gauges.contains_key("medusa-node-backup.backup-size"), "{gauges:?}");
    medusa.peer(&["backup-node", "--backup-name", &name]).expect_code(1);
    assert_eq!(agent.packets(), [format!("medusa-node-backup.backup-error:1|g|#backup_name:{name}\n")]);
    medusa.set("monitoring", "monitoring_provider", "prometheus");
    medusa.run(&["backup-node", "--backup-name", "measured-4"]).expect_code(1);
    let samples = read(&folder);
    assert!(same(value(&samples, "medusa_backup_node.prom", "medusa_command_success"), 0.0));
    assert!(value(&samples, "medusa_backup_node.prom", "medusa_backup_finished_timestamp_seconds") > 1_700_000_000.0);
}

/// Name and tags of a packet, and what kind of number it brings.
fn without_value(packet: &str, name: &str) -> String {
    let (metric, rest) = packet.split_once(':').unwrap();
    let (value, rest) = rest.split_once('|').unwrap();
    assert!(rest.contains(name), "{packet}");
    let kind = if value.contains('.') { "seconds" } else { "whole" };
    format!("{metric} {kind} {rest}")
}
