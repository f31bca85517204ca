//! First backup, unchanged backup and download, side by side with `cp -r` on the same files: large ones and many small ones.
//!
//! Interleaved, several rounds, medians. Sizes by environment: `BENCH_LARGE_MIB` (4096), `BENCH_SMALL_FILES` (40000),
//! `BENCH_ROUNDS` (3).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "this is a measurement")]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::medusa::Medusa;
use lab::node::{Node, Options, Release};

const LARGE_FILES: u64 = 40;
const SMALL_SIZE: u64 = 3000;

/// A set of files in the place of a snapshot.
struct Files {
    name: &'static str,
    table: PathBuf,
    bytes: u64,
    /// Limit for a first backup and a download, in times of `cp -r`.
    aim: f64,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Measured {
    time: Duration,
    /// Largest resident set, KiB; 0 where it was not looked at.
    memory: u64,
}

fn main() {
    let node = Node::start(Options::new(Release::V5_0));
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    let medusa = Medusa::new(&binary, &node);
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
        measure(set, &medusa);
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rounds() -> usize {
    usize::try_from(number("BENCH_ROUNDS", 3)).unwrap()
}

/// A table whose snapshot folder holds generated files that look like SSTables.
fn generate(node: &Node, name: &str, files: u64, size: u64) -> PathBuf {
    let session = node.session();
    session.run(&format!(
        "CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}\nCREATE TABLE {name}.t (id int PRIMARY KEY)"
    ));
    let table = node.table_folders(name, "t").remove(0);
    let folder = table.join("snapshots/source");
    std::fs::create_dir_all(&folder).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; 1 << 20];
    for file in 1..=files {
        let mut left = size;
        // A Data.db would want a digest beside it.
        let component =
            ["Index.db", "Filter.db", "Statistics.db", "Summary.db", "TOC.txt"][usize::try_from(file % 5).unwrap()];
        let mut out = std::fs::File::create(folder.join(format!("nb-{file}-big-{component}"))).unwrap();
        while left > 0 {
            let now = usize::try_from(left.min(block.len() as u64)).unwrap();
            for chunk in block[..now.next_multiple_of(8).min(1 << 20)].chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_le_bytes());
            }
            out.write_all(&block[..now]).unwrap();
            left -= now as u64;
        }
    }
    table
}

fn measure(set: &Files, medusa: &Medusa) {
    let mut runs: Vec<(&str, Vec<Measured>)> =
        ["cp -r", "cp -r, then sync", "first backup", "unchanged backup", "download"]
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

fn median(measured: &[Measured]) -> Measured {
    let mut sorted = measured.to_vec();
    sorted.sort_by_key(|measured| measured.time);
    let memory = sorted.iter().map(|measured| measured.memory).max().unwrap_or(0);
    Measured { memory, ..sorted[sorted.len() / 2] }
}

/// Runs a command that fills so much page cache to its end, and watches its memory.
fn timed(bytes: u64, command: &mut Command) -> Measured {
    settle(bytes);
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let status = loop {
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        let peak =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        memory = memory.max(peak.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let time = begin.elapsed();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(status.success(), "{command:?} ended with {status}: {said}");
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        println!("{said}");
    }
    Measured { time, memory }
}

fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// Brings disk and memory into the same state before every run. ext4 avoids inodes that were freed in the last five seconds,
/// which costs whoever creates many files then; and the first use of a page costs much more in a virtual machine than the
/// next one, so as much memory as a run fills is used and freed right before it.
fn settle(bytes: u64) {
    let sync = || assert!(Command::new("sync").status().unwrap().success());
    sync();
    std::thread::sleep(Duration::from_secs(6));
    let ballast = lab::project().join("target/lab/ballast");
    let zeros = vec![0; 1 << 20];
    let mut file = std::fs::File::create(&ballast).unwrap();
    for _ in 0..bytes >> 20 {
        file.write_all(&zeros).unwrap();
    }
    drop(file);
    sync();
    std::fs::remove_file(ballast).unwrap();
}
