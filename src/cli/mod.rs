//! argv, terminal, and what people read. No decisions.

pub mod args;
pub mod logging;
pub mod output;
pub mod progress;
pub mod report;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use clap::error::ErrorKind;

use self::args::{Cli, Format};
use self::output::Output;
use self::progress::Screen;
use crate::cassandra::tls;
use crate::commands;
use crate::config::Config;
use crate::interrupt::Interrupt;

/// Runs the program. The exit code is the outcome.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Medusa prints the bare number.
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            let version = format!("{}\n", env!("CARGO_PKG_VERSION"));
            return ended(Output::new(Format::Text).raw(version.as_bytes()), &Screen::new());
        }
        Err(error) => error.exit(),
    };
    let screen = Arc::new(Screen::new());
    ended(run(&cli, &screen), &screen)
}

fn ended(outcome: anyhow::Result<()>, screen: &Screen) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.suspended(|| report::print(&error));
            ExitCode::from(report::exit_code(&error))
        }
    }
}

fn run(cli: &Cli, screen: &Arc<Screen>) -> anyhow::Result<()> {
    let output = Output::new(cli.global.output);
    if let Some(result) = commands::run_without_config(&cli.command, &output) {
        return result;
    }
    let config = Config::load(cli.global.config_file.as_deref(), &cli.global.overrides())?;
    logging::start(&config.logging, cli.global.verbosity, cli.global.without_log_timestamp, screen)?;
    for warning in &config.values.warnings {
        tracing::warn!("{warning}");
    }
    tls::install_provider();
    // Priorities are inherited by threads, so they are set before there are any.
    let prepared = commands::prepare_process(&cli.command, &config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let interrupt = Interrupt::listen()?;
        let monitor = progress::monitor(screen);
        Box::pin(commands::run(&cli.command, config, prepared, monitor, interrupt, &output)).await
    });
    // Threads that still read or write a file must not keep us: what they write has no name yet.
    runtime.shutdown_background();
    outcome
}
