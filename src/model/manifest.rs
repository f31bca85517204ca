//! The manifest: what one node stored under one backup name.
//!
//! The fields `keyspace`, `columnfamily`, `objects`, `path`, `MD5` and `size` are cassandra-medusa's. `SHA256`, `mtime` and
//! `corrupt` are ours; Medusa ignores them.

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
}

impl Manifest {
    /// Reads a manifest and checks that every entry names a file of its table.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        for section in &manifest.sections {
            let table = section.table()?;
            for object in &section.objects {
                object.file(&table)?;
            }
        }
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
        let bad = || BadManifest::Path(self.path.to_string());
        let mut elements = self.path.rsplit('/');
        let name = elements.next().filter(|name| is_file_name(name)).ok_or_else(bad)?;
        let parent = elements.next().ok_or_else(bad)?;
        let kept = (parent.starts_with('.') || parent.ends_with("nodes")) && parent != table.folder;
        let index = kept.then(|| parent.to_owned());
        if index.as_deref().is_some_and(|index| !is_file_name(index)) {
            return Err(bad());
        }
        Ok(TableFile { index, name: name.to_owned() })
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

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
