//! The token map: which host of the datacenter owns which tokens, as the backing-up node saw it.

use indexmap::{IndexMap, IndexSet};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::pyjson;

/// Hosts in the order in which they were written: ascending by address, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tokenmap {
    pub hosts: IndexMap<String, TokenmapEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenmapEntry {
    pub tokens: Tokens,
    /// Whether the host was seen to be up; `null` where nobody knew.
    pub is_up: Option<bool>,
    /// Absent in maps of old versions of Medusa.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dc: Option<String>,
}

/// The nodes that token maps name, in their order.
pub type Hosts = IndexSet<String>;

/// The nodes of a stored token map. Its tokens are passed over: they are most of it.
pub fn parse_hosts(bytes: &[u8]) -> serde_json::Result<Hosts> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "tokens")]
        _tokens: IgnoredAny,
    }
    let map: IndexMap<String, Entry> = serde_json::from_slice(bytes)?;
    Ok(map.into_keys().collect())
}

/// Tokens as text, so that those of every partitioner survive: 64-bit and 127-bit numbers, and byte strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(pub Vec<String>);

impl Tokenmap {
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        pyjson::stored(self)
    }
}

impl Tokens {
    /// The list as Python prints it: `[-9223372036854775808, 1]`, byte strings in quotes.
    pub fn to_python(&self) -> String {
        let tokens: Vec<_> = self.0.iter().map(|t| if is_number(t) { t.clone() } else { format!("'{t}'") }).collect();
        format!("[{}]", tokens.join(", "))
    }

    /// Whether both lists hold the same tokens, in whatever order.
    pub fn same_set(&self, other: &Self) -> bool {
        let sorted = |tokens: &Self| {
            let mut tokens = tokens.0.clone();
            tokens.sort_unstable();
            tokens
        };
        sorted(self) == sorted(other)
    }
}

/// Whether it is a number in JSON. A byte string such as `0012` is none.
fn is_number(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    !digits.is_empty() && !has_leading_zero && digits.bytes().all(|b| b.is_ascii_digit())
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items: Result<Vec<_>, _> = self
            .0
            .iter()
            .map(|token| {
                let json =
                    if is_number(token) { token.clone() } else { serde_json::Value::from(token.as_str()).to_string() };
                RawValue::from_string(json)
            })
            .collect();
        items.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        // Old single-token maps hold a bare number.
        let items: Vec<Box<RawValue>> = if raw.get().starts_with('[') {
            serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?
        } else {
            vec![raw]
        };
        let token = |item: &RawValue| {
            if is_number(item.get()) { Ok(item.get().to_owned()) } else { serde_json::from_str::<String>(item.get()) }
        };
        let tokens: Result<_, _> = items.iter().map(|item| token(item)).collect();
        tokens.map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDUSA: &str = r#"{"node1.example.net": {"tokens": [-9223372036854775808, 1], "is_up": true, "rack": "r1", "dc": "dc1"}, "10.0.0.2": {"tokens": [170141183460469231731687303715884105727], "is_up": null, "rack": "r1", "dc": "dc1"}}"#;

    #[test]
    fn a_map_of_medusa_is_written_back_byte_for_byte() {
        let map = Tokenmap::parse(MEDUSA.as_bytes()).unwrap();
        assert_eq!(map.hosts["10.0.0.2"].tokens.0, ["170141183460469231731687303715884105727"]);
        assert_eq!(String::from_utf8(map.to_bytes().unwrap()).unwrap(), MEDUSA);
    }

    #[test]
    fn its_nodes_are_read_without_the_tokens() {
        let hosts = parse_hosts(MEDUSA.as_bytes()).unwrap();
        assert_eq!(hosts, Tokenmap::parse(MEDUSA.as_bytes()).unwrap().hosts.into_keys().collect::<Hosts>());
        for bad in ["[]", "{\"n\": 1}", "{\"n\": {}}", "{\"n\": {\"tokens\": [1]}", ""] {
            assert!(parse_hosts(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn old_maps_are_read() {
        let map =
            Tokenmap::parse(br#"{"n": {"tokens": -5, "is_up": true}, "m": {"tokens": ["00ff"], "is_up": false}}"#)
                .unwrap();
        assert_eq!(map.hosts["n"].tokens.0, ["-5"]);
        assert_eq!(map.hosts["n"].rack, None);
        assert_eq!(map.hosts["m"].tokens.to_python(), "['00ff']");
        assert!(Tokenmap::parse(br#"{"n": {"tokens": [{}], "is_up": true}}"#).is_err());
        let bytes = br#"{"n": {"tokens": ["0012"], "is_up": true}}"#;
        assert_eq!(Tokenmap::parse(bytes).unwrap().to_bytes().unwrap(), bytes);
        assert!(Tokenmap::parse(b"[]").is_err());
    }

    #[test]
    fn tokens_print_as_a_python_list_and_compare_as_a_set() {
        let tokens = Tokens(vec!["-9223372036854775808".into(), "1".into()]);
        assert_eq!(tokens.to_python(), "[-9223372036854775808, 1]");
        assert!(tokens.same_set(&Tokens(vec!["1".into(), "-9223372036854775808".into()])));
        assert!(!tokens.same_set(&Tokens(vec!["1".into()])));
        assert_eq!(Tokens::default().to_python(), "[]");
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Tokenmap::parse(&bytes);
        }

        #[test]
        fn what_is_read_is_written_so_that_it_is_read_again(
            host in "\\PC{0,20}",
            tokens in "(-?[0-9]{0,40}|\"[a-z0-9\\\\]{0,9}\"|\\[[-0-9, \"a]{0,30}\\]|null|\\{\\})",
            is_up in "(true|false|null|0)",
        ) {
            let host = serde_json::Value::from(host);
            let text = format!(r#"{{{host}: {{"tokens": {tokens}, "is_up": {is_up}}}}}"#);
            if let Ok(map) = Tokenmap::parse(text.as_bytes()) {
                proptest::prop_assert_eq!(Tokenmap::parse(&map.to_bytes().unwrap()).unwrap(), map);
            }
        }
    }
}
