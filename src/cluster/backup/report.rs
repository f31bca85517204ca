//! How the backup of a cluster went. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Failure;
use crate::model::backups::BackupMode;
use crate::model::look::{Look, Tone};
use crate::model::names::BackupName;
use crate::model::nearest::few;
use crate::model::table::{Column, Table};
use crate::model::units::{Zone, clock, count, counted, size, span};

/// How it stands on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Complete,
    /// An earlier run finished it.
    Before,
    Failed,
}

/// What became of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostOutcome {
    pub host: String,
    pub state: State,
    /// Whether its upload was begun.
    pub uploads: bool,
    /// The folder that it says it stored to.
    pub fqdn: Option<String>,
    pub files: Option<u64>,
    pub uploaded_bytes: Option<u64>,
    /// On this host, without waiting for a place.
    pub took: Duration,
    /// What went wrong, in a line. Also of a complete one, where something failed after the commit.
    pub problem: Option<String>,
    pub hint: Option<String>,
}

impl HostOutcome {
    pub fn failed(host: &str, problem: impl Into<String>, took: Duration) -> Self {
        Self { problem: Some(problem.into()), took, state: State::Failed, ..Self::before(host) }
    }

    pub fn before(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            state: State::Before,
            uploads: false,
            fqdn: None,
            files: None,
            uploaded_bytes: None,
            took: Duration::ZERO,
            problem: None,
            hint: None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "host": self.host,
            "state": match self.state {
                State::Complete => "complete",
                State::Before => "complete before",
                State::Failed => "failed",
            },
            "fqdn": self.fqdn,
            "files": self.files,
            "uploaded_bytes": self.uploaded_bytes,
            "seconds": self.took.as_secs_f64(),
            "problem": self.problem,
        })
    }
}

/// What became of all hosts.
#[derive(Debug)]
pub struct ClusterOutcome {
    pub name: BackupName,
    pub mode: BackupMode,
    /// In the order of the plan.
    pub hosts: Vec<HostOutcome>,
    /// Between the first and the last snapshot of this run.
    pub spread: Option<Duration>,
    /// Whether every node that the token maps name has finished it.
    pub complete: bool,
    /// Only some hosts were asked for, and these have finished it.
    pub partial: bool,
    pub notes: Vec<String>,
    /// Unix seconds.
    pub began: i64,
    pub took: Duration,
}

impl ClusterOutcome {
    fn with(&self, state: State) -> Vec<&HostOutcome> {
        self.hosts.iter().filter(|host| host.state == state).collect()
    }

