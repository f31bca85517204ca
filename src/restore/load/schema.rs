//! What must be created, and with `--recreate-tables` dropped, before files can be loaded. Pure.
//!
//! Only what is selected is looked at. Nothing is dropped unless it is asked for, and then only what does not fit.

use std::collections::{BTreeMap, BTreeSet};

use super::replication::Placement;
use crate::model::cql::{self, Routine, Subject};
use crate::model::names::TableFolder;
use crate::restore::fit::Statements;

/// Keyspace and name.
pub type Name = (String, String);

/// A schema by what its statements create.
#[derive(Debug, Default)]
pub struct Schema<'a> {
    pub keyspaces: BTreeMap<String, &'a str>,
    types: BTreeMap<Name, &'a str>,
    routines: BTreeMap<Routine, &'a str>,
    pub tables: BTreeMap<Name, &'a str>,
    /// Changes by table: columns that were dropped, or added again.
    changes: BTreeMap<Name, Vec<&'a str>>,
    /// By table, then by name.
    indexes: BTreeMap<Name, BTreeMap<String, &'a str>>,
    /// By view: its table, and the statement.
    pub views: BTreeMap<Name, (String, &'a str)>,
    fit: Statements<'a>,
    contents: cql::Contents,
}

impl<'a> Schema<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut all = Self { fit: Statements::parse(text), contents: cql::Contents::parse(text), ..Self::default() };
        for statement in cql::statements(text) {
            match cql::subject(statement) {
                Subject::Keyspace(name) => drop(all.keyspaces.insert(name, statement)),
                Subject::Type(keyspace, name) => drop(all.types.insert((keyspace, name), statement)),
                Subject::Routine(routine) => drop(all.routines.insert(routine, statement)),
                Subject::Table(keyspace, name) => drop(all.tables.insert((keyspace, name), statement)),
                Subject::AlterTable(keyspace, name) => {
                    all.changes.entry((keyspace, name)).or_default().push(statement);
                }
                Subject::Index(keyspace, table) => {
                    if let Some((name, _)) = cql::index(statement) {
                        all.indexes.entry((keyspace, table)).or_default().insert(name, statement);
                    }
                }
                Subject::View { keyspace, view, base } => drop(all.views.insert((keyspace, view), (base, statement))),
                Subject::Other => {}
            }
        }
        all
    }

    /// Types of a keyspace that these names are or use.
    fn types_in(&self, keyspace: &str, mut words: BTreeSet<String>) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        while let Some(word) = words.pop_first() {
            if let Some(statement) = self.types.get(&(keyspace.to_owned(), word.clone()))
                && used.insert(word)
            {
                words.extend(cql::type_fields(statement).into_iter().flatten().flat_map(|(_, of)| cql::mentioned(&of)));
            }
        }
        used
    }

    /// Names that the columns of a table have as types.
    fn type_words(&self, table: &Name) -> BTreeSet<String> {
        let definition = self.tables.get(table).and_then(|statement| cql::table_definition(statement));
        definition
            .into_iter()
            .flat_map(|table| table.columns.into_values())
            .flat_map(|of| cql::mentioned(&of))
            .collect()
    }

    fn types_of(&self, table: &Name) -> BTreeSet<String> {
        self.types_in(&table.0, self.type_words(table))
    }

    fn views_of<'s>(&'s self, table: &'s Name) -> impl Iterator<Item = (&'s Name, &'a str)> + 's {
        let of_table =
            move |((keyspace, _), (base, _)): &(&Name, &(String, &str))| (keyspace, base) == (&table.0, &table.1);
        self.views.iter().filter(of_table).map(|(view, (_, statement))| (view, *statement))
    }

    fn fields(&self, of_type: &Name) -> Option<Vec<(String, String)>> {
        self.types.get(of_type).and_then(|statement| cql::type_fields(statement))
    }
}

/// What is loaded.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Without views.
    pub tables: BTreeSet<Name>,
    /// Keyspaces of which everything is wanted: types and functions as well that no table uses.
    pub whole: BTreeSet<String>,
}

