//! `restore-node`.

use std::path::PathBuf;

use clap::Args;

use super::existing_name;
use crate::cli::output::Output;
use crate::context::Context;
use crate::error::Failure;
use crate::hooks;
use crate::monitoring::run::{Facts, Restore};
use crate::restore::plan::Mode;
use crate::restore::select::Selection;
use crate::restore::{self, RestoreOptions};

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
    /// Leave `system_auth` as it is on this node (only with --remote)
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
    /// Only tables of this keyspace; may be given several times
    #[arg(long = "keyspace", value_name = "KEYSPACE")]
    keyspaces: Vec<String>,
    /// Only this table; may be given several times
    #[arg(long = "table", value_name = "KEYSPACE.TABLE")]
    tables: Vec<String>,
    /// With --keyspace or --table: the system keyspaces as well
    #[arg(long)]
    with_system: bool,
    /// Print what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreNodeArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        *facts = Facts::Restore { name: self.backup_name.clone(), done: None };
        let mode = if self.remote { Mode::Remote } else { Mode::InPlace };
        if mode == Mode::InPlace && self.keep_auth {
            return Err(Failure::failed("system_auth cannot be kept in a restore in place: it would be overwritten")
                .hint("--keep-auth goes with --remote")
                .into());
        }
        let options = RestoreOptions {
            name: existing_name(&self.backup_name)?,
            mode,
            keep_auth: self.keep_auth,
            selection: Selection::new(&self.keyspaces, &self.tables, self.with_system),
            seeds: self.seeds.iter().filter(|seed| !seed.is_empty()).cloned().collect(),
            temp_dir: self.temp_dir.clone(),
            verify: self.verify,
        };
        if self.dry_run {
            let plan = context.interrupt.or(restore::dry_run(context, &options)).await?;
            return output.print(|| plan.text(), || plan.json());
        }
        let outcome = restore::run(context, &options).await?;
        let done = Restore { took: outcome.took, down: outcome.down, downloaded: outcome.downloaded.bytes };
        *facts = Facts::Restore { name: self.backup_name.clone(), done: Some(done) };
        output.print(|| outcome.text(), || outcome.json())?;
        Ok(hooks::after_restore(&context.config.hooks, &options.name, &outcome.json()).await?)
    }
}
