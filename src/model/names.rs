//! Names that become path elements in a bucket and on a node.
//!
//! A [`BackupName`] or [`Fqdn`] can always be put between two slashes: it is one path element. New backup names are
//! checked more strictly than existing ones, because a bucket may be shared with cassandra-medusa, which takes some
//! names for something else.

use std::fmt;

/// Why a name is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} {name:?} {reason}")]
pub struct UnsafeName {
    what: &'static str,
    name: String,
    reason: String,
}

impl UnsafeName {
    fn new(what: &'static str, name: &str, reason: impl Into<String>) -> Self {
        Self { what, name: name.to_owned(), reason: reason.into() }
    }
}

fn path_element(what: &'static str, name: &str) -> Result<(), UnsafeName> {
    let refuse = |reason: &str| Err(UnsafeName::new(what, name, reason));
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.contains('/') {
        return refuse("contains a slash, but it becomes one folder of the bucket");
    }
    if name == "." || name == ".." {
        return refuse("is a relative folder");
    }
    if name.contains('\0') {
        return refuse("contains a NUL character");
    }
    Ok(())
}

/// The name that all nodes give to one cluster backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupName(String);

/// Parts of Medusa's index object names; a backup name that contains one of them makes its listing misread the index.
const INDEX_WORDS: [&str; 8] =
    ["tokenmap_", "schema_", "manifest_", "started_", "finished_", "differential", "incremental", "latest_backup"];

/// Longest backup name: the snapshot folder `medusa-N` must fit into one file name of 255 bytes.
const LONGEST_NAME: usize = 200;

