//! How the restore of a cluster ended.

use std::time::Duration;

use serde_json::{Value, json};

use super::mapping::Method;
use super::plan::method_name;
use crate::model::look::{Look, Tone};
use crate::model::names::BackupName;
use crate::model::table::{Column, Table};
use crate::model::units::{Zone, counted, span, took};

/// How a target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Restored,
    /// By the same run before.
    Already,
    /// It was restored, and the query of `[checks]` was not answered as expected.
    Unexpected,
    /// It put its previous data back by itself: see the reason.
    Failed,
    /// The connection was lost, and its run goes on there, or it was killed.
    Unknown,
    /// Down with its previous data: others decide what it gets, or it could not be told to start.
    Waiting,
    /// Its previous data is in its place, because others could not go on.
    Undone,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Already => "already restored",
            Self::Unexpected => "check failed",
            Self::Failed => "failed",
            Self::Unknown => "not known",
            Self::Waiting => "down",
            Self::Undone => "taken back",
        }
    }
}

/// One target.
#[derive(Debug, Clone)]
pub struct TargetOutcome {
    pub target: String,
    pub sources: Vec<String>,
    pub state: State,
    pub took: Option<Duration>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// All targets.
#[derive(Debug, Clone)]
pub struct ClusterOutcome {
    pub backup: BackupName,
    pub method: Method,
    pub targets: Vec<TargetOutcome>,
    /// Unix seconds.
    pub began: i64,
    pub took: Duration,
    /// From the first stop to the last start.
    pub down: Option<Duration>,
}

impl ClusterOutcome {
    /// Targets that have the restored data.
    pub fn restored(&self) -> usize {
        let has_it = |state| matches!(state, State::Restored | State::Already | State::Unexpected);
        self.targets.iter().filter(|target| has_it(target.state)).count()
    }

    /// Targets whose answer to the query of `[checks]` was not the expected one.
    pub fn unexpected(&self) -> usize {
        self.targets.iter().filter(|target| target.state == State::Unexpected).count()
    }

    /// Targets that are down, and those of which it is not known what they did.
    pub fn undecided(&self) -> usize {
        self.targets.iter().filter(|target| matches!(target.state, State::Unknown | State::Waiting)).count()
    }

    /// Whether all targets are restored, and as they should be.
    pub fn is_complete(&self) -> bool {
        self.restored() == self.targets.len() && self.unexpected() == 0
    }

    pub fn text(&self, look: Look) -> String {
        let all = counted(self.targets.len() as u64, "target");
        let how = match self.method {
            Method::Load => "loaded",
            _ => "restored",
        };
        let mut text = format!("{}   {} of {all} {how} in {}\n", self.backup, self.restored(), took(self.took));
        let mut table =
            Table::new(&[Column::text("", 0), Column::text("", 0), Column::number("took", 1)]).without_head();
        for target in &self.targets {
            let time = target.took.map_or_else(|| "–".to_owned(), took);
            let state = match (target.state, self.method) {
                (State::Restored, Method::Load) => "loaded",
                (state, _) => state.name(),
            };
            let tone = match target.state {
                State::Restored | State::Already => Tone::Good,
                State::Unexpected | State::Undone | State::Unknown => Tone::Doubtful,
                State::Failed | State::Waiting => Tone::Bad,
            };
            let cells = vec![target.target.clone(), state.to_owned(), time];
            table.row(cells, Some((1, tone)), target.reason.clone().unwrap_or_default());
        }
        text.push_str(&table.text(look));
        if let Some(down) = self.down {
            text.push_str(&format!("  the cluster was down for {}\n", took(down)));
        }
        text.push_str(&look.folded(&format!("  {}", span(Zone::chosen(), self.began, self.took)), 4));
        text
    }

    pub fn json(&self) -> Value {
        let target = |target: &TargetOutcome| {
            json!({
                "target": target.target,
                "sources": target.sources,
                "state": target.state.name(),
                "seconds": target.took.map(|took| took.as_secs_f64()),
                "reason": target.reason,
            })
        };
        json!({
            "version": 1,
            "backup": self.backup.as_str(),
            "method": method_name(self.method),
            "complete": self.is_complete(),
            "targets": self.targets.iter().map(target).collect::<Vec<_>>(),
            "seconds": self.took.as_secs_f64(),
            "down_seconds": self.down.map(|down| down.as_secs_f64()),
        })
    }
}
