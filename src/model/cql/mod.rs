//! CQL as far as a backup must understand it: where statements end, what they create, and what a table looks like.

mod create;
mod since;
mod tokens;

use std::collections::BTreeMap;

use self::create::routine;
pub use self::create::{
    is_storage_attached, map_literal, mentioned, replication, replication_text, with_replication, without_id,
};
pub use self::since::Contents;
use self::tokens::{Reader, Token, Tokens};

/// The statements of a text, each with its semicolon and without the white space around it.
pub fn statements(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    for (token, end) in Tokens::of(text) {
        if token == Token::Symbol(';') {
            statements.push(text[start..end].trim());
            start = end;
        }
    }
    let rest = &text[start..];
    if Tokens::of(rest).next().is_some() {
        statements.push(rest.trim());
    }
    statements
}

/// What a statement of a schema is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Keyspace(String),
    Type(String, String),
    Table(String, String),
    /// The table on which the index is.
    Index(String, String),
    /// The view's keyspace and name, and its base table.
    View {
        keyspace: String,
        view: String,
        base: String,
    },
    /// A change of a table, such as a dropped column.
    AlterTable(String, String),
    /// A function or an aggregate.
    Routine(Routine),
    /// Whatever else there is.
    Other,
}

/// A function or an aggregate: several may have the same name and other arguments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Routine {
    pub keyspace: String,
    pub name: String,
    /// Types of the arguments, as one text without white space.
    pub arguments: String,
    pub is_aggregate: bool,
}

/// What the statement creates or changes.
pub fn subject(statement: &str) -> Subject {
    let tokens: Vec<_> = Tokens::of(statement).map(|(token, _)| token).collect();
    read_subject(&mut Reader { tokens: &tokens, at: 0 }).unwrap_or(Subject::Other)
}

fn read_subject(reader: &mut Reader<'_, '_>) -> Option<Subject> {
    let creates = match reader.word()?.as_str() {
        "create" => true,
        "alter" => false,
        _ => return None,
    };
    let mut kind = reader.word()?;
    if kind == "or" {
        kind = reader.word().filter(|word| word == "replace").and_then(|_| reader.word())?;
    }
    if !creates {
        let (keyspace, table) = (kind == "table").then(|| reader.qualified_name()).flatten()?;
        return Some(Subject::AlterTable(keyspace, table));
    }
    match kind.as_str() {
        "keyspace" => {
            reader.skip_if_not_exists();
            reader.word().map(Subject::Keyspace)
        }
        "type" => {
            reader.skip_if_not_exists();
            reader.qualified_name().map(|(keyspace, name)| Subject::Type(keyspace, name))
        }
        "table" | "columnfamily" => {
            reader.skip_if_not_exists();
            reader.qualified_name().map(|(keyspace, name)| Subject::Table(keyspace, name))
        }
        "index" | "custom" => {
            reader.skip_past("on")?;
            reader.qualified_name().map(|(keyspace, name)| Subject::Index(keyspace, name))
        }
        "materialized" => {
            reader.word().filter(|word| word == "view")?;
            reader.skip_if_not_exists();
            let (keyspace, view) = reader.qualified_name()?;
            reader.skip_past("from")?;
            let (_, base) = reader.qualified_name()?;
            Some(Subject::View { keyspace, view, base })
        }
        "function" | "aggregate" => routine(reader, kind == "aggregate").map(Subject::Routine),
        _ => None,
    }
}

