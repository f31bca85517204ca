//! cassandra.yaml: what we need to know of it, and the edit of three keys that gives a node its tokens.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use fs_err as fs;
use serde_json::{Map, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::naming::first_address;
use crate::error::Failure;

/// The parts of cassandra.yaml that a backup tool needs. Ports and folders as Cassandra defaults them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CassandraYaml {
    pub path: PathBuf,
    /// At least one.
    pub data_directories: Vec<PathBuf>,
    /// Where 4.0 and newer may keep the node's own system tables.
    pub local_system_directory: Option<PathBuf>,
    pub commitlog_directory: PathBuf,
    pub saved_caches_directory: PathBuf,
    /// Writes that wait for nodes that were down.
    pub hints_directory: PathBuf,
    pub listen_address: Option<String>,
    /// Hosts that a starting node asks about the others.
    pub seeds: Vec<String>,
    /// `None` where it is a wildcard.
    pub rpc_address: Option<String>,
    /// All addresses under which the node may be known.
    pub own_addresses: Vec<String>,
    pub native_transport: bool,
    pub native_port: u16,
    /// Whether the native port speaks TLS.
    pub native_tls: bool,
    /// Whether it takes clients without TLS as well.
    pub native_plain: bool,
    /// Whether it takes only clients with a certificate.
    pub native_client_auth: bool,
    pub storage_port: u16,
}

impl CassandraYaml {
    /// # Errors
    /// A file that is missing or is not YAML, or that names no data directory.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::usage("could not read cassandra.yaml")
                .cause(error)
                .hint("config_file in [cassandra] of medusa.ini says where it is")
        })?;
        Self::parse(path, &text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// What Cassandra uses where the file says nothing: for hosts without Cassandra.
    ///
    /// # Errors
    /// None that could happen.
    pub fn default_of(path: &Path) -> anyhow::Result<Self> {
        Self::parse(path, "{}")
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        // As Cassandra reads it: the last of two equal keys counts.
        let keys = Keys(parse_keys(text, DuplicateKeyPolicy::LastWins)?);
        let data_directories = match keys.0.get("data_file_directories") {
            None | Some(Value::Null) => vec![PathBuf::from("/var/lib/cassandra/data")],
            Some(Value::Array(list)) => list.iter().filter_map(as_text).map(PathBuf::from).collect(),
            Some(one) => as_text(one).map(PathBuf::from).into_iter().collect(),
        };
        ensure!(!data_directories.is_empty(), "data_file_directories names no folder");
        let is_set = |options: &str, key: &str| keys.inside(options, key).is_some_and(|value| value == "true");
        let client = |key: &str| is_set("client_encryption_options", key);
        let native_tls = client("enabled");
        let encrypted = keys.inside("server_encryption_options", "internode_encryption");
        // The port for TLS stands in every cassandra.yaml. Since 4.0 the other one speaks TLS as well.
        let legacy_tls_port = encrypted.is_some_and(|mode| mode != "none")
            && is_set("server_encryption_options", "enable_legacy_ssl_storage_port");
        let storage_port =
            if legacy_tls_port { keys.port("ssl_storage_port", 7001) } else { keys.port("storage_port", 7000) };
        let native_port = match keys.text("native_transport_port_ssl") {
            Some(_) if native_tls => keys.port("native_transport_port_ssl", 9142),
            _ => keys.port("native_transport_port", 9042),
        };
        Ok(Self {
            path: path.to_owned(),
            data_directories,
            local_system_directory: keys.text("local_system_data_file_directory").map(PathBuf::from),
            commitlog_directory: keys.folder("commitlog_directory", "/var/lib/cassandra/commitlog"),
            saved_caches_directory: keys.folder("saved_caches_directory", "/var/lib/cassandra/saved_caches"),
            hints_directory: keys.folder("hints_directory", "/var/lib/cassandra/hints"),
            listen_address: keys.text("listen_address"),
            seeds: keys.seeds(),
            rpc_address: keys.text("rpc_address").filter(|address| !matches!(address.as_str(), "0.0.0.0" | "::")),
            own_addresses: ["rpc_address", "broadcast_rpc_address", "listen_address", "broadcast_address"]
                .iter()
                .filter_map(|key| keys.text(key))
                .collect(),
            native_transport: keys.text("start_native_transport").is_none_or(|start| start != "false"),
            native_port: native_port?,
            native_tls,
            native_plain: !native_tls || client("optional"),
            native_client_auth: native_tls && client("require_client_auth"),
            storage_port: storage_port?,
        })
    }

    /// Whether the node is one of the seeds that it names.
    pub fn is_seed(&self) -> bool {
        let address = |name: &String| first_address(name);
        let own: Vec<_> = self.own_addresses.iter().filter_map(address).collect();
        self.seeds
            .iter()
            .any(|seed| self.own_addresses.contains(seed) || address(seed).is_some_and(|ip| own.contains(&ip)))
    }

    /// Every folder that may hold tables.
    pub fn table_directories(&self) -> Vec<PathBuf> {
        let mut folders = self.data_directories.clone();
        folders.extend(self.local_system_directory.clone().filter(|folder| !self.data_directories.contains(folder)));
        folders
    }
}