impl BackupName {
    /// The name of a backup that will be written.
    ///
    /// # Errors
    /// Names that cassandra-medusa would misread or that would collide with its folders are refused with the reason.
    pub fn new(name: &str) -> Result<Self, UnsafeName> {
        const WHAT: &str = "backup name";
        path_element(WHAT, name)?;
        let refuse = |reason: String| Err(UnsafeName::new(WHAT, name, reason));
        if name.len() > LONGEST_NAME {
            return refuse(format!("is longer than {LONGEST_NAME} bytes"));
        }
        if let Some(bad) = name.chars().find(|c| c.is_whitespace() || c.is_control() || "'\"`\\".contains(*c)) {
            return refuse(format!(
                "contains {bad:?}; blanks, quotes, backslashes and control characters are not safe"
            ));
        }
        if name.starts_with("data") || "data".starts_with(name) {
            return refuse(
                "is confused with the folder data, which holds the files of all differential backups".into(),
            );
        }
        if name.ends_with("nodes") {
            return refuse("ends in \"nodes\", which Medusa takes for a folder of DSE".into());
        }
        if let Some(word) = INDEX_WORDS.iter().find(|word| name.contains(*word)) {
            return refuse(format!("contains {word:?}, which Medusa uses to recognise its index entries"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of a backup that exists, whoever wrote it.
    ///
    /// # Errors
    /// What cannot be one path element is refused, and the folder of the differential pool: nothing that is done to a backup
    /// may be done to that.
    pub fn existing(name: &str) -> Result<Self, UnsafeName> {
        const WHAT: &str = "backup name";
        path_element(WHAT, name)?;
        if name == "data" {
            return Err(UnsafeName::new(WHAT, name, "is the folder that holds the files of all differential backups"));
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag of the snapshot that belongs to this backup.
    pub fn snapshot_tag(&self) -> String {
        format!("medusa-{}", self.0)
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder name of a node in the bucket. Usually its fully qualified domain name or its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fqdn(String);

impl Fqdn {
    /// # Errors
    /// What cannot be one path element is refused.
    pub fn new(name: &str) -> Result<Self, UnsafeName> {
        path_element("node name", name)?;
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of one table on disk and in the bucket: keyspace and `name-<32 hex digits of the table id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableFolder {
    pub keyspace: String,
    /// The manifest calls it `columnfamily`. Folders of Cassandra before 2.1 have no id.
    pub folder: String,
}

impl TableFolder {
    /// # Errors
    /// What cannot be two path elements is refused.
    pub fn new(keyspace: &str, folder: &str) -> Result<Self, UnsafeName> {
        path_element("keyspace", keyspace)?;
        path_element("table folder", folder)?;
        Ok(Self { keyspace: keyspace.to_owned(), folder: folder.to_owned() })
    }

    /// The table's name: the folder up to the first dash (names themselves hold letters, digits and underscores).
    pub fn table(&self) -> &str {
        self.folder.split_once('-').map_or(self.folder.as_str(), |(table, _)| table)
    }

    /// The table id, 32 hex digits, if the folder has one.
    pub fn id(&self) -> Option<&str> {
        self.folder.split_once('-').map(|(_, id)| id).filter(|id| is_table_id(id))
    }

    /// The same table in a folder of another id.
    #[must_use]
    pub fn with_id(&self, id: &str) -> Self {
        Self { keyspace: self.keyspace.clone(), folder: format!("{}-{id}", self.table()) }
    }

    /// `keyspace.table`, as the command line has it.
    pub fn fqtn(&self) -> String {
        format!("{}.{}", self.keyspace, self.table())
    }
}

impl fmt::Display for TableFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.keyspace, self.folder)
    }
}

/// Whether `text` is a table id as folders have it: a UUID without its dashes.
pub fn is_table_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A file of a table: its name, and the secondary-index folder (`.name`) that holds it, if any.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableFile {
    pub index: Option<String>,
    pub name: String,
}

impl TableFile {
    /// The path below the table's folder.
    pub fn relative(&self) -> std::path::PathBuf {
        match &self.index {
            Some(index) => std::path::Path::new(index).join(&self.name),
            None => self.name.clone().into(),
        }
    }
}

impl fmt::Display for TableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.index {
            Some(index) => write!(f, "{index}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_backup_names_that_medusa_would_misread_are_refused() {
        for name in [
            "",
            "a/b",
            ".",
            "..",
            "a b",
            "a'b",
            "a\"b",
            "a\tb",
            "a\nb",
            "d",
            "da",
            "dat",
            "data",
            "data-1",
            "mynodes",
            "x_tokenmap_1",
            "my_schema_x",
            "started_1",
            "finished_2",
            "differential",
            "incremental-1",
            "manifest_x",
            "nul\0",
        ] {
            let error = BackupName::new(name).expect_err(name).to_string();
            assert!(error.starts_with("backup name"), "{error}");
        }
        assert!(BackupName::new(&"n".repeat(201)).is_err());
    }

    #[test]
    fn ordinary_backup_names_are_accepted() {
        for name in ["202611211030", "nightly-0412", "b1", "medusa_1", "nodes-1", "D", "été", "100%"] {
            assert_eq!(BackupName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn existing_names_may_be_any_path_element_but_the_pool() {
        for name in ["data-1", "with blank", "x nodes", "%"] {
            assert!(BackupName::existing(name).is_ok(), "{name}");
        }
        for name in ["", "a/b", "..", "data"] {
            assert!(BackupName::existing(name).is_err(), "{name}");
        }
    }

    #[test]
    fn table_folders_are_split_at_the_first_dash() {
        let folder = TableFolder::new("shop", "orders-34998de0e59711f199fcf93f14538dd2").unwrap();
        assert_eq!(folder.table(), "orders");
        assert_eq!(folder.id(), Some("34998de0e59711f199fcf93f14538dd2"));
        assert_eq!(folder.fqtn(), "shop.orders");
        assert_eq!(folder.with_id("9f31").folder, "orders-9f31");
        assert_eq!(TableFolder::new("ks", "old").unwrap().id(), None);
        assert!(TableFolder::new("ks", "../etc").is_err());
    }
}
