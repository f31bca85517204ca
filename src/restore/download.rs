//! Downloading a node's backup into a folder: `DEST/keyspace/table/…`, with manifest, schema and token map.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use fs_err as fs;

use super::fetch::{AtTarget, Wanted, bring_all};
use super::select::Selection;
use crate::context::Context;
use crate::error::Failure;
use crate::listing::suggest;
use crate::model::manifest::Manifest;
use crate::model::names::{BackupName, TableFolder};
use crate::model::units::size;
use crate::monitor::Amount;
use crate::storage::layout::Meta;

/// What is asked for.
#[derive(Debug)]
pub struct DownloadOptions {
    pub name: BackupName,
    pub destination: PathBuf,
    pub selection: Selection,
}

/// What is downloaded, table by table.
#[derive(Debug)]
pub struct DownloadPlan {
    manifest: Manifest,
    /// Indexes of the wanted sections.
    sections: Vec<(usize, TableFolder)>,
    pub amount: Amount,
}

impl DownloadPlan {
    /// # Errors
    /// A backup or a table that does not exist, or a destination that is no folder or too small.
    pub async fn gather(context: &Context, options: &DownloadOptions) -> anyhow::Result<Self> {
        let (storage, fqdn, name) = (&context.storage, &context.fqdn, &options.name);
        if !options.destination.is_dir() {
            return Err(Failure::failed(format!("{} is not a folder", options.destination.display()))
                .hint("--download-destination must exist")
                .into());
        }
        let manifest = storage.manifest(fqdn, name).await?;
        let Some(manifest) = manifest else {
            return Err(Failure::failed(format!(
                "there is no finished backup {name} of {fqdn} in {}",
                storage.location()
            ))
            .hint(suggest::hint(storage, name, Some(fqdn)).await)
            .into());
        };
        options.selection.check_names(&manifest)?;
        let mut sections = Vec::new();
        let mut amount = Amount::default();
        let mut needed = 0;
        for (index, section) in manifest.sections.iter().enumerate() {
            let table = section.table()?;
            if options.selection.wants(&table) {
                let folder = options.destination.join(&table.keyspace).join(&table.folder);
                for object in &section.objects {
                    amount.add(object.size);
                    // Brought by a run that was interrupted.
                    let target = folder.join(object.file(&table)?.relative());
                    let is_there = fs::metadata(target).is_ok_and(|metadata| metadata.len() == object.size);
                    needed += if is_there { 0 } else { object.size };
                }
                sections.push((index, table));
            }
        }
        let space = nix::sys::statvfs::statvfs(&options.destination)
            .with_context(|| format!("could not look at {}", options.destination.display()))?;
        let free = space.blocks_available() as u64 * space.fragment_size() as u64;
        if needed > free {
            return Err(Failure::failed(format!(
                "not enough space: {} must be downloaded into {}, and {} are free",
                size(needed),
                options.destination.display(),
                size(free)
            ))
            .into());
        }
        Ok(Self { manifest, sections, amount })
    }

    pub async fn execute(&self, context: &Context, options: &DownloadOptions) -> anyhow::Result<()> {
        let begin = Instant::now();
        let files = self.files(context, options)?;
        let all = async { anyhow::Ok(bring_all(context, AtTarget::Foreign, self.amount, files).await?) };
        let brought = context.interrupt.or(all).await?;
        let left = format!("what is as recorded stays in {}", options.destination.display());
        brought.check(&options.name, &left)?;
        context.monitor.step("download", &size(self.amount.bytes), begin.elapsed());
        for (meta, file) in
            [(Meta::Manifest, "manifest.json"), (Meta::Schema, "schema.cql"), (Meta::Tokenmap, "tokenmap.json")]
        {
            copy_meta(context, options, meta, &options.destination.join(file)).await?;
        }
        Ok(())
    }
}

impl DownloadPlan {
    /// The files, their folders made.
    fn files(&self, context: &Context, options: &DownloadOptions) -> anyhow::Result<Vec<Wanted>> {
        let mut files = Vec::new();
        let mut folders = BTreeSet::new();
        for (index, table) in &self.sections {
            let folder = options.destination.join(&table.keyspace).join(&table.folder);
            for object in &self.manifest.sections[*index].objects {
                let target = folder.join(object.file(table)?.relative());
                folders.extend(target.parent().map(Path::to_owned));
                let key = context.storage.layout().recorded(&context.fqdn, &object.path)?;
                files.push(Wanted { object: object.clone(), key, target, candidates: Vec::new(), owner: None });
            }
        }
        for folder in folders {
            fs::create_dir_all(folder)?;
        }
        Ok(files)
    }
}

async fn copy_meta(context: &Context, options: &DownloadOptions, meta: Meta, target: &Path) -> anyhow::Result<()> {
    let key = context.storage.layout().meta(&context.fqdn, &options.name, meta);
    if let Some(bytes) = context.storage.read(&key).await? {
        fs::write(target, bytes)?;
    }
    Ok(())
}
