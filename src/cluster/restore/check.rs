//! Whether every target could do its part: what `restore-node --dry-run` says there.

use std::path::PathBuf;

use serde::Deserialize;

use super::mapping::{Assignment, Mapping};
use super::{ClusterRestoreOptions, Step};
use crate::cluster::remote::on_hosts;
use crate::context::Context;
use crate::error::Failure;
use crate::exec::job::JobEnd;
use crate::exec::ssh::{Ssh, SshError};
use crate::model::units::counted;

/// Targets that are asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// What a target would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    pub tables: usize,
    /// All files.
    pub bytes: u64,
    /// Of these, what must be downloaded.
    pub download: u64,
    /// By directory: needed and free bytes.
    pub space: Vec<(PathBuf, u64, u64)>,
    /// Run before Cassandra is stopped, or before files are loaded.
    pub statements: Vec<String>,
    pub notes: Vec<String>,
    /// Other nodes of its ring that own the tokens that it would get, and are up.
    pub owners: Vec<NodeOwner>,
    /// Of the node that answers there, by which others are told from it.
    pub host_id: Option<String>,
    /// Whether it is a seed by its own cassandra.yaml.
    pub is_seed: bool,
    /// The release of Cassandra that answers there.
    pub cassandra: Option<String>,
    /// Where none answers, the one that is installed, which could read the backup.
    pub installed: Option<String>,
    /// How far the same restore got there before; `restored`: to its end.
    pub phase: Option<String>,
    /// The run for a whole cluster that this belonged to.
    pub run: Option<String>,
    /// Unix seconds.
    pub finished: Option<i64>,
}

impl Check {
    /// Whether the same restore was begun there and did not come to its end.
    pub fn is_begun(&self) -> bool {
        self.phase.is_some() && !self.is_restored()
    }

    pub fn is_restored(&self) -> bool {
        self.phase.as_deref() == Some("restored")
    }

    /// Whether Cassandra is down there for the restore.
    pub fn is_down(&self) -> bool {
        self.is_begun() && !matches!(self.phase.as_deref(), Some("staging" | "staged"))
    }

    /// Whether its swap was begun: neither staging nor stopping is left to do.
    pub fn is_swapping(&self) -> bool {
        self.is_down() && self.phase.as_deref() != Some("stopped")
    }

    fn parse(text: &str) -> serde_json::Result<Self> {
        let plan: NodePlan = serde_json::from_str(text)?;
        let changes = plan.drop.into_iter().chain(plan.create).map(|step| step.statement);
        let after = plan.create_after.into_iter().map(|step| format!("{} is created when all is loaded", step.what));
        Ok(Self {
            tables: plan.tables.len(),
            bytes: plan.bytes,
            download: plan.bytes.saturating_sub(plan.local_bytes),
            space: plan
                .directories
                .into_iter()
                .chain(plan.stage)
                .map(|d| (d.path, d.needed_bytes, d.free_bytes))
                .collect(),
            statements: plan.statements.into_iter().chain(changes).collect(),
            notes: plan.notes.into_iter().chain(after).collect(),
            owners: plan.owners,
            host_id: plan.host_id,
            is_seed: plan.seed,
            cassandra: plan.cassandra,
            installed: plan.installed,
            phase: plan.progress.phase,
            run: plan.progress.run,
            finished: plan.progress.finished,
        })
    }
}

/// The document of `restore-node --dry-run`, as far as it is needed. A restore that was begun has no plan any more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodePlan {
    tables: Vec<serde::de::IgnoredAny>,
    bytes: u64,
    local_bytes: u64,
    directories: Vec<NodeDirectory>,
    statements: Vec<String>,
    notes: Vec<String>,
    owners: Vec<NodeOwner>,
    host_id: Option<String>,
    progress: NodeProgress,
    seed: bool,
    cassandra: Option<String>,
    installed: Option<String>,
    // Of a load.
    stage: Option<NodeDirectory>,
    drop: Vec<NodeStep>,
    create: Vec<NodeStep>,
    create_after: Vec<NodeStep>,
}

/// A node that owns tokens and is up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeOwner {
    pub host: String,
    pub host_id: String,
}

#[derive(Debug, Deserialize)]
struct NodeStep {
    what: String,
    statement: String,
}

