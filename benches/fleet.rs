//! What an operator asks of a fleet's bucket that cassandra-medusa wrote: as it is, after `build-index`, and with
//! cassandra-medusa itself.
//!
//! `BENCH_FLEET`: buckets as nodes x backups x files of each backup, with `+data` where the files themselves are there (sparse),
//! made one after the other and removed. `BENCH_ROUNDS` (3): runs of ours, of which the median counts; cassandra-medusa runs
//! once. `BENCH_PEER_LIMIT` (60): seconds after which it is stopped.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "this is a measurement")]

mod common;
#[path = "common/fleet.rs"]
mod generator;
#[path = "../tests/lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Measured, median, number, rounds, watched};
use generator::Fleet;
use lab::medusa::Medusa;

const BUCKETS: &str = "60x10x28700 10x5x28700+data 180x1x28700";

/// What is asked, and the most seconds that it should take without and with summaries.
struct Question {
    arguments: Vec<String>,
    aim: [f64; 2],
    peer: Peer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// It has the command and prints the same.
    Same,
    /// It has the command and prints in another way.
    Other,
    None,
}

/// Peak memory, MiB.
const MEMORY_AIM: f64 = 128.0;
/// Bytes of manifests per second of processor time.
const PARSING_AIM: f64 = 300e6;

fn main() {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa");
    let buckets = std::env::var("BENCH_FLEET").unwrap_or_else(|_| BUCKETS.to_owned());
    for bucket in buckets.split_whitespace() {
        let fleet: Fleet = bucket.parse().unwrap_or_else(|()| panic!("{bucket:?} is not like 60x10x28700+data"));
        let mut medusa = Medusa::without_node(&binary);
        medusa.set("storage", "fqdn", &generator::host(0));
        measure(&medusa, fleet);
    }
}

fn questions(fleet: Fleet) -> Vec<Question> {
    let last = generator::name(fleet.backups - 1);
    let question = |words: &str, aim: [f64; 2], peer: Peer| {
        let arguments = words.split(' ').map(|word| if word == "LAST" { last.clone() } else { word.to_owned() });
        Question { arguments: arguments.collect(), aim, peer }
    };
    let mut questions: Vec<_> = [
        ("list-backups --show-all", Peer::Same),
        ("list-backups --show-all --output json", Peer::Same),
        ("status --backup-name LAST", Peer::Same),
        ("status --backup-name LAST --output json", Peer::Same),
        ("report-last-backup", Peer::Other),
        ("get-last-complete-cluster-backup", Peer::Same),
    ]
    .into_iter()
    .map(|(words, peer)| question(words, [1.0, 0.3], peer))
    .collect();
    if fleet.has_data {
        questions.push(question("verify --backup-name LAST", [15.0, 15.0], Peer::Same));
        questions.push(question("verify --all", [15.0, 15.0], Peer::None));
    }
    questions
}

fn measure(medusa: &Medusa, fleet: Fleet) {
    let (bytes, took) = fleet.write(&medusa.bucket());
    println!(
        "\n{} nodes x {} backups x {} files{}: {:.2} GiB of manifests, written in {:.0} s; {} rounds",
        fleet.nodes,
        fleet.backups,
        fleet.files,
        if fleet.has_data { " with data" } else { "" },
        bytes as f64 / f64::from(1 << 30),
        took.as_secs_f64(),
        rounds()
    );
    let questions = questions(fleet);
    let as_written: Vec<_> = questions.iter().map(|question| ours(medusa, question)).collect();
    let theirs: Vec<_> =
        questions.iter().zip(&as_written).map(|(question, ours)| theirs(medusa, question, ours)).collect();
    let (built, _) = watched(&mut medusa.prepare(&["build-index"]), Duration::MAX).unwrap();
    let with_summaries: Vec<_> = questions.iter().map(|question| ours(medusa, question)).collect();

    let columns = format!("{:>8} {:>6} {:>9}", "seconds", "MiB", "requests");
    println!(
        "{:<46} {:<27} {:<27} {:<26} aim, s",
        "", "as cassandra-medusa wrote it", "with summaries", "cassandra-medusa"
    );
    println!("{:<46} {columns}   {columns}   {columns}", "");
    for (((question, before), after), theirs) in questions.iter().zip(&as_written).zip(&with_summaries).zip(&theirs) {
        let what = question.arguments.join(" ");
        let [slow, quick] = question.aim;
        println!("{what:<46} {}   {}   {theirs}   {slow} / {quick}", before.columns(), after.columns());
    }
    println!("{:<46} {}", "build-index", columns_of(built, None));
    let worst = as_written.iter().chain(&with_summaries).map(|told| told.measured.memory).max().unwrap_or(0);
    println!(
        "requests: system calls that name something in the bucket; largest peak of the questions: {:.0} MiB (aim {MEMORY_AIM})",
        worst as f64 / 1024.0
    );
    let parsing = as_written[1].measured.processor.as_secs_f64();
    println!(
        "manifests read at {:.0} MB/s of processor time (aim {:.0}): {bytes} bytes in {parsing:.1} s",
        bytes as f64 / parsing / 1e6,
        PARSING_AIM / 1e6
    );
}