fn parse_keys(text: &str, duplicate_keys: DuplicateKeyPolicy) -> anyhow::Result<Map<String, Value>> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        // JSON has no infinity.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    // Without the lines around it: passwords of keystores stand in the same file.
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| anyhow::anyhow!("{}", error.without_snippet()))?;
    match value {
        Value::Object(keys) => Ok(keys),
        _ => anyhow::bail!("it is not a list of keys and values"),
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

struct Keys(Map<String, Value>);

impl Keys {
    fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).and_then(as_text)
    }

    fn inside(&self, outer: &str, key: &str) -> Option<String> {
        self.0.get(outer)?.as_object()?.get(key).and_then(as_text)
    }

    /// Of every provider that has a list of them, as the one of Cassandra has.
    fn seeds(&self) -> Vec<String> {
        let providers = self.0.get("seed_provider").and_then(Value::as_array).into_iter().flatten();
        let parameters = providers.filter_map(|provider| provider.get("parameters")?.as_array()).flatten();
        let lists = parameters.filter_map(|parameter| parameter.get("seeds").and_then(as_text));
        // A seed may have a port.
        let host = |seed: &str| {
            let seed = seed.trim();
            let is_v6 = seed.parse::<std::net::Ipv6Addr>().is_ok();
            if is_v6 { seed.to_owned() } else { seed.split(':').next().unwrap_or_default().to_owned() }
        };
        lists.flat_map(|list| list.split(',').map(host).filter(|seed| !seed.is_empty()).collect::<Vec<_>>()).collect()
    }

    fn folder(&self, key: &str, default: &str) -> PathBuf {
        self.text(key).map_or_else(|| default.into(), PathBuf::from)
    }

    fn port(&self, key: &str, default: u16) -> anyhow::Result<u16> {
        match self.text(key) {
            None => Ok(default),
            Some(text) => text.parse().with_context(|| format!("{key} is {text:?}, which is no port")),
        }
    }
}

/// The identity that a node takes over with another node's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEdit {
    pub tokens: Vec<String>,
}

impl TokenEdit {
    /// The text with `initial_token`, `num_tokens` and `auto_bootstrap` set. Every other byte stays; keys that are absent
    /// are appended.
    ///
    /// # Errors
    /// If the result would not differ from the text in exactly these keys.
    pub fn apply(&self, text: &str) -> anyhow::Result<String> {
        let wanted = [
            ("initial_token", self.tokens.join(",")),
            ("num_tokens", self.tokens.len().to_string()),
            ("auto_bootstrap", "false".to_owned()),
        ];
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let ending = if lines.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
        for (key, value) in &wanted {
            let found = lines.iter().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
            if let Some(i) = found {
                lines[i] = with_value(&lines[i], key, value);
            } else {
                if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
                    last.push_str(ending);
                }
                lines.push(format!("{key}: {value}{ending}"));
            }
        }
        let edited = lines.concat();
        // Which of two equal keys was meant is not for us to say.
        let strictly = |text: &str| parse_keys(text, DuplicateKeyPolicy::Error);
        let (mut before, mut after) = (strictly(text)?, strictly(&edited)?);
        for (key, value) in &wanted {
            let written = after.remove(*key).as_ref().and_then(as_text);
            ensure!(written.as_ref() == Some(value), "{key} could not be set");
            before.remove(*key);
        }
        ensure!(before == after, "setting the tokens would have changed another key");
        Ok(edited)
    }

    /// Rewrites the file atomically; owner and mode stay.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let edited =
            self.apply(&fs::read_to_string(path)?).with_context(|| format!("could not edit {}", path.display()))?;
        replace_file(path, edited.as_bytes())
    }
}

fn with_value(line: &str, key: &str, value: &str) -> String {
    let content = line.trim_end_matches(['\n', '\r']);
    let ending = &line[content.len()..];
    let comment = content.find(" #").map_or("", |at| &content[at..]);
    format!("{key}: {value}{comment}{ending}")
}

