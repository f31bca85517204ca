//! What a coordinator gives on to the nodes of what it was given itself.

use std::path::PathBuf;

use super::Overrides;

const UTC: &str = "--utc";

/// What the coordinator gives on to the nodes.
#[derive(Debug, Clone, Default)]
pub struct Forward {
    /// As given; a node without it uses its own default.
    pub config_file: Option<PathBuf>,
    pub overrides: Overrides,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// `--quiet` is not given on: what nodes say is shown or not by who runs the command, and whoever takes up their jobs after
    /// it may want to hear it.
    pub utc: bool,
}

impl Forward {
    /// Global options, then the command. `fqdn` only where the node acts for another.
    pub fn arguments(&self, fqdn: Option<&str>, command: &[String]) -> Vec<String> {
        let Overrides { bucket_name, key_file, prefix, backup_grace_period_in_days, .. } = &self.overrides;
        let file = self.config_file.as_ref().map(|file| file.display().to_string());
        let mut arguments = Vec::new();
        for (option, value) in [
            ("--config-file", file.as_deref()),
            ("--bucket-name", bucket_name.as_deref()),
            ("--prefix", prefix.as_deref()),
            ("--key-file", key_file.as_deref()),
            ("--backup-grace-period-in-days", backup_grace_period_in_days.as_deref()),
            ("--fqdn", fqdn),
        ] {
            // In one word: a value may begin with a dash.
            arguments.extend(value.map(|value| format!("{option}={value}")));
        }
        if self.verbosity > 0 {
            arguments.push(format!("-{}", "v".repeat(self.verbosity.into())));
        }
        arguments.extend(self.utc.then(|| UTC.to_owned()));
        arguments.extend_from_slice(command);
        arguments
    }

    /// Whether an argument only says which messages are written, and how.
    pub fn is_of_messages(argument: &str) -> bool {
        let is_verbosity = || argument.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|byte| byte == b'v'));
        argument == UTC || is_verbosity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn nodes_are_given_what_decides_about_the_bucket() {
        let overrides = Overrides {
            bucket_name: Some("b".into()),
            prefix: Some("-p".into()),
            key_file: Some("/k".into()),
            fqdn: Some("coordinator".into()),
            backup_grace_period_in_days: Some("3".into()),
            ssh_username: Some("u".into()),
            ssh_key_file: Some("/s".into()),
        };
        let forward = Forward { config_file: Some("/etc/x.ini".into()), overrides, verbosity: 2, utc: true };
        let expected = "--config-file=/etc/x.ini --bucket-name=b --prefix=-p --key-file=/k \
                        --backup-grace-period-in-days=3 --fqdn=n1 -vv --utc status";
        assert_eq!(forward.arguments(Some("n1"), &words("status")), words(expected));
        assert_eq!(Forward::default().arguments(None, &words("status --x")), words("status --x"));
    }
}
