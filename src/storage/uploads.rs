//! Uploads in parts that nobody completed: S3 keeps their parts, and they cost, until somebody aborts them.
//!
//! `object_store` does not list them, so these two requests are our own.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ClientOptions;
use object_store::CredentialProvider as _;
use object_store::aws::AwsAuthorizer;
use object_store::client::{
    HttpClient, HttpConnector as _, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
};
use object_store::path::Path;
use reqwest::Method;
use serde::Deserialize;

use super::aws_credentials::AwsCredentials;
use super::http::Connector;

/// Aborted at a time.
const AT_A_TIME: usize = 8;

/// A request that did not go through is sent so often again.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// See the module.
#[derive(Debug)]
pub struct Uploads {
    bucket_url: String,
    region: String,
    credentials: Arc<AwsCredentials>,
    connector: Connector,
    is_aws: bool,
}

/// The answer to `ListMultipartUploads`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
    #[serde(default)]
    upload: Vec<Unfinished>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfinished {
    key: String,
    upload_id: String,
    /// RFC 3339, by the storage's clock.
    #[serde(default)]
    initiated: String,
}

impl Unfinished {
    fn begun(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(&self.initiated).ok().map(|at| at.to_utc())
    }
}

/// Which unfinished uploads nobody goes on with.
///
/// The storage does not say who began one, and a cassandra-medusa that works beside us uploads below the same keys: what it is
/// sending must stay. So only those go that are older than any upload can be, and those that were begun while one of our runs
/// held the lease that was killed since. What else was left is old enough one day.
#[derive(Debug, Clone)]
pub struct Abandoned {
    pub before: DateTime<Utc>,
    /// From when until when a run of ours may have begun some that was killed.
    pub of_killed: Option<Range<DateTime<Utc>>>,
}

impl Abandoned {
    /// Those that are older than that.
    pub fn older_than(age: TimeDelta) -> Self {
        Self { before: Utc::now() - age, of_killed: None }
    }

    fn includes(&self, begun: DateTime<Utc>) -> bool {
        begun < self.before || self.of_killed.as_ref().is_some_and(|killed| killed.contains(&begun))
    }
}

impl Uploads {
    pub(super) fn new(
        bucket_url: String,
        region: String,
        credentials: Arc<AwsCredentials>,
        connector: Connector,
        is_aws: bool,
    ) -> Self {
        Self { bucket_url, region, credentials, connector, is_aws }
    }

    /// Aborts the abandoned uploads of objects below a folder, and returns how many there were.
    pub async fn abort_below(&self, folder: &Path, abandoned: &Abandoned) -> anyhow::Result<usize> {
        let client = self.connector.connect(&ClientOptions::new())?;
        let mut unfinished = self.below(&client, folder).await.context("could not list the unfinished uploads")?;
        unfinished.retain(|upload| upload.begun().is_some_and(|at| abandoned.includes(at)));
        let count = unfinished.len();
        let aborts = futures::stream::iter(unfinished).map(async |upload: Unfinished| {
            let path = Path::parse(&upload.key)?;
            let url = format!(
                "{}/{}?uploadId={}",
                self.bucket_url,
                encoded(path.as_ref(), true),
                encoded(&upload.upload_id, false)
            );
            let answer = self.send(&client, Method::DELETE, &url).await?;
            let status = answer.status();
            anyhow::ensure!(status.is_success() || status.as_u16() == 404, "{status}");
            anyhow::Ok(())
        });
        aborts.buffer_unordered(AT_A_TIME).try_collect::<()>().await.context("could not abort an unfinished upload")?;
        Ok(count)
    }

