//! From the text of `medusa.ini` to its types.

use super::ssh::HostKeyCheck;
use super::*;

const MINIMAL: &str = "[storage]\nstorage_provider = local\nbucket_name = b\nbase_path = /backups\n";

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &Overrides::default(), &[])
}

fn load_with(text: &str, overrides: &Overrides, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_text(text, Path::new("/etc/medusa/medusa.ini"), overrides, &environment)
}

fn error(text: &str) -> String {
    load(text).expect_err("a refused configuration").to_string()
}

#[test]
fn defaults_fill_what_the_file_leaves_out() {
    let config = load(MINIMAL).unwrap();
    assert_eq!(config.cassandra.stop_cmd, ["sudo", "service", "cassandra", "stop"]);
    assert_eq!(config.storage.multipart_chunksize, 50 << 20);
    assert_eq!(config.storage.prefix, None);
    assert_eq!(config.checks.health_check, HealthCheck::Cql);
    assert_eq!(config.values.get("storage", "region").origin, Origin::Default);
}

#[test]
fn file_then_flag_then_environment_then_secret_file() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("username"), "from-file\n").unwrap();
    fs_err::write(folder.path().join("password"), " pw \n").unwrap();
    let text = format!("{MINIMAL}prefix = of-file\n[cassandra]\ncql_username = of-file\n");

    let of_file = load(&text).unwrap();
    assert_eq!(of_file.storage.prefix.as_deref(), Some("of-file"));
    let origin = Origin::File { path: "/etc/medusa/medusa.ini".into(), line: 5 };
    assert_eq!(of_file.values.get("storage", "prefix").origin, origin);

    let overrides = Overrides { prefix: Some("of-flag".into()), ..Overrides::default() };
    let of_flag = load_with(&text, &overrides, &[("MEDUSA_CQL_USERNAME", "of-env")]).unwrap();
    assert_eq!(of_flag.storage.prefix.as_deref(), Some("of-flag"));
    assert_eq!(of_flag.cassandra.cql_username.as_deref(), Some("of-env"));

    let secrets = folder.path().to_str().unwrap();
    let environment = [("MEDUSA_CQL_USERNAME", "of-env"), ("MEDUSA_CQL_K8S_SECRETS_PATH", secrets)];
    let of_secret = load_with(&text, &Overrides::default(), &environment).unwrap();
    assert_eq!(of_secret.cassandra.cql_username.as_deref(), Some("from-file"));
    assert_eq!(of_secret.cassandra.cql_password.unwrap().reveal(), "pw");
}

#[test]
fn old_environment_names_work_with_a_warning_and_lose_against_new_ones() {
    let old = load_with(MINIMAL, &Overrides::default(), &[("CQL_USERNAME", "old")]).unwrap();
    assert_eq!(old.cassandra.cql_username.as_deref(), Some("old"));
    assert!(old.values.warnings[0].contains("MEDUSA_CQL_USERNAME"), "{:?}", old.values.warnings);
    let both = [("CQL_USERNAME", "old"), ("MEDUSA_CQL_USERNAME", "new")];
    let both = load_with(MINIMAL, &Overrides::default(), &both).unwrap();
    assert_eq!(both.cassandra.cql_username.as_deref(), Some("new"));
}

#[test]
fn key_file_and_ssh_key_file_go_each_to_their_own_section() {
    let overrides = Overrides {
        key_file: Some("/storage.json".into()),
        ssh_key_file: Some("/id_ed25519".into()),
        ssh_username: Some("ops".into()),
        ..Overrides::default()
    };
    let config = load_with(MINIMAL, &overrides, &[("USER", "me")]).unwrap();
    let text = |section, key| config.values.get(section, key).text.clone();
    assert_eq!(text("storage", "key_file").as_deref(), Some("/storage.json"));
    assert_eq!(text("ssh", "key_file").as_deref(), Some("/id_ed25519"));
    assert_eq!(text("ssh", "username").as_deref(), Some("ops"));
    let default = load_with(MINIMAL, &Overrides::default(), &[("USER", "me")]).unwrap();
    assert_eq!(default.values.get("ssh", "username").text.as_deref(), Some("me"));
}

