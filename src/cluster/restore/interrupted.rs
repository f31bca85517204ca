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
        Told { runs: own_runs(context)?, ..Told::default() }
    } else {
        ask(context, options, ssh, &known).await?
    };
    let known: BTreeSet<_> = known.into_iter().collect();
    let mut by_run: BTreeMap<&str, usize> = BTreeMap::new();
    for run in told.runs.iter().filter(|run| options.is_of(run)) {
        *by_run.entry(&run.run).or_default() += 1;
    }
    // A later run takes over the hosts of an earlier one: that which most of them tell of is the last one.
    let mut names: Vec<_> = by_run.into_iter().collect();
    names.sort_by_key(|(_, hosts)| std::cmp::Reverse(*hosts));
    let mut doubtful = None;
    for (name, _) in names {
        let of_this = |run: &&Run| run.run == name;
        // One of an older version, or that was taken over by another run, may have none.
        let plan = told.runs.iter().filter(of_this).map(|run| run.hosts.join("\n"));
        let mut plans = plan.filter_map(|plan| parse_list(&plan, SEPARATOR).ok());
        let Some(listed) = plans.find(|listed| !listed.is_empty()) else { continue };
        let others = listed.iter().map(|line| line.target.clone()).filter(|target| !known.contains(target));
        let of_others = ask(context, options, ssh, &others.collect::<Vec<_>>()).await?;
        let mut all = told.runs.iter().chain(&of_others.runs).filter(of_this);
        if all.any(|run| !run.is_restored()) {
            return Ok(Some(Interrupted { run: name.to_owned(), listed }));
        }
        let silent = |line: &Listed| {
            let why = told.silent.get(&line.target).or_else(|| of_others.silent.get(&line.target))?;
            Some(format!("{}: {why}", line.target))
        };
        let silent: Vec<_> = listed.iter().filter_map(silent).collect();
        if !silent.is_empty() {
            doubtful.get_or_insert((name, silent));
        }
    }
    let Some((name, silent)) = doubtful else { return Ok(None) };
    let count = counted(silent.len() as u64, "target");
    Err(Failure::failed(format!(
        "this restore was begun before (run {name}), and of {count} it is not known whether it has ended there"
    ))
    .details(silent)
    .hint("--again plans anew, for the hosts that there are now; to go on with that run they must be reached first")
    .into())
}

/// Those of this host, where it is a node.
fn own_runs(context: &Context) -> anyhow::Result<Vec<Run>> {
    let Ok(yaml) = context.cassandra_yaml() else { return Ok(Vec::new()) };
    Run::all(&yaml).map_err(|error| {
        Failure::failed("whether a restore was begun on this node before could not be looked at")
            .cause(error)
            .hint("as root it can be; --seed-target with the name of this host asks by ssh, with sudo; --again plans anew")
            .into()
    })
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