impl Wanted {
    fn keyspaces(&self) -> BTreeSet<&String> {
        self.tables.iter().map(|(keyspace, _)| keyspace).chain(&self.whole).collect()
    }
}

/// How far the schema may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: everything must be there.
    Nothing,
    /// What is missing is created.
    Create,
    /// Tables and types that do not fit are dropped and created again.
    Recreate,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `table shop.orders`.
    pub what: String,
    pub statement: String,
}

impl Step {
    fn new(what: impl Into<String>, statement: impl Into<String>) -> Self {
        Self { what: what.into(), statement: statement.into() }
    }
}

/// What is done to the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaPlan {
    /// Run first.
    pub drop: Vec<Step>,
    pub create: Vec<Step>,
    /// Indexes that are created when all is loaded: Cassandra takes no streamed file into a table that has one.
    pub create_after: Vec<Step>,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// Storage-attached indexes of tables that stay as they are. While a table has one, Cassandra refuses the files of
/// sstableloader, which brings none of the index.
pub fn in_the_way(live: &Schema<'_>, tables: &BTreeSet<Name>) -> Vec<String> {
    let of_table = |table: &Name| {
        let indexes = live.indexes.get(table).into_iter().flatten();
        let attached = indexes.filter(|(_, statement)| cql::is_storage_attached(statement));
        let told = |(name, _): (&String, _)| {
            format!(
                "{} has the storage-attached index {name}, and takes no files while it has it: drop the index first",
                shown(table)
            )
        };
        attached.map(told).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of_table).collect()
}

/// Decides what is done. An error lists, in words, all that does not fit.
pub fn decide(
    backup: &Schema<'_>,
    live: &Schema<'_>,
    wanted: &Wanted,
    change: Change,
    placement: &Placement,
) -> Result<SchemaPlan, Vec<String>> {
    let mut decision = Decision {
        backup,
        live,
        wanted,
        change,
        plan: SchemaPlan::default(),
        refused: Vec::new(),
        again: BTreeSet::new(),
    };
    decision.keyspaces(placement);
    decision.tables_that_differ();
    decision.types_that_differ();
    decision.drops();
    decision.types();
    decision.routines();
    decision.tables();
    if decision.refused.is_empty() { Ok(decision.plan) } else { Err(decision.refused) }
}

struct Decision<'a, 's> {
    backup: &'a Schema<'s>,
    live: &'a Schema<'s>,
    wanted: &'a Wanted,
    change: Change,
    plan: SchemaPlan,
    refused: Vec<String>,
    /// Tables and types that are dropped and created again.
    again: BTreeSet<Dropped>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Dropped {
    Table(Name),
    Type(Name),
}

impl Decision<'_, '_> {
    fn create(&mut self, what: String, statement: &str) {
        if self.change == Change::Nothing {
            self.refused.push(format!("{what} does not exist"));
        } else {
            self.plan.create.push(Step::new(what, statement));
        }
    }

    fn keyspaces(&mut self, placement: &Placement) {
        for keyspace in self.wanted.keyspaces() {
            if self.live.keyspaces.contains_key(keyspace) {
                if placement.given.contains_key(keyspace) {
                    self.plan.notes.push(format!("keyspace {keyspace} exists and keeps its replication"));
                }
                continue;
            }
            let Some(statement) = self.backup.keyspaces.get(keyspace) else {
                self.refused.push(format!("the backup's schema does not describe keyspace {keyspace}"));
                continue;
            };
            if self.change == Change::Nothing {
                self.refused.push(format!("keyspace {keyspace} does not exist"));
                continue;
            }
            match placement.of_new_keyspace(keyspace, statement) {
                Ok(statement) => self.plan.create.push(Step::new(format!("keyspace {keyspace}"), statement)),
                Err(reason) => self.refused.push(reason),
            }
        }
        for keyspace in placement.given.keys().filter(|keyspace| !self.wanted.keyspaces().contains(keyspace)) {
            self.refused.push(format!("--replication names {keyspace}, which is not among what is loaded"));
        }
    }

