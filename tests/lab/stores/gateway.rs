//! GCS's XML API before a server that has the JSON API only. What is asked in JSON is passed on.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::io::ReaderStream;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Error>;

/// The headers by which a client asks for a generation.
const IF_GENERATION: &str = "x-goog-if-generation-match";
const GENERATION: &str = "x-goog-generation";
const STORAGE_CLASS: &str = "x-goog-storage-class";

/// The gateway with its thread. It ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    pub port: u16,
    _until: oneshot::Sender<()>,
}

impl Gateway {
    /// Before a server on this port of 127.0.0.1.
    pub fn start(server: u16) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (until, over) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, Arc::new(Translator::new(server))) => {}
                    _ = over => {}
                }
            });
        });
        Self { port, _until: until }
    }
}

async fn serve(listener: tokio::net::TcpListener, translator: Arc<Translator>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let translator = translator.clone();
        let service = service_fn(move |request| {
            let translator = translator.clone();
            async move {
                let answer = translator.answer(request).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|error| failure(500, &format!("gateway: {error}"))))
            }
        });
        // Clients that break off are not of interest.
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A body on the disk, with its MD5.
struct Spooled {
    file: File,
    length: u64,
    md5: [u8; 16],
}

/// A multipart upload that was begun.
struct Upload {
    headers: HeaderMap,
    parts: BTreeMap<u32, Spooled>,
}

struct Translator {
    server: u16,
    client: Client<HttpConnector, Body>,
    uploads: Mutex<HashMap<String, Upload>>,
}

/// Bucket and key as they are, and the query.
struct Target {
    bucket: String,
    key: String,
    query: HashMap<String, String>,
}