    pub fn text(&self, look: Look, location: &str) -> String {
        let complete = self.hosts.len() - self.with(State::Failed).len();
        let mut text = format!("{}   {complete} of {} complete\n", self.name, counted(self.hosts.len() as u64, "node"));
        let mut table = Table::new(&[
            Column::text("host", 0),
            Column::text("state", 0),
            Column::number("files", 3),
            Column::number("uploaded", 2),
            Column::number("took", 1),
        ]);
        let none = || "–".to_owned();
        for host in &self.hosts {
            let (state, tone) = match host.state {
                State::Complete => ("complete", Tone::Good),
                State::Before => ("complete before", Tone::Good),
                State::Failed => ("failed", Tone::Bad),
            };
            let files = host.files.map_or_else(none, count);
            let uploaded = host.uploaded_bytes.map_or_else(none, size);
            let took = if host.state == State::Before { none() } else { clock(host.took) };
            let cells = vec![host.host.clone(), state.to_owned(), files, uploaded, took];
            table.row(cells, Some((1, tone)), host.problem.clone().unwrap_or_default());
        }
        text.push_str(&table.text(look));
        if let Some(spread) = self.spread {
            let seconds = spread.as_secs_f64();
            text.push_str(&format!("  snapshots were taken within {seconds:.1} s of each other\n"));
        }
        text.push_str(&look.folded(&format!("  {}", span(Zone::chosen(), self.began, self.took)), 4));
        text.push_str(&look.folded(&format!("  stored in {location}"), 4));
        for note in &self.notes {
            text.push_str(&look.folded(&format!("  note: {note}"), 4));
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "name": self.name.as_str(),
            "mode": self.mode,
            "complete": self.complete,
            "hosts": self.hosts.iter().map(HostOutcome::json).collect::<Vec<_>>(),
            "spread_seconds": self.spread.map(|spread| spread.as_secs_f64()),
            "notes": self.notes,
            "seconds": self.took.as_secs_f64(),
        })
    }

    /// What is wrong with it, if anything is.
    pub fn failure(&self) -> Option<Failure> {
        let failed = self.with(State::Failed);
        let troubled: Vec<_> = self.hosts.iter().filter(|host| host.problem.is_some()).collect();
        let name = &self.name;
        let again = |hosts: &[&HostOutcome]| {
            let hosts = few(hosts.iter().map(|host| host.host.as_str()));
            format!("the same command again, with all its options, finishes {hosts} only")
        };
        let hints = |hosts: &[&HostOutcome]| {
            let mut hints: Vec<_> =
                hosts.iter().filter_map(|host| host.hint.clone()).filter(|hint| !hint.is_empty()).collect();
            hints.dedup();
            (hints.len() == 1).then(|| hints.remove(0))
        };
        let with_hints = |first: String| match hints(&failed) {
            Some(more) => format!("{first}; {more}"),
            None => first,
        };
        if failed.len() == self.hosts.len() {
            let hint = hints(&failed).unwrap_or_else(|| format!("the same command takes backup {name} anew"));
            return Some(Failure::failed(format!("backup {name} is complete on no host")).hint(hint));
        }
        if !failed.is_empty() {
            let count = counted(failed.len() as u64, "host");
            return Some(
                Failure::problems(format!("backup {name} failed on {count}")).hint(with_hints(again(&failed))),
            );
        }
        if !troubled.is_empty() {
            let count = counted(troubled.len() as u64, "host");
            return Some(
                Failure::problems(format!("backup {name} is complete, but something failed on {count}")).details(
                    troubled
                        .iter()
                        .map(|host| format!("{}: {}", host.host, host.problem.as_deref().unwrap_or_default())),
                ),
            );
        }
        if self.complete || self.partial {
            return None;
        }
        Some(
            Failure::problems(format!("all hosts finished backup {name}, and it is not complete for the ring"))
                .details(self.notes.clone())
                .hint(format!("medusa status --backup-name {name} names the nodes; is fqdn in [storage] of each node its name in the token map?")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(host: &str) -> HostOutcome {
        HostOutcome {
            state: State::Complete,
            fqdn: Some(host.into()),
            files: Some(31_870),
            uploaded_bytes: Some(40_909_563_494),
            took: Duration::from_secs(167),
            ..HostOutcome::before(host)
        }
    }

    fn outcome(hosts: Vec<HostOutcome>) -> ClusterOutcome {
        ClusterOutcome {
            name: BackupName::new("nightly-0412").unwrap(),
            mode: BackupMode::Differential,
            complete: hosts.iter().all(|host| host.state != State::Failed),
            partial: false,
            hosts,
            spread: Some(Duration::from_millis(1940)),
            notes: Vec::new(),
            began: 1_775_955_604,
            took: Duration::from_secs(200),
        }
    }

    #[test]
    fn the_table_says_what_became_of_each_host() {
        let failed = HostOutcome::failed("10.0.0.14", "nodetool: no space left", Duration::from_secs(31));
        let outcome = outcome(vec![complete("10.0.0.11"), failed, HostOutcome::before("10.0.0.15")]);
        let expected = "\
nightly-0412   2 of 3 nodes complete
  host        state              files   uploaded   took
  10.0.0.11   complete          31,870   38.1 GiB   2:47
  10.0.0.14   failed                 –          –   0:31   nodetool: no space left
  10.0.0.15   complete before        –          –      –
  snapshots were taken within 1.9 s of each other
  started ";
        assert!(
            outcome.text(Look::default(), "/backups/prod").starts_with(expected),
            "{}",
            outcome.text(Look::default(), "/backups/prod")
        );
        let failure = outcome.failure().unwrap();
        assert_eq!(failure.kind.exit_code(), 3);
        assert_eq!(
            failure.hint.as_deref(),
            Some("the same command again, with all its options, finishes 10.0.0.14 only")
        );
    }

    #[test]
    fn a_cluster_of_180_long_names_is_readable_at_80_columns() {
        let name = |i: usize| format!("ip-10-20-{}-{}.eu-central-1.compute.internal", i / 100, i % 100);
        let mut hosts: Vec<_> = (0..179).map(|i| complete(&name(i))).collect();
        let why = "nodetool: snapshot: java.io.IOException: no space left on device, while flushing shop.orders";
        hosts.push(HostOutcome::failed(&name(179), why, Duration::from_secs(31)));
        let text = outcome(hosts).text(Look::wide(Some(80)), "/backups/prod");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().count() < 180 * 2 + 10, "{text}");
        assert!(text.contains(&format!("{}    complete   38.1 GiB   2:47\n    files 31,870\n", name(0))), "{text}");
        assert!(
            text.contains(
                "failed            –   0:31\n    nodetool: snapshot: java.io.IOException: no space left on device, while\n    flushing"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_exit_code_tells_all_some_or_none() {
        let failed = |host| HostOutcome::failed(host, "x", Duration::ZERO);
        let code = |hosts| outcome(hosts).failure().map(|failure| failure.kind.exit_code());
        assert_eq!(code(vec![complete("a"), complete("b")]), None);
        assert_eq!(code(vec![complete("a"), failed("b")]), Some(3));
        assert_eq!(code(vec![HostOutcome::before("a"), failed("b")]), Some(3));
        assert_eq!(code(vec![failed("a"), failed("b")]), Some(1));
        let troubled = HostOutcome { problem: Some("the hook failed".into()), ..complete("a") };
        assert_eq!(code(vec![troubled]), Some(3));
        let mut renamed = outcome(vec![complete("a")]);
        renamed.complete = false;
        assert_eq!(renamed.failure().unwrap().kind.exit_code(), 3);
    }
}
