//! Files in the place of a snapshot.

use std::io::Write as _;
use std::path::PathBuf;

use crate::lab::node::Node;

/// Bytes of a small file.
pub const SMALL_SIZE: u64 = 3000;

/// A table whose snapshot folder holds generated files that look like SSTables.
pub fn generate(node: &Node, name: &str, files: u64, size: u64) -> PathBuf {
    let session = node.session();
    session.run(&format!(
        "CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}\nCREATE TABLE {name}.t (id int PRIMARY KEY)"
    ));
    let table = node.table_folders(name, "t").remove(0);
    let folder = table.join("snapshots/source");
    std::fs::create_dir_all(&folder).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; 1 << 20];
    for file in 1..=files {
        let mut left = size;
        // Large files are the data of SSTables, with their digests.
        let is_data = size > SMALL_SIZE;
        let small =
            ["Index.db", "Filter.db", "Statistics.db", "Summary.db", "TOC.txt"][usize::try_from(file % 5).unwrap()];
        let component = if is_data { "Data.db" } else { small };
        let mut crc32 = crc32fast::Hasher::new();
        let mut out = std::fs::File::create(folder.join(format!("nb-{file}-big-{component}"))).unwrap();
        while left > 0 {
            let now = usize::try_from(left.min(block.len() as u64)).unwrap();
            for chunk in block[..now.next_multiple_of(8).min(1 << 20)].chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_le_bytes());
            }
            out.write_all(&block[..now]).unwrap();
            crc32.update(&block[..now]);
            left -= now as u64;
        }
        if is_data {
            std::fs::write(folder.join(format!("nb-{file}-big-Digest.crc32")), crc32.finalize().to_string()).unwrap();
        }
    }
    table
}
