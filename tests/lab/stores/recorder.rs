//! A proxy before a store: it records what is asked, and misbehaves where it is told to.

use std::fmt::Write as _;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, TimeDelta};
use md5::{Digest as _, Md5};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::wire::{Framing, Head, copy_body};

/// What was asked, and what became of it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Requests with the same number came over the same connection.
    pub connection: usize,
    pub method: String,
    /// As it was sent, with its percent signs.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// Length of the body, once it was read.
    pub body: u64,
    /// Base64 of the MD5 of the body, once it was passed on.
    pub md5: Option<String>,
    pub began: Instant,
    /// When the last byte of the answer was sent, if it was. Of an answer without a body: right before.
    pub ended: Option<Instant>,
    /// What the client was answered, if it was.
    pub status: Option<u16>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method, path, query, body, status, .. } = self;
        let mark = if query.is_empty() { "" } else { "?" };
        write!(f, "{method} {path}{mark}{query} ({body} bytes): ")?;
        match status {
            Some(status) => write!(f, "{status}"),
            None => f.write_str("no answer"),
        }
    }
}

/// An answer that the store did not give.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }

    /// An error as S3 and GCS (XML API) put it.
    pub fn xml(status: u16, code: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>told to</Message></Error>"
        );
        Self::new(status, &body).header("Content-Type", "application/xml")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn send(&self, method: &str, to: &mut impl Write) -> io::Result<()> {
        let mut head = Head { first: format!("HTTP/1.1 {} Told", self.status), headers: self.headers.clone() };
        head.set("Content-Length", &self.body.len().to_string());
        head.write(to)?;
        if method != "HEAD" {
            to.write_all(self.body.as_bytes())?;
        }
        to.flush()
    }
}

/// How to misbehave. Bytes are those of the answer's body.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answers this. The store hears nothing.
    Answer(Answer),
    /// Passes the request on and answers this: what was asked happened, and the client does not know.
    AnswerAfter(Answer),
    /// Resets the connection. The store hears nothing.
    Reset,
    /// Passes the request on and resets the connection before the answer.
    ResetAfter,
    /// Resets the connection after so many bytes.
    ResetInBody(u64),
    /// Closes the connection in an orderly way after so many bytes, though more were announced.
    Truncate(u64),
    /// Sends nothing more, for ever, after so many bytes.
    StallInBody(u64),
    /// Answers nothing, for ever. The store hears nothing.
    Stall,
    /// Waits before it passes the request on.
    Delay(Duration),
    /// Passes on so many bytes a second, of the request's body and of the answer's.
    Slow(u64),
    /// Passes the request on without this header.
    Without(&'static str),
    /// Passes the request on with another byte at this place of its body.
    Damage(u64),
    /// Dates the answer, and what it tells of, so many seconds later.
    Later(i64),
}

#[derive(Debug, Clone, Copy)]
enum Which {
    Every,
    /// The n-th of those that match, from 1.
    Nth(usize),
    /// The first n of those that match.
    First(usize),
}

/// An action with the requests that it is for.
pub struct Fault {
    which: Which,
    action: Action,
    matches: Box<dyn Fn(&Request) -> bool + Send + Sync>,
    seen: AtomicUsize,
    fired: AtomicUsize,
}

impl Fault {
    pub fn every(action: Action, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self::on(Which::Every, action, matches)
    }

    /// For the n-th request that matches, from 1.
    pub fn nth(n: usize, action: Action, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self::on(Which::Nth(n), action, matches)
    }

    /// For the first n requests that match.
    pub fn first(n: usize, action: Action, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self::on(Which::First(n), action, matches)
    }

    fn on(which: Which, action: Action, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self { which, action, matches: Box::new(matches), seen: AtomicUsize::new(0), fired: AtomicUsize::new(0) }
    }

    /// How often it happened.
    pub fn fired(&self) -> usize {
        self.fired.load(Ordering::SeqCst)
    }

