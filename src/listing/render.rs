//! The texts and documents of list-backups and status, as cassandra-medusa prints them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::contents::{self, Contents};
use crate::model::backups::{ClusterBackup, NodeBackup};
use crate::model::units::{medusa_size, time};
use crate::monitor::Amount;

/// `list-backups`.
pub fn list_text(backups: &[ClusterBackup]) -> String {
    let mut text = String::new();
    for backup in backups {
        let finished = backup.finished().map_or_else(
            || format!("Incomplete [{} of {} nodes finished]", backup.complete_nodes().len(), backup.hosts.len()),
            time,
        );
        let _ = writeln!(text, "{} (started: {}, finished: {finished})", backup.name, time(backup.started()));
    }
    if backups.iter().any(|backup| backup.finished().is_none()) {
        text.push_str(
            "\nIncomplete backups found. You can run \"medusa status --backup-name <name>\" for more details\n",
        );
    }
    text
}

/// `status`.
pub fn status_text(backup: &ClusterBackup, contents: &Contents) -> String {
    let mut text = format!("{}{}\n", backup.name, if backup.is_complete() { "" } else { " [Incomplete!]" });
    let finished = backup.finished().map_or_else(|| "never".to_owned(), time);
    let _ = writeln!(text, "- Started: {}, Finished: {finished}", time(backup.started()));
    let (complete, incomplete, missing) = (backup.complete_nodes(), backup.incomplete_nodes(), backup.missing_nodes());
    let _ = writeln!(
        text,
        "- {} nodes completed, {} nodes incomplete, {} nodes missing",
        complete.len(),
        incomplete.len(),
        missing.len()
    );
    if !incomplete.is_empty() {
        text.push_str("- Incomplete nodes:\n");
        text.extend(incomplete.iter().map(|node| format!("    {}\n", node.fqdn)));
    }
    if !missing.is_empty() {
        text.push_str("- Missing nodes:\n");
        text.extend(missing.iter().map(|host| format!("    {}\n", on_a_line(host))));
    }
    let Amount { files, bytes } = contents::complete(backup, contents);
    let _ = writeln!(text, "- {files} files, {}", medusa_size(bytes));
    text
}

/// A name from a token map, which may be any text, where each line is one name.
pub fn on_a_line(name: &str) -> String {
    name.replace('\n', "\\n").replace('\r', "\\r")
}

/// The document that status prints for one backup and list-backups in a list.
pub fn backup_json(backup: &ClusterBackup, contents: &Contents) -> Value {
    let node_json = |node: &NodeBackup| {
        let held = contents.get(node.fqdn.as_str()).cloned().unwrap_or_default();
        json!({
            "fqdn": node.fqdn.as_str(),
            "started": node.started,
            "finished": node.finished,
            "server_type": held.version.server_type,
            "release_version": held.version.release_version,
            "size": held.size,
            "num_objects": held.num_objects,
        })
    };
    let of_state = |finished: bool| -> Vec<_> {
        backup.nodes.iter().filter(|node| node.finished.is_some() == finished).map(node_json).collect()
    };
    let (nodes, incomplete, missing) = (of_state(true), of_state(false), backup.missing_nodes());
    let total = |key: &str| nodes.iter().filter_map(|node| node[key].as_u64()).sum::<u64>();
    json!({
        "name": backup.name.as_str(),
        "started": backup.started(),
        "finished": backup.finished(),
        "backup_type": backup.mode(),
        "size": total("size"),
        "num_objects": total("num_objects"),
        "completed_nodes": nodes.len(),
        "nodes": nodes,
        "incomplete_nodes": incomplete.len(),
        "incomplete_nodes_list": incomplete,
        "missing_nodes": missing.len(),
        "missing_nodes_list": missing,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::listing::contents::NodeContents;
    use crate::model::backups::BackupMode;
    use crate::model::names::{BackupName, Fqdn};

    fn backup(finished: Option<i64>) -> ClusterBackup {
        let name = BackupName::new("b1").unwrap();
        let node = NodeBackup {
            name: name.clone(),
            fqdn: Fqdn::new("n1").unwrap(),
            mode: BackupMode::Differential,
            started: 1_795_229_920,
            finished,
        };
        let hosts = ["n1", "n2"].map(str::to_owned).into();
        ClusterBackup { name, nodes: vec![node], hosts, summaries: BTreeMap::new() }
    }

    #[test]
    fn an_incomplete_backup_is_told_line_by_line() {
        let (started, text) = (time(1_795_229_920), list_text(&[backup(Some(1_795_229_921))]));
        assert_eq!(
            text,
            format!(
                "b1 (started: {started}, finished: Incomplete [1 of 2 nodes finished])\n\nIncomplete backups found. You can run \"medusa status --backup-name <name>\" for more details\n"
            )
        );
        let text = status_text(&backup(None), &BTreeMap::new());
        assert_eq!(
            text,
            format!(
                "b1 [Incomplete!]\n- Started: {started}, Finished: never\n- 0 nodes completed, 1 nodes incomplete, 1 nodes missing\n- Incomplete nodes:\n    n1\n- Missing nodes:\n    n2\n- 0 files, 0.00 B\n"
            )
        );
        assert_eq!(list_text(&[]), "");
    }

    #[test]
    fn the_document_has_the_keys_of_medusa() {
        let contents = NodeContents { num_objects: 3, size: 33, ..NodeContents::default() };
        let document = backup_json(&backup(Some(1_795_229_921)), &BTreeMap::from([("n1".to_owned(), contents)]));
        let text = crate::model::pyjson::printed(&document).unwrap();
        assert_eq!(
            text,
            r#"{"backup_type": "differential", "completed_nodes": 1, "finished": null, "incomplete_nodes": 0, "incomplete_nodes_list": [], "missing_nodes": 1, "missing_nodes_list": ["n2"], "name": "b1", "nodes": [{"finished": 1795229921, "fqdn": "n1", "num_objects": 3, "release_version": "unknown", "server_type": "cassandra", "size": 33, "started": 1795229920}], "num_objects": 3, "size": 33, "started": 1795229920}"#
        );
    }
}