#[test]
fn default_section_is_inherited_only_by_keys_without_a_built_in_default() {
    let text = "[DEFAULT]\nbucket_name = shared\nregion = r\n[storage]\nstorage_provider = local\n";
    let config = load(text).unwrap();
    assert_eq!(config.storage.bucket_name, "shared");
    assert_eq!(config.values.get("storage", "region").text.as_deref(), Some("default"));
}

#[test]
fn default_section_is_inherited_by_sections_that_the_file_does_not_have() {
    let config = load(&format!("[DEFAULT]\ncql_username = shared\nprefix = p1\n{MINIMAL}")).unwrap();
    assert_eq!(config.cassandra.cql_username.as_deref(), Some("shared"));
    assert_eq!(config.storage.prefix.as_deref(), Some("p1"));
}

/// Files that Medusa reads: what is empty there is off or has its default.
#[test]
fn an_empty_value_is_as_if_the_key_were_not_there() {
    let all = |line: &str| {
        let mut text = String::new();
        for section in ["storage", "cassandra", "ssh", "checks", "monitoring", "hooks", "logging", "grpc", "kubernetes"]
        {
            text.push_str(&format!("[{section}]\n"));
            if section == "storage" {
                text.push_str("storage_provider = local\nbucket_name = b\nbase_path = /backups\n");
            }
            for key in keys::KEYS.iter().filter(|key| key.section == section) {
                if !matches!(key.name, "storage_provider" | "bucket_name" | "base_path") {
                    text.push_str(&format!("{} ={line}\n", key.name));
                }
            }
        }
        text
    };
    let config = load(&all("")).unwrap();
    let read = |section, name| {
        let value = config.values.get(section, name);
        (value.text.as_deref(), value.origin.to_string())
    };
    for (section, name) in [
        ("storage", "secure"),
        ("storage", "ssl_verify"),
        ("storage", "read_timeout"),
        ("storage", "multi_part_upload_threshold"),
        ("storage", "multipart_chunksize"),
        ("storage", "multipart_max_concurrency"),
        ("storage", "concurrent_transfers"),
        ("cassandra", "nodetool_ssl"),
        ("cassandra", "use_sudo"),
        ("cassandra", "sstableloader_bin"),
        ("ssh", "port"),
        ("checks", "expected_rows"),
        ("logging", "level"),
        ("logging", "file"),
        ("logging", "maxbytes"),
    ] {
        let default = keys::find(section, name).unwrap().default;
        let origin = if default.is_some() { "default" } else { "not set" };
        assert_eq!(read(section, name), (default, origin.to_owned()), "{name}");
    }
    // Medusa's `or None`: no limit, which is not its default.
    assert_eq!(read("storage", "transfer_max_bandwidth").0, Some("0"));
    assert!(read("storage", "transfer_max_bandwidth").1.starts_with("/etc/medusa/medusa.ini:"));
    assert_eq!(config.storage.object_store.transfer_max_bandwidth, 0);
    assert_eq!(config.ssh.port, None);
    // Nothing is run instead of what somebody has taken out.
    assert!(config.cassandra.start_cmd.is_empty() && config.cassandra.stop_cmd.is_empty());
    assert!(config.cassandra.nodetool_flags.is_empty());
}

#[test]
fn what_medusa_takes_for_off_is_off() {
    let text = format!(
        "{MINIMAL}max_backup_age = -1\nmax_backup_count = -1\n[ssh]\nkeepalive_seconds = 0\n\
         [cassandra]\nnodetool_ssl = None\n[grpc]\nport = any\nmax_send_message_length = -1\n\
         [checks]\nmd5_check_concurrency = many\n[kubernetes]\nuse_mgmt_api = perhaps\n"
    );
    let config = load(&text).unwrap();
    assert_eq!(config.storage.retention.max_backup_age, 0);
    assert_eq!(config.storage.retention.max_backup_count, 0);
    assert_eq!(config.ssh.keepalive, Duration::ZERO);
    assert!(!config.cassandra.nodetool_ssl);
    for level in ["WARN", "FATAL", "warning", "NOTSET"] {
        let config = load(&format!("{MINIMAL}[logging]\nlevel = {level}\n")).unwrap();
        assert_eq!(config.logging.level, level.to_lowercase());
    }
}

