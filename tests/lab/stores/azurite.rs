//! Azurite, Microsoft's emulator of Azure Blob Storage.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use super::helper::Helper;
use super::process::{self, Process};
use super::{ObjectServer, Settings, tls};
use crate::lab::cache;

/// The account that Azurite has from the start, and its key, which its manual names.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// What follows `blob.core.`: programs put the account before it, and get a name of this machine (see `setup.sh`).
const HOST: &str = "localhost";

/// A running server, by https. Killed and removed when dropped, or when its process ends.
#[derive(Debug)]
pub struct Azurite {
    pub port: u16,
    /// The URL of the account.
    pub endpoint: String,
    /// The authority that its certificate is of.
    pub ca: PathBuf,
    pub process: Process,
    key_file: PathBuf,
    helper: Helper,
}

impl Azurite {
    pub fn start() -> Self {
        let program = cache("azurite/node_modules/.bin/azurite-blob");
        let folder = process::folder("azurite");
        let name = format!("{ACCOUNT}.blob.core.{HOST}");
        let [certificate, key, ca] = tls::issue(&folder.join("certs"), &[&name, "localhost", "127.0.0.1"]);
        let key_file = folder.join("account.json");
        std::fs::write(&key_file, json!({ "storage_account": ACCOUNT, "key": KEY }).to_string()).unwrap();
        let command = |port: u16| {
            let mut command = Command::new(&program);
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
            // The libraries speak newer versions than it knows of.
            command.args(["--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--disableTelemetry"]);
            command.arg("--cert").arg(&certificate).arg("--key").arg(&key).current_dir(&folder);
            command
        };
        let ready = |port: u16| tls::answers(port, &name, Some(&ca), "/?comp=list").is_some();
        let process = Process::start(&folder, command, ready);
        let endpoint = format!("https://{name}:{}", process.port);
        let helper = Helper::new("azurite.py", json!({ "endpoint": endpoint, "key": KEY, "ca": ca }));
        Self { port: process.port, endpoint, ca, process, key_file, helper }
    }

    /// One for all tests of this run. The watchdog ends it with the program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }
}

impl Azurite {
    /// Account and key, for `key_file`.
    pub fn key_file(&self) -> &std::path::Path {
        &self.key_file
    }
}

impl ObjectServer for Azurite {
    fn port(&self) -> u16 {
        self.port
    }

    /// medusa trusts `ca_file`, a key that cassandra-medusa does not know.
    fn settings_at(&self, bucket: &str, port: u16) -> Settings {
        vec![
            ("storage_provider", "azure_blobs".to_owned()),
            ("bucket_name", bucket.to_owned()),
            ("host", HOST.to_owned()),
            ("port", port.to_string()),
            ("key_file", self.key_file.display().to_string()),
            ("ca_file", self.ca.display().to_string()),
        ]
    }

    /// cassandra-medusa trusts what Python does.
    fn environment_at(&self, _port: u16) -> Vec<(&'static str, String)> {
        vec![("SSL_CERT_FILE", self.ca.display().to_string())]
    }

    fn helper(&self) -> &Helper {
        &self.helper
    }
}
