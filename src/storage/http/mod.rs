//! The HTTP side of all object stores: one connection pool with one set of rules below `object_store`, which speaks the
//! protocols and tries again.
//!
//! - Never more requests than the storage wants ([`gate`]), never more bytes than the configuration allows ([`bandwidth`]).
//! - A request on which nothing moves for `read_timeout` seconds fails, in both directions, and so does one that trickles.
//! - Uploads carry the digests of what they send, and those that come back are compared.
//! - An object that is made of parts is created only where nothing is, as a small one is.

pub mod bandwidth;
pub mod body;
pub mod gate;
pub(super) mod headers;

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use self::bandwidth::Bandwidth;
use self::body::{CONTENT, Content, Progress, Received};
use self::gate::Gate;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const BLOB_CONTENT_MD5: HeaderName = HeaderName::from_static("x-ms-blob-content-md5");
const AWS_CRC64: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const GOOGLE_HASH: HeaderName = HeaderName::from_static("x-goog-hash");
const AWS_ENCRYPTION: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
const AWS_CUSTOMER_KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");

/// Bytes of a body that does not wait for its turn.
const SMALL: u64 = 16 << 10;

/// Before the first connection succeeded it is tried for so long: then the address is wrong rather than busy.
const FIRST_CONNECTION: Duration = Duration::from_secs(15);
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(500);

/// Who gives managed identities to machines. A container may be called as its paths begin.
const MACHINE_IDENTITY: &str = "169.254.169.254";

/// A request that waited longer is signed anew: a signature is good for 15 minutes.
const SIGNED_ANEW: Duration = Duration::from_mins(1);

/// Whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    S3,
    Gcs,
    Azure,
}

/// Signs a request anew.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError>;
}

/// How the connections are made.
#[derive(Debug, Clone)]
pub struct Options {
    pub protocol: Protocol,
    pub bucket: String,
    /// Check certificates.
    pub verify: bool,
    /// PEM certificates of authorities beside the system's.
    pub ca: Vec<Vec<u8>>,
    pub patience: Duration,
    /// Bytes per second; 0: no limit.
    pub bandwidth: u64,
    /// Let the store refuse to overwrite what is made of parts.
    pub conditional: bool,
}

/// What all requests share.
#[derive(Debug)]
pub struct Shared {
    protocol: Protocol,
    bucket: String,
    conditional: bool,
    client: reqwest::Client,
    gate: Arc<Gate>,
    bandwidth: Bandwidth,
    /// For how long nothing may move.
    patience: Duration,
    /// Also of requests that were changed.
    signer: OnceLock<(Arc<dyn Signer>, bool)>,
    connected: AtomicBool,
    /// When the first request was sent.
    begun: OnceLock<Instant>,
    /// It was told that the storage is not reached.
    told: AtomicBool,
}

/// What the answer to an upload, or to a question about an object, said about its content. In the extensions of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerMd5(pub [u8; 16]);

/// The `ETag` of the object is no digest of its content: it is encrypted with a key.
#[derive(Debug, Clone, Copy)]
pub struct OpaqueETag;

fn is_encrypted_by_key(headers: &HeaderMap) -> bool {
    let method = headers.get(&AWS_ENCRYPTION).and_then(|value| value.to_str().ok());
    method.is_some_and(|method| method.starts_with("aws:kms")) || headers.contains_key(&AWS_CUSTOMER_KEY)
}

/// Makes the HTTP client of a store, and of what gives it credentials.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Shared>);

impl Connector {
    /// # Errors
    /// A certificate that cannot be used.
    pub fn new(options: &Options) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("medusa/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.patience.min(Duration::from_secs(10)))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_mins(1))
            .http1_only();
        if !options.verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let certificates = options.ca.iter().map(|pem| reqwest::Certificate::from_pem_bundle(pem));
        let certificates: Vec<_> = certificates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self(Arc::new(Shared {
            protocol: options.protocol,
            bucket: options.bucket.clone(),
            conditional: options.conditional,
            client: builder.build()?,
            gate: Gate::new(),
            bandwidth: Bandwidth::new(options.bandwidth),
            patience: options.patience,
            signer: OnceLock::new(),
            connected: AtomicBool::new(false),
            begun: OnceLock::new(),
            told: AtomicBool::new(false),
        })))
    }

    /// Requests that had to wait are signed by it, and with `after_changes` those that are changed.
    pub fn sign_with(&self, signer: Arc<dyn Signer>, after_changes: bool) {
        drop(self.0.signer.set((signer, after_changes)));
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(Arc::clone(&self.0))))
    }
}

