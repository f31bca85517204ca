//! `MinIO`, a real S3 server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::helper::Helper;
use super::process::{self, Process};
use super::{ObjectServer, Settings, tls};
use crate::lab::{cache, unique};

const REGION: &str = "us-east-1";

/// How a server is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// https, with a certificate for 127.0.0.1 and localhost of an authority of its own. SSE-C asks for it.
    pub tls: bool,
    /// A key for SSE-S3 and SSE-KMS, with this name.
    pub kms: Option<&'static str>,
}

/// A running server. Killed and removed when dropped, or when its process ends.
#[derive(Debug)]
pub struct Minio {
    pub options: Options,
    pub port: u16,
    /// The URL of its API.
    pub endpoint: String,
    pub user: String,
    pub password: String,
    /// The authority that its certificate is of.
    pub ca: Option<PathBuf>,
    pub process: Process,
    helper: Helper,
}

/// What a program shows to be let in.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    /// With temporary ones.
    pub session_token: Option<String>,
}

impl Minio {
    pub fn start(options: Options) -> Self {
        Self::start_with(options, None)
    }

    /// One in another region, with this bucket. It may be ready before it knows of its region.
    pub fn start_in(region: &str, bucket: &str) -> Self {
        let minio = Self::start_with(Options::default(), Some(region));
        std::fs::create_dir(minio.data().join(bucket)).unwrap();
        // Whoever asks before it lets anybody in is told to come back in a minute.
        let begin = Instant::now();
        while let Err(error) = minio.helper.attempt("objects", &json!({ "bucket": bucket })) {
            assert!(begin.elapsed() < Duration::from_mins(5), "the server lets nobody in: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        minio
    }

    fn start_with(options: Options, region: Option<&str>) -> Self {
        let program = cache("tools/bin/minio");
        let folder = process::folder("minio");
        let (user, password) = ("lab-user".to_owned(), "lab-password".to_owned());
        let (certificates, data) = (folder.join("certs"), folder.join("data"));
        std::fs::create_dir_all(&certificates).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let ca = options.tls.then(|| {
            let [_, _, authority] = tls::issue(&certificates, &["127.0.0.1", "localhost"]);
            // Beside the folder: what is in it must be a certificate of a server.
            let ca = folder.join("ca.pem");
            std::fs::rename(authority, &ca).unwrap();
            ca
        });
        let command = |port: u16| {
            let mut command = Command::new(&program);
            command.args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")]);
            command.arg("--certs-dir").arg(&certificates).arg(&data);
            command.env_clear().env("HOME", &folder).env("PATH", std::env::var_os("PATH").unwrap_or_default());
            // One that is not on the root disk is not asked for, nor is the network for a newer one.
            command.envs([("MINIO_CI_CD", "on"), ("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")]);
            command.envs([("MINIO_ROOT_USER", &user), ("MINIO_ROOT_PASSWORD", &password)]);
            command.envs(region.map(|region| ("MINIO_REGION", region)));
            if let Some(name) = options.kms {
                command.env("MINIO_KMS_SECRET_KEY", format!("{name}:bGFiLWxhYi1sYWItbGFiLWxhYi1sYWItbGFiLWxhYi0="));
            }
            command
        };
        let ready = |port: u16| tls::answers(port, "127.0.0.1", ca.as_deref(), "/minio/health/ready") == Some(200);
        let process = Process::start(&folder, command, ready);
        let endpoint = format!("{}://127.0.0.1:{}", if options.tls { "https" } else { "http" }, process.port);
        let owner = Credentials { access_key: user.clone(), secret_key: password.clone(), session_token: None };
        let helper = Helper::new("s3.py", access(&endpoint, &owner, ca.as_deref()));
        Self { options, port: process.port, endpoint, user, password, ca, process, helper }
    }

    /// One for all tests of this run, without TLS. The watchdog ends it with the program.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Minio> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Options::default()))
    }

    /// One for all tests of this run, with https and the key `lab-key`. The watchdog ends it with the program.
    pub fn secure() -> &'static Self {
        static SECURE: OnceLock<Minio> = OnceLock::new();
        SECURE.get_or_init(|| Self::start(Options { tls: true, kms: Some("lab-key") }))
    }

    /// Those of the owner of the server.
    pub fn credentials(&self) -> Credentials {
        Credentials { access_key: self.user.clone(), secret_key: self.password.clone(), session_token: None }
    }

