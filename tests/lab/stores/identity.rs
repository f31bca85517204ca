//! A server that says who a program is. What it answers, as a machine, a container or a token service would, is scripted; what
//! it is asked is recorded.

use std::io::{self, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use serde_json::json;

use super::minio::Credentials;
use super::recorder::Answer;
use super::wire::{Head, copy_body};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    /// `PUT /latest/api/token`
    pub fn what(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A value of the query, or of the form that was sent.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = parameters(&self.query).into_iter().chain(parameters(&self.body));
        pairs.find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

/// The pairs of a query or a form, without their percent signs.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://host/?{query}")).unwrap().query_pairs().into_owned().collect()
}

/// Where machines of EC2 are told their credentials.
pub const OF_MACHINES: &str = "/latest/meta-data/iam/security-credentials/";

/// A time from now, as AWS writes it.
pub fn expiration(lasts: Duration) -> String {
    (Utc::now() + lasts).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Credentials as machines and containers are told them.
pub fn document(who: &Credentials, lasts: Duration) -> Answer {
    let document = json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": who.access_key,
        "SecretAccessKey": who.secret_key,
        "Token": who.session_token,
        "Expiration": expiration(lasts),
    });
    Answer::new(200, &document.to_string()).header("Content-Type", "application/json")
}

/// Credentials as the security token service of AWS gives them, for an hour.
pub fn assumed(action: &str, who: &Credentials) -> Answer {
    let Credentials { access_key, secret_key, session_token } = who;
    let token = session_token.as_deref().unwrap_or_default();
    let expires = expiration(Duration::from_hours(1));
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><AssumedRoleUser>\
         <Arn>arn:aws:sts::123456789012:assumed-role/backup/lab</Arn><AssumedRoleId>A:lab</AssumedRoleId>\
         </AssumedRoleUser><Credentials><AccessKeyId>{access_key}</AccessKeyId>\
         <SecretAccessKey>{secret_key}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{expires}</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>lab</RequestId></ResponseMetadata></{action}Response>"
    );
    Answer::new(200, &body).header("Content-Type", "text/xml")
}

/// The server. It ends when dropped.
pub struct Identity {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<dyn Fn(&Asked) -> Answer + Send + Sync>,
    asked: Mutex<Vec<Asked>>,
    over: AtomicBool,
}

impl Identity {
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Arc::new(Shared { answer: Box::new(answer), asked: Mutex::default(), over: AtomicBool::new(false) });
        let for_listener = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if for_listener.over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = for_listener.clone();
                // Clients that break off are not of interest.
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { port, shared }
    }

    /// The security token service of AWS, which lets everybody be this one.
    pub fn token_service(who: &Credentials) -> Self {
        let who = who.clone();
        Self::start(move |asked| assumed(&asked.parameter("Action").unwrap_or_default(), &who))
    }

    /// What a machine of EC2 is told; this answers to who asks for its credentials.
    pub fn machine(credentials: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::start(move |asked| match (asked.method.as_str(), asked.path.strip_prefix(OF_MACHINES)) {
            ("PUT", None) if asked.path == "/latest/api/token" => {
                Answer::new(200, "lab-session").header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            }
            ("GET", Some("")) => Answer::new(200, "role-of-the-node"),
            ("GET", Some("role-of-the-node")) => credentials(),
            _ => Answer::new(404, ""),
        })
    }

    /// What a container is told, at `/v2/credentials/node`.
    pub fn container(credentials: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::start(move |asked| match asked.what().as_str() {
            "GET /v2/credentials/node" => credentials(),
            _ => Answer::new(404, ""),
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// In the order of arrival.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked().clone()
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // The listener hears of it with the next connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut from = BufReader::new(stream);
        while let Some(head) = Head::read(&mut from)? {
            let mut body = Vec::new();
            copy_body(head.framing_of_request(), &mut from, &mut body)?;
            let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
            let asked = Asked {
                method: head.word(0).to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers: head.headers.clone(),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            let Answer { status, headers, body } = (self.answer)(&asked);
            self.asked().push(asked);
            let mut head = Head { first: format!("HTTP/1.1 {status} Told"), headers };
            head.set("Content-Length", &body.len().to_string());
            head.write(&mut stream)?;
            stream.write_all(body.as_bytes())?;
        }
        Ok(())
    }
}
