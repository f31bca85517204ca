//! What a restore will do: plain data that can be printed and carried out.

use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use super::journal::FOLDER;
use crate::cassandra::facts::Owner;
use crate::cassandra::yaml::TokenEdit;
use crate::model::look::Look;
use crate::model::manifest::Object;
use crate::model::names::{BackupName, Fqdn, TableFile, TableFolder};
use crate::model::units::{count, counted, size};
use crate::monitor::Amount;
use crate::storage::layout::ObjectKey;

/// Whose identity the node has afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The backup is of this node.
    InPlace,
    /// The node takes over the tokens of the backed-up one.
    Remote,
}

/// One file that is brought.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    pub object: Object,
    pub key: ObjectKey,
    pub file: TableFile,
    /// Index into the plan's directories.
    pub directory: usize,
    /// Files of this node with the same name and size, which may have the content.
    pub candidates: Vec<PathBuf>,
    /// One of them has the recorded modification time as well.
    pub on_this_node: bool,
    /// It was brought by an attempt that was interrupted.
    pub staged: bool,
}

/// One table.
#[derive(Debug, Clone)]
pub struct PlannedTable {
    /// As in the backup.
    pub source: TableFolder,
    /// The folder in which Cassandra will look.
    pub target: TableFolder,
    pub files: Vec<PlannedFile>,
}

/// One directory of tables, with the space on its file system.
#[derive(Debug, Clone)]
pub struct Directory {
    pub data: PathBuf,
    /// Where files are staged and set aside.
    pub work: PathBuf,
    /// Bytes that are downloaded into it.
    pub needed: u64,
    /// Bytes that its file system has free.
    pub free: u64,
    /// Bytes of these that are not used.
    pub reserve: u64,
    /// User and group of the directory, for what is put into it.
    pub owner: (u32, u32),
}

/// The whole plan.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    pub backup: BackupName,
    pub source: Fqdn,
    pub mode: Mode,
    pub tables: Vec<PlannedTable>,
    /// Tables that the backup holds.
    pub tables_in_backup: usize,
    /// Tables whose folders are set aside and not replaced: the identity of the node before.
    pub set_aside: Vec<TableFolder>,
    /// Run before Cassandra is stopped.
    pub statements: Vec<String>,
    pub directories: Vec<Directory>,
    /// Folders that are emptied: commit log and saved caches.
    pub emptied: Vec<PathBuf>,
    /// Flush everything first: other tables must not lose what is in the commit log only.
    pub drain: bool,
    pub tokens: Option<TokenEdit>,
    /// Other nodes of the ring that own some of these tokens and are up. Only looked at in a restore of its own and in a dry run.
    pub owners: Vec<Owner>,
    /// Host ID of the node that answers here.
    pub id: Option<Uuid>,
    pub stop_command: String,
    pub start_command: String,
    pub endpoint: String,
    /// The release of Cassandra that runs here and was compared with that of the backup.
    pub cassandra: Option<String>,
    /// The one that is installed, where none answers: it was compared, too.
    pub installed: Option<String>,
    /// What the person should know.
    pub notes: Vec<String>,
}

impl RestorePlan {
    pub fn files(&self) -> impl Iterator<Item = &PlannedFile> {
        self.tables.iter().flat_map(|table| &table.files)
    }

    /// All files, and of them those that need not be downloaded.
    pub fn amounts(&self) -> (Amount, Amount) {
        let local = |file: &&PlannedFile| file.on_this_node || file.staged;
        (self.files().map(|file| file.object.size).sum(), self.files().filter(local).map(|file| file.object.size).sum())
    }

