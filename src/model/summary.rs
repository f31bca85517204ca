//! The summary: what list, status and report want to know of a node backup, without its manifest.
//!
//! A cache. It speaks of the backup that finished at `finished`; another finishing time means that the name was used again,
//! and the summary is ignored.

use serde::{Deserialize, Serialize};

use super::backups::BackupMode;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Of this format.
    pub version: u32,
    pub mode: BackupMode,
    /// Unix seconds by the storage server's clock.
    pub started: i64,
    pub finished: i64,
    /// Files and bytes that the manifest names.
    pub num_objects: u64,
    pub size: u64,
    /// Files and bytes that this backup moved; the others were there.
    pub uploaded_objects: u64,
    pub uploaded_size: u64,
    pub server_type: String,
    pub release_version: String,
    /// The version of medusa that wrote the backup.
    pub written_by: String,
}

impl Summary {
    pub const VERSION: u32 = 1;

    /// `None` for what is no summary of a version that we know.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|summary| summary.version == Self::VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: &str, mode: &str, number: &str) -> String {
        format!(
            r#"{{"version":{version},"mode":{mode},"started":{number},"finished":{number},"num_objects":{number},"size":{number},"uploaded_objects":0,"uploaded_size":0,"server_type":"cassandra","release_version":"5.0.9","written_by":"0.1.0"}}"#
        )
    }

    #[test]
    fn only_summaries_of_the_known_version_are_read() {
        assert_eq!(Summary::parse(text("1", "\"full\"", "5").as_bytes()).unwrap().num_objects, 5);
        for (version, mode, number) in [("2", "\"full\"", "5"), ("1", "\"other\"", "5"), ("1", "\"full\"", "-5")] {
            assert_eq!(Summary::parse(text(version, mode, number).as_bytes()), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Summary::parse(&bytes);
        }

        #[test]
        fn no_value_makes_the_parser_panic(
            version in "(1|2|-1|null)",
            mode in "(\"full\"|\"differential\"|\"\"|1)",
            number in "(-?[0-9]{1,25}|null|\"1\"|1.5)",
        ) {
            if let Some(summary) = Summary::parse(text(&version, &mode, &number).as_bytes()) {
                proptest::prop_assert_eq!(summary.version, 1);
            }
        }
    }
}
