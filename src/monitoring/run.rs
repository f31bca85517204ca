//! How a command ended, as plain data, and what is measured of it. Pure.

use std::time::Duration;

use super::metrics::{
    BACKUP_DURATION, BACKUP_ERROR, BACKUP_FILES, BACKUP_FINISHED, BACKUP_SIZE, BACKUP_UPLOADED_FILES,
    BACKUP_UPLOADED_SIZE, CLUSTER_AGE, CLUSTER_BACKUP_DURATION, CLUSTER_BACKUP_ERROR, CLUSTER_RESTORE_DURATION,
    CLUSTER_RESTORE_ERROR, COMMAND_DURATION, COMMAND_EXIT_CODE, COMMAND_LAST_RUN, COMMAND_SUCCESS, COMPLETE_LAST,
    COMPLETE_NODES, DECOMMISSIONED_PURGE_ERROR, DELETE_ERROR, INCOMPLETE_NODES, MISSING_NODES, Metric, NODE_AGE,
    NODE_LAST, PURGE_BACKUPS, PURGE_ERROR, PURGE_FREED, PURGE_KEPT, PURGE_OBJECTS, REPOSITORY_PROBLEMS, RESTORE_DOWN,
    RESTORE_DOWNLOADED, RESTORE_DURATION, RESTORE_ERROR, TOTAL_FILES, TOTAL_SIZE, VERIFY_PROBLEMS,
};
use super::{Measurement, Subject, Value};
use crate::monitor::Amount;

/// What Medusa sends as the age of the last backup if it could not find out: ten years.
const UNKNOWN_AGE: i64 = 315_365_400;

/// One run of a command, after its end.
#[derive(Debug)]
pub struct Run<'a> {
    /// As on the command line.
    pub command: &'static str,
    pub fqdn: &'a str,
    pub exit_code: u8,
    pub took: Duration,
    /// Unix seconds.
    pub ended: i64,
    pub facts: &'a Facts,
}

/// What a command found out before it ended, well or not. It is filled on the way.
#[derive(Debug, Default)]
pub enum Facts {
    #[default]
    Nothing,
    Backup {
        name: String,
        /// Of a finished one.
        done: Option<Backup>,
    },
    ClusterBackup {
        name: String,
        /// How long it took, if all hosts finished it.
        done: Option<Duration>,
    },
    Restore {
        name: String,
        done: Option<Restore>,
    },
    ClusterRestore {
        name: String,
        /// How long it took. `None`: no node was restored.
        done: Option<Duration>,
    },
    Verify {
        /// `None`: several backups.
        name: Option<String>,
        problems: u64,
    },
    Repository {
        problems: u64,
    },
    /// Also of backups deleted by name.
    Purge(Purge),
    /// Only where it is to be sent. `None`: it could not be made.
    Report(Option<Report>),
}

#[derive(Debug, Clone, Copy)]
pub struct Backup {
    /// Without the time that was spent waiting for other nodes.
    pub took: Duration,
    /// Unix seconds.
    pub finished: i64,
    pub all: Amount,
    pub uploaded: Amount,
}

#[derive(Debug, Clone, Copy)]
pub struct Restore {
    pub took: Duration,
    pub down: Option<Duration>,
    /// Bytes.
    pub downloaded: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Purge {
    pub backups: u64,
    pub deleted: Amount,
    /// Objects. `None`: the pool was not looked at.
    pub kept_for_grace: Option<u64>,
}

/// What `report-last-backup` says.
#[derive(Debug)]
pub struct Report {
    /// Unix seconds.
    pub now: i64,
    /// The last backup of this node: its name, and when it was finished.
    pub node: Option<(String, i64)>,
    /// The last one that all nodes finished.
    pub complete: Option<(String, i64)>,
    pub latest: Option<Latest>,
}

/// The backup that was started last.
#[derive(Debug)]
pub struct Latest {
    pub name: String,
    pub complete_nodes: u64,
    pub incomplete_nodes: u64,
    pub missing_nodes: u64,
    pub all: Amount,
}

impl Run<'_> {
    /// In Medusa's order, ours after Medusa's. What this run does not know is left out.
    pub fn measurements(&self) -> Vec<Measurement> {
        let mut measured = match self.facts {
            Facts::Nothing
            | Facts::Backup { done: None, .. }
            | Facts::ClusterBackup { done: None, .. }
            | Facts::Restore { done: None, .. }
            | Facts::ClusterRestore { done: None, .. } => Vec::new(),
            Facts::ClusterBackup { name, done: Some(took) } => {
                vec![of(&CLUSTER_BACKUP_DURATION, *took, &Subject::Backup(name.clone()))]
            }
            Facts::Backup { name, done: Some(backup) } => backup.measurements(name),
            Facts::Restore { name, done: Some(restore) } => restore.measurements(name),
            Facts::ClusterRestore { name, done: Some(took) } => {
                vec![of(&CLUSTER_RESTORE_DURATION, *took, &Subject::Backup(name.clone()))]
            }
            Facts::Verify { name, problems } => {
                let subject = name.clone().map_or(Subject::Nothing, Subject::Backup);
                vec![of(&VERIFY_PROBLEMS, *problems, &subject)]
            }
            Facts::Repository { problems } => vec![of(&REPOSITORY_PROBLEMS, *problems, &Subject::Nothing)],
            Facts::Purge(purge) => purge.measurements(self.command),
            Facts::Report(Some(report)) => report.measurements(),
            Facts::Report(None) => vec![of(&CLUSTER_AGE, UNKNOWN_AGE, &Subject::Marker("TRACKING-ERROR"))],
        };
        measured.extend(self.error());
        // Stable: what Medusa sends keeps its order.
        measured.sort_by_key(|measurement| !measurement.metric.of_medusa);
        measured.extend(self.of_command());
        measured
    }

