//! `man-pages`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

/// Writes the man pages of all commands into a folder
#[derive(Debug, Args)]
pub struct ManPagesArgs {
    /// An existing folder
    folder: PathBuf,
}

impl ManPagesArgs {
    /// `program`: the definition of the command line, which they are made of.
    pub fn run(&self, program: clap::Command) -> anyhow::Result<()> {
        clap_mangen::generate_to(program, &self.folder)
            .with_context(|| format!("could not write into {}", self.folder.display()))
    }
}
