//! Upload, an unchanged backup and download, side by side with rclone and cassandra-medusa on the same `MinIO` and the same
//! files: large ones and many small ones, 16 transfers at a time.
//!
//! Interleaved, several rounds, medians. By environment: `BENCH_STORE_MIB` (1024), `BENCH_STORE_FILES` (10000), `BENCH_ROUNDS`
//! (3), `BENCH_PEER_LIMIT` (seconds after which cassandra-medusa is stopped, 60).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "this is a measurement")]

mod common;
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::files::{SMALL_SIZE, generate};
use common::{Measured, median, number, remove, rounds, settle, watched};
use lab::medusa::Medusa;
use lab::node::{Node, Options, Release};
use lab::stores::ObjectServer as _;
use lab::stores::minio::{self, Minio};
use lab::stores::recorder::Recorder;

const TRANSFERS: &str = "16";
const LARGE_FILES: u64 = 16;

struct Bench {
    minio: Minio,
    binary: PathBuf,
    node: Node,
    limit: Duration,
}

fn main() {
    let bench = Bench {
        minio: Minio::start(minio::Options::default()),
        binary: std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa"),
        node: Node::start(Options::new(Release::V5_0)),
        limit: Duration::from_secs(number("BENCH_PEER_LIMIT", 60)),
    };
    let (large, small) = (number("BENCH_STORE_MIB", 1024), number("BENCH_STORE_FILES", 10_000));
    println!(
        "large: {large} MiB in {LARGE_FILES} files; small: {small} files of {SMALL_SIZE} bytes; {} rounds",
        rounds()
    );
    println!("\n{:<8} {:<34} {:>9} {:>9} {:>10} {:>8}", "files", "what", "seconds", "x rclone", "aim", "peak MiB");
    let table = generate(&bench.node, "large", LARGE_FILES, (large << 20) / LARGE_FILES);
    bench.measure("large", &table, large << 20);
    bench.limited(&table, large << 20);
    let table = generate(&bench.node, "small", small, SMALL_SIZE);
    bench.measure("small", &table, small * SMALL_SIZE);
    bench.requests();
}

impl Bench {
    fn medusa(&self, bucket: &str, port: u16) -> Medusa {
        let mut medusa = Medusa::new(&self.binary, &self.node);
        medusa.use_store(&self.minio.settings_at(bucket, port));
        medusa.set("storage", "concurrent_transfers", TRANSFERS);
        // 0 is no limit here and none that cassandra-medusa knows.
        medusa.set("storage", "transfer_max_bandwidth", "100GB/s");
        medusa
    }

    fn rclone(&self, from: &str, to: &str) -> Command {
        let mut command = Command::new(lab::cache("tools/bin/rclone"));
        command.args(["copy", from, to, "--transfers", TRANSFERS, "--s3-no-check-bucket"]);
        let minio = &self.minio;
        for (name, value) in [
            ("TYPE", "s3"),
            ("PROVIDER", "Minio"),
            ("ACCESS_KEY_ID", &minio.user),
            ("SECRET_ACCESS_KEY", &minio.password),
            ("ENDPOINT", &minio.endpoint),
        ] {
            command.env(format!("RCLONE_CONFIG_LAB_{name}"), value);
        }
        command
    }

