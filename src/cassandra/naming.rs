//! How a node is called. The name decides the folder in the bucket, so it must be what cassandra-medusa would compute.
//!
//! Medusa asks Python: `socket.getfqdn` of the host name or of an address. With `resolve_ip_addresses = False` (exactly so
//! written) names are addresses. Any other spelling of false makes Medusa name the folder by host name and the hosts of the
//! token map by address, so that the node is missing from its own backups for ever; here such a spelling means True for
//! both, which keeps the folder and repairs the token map.

use std::net::IpAddr;

use crate::config::Config;
use crate::config::values::Origin;
use crate::model::names::Fqdn;

/// Turns addresses into the names that stand in token maps and bucket folders.
#[derive(Debug, Clone)]
pub struct Resolver {
    mode: Mode,
    hosts: Vec<HostsLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Addresses,
    Names,
    /// Names of pods, by their PTR records.
    Pods,
}

/// One line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostsLine {
    address: IpAddr,
    names: Vec<String>,
}

impl Resolver {
    pub fn new(config: &Config) -> Self {
        let mode = match (config.cassandra.resolve_ip_addresses.as_str(), config.kubernetes) {
            ("False", _) => Mode::Addresses,
            (_, true) => Mode::Pods,
            (_, false) => Mode::Names,
        };
        Self { mode, hosts: parse_hosts(&fs_err::read_to_string("/etc/hosts").unwrap_or_default()) }
    }

    /// The name of the host with this address.
    pub async fn name_of(&self, address: IpAddr) -> String {
        match self.mode {
            Mode::Addresses => address.to_string(),
            Mode::Names => self.getfqdn(address).await,
            Mode::Pods => pod_name(&ptr_records(address).await, address),
        }
    }

    /// Python's `socket.getfqdn(address)`: the first of the host's name and its aliases that has a dot.
    async fn getfqdn(&self, address: IpAddr) -> String {
        // libc waits as long as it likes.
        let name = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address)).await;
        let name = name.ok().and_then(Result::ok).unwrap_or_else(|| address.to_string());
        if name.contains('.') {
            return name;
        }
        // libc gives no aliases; they can only come from the hosts file.
        let aliases = self.hosts.iter().find(|line| line.address == address).map(|line| line.names.as_slice());
        aliases.unwrap_or_default().iter().find(|alias| alias.contains('.')).cloned().unwrap_or(name)
    }

    /// Python's `socket.getfqdn()`.
    async fn own_getfqdn(&self) -> String {
        let host = host_name();
        let Some(address) = first_address(&host) else { return host };
        let name = self.getfqdn(address).await;
        // Without a reverse name Python falls back to the host name.
        if name == address.to_string() { host } else { name }
    }

    /// The folder of this node, and what decided it.
    ///
    /// # Errors
    /// If the name cannot be a folder.
    pub async fn own_fqdn(&self, config: &Config) -> Result<(Fqdn, Origin), crate::error::Failure> {
        let own = self.own_getfqdn().await;
        let configured = config.values.get("storage", "fqdn");
        let (name, origin) = match &config.storage.fqdn {
            Some(name) if *name != own => (name.clone(), configured.origin.clone()),
            _ => match first_address(&own).or_else(|| first_address(&host_name())) {
                Some(address) => {
                    let from = if self.mode == Mode::Addresses { "this host's address" } else { "this host's name" };
                    (self.name_of(address).await, Origin::Derived(from))
                }
                None => (own, Origin::Derived("this host's name")),
            },
        };
        let fqdn = Fqdn::new(&name).map_err(|error| crate::error::Failure::usage(error.to_string()))?;
        Ok((fqdn, origin))
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

/// The address of a name: IPv4 if there is one, as in Python's `gethostbyname`.
pub fn first_address(name: &str) -> Option<IpAddr> {
    if let Ok(address) = name.parse() {
        return Some(address);
    }
    let addresses: Vec<IpAddr> = dns_lookup::lookup_host(name).ok()?.collect();
    addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first()).copied()
}

fn parse_hosts(text: &str) -> Vec<HostsLine> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        Some(HostsLine { address, names: words.map(str::to_owned).collect() })
    };
    text.lines().filter_map(line).collect()
}

async fn ptr_records(address: IpAddr) -> Vec<String> {
    let Ok(builder) = hickory_resolver::TokioResolver::builder_tokio() else { return Vec::new() };
    let Ok(resolver) = builder.build() else { return Vec::new() };
    match resolver.reverse_lookup(address).await {
        Ok(found) => found.answers().iter().map(|record| record.data.to_string()).collect(),
        Err(error) => {
            tracing::warn!("no PTR record of {address}: {error}");
            Vec::new()
        }
    }
}

/// The first label of the first PTR record whose first label is not the address with dashes; else the address.
fn pod_name(records: &[String], address: IpAddr) -> String {
    let label = |record: &String| record.split('.').next().unwrap_or_default().to_owned();
    let is_address = |label: &str| {
        label.replace('-', ".").parse::<IpAddr>().is_ok() || label.replace('-', ":").parse::<IpAddr>().is_ok()
    };
    records.iter().map(label).find(|label| !is_address(label)).unwrap_or_else(|| address.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn resolver(resolve: &str) -> (Resolver, Config) {
        let text = format!(
            "[storage]\nstorage_provider = local\nbucket_name = b\n[cassandra]\nresolve_ip_addresses = {resolve}\n"
        );
        let config = Config::from_text(&text, Path::new("x"), &Overrides::default(), &BTreeMap::new()).unwrap();
        (Resolver::new(&config), config)
    }

    #[tokio::test]
    async fn only_the_exact_spelling_turns_names_off() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(resolver("False").0.name_of(loopback).await, "127.0.0.1");
        for resolved in ["True", "false", "0", "no"] {
            assert_eq!(resolver(resolved).0.mode, Mode::Names, "{resolved}");
        }
    }

    #[tokio::test]
    async fn an_alias_with_a_dot_is_preferred() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let hosts = parse_hosts("# x\n192.0.2.7 node node.example.net n # more\n::1 localhost\nbad line\n");
        assert_eq!(hosts.len(), 2);
        // Nothing resolves 192.0.2.7 (a documentation address), so its name is the address, which has dots.
        let resolver = Resolver { mode: Mode::Names, hosts };
        assert_eq!(resolver.getfqdn(address).await, "192.0.2.7");
    }

    #[tokio::test]
    async fn a_configured_name_is_taken_verbatim() {
        let (resolver, mut config) = resolver("True");
        config.storage.fqdn = Some("other.example.net".into());
        assert_eq!(resolver.own_fqdn(&config).await.unwrap().0.as_str(), "other.example.net");
        config.storage.fqdn = Some("a/b".into());
        assert!(resolver.own_fqdn(&config).await.is_err());
    }

    #[test]
    fn pods_are_named_by_the_first_record_that_is_no_address() {
        let address: IpAddr = "10.1.2.3".parse().unwrap();
        let records = ["10-1-2-3.svc.cluster.local.".to_owned(), "cassandra-0.svc.cluster.local.".to_owned()];
        assert_eq!(pod_name(&records, address), "cassandra-0");
        assert_eq!(pod_name(&records[..1], address), "10.1.2.3");
    }
}
