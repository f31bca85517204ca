//! medusa.ini and what may override it. Nothing here talks to a network or to Cassandra.

pub mod forward;
pub mod ini;
pub mod keys;
pub mod object_store;
pub mod secret;
pub mod ssh;
pub mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::ini::{Ini, IniError};
use self::keys::Kind;
use self::object_store::ObjectStore;
use self::secret::Secret;
use self::ssh::Ssh;
use self::values::{Origin, Values};
use crate::model::units::{parse_bool, parse_size};

/// Read when no `--config-file` is given.
pub const DEFAULT_PATH: &str = "/etc/medusa/medusa.ini";

/// A configuration that cannot be used. Always exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no configuration file: {DEFAULT_PATH} does not exist and --config-file was not given")]
    NoFile,
    #[error("could not read the configuration")]
    Read(#[source] std::io::Error),
    #[error("{path}: {source}")]
    Ini { path: PathBuf, source: IniError },
    #[error("could not read the secret that {key} points to")]
    SecretFile { key: String, source: std::io::Error },
    #[error("{key} is missing in [{section}]")]
    Missing { section: &'static str, key: &'static str },
    #[error(transparent)]
    Bad(Box<BadValue>),
}

/// A value that its key does not take.
#[derive(Debug, thiserror::Error)]
#[error("{key} in [{section}] is {value:?}, but {expected} (from {origin})")]
pub struct BadValue {
    section: String,
    key: String,
    value: String,
    expected: String,
    origin: Origin,
}

/// Values that the command line puts above the file.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    pub bucket_name: Option<String>,
    pub key_file: Option<String>,
    pub prefix: Option<String>,
    pub fqdn: Option<String>,
    pub backup_grace_period_in_days: Option<String>,
    pub ssh_username: Option<String>,
    pub ssh_key_file: Option<String>,
}

impl Overrides {
    /// Section, key, and the option that goes before it.
    pub fn options() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        Self::default().entries().map(|(section, key, option, _)| (section, key, option)).into_iter()
    }

    pub(crate) fn entries(&self) -> [(&'static str, &'static str, &'static str, Option<&str>); 7] {
        [
            ("storage", "bucket_name", "--bucket-name", self.bucket_name.as_deref()),
            ("storage", "key_file", "--key-file", self.key_file.as_deref()),
            ("storage", "prefix", "--prefix", self.prefix.as_deref()),
            ("storage", "fqdn", "--fqdn", self.fqdn.as_deref()),
            (
                "storage",
                "backup_grace_period_in_days",
                "--backup-grace-period-in-days",
                self.backup_grace_period_in_days.as_deref(),
            ),
            ("ssh", "username", "--ssh-username", self.ssh_username.as_deref()),
            ("ssh", "key_file", "--ssh-key-file", self.ssh_key_file.as_deref()),
        ]
    }
}

/// The configuration with types.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub path: PathBuf,
    pub storage: Storage,
    pub cassandra: Cassandra,
    pub ssh: Ssh,
    pub checks: Checks,
    pub monitoring: Monitoring,
    pub hooks: Hooks,
    pub logging: Logging,
    pub kubernetes: bool,
    /// Every key with its origin.
    pub values: Values,
}

/// `[storage]`.
#[derive(Debug, Clone)]
pub struct Storage {
    pub provider: String,
    pub bucket_name: String,
    pub base_path: Option<PathBuf>,
    pub prefix: Option<String>,
    /// As given; the node's folder name also depends on the resolver.
    pub fqdn: Option<String>,
    /// Files in flight. `None`: as many as are good.
    pub concurrent_transfers: Option<usize>,
    /// Small requests in flight.
    pub concurrent_requests: usize,
    /// Bytes.
    pub multi_part_upload_threshold: u64,
    /// Bytes.
    pub multipart_chunksize: u64,
    pub use_sudo_for_restore: bool,
    pub retention: Retention,
    pub object_store: ObjectStore,
}

