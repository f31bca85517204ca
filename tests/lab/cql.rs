//! Queries for tests, without async.

use std::time::{Duration, Instant};

use scylla::client::PoolSize;
use scylla::client::session::Session as Driver;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::value::{CqlValue, Row};

/// How long a cluster on a busy machine may take until all nodes know of each other that they are there.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long nodes may take to agree on a schema by themselves.
const AGREEMENT: Duration = Duration::from_mins(1);

/// A session with one node.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    driver: Driver,
}

impl Session {
    pub fn connect(address: &str) -> Self {
        Self::connect_as(address, None)
    }

    pub fn connect_as(address: &str, user: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut builder = SessionBuilder::new()
            .known_node(format!("{address}:9042"))
            .pool_size(PoolSize::PerHost(std::num::NonZeroUsize::MIN))
            .connection_timeout(Duration::from_mins(1))
            .schema_agreement_timeout(AGREEMENT)
            .fetch_schema_metadata(false);
        if let Some((user, password)) = user {
            builder = builder.user(user, password);
        }
        // A node that has just opened its port may still refuse.
        let begin = Instant::now();
        let driver = loop {
            match runtime.block_on(builder.build()) {
                Ok(driver) => break driver,
                Err(error) if begin.elapsed() < Duration::from_mins(1) => {
                    eprintln!("CQL on {address}: {error}; trying again");
                    std::thread::sleep(Duration::from_millis(500));
                }
                Err(error) => panic!("CQL on {address}: {error}"),
            }
        };
        Self { runtime, driver }
    }

    /// Runs a statement and returns its rows, each value as text.
    pub fn query(&self, statement: &str) -> Vec<Vec<String>> {
        // Nodes learn a while later that another one is up again, and what they send it before is lost.
        let may_be_repeated =
            ["SELECT ", "INSERT ", "DELETE ", "UPDATE "].iter().any(|verb| statement.starts_with(verb))
                && !statement.contains(" + ");
        let begin = Instant::now();
        loop {
            match self.try_query(statement) {
                Ok(rows) => return rows,
                Err(error)
                    if begin.elapsed() < PATIENCE
                        && (error.contains("Not enough nodes are alive") || (may_be_repeated && is_late(&error))) =>
                {
                    eprintln!("{statement}: {error}; trying again");
                    std::thread::sleep(Duration::from_secs(1));
                }
                // The statement was carried out.
                Err(error) if begin.elapsed() < PATIENCE && error.contains("schema agreement") => {
                    eprintln!("{statement}: {error}{}; another version is made for all", self.schema_versions());
                    self.make_another_version(begin);
                    return Vec::new();
                }
                Err(error) => panic!("{statement}: {error}{}", self.schema_versions()),
            }
        }
    }

    /// A node that was restarted may never fetch a version of the schema that it has once failed to fetch. It fetches the next.
    fn make_another_version(&self, begin: Instant) {
        let another = "CREATE KEYSPACE IF NOT EXISTS another WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
        while let Err(error) = self.try_query(another).and_then(|_| self.try_query("DROP KEYSPACE IF EXISTS another")) {
            assert!(begin.elapsed() < PATIENCE, "{error}{}", self.schema_versions());
        }
    }

    /// What the node that answers knows of the schemas of all.
    fn schema_versions(&self) -> String {
        let of = |query| self.try_query(query).unwrap_or_else(|error| vec![vec![error]]);
        let local = of("SELECT rpc_address, schema_version FROM system.local");
        format!("; schemas: {local:?}, peers {:?}", of("SELECT peer, schema_version FROM system.peers_v2"))
    }

    pub fn try_query(&self, statement: &str) -> Result<Vec<Vec<String>>, String> {
        let mut prepared = scylla::statement::Statement::new(statement);
        prepared.set_consistency(Consistency::All);
        prepared.set_request_timeout(Some(Duration::from_mins(2)));
        let result =
            self.runtime.block_on(self.driver.query_unpaged(prepared, ())).map_err(|error| error.to_string())?;
        if !result.is_rows() {
            return Ok(Vec::new());
        }
        let rows = result.into_rows_result().unwrap();
        let text =
            |value: &Option<CqlValue>| value.as_ref().map_or_else(|| "null".to_owned(), |value| format!("{value:?}"));
        Ok(rows.rows::<Row>().unwrap().map(|row| row.unwrap().columns.iter().map(text).collect()).collect())
    }

    /// Runs statements that are separated by lines.
    pub fn run(&self, statements: &str) {
        for statement in statements.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.query(statement);
        }
    }

    /// All rows of a query, in an order of their own: two answers with the same rows are equal.
    pub fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let mut rows = self.query(query);
        rows.sort();
        rows
    }
}

/// Of a node that did not answer the one that was asked, or of that one.
fn is_late(error: &str) -> bool {
    let error = error.to_lowercase();
    ["timeout", "timed out", "not enough nodes responded"].iter().any(|text| error.contains(text))
}
