//! cassandra-medusa 0.31.0 and this program on one node, in one bucket of each object store: each lists, verifies with MD5 and
//! restores what the other wrote. The node is wiped in between. The same with files that go up in parts, without a node.

use std::collections::BTreeMap;

use crate::interop::{NAMES, back_up_by_turns, same_listings, same_verification};
use crate::lab::node::Release;
use crate::lab::scratch;
use crate::lab::stores::ObjectServer;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::support::{Random, answers, medusa, node, own_data, shared_node, snapshot_folder};

#[test]
fn p1_minio() {
    both_tools(Minio::shared());
}

#[test]
fn p1_google_cloud_storage() {
    both_tools(FakeGcs::shared());
}

#[test]
fn p1_azure() {
    both_tools(Azurite::shared());
}

fn both_tools(server: &impl ObjectServer) {
    let node = node(Release::V5_0);
    let mut medusa = medusa(&node);
    medusa.use_store(&server.settings(&server.new_bucket("both")));
    for (name, value) in server.environment() {
        medusa.env(name, &value);
    }
    let states = back_up_by_turns(&node, &medusa);
    same_listings(&medusa, &["theirs-diff-2"]);
    for name in NAMES {
        same_verification(&medusa, name, &["--enable-md5-checks"]);
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
    }
    let state = |name: &str| &states[NAMES.iter().position(|other| *other == name).unwrap()];
    node.stop();
    node.wipe();
    for name in ["theirs-diff-2", "ours-full"] {
        medusa.ok(&["restore-node", "--backup-name", name]);
        assert_eq!(&answers(&node.session(), "shop"), state(name), "we restore {name}");
    }
    medusa.peer_ok(&["restore-node", "--backup-name", "ours-diff-2"]);
    node.wait_until_up();
    assert_eq!(&answers(&node.session(), "shop"), state("ours-diff-2"), "Medusa restores ours-diff-2");
}

#[test]
fn p1_large_files_in_minio() {
    let minio = Minio::shared();
    let (bucket, keys) = large_files(minio);
    // Both send parts of the same sizes.
    let parts = |key: &String| minio.head(&bucket, key)["ETag"].as_str().unwrap().trim_matches('"')[32..].to_owned();
    let parts: Vec<_> = keys.iter().map(parts).collect();
    assert_eq!(parts, ["-1", "-2", "-1", "-2"], "{keys:?}");
}

#[test]
fn p1_large_files_in_google_cloud_storage() {
    large_files(FakeGcs::shared());
}

#[test]
fn p1_large_files_in_azure() {
    large_files(Azurite::shared());
}

/// Each backs up files that S3 takes in parts, with all keys as they are unless somebody sets them, and both check and
/// download both. The bucket, and the keys of the files: ours, then theirs.
fn large_files(server: &impl ObjectServer) -> (String, Vec<String>) {
    let bucket = server.new_bucket("large");
    let mut medusa = medusa(shared_node());
    let data = own_data(&mut medusa, shared_node());
    medusa.use_store(&server.settings(&bucket));
    for (name, value) in server.environment() {
        medusa.env(name, &value);
    }
    let mut random = Random::seeded("large files");
    let mut contents = BTreeMap::new();
    for (name, numbers) in [("ours", [1, 2]), ("theirs", [3, 4])] {
        let snapshot = snapshot_folder(&data, name);
        for (number, mebibytes) in numbers.into_iter().zip([21, 51_usize]) {
            let mut content = Vec::with_capacity(mebibytes << 20);
            while content.len() < mebibytes << 20 {
                content.extend_from_slice(&random.below(u64::MAX).to_le_bytes()[..4]);
            }
            let file = format!("nb-{number}-big-Index.db");
            std::fs::write(snapshot.join(&file), &content).unwrap();
            contents.insert(file, content);
        }
        let backup = ["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot"];
        if name == "ours" {
            medusa.ok(&backup);
        } else {
            medusa.peer_ok(&backup);
        }
    }
    for name in ["ours", "theirs"] {
        same_verification(&medusa, name, &["--enable-md5-checks"]);
        medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
        for is_ours in [true, false] {
            let target = scratch("large");
            let download = target.path().display().to_string();
            let download = ["download", "--backup-name", name, "--download-destination", &download];
            if is_ours {
                medusa.ok(&download);
            } else {
                medusa.peer_ok(&download);
            }
            let files = crate::lab::tree(target.path()).into_iter().filter(|(path, _)| path.ends_with("-Index.db"));
            let files: Vec<_> = files.collect();
            assert_eq!(files.len(), 2, "{name}");
            for (path, content) in files {
                let file = path.rsplit('/').next().unwrap();
                assert!(content == contents[file], "{path} of {name} is another file");
            }
        }
    }
    let keys: Vec<_> = server.objects(&bucket).into_keys().filter(|key| key.ends_with("-Index.db")).collect();
    assert_eq!(keys.len(), 4, "{keys:?}");
    (bucket, keys)
}
