//! First backup, unchanged backup and download, side by side with `cp -r` on the same files: large ones and many small ones.
//!
//! Also the same first backup by a build without hashes, digest checks and conditional creates (`benches/unchecked.sh`): what
//! these cost.
//!
//! Interleaved, several rounds, medians. Sizes by environment: `BENCH_LARGE_MIB` (4096), `BENCH_SMALL_FILES` (40000),
//! `BENCH_ROUNDS` (3).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "this is a measurement")]

mod common;
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::files::{SMALL_SIZE, generate};
use common::{Measured, median, number, remove, rounds, timed};
use lab::medusa::Medusa;
use lab::node::{Node, Options, Release};

const LARGE_FILES: u64 = 40;

/// A set of files in the place of a snapshot.
struct Files {
    name: &'static str,
    table: PathBuf,
    bytes: u64,
    /// Limit for a first backup and a download, in times of `cp -r`.
    aim: f64,
}

fn main() {
    let node = Node::start(Options::new(Release::V5_0));
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    let medusa = Medusa::new(&binary, &node);
    let unchecked = Medusa::new(&build_unchecked(), &node);
    let large = number("BENCH_LARGE_MIB", 4096);
    let small = number("BENCH_SMALL_FILES", 40_000);
    println!(
        "large: {large} MiB in {LARGE_FILES} files; small: {small} files of {SMALL_SIZE} bytes; {} rounds",
        rounds()
    );
    println!("\n{:<8} {:<34} {:>9} {:>9} {:>10} {:>8}", "files", "what", "seconds", "x cp -r", "aim", "peak MiB");
    let sets = [
        Files {
            name: "large",
            table: generate(&node, "large", LARGE_FILES, (large << 20) / LARGE_FILES),
            bytes: large << 20,
            aim: 1.2,
        },
        Files {
            name: "small",
            table: generate(&node, "small", small, SMALL_SIZE),
            bytes: small * SMALL_SIZE,
            aim: 1.5,
        },
    ];
    for set in &sets {
        measure(set, &medusa, &unchecked);
    }
}

/// The program without what makes a backup safe.
fn build_unchecked() -> PathBuf {
    let built = Command::new(lab::project().join("benches/unchecked.sh")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "benches/unchecked.sh failed");
    String::from_utf8(built.stdout).unwrap().trim().into()
}

fn measure(set: &Files, medusa: &Medusa, unchecked: &Medusa) {
    let mut runs: Vec<(&str, Vec<Measured>)> =
        ["cp -r", "cp -r, then sync", "first backup", "unchanged backup", "download", "first backup, unchecked"]
            .map(|what| (what, Vec::new()))
            .into();
    let copy = medusa.folder.path().join("copy");
    let source = set.table.join("snapshots/source");
    for round in 0..rounds() {
        remove(&copy);
        let copied = timed(set.bytes, Command::new("cp").arg("-r").arg(&source).arg(&copy));
        runs[0].1.push(copied);
        remove(&copy);
        let both = format!("cp -r {} {} && sync -f {}", source.display(), copy.display(), copy.display());
        runs[1].1.push(timed(set.bytes, Command::new("sh").args(["-c", &both])));
        remove(&copy);

        for (position, what) in [(2, "first"), (3, "unchanged")] {
            let name = format!("{}-{round}-{what}", set.name);
            let snapshot = set.table.join("snapshots").join(&name);
            std::fs::rename(&source, &snapshot).unwrap();
            let arguments = ["backup-node", "--backup-name", &name, "--use-existing-snapshot", "--keep-snapshot"];
            runs[position].1.push(timed(set.bytes, &mut medusa.prepare(&arguments)));
            std::fs::rename(&snapshot, &source).unwrap();
        }
        std::fs::create_dir_all(&copy).unwrap();
        let name = format!("{}-{round}-first", set.name);
        let target = copy.display().to_string();
        let arguments = ["download", "--backup-name", &name, "--download-destination", &target];
        runs[4].1.push(timed(set.bytes, &mut medusa.prepare(&arguments)));
        remove(&copy);
        remove(&medusa.bucket());

        let name = format!("{}-{round}-unchecked", set.name);
        let snapshot = set.table.join("snapshots").join(&name);
        std::fs::rename(&source, &snapshot).unwrap();
        let arguments = ["backup-node", "--backup-name", &name, "--use-existing-snapshot", "--keep-snapshot"];
        runs[5].1.push(timed(set.bytes, &mut unchecked.prepare(&arguments)));
        std::fs::rename(&snapshot, &source).unwrap();
        remove(&unchecked.bucket());
    }
    let base = median(&runs[0].1).time.as_secs_f64();
    for (what, measured) in &runs {
        let middle = median(measured);
        let seconds = middle.time.as_secs_f64();
        let aim = match *what {
            "first backup" | "download" => format!("{:.1} x", set.aim),
            "unchanged backup" if set.name == "small" => "1.0 s".to_owned(),
            _ => String::new(),
        };
        let memory = if middle.memory > 0 { format!("{:.0}", middle.memory as f64 / 1024.0) } else { String::new() };
        println!("{:<8} {what:<34} {seconds:>9.2} {:>9.2} {aim:>10} {memory:>8}", set.name, seconds / base);
    }
}
