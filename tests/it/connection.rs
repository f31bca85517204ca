//! How a backup reaches Cassandra over CQL, and what it says where it cannot. Of a refused one nothing is left: no snapshot,
//! no object.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::lab::cql::Session;
use crate::lab::medusa::Medusa;
use crate::lab::node::{Node, Options, Release};
use crate::lab::tree;
use crate::support::{assert_fails, keyspace, medusa, shared_node};

fn options(yaml: String) -> Options {
    Options { yaml, ..Options::new(Release::V5_0) }
}

/// A backup must not begin, and say so with these words, the address and a way forward.
#[track_caller]
fn refused(medusa: &Medusa, node: &Node, parts: &[&str]) {
    let before = tree(&medusa.bucket());
    let run = medusa.run(&["backup-node", "--backup-name", "refused"]);
    let address = format!("{}:9042", node.address);
    assert_fails(&run, 1, &[parts, &[address.as_str(), "\nhint: "]].concat());
    assert_eq!(run.stdout, "", "{run}");
    // Other tests may have snapshots on the same node.
    let is_left = tree(&medusa.bucket()) != before || node.snapshots().contains("medusa-refused");
    assert!(!is_left, "something was left behind: {run}");
}

#[track_caller]
fn accepted(medusa: &Medusa) {
    let name = keyspace("accepted");
    medusa.ok(&["backup-node", "--backup-name", &name]);
    medusa.ok(&["verify", "--backup-name", &name]);
}

#[test]
fn a_node_that_asks_for_a_password() {
    let node = Node::start(options("authenticator: PasswordAuthenticator\n".into()));
    // Cassandra opens its port before it has created its first user.
    drop(Session::connect_as(&node.address, Some(("cassandra", "cassandra"))));
    let mut medusa = medusa(&node);
    let settings = "cql_username and cql_password in [cassandra], or MEDUSA_CQL_USERNAME and MEDUSA_CQL_PASSWORD";
    let asked = ["asks for a user name and password", settings];
    let wrong = ["refused the user name and password", "cassandra", settings];
    refused(&medusa, &node, &asked);
    medusa.set("cassandra", "cql_username", "cassandra");
    refused(&medusa, &node, &asked);
    medusa.set("cassandra", "cql_password", "not-this-one");
    refused(&medusa, &node, &wrong);
    medusa.set("cassandra", "cql_password", "cassandra");
    accepted(&medusa);
    medusa.env("MEDUSA_CQL_PASSWORD", "nor-this-one");
    refused(&medusa, &node, &wrong);
    medusa.set("cassandra", "cql_password", "not-this-one");
    medusa.env("MEDUSA_CQL_PASSWORD", "cassandra");
    accepted(&medusa);
}

#[test]
fn nothing_listens() {
    let node = Node::prepare(options(String::new()));
    let medusa = medusa(&node);
    refused(&medusa, &node, &["nothing listens for CQL", "Connection refused", "is Cassandra running"]);
}

#[test]
fn something_listens_and_never_answers() {
    let node = Node::prepare(options(String::new()));
    let _listener = TcpListener::bind((node.address.as_str(), 9042)).unwrap();
    let mut medusa = medusa(&node);
    medusa.set("cassandra", "cql_timeout", "1");
    refused(&medusa, &node, &["did not answer", "cql_timeout"]);
    let authority = Authority::new();
    medusa.set("cassandra", "certfile", &authority.file(&medusa));
    refused(&medusa, &node, &["did not answer", "cql_timeout"]);
}

#[test]
fn something_listens_that_is_not_cassandra() {
    let node = Node::prepare(options(String::new()));
    let listener = TcpListener::bind((node.address.as_str(), 9042)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The peer may be gone by then.
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
        }
    });
    let medusa = medusa(&node);
    refused(&medusa, &node, &["could not open a CQL session", "cassandra.yaml"]);
}

/// A CA with its certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The CA's certificate as a file of its own.
    fn file(&self, medusa: &Medusa) -> String {
        write(medusa, "ca", &self.0.pem())
    }

    /// A certificate for a name or an address, and its key.
    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A client certificate for the user of this medusa.
    fn identify(&self, medusa: &mut Medusa) {
        let (certificate, key) = self.certificate("medusa");
        let (certificate, key) = (write(medusa, "user", &certificate), write(medusa, "userkey", &key));
        medusa.set("cassandra", "usercert", &certificate);
        medusa.set("cassandra", "userkey", &key);
    }

    /// The lines of cassandra.yaml for a node whose certificate is made out for `name`.
    fn yaml(&self, name: &str, more: &str) -> String {
        let (certificate, key) = self.certificate(name);
        let mut yaml = format!("client_encryption_options:\n  enabled: true\n{more}");
        yaml.push_str(
            "  ssl_context_factory:\n    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory\n",
        );
        let (private, trusted) = (format!("{key}{certificate}"), self.0.pem());
        writeln!(yaml, "    parameters: {{private_key: {private:?}, trusted_certificates: {trusted:?}}}").unwrap();
        yaml
    }
}

