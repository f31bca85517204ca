//! The program from its first moment to its exit code: reads the command line and the configuration, starts logging, runs the
//! command, and tells how it ended.

pub mod args;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use self::args::Cli;
use crate::cassandra::tls;
use crate::commands;
use crate::commands::command::Command;
use crate::commands::doctor::DoctorArgs;
use crate::commands::global::GlobalArgs;
use crate::config::{self, Config, ConfigError};
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::model::units::{Zone, took};
use crate::screen::logging::{FILE, Verbosity};
use crate::screen::output::{Format, Output};
use crate::screen::progress::Screen;
use crate::screen::terminal::Terminal;
use crate::screen::{logging, progress, report};

/// Runs the program. The exit code is the outcome.
pub fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        // Medusa prints the bare number.
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            let version = format!("{}\n", env!("CARGO_PKG_VERSION"));
            return ended(Output::new(Format::Text).raw(version.as_bytes()), &Screen::new(false));
        }
        Err(error) => error.exit(),
    };
    if cli.global.utc {
        Zone::Utc.choose();
    }
    let screen = Arc::new(Screen::new(cli.global.quiet));
    ended(run(&cli, &screen), &screen)
}

fn ended(outcome: anyhow::Result<()>, screen: &Screen) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.suspended(|| report::print(&error, Terminal::stderr()));
            report::log(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

fn configure(global: &GlobalArgs) -> anyhow::Result<Config> {
    Config::load(global.config_file.as_deref(), &global.overrides()).map_err(|error| match error {
        ConfigError::NoFile => Failure::usage(error.to_string()).hint("medusa init writes one for this node").into(),
        error => anyhow::Error::from(error),
    })
}

fn start_logging(logging: &config::Logging, global: &GlobalArgs, screen: &Arc<Screen>) -> Result<(), Failure> {
    let verbosity = Verbosity { quiet: global.quiet, more: global.verbosity };
    logging::start(logging, verbosity, global.without_log_timestamp, screen)
}

fn run(cli: &Cli, screen: &Arc<Screen>) -> anyhow::Result<()> {
    let output = Output::new(cli.global.output);
    if let Some(result) = commands::run_without_config(&cli.command, &cli.global, Cli::command, &output) {
        return result;
    }
    let config = match (configure(&cli.global), &cli.command) {
        (Err(error), Command::Doctor(_)) => return DoctorArgs::without_config(cli.global.path(), &error, &output),
        (config, _) => config?,
    };
    let is_doctor = matches!(cli.command, Command::Doctor(_));
    let logs = match start_logging(&config.logging, &cli.global, screen) {
        // For doctor a log file that cannot be written is one finding of many.
        Err(failure) if is_doctor => {
            start_logging(&config::Logging { enabled: false, ..config.logging.clone() }, &cli.global, screen)?;
            Err(failure)
        }
        Err(failure) => return Err(failure.into()),
        Ok(()) => Ok(()),
    };
    if !is_doctor {
        for warning in &config.values.warnings {
            tracing::warn!("{warning}");
        }
    }
    let (name, begin) = (cli.command.name(), Instant::now());
    tracing::info!(target: FILE, "{name} of medusa {} begins", env!("CARGO_PKG_VERSION"));
    tls::install_provider();
    // Priorities are inherited by threads, so they are set before there are any.
    let prepared = logs.and_then(|()| commands::prepare_process(&cli.command, &config));
    let forward = cli.global.forward();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let told = Arc::clone(screen);
        let interrupt = Interrupt::listen(move |line| told.print(line))?;
        let monitor = progress::monitor(screen);
        Box::pin(commands::run(&cli.command, config, forward, prepared, monitor, interrupt, &output)).await
    });
    // Threads that still read or write a file must not keep us: what they write has no name yet. They are not shut down either:
    // glibc may crash where a thread ends at the moment in which it is detached.
    std::mem::forget(runtime);
    let code = outcome.as_ref().err().map_or(0, report::exit_code);
    tracing::info!(target: FILE, "{name} ended after {} with exit code {code}", took(begin.elapsed()));
    outcome
}
