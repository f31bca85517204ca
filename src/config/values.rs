//! The effective value of every key, with its origin, before it gets a type.
//!
//! Precedence, lowest first: default, file, command line, environment, Kubernetes secret files. As in Medusa.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::ini::Ini;
use super::keys::{self, KEYS, Key, Kind};
use super::secret::MASK;
use super::{ConfigError, Overrides};
use crate::model::nearest::did_you_mean;

/// Keys of `[cassandra]` that variables of the environment give.
pub const OF_ENVIRONMENT: [&str; 9] = [
    "cql_username",
    "cql_password",
    "nodetool_username",
    "nodetool_password",
    "sstableloader_tspw",
    "sstableloader_kspw",
    "resolve_ip_addresses",
    "cql_k8s_secrets_path",
    "nodetool_k8s_secrets_path",
];

/// The variable that gives a key of [`OF_ENVIRONMENT`].
pub fn variable(key: &str) -> String {
    format!("MEDUSA_{}", key.to_uppercase())
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Unset,
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Flag(&'static str),
    Environment(String),
    SecretFile(PathBuf),
    /// Computed, from what the text says.
    Derived(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("not set"),
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::SecretFile(path) => write!(f, "{}", path.display()),
            Self::Derived(from) => f.write_str(from),
        }
    }
}

/// A value and where it comes from. May be a secret, and does not show itself.
#[derive(Clone)]
pub struct Value {
    pub text: Option<String>,
    pub origin: Origin,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value from {}", self.origin)
    }
}

/// All keys in the order of [`KEYS`].
#[derive(Debug, Clone)]
pub struct Values {
    values: Vec<Value>,
    /// Said once, when logging is up.
    pub warnings: Vec<String>,
}

impl Values {
    /// Brings the sources together. `environment` is the process environment, as data.
    pub(super) fn gather(
        ini: &Ini,
        path: &Path,
        overrides: &Overrides,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let values = KEYS.iter().map(|key| from_file_or_default(key, ini, path)).collect();
        let mut all = Self { values, warnings: unknown_keys(ini, path) };
        if let Some(user) = environment.get("USER") {
            all.set_if_default("ssh", "username", user, Origin::Environment("USER".into()));
        }
        for (section, name, flag, value) in overrides.entries() {
            if let Some(value) = value {
                all.set(section, name, value, Origin::Flag(flag));
            }
        }
        all.kubernetes(environment);
        all.environment(environment);
        all.secret_files()?;
        Ok(all)
    }

    pub fn get(&self, section: &str, name: &str) -> &Value {
        static UNSET: Value = Value { text: None, origin: Origin::Unset };
        KEYS.iter().position(|key| key.section == section && key.name == name).map_or(&UNSET, |i| &self.values[i])
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        KEYS.iter().zip(&self.values)
    }

    /// The value as it may be shown.
    pub fn shown(key: &Key, value: &Value) -> Option<String> {
        let text = value.text.as_ref()?;
        let masked = key.kind == Kind::Secret && !text.is_empty();
        Some(if masked { MASK.to_owned() } else { text.clone() })
    }

    pub fn set(&mut self, section: &str, name: &str, text: &str, origin: Origin) {
        if let Some(i) = KEYS.iter().position(|key| key.section == section && key.name == name) {
            self.values[i] = Value { text: Some(text.to_owned()), origin };
        }
    }

    fn set_if_default(&mut self, section: &str, name: &str, text: &str, origin: Origin) {
        if matches!(self.get(section, name).origin, Origin::Default | Origin::Unset) {
            self.set(section, name, text, origin);
        }
    }

    /// In Kubernetes mode nothing runs under sudo, and the pod's address is the node's name.
    fn kubernetes(&mut self, environment: &BTreeMap<String, String>) {
        const MODE: Origin = Origin::Derived("[kubernetes] enabled");
        let enabled = self.get("kubernetes", "enabled").text.as_deref().and_then(crate::model::units::parse_bool);
        if enabled != Some(true) {
            return;
        }
        self.set("cassandra", "use_sudo", "False", MODE);
        self.set("storage", "use_sudo_for_restore", "False", MODE);
        if let Some(address) = environment.get("POD_IP") {
            self.set("storage", "fqdn", address, Origin::Environment("POD_IP".into()));
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        for name in ["cql_username", "cql_password"] {
            let old = name.to_uppercase();
            if let Some(value) = environment.get(&old) {
                self.warnings.push(format!("the environment variable {old} is deprecated; use MEDUSA_{old}"));
                self.set("cassandra", name, value, Origin::Environment(old));
            }
        }
        for name in OF_ENVIRONMENT {
            let variable = variable(name);
            if let Some(value) = environment.get(&variable) {
                self.set("cassandra", name, value, Origin::Environment(variable));
            }
        }
    }

    fn secret_files(&mut self) -> Result<(), ConfigError> {
        for (key, target) in [("cql_k8s_secrets_path", "cql"), ("nodetool_k8s_secrets_path", "nodetool")] {
            let Some(folder) = self.get("cassandra", key).text.clone().filter(|folder| !folder.is_empty()) else {
                continue;
            };
            for part in ["username", "password"] {
                let file = Path::new(&folder).join(part);
                let text = fs_err::read_to_string(&file)
                    .map_err(|source| ConfigError::SecretFile { key: key.to_owned(), source })?;
                self.set("cassandra", &format!("{target}_{part}"), text.trim(), Origin::SecretFile(file));
            }
        }
        Ok(())
    }
}

fn from_file_or_default(key: &Key, ini: &Ini, path: &Path) -> Value {
    let of_section = ini.sections.get(key.section).and_then(|section| section.get(key.name));
    // A built-in default hides [DEFAULT], because Medusa writes its defaults into the sections.
    let inherited = || if key.default.is_none() { ini.get(key.section, key.name) } else { None };
    let given = of_section.or_else(inherited);
    if let Some((entry, text)) = given.and_then(|entry| Some((entry, key.meant(&entry.value)?))) {
        let origin = Origin::File { path: path.to_owned(), line: entry.line };
        return Value { text: Some(text.to_owned()), origin };
    }
    match key.default {
        Some(default) => Value { text: Some(default.to_owned()), origin: Origin::Default },
        None => Value { text: None, origin: Origin::Unset },
    }
}

fn unknown_keys(ini: &Ini, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (section, entries) in &ini.sections {
        if !keys::is_section(section) {
            warnings.push(format!("{}: unknown section [{section}] is ignored", path.display()));
            continue;
        }
        for (name, entry) in entries {
            if keys::find(section, name).is_none() {
                let known = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
                let meant = did_you_mean(name, known).map(|meant| format!("; {meant}")).unwrap_or_default();
                warnings.push(format!(
                    "{}:{}: unknown key {name} in [{section}] is ignored{meant}",
                    path.display(),
                    entry.line
                ));
            }
        }
    }
    warnings
}
