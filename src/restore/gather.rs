//! Gathers what a restore must know and makes the plan. Everything that can be wrong is found here, before anything is
//! touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use fs_err as fs;
use futures::TryStreamExt as _;

use super::RestoreOptions;
use super::fit::Statements;
use super::journal::is_left_alone;
use super::place::{Placement, check_space, directories};
use super::plan::{Mode, PlannedTable, RestorePlan};
use crate::cassandra::facts::{self, ClusterFacts, Owner, Schema};
use crate::cassandra::installed::Release;
use crate::cassandra::naming::first_address;
use crate::cassandra::nodetool::Nodetool;
use crate::cassandra::service::Service;
use crate::cassandra::yaml::{CassandraYaml, TokenEdit};
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::listing::suggest;
use crate::model::backups::ServerVersion;
use crate::model::cql::Contents;
use crate::model::manifest::{Manifest, Object, Section};
use crate::model::names::{BackupName, Fqdn, TableFolder};
use crate::model::sstable::{self, SstableFile};
use crate::model::tokenmap::{Tokenmap, Tokens};
use crate::model::units::counted;
use crate::storage::layout::{Meta, Pool};

/// What the running node says; `None` where it does not run.
struct Live {
    facts: ClusterFacts,
    schema: Schema,
}

/// What storage says about the backup.
pub(super) struct Backup {
    pub(super) manifest: Manifest,
    tokenmap: Tokenmap,
    pub(super) version: ServerVersion,
    pub(super) schema: String,
    pub(super) schema_internals: Option<String>,
}

/// Makes the plan. `asks`: whether other nodes may own the tokens. Without it the coordinator of a restore of the cluster has asked.
pub async fn plan(
    context: &Context,
    options: &RestoreOptions,
    yaml: &CassandraYaml,
    service: &Service<'_>,
    asks: bool,
) -> anyhow::Result<RestorePlan> {
    let backup = read_backup(context, &options.name).await?;
    options.selection.check(&backup.manifest)?;
    let mut notes = Vec::new();
    let schema = backup.schema_internals.as_deref().unwrap_or(&backup.schema);
    let old = Statements::parse(schema);
    let sections = with_views(&options.selection.sections(&backup.manifest), &backup.manifest, &old, &mut notes);
    let live = ask_cassandra(context, options, yaml, service, &mut notes).await?;
    check_identity(context, options, yaml, &backup, live.as_ref(), &mut notes).await?;
    let tokens = takes_over(options).then(|| own_tokens(context, &backup)).transpose()?;
    let owners = match (&tokens, &live) {
        (Some(tokens), Some(_)) if asks => live_owners(context, yaml, &tokens.0).await?,
        (Some(_), None) if asks => {
            notes.push(
                "whether a node that is up owns the tokens was not looked at: Cassandra must answer here".to_owned(),
            );
            Vec::new()
        }
        _ => Vec::new(),
    };
    // The coordinator of a restore of the cluster knows whether the owners get other tokens themselves.
    if options.run.is_none() {
        refuse_owners(&context.fqdn, &owners)?;
    }
    let installed = if live.is_none() && !options.is_release_known { service.installed() } else { None };
    check_version(&backup, live.as_ref(), installed.as_ref(), options)?;
    check_objects(context, &options.name, options.selection.is_all(), &sections).await?;

    let mut plan = RestorePlan {
        backup: options.name.clone(),
        source: context.fqdn.clone(),
        mode: options.mode,
        tables: Vec::new(),
        tables_in_backup: backup.manifest.sections.len(),
        set_aside: Vec::new(),
        statements: Vec::new(),
        directories: directories(options, yaml)?,
        emptied: emptied(options, yaml, &mut notes),
        drain: must_drain(options, yaml, service)?,
        tokens: tokens.map(|tokens| TokenEdit { tokens: tokens.0 }),
        id: live.as_ref().map(|live| live.facts.id),
        owners,
        stop_command: service.stop_command(),
        start_command: service.start_command(),
        endpoint: service.endpoint().to_string(),
        cassandra: live.as_ref().map(|live| live.facts.version.release_version.clone()),
        installed: installed.map(|installed| installed.number),
        notes,
    };
    let targets = match &live {
        Some(live) if !options.selection.includes_system() => map_to_live(&sections, schema, live, &mut plan)?,
        _ => sections.iter().map(|(section, table)| (*section, table.clone(), table.clone())).collect(),
    };
    let mut placement = Placement::new(&plan.directories, yaml);
    for (section, source, target) in targets {
        if takes_over(options) && is_identity(&source) {
            plan.set_aside.push(target);
            continue;
        }
        if takes_over(options) && options.keep_auth && source.keyspace == "system_auth" {
            continue;
        }
        let files = placement.place(context, section, &source, &target)?;
        plan.tables.push(PlannedTable { source, target, files });
    }
    placement.record(&mut plan.directories);
    check_space(&plan.directories)?;
    let without_hash = plan.files().filter(|file| has_no_hash(&file.object)).count();
    if without_hash > 0 {
        let files = counted(without_hash as u64, "file");
        plan.notes
            .push(format!("{files} have no recorded hash (cassandra-medusa stored them): only sizes are checked"));
    }
    if plan.tables.is_empty() && plan.set_aside.is_empty() {
        return Err(Failure::failed("there is nothing to restore").into());
    }
    Ok(plan)
}

