//! JSON as Python's `json.dumps` writes it, so that what we store and print is byte for byte what cassandra-medusa
//! stores and prints: one line, `", "` and `": "` as separators, non-ASCII escaped where Python escapes it.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

#[derive(Debug)]
struct PythonFormatter {
    ensure_ascii: bool,
}

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ensure_ascii || fragment.bytes().all(|b| b.is_ascii() && b != 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() && c != '\x7f' {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

fn write(value: &impl Serialize, ensure_ascii: bool) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter { ensure_ascii });
    value.serialize(&mut serializer)?;
    Ok(bytes)
}

/// `json.dumps(value)`: what Medusa stores.
pub fn stored(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    write(value, true)
}

/// `json.dumps(value, ensure_ascii=False)`: keys as they come, and numbers of any length as they are.
pub fn printed_in_order(value: &impl Serialize) -> serde_json::Result<String> {
    String::from_utf8(write(value, false)?).map_err(serde::ser::Error::custom)
}

/// `json.dumps(value, ensure_ascii=False, sort_keys=True)`: what Medusa prints.
pub fn printed(value: &impl Serialize) -> serde_json::Result<String> {
    // A Value keeps its keys sorted.
    printed_in_order(&serde_json::to_value(value)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_are_those_of_python() {
        let value = json!([{"a": [1, -2, null, true], "b": {}, "c": []}, "é\u{1F600}\u{7f}\"\\\n\u{1}/"]);
        // Taken from Python 3.11: json.dumps of the same value.
        let expected = r#"[{"a": [1, -2, null, true], "b": {}, "c": []}, "\u00e9\ud83d\ude00\u007f\"\\\n\u0001/"]"#;
        assert_eq!(String::from_utf8(stored(&value).unwrap()).unwrap(), expected);
        assert_eq!(printed(&json!({"z": "é", "a": 1})).unwrap(), r#"{"a": 1, "z": "é"}"#);
    }
}
