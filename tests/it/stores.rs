//! The lab's object stores and its recorder do what the tests believe they do. cassandra-medusa is the judge of the stores.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixtures;
use crate::lab::medusa::Medusa;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::minio::{Minio, Options};
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder};
use crate::lab::stores::wire::{Head, copy_body};
use crate::lab::stores::{ObjectServer, Settings};
use crate::lab::{project, tree};
use crate::made;
use crate::support::{signal, wait_for};

/// Copies the backups of a fixture into a new bucket. The bucket, and a configuration for it.
fn fill(store: &dyn ObjectServer) -> (String, Medusa, Vec<String>) {
    let bucket = store.new_bucket("fixture");
    let mut medusa = made::medusa();
    let expected = fixtures::install(&project().join("tests/data/buckets/medusa-0.31.0"), &mut medusa);
    let files = tree(&medusa.bucket());
    for (key, content) in &files {
        store.put(&bucket, key, content);
    }
    let sizes: Vec<_> = files.iter().map(|(key, content)| (key.clone(), content.len() as u64)).collect();
    assert_eq!(store.objects(&bucket).into_iter().collect::<Vec<_>>(), sizes);
    for (name, value) in store.environment() {
        medusa.env(name, &value);
    }
    let backups = expected["backups"].as_object().unwrap().keys().cloned().collect();
    (bucket, medusa, backups)
}

/// cassandra-medusa lists and verifies what is in the bucket, and removes a backup from it.
fn is_read_by_the_peer(store: &dyn ObjectServer, change: impl FnOnce(&mut Settings)) {
    let (bucket, mut medusa, backups) = fill(store);
    let mut settings = store.settings(&bucket);
    change(&mut settings);
    medusa.use_store(&settings);
    let listed = medusa.peer_ok(&["list-backups", "--show-all"]);
    for name in &backups {
        assert!(listed.stdout.contains(name), "{listed}");
        let verified = medusa.peer_ok(&["verify", "--backup-name", name]);
        assert!(verified.stdout.contains("- Completion: OK!\n- Manifest validated: OK!!"), "{verified}");
    }
    medusa.peer_ok(&["delete-backup", "--backup-name", "diff-1"]);
    assert!(!store.objects(&bucket).keys().any(|key| key.contains("/diff-1/")), "{:?}", store.objects(&bucket));
}

/// Objects of any name and content are kept as they were put.
fn keeps_objects(store: &dyn ObjectServer) {
    let bucket = store.new_bucket("objects");
    for (key, content) in [("a/b+c d%2F/ü&<>", b"one".as_slice()), ("empty", b"".as_slice())] {
        store.put(&bucket, key, content);
        assert_eq!(store.get(&bucket, key), content);
        assert!(store.head(&bucket, key).is_object());
        assert_eq!(store.objects(&bucket), [(key.to_owned(), content.len() as u64)].into());
        store.delete(&bucket, key);
        assert!(store.objects(&bucket).is_empty());
    }
}

#[test]
fn minio() {
    let minio = Minio::shared();
    println!("MinIO started in {:?}", minio.process.started_in);
    keeps_objects(minio);
    is_read_by_the_peer(minio, |_| {});
}

#[test]
fn minio_by_https_with_keys() {
    let minio = Minio::start(Options { tls: true, kms: Some("lab-key") });
    println!("MinIO with TLS started in {:?}", minio.process.started_in);
    is_read_by_the_peer(&minio, |settings| {
        settings.retain(|(key, _)| *key != "ssl_verify");
        settings.push(("ssl_verify", "False".to_owned()));
    });
    let bucket = minio.new_bucket("encrypted");
    let key = [7; 32].map(char::from).iter().collect::<String>();
    minio.put_with(&bucket, "kms", b"one", &json!({ "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "lab-key" }));
    minio.put_with(&bucket, "customer", b"two", &json!({ "SSECustomerAlgorithm": "AES256", "SSECustomerKey": key }));
    let head = minio.head(&bucket, "kms");
    assert_eq!(head["headers"]["x-amz-server-side-encryption"], "aws:kms", "{head}");
    assert_eq!(head["headers"]["x-amz-server-side-encryption-aws-kms-key-id"], "arn:aws:kms:lab-key", "{head}");
}

#[test]
fn minio_with_versions_locks_and_uploads() {
    let minio = Minio::shared();
    minio.create_versioned_bucket("versioned");
    minio.put("versioned", "key", b"one");
    minio.put("versioned", "key", b"two");
    minio.delete("versioned", "key");
    let versions = minio.versions("versioned");
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert!(minio.objects("versioned").is_empty());

    minio.create_locked_bucket("locked");
    minio.default_retention("locked", "COMPLIANCE", 1);
    minio.put("locked", "key", b"one");
    let head = minio.head("locked", "key");
    assert_eq!(head["headers"]["x-amz-object-lock-mode"], "COMPLIANCE", "{head}");

    let bucket = minio.new_bucket("uploads");
    minio.begin_upload(&bucket, "folder/key");
    assert_eq!(minio.incomplete_uploads(&bucket), ["folder/key"]);
    assert!(minio.objects(&bucket).is_empty());
}

#[test]
fn minio_lets_nobody_do_more_than_allowed() {
    let minio = Minio::shared();
    let bucket = minio.new_bucket("restricted");
    minio.put(&bucket, "key", b"one");
    let read = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::*"],
    }]});
    let credentials = minio.restricted(&read);
    assert!(credentials.session_token.is_some());
    let text = std::fs::read_to_string(minio.key_file(&credentials)).unwrap();
    assert!(text.contains("aws_session_token = "), "{text}");
    minio.attempt_as(&credentials, "get", &json!({ "bucket": bucket, "key": "key" })).unwrap();
    let put = minio.attempt_as(&credentials, "put", &json!({ "bucket": bucket, "key": "key", "content": "" }));
    assert!(put.as_ref().is_err_and(|error| error.contains("AccessDenied")), "{put:?}");
}

