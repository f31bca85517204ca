//! `storage-check`: what a bucket can do, and what is missing, in words.

use serde_json::{Value, json};

use crate::lab::medusa::{Medusa, Run};
use crate::lab::stores::ObjectServer;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::Minio;
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::made::{self, backup, object};
use crate::stores_conformance::{key, open};
use crate::support::{assert_fails, own_data, shared_node, snapshot_folder, wait_for};

fn results(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    run.json()["probes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|probe| (text(&probe["name"]), text(&probe["result"])))
        .collect()
}

fn missing(run: &Run) -> Vec<String> {
    results(run).into_iter().filter(|(_, result)| result == "missing").map(|(name, _)| name).collect()
}

/// What the roles lack.
fn lacks(run: &Run) -> Vec<(String, Vec<String>)> {
    let texts =
        |value: &Value| value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    let roles = run.json()["roles"].as_array().unwrap().clone();
    let role = |role: &Value| (role["role"].as_str().unwrap().to_owned(), texts(&role["lacks"]));
    roles.iter().map(role).filter(|(_, lacks): &(String, Vec<String>)| !lacks.is_empty()).collect()
}

fn on(settings: &[(&'static str, String)]) -> Medusa {
    let mut medusa = crate::made::medusa();
    medusa.use_store(settings);
    medusa
}

fn is_good(server: &impl ObjectServer) {
    let bucket = server.new_bucket("check");
    let mut medusa = on(&server.settings(&bucket));
    for (name, value) in server.environment() {
        medusa.env(name, &value);
    }
    let run = medusa.ok(&["storage-check", "--output", "json"]);
    assert!(results(&run).iter().all(|(_, result)| result == "ok"), "{run}");
    let document = run.json();
    assert_eq!(document["good"], true);
    assert!(document["roles"].as_array().unwrap().iter().all(|role| role["works"] == true), "{run}");
    assert!(document["upload_bytes_per_second"].as_u64().unwrap() > 0, "{run}");
    assert!(document["clock_difference_seconds"].as_i64().unwrap().abs() <= 60, "{run}");
    assert!(server.objects(&bucket).is_empty(), "nothing stays");
    println!("{}", medusa.ok(&["storage-check"]));
}

#[test]
fn minio() {
    is_good(Minio::shared());
}

#[test]
fn google_cloud_storage() {
    is_good(FakeGcs::shared());
}

#[test]
fn azure() {
    is_good(Azurite::shared());
}

#[test]
fn a_folder() {
    let run = crate::made::medusa().ok(&["storage-check", "--output", "json"]);
    assert!(missing(&run).is_empty(), "{run}");
}

/// A bucket with a backup of this node.
fn with_backup(minio: &Minio) -> String {
    let bucket = minio.new_bucket("check");
    let folder = crate::lab::scratch("check");
    for (name, file) in [("b1", "nb-1-big-Data.db"), ("b2", "nb-2-big-Data.db")] {
        backup(folder.path(), NODE, name, &[NODE], &[object(NODE, file, name)]);
    }
    for (key, content) in crate::lab::tree(folder.path()) {
        minio.put(&bucket, &key, &content);
    }
    bucket
}

const NODE: &str = "127.0.0.1";

fn restrict(medusa: &mut Medusa, policy: &Value) {
    let minio = Minio::shared();
    let key_file = minio.key_file(&minio.restricted(policy)).display().to_string();
    medusa.set("storage", "key_file", &key_file);
}

#[test]
fn a_bucket_without_permissions() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("check");
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "arn:aws:s3:::*"},
    ]});
    let mut medusa = on(&minio.settings(&bucket));
    restrict(&mut medusa, &policy);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    assert_eq!(missing(&run), ["write"]);
    assert_eq!(lacks(&run).into_iter().map(|(role, _)| role).collect::<Vec<_>>(), ["node", "janitor"]);
    let run = medusa.run(&["storage-check"]);
    println!("{run}");
    assert_fails(&run, 3, &["did not work", "hint: docs/storage has the permissions"]);
    assert!(run.stdout.contains("write objects below index/\n    needed for: backup-node"), "{run}");

    let writer = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"], "Resource": "arn:aws:s3:::*"},
    ]});
    restrict(&mut medusa, &writer);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    let deletes = ["delete", "delete metadata", "delete data", "delete in the index"];
    let missing = missing(&run);
    assert!(deletes.iter().all(|name| missing.contains(&(*name).to_owned())), "{run}");
    assert!(!missing.contains(&"write".to_owned()) && !missing.contains(&"write backups".to_owned()), "{run}");
    assert!(run.stderr.contains("what the check wrote could not be removed"), "{run}");
    let left: Vec<_> = minio.objects(&bucket).into_keys().collect();
    assert!(
        left.iter().all(|key| key.starts_with("index/storage-check/") || key.starts_with("index/clock/")),
        "{left:?}"
    );
}

