//! The backup of a cluster: one wave of snapshots, then uploads, a few at a time.
//!
//! A coordinator that is killed leaves jobs that go on, and snapshots that wait on the hosts. The same command finds both, and
//! does what is missing. On every other way out the snapshots are cleared on the hosts whose backup is not complete.

pub mod act;
pub mod plan;
pub mod report;

use std::time::{Duration, Instant};

use self::act::Acting;
use self::plan::ClusterPlan;
use self::report::{ClusterOutcome, HostOutcome, State};
use super::hosts::Choice;
use super::remote::{self, Unfit};
use crate::config::Config;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::exec::ssh::Ssh;
use crate::listing;
use crate::model::backups::{BackupMode, ClusterBackup};
use crate::model::names::BackupName;
use crate::model::units;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ClusterBackupOptions {
    pub name: BackupName,
    pub choice: Choice,
    pub mode: BackupMode,
    /// Given on to the nodes, in seconds.
    pub stagger: Option<u64>,
    pub compare_contents: bool,
    /// On the hosts: below it jobs keep their files.
    pub folder: String,
    /// Hosts at a time.
    pub parallel_snapshots: usize,
    pub parallel_uploads: usize,
    pub keep_snapshot: bool,
    pub use_existing_snapshot: bool,
    pub allow_corrupt: bool,
}

/// One backup of a cluster.
#[derive(Debug)]
pub struct ClusterBackupRun<'a> {
    context: &'a Context,
    options: &'a ClusterBackupOptions,
}

impl<'a> ClusterBackupRun<'a> {
    pub fn new(context: &'a Context, options: &'a ClusterBackupOptions) -> Self {
        Self { context, options }
    }

    /// Finds out what is to be done on which host. Nothing is touched.
    ///
    /// # Errors
    /// There is nothing to do: the name is taken.
    pub async fn plan(&self) -> anyhow::Result<ClusterPlan> {
        let (context, options) = (self.context, self.options);
        let hosts = options.choice.hosts(context, options.stagger.is_some()).await?;
        if hosts.is_empty() {
            return Err(Failure::failed("the ring has no host").into());
        }
        let begun = context.interrupt.or(listing::confirmed(&context.storage, &options.name)).await?;
        let plan = ClusterPlan::make(hosts, begun.as_ref());
        if plan.is_done() {
            let count = units::counted(plan.hosts.len() as u64, "host");
            return Err(Failure::failed(format!("backup {} already exists: it is complete on {count}", options.name))
                .hint("take another --backup-name, or delete it first with medusa delete-backup --all-nodes")
                .into());
        }
        Ok(plan)
    }

    /// # Errors
    /// Nothing was begun, or it was interrupted. How it went on the hosts, well or not, is the outcome.
    pub async fn run(&self) -> anyhow::Result<ClusterOutcome> {
        let (context, options) = (self.context, self.options);
        let begin = Instant::now();
        let plan = self.plan().await?;
        let (all, missing) = (plan.hosts.len() as u64, plan.missing());
        context.monitor.title(&format!(
            "backup {} of {} to {} ({})",
            options.name,
            units::counted(all, "host"),
            context.storage.location(),
            options.mode
        ));
        let ssh = Ssh::new(&context.config)?;
        let outcome = self.run_over(&ssh, &plan, missing, begin).await;
        ssh.close().await;
        outcome
    }

    async fn run_over(
        &self,
        ssh: &Ssh,
        plan: &ClusterPlan,
        mut missing: Vec<String>,
        begin: Instant,
    ) -> anyhow::Result<ClusterOutcome> {
        let (context, options) = (self.context, self.options);
        let mut ended = self.check_versions(ssh, &missing).await?;
        missing.retain(|host| ended.iter().all(|failed| failed.host != *host));
        let acting = Acting::new(context, options, plan, ssh);
        let before = plan.before();
        let acted = context.interrupt.or(async { anyhow::Ok(acting.run(&missing, &before).await) }).await;
        let (worked, spread) = match acted {
            Ok(worked) => worked,
            Err(error) => {
                let left = acting.tidy_up().await;
                return Err(with_left(error, left));
            }
        };
        ended.extend(worked);
        ended.extend(before.iter().map(|host| HostOutcome::before(host)));
        let place = |outcome: &HostOutcome| plan.hosts.iter().position(|planned| planned.host.name == outcome.host);
        ended.sort_by_key(place);
        // What is stored decides, not what somebody says.
        let stored = listing::confirmed(&context.storage, &options.name).await;
        let (stored, unknown) = match stored {
            Ok(stored) => (stored, None),
            Err(error) => (None, Some(one_line(&error))),
        };
        if unknown.is_none() {
            settle(&mut ended, plan, stored.as_ref());
        }
        let mut notes: Vec<_> =
            unknown.into_iter().map(|error| format!("what is stored is not known: {error}")).collect();
        notes.extend(stored.as_ref().and_then(listing::other_names));
        notes.extend(stored.as_ref().and_then(|stored| others_missing(stored, plan)));
        Ok(ClusterOutcome {
            name: options.name.clone(),
            mode: options.mode,
            hosts: ended,
            spread,
            complete: stored.as_ref().is_some_and(ClusterBackup::is_complete),
            partial: matches!(options.choice, Choice::Listed(_))
                && stored.is_some_and(|stored| has_asked(&stored, plan)),
            notes,
            began: context.now.timestamp(),
            took: begin.elapsed(),
        })
    }

