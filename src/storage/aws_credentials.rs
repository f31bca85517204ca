//! Who we are at AWS and at stores that speak its protocol.
//!
//! With `key_file` the profile `api_profile` in that file, as in Medusa: keys in the environment win unless a profile is
//! named. Without it the whole chain of AWS: environment, profiles (roles, web identity, programs), containers, instances.
//! What expires is fetched anew in time, so that a long run does not outlive it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::{Mutex, OnceCell};

/// Credentials are fetched anew so long before they expire.
const MARGIN: Duration = Duration::from_mins(5);

/// Where credentials come from.
#[derive(Debug, Clone)]
pub struct Source {
    pub key_file: Option<PathBuf>,
    pub profile: Option<String>,
    pub region: String,
    /// How long a program or a service may take to give them.
    pub patience: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct AwsCredentials {
    source: Source,
    provider: OnceCell<SharedCredentialsProvider>,
    current: Mutex<Option<Current>>,
}

#[derive(Debug, Clone)]
struct Current {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl AwsCredentials {
    pub fn new(source: Source) -> Self {
        Self { source, provider: OnceCell::new(), current: Mutex::new(None) }
    }

    async fn provider(&self) -> SharedCredentialsProvider {
        let region = aws_config::Region::new(self.source.region.clone());
        let settings = aws_config::provider_config::ProviderConfig::default().with_region(Some(region.clone()));
        let profile = self.source.profile.as_deref();
        let Some(key_file) = &self.source.key_file else {
            let mut chain = DefaultCredentialsChain::builder().configure(settings).region(region);
            if let Some(profile) = profile {
                chain = chain.profile_name(profile);
            }
            return SharedCredentialsProvider::new(chain.build().await);
        };
        if profile.is_none() && std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
            return SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
        }
        let files = EnvConfigFiles::builder()
            .include_default_config_file(true)
            .with_file(EnvConfigFileKind::Credentials, key_file)
            .build();
        let mut file = ProfileFileCredentialsProvider::builder().configure(&settings).profile_files(files);
        if let Some(profile) = profile {
            file = file.profile_name(profile);
        }
        SharedCredentialsProvider::new(file.build())
    }
}

#[async_trait]
impl CredentialProvider for AwsCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        let is_fresh = |known: &&Current| known.expires.is_none_or(|expires| expires > SystemTime::now() + MARGIN);
        if let Some(known) = current.as_ref().filter(is_fresh) {
            return Ok(Arc::clone(&known.credential));
        }
        let asked = async {
            let provider = self.provider.get_or_init(|| self.provider()).await;
            provider.provide_credentials().await.map_err(|error| with_causes(&error))
        };
        let patience = self.source.patience;
        let answered = tokio::time::timeout(patience, asked).await;
        let late = |_| Err(format!("no answer within {} seconds (read_timeout)", patience.as_secs()));
        let found = match answered.unwrap_or_else(late) {
            Ok(found) => found,
            // Better than nothing, for the few minutes that it is good for.
            Err(error) => match current.as_ref().filter(|known| known.expires.is_some_and(|at| at > SystemTime::now()))
            {
                Some(known) => {
                    tracing::warn!("the credentials expire soon and could not be renewed: {error}");
                    return Ok(Arc::clone(&known.credential));
                }
                None => return Err(self.source.unusable(&error)),
            },
        };
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *current = Some(Current { credential: Arc::clone(&credential), expires: found.expiry() });
        Ok(credential)
    }
}

impl Source {
    fn unusable(&self, error: &str) -> object_store::Error {
        let place = match &self.key_file {
            Some(key_file) => place_of(key_file, self.profile.as_deref()),
            None => {
                "no AWS credentials were found (environment, profile, web identity, container, instance)".to_owned()
            }
        };
        let path = String::new();
        object_store::Error::Unauthenticated { path, source: format!("{place}: {error}").into() }
    }
}

fn place_of(key_file: &Path, profile: Option<&str>) -> String {
    format!("key_file {} gives no credentials for profile {}", key_file.display(), profile.unwrap_or("default"))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