#[test]
fn a_credential_that_may_only_read_is_good_for_reading() {
    let minio = Minio::shared();
    let bucket = with_backup(minio);
    let before = minio.objects(&bucket);
    let recorder = Recorder::start(&minio.endpoint, []);
    let mut medusa = on(&minio.settings_at(&bucket, recorder.port));
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "arn:aws:s3:::*"},
    ]});
    restrict(&mut medusa, &policy);
    let run = medusa.ok(&["storage-check", "--role", "reader", "--output", "json"]);
    let ok = |name: &str| (name.to_owned(), "ok".to_owned());
    assert_eq!(results(&run), [ok("list"), ok("read"), ok("range")]);
    assert!(run.stdout.contains("3 objects of backups"), "{run}");
    let writes = recorder.matching(|request| !["GET", "HEAD"].contains(&&*request.method));
    assert!(writes.is_empty(), "who only reads tries nothing else: {writes:?}");
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    assert!(results(&run).contains(&ok("read")) && results(&run).contains(&ok("range")), "{run}");
    println!("{}", medusa.run(&["storage-check"]).expect_code(3));

    // One that may list, and not read what is there.
    let lists = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "arn:aws:s3:::*"},
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": format!("arn:aws:s3:::{bucket}/index/*")},
    ]});
    restrict(&mut medusa, &lists);
    let run = medusa.run(&["storage-check", "--role", "reader", "--output", "json"]).expect_code(3);
    assert_eq!(missing(&run), ["read"]);
    assert_eq!(lacks(&run), [("reader".to_owned(), vec!["read objects".to_owned()])]);
    assert_eq!(minio.objects(&bucket), before);
}

#[test]
fn a_deletion_that_is_denied_in_one_folder_is_found() {
    let minio = Minio::shared();
    let bucket = with_backup(minio);
    let before = minio.objects(&bucket);
    let mut medusa = on(&minio.settings(&bucket));
    for (denied, probe, who) in [
        (format!("{bucket}/{NODE}/data/*"), "delete data", &["janitor"][..]),
        (format!("{bucket}/*/data/*"), "delete data", &["janitor"]),
        (format!("{bucket}/{NODE}/*/meta/*"), "delete metadata", &["node", "janitor"]),
        (format!("{bucket}/index/backup_index/*"), "delete in the index", &["janitor"]),
        (format!("{bucket}/index/summaries/*"), "delete in the index", &["janitor"]),
        (format!("{bucket}/index/leases/*"), "delete", &["node", "janitor"]),
    ] {
        restrict(&mut medusa, &denying(&denied));
        let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
        assert_eq!(missing(&run), [probe], "{denied}: {run}");
        let roles: Vec<_> = lacks(&run).into_iter().map(|(role, _)| role).collect();
        assert_eq!(roles, who, "{denied}: {run}");
        assert_eq!(minio.objects(&bucket), before, "{denied}: nothing stays");
    }
    restrict(&mut medusa, &denying(&format!("{bucket}/{NODE}/data/*")));
    println!("{}", medusa.run(&["storage-check"]).expect_code(3));
    medusa.ok(&["storage-check", "--role", "node"]);
    assert_fails(&medusa.run(&["storage-check", "--role", "janitor"]), 3, &["1 thing that medusa needs"]);
    assert_eq!(minio.incomplete_uploads(&bucket), [""; 0]);
}

/// Everything may be done but to delete there.
fn denying(resource: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"},
        {"Effect": "Deny", "Action": ["s3:DeleteObject"], "Resource": format!("arn:aws:s3:::{resource}")},
    ]})
}

/// Manifests go for files that are deleted later. If those may not be deleted, nothing goes.
#[test]
fn p3_a_purge_that_may_not_delete_everything_deletes_nothing() {
    let minio = Minio::shared();
    let bucket = with_backup(minio);
    let before = minio.objects(&bucket);
    let mut medusa = on(&minio.settings(&bucket));
    medusa.set("storage", "backup_grace_period_in_days", "0");
    for denied in ["data/*", "*/meta/*"].map(|folder| format!("{bucket}/{NODE}/{folder}")) {
        restrict(&mut medusa, &denying(&denied));
        for command in [&["purge", "--keep-last", "1"][..], &["purge", "--keep-last", "1", "--all-nodes"]] {
            let run = medusa.run(command);
            assert_fails(&run, 1, &["no backup was deleted: ", "nothing was deleted, because not everything may be"]);
            assert!(run.stderr.contains("storage-check"), "{run}");
            assert_eq!(minio.objects(&bucket), before, "{denied}: {run}");
        }
    }
    let delete = ["delete-backup", "--backup-name", "b1"];
    assert_fails(&medusa.run(&delete), 1, &["nothing was deleted"]);
    assert_eq!(minio.objects(&bucket), before);
    // What is in the pool stays in a deletion, and what there is to do is done once it may be.
    restrict(&mut medusa, &denying(&format!("{bucket}/{NODE}/data/*")));
    medusa.ok(&delete);
    let left = |key: &str| minio.objects(&bucket).contains_key(&format!("{NODE}/{key}"));
    let file = |name: &str| format!("data/ks/{}/{name}", made::TABLE);
    assert!(!left("b1/meta/manifest.json") && left(&file("nb-1-big-Data.db")));
    assert_fails(&medusa.run(&["purge"]), 1, &["no backup was deleted"]);
    restrict(&mut medusa, &denying(&format!("{bucket}/other/*")));
    medusa.ok(&["purge"]);
    assert!(!left(&file("nb-1-big-Data.db")) && left(&file("nb-2-big-Data.db")) && left("b2/meta/manifest.json"));
}

/// Below a folder: who may not delete in one folder of the pool.
#[test]
fn p3_a_purge_of_a_folder_that_belongs_to_somebody_else_deletes_nothing() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    assert!(nix::unistd::geteuid().is_root(), "this test needs root, to be somebody else for once");
    let mut medusa = made::medusa();
    // The project may lie where others may not look.
    medusa.folder = tempfile::tempdir().unwrap();
    medusa.set("storage", "base_path", &medusa.base_path().display().to_string());
    medusa.set("storage", "backup_grace_period_in_days", "0");
    for (name, file) in [("b1", "nb-1-big-Data.db"), ("b2", "nb-2-big-Data.db")] {
        backup(&medusa.bucket(), NODE, name, &[NODE], &[object(NODE, file, name)]);
    }
    let program = medusa.folder.path().join("medusa-copy");
    std::fs::copy(crate::support::binary(), &program).unwrap();
    for entry in walkdir::WalkDir::new(medusa.folder.path()) {
        chown(entry.unwrap().path(), Some(65534), Some(65534)).unwrap();
    }
    std::fs::set_permissions(medusa.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let pool = medusa.bucket().join(NODE).join("data/ks").join(made::TABLE);
    chown(&pool, Some(0), Some(0)).unwrap();
    std::fs::write(pool.join("nb-9-big-Data.db"), "garbage").unwrap();
    let before = crate::lab::tree(&medusa.bucket());
    let purge = || {
        let prepared = medusa.prepare(&["purge", "--keep-last", "1"]);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(prepared.get_args());
        command.env_remove("RUST_BACKTRACE").current_dir(medusa.folder.path());
        crate::lab::medusa::finish(command.output().unwrap(), "medusa", &["purge"])
    };
    assert_fails(&purge(), 1, &["no backup was deleted", "Permission denied"]);
    assert_eq!(crate::lab::tree(&medusa.bucket()), before);
    chown(&pool, Some(65534), Some(65534)).unwrap();
    purge().expect_code(0);
    assert!(!pool.join("nb-9-big-Data.db").exists());
}

/// The policies as they stand in the guide, without comments and with another bucket.
fn policies(bucket: &str) -> [(&'static str, Value); 3] {
    let page = std::fs::read_to_string(crate::lab::project().join("docs/storage/s3.md")).unwrap();
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let policies = blocks.filter(|block| block.contains("\"Statement\""));
    let mut policies =
        policies.map(|block| serde_json::from_str(&block.replace("acme-cassandra-backups", bucket)).unwrap());
    let all = ["reader", "node", "janitor"].map(|role| (role, policies.next().unwrap()));
    assert!(policies.next().is_none());
    all
}

/// A list of which each thing alone can be taken out.
fn without_each(list: &Value) -> Vec<(String, Value)> {
    let things = list.as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
    let without = |one: &Value| things.iter().filter(|thing| *thing != one).cloned().collect();
    things.iter().filter(|_| things.len() > 1).map(|one| (one.to_string(), Value::Array(without(one)))).collect()
}

#[test]
fn the_policies_of_the_guide_are_enough_and_no_more_than_that() {
    let minio = Minio::shared();
    let bucket = with_backup(minio);
    let before = minio.objects(&bucket);
    let mut medusa = on(&minio.settings(&bucket));
    for (role, policy) in policies(&bucket) {
        let check = ["storage-check", "--role", role];
        restrict(&mut medusa, &policy);
        medusa.ok(&check);
        let statements = policy["Statement"].as_array().unwrap();
        for (at, statement) in statements.iter().enumerate() {
            for part in ["Action", "Resource"] {
                for (what, rest) in without_each(&statement[part]) {
                    // It is needed where there is something to abort.
                    if what.contains("AbortMultipartUpload") {
                        continue;
                    }
                    let mut less = policy.clone();
                    less["Statement"][at][part] = rest;
                    restrict(&mut medusa, &less);
                    let run = medusa.run(&check);
                    assert_eq!(run.code, 3, "{role} without {what}: {run}");
                }
            }
        }
        assert_eq!(
            minio.objects(&bucket).keys().filter(|key| !key.starts_with("index/")).count(),
            before.keys().filter(|key| !key.starts_with("index/")).count()
        );
    }
}

#[test]
fn commands_work_with_the_policies_of_the_guide() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("roles");
    let node = shared_node();
    let mut medusa = crate::support::medusa(node);
    let data = own_data(&mut medusa, node);
    medusa.use_store(&minio.settings(&bucket));
    let [(_, reader), (_, writer), (_, janitor)] = policies(&bucket);
    restrict(&mut medusa, &writer);
    for name in ["b1", "b2", "b3"] {
        std::fs::write(snapshot_folder(&data, name).join("nb-1-big-Index.db"), name).unwrap();
        medusa.ok(&["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot"]);
    }
    medusa.ok(&["leases"]);
    restrict(&mut medusa, &reader);
    let target = medusa.folder.path().join("download");
    std::fs::create_dir(&target).unwrap();
    let target = target.display().to_string();
    for arguments in [
        &["list-backups"][..],
        &["status", "--latest"],
        &["verify", "--all", "--read-data"],
        &["download", "--backup-name", "b2", "--download-destination", &target],
        &["purge", "--keep-last", "1", "--dry-run"],
    ] {
        medusa.ok(arguments);
    }
    restrict(&mut medusa, &janitor);
    medusa.set("storage", "backup_grace_period_in_days", "0");
    medusa.ok(&["build-index"]);
    medusa.ok(&["delete-backup", "--backup-name", "b1"]);
    medusa.ok(&["purge", "--keep-last", "1"]);
    restrict(&mut medusa, &reader);
    medusa.ok(&["verify", "--all", "--read-data"]);
    assert_eq!(crate::support::listed(&medusa).into_keys().collect::<Vec<_>>(), ["b3"]);
    let files: Vec<_> = minio.objects(&bucket).into_keys().filter(|key| key.ends_with("-Index.db")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

/// What a check leaves that is killed is seen by no command of either program, and goes with the next purge.
#[test]
fn what_a_killed_check_leaves_is_no_backup() {
    use medusa::model::names::Fqdn;
    use medusa::storage::layout::{Layout, Spot};
    let mut medusa = made::medusa();
    medusa.set("storage", "backup_grace_period_in_days", "0");
    backup(&medusa.bucket(), NODE, "b1", &[NODE], &[object(NODE, "nb-1-big-Data.db", "b1")]);
    let (layout, fqdn) = (Layout::new(None), Fqdn::new(NODE).unwrap());
    let spots = [Spot::Meta(&fqdn), Spot::Pool(&fqdn), Spot::Full(&fqdn), Spot::Index, Spot::Summaries, Spot::Leases];
    let left = spots.map(|spot| layout.probe(spot, "0123456789abcdef0123456789abcdef").to_string());
    let before = medusa.ok(&["list-backups"]);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
    for key in &left {
        made::put(&medusa.bucket(), key, "medusa");
        let file = std::fs::File::options().write(true).open(medusa.bucket().join(key)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let run = medusa.ok(&["list-backups"]);
    assert_eq!((&run.stdout, &run.stderr), (&before.stdout, &before.stderr));
    assert_eq!(medusa.peer_ok(&["list-backups"]).stdout, before.stdout);
    medusa.peer_ok(&["verify", "--backup-name", "b1"]);
    medusa.ok(&["build-index"]);
    medusa.ok(&["leases"]);
    medusa.ok(&["verify", "--all", "--read-data"]);
    medusa.ok(&["verify", "--repository"]);
    medusa.ok(&["purge"]);
    let tree = crate::lab::tree(&medusa.bucket());
    // Nothing is ever written there.
    let gone = left.iter().filter(|key| !key.contains("/leases/"));
    assert!(gone.clone().all(|key| !tree.contains_key(key)), "{:?}", tree.keys());
    medusa.ok(&["verify", "--all", "--read-data"]);
    // cassandra-medusa takes what lies in the pool, too.
    for key in gone.filter(|key| key.starts_with(NODE)) {
        made::put(&medusa.bucket(), key, "medusa");
        let file = std::fs::File::options().write(true).open(medusa.bucket().join(key)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    medusa.peer_ok(&["purge"]);
    assert!(crate::lab::tree(&medusa.bucket()).keys().all(|key| !left.contains(key) || key.contains("/leases/")));
}

#[test]
fn a_store_without_conditional_requests() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("check");
    let forbids = |request: &Request| {
        request.method != "GET" && (request.header("if-none-match").is_some() || request.header("if-match").is_some())
    };
    let unknown = Fault::every(Action::Answer(Answer::xml(501, "NotImplemented")), forbids);
    let recorder = Recorder::start(&minio.endpoint, [unknown]);
    let mut medusa = on(&minio.settings_at(&bucket, recorder.port));
    let run = medusa.run(&["storage-check"]);
    println!("{run}");
    let words =
        ["3 things that medusa needs did not work on s3://", "what to do about a store without conditional requests"];
    assert_fails(&run, 3, &words);
    let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
    assert_eq!(missing(&run), ["conditional create", "conditional update", "upload in parts"]);
    assert!(minio.objects(&bucket).is_empty(), "{run}");
    // Nothing is written, and nothing deleted, by a command that relies on it.
    let words = ["could not write the lease s3://", "501 Not Implemented", "medusa storage-check tells what it can do"];
    assert_fails(&medusa.run(&["purge"]), 1, &words);
    assert!(minio.objects(&bucket).is_empty(), "{:?}", minio.objects(&bucket));
    let full = with_backup(minio);
    let before = minio.objects(&full);
    let mut other = on(&minio.settings_at(&full, recorder.port));
    other.set("storage", "backup_grace_period_in_days", "0");
    for (command, code, words) in [
        (&["purge", "--keep-last", "1"][..], 1, &words[..]),
        (&["delete-backup", "--backup-name", "b1"], 1, &words),
        (&["build-index"], 3, &words[..2]),
    ] {
        assert_fails(&other.run(command), code, words);
        assert_eq!(minio.objects(&full), before, "{command:?}");
    }
    recorder.assert_fired();

    for medusa in [&mut medusa, &mut other] {
        medusa.set("storage", "conditional_create", "False");
        let run = medusa.ok(&["storage-check", "--output", "json"]);
        assert!(missing(&run).is_empty(), "{run}");
    }
    other.ok(&["purge", "--keep-last", "1"]);
    assert_eq!(crate::support::listed(&other).into_keys().collect::<Vec<_>>(), ["b2"]);
}

/// What keeps to the condition on small objects alone is good enough: of a file in parts it is looked for before its end.
#[test]
fn a_store_that_overlooks_the_condition_on_parts() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("check");
    let completes = |request: &Request| request.method == "POST" && request.query.contains("uploadId");
    let recorder = Recorder::start(&minio.endpoint, [Fault::every(Action::Without("If-None-Match"), completes)]);
    let run = on(&minio.settings_at(&bucket, recorder.port)).ok(&["storage-check", "--output", "json"]);
    assert!(results(&run).iter().all(|(_, result)| result == "ok"), "{run}");
    recorder.assert_fired();
    assert!(minio.objects(&bucket).is_empty());
}

#[test]
fn clocks_that_differ_by_an_hour() {
    let minio = Minio::shared();
    for (seconds, words) in [(3600, "ahead of this node"), (-3600, "behind this node")] {
        let bucket = minio.new_bucket("check");
        let recorder = Recorder::start(&minio.endpoint, [Fault::every(Action::Later(seconds), |_| true)]);
        let medusa = on(&minio.settings_at(&bucket, recorder.port));
        let run = medusa.run(&["storage-check", "--output", "json"]).expect_code(3);
        let document = run.json();
        assert!(results(&run).iter().all(|(_, result)| result == "ok"), "{run}");
        assert_eq!(document["good"], false);
        let difference = document["clock_difference_seconds"].as_i64().unwrap();
        assert!((difference - seconds).abs() <= 60, "{run}");
        let run = medusa.run(&["storage-check"]);
        println!("{run}");
        assert!(run.stdout.contains(words), "{run}");
        assert!(run.stdout.contains("The clocks of this node and of the storage differ."), "{run}");
        recorder.assert_fired();
        assert!(minio.objects(&bucket).is_empty());
        // What is wrong is said at the end, too, and nothing else.
        assert_fails(&run, 3, &["clock"]);
        assert!(!run.stderr.contains("0 things"), "{run}");
    }
    let recorder = Recorder::start(&minio.endpoint, [Fault::every(Action::Later(100), |_| true)]);
    on(&minio.settings_at(&minio.new_bucket("check"), recorder.port)).ok(&["storage-check"]);
    recorder.assert_fired();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_region_is_told_with_its_region() {
    let minio = Minio::start_in("eu-west-1", "elsewhere");
    let mut medusa = on(&minio.settings("elsewhere"));
    wait_for("the region of the server", || medusa.run(&["list-backups"]).code != 0);
    for (arguments, code) in
        [(&["list-backups"][..], 1), (&["storage-check"], 3), (&["purge"], 1), (&["verify", "--all"], 1)]
    {
        assert_fails(&medusa.run(arguments), code, &["set region = eu-west-1 in [storage]"]);
    }
    let hint = |error: anyhow::Error| medusa::error::Told::of(&error).hint.unwrap_or_default();
    let storage = open(&minio.settings("elsewhere"), &[]);
    let by_name = "the bucket is in another region: set region = eu-west-1";
    assert!(hint(storage.replace(&key("x"), "x".into()).await.unwrap_err().into()).contains(by_name));
    assert!(hint(storage.read(&key("x")).await.unwrap_err().into()).contains(by_name));
    // Without a body there is no place for the name.
    let unnamed = hint(storage.head(&key("x")).await.unwrap_err().into());
    assert!(unnamed.contains("the bucket is in another region"), "{unnamed}");
    medusa.set("storage", "region", "eu-west-1");
    medusa.ok(&["storage-check"]);
    medusa.ok(&["list-backups"]);
}

#[test]
fn a_bucket_that_is_not_there() {
    let medusa = on(&Minio::shared().settings("there-is-none"));
    assert_fails(&medusa.run(&["storage-check"]), 3, &["there is no such bucket"]);
}
