//! Every key of medusa.ini with its default. The names and defaults of cassandra-medusa 0.31 are kept; ours come after them.

/// What kind of value a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Words of a command line. Empty: none.
    Words,
    /// Shown as `****`.
    Secret,
    /// `True` or `False`, in all spellings of Python's `ConfigParser`.
    Flag,
    Number,
    /// A number; 0 and what is below it: none.
    Limit,
    /// Seconds.
    Seconds,
    Size,
    /// A size for each second; 0 or empty: no limit.
    Rate,
    /// One of a list, any case.
    Choice(&'static [&'static str]),
    /// Accepted and without effect here.
    Unused,
}

/// One key of medusa.ini.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// `None`: not set.
    pub default: Option<&'static str>,
}

impl Key {
    /// What a value of the file stands for. `None`: as if the key were not there. To Medusa, most keys that are empty are off
    /// or have their default, and what Python writes for nothing is `None`.
    pub fn meant<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self.kind {
            Kind::Secret | Kind::Words | Kind::Unused => Some(text),
            Kind::Rate if text.is_empty() => Some("0"),
            Kind::Text => Some(text).filter(|text| !text.is_empty() || self.default.is_none()),
            _ => Some(text).filter(|text| !matches!(*text, "" | "None")),
        }
    }
}

const fn key(section: &'static str, name: &'static str, kind: Kind, default: Option<&'static str>) -> Key {
    Key { section, name, kind, default }
}

use Kind::{Choice, Flag, Limit, Number, Rate, Seconds, Secret, Size, Text, Unused, Words};

