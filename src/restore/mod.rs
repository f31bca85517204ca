//! The restore of one node.
//!
//! Gather and plan: nothing is touched before the backup is known to be complete and readable, to fit the disk and to match
//! the node. Stage: files are brought beside the tables and compared with their hashes while Cassandra runs. Swap: Cassandra
//! is stopped, folders are renamed, Cassandra is started. The old folders are kept until it answers; whatever fails before,
//! they are put back and Cassandra is started with them. A crash at any point is repaired by the same command: see
//! [`journal`].

pub mod checks;
pub mod download;
pub mod fetch;
pub mod fit;
pub mod gather;
pub mod journal;
pub mod plan;
pub mod select;
pub mod swap;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::fetch::{Fetch, FetchError, Fetched, Wanted};
use self::journal::{Journal, Phase};
use self::plan::{Mode, PlannedFile, PlannedTable, RestorePlan};
use self::select::Selection;
use self::swap::{Settled, Swap};
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::service::Service;
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{counted, size, took};
use crate::monitor::Amount;
use crate::storage::blocking::on_threads;

/// Damaged objects that are named before the rest is not looked at.
const MOST_PROBLEMS: usize = 100;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub name: BackupName,
    pub mode: Mode,
    /// Leave `system_auth` as it is (remote restores only).
    pub keep_auth: bool,
    pub selection: Selection,
    /// Hosts of which one must be up before Cassandra is started.
    pub seeds: Vec<String>,
    pub temp_dir: Option<PathBuf>,
    /// Run the `[checks]` afterwards.
    pub verify: bool,
}

impl RestoreOptions {
    fn work_folder(&self, data: &Path, index: usize) -> PathBuf {
        gather::work_folder(data, index, self.name.as_str(), self.temp_dir.as_deref())
    }

    /// What makes a command the same one.
    fn command(&self, source: &Fqdn) -> String {
        json!({
            "backup": self.name.as_str(),
            "source": source.as_str(),
            "remote": self.mode == Mode::Remote,
            "keep_auth": self.keep_auth,
            "keyspaces": self.selection.keyspaces,
            "tables": self.selection.tables,
            "with_system": self.selection.with_system,
        })
        .to_string()
    }
}

/// A finished restore.
#[derive(Debug)]
pub struct RestoreOutcome {
    pub name: BackupName,
    pub source: Fqdn,
    pub tables: usize,
    pub linked: Amount,
    pub downloaded: Amount,
    /// Files of which nobody recorded a hash.
    pub unchecked: usize,
    pub took: Duration,
    /// How long Cassandra was down. `None` if an interrupted restore was only brought to its end.
    pub down: Option<Duration>,
}

impl RestoreOutcome {
    pub fn text(&self) -> String {
        let tables = counted(self.tables as u64, "table");
        let Some(down) = self.down else {
            return format!(
                "{} restored from {}\n  {tables}; the interrupted restore was brought to its end\n",
                self.name, self.source
            );
        };
        format!(
            "{} restored from {}\n  {tables}, {} downloaded ({}), {} were on this node ({})\n  {}; Cassandra was down for {}, {} in all\n",
            self.name,
            self.source,
            counted(self.downloaded.files, "file"),
            size(self.downloaded.bytes),
            counted(self.linked.files, "file"),
            size(self.linked.bytes),
            self.compared(),
            took(down),
            took(self.took),
        )
    }

    fn compared(&self) -> String {
        if self.unchecked == 0 {
            return "every byte compared with the manifest".to_owned();
        }
        let files = counted(self.unchecked as u64, "file");
        format!("compared with the manifest, {files} by size only: cassandra-medusa recorded no hash of them")
    }

    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "name": self.name.as_str(),
            "source": self.source.as_str(),
            "tables": self.tables,
            "downloaded_files": self.downloaded.files,
            "downloaded_bytes": self.downloaded.bytes,
            "local_files": self.linked.files,
            "local_bytes": self.linked.bytes,
            "unchecked_files": self.unchecked,
            "seconds": self.took.as_secs_f64(),
            "down_seconds": self.down.map(|down| down.as_secs_f64()),
        })
    }
}

/// Says what a restore would do.
pub async fn dry_run(context: &Context, options: &RestoreOptions) -> anyhow::Result<RestorePlan> {
    let yaml = context.cassandra_yaml()?;
    let service = Service::new(&context.config, &yaml)?;
    let mut plan = gather::plan(context, options, &yaml, &service).await?;
    for (folder, journal) in unfinished(&yaml)? {
        if journal.phase != Phase::Staging {
            let what = if journal.command == options.command(&context.fqdn) {
                "is gone on with"
            } else {
                "is taken back first"
            };
            plan.notes.push(format!("an interrupted restore ({}) {what}", folder.display()));
        }
    }
    Ok(plan)
}

