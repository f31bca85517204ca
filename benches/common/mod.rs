//! Running a program and measuring it.

#![allow(unreachable_pub, dead_code, reason = "each bench uses a part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab;

/// What one run took.
#[derive(Clone, Copy)]
pub struct Measured {
    pub time: Duration,
    /// Largest resident set, KiB; 0 where it was not looked at.
    pub memory: u64,
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
