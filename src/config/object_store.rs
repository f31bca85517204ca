//! The keys of `[storage]` that only object stores need.

use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::{ConfigError, Typed};

const SECTION: &str = "storage";

/// See the module.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    /// Credentials, in the provider's own form.
    pub key_file: Option<PathBuf>,
    /// `None`: by the provider's name.
    pub region: Option<String>,
    pub api_profile: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// https
    pub secure: bool,
    pub ssl_verify: bool,
    /// Authorities beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    pub addressing: Addressing,
    /// For so long nothing may move.
    pub read_timeout: Duration,
    pub storage_class: Option<String>,
    pub encryption: Encryption,
    /// Bytes per second for the whole process; 0: no limit.
    pub transfer_max_bandwidth: u64,
    /// Parts of one file.
    pub multipart_max_concurrency: usize,
    /// The store refuses to create what is there.
    pub conditional_create: bool,
    pub checksums: Checksums,
}

/// Whether uploads to S3 carry a checksum beside their MD5. Called as in the programs of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// As the environment says, else where it is AWS.
    Auto,
    WhenSupported,
    WhenRequired,
}

/// Where S3 finds the bucket in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    Auto,
    Path,
    Virtual,
}

/// How S3 encrypts what it stores.
#[derive(Debug, Clone)]
pub enum Encryption {
    /// As the bucket is set.
    Bucket,
    /// A key of the key management service.
    Kms(String),
    /// A key that we send with each request: base64 of 32 bytes.
    Customer(Secret),
}

impl Typed<'_> {
    pub(super) fn object_store(&self) -> Result<ObjectStore, ConfigError> {
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0);
        let port = match self.filled(SECTION, "port") {
            Some(_) => Some(self.parsed(SECTION, "port", port, "it must be a number from 1 to 65535")?),
            None => None,
        };
        let host = self.filled(SECTION, "host");
        if host.as_ref().is_some_and(|host| host.contains("://") || host.contains('/')) {
            let why =
                "it must be a name or an address alone; secure says whether it is https, and port is a key of its own";
            return Err(self.bad(SECTION, "host", why));
        }
        Ok(ObjectStore {
            key_file: self.home_path("key_file"),
            region: self.filled(SECTION, "region").filter(|region| region != "default"),
            api_profile: self.filled(SECTION, "api_profile"),
            host,
            port,
            secure: self.flag(SECTION, "secure")?,
            ssl_verify: self.flag(SECTION, "ssl_verify")?,
            ca_file: self.home_path("ca_file"),
            addressing: match self.choice(SECTION, "s3_addressing_style")?.as_str() {
                "path" => Addressing::Path,
                "virtual" => Addressing::Virtual,
                _ => Addressing::Auto,
            },
            read_timeout: self.seconds(SECTION, "read_timeout")?,
            storage_class: self.filled(SECTION, "storage_class"),
            encryption: self.encryption()?,
            transfer_max_bandwidth: self.size(SECTION, "transfer_max_bandwidth")?,
            multipart_max_concurrency: self.at_least_one(SECTION, "multipart_max_concurrency")?,
            conditional_create: self.flag(SECTION, "conditional_create")?,
            checksums: match self.choice(SECTION, "request_checksum_calculation")?.as_str() {
                "when_supported" => Checksums::WhenSupported,
                "when_required" => Checksums::WhenRequired,
                _ => Checksums::Auto,
            },
        })
    }

    fn encryption(&self) -> Result<Encryption, ConfigError> {
        let kms_id = self.filled(SECTION, "kms_id");
        let (key, origin) = match (self.filled(SECTION, "sse_c_key"), self.home_path("sse_c_key_file")) {
            (Some(_), Some(_)) => {
                return Err(self.bad(SECTION, "sse_c_key_file", "sse_c_key is set as well; leave one of them out"));
            }
            (Some(key), None) => (Some(key), "sse_c_key"),
            (None, Some(file)) => {
                let read = fs_err::read_to_string(file);
                let read = read.map_err(|source| ConfigError::SecretFile { key: "sse_c_key_file".into(), source })?;
                (Some(read.trim().to_owned()), "sse_c_key_file")
            }
            (None, None) => (None, ""),
        };
        match (kms_id, key) {
            (Some(_), Some(_)) => {
                Err(self.bad(SECTION, "kms_id", &format!("{origin} is set as well; leave one of them out")))
            }
            (Some(kms_id), None) => Ok(Encryption::Kms(kms_id)),
            (None, Some(key)) => {
                use base64::Engine as _;
                let decoded = base64::engine::general_purpose::STANDARD.decode(&key);
                if decoded.is_ok_and(|bytes| bytes.len() == 32) {
                    return Ok(Encryption::Customer(Secret::new(key)));
                }
                Err(self.bad(SECTION, origin, "it must be the base64 form of 32 bytes"))
            }
            (None, None) => Ok(Encryption::Bucket),
        }
    }

    /// `~` is the home folder, as in Medusa.
    fn home_path(&self, key: &str) -> Option<PathBuf> {
        let path = self.path(SECTION, key)?;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Some(match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        })
    }

    pub(super) fn concurrent_transfers(&self) -> Result<Option<usize>, ConfigError> {
        const KEY: &str = "concurrent_transfers";
        self.filled(SECTION, KEY).map(|_| self.at_least_one(SECTION, KEY)).transpose()
    }
}
