//! `use_sudo_for_restore`: a restore by a user who may not write Cassandra's files runs itself again under sudo.
//!
//! Medusa calls sudo for every file. Here the whole command runs as root, and gives what it writes to the owner of the data
//! directory.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, geteuid};

use crate::cassandra::yaml::CassandraYaml;
use crate::config::Config;
use crate::config::values::Origin;
use crate::error::Failure;

/// Replaces this process by the same command under sudo, where that is needed and wanted.
///
/// # Errors
/// sudo is not there, or asks for a password, or does not allow it.
pub fn if_needed(config: &Config) -> Result<(), Failure> {
    if !config.storage.use_sudo_for_restore || geteuid().is_root() {
        return Ok(());
    }
    // What is wrong with the file is said by who needs more of it.
    let Ok(yaml) = CassandraYaml::read(&config.cassandra.config_file) else { return Ok(()) };
    let owned_by = |folder: &std::path::PathBuf| fs_err::metadata(folder).map(|metadata| Uid::from_raw(metadata.uid()));
    if yaml.data_directories.iter().filter_map(|folder| owned_by(folder).ok()).all(|owner| owner == geteuid()) {
        return Ok(());
    }
    let refused = || {
        Failure::failed("this user does not own Cassandra's data, and sudo does not let it run this command as root")
            .hint(
                "run it as root or as Cassandra's user, or allow it in sudoers without a password; \
                 use_sudo_for_restore = False in [storage] tries without sudo",
            )
    };
    let program = std::env::current_exe().map_err(|error| refused().cause(error))?;
    let sudo = |options: &[&str]| {
        let mut command = Command::new("sudo");
        command.args(options).arg("--").arg(&program).args(std::env::args_os().skip(1));
        command
    };
    let allowed = sudo(&["-n", "-l"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match allowed {
        Ok(status) if status.success() => {}
        Ok(_) => return Err(refused()),
        Err(error) => return Err(refused().cause(error)),
    }
    tracing::info!("running as root by way of sudo (use_sudo_for_restore)");
    let variables = variables_in_effect(config).join(",");
    let preserved = format!("--preserve-env={variables}");
    let options: &[&str] = if variables.is_empty() { &["-n"] } else { &["-n", &preserved] };
    Err(refused().cause(sudo(options).exec()))
}

/// How the object store is reached.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// How their names begin that say who we are to an object store, and whose certificates we trust.
const PREFIXES: [&str; 8] = ["AWS_", "AZURE_", "GCE_", "GOOGLE_", "IDENTITY_", "IMDS_", "MSI_", "SSL_CERT_"];

/// Values that come from the environment would be lost: sudo clears it.
fn variables_in_effect(config: &Config) -> Vec<String> {
    let of_storage = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| {
        let name = name.to_uppercase();
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || PROXIES.contains(&name.as_str())
    });
    let of_storage = of_storage.filter(|_| config.storage.provider != "local");
    let origins = config.values.iter().filter_map(|(_, value)| match &value.origin {
        // USER names the user for ssh, which a restore of this node does not use.
        Origin::Environment(variable) if variable != "USER" => Some(variable.clone()),
        _ => None,
    });
    origins.chain(of_storage).collect()
}
