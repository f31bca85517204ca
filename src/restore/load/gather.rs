//! Gathers what a load must know and makes the plan. Everything that can be wrong is found here, before anything is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::LoadOptions;
use super::plan::{LoadFile, LoadPlan, LoadTable};
use super::replication::Placement;
use super::schema::{self, Schema, SchemaPlan, Wanted, shown};
use crate::cassandra::cql::Cql;
use crate::cassandra::facts::{self, ClusterFacts};
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::model::cql;
use crate::model::manifest::{Manifest, Section};
use crate::model::names::{Fqdn, TableFolder};
use crate::model::sstable::SstableFile;
use crate::model::units::{counted, size};
use crate::restore::fit::Statements;
use crate::restore::gather::{Backup, check_objects, check_readable, has_no_hash, read_backup};
use crate::restore::place::mark_of_node;

/// Keyspaces that belong to a node or to its cluster and are never loaded into another one.
const NEVER: [&str; 6] =
    ["system", "system_schema", "system_traces", "system_distributed", "system_views", "system_virtual_schema"];

/// The keyspace of the roles.
const AUTH: &str = "system_auth";

/// The nodes that a command names, as `--fqdn a,b`.
///
/// # Errors
/// A name that cannot be one.
pub fn sources(context: &Context) -> Result<Vec<Fqdn>, Failure> {
    let mut sources = Vec::new();
    for name in context.fqdn.as_str().split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let source = Fqdn::new(name).map_err(|error| Failure::usage(error.to_string()))?;
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    Ok(sources)
}

/// What one node had.
struct Source {
    context: Context,
    backup: Backup,
}

impl Source {
    fn schema(&self) -> &str {
        self.backup.schema_internals.as_deref().unwrap_or(&self.backup.schema)
    }

    /// What is to be loaded, only with the files that sstableloader takes.
    fn sections(&self, options: &LoadOptions) -> anyhow::Result<Vec<(Section, TableFolder)>> {
        let (schema, statements) = (Schema::parse(self.schema()), Statements::parse(self.schema()));
        let mut chosen: BTreeMap<String, Vec<(Section, TableFolder)>> = BTreeMap::new();
        for section in &self.backup.manifest.sections {
            let table = section.table()?;
            if !wants(options, &table) || schema.views.contains_key(&name_of(&table)) {
                continue;
            }
            let is_loaded = |object: &&crate::model::manifest::Object| {
                object.file(&table).is_ok_and(|file| file.index.is_none() && is_main_component(&file.name))
            };
            let objects = section.objects.iter().filter(is_loaded).cloned().collect();
            let section = Section { objects, ..section.clone() };
            chosen.entry(table.fqtn()).or_default().push((section, table));
        }
        let mut sections = Vec::new();
        for (fqtn, mut of_table) in chosen {
            // Folders of a table that had been dropped before.
            if of_table.len() > 1 {
                of_table.retain(|(_, table)| statements.has_id_of(table));
            }
            if of_table.len() != 1 {
                return Err(Failure::failed(format!(
                    "the backup holds several tables {fqtn}, and does not say which was in use"
                ))
                .hint("leave it out: --keyspace and --table name the others")
                .into());
            }
            sections.extend(of_table);
        }
        Ok(sections)
    }
}

/// Files of secondary indexes are not loaded: Cassandra builds these again.
fn is_main_component(name: &str) -> bool {
    let is_index = name.contains("-SAI+") || name.contains("-SI_");
    SstableFile::parse(name).is_some() && !is_index
}

fn name_of(table: &TableFolder) -> schema::Name {
    (table.keyspace.clone(), table.table().to_owned())
}

fn wants(options: &LoadOptions, table: &TableFolder) -> bool {
    let is_kept = options.keep_auth && table.keyspace == AUTH;
    !is_kept && !NEVER.contains(&table.keyspace.as_str()) && options.selection.wants(table)
}

