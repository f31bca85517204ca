//! HTTP/1.1 as bytes on a connection: heads are understood, bodies are passed on as they come.

use std::io::{self, BufRead, Read, Write};

/// The first line and the headers of a request or an answer, as they were sent.
#[derive(Debug, Clone)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    /// None where the connection ended instead.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(first) = line(from)? else { return Ok(None) };
        let mut headers = Vec::new();
        while let Some(text) = line(from)? {
            if text.is_empty() {
                return Ok(Some(Self { first, headers }));
            }
            let (name, value) = text.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// Replaces a header or adds it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// The word of the first line with this index.
    pub fn word(&self, index: usize) -> &str {
        self.first.split(' ').nth(index).unwrap_or_default()
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    pub fn framing_of_request(&self) -> Framing {
        match self.framing() {
            Framing::UntilClose => Framing::Length(0),
            other => other,
        }
    }

    pub fn framing_of_answer(&self, method: &str) -> Framing {
        match (method, self.status()) {
            ("HEAD", _) | (_, 204 | 304) => Framing::Length(0),
            _ => self.framing(),
        }
    }

    fn framing(&self) -> Framing {
        let chunked = self.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = self.get("content-length").and_then(|value| value.parse().ok());
        match length {
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())?;
        to.flush()
    }
}

/// Passes a body on. How much content there was, without the framing.
pub fn copy_body(framing: Framing, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<u64> {
    let mut content = 0;
    match framing {
        Framing::Length(length) => content = copy(from, length, to)?,
        Framing::UntilClose => content = io::copy(from, to)?,
        Framing::Chunked => loop {
            let size = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            to.write_all(format!("{size}\r\n").as_bytes())?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            content += copy(from, length, to)?;
            if length > 0 {
                copy(from, 2, to)?;
                continue;
            }
            // Trailers, and the empty line after them.
            loop {
                let trailer = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                to.write_all(format!("{trailer}\r\n").as_bytes())?;
                if trailer.is_empty() {
                    break;
                }
            }
            break;
        },
    }
    to.flush()?;
    Ok(content)
}

fn copy(from: &mut impl BufRead, length: u64, to: &mut impl Write) -> io::Result<u64> {
    let copied = io::copy(&mut from.by_ref().take(length), to)?;
    if copied == length { Ok(copied) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}
