//! Whether a backed-up table fits the schema that the node has now, and what creates a table that is gone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cql::{self, Subject, TableDefinition};
use crate::model::names::TableFolder;

/// A schema by what its statements are about.
#[derive(Debug, Default)]
pub struct Statements<'a> {
    keyspaces: BTreeMap<String, &'a str>,
    /// In the order of the text: a type comes after those that it uses.
    types: Vec<((String, String), &'a str)>,
    tables: BTreeMap<(String, String), &'a str>,
    /// Indexes and changes, by table.
    companions: BTreeMap<(String, String), Vec<&'a str>>,
    /// View, its base table, and the statement.
    views: BTreeMap<(String, String), (String, &'a str)>,
}

impl<'a> Statements<'a> {
    pub fn parse(schema: &'a str) -> Self {
        let mut all = Self::default();
        for statement in cql::statements(schema) {
            match cql::subject(statement) {
                Subject::Keyspace(name) => drop(all.keyspaces.insert(name, statement)),
                Subject::Type(keyspace, name) => all.types.push(((keyspace, name), statement)),
                Subject::Table(keyspace, name) => drop(all.tables.insert((keyspace, name), statement)),
                Subject::Index(keyspace, table) | Subject::AlterTable(keyspace, table) => {
                    all.companions.entry((keyspace, table)).or_default().push(statement);
                }
                Subject::View { keyspace, view, base } => drop(all.views.insert((keyspace, view), (base, statement))),
                Subject::Routine(_) | Subject::Other => {}
            }
        }
        all
    }

    fn table(&self, table: &TableFolder) -> Option<&'a str> {
        self.tables.get(&key(table)).copied()
    }

    /// The views of a table.
    pub fn views_of(&self, table: &TableFolder) -> BTreeSet<String> {
        let of_table =
            self.views.iter().filter(|((keyspace, _), (base, _))| *keyspace == table.keyspace && base == table.table());
        of_table.map(|((_, view), _)| view.clone()).collect()
    }

    /// The table whose rows a view holds. `None`: it is no view.
    pub fn base_of(&self, table: &TableFolder) -> Option<&str> {
        self.views.get(&key(table)).map(|(base, _)| base.as_str())
    }

    /// What the indexes of a table hold, by name.
    fn indexes_of(&self, table: &TableFolder) -> BTreeMap<String, String> {
        self.companions.get(&key(table)).into_iter().flatten().filter_map(|statement| cql::index(statement)).collect()
    }

    /// Indexes that the table has under `live` only. The restored files hold nothing of them.
    pub fn new_indexes(&self, live: &Statements<'_>, table: &TableFolder) -> Vec<String> {
        let old = self.indexes_of(table);
        live.indexes_of(table).into_keys().filter(|name| !old.contains_key(name)).collect()
    }

    /// What the node has made of the table's rows since and would answer from, beside the old ones.
    pub fn in_the_way(&self, live: &Statements<'_>, table: &TableFolder) -> Vec<String> {
        let old = self.indexes_of(table);
        let now = live.indexes_of(table);
        let changed = now.iter().filter(|(name, now)| old.get(*name).is_some_and(|old| old != *now));
        let mut reasons: Vec<_> =
            changed.map(|(name, _)| format!("index {name} is another one now: drop it first")).collect();
        let new_views = live.views_of(table).into_iter().filter(|view| !self.views_of(table).contains(view));
        reasons.extend(new_views.map(|view| {
            format!("the view {}.{view} was created since and would keep its rows: drop it first", table.keyspace)
        }));
        reasons
    }

    /// Why the files of a table that was written under this schema cannot be read under `live`. Empty: they can.
    pub fn unreadable_with(&self, live: &Statements<'_>, table: &TableFolder) -> Vec<String> {
        if let Some((_, view)) = self.views.get(&key(table)) {
            let same = live.views.get(&key(table)).is_some_and(|(_, live)| view_body(view) == view_body(live));
            return if same { Vec::new() } else { vec!["the view is defined differently now".to_owned()] };
        }
        let definition = |statement: Option<&str>| statement.and_then(cql::table_definition);
        let Some(old) = definition(self.table(table)) else {
            return vec!["the backup's schema does not describe the table".to_owned()];
        };
        let Some(now) = definition(live.table(table)) else {
            return vec!["the node's schema does not describe the table".to_owned()];
        };
        let mut reasons = old.unreadable_with(&now);
        reasons.extend(self.changed_types(live, &table.keyspace, &old));
        reasons
    }

    /// Types that the table uses and whose fields were not only added to.
    fn changed_types(&self, live: &Statements<'_>, keyspace: &str, table: &TableDefinition) -> Vec<String> {
        let mut reasons = Vec::new();
        for name in self.used_types(keyspace, table) {
            let fields = |statements: &Statements<'_>| {
                let wanted = (keyspace.to_owned(), name.clone());
                let found = statements.types.iter().find(|(type_name, _)| *type_name == wanted);
                found.and_then(|(_, statement)| cql::type_fields(statement)).unwrap_or_default()
            };
            let (old, now) = (fields(self), fields(live));
            if !now.starts_with(&old) {
                reasons.push(format!("type {name} has changed"));
            }
        }
        reasons
    }

    /// Types of the keyspace that the table's columns name, and those that these name.
    fn used_types(&self, keyspace: &str, table: &TableDefinition) -> BTreeSet<String> {
        let of_keyspace: BTreeMap<&str, &str> = self
            .types
            .iter()
            .filter(|((of, _), _)| of == keyspace)
            .map(|((_, name), statement)| (name.as_str(), *statement))
            .collect();
        let mut used = BTreeSet::new();
        let mut texts: Vec<String> = table.columns.values().cloned().collect();
        while let Some(text) = texts.pop() {
            for word in cql::mentioned(&text) {
                if let Some(statement) = of_keyspace.get(word.as_str())
                    && used.insert(word)
                {
                    texts.extend(
                        cql::type_fields(statement).unwrap_or_default().into_iter().map(|(_, of_type)| of_type),
                    );
                }
            }
        }
        used
    }

    /// The statements that create a table that is gone, with everything it needs that is gone, too. `None`: this schema
    /// does not say the table's id, so that the files would not be found.
    pub fn creating(&self, live: &Statements<'_>, table: &TableFolder) -> Option<Vec<String>> {
        let id = cql::normalized(&dashed(table.id()?));
        if let Some((_, view)) = self.views.get(&key(table)) {
            return cql::normalized(view).contains(&id).then(|| vec![(*view).to_owned()]);
        }
        let create = self.table(table)?;
        let mut statements = Vec::new();
        if !live.keyspaces.contains_key(&table.keyspace) {
            statements.push((*self.keyspaces.get(&table.keyspace)?).to_owned());
        }
        let used = self.used_types(&table.keyspace, &cql::table_definition(create)?);
        let is_new = |name: &(String, String)| !live.types.iter().any(|(known, _)| known == name);
        let types =
            self.types.iter().filter(|(name, _)| name.0 == table.keyspace && used.contains(&name.1) && is_new(name));
        statements.extend(types.map(|(_, statement)| (*statement).to_owned()));
        // The statement may lack the id (a schema of Medusa) or have that of a later table of the same name.
        if !cql::normalized(create).contains(&id) {
            return None;
        }
        statements.push(create.to_owned());
        statements
            .extend(self.companions.get(&key(table)).into_iter().flatten().map(|statement| (*statement).to_owned()));
        Some(statements)
    }

    /// Whether the table with the id of this folder is the one that is described.
    pub fn has_id_of(&self, table: &TableFolder) -> bool {
        let id = table.id().map(|id| cql::normalized(&dashed(id)));
        id.zip(self.table(table)).is_some_and(|(id, statement)| cql::normalized(statement).contains(&id))
    }

    /// The same for a person to run, with the id from the folder's name.
    pub fn for_a_person(&self, table: &TableFolder) -> Vec<String> {
        let view = self.views.get(&key(table)).map(|(_, statement)| *statement);
        let create = self.table(table).or(view).map(|statement| with_id(statement, table));
        let companions =
            self.companions.get(&key(table)).into_iter().flatten().map(|statement| (*statement).to_owned());
        create.into_iter().chain(companions).collect()
    }
}

