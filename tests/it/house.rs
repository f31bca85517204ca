//! The house is as `docs/architecture.md` says: calls go downwards, every file says what lives in it, and none grows without end.

use std::collections::BTreeSet;
use std::path::Path;

use crate::lab::project;

/// The parts of the program. Each may use those that come after it, and none before it.
const DOWNWARDS: [&str; 26] = [
    "cli",
    "commands",
    "init",
    "doctor",
    "cluster",
    "index",
    "purge",
    "verify",
    "backup",
    "restore",
    "storage_check",
    "listing",
    "context",
    "hooks",
    "screen",
    "monitoring",
    "cassandra",
    "storage",
    "exec",
    "interrupt",
    "config",
    "error",
    "explain",
    "files",
    "monitor",
    "model",
];

/// Path below `src/`, and the text without its tests.
fn sources() -> Vec<(String, String)> {
    let src = project().join("src");
    let files = walkdir::WalkDir::new(&src).into_iter().map(|entry| entry.unwrap().into_path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        (path.strip_prefix(&src).unwrap().display().to_string(), text)
    };
    files.map(|path| read(&path)).collect()
}

fn part(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn calls_go_downwards() {
    let sources = sources();
    let parts: BTreeSet<_> =
        sources.iter().map(|(file, _)| part(file)).filter(|p| !["lib", "main"].contains(p)).collect();
    assert_eq!(parts, BTreeSet::from(DOWNWARDS), "a part has no place in the order");
    let place = |name: &str| DOWNWARDS.iter().position(|known| *known == name);
    let mut upwards = BTreeSet::new();
    for (file, text) in &sources {
        // Tests may use what they need.
        if ["tests.rs", "made.rs"].iter().any(|end| file.ends_with(end)) {
            continue;
        }
        let own = place(part(file));
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for rest in text.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let other = place(&rest[..end]);
            if own.is_some() && other.is_some() && other < own {
                upwards.insert(format!("{file} uses {}", &rest[..end]));
            }
        }
        assert!(!text.contains("use crate::{"), "{file}: a line for each part");
    }
    assert!(upwards.is_empty(), "calls that go upwards: {upwards:#?}");
}

#[test]
fn every_file_says_what_lives_there_and_has_an_end() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "src/{file} begins with what lives in it");
        let lines = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().lines().count();
        assert!(lines <= 620, "src/{file} has {lines} lines: which two concepts are in it?");
    }
}