/// Which backups a purge keeps. 0: no such limit, no such rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days.
    pub max_backup_age: u64,
    pub max_backup_count: u64,
    pub keep_last: u64,
    pub keep_daily: u64,
    pub keep_weekly: u64,
    pub keep_monthly: u64,
    pub keep_yearly: u64,
    /// Days for which what belongs to no backup is kept.
    pub backup_grace_period_in_days: u64,
}

/// `[cassandra]`.
#[derive(Debug, Clone)]
pub struct Cassandra {
    pub config_file: PathBuf,
    /// Split as a shell splits it. Empty: there is none, which matters to who restores.
    pub start_cmd: Vec<String>,
    pub stop_cmd: Vec<String>,
    pub cql_username: Option<String>,
    pub cql_password: Option<Secret>,
    pub certfile: Option<PathBuf>,
    pub usercert: Option<PathBuf>,
    pub userkey: Option<PathBuf>,
    pub cql_tls_verify: TlsVerify,
    pub nodetool_executable: String,
    pub nodetool_flags: Vec<String>,
    pub nodetool_username: Option<String>,
    pub nodetool_password: Option<Secret>,
    pub nodetool_password_file_path: Option<PathBuf>,
    pub nodetool_host: Option<String>,
    pub nodetool_port: Option<String>,
    pub nodetool_ssl: bool,
    /// Exactly as written: Medusa compares the text with `False` when it names the node's folder.
    pub resolve_ip_addresses: String,
    pub cql_timeout: Duration,
    pub nodetool_timeout: Duration,
    pub snapshot_timeout: Duration,
    pub stop_timeout: Duration,
    pub start_timeout: Duration,
    pub sstableloader_bin: String,
    pub sstableloader_ts: Option<PathBuf>,
    pub sstableloader_tspw: Option<Secret>,
    pub sstableloader_ks: Option<PathBuf>,
    pub sstableloader_kspw: Option<Secret>,
    /// For one table.
    pub load_timeout: Duration,
}

/// How far the certificate of the CQL port is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVerify {
    /// Signed by the CA and made out for this host.
    Full,
    /// Signed by the CA (what Medusa checks).
    Ca,
    None,
}

/// `[checks]`.
#[derive(Debug, Clone)]
pub struct Checks {
    pub health_check: HealthCheck,
    /// Empty: none.
    pub query: String,
    /// 0: not checked.
    pub expected_rows: u64,
    /// Empty: not checked.
    pub expected_result: String,
    pub enable_md5_checks: bool,
}

/// What tells that Cassandra is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCheck {
    /// CQL. Also for `thrift`, which Cassandra does not have since 4.0.
    Cql,
    /// CQL and the storage port.
    All,
}

/// `[monitoring]`.
#[derive(Debug, Clone)]
pub struct Monitoring {
    /// Empty: nothing is sent.
    pub providers: Vec<Provider>,
    pub send_backup_name_tag: bool,
    /// Each command writes a file of its own beside it.
    pub prometheus_textfile: PathBuf,
}

/// Where metrics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// A file in the working directory.
    Local,
    DogStatsd,
    /// A textfile for `node_exporter`.
    Prometheus,
}

impl Provider {
    const ALL: [Self; 3] = [Self::Local, Self::DogStatsd, Self::Prometheus];
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::DogStatsd => "dog-statsd",
            Self::Prometheus => "prometheus",
        })
    }
}

/// `[hooks]`. Commands are split as a shell splits them; empty: none.
#[derive(Debug, Clone)]
pub struct Hooks {
    pub before_backup: Vec<String>,
    pub after_backup: Vec<String>,
    pub on_failure: Vec<String>,
    pub after_restore: Vec<String>,
    /// Whether the failure of a hook is one of the command.
    pub required: bool,
    pub timeout: Duration,
}

/// `[logging]`.
#[derive(Debug, Clone)]
pub struct Logging {
    pub enabled: bool,
    pub file: PathBuf,
    pub level: String,
    /// As Python's logging has it.
    pub format: String,
    /// Bytes after which the file is rotated; 0: never.
    pub max_bytes: u64,
    pub backup_count: usize,
}

