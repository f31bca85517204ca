//! One CQL connection, to the local node and no other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::cluster::NodeAddr;
use scylla::cluster::metadata::Peer;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::TranslationError;
use scylla::policies::address_translator::{AddressTranslator, UntranslatedPeer};
use scylla::policies::host_filter::HostFilter;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::Consistency;
use scylla::value::{CqlValue, Row};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::naming::first_address;
use super::tls;
use super::yaml::CassandraYaml;
use crate::config;
use crate::error::Failure;

/// How long nodes may take to learn a new schema; gossip takes a few seconds.
const AGREEMENT: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// An open session. Every request has the deadline `cql_timeout`.
#[derive(Debug)]
pub struct Cql {
    session: Session,
    address: SocketAddr,
    deadline: Duration,
}

/// Accepts this node under whatever address it tells the cluster; its peers are never contacted.
struct ThisNode(Vec<IpAddr>);

impl HostFilter for ThisNode {
    fn accept(&self, peer: &Peer) -> bool {
        match peer.address {
            NodeAddr::Translatable(address) => self.0.contains(&address.ip()),
            // The contact point itself.
            _ => true,
        }
    }
}

/// The address that the node tells others may not be reachable from the node itself.
struct ContactPoint(SocketAddr);

#[async_trait::async_trait]
impl AddressTranslator for ContactPoint {
    async fn translate_address(&self, _: &UntranslatedPeer) -> Result<SocketAddr, TranslationError> {
        Ok(self.0)
    }
}

/// The address on which this node speaks CQL.
///
/// # Errors
/// If no address is configured and the host's own name does not resolve.
pub fn local_address(yaml: &CassandraYaml) -> Result<SocketAddr, Failure> {
    let configured = yaml.rpc_address.as_ref().or(yaml.listen_address.as_ref());
    let own = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = configured.cloned().or_else(own).unwrap_or_else(|| "localhost".into());
    let address: IpAddr = first_address(&name).ok_or_else(|| {
        Failure::failed(format!("{name} has no address"))
            .hint(format!("it stands in {} as rpc_address or listen_address", yaml.path.display()))
    })?;
    Ok(SocketAddr::new(address, yaml.native_port))
}

fn own_addresses(contact: SocketAddr, yaml: &CassandraYaml) -> Vec<IpAddr> {
    let configured = yaml.own_addresses.iter().filter_map(|address| first_address(address));
    std::iter::once(contact.ip()).chain(configured).collect()
}