/// The name of the index that a statement creates, and what its files hold: two indexes with the same text are alike.
pub fn index(statement: &str) -> Option<(String, String)> {
    let tokens: Vec<_> = Tokens::of(statement).map(|(token, _)| token).collect();
    let mut reader = Reader { tokens: &tokens, at: 0 };
    reader.word().filter(|word| word == "create")?;
    let kind = reader.word().filter(|word| word == "index" || word == "custom")?;
    if kind == "custom" {
        reader.word().filter(|word| word == "index")?;
    }
    reader.skip_if_not_exists();
    let name = reader.word()?;
    reader.skip_past("on")?;
    reader.qualified_name()?;
    reader.symbol('(')?;
    let mut content = format!("{kind} on {}", reader.text_in_parentheses());
    // {'case_sensitive': 'false', …}: names and values, in any order.
    let options = tokens[reader.at..].iter().skip_while(|token| **token != Token::Word("options".into()));
    let words: Vec<_> =
        options.filter_map(|token| if let Token::Literal(word) = token { Some(*word) } else { None }).collect();
    let mut options: Vec<_> = words.chunks(2).map(|pair| pair.join(": ")).collect();
    options.sort_unstable();
    if !options.is_empty() {
        content += &format!(" with {}", options.join(", "));
    }
    Some((name, content))
}

/// The columns of a table or the fields of a type, as a statement declares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDefinition {
    /// Type by column name, `int` or `frozen<map<text,int>>`.
    pub columns: BTreeMap<String, String>,
    pub static_columns: Vec<String>,
    pub partition_key: Vec<String>,
    pub clustering_key: Vec<String>,
    /// Of the clustering key, those in descending order.
    pub descending: Vec<String>,
}

/// Reads a CREATE TABLE. `None` for other statements.
pub fn table_definition(statement: &str) -> Option<TableDefinition> {
    let tokens: Vec<_> = Tokens::of(statement).map(|(token, _)| token).collect();
    let mut reader = Reader { tokens: &tokens, at: 0 };
    reader.word().filter(|word| word == "create")?;
    reader.word().filter(|word| word == "table" || word == "columnfamily")?;
    reader.skip_if_not_exists();
    reader.qualified_name()?;
    reader.symbol('(')?;
    let mut table = TableDefinition::default();
    loop {
        if reader.is_word("primary") && matches!(tokens.get(reader.at + 2), Some(Token::Symbol('('))) {
            reader.at += 2;
            read_primary_key(&mut reader, &mut table)?;
        } else {
            let column = reader.word()?;
            let of_type = reader.type_text();
            loop {
                if reader.is_word("static") {
                    reader.at += 1;
                    table.static_columns.push(column.clone());
                } else if reader.is_word("primary") {
                    reader.at += 2;
                    table.partition_key.push(column.clone());
                } else if reader.is_word("masked") {
                    reader.skip_mask();
                } else {
                    break;
                }
            }
            table.columns.insert(column, of_type);
        }
        if reader.symbol(',').is_none() {
            break;
        }
    }
    reader.symbol(')')?;
    while let Some(token) = reader.next() {
        if *token == Token::Word("clustering".into()) && reader.is_word("order") {
            reader.skip_past("by")?;
            read_clustering_order(&mut reader, &mut table)?;
        }
    }
    Some(table)
}

fn read_primary_key(reader: &mut Reader<'_, '_>, table: &mut TableDefinition) -> Option<()> {
    reader.symbol('(')?;
    if reader.symbol('(').is_some() {
        loop {
            table.partition_key.push(reader.word()?);
            if reader.symbol(',').is_none() {
                break;
            }
        }
        reader.symbol(')')?;
    } else {
        table.partition_key.push(reader.word()?);
    }
    while reader.symbol(',').is_some() {
        table.clustering_key.push(reader.word()?);
    }
    reader.symbol(')')
}

fn read_clustering_order(reader: &mut Reader<'_, '_>, table: &mut TableDefinition) -> Option<()> {
    reader.symbol('(')?;
    loop {
        let column = reader.word()?;
        if reader.word()? == "desc" {
            table.descending.push(column);
        }
        if reader.symbol(',').is_none() {
            break;
        }
    }
    reader.symbol(')')
}

