//! What the headers of an answer tell where there is no body: HEAD never has one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::client::HttpErrorKind;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};

/// Signed requests are refused beyond this difference between the clocks, by AWS and others.
const SKEW: i64 = 15 * 60;

/// AWS to a conditional write beside another one.
pub(crate) const CONFLICT: &str = "ConditionalRequestConflict";

/// In which header a store puts the code that its body would have.
const CODES: [&str; 2] = ["x-minio-error-code", "x-ms-error-code"];

/// Why a request was refused, in the words that the body of an answer would have. `None`: the answer has a body, or there is
/// nothing to tell.
pub(super) fn refusal(method: &Method, status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Option<String> {
    if status == StatusCode::NOT_MODIFIED {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let region = text("x-amz-bucket-region").map(|region| format!(" (region {region})"));
    if status.is_redirection() {
        let elsewhere = text(LOCATION.as_str()).map(|place| format!("Received redirect to {place}"));
        return region.map(|region| format!("PermanentRedirect{region}")).or(elsewhere);
    }
    let code = CODES.iter().find_map(|name| text(name));
    if *method == Method::HEAD && status == StatusCode::NOT_FOUND {
        return code.filter(|code| names_no_bucket(code)).map(str::to_owned);
    }
    if *method != Method::HEAD || !matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) {
        return None;
    }
    if let Some(code) = code {
        return Some(format!("{code}{}", region.unwrap_or_default()));
    }
    let skew = text(DATE.as_str()).and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    let skew = skew.map_or(0, |theirs| now.signed_duration_since(theirs).num_seconds());
    if skew.abs() > SKEW {
        let direction = if skew > 0 { "ahead of" } else { "behind" };
        let by = skew.abs();
        return Some(format!("RequestTimeTooSkewed: the clock of this node is {by} seconds {direction} the storage's"));
    }
    // AWS answers so, and to a session token that is no longer good, which the question does not tell apart.
    match region {
        Some(region) if status == StatusCode::BAD_REQUEST => Some(format!("AuthorizationHeaderMalformed{region}")),
        None if status == StatusCode::BAD_REQUEST => {
            Some("no reason was given; ExpiredToken, or another region, look like this".to_owned())
        }
        _ => None,
    }
}

/// Whether the words of a store say that the bucket is not there, rather than the object.
pub(crate) fn names_no_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| text.contains(code))
}

/// Whether a refusal cannot be understood without its body.
pub(super) fn must_be_read(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD
        && matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::NOT_IMPLEMENTED)
}

/// What a refusal means where its status alone would be taken for something else, and whether another attempt may go better.
pub(super) fn meaning(method: &Method, status: StatusCode, text: &str) -> Option<HttpErrorKind> {
    match status {
        // Not a fault of the server that would pass.
        StatusCode::NOT_IMPLEMENTED => Some(HttpErrorKind::Unknown),
        // Not an object that is absent.
        StatusCode::NOT_FOUND if names_no_bucket(text) => Some(HttpErrorKind::Unknown),
        // Not an object that is there: somebody writes to the key at this moment. AWS wants parts to be uploaded anew then.
        StatusCode::CONFLICT if text.contains(CONFLICT) => {
            Some(if *method == Method::PUT { HttpErrorKind::Request } else { HttpErrorKind::Unknown })
        }
        _ => None,
    }
}

/// How long a store asks to be left alone: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    until.signed_duration_since(now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc2822(text).unwrap().to_utc()
    }

    const NOON: &str = "Wed, 21 Oct 2026 12:00:00 GMT";

    fn told(method: &Method, status: u16, pairs: &[(&'static str, &str)]) -> Option<String> {
        refusal(method, StatusCode::from_u16(status).unwrap(), &headers(pairs), at(NOON))
    }

    #[test]
    fn each_refusal_of_head_has_its_hint() {
        let region = ("x-amz-bucket-region", "eu-west-1");
        for (status, pairs, expected) in [
            (301, vec![region], "set region = eu-west-1"),
            (400, vec![region], "set region = eu-west-1"),
            (307, vec![("location", "https://elsewhere/")], "in another region or at another address"),
            (400, vec![("x-minio-error-code", "ExpiredToken")], "session token is no longer good"),
            (403, vec![("x-ms-error-code", "AuthenticationFailed")], "does not accept the credentials"),
            (403, vec![("date", "Wed, 21 Oct 2026 13:00:00 GMT")], "set the clock"),
            (400, vec![], "session token is no longer good"),
        ] {
            let text = told(&Method::HEAD, status, &pairs).unwrap();
            assert!(explain::hint(&text).unwrap().contains(expected), "{status}: {text}");
        }
        assert!(
            told(&Method::HEAD, 403, &[("date", "Wed, 21 Oct 2026 13:00:00 GMT")])
                .unwrap()
                .contains("3600 seconds behind")
        );
    }

    #[test]
    fn what_has_a_body_or_no_reason_is_left_as_it_is() {
        assert_eq!(told(&Method::HEAD, 404, &[]), None);
        assert_eq!(told(&Method::HEAD, 304, &[("x-amz-bucket-region", "a")]), None);
        assert_eq!(told(&Method::HEAD, 403, &[("date", NOON)]), None);
        assert_eq!(told(&Method::GET, 403, &[("x-minio-error-code", "AccessDenied")]), None);
    }

    #[test]
    fn a_bucket_that_is_not_there_is_no_absent_object() {
        let head = |code: &str| told(&Method::HEAD, 404, &[("x-minio-error-code", code)]);
        assert_eq!(head("NoSuchBucket").as_deref(), Some("NoSuchBucket"));
        assert_eq!(head("NoSuchKey"), None);
        assert_eq!(told(&Method::HEAD, 404, &[("x-ms-error-code", "ContainerNotFound")]).unwrap(), "ContainerNotFound");
        let meant = |method: &Method, status: u16, code: &str| {
            meaning(method, StatusCode::from_u16(status).unwrap(), &format!("<Error><Code>{code}</Code></Error>"))
        };
        assert_eq!(meant(&Method::GET, 404, "NoSuchBucket"), Some(HttpErrorKind::Unknown));
        assert_eq!(meant(&Method::GET, 404, "NoSuchKey"), None);
        assert_eq!(meant(&Method::PUT, 409, "ConditionalRequestConflict"), Some(HttpErrorKind::Request));
        assert_eq!(meant(&Method::POST, 409, "ConditionalRequestConflict"), Some(HttpErrorKind::Unknown));
        assert_eq!(meant(&Method::PUT, 409, "BlobAlreadyExists"), None);
    }

    #[test]
    fn a_store_may_name_seconds_or_a_date() {
        let wait = |text: &str| retry_after(&headers(&[("retry-after", text)]), at(NOON)).map(|wait| wait.as_secs());
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Wed, 21 Oct 2026 12:00:30 GMT"), Some(30));
        assert_eq!(wait("Wed, 21 Oct 2026 11:00:00 GMT"), None);
        assert_eq!(wait("soon"), None);
    }
}