#[derive(Debug)]
struct Service(Arc<Shared>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let shared = &self.0;
        let uploads = request.method() == Method::PUT;
        let content = CONTENT.try_with(Content::clone).ok().filter(|_| uploads);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_of_store = shared.is_of_store(request.uri().host(), &path);
        let waits = content.as_ref().is_some_and(|content| content.of_file) || method == Method::GET;
        let asked = Instant::now();
        // Until there is an answer: its body may take as long as it likes.
        let _pass = if is_of_store { Some(shared.gate.pass(waits).await) } else { None };
        let is_late = asked.elapsed() > SIGNED_ANEW;
        shared.prepare(&mut request, content.as_ref(), is_late).await?;
        let crc64 = request.headers().get(&AWS_CRC64).cloned();
        let streamed = content.as_ref().and_then(|content| content.file.as_ref());
        let query = request.uri().query().unwrap_or_default().to_owned();
        if is_of_store {
            shared.begun.get_or_init(Instant::now);
        }
        let begin = Instant::now();
        let (answered, size, progress) = loop {
            let progress = Progress::begin(shared.patience, streamed.map(|part| Arc::clone(&part.counters)));
            let (sent, size) = shared.request(request.clone(), content.as_ref(), &progress).await?;
            match shared.execute(sent, &progress).await {
                Err(error) if is_of_store && shared.may_come_up(&error) => {
                    tokio::time::sleep(BETWEEN_CONNECTIONS).await;
                }
                answered => break (answered, size, progress),
            }
        };
        let took = begin.elapsed();
        let answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                progress.was_in_vain();
                tracing::debug!(target: "medusa::http", "{method} {path} failed after {took:.1?}: {error}");
                return Err(error);
            }
        };
        let status = answer.status();
        if !status.is_success() {
            progress.was_in_vain();
        }
        tracing::trace!(target: "medusa::http", "{method} {path} {size} bytes: {status} after {took:.1?}");
        if is_of_store {
            shared.connected.store(true, Ordering::Relaxed);
            shared.adapt(status, answer.headers());
        }
        if headers::must_be_read(&method, status) {
            return shared.judge(&method, answer).await;
        }
        if let Some(content) = content.filter(|_| status.is_success()) {
            let compared = shared.compare(answer.headers(), content.md5, &query);
            compared
                .and_then(|()| compare_crc64(answer.headers(), crc64.as_ref()))
                .inspect_err(|_| progress.was_in_vain())?;
        }
        let refusal = headers::refusal(&method, status, answer.headers(), chrono::Utc::now());
        if (status.is_redirection() || status == StatusCode::NOT_FOUND)
            && let Some(refusal) = refusal
        {
            // object_store tells of a redirect only that it was one, and takes a bucket that is not there for an object.
            return Err(HttpError::new_boxed(HttpErrorKind::Unknown, format!("{status}: {refusal}").into()));
        }
        let md5 = shared.md5_of(answer.headers());
        let (mut parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        if let Some(md5) = md5 {
            parts.extensions.insert(ServerMd5(md5));
        }
        if shared.protocol == Protocol::S3 && is_encrypted_by_key(&parts.headers) {
            parts.extensions.insert(OpaqueETag);
        }
        if let Some(refusal) = refusal {
            return Ok(HttpResponse::from_parts(parts, refusal.into()));
        }
        let body = Received::new(body, shared);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

impl Shared {
    /// Whether a request is about the bucket. Tokens of Google and Azure are asked for by the same client, from other servers.
    fn is_of_store(&self, host: Option<&str>, path: &str) -> bool {
        if host == Some(MACHINE_IDENTITY) {
            return false;
        }
        let first = path.split('/').find(|folder| !folder.is_empty()).unwrap_or_default();
        self.protocol == Protocol::S3 || percent_decode_str(first).eq(self.bucket.bytes())
    }

    /// Adds what `object_store` does not: conditions, digests, and the length of a body that is streamed.
    /// `is_late`: it was signed long ago.
    async fn prepare(
        &self,
        request: &mut HttpRequest,
        content: Option<&Content>,
        is_late: bool,
    ) -> Result<(), HttpError> {
        if self.protocol == Protocol::Azure && request.uri().path().contains("%5C") {
            // Another object would be meant.
            let message = "Azure takes a backslash in a name for a slash";
            return Err(HttpError::new_boxed(HttpErrorKind::Unknown, message.into()));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let headers_before = request.headers().len();
        let mut is_changed = false;
        if self.conditional && self.completes_parts(request.method(), &query) {
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        if let Some(content) = content {
            let headers = request.headers_mut();
            if self.protocol == Protocol::Azure && query.contains("comp=blocklist") {
                if let Some(md5) = content.whole_md5 {
                    headers.insert(BLOB_CONTENT_MD5, header(&STANDARD.encode(md5))?);
                }
            } else {
                headers.insert(CONTENT_MD5, header(&STANDARD.encode(content.md5))?);
                if let Some(crc64) = content.crc64 {
                    headers.insert(AWS_CRC64, header(&STANDARD.encode(crc64.to_be_bytes()))?);
                }
                if let Some(part) = &content.file {
                    headers.insert(CONTENT_LENGTH, part.length.into());
                    is_changed = true;
                }
            }
        }
        is_changed |= request.headers().len() != headers_before;
        // Signatures of S3 leave out the length, and what is added to the signed headers: only a checksum that is replaced needs
        // another one.
        if let Some((signer, after_changes)) = self.signer.get()
            && (is_late || is_changed && *after_changes)
        {
            signer.sign(request).await?;
        }
        Ok(())
    }

    /// Whether the request makes an object of parts that were uploaded.
    fn completes_parts(&self, method: &Method, query: &str) -> bool {
        match self.protocol {
            Protocol::S3 => *method == Method::POST && query.split('&').any(|pair| pair.starts_with("uploadId=")),
            Protocol::Azure => *method == Method::PUT && query.split('&').any(|pair| pair == "comp=blocklist"),
            Protocol::Gcs => false,
        }
    }

    async fn request(
        self: &Arc<Self>,
        request: HttpRequest,
        content: Option<&Content>,
        progress: &Arc<Progress>,
    ) -> Result<(reqwest::Request, u64), HttpError> {
        let (parts, body) = request.into_parts();
        let unusable = |error: Box<dyn StdError + Send + Sync>| HttpError::new_boxed(HttpErrorKind::Unknown, error);
        let url = parts
            .uri
            .to_string()
            .parse()
            .map_err(|error| unusable(Box::<dyn StdError + Send + Sync>::from(format!("{error}"))))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let streamed = content.and_then(|content| content.file.clone()).filter(|_| body.content_length() == 0);
        let (body, size) = if let Some(part) = streamed {
            let size = part.length;
            let stream = body::sent(part, Arc::clone(self), Arc::clone(progress));
            (reqwest::Body::wrap_stream(stream), size)
        } else {
            let size = body.content_length() as u64;
            let has_length = request.headers().contains_key(CONTENT_LENGTH);
            if size <= SMALL {
                // Counted, and not kept waiting behind files: a lease must be renewed in time.
                let _ = self.bandwidth.take(size);
                (reqwest::Body::wrap(body), size)
            } else if has_length {
                let stream = body::sliced(body, Arc::clone(self), Arc::clone(progress));
                (reqwest::Body::wrap_stream(stream), size)
            } else {
                self.bandwidth.pass(size).await;
                (reqwest::Body::wrap(body), size)
            }
        };
        *request.body_mut() = Some(body);
        Ok((request, size))
    }

    async fn execute(&self, request: reqwest::Request, progress: &Progress) -> Result<reqwest::Response, HttpError> {
        progress.sent();
        tokio::select! {
            answer = self.client.execute(request) => answer.map_err(|error| self.failed(error)),
            error = progress.stalled() => Err(error),
        }
    }

    /// Whether nobody answered so far and it is too early to say that nobody will.
    fn may_come_up(&self, error: &HttpError) -> bool {
        let may = error.kind() == HttpErrorKind::Connect && !self.connected.load(Ordering::Relaxed);
        if may && !self.told.swap(true, Ordering::Relaxed) {
            let seconds = FIRST_CONNECTION.as_secs();
            tracing::warn!("the storage is not reached yet; it is tried for {seconds} seconds ({error})");
        }
        may
    }

    /// Reads a refusal whose status alone may mean what `object_store` does not think of.
    async fn judge(&self, method: &Method, answer: reqwest::Response) -> Result<HttpResponse, HttpError> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let read = tokio::time::timeout(self.patience, answer.text()).await;
        // What says less than it should proves nothing, and is asked again.
        let unread = |why: String| HttpError::new_boxed(HttpErrorKind::Request, format!("{status}: {why}").into());
        let late = |_| unread(format!("nothing more came for {} seconds (read_timeout)", self.patience.as_secs()));
        let text = read.map_err(late)?.map_err(|error| unread(Explained(error.without_url()).to_string()))?;
        if let Some(kind) = headers::meaning(method, status, &text) {
            return Err(HttpError::new_boxed(kind, format!("{status}: {text}").into()));
        }
        let mut judged = HttpResponse::new(text.into());
        (*judged.status_mut(), *judged.headers_mut()) = (status, headers);
        Ok(judged)
    }

    fn adapt(&self, status: StatusCode, headers: &HeaderMap) {
        if !matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            if status.is_success() {
                self.gate.well();
            }
            return;
        }
        if let Some(limit) = self.gate.slow_down(headers::retry_after(headers, chrono::Utc::now())) {
            tracing::warn!("the storage is overloaded ({status}); going on with {limit} requests at a time");
        }
    }

    /// What was stored is what was sent, as far as the answer tells.
    fn compare(&self, headers: &HeaderMap, sent: [u8; 16], query: &str) -> Result<(), HttpError> {
        // To a list of blocks it tells of the list.
        if query.contains("comp=blocklist") {
            return Ok(());
        }
        match self.md5_of(headers) {
            Some(stored) if stored != sent => {
                let (stored, sent) = (hex::encode(stored), hex::encode(sent));
                let message = format!("the storage received something else: MD5 {stored} instead of {sent}");
                Err(HttpError::new_boxed(HttpErrorKind::Unknown, message.into()))
            }
            _ => Ok(()),
        }
    }

    /// The MD5 of an object by the headers of an answer. An `ETag` of S3 is one unless the object is encrypted with a key or made
    /// of parts.
    fn md5_of(&self, headers: &HeaderMap) -> Option<[u8; 16]> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let decoded = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        match self.protocol {
            Protocol::S3 => {
                if is_encrypted_by_key(headers) {
                    return None;
                }
                let mut md5 = [0; 16];
                hex::decode_to_slice(text(&ETAG)?.trim_matches('"'), &mut md5).ok().map(|()| md5)
            }
            Protocol::Azure => text(&CONTENT_MD5).and_then(decoded),
            Protocol::Gcs => {
                let values = headers.get_all(GOOGLE_HASH).iter().filter_map(|value| value.to_str().ok());
                values.flat_map(|value| value.split(',')).find_map(|hash| decoded(hash.trim().strip_prefix("md5=")?))
            }
        }
    }

    /// Which failures are worth another attempt.
    fn failed(&self, error: reqwest::Error) -> HttpError {
        let kind = if chain(&error).any(<dyn StdError>::is::<rustls::Error>) || error.is_builder() {
            HttpErrorKind::Unknown
        } else if error.is_connect() && !self.connected.load(Ordering::Relaxed) {
            match self.begun.get() {
                Some(begun) if begun.elapsed() >= FIRST_CONNECTION => HttpErrorKind::Unknown,
                _ => HttpErrorKind::Connect,
            }
        } else if chain(&error).any(|cause| cause.to_string().contains("error writing a body")) {
            // Perhaps the server refused before it had read everything, and its answer was lost.
            HttpErrorKind::Interrupted
        } else {
            HttpErrorKind::Request
        };
        HttpError::new(kind, Explained(error.without_url()))
    }
}

