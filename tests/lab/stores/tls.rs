//! Certificates of the lab's own authority, and the client that asks whether a server is ready.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate of a new authority for these names and addresses. Paths of the certificate, its key and the authority.
pub fn issue(folder: &Path, names: &[&str]) -> [PathBuf; 3] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "lab authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    // Python asks for it.
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    // MinIO asks for these names.
    [
        write("public.crt", certificate.pem()),
        write("private.key", key.serialize_pem()),
        write("ca.pem", authority.pem()),
    ]
}

/// Whether a GET is answered at all; by https if there is an authority to trust.
pub fn answers(port: u16, name: &str, authority: Option<&Path>, path: &str) -> Option<u16> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    match authority {
        None => status(stream, name, path),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
            // Named, for other parts of the program may bring another one.
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let name_of_server = ServerName::try_from(name.to_owned()).unwrap();
            let connection = ClientConnection::new(Arc::new(config), name_of_server).unwrap();
            status(StreamOwned::new(connection, stream), name, path)
        }
    }
}

fn status(mut stream: impl Read + Write, name: &str, path: &str) -> Option<u16> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").ok()?;
    stream.flush().ok()?;
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).ok()?;
    std::str::from_utf8(&begin[9..]).ok()?.parse().ok()
}
