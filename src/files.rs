//! Facts of files that several parts need.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err::os::unix::fs::OpenOptionsExt as _;

/// What every file system has at its top, and only root may look into.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A file's modification time. Nanoseconds since 1970.
pub fn mtime(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Sets a file's modification time. Nanoseconds since 1970.
pub fn set_mtime(file: &File, nanoseconds: i64) -> io::Result<()> {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance };
    file.set_modified(time)
}

/// Where a file lies, as far as renames and hard links are concerned: they reach no other mount, not even one of the same file
/// system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount {
    pub device: u64,
    /// `None` where the kernel does not tell.
    id: Option<u64>,
}

impl Mount {
    /// Of what is there, be it behind a link.
    pub fn of(path: &Path) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_PATH.bits();
        let file = fs_err::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let device = file.metadata()?.dev();
        let facts = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
        let id = facts.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        Ok(Self { device, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart() {
        let of = |path: &str| Mount::of(Path::new(path)).unwrap();
        assert_eq!(of("/proc/self"), of("/proc"));
        assert_ne!(of("/proc"), of("/"));
        assert!(of("/proc").id.is_some());
        assert!(Mount::of(Path::new("/no/such/folder")).is_err());
    }
}
