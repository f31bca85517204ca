//! The manifest: what one node stored under one backup name.
//!
//! The fields `keyspace`, `columnfamily`, `objects`, `path`, `MD5` and `size` are cassandra-medusa's. `SHA256`, `mtime` and
//! `corrupt` are ours; Medusa ignores them.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::digest::{RecordedMd5, Sha256};
use super::names::{TableFile, TableFolder, UnsafeName};
use super::pyjson;

/// Sections in the order in which they were stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    pub sections: Vec<Section>,
}

/// One table, also when it had no files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    pub keyspace: String,
    /// The table's folder, with the table id.
    pub columnfamily: String,
    pub objects: Vec<Object>,
}

/// One stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// The full object key, prefix included. Never derived anew.
    pub path: Box<str>,
    /// What Medusa records for the provider; `None` where nothing is known.
    #[serde(rename = "MD5")]
    pub md5: Option<Box<str>>,
    /// Bytes.
    pub size: u64,
    /// Of the stored content. Absent in what only Medusa recorded.
    #[serde(rename = "SHA256", default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Modification time of the source file, nanoseconds since 1970. Restores set it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// The source file did not match its own `Digest.crc32` and was stored on request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrupt: bool,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadManifest {
    #[error("is not a manifest")]
    Json(#[from] serde_json::Error),
    #[error("names an unusable folder")]
    Name(#[from] UnsafeName),
    #[error("names {0:?}, which is no file of a table")]
    Path(String),
    #[error("names {0:?}, and another object that would take its place on a node")]
    Twice(String),
    #[error("names more bytes than there can be")]
    TooLarge,
}

impl Manifest {
    /// Reads a manifest and checks that every entry names a file of its table, and none of them twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        let mut tables = HashMap::new();
        let mut places = HashSet::with_capacity(manifest.sections.iter().map(|section| section.objects.len()).sum());
        let mut total: u64 = 0;
        for section in &manifest.sections {
            section.table()?;
            let next = tables.len();
            let table = *tables.entry((&section.keyspace, &section.columnfamily)).or_insert(next);
            for object in &section.objects {
                let place = object.place(&section.columnfamily)?;
                if !places.insert((table, place)) {
                    return Err(BadManifest::Twice(object.path.to_string()));
                }
                // Whoever adds sizes up later need not think of it.
                total = total.checked_add(object.size).ok_or(BadManifest::TooLarge)?;
            }
        }
        drop((tables, places));
        Ok(manifest)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        pyjson::stored(self)
    }

    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.sections.iter().flat_map(|section| &section.objects)
    }

    pub fn object_count(&self) -> u64 {
        self.sections.iter().map(|section| section.objects.len() as u64).sum()
    }

    pub fn total_bytes(&self) -> u64 {
        self.objects().map(|object| object.size).sum()
    }
}

impl Section {
    pub fn table(&self) -> Result<TableFolder, UnsafeName> {
        TableFolder::new(&self.keyspace, &self.columnfamily)
    }
}

impl Manifest {
    /// Where MD5 is an `ETag` that is no digest, only the size is known of what has no digest of ours.
    pub fn forget_md5(&mut self) {
        let objects = self.sections.iter_mut().flat_map(|section| &mut section.objects);
        objects.filter(|object| object.sha256.is_none()).for_each(|object| object.md5 = None);
    }
}

impl Object {
    pub fn recorded_md5(&self) -> RecordedMd5 {
        RecordedMd5::parse(self.md5.as_deref())
    }

    /// Whether the object may be another one than the manifest recorded, without being damaged: Medusa overwrites these two
    /// components in place when Cassandra has rewritten them, and older backups share the key. Cassandra reads either.
    pub fn is_rewritten_by_medusa(&self) -> bool {
        self.sha256.is_none() && ["-Statistics.db", "-Summary.db"].iter().any(|end| self.path.ends_with(end))
    }