/// Folders whose content does not belong to the restored files. Hints for other nodes are newer than those; they stay where
/// tables stay that they may be for.
fn emptied(options: &RestoreOptions, yaml: &CassandraYaml, notes: &mut Vec<String>) -> Vec<PathBuf> {
    let mut folders = vec![yaml.commitlog_directory.clone(), yaml.saved_caches_directory.clone()];
    if options.selection.is_all() {
        folders.push(yaml.hints_directory.clone());
    } else if fs::read_dir(&yaml.hints_directory).is_ok_and(holds_files) {
        let folder = yaml.hints_directory.display();
        notes.push(format!(
            "{folder} holds hints: those for the restored tables would bring newer rows back to other nodes"
        ));
    }
    folders
}

/// Whether a folder of Cassandra holds anything of it.
fn holds_files(mut entries: fs::ReadDir) -> bool {
    entries.any(|entry| entry.is_ok_and(|entry| !is_left_alone(&entry.file_name())))
}

/// Whether the node becomes the backed-up one, with its schema, tokens and roles.
fn takes_over(options: &RestoreOptions) -> bool {
    options.mode == Mode::Remote && options.selection.includes_system()
}

/// Whether Cassandra must flush first. The commit log goes, and tables that stay must not lose what it holds of them.
fn must_drain(options: &RestoreOptions, yaml: &CassandraYaml, service: &Service<'_>) -> anyhow::Result<bool> {
    let tables_stay = !options.selection.is_all() || options.keep_auth;
    if !tables_stay || service.is_up() {
        return Ok(tables_stay);
    }
    let entries = match fs::read_dir(&yaml.commitlog_directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    if holds_files(entries) {
        let folder = yaml.commitlog_directory.display();
        return Err(Failure::failed(format!("Cassandra is not running, and {folder} may hold writes to other tables"))
            .hint("start Cassandra first, so that it can flush them, or restore the whole node")
            .into());
    }
    Ok(false)
}

/// What a node knows about itself and its peers. Another node must not have it.
fn is_identity(table: &TableFolder) -> bool {
    table.keyspace == "system" && (table.table() == "local" || table.table().starts_with("peers"))
}

pub(super) fn has_no_hash(object: &Object) -> bool {
    object.sha256.is_none() && object.recorded_md5() == crate::model::digest::RecordedMd5::Unknown
}

pub(super) async fn read_backup(context: &Context, name: &BackupName) -> anyhow::Result<Backup> {
    let (storage, fqdn) = (&context.storage, &context.fqdn);
    let Some(node) = storage.node_backup(fqdn, name).await? else {
        return Err(Failure::failed(format!("there is no backup {name} of {fqdn} in {}", storage.location()))
            .hint(suggest::hint(storage, name, Some(fqdn)).await)
            .into());
    };
    if node.finished.is_none() {
        return Err(Failure::failed(format!("backup {name} of {fqdn} was begun, but not finished"))
            .hint("restore another one; medusa list-backups shows which are finished")
            .into());
    }
    let lost = |what: &str| {
        Failure::failed(format!("backup {name} of {fqdn} has lost its {what}")).hint("restore another backup")
    };
    Ok(Backup {
        manifest: storage.manifest(fqdn, name).await?.ok_or_else(|| lost("manifest"))?,
        tokenmap: storage.tokenmap(fqdn, name).await?.ok_or_else(|| lost("token map"))?,
        version: storage.server_version(fqdn, name).await?,
        schema: storage.meta_text(fqdn, name, Meta::Schema).await?.ok_or_else(|| lost("schema"))?,
        schema_internals: storage.meta_text(fqdn, name, Meta::SchemaInternals).await?,
    })
}

/// A part of the tables needs the live schema. The whole node can be restored without: it may be down for good.
async fn ask_cassandra(
    context: &Context,
    options: &RestoreOptions,
    yaml: &CassandraYaml,
    service: &Service<'_>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Option<Live>> {
    let asked = async {
        let cql = context.cql(yaml).await?;
        let facts = ClusterFacts::gather(&cql, &context.resolver).await?;
        let schema = facts::schema(&cql).await?;
        anyhow::Ok(Live { facts, schema })
    };
    let needed = !options.selection.includes_system();
    if !service.is_up() {
        return if needed {
            Err(Failure::failed("Cassandra is not running, and a part of the tables needs its schema")
                .hint("start Cassandra first, or restore the whole node without --keyspace and --table")
                .into())
        } else {
            Ok(None)
        };
    }
    match asked.await {
        Ok(live) => Ok(Some(live)),
        Err(error) if needed || context.interrupt.is_raised() => Err(error),
        Err(error) => {
            notes.push(format!(
                "Cassandra could not be asked ({}); tokens and version were not compared",
                one_line(&error)
            ));
            Ok(None)
        }
    }
}

fn own_tokens(context: &Context, backup: &Backup) -> Result<Tokens, Failure> {
    backup.tokenmap.hosts.get(context.fqdn.as_str()).map(|entry| entry.tokens.clone()).ok_or_else(|| {
        let hosts: Vec<_> = backup.tokenmap.hosts.keys().cloned().collect();
        Failure::failed(format!("the token map of the backup does not name {}", context.fqdn))
            .details(hosts)
            .hint("the tokens of the backed-up node are needed for a remote restore")
    })
}

async fn check_identity(
    context: &Context,
    options: &RestoreOptions,
    yaml: &CassandraYaml,
    backup: &Backup,
    live: Option<&Live>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let recorded = backup.tokenmap.hosts.get(context.fqdn.as_str()).map(|entry| &entry.tokens);
    let same_tokens = live.zip(recorded).map(|(live, recorded)| live.facts.tokens.same_set(recorded));
    match (options.mode, same_tokens) {
        (_, Some(true)) => Ok(()),
        (Mode::InPlace, Some(false)) => Err(Failure::failed(format!(
            "this node is not {}: it owns other tokens than that one had in backup {}",
            context.fqdn, options.name
        ))
        .hint("--remote gives this node the tokens and the data of the other one")
        .into()),
        (Mode::InPlace, None) => {
            if !own_names(context, yaml).await.contains(&context.fqdn.to_string()) {
                return Err(Failure::failed(format!("it cannot be told whether this node is {}", context.fqdn))
                    .hint("start Cassandra, so that its tokens can be compared, or use --remote")
                    .into());
            }
            notes.push("the node is recognised by its name only".to_owned());
            Ok(())
        }
        (Mode::Remote, _) if takes_over(options) => own_tokens(context, backup).map(drop).map_err(Into::into),
        // The only node of a ring owns every token.
        (Mode::Remote, _) if live.is_some_and(|live| live.facts.ring_size == 1) => Ok(()),
        (Mode::Remote, _) => Err(Failure::failed(format!(
            "this node owns other tokens than {} had, so it would not find the rows of single tables",
            context.fqdn
        ))
        .hint("--with-system takes over schema and tokens as well")
        .into()),
    }
}

/// Other nodes of the ring that own some of the tokens and are up.
async fn live_owners(context: &Context, yaml: &CassandraYaml, tokens: &[String]) -> anyhow::Result<Vec<Owner>> {
    let cql = context.cql(yaml).await?;
    let mut owners = facts::owners(&cql, &context.resolver, tokens).await?;
    let Some(first) = owners.first() else { return Ok(owners) };
    // Which addresses a node has, and through which of them it is reached, Cassandra knows best.
    let live = async { Nodetool::new(&context.config.cassandra)?.live_nodes().await };
    let live = live.await.map_err(|error| {
        let host = &first.host;
        Failure::failed(format!("it cannot be told whether {host} is up, which owns tokens of {}", context.fqdn))
            .cause(anyhow::Error::from(error))
            .hint("nodetool status must work on this node; if that node is gone for good, stop Cassandra here first")
    })?;
    owners.retain(|owner| live.contains(&owner.id));
    Ok(owners)
}

/// The same once more, right before Cassandra is stopped: staging may take hours, and nodes come back.
///
/// # Errors
/// A node that is up owns some of the tokens.
pub async fn check_owners(context: &Context, yaml: &CassandraYaml, tokens: &[String]) -> anyhow::Result<()> {
    Ok(refuse_owners(&context.fqdn, &live_owners(context, yaml, tokens).await?)?)
}

/// Cassandra would let the node that starts last have the tokens, and the rows of the other one could not be read any more.
fn refuse_owners(source: &Fqdn, owners: &[Owner]) -> Result<(), Failure> {
    let Some(Owner { host, .. }) = owners.first() else { return Ok(()) };
    Err(Failure::failed(format!("the tokens of {source} are owned by {host}, which is up in the ring of this node")).hint(
        format!(
            "two nodes of a ring cannot own the same tokens: stop {host} for good first, restore it in place, give both their \
             parts with restore-cluster --host-list, or use --use-sstableloader"
        ),
    ))
}

/// Names under which this node may be known without being told so.
async fn own_names(context: &Context, yaml: &CassandraYaml) -> Vec<String> {
    let mut names = yaml.own_addresses.clone();
    for address in yaml.own_addresses.iter().filter_map(|address| first_address(address)) {
        names.push(context.resolver.name_of(address).await);
    }
    if !matches!(context.fqdn_origin, crate::config::values::Origin::Flag(_)) {
        names.push(context.fqdn.to_string());
    }
    names
}

/// An older Cassandra cannot read what a newer one wrote, and a newer one not everything that old ones did. Where none answers, the
/// one that is installed is looked at.
fn check_version(
    backup: &Backup,
    live: Option<&Live>,
    installed: Option<&Release>,
    options: &RestoreOptions,
) -> Result<(), Failure> {
    if let Some(live) = live {
        return check_release(backup, &live.facts.version.release_version, options);
    }
    let Some(Release { number, jar }) = installed else { return Ok(()) };
    check_release(backup, number, options).map_err(|failure| {
        Failure::failed(format!("Cassandra does not answer, and what is installed is {}", jar.display()))
            .cause(failure)
            .hint(
                "install the newer release first; if another one than that is started here, --version-target names it",
            )
    })
}

fn check_release(backup: &Backup, is: &str, options: &RestoreOptions) -> Result<(), Failure> {
    let was = &backup.version.release_version;
    // System tables change with every release; Cassandra upgrades them, and never back.
    if options.selection.includes_system()
        && let (Some(was_number), Some(is_number)) = (release(was), release(is))
        && is_number < was_number
    {
        return Err(too_new(was, is));
    }
    let sections = options.selection.sections(&backup.manifest);
    check_readable(was, is, sections.iter().flat_map(|(section, _)| &section.objects))
}

/// Refuses files that the release `is`, 4.0 or newer, cannot read.
pub(super) fn check_readable<'a>(
    was: &str,
    is: &str,
    objects: impl Iterator<Item = &'a Object> + Clone,
) -> Result<(), Failure> {
    let is_too_old = |object: &&Object| {
        let file = object.path.rsplit('/').next().and_then(SstableFile::parse);
        file.is_some_and(|file| file.component == sstable::DATA && file.is_too_old())
    };
    let old: Vec<_> = objects.clone().filter(is_too_old).map(|object| object.path.to_string()).collect();
    if !old.is_empty() {
        let count = counted(old.len() as u64, "SSTable");
        return Err(Failure::failed(format!(
            "this node runs Cassandra {is}, which cannot read {count} that 2.2 or an older release wrote"
        ))
        .details(old)
        .hint("restore the backup with Cassandra 3.11, run nodetool upgradesstables there, and make a new backup"));
    }
    let (Some(was_number), Some(is_number)) = (release(was), release(is)) else { return Ok(()) };
    let mut names = objects.filter_map(|object| object.path.rsplit('/').next());
    let cannot_read = |name: &str| {
        SstableFile::parse(name).is_some_and(|file| file.oldest_reader().is_none_or(|oldest| oldest > is_number))
    };
    if is_number < was_number && names.any(cannot_read) { Err(too_new(was, is)) } else { Ok(()) }
}