/// Makes the plan.
pub async fn plan(context: &Context, options: &LoadOptions, yaml: &CassandraYaml) -> anyhow::Result<LoadPlan> {
    let mut all = Vec::new();
    for fqdn in sources(context)? {
        let context = Context { fqdn, ..context.clone() };
        let backup = read_backup(&context, &options.name).await?;
        all.push(Source { context, backup });
    }
    let first = all.first().ok_or_else(|| Failure::usage("--fqdn names no node"))?;
    let old = Schema::parse(first.schema());
    check_selection(options, &all, &old)?;
    check_agreement(&all, options, &old)?;

    let cql = context.cql(yaml).await?;
    let live = ClusterFacts::gather(&cql, &context.resolver).await?;
    let mut notes = Vec::new();
    let (tables, mut amount) = (tables(options, &all, &live, &mut notes).await?, 0);
    let schema = schema_plan(&cql, options, &old, &tables, &mut notes).await?;
    let mut plan = LoadPlan {
        backup: options.name.clone(),
        sources: all.iter().map(|source| source.context.fqdn.clone()).collect(),
        schema,
        tables: Vec::new(),
        stage: stage_folder(options, yaml)?,
        needed: 0,
        free: 0,
        address: cql.address(),
        notes,
    };
    plan.free = free_space(plan.stage.parent().unwrap_or(Path::new("/")))?;
    if options.load {
        for (source, section, table) in &tables {
            let planned = load_table(source, section, table, &plan.stage)?;
            amount += planned.files.iter().filter(|file| !file.staged).map(|file| file.object.size).sum::<u64>();
            plan.tables.extend(Some(planned).filter(|table| !table.files.is_empty()));
        }
    }
    plan.needed = amount;
    check_space(&plan)?;
    let without_hash = plan.files().filter(|file| has_no_hash(&file.object)).count();
    if without_hash > 0 {
        let files = counted(without_hash as u64, "file");
        plan.notes
            .push(format!("{files} have no recorded hash (cassandra-medusa stored them): only sizes are checked"));
    }
    Ok(plan)
}

type Found<'a> = (&'a Source, Section, TableFolder);

/// The tables that have files, source by source.
async fn tables<'a>(
    options: &LoadOptions,
    all: &'a [Source],
    live: &ClusterFacts,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Found<'a>>> {
    let mut found = Vec::new();
    for source in all {
        let fqdn = &source.context.fqdn;
        let mut sections = source.sections(options)?;
        // Roles are added to those that there are; tables of another release have no place.
        let has_no_place = |table: &TableFolder| table.keyspace == AUTH && live.table(AUTH, table.table()).is_none();
        sections.retain(|(_, table)| !has_no_place(table));
        if options.load {
            let sections: Vec<_> = sections.iter().map(|(section, table)| (section, table.clone())).collect();
            check_objects(&source.context, &options.name, options.selection.is_all(), &sections).await?;
            let objects = sections.iter().flat_map(|(section, _)| &section.objects);
            check_readable(&source.backup.version.release_version, &live.version.release_version, objects)?;
        }
        if sections.iter().all(|(section, _)| section.objects.is_empty()) {
            notes.push(format!("{fqdn} has no files of what is loaded"));
        }
        found.extend(sections.into_iter().map(|(section, table)| (source, section, table)));
    }
    if options.load && found.iter().any(|(_, section, table)| table.keyspace == AUTH && !section.objects.is_empty()) {
        notes.push(
            "the roles and permissions of the backup are loaded, too; --keep-auth leaves those of this cluster alone"
                .to_owned(),
        );
    }
    Ok(found)
}

