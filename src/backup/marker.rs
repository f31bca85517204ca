//! The file `medusa_backup_in_progress` in the folder for temporary files: the container of Medusa does not restart while it
//! is there.

use std::path::PathBuf;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::fcntl::OFlag;

/// The marker, removed when dropped. A marker that cannot be set is no reason not to back up.
#[derive(Debug)]
pub struct InProgress {
    path: Option<PathBuf>,
}

impl InProgress {
    pub fn set() -> Self {
        let path = std::env::temp_dir().join("medusa_backup_in_progress");
        // Never through a link: the folder belongs to everybody.
        let flags = OFlag::O_NOFOLLOW.bits();
        let created =
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&path);
        match created {
            Ok(_) => Self { path: Some(path) },
            Err(error) => {
                tracing::warn!("the marker of a running backup could not be set: {error}");
                Self { path: None }
            }
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Another backup may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}
