//! The options that every command takes.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};

use crate::config::forward::Forward;
use crate::config::{DEFAULT_PATH, Overrides};
use crate::screen::output::Format;

/// Options that may stand before or after the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// More messages; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbosity: u8,
    /// No progress on stderr: only warnings and errors, and the result on stdout
    #[arg(short, long, global = true, conflicts_with = "verbosity")]
    pub quiet: bool,
    /// Times in UTC instead of local time
    #[arg(long, global = true)]
    pub utc: bool,
    /// No time in front of messages
    #[arg(long, global = true)]
    pub without_log_timestamp: bool,
    /// The configuration [default: /etc/medusa/medusa.ini]
    #[arg(long, global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Overrides `bucket_name`
    #[arg(long, global = true, value_name = "NAME")]
    pub bucket_name: Option<String>,
    /// Overrides `key_file` of `[storage]`
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Overrides `prefix`
    #[arg(long, global = true, value_name = "NAME")]
    pub prefix: Option<String>,
    /// Acts as another host
    #[arg(long, global = true, value_name = "NAME")]
    pub fqdn: Option<String>,
    /// Overrides `backup_grace_period_in_days`
    #[arg(long, global = true, value_name = "DAYS")]
    pub backup_grace_period_in_days: Option<String>,
    /// Overrides `username` of `[ssh]`
    #[arg(long, global = true, value_name = "USER")]
    pub ssh_username: Option<String>,
    /// Overrides `key_file` of `[ssh]`
    #[arg(long, global = true, value_name = "FILE")]
    pub ssh_key_file: Option<String>,
    /// What stdout gets
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

impl GlobalArgs {
    pub fn overrides(&self) -> Overrides {
        Overrides {
            bucket_name: self.bucket_name.clone(),
            key_file: self.key_file.clone(),
            prefix: self.prefix.clone(),
            fqdn: self.fqdn.clone(),
            backup_grace_period_in_days: self.backup_grace_period_in_days.clone(),
            ssh_username: self.ssh_username.clone(),
            ssh_key_file: self.ssh_key_file.clone(),
        }
    }

    /// The configuration that is read.
    pub fn path(&self) -> &Path {
        self.config_file.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }

    /// What runs on other hosts are given.
    pub fn forward(&self) -> Forward {
        Forward {
            config_file: self.config_file.clone(),
            overrides: self.overrides(),
            verbosity: self.verbosity,
            utc: self.utc,
        }
    }
}