/// Replaces a file's content at once: a crash leaves the old content or the new one.
pub fn replace_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let metadata = fs::metadata(path)?;
    let folder = path.parent().context("the file has no folder")?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("could not create a file beside {}", path.display()))?;
    std::io::Write::write_all(&mut temporary, content)?;
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(metadata.mode()))?;
    std::os::unix::fs::chown(temporary.path(), Some(metadata.uid()), Some(metadata.gid()))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).with_context(|| format!("could not replace {}", path.display()))?;
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<CassandraYaml> {
        CassandraYaml::parse(Path::new("/etc/cassandra/cassandra.yaml"), text)
    }

    #[test]
    fn defaults_are_those_of_cassandra() {
        let yaml = parse("cluster_name: x\n").unwrap();
        assert_eq!(yaml.data_directories, [PathBuf::from("/var/lib/cassandra/data")]);
        assert_eq!((yaml.native_port, yaml.storage_port, yaml.native_tls), (9042, 7000, false));
        assert!(yaml.native_transport && yaml.rpc_address.is_none());
    }

    #[test]
    fn folders_ports_and_addresses_are_read() {
        let yaml = parse(
            "data_file_directories:\n    - /d1\n    - /d2\nlocal_system_data_file_directory: /sys\ncommitlog_directory: /cl\n\
             rpc_address: 0.0.0.0\nlisten_address: 10.0.0.1\nnative_transport_port: 9999\nstorage_port: 7777\n\
             client_encryption_options: {enabled: true}\n\
             seed_provider: [{class_name: x, parameters: [{seeds: \"10.0.0.1, n2:7000,::1\"}]}]\n",
        )
        .unwrap();
        assert_eq!(yaml.seeds, ["10.0.0.1", "n2", "::1"]);
        assert!(yaml.is_seed());
        let other = CassandraYaml { own_addresses: vec!["10.0.0.9".into()], ..yaml };
        assert!(!other.is_seed());
        let yaml = other;
        assert_eq!(yaml.table_directories(), [PathBuf::from("/d1"), "/d2".into(), "/sys".into()]);
        assert_eq!((yaml.native_port, yaml.storage_port, yaml.native_tls), (9999, 7777, true));
        assert_eq!((yaml.rpc_address, yaml.listen_address.as_deref()), (None, Some("10.0.0.1")));
        let tls =
            "client_encryption_options: {enabled: true}\nnative_transport_port: 1\nnative_transport_port_ssl: 2\n";
        assert_eq!(parse(tls).unwrap().native_port, 2);
        assert_eq!(parse("data_file_directories: /one\n").unwrap().data_directories, [PathBuf::from("/one")]);
    }

    #[test]
    fn peers_use_the_legacy_port_only_where_it_is_opened() {
        let port = |options: &str| {
            let text = format!("storage_port: 1\nssl_storage_port: 2\nserver_encryption_options: {{{options}}}\n");
            parse(&text).unwrap().storage_port
        };
        assert_eq!(port("internode_encryption: all"), 1);
        assert_eq!(port("internode_encryption: all, enable_legacy_ssl_storage_port: false"), 1);
        assert_eq!(port("internode_encryption: all, enable_legacy_ssl_storage_port: true"), 2);
        assert_eq!(port("internode_encryption: none, enable_legacy_ssl_storage_port: true"), 1);
    }

    #[test]
    fn what_is_no_cassandra_yaml_is_refused() {
        for text in ["- a\n- b\n", "just text", "a: [", "data_file_directories: []\n", "native_transport_port: high\n"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_cassandra_starts_with_is_read() {
        let yaml =
            parse("storage_port: 1\nphi_convict_threshold: .inf\nx: {a: .nan, a: 1}\nstorage_port: 2\n").unwrap();
        assert_eq!(yaml.storage_port, 2);
        let edit = TokenEdit { tokens: vec!["1".into()] };
        assert!(edit.apply("a: .inf\n").unwrap().starts_with("a: .inf\n"));
    }

    #[test]
    fn three_keys_are_set_and_every_other_byte_stays() {
        let edit = TokenEdit { tokens: vec!["-5".into(), "7".into()] };
        let text = "# initial_token: no\ncluster_name: 'a # b'\r\nnum_tokens: 16 # why\nseed_provider:\n  - class_name: X\nlast: 1";
        let expected = "# initial_token: no\ncluster_name: 'a # b'\r\nnum_tokens: 2 # why\nseed_provider:\n  - class_name: X\nlast: 1\ninitial_token: -5,7\nauto_bootstrap: false\n";
        assert_eq!(edit.apply(text).unwrap(), expected);
        assert_eq!(edit.apply(expected).unwrap(), expected);
        let one = TokenEdit { tokens: vec!["42".into()] };
        assert_eq!(
            one.apply("initial_token: 1\r\nx: y\r\n").unwrap(),
            "initial_token: 42\r\nx: y\r\nnum_tokens: 1\r\nauto_bootstrap: false\r\n"
        );
    }

    #[test]
    fn an_edit_that_would_change_something_else_is_refused() {
        let edit = TokenEdit { tokens: vec!["1".into(), "2".into()] };
        for text in [
            "initial_token:\n  - 1\n  - 2\nx: 1\n",
            "initial_token: >\n  1,\n  2\nx: 1\n",
            "num_tokens: 1\nnum_tokens: 2\n",
        ] {
            assert!(edit.apply(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cassandra.yaml");
        fs::write(&path, "x: 1\n").unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        TokenEdit { tokens: vec!["1".into()] }.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::read_to_string(&path).unwrap().contains("initial_token: 1\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(text in "[a-z:{}\\[\\]\"'#&*!|>\n \t-]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_value_makes_the_reader_panic(
            key in "(data_file_directories|commitlog_directory|native_transport_port|client_encryption_options|seed_provider|storage_port|initial_token)",
            value in "(null|[0-9-]{1,12}|\\[[a-z/, ]{0,12}\\]|\\{enabled: [a-z0-9]{0,5}\\}|\"[a-z/]{0,9}\"|)",
        ) {
            if let Ok(yaml) = parse(&format!("{key}: {value}\n")) {
                proptest::prop_assert!(!yaml.data_directories.is_empty());
            }
        }
    }
}