    /// Temporary credentials that allow what a policy allows (an IAM policy as JSON).
    pub fn restricted(&self, policy: &Value) -> Credentials {
        let given = self.helper.call("assume", &json!({ "policy": policy }));
        let [access_key, secret_key, session_token]: [String; 3] = serde_json::from_value(given).unwrap();
        Credentials { access_key, secret_key, session_token: Some(session_token) }
    }

    /// Calls a function of `s3.py` with these credentials.
    ///
    /// # Errors
    /// What the server said.
    pub fn attempt_as(&self, who: &Credentials, function: &str, arguments: &Value) -> Result<Value, String> {
        Helper::new("s3.py", access(&self.endpoint, who, self.ca.as_deref())).attempt(function, arguments)
    }

    /// Puts an object with more parameters of boto3's `put_object`.
    pub fn put_with(&self, bucket: &str, key: &str, content: &[u8], more: &Value) {
        let mut arguments = json!({ "bucket": bucket, "key": key, "content": BASE64_STANDARD.encode(content) });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.helper.call("put", &arguments);
    }

    /// A new AWS credentials file, for `key_file`.
    pub fn key_file(&self, credentials: &Credentials) -> PathBuf {
        let path = self.process.folder.join(format!("credentials-{}", unique()));
        let Credentials { access_key, secret_key, session_token } = credentials;
        let mut text = format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n");
        if let Some(token) = session_token {
            text.push_str(&format!("aws_session_token = {token}\n"));
        }
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Where the server keeps everything.
    pub fn data(&self) -> PathBuf {
        self.process.folder.join("data")
    }

    pub fn create_versioned_bucket(&self, bucket: &str) {
        self.helper.call("create_bucket", &json!({ "bucket": bucket, "versioned": true }));
    }

    /// A bucket whose objects can be locked. It has versions.
    pub fn create_locked_bucket(&self, bucket: &str) {
        self.helper.call("create_bucket", &json!({ "bucket": bucket, "lock": true }));
    }

    /// Locks new objects for so many days: `GOVERNANCE` or `COMPLIANCE`.
    pub fn default_retention(&self, bucket: &str, mode: &str, days: u32) {
        self.helper.call("default_retention", &json!({ "bucket": bucket, "mode": mode, "days": days }));
    }

    /// All versions and delete markers: `key`, `version`, `latest`, `deleted`.
    pub fn versions(&self, bucket: &str) -> Vec<Value> {
        serde_json::from_value(self.helper.call("versions", &json!({ "bucket": bucket }))).unwrap()
    }

    /// Keys of multipart uploads that were begun and neither completed nor aborted.
    pub fn incomplete_uploads(&self, bucket: &str) -> Vec<String> {
        let uploads = self.helper.call("uploads", &json!({ "bucket": bucket }));
        uploads.as_array().unwrap().iter().map(|upload| upload["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Begins a multipart upload that nobody completes.
    pub fn begin_upload(&self, bucket: &str, key: &str) {
        self.helper.call("begin_upload", &json!({ "bucket": bucket, "key": key }));
    }
}

impl ObjectServer for Minio {
    fn port(&self) -> u16 {
        self.port
    }

    /// With TLS, medusa trusts `ca_file`. cassandra-medusa knows no such key and trusts what Python's certifi does: it needs
    /// `ssl_verify = False`.
    fn settings_at(&self, bucket: &str, port: u16) -> Settings {
        let (tls, verify) = (self.ca.is_some(), self.ca.is_some());
        let truth = |value: bool| if value { "True" } else { "False" }.to_owned();
        let mut settings = vec![
            ("storage_provider", "s3_compatible".to_owned()),
            ("bucket_name", bucket.to_owned()),
            ("host", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("secure", truth(tls)),
            ("ssl_verify", truth(verify)),
            ("region", REGION.to_owned()),
            ("key_file", display(&self.key_file(&self.credentials()))),
        ];
        settings.extend(self.ca.iter().map(|ca| ("ca_file", display(ca))));
        settings
    }

    fn environment_at(&self, _port: u16) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn helper(&self) -> &Helper {
        &self.helper
    }
}

/// What `s3.py` is given.
fn access(endpoint: &str, who: &Credentials, ca: Option<&Path>) -> Value {
    json!({ "endpoint": endpoint, "user": who.access_key, "password": who.secret_key, "token": who.session_token, "ca": ca })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
