//! A remote restore that a coordinator did not come to the end with. Its hosts may not know their ring any more, and own other
//! tokens than when it was planned: what goes on with it is the plan of then, which every target has written down.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::mapping::{Assignment, Method};
use super::{ClusterRestoreOptions, Step};
use crate::cluster::hosts::{Listed, parse_list};
use crate::cluster::remote::on_hosts;
use crate::context::Context;
use crate::error::Failure;
use crate::exec::ssh::Ssh;
use crate::model::units::counted;
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

/// A run that is gone on with.
#[derive(Debug)]
pub struct Interrupted {
    pub run: String,
    /// Its plan. Never empty.
    pub listed: Vec<Listed>,
}

/// What hosts say of the runs that were begun there.
#[derive(Debug, Default)]
struct Told {
    runs: Vec<Run>,
    /// Those that say nothing, and why.
    silent: BTreeMap<String, String>,
}

/// The same restore that was begun before on one of these hosts, and has not ended on all of its own. Without hosts this one is
/// asked.
///
/// # Errors
/// All that answer have come to the end of one, and another target of it says nothing.
pub async fn find(
    context: &Context,
    options: &ClusterRestoreOptions,
    ssh: &Ssh,
    known: Vec<String>,
) -> anyhow::Result<Option<Interrupted>> {
    if options.again || options.load.wanted {
        return Ok(None);
    }
    let told = if known.is_empty() {
        let runs = context.cassandra_yaml().and_then(|yaml| Run::all(&yaml)).unwrap_or_default();
        Told { runs, ..Told::default() }
    } else {
        ask(context, options, ssh, &known).await?
    };
    let known: BTreeSet<_> = known.into_iter().collect();
    let names: BTreeSet<_> = told.runs.iter().filter(|run| options.is_of(run)).map(|run| run.run.clone()).collect();
    for name in names {
        let of_this = |run: &&Run| run.run == name;
        // One of an older version, or that was taken over by another run, may have none.
        let plan = told.runs.iter().filter(of_this).map(|run| run.hosts.join("\n"));
        let mut plans = plan.filter_map(|plan| parse_list(&plan, SEPARATOR).ok());
        let Some(listed) = plans.find(|listed| !listed.is_empty()) else { continue };
        let others = listed.iter().map(|line| line.target.clone()).filter(|target| !known.contains(target));
        let of_others = ask(context, options, ssh, &others.collect::<Vec<_>>()).await?;
        let mut all = told.runs.iter().chain(&of_others.runs).filter(of_this);
        if all.any(|run| !run.is_restored()) {
            return Ok(Some(Interrupted { run: name, listed }));
        }
        let silent = |line: &Listed| {
            let why = told.silent.get(&line.target).or_else(|| of_others.silent.get(&line.target))?;
            Some(format!("{}: {why}", line.target))
        };
        let silent: Vec<_> = listed.iter().filter_map(silent).collect();
        if !silent.is_empty() {
            return Err(Failure::failed(format!(
                "this restore was begun before (run {name}), and of {} it is not known whether it has ended there",
                counted(silent.len() as u64, "target")
            ))
            .details(silent)
            .hint("once they can be asked, the same command goes on with it; --again plans anew, without them if the ring has lost them")
            .into());
        }
    }
    Ok(None)
}

async fn ask(context: &Context, options: &ClusterRestoreOptions, ssh: &Ssh, hosts: &[String]) -> anyhow::Result<Told> {
    let asked = on_hosts(hosts, ASKED_AT_ONCE, |host| async move {
        let given = Assignment { target: host.clone(), sources: vec![host.clone()], why: String::new() };
        let job = options.job(context, Method::Remote, &given, &Step::State);
        let end = ssh.run(host, &job, &|_| ()).await.map_err(|error| error.to_string())?;
        if end.code != 0 {
            return Err(end.reason());
        }
        let state: State = serde_json::from_str(&end.stdout).map_err(|error| format!("its answer is odd: {error}"))?;
        Ok(state.runs)
    });
    let answers = context.interrupt.or(async { anyhow::Ok(asked.await) }).await?;
    let mut told = Told::default();
    for (host, answer) in hosts.iter().zip(answers) {
        match answer {
            Ok(runs) => told.runs.extend(runs),
            Err(why) => drop(told.silent.insert(host.clone(), why)),
        }
    }
    Ok(told)
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