    /// The flag of failure that Medusa sends, and ours for restores.
    fn error(&self) -> Option<Measurement> {
        let named = |name: &str| Subject::Backup(name.to_owned());
        let failed = self.exit_code != 0;
        let (metric, failed, subject) = match (self.command, self.facts) {
            // A backup that is finished stays so if a hook fails.
            ("backup-node", Facts::Backup { name, done }) => (&BACKUP_ERROR, done.is_none(), named(name)),
            ("backup-node", _) => (&BACKUP_ERROR, failed, Subject::Nothing),
            ("backup-cluster", Facts::ClusterBackup { name, .. }) => (&CLUSTER_BACKUP_ERROR, failed, named(name)),
            ("backup-cluster", _) => (&CLUSTER_BACKUP_ERROR, failed, Subject::Nothing),
            ("restore-node", Facts::Restore { name, done }) => (&RESTORE_ERROR, done.is_none(), named(name)),
            ("restore-cluster", Facts::ClusterRestore { name, .. }) => (&CLUSTER_RESTORE_ERROR, failed, named(name)),
            ("purge", _) => (&PURGE_ERROR, failed, Subject::Marker("PURGE-ERROR")),
            ("purge-decommissioned", _) => (&DECOMMISSIONED_PURGE_ERROR, failed, Subject::Marker("PURGE-ERROR")),
            ("delete-backup", _) => (&DELETE_ERROR, failed, Subject::Marker("DELETE-ERROR")),
            _ => return None,
        };
        Some(of(metric, failed, &subject))
    }

    fn of_command(&self) -> [Measurement; 4] {
        [
            self.command(&COMMAND_SUCCESS, self.exit_code == 0),
            self.command(&COMMAND_EXIT_CODE, u64::from(self.exit_code)),
            self.command(&COMMAND_DURATION, self.took),
            self.command(&COMMAND_LAST_RUN, self.ended),
        ]
    }

    fn command(&self, metric: &'static Metric, value: impl Into<Value>) -> Measurement {
        Measurement { command: Some(self.command), ..of(metric, value, &Subject::Nothing) }
    }
}

fn of(metric: &'static Metric, value: impl Into<Value>, subject: &Subject) -> Measurement {
    Measurement { metric, value: value.into(), subject: subject.clone(), command: None }
}

impl Backup {
    fn measurements(&self, name: &str) -> Vec<Measurement> {
        let subject = Subject::Backup(name.to_owned());
        vec![
            of(&BACKUP_DURATION, self.took, &subject),
            of(&BACKUP_SIZE, self.all.bytes, &subject),
            of(&BACKUP_FILES, self.all.files, &subject),
            of(&BACKUP_UPLOADED_SIZE, self.uploaded.bytes, &subject),
            of(&BACKUP_UPLOADED_FILES, self.uploaded.files, &subject),
            of(&BACKUP_FINISHED, self.finished, &subject),
        ]
    }
}

impl Restore {
    fn measurements(&self, name: &str) -> Vec<Measurement> {
        let subject = Subject::Backup(name.to_owned());
        let mut measured =
            vec![of(&RESTORE_DURATION, self.took, &subject), of(&RESTORE_DOWNLOADED, self.downloaded, &subject)];
        measured.extend(self.down.map(|down| of(&RESTORE_DOWN, down, &subject)));
        measured
    }
}

impl Purge {
    fn measurements(&self, command: &'static str) -> Vec<Measurement> {
        let of = |metric, number: u64| Measurement { command: Some(command), ..of(metric, number, &Subject::Nothing) };
        let mut measured = vec![
            of(&PURGE_BACKUPS, self.backups),
            of(&PURGE_OBJECTS, self.deleted.files),
            of(&PURGE_FREED, self.deleted.bytes),
        ];
        measured.extend(self.kept_for_grace.map(|kept| of(&PURGE_KEPT, kept)));
        measured
    }
}

impl Report {
    fn measurements(&self) -> Vec<Measurement> {
        let mut measured = Vec::new();
        for (last, age, at) in [(&self.node, &NODE_AGE, &NODE_LAST), (&self.complete, &CLUSTER_AGE, &COMPLETE_LAST)] {
            match last {
                Some((name, finished)) => {
                    let subject = Subject::Backup(name.clone());
                    measured.push(of(age, self.now.saturating_sub(*finished).max(0), &subject));
                    measured.push(of(at, *finished, &subject));
                }
                None => measured.push(of(at, 0_u64, &Subject::Nothing)),
            }
        }
        if let Some(latest) = &self.latest {
            let subject = Subject::Backup(latest.name.clone());
            for (metric, number) in [
                (&COMPLETE_NODES, latest.complete_nodes),
                (&INCOMPLETE_NODES, latest.incomplete_nodes),
                (&MISSING_NODES, latest.missing_nodes),
                (&TOTAL_SIZE, latest.all.bytes),
                (&TOTAL_FILES, latest.all.files),
            ] {
                measured.push(of(metric, number, &subject));
            }
        }
        measured
    }
}
