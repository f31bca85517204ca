//! Running a program and measuring it.

#![allow(unreachable_pub, dead_code, reason = "each bench uses a part")]

pub mod files;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab;

/// What one run took.
#[derive(Clone, Copy)]
pub struct Measured {
    pub time: Duration,
    /// Largest resident set, KiB; 0 where it was not looked at.
    pub memory: u64,
    /// Of all its threads.
    pub processor: Duration,
}

pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub fn rounds() -> usize {
    usize::try_from(number("BENCH_ROUNDS", 3)).unwrap()
}

pub fn median(measured: &[Measured]) -> Measured {
    let mut sorted = measured.to_vec();
    sorted.sort_by_key(|measured| measured.time);
    let memory = sorted.iter().map(|measured| measured.memory).max().unwrap_or(0);
    Measured { memory, ..sorted[sorted.len() / 2] }
}

/// Runs a command that fills so much page cache to its end, and watches its memory.
pub fn timed(bytes: u64, command: &mut Command) -> Measured {
    settle(bytes);
    watched(command, Duration::MAX).expect("there is no limit").0
}

/// Runs a command to its end, and gives what it took and what it printed. `None`: it took longer than the limit.
pub fn watched(command: &mut Command, limit: Duration) -> Option<(Measured, Vec<u8>)> {
    // Files, since a pipe that nobody reads would stop it.
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let begin = Instant::now();
    let mut child = command.spawn().unwrap();
    let (mut memory, mut processor) = (0, Duration::ZERO);
    let status = loop {
        let of_process =
            |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap_or_default();
        memory = memory.max(peak(&of_process("status")).unwrap_or(0));
        processor = processor.max(processor_time(&of_process("stat")).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let time = begin.elapsed();
    let said = String::from_utf8_lossy(&content(stderr)).into_owned();
    assert!(status.success(), "{command:?} ended with {status}: {said}");
    if std::env::var_os("BENCH_VERBOSE").is_some() {
        println!("{said}");
    }
    Some((Measured { time, memory, processor }, content(stdout)))
}

fn content(mut file: std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes
}

/// KiB, of proc(5) `status`.
fn peak(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

/// User and system time, of proc(5) `stat`: fields 14 and 15, in hundredths of a second.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

pub fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// Brings disk and memory into the same state before every run. ext4 avoids inodes that were freed in the last five seconds,
/// which costs whoever creates many files then; and the first use of a page costs much more in a virtual machine than the
/// next one, so as much memory as a run fills is used and freed right before it.
pub fn settle(bytes: u64) {
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
