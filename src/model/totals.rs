//! How much a manifest names, without building it: manifests of cassandra-medusa are read for nothing else, many at a time.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Files and bytes that a manifest names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub objects: u64,
    pub bytes: u64,
}

impl Totals {
    pub fn parse(manifest: &[u8]) -> serde_json::Result<Self> {
        Self::read_from(&mut serde_json::Deserializer::from_slice(manifest))
    }

    /// The same without the whole manifest in memory; several times slower.
    pub fn read(manifest: impl Read) -> serde_json::Result<Self> {
        Self::read_from(&mut serde_json::Deserializer::from_reader(manifest))
    }

    fn read_from<'de, R: serde_json::de::Read<'de>>(
        deserializer: &mut serde_json::Deserializer<R>,
    ) -> serde_json::Result<Self> {
        let mut totals = Self::default();
        Sections(&mut totals).deserialize(&mut *deserializer)?;
        deserializer.end()?;
        Ok(totals)
    }
}

/// The list of sections.
struct Sections<'a>(&'a mut Totals);

/// One section.
struct Section<'a>(&'a mut Totals);

/// Its objects.
struct Objects<'a>(&'a mut Totals);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Objects,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Object {
    size: u64,
}

impl<'de> DeserializeSeed<'de> for Sections<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Sections<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of a manifest's sections")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sections: A) -> Result<(), A::Error> {
        while sections.next_element_seed(Section(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section of a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut has_objects = false;
        while let Some(field) = fields.next_key()? {
            match field {
                Field::Objects if has_objects => return Err(A::Error::duplicate_field("objects")),
                Field::Objects => {
                    fields.next_value_seed(Objects(&mut *self.0))?;
                    has_objects = true;
                }
                Field::Other => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        if has_objects { Ok(()) } else { Err(A::Error::missing_field("objects")) }
    }
}

impl<'de> DeserializeSeed<'de> for Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of a section's objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while let Some(Object { size }) = objects.next_element()? {
            let bytes = self.0.bytes.checked_add(size);
            self.0.bytes = bytes.ok_or_else(|| A::Error::custom("it names more bytes than there can be"))?;
            self.0.objects += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::Manifest;

    const MEDUSA: &str = r#"[{"keyspace": "ks", "columnfamily": "t-01", "objects": [{"path": "n/data/ks/t-01/a", "MD5": "1c", "size": 8}, {"size": 10, "x": [{}], "path": "n/data/ks/t-01/.i/a", "MD5": null}]}, {"objects": [], "keyspace": "ks", "columnfamily": "empty-22"}]"#;

    #[test]
    fn totals_are_those_of_the_whole_manifest() {
        let whole = Manifest::parse(MEDUSA.as_bytes()).unwrap();
        let totals = Totals { objects: whole.object_count(), bytes: whole.total_bytes() };
        assert_eq!(Totals::parse(MEDUSA.as_bytes()).unwrap(), totals);
        assert_eq!(Totals::read(MEDUSA.as_bytes()).unwrap(), totals);
        assert_eq!(Totals::parse(b"[]").unwrap(), Totals::default());
    }

    #[test]
    fn what_is_no_manifest_has_no_totals() {
        let largest = u64::MAX.to_string();
        for (from, to) in [
            (MEDUSA, ""),
            (MEDUSA, "{}"),
            ("[{\"keyspace\"", "[7, {\"keyspace\""),
            ("\"objects\": []", "\"objects\": {}"),
            ("\"objects\": []", "\"subjects\": []"),
            ("\"objects\": []", "\"objects\": [], \"objects\": []"),
            ("\"size\": 8", "\"size\": -8"),
            ("\"size\": 8", "\"size\": \"8\""),
            (", \"size\": 8", ""),
            ("\"size\": 8", &format!("\"size\": {largest}")),
            ("empty-22\"}]", "empty-22\"}"),
            ("empty-22\"}]", "empty-22\"}]]"),
        ] {
            let text = MEDUSA.replacen(from, to, 1);
            assert!(from == MEDUSA || text != MEDUSA, "{from}");
            assert!(Totals::parse(text.as_bytes()).is_err(), "{text}");
            assert!(Totals::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Totals::parse(&bytes);
        }
    }
}