    fn fire(&self) {
        self.fired.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it is for this request, which is counted.
    fn is_for(&self, request: &Request) -> bool {
        if !(self.matches)(request) {
            return false;
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        match self.which {
            Which::Every => true,
            Which::Nth(n) => number == n,
            Which::First(n) => number <= n,
        }
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { which, action, seen, fired, .. } = self;
        write!(f, "{action:?} for {which:?}: {seen:?} requests matched, fired {fired:?} times")
    }
}

/// The proxy. What goes through it ends when it is dropped.
#[derive(Debug)]
pub struct Recorder {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Host and port of the store.
    upstream: String,
    /// Whom to trust and what the certificate says, where it speaks https.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    faults: Mutex<Vec<Arc<Fault>>>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    over: AtomicBool,
}

impl Recorder {
    /// Before a store that speaks http: its URL, or host and port.
    pub fn start(upstream: &str, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::listen(upstream.strip_prefix("http://").unwrap_or(upstream), None, faults)
    }

    /// Before a store that speaks https, with a certificate of this authority. The recorder itself is asked by http.
    pub fn before_https(upstream: &str, authority: &Path, faults: impl IntoIterator<Item = Fault>) -> Self {
        let upstream = upstream.strip_prefix("https://").unwrap();
        let name = upstream.split(':').next().unwrap_or_default().to_owned();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        // Named, for other parts of the program may bring another one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Self::listen(upstream, Some((config, ServerName::try_from(name).unwrap())), faults)
    }

    fn listen(
        upstream: &str,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = upstream.trim_end_matches('/');
        assert!(!upstream.contains('/'), "{upstream} is not reached by http");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            tls,
            faults: Mutex::new(faults.into_iter().map(Arc::new).collect()),
            requests: Mutex::default(),
            connections: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let for_listener = shared.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if for_listener.over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream.map(Arc::new) else { continue };
                let mut connections = lock(&for_listener.connections);
                connections.retain(|connection| connection.strong_count() > 0);
                connections.push(Arc::downgrade(&stream));
                let shared = for_listener.clone();
                // Clients that break off are not of interest: their requests stay without an answer.
                std::thread::spawn(move || shared.serve(number, &stream));
            }
        });
        Self { port, shared }
    }

    /// One fault more, from now on. The first that is for a request happens to it.
    pub fn add(&self, fault: Fault) -> Arc<Fault> {
        let fault = Arc::new(fault);
        lock(&self.shared.faults).push(fault.clone());
        fault
    }

    /// Passes everything on from now.
    pub fn behave(&self) {
        lock(&self.shared.faults).clear();
    }

    /// What was asked so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    pub fn matching(&self, matches: impl Fn(&Request) -> bool) -> Vec<Request> {
        self.requests().into_iter().filter(|request| matches(request)).collect()
    }

    /// Every fault happened, or this fails and says what was asked.
    #[track_caller]
    pub fn assert_fired(&self) {
        let idle: Vec<_> = lock(&self.shared.faults).iter().filter(|fault| fault.fired() == 0).cloned().collect();
        let asked = self.requests().iter().fold(String::new(), |mut text, request| {
            let _ = writeln!(text, "{request}");
            text
        });
        assert!(idle.is_empty(), "{idle:?}; asked was:\n{asked}");
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for connection in lock(&self.shared.connections).iter().filter_map(Weak::upgrade) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // The listener hears of it with the next connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A connection to the store.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// How a connection goes on after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    Close,
    Reset,
}