#[test]
fn azurite() {
    let azurite = Azurite::shared();
    println!("Azurite started in {:?}", azurite.process.started_in);
    keeps_objects(azurite);
    is_read_by_the_peer(azurite, |_| {});
}

#[test]
fn fake_gcs() {
    let gcs = FakeGcs::shared();
    println!("fake-gcs-server started in {:?}", gcs.process.started_in);
    keeps_objects(gcs);
    is_read_by_the_peer(gcs, |_| {});
}

/// What medusa is told by Google Cloud Storage, and that both programs see the same objects.
#[test]
fn fake_gcs_speaks_xml() {
    let gcs = FakeGcs::shared();
    let bucket = gcs.new_bucket("xml");
    let mut client = Client::new(gcs.port);
    let mut ask = |method: &str, target: &str, headers: &str, body: &str| {
        let length = body.len();
        client.send(&format!(
            "{method} /{bucket}{target} HTTP/1.1\r\nHost: store:1\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ));
        client.read_answer_to(method)
    };
    // MD5 of `one`, and of nothing.
    let (md5, other) = ("+XxdKZQb+xsv2rCHSQargg==", "1B2M2Y8AsgTpgAmY7PhCfg==");
    let etag = "\"f97c5d29941bfb1b2fdab0874906ab82\"";
    let key = "/a%2Fb+c%20%25%3C";
    let name = "a/b+c %<";
    let create = "x-goog-if-generation-match: 0\r\n";

    let (head, body) = ask("PUT", key, &format!("{create}Content-MD5: {other}\r\n"), "one");
    assert!(head.status() == 400 && body.contains("<Code>BadDigest</Code>"), "{head:?} {body}");
    assert!(gcs.objects(&bucket).is_empty());
    let class = "x-goog-storage-class: NEARLINE\r\n";
    let (created, _) = ask("PUT", key, &format!("{create}{class}Content-MD5: {md5}\r\n"), "one");
    assert_eq!((created.status(), created.get("etag")), (200, Some(etag)), "{created:?}");
    assert!(created.get("x-goog-hash").unwrap().contains(&format!("md5={md5}")), "{created:?}");
    let generation = created.get("x-goog-generation").unwrap().to_owned();
    let (head, body) = ask("PUT", key, create, "two");
    assert!(head.status() == 412 && body.contains("<Code>PreconditionFailed</Code>"), "{head:?} {body}");
    let item = gcs.head(&bucket, name);
    assert_eq!(
        [&item["md5Hash"], &item["storageClass"], &item["generation"]],
        [md5, "NEARLINE", &generation],
        "{item}"
    );

    for (method, content) in [("HEAD", ""), ("GET", "one")] {
        let (head, body) = ask(method, key, "", "");
        assert_eq!((head.status(), body.as_str(), head.get("content-length")), (200, content, Some("3")), "{head:?}");
        assert_eq!(
            (head.get("etag"), head.get("x-goog-generation")),
            (Some(etag), Some(generation.as_str())),
            "{head:?}"
        );
        assert!(head.get("last-modified").unwrap().ends_with(" GMT"), "{head:?}");
        assert_eq!(head.get("x-goog-storage-class"), Some("NEARLINE"), "{head:?}");
        let (head, _) = ask(method, "/absent", "", "");
        assert_eq!(head.status(), 404, "{head:?}");
    }
    let (head, body) = ask("GET", key, "Range: bytes=1-1\r\n", "");
    assert_eq!((head.status(), body.as_str(), head.get("content-range")), (206, "n", Some("bytes 1-1/3")), "{head:?}");
    assert_eq!(ask("GET", key, "If-Match: \"x\"\r\n", "").0.status(), 412);
    assert_eq!(ask("GET", key, &format!("If-None-Match: {etag}\r\n"), "").0.status(), 304);

    let replace = format!("x-goog-if-generation-match: {generation}\r\n");
    assert_eq!(ask("PUT", key, &replace, "two").0.status(), 200);
    assert_eq!(ask("PUT", key, &replace, "three").0.status(), 412);
    assert_eq!(gcs.get(&bucket, name), b"two");

    let (_, begun) = ask("POST", "/large?uploads", create, "");
    let upload = between(&begun, "<UploadId>", "<");
    for (number, content) in [("2", "second"), ("1", "first ")] {
        let (head, _) = ask("PUT", &format!("/large?partNumber={number}&uploadId={upload}"), "", content);
        assert!(head.status() == 200 && head.get("etag").is_some(), "{head:?}");
    }
    let part = |number: u32| format!("<Part><PartNumber>{number}</PartNumber><ETag>x</ETag></Part>");
    let parts = format!("<CompleteMultipartUpload>{}{}</CompleteMultipartUpload>", part(1), part(2));
    let (head, body) = ask("POST", &format!("/large?uploadId={upload}"), "", &parts);
    assert!(
        head.status() == 200 && head.get("x-goog-generation").is_some() && body.contains("<ETag>"),
        "{head:?} {body}"
    );
    assert_eq!(gcs.get(&bucket, "large"), b"first second");

    let (_, body) = ask("GET", "?list-type=2&prefix=a%2F&max-keys=1", "", "");
    assert_eq!((between(&body, "<Key>", "</Key>"), between(&body, "<Size>", "<")), ("a/b+c %&lt;", "3"), "{body}");
    assert!(
        body.contains("<IsTruncated>false<") && body.contains("<ETag>&quot;") && body.contains("<LastModified>2"),
        "{body}"
    );
    let (_, first) = ask("GET", "?list-type=2&max-keys=1", "", "");
    let token = between(&first, "<NextContinuationToken>", "<");
    let (_, second) = ask("GET", &format!("?list-type=2&continuation-token={token}"), "", "");
    assert!(second.contains("<Key>large</Key>") && !second.contains("<Key>a/"), "{second}");
    let (_, after) = ask("GET", "?list-type=2&start-after=a%2Fb%2Bc+%25%3C", "", "");
    assert!(after.contains("<Key>large</Key>") && !after.contains("<Key>a/"), "{after}");
    let (_, folders) = ask("GET", "?list-type=2&delimiter=%2F", "", "");
    assert!(folders.contains("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"), "{folders}");

    assert_eq!(ask("DELETE", key, "", "").0.status(), 204);
    assert_eq!(ask("DELETE", key, "", "").0.status(), 404);
    assert_eq!(gcs.objects(&bucket).into_keys().collect::<Vec<_>>(), ["large"]);
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1.split(after).next().unwrap()
}

#[test]
fn servers_end_with_their_owner() {
    // A process that is over has no program, though nobody may have asked for its end yet.
    let gone = |id: &str, folder: &Path| std::fs::read_link(format!("/proc/{id}/exe")).is_err() && !folder.exists();
    let minio = Minio::start(Options::default());
    let (id, folder) = (minio.process.id().to_string(), minio.process.folder.clone());
    assert!(!gone(&id, &folder));
    drop(minio);
    assert!(gone(&id, &folder));
    // The same in a process that has no time to do anything about it.
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stores::a_server_whose_owner_waits", "--nocapture"])
        .env(WAITS, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.skip_while(|line| !line.contains("server: ")).take(1).collect::<String>();
    let (id, folder) = said.split_once("server: ").unwrap().1.split_once(' ').unwrap();
    assert!(!gone(id, Path::new(folder)));
    signal(&owner, "KILL");
    owner.wait().unwrap();
    wait_for("the end of the server", || gone(id, Path::new(folder)));
}

/// Set for the process whose end [`servers_end_with_their_owner`] waits for.
const WAITS: &str = "LAB_OWNER_WAITS";

/// The other half of the test above; alone it shows that a server starts and ends.
#[test]
fn a_server_whose_owner_waits() {
    let minio = Minio::start(Options::default());
    println!("server: {} {}", minio.process.id(), minio.process.folder.display());
    if std::env::var_os(WAITS).is_some() {
        std::thread::sleep(Duration::from_mins(10));
    }
    assert!(minio.process.folder.exists());
}

/// A client that sends text and reads until the connection ends.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, method: &str, target: &str, body: &str) {
        let length = body.len();
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: store:1\r\nContent-Length: {length}\r\n\r\n{body}"));
    }

    fn read(&mut self) -> (Head, String) {
        self.read_answer_to("GET")
    }

    fn read_answer_to(&mut self, method: &str) -> (Head, String) {
        let head = Head::read(&mut self.0).unwrap().expect("the connection ended");
        let mut body = Vec::new();
        copy_body(head.framing_of_answer(method), &mut self.0, &mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// What comes before the connection ends, or stays silent after these words, and how that was.
    fn drain(&mut self, silent_after: Option<&str>) -> (String, Option<ErrorKind>) {
        let mut bytes = Vec::new();
        if let Some(words) = silent_after {
            while !bytes.ends_with(words.as_bytes()) {
                let mut byte = [0];
                self.0.read_exact(&mut byte).unwrap();
                bytes.extend(byte);
            }
            self.0.get_mut().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        let error = self.0.read_to_end(&mut bytes).err().map(|error| error.kind());
        (String::from_utf8(bytes).unwrap(), error)
    }
}

/// A server that says what it was asked, and counts.
fn echo() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let Ok(Some(head)) = Head::read(&mut stream) else { continue };
            let mut body = Vec::new();
            copy_body(head.framing_of_request(), &mut stream, &mut body).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let text =
                format!("{} host={} {}", head.first, head.get("host").unwrap(), String::from_utf8(body).unwrap());
            let length = text.len();
            let _ = write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
        }
    });
    (address, asked)
}

