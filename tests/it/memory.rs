//! Memory stays bounded, whatever the size of a file and of a node.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::lab::medusa::{Medusa, finish};
use crate::support::{medusa, own_data, shared_node, snapshot_folder};

/// The largest resident set of a run in MiB, and its stdout.
pub fn peak(medusa: &Medusa, arguments: &[&str]) -> (u64, String) {
    let mut child = medusa.spawn(arguments);
    let status_file = format!("/proc/{}/status", child.id());
    let mut kibibytes = 0;
    loop {
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        kibibytes = line.map_or(kibibytes, |number| number.trim().parse().unwrap());
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let run = finish(child.wait_with_output().unwrap(), "medusa", arguments).expect_code(0);
    assert!(kibibytes > 1024, "the memory of {} was not seen", run.command);
    (kibibytes >> 10, run.stdout)
}

/// Everything that handles all files of a backup stays below the bound, in MiB.
fn stays_below(bound: u64, medusa: &mut Medusa, snapshot: &Path, objects: u64) {
    let name = snapshot.file_name().unwrap().to_str().unwrap();
    let target = medusa.folder.path().join("download");
    std::fs::create_dir(&target).unwrap();
    let target = target.display().to_string();
    let backup = |name| vec!["backup-node", "--backup-name", name, "--use-existing-snapshot", "--keep-snapshot"];
    let commands = [
        backup(name),
        backup("again"),
        vec!["verify", "--backup-name", name],
        vec!["verify", "--backup-name", name, "--enable-md5-checks"],
        vec!["download", "--backup-name", name, "--download-destination", &target],
        vec!["status", "--backup-name", name],
        vec!["status", "--backup-name", name],
        vec!["list-backups", "--output", "json"],
        vec!["build-index"],
        vec!["purge", "--backup-grace-period-in-days", "0"],
    ];
    for arguments in commands {
        let (mebibytes, stdout) = peak(medusa, &arguments);
        println!("{mebibytes} MiB: {}", arguments.join(" "));
        assert!(mebibytes < bound, "{arguments:?} took {mebibytes} MiB");
        if arguments == backup(name) {
            // The next backup is of the same files.
            std::fs::rename(snapshot, snapshot.with_file_name("again")).unwrap();
        }
        if arguments[0] == "status" {
            assert!(stdout.contains(&format!("- {objects} files, ")), "{stdout}");
            // As if cassandra-medusa had written it: the manifest must be read.
            let _ = std::fs::remove_dir_all(medusa.bucket().join("index/summaries"));
        }
    }
}

#[test]
fn p6_of_a_file_only_a_few_pieces_are_in_memory() {
    let mut medusa = medusa(shared_node());
    let data = own_data(&mut medusa, shared_node());
    let folder = snapshot_folder(&data, "large");
    let file = std::fs::File::create(folder.join("nb-1-big-Index.db")).unwrap();
    file.set_len(512 << 20).unwrap();
    file.write_all_at(b"the end", (512 << 20) - 7).unwrap();
    stays_below(96, &mut medusa, &folder, 1);
}

#[test]
fn p6_of_many_files_only_their_entries_in_the_manifest_are_in_memory() {
    let mut medusa = medusa(shared_node());
    let data = own_data(&mut medusa, shared_node());
    let folder = snapshot_folder(&data, "many");
    let file = folder.join("nb-0-big-Index.db");
    std::fs::write(&file, "all the same").unwrap();
    for number in 1..40_000 {
        std::fs::hard_link(&file, folder.join(format!("nb-{number}-big-Index.db"))).unwrap();
    }
    stays_below(256, &mut medusa, &folder, 40_000);
}
