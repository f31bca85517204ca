//! Digests of objects: our SHA-256, and the many forms of what cassandra-medusa calls `MD5`.

use std::fmt;

use base64::Engine as _;
use md5::Digest as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 of an object's plain content. Hex in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    pub fn parse(hex_digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex_digits, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The extra folder of a content key: the first 16 hex digits.
    pub fn content_folder(&self) -> String {
        hex::encode(&self.0[..8])
    }

    /// The same where that key holds what a power cut left of the content: all digits.
    pub fn second_content_folder(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the hex form of a SHA-256"))
    }
}

/// What a manifest's `MD5` field says about the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedMd5 {
    /// MD5 of the whole content (S3 single part and local: hex; GCS and Azure: base64).
    Whole([u8; 16]),
    /// MD5 over the parts' MD5s, and the number of parts (S3 multipart).
    Parts([u8; 16], u64),
    /// `null`, `no-md5-hash`, an opaque `ETag`: says nothing about the content.
    Unknown,
}

impl RecordedMd5 {
    /// Reads any form that cassandra-medusa has written.
    pub fn parse(field: Option<&str>) -> Self {
        let Some(text) = field.map(|text| text.trim_matches('"')) else {
            return Self::Unknown;
        };
        if let Some(md5) = md5_from_hex(text) {
            return Self::Whole(md5);
        }
        if let Some((digest, parts)) = text.split_once('-')
            && let (Some(md5), Ok(parts)) = (md5_from_hex(digest), parts.parse())
            && parts > 0
        {
            return Self::Parts(md5, parts);
        }
        if text.len() == 24
            && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text)
            && let Ok(md5) = bytes.try_into()
        {
            return Self::Whole(md5);
        }
        Self::Unknown
    }
}

fn md5_from_hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Size and digests of a file that was read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentDigest {
    pub size: u64,
    pub sha256: Sha256,
    /// CRC-32 as in Cassandra's `Digest.crc32`.
    pub crc32: u32,
    /// Only where it was asked for: MD5 costs three times as much as SHA-256.
    pub md5: Option<Md5Forms>,
}

/// The size of the parts in which S3 takes an object of `size` bytes, as boto cuts them: as configured, but at most 10,000 parts
/// of 5 MiB to 5 GiB (s3transfer's `ChunksizeAdjuster`).
pub fn part_size(size: u64, configured: u64) -> u64 {
    let mut part_size = configured.max(1);
    while size.div_ceil(part_size) > MOST_PARTS {
        part_size *= 2;
    }
    part_size.clamp(SMALLEST_PART, LARGEST_PART)
}

/// Parts of an object in S3.
const MOST_PARTS: u64 = 10_000;
const SMALLEST_PART: u64 = 5 << 20;
const LARGEST_PART: u64 = 5 << 30;

/// Sizes in which parts are often sent: the defaults of boto and of Medusa, then those of other programs.
const USUAL_PARTS: [u64; 6] = [8 << 20, 50 << 20, 5 << 20, 16 << 20, 64 << 20, 100 << 20];

/// The sizes of parts in which an object of `size` bytes may have been sent, by the numbers of parts that were recorded of it:
/// the configured one, which may have been another one then, and the usual ones. Of no more is the MD5 computed, and most
/// objects have one of them.
pub fn part_sizes(size: u64, configured: u64, recorded: impl IntoIterator<Item = RecordedMd5>) -> Vec<u64> {
    let number = |recorded| if let RecordedMd5::Parts(_, parts) = recorded { Some(parts) } else { None };
    let numbers: Vec<_> = recorded.into_iter().filter_map(number).collect();
    let mut sizes: Vec<u64> = Vec::new();
    for usual in std::iter::once(configured).chain(USUAL_PARTS) {
        let part_size = part_size(size, usual);
        // Sizes above that of the object make the same part.
        let is_known = sizes.iter().any(|known| (*known).min(size) == part_size.min(size));
        if !is_known && numbers.contains(&number_of_parts(size, part_size)) {
            sizes.push(part_size);
        }
    }
    sizes
}

/// An empty object has one part.
fn number_of_parts(size: u64, part_size: u64) -> u64 {
    size.div_ceil(part_size).max(1)
}

/// The MD5 of a content, whole and in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Md5Forms {
    pub whole: [u8; 16],
    /// For every size of parts that was asked for.
    pub parts: Vec<PartsMd5>,
}

/// The MD5 over the MD5s of the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsMd5 {
    pub md5: [u8; 16],
    pub number: u64,
}

impl ContentDigest {
    /// Whether the recorded MD5 is that of this content, if MD5 was computed with what [`part_sizes`] gives for them. `None`
    /// where it says nothing: the parts may have had a size that nobody knows.
    pub fn matches(&self, recorded: &RecordedMd5, configured: u64) -> Option<bool> {
        let computed = self.md5.as_ref()?;
        match recorded {
            RecordedMd5::Whole(md5) => Some(*md5 == computed.whole),
            RecordedMd5::Parts(md5, number) => {
                let is_same = computed.parts.iter().any(|parts| parts.md5 == *md5 && parts.number == *number);
                let is_configured = || number_of_parts(self.size, part_size(self.size, configured)) == *number;
                (is_same || is_configured()).then_some(is_same)
            }
            RecordedMd5::Unknown => None,
        }
    }
}

