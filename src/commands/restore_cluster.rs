//! `restore-cluster`.

use std::path::PathBuf;

use clap::Args;

use super::existing_name;
use super::selection::SelectionArgs;
use crate::cluster::hosts::Choice;
use crate::cluster::restore::mapping::Method;
use crate::cluster::restore::report::ClusterOutcome;
use crate::cluster::restore::{self, ClusterRestoreOptions, LoadOptions, act};
use crate::context::Context;
use crate::error::Failure;
use crate::exec::ssh::Ssh;
use crate::monitoring::run::Facts;
use crate::restore::load::replication::{parse_dc_map, parse_replication};
use crate::screen::output::Output;
use crate::screen::terminal;
use crate::screen::terminal::Terminal;

/// Refuses what the targets would refuse; it is given on as it is.
fn checked<T>(parse: fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<String, String> + Clone {
    move |text| parse(text).map(|_| text.to_owned())
}

/// Restores a cluster from a backup, by ssh
///
/// Every target brings and compares its files while Cassandra runs. Only when all have them, all are stopped, get their
/// files and are started, seeds first. Where the ring fits the backup in no other way, files are loaded instead.
#[derive(Debug, Args)]
pub struct RestoreClusterArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
    /// A node that tells about the ring [default: this one]
    #[arg(long, value_name = "HOST")]
    seed_target: Option<String>,
    /// Targets with their sources, a line for each: `is_seed,target,source`
    #[arg(long, value_name = "FILE", conflicts_with = "seed_target")]
    host_list: Option<PathBuf>,
    /// Folder on the targets for running jobs, and for files if it is on the file system of the tables [default: /tmp]
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
    /// Leave `system_auth` as it is on the targets (no effect in place)
    #[arg(long)]
    keep_auth: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    bypass_checks: bool,
    /// Run the query of `[checks]` on every target afterwards
    #[arg(long, overrides_with = "_no_verify")]
    verify: bool,
    /// Do not (the default)
    #[arg(long = "no-verify")]
    _no_verify: bool,
    #[command(flatten)]
    tables: SelectionArgs,
    /// Load the files, also where targets could take them over
    #[arg(long)]
    use_sstableloader: bool,
    /// Targets that work at once (also -pr)
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    parallel_restores: u32,
    /// The release of targets whose Cassandra does not answer, as in 5.0.9
    #[arg(long, value_name = "RELEASE")]
    version_target: Option<String>,
    /// Racks of the targets need not correspond to those of the backup
    #[arg(long)]
    ignore_racks: bool,
    /// Restore what is there of a backup that is not complete
    #[arg(long)]
    allow_incomplete: bool,
    /// Plan anew: do not go on with a run that was interrupted, and restore again what it has restored
    #[arg(long)]
    again: bool,
    /// When loading: drop and create tables that are there
    #[arg(long)]
    recreate_tables: bool,
    /// When loading: a datacenter of the backup and what it is called now; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = checked(parse_dc_map))]
    dc_map: Vec<String>,
    /// When loading: replication of a keyspace that is created, such as shop=dc1:3,dc2:2; may be given several times
    #[arg(long, value_name = "KEYSPACE=DC:COUNT,DC:COUNT", value_parser = checked(parse_replication))]
    replication: Vec<String>,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreClusterArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        *facts = Facts::ClusterRestore { name: self.backup_name.clone(), done: None };
        let can_ask = terminal::can_ask();
        if !self.dry_run && !self.bypass_checks && !can_ask {
            return Err(Failure::usage("the question whether to proceed cannot be asked: stdin is no terminal")
                .hint("look at the plan with --dry-run; --bypass-checks (-y) goes on without asking")
                .into());
        }
        let options = self.options(context)?;
        let ssh = Ssh::new(&context.config)?;
        let outcome = self.act(context, &options, &ssh, output, facts).await;
        ssh.close().await;
        outcome
    }

    async fn act(
        &self,
        context: &Context,
        options: &ClusterRestoreOptions,
        ssh: &Ssh,
        output: &Output,
        facts: &mut Facts,
    ) -> anyhow::Result<()> {
        let plan = restore::plan(context, options, ssh).await?;
        if self.dry_run {
            return output.print(|look| plan.text(look), || plan.json());
        }
        if self.bypass_checks {
            context.monitor.title(plan.text(Terminal::stderr().look).trim_end());
        } else if !output.confirm(|look| plan.text(look), &context.interrupt).await? {
            return Err(Failure::failed("nothing was changed: the answer was not yes").into());
        }
        let outcome = act::run(context, options, &plan, ssh).await?;
        if outcome.restored() > 0 {
            *facts = Facts::ClusterRestore { name: self.backup_name.clone(), done: Some(outcome.took) };
        }
        output.print(|look| outcome.text(look), || outcome.json())?;
        judge(&outcome)
    }

    fn options(&self, context: &Context) -> Result<ClusterRestoreOptions, Failure> {
        let separator = context.config.values.get("storage", "host_file_separator").text.as_deref().unwrap_or(",");
        let choice = Choice::new(self.seed_target.as_deref(), self.host_list.as_deref(), &[], separator)?;
        if let Some(folder) = self.temp_dir.as_ref().filter(|folder| !folder.is_absolute()) {
            let folder = folder.display();
            return Err(Failure::usage(format!("--temp-dir is {folder}, and must be an absolute path")));
        }
        Ok(ClusterRestoreOptions {
            name: existing_name(&self.backup_name)?,
            choice,
            temp_dir: self.temp_dir.clone(),
            keep_auth: self.keep_auth,
            verify: self.verify,
            selection: self.tables.selection(),
            load: LoadOptions {
                wanted: self.use_sstableloader,
                recreate_tables: self.recreate_tables,
                dc_map: self.dc_map.clone(),
                replication: self.replication.clone(),
            },
            parallel: self.parallel_restores as usize,
            version_target: self.version_target.clone(),
            ignore_racks: self.ignore_racks,
            allow_incomplete: self.allow_incomplete,
            again: self.again,
        })
    }
}

/// Some targets, or all of them, were not restored.
fn judge(outcome: &ClusterOutcome) -> anyhow::Result<()> {
    if outcome.is_complete() {
        return Ok(());
    }
    let (done, all) = (outcome.restored(), outcome.targets.len());
    if outcome.method == Method::Load {
        let message = format!("not everything was loaded on {} of {all} targets; see the table", all - done);
        let failure = if done == 0 { Failure::failed(message) } else { Failure::problems(message) };
        return Err(failure
            .hint("the same command loads all of it again, which does no harm: rows are only added")
            .into());
    }
    let undecided = outcome.undecided();
    if undecided > 0 {
        let message = format!("of {undecided} of {all} targets it is not known what they have, or they are down");
        let failure = if done == 0 { Failure::failed(message) } else { Failure::problems(message) };
        return Err(failure
            .hint(
                "what was begun there goes on, and the same command takes it up again; medusa restore-node … --undo starts a \
                 target that is down with its previous data",
            )
            .into());
    }
    if done == 0 {
        return Err(Failure::failed("no target was restored; see the table")
            .hint("each one that failed put its previous data back; the same command tries again")
            .into());
    }
    if done == all {
        let wrong = outcome.unexpected();
        return Err(Failure::problems(format!("all targets were restored, and {wrong} failed the query of [checks]"))
            .hint("the cluster runs; look at query, expected_rows and expected_result in [checks]")
            .into());
    }
    Err(Failure::problems(format!("{} of {all} targets were not restored; see the table", all - done))
        .hint(
            "those run with their previous data, and may bring it back to the others: stop them, or let the same command \
             go on at once",
        )
        .into())
}