/// Restores the node.
pub async fn run(context: &Context, options: &RestoreOptions) -> anyhow::Result<RestoreOutcome> {
    let begin = Instant::now();
    let yaml = context.cassandra_yaml()?;
    let service = Service::new(&context.config, &yaml)?;
    let nodetool = Nodetool::new(&context.config.cassandra)?;
    let monitor = &*context.monitor;
    monitor.title(&format!("restore {} of {} from {}", options.name, context.fqdn, context.storage.location()));
    let swap = Swap { context, yaml: &yaml, service: &service, nodetool: &nodetool };
    let (mut begun_folders, mut ran_then) = (Vec::new(), false);
    for (folder, journal) in unfinished(&yaml)? {
        let (tables, folders, was_running) = (journal.tables, journal.folders.clone(), journal.was_running);
        match swap.settle(&folder, journal, &options.command(&context.fqdn)).await? {
            Settled::Done => {
                let staged = Staged::default();
                return finish(context, options, staged.outcome(context, options, tables, begin.elapsed(), None)).await;
            }
            Settled::Begun => {
                begun_folders.extend(folders);
                ran_then |= was_running;
            }
            Settled::Removed => {}
        }
    }
    let plan = context.interrupt.or(gather::plan(context, options, &yaml, &service)).await?;
    let (all, local) = plan.amounts();
    monitor.step(
        "plan",
        &format!(
            "{}, {}, {} on this node",
            counted(plan.tables.len() as u64, "table"),
            size(all.bytes),
            size(local.bytes)
        ),
        begin.elapsed(),
    );

    let folder = journal_folder(&plan)?;
    let mut journal = Journal {
        version: Journal::VERSION,
        command: options.command(&context.fqdn),
        phase: Phase::Staging,
        moves: Vec::new(),
        emptied: Vec::new(),
        rewrite: None,
        folders: swap::folders(&plan, &folder).into_iter().chain(begun_folders).collect(),
        tables: plan.tables.len(),
        was_running: ran_then || service.is_running(),
    };
    fs_err::create_dir_all(&folder)?;
    journal.write(&folder)?;
    let staged = context.interrupt.or(stage(context, &plan)).await.map_err(|error| not_staged(error, &folder))?;
    let down = swap.make(&plan, &folder, &mut journal, &options.seeds).await?;
    finish(context, options, staged.outcome(context, options, plan.tables.len(), begin.elapsed(), Some(down))).await
}

async fn finish(
    context: &Context,
    options: &RestoreOptions,
    outcome: RestoreOutcome,
) -> anyhow::Result<RestoreOutcome> {
    if options.verify {
        let yaml = context.cassandra_yaml()?;
        checks::run(context, &yaml).await?;
    }
    Ok(outcome)
}

/// The failure before anything was touched, with what is left of it.
fn not_staged(error: anyhow::Error, folder: &Path) -> anyhow::Error {
    let left =
        format!("nothing was changed; files that were brought stay in {} for the next attempt", folder.display());
    let told = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.hint.clone());
    let hint = told.map_or_else(|| left.clone(), |told| format!("{left}; {told}"));
    match error.downcast::<Failure>() {
        Ok(failure) => failure.hint(hint).into(),
        Err(error) => Failure::failed("the files could not be brought to this node").cause(error).hint(hint).into(),
    }
}

/// The folder that holds the journal: that of the first data directory, so that any later restore finds it.
fn journal_folder(plan: &RestorePlan) -> anyhow::Result<PathBuf> {
    let first = plan.directories.first().ok_or_else(|| Failure::failed("cassandra.yaml names no data directory"))?;
    Ok(first.data.join(format!("{}{}", journal::FOLDER, plan.backup)))
}

fn unfinished(yaml: &CassandraYaml) -> anyhow::Result<Vec<(PathBuf, Journal)>> {
    yaml.data_directories.first().map_or_else(|| Ok(Vec::new()), |first| Journal::unfinished(first))
}

/// What staging did.
#[derive(Debug, Default)]
struct Staged {
    linked: Amount,
    downloaded: Amount,
    unchecked: usize,
}

impl Staged {
    fn outcome(
        &self,
        context: &Context,
        options: &RestoreOptions,
        tables: usize,
        took: Duration,
        down: Option<Duration>,
    ) -> RestoreOutcome {
        let (name, source) = (options.name.clone(), context.fqdn.clone());
        RestoreOutcome {
            name,
            source,
            tables,
            linked: self.linked,
            downloaded: self.downloaded,
            unchecked: self.unchecked,
            took,
            down,
        }
    }
}

