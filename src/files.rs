//! Facts of files that several parts need.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

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