    fn measure(&self, name: &str, table: &std::path::Path, bytes: u64) {
        let mut runs: Vec<(&str, &str, Vec<Option<Measured>>)> = [
            ("rclone copy, up", ""),
            ("first backup", "1.0 x"),
            ("unchanged backup", if name == "small" { "2.0 s" } else { "" }),
            ("cassandra-medusa, first backup", ""),
            ("rclone copy, down", ""),
            ("download", "1.0 x"),
            ("cassandra-medusa, download", ""),
        ]
        .map(|(what, aim)| (what, aim, Vec::new()))
        .into();
        let source = table.join("snapshots/source");
        for round in 0..rounds() {
            let [ours, theirs, plain] =
                ["ours", "theirs", "plain"].map(|whose| self.minio.new_bucket(&format!("{name}-{whose}")));
            let (medusa, peer) = (self.medusa(&ours, self.minio.port), self.medusa(&theirs, self.minio.port));
            let mut timed = |at: usize, command: &mut Command, limit: Duration| {
                settle(bytes);
                runs[at].2.push(watched(command, limit).map(|(measured, _)| measured));
            };
            let remote = format!("lab:{plain}/source");
            timed(0, &mut self.rclone(&source.display().to_string(), &remote), Duration::MAX);
            for (at, what, peers) in [(1, "first", false), (2, "unchanged", false), (3, "theirs", true)] {
                let name = format!("{name}-{round}-{what}");
                let snapshot = table.join("snapshots").join(&name);
                std::fs::rename(&source, &snapshot).unwrap();
                let arguments = ["backup-node", "--backup-name", &name, "--use-existing-snapshot", "--keep-snapshot"];
                if peers {
                    timed(at, &mut peer.prepare_peer(&arguments), self.limit);
                } else {
                    timed(at, &mut medusa.prepare(&arguments), Duration::MAX);
                }
                std::fs::rename(&snapshot, &source).unwrap();
            }
            let copy = medusa.folder.path().join("copy");
            let target = copy.display().to_string();
            timed(4, &mut self.rclone(&remote, &target), Duration::MAX);
            remove(&copy);
            std::fs::create_dir_all(&copy).unwrap();
            let first = format!("{name}-{round}-first");
            let arguments = ["download", "--backup-name", &first, "--download-destination", &target];
            timed(5, &mut medusa.prepare(&arguments), Duration::MAX);
            remove(&copy);
            std::fs::create_dir_all(&copy).unwrap();
            // What it may not have finished, it cannot download: ours.
            let reader = self.medusa(&ours, self.minio.port);
            timed(6, &mut reader.prepare_peer(&arguments), self.limit);
            remove(&copy);
        }
        for (what, aim, measured) in &runs {
            let base = &runs[if what.contains("down") { 4 } else { 0 }].2;
            let seconds = |measured: &[Option<Measured>]| {
                let all: Option<Vec<Measured>> = measured.iter().copied().collect();
                all.map(|all| median(&all))
            };
            let base = seconds(base).unwrap().time.as_secs_f64();
            match seconds(measured) {
                Some(middle) => {
                    let time = middle.time.as_secs_f64();
                    let memory = middle.memory as f64 / 1024.0;
                    println!("{name:<8} {what:<34} {time:>9.2} {:>9.2} {aim:>10} {memory:>8.0}", time / base);
                }
                None => println!("{name:<8} {what:<34} {:>9}", format!("> {}", self.limit.as_secs())),
            }
        }
    }

    /// What passes where 100 MB/s may, both ways.
    fn limited(&self, table: &std::path::Path, bytes: u64) {
        let mut medusa = self.medusa(&self.minio.new_bucket("limited"), self.minio.port);
        medusa.set("storage", "transfer_max_bandwidth", "100MB/s");
        let (source, snapshot) = (table.join("snapshots/source"), table.join("snapshots/limited"));
        let copy = medusa.folder.path().join("copy");
        std::fs::create_dir_all(&copy).unwrap();
        let target = copy.display().to_string();
        let backup = ["backup-node", "--backup-name", "limited", "--use-existing-snapshot", "--keep-snapshot"];
        let download = ["download", "--backup-name", "limited", "--download-destination", &target];
        std::fs::rename(&source, &snapshot).unwrap();
        // Steps below ten seconds are said in tenths.
        let files = std::fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().path());
        let spared = files.max_by_key(|file| file.metadata().unwrap().len()).unwrap();
        let aside = table.join(spared.file_name().unwrap());
        std::fs::rename(&spared, &aside).unwrap();
        let moved = (bytes - aside.metadata().unwrap().len()) as f64 / f64::from(1 << 20);
        println!("\ntransfer_max_bandwidth of 100 MB/s (of 1024 x 1024 bytes), aim within 5 %");
        for (what, arguments) in [("backup", &backup[..]), ("download", &download)] {
            settle(bytes);
            let run = medusa.ok(arguments);
            // The step alone: the whole command takes its snapshot and compares digests, too.
            let step = if what == "backup" { "upload" } else { "download" };
            let line = run.stderr.lines().rfind(|line| line.trim_start().starts_with(step)).unwrap();
            let took = line.trim_end().strip_suffix(" s").and_then(|line| line.rsplit(' ').next()).unwrap();
            let rate = moved / took.parse::<f64>().unwrap();
            println!("{what:<8} {moved} MiB in {took} s: {rate:.1} MB/s");
        }
        std::fs::rename(&aside, &spared).unwrap();
        std::fs::rename(&snapshot, &source).unwrap();
        remove(&copy);
    }

    /// Requests of a backup of three files, and of 10,000 unchanged ones.
    fn requests(&self) {
        println!("\nrequests, aim 20 for a first backup of 3 files and 30 for an unchanged one of 10,000");
        for files in [3, 10_000] {
            let bucket = self.minio.new_bucket("requests");
            let recorder = Recorder::start(&self.minio.endpoint, []);
            let medusa = self.medusa(&bucket, recorder.port);
            let table = generate(&self.node, &format!("requests{files}"), files, SMALL_SIZE);
            for what in ["first", "unchanged"] {
                let name = format!("{what}-{files}");
                let (source, snapshot) = (table.join("snapshots/source"), table.join("snapshots").join(&name));
                std::fs::rename(&source, &snapshot).unwrap();
                let before = recorder.requests().len();
                medusa.ok(&["backup-node", "--backup-name", &name, "--use-existing-snapshot", "--keep-snapshot"]);
                std::fs::rename(&snapshot, &source).unwrap();
                println!("{what} backup of {files} files: {}", recorder.requests().len() - before);
            }
        }
    }
}
