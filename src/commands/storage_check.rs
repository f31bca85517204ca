//! `storage-check`.

use clap::Args;

use crate::context::Context;
use crate::error::Failure;
use crate::model::units;
use crate::screen::output::Output;
use crate::storage_check::{self, Extent};

/// Tries on the configured bucket everything that medusa needs, and measures it
///
/// Writes a few objects and a file of 12 MiB below index/storage-check/, and removes them again. Ends with 3 where something is
/// missing.
#[derive(Debug, Args)]
pub struct StorageCheckArgs {}

impl StorageCheckArgs {
    #[allow(clippy::unused_self, reason = "as every command")]
    pub async fn run(&self, context: &Context, output: &Output) -> anyhow::Result<()> {
        let report = storage_check::run(context, Extent::All).await?;
        output.print(|look| report.text(look), || report.json())?;
        if report.is_good() {
            return Ok(());
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