fn too_new(was: &str, is: &str) -> Failure {
    Failure::failed(format!("this node runs Cassandra {is}, which cannot read what {was} wrote"))
        .hint("install the newer release first")
}

/// The first two numbers of a version.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Every object must be there with its size. `is_all`: most of the backup is meant, so that all is listed at once.
pub(super) async fn check_objects(
    context: &Context,
    name: &BackupName,
    is_all: bool,
    sections: &[(&Section, TableFolder)],
) -> anyhow::Result<()> {
    let (storage, layout, fqdn) = (&context.storage, context.storage.layout(), &context.fqdn);
    let mut expected: HashMap<&str, u64> = HashMap::new();
    for object in sections.iter().flat_map(|(section, _)| &section.objects) {
        layout.recorded(fqdn, &object.path).map_err(|error| {
            Failure::failed(format!("the manifest of backup {name} cannot be used"))
                .cause(error)
                .hint("restore another backup")
        })?;
        expected.insert(&object.path, object.size);
    }
    let objects = sections.iter().flat_map(|(section, _)| &section.objects);
    let rewritten: HashSet<&str> =
        objects.filter(|object| object.is_rewritten_by_medusa()).map(|object| &*object.path).collect();
    let mut problems = BTreeMap::new();
    for pool in [Pool::Differential, Pool::Full(name)] {
        let root = layout.pool(fqdn, pool);
        let of_pool = |path: &str| path.strip_prefix(root.as_ref()).is_some_and(|rest| rest.starts_with('/'));
        let tables = sections.iter().filter(|(section, _)| section.objects.iter().any(|object| of_pool(&object.path)));
        let prefixes: Vec<_> = if is_all {
            if expected.keys().any(|path| of_pool(path)) { vec![root.clone()] } else { Vec::new() }
        } else {
            tables.map(|(_, table)| layout.table(fqdn, pool, table)).collect()
        };
        for prefix in prefixes {
            let mut listing = storage.list(&prefix);
            while let Some(found) = context.interrupt.or(listing.try_next()).await? {
                if let Some(size) = expected.remove(found.location.as_ref())
                    && size != found.size
                    && !rewritten.contains(found.location.as_ref())
                {
                    problems
                        .insert(found.location.to_string(), format!("has {} bytes, should have {size}", found.size));
                }
            }
        }
    }
    problems.extend(expected.into_keys().map(|path| (path.to_owned(), "is missing".to_owned())));
    if problems.is_empty() {
        return Ok(());
    }
    let count = counted(problems.len() as u64, "object");
    Err(Failure::failed(format!("backup {name} of {fqdn} is damaged: {count} missing or of the wrong size"))
        .details(problems.into_iter().map(|(path, problem)| format!("{path} {problem}")))
        .hint("restore another backup, or only tables that are not damaged: --table")
        .into())
}