/// One request through a recorder with this fault. What came, how it ended, and how often the store was asked.
fn disturbed(action: Action, silent_after: Option<&str>) -> (String, Option<ErrorKind>, usize) {
    let (address, asked) = echo();
    let recorder = Recorder::start(&address, []);
    let fault = recorder.add(Fault::every(action, |request| request.path == "/b/key"));
    let mut client = Client::new(recorder.port);
    client.ask("GET", "/b/key?x=1", "");
    let (text, error) = client.drain(silent_after);
    wait_for("the fault", || fault.fired() > 0);
    (text, error, asked.load(Ordering::SeqCst))
}

const WHOLE: &str = "GET /b/key?x=1 HTTP/1.1 host=store:1 ";
/// How a connection looks on which nothing comes.
const SILENT: Option<ErrorKind> = Some(ErrorKind::WouldBlock);

#[test]
fn the_recorder_records_and_passes_on() {
    let (address, asked) = echo();
    let recorder = Recorder::start(&format!("http://{address}"), []);
    let mut client = Client::new(recorder.port);
    client.ask("GET", "/b/key?x=1", "");
    assert_eq!(client.read().1, WHOLE);
    client.ask("PUT", "/b/other", "content");
    assert_eq!(client.read().1, "PUT /b/other HTTP/1.1 host=store:1 content");
    client.send("PUT /b/c HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(Head::read(&mut client.0).unwrap().unwrap().status(), 100);
    client.send("3\r\nabc\r\n0\r\n\r\n");
    assert!(client.read().1.contains("abc"));
    wait_for("the end", || recorder.requests().iter().all(|request| request.ended >= Some(request.began)));
    let requests = recorder.requests();
    assert_eq!(requests.len(), asked.load(Ordering::SeqCst));
    let first = &requests[0];
    assert_eq!((first.method.as_str(), first.path.as_str(), first.query.as_str()), ("GET", "/b/key", "x=1"));
    assert_eq!(first.header("HOST"), Some("store:1"));
    assert_eq!(requests.iter().map(|request| request.body).collect::<Vec<_>>(), [0, 7, 3]);
    assert!(requests.iter().all(|request| request.status == Some(200)));
    assert!(requests.iter().all(|request| request.connection == first.connection));
}

#[test]
fn the_recorder_answers_instead() {
    let slow_down = Answer::xml(503, "SlowDown").header("Retry-After", "1");
    let (text, error, asked) = disturbed(Action::Answer(slow_down.clone()), Some("</Error>"));
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After: 1\r\n"), "{text}");
    assert!(text.ends_with("<Code>SlowDown</Code><Message>told to</Message></Error>"), "{text}");
    assert_eq!((error, asked), (SILENT, 0));
    let (text, error, asked) = disturbed(Action::AnswerAfter(slow_down), Some("</Error>"));
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert_eq!((error, asked), (SILENT, 1));
}

#[test]
fn the_recorder_breaks_connections() {
    assert_eq!(disturbed(Action::Reset, None), (String::new(), Some(ErrorKind::ConnectionReset), 0));
    assert_eq!(disturbed(Action::ResetAfter, None), (String::new(), Some(ErrorKind::ConnectionReset), 1));
    let (text, error, asked) = disturbed(Action::ResetInBody(8), None);
    assert!(
        text.contains(&format!("Content-Length: {}\r\n", WHOLE.len())) && text.ends_with("\r\n\r\nGET /b/k"),
        "{text}"
    );
    assert_eq!((error, asked), (Some(ErrorKind::ConnectionReset), 1));
    let (text, error, asked) = disturbed(Action::Truncate(8), None);
    assert!(
        text.contains(&format!("Content-Length: {}\r\n", WHOLE.len())) && text.ends_with("\r\n\r\nGET /b/k"),
        "{text}"
    );
    assert_eq!((error, asked), (None, 1));
}

#[test]
fn the_recorder_stalls() {
    assert_eq!(disturbed(Action::Stall, Some("")), (String::new(), SILENT, 0));
    let (text, error, asked) = disturbed(Action::StallInBody(8), Some("GET /b/k"));
    assert!(text.ends_with("\r\n\r\nGET /b/k"), "{text}");
    assert_eq!((error, asked), (SILENT, 1));
}

#[test]
fn the_recorder_slows_down() {
    let (address, _) = echo();
    let delay = Fault::every(Action::Delay(Duration::from_millis(200)), |request| request.path == "/late");
    let slow = Fault::every(Action::Slow(1000), |request| request.path == "/slow");
    let recorder = Recorder::start(&address, [delay, slow]);
    let mut client = Client::new(recorder.port);
    let mut took = |path: &str, body: &str| {
        let begin = Instant::now();
        client.ask("PUT", path, body);
        assert!(client.read().1.ends_with(body));
        begin.elapsed()
    };
    // On a busy machine not each time.
    assert!((0..20).map(|_| took("/quick", "")).min().unwrap() < Duration::from_millis(200));
    assert!(took("/late", "") >= Duration::from_millis(200));
    // There, and back in the answer.
    assert!(took("/slow", &"x".repeat(200)) >= Duration::from_millis(400));
    recorder.assert_fired();
}

#[test]
fn faults_are_for_the_requests_that_they_are_for() {
    let (address, _) = echo();
    let fault = |status: u16| Action::Answer(Answer::new(status, ""));
    let faults = [
        Fault::nth(2, fault(500), |request| request.path == "/second"),
        Fault::first(2, fault(429), |request| request.method == "PUT"),
    ];
    let recorder = Recorder::start(&address, faults);
    let mut client = Client::new(recorder.port);
    let mut status = |method: &str, path: &str| {
        client.ask(method, path, "");
        client.read().0.status()
    };
    assert_eq!([status("GET", "/second"), status("GET", "/second"), status("GET", "/second")], [200, 500, 200]);
    assert_eq!([status("PUT", "/x"), status("PUT", "/x"), status("PUT", "/x")], [429, 429, 200]);
    recorder.assert_fired();
    let idle = recorder.add(Fault::every(fault(500), |request| request.path == "/never"));
    assert_eq!(idle.fired(), 0);
    let unmet = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| recorder.assert_fired())).unwrap_err();
    assert!(unmet.downcast_ref::<String>().unwrap().contains("GET /second (0 bytes): 500"));
    recorder.behave();
    recorder.assert_fired();
}

/// Signatures are right behind a recorder, and what the peer does about a store that is too busy is seen.
#[test]
fn the_recorder_stands_before_minio() {
    let minio = Minio::shared();
    let (bucket, mut medusa, backups) = fill(minio);
    let busy =
        Fault::first(1, Action::Answer(Answer::xml(503, "SlowDown")), |request| request.query.contains("list-type=2"));
    let recorder = Recorder::start(&minio.endpoint, [busy]);
    medusa.use_store(&minio.settings_at(&bucket, recorder.port));
    let listed = medusa.peer_ok(&["list-backups", "--show-all"]);
    assert!(backups.iter().all(|name| listed.stdout.contains(name)), "{listed}");
    recorder.assert_fired();
    let lists = recorder.matching(|request| request.path.ends_with(&bucket) && request.query.contains("list-type=2"));
    assert_eq!(lists[0].status, Some(503), "{lists:?}");
    assert_eq!(lists[1].status, Some(200), "{lists:?}");
}
