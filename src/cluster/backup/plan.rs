//! What is to be done on which host. Pure.

use serde_json::{Value, json};

use crate::cluster::hosts::Host;
use crate::model::backups::{BackupMode, ClusterBackup};
use crate::model::look::Look;
use crate::model::names::BackupName;
use crate::model::table::{Column, Table};
use crate::model::units::counted;

/// What is to be done on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its backup is complete.
    Nothing,
    /// It was begun by an earlier run.
    Continue,
    Begin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub host: Host,
    pub what: What,
}

/// In the order in which the hosts upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    pub hosts: Vec<Planned>,
}

impl ClusterPlan {
    /// `begun`: what is stored under that name.
    pub fn make(hosts: Vec<Host>, begun: Option<&ClusterBackup>) -> Self {
        let what = |host: &Host| {
            let nodes = host.folders.iter().filter_map(|folder| begun?.node(folder));
            let finished: Vec<_> = nodes.map(|node| node.finished.is_some()).collect();
            match finished.as_slice() {
                [] => What::Begin,
                some if some.contains(&true) => What::Nothing,
                _ => What::Continue,
            }
        };
        Self { hosts: hosts.into_iter().map(|host| Planned { what: what(&host), host }).collect() }
    }

    pub fn is_done(&self) -> bool {
        self.hosts.iter().all(|planned| planned.what == What::Nothing)
    }

    /// Names of the hosts on which something is to be done.
    pub fn missing(&self) -> Vec<String> {
        self.names(|what| what != What::Nothing)
    }

    /// Names of the hosts whose backup is complete.
    pub fn before(&self) -> Vec<String> {
        self.names(|what| what == What::Nothing)
    }

    fn names(&self, wanted: impl Fn(What) -> bool) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|planned| wanted(planned.what));
        hosts.map(|planned| planned.host.name.clone()).collect()
    }

    /// `parallel`: snapshots and uploads at a time.
    pub fn text(
        &self,
        look: Look,
        name: &BackupName,
        location: &str,
        mode: BackupMode,
        parallel: (usize, usize),
    ) -> String {
        let all = counted(self.hosts.len() as u64, "host");
        let missing = self.missing().len();
        let mut text =
            look.headed(&format!("backup {name} of {all} to {location} ({mode})"), "nothing has been begun yet");
        let mut table = Table::new(&[Column::text("", 0), Column::text("", 1)]).without_head();
        for Planned { host, what } in &self.hosts {
            let what = match what {
                What::Nothing => "is complete",
                What::Continue => "snapshot, then goes on with the upload",
                What::Begin => "snapshot, then upload",
            };
            table.row(vec![host.name.clone(), what.to_owned()], None, "");
        }
        text.push_str(&table.text(look));
        let (snapshots, uploads) = (parallel.0.min(missing), parallel.1.min(missing));
        text.push_str(&format!(
            "  at once: {}, {}\n",
            counted(snapshots as u64, "snapshot"),
            counted(uploads as u64, "upload")
        ));
        text
    }

    pub fn json(&self, name: &BackupName, mode: BackupMode) -> Value {
        let host = |planned: &Planned| {
            let action = match planned.what {
                What::Nothing => "nothing",
                What::Continue => "continue",
                What::Begin => "begin",
            };
            json!({ "host": planned.host.name, "action": action })
        };
        json!({
            "version": 1,
            "dry_run": true,
            "name": name.as_str(),
            "mode": mode,
            "plan": self.hosts.iter().map(host).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::backups::NodeBackup;
    use crate::model::names::Fqdn;

    fn host(name: &str, folders: &[&str]) -> Host {
        Host { name: name.into(), folders: folders.iter().map(ToString::to_string).collect::<BTreeSet<_>>() }
    }

    fn stored(nodes: &[(&str, Option<i64>)]) -> ClusterBackup {
        let name = BackupName::new("b1").unwrap();
        let node = |(fqdn, finished): &(&str, Option<i64>)| NodeBackup {
            name: name.clone(),
            fqdn: Fqdn::new(fqdn).unwrap(),
            mode: BackupMode::Differential,
            started: 1,
            finished: *finished,
        };
        let nodes = nodes.iter().map(node).collect();
        ClusterBackup { nodes, name, hosts: ["n1", "n2", "n3"].map(str::to_owned).into(), summaries: BTreeMap::new() }
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let hosts = || vec![host("10.0.0.1", &["10.0.0.1", "n1"]), host("n2", &["n2"]), host("n3", &["n3"])];
        let plan = ClusterPlan::make(hosts(), Some(&stored(&[("n1", Some(5)), ("n2", None)])));
        assert_eq!(
            plan.hosts.iter().map(|planned| planned.what).collect::<Vec<_>>(),
            [What::Nothing, What::Continue, What::Begin]
        );
        assert_eq!(plan.missing(), ["n2", "n3"]);
        assert!(!plan.is_done());
        let text = plan.text(Look::default(), &BackupName::new("b1").unwrap(), "s3://b", BackupMode::Full, (500, 1));
        let expected = "\
backup b1 of 3 hosts to s3://b (full)          nothing has been begun yet
  10.0.0.1   is complete
  n2         snapshot, then goes on with the upload
  n3         snapshot, then upload
  at once: 2 snapshots, 1 upload
";
        assert_eq!(text, expected);
        let all = stored(&[("n1", Some(5)), ("n2", Some(6)), ("n3", Some(7))]);
        assert!(ClusterPlan::make(hosts(), Some(&all)).is_done());
        assert_eq!(ClusterPlan::make(hosts(), None).missing().len(), 3);
    }
}