impl Translator {
    fn new(server: u16) -> Self {
        Self { server, client: Client::builder(TokioExecutor::new()).build_http(), uploads: Mutex::default() }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let path = request.uri().path();
        if ["/storage/v1/", "/upload/", "/download/", "/batch/", "/_internal/"]
            .iter()
            .any(|json| path.starts_with(json))
        {
            return self.pass(request).await;
        }
        let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let pairs = request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (decode(name, true), decode(value, true))).collect();
        let target = Target { bucket: decode(bucket, false), key: decode(key, false), query };
        let of_upload = target.query.get("uploadId").cloned();
        match (request.method().clone(), target.key.is_empty(), of_upload) {
            (Method::GET, true, None) => self.list(&target).await,
            (Method::GET | Method::HEAD, false, None) => self.read(&target, &request.into_parts().0).await,
            (Method::PUT, false, None) if request.headers().contains_key("x-goog-copy-source") => {
                self.copy(&target, request.headers()).await
            }
            (Method::PUT, false, None) => {
                let (parts, body) = request.into_parts();
                let spooled = spool(body).await?;
                self.insert(&target, &parts.headers, spooled).await
            }
            (Method::DELETE, false, None) => self.delete(&target, request.headers()).await,
            (Method::POST, false, None) if target.query.contains_key("uploads") => Ok(self.begin(&target, &request)),
            (Method::PUT, false, Some(id)) => self.part(&target, &id, request).await,
            (Method::POST, false, Some(id)) => self.complete(&target, &id, request).await,
            (Method::DELETE, false, Some(id)) => {
                self.uploads().remove(&id);
                Ok(empty(204))
            }
            (method, ..) => Ok(failure(501, &format!("the gateway does not know {method} {}", request.uri()))),
        }
    }

    /// Passes a request on as it is.
    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let url = self.url(path).parse()?;
        *request.uri_mut() = url;
        let answer = self.client.request(request.map(incoming)).await?;
        Ok(answer.map(incoming))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.server)
    }

    /// Asks the JSON API. The document, or how it failed.
    async fn json(&self, method: Method, path: &str) -> Result<Result<Value, Response<Body>>, Error> {
        let request = Request::builder().method(method).uri(self.url(path)).body(full(""))?;
        document(self.client.request(request).await?).await
    }

    async fn list(&self, target: &Target) -> Result<Response<Body>, Error> {
        let asked = |name: &str| target.query.get(name).map(String::as_str);
        let limit: usize = asked("max-keys").and_then(|keys| keys.parse().ok()).unwrap_or(1000).min(1000);
        let mut path = format!("/storage/v1/b/{}/o?maxResults={limit}", encode(&target.bucket));
        let after = asked("start-after").filter(|_| asked("continuation-token").is_none());
        for (name, value) in [
            ("prefix", asked("prefix")),
            ("delimiter", asked("delimiter")),
            ("pageToken", asked("continuation-token")),
            // Where JSON begins with a key, XML begins after it: no key lies between.
            ("startOffset", after.map(|after| format!("{after}\0")).as_deref()),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        let page = match self.json(Method::GET, &path).await? {
            Ok(page) => page,
            Err(failed) if failed.status() == StatusCode::NOT_FOUND => return Ok(error(404, "NoSuchBucket")),
            Err(failed) => return Ok(failed),
        };
        let mut xml = format!(
            "<Name>{}</Name><Prefix>{}</Prefix>",
            escape(&target.bucket),
            escape(asked("prefix").unwrap_or_default())
        );
        let token = page["nextPageToken"].as_str();
        xml.push_str(&format!("<IsTruncated>{}</IsTruncated>", token.is_some()));
        if let Some(token) = token {
            xml.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", escape(token)));
        }
        for item in page["items"].as_array().into_iter().flatten() {
            let text = |name: &str| escape(item[name].as_str().unwrap_or_default());
            xml.push_str(&format!(
                "<Contents><Key>{}</Key><Generation>{}</Generation><MetaGeneration>1</MetaGeneration>\
                 <LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                text("name"),
                text("generation"),
                text("updated"),
                escape(&etag(item)),
                text("size")
            ));
        }
        for prefix in page["prefixes"].as_array().into_iter().flatten() {
            let prefix = escape(prefix.as_str().unwrap_or_default());
            xml.push_str(&format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"));
        }
        Ok(xml_answer(200, "ListBucketResult", &xml))
    }

    async fn read(&self, target: &Target, request: &Parts) -> Result<Response<Body>, Error> {
        let generation = target.query.get("generation").map(|generation| format!("?generation={generation}"));
        let generation = generation.unwrap_or_default();
        let item = match self.json(Method::GET, &(target.json() + &generation)).await? {
            Ok(item) => item,
            Err(failed) if failed.status() == StatusCode::NOT_FOUND => return Ok(self.missing(target).await),
            Err(failed) => return Ok(failed),
        };
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
        let etag = etag(&item);
        if header(IF_MATCH).is_some_and(|wanted| wanted != "*" && wanted != etag) {
            return Ok(error(412, "PreconditionFailed"));
        }
        if header(IF_NONE_MATCH).is_some_and(|unwanted| unwanted == "*" || unwanted == etag) {
            return Ok(empty(304));
        }
        // This generation, whatever came meanwhile.
        let generation = item["generation"].as_str().unwrap_or_default();
        let path = format!("/download{}?alt=media&generation={generation}", target.json());
        let mut inner = Request::builder().method(request.method.clone()).uri(self.url(&path));
        if let Some(range) = request.headers.get(RANGE) {
            inner = inner.header(RANGE, range);
        }
        let mut answer = self.client.request(inner.body(full(""))?).await?.map(incoming);
        if answer.status().is_success() {
            describe(&item, answer.headers_mut())?;
        }
        Ok(answer)
    }

    /// Of an object that is not there: it, or its bucket.
    async fn missing(&self, target: &Target) -> Response<Body> {
        let bucket = self.json(Method::GET, &format!("/storage/v1/b/{}", encode(&target.bucket))).await;
        error(404, if matches!(bucket, Ok(Ok(_))) { "NoSuchKey" } else { "NoSuchBucket" })
    }

    async fn insert(&self, target: &Target, headers: &HeaderMap, body: Spooled) -> Result<Response<Body>, Error> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let md5 = BASE64_STANDARD.encode(body.md5);
        let in_hash =
            header("x-goog-hash").and_then(|hash| hash.split(',').find_map(|part| part.trim().strip_prefix("md5=")));
        if header("content-md5").or(in_hash).is_some_and(|sent| sent != md5) {
            return Ok(error(400, "BadDigest"));
        }
        let mut metadata = json!({ "name": target.key, "md5Hash": md5 });
        metadata["contentType"] = header("content-type").unwrap_or("application/octet-stream").into();
        if let Some(class) = header(STORAGE_CLASS) {
            metadata["storageClass"] = class.into();
        }
        for (name, value) in headers {
            if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("x-goog-meta-"), value.to_str()) {
                metadata["metadata"][name] = value.into();
            }
        }
        let boundary = format!("part-{}", uuid::Uuid::new_v4());
        let kind = metadata["contentType"].as_str().unwrap_or_default();
        let before = format!(
            "--{boundary}\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
        );
        let after = format!("\r\n--{boundary}--\r\n");
        let length = before.len() as u64 + body.length + after.len() as u64;
        let mut path = format!("/upload/storage/v1/b/{}/o?uploadType=multipart", encode(&target.bucket));
        if let Some(generation) = header(IF_GENERATION) {
            path.push_str(&format!("&ifGenerationMatch={}", encode(generation)));
        }
        let once = |text: String| futures::stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(text)) });
        let content = ReaderStream::with_capacity(tokio::fs::File::from_std(body.file), 256 * 1024);
        let stream = once(before).chain(content).chain(once(after));
        let request = Request::post(self.url(&path))
            .header(CONTENT_TYPE, format!("multipart/related; boundary={boundary}"))
            .header(CONTENT_LENGTH, length)
            .body(StreamBody::new(stream.map(|bytes| bytes.map(Frame::data).map_err(Error::from))).boxed_unsync())?;
        match document(self.client.request(request).await?).await? {
            Ok(item) => {
                let mut answer = empty(200);
                describe(&item, answer.headers_mut())?;
                Ok(answer)
            }
            Err(failed) if failed.status() == StatusCode::NOT_FOUND => Ok(error(404, "NoSuchBucket")),
            Err(failed) => Ok(failed),
        }
    }

    async fn copy(&self, target: &Target, headers: &HeaderMap) -> Result<Response<Body>, Error> {
        let source = headers["x-goog-copy-source"].to_str()?.trim_start_matches('/');
        let (bucket, key) = source.split_once('/').ok_or("no key to copy from")?;
        let source = Target { bucket: decode(bucket, false), key: decode(key, false), query: HashMap::new() };
        if let Some(wanted) = headers.get(IF_GENERATION)
            && !self.is_generation(target, wanted.to_str()?).await?
        {
            return Ok(error(412, "PreconditionFailed"));
        }
        let path = format!("{}/rewriteTo{}", source.json(), target.json().trim_start_matches("/storage/v1"));
        Ok(match self.json(Method::POST, &path).await? {
            Ok(done) => {
                let item = &done["resource"];
                let text = format!(
                    "<LastModified>{}</LastModified><ETag>{}</ETag>",
                    item["updated"].as_str().unwrap_or_default(),
                    escape(&etag(item))
                );
                let mut answer = xml_answer(200, "CopyObjectResult", &text);
                answer.headers_mut().insert(GENERATION, item["generation"].as_str().unwrap_or_default().parse()?);
                answer
            }
            Err(failed) if failed.status() == StatusCode::NOT_FOUND => self.missing(&source).await,
            Err(failed) => failed,
        })
    }

    async fn delete(&self, target: &Target, headers: &HeaderMap) -> Result<Response<Body>, Error> {
        let mut path = target.json();
        if let Some(wanted) = headers.get(IF_GENERATION)
            && !self.is_generation(target, wanted.to_str()?).await?
        {
            return Ok(error(412, "PreconditionFailed"));
        }
        if let Some(generation) = target.query.get("generation") {
            path.push_str(&format!("?generation={generation}"));
        }
        let request = Request::delete(self.url(&path)).body(full(""))?;
        let answer = self.client.request(request).await?;
        Ok(match answer.status() {
            status if status.is_success() => empty(204),
            StatusCode::NOT_FOUND => self.missing(target).await,
            status => error(status.as_u16(), "InternalError"),
        })
    }

    /// Whether the object has a generation; 0 where there is none. The server has this condition for uploads only, so others
    /// may come between this and what it is for.
    async fn is_generation(&self, target: &Target, wanted: &str) -> Result<bool, Error> {
        let item = self.json(Method::GET, &target.json()).await?;
        Ok(item.map_or(wanted == "0", |item| item["generation"].as_str() == Some(wanted)))
    }

    fn begin(&self, target: &Target, request: &Request<Incoming>) -> Response<Body> {
        let id = uuid::Uuid::new_v4().to_string();
        let upload = Upload { headers: request.headers().clone(), parts: BTreeMap::new() };
        self.uploads().insert(id.clone(), upload);
        let (bucket, key) = (escape(&target.bucket), escape(&target.key));
        let text = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
        xml_answer(200, "InitiateMultipartUploadResult", &text)
    }

    async fn part(&self, target: &Target, id: &str, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let number: u32 = target.query.get("partNumber").ok_or("no partNumber")?.parse()?;
        let sent = request.headers().get("content-md5").map(|sent| sent.to_str().map(str::to_owned)).transpose()?;
        let part = spool(request.into_body()).await?;
        if sent.is_some_and(|sent| sent != BASE64_STANDARD.encode(part.md5)) {
            return Ok(error(400, "BadDigest"));
        }
        let mut answer = empty(200);
        answer.headers_mut().insert(ETAG, format!("\"{}\"", hex::encode(part.md5)).parse()?);
        Ok(match self.uploads().get_mut(id) {
            Some(upload) => {
                upload.parts.insert(number, part);
                answer
            }
            None => error(404, "NoSuchUpload"),
        })
    }

    async fn complete(&self, target: &Target, id: &str, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let condition = request.headers().get(IF_GENERATION).cloned();
        let text = String::from_utf8(request.into_body().collect().await?.to_bytes().to_vec())?;
        let Some(mut upload) = self.uploads().remove(id) else { return Ok(error(404, "NoSuchUpload")) };
        if let Some(condition) = condition {
            upload.headers.insert(IF_GENERATION, condition);
        }
        let mut whole = Spool::new()?;
        for listed in text.split("<PartNumber>").skip(1) {
            let number = listed.split('<').next().unwrap_or_default().trim().parse()?;
            let Some(part) = upload.parts.get(&number) else { return Ok(error(400, "InvalidPart")) };
            let mut content =
                ReaderStream::with_capacity(tokio::fs::File::from_std(part.file.try_clone()?), 256 * 1024);
            while let Some(bytes) = content.next().await {
                whole.write(&bytes?)?;
            }
        }
        let inserted = self.insert(target, &upload.headers, whole.finish()?).await?;
        if !inserted.status().is_success() {
            return Ok(inserted);
        }
        let (bucket, key) = (escape(&target.bucket), escape(&target.key));
        let etag = escape(inserted.headers()[ETAG].to_str()?);
        let text = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>");
        let mut answer = xml_answer(200, "CompleteMultipartUploadResult", &text);
        answer.headers_mut().insert(GENERATION, inserted.headers()[GENERATION].clone());
        Ok(answer)
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, HashMap<String, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// The path of the object in the JSON API.
    fn json(&self) -> String {
        format!("/storage/v1/b/{}/o/{}", encode(&self.bucket), encode(&self.key))
    }
}

