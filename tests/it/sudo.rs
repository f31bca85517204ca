//! A restore by a user who does not own Cassandra's data.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::lab::medusa::{Run, finish};
use crate::support::{assert_fails, binary};

const SETTINGS: &str =
    "[storage]\nstorage_provider = local\nbucket_name = b\nbase_path = /no/such/storage\nfqdn = n1\n";

/// A folder that everybody may look into, with the program, a data directory of root's, and a sudo of our own.
struct Place(tempfile::TempDir);

impl Place {
    fn new(sudo: &str, settings: &str) -> Self {
        let place = Self(tempfile::Builder::new().prefix("medusa-sudo-").tempdir_in("/tmp").unwrap());
        let open = |path: &PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        open(&place.path(""));
        fs::copy(binary(), place.path("medusa")).unwrap();
        fs::create_dir(place.path("data")).unwrap();
        fs::create_dir(place.path("bin")).unwrap();
        fs::write(place.path("bin/sudo"), format!("#!/bin/sh\n{sudo}")).unwrap();
        open(&place.path("bin/sudo"));
        let data = place.path("data");
        fs::write(place.path("cassandra.yaml"), format!("data_file_directories: [{}]\n", data.display())).unwrap();
        let ini =
            format!("{SETTINGS}{settings}[cassandra]\nconfig_file = {}\n", place.path("cassandra.yaml").display());
        fs::write(place.path("medusa.ini"), ini).unwrap();
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Runs a restore as the user `nobody`.
    fn restore(&self) -> Run {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root, to be somebody else for once");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(self.path("medusa"));
        command.args(["--config-file"]).arg(self.path("medusa.ini")).args(["restore-node", "--backup-name", "b 1"]);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command
            .env("PATH", path)
            .env_remove("RUST_BACKTRACE")
            .env("MEDUSA_CQL_PASSWORD", "hunter2")
            .current_dir(self.path(""));
        finish(command.output().unwrap(), "medusa", &["restore-node"])
    }
}

#[test]
fn a_restore_runs_itself_again_as_root() {
    let place =
        Place::new("for word; do echo \"<$word>\"; done >>calls; case \"$2\" in -l) ;; *) echo as root ;; esac\n", "");
    let run = place.restore().expect_code(0);
    assert_eq!(run.stdout, "as root\n", "{run}");
    let words = ["medusa.ini", "medusa"].map(|name| place.path(name).display().to_string());
    let command =
        format!("<-->\n<{}>\n<--config-file>\n<{}>\n<restore-node>\n<--backup-name>\n<b 1>\n", words[1], words[0]);
    assert_eq!(
        fs::read_to_string(place.path("calls")).unwrap(),
        format!("<-n>\n<-l>\n{command}<-n>\n<--preserve-env=MEDUSA_CQL_PASSWORD>\n{command}")
    );
}

#[test]
fn a_sudo_that_refuses_is_told() {
    let run = Place::new("exit 1\n", "").restore();
    assert_fails(&run, 1, &["sudo does not let it run this command as root", "sudoers", "use_sudo_for_restore"]);
}

#[test]
fn sudo_is_not_called_where_it_is_not_wanted() {
    let place = Place::new("touch called\n", "use_sudo_for_restore = False\n");
    let run = place.restore();
    assert_fails(&run, 1, &["there is no backup b 1 of n1 in /no/such/storage/b"]);
    assert!(!place.path("called").exists(), "{run}");
}
