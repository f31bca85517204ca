//! What counts as stored already: never a name alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use md5::{Digest as _, Md5};

use crate::lab::medusa::Medusa;
use crate::made::{self, Object, TABLE};
use crate::support::{manifest, manifest_objects, medusa, own_data, shared_node};

/// A node whose snapshots are made up.
struct Lab {
    medusa: Medusa,
    fqdn: String,
    data: PathBuf,
}

/// A file of a snapshot: name, content, and modification time in seconds.
type File<'a> = (&'a str, &'a str, u64);

/// How many files were uploaded and kept.
type Moved = (u64, u64);

fn lab() -> Lab {
    let node = shared_node();
    let mut medusa = medusa(node);
    let data = own_data(&mut medusa, node);
    Lab { medusa, fqdn: node.address.clone(), data }
}

impl Lab {
    fn snapshot(&self, table: &str, name: &str, files: &[File<'_>]) {
        let folder = self.data.join("ks").join(table).join("snapshots").join(name);
        for (file, content, seconds) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
            fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        }
    }

    fn store(&self, name: &str) -> Moved {
        let arguments =
            ["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot", "--output", "json"];
        let outcome = self.medusa.ok(&arguments).json();
        (outcome["uploaded_files"].as_u64().unwrap(), outcome["kept_files"].as_u64().unwrap())
    }