/// A body that arrives. Large ones go to the disk, never to memory: the server is asked when it is known to be whole.
struct Spool {
    file: File,
    length: u64,
    md5: Md5,
}

impl Spool {
    fn new() -> Result<Self, Error> {
        Ok(Self { file: tempfile::tempfile_in(crate::lab::project().join("target"))?, length: 0, md5: Md5::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes)?;
        self.md5.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<Spooled, Error> {
        self.file.rewind()?;
        Ok(Spooled { file: self.file, length: self.length, md5: self.md5.finalize().into() })
    }
}

async fn spool(mut body: Incoming) -> Result<Spooled, Error> {
    let mut spool = Spool::new()?;
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            spool.write(&bytes)?;
        }
    }
    spool.finish()
}

/// The document of an answer, or how it failed, in XML.
async fn document(answer: Response<Incoming>) -> Result<Result<Value, Response<Body>>, Error> {
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(Ok(serde_json::from_slice(&bytes)?));
    }
    let code = match status.as_u16() {
        404 => "NoSuchKey",
        412 => "PreconditionFailed",
        400 => "InvalidArgument",
        _ => "InternalError",
    };
    Ok(Err(error(status.as_u16(), code)))
}

/// What the XML API says of an object in headers.
fn describe(item: &Value, headers: &mut HeaderMap) -> Result<(), Error> {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    let hash = match text("md5Hash") {
        "" => format!("crc32c={}", text("crc32c")),
        md5 => format!("crc32c={},md5={md5}", text("crc32c")),
    };
    headers.insert(ETAG, etag(item).parse()?);
    headers.insert(GENERATION, text("generation").parse()?);
    headers.insert("x-goog-metageneration", "1".parse()?);
    headers.insert("x-goog-hash", hash.parse()?);
    headers.insert("x-goog-stored-content-length", text("size").parse()?);
    headers.insert(STORAGE_CLASS, text("storageClass").parse()?);
    let updated = chrono::DateTime::parse_from_rfc3339(text("updated"))?.to_utc();
    headers.insert(LAST_MODIFIED, updated.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse()?);
    Ok(())
}

