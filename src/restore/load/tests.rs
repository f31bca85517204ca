//! What is created, kept, refused and dropped.

use std::collections::BTreeSet;

use super::replication::Placement;
use super::schema::{Change, Schema, SchemaPlan, Wanted, decide};

const BACKUP: &str = "CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': '1'} AND durable_writes = true;
    CREATE TYPE shop.addr (at frozen<street>, city text);
    CREATE TYPE shop.street (name text, no int);
    CREATE TYPE shop.unused (a int);
    CREATE AGGREGATE shop.total(int) SFUNC plus STYPE int INITCOND 0;
    CREATE FUNCTION shop.plus(a int, b int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$ return a + b; $$;
    CREATE TABLE shop.orders (id int PRIMARY KEY, a frozen<addr>, name text, gone text) WITH ID = 3dccf260-e597-11f1-99fc-f93f14538dd2 AND comment = 'a;b';
    ALTER TABLE shop.orders DROP gone USING TIMESTAMP 5;
    CREATE INDEX orders_name ON shop.orders (name);
    CREATE MATERIALIZED VIEW shop.by_name AS SELECT * FROM shop.orders WHERE name IS NOT NULL PRIMARY KEY (name, id) WITH ID = 5-6 AND comment = '';
    CREATE TABLE shop.\"Hits\" (page text PRIMARY KEY, n counter) WITH ID = 4dccf260-e597-11f1-99fc-f93f14538dd2 AND comment = '';
    CREATE KEYSPACE other WITH replication = {'class': 'NetworkTopologyStrategy', 'x': '1'};
    CREATE TABLE other.t (id int PRIMARY KEY);";

fn wanted(tables: &[&str], whole: &[&str]) -> Wanted {
    let name =
        |text: &&str| text.split_once('.').map(|(keyspace, table)| (keyspace.to_owned(), table.to_owned())).unwrap();
    Wanted { tables: tables.iter().map(name).collect(), whole: whole.iter().map(|name| (*name).to_owned()).collect() }
}

fn shop() -> Wanted {
    wanted(&["shop.orders", "shop.Hits"], &["shop"])
}

fn plan(live: &str, wanted: &Wanted, change: Change) -> Result<SchemaPlan, Vec<String>> {
    let placement = Placement { datacenters: BTreeSet::from(["dc1".to_owned()]), ..Placement::default() };
    decide(&Schema::parse(BACKUP), &Schema::parse(live), wanted, change, &placement)
}

fn created(plan: &SchemaPlan) -> Vec<&str> {
    plan.create.iter().map(|step| step.what.as_str()).collect()
}

fn dropped(plan: &SchemaPlan) -> Vec<&str> {
    plan.drop.iter().map(|step| step.statement.as_str()).collect()
}

#[test]
fn all_is_created_in_the_order_of_what_needs_what() {
    let plan = plan("", &shop(), Change::Create).unwrap();
    assert_eq!(
        created(&plan),
        [
            "keyspace shop",
            "type shop.street",
            "type shop.unused",
            "type shop.addr",
            "function shop.plus(int,int)",
            "aggregate shop.total(int)",
            "table shop.Hits",
            "table shop.orders",
            "column of shop.orders that was dropped or added again",
            "index orders_name of shop.orders",
            "view shop.by_name",
        ]
    );
    assert_eq!((dropped(&plan).len(), plan.notes.len()), (0, 0));
    assert!(plan.create.iter().all(|step| !step.statement.contains("ID =")), "{plan:?}");
    let orders = plan.create.iter().find(|step| step.what == "table shop.orders").unwrap();
    assert!(orders.statement.ends_with("gone text) WITH comment = 'a;b';"), "{}", orders.statement);
}

#[test]
fn of_one_table_only_what_it_needs_is_created() {
    let one = plan("", &wanted(&["shop.Hits"], &[]), Change::Create).unwrap();
    assert_eq!(created(&one), ["keyspace shop", "table shop.Hits"]);
    let orders = plan("", &wanted(&["shop.orders"], &[]), Change::Create).unwrap();
    let types: Vec<_> = created(&orders).into_iter().filter(|what| what.starts_with("type")).collect();
    assert_eq!(types, ["type shop.street", "type shop.addr"]);
    assert!(!created(&orders).iter().any(|what| what.starts_with("function")));
    // The datacenter of the other keyspace does not concern us.
    assert!(plan("", &wanted(&["other.t"], &[]), Change::Create).unwrap_err()[0].contains("datacenter x"));
}

#[test]
fn a_function_that_masks_a_column_comes_with_the_table() {
    let backup = BACKUP.replace("name text, gone", "name text MASKED WITH shop.plus(1), gone");
    let live = Schema::default();
    let plan =
        decide(&Schema::parse(&backup), &live, &wanted(&["shop.orders"], &[]), Change::Create, &Placement::default());
    assert!(created(&plan.unwrap()).contains(&"function shop.plus(int,int)"));
}

#[test]
fn what_is_equal_is_kept_and_only_the_rest_created() {
    let nothing = plan(BACKUP, &shop(), Change::Create).unwrap();
    assert_eq!(nothing, SchemaPlan::default());
    let less = BACKUP
        .replace("CREATE INDEX", "-- ")
        .replace("CREATE AGGREGATE", "-- ")
        .replace("CREATE TYPE shop.unused", "-- ");
    assert_eq!(
        created(&plan(&less, &shop(), Change::Create).unwrap()),
        ["type shop.unused", "aggregate shop.total(int)", "index orders_name of shop.orders"]
    );
    let more = BACKUP.replace("name text, gone", "name text, new int, gone").replace("no int)", "no int, zip text)");
    assert_eq!(plan(&more, &shop(), Change::Create).unwrap(), SchemaPlan::default());
    let options = BACKUP.replace("'a;b'", "'other' AND gc_grace_seconds = 5").replace("ID = 3d", "ID = 9d");
    assert_eq!(plan(&options, &shop(), Change::Create).unwrap(), SchemaPlan::default());
    // Other tables of the keyspace are not looked at.
    let other = BACKUP.replace("n counter", "n int");
    assert_eq!(plan(&other, &wanted(&["shop.orders"], &[]), Change::Create).unwrap(), SchemaPlan::default());
}

#[test]
fn what_differs_is_refused_in_words() {
    for (from, to, reason) in [
        ("name text, gone", "name blob, gone", "shop.orders: column name was text, and is blob"),
        ("name text, gone text)", "name text)", "shop.orders: column gone text is not there any more"),
        ("n counter", "n bigint", "shop.Hits: column n was counter, and is bigint"),
        ("id int PRIMARY KEY, a", "id int, a", "primary key"),
        ("no int)", "no text)", "shop.orders: type street has changed"),
        (
            "CREATE TABLE shop.\"Hits\" (page text PRIMARY KEY, n counter)",
            "CREATE MATERIALIZED VIEW shop.\"Hits\" AS SELECT * FROM shop.orders PRIMARY KEY (id)",
            "shop.Hits is a view in this cluster",
        ),
    ] {
        let live = if reason == "primary key" {
            BACKUP
                .replace(
                    "id int PRIMARY KEY, a frozen<addr>, name text",
                    "id int, a frozen<addr>, name text, PRIMARY KEY (id, name)",
                )
                .replace(", PRIMARY KEY (id, name), gone text)", ", gone text, PRIMARY KEY (id, name))")
        } else {
            BACKUP.replace(from, to)
        };
        let refused = plan(&live, &shop(), Change::Create).unwrap_err();
        assert!(refused.iter().any(|line| line.contains(reason)), "{reason}: {refused:?}");
    }
}

#[test]
fn types_that_have_changed_are_refused_for_tables_that_are_gone() {
    let live = BACKUP.replace("name text, no int)", "no int, name text)").replace("CREATE TABLE shop.orders", "-- ");
    let refused = plan(&live, &wanted(&["shop.orders"], &[]), Change::Create).unwrap_err();
    assert_eq!(refused, ["shop.orders: type street has changed"]);
    let found = plan(&live, &wanted(&["shop.orders"], &[]), Change::Recreate).unwrap();
    assert_eq!(dropped(&found).last(), Some(&"DROP TYPE shop.street;"));
}

#[test]
fn columns_that_were_dropped_since_are_refused() {
    let live = format!("{BACKUP} ALTER TABLE shop.orders DROP name USING TIMESTAMP 9;");
    let refused = plan(&live, &shop(), Change::Create).unwrap_err();
    assert_eq!(refused, ["shop.orders: column name text is not there any more"]);
    let found = plan(&live, &shop(), Change::Recreate).unwrap();
    assert!(dropped(&found).contains(&"DROP TABLE shop.orders;"), "{found:?}");
}

#[test]
fn what_differs_and_does_no_harm_is_told() {
    let live = BACKUP.replace("a + b", "a - b").replace("(name);", "(a);").replace("unused (a int)", "unused (a text)");
    let plan = plan(&live, &shop(), Change::Create).unwrap();
    assert_eq!(created(&plan).len(), 0);
    assert_eq!(
        plan.notes,
        [
            "type shop.unused differs from the backup's and stays as it is",
            "function shop.plus(int,int) differs from the backup's and stays as it is",
            "index orders_name of shop.orders differs from the backup's and stays as it is",
        ]
    );
}

#[test]
fn only_tables_that_differ_are_dropped_with_their_views() {
    let live = BACKUP.replace("name text, gone", "name blob, gone").replace("shop.by_name", "shop.other_view");
    let plan = plan(&live, &shop(), Change::Recreate).unwrap();
    assert_eq!(dropped(&plan), ["DROP MATERIALIZED VIEW shop.other_view;", "DROP TABLE shop.orders;"]);
    assert_eq!(
        created(&plan),
        [
            "table shop.orders",
            "column of shop.orders that was dropped or added again",
            "index orders_name of shop.orders",
            "view shop.by_name"
        ]
    );
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
    assert!(plan.notes[0].contains("dropped with all its rows: column name was text, and is blob"));
    assert!(plan.notes[1].contains("view shop.other_view is dropped and not created again"));
}

#[test]
fn a_changed_type_is_created_again_with_all_that_use_it() {
    let live = BACKUP.replace("no int)", "no text)");
    let found = plan(&live, &shop(), Change::Recreate).unwrap();
    assert_eq!(
        dropped(&found),
        [
            "DROP MATERIALIZED VIEW shop.by_name;",
            "DROP TABLE shop.orders;",
            "DROP TYPE shop.addr;",
            "DROP TYPE shop.street;"
        ]
    );
    assert_eq!(created(&found)[..3], ["type shop.street", "type shop.addr", "table shop.orders"]);
    let further = format!("{live} CREATE TABLE shop.mine (id int PRIMARY KEY, s list<frozen<street>>);");
    let refused = plan(&further, &shop(), Change::Recreate).unwrap_err();
    assert_eq!(
        refused,
        ["type shop.street has changed and cannot be dropped: table shop.mine uses it and is not selected"]
    );
    let function = format!("{live} CREATE FUNCTION shop.f(s street) RETURNS int;");
    let refused = plan(&function, &shop(), Change::Recreate).unwrap_err();
    assert_eq!(refused, ["type shop.street has changed and cannot be dropped: function shop.f(street) uses it"]);
}

#[test]
fn storage_attached_indexes_come_last_and_are_in_the_way() {
    let attached = BACKUP.replace("(name);", "(name) USING 'sai';");
    let (old, placement) = (Schema::parse(&attached), Placement::default());
    let plan = decide(&old, &Schema::default(), &shop(), Change::Create, &placement).unwrap();
    assert!(!created(&plan).contains(&"index orders_name of shop.orders"));
    assert_eq!(plan.create_after.len(), 1);
    assert_eq!(plan.create_after[0].what, "index orders_name of shop.orders");
    let in_the_way = super::schema::in_the_way(&old, &shop().tables);
    assert!(in_the_way[0].starts_with("shop.orders has the storage-attached index orders_name"), "{in_the_way:?}");
    assert_eq!(super::schema::in_the_way(&Schema::parse(BACKUP), &shop().tables), [""; 0]);
}

#[test]
fn without_leave_to_create_everything_must_be_there() {
    assert_eq!(plan(BACKUP, &shop(), Change::Nothing).unwrap(), SchemaPlan::default());
    let refused = plan("", &wanted(&["shop.Hits"], &[]), Change::Nothing).unwrap_err();
    assert_eq!(refused, ["keyspace shop does not exist", "table shop.Hits does not exist"]);
    let less = BACKUP.replace("CREATE INDEX", "-- ");
    let found = plan(&less, &shop(), Change::Nothing).unwrap();
    assert_eq!((found.create.len(), found.notes.len()), (0, 1));
}

#[test]
fn replication_of_what_is_not_created_is_told() {
    let given = |text: &str| Placement {
        given: [super::replication::parse_replication(text).unwrap()].into(),
        datacenters: BTreeSet::from(["dc1".to_owned()]),
        ..Placement::default()
    };
    let (old, live) = (Schema::parse(BACKUP), Schema::parse(BACKUP));
    let plan = decide(&old, &live, &shop(), Change::Create, &given("shop=dc1:3")).unwrap();
    assert_eq!(plan.notes, ["keyspace shop exists and keeps its replication"]);
    let refused = decide(&old, &live, &shop(), Change::Create, &given("shp=dc1:3")).unwrap_err();
    assert_eq!(refused, ["--replication names shp, which is not among what is loaded"]);
}

#[test]
fn the_stage_is_only_ours() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let stage = folder.path().join("stage");
    super::make_stage(&stage).unwrap();
    assert_eq!(std::fs::metadata(&stage).unwrap().permissions().mode() & 0o777, 0o700);
    super::make_stage(&stage).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&stage, &link).unwrap();
    assert!(super::make_stage(&link).unwrap_err().to_string().contains("it is no folder"));
}
