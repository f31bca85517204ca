//! `completions` and `man-pages`: both come from the definition of the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::args::Cli;
use crate::cli::output::Output;

/// Prints the completions of a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    pub fn run(&self, output: &Output) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "medusa", &mut script);
        output.raw(&script)
    }
}

/// Writes the man pages of all commands into a folder
#[derive(Debug, Args)]
pub struct ManPagesArgs {
    /// An existing folder
    folder: PathBuf,
}

impl ManPagesArgs {
    pub fn run(&self) -> anyhow::Result<()> {
        clap_mangen::generate_to(Cli::command(), &self.folder)
            .with_context(|| format!("could not write into {}", self.folder.display()))
    }
}
