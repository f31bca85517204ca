//! `local`: Medusa's lines in `metrics.json`, in the folder in which the command was started.

use std::io::Write as _;

use fs_err::OpenOptions;
use serde_json::json;

use super::Measurement;
use crate::model::pyjson;

const FILE: &str = "metrics.json";

/// A line for each metric that Medusa sends, numbered from 0 in every run, as Medusa writes it.
fn lines(measured: &[Measurement]) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for (seq, Measurement { metric, value, subject, .. }) in measured.iter().filter(|m| m.metric.of_medusa).enumerate()
    {
        let tags = [metric.name.0, metric.name.1, subject.tag()];
        text.extend(pyjson::stored(&json!({ "seq": seq, "tags": tags, "value": value }))?);
        text.push(b'\n');
    }
    Ok(text)
}

pub(super) fn append(measured: &[Measurement]) -> anyhow::Result<()> {
    let lines = lines(measured)?;
    if !lines.is_empty() {
        OpenOptions::new().append(true).create(true).open(FILE)?.write_all(&lines)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monitoring::Subject;
    use crate::monitoring::metrics::{BACKUP_DURATION, BACKUP_FILES, BACKUP_SIZE};

    #[test]
    fn lines_are_those_of_python() {
        let subject = Subject::Backup("né1".to_owned());
        let of = |metric, value| Measurement { metric, value, subject: subject.clone(), command: None };
        let measured = [
            of(&BACKUP_DURATION, Duration::from_nanos(3_000_250_999).into()),
            of(&BACKUP_FILES, 7_u64.into()),
            of(&BACKUP_SIZE, 12_345_678_901_u64.into()),
            of(&BACKUP_DURATION, Duration::from_mins(1).into()),
        ];
        // Taken from Python 3.11: json.dumps of the same values.
        let expected = concat!(
            r#"{"seq": 0, "tags": ["medusa-node-backup", "backup-duration", "n\u00e91"], "value": 3.00025}"#,
            "\n",
            r#"{"seq": 1, "tags": ["medusa-node-backup", "backup-size", "n\u00e91"], "value": 12345678901}"#,
            "\n",
            r#"{"seq": 2, "tags": ["medusa-node-backup", "backup-duration", "n\u00e91"], "value": 60.0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(lines(&measured).unwrap()).unwrap(), expected);
    }
}
