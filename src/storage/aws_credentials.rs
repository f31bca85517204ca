//! Who we are at AWS and at stores that speak its protocol.
//!
//! With `key_file` the profile `api_profile` in that file, as in Medusa: keys in the environment win unless a profile is
//! named. Without it the whole chain of AWS: environment, profiles (roles, web identity, programs), containers, instances.
//! What expires is fetched anew in time, so that a long run does not outlive it; so is a `key_file` that was written anew.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use super::blocking::inline;
use crate::files::mtime;

/// Credentials are fetched anew so long before they expire.
const MARGIN: Duration = Duration::from_mins(5);

/// How long a request waits for a renewal while the old credentials are good: it may be a lease that waits. The renewal goes on.
const QUICK: Duration = Duration::from_secs(5);

/// After a renewal that failed, or was of no use, there is none for so long.
const PAUSE: Duration = Duration::from_secs(20);

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
pub struct AwsCredentials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    source: Source,
    state: Mutex<State>,
    /// Held by the one that asks for new ones.
    renewing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    provider: Option<SharedCredentialsProvider>,
    /// What the provider made of it.
    file: Option<Stamp>,
    current: Option<Current>,
    /// When a renewal did not help, and what the file was then.
    tried: Option<(Instant, Option<Stamp>)>,
}

/// What is known without asking.
enum Known {
    Fresh(Arc<AwsCredential>),
    /// Good, and to be renewed.
    Old(Arc<AwsCredential>),
    Nothing,
}

/// Tells one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    mtime: i64,
    size: u64,
    inode: u64,
}

#[derive(Debug, Clone)]
struct Current {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl AwsCredentials {
    pub fn new(source: Source) -> Self {
        Self(Arc::new(Shared { source, state: Mutex::default(), renewing: Arc::default() }))
    }
}

impl Shared {
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
        let shared = &self.0;
        let file = shared.source.stamp();
        let old = match shared.known(file) {
            Known::Fresh(credential) => return Ok(credential),
            Known::Old(credential) => credential,
            Known::Nothing => {
                let _renewing = shared.renewing.lock().await;
                return match shared.known(file) {
                    Known::Fresh(credential) => Ok(credential),
                    Known::Old(_) | Known::Nothing => shared.renew(file, None).await,
                };
            }
        };
        // One asks, and the others go on with what they have.
        let Ok(renewing) = Arc::clone(&shared.renewing).try_lock_owned() else { return Ok(old) };
        if let Known::Fresh(credential) = shared.known(file) {
            return Ok(credential);
        }
        let (asking, known) = (Arc::clone(shared), Arc::clone(&old));
        let renewal = tokio::spawn(async move {
            let renewed = asking.renew(file, Some(known)).await;
            drop(renewing);
            renewed
        });
        match tokio::time::timeout(QUICK, renewal).await {
            Ok(Ok(renewed)) => renewed,
            Ok(Err(_)) | Err(_) => Ok(old),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, file: Option<Stamp>) -> Known {
        let state = self.state();
        let Some(current) = &state.current else { return Known::Nothing };
        let lasts = |time| current.expires.is_none_or(|at| at > SystemTime::now() + time);
        let credential = Arc::clone(&current.credential);
        // A provider reads the file once.
        let is_of_file = state.file == file && state.provider.is_some();
        let is_tried = state.tried.is_some_and(|(tried, of)| of == file && tried.elapsed() < PAUSE);
        if lasts(Duration::ZERO) && (is_tried || is_of_file && lasts(MARGIN)) {
            Known::Fresh(credential)
        } else if lasts(Duration::ZERO) {
            Known::Old(credential)
        } else {
            Known::Nothing
        }
    }

    /// Only one at a time. `old`: is still good.
    async fn renew(
        &self,
        file: Option<Stamp>,
        old: Option<Arc<AwsCredential>>,
    ) -> object_store::Result<Arc<AwsCredential>> {
        let provider = {
            let state = self.state();
            state.provider.clone().filter(|_| state.file == file)
        };
        let asked = async {
            let provider = match provider {
                Some(provider) => provider,
                None => self.provider().await,
            };
            let found = provider.provide_credentials().await.map_err(|error| with_causes(&error))?;
            Ok((provider, found))
        };
        let patience = self.source.patience;
        let answered = tokio::time::timeout(patience, asked).await;
        let late = |_| Err(format!("no answer within {} seconds (read_timeout)", patience.as_secs()));
        let (provider, found) = match answered.unwrap_or_else(late) {
            Ok(found) => found,
            // Better than nothing, for the few minutes that it is good for, or until the file is written to its end.
            Err(error) => {
                let Some(old) = old else { return Err(self.source.unusable(&error)) };
                self.state().tried = Some((Instant::now(), file));
                tracing::warn!("the credentials could not be renewed, and the old ones are used: {error}");
                return Ok(old);
            }
        };
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        let current = Current { credential: Arc::clone(&credential), expires: found.expiry() };
        // Some last for less than the margin: they are not asked for with each request.
        let tried = current.expires.is_some_and(|at| at < SystemTime::now() + MARGIN).then(|| (Instant::now(), file));
        *self.state() = State { provider: Some(provider), file, current: Some(current), tried };
        Ok(credential)
    }
}

impl Source {
    /// Of `key_file` as it is now. `None`: there is no such file.
    fn stamp(&self) -> Option<Stamp> {
        let metadata = inline(|| fs_err::metadata(self.key_file.as_ref()?).ok())?;
        Some(Stamp { mtime: mtime(&metadata), size: metadata.len(), inode: metadata.ino() })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_file_that_was_written_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("credentials");
        let write = |text: &str| {
            // As those do it who renew session tokens.
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &key_file).unwrap();
        };
        let profile = |id: &str| {
            format!("[p]\naws_access_key_id = {id}\naws_secret_access_key = s\naws_session_token = token-of-{id}\n")
        };
        let patience = Duration::from_mins(1);
        let (key_file, profile_name) = (Some(key_file.clone()), Some("p".to_owned()));
        let source = Source { key_file, profile: profile_name, region: "us-east-1".into(), patience };
        let credentials = AwsCredentials::new(source);
        let known =
            async || credentials.get_credential().await.map(|known| (known.key_id.clone(), known.token.clone()));
        assert!(known().await.is_err());
        for id in ["first", "second"] {
            write(&profile(id));
            for _ in 0..2 {
                assert_eq!(known().await.unwrap(), (id.to_owned(), Some(format!("token-of-{id}"))));
            }
        }
        // What cannot be read is in the making.
        write("[p]\naws_access_");
        assert_eq!(known().await.unwrap().0, "second");
        write(&profile("third"));
        assert_eq!(known().await.unwrap().0, "third");
    }
}