impl TableDefinition {
    /// Why SSTables that were written with this definition cannot be read with `live`. Columns that were added since do no
    /// harm.
    pub fn unreadable_with(&self, live: &Self) -> Vec<String> {
        let mut reasons = Vec::new();
        if (&self.partition_key, &self.clustering_key) != (&live.partition_key, &live.clustering_key) {
            reasons.push(format!("the primary key was {}, and is {}", self.primary_key(), live.primary_key()));
        }
        if self.descending != live.descending {
            reasons.push("the clustering order is another one".to_owned());
        }
        for (column, of_type) in &self.columns {
            match live.columns.get(column) {
                None => reasons.push(format!("column {column} {of_type} is not there any more")),
                Some(live) if live != of_type => reasons.push(format!("column {column} was {of_type}, and is {live}")),
                Some(_) if self.static_columns.contains(column) != live.static_columns.contains(column) => {
                    reasons.push(format!("column {column} is static on one side only"));
                }
                Some(_) => {}
            }
        }
        reasons
    }

    fn is_key(&self, column: &str) -> bool {
        self.partition_key.iter().chain(&self.clustering_key).any(|key| key == column)
    }

    fn primary_key(&self) -> String {
        let partition = self.partition_key.join(", ");
        let clustering = self.clustering_key.iter().map(|column| format!(", {column}"));
        format!("(({partition}){})", clustering.collect::<String>())
    }
}

/// The fields of a CREATE TYPE, in order. `None` for other statements.
pub fn type_fields(statement: &str) -> Option<Vec<(String, String)>> {
    let tokens: Vec<_> = Tokens::of(statement).map(|(token, _)| token).collect();
    let mut reader = Reader { tokens: &tokens, at: 0 };
    reader.word().filter(|word| word == "create")?;
    reader.word().filter(|word| word == "type")?;
    reader.skip_if_not_exists();
    reader.qualified_name()?;
    reader.symbol('(')?;
    let mut fields = Vec::new();
    loop {
        let field = reader.word()?;
        fields.push((field, reader.type_text()));
        if reader.symbol(',').is_none() {
            return reader.symbol(')').map(|()| fields);
        }
    }
}

/// The statement with white space and case of keywords levelled, for comparing two of them.
pub fn normalized(statement: &str) -> String {
    let word = |(token, _): (Token<'_>, usize)| match token {
        Token::Word(word) => word,
        Token::Literal(literal) => literal.to_owned(),
        Token::Symbol(symbol) => symbol.to_string(),
    };
    Tokens::of(statement).map(word).collect::<Vec<_>>().join(" ")
}

