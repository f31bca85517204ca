//! `verify`.

use clap::Args;

use super::{existing_name, no_such_backup};
use crate::context::Context;
use crate::error::Failure;
use crate::model::look::Look;
use crate::model::names::Fqdn;
use crate::model::units::counted;
use crate::monitoring::run::Facts;
use crate::screen::output::Output;
use crate::verify::sample::{Sample, Share};
use crate::verify::{self, BackupReport, Depth, NodeReport, Unknown, VerifyOptions, VerifyReport, repository};

/// Checks that backups are complete and that everything they name is there
///
/// Existence and sizes are checked, and with --read-data every byte. With --repository, what listings and other tools rely on
/// is compared with the backups instead. Nothing is ever changed.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Name of the backup
    #[arg(long, value_name = "NAME", required_unless_present_any = ["all", "repository"])]
    backup_name: Option<String>,
    /// All backups; what several of them name is looked at once
    #[arg(long, conflicts_with = "backup_name")]
    all: bool,
    /// Only this node; may be given several times
    #[arg(long = "node", value_name = "FQDN")]
    nodes: Vec<String>,
    /// Read every object and compare it with its recorded hash, and report as cassandra-medusa does
    #[arg(long)]
    enable_md5_checks: bool,
    /// Read every object and compare it with its recorded hash
    #[arg(long)]
    read_data: bool,
    /// Read only so many of the objects: 5%
    #[arg(long, value_name = "SHARE", conflicts_with = "enable_md5_checks")]
    sample: Option<Share>,
    /// Chooses the same sample as another run; every run says its own
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    seed: Option<u64>,
    /// Compare index, summaries and markers with the backups, and count what no backup needs
    #[arg(long, conflicts_with_all = ["backup_name", "all", "nodes", "enable_md5_checks", "read_data", "sample"])]
    repository: bool,
}

impl VerifyArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        if self.repository {
            return self.repository(context, output, facts).await;
        }
        let name = self.backup_name.as_deref().map(existing_name).transpose()?;
        let nodes: Result<Vec<_>, _> = self.nodes.iter().map(|node| Fqdn::new(node)).collect();
        let nodes = nodes.map_err(|error| Failure::usage(error.to_string()))?;
        let depth = match self.sample {
            Some(share) => Depth::Sample(Sample { share, seed: self.seed.unwrap_or_else(|| seed(context)) }),
            None if self.read_data || self.enable_md5_checks || context.config.checks.enable_md5_checks => Depth::Data,
            None => Depth::Listed,
        };
        let options = VerifyOptions { name, nodes, depth };
        let report = context.interrupt.or(verify::verify(context, &options)).await?;
        let report = match (&options.name, report) {
            (_, Some(report)) => report,
            (Some(name), None) => return Err(no_such_backup(context, name).await.into()),
            (None, None) => return Err(Failure::failed("there are no backups").into()),
        };
        *facts = Facts::Verify { name: self.backup_name.clone(), problems: report.problems() };
        let text = |look: Look| {
            if self.is_as_in_medusa() {
                return report.medusa_text();
            }
            report.text(look) + &look.folded(&context.times(), 2)
        };
        output.print(text, || report.json(self.all))?;
        if report.is_good() { Ok(()) } else { Err(problems(&report).into()) }
    }

    /// Whether nothing is asked for that Medusa does not know.
    fn is_as_in_medusa(&self) -> bool {
        !self.all && !self.read_data && self.sample.is_none() && self.nodes.is_empty()
    }

    async fn repository(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let report = context.interrupt.or(repository::check(context)).await?;
        *facts = Facts::Repository { problems: report.problems() as u64 };
        output.print(|look| report.text(look) + &look.folded(&context.times(), 2), || report.json())?;
        if report.is_good() {
            return Ok(());
        }
        let problems = report.problems();
        Err(Failure::problems(format!("{} in {}", counted(problems as u64, "problem"), context.storage.location()))
            .hint("each line above names the command that mends it")
            .into())
    }
}

/// Another one with every run, so that in time every object is read.
fn seed(context: &Context) -> u64 {
    context.now.timestamp_micros().unsigned_abs()
}

fn problems(report: &VerifyReport) -> Failure {
    let nodes = || report.backups.iter().flat_map(|backup| backup.nodes.iter().map(move |node| (backup, node)));
    let bad: Vec<_> = nodes().filter(|(_, node)| !node.is_good()).collect();
    let unfinished = report.backups.iter().filter(|backup| !backup.complete && backup.failed.is_none());
    let many = report.backups.len() > 1;
    let mut details: Vec<String> = bad.iter().map(|(backup, node)| node_detail(backup, node, many)).collect();
    let failed =
        report.backups.iter().filter_map(|backup| Some(format!("{}   {}", backup.name, backup.failed.as_ref()?)));
    details.extend(failed);
    details.extend(unfinished.clone().filter(|_| many).map(|backup| format!("{}   is not complete", backup.name)));
    if report.is_only_unchecked() {
        return Failure::failed("the storage failed, so that not everything could be checked").details(details);
    }
    if let (true, Some(backup)) = (bad.is_empty(), unfinished.clone().next()) {
        let message = match unfinished.count() {
            1 => format!("backup {} is not complete", backup.name),
            more => format!("{more} backups are not complete"),
        };
        return Failure::problems(message)
            .details(details)
            .hint(format!("medusa status --backup-name {} names the nodes", backup.name));
    }
    let what = if many { "node backup" } else { "node" };
    Failure::problems(format!("{} of {} damaged", bad.len(), counted(nodes().count() as u64, what)))
        .details(details)
        .hint("their tables can be restored from another backup that verifies, or from the other replicas and a repair")
}

fn node_detail(backup: &BackupReport, node: &NodeReport, many: bool) -> String {
    let of = if many { format!("{} of {}", backup.name, node.fqdn) } else { node.fqdn.to_string() };
    match &node.unknown {
        Some(Unknown::Manifest(_)) => format!("{of}   manifest cannot be read"),
        Some(Unknown::Storage(why)) => format!("{of}   could not be checked: {why}"),
        None => format!(
            "{of}   {} of {}",
            counted(node.findings.len() as u64, "problem"),
            counted(node.objects.files, "object")
        ),
    }
}