impl Config {
    /// Reads the file and applies the command line and the process environment.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        if file.is_none() && !path.exists() {
            return Err(ConfigError::NoFile);
        }
        let text = fs_err::read_to_string(path).map_err(ConfigError::Read)?;
        Self::from_text(&text, path, overrides, &environment)
    }

    /// The same from data.
    pub fn from_text(
        text: &str,
        path: &Path,
        overrides: &Overrides,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let ini = Ini::parse(text).map_err(|source| ConfigError::Ini { path: path.to_owned(), source })?;
        let values = Values::gather(&ini, path, overrides, environment)?;
        Typed(&values).config(path)
    }
}

/// Reads typed values.
struct Typed<'a>(&'a Values);

impl Typed<'_> {
    fn config(&self, path: &Path) -> Result<Config, ConfigError> {
        self.check_all()?;
        Ok(Config {
            path: path.to_owned(),
            storage: self.storage()?,
            cassandra: self.cassandra()?,
            ssh: self.ssh()?,
            checks: self.checks()?,
            monitoring: self.monitoring()?,
            hooks: self.hooks()?,
            logging: self.logging()?,
            kubernetes: self.flag("kubernetes", "enabled")?,
            values: self.0.clone(),
        })
    }

    /// A bad value is refused also where this command would not read it.
    fn check_all(&self) -> Result<(), ConfigError> {
        for key in keys::KEYS.iter().filter(|key| self.text(key.section, key.name).is_some()) {
            match key.kind {
                Kind::Flag => self.flag(key.section, key.name).map(drop),
                Kind::Number => self.number(key.section, key.name).map(drop),
                Kind::Limit => self.limit(key.section, key.name).map(drop),
                Kind::Seconds => self.seconds(key.section, key.name).map(drop),
                Kind::Size | Kind::Rate => self.size(key.section, key.name).map(drop),
                Kind::Choice(_) => self.choice(key.section, key.name).map(drop),
                Kind::Text | Kind::Words | Kind::Secret | Kind::Unused => Ok(()),
            }?;
        }
        Ok(())
    }

    fn storage(&self) -> Result<Storage, ConfigError> {
        let storage = Storage {
            provider: self.required("storage", "storage_provider")?.to_lowercase(),
            bucket_name: self.required("storage", "bucket_name")?,
            base_path: self.path("storage", "base_path"),
            prefix: self.filled("storage", "prefix"),
            fqdn: self.filled("storage", "fqdn"),
            concurrent_transfers: self.concurrent_transfers()?,
            concurrent_requests: self.at_least_one("storage", "concurrent_requests")?,
            multi_part_upload_threshold: self.size("storage", "multi_part_upload_threshold")?,
            multipart_chunksize: self.size("storage", "multipart_chunksize")?,
            use_sudo_for_restore: self.flag("storage", "use_sudo_for_restore")?,
            retention: self.retention()?,
            object_store: self.object_store()?,
        };
        for key in ["bucket_name", "prefix"] {
            if self.text("storage", key).is_some_and(|value| value.contains('/')) {
                return Err(self.bad("storage", key, "it must not contain a slash"));
            }
            if self.text("storage", key).is_some_and(|value| value == "." || value == "..") {
                return Err(self.bad("storage", key, "it must be the name of a folder"));
            }
        }
        if storage.prefix.as_ref().is_some_and(|prefix| prefix.chars().count() == 1) {
            let why = "a prefix of one character is only half applied by Medusa; take a longer one";
            return Err(self.bad("storage", "prefix", why));
        }
        Ok(storage)
    }

    fn retention(&self) -> Result<Retention, ConfigError> {
        Ok(Retention {
            max_backup_age: self.limit("storage", "max_backup_age")?,
            max_backup_count: self.limit("storage", "max_backup_count")?,
            keep_last: self.number("storage", "keep_last")?,
            keep_daily: self.number("storage", "keep_daily")?,
            keep_weekly: self.number("storage", "keep_weekly")?,
            keep_monthly: self.number("storage", "keep_monthly")?,
            keep_yearly: self.number("storage", "keep_yearly")?,
            backup_grace_period_in_days: self.number("storage", "backup_grace_period_in_days")?,
        })
    }

    fn cassandra(&self) -> Result<Cassandra, ConfigError> {
        const SECTION: &str = "cassandra";
        let secret = |key| self.filled(SECTION, key).map(Secret::new);
        let nodetool_flags = self.filled(SECTION, "nodetool_flags").unwrap_or_default();
        Ok(Cassandra {
            config_file: self.required(SECTION, "config_file")?.into(),
            start_cmd: self.command(SECTION, "start_cmd")?,
            stop_cmd: self.command(SECTION, "stop_cmd")?,
            cql_username: self.filled(SECTION, "cql_username"),
            cql_password: secret("cql_password"),
            certfile: self.path(SECTION, "certfile"),
            usercert: self.path(SECTION, "usercert"),
            userkey: self.path(SECTION, "userkey"),
            cql_tls_verify: match self.choice(SECTION, "cql_tls_verify")?.as_str() {
                "none" => TlsVerify::None,
                "ca" => TlsVerify::Ca,
                _ => TlsVerify::Full,
            },
            nodetool_executable: self.required(SECTION, "nodetool_executable")?,
            nodetool_flags: nodetool_flags.split(' ').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
            nodetool_username: self.filled(SECTION, "nodetool_username"),
            nodetool_password: secret("nodetool_password"),
            nodetool_password_file_path: self.path(SECTION, "nodetool_password_file_path"),
            nodetool_host: self.filled(SECTION, "nodetool_host"),
            nodetool_port: self.filled(SECTION, "nodetool_port"),
            nodetool_ssl: self.flag(SECTION, "nodetool_ssl")?,
            resolve_ip_addresses: self.required(SECTION, "resolve_ip_addresses")?,
            cql_timeout: self.seconds(SECTION, "cql_timeout")?,
            nodetool_timeout: self.seconds(SECTION, "nodetool_timeout")?,
            snapshot_timeout: self.seconds(SECTION, "snapshot_timeout")?,
            stop_timeout: self.seconds(SECTION, "stop_timeout")?,
            start_timeout: self.seconds(SECTION, "start_timeout")?,
            sstableloader_bin: self.required(SECTION, "sstableloader_bin")?,
            sstableloader_ts: self.path(SECTION, "sstableloader_ts"),
            sstableloader_tspw: secret("sstableloader_tspw"),
            sstableloader_ks: self.path(SECTION, "sstableloader_ks"),
            sstableloader_kspw: secret("sstableloader_kspw"),
            load_timeout: self.seconds(SECTION, "load_timeout")?,
        })
    }

    fn checks(&self) -> Result<Checks, ConfigError> {
        Ok(Checks {
            health_check: match self.choice("checks", "health_check")?.as_str() {
                "all" => HealthCheck::All,
                _ => HealthCheck::Cql,
            },
            query: self.filled("checks", "query").unwrap_or_default(),
            expected_rows: self.number("checks", "expected_rows")?,
            expected_result: self.filled("checks", "expected_result").unwrap_or_default(),
            enable_md5_checks: self.flag("checks", "enable_md5_checks")?,
        })
    }

    fn monitoring(&self) -> Result<Monitoring, ConfigError> {
        const SECTION: &str = "monitoring";
        let provider = |name: &str| match name.trim().to_lowercase().as_str() {
            "none" => Some(None),
            name => Provider::ALL.into_iter().find(|provider| provider.to_string() == name).map(Some),
        };
        let providers = |text: &str| text.split(',').map(provider).collect::<Option<Vec<_>>>();
        let choices = "it must be one of None, local, dog-statsd, prometheus, or several of these separated by commas";
        let is_file = |text: &str| Path::new(text).file_name().is_some().then(|| PathBuf::from(text));
        Ok(Monitoring {
            providers: self.parsed(SECTION, "monitoring_provider", providers, choices)?.into_iter().flatten().collect(),
            send_backup_name_tag: self.flag(SECTION, "send_backup_name_tag")?,
            prometheus_textfile: self.parsed(
                SECTION,
                "prometheus_textfile",
                is_file,
                "it must be the path of a file",
            )?,
        })
    }

    fn hooks(&self) -> Result<Hooks, ConfigError> {
        const SECTION: &str = "hooks";
        let command = |key| self.command(SECTION, key);
        Ok(Hooks {
            before_backup: command("before_backup")?,
            after_backup: command("after_backup")?,
            on_failure: command("on_failure")?,
            after_restore: command("after_restore")?,
            required: self.flag(SECTION, "required")?,
            timeout: self.seconds(SECTION, "timeout")?,
        })
    }

    fn logging(&self) -> Result<Logging, ConfigError> {
        Ok(Logging {
            enabled: self.flag("logging", "enabled")?,
            file: self.required("logging", "file")?.into(),
            level: self.choice("logging", "level")?,
            format: self.required("logging", "format")?,
            max_bytes: self.size("logging", "maxbytes")?,
            backup_count: usize::try_from(self.number("logging", "backupcount")?).unwrap_or(usize::MAX),
        })
    }

    fn text(&self, section: &str, key: &str) -> Option<&str> {
        self.0.get(section, key).text.as_deref()
    }

    /// The value, unless it is missing or empty.
    fn filled(&self, section: &str, key: &str) -> Option<String> {
        self.text(section, key).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn path(&self, section: &str, key: &str) -> Option<PathBuf> {
        self.filled(section, key).map(PathBuf::from)
    }

    fn required(&self, section: &'static str, key: &'static str) -> Result<String, ConfigError> {
        self.filled(section, key).ok_or(ConfigError::Missing { section, key })
    }

    fn bad(&self, section: &str, key: &str, expected: &str) -> ConfigError {
        let value = self.0.get(section, key);
        let shown = keys::find(section, key).and_then(|key| Values::shown(key, value)).unwrap_or_default();
        ConfigError::Bad(Box::new(BadValue {
            section: section.to_owned(),
            key: key.to_owned(),
            value: shown,
            expected: expected.to_owned(),
            origin: value.origin.clone(),
        }))
    }

    fn parsed<T>(
        &self,
        section: &str,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, ConfigError> {
        self.text(section, key).and_then(parse).ok_or_else(|| self.bad(section, key, expected))
    }

    fn flag(&self, section: &str, key: &str) -> Result<bool, ConfigError> {
        self.parsed(section, key, parse_bool, "it must be True or False")
    }

    fn number(&self, section: &str, key: &str) -> Result<u64, ConfigError> {
        self.parsed(section, key, |text| text.trim().parse().ok(), "it must be a whole number")
    }

    /// Medusa asks whether it is above 0, so that -1 is none too.
    fn limit(&self, section: &str, key: &str) -> Result<u64, ConfigError> {
        let parse = |text: &str| text.trim().parse::<i64>().ok().map(|number| u64::try_from(number).unwrap_or(0));
        self.parsed(section, key, parse, "it must be a whole number")
    }

    fn at_least_one(&self, section: &str, key: &str) -> Result<usize, ConfigError> {
        let parse = |text: &str| text.trim().parse().ok().filter(|number| *number > 0);
        self.parsed(section, key, parse, "it must be a whole number above 0")
    }

    fn size(&self, section: &str, key: &str) -> Result<u64, ConfigError> {
        self.parsed(section, key, parse_size, "it must be a size such as 50MB, 2GiB or 1048576")
    }

    fn seconds(&self, section: &str, key: &str) -> Result<Duration, ConfigError> {
        let parse = |text: &str| text.trim().parse().ok().filter(|seconds| *seconds > 0);
        self.parsed(section, key, parse, "it must be a number of seconds above 0").map(Duration::from_secs)
    }

    fn choice(&self, section: &str, key: &str) -> Result<String, ConfigError> {
        let choices = match keys::find(section, key).map(|key| key.kind) {
            Some(Kind::Choice(choices)) => choices,
            _ => &[],
        };
        let parse = |text: &str| Some(text.to_lowercase()).filter(|text| choices.contains(&text.as_str()));
        self.parsed(section, key, parse, &format!("it must be one of {}", choices.join(", ")))
    }

    fn command(&self, section: &'static str, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let parse = |text: &str| shell_words::split(text).ok();
        match self.filled(section, key) {
            Some(_) => self.parsed(section, key, parse, "it must be a command with balanced quotes"),
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
