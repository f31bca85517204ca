//! Google Cloud Storage.
//!
//! Files of any size go up in one request: an object that is composed of parts has no MD5 there, and cassandra-medusa before
//! 0.31 fails on buckets that hold such objects.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest};
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::http::{Connector, Signer};
use super::provider;
use crate::config::object_store::ObjectStore;
use crate::error::Failure;

/// Opens a bucket. Without `key_file`: the application's default credentials, or those of the machine.
pub fn open(bucket: &str, settings: &ObjectStore, connector: &Connector) -> Result<GoogleCloudStorage, Failure> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    if let Some(key_file) = &settings.key_file {
        builder = GoogleCloudStorageBuilder::new();
        let text = provider::read_key_file(key_file)?;
        let kind: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| provider::bad_key_file(key_file, "it is not JSON").cause(error))?;
        // The text of object_store's error would show what stands in the place of the object: perhaps the private key alone.
        if !kind.is_object() {
            return Err(provider::bad_key_file(key_file, "it must be a JSON object, as Google gives it"));
        }
        let path = key_file.display().to_string();
        builder = match kind.get("type").and_then(serde_json::Value::as_str) {
            None | Some("service_account") => builder.with_service_account_key(text),
            Some(_) => builder.with_application_credentials(path),
        };
    }
    let builder = builder.with_bucket_name(bucket).with_retry(provider::retry()).with_http_connector(connector.clone());
    let store = builder.build().map_err(provider::unusable)?;
    connector.sign_with(Arc::new(Bearer(Arc::clone(store.credentials()))), false);
    Ok(store)
}

/// Tokens last an hour, and some requests wait for long.
#[derive(Debug)]
struct Bearer(Arc<dyn CredentialProvider<Credential = GcpCredential>>);

#[async_trait]
impl Signer for Bearer {
    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let failed = |error: object_store::Error| HttpError::new(HttpErrorKind::Unknown, error);
        let credential = self.0.get_credential().await.map_err(failed)?;
        if !credential.bearer.is_empty() {
            let value = HeaderValue::from_str(&format!("Bearer {}", credential.bearer));
            let mut value = value.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(())
    }
}