/// An identifier as CQL needs it: in quotes unless it is lower case.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_names_bodies_and_comments_end_nothing() {
        let text = "CREATE TABLE a.b (c text) WITH comment = 'x; ''y'';';\n-- no; end\nCREATE TABLE \"A;\".\"b\"\"c;\" (d int);\n\
                    CREATE FUNCTION a.f (x int) RETURNS int LANGUAGE java AS $$ return x; $$;/* ; */ // ;\nCREATE TYPE a.t (x int)";
        let found = statements(text);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found[1].ends_with("(d int);") && found[2].ends_with("$$;") && found[3].ends_with("(x int)"));
        assert_eq!(statements(" ;; "), [";", ";"]);
        assert_eq!(statements("-- nothing\n"), Vec::<&str>::new());
    }

    #[test]
    fn quotes_and_comments_end_where_cassandra_ends_them() {
        for (text, count) in [
            ("/*/ ; */ a;", 1),
            ("/**/ a; b", 2),
            ("/* ' */ a; -- '\nb; // $$\nc;", 3),
            ("a '--'; b '//'; c '/*'; d '$$';", 4),
            ("a $$ ' -- $ /* ; $$; b", 2),
            ("a \"--\"\"\"; b", 2),
            ("a ''; b ; c ;", 3),
            ("a 'never closed; b", 1),
            ("a /* never closed; b", 1),
            ("a $$ never closed; b", 1),
            ("a -- never closed; b", 1),
        ] {
            assert_eq!(statements(text).len(), count, "{text}: {:#?}", statements(text));
        }
        let name = |statement| subject(statement);
        assert_eq!(name("CREATE KEYSPACE \"a\"\"\";"), Subject::Keyspace("a\"".to_owned()));
        assert_eq!(name("CREATE KEYSPACE \"\"\"a\";"), Subject::Keyspace("\"a".to_owned()));
        assert_eq!(name("CREATE /* TABLE */ KEYSPACE -- x\n a;"), Subject::Keyspace("a".to_owned()));
    }

    #[test]
    fn masks_of_columns_hide_nothing() {
        let plain = table_definition(
            "CREATE TABLE k.t (id int, s text static, a text, b frozen<map<text, int>>, PRIMARY KEY (id, a))",
        );
        let masked = table_definition(
            "CREATE TABLE k.t (id int MASKED WITH DEFAULT, s text static MASKED WITH system.mask_inner(1, null), \
             a text MASKED WITH k.\"f\"((int) 5, ')'), b frozen<map<text, int>> MASKED WITH mask_null(), PRIMARY KEY (id, a))",
        );
        assert!(plain.is_some());
        assert_eq!(masked, plain);
        let short =
            table_definition("CREATE TABLE k.t (id int MASKED WITH mask_hash('x') PRIMARY KEY, v masked)").unwrap();
        assert_eq!((short.partition_key.as_slice(), &*short.columns["v"]), (&["id".to_owned()][..], "masked"));
    }

    #[test]
    fn types_keep_the_quotes_that_their_names_need() {
        let table = table_definition("CREATE TABLE k.t (id int PRIMARY KEY, v list<frozen<\"my type\">>)").unwrap();
        assert_eq!(table.columns["v"], "list<frozen<\"my type\">>");
        assert!(mentioned(&table.columns["v"]).contains("my type"));
    }

    #[test]
    fn subjects_are_told_with_their_exact_names() {
        let name = |text: &str| text.to_owned();
        for (statement, expected) in [
            ("CREATE KEYSPACE Shop WITH x = 1;", Subject::Keyspace(name("shop"))),
            ("CREATE KEYSPACE IF NOT EXISTS \"Shop\" WITH x = 1;", Subject::Keyspace(name("Shop"))),
            ("CREATE TYPE shop.addr (a int);", Subject::Type(name("shop"), name("addr"))),
            ("CREATE TABLE shop.\"Mixed\" (a int PRIMARY KEY);", Subject::Table(name("shop"), name("Mixed"))),
            ("CREATE INDEX i ON shop.orders (name);", Subject::Index(name("shop"), name("orders"))),
            ("CREATE CUSTOM INDEX i ON shop.orders (v) USING 'sai';", Subject::Index(name("shop"), name("orders"))),
            (
                "CREATE MATERIALIZED VIEW shop.mv AS SELECT * FROM shop.orders WHERE a IS NOT NULL PRIMARY KEY (a);",
                Subject::View { keyspace: name("shop"), view: name("mv"), base: name("orders") },
            ),
            ("ALTER TABLE shop.orders DROP gone USING TIMESTAMP 5;", Subject::AlterTable(name("shop"), name("orders"))),
            ("DROP TABLE shop.orders;", Subject::Other),
            ("", Subject::Other),
        ] {
            assert_eq!(subject(statement), expected, "{statement}");
        }
    }

    #[test]
    fn a_table_is_read_in_the_forms_of_server_and_driver() {
        let server = "CREATE TABLE shop.t (\n    a int,\n    b text,\n    \"C\" frozen<map<text, int>>,\n    s int static,\n    PRIMARY KEY ((a, b), \"C\")\n) WITH CLUSTERING ORDER BY (\"C\" DESC)\n    AND comment = 'primary (';";
        let table = table_definition(server).unwrap();
        assert_eq!(table.partition_key, ["a", "b"]);
        assert_eq!(
            (table.clustering_key.as_slice(), table.descending.as_slice()),
            (&["C".to_owned()][..], &["C".to_owned()][..])
        );
        assert_eq!(table.columns["C"], "frozen<map<text,int>>");
        assert_eq!(table.static_columns, ["s"]);

        let short =
            table_definition("CREATE TABLE shop.t (id int PRIMARY KEY, v vector<float, 3>) WITH ID = 5;").unwrap();
        assert_eq!(
            (short.partition_key.as_slice(), short.columns["v"].as_str()),
            (&["id".to_owned()][..], "vector<float,3>")
        );
        assert_eq!(table_definition("CREATE TYPE a.b (c int);"), None);
        assert_eq!(table_definition("CREATE TABLE a.b (c"), None);
    }

    #[test]
    fn reasons_say_why_files_would_not_be_readable() {
        let table = |columns: &str| table_definition(&format!("CREATE TABLE k.t ({columns});")).unwrap();
        let old = table("id int PRIMARY KEY, a text, b int");
        assert_eq!(old.unreadable_with(&table("id int PRIMARY KEY, a text, b int, new int")), Vec::<String>::new());
        assert_eq!(old.unreadable_with(&table("id int PRIMARY KEY, b int")), ["column a text is not there any more"]);
        assert_eq!(
            old.unreadable_with(&table("id int PRIMARY KEY, a blob, b int")),
            ["column a was text, and is blob"]
        );
        let other_key = old.unreadable_with(&table("id int, a text, b int, PRIMARY KEY (id, b)"));
        assert_eq!(other_key, ["the primary key was ((id)), and is ((id), b)"]);
    }

    #[test]
    fn indexes_are_alike_if_they_hold_the_same() {
        let held = |statement: &str| index(statement).unwrap();
        let plain = held("CREATE INDEX orders_name ON shop.orders (name);");
        assert_eq!(plain, ("orders_name".to_owned(), "index on name".to_owned()));
        let options =
            held("CREATE CUSTOM INDEX \"S\" ON shop.o (values(\"M\")) USING 'sai' WITH OPTIONS = {'a': '(b)'};");
        assert_eq!(options, ("S".to_owned(), "custom on values(M) with 'a': '(b)'".to_owned()));
        let other =
            |options: &str| held(&format!("CREATE CUSTOM INDEX s ON a.b (c) USING 'sai' WITH OPTIONS = {options}"));
        let one = other("{'case_sensitive': 'false', 'normalize': 'true'}");
        assert_eq!(one, other("{'normalize':'true','case_sensitive':'false'}"));
        assert_ne!(one, other("{'case_sensitive': 'true', 'normalize': 'true'}"));
        assert_eq!(held("create index if not exists s on shop.o (a)").1, "index on a");
        assert_eq!((index("CREATE TABLE a.b (c int)"), index("CREATE INDEX x ON y")), (None, None));
    }

    #[test]
    fn type_fields_come_in_order() {
        let fields = type_fields("CREATE TYPE shop.addr (\n    street text,\n    no int\n);").unwrap();
        assert_eq!(fields, [("street".to_owned(), "text".to_owned()), ("no".to_owned(), "int".to_owned())]);
    }

    #[test]
    fn names_are_quoted_only_where_they_must_be() {
        assert_eq!(
            (quoted("orders_1").as_str(), quoted("Mixed").as_str(), quoted("1a").as_str()),
            ("orders_1", "\"Mixed\"", "\"1a\"")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-cA-C \n'\"$;().,<>/*é-]{0,60}|CREATE (TABLE|INDEX a ON) [a-c.\"(), <>]{0,40}|CREATE TABLE a.b \\((c int|static|masked|with|primary|key|[a-c.\"(), <>]){0,20}") {
            let _ = (statements(&text), subject(&text), table_definition(&text), type_fields(&text));
            let _ = (index(&text), normalized(&text));
        }

        #[test]
        fn statements_lose_nothing(text in "[a-c ;'\"\n]{0,60}") {
            let joined: String = statements(&text).concat();
            let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            proptest::prop_assert_eq!(squeeze(&joined), squeeze(&text));
        }
    }
}
