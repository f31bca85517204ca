//! What the answer of a storage means for the person who reads it.

use std::borrow::Cow;

/// A hint for a storage error, by its text: the stores name what is wrong with a code in it.
pub fn hint(text: &str) -> Option<String> {
    let has = |code: &str| text.contains(code);
    let bucket_region = between(text, "<Region>", "</Region>").or_else(|| between(text, "(region ", ")"));
    let bucket_region = bucket_region.or_else(|| between(text, "expecting '", "'"));
    Some(match () {
        () if has("AuthorizationHeaderMalformed") || has("PermanentRedirect") || has("IllegalLocationConstraint") => {
            match bucket_region {
                Some(region) => format!("the bucket is in another region: set region = {region} in [storage]"),
                None => "the bucket is in another region; set region in [storage]".into(),
            }
        }
        () if has("Received redirect") || has("301 Moved") => {
            "the bucket is in another region or at another address; check region, host and port in [storage]".into()
        }
        () if has("InvalidAccessKeyId") || has("SignatureDoesNotMatch") || has("AuthenticationFailed") => {
            "the storage does not accept the credentials; check key_file and api_profile in [storage], or the environment".into()
        }
        () if has("ExpiredToken") || has("InvalidToken") || has("TokenRefreshRequired") => {
            "the session token is no longer good; renew the credentials".into()
        }
        () if has("RequestTimeTooSkewed") || has("RequestExpired") => {
            "the clock of this node and that of the storage differ too much; set the clock (ntp, chrony)".into()
        }
        () if has("NoSuchBucket") || has("ContainerNotFound") || has("The specified bucket does not exist") => {
            "there is no such bucket; medusa does not create buckets: check bucket_name in [storage]".into()
        }
        () if has("InvalidObjectState") || has("BlobArchived") => {
            "the object lies in an archive class and must be restored there first; medusa needs classes that can be read at once".into()
        }
        () if has("AccessDenied") || has("403 Forbidden") || has("AuthorizationPermissionMismatch") => {
            "the credentials lack a permission; medusa storage-check tells which".into()
        }
        () if has("NotImplemented") && has("501") => {
            "the store does not know what it was asked for; medusa storage-check tells what it can do".into()
        }
        () if has("client sent an HTTP request to an HTTPS server") || has("Client sent an HTTP request to an HTTPS") => {
            "that port speaks https: set secure = True in [storage]".into()
        }
        () if has("InvalidContentType") || has("corrupt message") => {
            "that port does not speak https: check secure and port in [storage]".into()
        }
        () if has("invalid peer certificate") => {
            "the certificate of the storage is not trusted: name the authority with ca_file in [storage], or, at your own risk, set ssl_verify = False (cassandra-medusa never checked)".into()
        }
        () if has("dns error") || has("failed to lookup address") => {
            "the name of the storage is not known here; check host and region in [storage], and the proxy variables of the environment".into()
        }
        () if has("tcp connect error") || has("Connection refused") => {
            "nobody answers there; check host, port and secure in [storage], the firewall, and the proxy variables of the environment".into()
        }
        () if has("BadDigest") || has("ChecksumMismatch") || has("Md5Mismatch") || has("received something else") => {
            "the data was damaged on its way; no backup names it, and the same command sends it again".into()
        }
        () if has("SlowDown") || has("503 Service") || has("429 Too Many") => {
            "the storage is overloaded; lower concurrent_transfers or try again later".into()
        }
        () => return None,
    })
}

/// The same text with what an XML document of a store says put into words.
pub fn shortened(text: &str) -> Cow<'_, str> {
    let Some(begin) = text.find("<?xml").or_else(|| text.find("<Error>")) else { return text.into() };
    let (before, document) = text.split_at(begin);
    let Some(end) = document.find("</Error>") else { return text.into() };
    let (document, after) = document.split_at(end + "</Error>".len());
    let value = |name: &str| between(document, &format!("<{name}>"), &format!("</{name}>"));
    let Some(code) = value("Code") else { return text.into() };
    let message = value("Message").map(|message| format!(": {}", message.lines().next().unwrap_or_default()));
    let region = value("Region").map(|region| format!(" (region {region})"));
    format!("{before}{code}{}{}{after}", message.unwrap_or_default(), region.unwrap_or_default()).into()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?]).filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_region_is_named() {
        let malformed = "400 Bad Request: <Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>";
        assert!(hint(malformed).unwrap().ends_with("set region = eu-west-1 in [storage]"));
    }

    #[test]
    fn the_xml_of_an_error_becomes_a_sentence() {
        let text = "400 Bad Request: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>It is not there.</Message><HostId>x</HostId></Error>, after 2 retries";
        assert_eq!(shortened(text), "400 Bad Request: NoSuchBucket: It is not there., after 2 retries");
        for text in ["plain", "<?xml ?><Other/>", "<Error></Error>", "<Error><Code>"] {
            assert_eq!(shortened(text), text);
        }
    }

    #[test]
    fn what_nobody_knows_has_no_hint() {
        assert_eq!(hint("something else"), None);
    }
}