#[test]
fn kubernetes_turns_sudo_off_and_names_the_node_after_the_pod() {
    let text = format!("{MINIMAL}fqdn = x\n[kubernetes]\nenabled = true\n");
    let config = load_with(&text, &Overrides::default(), &[("POD_IP", "10.1.2.3")]).unwrap();
    assert!(config.kubernetes && !config.storage.use_sudo_for_restore);
    assert_eq!(config.storage.fqdn.as_deref(), Some("10.1.2.3"));
}

#[test]
fn unknown_keys_and_sections_are_named_once_each() {
    let config = load(&format!("{MINIMAL}bucketname = x\n[storag]\na = 1\nb = 2\n")).unwrap();
    assert_eq!(config.values.warnings.len(), 2, "{:?}", config.values.warnings);
    assert!(config.values.warnings[0].contains("medusa.ini:5"), "{:?}", config.values.warnings);
    assert!(
        config.values.warnings[0]
            .ends_with("unknown key bucketname in [storage] is ignored; did you mean bucket_name?")
    );
    assert!(config.values.warnings[1].contains("[storag]"));
}

#[test]
fn bad_configurations_say_what_is_wrong_and_where() {
    assert_eq!(error("[storage]\nbucket_name = b\n"), "storage_provider is missing in [storage]");
    assert_eq!(error("[storage]\nstorage_provider = local\n"), "bucket_name is missing in [storage]");
    assert_eq!(
        error(&format!("{MINIMAL}multipart_chunksize = huge\n")),
        "multipart_chunksize in [storage] is \"huge\", but it must be a size such as 50MB, 2GiB or 1048576 (from /etc/medusa/medusa.ini:5)"
    );
    assert_eq!(
        error("[storage]\nx = 1\nX = 2\n"),
        "/etc/medusa/medusa.ini: line 3: x in [storage] was already given on line 2"
    );
    assert!(error(&MINIMAL.replace("= b\n", "= a/b\n")).contains("\"a/b\", but it must not contain a slash"));
    for (line, part) in [
        ("prefix = a/b", "must not contain a slash"),
        ("prefix = x", "half applied by Medusa"),
        ("prefix = ..", "name of a folder"),
        ("concurrent_transfers = 0", "above 0"),
        ("concurrent_requests = 0", "above 0"),
        ("max_backup_age = ten", "whole number"),
        ("secure = maybe", "True or False"),
        ("transfer_max_bandwidth = \"50MB/s\"", "must be a size"),
    ] {
        let text = error(&format!("{MINIMAL}{line}\n"));
        assert!(text.contains(part), "{line}: {text}");
    }
    for (line, part) in [
        ("start_cmd = 'open", "balanced quotes"),
        ("nodetool_ssl = maybe", "True or False"),
        ("cql_timeout = 0", "above 0"),
    ] {
        let text = error(&format!("{MINIMAL}[cassandra]\n{line}\n"));
        assert!(text.contains(part), "{line}: {text}");
    }
    assert!(error(&format!("{MINIMAL}[checks]\nhealth_check = ping\n")).contains("cql, thrift, all"));
    for (line, part) in [
        ("[monitoring]\nmonitoring_provider = statsd", "one of None, local, dog-statsd, prometheus"),
        ("[monitoring]\nmonitoring_provider = local,", "one of None, local, dog-statsd, prometheus"),
        ("[monitoring]\nprometheus_textfile = /", "path of a file"),
        ("[hooks]\nafter_backup = 'open", "balanced quotes"),
        ("[hooks]\ntimeout = 0", "above 0"),
    ] {
        let text = error(&format!("{MINIMAL}{line}\n"));
        assert!(text.contains(part), "{line}: {text}");
    }
}

