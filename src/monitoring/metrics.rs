//! Every metric: its name for `local` and `dog-statsd`, and the one in a textfile.

/// A gauge.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Sent as `first.second`.
    pub name: (&'static str, &'static str),
    /// Medusa sends it too. `local` gets only these.
    pub of_medusa: bool,
    /// Name and meaning in a textfile. `None`: another metric says the same there.
    pub textfile: Option<(&'static str, &'static str)>,
}

const fn medusas(name: (&'static str, &'static str)) -> Metric {
    Metric { name, of_medusa: true, textfile: None }
}

const fn ours(name: (&'static str, &'static str), textfile: &'static str, help: &'static str) -> Metric {
    Metric { name, of_medusa: false, textfile: Some((textfile, help)) }
}

impl Metric {
    const fn and(self, textfile: &'static str, help: &'static str) -> Self {
        Self { textfile: Some((textfile, help)), ..self }
    }
}

const NODE: &str = "medusa-node-backup";
const CLUSTER: &str = "medusa-cluster-backup";
const PURGE: &str = "medusa-purge";
const RESTORE: &str = "medusa-node-restore";
const CLUSTER_RESTORE: &str = "medusa-cluster-restore";
const COMMAND: &str = "medusa-command";

pub static BACKUP_DURATION: Metric = medusas((NODE, "backup-duration")).and(
    "medusa_backup_duration_seconds",
    "How long the last finished backup of this node took, without waiting for other nodes.",
);
pub static BACKUP_SIZE: Metric = medusas((NODE, "backup-size"))
    .and("medusa_backup_size_bytes", "All files of the last finished backup of this node.");
pub static BACKUP_ERROR: Metric = medusas((NODE, "backup-error"));
pub static BACKUP_FILES: Metric =
    ours((NODE, "backup-file-count"), "medusa_backup_files", "Files of the last finished backup of this node.");
pub static BACKUP_UPLOADED_SIZE: Metric = ours(
    (NODE, "backup-uploaded-size"),
    "medusa_backup_uploaded_bytes",
    "What the last finished backup of this node had to move.",
);
pub static BACKUP_UPLOADED_FILES: Metric = ours(
    (NODE, "backup-uploaded-file-count"),
    "medusa_backup_uploaded_files",
    "Files that the last finished backup of this node had to move.",
);
pub static BACKUP_FINISHED: Metric = ours(
    (NODE, "backup-finished-timestamp"),
    "medusa_backup_finished_timestamp_seconds",
    "When the last backup that this node finished was finished, in Unix time.",
);

pub static CLUSTER_BACKUP_DURATION: Metric = medusas((CLUSTER, "cluster-backup-duration")).and(
    "medusa_cluster_backup_duration_seconds",
    "How long the last backup of all nodes took, in the run that finished it.",
);
pub static CLUSTER_BACKUP_ERROR: Metric = medusas((CLUSTER, "cluster-backup-error"));

pub static PURGE_ERROR: Metric = medusas((NODE, "purge-error"));
pub static DECOMMISSIONED_PURGE_ERROR: Metric = medusas(("medusa-decommissioned-node-backup", "purge-error"));
pub static DELETE_ERROR: Metric = medusas((NODE, "delete-error"));
pub static PURGE_BACKUPS: Metric = ours(
    (PURGE, "deleted-backup-count"),
    "medusa_purge_deleted_backups",
    "Backups of nodes that the last run deleted.",
);
pub static PURGE_OBJECTS: Metric =
    ours((PURGE, "deleted-object-count"), "medusa_purge_deleted_objects", "Objects that the last run deleted.");
pub static PURGE_FREED: Metric =
    ours((PURGE, "freed-size"), "medusa_purge_freed_bytes", "What the last run freed in the storage.");
pub static PURGE_KEPT: Metric = ours(
    (PURGE, "kept-for-grace-count"),
    "medusa_purge_kept_for_grace_objects",
    "Objects that no manifest names and that the last run left for their grace period.",
);

pub static VERIFY_PROBLEMS: Metric = ours(
    ("medusa-verify", "problem-count"),
    "medusa_verify_problems",
    "Damaged or missing objects, nodes without a finished backup, and what could not be looked at, in the last run.",
);
pub static REPOSITORY_PROBLEMS: Metric = ours(
    ("medusa-verify", "repository-problem-count"),
    "medusa_verify_repository_problems",
    "What endangers or hides a backup, in the last run with --repository.",
);

