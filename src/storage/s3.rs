//! S3 and what speaks its protocol: `s3`, Medusa's old `s3_<region>` names, `s3_compatible`, `s3_rgw`, `ibm_storage`.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, Checksum};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest};
use reqwest::header::AUTHORIZATION;

use super::aws_credentials::{AwsCredentials, Source};
use super::http::{Connector, Signer};
use super::provider;
use super::uploads::Uploads;
use crate::config::object_store::{Addressing, Encryption, ObjectStore};
use crate::error::Failure;

/// Names that cassandra-medusa knows from Apache Libcloud, with their regions.
const REGIONS: [(&str, &str); 25] = [
    ("s3_us_east", "us-east-1"),
    ("s3_us_east1", "us-east-1"),
    ("s3_us_east2", "us-east-2"),
    ("s3_us_west", "us-west-1"),
    ("s3_us_west2", "us-west-2"),
    ("s3_us_west_oregon", "us-west-2"),
    ("s3_us_gov_east", "us-gov-east-1"),
    ("s3_us_gov_west", "us-gov-west-1"),
    ("s3_eu_west", "eu-west-1"),
    ("s3_eu_west2", "eu-west-2"),
    ("s3_eu_central", "eu-central-1"),
    ("s3_eu_north1", "eu-north-1"),
    ("s3_ap_south", "ap-south-1"),
    ("s3_ap_southeast", "ap-southeast-1"),
    ("s3_ap_southeast2", "ap-southeast-2"),
    ("s3_ap_northeast", "ap-northeast-1"),
    ("s3_ap_northeast1", "ap-northeast-1"),
    ("s3_ap_northeast2", "ap-northeast-2"),
    ("s3_sa_east", "sa-east-1"),
    ("s3_sa_east2", "sa-east-2"),
    ("s3_ca_central", "ca-central-1"),
    ("s3_cn_north", "cn-north-1"),
    ("s3_cn_northwest", "cn-northwest-1"),
    ("s3_af_south", "af-south-1"),
    ("s3_me_south", "me-south-1"),
];

/// Providers that are not AWS itself.
const OTHERS: [&str; 3] = ["s3_compatible", "s3_rgw", "ibm_storage"];

/// Where requests go and how they are addressed.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    region: String,
    /// `None`: AWS.
    endpoint: Option<String>,
    /// The bucket is part of the host's name.
    is_virtual: bool,
}

/// Whether the provider is one of this module.
pub fn is_s3(provider: &str) -> bool {
    provider.starts_with("s3") || provider == "ibm_storage"
}

/// Whether it speaks the protocol and is not AWS.
pub fn is_others(provider: &str) -> bool {
    OTHERS.contains(&provider)
}

/// Whether it has a region or asks for one.
pub fn is_known(provider: &str) -> bool {
    provider == "s3" || is_others(provider) || REGIONS.iter().any(|(name, _)| *name == provider)
}

fn place(provider: &str, bucket: &str, settings: &ObjectStore) -> Result<Place, Failure> {
    let region = match (&settings.region, provider) {
        (Some(region), _) => region.clone(),
        (None, "s3") => "us-east-1".to_owned(),
        (None, other) if is_others(other) => "us-east-1".to_owned(),
        (None, other) => match REGIONS.iter().find(|(name, _)| *name == other) {
            Some((_, region)) => (*region).to_owned(),
            None => return Err(provider::unknown(provider)),
        },
    };
    // Medusa looks the region up only where none is set.
    let names_a_region = settings.region.is_some() && provider.starts_with("s3_");
    if !is_known(provider) && !names_a_region {
        return Err(provider::unknown(provider));
    }
    if !is_others(provider) {
        // A dot in the name does not fit the certificate of AWS.
        let fits = !bucket.contains('.') && bucket.to_lowercase() == bucket;
        let is_virtual = match settings.addressing {
            Addressing::Auto => fits,
            Addressing::Path => false,
            Addressing::Virtual => true,
        };
        // The partition of China has a domain of its own.
        let endpoint = region.starts_with("cn-").then(|| {
            let name = if is_virtual { format!("{bucket}.") } else { String::new() };
            format!("https://{name}s3.{region}.amazonaws.com.cn")
        });
        return Ok(Place { region, endpoint, is_virtual });
    }
    let Some(host) = &settings.host else {
        return Err(Failure::usage(format!("host is missing in [storage]; storage_provider = {provider} needs it")));
    };
    let is_virtual = settings.addressing == Addressing::Virtual;
    let host = if is_virtual { format!("{bucket}.{host}") } else { host.clone() };
    Ok(Place { region, endpoint: Some(provider::url(&host, settings)), is_virtual })
}