    /// Whether the manifest says what the content must be.
    pub fn has_known_content(&self) -> bool {
        let has_hash = self.sha256.is_some() || self.recorded_md5() != RecordedMd5::Unknown;
        has_hash && !self.is_rewritten_by_medusa()
    }

    /// Where the file belongs in its table's folder. As in Medusa, the last element of the path is the file's name, and
    /// its parent counts only if it is a secondary-index folder or DSE's `nodes`; any other folder (our content folders) is
    /// dropped.
    pub fn file(&self, table: &TableFolder) -> Result<TableFile, BadManifest> {
        let (index, name) = self.place(&table.folder)?;
        Ok(TableFile { index: index.map(str::to_owned), name: name.to_owned() })
    }

    fn place(&self, table_folder: &str) -> Result<(Option<&str>, &str), BadManifest> {
        let bad = || BadManifest::Path(self.path.to_string());
        let mut elements = self.path.rsplit('/');
        let name = elements.next().filter(|name| is_file_name(name)).ok_or_else(bad)?;
        let parent = elements.next().ok_or_else(bad)?;
        let kept = (parent.starts_with('.') || parent.ends_with("nodes")) && parent != table_folder;
        if kept && !is_file_name(parent) {
            return Err(bad());
        }
        Ok((kept.then_some(parent), name))
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDUSA: &str = r#"[{"keyspace": "ks", "columnfamily": "t-01", "objects": [{"path": "c/n/data/ks/t-01/nb-1-big-Data.db", "MD5": "1c7d579a5b98a4a810fdd8f9d4eec471", "size": 8}, {"path": "c/n/data/ks/t-01/.t_idx/nb-1-big-Data.db", "MD5": null, "size": 10}]}, {"keyspace": "ks", "columnfamily": "empty-22", "objects": []}]"#;

    #[test]
    fn a_manifest_of_medusa_is_written_back_byte_for_byte() {
        let manifest = Manifest::parse(MEDUSA.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(manifest.to_bytes().unwrap()).unwrap(), MEDUSA);
        assert_eq!((manifest.object_count(), manifest.total_bytes()), (2, 18));
    }

    #[test]
    fn our_own_fields_follow_those_of_medusa() {
        let object = Object {
            path: "n/data/ks/t-1/nb-1-big-Data.db".into(),
            md5: None,
            size: 3,
            sha256: Some(Sha256::of(b"abc")),
            mtime: Some(1_700_000_000_123_456_789),
            corrupt: true,
        };
        let manifest = Manifest {
            sections: vec![Section { keyspace: "ks".into(), columnfamily: "t-1".into(), objects: vec![object] }],
        };
        let text = String::from_utf8(manifest.to_bytes().unwrap()).unwrap();
        assert_eq!(
            text,
            r#"[{"keyspace": "ks", "columnfamily": "t-1", "objects": [{"path": "n/data/ks/t-1/nb-1-big-Data.db", "MD5": null, "size": 3, "SHA256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "mtime": 1700000000123456789, "corrupt": true}]}]"#
        );
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let text = MEDUSA.replace(r#""size": 8"#, r#""size": 8, "storage_class": "COLD""#);
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), Manifest::parse(MEDUSA.as_bytes()).unwrap());
    }