/// Section, folder in the backup, folder on this node.
type Mapped<'a> = Vec<(&'a Section, TableFolder, TableFolder)>;

/// Finds the live folder of every table, and what creates those that are gone.
fn map_to_live<'a>(
    sections: &[(&'a Section, TableFolder)],
    schema: &str,
    live: &Live,
    plan: &mut RestorePlan,
) -> anyhow::Result<Mapped<'a>> {
    let now = Statements::parse(&live.schema.internals);
    let old = Statements::parse(schema);
    let (contents, live_contents) = (Contents::parse(schema), Contents::parse(&live.schema.internals));
    let mut hidden = false;
    let mut mapped: Mapped<'a> = Vec::new();
    let mut refused = Vec::new();
    let mut to_run = Vec::new();
    // A view can be created when its table is there.
    let (views, tables): (Vec<_>, Vec<_>) =
        sections.iter().cloned().partition(|(_, table)| old.base_of(table).is_some());
    for (section, table) in tables.into_iter().chain(views) {
        if let Some(base) = old.base_of(&table)
            && !sections.iter().any(|(_, other)| (other.keyspace.as_str(), other.table()) == (&table.keyspace, base))
        {
            refused.push(format!("{}: it is a view of {base}, which must be restored with it", table.fqtn()));
            continue;
        }
        let live_table = live.facts.table(&table.keyspace, table.table());
        match live_table {
            // A folder of a table that had been dropped before the backup: the live one has its own section.
            Some(live_table)
                if Some(live_table.id.as_str()) != table.id()
                    && has_section(sections, &table.with_id(&live_table.id)) =>
            {
                plan.notes
                    .push(format!("{} had been dropped before the backup was made and is left out", table.folder));
            }
            Some(live_table) => {
                let target = table.with_id(&live_table.id);
                let mut reasons = if target == table { Vec::new() } else { old.unreadable_with(&now, &table) };
                if target != table {
                    add_new(&mut reasons, contents.changed_types(&live_contents, &table.keyspace, table.table()));
                }
                let lost = contents.lost_columns(&live_contents, &table.keyspace, table.table());
                hidden |= !lost.is_empty();
                add_new(&mut reasons, lost);
                reasons.extend(old.in_the_way(&now, &table));
                refused.extend(reasons.into_iter().map(|reason| format!("{}: {reason}", table.fqtn())));
                for index in old.new_indexes(&now, &table) {
                    plan.notes
                        .push(format!("index {index} of {} is new: Cassandra builds it at its start", table.fqtn()));
                    plan.statements.push(forget_index(&table, &index));
                }
                mapped.push((section, table, target));
            }
            None => match old.creating(&now, &table) {
                Some(statements) => {
                    let reasons = contents.changed_types(&live_contents, &table.keyspace, table.table());
                    refused.extend(reasons.into_iter().map(|reason| format!("{}: {reason}", table.fqtn())));
                    for statement in statements {
                        if !plan.statements.contains(&statement) {
                            plan.statements.push(statement);
                        }
                    }
                    mapped.push((section, table.clone(), table));
                }
                None => to_run.extend(old.for_a_person(&table)),
            },
        }
    }
    if !refused.is_empty() {
        // The record of the drop stays with the table, so that the column alone does not bring the values back.
        let hint = if hidden {
            "make the schema fit: drop a table that has lost a column, and the restore creates it as it was; or restore the whole node without --keyspace and --table"
        } else {
            "make the schema fit, or restore the whole node without --keyspace and --table"
        };
        return Err(Failure::failed("the schema has changed since, and the old files do not fit it")
            .details(refused)
            .hint(hint)
            .into());
    }
    if !to_run.is_empty() {
        let message =
            "tables do not exist any more, and this backup does not hold all that is needed to create them again";
        return Err(Failure::failed(message)
            .details(to_run)
            .hint("run these statements and the same command again, if no column was dropped before the backup")
            .into());
    }
    Ok(mapped)
}

