//! The deb and the rpm, made of the program under test: installed into folders of their own, updated and removed again.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docs;
use crate::lab::medusa::{Run, finish};
use crate::lab::{project, scratch, search_path, tree};
use crate::partial_restore;
use crate::support::{answers, binary, insert, keyspace, load};

const OWN_INI: &str = "[storage]\nstorage_provider = local\nbucket_name = own\nbase_path = /own\n";

/// Runs a command that must succeed, with more environment. `PATH` goes on where this one ends.
#[track_caller]
fn run(environment: &[(&str, &str)], words: &[&str]) -> Run {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).envs(environment.iter().copied());
    finish(command.output().unwrap(), words[0], &words[1..]).expect_code(0)
}

/// Makes one package and returns it.
fn package(format: &str, folder: &Path, version: &str) -> PathBuf {
    let script = project().join("packaging/package.sh");
    let out = folder.join(version);
    let environment = [("FORMATS", format), ("VERSION", version), ("LEVEL", "1")];
    run(&environment, &[script.to_str().unwrap(), binary().to_str().unwrap(), out.to_str().unwrap()]);
    let mut files = std::fs::read_dir(out).unwrap().flatten().map(|entry| entry.path());
    let package = files.next().unwrap();
    assert_eq!((files.next(), package.extension().unwrap().to_str()), (None, Some(format)));
    package
}

/// A folder that stands for `/`, with programs that write down how they were called.
struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let root = Self { folder: scratch("root") };
        for folder in ["root/var/lib/dpkg/updates", "root/var/lib/dpkg/info", "root/run/systemd/system", "bin"] {
            std::fs::create_dir_all(root.folder.path().join(folder)).unwrap();
        }
        std::fs::write(root.path("var/lib/dpkg/status"), "").unwrap();
        for program in ["systemctl", "getent", "chgrp"] {
            let path = root.folder.path().join("bin").join(program);
            let calls = root.folder.path().join("calls");
            std::fs::write(&path, format!("#!/bin/sh\necho {program} $* >>{}\n", calls.display())).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
    }

    /// How programs were called since it was asked last. This folder is called ROOT.
    fn calls(&self) -> Vec<String> {
        let file = self.folder.path().join("calls");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        text.replace(self.path("").to_str().unwrap(), "ROOT/").lines().map(str::to_owned).collect()
    }

    /// dpkg and rpm want to be root.
    #[track_caller]
    fn run_as_root(&self, words: &[&str]) {
        let path = format!("PATH={}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let sudo: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["sudo", "-n"] };
        run(&[], &[sudo, &["env", &path], words].concat());
    }

    /// What the package needs is not installed in this root: that libraries are missing there does not matter.
    #[track_caller]
    fn dpkg(&self, words: &[&str]) {
        let root = format!("--root={}", self.path("").display());
        let log = format!("--log={}", self.folder.path().join("dpkg.log").display());
        let options = [
            "dpkg",
            &root,
            &log,
            "--force-script-chrootless",
            "--force-depends",
            "--force-confold",
            "--force-unsafe-io",
        ];
        self.run_as_root(&[&options, words].concat());
    }

    #[track_caller]
    fn rpm(&self, words: &[&str]) {
        let root = self.path("");
        self.run_as_root(&[&["rpm", "--root", root.to_str().unwrap(), "--dbpath", "/var/rpm"], words].concat());
    }

    /// All files but those of dpkg and rpm.
    fn files(&self) -> BTreeSet<String> {
        let files = tree(&self.path("")).into_keys();
        files.filter(|path| !path.starts_with("var/lib/dpkg/") && !path.starts_with("var/rpm/")).collect()
    }

    /// What medusa of this root prints.
    fn medusa(&self, words: &[&str]) -> Run {
        finish(Command::new(self.path("usr/bin/medusa")).args(words).output().unwrap(), "installed medusa", words)
    }
}

