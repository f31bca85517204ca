//! A bucket of many nodes, byte for byte as cassandra-medusa writes it.

#![allow(unreachable_pub, reason = "a part of a bench")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

const TABLES: u64 = 200;
const TOKENS: u64 = 16;
const COMPONENTS: [&str; 8] = [
    "Data.db",
    "Index.db",
    "Filter.db",
    "Statistics.db",
    "Summary.db",
    "CompressionInfo.db",
    "Digest.crc32",
    "TOC.txt",
];

/// How many nodes, backups of each, and files of each backup.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub nodes: u64,
    pub backups: u64,
    pub files: u64,
    /// Whether the files are there, of their sizes and without content.
    pub has_data: bool,
}

impl FromStr for Fleet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let has_data = text.ends_with("+data");
        let numbers = text.trim_end_matches("+data").split('x').map(|number| number.parse().map_err(drop));
        let [nodes, backups, files] = numbers.collect::<Result<Vec<u64>, ()>>()?.try_into().map_err(drop)?;
        Ok(Self { nodes, backups, files, has_data })
    }
}

pub fn host(node: u64) -> String {
    format!("node{node:03}.example.net")
}

pub fn name(backup: u64) -> String {
    format!("nightly-{backup:03}")
}

/// One file of a node's pool. The tenth part of a backup's files is new.
#[derive(Debug, Clone, Copy)]
struct DataFile(u64);

impl DataFile {
    fn key(self, fqdn: &str) -> String {
        let (table, component) = (self.0 % TABLES, COMPONENTS[(self.0 / TABLES % 8) as usize]);
        format!("{fqdn}/data/shop/{}/nb-{}-big-{component}", folder(table), self.0 / TABLES / 8)
    }

    /// Bytes.
    fn size(self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44
    }

    fn md5(self) -> String {
        format!("{:016x}{:016x}", self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9), self.0)
    }
}

fn folder(table: u64) -> String {
    format!("table{table:03}-{table:08x}e59711f199fcf93f14538dd2")
}

impl Fleet {
    /// Writes the bucket. Gives the bytes of all manifests, each counted once, and how long it took.
    pub fn write(self, bucket: &Path) -> (u64, Duration) {
        let begin = Instant::now();
        let (tokenmap, schema) = (self.tokenmap(), schema());
        let mut bytes = 0;
        for fqdn in (0..self.nodes).map(host) {
            let mut known = 0;
            for backup in 0..self.backups {
                let manifest = self.manifest(&fqdn, backup);
                bytes += manifest.len() as u64;
                // A day lies between two backups.
                let days = u32::try_from(self.backups - backup).unwrap();
                let started = SystemTime::now() - days * Duration::from_hours(24);
                write_backup(bucket, &fqdn, &name(backup), started, [&tokenmap, &schema, &manifest]);
                let end = self.first(backup) + self.files;
                if self.has_data {
                    (known.max(self.first(backup))..end).for_each(|file| write_data(bucket, &fqdn, DataFile(file)));
                }
                known = end;
            }
        }
        (bytes, begin.elapsed())
    }

    /// The first of a backup's files; they follow each other.
    fn first(self, backup: u64) -> u64 {
        backup * self.files / 10
    }

    /// As Python prints it. Kept files have lost their MD5, and follow those that were uploaded.
    fn manifest(self, fqdn: &str, backup: u64) -> String {
        let first = self.first(backup);
        let new = if backup == 0 { first } else { self.first(backup - 1) + self.files };
        let mut text = String::from("[");
        for table in 0..TABLES {
            let comma = if table == 0 { "" } else { ", " };
            let _ = write!(text, r#"{comma}{{"keyspace": "shop", "columnfamily": "{}", "objects": ["#, folder(table));
            let of_table = |from: u64, to: u64| (from..to).filter(move |file| file % TABLES == table).map(DataFile);
            for (at, file) in of_table(new, first + self.files).chain(of_table(first, new)).enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                let md5 = if file.0 >= new { format!("\"{}\"", file.md5()) } else { "null".to_owned() };
                let (key, size) = (file.key(fqdn), file.size());
                let _ = write!(text, r#"{comma}{{"path": "{key}", "MD5": {md5}, "size": {size}}}"#);
            }
            text.push_str("]}");
        }
        text.push(']');
        text
    }

    fn tokenmap(self) -> String {
        let entry = |node: u64| {
            let token = |at: u64| (node * TOKENS + at).wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed().to_string();
            let tokens: Vec<_> = (0..TOKENS).map(token).collect();
            let (host, tokens) = (host(node), tokens.join(", "));
            format!(r#""{host}": {{"tokens": [{tokens}], "is_up": true, "rack": "r1", "dc": "dc1"}}"#)
        };
        format!("{{{}}}", (0..self.nodes).map(entry).collect::<Vec<_>>().join(", "))
    }
}

fn schema() -> String {
    let table = |table: u64| {
        format!(
            "CREATE TABLE shop.table{table:03} (id uuid, at timestamp, name text, amount decimal, PRIMARY KEY (id, at))\n    \
             WITH CLUSTERING ORDER BY (at DESC)\n    AND comment = ''\n    AND gc_grace_seconds = 864000;"
        )
    };
    (0..TABLES).map(table).collect::<Vec<_>>().join("\n\n")
}

/// One node's backup: `meta/`, index and latest marker.
fn write_backup(bucket: &Path, fqdn: &str, name: &str, started: SystemTime, contents: [&str; 3]) {
    let [tokenmap, schema, manifest] = contents;
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let finished = started + Duration::from_mins(10);
    let version = r#"{"server_type": "cassandra", "release_version": "4.1.10"}"#;
    let meta = format!("{fqdn}/{name}/meta");
    let index = format!("index/backup_index/{name}");
    let latest = format!("index/latest_backup/{fqdn}");
    for (key, content, time) in [
        (format!("{meta}/schema.cql"), schema, started),
        (format!("{meta}/tokenmap.json"), tokenmap, started),
        (format!("{meta}/server_version.json"), version, started),
        (format!("{meta}/differential"), "differential", started),
        (format!("{meta}/manifest.json"), manifest, finished),
        (format!("{index}/tokenmap_{fqdn}.json"), tokenmap, started),
        (format!("{index}/schema_{fqdn}.cql"), schema, started),
        (format!("{index}/started_{fqdn}_{}.timestamp", seconds(started)), &seconds(started).to_string(), started),
        (format!("{index}/differential_{fqdn}"), "differential", started),
        (format!("{index}/finished_{fqdn}_{}.timestamp", seconds(finished)), &seconds(finished).to_string(), finished),
        (format!("{latest}/tokenmap.json"), tokenmap, finished),
        (format!("{latest}/backup_name.txt"), name, finished),
    ] {
        let path = bucket.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.set_modified(time).unwrap();
    }
    // The copy takes no space of its own.
    fs::hard_link(bucket.join(meta).join("manifest.json"), bucket.join(index).join(format!("manifest_{fqdn}.json")))
        .unwrap();
}

fn write_data(bucket: &Path, fqdn: &str, file: DataFile) {
    let path = bucket.join(file.key(fqdn));
    let create = || File::create(&path);
    let created = create().or_else(|_| {
        fs::create_dir_all(path.parent().unwrap())?;
        create()
    });
    created.unwrap().set_len(file.size()).unwrap();
}