/// Brings all files into the stage. Everything there afterwards has the recorded content.
async fn stage(context: &Context, plan: &RestorePlan) -> anyhow::Result<Staged> {
    let begin = Instant::now();
    prepare_stage(plan)?;
    let transfer = context.monitor.transfer("download", plan.amounts().0);
    let fetch = Fetch {
        storage: context.storage.clone(),
        watch: context.watch(&transfer.counters),
        part_size: context.config.storage.multipart_chunksize,
        replace: true,
    };
    let wanted = |(table, file): (&PlannedTable, &PlannedFile)| Wanted {
        object: file.object.clone(),
        key: file.key.clone(),
        target: swap::stage_folder(plan, file.directory, &table.target).join(file.file.relative()),
        candidates: file.candidates.clone(),
        owner: swap::owner_to_set(plan.directories[file.directory].owner),
    };
    let files = plan.tables.iter().flat_map(|table| table.files.iter().map(move |file| (table, file)));
    let mut work = on_threads(context.storage.files_in_flight(), files.map(wanted).collect(), move |wanted: Wanted| {
        let fetch = fetch.clone();
        async move { (wanted.object.size, fetch.bring(&wanted).await) }
    });
    let unchecked = plan.files().filter(|file| !file.object.has_known_content()).count();
    let mut staged = Staged { unchecked, ..Staged::default() };
    let mut problems = Vec::new();
    while let Some((bytes, fetched)) = work.recv().await {
        match fetched {
            Ok(Fetched::Downloaded) => staged.downloaded.add(bytes),
            Ok(Fetched::Linked | Fetched::Present) => staged.linked.add(bytes),
            Err(error @ FetchError::Damaged { .. }) => {
                context.monitor.problem(&error.to_string());
                problems.push(error.to_string());
                if problems.len() >= MOST_PROBLEMS {
                    break;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    drop(work);
    drop(transfer);
    if !problems.is_empty() {
        let count = counted(problems.len() as u64, "object");
        return Err(Failure::failed(format!("backup {} is damaged: {count} do not match the manifest", plan.backup))
            .details(problems)
            .hint("restore another backup, or leave these tables out")
            .into());
    }
    for directory in &plan.directories {
        sync_file_system(&directory.work)?;
    }
    context.monitor.step("download", &size(staged.downloaded.bytes), begin.elapsed());
    Ok(staged)
}

/// Makes the folders of the stage, and removes what an earlier attempt with another plan left there.
fn prepare_stage(plan: &RestorePlan) -> anyhow::Result<()> {
    let mut expected = std::collections::HashSet::new();
    for table in &plan.tables {
        for (index, directory) in plan.directories.iter().enumerate() {
            let folder = swap::stage_folder(plan, index, &table.target);
            let of_directory: Vec<_> = table.files.iter().filter(|file| file.directory == index).collect();
            if of_directory.is_empty()
                && !directory.data.join(&table.target.keyspace).join(&table.target.folder).exists()
            {
                continue;
            }
            swap::make_folder(&folder, directory.owner)?;
            for file in of_directory {
                if let Some(index) = &file.file.index {
                    swap::make_folder(&folder.join(index), directory.owner)?;
                }
                expected.insert(folder.join(file.file.relative()));
            }
        }
    }
    for table in &plan.set_aside {
        for (index, directory) in plan.directories.iter().enumerate() {
            if directory.data.join(&table.keyspace).join(&table.folder).exists() {
                swap::make_folder(&swap::stage_folder(plan, index, table), directory.owner)?;
            }
        }
    }
    for directory in &plan.directories {
        for entry in walkdir::WalkDir::new(directory.work.join("stage")).into_iter().flatten() {
            if entry.file_type().is_file() && !expected.contains(entry.path()) {
                fs_err::remove_file(entry.path())?;
            }
        }
        // Made by a Cassandra that was started with these files. The table's own ones come back to it.
        for entry in walkdir::WalkDir::new(directory.work.join("stage")).contents_first(true).into_iter().flatten() {
            let is_kept = swap::KEPT.iter().any(|kept| entry.file_name() == *kept);
            if entry.file_type().is_dir() && is_kept {
                fs_err::remove_dir_all(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Makes durable what was staged.
fn sync_file_system(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        nix::unistd::syncfs(fs_err::File::open(folder)?.file()).map_err(std::io::Error::from)?;
    }
    Ok(())
}
