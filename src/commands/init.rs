//! `init`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::global::GlobalArgs;
use crate::cassandra::{installed, tls};
use crate::doctor::node::YAML;
use crate::doctor::report::{Finding, State, documents, table};
use crate::init::ask::Questions;
use crate::init::template::Setting;
use crate::init::{self, Written};
use crate::model::look::Look;
use crate::screen::output::Output;
use crate::screen::progress::Screen;
use crate::screen::terminal;

/// Writes a medusa.ini for this machine, with every key explained
///
/// Looks for cassandra.yaml, nodetool and the service, and tries to list the bucket. Asks on a terminal for what the options
/// leave open. The options that override keys of medusa.ini (--bucket-name, --prefix, --key-file, --fqdn, …) are written into it.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where backups go: local, s3, `s3_compatible`, `google_storage`, `azure_blobs`, …
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The folder that holds the buckets, for local storage
    #[arg(long, value_name = "FOLDER")]
    base_path: Option<String>,
    /// The region of the bucket
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// The host of an S3-compatible store
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Cassandra's configuration, if it is not in a usual place
    #[arg(long, value_name = "FILE")]
    cassandra_yaml: Option<String>,
    /// Set any key that is no secret; may be given several times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Replace a file that is there. It is kept as ….bak
    #[arg(long)]
    force: bool,
    /// Print the file and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl InitArgs {
    pub fn run(&self, global: &GlobalArgs, output: &Output) -> anyhow::Result<()> {
        tls::install_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.act(global, output));
        // A look at a folder that hangs must not keep us.
        std::mem::forget(runtime);
        outcome
    }

    async fn act(&self, global: &GlobalArgs, output: &Output) -> anyhow::Result<()> {
        let path = global.path();
        // As the packages bring it.
        let replace = self.force || init::sets_nothing(path);
        if !self.dry_run {
            init::check_free(path, replace)?;
        }
        let mut settings = self.settings(global)?;
        if terminal::can_ask() {
            let needs_yaml = installed::find_yaml().is_none();
            let (input, output) = terminal::conversation();
            Questions { input, output }.complete(&mut settings, needs_yaml)?;
        }
        init::look_around(&mut settings).await;
        let (text, config) = init::compose(&settings, path)?;
        let findings = init::try_out(&config).await;
        let written = if self.dry_run { None } else { Some(init::write(path, &text, &config, replace)?) };
        let document = || {
            json!({
                "version": 1,
                "file": path,
                "written": written.is_some(),
                "previous": written.as_ref().and_then(|written| written.previous.as_ref()),
                "text": text,
                "findings": documents(&findings),
            })
        };
        if let Some(written) = &written {
            return output.print(|look| report(path, global, written, &findings, look), document);
        }
        Screen::new(global.quiet).print(&table(&findings, Look::default()));
        output.print(|_| text.clone(), document)
    }

    /// What was given, the last one of a key in effect.
    fn settings(&self, global: &GlobalArgs) -> anyhow::Result<Vec<Setting>> {
        let set = self.set.iter().map(|text| Setting::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let own = [
            ("storage", "storage_provider", self.provider.as_deref()),
            ("storage", "base_path", self.base_path.as_deref()),
            ("storage", "region", self.region.as_deref()),
            ("storage", "host", self.host.as_deref()),
            ("cassandra", "config_file", self.cassandra_yaml.as_deref()),
        ];
        let overrides = global.overrides();
        let global = overrides.entries().map(|(section, key, _, value)| (section, key, value));
        let options = own.into_iter().chain(global);
        let options = options.filter_map(|(section, key, value)| Some(format!("{section}.{key}={}", value?)));
        let mut settings = options.map(|text| Setting::parse(&text)).collect::<Result<Vec<_>, _>>()?;
        for setting in set {
            settings.retain(|other| (&other.section, &other.key) != (&setting.section, &setting.key));
            settings.push(setting);
        }
        Ok(settings)
    }
}

fn report(path: &Path, global: &GlobalArgs, written: &Written, findings: &[Finding], look: Look) -> String {
    let Written { previous, group } = written;
    let kept = previous.as_ref().map(|previous: &PathBuf| format!("; the previous one is {}", previous.display()));
    let file = global.config_file.as_ref().map(|file| format!("--config-file {} ", file.display())).unwrap_or_default();
    let is_node = findings.iter().all(|finding| finding.check != YAML || finding.state != State::NotChecked);
    let backup = if is_node { "backup-node" } else { "backup-cluster" };
    format!(
        "wrote {} (group {group} may read it){}\n\n{}\nnext, as the user that backs up:\n  \
         medusa {file}doctor\n  medusa {file}{backup} --backup-name first\n",
        path.display(),
        kept.unwrap_or_default(),
        table(findings, look)
    )
}