struct Told {
    measured: Measured,
    requests: Option<u64>,
    stdout: Vec<u8>,
}

impl Told {
    fn columns(&self) -> String {
        columns_of(self.measured, self.requests)
    }
}

fn columns_of(measured: Measured, requests: Option<u64>) -> String {
    let requests = requests.map_or_else(|| "-".to_owned(), |requests| requests.to_string());
    format!("{:>8.2} {:>6.0} {requests:>9}", measured.time.as_secs_f64(), measured.memory as f64 / 1024.0)
}

fn ours(medusa: &Medusa, question: &Question) -> Told {
    let arguments: Vec<_> = question.arguments.iter().map(String::as_str).collect();
    let run = || watched(&mut medusa.prepare(&arguments), Duration::MAX).unwrap();
    let (runs, mut printed): (Vec<_>, Vec<_>) = (0..rounds()).map(|_| run()).unzip();
    let requests = requests(&medusa.bucket(), &medusa.prepare(&arguments), Duration::MAX);
    Told { measured: median(&runs), requests, stdout: printed.pop().unwrap() }
}

/// Columns of cassandra-medusa. Where it comes to an end it has printed the same, so it was asked about the same.
fn theirs(medusa: &Medusa, question: &Question, ours: &Told) -> String {
    let empty = format!("{:>8} {:>6} {:>9}", "-", "-", "-");
    if question.peer == Peer::None {
        return empty;
    }
    let arguments: Vec<_> = question.arguments.iter().map(String::as_str).collect();
    let limit = Duration::from_secs(number("BENCH_PEER_LIMIT", 60));
    let Some((measured, stdout)) = watched(&mut medusa.prepare_peer(&arguments), limit) else {
        return format!("{:>8} {:>6} {:>9}", format!("> {}", limit.as_secs()), "-", "-");
    };
    // It tells nodes in the order in which they were listed.
    let parts =
        |printed: &[u8]| printed.split(|byte| b"{}".contains(byte)).map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
    let same = question.peer == Peer::Other || parts(&stdout) == parts(&ours.stdout);
    assert!(same, "cassandra-medusa prints something else for {arguments:?}:\n{}", String::from_utf8_lossy(&stdout));
    columns_of(measured, requests(&medusa.bucket(), &medusa.prepare_peer(&arguments), 3 * limit))
}

/// How often a command goes to the bucket: system calls that name something in it, and readings of folders. `None` where they
/// cannot be traced, or not within the limit.
fn requests(bucket: &Path, command: &Command, limit: Duration) -> Option<u64> {
    let folder = tempfile::tempdir_in(bucket.parent()?.parent()?).unwrap();
    let counted = folder.path().join("counted");
    let count = format!("|grep -cF '{}' > '{}'", bucket.display(), counted.display());
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-qq", "-e", "trace=%file,getdents64", "-o", &count]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear().current_dir(command.get_current_dir()?);
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Command::new("strace").arg("-V").output().ok()?;
    watched(&mut traced, limit)?;
    // The shell that counts ends after what it counts.
    let text = || std::fs::read_to_string(&counted).ok()?.trim().parse().ok();
    (0..100).find_map(|_| {
        text().or_else(|| {
            std::thread::sleep(Duration::from_millis(10));
            None
        })
    })
}
