//! Which tables of a backup are wanted. Pure.

use std::collections::BTreeSet;

use crate::error::Failure;
use crate::model::manifest::{Manifest, Section};
use crate::model::names::TableFolder;
use crate::model::nearest::did_you_mean;

/// Keyspaces of Cassandra itself that carry schema, roles and the node's identity.
pub const SYSTEM_KEYSPACES: [&str; 4] = ["system", "system_schema", "system_auth", "system_distributed"];

/// What `--keyspace`, `--table` and `--with-system` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    pub keyspaces: BTreeSet<String>,
    /// `keyspace.table`.
    pub tables: BTreeSet<String>,
    /// The system keyspaces as well. Without a filter they always belong to it.
    pub with_system: bool,
}

impl Selection {
    pub fn new(keyspaces: &[String], tables: &[String], with_system: bool) -> Self {
        // Mixed-case names may come in quotes, as in CQL.
        let unquoted = |name: &String| name.replace('"', "");
        let (keyspaces, tables) = (keyspaces.iter().map(unquoted).collect(), tables.iter().map(unquoted).collect());
        Self { keyspaces, tables, with_system }
    }

    /// Whether everything is wanted.
    pub fn is_all(&self) -> bool {
        self.keyspaces.is_empty() && self.tables.is_empty()
    }

    /// Whether the schema and the identity of the node come with it.
    pub fn includes_system(&self) -> bool {
        self.is_all() || self.with_system
    }

    /// Refuses names that the backup does not hold, and system keyspaces that are named without saying so.
    pub fn check(&self, manifest: &Manifest) -> Result<(), Failure> {
        self.check_names(manifest)?;
        let named = self
            .keyspaces
            .iter()
            .map(String::as_str)
            .chain(self.tables.iter().filter_map(|table| table.split('.').next()));
        match named.into_iter().find(|keyspace| SYSTEM_KEYSPACES.contains(keyspace)) {
            Some(system) if !self.with_system => Err(Failure::usage(format!("{system} is a system keyspace"))
                .hint("--with-system restores the system keyspaces: the schema, the roles and the node's identity as they were")),
            _ => Ok(()),
        }
    }

    /// Refuses names that the backup does not hold.
    pub fn check_names(&self, manifest: &Manifest) -> Result<(), Failure> {
        let tables: Vec<TableFolder> = manifest.sections.iter().filter_map(|section| section.table().ok()).collect();
        let keyspaces: BTreeSet<&str> = tables.iter().map(|table| table.keyspace.as_str()).collect();
        let fqtns: BTreeSet<String> = tables.iter().map(TableFolder::fqtn).collect();
        for keyspace in &self.keyspaces {
            if !keyspaces.contains(keyspace.as_str()) {
                return Err(unknown("keyspace", keyspace, keyspaces.iter().copied()));
            }
        }
        for table in &self.tables {
            if !table.contains('.') {
                return Err(
                    Failure::usage(format!("table {table:?} has no keyspace")).hint("--table takes keyspace.table")
                );
            }
            if !fqtns.contains(table) {
                return Err(unknown("table", table, fqtns.iter().map(String::as_str)));
            }
        }
        Ok(())
    }

    pub fn wants(&self, table: &TableFolder) -> bool {
        self.is_all()
            || self.keyspaces.contains(&table.keyspace)
            || self.tables.contains(&table.fqtn())
            || (self.with_system && SYSTEM_KEYSPACES.contains(&table.keyspace.as_str()))
    }

    /// The wanted sections.
    pub fn sections<'a>(&self, manifest: &'a Manifest) -> Vec<(&'a Section, TableFolder)> {
        let named = manifest.sections.iter().filter_map(|section| Some((section, section.table().ok()?)));
        named.filter(|(_, table)| self.wants(table)).collect()
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let meant = did_you_mean(name, known);
    Failure::usage(format!("the backup holds no {what} {name:?}"))
        .hint(meant.unwrap_or_else(|| "medusa download or the manifest shows what it holds".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "34998de0e59711f199fcf93f14538dd2";

    fn manifest() -> Manifest {
        let section = |(keyspace, table): (&str, &str)| Section {
            keyspace: keyspace.into(),
            columnfamily: format!("{table}-{ID}"),
            objects: Vec::new(),
        };
        let tables = [
            ("shop", "orders"),
            ("shop", "Mixed"),
            ("blog", "posts"),
            ("system", "local"),
            ("system_schema", "tables"),
        ];
        Manifest { sections: tables.map(section).into() }
    }

    fn select(keyspaces: &[&str], tables: &[&str], with_system: bool) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(keyspaces), &owned(tables), with_system)
    }

    fn chosen(selection: &Selection) -> Vec<String> {
        selection.check(&manifest()).unwrap();
        selection.sections(&manifest()).iter().map(|(_, table)| table.fqtn()).collect()
    }

    #[test]
    fn a_filter_never_brings_system_keyspaces_along_unless_asked() {
        assert_eq!(chosen(&select(&[], &[], false)).len(), 5);
        assert_eq!(chosen(&select(&["blog"], &[], false)), ["blog.posts"]);
        assert_eq!(chosen(&select(&["blog"], &["shop.\"Mixed\""], false)), ["shop.Mixed", "blog.posts"]);
        assert_eq!(chosen(&select(&["blog"], &[], true)), ["blog.posts", "system.local", "system_schema.tables"]);
    }

    #[test]
    fn misspelt_names_are_refused_with_what_was_meant() {
        let error = select(&["shopp"], &[], false).check(&manifest()).unwrap_err();
        assert_eq!(error.message, "the backup holds no keyspace \"shopp\"");
        assert_eq!(error.hint.as_deref(), Some("did you mean shop?"));
        let error = select(&[], &["shop.mixed"], false).check(&manifest()).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean shop.Mixed?"));
        assert!(select(&[], &["orders"], false).check(&manifest()).unwrap_err().message.contains("no keyspace"));
        assert!(select(&["zzzzzz"], &[], false).check(&manifest()).unwrap_err().hint.unwrap().contains("manifest"));
    }

    #[test]
    fn system_keyspaces_must_be_asked_for_by_name() {
        assert!(
            select(&["system_schema"], &[], false).check(&manifest()).unwrap_err().message.contains("system keyspace")
        );
        assert!(select(&[], &["system.local"], false).check(&manifest()).is_err());
        assert!(select(&["system_schema"], &[], true).check(&manifest()).is_ok());
    }
}