/// The XML API's `ETag` is the MD5 in hex; of objects that have none, it is the one of the JSON API.
fn etag(item: &Value) -> String {
    let md5 = item["md5Hash"].as_str().filter(|md5| !md5.is_empty()).and_then(|md5| BASE64_STANDARD.decode(md5).ok());
    let plain = || item["etag"].as_str().unwrap_or_default().to_owned();
    format!("\"{}\"", md5.map_or_else(plain, hex::encode))
}

fn error(status: u16, code: &str) -> Response<Body> {
    xml_answer(status, "Error", &format!("<Code>{code}</Code><Message>{code}</Message>"))
}

/// Of the gateway itself.
fn failure(status: u16, message: &str) -> Response<Body> {
    xml_answer(status, "Error", &format!("<Code>InternalError</Code><Message>{}</Message>", escape(message)))
}

fn xml_answer(status: u16, root: &str, content: &str) -> Response<Body> {
    let text = format!("<?xml version='1.0' encoding='UTF-8'?><{root}>{content}</{root}>");
    let mut answer = empty(status);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml; charset=UTF-8"));
    *answer.body_mut() = full(text);
    answer
}

fn empty(status: u16) -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

fn incoming(body: Incoming) -> Body {
    body.map_err(Error::from).boxed_unsync()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Everything but letters and digits with percent signs: right in any part of a URL.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// `plus`: blanks may be written so, as in queries.
fn decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let escaped = more.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok());
        if let Some(byte) = escaped {
            bytes.extend(byte);
            rest = &more[2..];
        } else {
            bytes.push(if plus && *first == b'+' { b' ' } else { *first });
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
