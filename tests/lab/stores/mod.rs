//! Object stores: real servers on loopback (`MinIO`, Azurite, fake-gcs-server), and a proxy that records and disturbs what is
//! said to them.

pub mod azurite;
mod gateway;
pub mod gcs;
mod helper;
pub mod identity;
pub mod minio;
pub mod process;
pub mod recorder;
mod tls;
pub mod wire;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use self::helper::Helper;

/// Keys of `[storage]` with their values.
pub type Settings = Vec<(&'static str, String)>;

/// A server that keeps objects: how medusa and cassandra-medusa reach it, and what is in it.
pub trait ObjectServer {
    /// Where it listens on 127.0.0.1.
    fn port(&self) -> u16;

    /// What `[storage]` says, for both programs, so that they reach the server through this port: its own, or a recorder's.
    fn settings_at(&self, bucket: &str, port: u16) -> Settings;

    fn settings(&self, bucket: &str) -> Settings {
        self.settings_at(bucket, self.port())
    }

    /// What both programs need in their environment, where settings are not enough.
    fn environment_at(&self, port: u16) -> Vec<(&'static str, String)>;

    fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment_at(self.port())
    }

    fn helper(&self) -> &Helper;

    fn create_bucket(&self, bucket: &str) {
        self.helper().call("create_bucket", &json!({ "bucket": bucket }));
    }

    /// A new bucket whose name no other test of this run has.
    fn new_bucket(&self, name: &str) -> String {
        let bucket = format!("{name}-{}", super::unique());
        self.create_bucket(&bucket);
        bucket
    }

    /// All objects with their sizes.
    fn objects(&self, bucket: &str) -> BTreeMap<String, u64> {
        serde_json::from_value(self.helper().call("objects", &json!({ "bucket": bucket }))).unwrap()
    }

    /// What the store says of an object, in its own words.
    fn head(&self, bucket: &str, key: &str) -> Value {
        self.helper().call("head", &json!({ "bucket": bucket, "key": key }))
    }

    fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        let content = BASE64_STANDARD.encode(content);
        self.helper().call("put", &json!({ "bucket": bucket, "key": key, "content": content }));
    }

    fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let content = self.helper().call("get", &json!({ "bucket": bucket, "key": key }));
        BASE64_STANDARD.decode(content.as_str().unwrap()).unwrap()
    }

    fn delete(&self, bucket: &str, key: &str) {
        self.helper().call("delete", &json!({ "bucket": bucket, "key": key }));
    }
}
