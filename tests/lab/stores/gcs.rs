//! fake-gcs-server behind a gateway that speaks GCS's XML API, so that medusa (XML) and cassandra-medusa (JSON) meet in one
//! bucket.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use super::gateway::Gateway;
use super::helper::Helper;
use super::process::{self, Process};
use super::{ObjectServer, Settings, tls};
use crate::lab::cache;

/// A running server. Killed when dropped, or when its process ends. It keeps objects in memory.
#[derive(Debug)]
pub struct FakeGcs {
    /// The gateway's.
    pub port: u16,
    /// The URL of both APIs.
    pub endpoint: String,
    pub process: Process,
    helper: Helper,
    gateway: Gateway,
}

impl FakeGcs {
    pub fn start() -> Self {
        let program = cache("tools/bin/fake-gcs-server");
        let folder = process::folder("gcs");
        let command = |port: u16| {
            let mut command = Command::new(&program);
            command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
            command.args(["-data", "/nonexistent", "-log-level", "warn"]).current_dir(&folder);
            command
        };
        let ready = |port: u16| tls::answers(port, "127.0.0.1", None, "/_internal/healthcheck") == Some(200);
        let process = Process::start(&folder, command, ready);
        let gateway = Gateway::start(process.port);
        let endpoint = format!("http://127.0.0.1:{}", gateway.port);
        // Not through the gateway: the tests see what the server has.
        let access = json!({ "endpoint": format!("http://127.0.0.1:{}", process.port) });
        Self { port: gateway.port, endpoint, process, helper: Helper::new("gcs.py", access), gateway }
    }

    /// One for all tests of this run. The watchdog ends it with the program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<FakeGcs> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }
}

impl ObjectServer for FakeGcs {
    fn port(&self) -> u16 {
        self.port
    }

    /// The key file is a service account that needs no token and leads to the server. cassandra-medusa reads nothing but its
    /// type.
    fn settings_at(&self, bucket: &str, port: u16) -> Settings {
        let key_file = self.process.folder.join(format!("account-{port}.json"));
        let account = json!({
            "type": "service_account",
            "gcs_base_url": format!("http://127.0.0.1:{port}"),
            "disable_oauth": true,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        });
        std::fs::write(&key_file, account.to_string()).unwrap();
        vec![
            ("storage_provider", "google_storage".to_owned()),
            ("bucket_name", bucket.to_owned()),
            ("key_file", key_file.display().to_string()),
        ]
    }

    /// How cassandra-medusa finds it, and that it needs no token there.
    fn environment_at(&self, port: u16) -> Vec<(&'static str, String)> {
        vec![("STORAGE_EMULATOR_HOST", format!("http://127.0.0.1:{port}"))]
    }

    fn helper(&self) -> &Helper {
        &self.helper
    }
}
