//! TLS for CQL: the CA of `certfile`, a client certificate, and how far the server's certificate is checked.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::{self, TlsVerify};
use crate::error::Failure;

/// The client side of TLS, or `None` where no `certfile` is set. `names` are what this node may be called in its
/// certificate, beside the address that is connected to.
pub fn client_config(config: &config::Cassandra, names: &[String]) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let Some(certfile) = &config.certfile else { return Ok(None) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("certfile", certfile)? {
        roots.add(certificate).map_err(|error| unusable("certfile", certfile, error))?;
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let webpki = webpki.map_err(|error| unusable("certfile", certfile, error))?;
    let names = names.iter().filter_map(|name| ServerName::try_from(name.clone()).ok()).collect();
    let verifier = NodeVerifier { webpki, names, verify: config.cql_tls_verify };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed("TLS cannot be set up").cause(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let client = match (&config.usercert, &config.userkey) {
        (Some(usercert), Some(userkey)) => {
            let chain = read_certificates("usercert", usercert)?;
            let key = PrivateKeyDer::from_pem_file(userkey).map_err(|error| unusable("userkey", userkey, error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable("usercert", usercert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(client)))
}

fn read_certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(key, path, error))?;
    if certificates.is_empty() {
        return Err(Failure::usage(format!("{key} in [cassandra]: {} holds no certificate in PEM", path.display())));
    }
    Ok(certificates)
}

fn unusable(key: &str, path: &Path, error: impl Into<anyhow::Error>) -> Failure {
    Failure::usage(format!("{key} in [cassandra]: {} cannot be used", path.display())).cause(error)
}

/// Checks the chain, and that the certificate is made out for this node under one of its names.
#[derive(Debug)]
struct NodeVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
    verify: TlsVerify,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify == TlsVerify::None {
            return Ok(ServerCertVerified::assertion());
        }
        let check =
            |name: &ServerName<'_>| self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        // The chain is checked before the name, so only a name can be wrong where a name is reported.
        match check(server_name) {
            Err(error) if is_wrong_name(&error) => match self.verify {
                TlsVerify::Full => self.names.iter().find_map(|name| check(name).ok()).ok_or(error),
                TlsVerify::Ca | TlsVerify::None => Ok(ServerCertVerified::assertion()),
            },
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn is_wrong_name(error: &Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(error, Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
}

/// Makes the one TLS implementation of this program the default of every library in it.
pub fn install_provider() {
    // Fails only where it was installed before.
    let _ = CryptoProvider::install_default(aws_lc_rs::default_provider());
}
