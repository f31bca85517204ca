//! What a load will do: plain data that can be printed and carried out.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::schema::{SchemaPlan, Step};
use crate::model::look::Look;
use crate::model::manifest::Object;
use crate::model::names::{BackupName, Fqdn, TableFile};
use crate::model::units::{count, counted, size};
use crate::monitor::Amount;
use crate::storage::layout::ObjectKey;

/// One file that is brought.
#[derive(Debug, Clone)]
pub struct LoadFile {
    pub object: Object,
    pub key: ObjectKey,
    pub file: TableFile,
    /// It was brought by an earlier attempt.
    pub staged: bool,
}

/// The files of one table of one source.
#[derive(Debug, Clone)]
pub struct LoadTable {
    pub source: Fqdn,
    /// `keyspace.table`.
    pub name: String,
    /// Where sstableloader reads them: its last two parts are keyspace and table.
    pub folder: PathBuf,
    pub files: Vec<LoadFile>,
}

impl LoadTable {
    pub fn amount(&self) -> Amount {
        self.files.iter().map(|file| file.object.size).sum()
    }
}

/// The whole plan.
#[derive(Debug)]
pub struct LoadPlan {
    pub backup: BackupName,
    pub sources: Vec<Fqdn>,
    pub schema: SchemaPlan,
    /// Those that have files. Empty with `--schema-only`.
    pub tables: Vec<LoadTable>,
    /// The folder for all files.
    pub stage: PathBuf,
    /// Bytes that are downloaded into it.
    pub needed: u64,
    /// Bytes that its file system has free.
    pub free: u64,
    /// Where the tool asks for the ring.
    pub address: SocketAddr,
    pub notes: Vec<String>,
}

impl LoadTable {
    /// Fails unless all files are there: the loader takes what it finds, and says nothing of what it does not.
    pub fn check_stage(&self) -> anyhow::Result<()> {
        for file in &self.files {
            let path = self.folder.join(file.file.relative());
            let metadata = fs_err::symlink_metadata(&path)?;
            // Medusa has overwritten the object, so that it need not have the recorded size.
            let has_its_size = file.object.is_rewritten_by_medusa() || metadata.len() == file.object.size;
            anyhow::ensure!(metadata.is_file() && has_its_size, "{} has changed", path.display());
        }
        Ok(())
    }
}

impl LoadPlan {
    pub fn files(&self) -> impl Iterator<Item = &LoadFile> {
        self.tables.iter().flat_map(|table| &table.files)
    }

    /// All files, and of them those that were brought before.
    pub fn amounts(&self) -> (Amount, Amount) {
        let staged = self.files().filter(|file| file.staged);
        (self.files().map(|file| file.object.size).sum(), staged.map(|file| file.object.size).sum())
    }

    fn source_names(&self) -> Vec<&str> {
        self.sources.iter().map(Fqdn::as_str).collect()
    }

    pub fn text(&self, look: Look) -> String {
        let mut text = String::new();
        let mut line = |label: &str, content: String| {
            text.push_str(&look.labelled(label, 15, &content));
        };
        let (all, staged) = self.amounts();
        line("tables", counted(self.tables.len() as u64, "table"));
        line(
            "files",
            format!(
                "{}, {}: {} brought before ({}), {} to download ({})",
                count(all.files),
                size(all.bytes),
                count(staged.files),
                size(staged.bytes),
                count(all.files - staged.files),
                size(all.bytes - staged.bytes)
            ),
        );
        if self.needed > 0 {
            let (stage, needed, free) = (self.stage.display(), size(self.needed), size(self.free));
            line("space", format!("{stage} needs {needed}, has {free}"));
        }
        for step in &self.schema.drop {
            line("drop", step.what.clone());
        }
        for step in &self.schema.create {
            line("create", step.what.clone());
        }
        for table in &self.tables {
            let amount = table.amount();
            line(
                "load",
                format!(
                    "{} of {}: {}, {}",
                    table.name,
                    table.source,
                    counted(amount.files, "file"),
                    size(amount.bytes)
                ),
            );
        }
        for step in &self.schema.create_after {
            line("create then", step.what.clone());
        }
        for note in self.notes.iter().chain(&self.schema.notes) {
            line("note", note.clone());
        }
        line("into", format!("the cluster of {}; Cassandra keeps running", self.address));
        let from = self.source_names().join(", ");
        let head = format!("load {} from {from} with sstableloader", self.backup);
        look.headed(&head, "nothing has been changed yet") + &text
    }

    pub fn json(&self) -> Value {
        let (all, staged) = self.amounts();
        let step = |step: &Step| json!({ "what": step.what, "statement": step.statement });
        let table = |table: &LoadTable| {
            let amount = table.amount();
            json!({ "source": table.source.as_str(), "table": table.name, "files": amount.files, "bytes": amount.bytes })
        };
        json!({
            "version": 1,
            "dry_run": true,
            "backup": self.backup.as_str(),
            "mode": "sstableloader",
            "sources": self.source_names(),
            "drop": self.schema.drop.iter().map(step).collect::<Vec<_>>(),
            "create": self.schema.create.iter().map(step).collect::<Vec<_>>(),
            "create_after": self.schema.create_after.iter().map(step).collect::<Vec<_>>(),
            "tables": self.tables.iter().map(table).collect::<Vec<_>>(),
            "files": all.files,
            "bytes": all.bytes,
            "local_files": staged.files,
            "local_bytes": staged.bytes,
            "stage": { "path": self.stage, "needed_bytes": self.needed, "free_bytes": self.free },
            "notes": self.notes.iter().chain(&self.schema.notes).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_medusa_overwrites_may_have_another_size() {
        let folder = tempfile::tempdir().unwrap();
        let table = |name: &str| LoadTable {
            source: Fqdn::new("node1").unwrap(),
            name: "k.t".into(),
            folder: folder.path().to_owned(),
            files: vec![LoadFile {
                object: serde_json::from_str(&format!(
                    r#"{{"path": "node1/data/k/t-1/{name}", "MD5": null, "size": 3}}"#
                ))
                .unwrap(),
                key: ObjectKey::listed(name.into()),
                file: TableFile { index: None, name: name.into() },
                staged: false,
            }],
        };
        for (name, is_good) in
            [("nb-1-big-Summary.db", true), ("nb-1-big-Statistics.db", true), ("nb-1-big-Data.db", false)]
        {
            assert!(table(name).check_stage().is_err(), "{name} is not there");
            std::fs::write(folder.path().join(name), "four").unwrap();
            assert_eq!(table(name).check_stage().is_ok(), is_good, "{name}");
        }
    }
}
