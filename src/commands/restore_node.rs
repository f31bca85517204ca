//! `restore-node`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::existing_name;
use super::selection::SelectionArgs;
use crate::context::Context;
use crate::error::{Failure, Kind};
use crate::hooks;
use crate::monitoring::run::{Facts, Restore};
use crate::restore::load::replication::{Replication, parse_dc_map, parse_replication};
use crate::restore::load::schema::Change;
use crate::restore::load::{self, LoadOptions};
use crate::restore::plan::Mode;
use crate::restore::runs::Run;
use crate::restore::{self, Extent, RestoreOptions, State};
use crate::screen::output::Output;

/// Restores this node from a backup
///
/// Files are brought beside the tables and compared with their hashes while Cassandra runs. Then Cassandra is stopped, the
/// folders are swapped, and it is started again. The present files are kept until it answers, and put back if it does not.
#[derive(Debug, Args)]
pub struct RestoreNodeArgs {
    /// Where files are brought first, if it is on the file system of the tables [default: beside the tables]
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
    /// The backup is of this node (the default)
    #[arg(long, overrides_with = "remote")]
    in_place: bool,
    /// This node takes over the tokens and the data of the one that --fqdn names
    #[arg(long, overrides_with = "in_place")]
    remote: bool,
    /// Leave `system_auth` as it is (only with --remote or --use-sstableloader)
    #[arg(long)]
    keep_auth: bool,
    /// Wait until one of these hosts is up before Cassandra is started
    #[arg(long, value_name = "HOST,HOST", value_delimiter = ',')]
    seeds: Vec<String>,
    /// Run the query of `[checks]` afterwards
    #[arg(long, overrides_with = "_no_verify")]
    verify: bool,
    /// Do not (the default)
    #[arg(long = "no-verify")]
    _no_verify: bool,
    #[command(flatten)]
    tables: SelectionArgs,
    /// The release of this node: it is asked, and where it does not answer, what is installed is not looked at
    #[arg(long, value_name = "RELEASE")]
    version_target: Option<String>,
    /// Bring and compare all files, and end; Cassandra goes on running
    #[arg(long, help_heading = "For restore-cluster", group = "extent")]
    stage_only: bool,
    /// Go on as far as Cassandra being down for the swap, and end
    #[arg(long, help_heading = "For restore-cluster", group = "extent")]
    stop_only: bool,
    /// Take back what the same restore did to Cassandra
    #[arg(long, help_heading = "For restore-cluster", group = "extent")]
    undo: bool,
    /// The run that this belongs to: what it has restored is not restored again
    #[arg(long, value_name = "ID", help_heading = "For restore-cluster")]
    run: Option<String>,
    /// A line of its plan, as in a host list
    #[arg(long = "host", value_name = "LINE", help_heading = "For restore-cluster", requires = "stage_only")]
    hosts: Vec<String>,
    /// Tell which restores of a cluster were begun here, and end
    #[arg(long, help_heading = "For restore-cluster", group = "extent")]
    state: bool,
    /// Stream the rows into the running cluster with Cassandra's sstableloader, whatever its nodes and tokens are
    ///
    /// Cassandra keeps running. --fqdn may name several nodes, with commas between. Missing keyspaces, types, functions, tables,
    /// indexes and views are created. Rows are added to those that are there; the later write wins.
    #[arg(long, conflicts_with_all = ["stage_only", "stop_only", "undo"])]
    use_sstableloader: bool,
    /// Drop tables and types that do not fit the backup, with their rows and views, and create them again
    #[arg(long, requires = "use_sstableloader", conflicts_with = "no_schema")]
    recreate_tables: bool,
    /// A datacenter that is called otherwise here, for keyspaces that are created; may be given several times
    #[arg(long, value_name = "OLD=NEW", requires = "use_sstableloader", value_parser = parse_dc_map)]
    dc_map: Vec<(String, String)>,
    /// Replication of a keyspace that is created, such as shop=dc1:3,dc2:2; may be given several times
    #[arg(long, value_name = "KEYSPACE=DC:COUNT,DC:COUNT", requires = "use_sstableloader", value_parser = parse_replication)]
    replication: Vec<(String, Replication)>,
    /// Create what is missing, and load nothing
    #[arg(long, requires = "use_sstableloader", help_heading = "For restore-cluster")]
    schema_only: bool,
    /// All is loaded: create also what had to wait for that
    #[arg(long, requires = "schema_only", help_heading = "For restore-cluster")]
    after_load: bool,
    /// Create nothing: everything must be there
    #[arg(long, requires = "use_sstableloader", conflicts_with = "schema_only", help_heading = "For restore-cluster")]
    no_schema: bool,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreNodeArgs {
    /// Whether it is a step of a restore, of whose end nobody is told unless it fails.
    pub fn is_part(&self) -> bool {
        self.stage_only || self.stop_only || self.undo || self.schema_only || self.state
    }

    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        if self.state {
            *facts = Facts::Nothing;
            let runs = Run::all(&context.cassandra_yaml()?)?;
            return output.print(|look| Run::text(&runs, look), || Run::json(&runs));
        }
        *facts = Facts::Restore { name: self.backup_name.clone(), done: None };
        if self.use_sstableloader {
            return self.load(context, output, facts).await;
        }
        if context.fqdn.as_str().contains(',') {
            return Err(Failure::usage("several nodes can be restored from only with --use-sstableloader")
                .hint("--fqdn names one node")
                .into());
        }
        let mode = if self.remote { Mode::Remote } else { Mode::InPlace };
        if mode == Mode::InPlace && self.keep_auth {
            return Err(Failure::failed("system_auth cannot be kept in a restore in place: it would be overwritten")
                .hint("--keep-auth goes with --remote and --use-sstableloader")
                .into());
        }
        let options = RestoreOptions {
            name: existing_name(&self.backup_name)?,
            mode,
            keep_auth: self.keep_auth,
            selection: self.tables.selection(),
            seeds: self.seeds.iter().filter(|seed| !seed.is_empty()).cloned().collect(),
            temp_dir: self.temp_dir.clone(),
            verify: self.verify,
            extent: match (self.stage_only, self.stop_only, self.undo) {
                (true, ..) => Extent::Stage,
                (_, true, _) => Extent::Stop,
                (.., true) => Extent::Undo,
                _ => Extent::Whole,
            },
            run: self.run.clone(),
            hosts: self.hosts.clone(),
            is_release_known: self.version_target.is_some(),
        };
        if self.dry_run {
            let plan = context.interrupt.or(restore::dry_run(context, &options)).await?;
            return output.print(|look| plan.text(look), || plan.json());
        }
        let outcome = restore::run(context, &options).await?;
        if outcome.state != State::Restored {
            *facts = Facts::Nothing;
            return output.print(|look| outcome.text(look), || outcome.json());
        }
        let done = Restore { took: outcome.took, down: outcome.down, downloaded: outcome.downloaded.bytes };
        *facts = Facts::Restore { name: self.backup_name.clone(), done: Some(done) };
        output.print(|look| outcome.text(look), || outcome.json())?;
        Ok(hooks::after_restore(&context.config.hooks, &options.name, &outcome.json()).await?)
    }
    async fn load(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let change = match (self.no_schema, self.recreate_tables) {
            (true, _) => Change::Nothing,
            (_, true) => Change::Recreate,
            _ => Change::Create,
        };
        let options = LoadOptions {
            name: existing_name(&self.backup_name)?,
            selection: self.tables.selection(),
            keep_auth: self.keep_auth,
            change,
            load: !self.schema_only,
            is_loaded: self.after_load,
            dc_map: self.dc_map.iter().cloned().collect(),
            replication: self.replication.iter().cloned().collect(),
            temp_dir: self.temp_dir.clone(),
            verify: self.verify,
        };
        if self.dry_run {
            let plan = load::dry_run(context, &options).await?;
            return output.print(|look| plan.text(look), || plan.json());
        }
        let outcome = load::run(context, &options).await?;
        let judgement = outcome.judge();
        if let Err(failure) = judgement {
            if failure.kind == Kind::Problems {
                output.print(|look| outcome.text(look), || outcome.json())?;
            }
            return Err(failure.into());
        }
        let done = Restore { took: outcome.took, down: Some(Duration::ZERO), downloaded: outcome.downloaded.bytes };
        *facts = Facts::Restore { name: self.backup_name.clone(), done: Some(done) };
        output.print(|look| outcome.text(look), || outcome.json())?;
        Ok(hooks::after_restore(&context.config.hooks, &options.name, &outcome.json()).await?)
    }
}