pub static RESTORE_DURATION: Metric = ours(
    (RESTORE, "restore-duration"),
    "medusa_restore_duration_seconds",
    "How long the last successful restore of this node took.",
);
pub static RESTORE_ERROR: Metric = Metric { name: (RESTORE, "restore-error"), of_medusa: false, textfile: None };
pub static RESTORE_DOWN: Metric = ours(
    (RESTORE, "down-duration"),
    "medusa_restore_down_seconds",
    "How long Cassandra was down in the last successful restore of this node.",
);
pub static RESTORE_DOWNLOADED: Metric = ours(
    (RESTORE, "downloaded-size"),
    "medusa_restore_downloaded_bytes",
    "What the last successful restore of this node had to move.",
);

pub static CLUSTER_RESTORE_DURATION: Metric = medusas((CLUSTER_RESTORE, "restore-duration")).and(
    "medusa_cluster_restore_duration_seconds",
    "How long the last restore of the cluster took that restored at least one node.",
);
pub static CLUSTER_RESTORE_ERROR: Metric = medusas((CLUSTER_RESTORE, "restore-error"));

pub static NODE_AGE: Metric = medusas((NODE, "seconds-since-backup"));
pub static CLUSTER_AGE: Metric = medusas((CLUSTER, "seconds-since-backup"));
pub static COMPLETE_NODES: Metric = medusas((CLUSTER, "complete-backups-node-count"))
    .and("medusa_latest_backup_complete_nodes", "Nodes that finished the backup that was started last.");
pub static INCOMPLETE_NODES: Metric = medusas((CLUSTER, "incomplete-backups-node-count")).and(
    "medusa_latest_backup_incomplete_nodes",
    "Nodes that began the backup that was started last and did not finish it.",
);
pub static MISSING_NODES: Metric = medusas((CLUSTER, "missing-backups-node-count")).and(
    "medusa_latest_backup_missing_nodes",
    "Nodes of the cluster that have no part in the backup that was started last.",
);
pub static TOTAL_SIZE: Metric = medusas((CLUSTER, "backup-total-size"))
    .and("medusa_latest_backup_size_bytes", "All files of all nodes in the backup that was started last.");
pub static TOTAL_FILES: Metric = medusas((CLUSTER, "backup-total-file-count"))
    .and("medusa_latest_backup_files", "Files of all nodes in the backup that was started last.");
pub static NODE_LAST: Metric = ours(
    (NODE, "last-backup-timestamp"),
    "medusa_last_node_backup_timestamp_seconds",
    "When the newest backup of this node in the storage was finished, in Unix time; 0: there is none.",
);
pub static COMPLETE_LAST: Metric = ours(
    (CLUSTER, "last-complete-backup-timestamp"),
    "medusa_last_complete_backup_timestamp_seconds",
    "When the newest backup that all nodes finished was finished, in Unix time; 0: there is none.",
);

pub static COMMAND_SUCCESS: Metric =
    ours((COMMAND, "success"), "medusa_command_success", "Whether the last run of the command ended with exit code 0.");
pub static COMMAND_EXIT_CODE: Metric =
    ours((COMMAND, "exit-code"), "medusa_command_exit_code", "The exit code of the last run of the command.");
pub static COMMAND_DURATION: Metric =
    ours((COMMAND, "duration"), "medusa_command_duration_seconds", "How long the last run of the command took.");
pub static COMMAND_LAST_RUN: Metric = ours(
    (COMMAND, "last-run-timestamp"),
    "medusa_command_last_run_timestamp_seconds",
    "When the last run of the command ended, in Unix time.",
);

/// All of them.
pub static METRICS: [&Metric; 37] = [
    &BACKUP_DURATION,
    &BACKUP_SIZE,
    &BACKUP_ERROR,
    &BACKUP_FILES,
    &BACKUP_UPLOADED_SIZE,
    &BACKUP_UPLOADED_FILES,
    &BACKUP_FINISHED,
    &CLUSTER_BACKUP_DURATION,
    &CLUSTER_BACKUP_ERROR,
    &PURGE_ERROR,
    &DECOMMISSIONED_PURGE_ERROR,
    &DELETE_ERROR,
    &PURGE_BACKUPS,
    &PURGE_OBJECTS,
    &PURGE_FREED,
    &PURGE_KEPT,
    &VERIFY_PROBLEMS,
    &REPOSITORY_PROBLEMS,
    &RESTORE_DURATION,
    &RESTORE_ERROR,
    &RESTORE_DOWN,
    &RESTORE_DOWNLOADED,
    &CLUSTER_RESTORE_DURATION,
    &CLUSTER_RESTORE_ERROR,
    &NODE_AGE,
    &CLUSTER_AGE,
    &COMPLETE_NODES,
    &INCOMPLETE_NODES,
    &MISSING_NODES,
    &TOTAL_SIZE,
    &TOTAL_FILES,
    &NODE_LAST,
    &COMPLETE_LAST,
    &COMMAND_SUCCESS,
    &COMMAND_EXIT_CODE,
    &COMMAND_DURATION,
    &COMMAND_LAST_RUN,
];
