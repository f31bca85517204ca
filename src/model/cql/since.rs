//! What has changed in a schema since a backup so that values of the backup's files would be read wrongly or not at all. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reader, Subject, TableDefinition, Tokens, mentioned, statements, subject, table_definition, type_fields};
use super::{Token, without_id};

/// Keyspace and name.
type Name = (String, String);

/// The types of a schema, and the columns of its tables with their drop records.
#[derive(Debug, Default)]
pub struct Contents {
    types: BTreeMap<Name, Vec<(String, String)>>,
    tables: BTreeMap<Name, Table>,
}

#[derive(Debug, Default)]
struct Table {
    definition: TableDefinition,
    /// The schema names ids and drop records.
    has_internals: bool,
    dropped: BTreeMap<String, Dropped>,
}

/// What Cassandra keeps of a column that was dropped: it hides all values that were written before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dropped {
    /// When, as the statement says it.
    at: Option<String>,
    added_again: bool,
}

impl Contents {
    pub fn parse(schema: &str) -> Self {
        let mut all = Self::default();
        for statement in statements(schema) {
            match subject(statement) {
                Subject::Type(keyspace, name) => {
                    all.types.insert((keyspace, name), type_fields(statement).unwrap_or_default());
                }
                Subject::Table(keyspace, name) => {
                    if let Some(definition) = table_definition(statement) {
                        let table = all.tables.entry((keyspace, name)).or_default();
                        table.definition = definition;
                        table.has_internals = without_id(statement) != statement;
                    }
                }
                Subject::AlterTable(keyspace, name) => {
                    let table = all.tables.entry((keyspace, name)).or_default();
                    read_change(statement, &mut table.dropped);
                }
                _ => {}
            }
        }
        all
    }

    /// Types that a table of this schema uses, that `live` has as well, and whose fields were not only added to.
    pub fn changed_types(&self, live: &Self, keyspace: &str, table: &str) -> Vec<String> {
        let Some(table) = self.tables.get(&(keyspace.to_owned(), table.to_owned())) else { return Vec::new() };
        let mut words: BTreeSet<String> = table.definition.columns.values().flat_map(|of| mentioned(of)).collect();
        let mut seen = BTreeSet::new();
        let mut reasons = Vec::new();
        while let Some(word) = words.pop_first() {
            let name = (keyspace.to_owned(), word);
            let Some(old) = self.types.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            words.extend(old.iter().flat_map(|(_, of)| mentioned(of)));
            if live.types.get(&name).is_some_and(|now| !now.starts_with(old)) {
                reasons.push(format!("type {} has changed", name.1));
            }
        }
        reasons
    }

    /// Columns of a table of this schema whose values nobody could read under `live`.
    pub fn lost_columns(&self, live: &Self, keyspace: &str, table: &str) -> Vec<String> {
        let name = (keyspace.to_owned(), table.to_owned());
        let (Some(old), Some(now)) = (self.tables.get(&name), live.tables.get(&name)) else { return Vec::new() };
        let mut reasons = Vec::new();
        for (column, of_type) in &old.definition.columns {
            // Columns of the key cannot be dropped, but renamed.
            if old.definition.is_key(column) || !old.has_in_use(column) {
                continue;
            }
            if !now.has_in_use(column) {
                reasons.push(format!("column {column} {of_type} is not there any more"));
                continue;
            }
            let (before, since) = (old.dropped.get(column), now.dropped.get(column));
            let is_new = since.is_some_and(|since| before.is_none_or(|before| before.at != since.at));
            if is_new && old.has_internals {
                reasons.push(format!(
                    "column {column} was dropped and added again since, and Cassandra hides what was written before"
                ));
            }
        }
        reasons
    }
}

impl Table {
    fn has_in_use(&self, column: &str) -> bool {
        self.definition.columns.contains_key(column)
            && self.dropped.get(column).is_none_or(|dropped| dropped.added_again)
    }
}

/// Reads `ALTER TABLE … DROP column USING TIMESTAMP …` and `ALTER TABLE … ADD column …`, as DESCRIBE writes them.
fn read_change(statement: &str, dropped: &mut BTreeMap<String, Dropped>) -> Option<()> {
    let tokens: Vec<_> = Tokens::of(statement).map(|(token, _)| token).collect();
    let mut reader = Reader { tokens: &tokens, at: 2 };
    reader.qualified_name()?;
    let verb = reader.word()?;
    let column = reader.word()?;
    match verb.as_str() {
        "drop" => {
            let at = reader.skip_past("timestamp").and_then(|()| match reader.next()? {
                Token::Literal(at) => Some((*at).to_owned()),
                _ => None,
            });
            dropped.insert(column, Dropped { at, added_again: false });
        }
        "add" => dropped.get_mut(&column)?.added_again = true,
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE k.t (id int PRIMARY KEY, a frozen<\"my type\">, b text) WITH ID = 5-6;";
    const TYPES: &str = "CREATE TYPE k.inner (street text, no int); CREATE TYPE k.\"my type\" (i frozen<inner>);";

    fn lost(old: &str, live: &str) -> Vec<String> {
        Contents::parse(old).lost_columns(&Contents::parse(live), "k", "t")
    }

    #[test]
    fn types_with_other_fields_are_told_also_if_the_table_is_gone() {
        let backup = Contents::parse(&format!("{TYPES} {TABLE}"));
        let changed = |live: &str| backup.changed_types(&Contents::parse(live), "k", "t");
        assert_eq!(changed(""), Vec::<String>::new());
        assert_eq!(changed(TYPES), Vec::<String>::new());
        assert_eq!(changed(&TYPES.replace("no int)", "no int, zip text)")), Vec::<String>::new());
        assert_eq!(changed(&TYPES.replace("street text, no int", "no int, street text")), ["type inner has changed"]);
        assert_eq!(changed(&TYPES.replace("(i frozen<inner>)", "(i int)")), ["type my type has changed"]);
        // Those of other keyspaces do not matter.
        assert_eq!(changed("CREATE TYPE o.inner (a int);"), Vec::<String>::new());
    }

    #[test]
    fn columns_that_were_dropped_since_are_lost() {
        assert_eq!(lost(TABLE, TABLE), Vec::<String>::new());
        let dropped = format!("{TABLE} ALTER TABLE k.t DROP b USING TIMESTAMP 7;");
        assert_eq!(lost(TABLE, &dropped), ["column b text is not there any more"]);
        // DESCRIBE of an older Cassandra does not list them.
        assert_eq!(lost(TABLE, &TABLE.replace(", b text", "")), ["column b text is not there any more"]);
        // Dropped before the backup already.
        assert_eq!(lost(&dropped, &dropped), Vec::<String>::new());
        let renamed = TABLE.replace("id int", "key int");
        assert_eq!(lost(TABLE, &renamed), Vec::<String>::new());
    }

    #[test]
    fn a_column_that_was_added_again_hides_its_old_values() {
        let again = format!("{TABLE} ALTER TABLE k.t DROP b USING TIMESTAMP 7; ALTER TABLE k.t ADD b text;");
        let reason = "column b was dropped and added again since, and Cassandra hides what was written before";
        assert_eq!(lost(TABLE, &again), [reason]);
        assert_eq!(lost(&again, &again), Vec::<String>::new());
        assert_eq!(lost(&again, &again.replace('7', "9")), [reason]);
        // What cassandra-medusa stored does not say what was dropped before.
        assert_eq!(lost(&TABLE.replace(" WITH ID = 5-6", ""), &again), Vec::<String>::new());
    }
}
