//! `storage-check`.

use clap::Args;

use crate::context::Context;
use crate::error::Failure;
use crate::model::units;
use crate::screen::output::Output;
use crate::storage_check::roles::Role;
use crate::storage_check::{self, Extent};

/// Tries on the configured bucket everything that medusa needs, and measures it
///
/// Tells which commands these credentials are good for, and what the others lack. Writes a few objects and a file of 12 MiB
/// below index/storage-check/, small ones where backups write and purges delete, and removes them again; with --role reader
/// nothing. Ends with 3 where something is missing.
#[derive(Debug, Args)]
pub struct StorageCheckArgs {
    /// Only what the commands of one role need
    #[arg(long)]
    role: Option<Role>,
}

impl StorageCheckArgs {
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let report = storage_check::run(context, Extent::All, self.role).await?;
        output.print(|look| report.text(look), || report.json())?;
        if report.is_good() {
            return Ok(());
        }
        if let (0, Some(seconds)) = (report.failed(), report.clock_difference) {
            let location = &report.location;
            let message = format!("the clocks of this node and of {location} differ by {} seconds", seconds.abs());
            return Err(Failure::problems(message).hint("set the clock of this node (ntp, chrony)").into());
        }
        let count = units::counted(report.failed() as u64, "thing");
        let hint = report.first_hint().unwrap_or_else(|| {
            "docs/storage has the permissions that each command needs, and what to do about a store without conditional requests".into()
        });
        Err(Failure::problems(format!("{count} that medusa needs did not work on {}", report.location))
            .hint(hint)
            .into())
    }
}