#[test]
fn the_deb_is_installed_updated_removed_and_purged() {
    let packages = scratch("packages");
    let (first, second) = (package("deb", packages.path(), "1.0"), package("deb", packages.path(), "1.1"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let field = |name: &str| run(&[], &["dpkg-deb", "--field", first, name]).stdout.trim().to_owned();
    assert_eq!(field("Package"), "medusa-backup");
    assert!(field("Depends").contains("libc6 (>= 2."), "{}", field("Depends"));

    let root = Root::new();
    root.dpkg(&["--install", first]);
    check_files(&root, "usr/share/zsh/vendor-completions");
    assert_eq!(
        root.calls(),
        ["getent group cassandra", "chgrp cassandra ROOT/etc/medusa/medusa.ini", "systemctl daemon-reload"]
    );
    let ini = root.path("etc/medusa/medusa.ini").display().to_string();
    let refused = root.medusa(&["--config-file", &ini, "config"]).expect_code(2);
    assert!(refused.stderr.contains("storage_provider is missing in [storage]"), "{refused}");

    std::fs::write(root.path("etc/medusa/medusa.ini"), OWN_INI).unwrap();
    std::fs::write(root.path("etc/medusa/medusa.env"), "").unwrap();
    let shown = root.medusa(&["--config-file", &ini, "config"]).expect_code(0);
    assert!(shown.stdout.contains("own"), "{shown}");

    root.dpkg(&["--install", second]);
    assert!(root.read("var/lib/dpkg/status").contains("\nVersion: 1.1\n"));
    assert_eq!(root.read("etc/medusa/medusa.ini"), OWN_INI);
    // Commands that run are left alone, and timers as they are. The owner is set only once.
    assert_eq!(root.calls(), ["systemctl daemon-reload", "systemctl daemon-reload"]);

    root.dpkg(&["--remove", "medusa-backup"]);
    assert_eq!(root.read("etc/medusa/medusa.ini"), OWN_INI);
    assert_eq!(root.files(), ["etc/medusa/medusa.env", "etc/medusa/medusa.ini"].map(str::to_owned).into());
    let calls = root.calls();
    assert!(calls[0].starts_with("systemctl disable --now medusa.timer medusa-purge.timer "), "{calls:?}");
    assert!(calls[1].starts_with("systemctl stop medusa.service medusa-purge.service "), "{calls:?}");
    assert_eq!(calls[2..], ["systemctl daemon-reload"]);

    root.dpkg(&["--purge", "medusa-backup"]);
    assert_eq!(root.files(), ["etc/medusa/medusa.env".to_owned()].into(), "what is not of the package stays");

    // A node of cassandra-medusa has its medusa.ini already.
    let root = Root::new();
    std::fs::create_dir_all(root.path("etc/medusa")).unwrap();
    std::fs::write(root.path("etc/medusa/medusa.ini"), OWN_INI).unwrap();
    root.dpkg(&["--install", first]);
    assert_eq!(root.read("etc/medusa/medusa.ini"), OWN_INI);
}

#[test]
fn the_rpm_is_installed_updated_and_removed() {
    let packages = scratch("packages");
    let (first, second) = (package("rpm", packages.path(), "1.0"), package("rpm", packages.path(), "1.1"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let ask = |what: &str| run(&[], &["rpm", "-qp", what, first]).stdout;
    assert!(ask("--requires").contains("libc.so.6(GLIBC_2."), "{}", ask("--requires"));
    assert_eq!(ask("--configfiles"), "/etc/medusa/medusa.ini\n");

    // Its scripts are for /bin/sh below the root, where there is none.
    for script in ["%{POSTIN}", "%{PREUN}", "%{POSTUN}"] {
        let text = run(&[], &["rpm", "-qp", "--qf", script, first]).stdout;
        assert!(text.contains("systemctl"), "{script}: {text}");
        run(&[], &["sh", "-n", "-c", &text]);
    }
    // rpm sets the group of an unedited file again with every version, so its script does not ask which one this is.
    let after = run(&[], &["rpm", "-qp", "--qf", "%{POSTIN}", first]).stdout;
    let group = after.split("chgrp").next().unwrap();
    assert!(group.contains("stat -c %G") && !group.contains("$1"), "{after}");
    let root = Root::new();
    let install = ["--upgrade", "--nodeps", "--noscripts"];
    root.rpm(&[&install[..], &[first]].concat());
    check_files(&root, "usr/share/zsh/site-functions");
    std::fs::write(root.path("etc/medusa/medusa.ini"), OWN_INI).unwrap();
    root.rpm(&[&install[..], &[second]].concat());
    assert_eq!(root.read("etc/medusa/medusa.ini"), OWN_INI);
    root.rpm(&["--erase", "--nodeps", "--noscripts", "medusa-backup-1.1"]);
    assert_eq!(root.files(), ["etc/medusa/medusa.ini.rpmsave".to_owned()].into());
}

/// From the package to a restored table and back to nothing, with the commands that a person types. What they print is the
/// transcript.
#[test]
fn the_first_day_of_an_installed_package() {
    let packages = scratch("packages");
    let package = package("deb", packages.path(), "1.0");
    let root = Root::new();
    root.dpkg(&["--install", package.to_str().unwrap()]);
    let etc = root.path("etc/medusa").display().to_string();
    let home = scratch("home");
    let medusa = |words: &[&str], code: i32| {
        let mut command = Command::new(root.path("usr/bin/medusa"));
        command.env_clear().env("PATH", search_path()).env("HOME", home.path()).env("TMPDIR", home.path());
        command.args(["--config-file", &format!("{etc}/medusa.ini")]).args(words).stdin(std::process::Stdio::null());
        let run = finish(command.output().unwrap(), "medusa", words).expect_code(code);
        println!("{run}");
        run
    };
    partial_restore::shared(|node| {
        let (session, keyspace) = (node.session(), keyspace("first"));
        load(&session, &keyspace, 20);
        let before = answers(&session, &keyspace);
        let base = home.path().join("backups");
        std::fs::create_dir_all(base.join("prod")).unwrap();

        let refused = medusa(&["backup-node", "--backup-name", "too-early"], 2);
        assert!(refused.stderr.contains("storage_provider is missing in [storage]"), "{refused}");
        // The file of the package is there, and sets nothing.
        let mut words = vec!["init", "--provider", "local", "--bucket-name", "prod", "--base-path"];
        let yaml = node.yaml().display().to_string();
        words.extend([base.to_str().unwrap(), "--cassandra-yaml", &yaml, "--fqdn", &node.address]);
        let program = |key: &str, name: &str| format!("cassandra.{key}={}", node.program(name).display());
        let set = [
            program("nodetool_executable", "nodetool"),
            program("start_cmd", "start"),
            program("stop_cmd", "stop"),
            "cassandra.resolve_ip_addresses=False".to_owned(),
            "storage.use_sudo_for_restore=False".to_owned(),
        ];
        words.extend(set.iter().flat_map(|set| ["--set", set]));
        medusa(&words, 0);
        assert_eq!(root.mode("etc/medusa/medusa.ini"), 0o640);
        let healthy = |run: Run| assert!(!run.stdout.lines().any(|line| line.starts_with("failed")), "{run}");
        healthy(medusa(&["doctor"], 0));
        medusa(&["backup-node", "--backup-name", "first-1"], 0);
        medusa(&["verify", "--backup-name", "first-1", "--read-data"], 0);
        healthy(medusa(&["doctor"], 0));

        insert(&session, &keyspace, 20..30);
        session.run(&format!("DELETE FROM {keyspace}.t WHERE id = 3"));
        assert_ne!(answers(&session, &keyspace), before);
        let table = format!("{keyspace}.t");
        medusa(&["restore-node", "--backup-name", "first-1", "--table", &table, "--dry-run"], 0);
        medusa(&["restore-node", "--backup-name", "first-1", "--table", &table], 0);
        assert_eq!(answers(&node.session(), &keyspace), before);

        root.dpkg(&["--purge", "medusa-backup"]);
        let left = root.files();
        assert!(left.iter().all(|file| file.starts_with("etc/medusa/medusa.ini.")), "{left:?}");
        assert!(base.join("prod/index").exists(), "backups are not the package's");
    });
}

/// What every package brings, and that it can be used.
#[track_caller]
fn check_files(root: &Root, zsh: &str) {
    let commands: BTreeSet<_> = commands().into_iter().map(|page| format!("usr/share/man/man1/{page}.gz")).collect();
    let files = root.files();
    assert!(commands.len() > 20 && commands.is_subset(&files), "{files:?}");
    let others = [
        "etc/medusa/medusa.ini",
        "usr/bin/medusa",
        "usr/bin/medusa-wrapper",
        "usr/lib/systemd/system/medusa.service",
        "usr/lib/systemd/system/medusa.service.d/common.conf",
        "usr/lib/systemd/system/medusa-.service.d/common.conf",
        "usr/lib/systemd/system/medusa-purge.timer",
        "usr/share/bash-completion/completions/medusa",
        "usr/share/doc/medusa/CHANGELOG.md",
        "usr/share/doc/medusa/LICENSE",
        "usr/share/doc/medusa/README.md",
        "usr/share/doc/medusa/docs/runbook.md",
        "usr/share/doc/medusa/grafana/medusa.json",
        "usr/share/doc/medusa/medusa.example.ini",
        "usr/share/doc/medusa/prometheus/medusa.rules.yml",
        "usr/share/fish/vendor_completions.d/medusa.fish",
        &format!("{zsh}/_medusa"),
    ];
    for file in others {
        assert!(files.contains(file), "{file} is not in {files:?}");
    }
    for file in &files {
        let expected = match file.as_str() {
            "etc/medusa/medusa.ini" => 0o640,
            file if file.starts_with("usr/bin/") => 0o755,
            _ => 0o644,
        };
        assert_eq!(root.mode(file), expected, "{file}");
    }
    docs::check_links(&root.path("usr/share/doc/medusa").canonicalize().unwrap());
    assert_eq!(std::fs::read(root.path("usr/bin/medusa")).unwrap(), std::fs::read(binary()).unwrap());
    assert_eq!(root.medusa(&["--version"]).expect_code(0).stdout.trim(), env!("CARGO_PKG_VERSION"));
    let service = root.read("usr/lib/systemd/system/medusa.service");
    assert!(service.contains("exec /usr/bin/medusa ") && !service.contains("/usr/local"), "{service}");
    run(&[], &["bash", "-n", root.path("usr/share/bash-completion/completions/medusa").to_str().unwrap()]);
    let page = root.path("usr/share/man/man1/medusa-backup-node.1.gz").display().to_string();
    assert!(run(&[], &["zcat", &page]).stdout.contains(".TH medusa-backup-node 1"));
    if is_there("man") {
        let shown = run(&[("MANPAGER", "cat"), ("LC_ALL", "C")], &["man", "-l", &page]).stdout;
        assert!(shown.contains("SYNOPSIS") && shown.contains("--backup-name"), "{shown}");
    }
}

/// The man pages that this program writes: one for each command.
fn commands() -> Vec<String> {
    let folder = scratch("man");
    run(&[], &[binary().to_str().unwrap(), "man-pages", folder.path().to_str().unwrap()]);
    tree(folder.path()).into_keys().collect()
}

fn is_there(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).is_file())
}

#[test]
fn the_units_are_ones_that_systemd_loads() {
    let folder = scratch("units");
    let prefix = folder.path().join("usr");
    let script = project().join("packaging/install.sh");
    run(&[("PREFIX", prefix.to_str().unwrap())], &[script.to_str().unwrap(), binary().to_str().unwrap()]);
    let units = prefix.join("lib/systemd/system");
    let files = tree(&units);
    let timers: Vec<_> = files.keys().filter_map(|file| file.strip_suffix(".timer")).collect();
    assert_eq!(timers, ["medusa-purge", "medusa-report", "medusa-verify", "medusa"]);
    for (file, content) in &files {
        let text = std::str::from_utf8(content).unwrap();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let section = line.starts_with('[') && line.ends_with(']');
            assert!(section || line.split_once('=').is_some_and(|(key, _)| !key.contains(' ')), "{file}: {line}");
        }
        if let Some(timer) = file.strip_suffix(".timer") {
            assert!(files.contains_key(&format!("{timer}.service")));
            assert!(text.contains("\nOnCalendar=") && text.contains("\nWantedBy=timers.target"), "{text}");
            // Snapshots of a cluster belong together; the others share the storage.
            assert_eq!(text.contains("\nRandomizedDelaySec="), timer != "medusa", "{text}");
        }
    }
    if !is_there("systemd-analyze") {
        return;
    }
    let search = format!("{}:", units.display());
    for timer in timers {
        let [service, timer] = [format!("{timer}.service"), format!("{timer}.timer")];
        let [service_file, timer_file] = [&service, &timer].map(|unit| units.join(unit).display().to_string());
        let verify = ["systemd-analyze", "verify", "--man=no", &service_file, &timer_file];
        let told = run(&[("SYSTEMD_UNIT_PATH", &search)], &verify);
        assert_eq!(told.stderr, "", "{told}");
        // 3.4 of 10, where 10 is unprotected. The drop-in counts: without it, it would be above 9.
        let root = format!("--root={}", folder.path().display());
        let security = ["systemd-analyze", "security", "--offline=true", "--threshold=40", &root, &service];
        println!("{}", run(&[], &security).stdout.lines().last().unwrap_or_default());
    }
}
