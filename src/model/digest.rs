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

/// The MD5 of a content, whole and in parts of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Md5Forms {
    pub whole: [u8; 16],
    /// MD5 over the MD5s of the parts, with their number.
    pub parts: ([u8; 16], u64),
}

impl Md5Forms {
    /// Whether the recorded value speaks of this content. `None` where it says nothing.
    pub fn matches(&self, recorded: &RecordedMd5) -> Option<bool> {
        match recorded {
            RecordedMd5::Whole(md5) => Some(*md5 == self.whole),
            // Another number means that the parts had another size, of which nothing was computed.
            RecordedMd5::Parts(md5, parts) => (*parts == self.parts.1).then(|| *md5 == self.parts.0),
            RecordedMd5::Unknown => None,
        }
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

    /// Also computes MD5, whole and in parts of `part_size` bytes (at least one).
    pub fn with_md5(part_size: u64) -> Self {
        let md5 = Md5Stream {
            whole: md5::Md5::new(),
            part_size: part_size.max(1),
            part: md5::Md5::new(),
            in_part: 0,
            of_parts: md5::Md5::new(),
            parts: 0,
        };
        Self { md5: Some(md5), ..Self::default() }
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
    fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
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

    fn finish(mut self) -> Md5Forms {
        if self.in_part > 0 || self.parts == 0 {
            self.end_part();
        }
        Md5Forms { whole: self.whole.finalize().into(), parts: (self.of_parts.finalize().into(), self.parts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut exact = DigestStream::with_md5(4);
        exact.update(b"abcd");
        exact.update(b"efgh");
        let forms = exact.finish().md5.unwrap();
        let mut of_parts = md5::Md5::new();
        of_parts.update(md5::Md5::digest(b"abcd"));
        of_parts.update(md5::Md5::digest(b"efgh"));
        assert_eq!(forms.parts, (of_parts.finalize().into(), 2));

        let mut small = DigestStream::with_md5(1 << 20);
        small.update(b"ab");
        assert_eq!(small.finish().md5.unwrap().parts.1, 1);
        assert_eq!(DigestStream::with_md5(8).finish().md5.unwrap().parts.1, 1);
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

    #[test]
    fn parts_of_another_size_say_nothing() {
        let mut stream = DigestStream::with_md5(4);
        stream.update(b"abcdefgh");
        let forms = stream.finish().md5.unwrap();
        let (md5, parts) = forms.parts;
        assert_eq!(forms.matches(&RecordedMd5::Parts(md5, parts)), Some(true));
        assert_eq!(forms.matches(&RecordedMd5::Parts([0; 16], parts)), Some(false));
        assert_eq!(forms.matches(&RecordedMd5::Parts(md5, 3)), None);
        assert_eq!(forms.matches(&RecordedMd5::Whole([0; 16])), Some(false));
        assert_eq!(forms.matches(&RecordedMd5::Unknown), None);
    }

    #[test]
    fn digests_do_not_depend_on_how_the_content_was_cut() {
        let content: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        let mut one = DigestStream::with_md5(999);
        one.update(&content);
        let mut many = DigestStream::with_md5(999);
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
