//! The summary: what list, status and report want to know of a node backup, without its manifest.
//!
//! A cache. It is the name of an object, so that one listing brings the summaries of all backups. It speaks of the backup that
//! finished at `finished`; another finishing time means that the backup's name was used again, and the summary is ignored.

use std::fmt;
use std::str::FromStr;

use super::backups::{BackupMode, ServerVersion};
use super::digest::Sha256;
use super::tokenmap::Hosts;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
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
    /// Of the nodes that the backup's token map names.
    pub hosts: HostsDigest,
    pub version: ServerVersion,
}

/// Tells whether two token maps name the same nodes: the first 16 hexadecimal digits of the SHA-256 of the sorted names, each
/// with a line end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostsDigest(String);

impl HostsDigest {
    const DIGITS: usize = 16;

    pub fn of(hosts: &Hosts) -> Self {
        let mut hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        hosts.sort_unstable();
        let text: String = hosts.into_iter().flat_map(|host| [host, "\n"]).collect();
        let mut digest = Sha256::of(text.as_bytes()).to_string();
        digest.truncate(Self::DIGITS);
        Self(digest)
    }
}

/// A text that is no summary of a version that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no summary")]
pub struct NoSummary;

/// Between the fields.
const SEPARATOR: char = '_';

impl Summary {
    /// How many fields the text has.
    pub const FIELDS: usize = 10;

    /// Whether the text can be read again.
    pub fn has_text(&self) -> bool {
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
        };
        is_plain(&self.version.server_type) && is_plain(&self.version.release_version)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, started, finished, num_objects, size, uploaded_objects, uploaded_size, hosts, version } = self;
        write!(
            f,
            "{mode}_{started}_{finished}_{num_objects}_{size}_{uploaded_objects}_{uploaded_size}_{}_{}_{}",
            hosts.0, version.server_type, version.release_version
        )
    }
}

impl FromStr for Summary {
    type Err = NoSummary;

    fn from_str(text: &str) -> Result<Self, NoSummary> {
        let fields: Vec<_> = text.split(SEPARATOR).collect();
        let [mode, started, finished, num_objects, size, uploaded_objects, uploaded_size, hosts, server, release] =
            fields.as_slice()
        else {
            return Err(NoSummary);
        };
        let mode = match *mode {
            "full" => BackupMode::Full,
            "differential" => BackupMode::Differential,
            _ => return Err(NoSummary),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hosts.len() != HostsDigest::DIGITS || !hosts.bytes().all(is_digit) {
            return Err(NoSummary);
        }
        let summary = Self {
            mode,
            started: number(started)?,
            finished: number(finished)?,
            num_objects: number(num_objects)?,
            size: number(size)?,
            uploaded_objects: number(uploaded_objects)?,
            uploaded_size: number(uploaded_size)?,
            hosts: HostsDigest((*hosts).to_owned()),
            version: ServerVersion { server_type: (*server).to_owned(), release_version: (*release).to_owned() },
        };
        // One text for one summary.
        if summary.has_text() && summary.to_string() == text { Ok(summary) } else { Err(NoSummary) }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, NoSummary> {
    text.parse().map_err(|_| NoSummary)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "differential_1795229920_1795229921_30_3000_3_33_9b0a1c2d3e4f5061_cassandra_4.1-beta2+x";

    #[test]
    fn a_summary_is_read_as_it_was_written() {
        let summary: Summary = TEXT.parse().unwrap();
        assert_eq!(summary.to_string(), TEXT);
        assert_eq!(TEXT.split(SEPARATOR).count(), Summary::FIELDS);
        assert_eq!((summary.num_objects, summary.size), (30, 3000));
        assert_eq!((summary.uploaded_objects, summary.uploaded_size), (3, 33));
        assert_eq!(summary.version.release_version, "4.1-beta2+x");
    }

    #[test]
    fn anything_else_is_none() {
        for (from, to) in [
            ("differential", "incremental"),
            ("_30_", "_030_"),
            ("_30_", "_-30_"),
            ("_30_", "_+30_"),
            ("_30_", "__"),
            ("9b0a", "9B0a"),
            ("9b0a", "b0a"),
            ("_cassandra", "_"),
            ("cassandra", "cass andra"),
            ("+x", "_x"),
            ("_4.1-beta2+x", ""),
        ] {
            let text = TEXT.replacen(from, to, 1);
            assert_eq!(text.parse::<Summary>(), Err(NoSummary), "{text}");
        }
    }

    #[test]
    fn versions_that_would_not_be_read_again_have_no_text() {
        let mut summary: Summary = TEXT.parse().unwrap();
        for version in ["", "5_0", "5/0", "5 0", "ü"] {
            version.clone_into(&mut summary.version.release_version);
            assert!(!summary.has_text(), "{version}");
        }
    }

    #[test]
    fn the_same_nodes_have_the_same_digest() {
        let of = |hosts: &[&str]| HostsDigest::of(&hosts.iter().copied().map(str::to_owned).collect());
        let digest = of(&["n1", "n2"]);
        assert_eq!(digest, of(&["n2", "n1"]));
        for other in [&["n1"][..], &["n1n2"], &["n1", "n2", "n3"], &[]] {
            assert_ne!(digest, of(other));
        }
        assert_eq!(digest.0.len(), HostsDigest::DIGITS);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Summary>();
        }

        #[test]
        fn what_is_read_is_written_back(
            mode in "(full|differential|)",
            numbers in proptest::collection::vec("-?[0-9]{1,21}", 6),
            hosts in "[0-9a-g]{15,17}",
            version in "[a-z0-9._-]{0,6}_[a-z0-9._-]{0,6}",
        ) {
            let text = format!("{mode}_{}_{hosts}_{version}", numbers.join("_"));
            if let Ok(summary) = text.parse::<Summary>() {
                proptest::prop_assert_eq!(summary.to_string(), text);
            }
        }
    }
}
