//! What creating a schema again needs to know of its statements: routines, replication, table ids, names that are used.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reader, Routine, Token, Tokens};

/// Reads a CREATE FUNCTION or CREATE AGGREGATE from its name up to its arguments.
pub(super) fn routine(reader: &mut Reader<'_, '_>, is_aggregate: bool) -> Option<Routine> {
    reader.skip_if_not_exists();
    let (keyspace, name) = reader.qualified_name()?;
    reader.symbol('(')?;
    let mut arguments = Vec::new();
    while reader.peek()? != &Token::Symbol(')') {
        if !is_aggregate {
            reader.word()?;
        }
        arguments.push(reader.type_text());
        if reader.symbol(',').is_none() {
            break;
        }
    }
    reader.symbol(')')?;
    Some(Routine { keyspace, name, arguments: arguments.join(","), is_aggregate })
}

/// Every name and keyword of a statement; not what stands in strings, function bodies and comments.
pub fn mentioned(statement: &str) -> BTreeSet<String> {
    let word = |(token, _)| match token {
        Token::Word(word) => Some(word),
        _ => None,
    };
    Tokens::of(statement).filter_map(word).collect()
}

/// Whether a CREATE INDEX makes a storage-attached index (SAI), whose files belong to the SSTables of the table.
pub fn is_storage_attached(statement: &str) -> bool {
    let mut tokens = Tokens::of(statement).map(|(token, _)| token);
    if !tokens.any(|token| token == Token::Word("using".into())) {
        return false;
    }
    let Some(Token::Literal(class)) = tokens.next() else { return false };
    let class = class.trim_matches('\'').to_lowercase();
    class == "sai" || class.ends_with("storageattachedindex")
}

/// The statement without `ID = …` among its options: the table gets a new id.
pub fn without_id(statement: &str) -> String {
    let tokens: Vec<_> = Tokens::of(statement).collect();
    let is = |at: usize, word: &str| matches!(tokens.get(at), Some((Token::Word(found), _)) if found == word);
    let equals = |at: usize| matches!(tokens.get(at), Some((Token::Symbol('='), _)));
    let begins = |at: usize| (is(at, "with") || is(at, "and")) && is(at + 1, "id") && equals(at + 2);
    // A view may have a column of that name, in its WHERE.
    let options = (0..tokens.len()).rfind(|at| is(*at, "with")).unwrap_or_default();
    let Some(at) = (options..tokens.len()).find(|at| begins(*at)) else { return statement.to_owned() };
    let ends = |at: &usize| is(*at, "and") || matches!(tokens[*at].0, Token::Symbol(';'));
    let next = (at + 3..tokens.len()).find(ends);
    // Where the word before the option ends, and where the option does.
    let before = if at == 0 { 0 } else { tokens[at - 1].1 };
    match next {
        Some(next) if is(next, "and") => {
            let kept = if is(at, "with") { " WITH" } else { " AND" };
            format!("{}{kept}{}", &statement[..before], &statement[tokens[next].1..])
        }
        Some(_) => format!("{};", &statement[..before]),
        None => statement[..before].to_owned(),
    }
}

/// The replication of a CREATE KEYSPACE: `class`, and the replicas by datacenter.
pub fn replication(statement: &str) -> Option<BTreeMap<String, String>> {
    replication_place(statement).map(|(_, map)| map)
}

/// The statement with another replication; all else stays.
pub fn with_replication(statement: &str, replication: &BTreeMap<String, String>) -> Option<String> {
    let ((from, to), _) = replication_place(statement)?;
    Some(format!("{} {}{}", &statement[..from], replication_text(replication), &statement[to..]))
}

/// As CQL writes it.
pub fn replication_text(replication: &BTreeMap<String, String>) -> String {
    let escaped = |text: &str| text.replace('\'', "''");
    let entry = |(key, value): (&String, &String)| format!("'{}': '{}'", escaped(key), escaped(value));
    // The class first, as Cassandra writes it.
    let (class, others): (Vec<_>, Vec<_>) = replication.iter().partition(|(key, _)| *key == "class");
    let entries: Vec<_> = class.into_iter().chain(others).map(entry).collect();
    format!("{{{}}}", entries.join(", "))
}

/// A map of strings such as `{'class': 'SimpleStrategy', 'replication_factor': 3}`.
pub fn map_literal(text: &str) -> Option<BTreeMap<String, String>> {
    let tokens: Vec<_> = Tokens::of(text).map(|(token, _)| token).collect();
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let map = read_map(&mut reader)?;
    reader.peek().is_none().then_some(map)
}

type Place = (usize, usize);

/// Where the map of `replication = {…}` stands, and what it says.
fn replication_place(statement: &str) -> Option<(Place, BTreeMap<String, String>)> {
    let all: Vec<_> = Tokens::of(statement).collect();
    let tokens: Vec<_> = all.iter().map(|(token, _)| token.clone()).collect();
    let mut reader = Reader { tokens: &tokens, at: 0 };
    reader.skip_past("replication")?;
    reader.symbol('=')?;
    let from = all[reader.at - 1].1;
    let map = read_map(&mut reader)?;
    Some(((from, all[reader.at - 1].1), map))
}

fn read_map(reader: &mut Reader<'_, '_>) -> Option<BTreeMap<String, String>> {
    reader.symbol('{')?;
    let mut map = BTreeMap::new();
    while reader.symbol('}').is_none() {
        let key = literal(reader)?;
        reader.symbol(':')?;
        map.insert(key, literal(reader)?);
        if reader.symbol(',').is_none() {
            return reader.symbol('}').map(|()| map);
        }
    }
    Some(map)
}

