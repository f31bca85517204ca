//! Azure Blob Storage.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::azure::{AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest};
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;

use super::http::{Connector, Signer};
use super::provider;
use crate::config::object_store::ObjectStore;
use crate::config::secret::Secret;
use crate::error::Failure;

/// What `key_file` holds, as in Medusa.
#[derive(Deserialize)]
struct Account {
    storage_account: String,
    key: String,
}

fn account(key_file: &Path) -> Result<(String, Secret), Failure> {
    let text = provider::read_key_file(key_file)?;
    // The text of the parser's error would show the key.
    let account: Account = serde_json::from_str(&text).map_err(|error| {
        let why = format!("line {}: it must be {{\"storage_account\": …, \"key\": …}}", error.line());
        provider::bad_key_file(key_file, &why)
    })?;
    Ok((account.storage_account, Secret::new(account.key)))
}

/// Opens a container. Without `key_file`: the account `AZURE_STORAGE_ACCOUNT`, with the identity that the environment or the
/// machine gives (service principal, workload identity, managed identity).
pub fn open(container: &str, settings: &ObjectStore, connector: &Connector) -> Result<MicrosoftAzure, Failure> {
    let mut builder = MicrosoftAzureBuilder::from_env();
    let name = match &settings.key_file {
        Some(key_file) => {
            let (name, key) = account(key_file)?;
            builder = MicrosoftAzureBuilder::new().with_access_key(key.reveal());
            name
        }
        None => std::env::var("AZURE_STORAGE_ACCOUNT").or_else(|_| std::env::var("AZURE_STORAGE_ACCOUNT_NAME")).map_err(|_| {
            Failure::usage("no Azure storage account is named: key_file is not set, and neither is AZURE_STORAGE_ACCOUNT in the environment")
        })?,
    };
    let domain = settings.host.as_deref().unwrap_or("windows.net");
    let endpoint = provider::url(&format!("{name}.blob.core.{domain}"), settings);
    let store = builder
        .with_account(&name)
        .with_container_name(container)
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_retry(provider::retry())
        .with_http_connector(connector.clone())
        .build()
        .map_err(provider::unusable)?;
    connector.sign_with(Arc::new(Shared { credentials: Arc::clone(store.credentials()), account: name }), true);
    Ok(store)
}

/// Signatures of Azure cover the headers that we add.
#[derive(Debug)]
struct Shared {
    credentials: Arc<dyn CredentialProvider<Credential = AzureCredential>>,
    account: String,
}

#[async_trait]
impl Signer for Shared {
    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let failed = |error: object_store::Error| HttpError::new(HttpErrorKind::Unknown, error);
        let credential = self.credentials.get_credential().await.map_err(failed)?;
        if matches!(*credential, AzureCredential::SASToken(_)) {
            return Ok(());
        }
        request.headers_mut().remove(AUTHORIZATION);
        AzureAuthorizer::new(&credential, &self.account).try_authorize(request).map_err(failed)
    }
}