fn write(medusa: &Medusa, name: &str, text: &str) -> String {
    let path = medusa.folder.path().join(format!("{}.pem", keyspace(name)));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn p8_the_certificate_of_the_node_is_checked() {
    let authority = Authority::new();
    let mut options = options(String::new());
    let address = crate::lab::node::free_address();
    options.yaml = authority.yaml(&address, "  optional: true\n");
    options.address = Some(address);
    let node = Node::start(options);
    let mut medusa = medusa(&node);

    medusa.set("cassandra", "certfile", &authority.file(&medusa));
    accepted(&medusa);
    let stranger = Authority::new().file(&medusa);
    medusa.set("cassandra", "certfile", &stranger);
    for verify in ["full", "ca"] {
        medusa.set("cassandra", "cql_tls_verify", verify);
        refused(&medusa, &node, &["certificate", "is not trusted", "certfile in [cassandra] must be the CA"]);
    }
    medusa.set("cassandra", "cql_tls_verify", "none");
    accepted(&medusa);

    // This node takes clients without TLS as well, and cassandra-medusa is one where certfile is not set.
    medusa.unset("cassandra", "certfile");
    accepted(&medusa);
}

#[test]
fn p8_a_certificate_for_another_host_and_one_for_the_client() {
    let authority = Authority::new();
    let node = Node::start(options(authority.yaml("other.example.net", "  require_client_auth: true\n")));
    let mut medusa = medusa(&node);
    refused(&medusa, &node, &["speaks TLS, but certfile is not set", "certfile names the CA certificate"]);
    medusa.set("cassandra", "certfile", &authority.file(&medusa));
    authority.identify(&mut medusa);
    refused(&medusa, &node, &["is not made out for this host", "cql_tls_verify = ca"]);
    medusa.set("cassandra", "cql_tls_verify", "ca");
    accepted(&medusa);

    medusa.unset("cassandra", "usercert");
    medusa.unset("cassandra", "userkey");
    refused(&medusa, &node, &["asks for a client certificate", "usercert and userkey"]);
    Authority::new().identify(&mut medusa);
    refused(&medusa, &node, &["asks for a client certificate that it trusts", "usercert and userkey"]);
}

#[test]
fn p8_tls_on_one_side_only() {
    let node = shared_node();
    let mut medusa = medusa(node);
    let authority = Authority::new();
    medusa.set("cassandra", "certfile", &authority.file(&medusa));
    refused(&medusa, node, &["does not speak TLS, but certfile is set", "remove certfile"]);

    // Somebody turned TLS on in cassandra.yaml and has not restarted Cassandra.
    let told = std::fs::read_to_string(node.yaml()).unwrap() + &authority.yaml(&node.address, "");
    let yaml = write(&medusa, "cassandra", &told);
    medusa.set("cassandra", "config_file", &yaml);
    refused(&medusa, node, &["does not speak TLS", "restart"]);
}

#[test]
fn p8_certificates_that_cannot_be_used() {
    let node = Node::prepare(options(String::new()));
    let _listener = TcpListener::bind((node.address.as_str(), 9042)).unwrap();
    let mut medusa = medusa(&node);
    let fails = |medusa: &Medusa, parts: &[&str]| {
        let run = medusa.run(&["backup-node", "--backup-name", "unusable"]);
        assert_fails(&run, 2, parts);
        assert!(!medusa.bucket().exists() && node.snapshots().is_empty(), "{run}");
    };
    medusa.set("cassandra", "certfile", "/no/such.pem");
    fails(&medusa, &["certfile in [cassandra]", "/no/such.pem", "No such file"]);
    let empty = write(&medusa, "empty", "no certificate\n");
    medusa.set("cassandra", "certfile", &empty);
    fails(&medusa, &["certfile in [cassandra]", &empty, "holds no certificate"]);
    let authority = Authority::new();
    medusa.set("cassandra", "certfile", &authority.file(&medusa));
    authority.identify(&mut medusa);
    medusa.set("cassandra", "userkey", &empty);
    fails(&medusa, &["userkey in [cassandra]", &empty]);
    medusa.set("cassandra", "cql_tls_verify", "perhaps");
    fails(&medusa, &["cql_tls_verify", "\"perhaps\"", "full, ca, none"]);
}