/// All keys, by section, in the order of `medusa.example.ini`.
pub const KEYS: &[Key] = &[
    key("storage", "storage_provider", Text, None),
    key("storage", "bucket_name", Text, None),
    key("storage", "base_path", Text, None),
    key("storage", "prefix", Text, None),
    key("storage", "fqdn", Text, None),
    key("storage", "key_file", Text, None),
    key("storage", "region", Text, Some("default")),
    key("storage", "api_profile", Text, Some("")),
    key("storage", "host", Text, None),
    key("storage", "port", Text, None),
    key("storage", "secure", Flag, Some("True")),
    key("storage", "ssl_verify", Flag, Some("True")),
    key("storage", "ca_file", Text, None),
    key("storage", "s3_addressing_style", Choice(&["auto", "path", "virtual"]), Some("auto")),
    key("storage", "read_timeout", Seconds, Some("60")),
    key("storage", "storage_class", Text, None),
    key("storage", "kms_id", Text, None),
    key("storage", "sse_c_key", Secret, None),
    key("storage", "sse_c_key_file", Text, None),
    key("storage", "conditional_create", Flag, Some("True")),
    key("storage", "request_checksum_calculation", Choice(&["auto", "when_supported", "when_required"]), Some("auto")),
    key("storage", "transfer_max_bandwidth", Rate, Some("50MB/s")),
    key("storage", "concurrent_transfers", Number, None),
    key("storage", "concurrent_requests", Number, Some("32")),
    key("storage", "multi_part_upload_threshold", Size, Some("20MB")),
    key("storage", "multipart_chunksize", Size, Some("50MB")),
    key("storage", "multipart_max_concurrency", Number, Some("4")),
    key("storage", "max_backup_age", Limit, Some("0")),
    key("storage", "max_backup_count", Limit, Some("0")),
    key("storage", "backup_grace_period_in_days", Number, Some("10")),
    key("storage", "keep_last", Number, Some("0")),
    key("storage", "keep_daily", Number, Some("0")),
    key("storage", "keep_weekly", Number, Some("0")),
    key("storage", "keep_monthly", Number, Some("0")),
    key("storage", "keep_yearly", Number, Some("0")),
    key("storage", "use_sudo_for_restore", Flag, Some("True")),
    key("storage", "host_file_separator", Text, Some(",")),
    key("storage", "aws_cli_path", Unused, Some("aws")),
    key("storage", "k8s_mode", Unused, None),
    key("cassandra", "config_file", Text, Some("/etc/cassandra/cassandra.yaml")),
    key("cassandra", "start_cmd", Words, Some("sudo service cassandra start")),
    key("cassandra", "stop_cmd", Words, Some("sudo service cassandra stop")),
    key("cassandra", "check_running", Unused, Some("nodetool version")),
    key("cassandra", "is_ccm", Unused, Some("0")),
    key("cassandra", "cql_username", Text, None),
    key("cassandra", "cql_password", Secret, None),
    key("cassandra", "certfile", Text, None),
    key("cassandra", "usercert", Text, None),
    key("cassandra", "userkey", Text, None),
    key("cassandra", "nodetool_executable", Text, Some("nodetool")),
    key("cassandra", "nodetool_flags", Words, Some("-Dcom.sun.jndi.rmiURLParsing=legacy")),
    key("cassandra", "nodetool_username", Text, None),
    key("cassandra", "nodetool_password", Secret, None),
    key("cassandra", "nodetool_password_file_path", Text, None),
    key("cassandra", "nodetool_host", Text, None),
    key("cassandra", "nodetool_port", Text, None),
    key("cassandra", "nodetool_ssl", Flag, Some("false")),
    key("cassandra", "sstableloader_bin", Text, Some("sstableloader")),
    key("cassandra", "sstableloader_ts", Text, None),
    key("cassandra", "sstableloader_tspw", Secret, None),
    key("cassandra", "sstableloader_ks", Text, None),
    key("cassandra", "sstableloader_kspw", Secret, None),
    key("cassandra", "resolve_ip_addresses", Flag, Some("True")),
    key("cassandra", "use_sudo", Flag, Some("True")),
    key("cassandra", "cql_k8s_secrets_path", Text, None),
    key("cassandra", "nodetool_k8s_secrets_path", Text, None),
    key("cassandra", "cql_tls_verify", Choice(&["full", "ca", "none"]), Some("full")),
    key("cassandra", "cql_timeout", Seconds, Some("30")),
    key("cassandra", "nodetool_timeout", Seconds, Some("300")),
    key("cassandra", "snapshot_timeout", Seconds, Some("1800")),
    key("cassandra", "stop_timeout", Seconds, Some("300")),
    key("cassandra", "start_timeout", Seconds, Some("600")),
    key("cassandra", "load_timeout", Seconds, Some("86400")),
    key("ssh", "username", Text, Some("")),
    key("ssh", "key_file", Text, Some("")),
    key("ssh", "port", Number, Some("22")),
    key("ssh", "cert_file", Text, Some("")),
    key("ssh", "use_pty", Flag, Some("False")),
    key("ssh", "keepalive_seconds", Number, Some("60")),
    key("ssh", "login_shell", Flag, Some("False")),
    key("ssh", "host_key_check", Choice(&["yes", "accept-new", "no"]), Some("yes")),
    key("ssh", "config_file", Text, None),
    key("ssh", "ssh_program", Text, Some("ssh")),
    key("ssh", "medusa_program", Text, Some("medusa")),
    key("ssh", "connect_timeout", Seconds, Some("30")),
    key("ssh", "idle_timeout", Seconds, Some("120")),
    key("ssh", "reconnect_timeout", Seconds, Some("600")),
    key("checks", "health_check", Choice(&["cql", "thrift", "all"]), Some("cql")),
    key("checks", "query", Text, Some("")),
    key("checks", "expected_rows", Number, Some("0")),
    key("checks", "expected_result", Text, Some("")),
    key("checks", "enable_md5_checks", Flag, Some("false")),
    key("checks", "md5_check_concurrency", Unused, Some("1")),
    key("monitoring", "monitoring_provider", Text, Some("None")),
    key("monitoring", "send_backup_name_tag", Flag, Some("False")),
    key("monitoring", "prometheus_textfile", Text, Some("/var/lib/prometheus/node-exporter/medusa.prom")),
    key("hooks", "before_backup", Words, None),
    key("hooks", "after_backup", Words, None),
    key("hooks", "on_failure", Words, None),
    key("hooks", "after_restore", Words, None),
    key("hooks", "required", Flag, Some("False")),
    key("hooks", "timeout", Seconds, Some("60")),
    key("logging", "enabled", Flag, Some("false")),
    key("logging", "file", Text, Some("medusa.log")),
    key(
        "logging",
        "level",
        Choice(&["critical", "fatal", "error", "warning", "warn", "info", "debug", "notset"]),
        Some("INFO"),
    ),
    key("logging", "format", Text, Some("[%(asctime)s] %(levelname)s: %(message)s")),
    key("logging", "maxbytes", Size, Some("20000000")),
    key("logging", "backupcount", Number, Some("50")),
    key("grpc", "enabled", Unused, Some("False")),
    key("grpc", "port", Unused, Some("50051")),
    key("grpc", "max_send_message_length", Unused, Some("536870912")),
    key("grpc", "max_receive_message_length", Unused, Some("134217728")),
    key("grpc", "ca_cert", Unused, None),
    key("grpc", "tls_cert", Unused, None),
    key("grpc", "tls_key", Unused, None),
    key("kubernetes", "enabled", Flag, Some("False")),
    key("kubernetes", "cassandra_url", Unused, Some("None")),
    key("kubernetes", "use_mgmt_api", Unused, Some("False")),
    key("kubernetes", "ca_cert", Unused, Some("")),
    key("kubernetes", "tls_cert", Unused, Some("")),
    key("kubernetes", "tls_key", Unused, Some("")),
];

pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

pub fn is_section(section: &str) -> bool {
    KEYS.iter().any(|key| key.section == section)
}
