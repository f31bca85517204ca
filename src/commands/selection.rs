//! The options that say which tables are restored.

use clap::Args;

use crate::restore::select::Selection;

/// Everything, unless keyspaces or tables are named.
#[derive(Debug, Args)]
pub(super) struct SelectionArgs {
    /// Only tables of this keyspace; may be given several times
    #[arg(long = "keyspace", value_name = "KEYSPACE")]
    keyspaces: Vec<String>,
    /// Only this table; may be given several times
    #[arg(long = "table", value_name = "KEYSPACE.TABLE")]
    tables: Vec<String>,
    /// With --keyspace or --table: the system keyspaces as well
    #[arg(long)]
    with_system: bool,
}

impl SelectionArgs {
    pub(super) fn selection(&self) -> Selection {
        Selection::new(&self.keyspaces, &self.tables, self.with_system)
    }
}
