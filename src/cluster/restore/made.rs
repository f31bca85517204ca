//! Options that the tests of the files beside this one begin with.

use super::{ClusterRestoreOptions, LoadOptions};
use crate::cluster::hosts::Choice;
use crate::model::names::BackupName;
use crate::restore::select::Selection;

/// A restore of the whole ring.
pub(super) fn options(load: bool) -> ClusterRestoreOptions {
    ClusterRestoreOptions {
        name: BackupName::new("nightly").unwrap(),
        choice: Choice::Ring { seed_target: None },
        temp_dir: None,
        keep_auth: false,
        verify: false,
        selection: Selection::default(),
        load: LoadOptions { wanted: load, ..LoadOptions::default() },
        parallel: 2,
        version_target: None,
        ignore_racks: false,
        allow_incomplete: false,
        again: false,
    }
}