    pub fn text(&self, look: Look) -> String {
        let mut text = String::new();
        let (how, from) = match self.mode {
            Mode::InPlace => ("in place", String::new()),
            Mode::Remote => ("as a remote restore", format!(" from {}", self.source)),
        };
        let mut line = |label: &str, content: String| {
            text.push_str(&look.labelled(label, 15, &content));
        };
        let (all, local) = self.amounts();
        line("tables", format!("{} of {}", count(self.tables.len() as u64), count(self.tables_in_backup as u64)));
        line(
            "files",
            format!(
                "{}, {}: {} already on this node ({}), {} to download ({})",
                count(all.files),
                size(all.bytes),
                count(local.files),
                size(local.bytes),
                count(all.files - local.files),
                size(all.bytes - local.bytes)
            ),
        );
        for directory in self.directories.iter().filter(|directory| directory.needed > 0) {
            let (needed, free) = (size(directory.needed), size(directory.free));
            line("space", format!("{} needs {needed}, has {free}", directory.data.display()));
        }
        for table in self.tables.iter().filter(|table| table.source != table.target) {
            line(
                &table.source.fqtn(),
                format!("was re-created since: files go into its live folder {}", table.target.folder),
            );
        }
        for statement in &self.statements {
            line("first", format!("run {}", statement.split_whitespace().take(4).collect::<Vec<_>>().join(" ")));
        }
        if let Some(tokens) = &self.tokens {
            line(
                "tokens",
                format!("{} from {} go into cassandra.yaml", counted(tokens.tokens.len() as u64, "token"), self.source),
            );
        }
        for table in &self.set_aside {
            line(&table.fqtn(), "is set aside and not restored: it is the identity of the node before".to_owned());
        }
        for note in &self.notes {
            line("note", note.clone());
        }
        let emptied: Vec<_> = self.emptied.iter().map(|folder| folder.display().to_string()).collect();
        line("set aside", format!("what is in {}", emptied.join(", ")));
        let drain = if self.drain { "drain and " } else { "" };
        line(
            "then",
            format!(
                "{drain}stop Cassandra ({}), swap {}, start ({}), wait for {}",
                self.stop_command,
                counted(self.tables.len() as u64, "table folder"),
                self.start_command,
                self.endpoint
            ),
        );
        if let Some(directory) = self.directories.first() {
            let undo = directory.data.join(format!("{}{}", FOLDER, self.backup)).join("undo");
            line("undo", format!("the present folders stay in {} until Cassandra answers again", undo.display()));
        }
        let head = look.headed(&format!("restore {}{from} {how}", self.backup), "nothing has been changed yet");
        head + &text
    }

    pub fn json(&self) -> Value {
        let (all, local) = self.amounts();
        let table = |table: &PlannedTable| {
            json!({
                "source": table.source.to_string(),
                "target": table.target.to_string(),
                "files": table.files.len(),
                "bytes": table.files.iter().map(|file| file.object.size).sum::<u64>(),
            })
        };
        let owner = |owner: &Owner| json!({ "host": owner.host, "host_id": owner.id.to_string() });
        let directory = |directory: &Directory| json!({ "path": directory.data, "needed_bytes": directory.needed, "free_bytes": directory.free });
        json!({
            "version": 1,
            "dry_run": true,
            "backup": self.backup.as_str(),
            "source": self.source.as_str(),
            "mode": match self.mode { Mode::InPlace => "in place", Mode::Remote => "remote" },
            "tables_in_backup": self.tables_in_backup,
            "files": all.files,
            "bytes": all.bytes,
            "local_files": local.files,
            "local_bytes": local.bytes,
            "tables": self.tables.iter().map(table).collect::<Vec<_>>(),
            "set_aside": self.set_aside.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "emptied": self.emptied,
            "directories": self.directories.iter().map(directory).collect::<Vec<_>>(),
            "statements": self.statements,
            "tokens": self.tokens.as_ref().map(|edit| &edit.tokens),
            "owners": self.owners.iter().map(owner).collect::<Vec<_>>(),
            "host_id": self.id.as_ref().map(Uuid::to_string),
            "drain": self.drain,
            "cassandra": self.cassandra,
            "installed": self.installed,
            "notes": self.notes,
        })
    }
}
