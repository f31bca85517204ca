//! The restore by `sstableloader`: the rows of a backup are streamed into a running cluster of any topology.
//!
//! Gather and plan: nothing is touched. Stage: all files are brought and compared with their hashes. Schema: what is missing is
//! created. Load: one table after the other; one that fails does not hold up the others. A crash leaves the stage, tables that
//! were created, and rows that were loaded: the same command goes on with the stage and loads all tables again, which changes
//! nothing in those that were loaded (rows keep their write times).

pub mod gather;
pub mod plan;
pub mod replication;
pub mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::plan::{LoadFile, LoadPlan, LoadTable};
use self::replication::Replication;
use self::schema::{Change, SchemaPlan, Step};
use super::checks;
use super::select::Selection;
use crate::cassandra::cql::Cql;
use crate::cassandra::loader::Loader;
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::model::look::{Look, Tone};
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{Zone, counted, size, span};
use crate::monitor::Amount;
use crate::restore::fetch::{AtTarget, Wanted, bring_all};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub name: BackupName,
    pub selection: Selection,
    /// Leave the roles of this cluster alone.
    pub keep_auth: bool,
    pub change: Change,
    /// Load files, and not only create what is missing.
    pub load: bool,
    /// Files were loaded before: what had to wait for that is created, too.
    pub is_loaded: bool,
    /// Datacenters that are called otherwise here: old name, new name.
    pub dc_map: BTreeMap<String, String>,
    /// Of keyspaces that are created.
    pub replication: BTreeMap<String, Replication>,
    pub temp_dir: Option<std::path::PathBuf>,
    /// Run the `[checks]` afterwards.
    pub verify: bool,
}

/// A table that could not be loaded.
#[derive(Debug)]
pub struct Failed {
    pub source: Fqdn,
    pub table: String,
    pub reason: String,
}

/// A load that came to its end.
#[derive(Debug)]
pub struct LoadOutcome {
    pub plan: LoadPlan,
    pub downloaded: Amount,
    /// Files that an earlier attempt had brought.
    pub local: Amount,
    /// Files that could not be compared with a hash.
    pub unchecked: usize,
    pub failed: Vec<Failed>,
    /// Unix seconds.
    pub began: i64,
    pub took: Duration,
}

impl LoadOutcome {
    fn loaded(&self) -> impl Iterator<Item = &LoadTable> {
        let failed =
            |table: &LoadTable| self.failed.iter().any(|f| (&f.source, &f.table) == (&table.source, &table.name));
        self.plan.tables.iter().filter(move |table| !failed(table))
    }

    /// What there is now that was not there before.
    fn created(&self) -> impl Iterator<Item = &Step> {
        let after = self.plan.schema.create_after.iter().filter(|_| self.failed.is_empty());
        self.plan.schema.create.iter().chain(after)
    }