fn add_new(reasons: &mut Vec<String>, more: Vec<String>) {
    for reason in more {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
}

/// Cassandra fills an index at its start if it has not noted that this was done.
fn forget_index(table: &TableFolder, index: &str) -> String {
    format!(
        "DELETE FROM system.\"IndexInfo\" WHERE table_name = '{}' AND index_name = '{}';",
        table.keyspace.replace('\'', "''"),
        index.replace('\'', "''")
    )
}

fn has_section(sections: &[(&Section, TableFolder)], table: &TableFolder) -> bool {
    sections.iter().any(|(_, other)| other == table)
}

/// The views of a table are restored with it: they hold its rows.
fn with_views<'a>(
    sections: &[(&'a Section, TableFolder)],
    manifest: &'a Manifest,
    old: &Statements<'_>,
    notes: &mut Vec<String>,
) -> Vec<(&'a Section, TableFolder)> {
    let mut chosen: Vec<_> = sections.to_vec();
    for (_, table) in sections {
        for view in old.views_of(table) {
            let fqtn = format!("{}.{view}", table.keyspace);
            let all = manifest.sections.iter().filter_map(|section| Some((section, section.table().ok()?)));
            let of_view: Vec<_> = all.filter(|(_, other)| other.fqtn() == fqtn).collect();
            if !of_view.is_empty() && !chosen.iter().any(|(_, other)| other.fqtn() == fqtn) {
                notes.push(format!("{fqtn} is a view of {} and is restored with it", table.fqtn()));
                chosen.extend(of_view);
            }
        }
    }
    chosen
}