/// CRC-64/NVME, the checksum that S3 computes of objects by itself.
#[derive(Debug)]
pub struct Crc64(crc_fast::Digest);

impl Crc64 {
    #[expect(clippy::new_without_default, reason = "like the other digests")]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

/// Computes a [`ContentDigest`] while the content streams by.
#[derive(Debug, Default)]
pub struct DigestStream {
    size: u64,
    sha256: sha2::Sha256,
    crc32: crc32fast::Hasher,
    md5: Option<Md5Stream>,
}

#[derive(Debug)]
struct Md5Stream {
    whole: md5::Md5,
    parts: Vec<PartsStream>,
}

/// The MD5 of parts of one size.
#[derive(Debug)]
struct PartsStream {
    part_size: u64,
    part: md5::Md5,
    in_part: u64,
    of_parts: md5::Md5,
    parts: u64,
}

impl DigestStream {
    pub fn new() -> Self {
        Self::default()
    }

    /// Also computes MD5, whole and in parts of each of these sizes, in bytes.
    pub fn with_md5(part_sizes: Vec<u64>) -> Self {
        let parts = part_sizes.into_iter().map(PartsStream::new).collect();
        Self { md5: Some(Md5Stream { whole: md5::Md5::new(), parts }), ..Self::default() }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        self.crc32.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    pub fn finish(self) -> ContentDigest {
        ContentDigest {
            size: self.size,
            sha256: Sha256(self.sha256.finalize().into()),
            crc32: self.crc32.finalize(),
            md5: self.md5.map(Md5Stream::finish),
        }
    }
}

impl Md5Stream {
    fn update(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        for parts in &mut self.parts {
            parts.update(bytes);
        }
    }

    fn finish(self) -> Md5Forms {
        let parts = self.parts.into_iter().map(PartsStream::finish).collect();
        Md5Forms { whole: self.whole.finalize().into(), parts }
    }
}

impl PartsStream {
    fn new(part_size: u64) -> Self {
        let (part, of_parts) = (md5::Md5::new(), md5::Md5::new());
        Self { part_size: part_size.max(1), part, in_part: 0, of_parts, parts: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.part_size - self.in_part).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.part.update(now);
            self.in_part += now.len() as u64;
            bytes = later;
            if self.in_part == self.part_size {
                self.end_part();
            }
        }
    }

    fn end_part(&mut self) {
        self.of_parts.update(self.part.finalize_reset());
        self.parts += 1;
        self.in_part = 0;
    }