impl Shared {
    fn serve(&self, connection: usize, stream: &Arc<TcpStream>) {
        let _ = stream.set_nodelay(true);
        let mut client = BufReader::new(&**stream);
        loop {
            match self.handle(connection, &mut client) {
                Ok(Next::Request) => {}
                Ok(Next::Reset) => {
                    // What was sent should have arrived: a reset throws away what has not.
                    std::thread::sleep(Duration::from_millis(50));
                    let at_once = linger { l_onoff: 1, l_linger: 0 };
                    let _ = setsockopt(&**stream, sockopt::Linger, &at_once);
                    return;
                }
                Ok(Next::Close) | Err(_) => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    /// One request and its answer.
    fn handle(&self, connection: usize, client: &mut BufReader<&TcpStream>) -> io::Result<Next> {
        let mut to_client = *client.get_ref();
        let Some(mut head) = Head::read(client)? else { return Ok(Next::Close) };
        let method = head.word(0).to_owned();
        let (index, fault) = self.record(connection, &head);
        let fault = fault.as_deref();
        let action = fault.map(|fault| fault.action.clone());
        let fire = || fault.iter().for_each(|fault| fault.fire());
        // The store would say so, too, and later.
        if head.get("expect").is_some() {
            to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            head.remove("Expect");
        }
        let closes = head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let next = if closes { Next::Close } else { Next::Request };

        if let Some(Action::Answer(_) | Action::Reset | Action::Stall) = action {
            let length = copy_body(head.framing_of_request(), client, &mut io::sink())?;
            self.update(index, |request| request.body = length);
            fire();
            return match action {
                Some(Action::Answer(answer)) => self.answer(index, &method, &answer, to_client).map(|()| next),
                Some(Action::Reset) => Ok(Next::Reset),
                _ => wait_for_the_end(client),
            };
        }
        if let Some(Action::Delay(time)) = action {
            fire();
            std::thread::sleep(time);
        }
        let rate = if let Some(Action::Slow(rate)) = action { Some(rate) } else { None };
        if rate.is_some() {
            fire();
        }

        let (mut answer, mut store) = self.ask(index, head, fault, client)?;
        let framing = answer.framing_of_answer(&method);

        if let Some(Action::AnswerAfter(_) | Action::ResetAfter) = action {
            copy_body(framing, &mut store, &mut io::sink())?;
            fire();
            return match action {
                Some(Action::AnswerAfter(answer)) => self.answer(index, &method, &answer, to_client).map(|()| next),
                _ => Ok(Next::Reset),
            };
        }
        let (rest, cut) = match action {
            Some(Action::ResetInBody(bytes)) => (Some(bytes), Some(Next::Reset)),
            Some(Action::Truncate(bytes)) => (Some(bytes), Some(Next::Close)),
            Some(Action::StallInBody(bytes)) => (Some(bytes), None),
            _ => (None, None),
        };
        if !closes {
            answer.remove("Connection");
        }
        self.update(index, |request| request.status = Some(answer.status()));
        let end = || self.update(index, |request| request.ended = Some(Instant::now()));
        // Who has all of it may ask for more before this goes on.
        if framing == Framing::Length(0) {
            end();
        }
        answer.write(&mut to_client)?;
        let mut limited = Limited { to: to_client, rest, rate, flip: None, md5: None };
        let copied = copy_body(framing, &mut store, &mut limited);
        if copied.is_err() && limited.rest == Some(0) {
            fire();
            return cut.map_or_else(|| wait_for_the_end(client), Ok);
        }
        copied?;
        if framing != Framing::Length(0) {
            end();
        }
        Ok(if framing == Framing::UntilClose { Next::Close } else { next })
    }

    /// Passes a request on. The head of the answer, and what its body comes from.
    fn ask(
        &self,
        index: usize,
        mut head: Head,
        fault: Option<&Fault>,
        client: &mut BufReader<&TcpStream>,
    ) -> io::Result<(Head, BufReader<Box<dyn Stream>>)> {
        let (mut rate, mut flip) = (None, None);
        match fault.map(|fault| (fault, &fault.action)) {
            Some((fault, Action::Without(name))) if head.get(name).is_some() => {
                head.remove(name);
                fault.fire();
            }
            Some((_, Action::Damage(at))) => flip = Some(*at),
            Some((_, Action::Slow(bytes))) => rate = Some(*bytes),
            _ => {}
        }
        let damages = flip.is_some();
        // A connection for each request: none that the store has closed meanwhile.
        let mut store = self.connect()?;
        head.set("Connection", "close");
        head.write(store.get_mut())?;
        let mut limited = Limited { to: store.get_mut(), rest: None, rate, flip, md5: Some(Md5::new()) };
        let length = copy_body(head.framing_of_request(), client, &mut limited)?;
        let Limited { flip, md5, .. } = limited;
        self.update(index, |request| {
            request.body = length;
            request.md5 = md5.map(|md5| BASE64_STANDARD.encode(md5.finalize()));
        });
        if let Some(fault) = fault.filter(|_| damages && flip.is_none()) {
            fault.fire();
        }
        let mut answer = Head::read(&mut store)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        while answer.status() < 200 {
            answer = Head::read(&mut store)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        if let Some(fault @ Fault { action: Action::Later(seconds), .. }) = fault {
            date_later(&mut answer, *seconds);
            fault.fire();
        }
        Ok((answer, store))
    }

    fn connect(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        let stream = TcpStream::connect(&self.upstream)?;
        stream.set_nodelay(true)?;
        let Some((config, name)) = &self.tls else { return Ok(BufReader::new(Box::new(stream))) };
        let connection = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        Ok(BufReader::new(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Writes a request down. Its number, and what is to happen to it.
    fn record(&self, connection: usize, head: &Head) -> (usize, Option<Arc<Fault>>) {
        let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
        let request = Request {
            connection,
            method: head.word(0).to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: head.headers.clone(),
            body: 0,
            md5: None,
            began: Instant::now(),
            ended: None,
            status: None,
        };
        let fault = lock(&self.faults).iter().find(|fault| fault.is_for(&request)).cloned();
        let mut requests = lock(&self.requests);
        requests.push(request);
        (requests.len() - 1, fault)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Request)) {
        change(&mut lock(&self.requests)[index]);
    }

    fn answer(&self, index: usize, method: &str, answer: &Answer, mut to: &TcpStream) -> io::Result<()> {
        self.update(index, |request| request.status = Some(answer.status));
        answer.send(method, &mut to)?;
        self.update(index, |request| request.ended = Some(Instant::now()));
        Ok(())
    }
}

/// Holds a connection until the client, or the recorder, ends it.
fn wait_for_the_end(client: &mut BufReader<&TcpStream>) -> io::Result<Next> {
    io::copy(client, &mut io::sink())?;
    Ok(Next::Close)
}

fn date_later(answer: &mut Head, seconds: i64) {
    for name in ["Date", "Last-Modified"] {
        let at = answer.get(name).and_then(|at| DateTime::parse_from_rfc2822(at).ok());
        if let Some(at) = at {
            let later = at + TimeDelta::seconds(seconds);
            answer.set(name, &later.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
    }
}

/// Writes no more than a limit, and no faster than a rate.
struct Limited<W> {
    to: W,
    /// Bytes that may still go. What is more fails.
    rest: Option<u64>,
    /// Bytes a second.
    rate: Option<u64>,
    /// Bytes before the one that becomes another.
    flip: Option<u64>,
    /// Of what there was to write.
    md5: Option<Md5>,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut most = bytes.len() as u64;
        if let Some(rest) = self.rest {
            most = most.min(rest);
            if most == 0 && !bytes.is_empty() {
                return Err(io::Error::other("told to stop"));
            }
        }
        if let Some(rate) = self.rate {
            // Twenty times a second, so that it flows rather than bursts.
            most = most.min(rate.div_ceil(20));
            std::thread::sleep(Duration::from_micros(most * 1_000_000 / rate));
        }
        let other = bytes.first().filter(|_| self.flip == Some(0)).map(|byte| [byte ^ 1]);
        if let Some(before) = self.flip.filter(|before| *before > 0) {
            most = most.min(before);
        }
        let written = match &other {
            Some(other) => self.to.write(other)?,
            None => self.to.write(&bytes[..usize::try_from(most).unwrap()])?,
        };
        if let Some(rest) = &mut self.rest {
            *rest -= written as u64;
        }
        self.flip = self.flip.and_then(|before| before.checked_sub(written as u64));
        if let Some(md5) = &mut self.md5 {
            md5.update(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