    async fn below(&self, client: &HttpClient, folder: &Path) -> anyhow::Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let (mut key, mut id) = (String::new(), String::new());
        loop {
            // MinIO takes a prefix for the whole key of an object.
            let prefix = if self.is_aws { encoded(&format!("{folder}/"), false) } else { String::new() };
            let mut url = format!("{}?uploads=&prefix={prefix}", self.bucket_url);
            if !key.is_empty() {
                url.push_str(&format!("&key-marker={}&upload-id-marker={}", encoded(&key, false), encoded(&id, false)));
            }
            let answer = self.send(client, Method::GET, &url).await?;
            let status = answer.status();
            let body = answer.into_body().bytes().await?;
            anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            let listing: Listing = quick_xml::de::from_reader(&*body)?;
            let is_below = |upload: &Unfinished| {
                Path::parse(&upload.key).is_ok_and(|key| key.prefix_matches(folder) && key != *folder)
            };
            found.extend(listing.upload.into_iter().filter(is_below));
            if !listing.is_truncated || listing.next_key_marker.is_empty() {
                return Ok(found);
            }
            (key, id) = (listing.next_key_marker, listing.next_upload_id_marker);
        }
    }

    async fn send(&self, client: &HttpClient, method: Method, url: &str) -> anyhow::Result<HttpResponse> {
        let mut attempts = 0;
        loop {
            let sent = self.send_once(client, &method, url).await;
            let is_transient = match &sent {
                Ok(answer) => answer.status().is_server_error() || answer.status().as_u16() == 429,
                Err(error) => error
                    .downcast_ref::<HttpError>()
                    .is_some_and(|error| !matches!(error.kind(), HttpErrorKind::Unknown | HttpErrorKind::Decode)),
            };
            attempts += 1;
            if !is_transient || attempts > ATTEMPTS {
                return sent;
            }
            tokio::time::sleep(PAUSE * attempts).await;
        }
    }

    async fn send_once(&self, client: &HttpClient, method: &Method, url: &str) -> anyhow::Result<HttpResponse> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.parse()?;
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        Ok(client.execute(request).await?)
    }
}

/// Percent encoding as signatures of AWS want it: everything but letters, digits and `-._~`.
fn encoded(text: &str, is_path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            b'/' if is_path => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_with_none_one_and_many_uploads_are_read() {
        let read = |inner: &str| {
            let text =
                format!("<?xml version=\"1.0\"?><ListMultipartUploadsResult>{inner}</ListMultipartUploadsResult>");
            quick_xml::de::from_str::<Listing>(&text).unwrap()
        };
        assert!(read("<Bucket>b</Bucket><IsTruncated>false</IsTruncated>").upload.is_empty());
        let upload = "<Upload><Key>n1/data/a+b.db</Key><UploadId>x</UploadId><Initiated>2026-11-29T17:40:05.000Z</Initiated></Upload>";
        let listing = read(&format!("<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>{upload}{upload}"));
        assert_eq!((listing.upload.len(), listing.is_truncated), (2, true));
        assert_eq!(listing.upload[1].key, "n1/data/a+b.db");
        assert_eq!(listing.upload[1].begun().unwrap().to_rfc3339(), "2026-11-29T17:40:05+00:00");
    }

    #[test]
    fn what_another_program_may_be_sending_is_not_abandoned() {
        let now = Utc::now();
        let ago = |minutes| now - TimeDelta::minutes(minutes);
        let old = Abandoned::older_than(TimeDelta::days(1));
        assert!(old.includes(ago(24 * 60 + 1)) && !old.includes(ago(24 * 60 - 1)));
        let killed = Abandoned { of_killed: Some(ago(50)..ago(40)), ..old };
        assert!([51, 40, 0].iter().all(|minutes| !killed.includes(ago(*minutes))));
        assert!(killed.includes(ago(50)) && killed.includes(ago(41)) && killed.includes(ago(24 * 60 + 1)));
    }

    #[test]
    fn keys_are_encoded_as_they_are_signed() {
        assert_eq!(encoded("n1/a+b c", true), "n1/a%2Bb%20c");
        assert_eq!(encoded("n1/", false), "n1%2F");
    }
}
