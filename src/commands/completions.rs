//! `completions`.

use clap::Args;
use clap_complete::Shell;

use crate::screen::output::Output;

/// Prints the completions of a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// `program`: the definition of the command line, which they are made of.
    pub fn run(&self, mut program: clap::Command, output: &Output) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "medusa", &mut script);
        output.raw(&script)
    }
}