#[derive(Debug, Deserialize)]
struct NodeDirectory {
    path: PathBuf,
    needed_bytes: u64,
    free_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
struct NodeProgress {
    phase: Option<String>,
    run: Option<String>,
    finished: Option<i64>,
}

/// Asks all targets. In the order of the assignments.
///
/// # Errors
/// Names every target that could not do its part, and why.
pub async fn all(
    context: &Context,
    options: &ClusterRestoreOptions,
    ssh: &Ssh,
    mapping: &Mapping,
) -> anyhow::Result<Vec<Check>> {
    let asked = on_hosts(&mapping.assignments, ASKED_AT_ONCE, |given: &Assignment| async move {
        let job = options.job(context, mapping.method, given, &Step::Check);
        judge(ssh.run(&given.target, &job, &|_| ()).await)
    });
    let answers = context.interrupt.or(async { anyhow::Ok(asked.await) }).await?;
    let (mut checks, mut problems, mut hints) = (Vec::new(), Vec::new(), Vec::new());
    for (given, answer) in mapping.assignments.iter().zip(answers) {
        match answer {
            Ok(check) => checks.push(check),
            Err((reason, hint)) => {
                problems.push(format!("{}: {reason}", given.target));
                hints.extend(hint);
            }
        }
    }
    if problems.is_empty() {
        return Ok(checks);
    }
    let (count, all) = (problems.len(), counted(mapping.assignments.len() as u64, "host"));
    let hint = hints.into_iter().next().unwrap_or_else(|| {
        let host = problems.first().and_then(|problem| problem.split(':').next()).unwrap_or_default();
        format!("medusa restore-node --dry-run on {host} says more; every host must be able to do its part")
    });
    Err(Failure::failed(format!("{count} of {all} cannot restore their part; nothing was changed"))
        .details(problems)
        .hint(hint)
        .into())
}

/// What a host said, or the reason and perhaps the way forward.
fn judge(answer: Result<JobEnd, SshError>) -> Result<Check, (String, Option<String>)> {
    match answer {
        Ok(end) if end.code == 0 => {
            Check::parse(&end.stdout).map_err(|error| (format!("its answer cannot be read: {error}"), None))
        }
        Ok(end) => Err((end.reason(), None)),
        Err(error) => Err((error.to_string(), Some(error.hint()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_a_node_is_read() {
        let text = r#"{"version": 1, "tables": [{}, {}], "bytes": 10, "local_bytes": 4, "statements": ["CREATE"], "notes": ["n"], "cassandra": "5.0.9",
            "directories": [{"path": "/d", "needed_bytes": 6, "free_bytes": 7}], "progress": {"phase": null, "run": null, "finished": null}}"#;
        let check = Check::parse(text).unwrap();
        assert_eq!((check.tables, check.bytes, check.download), (2, 10, 6));
        assert_eq!(check.cassandra.as_deref(), Some("5.0.9"));
        assert_eq!(check.space, [(PathBuf::from("/d"), 6, 7)]);
        assert!(!check.is_begun() && !check.is_restored() && !check.is_down());
    }

    #[test]
    fn the_plan_of_a_load_is_read() {
        let text = r#"{"tables": [{}], "bytes": 10, "local_bytes": 0, "notes": [], "stage": {"path": "/d", "needed_bytes": 10, "free_bytes": 20},
            "drop": [{"what": "table a.b", "statement": "DROP TABLE a.b;"}], "create": [{"what": "table a.b", "statement": "CREATE TABLE a.b"}],
            "create_after": [{"what": "index a.i", "statement": "CREATE INDEX"}]}"#;
        let check = Check::parse(text).unwrap();
        assert_eq!(check.space, [(PathBuf::from("/d"), 10, 20)]);
        assert_eq!(check.statements, ["DROP TABLE a.b;", "CREATE TABLE a.b"]);
        assert_eq!(check.notes, ["index a.i is created when all is loaded"]);
    }

    #[test]
    fn a_restore_that_was_begun_is_told_from_one_that_ended() {
        let of = |phase: &str| {
            Check::parse(&format!(r#"{{"progress": {{"phase": "{phase}", "run": "r", "finished": 5}}}}"#)).unwrap()
        };
        for (phase, states) in [
            ("staging", (true, false, false)),
            ("staged", (true, false, false)),
            ("stopped", (true, false, true)),
            ("swapping", (true, false, true)),
            ("restored", (false, true, false)),
        ] {
            let check = of(phase);
            assert_eq!((check.is_begun(), check.is_restored(), check.is_down()), states, "{phase}");
        }
    }

    #[test]
    fn a_host_that_refuses_says_why() {
        let end = |code, stdout: &str, stderr: &str| JobEnd { code, stdout: stdout.into(), stderr: stderr.into() };
        let (reason, hint) = judge(Ok(end(1, "", "error: no space\nhint: x\n"))).unwrap_err();
        assert!(reason.contains("no space") && hint.is_none(), "{reason}");
        assert!(judge(Ok(end(0, "no json", ""))).unwrap_err().0.contains("cannot be read"));
    }
}