/// The same with the checksum that S3 says of an object that is encrypted with a key, too.
fn compare_crc64(headers: &HeaderMap, sent: Option<&HeaderValue>) -> Result<(), HttpError> {
    match (headers.get(&AWS_CRC64), sent) {
        (Some(stored), Some(sent)) if stored != sent => {
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let (stored, sent) = (text(stored), text(sent));
            let message = format!("the storage received something else: CRC-64 {stored} instead of {sent}");
            Err(HttpError::new_boxed(HttpErrorKind::Unknown, message.into()))
        }
        _ => Ok(()),
    }
}

/// An error whose text has its causes: `object_store` shows the first one only.
#[derive(Debug)]
struct Explained(reqwest::Error);

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = String::new();
        for error in chain(&self.0) {
            let text = error.to_string();
            if !last.is_empty() && !last.contains(&text) {
                f.write_str(": ")?;
            }
            if !last.contains(&text) {
                f.write_str(&text)?;
            }
            last = text;
        }
        Ok(())
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source())
}

fn header(text: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_str(text).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_store_that_comes_up_a_moment_later_is_waited_for() {
        crate::cassandra::tls::install_provider();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (protocol, patience) = (Protocol::S3, Duration::from_mins(1));
        let bucket = "b".to_owned();
        let options =
            Options { protocol, bucket, verify: true, ca: Vec::new(), patience, bandwidth: 0, conditional: true };
        let client = Connector::new(&options).unwrap().connect(&ClientOptions::new()).unwrap();
        let ask = async |_| {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.uri_mut() = format!("http://{address}/").parse().unwrap();
            client.execute(request).await.map(|answer| answer.status().as_u16())
        };
        let store = async {
            // Each of the four is refused several times.
            tokio::time::sleep(4 * BETWEEN_CONNECTIONS).await;
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
                // A request that nobody read is answered with a reset.
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
        };
        tokio::select! {
            answers = futures::future::join_all((0..4).map(ask)) => {
                for answer in answers {
                    assert_eq!(answer.unwrap(), 204);
                }
            }
            () = store => {}
        }
    }
}
