//! File names of SSTables, all versions of Cassandra.
//!
//! Since 2.2 a file is called `<version>-<id>-<format>-<component>`, for example `nb-12-big-Data.db` or
//! `da-3h5p_0m5x_47j8w2gawugld2pavj-bti-Data.db`; before, keyspace and table stood in front. The id is no identity: numbers
//! are used again after a truncation and a restart.

/// The parts of a file name that a backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SstableFile<'a> {
    /// Everything before the component; equal for all files of one SSTable.
    pub sstable: &'a str,
    /// `Data.db`, `Statistics.db`, `SAI+aa+t_sai+TermsData.db`, …
    pub component: &'a str,
}

/// The component that holds the rows.
pub const DATA: &str = "Data.db";
/// The component with the CRC-32 of `Data.db`, as decimal text (3.0 and newer).
pub const DIGEST: &str = "Digest.crc32";
/// The component that lists the others.
pub const TOC: &str = "TOC.txt";

/// Without these nobody can read the rows of an SSTable, by its format.
const NEEDED: [(&str, &[&str]); 2] =
    [("big", &["Statistics.db", "Index.db"]), ("bti", &["Statistics.db", "Partitions.db", "Rows.db"])];
/// What else Cassandra writes with every SSTable, by its format, and one of the last two.
const USUAL: [(&str, &[&str]); 2] =
    [("big", &["Filter.db", "Summary.db", DIGEST, TOC]), ("bti", &["Filter.db", DIGEST, TOC])];
/// The first version of the format `big` that 3.0 wrote, and the oldest that 4.0 and 5.0 read.
const OLDEST_READ: &str = "ma";
const COMPRESSION: &str = "CompressionInfo.db";
const CHECKSUMS: &str = "CRC.db";

impl<'a> SstableFile<'a> {
    /// `None` for what is no SSTable component.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (sstable, component) = name.rsplit_once('-')?;
        let known = component.contains('.') && sstable.contains('-');
        known.then_some(Self { sstable, component })
    }

    /// The two letters of the format version, `nb` or `da`; `None` for names of 2.1 and older.
    pub fn version(&self) -> Option<&'a str> {
        let parts: Vec<_> = self.sstable.split('-').collect();
        let [version, _id, _format] = parts.as_slice() else { return None };
        (version.len() == 2 && version.bytes().all(|b| b.is_ascii_lowercase())).then_some(*version)
    }

    /// The oldest release that reads this version, as major and minor number. `None` for versions that nobody knows yet.
    pub fn oldest_reader(&self) -> Option<(u32, u32)> {
        match self.version()?.as_bytes() {
            b"oa" | b"da" | b"nc" => Some((5, 0)),
            [b'n', _] => Some((4, 0)),
            [b'j'..=b'm', _] => Some((3, 0)),
            _ => None,
        }
    }

    /// Whether 2.2 or an older release wrote it, which no Cassandra since 4.0 reads.
    pub fn is_too_old(&self) -> bool {
        if let Some(version) = self.version() {
            return self.format() == "big" && version < OLDEST_READ;
        }
        // keyspace-table-version-id
        let parts: Vec<_> = self.sstable.rsplitn(3, '-').collect();
        let [id, version, table] = parts.as_slice() else { return false };
        let is_version = version.len() == 2 && version.bytes().all(|b| b.is_ascii_lowercase());
        table.contains('-') && is_version && *version < OLDEST_READ && id.parse::<u32>().is_ok()
    }

    /// `big` or `bti`; another text for names of 2.1 and older.
    fn format(&self) -> &'a str {
        self.sstable.rsplit('-').next().unwrap_or_default()
    }

    /// The components that must be beside `Data.db`, whatever TOC.txt says.
    pub fn needed(&self) -> &'static [&'static str] {
        NEEDED.iter().find(|(format, _)| *format == self.format()).map_or(&["Statistics.db"], |(_, needed)| needed)
    }

    /// Whether everything is there that Cassandra writes with every SSTable: then TOC.txt can name nothing else that is needed.
    pub fn is_usual(&self, is_there: impl Fn(&str) -> bool) -> bool {
        let usual = USUAL.iter().find(|(format, _)| *format == self.format());
        usual.is_some_and(|(_, usual)| usual.iter().all(|component| is_there(component)))
            && (is_there(COMPRESSION) || is_there(CHECKSUMS))
    }

    /// The name of another component of the same SSTable.
    pub fn sibling(&self, component: &str) -> String {
        format!("{}-{component}", self.sstable)
    }
}

/// Whether a component belongs to an SSTable from its beginning to its end. Those of indexes come and go.
pub fn is_own(component: &str) -> bool {
    is_rebuilt(component)
        || component == DATA
        || component == COMPRESSION
        || NEEDED.iter().any(|(_, needed)| needed.contains(&component))
}

/// Whether Cassandra goes on without this component, if it has lost it.
pub fn is_rebuilt(component: &str) -> bool {
    component.starts_with("Digest.") || ["Filter.db", "Summary.db", CHECKSUMS].contains(&component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_versions_are_split() {
        for (name, sstable, component, version) in [
            ("nb-12-big-Data.db", "nb-12-big", "Data.db", Some("nb")),
            (
                "da-3h5p_0m5x_47j8w2gawugld2pavj-bti-Rows.db",
                "da-3h5p_0m5x_47j8w2gawugld2pavj-bti",
                "Rows.db",
                Some("da"),
            ),
            ("nb-1-big-SAI+aa+t_sai+TermsData.db", "nb-1-big", "SAI+aa+t_sai+TermsData.db", Some("nb")),
            ("ks-tab-jb-3-Data.db", "ks-tab-jb-3", "Data.db", None),
            ("zz-9-new-Data.db", "zz-9-new", "Data.db", Some("zz")),
        ] {
            let file = SstableFile::parse(name).unwrap();
            assert_eq!((file.sstable, file.component, file.version()), (sstable, component, version), "{name}");
        }
        assert_eq!(SstableFile::parse("nb-12-big-Data.db").unwrap().sibling(DIGEST), "nb-12-big-Digest.crc32");
    }

    #[test]
    fn files_of_2_are_too_old_whatever_their_names_are() {
        let is_too_old = |name: &str| SstableFile::parse(name).unwrap().is_too_old();
        for old in ["la-12-big-Data.db", "lb-1-big-Digest.adler32", "ks-tab-jb-3-Data.db", "ks-tab-ka-3-Digest.sha1"] {
            assert!(is_too_old(old), "{old}");
        }
        for read in [
            "ma-1-big-Data.db",
            "me-1-big-Data.db",
            "nb-12-big-Data.db",
            "oa-1-big-Data.db",
            "da-3h5p_0m5x_47j8w2gawugld2pavj-bti-Rows.db",
            "nb-1-big-SAI+aa+t_sai+TermsData.db",
            "zz-9-new-Data.db",
            "ks-tab-zz-3-Data.db",
        ] {
            assert!(!is_too_old(read), "{read}");
        }
    }

    #[test]
    fn other_files_are_no_sstables() {
        for name in ["manifest.json", "schema.cql", "", "-", "nb-1-big", "a-b", "README"] {
            assert_eq!(SstableFile::parse(name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_parsed_name_is_its_parts(name in "[a-z+_.-]{0,40}") {
            if let Some(file) = SstableFile::parse(&name) {
                proptest::prop_assert_eq!(file.sibling(file.component), name);
            }
        }
    }
}
