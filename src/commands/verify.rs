//! `verify`.

use clap::Args;

use super::{existing_name, no_such_backup};
use crate::cli::output::Output;
use crate::context::Context;
use crate::error::Failure;
use crate::model::units::counted;
use crate::verify;

/// Checks that a backup is complete and that everything it names is there
///
/// Existence and sizes are checked. With --enable-md5-checks every object is read and compared with its recorded hash.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME")]
    backup_name: String,
    /// Read every object and compare it with its recorded hash
    #[arg(long)]
    enable_md5_checks: bool,
}

impl VerifyArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let name = existing_name(&self.backup_name)?;
        let contents = self.enable_md5_checks || context.config.checks.enable_md5_checks;
        let report = context.interrupt.or(verify::verify(context, &name, contents)).await?;
        let report = report.ok_or_else(|| no_such_backup(context, &name))?;
        output.print(|| report.text(), || report.json())?;
        if report.is_good() {
            return Ok(());
        }
        if !report.backup.is_complete() {
            return Err(Failure::problems(format!("backup {name} is not complete"))
                .hint(format!("medusa status --backup-name {name} names the nodes"))
                .into());
        }
        let damaged: Vec<_> = report.nodes.iter().filter(|node| !node.is_good()).collect();
        let details = damaged.iter().map(|node| match &node.unreadable {
            Some(_) => format!("{}   manifest cannot be read", node.fqdn),
            None => format!(
                "{}   {} of {}",
                node.fqdn,
                counted(node.findings.len() as u64, "problem"),
                counted(node.objects.files, "object")
            ),
        });
        let message = format!("{} of {} damaged", damaged.len(), counted(report.nodes.len() as u64, "node"));
        Err(Failure::problems(message)
            .details(details.collect::<Vec<_>>())
            .hint("their tables can be restored from another backup that verifies, or from the other replicas and a repair")
            .into())
    }
}
