//! Parts of restores of a cluster that were begun on this node, by what they wrote down: who goes on with one asks for them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::journal::Phase;
use super::{restored, unfinished};
use crate::cassandra::yaml::CassandraYaml;
use crate::model::look::Look;

/// One of them. What it was asked for, as in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub run: String,
    pub backup: String,
    pub source: String,
    pub remote: bool,
    pub keep_auth: bool,
    pub keyspaces: BTreeSet<String>,
    pub tables: BTreeSet<String>,
    pub with_system: bool,
    /// How far it got; `restored`: to its end.
    pub phase: String,
    /// The plan of the cluster, as the lines of a host list.
    pub hosts: Vec<String>,
}

const RESTORED: &str = "restored";

impl Run {
    pub fn is_restored(&self) -> bool {
        self.phase == RESTORED
    }

    /// `None`: the journal is of a restore of this node alone, or of an older version.
    fn new(command: &str, run: Option<String>, phase: Option<&Phase>, hosts: Vec<String>) -> Option<Self> {
        let mut document: Value = serde_json::from_str(command).ok()?;
        document["run"] = run?.into();
        document["phase"] = phase.map_or(RESTORED, Phase::name).into();
        document["hosts"] = hosts.into();
        serde_json::from_value(document).ok()
    }

    /// Those of this node.
    pub fn all(yaml: &CassandraYaml) -> anyhow::Result<Vec<Self>> {
        let ended = restored(yaml)?.into_iter();
        let ended = ended.filter_map(|(_, known)| Self::new(&known.command, Some(known.run), None, known.hosts));
        let begun = unfinished(yaml)?.into_iter();
        let begun =
            begun.filter_map(|(_, known)| Self::new(&known.command, known.run, Some(&known.phase), known.hosts));
        Ok(ended.chain(begun).collect())
    }

    pub fn json(runs: &[Self]) -> Value {
        json!({ "version": 1, "runs": runs })
    }

    pub fn text(runs: &[Self], look: Look) -> String {
        if runs.is_empty() {
            return "no part of a restore of a cluster was begun here\n".to_owned();
        }
        let line =
            |run: &Self| look.folded(&format!("{} of {}: {} (run {})", run.backup, run.source, run.phase, run.run), 2);
        runs.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_down_says_what_was_asked_for() {
        let command = json!({
            "backup": "b1", "source": "n1", "remote": true, "keep_auth": false,
            "keyspaces": ["ks"], "tables": [], "with_system": false,
        });
        let hosts = vec!["True,m1,n1".to_owned()];
        let of = |run, phase| Run::new(&command.to_string(), run, phase, hosts.clone());
        let run = of(Some("r".into()), Some(&Phase::Stopped)).unwrap();
        assert_eq!((&*run.backup, &*run.source, &*run.phase, run.remote), ("b1", "n1", "stopped", true));
        assert!(!run.is_restored() && of(Some("r".into()), None).unwrap().is_restored());
        assert_eq!((&run.hosts, &run.keyspaces), (&hosts, &["ks".to_owned()].into()));
        assert_eq!(of(None, None), None);
        assert_eq!(Run::new("of another time", Some("r".into()), None, Vec::new()), None);
    }
}
