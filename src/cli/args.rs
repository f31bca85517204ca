//! The command line as it was typed: options of all commands, one command, and Medusa's spellings of both.

use std::ffi::OsString;

use clap::{ArgAction, CommandFactory as _, Parser};

use crate::commands::command::Command;
use crate::commands::global::GlobalArgs;

/// Backup and restore of Apache Cassandra
// Of an option that is given twice the last one counts, as in Medusa: wrappers add to a line that has one.
#[derive(Debug, Parser)]
#[command(
    name = "medusa",
    version,
    disable_version_flag = true,
    arg_required_else_help = true,
    args_override_self = true
)]
pub struct Cli {
    /// Prints the version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads a command line.
    ///
    /// # Errors
    /// What clap says, also about options that stand on both sides of the command and contradict each other.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(with_long_options(words))?;
        if cli.global.quiet && cli.global.verbosity > 0 {
            let said = "the argument '--quiet' cannot be used with '--verbosity...'";
            return Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, said));
        }
        Ok(cli)
    }
}

/// Medusa's options of two letters, which no short option can have, and what they stand for.
const TWO_LETTERS: [(&str, &str); 3] =
    [("-ps", "--parallel-snapshots"), ("-pu", "--parallel-uploads"), ("-pr", "--parallel-restores")];

/// The command line with long options for Medusa's short ones of two letters, which only commands about a cluster have.
pub fn with_long_options(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut of_cluster = false;
    let mut long = |word: OsString| {
        let Some(text) = word.to_str().map(str::to_owned) else { return word };
        of_cluster |= matches!(text.as_str(), "backup-cluster" | "restore-cluster");
        let (option, value) =
            text.split_once('=').map_or((text.as_str(), None), |(option, value)| (option, Some(value)));
        let found = TWO_LETTERS.iter().find(|(short, _)| of_cluster && *short == option);
        match (found, value) {
            (None, _) => word,
            (Some((_, name)), None) => (*name).into(),
            (Some((_, name)), Some(value)) => format!("{name}={value}").into(),
        }
    };
    words.into_iter().map(&mut long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::output::Format;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for words in [
            ["medusa", "--fqdn", "n1", "-vv", "status", "--backup-name", "b1"],
            ["medusa", "status", "--backup-name", "b1", "--fqdn", "n1", "-vv"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!((cli.global.fqdn.as_deref(), cli.global.verbosity), (Some("n1"), 2));
        }
    }

    #[test]
    fn quiet_and_verbose_contradict_each_other_wherever_they_stand() {
        let read = |line: &str| Cli::read(line.split(' ').map(OsString::from)).map(|cli| cli.global.quiet);
        for line in ["medusa -q -v list-backups", "medusa -v list-backups --quiet", "medusa -q list-backups -vv"] {
            let error = read(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (clap::error::ErrorKind::ArgumentConflict, 2), "{line}");
        }
        assert!(read("medusa list-backups -q --utc").unwrap());
        assert!(!read("medusa list-backups -v").unwrap());
    }

    #[test]
    fn every_command_knows_its_name() {
        let name = ["--backup-name", "b1"];
        for command in Cli::command().get_subcommands().map(|command| command.get_name().to_owned()) {
            let further: &[&str] = match command.as_str() {
                "restore-node" | "restore-cluster" | "status" | "verify" | "fetch-tokenmap" | "delete-backup" => &name,
                "download" => &["--backup-name", "b1", "--download-destination", "/tmp"],
                "completions" => &["bash"],
                "man-pages" => &["/tmp"],
                _ => &[],
            };
            let cli = Cli::try_parse_from([&["medusa", &command], further].concat()).unwrap();
            assert_eq!(cli.command.name(), command);
            assert!(!cli.command.is_dry_run());
            if cli.command.writes() {
                let dry = Cli::try_parse_from([&["medusa", &command, "--dry-run"], further].concat()).unwrap();
                assert!(dry.command.is_dry_run(), "{command}");
            }
        }
    }

    #[test]
    fn of_an_option_that_is_given_twice_the_last_counts() {
        let read =
            |line: &str| Cli::read(line.split(' ').map(OsString::from)).unwrap_or_else(|error| panic!("{error}"));
        for line in [
            "medusa --fqdn n1 --fqdn n2 -v -v list-backups --show-all --show-all --output json --output text",
            "medusa --fqdn n1 -v -o json list-backups --show-all --show-all --fqdn n2 -v -o text",
            "medusa list-backups --fqdn n1 --fqdn n2 -vv -o json -o text --output text",
        ] {
            let global = read(line).global;
            assert_eq!((global.fqdn.as_deref(), global.output), (Some("n2"), Format::Text), "{line}");
        }
        assert_eq!(read("medusa -q list-backups --utc --utc -q -q").global.verbosity, 0);
        assert_eq!(read("medusa -v -v list-backups").global.verbosity, 2);
        let Command::RestoreNode(args) = read(
            "medusa restore-node --backup-name b1 --keyspace k1 --backup-name b2 --keyspace k2 --table a.b --table c.d",
        )
        .command
        else {
            panic!("restore-node")
        };
        let said = format!("{args:?}");
        assert!(said.contains("\"b2\"") && !said.contains("\"b1\""), "{said}");
        for kept in ["\"k1\"", "\"k2\"", "\"a.b\"", "\"c.d\""] {
            assert!(said.contains(kept), "{kept}: {said}");
        }
    }

    #[test]
    fn options_of_two_letters_are_those_of_the_cluster() {
        let long = |line: &str| -> Vec<_> { with_long_options(line.split(' ').map(OsString::from)) };
        let words = |line: &str| -> Vec<_> { line.split(' ').map(OsString::from).collect() };
        assert_eq!(
            long("medusa -v backup-cluster -ps 20 -pu=4 --backup-name -px"),
            words("medusa -v backup-cluster --parallel-snapshots 20 --parallel-uploads=4 --backup-name -px")
        );
        assert_eq!(long("medusa restore-cluster -pr 3"), words("medusa restore-cluster --parallel-restores 3"));
        assert_eq!(long("medusa --prefix -ps status"), words("medusa --prefix -ps status"));
    }

    #[test]
    fn both_names_of_the_backup_command_work() {
        for name in ["backup", "backup-node"] {
            assert!(matches!(Cli::try_parse_from(["medusa", name]).unwrap().command, Command::BackupNode(_)));
        }
    }
}
