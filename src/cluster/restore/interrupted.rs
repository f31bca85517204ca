//! A remote restore that a coordinator did not come to the end with. Its hosts may not know their ring any more, and own other
//! tokens than when it was planned: what goes on with it is the plan of then, which every target has written down.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::mapping::{Assignment, Method};
use super::{ClusterRestoreOptions, Step};
use crate::cluster::hosts::{Listed, parse_list};
use crate::cluster::remote::on_hosts;
use crate::context::Context;
use crate::exec::ssh::Ssh;
use crate::restore::runs::Run;

/// Hosts that are asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// What separates the fields of a line.
pub const SEPARATOR: &str = ",";

/// The document of `restore-node --state`.
#[derive(Debug, Deserialize)]
struct State {
    runs: Vec<Run>,
}

/// The host list of the same restore that was begun before on one of these hosts, and has not ended on all of its own. Without
/// hosts this one is asked.
pub async fn hosts(
    context: &Context,
    options: &ClusterRestoreOptions,
    ssh: &Ssh,
    known: Vec<String>,
) -> anyhow::Result<Option<Vec<Listed>>> {
    if options.again || options.load.wanted {
        return Ok(None);
    }
    let found = if known.is_empty() {
        context.cassandra_yaml().and_then(|yaml| Run::all(&yaml)).unwrap_or_default()
    } else {
        ask(context, options, ssh, &known).await?
    };
    let known: BTreeSet<_> = known.into_iter().collect();
    let mut tried = BTreeSet::new();
    for run in found.iter().filter(|run| options.is_of(run)) {
        if !tried.insert(&run.run) {
            continue;
        }
        let Ok(listed) = parse_list(&run.hosts.join("\n"), SEPARATOR) else { continue };
        let others = listed.iter().map(|line| line.target.clone()).filter(|target| !known.contains(target));
        let of_others = ask(context, options, ssh, &others.collect::<Vec<_>>()).await?;
        let mut all = found.iter().chain(&of_others).filter(|other| other.run == run.run);
        if all.any(|other| !other.is_restored()) {
            return Ok(Some(listed));
        }
    }
    Ok(None)
}

/// What the hosts say. One that says nothing is none of them, or will say so when it is asked whether it can restore.
async fn ask(
    context: &Context,
    options: &ClusterRestoreOptions,
    ssh: &Ssh,
    hosts: &[String],
) -> anyhow::Result<Vec<Run>> {
    let asked = on_hosts(hosts, ASKED_AT_ONCE, |host| async move {
        let given = Assignment { target: host.clone(), sources: vec![host.clone()], why: String::new() };
        let job = options.job(context, Method::Remote, &given, &Step::State);
        let end = ssh.run(host, &job, &|_| ()).await.ok().filter(|end| end.code == 0)?;
        Some(serde_json::from_str::<State>(&end.stdout).ok()?.runs)
    });
    let answers = context.interrupt.or(async { anyhow::Ok(asked.await) }).await?;
    Ok(answers.into_iter().flatten().flatten().collect())
}

impl ClusterRestoreOptions {
    /// Whether a run was about what is asked for now.
    fn is_of(&self, run: &Run) -> bool {
        let selection = &self.selection;
        run.remote
            && run.backup == self.name.as_str()
            && run.keep_auth == self.keep_auth
            && run.keyspaces == selection.keyspaces
            && run.tables == selection.tables
            && run.with_system == selection.with_system
    }
}