fn literal(reader: &mut Reader<'_, '_>) -> Option<String> {
    match reader.next()? {
        Token::Literal(text) => match text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(inner) => Some(inner.replace("''", "'")),
            None => Some((*text).to_owned()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, subject};
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn routines_are_known_by_name_and_arguments() {
        let routine = |name: &str, arguments: &str, is_aggregate| {
            Subject::Routine(Routine {
                keyspace: "shop".into(),
                name: name.into(),
                arguments: arguments.into(),
                is_aggregate,
            })
        };
        for (statement, expected) in [
            ("CREATE FUNCTION shop.f (x int) RETURNS int AS $$ ; $$;", routine("f", "int", false)),
            ("CREATE OR REPLACE FUNCTION shop.\"F\"() CALLED ON NULL INPUT", routine("F", "", false)),
            (
                "CREATE FUNCTION shop.g(a frozen<map<text, int>>, \"B\" text) RETURNS",
                routine("g", "frozen<map<text,int>>,text", false),
            ),
            ("CREATE AGGREGATE IF NOT EXISTS shop.sum2(int, text) SFUNC f", routine("sum2", "int,text", true)),
            ("CREATE FUNCTION shop.f", Subject::Other),
        ] {
            assert_eq!(subject(statement), expected, "{statement}");
        }
    }

    #[test]
    fn an_id_is_left_out_and_all_else_stays() {
        for (with, without) in [
            (
                "CREATE TABLE a.b (id int PRIMARY KEY) WITH ID = 3dccf260-e597-11f1-99fc-f93f14538dd2\n    AND comment = 'ID = 5';",
                "CREATE TABLE a.b (id int PRIMARY KEY) WITH comment = 'ID = 5';",
            ),
            ("CREATE TABLE a.b (c int) WITH ID = 5-6;", "CREATE TABLE a.b (c int);"),
            (
                "CREATE TABLE a.b (c int) WITH x = 1 AND id = 5-6 AND y = 2;",
                "CREATE TABLE a.b (c int) WITH x = 1 AND y = 2;",
            ),
            ("CREATE TABLE a.b (c int) WITH x = 1 AND id = 5", "CREATE TABLE a.b (c int) WITH x = 1"),
            ("CREATE TABLE a.b (id int) WITH x = 1;", "CREATE TABLE a.b (id int) WITH x = 1;"),
            (
                "CREATE MATERIALIZED VIEW a.v AS SELECT * FROM a.b WHERE c IS NOT NULL AND id = 5 PRIMARY KEY (c, id) WITH ID = 7-8 AND x = 1;",
                "CREATE MATERIALIZED VIEW a.v AS SELECT * FROM a.b WHERE c IS NOT NULL AND id = 5 PRIMARY KEY (c, id) WITH x = 1;",
            ),
        ] {
            assert_eq!(without_id(with), without, "{with}");
        }
    }

    #[test]
    fn storage_attached_indexes_are_told_from_others() {
        for (statement, attached) in [
            ("CREATE CUSTOM INDEX i ON a.b (c) USING 'sai';", true),
            ("CREATE CUSTOM INDEX i ON a.b (c) USING 'StorageAttachedIndex' WITH OPTIONS = {'a': 'b'};", true),
            ("CREATE CUSTOM INDEX i ON a.b (c) USING 'org.apache.cassandra.index.sai.StorageAttachedIndex';", true),
            ("CREATE CUSTOM INDEX i ON a.b (c) USING 'org.apache.cassandra.index.sasi.SASIIndex';", false),
            ("CREATE INDEX sai ON a.b (c);", false),
            ("CREATE INDEX i ON a.b (c) USING", false),
        ] {
            assert_eq!(is_storage_attached(statement), attached, "{statement}");
        }
    }

    #[test]
    fn replication_is_read_and_replaced() {
        let statement = "CREATE KEYSPACE shop WITH replication = {'class': 'NetworkTopologyStrategy', 'o''ne': '3', 'two': 2}  AND durable_writes = true;";
        let found = replication(statement).unwrap();
        assert_eq!(found, map(&[("class", "NetworkTopologyStrategy"), ("o'ne", "3"), ("two", "2")]));
        let new = map(&[("class", "SimpleStrategy"), ("replication_factor", "1")]);
        assert_eq!(
            with_replication(statement, &new).unwrap(),
            "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': '1'}  AND durable_writes = true;"
        );
        assert_eq!(replication_text(&found), "{'class': 'NetworkTopologyStrategy', 'o''ne': '3', 'two': '2'}");
        assert_eq!(
            (replication("CREATE KEYSPACE a"), map_literal("{'a': 1"), map_literal("{'a': 1} x")),
            (None, None, None)
        );
        assert_eq!(map_literal(" {'a': 1,} "), Some(map(&[("a", "1")])));
    }

    #[test]
    fn names_in_texts_are_not_mentioned() {
        let words =
            mentioned("CREATE FUNCTION a.f(x frozen<\"Addr\">) RETURNS int AS $$ other $$; -- third\n 'fourth'");
        assert!(words.contains("Addr") && words.contains("f"));
        assert!(!words.contains("other") && !words.contains("third") && !words.contains("fourth"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "CREATE (KEYSPACE a WITH replication =|FUNCTION a.f|TABLE a.b WITH ID =) [a-c'{}:,;.(<>)= 0-9-]{0,40}") {
            let _ = (subject(&text), without_id(&text), replication(&text), mentioned(&text), map_literal(&text));
        }
    }
}