    fn backup(&self, name: &str, files: &[File<'_>]) -> Moved {
        self.snapshot(TABLE, name, files);
        self.store(name)
    }

    /// A backup has these contents, by the end of their keys, and is whole.
    fn holds(&self, name: &str, files: &[File<'_>]) {
        self.medusa.ok(&["verify", "--backup-name", name, "--read-data"]);
        let objects = manifest_objects(&manifest(&self.medusa, &self.fqdn, name));
        assert_eq!(objects.len(), files.len(), "{objects:?}");
        for (file, content, _) in files {
            let key = objects.keys().find(|key| key.ends_with(&format!("/{file}"))).unwrap();
            assert_eq!(&fs::read_to_string(self.medusa.bucket().join(key)).unwrap(), content, "{key}");
        }
        self.medusa.peer_ok(&["verify", "--backup-name", name]);
    }
}

#[test]
fn p1_names_that_are_used_again_after_a_truncation_and_a_restart() {
    let lab = lab();
    let first = [("nb-1-big-Index.db", "first", 1), ("nb-2-big-Index.db", "gone", 1)];
    // Of the same size, and of another one.
    let second = [("nb-1-big-Index.db", "other", 2), ("nb-2-big-Index.db", "longer", 2)];
    let third = [("nb-1-big-Index.db", "third", 3), ("nb-2-big-Index.db", "longer", 2)];
    assert_eq!(lab.backup("b1", &first), (2, 0));
    assert_eq!(lab.backup("b2", &second), (2, 0));
    assert_eq!(lab.backup("b3", &third), (1, 1));
    // An old content that comes back is found again.
    assert_eq!(lab.backup("b4", &first), (0, 2));
    for (name, files) in [("b1", first), ("b2", second), ("b3", third), ("b4", first)] {
        lab.holds(name, &files);
    }
}

#[test]
fn p1_statistics_and_summaries_that_are_rewritten_in_place() {
    let lab = lab();
    let data = ("nb-1-big-Index.db", "data", 1);
    let first = [data, ("nb-1-big-Statistics.db", "level 0", 1), ("nb-1-big-Summary.db", "aaaa", 1)];
    let second = [data, ("nb-1-big-Statistics.db", "level 1", 2), ("nb-1-big-Summary.db", "bbbb", 2)];
    assert_eq!(lab.backup("b1", &first), (3, 0));
    assert_eq!(lab.backup("b2", &second), (2, 1));
    lab.holds("b1", &first);
    lab.holds("b2", &second);
}

#[test]
fn p1_components_of_an_index_that_appear_later() {
    let lab = lab();
    let data = ("nb-1-big-Index.db", "data", 1);
    let old_index = (".t_v_idx/nb-1-big-Index.db", "of the index", 1);
    let sai = ("nb-1-big-SAI+aa+t_sai+TermsData.db", "terms", 2);
    assert_eq!(lab.backup("b1", &[data]), (1, 0));
    assert_eq!(lab.backup("b2", &[data, old_index, sai]), (2, 1));
    lab.holds("b1", &[data]);
    lab.medusa.ok(&["verify", "--backup-name", "b2", "--read-data"]);
    let keys = manifest_objects(&manifest(&lab.medusa, &lab.fqdn, "b2"));
    for end in [format!("{TABLE}/nb-1-big-Index.db"), format!("{TABLE}/.t_v_idx/nb-1-big-Index.db")] {
        assert!(keys.keys().any(|key| key.ends_with(&end)), "{keys:?}");
    }
}

#[test]
fn p1_files_that_were_restored_with_other_times_are_read_once() {
    let lab = lab();
    let at = |seconds| [("nb-1-big-Index.db", "data", seconds), ("nb-2-big-Index.db", "more", seconds)];
    assert_eq!(lab.backup("b1", &at(1)), (2, 0));
    assert_eq!(lab.backup("b2", &at(2)), (0, 2));
    lab.holds("b2", &at(2));
    // From then on the time is known: a dry run compares nothing.
    lab.snapshot(TABLE, "b3", &at(2));
    let plan = lab.medusa.ok(&[
        "backup-node",
        "--backup-name",
        "b3",
        "--use-existing-snapshot",
        "--dry-run",
        "--output",
        "json",
    ]);
    let plan = plan.json();
    assert_eq!((plan["compare"]["files"].as_u64(), plan["keep"]["files"].as_u64()), (Some(0), Some(2)), "{plan}");
}

#[test]
fn p1_a_table_that_was_dropped_and_created_again() {
    let lab = lab();
    let file = [("nb-1-big-Index.db", "data", 1)];
    assert_eq!(lab.backup("b1", &file), (1, 0));
    // Only the id in the name of the folder tells them apart.
    lab.snapshot("t-44998de0e59711f199fcf93f14538dd2", "b2", &file);
    assert_eq!(lab.store("b2"), (1, 0));
    lab.holds("b1", &file);
    lab.holds("b2", &file);
}

fn theirs(fqdn: &str, file: &str, content: &str, md5: Option<String>) -> Object {
    let path = format!("{fqdn}/data/ks/{TABLE}/{file}");
    Object { path, content: content.as_bytes().to_vec(), recorded: made::Recorded::Md5(md5) }
}

/// The `ETag` of an upload in parts, of which there was one.
fn multipart(content: &str) -> String {
    format!("{}-1", hex::encode(Md5::digest(Md5::digest(content))))
}

fn plain(content: &str) -> String {
    hex::encode(Md5::digest(content))
}

fn made_by_medusa(lab: &Lab, objects: &[Object]) {
    fs::create_dir_all(lab.medusa.bucket()).unwrap();
    made::backup(&lab.medusa.bucket(), &lab.fqdn, "theirs", &[&lab.fqdn], objects);
}

#[test]
fn p1_a_pool_of_cassandra_medusa_is_taken_over_without_a_second_upload() {
    let lab = lab();
    let fqdn = &lab.fqdn;
    made_by_medusa(
        &lab,
        &[
            theirs(fqdn, "nb-1-big-Index.db", "plain", Some(plain("plain"))),
            theirs(fqdn, "nb-2-big-Index.db", "in parts", Some(multipart("in parts"))),
            theirs(fqdn, "nb-3-big-Index.db", "nothing recorded", None),
            theirs(fqdn, "nb-4-big-Index.db", "not the same", Some(plain("not the same"))),
            theirs(fqdn, "nb-5-big-Index.db", "not recorded either", None),
        ],
    );
    let files = [
        ("nb-1-big-Index.db", "plain", 1),
        ("nb-2-big-Index.db", "in parts", 1),
        ("nb-3-big-Index.db", "nothing recorded", 1),
        // Of the same size each.
        ("nb-4-big-Index.db", "other things", 1),
        ("nb-5-big-Index.db", "something different", 1),
    ];
    assert_eq!(lab.backup("ours", &files), (2, 3));
    lab.holds("ours", &files);
    lab.medusa.ok(&["verify", "--backup-name", "theirs", "--enable-md5-checks"]);
    let keys = manifest_objects(&manifest(&lab.medusa, fqdn, "ours"));
    let own = |key: &Path| key.parent().unwrap().file_name().unwrap() == TABLE;
    assert_eq!(keys.keys().filter(|key| own(Path::new(key))).count(), 3, "{keys:?}");
    // What Medusa recorded goes into our manifest unchanged.
    let recorded = keys.iter().find(|(key, _)| key.ends_with("nb-2-big-Index.db")).unwrap().1;
    assert_eq!(recorded["MD5"], multipart("in parts"));
}

#[test]
fn p1_what_medusa_recorded_is_believed_and_not_the_size() {
    let lab = lab();
    // The object was overwritten since: its record is of another content.
    made_by_medusa(&lab, &[theirs(&lab.fqdn, "nb-1-big-Index.db", "new", Some(plain("old")))]);
    let files = [("nb-1-big-Index.db", "new", 1)];
    assert_eq!(lab.backup("ours", &files), (1, 0));
    lab.holds("ours", &files);
}