impl Cql {
    /// # Errors
    /// Says what is wrong where that can be told: nothing listens, wrong password, TLS on one side only, a certificate that
    /// is not trusted.
    pub async fn connect(config: &config::Cassandra, yaml: &CassandraYaml) -> Result<Self, Failure> {
        let address = local_address(yaml)?;
        let deadline = config.cql_timeout;
        let late = |message: String| {
            let hint = "is Cassandra overloaded, or is it something else that listens there? cql_timeout in [cassandra] sets the deadline";
            Failure::failed(message).hint(hint)
        };
        let tcp = timeout(deadline, TcpStream::connect(address)).await;
        let tcp = tcp
            .map_err(|_| late(format!("{address} did not accept a CQL connection within {} s", deadline.as_secs())))?;
        tcp.map_err(|error| {
            Failure::failed(format!("nothing listens for CQL on {address}"))
                .cause(error)
                .hint("is Cassandra running on this node? the address and port are those of cassandra.yaml")
        })?;
        let names: Vec<String> = [&yaml.rpc_address, &yaml.listen_address].into_iter().flatten().cloned().collect();
        let names = names.into_iter().chain(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
        let tls = tls::client_config(config, &names.collect::<Vec<_>>())?;
        let profile =
            ExecutionProfile::builder().consistency(Consistency::LocalOne).request_timeout(Some(deadline)).build();
        let mut builder = SessionBuilder::new()
            .known_node_addr(address)
            .tls_context(tls)
            .host_filter(Arc::new(ThisNode(own_addresses(address, yaml))))
            .address_translator(Arc::new(ContactPoint(address)))
            .pool_size(PoolSize::PerHost(std::num::NonZeroUsize::MIN))
            .fetch_schema_metadata(false)
            .connection_timeout(deadline)
            .metadata_request_clientside_timeout(deadline)
            .default_execution_profile_handle(profile.into_handle());
        if let (Some(user), Some(password)) = (&config.cql_username, &config.cql_password) {
            builder = builder.user(user, password.reveal());
        }
        let session = timeout(2 * deadline, Box::pin(builder.build())).await;
        let session = session
            .map_err(|_| late(format!("CQL on {address} did not answer within {} s", 2 * deadline.as_secs())))?;
        let session = session.map_err(|error| explain(&root(&error.to_string()), address, config, yaml))?;
        Ok(Self { session, address, deadline })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn query(&self, statement: &str) -> Result<Option<QueryRowsResult>, Failure> {
        let failed = || Failure::failed(format!("the query failed on {}: {}", self.address, first_words(statement)));
        let result = timeout(self.deadline, self.session.query_unpaged(statement, ())).await;
        let result =
            result.map_err(|_| failed().cause(anyhow::anyhow!("no answer within {} s", self.deadline.as_secs())))?;
        let result = result.map_err(|error| failed().cause(error))?;
        if !result.is_rows() {
            return Ok(None);
        }
        result.into_rows_result().map(Some).map_err(|error| failed().cause(error))
    }

    /// The rows of a query, typed.
    pub async fn rows<T>(&self, statement: &str) -> Result<Vec<T>, Failure>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let odd = |error: anyhow::Error| {
            Failure::failed(format!("{} gave an unexpected answer to {}", self.address, first_words(statement)))
                .cause(error)
        };
        let Some(result) = self.query(statement).await? else { return Ok(Vec::new()) };
        let rows = result.rows::<T>().map_err(|error| odd(error.into()))?;
        rows.collect::<Result<_, _>>().map_err(|error| odd(error.into()))
    }

    /// Runs a statement that gives no rows.
    pub async fn execute(&self, statement: &str) -> Result<(), Failure> {
        self.query(statement).await.map(drop)
    }

    /// Waits until the other nodes know the schema that this one has: the driver asks this one only, and whoever goes on at
    /// another node would not find what was created here. A node that is down does not learn it: then it is said, after a while.
    pub async fn agree_on_schema(&self) -> Result<(), Failure> {
        let begin = Instant::now();
        loop {
            let own = self.rows::<(Option<Uuid>,)>("SELECT schema_version FROM system.local").await?;
            let others = self.rows::<(Option<Uuid>,)>("SELECT schema_version FROM system.peers").await?;
            let behind = others.iter().filter(|other| !own.contains(other)).count();
            if behind == 0 {
                return Ok(());
            }
            if begin.elapsed() > AGREEMENT {
                let seconds = AGREEMENT.as_secs();
                tracing::warn!(
                    "{behind} of {} other nodes do not know the new schema after {seconds} s: they are down, or will not find what \
                     was created until they do (nodetool describecluster)",
                    others.len()
                );
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// The rows of any query, each value as Python's `str` shows it.
    pub async fn text_rows(&self, statement: &str) -> Result<Vec<Vec<String>>, Failure> {
        let rows = self.rows::<Row>(statement).await?;
        Ok(rows.into_iter().map(|row| row.columns.iter().map(|value| python_text(value.as_ref())).collect()).collect())
    }
}

fn first_words(statement: &str) -> String {
    statement.split_whitespace().take(8).collect::<Vec<_>>().join(" ")
}

/// What the driver says in the end, without the stages that it went through.
fn root(error: &str) -> String {
    let last = error.rsplit("Last connection failed with: ").next().unwrap_or(error);
    last.lines().next().unwrap_or(last).to_owned()
}

/// What the driver tells is not always enough: a server that does not like a client just hangs up. Then cassandra.yaml says
/// what it may have missed.
fn explain(error: &str, address: SocketAddr, config: &config::Cassandra, yaml: &CassandraYaml) -> Failure {
    let lower = error.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (credentials, tls) =
        (config.cql_username.is_some() && config.cql_password.is_some(), config.certfile.is_some());
    let (message, hint) = if says(&["authentication", "credentials", "username"]) && credentials {
        (
            format!("CQL on {address} refused the user name and password"),
            "cql_username and cql_password in [cassandra], or MEDUSA_CQL_USERNAME and MEDUSA_CQL_PASSWORD, say who connects",
        )
    } else if says(&["authentication", "credentials", "username"]) {
        (
            format!("CQL on {address} asks for a user name and password"),
            "set cql_username and cql_password in [cassandra], or MEDUSA_CQL_USERNAME and MEDUSA_CQL_PASSWORD",
        )
    } else if says(&["not valid for name"]) {
        (
            format!("the certificate of {address} is not made out for this host"),
            "cql_tls_verify = ca in [cassandra] trusts every certificate that the CA signed, as cassandra-medusa does",
        )
    } else if says(&["invalid peer certificate"]) {
        (
            format!("the certificate of {address} is not trusted"),
            "certfile in [cassandra] must be the CA that signed it",
        )
    } else if tls && says(&["invalidcontenttype"]) {
        (
            format!("the CQL port {address} does not speak TLS, but certfile is set in [cassandra]"),
            "remove certfile, or turn client_encryption_options on in cassandra.yaml and restart Cassandra",
        )
    } else if tls && (yaml.native_client_auth || says(&["certificaterequired", "bad certificate", "badcertificate"])) {
        (
            format!("CQL on {address} asks for a client certificate that it trusts"),
            "usercert and userkey in [cassandra] name it; the truststore of client_encryption_options must know its CA",
        )
    } else if !tls && yaml.native_tls && !yaml.native_plain {
        (
            format!("the CQL port {address} speaks TLS, but certfile is not set in [cassandra]"),
            "certfile names the CA certificate that signed the node's certificate",
        )
    } else {
        (
            format!("could not open a CQL session on {address}"),
            "is it Cassandra that listens there? the address and port are those of cassandra.yaml; Cassandra's system.log may say more",
        )
    };
    Failure::failed(message).hint(hint).cause(anyhow::anyhow!("{error}"))
}

/// A value as Python's `str` shows what its driver returns.
fn python_text(value: Option<&CqlValue>) -> String {
    let Some(value) = value else { return "None".into() };
    match value {
        CqlValue::Boolean(true) => "True".into(),
        CqlValue::Boolean(false) => "False".into(),
        CqlValue::Ascii(text) | CqlValue::Text(text) => text.clone(),
        CqlValue::Double(number) => python_float(*number),
        CqlValue::Float(number) => python_float(f64::from(*number)),
        CqlValue::Timestamp(time) => chrono::DateTime::from_timestamp_millis(time.0).map_or_else(
            || time.0.to_string(),
            |time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string().replace(".000000", ""),
        ),
        other => other.to_string(),
    }
}

fn python_float(number: f64) -> String {
    if number.is_finite() && number.fract() == 0.0 && number.abs() < 1e16 {
        format!("{number:.1}")
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_in_python() {
        for (value, text) in [
            (Some(CqlValue::Int(5)), "5"),
            (Some(CqlValue::Text("a b".into())), "a b"),
            (Some(CqlValue::Boolean(true)), "True"),
            (Some(CqlValue::Double(2.0)), "2.0"),
            (Some(CqlValue::Double(0.25)), "0.25"),
            (None, "None"),
        ] {
            assert_eq!(python_text(value.as_ref()), text);
        }
    }

    #[test]
    fn only_the_first_words_of_a_statement_are_told() {
        assert_eq!(first_words("SELECT a\n FROM b"), "SELECT a FROM b");
        assert_eq!(first_words("1 2 3 4 5 6 7 8 9"), "1 2 3 4 5 6 7 8");
    }
}
