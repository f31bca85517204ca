//! What the demonstrations do alike: run medusa in front of a person, ask the same questions before and after, and compare.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use crate::lab::cql::Session;
use crate::lab::medusa::Medusa;

/// Questions with their queries, and what was answered.
pub(crate) struct Answers<'a> {
    questions: &'a [(&'a str, &'a str)],
    rows: Vec<Vec<Vec<String>>>,
}

impl<'a> Answers<'a> {
    /// Asks, and shows how many rows there are.
    pub(crate) fn get(session: &Session, questions: &'a [(&'a str, &'a str)]) -> Self {
        let rows: Vec<_> = questions.iter().map(|(_, query)| session.rows(query)).collect();
        for ((question, _), rows) in questions.iter().zip(&rows) {
            println!("  {question:<20} {:>6} rows", rows.len());
        }
        Self { questions, rows }
    }

    /// Asks again, and says whether everything is as it was.
    pub(crate) fn compare(&self, session: &Session, begin: Instant) -> ExitCode {
        let now = Self::get(session, self.questions);
        for ((question, _), (old, new)) in self.questions.iter().zip(self.rows.iter().zip(&now.rows)) {
            if old != new {
                println!("\n  DIFFERENT: {question}");
                return ExitCode::FAILURE;
            }
        }
        println!("\n  every row and every answer is as before ({} s in all)", begin.elapsed().as_secs());
        ExitCode::SUCCESS
    }
}

/// The program beside this one: target/debug/examples/demo -> target/debug/medusa.
pub(crate) fn binary() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("medusa")
}

pub(crate) fn step(title: &str) {
    println!("\n== {title}");
}

/// Runs medusa as a person would see it.
pub(crate) fn run(medusa: &Medusa, arguments: &[&str]) {
    println!("\n$ medusa {}", arguments.join(" "));
    let status = medusa.prepare(arguments).stdout(Stdio::inherit()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success(), "medusa {arguments:?} ended with {status}");
}