/// Opens a bucket. Also returns what finds uploads that nobody completed.
pub fn open(
    provider: &str,
    bucket: &str,
    settings: &ObjectStore,
    connector: &Connector,
    checksums: bool,
) -> Result<(AmazonS3, Uploads), Failure> {
    let place = place(provider, bucket, settings)?;
    let credentials = Arc::new(AwsCredentials::new(Source {
        key_file: settings.key_file.clone(),
        profile: settings.api_profile.clone(),
        region: place.region.clone(),
        patience: settings.read_timeout,
    }));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&place.region)
        .with_credentials(Arc::<AwsCredentials>::clone(&credentials))
        .with_virtual_hosted_style_request(place.is_virtual)
        .with_allow_http(true)
        // Uploads carry their MD5 instead: a body that is read from a file is not known when the request is signed.
        .with_unsigned_payload(true)
        .with_retry(provider::retry())
        .with_http_connector(connector.clone());
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if checksums {
        builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
    }
    let signature = Signature { credentials: Arc::clone(&credentials), region: place.region.clone() };
    connector.sign_with(Arc::new(signature), checksums);
    builder = match &settings.encryption {
        Encryption::Bucket => builder,
        Encryption::Kms(key) => builder.with_sse_kms_encryption(key),
        Encryption::Customer(key) => builder.with_ssec_encryption(key.reveal()),
    };
    let store = builder.build().map_err(provider::unusable)?;
    let is_aws = !is_others(provider);
    let of_aws = || {
        let name = if place.is_virtual { format!("{bucket}.") } else { String::new() };
        format!("https://{name}s3.{}.amazonaws.com", place.region)
    };
    let host = place.endpoint.unwrap_or_else(of_aws);
    let bucket_url = if place.is_virtual { host } else { format!("{host}/{bucket}") };
    let uploads = Uploads::new(bucket_url, place.region, credentials, connector.clone(), is_aws);
    Ok((store, uploads))
}

/// `object_store` signs the checksum of the body that it knows, and before a request waits for its turn.
#[derive(Debug)]
struct Signature {
    credentials: Arc<AwsCredentials>,
    region: String,
}

#[async_trait]
impl Signer for Signature {
    async fn sign(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let failed = |error: object_store::Error| HttpError::new(HttpErrorKind::Unknown, error);
        let credential = self.credentials.get_credential().await.map_err(failed)?;
        request.headers_mut().remove(AUTHORIZATION);
        // There may be none any more.
        request.headers_mut().remove("x-amz-security-token");
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region).with_sign_payload(false);
        authorizer.try_authorize(request, None).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    fn placed(provider: &str, more: &str) -> Result<Place, Failure> {
        let text = format!("[storage]\nstorage_provider = {provider}\nbucket_name = b\n{more}");
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        place(&config.storage.provider, "b", &config.storage.object_store)
    }

    fn aws(region: &str, is_virtual: bool) -> Place {
        Place { region: region.into(), endpoint: None, is_virtual }
    }

    #[test]
    fn regions_come_from_the_key_or_from_the_old_names() {
        assert_eq!(placed("s3", "").unwrap(), aws("us-east-1", true));
        assert_eq!(placed("s3", "region = eu-west-3\n").unwrap(), aws("eu-west-3", true));
        assert_eq!(placed("s3_us_west_oregon", "").unwrap(), aws("us-west-2", true));
        assert_eq!(placed("S3_EU_CENTRAL", "region = default\n").unwrap(), aws("eu-central-1", true));
        assert_eq!(placed("s3", "s3_addressing_style = path\n").unwrap(), aws("us-east-1", false));
        let china = placed("s3_cn_north", "").unwrap();
        assert_eq!(china.endpoint.as_deref(), Some("https://b.s3.cn-north-1.amazonaws.com.cn"));
        assert!(placed("s3_moon", "").unwrap_err().to_string().contains("s3_moon"));
        assert_eq!(placed("s3_us_west_2", "region = us-west-2\n").unwrap(), aws("us-west-2", true));
        assert!(placed("s3moon", "region = x\n").is_err());
    }

    #[test]
    fn other_stores_are_where_host_and_port_say() {
        for provider in OTHERS {
            assert!(placed(provider, "").unwrap_err().to_string().starts_with("host is missing"));
        }
        let found = placed("s3_compatible", "host = minio\nport = 9000\nsecure = False\n").unwrap();
        assert_eq!(found.endpoint.as_deref(), Some("http://minio:9000"));
        assert!(!found.is_virtual);
        let found = placed("s3_rgw", "host = ceph\ns3_addressing_style = virtual\n").unwrap();
        assert_eq!((found.endpoint.as_deref(), found.is_virtual), (Some("https://b.ceph"), true));
    }
}