    /// Those that do not answer, as failed.
    ///
    /// # Errors
    /// A host has another version: what it would store is not what is expected here.
    async fn check_versions(&self, ssh: &Ssh, hosts: &[String]) -> anyhow::Result<Vec<HostOutcome>> {
        let (context, begin) = (self.context, Instant::now());
        let check = async { anyhow::Ok(remote::check_versions(ssh, hosts).await) };
        let (mut silent, mut other) = (Vec::new(), Vec::new());
        for (host, unfit) in context.interrupt.or(check).await? {
            match unfit {
                Unfit::Other(_) => other.push(format!("{host}: {unfit}")),
                Unfit::Silent(error) => {
                    context.monitor.problem(&format!("{host}: {error}"));
                    let failed = HostOutcome::failed(&host, error.to_string(), begin.elapsed());
                    silent.push(HostOutcome { hint: Some(error.hint()), ..failed });
                }
            }
        }
        if other.is_empty() {
            return Ok(silent);
        }
        let count = units::counted(other.len() as u64, "host");
        Err(Failure::failed(format!("{count} cannot take part: medusa must be the same on all"))
            .details(other)
            .hint("nothing was begun; install the same version everywhere, or choose the hosts with --hosts")
            .into())
    }
}

/// Compares what hosts said with what is stored.
fn settle(hosts: &mut [HostOutcome], plan: &ClusterPlan, stored: Option<&ClusterBackup>) {
    let is_complete =
        |folder: &str| stored.and_then(|stored| stored.node(folder)).is_some_and(|node| node.finished.is_some());
    for outcome in hosts {
        let planned = plan.hosts.iter().find(|planned| planned.host.name == outcome.host);
        let folders = planned.into_iter().flat_map(|planned| &planned.host.folders).chain(&outcome.fqdn);
        let complete = folders.map(String::as_str).any(is_complete);
        match outcome.state {
            // A run of an earlier coordinator has finished it meanwhile, or something failed after the commit.
            State::Failed if complete && outcome.uploads => outcome.state = State::Complete,
            State::Failed if complete => *outcome = HostOutcome::before(&outcome.host),
            State::Complete if !complete => {
                outcome.state = State::Failed;
                outcome.problem = Some("the storage does not have what this host says it stored".into());
                outcome.hint = Some("do all hosts have the same bucket and prefix in their medusa.ini?".into());
            }
            _ => {}
        }
    }
}

fn is_asked(plan: &ClusterPlan, host: &str) -> bool {
    plan.hosts.iter().any(|planned| planned.host.folders.contains(host))
}

/// Whether every node that was asked to take part has finished it.
fn has_asked(stored: &ClusterBackup, plan: &ClusterPlan) -> bool {
    let is_complete = |host: &str| stored.node(host).is_some_and(|node| node.finished.is_some());
    stored.hosts.iter().all(|host| is_complete(host) || !is_asked(plan, host))
}

/// Nodes of the ring that nobody asked to take part.
fn others_missing(stored: &ClusterBackup, plan: &ClusterPlan) -> Option<String> {
    let others: Vec<_> = stored.missing_nodes().into_iter().filter(|host| !is_asked(plan, host)).collect();
    if others.is_empty() || !stored.unknown_nodes().is_empty() {
        return None;
    }
    let count = units::counted(others.len() as u64, "node");
    Some(format!("{count} of the ring have no part in it: {}", others.join(", ")))
}

/// Adds what could not be tidied up.
fn with_left(error: anyhow::Error, left: Vec<String>) -> anyhow::Error {
    if left.is_empty() {
        return error;
    }
    match error.downcast::<Failure>() {
        Ok(failure) => failure.details(left).into(),
        Err(error) => Failure::failed("the backup was ended").cause(error).details(left).into(),
    }
}

/// How long a host may take for its snapshot, and for clearing it: what the calls that it makes may take.
fn deadlines(config: &Config) -> (Duration, Duration) {
    let (cassandra, hooks) = (&config.cassandra, &config.hooks);
    let clearing = 2 * (cassandra.nodetool_timeout + config.storage.object_store.read_timeout);
    let hook = if hooks.before_backup.is_empty() { Duration::ZERO } else { hooks.timeout };
    (2 * cassandra.snapshot_timeout + 4 * cassandra.cql_timeout + hook + clearing, clearing)
}
