//! Backups that no node ever made, for what a manifest may say.

use std::path::Path;

use medusa::model::digest::Sha256;
use serde_json::{Value, json};

use crate::lab::medusa::Medusa;
use crate::support::binary;

pub const TABLE: &str = "t-34998de0e59711f199fcf93f14538dd2";

/// What the manifest records of a content.
#[derive(Debug, Clone)]
pub enum Recorded {
    Sha256,
    /// As Medusa has it.
    Md5(Option<String>),
}

#[derive(Debug, Clone)]
pub struct Object {
    pub path: String,
    pub content: Vec<u8>,
    pub recorded: Recorded,
}

/// An object of ours in the pool of a node.
pub fn object(fqdn: &str, file: &str, content: &str) -> Object {
    let path = format!("{fqdn}/data/ks/{TABLE}/{file}");
    Object { path, content: content.as_bytes().to_vec(), recorded: Recorded::Sha256 }
}

impl Object {
    pub fn recorded(self, md5: Option<&str>) -> Self {
        Self { recorded: Recorded::Md5(md5.map(str::to_owned)), ..self }
    }

    pub fn entry(&self) -> Value {
        let mut entry = json!({ "path": self.path, "MD5": null, "size": self.content.len() });
        match &self.recorded {
            Recorded::Sha256 => entry["SHA256"] = Sha256::of(&self.content).to_string().into(),
            Recorded::Md5(md5) => entry["MD5"] = md5.clone().into(),
        }
        entry
    }
}

pub fn manifest(objects: &[Object]) -> Value {
    let entries: Vec<_> = objects.iter().map(Object::entry).collect();
    json!([{ "keyspace": "ks", "columnfamily": TABLE, "objects": entries }])
}

pub fn put(bucket: &Path, key: &str, content: impl AsRef<[u8]>) {
    let path = bucket.join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Writes a finished differential backup of a cluster of `hosts`.
pub fn backup(bucket: &Path, fqdn: &str, name: &str, hosts: &[&str], objects: &[Object]) {
    for object in objects {
        put(bucket, &object.path, &object.content);
    }
    finished(bucket, fqdn, name, hosts, &manifest(objects).to_string());
}

/// The same with whatever manifest, and without objects.
pub fn finished(bucket: &Path, fqdn: &str, name: &str, hosts: &[&str], manifest: &str) {
    begun(bucket, fqdn, name, hosts);
    put(bucket, &format!("{fqdn}/{name}/meta/manifest.json"), manifest);
    put(bucket, &format!("index/backup_index/{name}/manifest_{fqdn}.json"), manifest);
    put(bucket, &format!("index/backup_index/{name}/finished_{fqdn}_1700000100.timestamp"), "1700000100");
    put(bucket, &format!("index/latest_backup/{fqdn}/backup_name.txt"), name);
}

/// One that was never finished.
pub fn begun(bucket: &Path, fqdn: &str, name: &str, hosts: &[&str]) {
    let entry = json!({ "tokens": [1], "is_up": true, "rack": "r1", "dc": "dc1" });
    let tokenmap = Value::Object(hosts.iter().map(|host| ((*host).to_owned(), entry.clone())).collect()).to_string();
    let schema = "CREATE KEYSPACE ks WITH replication = {'class': 'SimpleStrategy'};";
    for (file, content) in [
        ("schema.cql", schema),
        ("schema_internals.cql", schema),
        ("tokenmap.json", tokenmap.as_str()),
        ("server_version.json", r#"{"server_type": "cassandra", "release_version": "5.0.9"}"#),
        ("differential", "differential"),
    ] {
        put(bucket, &format!("{fqdn}/{name}/meta/{file}"), content);
    }
    let index = format!("index/backup_index/{name}");
    put(bucket, &format!("{index}/tokenmap_{fqdn}.json"), &tokenmap);
    put(bucket, &format!("{index}/schema_{fqdn}.cql"), schema);
    put(bucket, &format!("{index}/started_{fqdn}_1700000000.timestamp"), "1700000000");
    put(bucket, &format!("{index}/differential_{fqdn}"), "differential");
    put(bucket, &format!("index/latest_backup/{fqdn}/tokenmap.json"), tokenmap);
}

pub fn medusa() -> Medusa {
    Medusa::without_node(binary())
}