    /// Finds tables whose files could not be read as this cluster has them, or the types that they use.
    fn tables_that_differ(&mut self) {
        for table in &self.wanted.tables {
            let fqtn = shown(table);
            if self.live.views.contains_key(table) {
                self.refused.push(format!("{fqtn} is a view in this cluster, and was a table"));
            }
            let (old, now) = (&self.backup.contents, &self.live.contents);
            let changed_types = old.changed_types(now, &table.0, &table.1);
            if !self.live.tables.contains_key(table) {
                // Types that have changed are created again then.
                if self.change != Change::Recreate {
                    self.refused.extend(changed_types.into_iter().map(|reason| format!("{fqtn}: {reason}")));
                }
                continue;
            }
            let mut reasons = match TableFolder::new(&table.0, &table.1) {
                Ok(folder) => self.backup.fit.unreadable_with(&self.live.fit, &folder),
                Err(error) => vec![error.to_string()],
            };
            for reason in changed_types.into_iter().chain(old.lost_columns(now, &table.0, &table.1)) {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            if reasons.is_empty() {
                continue;
            }
            if self.change == Change::Recreate && self.backup.tables.contains_key(table) {
                self.plan.notes.push(format!("{fqtn} is dropped with all its rows: {}", reasons.join("; ")));
                self.again.insert(Dropped::Table(table.clone()));
            } else {
                self.refused.extend(reasons.into_iter().map(|reason| format!("{fqtn}: {reason}")));
            }
        }
    }

    /// Types cannot be dropped while anything uses them.
    fn types_that_differ(&mut self) {
        let mut changed: BTreeSet<Name> = BTreeSet::new();
        for (name, in_use) in self.wanted_types() {
            let (Some(old), Some(now)) = (self.backup.fields(&name), self.live.fields(&name)) else { continue };
            if now.starts_with(&old) {
                continue;
            }
            if !in_use {
                self.plan.notes.push(format!("type {} differs from the backup's and stays as it is", shown(&name)));
            } else if self.change == Change::Recreate {
                changed.insert(name);
            }
        }
        // Types that hold one of them, at any depth.
        for name in self.live.types.keys() {
            let fields = self.live.fields(name).unwrap_or_default();
            let held = self.live.types_in(&name.0, fields.iter().flat_map(|(_, of)| cql::mentioned(of)).collect());
            if changed.iter().any(|other| other.0 == name.0 && held.contains(&other.1)) {
                self.again.insert(Dropped::Type(name.clone()));
            }
        }
        self.again.extend(changed.into_iter().map(Dropped::Type));
        let types: Vec<Name> = self.dropped_types().cloned().collect();
        for name in &types {
            let what = format!("type {} has changed and cannot be dropped", shown(name));
            if !self.backup.types.contains_key(name) {
                self.refused.push(format!("{what}: the backup does not hold it"));
            }
            for table in self.live.tables.keys().filter(|table| table.0 == name.0) {
                if !self.live.types_of(table).contains(&name.1) {
                    continue;
                }
                if self.wanted.tables.contains(table) {
                    if self.again.insert(Dropped::Table(table.clone())) {
                        let note = format!("{} is dropped with all its rows: it uses type {}", shown(table), name.1);
                        self.plan.notes.push(note);
                    }
                } else {
                    self.refused.push(format!("{what}: table {} uses it and is not selected", shown(table)));
                }
            }
            for (routine, statement) in &self.live.routines {
                if routine.keyspace == name.0 && cql::mentioned(statement).contains(&name.1) {
                    self.refused.push(format!("{what}: {} uses it", shown_routine(routine)));
                }
            }
        }
    }

    fn dropped_types(&self) -> impl Iterator<Item = &Name> {
        self.again.iter().filter_map(|dropped| match dropped {
            Dropped::Type(name) => Some(name),
            Dropped::Table(_) => None,
        })
    }

    fn drops(&mut self) {
        let mut steps = Vec::new();
        for dropped in &self.again {
            let Dropped::Table(table) = dropped else { continue };
            for (view, _) in self.live.views_of(table) {
                steps.push(Step::new(
                    format!("view {}", shown(view)),
                    format!("DROP MATERIALIZED VIEW {};", in_cql(view)),
                ));
                if !self.backup.views.contains_key(view) {
                    let note =
                        format!("view {} is dropped and not created again: the backup does not hold it", shown(view));
                    self.plan.notes.push(note);
                }
            }
            for index in self.live.indexes.get(table).into_iter().flat_map(BTreeMap::keys) {
                if !self.backup.indexes.get(table).is_some_and(|of_table| of_table.contains_key(index)) {
                    let note = format!(
                        "index {index} is dropped with its table and not created again: the backup does not hold it"
                    );
                    self.plan.notes.push(note);
                }
            }
            steps.push(Step::new(format!("table {}", shown(table)), format!("DROP TABLE {};", in_cql(table))));
        }
        let types: BTreeSet<Name> = self.dropped_types().cloned().collect();
        for name in in_order(self.live, &types).into_iter().rev() {
            steps.push(Step::new(format!("type {}", shown(&name)), format!("DROP TYPE {};", in_cql(&name))));
        }
        self.plan.drop = steps;
    }

    /// Types of the backup that are needed, and whether by a table that is loaded.
    fn wanted_types(&self) -> BTreeMap<Name, bool> {
        let mut types: BTreeMap<Name, bool> = BTreeMap::new();
        for name in self.backup.types.keys().filter(|(keyspace, _)| self.wanted.whole.contains(keyspace)) {
            types.insert(name.clone(), false);
        }
        for (routine, statement) in self.wanted_routines() {
            let used = self.backup.types_in(&routine.keyspace, cql::mentioned(statement));
            types.extend(used.into_iter().map(|name| ((routine.keyspace.clone(), name), false)));
        }
        for table in &self.wanted.tables {
            let used = self.backup.types_of(table);
            types.extend(used.into_iter().map(|name| ((table.0.clone(), name), true)));
        }
        types
    }

    fn types(&mut self) {
        let again: BTreeSet<Name> = self.dropped_types().cloned().collect();
        let is_new = |name: &Name| !self.live.types.contains_key(name) || again.contains(name);
        let mut new: BTreeSet<Name> = self.wanted_types().into_keys().filter(is_new).collect();
        new.extend(again);
        for name in in_order(self.backup, &new) {
            self.create(format!("type {}", shown(&name)), self.backup.types[&name]);
        }
    }

    /// All of whole keyspaces, and those that a table of the others names in a mask.
    fn wanted_routines(&self) -> BTreeMap<&Routine, &str> {
        let mut wanted = BTreeMap::new();
        let mut masks: BTreeSet<Name> = BTreeSet::new();
        for table in &self.wanted.tables {
            let words = self.backup.tables.get(table).map(|statement| cql::mentioned(statement)).unwrap_or_default();
            if words.contains("masked") {
                masks.extend(words.into_iter().map(|word| (table.0.clone(), word)));
            }
        }
        for (routine, statement) in &self.backup.routines {
            let is_mask = masks.contains(&(routine.keyspace.clone(), routine.name.clone()));
            if self.wanted.whole.contains(&routine.keyspace) || is_mask {
                wanted.insert(routine, *statement);
            }
        }
        wanted
    }

    fn routines(&mut self) {
        let wanted = self.wanted_routines();
        let (aggregates, functions): (Vec<_>, Vec<_>) =
            wanted.into_iter().map(|(r, s)| (r.clone(), s.to_owned())).partition(|(routine, _)| routine.is_aggregate);
        for (routine, statement) in functions.into_iter().chain(aggregates) {
            match self.live.routines.get(&routine) {
                None => self.create(shown_routine(&routine), &statement),
                Some(live) if cql::normalized(live) != cql::normalized(&statement) => {
                    let note = format!("{} differs from the backup's and stays as it is", shown_routine(&routine));
                    self.plan.notes.push(note);
                }
                Some(_) => {}
            }
        }
    }

    fn tables(&mut self) {
        let (mut indexes, mut views, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for table in &self.wanted.tables {
            let is_new = !self.live.tables.contains_key(table) || self.again.contains(&Dropped::Table(table.clone()));
            if is_new {
                let Some(statement) = self.backup.tables.get(table) else {
                    self.refused.push(format!("the backup's schema does not describe {}", shown(table)));
                    continue;
                };
                self.create(format!("table {}", shown(table)), &cql::without_id(statement));
                let changes = self.backup.changes.get(table).into_iter().flatten();
                if self.change != Change::Nothing {
                    let what = || format!("column of {} that was dropped or added again", shown(table));
                    self.plan.create.extend(changes.map(|change| Step::new(what(), *change)));
                }
            }
            let live_indexes = self.live.indexes.get(table).filter(|_| !is_new);
            for (name, statement) in self.backup.indexes.get(table).into_iter().flatten() {
                match live_indexes.and_then(|of_table| of_table.get(name)) {
                    None if cql::is_storage_attached(statement) => {
                        after.push((format!("index {name} of {}", shown(table)), (*statement).to_owned()));
                    }
                    None => indexes.push((format!("index {name} of {}", shown(table)), (*statement).to_owned())),
                    Some(live) if cql::index(live) != cql::index(statement) => {
                        let note =
                            format!("index {name} of {} differs from the backup's and stays as it is", shown(table));
                        self.plan.notes.push(note);
                    }
                    Some(_) => {}
                }
            }
            for (view, statement) in self.backup.views_of(table) {
                if is_new || !self.live.views.contains_key(view) {
                    views.push((format!("view {}", shown(view)), cql::without_id(statement)));
                }
            }
        }
        // They do no harm where they are missing, and --no-schema says to leave the schema alone.
        if self.change == Change::Nothing {
            let missing = indexes.into_iter().chain(views).chain(after);
            let notes = missing.map(|(what, _)| format!("{what} is not there and is not created"));
            self.plan.notes.extend(notes);
            return;
        }
        let step = |(what, statement): (String, String)| Step::new(what, statement);
        self.plan.create.extend(indexes.into_iter().chain(views).map(step));
        self.plan.create_after.extend(after.into_iter().map(step));
    }
}

/// Types so that each comes after those that it uses.
fn in_order(schema: &Schema<'_>, types: &BTreeSet<Name>) -> Vec<Name> {
    let mut ordered: Vec<Name> = Vec::new();
    let mut waiting: Vec<&Name> = types.iter().filter(|name| schema.types.contains_key(*name)).collect();
    while !waiting.is_empty() {
        let needs_waiting = |name: &Name| {
            let fields = schema.fields(name).unwrap_or_default();
            let words: BTreeSet<String> = fields.iter().flat_map(|(_, of)| cql::mentioned(of)).collect();
            waiting.iter().any(|other| *other != name && other.0 == name.0 && words.contains(&other.1))
        };
        let (blocked, ready): (Vec<&Name>, Vec<&Name>) = waiting.iter().partition(|name| needs_waiting(name));
        // A circle is not possible in CQL; a damaged text must not keep us for ever.
        let (now, later) = if ready.is_empty() { (blocked, Vec::new()) } else { (ready, blocked) };
        ordered.extend(now.into_iter().cloned());
        waiting = later;
    }
    ordered
}

/// As people write it.
pub fn shown(name: &Name) -> String {
    format!("{}.{}", name.0, name.1)
}

fn shown_routine(routine: &Routine) -> String {
    let kind = if routine.is_aggregate { "aggregate" } else { "function" };
    format!("{kind} {}.{}({})", routine.keyspace, routine.name, routine.arguments)
}

fn in_cql(name: &Name) -> String {
    format!("{}.{}", cql::quoted(&name.0), cql::quoted(&name.1))
}