#[test]
fn providers_of_metrics_are_none_one_or_several_in_any_case() {
    let providers = |value: &str| {
        load(&format!("{MINIMAL}[monitoring]\nmonitoring_provider = {value}\n")).unwrap().monitoring.providers
    };
    assert_eq!(load(MINIMAL).unwrap().monitoring.providers, []);
    assert_eq!(providers("none"), []);
    assert_eq!(providers("Local"), [Provider::Local]);
    assert_eq!(providers("dog-statsd, prometheus"), [Provider::DogStatsd, Provider::Prometheus]);
}

#[test]
fn hooks_are_split_as_a_shell_splits_them() {
    let config = load(&format!("{MINIMAL}[hooks]\nafter_backup = /bin/sh -c 'a b'\non_failure =\n")).unwrap();
    assert_eq!(config.hooks.after_backup, ["/bin/sh", "-c", "a b"]);
    assert!(config.hooks.before_backup.is_empty() && config.hooks.on_failure.is_empty());
    assert_eq!((config.hooks.required, config.hooks.timeout), (false, Duration::from_mins(1)));
}

#[test]
fn a_secret_is_masked_in_errors_and_in_what_is_shown() {
    let text = format!("{MINIMAL}[cassandra]\ncql_password = hunter2\nnodetool_password =\n");
    let config = load(&text).unwrap();
    let shown = |name| {
        let key = keys::find("cassandra", name).unwrap();
        Values::shown(key, config.values.get("cassandra", name))
    };
    assert_eq!(shown("cql_password").as_deref(), Some("****"));
    assert_eq!(shown("nodetool_password").as_deref(), Some(""));
    assert!(!format!("{:?}", config.cassandra).contains("hunter2"));
}

/// The example names every key: active with its default, or commented out where it has none.
#[test]
fn the_example_file_agrees_with_the_defaults() {
    let example = include_str!("../../medusa.example.ini");
    let uncommented: String = example
        .lines()
        .map(|line| line.strip_prefix(';').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let (active, all) = (Ini::parse(example).unwrap(), Ini::parse(&uncommented).unwrap());
    for key in keys::KEYS.iter().filter(|key| key.name != "k8s_mode") {
        assert!(all.get(key.section, key.name).is_some(), "{} is not in [{}]", key.name, key.section);
        let given = active.get(key.section, key.name).map(|entry| entry.value.as_str());
        let required = matches!(key.name, "storage_provider" | "bucket_name" | "base_path");
        if !required {
            assert_eq!(given, key.default, "{} in [{}]", key.name, key.section);
        }
    }
    assert_eq!(unknown(&all), Vec::<String>::new());
    load(example).unwrap();
}

fn unknown(ini: &Ini) -> Vec<String> {
    let keys = ini.sections.iter().flat_map(|(section, keys)| keys.keys().map(move |key| (section, key)));
    keys.filter(|(section, key)| keys::find(section, key).is_none()).map(|(s, k)| format!("{s}.{k}")).collect()
}

#[test]
fn what_is_not_set_is_left_to_ssh() {
    let ssh = |lines: &str, overrides: &Overrides| {
        load_with(&format!("{MINIMAL}[ssh]\n{lines}\n"), overrides, &[("USER", "me")]).unwrap().ssh
    };
    let unset = ssh("", &Overrides::default());
    assert_eq!((unset.username, unset.port, unset.key_file, unset.config_file), (None, None, None, None));
    assert_eq!((unset.host_key_check, unset.use_sudo), (HostKeyCheck::Yes, true));
    let set = ssh(
        "port = 22\nhost_key_check = Accept-New",
        &Overrides { ssh_username: Some("ops".into()), ..Overrides::default() },
    );
    assert_eq!((set.username.as_deref(), set.port), (Some("ops"), Some(22)));
    assert_eq!(set.host_key_check, HostKeyCheck::AcceptNew);
    for (line, part) in [
        ("port = 0", "1 to 65535"),
        ("port = 70000", "1 to 65535"),
        ("host_key_check = maybe", "yes, accept-new, no"),
        ("idle_timeout = 0", "above 0"),
    ] {
        let text = error(&format!("{MINIMAL}[ssh]\n{line}\n"));
        assert!(text.contains(part), "{line}: {text}");
    }
}
