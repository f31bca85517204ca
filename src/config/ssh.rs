//! `[ssh]`: how the other nodes are reached. The system's ssh does it, and what is not set here is left to its own
//! configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::values::Origin;
use super::{ConfigError, Typed};

const SECTION: &str = "ssh";

/// See the module.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// `None`: as ssh is configured. The variable `USER`, Medusa's default, is ssh's own, too.
    pub username: Option<String>,
    pub key_file: Option<PathBuf>,
    /// `None`: as ssh is configured.
    pub port: Option<u16>,
    /// The certificate that belongs to the key.
    pub cert_file: Option<PathBuf>,
    pub use_pty: bool,
    /// Between two signs of life of an idle connection; the third that is not answered ends it. 0: there are none.
    pub keepalive: Duration,
    /// Remote commands see what `/etc/profile` and `~/.profile` set.
    pub login_shell: bool,
    pub host_key_check: HostKeyCheck,
    /// ssh's configuration instead of `~/.ssh/config` and `/etc/ssh/ssh_config`.
    pub config_file: Option<PathBuf>,
    pub ssh_program: String,
    /// How medusa is called on the nodes.
    pub medusa_program: String,
    /// `[cassandra] use_sudo`: medusa runs as root on the nodes, by way of sudo unless the user of ssh is root.
    pub use_sudo: bool,
    pub connect_timeout: Duration,
    /// For so long a connection may be silent while a job runs.
    pub idle_timeout: Duration,
    /// For so long a lost connection is tried again.
    pub reconnect_timeout: Duration,
}

/// What is done with the key by which a host proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyCheck {
    /// It must be known.
    Yes,
    /// The key of a host that was never seen is taken and kept.
    AcceptNew,
    /// Not checked, as in Medusa.
    No,
}

impl Typed<'_> {
    pub(super) fn ssh(&self) -> Result<Ssh, ConfigError> {
        let chosen = |key| !matches!(self.0.get(SECTION, key).origin, Origin::Default | Origin::Environment(_));
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0);
        let port: u16 = self.parsed(SECTION, "port", port, "it must be a number from 1 to 65535")?;
        Ok(Ssh {
            username: self.filled(SECTION, "username").filter(|_| chosen("username")),
            key_file: self.path(SECTION, "key_file"),
            port: chosen("port").then_some(port),
            cert_file: self.path(SECTION, "cert_file"),
            use_pty: self.flag(SECTION, "use_pty")?,
            keepalive: Duration::from_secs(self.number(SECTION, "keepalive_seconds")?),
            login_shell: self.flag(SECTION, "login_shell")?,
            host_key_check: match self.choice(SECTION, "host_key_check")?.as_str() {
                "no" => HostKeyCheck::No,
                "accept-new" => HostKeyCheck::AcceptNew,
                _ => HostKeyCheck::Yes,
            },
            config_file: self.path(SECTION, "config_file"),
            ssh_program: self.required(SECTION, "ssh_program")?,
            medusa_program: self.required(SECTION, "medusa_program")?,
            use_sudo: self.flag("cassandra", "use_sudo")?,
            connect_timeout: self.seconds(SECTION, "connect_timeout")?,
            idle_timeout: self.seconds(SECTION, "idle_timeout")?,
            reconnect_timeout: self.seconds(SECTION, "reconnect_timeout")?,
        })
    }
}