    #[test]
    fn extra_folders_are_dropped_and_index_folders_kept() {
        let table = TableFolder::new("ks", "t-01").unwrap();
        let file = |path: &str| {
            Object { path: path.into(), md5: None, size: 0, sha256: None, mtime: None, corrupt: false }.file(&table)
        };
        let plain = TableFile { index: None, name: "f".into() };
        assert_eq!(file("n/data/ks/t-01/f").unwrap(), plain);
        assert_eq!(file("n/data/ks/t-01/0123456789abcdef/f").unwrap(), plain);
        let indexed = TableFile { index: Some(".i".into()), name: "f".into() };
        assert_eq!(file("n/data/ks/t-01/0123456789abcdef/.i/f").unwrap(), indexed);
        for bad in ["", "f", "n/data/ks/t-01/", "n/data/ks/t-01/..", "n/../f/.", "n/../f"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_manifest_cannot_name_folders_outside_of_the_data_directory() {
        for (keyspace, folder) in [("..", "t"), ("ks", ".."), ("a/b", "t"), ("", "t")] {
            let text = format!(r#"[{{"keyspace": "{keyspace}", "columnfamily": "{folder}", "objects": []}}]"#);
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    fn one_section(objects: &str) -> String {
        format!(r#"[{{"keyspace": "ks", "columnfamily": "t-01", "objects": [{objects}]}}]"#)
    }

    #[test]
    fn two_objects_cannot_be_one_file() {
        let object = |path: &str| format!(r#"{{"path": "n/data/ks/t-01/{path}", "MD5": null, "size": 1}}"#);
        let parse = |paths: &[&str]| {
            let objects: Vec<_> = paths.iter().map(|path| object(path)).collect();
            Manifest::parse(one_section(&objects.join(", ")).as_bytes())
        };
        assert!(parse(&["a", "b", ".i/a", "c/.j/a"]).is_ok());
        for twice in [["a", "a"], ["a", "0123456789abcdef/a"], [".i/a", "c/.i/a"]] {
            let error = parse(&twice).unwrap_err().to_string();
            assert!(error.contains(twice[1]), "{error}");
        }
        // Tables of the same folder in two sections are one table.
        let section = one_section(&object("a"));
        let doubled = format!("{}, {}", section.trim_end_matches(']'), section.trim_start_matches('['));
        assert!(matches!(Manifest::parse(doubled.as_bytes()), Err(BadManifest::Twice(_))), "{doubled}");
        assert!(Manifest::parse(doubled.replacen("t-01", "t-02", 1).as_bytes()).is_ok());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let objects = |sizes: [&str; 2]| {
            let [a, b] = sizes.map(|size| format!(r#""MD5": null, "size": {size}}}"#));
            one_section(&format!(r#"{{"path": "n/a", {a}, {{"path": "n/b", {b}"#))
        };
        let largest = u64::MAX.to_string();
        assert_eq!(Manifest::parse(objects([&largest, "0"]).as_bytes()).unwrap().total_bytes(), u64::MAX);
        assert!(matches!(Manifest::parse(objects([&largest, "1"]).as_bytes()), Err(BadManifest::TooLarge)));
        for bad in ["-1", "1.5", "\"1\"", "null", "1e3", "18446744073709551616"] {
            assert!(matches!(Manifest::parse(objects([bad, "0"]).as_bytes()), Err(BadManifest::Json(_))), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn what_is_read_names_files_and_is_written_back(
            keyspace in "[a-z./\\\\%]{0,3}",
            paths in proptest::collection::vec("[a-c./ %é]{0,12}", 0..6),
            size in "([0-9]{1,21}|-1|1.5|null)",
            md5 in "(null|\"[0-9a-f=+/-]{0,34}\"|7)",
        ) {
            let entry = |path: &String| format!(r#"{{"path": "{path}", "MD5": {md5}, "size": {size}, "x": []}}"#);
            let entries: Vec<_> = paths.iter().map(entry).collect();
            let text =
                format!(r#"[{{"keyspace": "{keyspace}", "columnfamily": "t", "objects": [{}]}}]"#, entries.join(", "));
            if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
                proptest::prop_assert_eq!(manifest.object_count(), paths.len() as u64);
                proptest::prop_assert_eq!(&Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), &manifest);
                let table = manifest.sections[0].table().unwrap();
                let mut files: Vec<_> =
                    manifest.objects().map(|object| object.file(&table).unwrap().relative()).collect();
                for file in &files {
                    proptest::prop_assert!(file.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                }
                files.sort();
                files.dedup();
                proptest::prop_assert_eq!(files.len(), paths.len());
            }
        }
    }
}
