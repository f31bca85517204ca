//! What lies in the snapshots of a simulated node: files whose names come back with other contents of the same size, which
//! get another modification time, or appear later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ::medusa::cassandra::snapshot::{SnapshotFile, SnapshotTable};
use ::medusa::model::digest::Sha256;
use ::medusa::model::names::{TableFile, TableFolder};

use crate::support::Random;

const GENERATIONS: u64 = 6;

/// Of each file. Two that follow each other have the same content and another modification time.
const VARIANTS: u64 = 10;

const COMPONENTS: [&str; 3] = ["Data.db", "Statistics.db", "SAI+aa+i+Meta.db"];

const TABLES: [&str; 2] = ["a-34998de0e59711f199fcf93f14538dd2", "b-44998de0e59711f199fcf93f14538dd2"];

/// Hash of the content by `table/file`.
pub type Contents = BTreeMap<String, Sha256>;

fn content(file: &str, variant: u64) -> Vec<u8> {
    let content = variant / 2;
    // Most have the same size.
    let end = if content % 3 == 2 { "!" } else { "" };
    format!("{file} {content}{end}").into_bytes()
}

/// All files of all schedules.
pub fn files() -> tempfile::TempDir {
    let folder = crate::lab::scratch("simulated");
    for name in (1..=GENERATIONS).flat_map(|generation| COMPONENTS.map(|component| file_name(generation, component))) {
        for variant in 0..VARIANTS {
            let path = folder.path().join(variant.to_string()).join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content(&name, variant)).unwrap();
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + modified(variant)).unwrap();
        }
    }
    folder
}

fn file_name(generation: u64, component: &str) -> String {
    format!("nb-{generation}-big-{component}")
}

fn modified(variant: u64) -> Duration {
    Duration::from_secs(1_700_000_000 + variant)
}

/// The data directory of a node.
#[derive(Debug, Default)]
pub struct Data {
    /// By generation and component, the variant.
    tables: [BTreeMap<(u64, &'static str), u64>; 2],
    next: u64,
}

impl Data {
    /// What happens between two snapshots.
    pub fn evolve(&mut self, random: &mut Random) {
        for _ in 0..=random.below(3) {
            let table = &mut self.tables[usize::try_from(random.below(2)).unwrap()];
            let files: Vec<_> = table.keys().copied().collect();
            match random.below(10) {
                0..=3 => {
                    self.next = self.next % GENERATIONS + 1;
                    table.retain(|(generation, _), _| *generation != self.next);
                    for component in &COMPONENTS[..2] {
                        table.insert((self.next, component), random.below(VARIANTS));
                    }
                }
                // A compaction.
                4..=5 if !files.is_empty() => {
                    let (compacted, _) = *random.pick(&files);
                    table.retain(|(generation, _), _| *generation != compacted);
                }
                // Statistics.db is rewritten.
                6 if !files.is_empty() => {
                    let (generation, _) = *random.pick(&files);
                    table.insert((generation, COMPONENTS[1]), random.below(VARIANTS));
                }
                // An index is built.
                7 if !files.is_empty() => {
                    let (generation, _) = *random.pick(&files);
                    table.insert((generation, COMPONENTS[2]), random.below(VARIANTS));
                }
                // Files are restored with other times.
                8 => table.values_mut().for_each(|variant| *variant ^= 1),
                // Truncated and restarted, or another machine in its place: names begin again.
                9 => {
                    self.tables = Default::default();
                    self.next = 0;
                }
                _ => {}
            }
        }
    }

    pub fn snapshot(&self, files: &Path) -> (Vec<SnapshotTable>, Contents) {
        let mut contents = Contents::new();
        let table = |(folder, data): (&&str, &BTreeMap<(u64, &'static str), u64>)| {
            let of_table = data.iter().map(|((generation, component), variant)| {
                let name = file_name(*generation, component);
                let content = content(&name, *variant);
                contents.insert(format!("{folder}/{name}"), Sha256::of(&content));
                let path: PathBuf = files.join(variant.to_string()).join(&name);
                let mtime = i64::try_from(modified(*variant).as_nanos()).unwrap();
                SnapshotFile { file: TableFile { index: None, name }, path, size: content.len() as u64, mtime }
            });
            SnapshotTable { table: TableFolder::new("ks", folder).unwrap(), files: of_table.collect() }
        };
        let tables = TABLES.iter().zip(&self.tables).map(table).collect();
        (tables, contents)
    }
}