fn key(table: &TableFolder) -> (String, String) {
    (table.keyspace.clone(), table.table().to_owned())
}

/// What a view selects: the statement up to its options, which may differ.
fn view_body(statement: &str) -> String {
    let normalized = cql::normalized(statement);
    normalized.split(" with ").next().unwrap_or_default().to_owned()
}

/// A table id as CQL writes it.
fn dashed(id: &str) -> String {
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn with_id(statement: &str, table: &TableFolder) -> String {
    match (table.id(), statement.find(" WITH ")) {
        (Some(id), Some(at)) if !statement.contains(&dashed(id)) => {
            format!("{} WITH ID = {} AND {}", &statement[..at], dashed(id), &statement[at + " WITH ".len()..])
        }
        _ => statement.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3dccf260e59711f199fcf93f14538dd2";
    const SCHEMA: &str = "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy'} AND durable_writes = true;\n\n\
        CREATE TYPE shop.street (name text, no int);\n\nCREATE TYPE shop.addr (street frozen<street>, city text);\n\nCREATE TYPE shop.other (a int);\n\n\
        CREATE TABLE shop.orders (\n    id int PRIMARY KEY,\n    a frozen<addr>,\n    name text\n) WITH ID = 3dccf260-e597-11f1-99fc-f93f14538dd2\n    AND comment = '';\n\
        ALTER TABLE shop.orders DROP gone USING TIMESTAMP 1;\n\nCREATE INDEX orders_name ON shop.orders (name);\n\n\
        CREATE MATERIALIZED VIEW shop.mv AS\n    SELECT *\n    FROM shop.orders\n    WHERE name IS NOT NULL\n    PRIMARY KEY (name, id)\n WITH ID = 5;";

    fn orders() -> TableFolder {
        TableFolder::new("shop", &format!("orders-{ID}")).unwrap()
    }

    #[test]
    fn a_table_that_is_gone_is_created_with_all_it_needs() {
        let backup = Statements::parse(SCHEMA);
        let all = backup.creating(&Statements::default(), &orders()).unwrap();
        let begin: Vec<_> =
            all.iter().map(|statement| statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            begin,
            [
                "CREATE KEYSPACE shop",
                "CREATE TYPE shop.street",
                "CREATE TYPE shop.addr",
                "CREATE TABLE shop.orders",
                "ALTER TABLE shop.orders",
                "CREATE INDEX orders_name"
            ]
        );
        let live = "CREATE KEYSPACE shop WITH x = 1; CREATE TYPE shop.street (name text, no int);";
        let rest = backup.creating(&Statements::parse(live), &orders()).unwrap();
        assert!(rest[0].starts_with("CREATE TYPE shop.addr") && rest[1].starts_with("CREATE TABLE shop.orders"));
        let other_id = TableFolder::new("shop", "orders-00000000e59711f199fcf93f14538dd2").unwrap();
        assert_eq!(backup.creating(&Statements::default(), &other_id), None);
    }

    #[test]
    fn types_are_found_by_whatever_names_they_have() {
        let names = [("street", "\"my street\""), ("addr", "\"Addr-1\""), ("other", "\"a\"\"b\"")];
        let schema = names.iter().fold(SCHEMA.to_owned(), |schema, (plain, quoted)| {
            let in_types = schema.replace(&format!("shop.{plain} "), &format!("shop.{quoted} "));
            in_types.replace(&format!("frozen<{plain}>"), &format!("frozen<{quoted}>"))
        });
        let backup = Statements::parse(&schema);
        let all = backup.creating(&Statements::default(), &orders()).unwrap();
        let types: Vec<_> = all.iter().filter_map(|statement| statement.strip_prefix("CREATE TYPE shop.")).collect();
        let names: Vec<_> = types.iter().map(|text| text.split(" (").next().unwrap()).collect();
        assert_eq!(names, ["\"my street\"", "\"Addr-1\""]);
        let changed = schema.replace("no int)", "no text)");
        let reasons = backup.unreadable_with(&Statements::parse(&changed), &orders());
        assert_eq!(reasons, ["type my street has changed"]);
    }

    #[test]
    fn what_medusa_stored_is_shown_with_the_id_of_the_folder() {
        let medusa = SCHEMA.replace("ID = 3dccf260-e597-11f1-99fc-f93f14538dd2\n    AND ", "");
        let backup = Statements::parse(&medusa);
        assert_eq!(backup.creating(&Statements::default(), &orders()), None);
        let shown = backup.for_a_person(&orders());
        assert!(shown[0].contains("WITH ID = 3dccf260-e597-11f1-99fc-f93f14538dd2 AND comment"), "{shown:?}");
    }

    #[test]
    fn a_changed_type_or_view_is_a_reason() {
        let backup = Statements::parse(SCHEMA);
        assert_eq!(backup.unreadable_with(&Statements::parse(SCHEMA), &orders()), Vec::<String>::new());
        let longer = SCHEMA.replace("no int)", "no int, zip text)");
        assert_eq!(backup.unreadable_with(&Statements::parse(&longer), &orders()), Vec::<String>::new());
        let changed = SCHEMA.replace("no int)", "no text)");
        assert_eq!(backup.unreadable_with(&Statements::parse(&changed), &orders()), ["type street has changed"]);
        let view = TableFolder::new("shop", &format!("mv-{ID}")).unwrap();
        let other_id = SCHEMA.replace("ID = 5", "ID = 6");
        assert_eq!(backup.unreadable_with(&Statements::parse(&other_id), &view), Vec::<String>::new());
        let other_key = SCHEMA.replace("PRIMARY KEY (name, id)", "PRIMARY KEY (id, name)");
        assert_eq!(backup.unreadable_with(&Statements::parse(&other_key), &view).len(), 1);
        assert_eq!(backup.views_of(&orders()), BTreeSet::from(["mv".to_owned()]));
    }

    #[test]
    fn what_was_created_since_is_built_again_or_in_the_way() {
        let now = Statements::parse(SCHEMA);
        assert_eq!((now.in_the_way(&now, &orders()), now.new_indexes(&now, &orders())), (vec![], vec![]));
        let old = SCHEMA.replace("CREATE MATERIALIZED", "CREATE NO").replace("CREATE INDEX", "CREATE NO");
        let old = Statements::parse(&old);
        let view = "the view shop.mv was created since and would keep its rows: drop it first";
        assert_eq!(old.in_the_way(&now, &orders()), [view]);
        assert_eq!(old.new_indexes(&now, &orders()), ["orders_name"]);
        let other = SCHEMA.replace("orders (name)", "orders (a)");
        let other = Statements::parse(&other);
        assert_eq!(other.in_the_way(&now, &orders()), ["index orders_name is another one now: drop it first"]);
        let view = TableFolder::new("shop", "mv-00000000000000000000000000000005").unwrap();
        assert_eq!((now.base_of(&view), now.base_of(&orders())), (Some("orders"), None));
    }
}