async fn schema_plan(
    cql: &Cql,
    options: &LoadOptions,
    old: &Schema<'_>,
    tables: &[Found<'_>],
    notes: &mut Vec<String>,
) -> anyhow::Result<SchemaPlan> {
    let is_user = |keyspace: &str| !NEVER.contains(&keyspace) && keyspace != AUTH;
    let described = old.tables.keys().filter(|name| {
        TableFolder::new(&name.0, &name.1).is_ok_and(|table| is_user(&name.0) && wants(options, &table))
    });
    let with_files = tables.iter().map(|(.., table)| name_of(table)).filter(|(keyspace, _)| is_user(keyspace));
    let is_whole = |keyspace: &&String| {
        is_user(keyspace) && (options.selection.is_all() || options.selection.keyspaces.contains(*keyspace))
    };
    let wanted = Wanted {
        tables: described.cloned().chain(with_files).collect(),
        whole: old.keyspaces.keys().filter(is_whole).cloned().collect(),
    };
    let placement = Placement {
        dc_map: options.dc_map.clone(),
        given: options.replication.clone(),
        datacenters: facts::datacenters(cql).await?,
    };
    let live = facts::schema(cql).await?;
    let live = Schema::parse(&live.internals);
    let mut plan = schema::decide(old, &live, &wanted, options.change, &placement).map_err(|refused| {
        let hint = match options.change {
            schema::Change::Nothing => "without --no-schema, what is missing is created",
            schema::Change::Create => {
                "--dc-map OLD=NEW and --replication say where a new keyspace goes; --recreate-tables drops tables and types \
                 that do not fit, with their rows, and creates them as in the backup"
            }
            schema::Change::Recreate => "--dc-map OLD=NEW and --replication say where a new keyspace goes; --table selects tables",
        };
        Failure::failed("the schema of this cluster does not fit the backup").details(refused).hint(hint)
    })?;
    let dropped: BTreeSet<&str> = plan.drop.iter().map(|step| step.statement.as_str()).collect();
    let stays = |name: &&schema::Name| {
        let statement = format!("DROP TABLE {}.{};", cql::quoted(&name.0), cql::quoted(&name.1));
        live.tables.contains_key(*name) && !dropped.contains(statement.as_str())
    };
    let kept: BTreeSet<_> = wanted.tables.iter().filter(stays).cloned().collect();
    if options.load {
        let has_files = |name: &&schema::Name| {
            tables.iter().any(|(_, section, table)| name_of(table) == **name && !section.objects.is_empty())
        };
        let in_the_way = schema::in_the_way(&live, &kept.iter().filter(has_files).cloned().collect());
        if !in_the_way.is_empty() {
            return Err(Failure::failed("indexes of this cluster are in the way of sstableloader")
                .details(in_the_way)
                .hint("an index that the backup holds is created again when all is loaded; --table leaves tables out")
                .into());
        }
    } else if !options.is_loaded {
        for step in std::mem::take(&mut plan.create_after) {
            notes.push(format!("{} is not created before files are loaded: {}", step.what, step.statement));
        }
    }
    let kept = kept.len();
    if options.load && kept > 0 {
        let tables = counted(kept as u64, "table");
        notes.push(format!(
            "existing already: {tables}. Rows are added there, and what was written or deleted later wins; TRUNCATE first to have all as in the backup"
        ));
    }
    Ok(plan)
}

/// Refuses names that no source holds, and what cannot be loaded.
fn check_selection(options: &LoadOptions, all: &[Source], old: &Schema<'_>) -> Result<(), Failure> {
    let selection = &options.selection;
    let keyspaces = selection.tables.iter().filter_map(|table| table.split('.').next());
    if let Some(never) =
        selection.keyspaces.iter().map(String::as_str).chain(keyspaces).find(|name| NEVER.contains(name))
    {
        return Err(Failure::usage(format!(
            "{never} belongs to the cluster that was backed up and is never loaded into another one"
        ))
        .hint("a restore without --use-sstableloader brings it back to its own node"));
    }
    let mut known = Manifest::default();
    for source in all {
        let without_objects = |section: &Section| Section { objects: Vec::new(), ..section.clone() };
        known.sections.extend(source.backup.manifest.sections.iter().map(without_objects));
    }
    let described = old.tables.keys();
    known.sections.extend(described.map(|(keyspace, table)| Section {
        keyspace: keyspace.clone(),
        columnfamily: table.clone(),
        objects: Vec::new(),
    }));
    selection.check_names(&known)?;
    for (view, (base, _)) in &old.views {
        let base = (view.0.clone(), base.clone());
        let is_wanted =
            |name: &schema::Name| selection.keyspaces.contains(&name.0) || selection.tables.contains(&shown(name));
        if selection.tables.contains(&shown(view)) && !is_wanted(&base) {
            return Err(Failure::usage(format!("{} is a view of {}", shown(view), shown(&base)))
                .hint("load that table: Cassandra fills its views from it"));
        }
    }
    Ok(())
}

/// All nodes of a cluster have one schema. Where they had not, the files of one may not be readable with that of the other.
fn check_agreement(all: &[Source], options: &LoadOptions, old: &Schema<'_>) -> Result<(), Failure> {
    let mut differing = BTreeSet::new();
    for source in &all[1..] {
        // One form holds columns that the other one has forgotten.
        if source.backup.schema_internals.is_some() != all[0].backup.schema_internals.is_some() {
            continue;
        }
        let other = Schema::parse(source.schema());
        for (name, statement) in &other.tables {
            let is_wanted = TableFolder::new(&name.0, &name.1).is_ok_and(|table| wants(options, &table));
            let same =
                old.tables.get(name).is_some_and(|old| cql::table_definition(old) == cql::table_definition(statement));
            if is_wanted && name.0 != AUTH && !same {
                differing.insert(format!("{} of {}", shown(name), source.context.fqdn));
            }
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let message = format!("these tables were other ones than on {} when the backup was made", all[0].context.fqdn);
    Err(Failure::failed(message).details(differing).hint("load one node after the other: --fqdn with one name"))
}

fn load_table(source: &Source, section: &Section, table: &TableFolder, stage: &Path) -> anyhow::Result<LoadTable> {
    let fqdn = &source.context.fqdn;
    let folder = stage.join(fqdn.as_str()).join(&table.keyspace).join(table.table());
    let mut files = Vec::with_capacity(section.objects.len());
    for object in &section.objects {
        let file = object.file(table)?;
        let key = source.context.storage.layout().recorded(fqdn, &object.path)?;
        let there = fs_err::symlink_metadata(folder.join(file.relative()));
        let staged = there.is_ok_and(|metadata| metadata.len() == object.size);
        files.push(LoadFile { object: object.clone(), key, file, staged });
    }
    Ok(LoadTable { source: fqdn.clone(), name: table.fqtn(), folder, files })
}

/// Below `--temp-dir`, else beside the tables: there is the most space.
fn stage_folder(options: &LoadOptions, yaml: &CassandraYaml) -> anyhow::Result<PathBuf> {
    match (&options.temp_dir, yaml.data_directories.first()) {
        (Some(folder), _) if !folder.is_dir() => {
            Err(Failure::usage(format!("{} is not a folder", folder.display())).hint("--temp-dir must exist").into())
        }
        (Some(folder), Some(data)) => {
            let folder = fs_err::canonicalize(folder)?;
            Ok(folder.join(format!("medusa-load-{}-{}", options.name, mark_of_node(data))))
        }
        (None, Some(data)) => Ok(data.join(format!(".medusa-load-{}", options.name))),
        (_, None) => Err(Failure::failed("cassandra.yaml names no data directory").into()),
    }
}

fn free_space(folder: &Path) -> anyhow::Result<u64> {
    let space =
        nix::sys::statvfs::statvfs(folder).with_context(|| format!("could not look at {}", folder.display()))?;
    Ok(space.blocks_available() as u64 * space.fragment_size() as u64)
}

fn check_space(plan: &LoadPlan) -> Result<(), Failure> {
    if plan.needed <= plan.free {
        return Ok(());
    }
    let (needed, free, stage) = (size(plan.needed), size(plan.free), plan.stage.display());
    Err(Failure::failed(format!("not enough space: {needed} must be downloaded into {stage}, and {free} are free"))
        .hint("--temp-dir names a folder with more space; --table loads less at a time"))
}
