//! `--verify`: does the restored node answer the query of `[checks]` as it should.

use crate::cassandra::cql::Cql;
use crate::cassandra::yaml::CassandraYaml;
use crate::context::Context;
use crate::error::Failure;
use crate::model::units::counted;

const RESTORED: &str = "the node was restored and runs; look at query, expected_rows and expected_result in [checks]";

/// # Errors
/// The query fails, or its answer is not the expected one.
pub async fn run(context: &Context, yaml: &CassandraYaml) -> anyhow::Result<()> {
    if context.config.checks.query.is_empty() {
        tracing::warn!("--verify: query in [checks] is empty, so nothing was asked");
        return Ok(());
    }
    let rows = ask(context, &context.cql(yaml).await?).await?;
    context.monitor.title(&format!("  the query of [checks] gave {}, as expected", counted(rows, "row")));
    Ok(())
}

/// Asks a node. Returns the number of rows.
///
/// # Errors
/// The query fails, or its answer is not the expected one.
pub async fn ask(context: &Context, cql: &Cql) -> anyhow::Result<u64> {
    let checks = &context.config.checks;
    let answered = async {
        let failed = |error| Failure::failed("the query of [checks] failed").cause(error).hint(RESTORED);
        cql.text_rows(&checks.query).await.map_err(failed)
    };
    let rows = context.interrupt.or(answered).await?;
    judge(&rows, checks.expected_rows, &checks.expected_result)?;
    Ok(rows.len() as u64)
}

/// As in Medusa: 0 expected rows and an empty expected result are not checked; the result is the first row.
fn judge(rows: &[Vec<String>], expected_rows: u64, expected_result: &str) -> Result<(), Failure> {
    if expected_rows != 0 && rows.len() as u64 != expected_rows {
        let message =
            format!("the query of [checks] gave {} instead of {expected_rows}", counted(rows.len() as u64, "row"));
        return Err(Failure::failed(message).hint(RESTORED));
    }
    let result = rows.first().map(|row| row.join(",")).unwrap_or_default();
    if !expected_result.is_empty() && result != expected_result {
        let message = format!("the query of [checks] gave {result:?} instead of {expected_result:?}");
        return Err(Failure::failed(message).hint(RESTORED));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_first_row_are_compared_where_they_are_given() {
        let rows = vec![vec!["1".to_owned(), "a".to_owned()], vec!["2".to_owned(), "b".to_owned()]];
        assert!(judge(&rows, 0, "").is_ok());
        assert!(judge(&rows, 2, "1,a").is_ok());
        assert!(judge(&rows, 3, "").unwrap_err().message.contains("2 rows instead of 3"));
        assert!(judge(&rows, 0, "2,b").is_err());
        assert!(judge(&[], 0, "1").is_err());
    }
}