    /// An error if tables could not be loaded: of kind `Failed` if none could.
    pub fn judge(&self) -> Result<(), Failure> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let count = counted(self.failed.len() as u64, "table");
        let lines = self.failed.iter().map(|f| format!("{} of {}: {}", f.table, f.source, f.reason));
        let waiting = &self.plan.schema.create_after;
        let waiting_lines = waiting.iter().map(|step| format!("not created yet: {}", step.what));
        let failure = if self.loaded().next().is_some() {
            Failure::problems(format!("{count} could not be loaded; the others were"))
        } else {
            Failure::failed(format!("{count} could not be loaded"))
        };
        let stage = self.plan.stage.display();
        let mut hint = format!("the files stay in {stage} for the next attempt; --table selects tables");
        if !waiting.is_empty() {
            hint += ", and only their indexes are created then: the same command without it creates all";
        }
        Err(failure.details(lines.chain(waiting_lines)).hint(hint))
    }

    pub fn text(&self, look: Look) -> String {
        let SchemaPlan { drop, .. } = &self.plan.schema;
        let sources: Vec<_> = self.plan.sources.iter().map(Fqdn::as_str).collect();
        let checked = match self.unchecked {
            0 => "every byte compared with the manifest".to_owned(),
            files => format!("{} compared by size only: no hash was recorded that fits", counted(files as u64, "file")),
        };
        let (tables, failed) = (counted(self.loaded().count() as u64, "table"), self.failed.len());
        let loaded = format!("{tables} loaded, {failed} failed");
        let loaded = if failed > 0 { look.paint(Tone::Bad, &loaded) } else { loaded };
        let downloaded =
            format!("{} downloaded ({})", counted(self.downloaded.files, "file"), size(self.downloaded.bytes));
        let lines = [
            format!("{loaded}; {} created, {} dropped", self.created().count(), drop.len()),
            format!("{downloaded}, {} were there ({})", counted(self.local.files, "file"), size(self.local.bytes)),
            checked,
            span(Zone::chosen(), self.began, self.took),
        ];
        let head = look.folded(&format!("{} loaded from {}", self.plan.backup, sources.join(", ")), 2);
        head + &lines.iter().map(|line| look.folded(&format!("  {line}"), 4)).collect::<String>()
    }

    pub fn json(&self) -> Value {
        let table = |table: &LoadTable| {
            let amount = table.amount();
            json!({ "source": table.source.as_str(), "table": table.name, "files": amount.files, "bytes": amount.bytes })
        };
        let failed = |f: &Failed| json!({ "source": f.source.as_str(), "table": f.table, "reason": f.reason });
        json!({
            "version": 1,
            "name": self.plan.backup.as_str(),
            "mode": "sstableloader",
            "sources": self.plan.sources.iter().map(Fqdn::as_str).collect::<Vec<_>>(),
            "dropped": self.plan.schema.drop.iter().map(|step| &step.what).collect::<Vec<_>>(),
            "created": self.created().map(|step| &step.what).collect::<Vec<_>>(),
            "tables": self.loaded().map(table).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(failed).collect::<Vec<_>>(),
            "downloaded_files": self.downloaded.files,
            "downloaded_bytes": self.downloaded.bytes,
            "local_files": self.local.files,
            "local_bytes": self.local.bytes,
            "unchecked_files": self.unchecked,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// Says what a load would do.
pub async fn dry_run(context: &Context, options: &LoadOptions) -> anyhow::Result<LoadPlan> {
    let yaml = context.cassandra_yaml()?;
    context.interrupt.or(gather::plan(context, options, &yaml)).await
}

/// Loads the backup.
pub async fn run(context: &Context, options: &LoadOptions) -> anyhow::Result<LoadOutcome> {
    let begin = Instant::now();
    let yaml = context.cassandra_yaml()?;
    let location = context.storage.location();
    context.monitor.title(&format!("load {} of {} from {location}", options.name, context.fqdn));
    let plan = context.interrupt.or(gather::plan(context, options, &yaml)).await?;
    let detail = format!("{}, {}", counted(plan.tables.len() as u64, "table"), size(plan.amounts().0.bytes));
    context.monitor.step("plan", &detail, begin.elapsed());
    for note in plan.notes.iter().chain(&plan.schema.notes) {
        context.monitor.title(&format!("  note: {note}"));
    }
    let loader = Loader::new(&context.config.cassandra, &yaml.path, plan.address)?;
    let mut outcome = LoadOutcome {
        plan,
        downloaded: Amount::default(),
        local: Amount::default(),
        unchecked: 0,
        failed: Vec::new(),
        began: context.now.timestamp(),
        took: Duration::ZERO,
    };
    let held = hold(&outcome.plan)?;
    context.interrupt.or(stage(context, &mut outcome)).await?;
    let SchemaPlan { drop, create, create_after, .. } = &outcome.plan.schema;
    let before: Vec<_> =
        drop.iter().map(|step| ("drop", step)).chain(create.iter().map(|step| ("create", step))).collect();
    change_schema(context, &context.cql(&yaml).await?, &before).await?;
    outcome.failed = load(context, &loader, &outcome.plan).await?;
    if outcome.failed.is_empty() && !create_after.is_empty() {
        let after: Vec<_> = create_after.iter().map(|step| ("create", step)).collect();
        // Another session: the load may have taken a day.
        change_schema(context, &context.cql(&yaml).await?, &after).await?;
    }
    // Without the lock, it may be the stage of another process.
    if held.is_some() && outcome.failed.is_empty() {
        fs_err::remove_dir_all(&outcome.plan.stage)?;
    }
    if options.verify && outcome.failed.is_empty() {
        checks::run(context, &yaml).await?;
    }
    outcome.took = begin.elapsed();
    Ok(outcome)
}

/// Brings all files into the stage. Everything there afterwards has the recorded content.
async fn stage(context: &Context, outcome: &mut LoadOutcome) -> anyhow::Result<()> {
    let plan = &outcome.plan;
    if plan.tables.is_empty() {
        return Ok(());
    }
    let begin = Instant::now();
    prepare_stage(plan)?;
    let wanted = |(table, file): (&LoadTable, &LoadFile)| Wanted {
        object: file.object.clone(),
        key: file.key.clone(),
        target: table.folder.join(file.file.relative()),
        candidates: Vec::new(),
        owner: None,
    };
    let files = plan.tables.iter().flat_map(|table| table.files.iter().map(move |file| (table, file)));
    let left =
        format!("nothing was changed; files that were brought stay in {} for the next attempt", plan.stage.display());
    let brought = bring_all(context, AtTarget::Ours, plan.amounts().0, files.map(wanted).collect())
        .await
        .map_err(|error| Failure::failed("the files could not be brought to this host").cause(error).hint(&left))?;
    brought.check(&plan.backup, &format!("{left}; leave these tables out, or load another backup"))?;
    (outcome.downloaded, outcome.local, outcome.unchecked) = (brought.downloaded, brought.local, brought.unchecked);
    context.monitor.step("download", &size(outcome.downloaded.bytes), begin.elapsed());
    Ok(())
}

/// Makes the folder for all files. In a folder for temporary files anybody may have made it first.
fn make_stage(stage: &Path) -> anyhow::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(stage) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => return made.with_context(|| format!("could not make {}", stage.display())),
    }
    let metadata = fs_err::symlink_metadata(stage)?;
    let parent = fs_err::metadata(stage.parent().unwrap_or(stage))?;
    let user = metadata.uid();
    if metadata.is_dir() && [nix::unistd::geteuid().as_raw(), parent.uid()].contains(&user) {
        return Ok(());
    }
    let what = if metadata.is_dir() { format!("it belongs to user {user}") } else { "it is no folder".to_owned() };
    Err(Failure::failed(format!("{} is in the way: {what}", stage.display()))
        .hint("remove it, or name another --temp-dir")
        .into())
}

/// Another load of the same backup would take the files of this one away.
fn hold(plan: &LoadPlan) -> anyhow::Result<Option<std::fs::File>> {
    if plan.tables.is_empty() {
        return Ok(None);
    }
    make_stage(&plan.stage)?;
    let folder = fs_err::File::open(&plan.stage)?.into_parts().0;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(std::fs::TryLockError::WouldBlock) => {
            let stage = plan.stage.display();
            Err(Failure::failed(format!("another process loads backup {} and works in {stage}", plan.backup))
                .hint("wait for it, or give this one a --temp-dir of its own")
                .into())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Makes the folders of the stage, and removes what an attempt with another plan left there.
fn prepare_stage(plan: &LoadPlan) -> anyhow::Result<()> {
    let mut expected = HashSet::new();
    for table in &plan.tables {
        fs_err::create_dir_all(&table.folder)?;
        expected.extend(table.files.iter().map(|file| table.folder.join(file.file.relative())));
    }
    for entry in walkdir::WalkDir::new(&plan.stage).into_iter().flatten() {
        if entry.file_type().is_file() && !expected.contains(entry.path()) {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn change_schema(context: &Context, cql: &Cql, steps: &[(&str, &Step)]) -> anyhow::Result<()> {
    let begin = Instant::now();
    for (done, (verb, step)) in steps.iter().enumerate() {
        context.interrupt.check()?;
        tracing::info!("{verb} {}", step.what);
        cql.execute(&step.statement).await.map_err(|error| {
            let before = counted(done as u64, "statement");
            Failure::failed(format!("could not {verb} {}", step.what))
                .cause(error)
                .hint(format!("{before} before it were run; the same command goes on when the cause is gone"))
        })?;
    }
    if !steps.is_empty() {
        // Other nodes load, too, and stream to others.
        cql.agree_on_schema().await?;
        context.monitor.step("schema", &counted(steps.len() as u64, "statement"), begin.elapsed());
    }
    Ok(())
}

/// Loads table after table. Returns those that failed.
async fn load(context: &Context, loader: &Loader, plan: &LoadPlan) -> anyhow::Result<Vec<Failed>> {
    if plan.tables.is_empty() {
        return Ok(Vec::new());
    }
    let begin = Instant::now();
    let transfer = context.monitor.transfer("load", plan.amounts().0);
    let mut failed = Vec::new();
    for (at, table) in plan.tables.iter().enumerate() {
        let amount = table.amount();
        tracing::info!("loading {} of {}, table {} of {}", table.name, table.source, at + 1, plan.tables.len());
        let one = async {
            let work = async {
                table.check_stage()?;
                loader.load(&table.folder).await?;
                // What goes while it is read is not missed by the loader.
                table.check_stage()
            };
            anyhow::Ok(work.await)
        };
        if let Err(error) = context.interrupt.or(one).await? {
            let mut reason = one_line(&error);
            if loader.has_secrets() && reason.contains("Authentication") {
                reason.push_str(
                    " (user name and password reach it by CASSANDRA_INCLUDE, which the start script must read)",
                );
            }
            context.monitor.problem(&format!("{} of {}: {reason}", table.name, table.source));
            failed.push(Failed { source: table.source.clone(), table: table.name.clone(), reason });
        }
        transfer.counters.add_bytes(amount.bytes);
        (0..amount.files).for_each(|_| transfer.counters.add_file());
    }
    drop(transfer);
    context.monitor.step("load", &counted((plan.tables.len() - failed.len()) as u64, "table"), begin.elapsed());
    Ok(failed)
}