    fn finish(mut self) -> PartsMd5 {
        if self.in_part > 0 || self.parts == 0 {
            self.end_part();
        }
        PartsMd5 { md5: self.of_parts.finalize().into(), number: self.parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc64_is_that_of_nvme() {
        let mut crc64 = Crc64::new();
        crc64.update(b"1234");
        crc64.update(b"56789");
        // The check value in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc64.finish(), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn every_recorded_form_of_md5_is_read() {
        let whole = RecordedMd5::Whole(hex::decode("1c7d579a5b98a4a810fdd8f9d4eec471").unwrap().try_into().unwrap());
        assert_eq!(RecordedMd5::parse(Some("1c7d579a5b98a4a810fdd8f9d4eec471")), whole);
        assert_eq!(RecordedMd5::parse(Some("\"1c7d579a5b98a4a810fdd8f9d4eec471\"")), whole);
        assert_eq!(RecordedMd5::parse(Some("HH1XmluYpKgQ/dj51O7EcQ==")), whole);
        assert!(matches!(RecordedMd5::parse(Some("1c7d579a5b98a4a810fdd8f9d4eec471-12")), RecordedMd5::Parts(_, 12)));
        for opaque in
            [None, Some("no-md5-hash"), Some("0x8DB1234"), Some(""), Some("1c7d579a5b98a4a810fdd8f9d4eec471-0")]
        {
            assert_eq!(RecordedMd5::parse(opaque), RecordedMd5::Unknown, "{opaque:?}");
        }
    }

    #[test]
    fn multipart_md5_has_no_empty_last_part() {
        let parts = |pieces: &[&[u8]], part_size| {
            let mut stream = DigestStream::with_md5(vec![part_size]);
            for piece in pieces {
                stream.update(piece);
            }
            stream.finish().md5.unwrap().parts.remove(0)
        };
        let md5 = of_parts(b"abcdefgh", 4);
        assert_eq!(parts(&[b"abcd", b"efgh"], 4), PartsMd5 { md5, number: 2 });
        assert_eq!(parts(&[b"ab"], 1 << 20).number, 1);
        assert_eq!(parts(&[], 8).number, 1);
    }

    #[test]
    fn parts_are_as_large_as_boto_makes_them() {
        const MIB: u64 = 1 << 20;
        assert_eq!(part_size(20 * MIB, 50 * MIB), 50 * MIB);
        assert_eq!(part_size(500_000 * MIB, 50 * MIB), 50 * MIB);
        assert_eq!(part_size(500_000 * MIB + 1, 50 * MIB), 100 * MIB);
        assert_eq!(part_size(100 * MIB, MIB), 5 * MIB);
        assert_eq!(part_size(5 << 40, 6 << 30), 5 << 30);
    }

    /// What S3 calls the content when it comes in parts of this size.
    fn of_parts(content: &[u8], part_size: usize) -> [u8; 16] {
        let mut of_parts = md5::Md5::new();
        content.chunks(part_size).for_each(|part| of_parts.update(md5::Md5::digest(part)));
        of_parts.finalize().into()
    }

    #[test]
    fn the_sizes_of_parts_are_those_that_give_their_number() {
        const MIB: u64 = 1 << 20;
        let sizes = |mib: u64, configured: u64, parts| {
            let sizes = part_sizes(mib * MIB, configured * MIB, [RecordedMd5::Parts([0; 16], parts)]);
            sizes.into_iter().map(|size| size / MIB).collect::<Vec<_>>()
        };
        assert_eq!(sizes(60, 50, 2), [50]);
        assert_eq!(sizes(60, 40, 2), [40, 50]);
        assert_eq!(sizes(60, 50, 8), [8]);
        assert_eq!(sizes(60, 50, 3), [0; 0]);
        assert_eq!(sizes(130, 100, 2), [100]);
        // All of these make one part: the whole.
        assert_eq!(sizes(3, 50, 1), [50]);
        assert_eq!(sizes(0, 50, 1), [50]);
        let whole = || RecordedMd5::Whole([0; 16]);
        assert_eq!(part_sizes(60 * MIB, 50 * MIB, [whole(), RecordedMd5::Unknown]), [0; 0]);
        let two = [RecordedMd5::Parts([0; 16], 2), RecordedMd5::Parts([0; 16], 8), whole()];
        assert_eq!(part_sizes(60 * MIB, 50 * MIB, two), [50 * MIB, 8 * MIB]);
    }

    #[test]
    fn parts_are_compared_in_the_sizes_that_they_may_have_had() {
        const MIB: usize = 1 << 20;
        let content: Vec<u8> = (0..=250).cycle().take(12 * MIB).collect();
        let recorded = |part_size, parts| RecordedMd5::Parts(of_parts(&content, part_size), parts);
        let judge = |recorded: &RecordedMd5, configured: usize| {
            let configured = configured as u64;
            let sizes = part_sizes(content.len() as u64, configured, [recorded.clone()]);
            let mut stream = DigestStream::with_md5(sizes);
            content.chunks(MIB / 3).for_each(|piece| stream.update(piece));
            stream.finish().matches(recorded, configured)
        };
        let other = |parts| RecordedMd5::Parts([7; 16], parts);
        assert_eq!(judge(&recorded(8 * MIB, 2), 8 * MIB), Some(true));
        assert_eq!(judge(&other(2), 8 * MIB), Some(false));
        // Configured anew since: of another number of parts, and of the same one.
        assert_eq!(judge(&recorded(8 * MIB, 2), 50 * MIB), Some(true));
        assert_eq!(judge(&recorded(8 * MIB, 2), 9 * MIB), Some(true));
        assert_eq!(judge(&other(2), 9 * MIB), Some(false));
        // The parts may have had any size that makes two.
        assert_eq!(judge(&other(2), 50 * MIB), None);
        assert_eq!(judge(&recorded(3 * MIB, 4), 50 * MIB), None);
        assert_eq!(judge(&RecordedMd5::Whole([0; 16]), 50 * MIB), Some(false));
        assert_eq!(judge(&RecordedMd5::Unknown, 50 * MIB), None);
        assert_eq!(DigestStream::new().finish().matches(&other(1), 50 << 20), None);
    }

    #[test]
    fn digests_do_not_depend_on_how_the_content_was_cut() {
        let content: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        let mut one = DigestStream::with_md5(vec![999, 1000]);
        one.update(&content);
        let mut many = DigestStream::with_md5(vec![999, 1000]);
        for piece in content.chunks(7) {
            many.update(piece);
        }
        let (one, many) = (one.finish(), many.finish());
        assert_eq!(one, many);
        assert_eq!(one.sha256, Sha256::of(&content));
        assert_eq!(one.crc32, crc32fast::hash(&content));
        assert_eq!(one.size, 10_000);
    }

    proptest::proptest! {
        #[test]
        fn no_recorded_value_makes_the_parser_panic(text in "(\\PC{0,60}|\"?[0-9a-f]{31,33}(-[0-9]{0,22})?\"?|[A-Za-z0-9+/]{22}={0,3})") {
            if let RecordedMd5::Parts(_, parts) = RecordedMd5::parse(Some(&text)) {
                proptest::prop_assert!(parts > 0);
            }
        }
    }
}
