//! Queries for tests, without async.

use scylla::client::PoolSize;
use scylla::client::session::Session as Driver;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::value::{CqlValue, Row};

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
            .fetch_schema_metadata(false);
        if let Some((user, password)) = user {
            builder = builder.user(user, password);
        }
        // A node that has just opened its port may still refuse.
        let mut tries = 0;
        let driver = loop {
            match runtime.block_on(builder.build()) {
                Ok(driver) => break driver,
                Err(error) if tries < 20 => {
                    tries += 1;
                    eprintln!("CQL on {address}: {error}; trying again");
                    std::thread::sleep(std::time::Duration::from_millis(500));
                }
                Err(error) => panic!("CQL on {address}: {error}"),
            }
        };
        Self { runtime, driver }
    }

    /// Runs a statement and returns its rows, each value as text.
    pub fn query(&self, statement: &str) -> Vec<Vec<String>> {
        // Nodes learn a while later that another one is up again.
        let mut tries = 0;
        loop {
            match self.try_query(statement) {
                Ok(rows) => return rows,
                Err(error) if error.contains("Not enough nodes are alive") && tries < 60 => {
                    tries += 1;
                    eprintln!("{statement}: {error}; trying again");
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
                Err(error) => panic!("{statement}: {error}"),
            }
        }
    }

    pub fn try_query(&self, statement: &str) -> Result<Vec<Vec<String>>, String> {
        let mut prepared = scylla::statement::Statement::new(statement);
        prepared.set_consistency(Consistency::All);
        prepared.set_request_timeout(Some(std::time::Duration::from_mins(2)));
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
