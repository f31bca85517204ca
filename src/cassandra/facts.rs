//! What Cassandra says about itself, asked once and then plain data.

use futures::StreamExt as _;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::cql::Cql;
use super::naming::Resolver;
use crate::error::Failure;
use crate::model::backups::ServerVersion;
use crate::model::names::TableFolder;
use crate::model::tokenmap::{Tokenmap, TokenmapEntry, Tokens};

/// Facts of the local node and of the ring as it sees it.
#[derive(Debug, Clone)]
pub struct ClusterFacts {
    pub cluster_name: String,
    pub version: ServerVersion,
    pub tokens: Tokens,
    /// Of the local datacenter, by name.
    pub tokenmap: Tokenmap,
    /// How the local node is called in the token map.
    pub own_name: String,
    /// By which Cassandra tells nodes from one another, whatever they are called: its Host ID.
    pub id: Uuid,
    /// Nodes of all datacenters.
    pub ring_size: usize,
    pub schema_version: Uuid,
    pub tables: Vec<LiveTable>,
}

/// A table or a view that Cassandra knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTable {
    pub keyspace: String,
    pub name: String,
    /// 32 hex digits, as in the table's folder.
    pub id: String,
}

/// The schema, in two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// As Medusa stores it: every keyspace but `system_traces`, statements separated by a blank line.
    pub plain: String,
    /// User keyspaces with table ids and dropped columns, for exact re-creation.
    pub internals: String,
    pub version: Uuid,
}

impl Schema {
    /// Those of the tables that a schema with internals does not describe.
    pub fn lacking<'a>(internals: &str, tables: &'a BTreeSet<TableFolder>) -> Vec<&'a TableFolder> {
        // Of system keyspaces there are no ids: every node of the release has them.
        let is_system = |table: &TableFolder| table.keyspace == "system" || table.keyspace.starts_with("system_");
        let is_described = |table: &TableFolder| {
            let id = table.id().and_then(|id| Uuid::parse_str(id).ok());
            id.is_none_or(|id| internals.contains(&id.hyphenated().to_string()))
        };
        tables.iter().filter(|table| !is_system(table) && !is_described(table)).collect()
    }
}

/// Keyspaces that are never backed up. Medusa's rule.
pub const EXCLUDED_KEYSPACES: [&str; 1] = ["system_traces"];

/// How often a schema is read that changes while it is read.
const SCHEMA_READS: u32 = 5;

/// Names that are looked up at a time.
const LOOKUPS: usize = 16;

/// The oldest release that describes its own schema.
const OLDEST: (u32, &str) = (4, "4.0");

type LocalRow = (String, Option<String>, Option<String>, String, Uuid, Vec<String>, Uuid);
type PeerRow = (IpAddr, Option<IpAddr>, Option<String>, Option<String>, Option<Vec<String>>);

impl ClusterFacts {
    pub async fn gather(cql: &Cql, resolver: &Resolver) -> Result<Self, Failure> {
        let local: Vec<LocalRow> = cql
            .rows("SELECT cluster_name, data_center, rack, release_version, schema_version, tokens, host_id FROM system.local")
            .await?;
        let Some((cluster_name, dc, rack, release_version, schema_version, tokens, id)) = local.into_iter().next()
        else {
            return Err(Failure::failed(format!("system.local is empty on {}", cql.address())));
        };
        let major = release_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST.0) {
            return Err(Failure::failed(format!(
                "Cassandra {release_version} is not supported: {} or newer is needed, which describes its own schema",
                OLDEST.1
            )));
        }
        let dse: Vec<(String,)> = cql
            .rows("SELECT column_name FROM system_schema.columns WHERE keyspace_name = 'system' AND table_name = 'local' AND column_name = 'dse_version'")
            .await?;
        let server_type = if dse.is_empty() { "cassandra" } else { "dse" };
        let peers: Vec<PeerRow> =
            cql.rows("SELECT peer, native_address, data_center, rack, tokens FROM system.peers_v2").await?;
        let ring_size = 1 + peers.len();
        let own_address = cql.address().ip();
        let mut hosts = vec![(own_address, rack, tokens.clone(), Some(true))];
        for (peer, native, peer_dc, peer_rack, peer_tokens) in peers {
            // A row without tokens is a node that is joining or that has left.
            if let Some(peer_tokens) = peer_tokens.filter(|tokens| !tokens.is_empty())
                && peer_dc == dc
            {
                hosts.push((native.unwrap_or(peer), peer_rack, peer_tokens, None));
            }
        }
        hosts.sort_by_key(|(address, ..)| address.to_string());
        let mut tokenmap = Tokenmap::default();
        let names = futures::stream::iter(hosts.iter().map(|(address, ..)| resolver.name_of(*address)));
        let names: Vec<_> = names.buffered(LOOKUPS).collect().await;
        for ((_, rack, tokens, is_up), name) in hosts.into_iter().zip(names) {
            let entry = TokenmapEntry { tokens: Tokens(tokens), is_up, rack, dc: dc.clone() };
            tokenmap.hosts.insert(name, entry);
        }
        Ok(Self {
            cluster_name,
            version: ServerVersion { server_type: server_type.into(), release_version },
            tokens: Tokens(tokens),
            tokenmap,
            own_name: resolver.name_of(own_address).await,
            id,
            ring_size,
            schema_version,
            tables: live_tables(cql).await?,
        })
    }

    pub fn table(&self, keyspace: &str, name: &str) -> Option<&LiveTable> {
        self.tables.iter().find(|table| table.keyspace == keyspace && table.name == name)
    }
}

/// A node of any datacenter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingNode {
    /// Under which it is reached, as nodes call its address.
    pub host: String,
    /// Every name that its folder in a bucket may have.
    pub names: BTreeSet<String>,
    /// Empty for one that is joining or has left.
    pub tokens: Tokens,
    pub rack: Option<String>,
    pub dc: Option<String>,
}

/// Another node that owns tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As [`RingNode::host`].
    pub host: String,
    /// As [`ClusterFacts::id`].
    pub id: Uuid,
}

/// The nodes that the local node knows of as owners of some of these tokens, without itself. Those that are down count.
pub async fn owners(cql: &Cql, resolver: &Resolver, tokens: &[String]) -> Result<Vec<Owner>, Failure> {
    type Row = (IpAddr, Option<IpAddr>, Option<Uuid>, Option<Vec<String>>);
    let wanted: HashSet<_> = tokens.iter().collect();
    let peers: Vec<Row> = cql.rows("SELECT peer, native_address, host_id, tokens FROM system.peers_v2").await?;
    let mut owners = Vec::new();
    for (peer, native, id, tokens) in peers {
        if let Some(id) = id.filter(|_| tokens.iter().flatten().any(|token| wanted.contains(token))) {
            owners.push(Owner { host: resolver.name_of(native.unwrap_or(peer)).await, id });
        }
    }
    Ok(owners)
}

/// All nodes that the local node knows of, itself first. Those that are down count.
pub async fn ring(cql: &Cql, resolver: &Resolver) -> Result<Vec<RingNode>, Failure> {
    type Row = (Option<IpAddr>, Option<IpAddr>, Option<IpAddr>, Option<Vec<String>>, Option<String>, Option<String>);
    let local = "SELECT broadcast_address, listen_address, rpc_address, tokens, rack, data_center FROM system.local";
    let peers = "SELECT peer, preferred_ip, native_address, tokens, rack, data_center FROM system.peers_v2";
    let mut rows: Vec<Row> = cql.rows(local).await?;
    for row in &mut rows {
        // The address that we use; the configured one may be 0.0.0.0.
        row.2 = Some(cql.address().ip());
    }
    rows.extend(cql.rows::<Row>(peers).await?);
    let addresses: BTreeSet<_> = rows.iter().flat_map(|row| [row.0, row.1, row.2]).flatten().collect();
    let look_up = async |address| (address, resolver.name_of(address).await);
    let called: HashMap<_, _> = futures::stream::iter(addresses).map(look_up).buffer_unordered(LOOKUPS).collect().await;
    let node = |(address, other, native, tokens, rack, dc): Row| {
        let addresses = [address, other, native].into_iter().flatten();
        let names =
            addresses.flat_map(|address| called.get(&address).cloned().into_iter().chain([address.to_string()]));
        let (host, names) = (called.get(&native.or(address)?)?.clone(), names.collect());
        Some(RingNode { host, names, tokens: Tokens(tokens.unwrap_or_default()), rack, dc })
    };
    Ok(rows.into_iter().filter_map(node).collect())
}

/// The datacenters of the ring.
pub async fn datacenters(cql: &Cql) -> Result<BTreeSet<String>, Failure> {
    let mut rows: Vec<(Option<String>,)> = cql.rows("SELECT data_center FROM system.local").await?;
    rows.extend(cql.rows::<(Option<String>,)>("SELECT data_center FROM system.peers_v2").await?);
    Ok(rows.into_iter().filter_map(|(name,)| name).collect())
}

/// Every table and view with its id.
pub async fn live_tables(cql: &Cql) -> Result<Vec<LiveTable>, Failure> {
    let mut tables = Vec::new();
    for query in [
        "SELECT keyspace_name, table_name, id FROM system_schema.tables",
        "SELECT keyspace_name, view_name, id FROM system_schema.views",
    ] {
        let rows: Vec<(String, String, Uuid)> = cql.rows(query).await?;
        let table =
            |(keyspace, name, id): (String, String, Uuid)| LiveTable { keyspace, name, id: id.simple().to_string() };
        tables.extend(rows.into_iter().map(table));
    }
    Ok(tables)
}

/// The schema that the node has now. Both forms are of one moment, unless it changes all the time.
pub async fn schema(cql: &Cql) -> Result<Schema, Failure> {
    let mut tries = 0;
    loop {
        let version = schema_version(cql).await?;
        let plain = describe(cql, "DESCRIBE FULL SCHEMA").await?;
        let internals = describe(cql, "DESCRIBE SCHEMA WITH INTERNALS").await?;
        tries += 1;
        if tries == SCHEMA_READS || schema_version(cql).await? == version {
            return Ok(Schema { plain, internals, version });
        }
    }
}

/// Changes with every change of the schema.
pub async fn schema_version(cql: &Cql) -> Result<Uuid, Failure> {
    let rows: Vec<(Uuid,)> = cql.rows("SELECT schema_version FROM system.local").await?;
    rows.first()
        .map(|(version,)| *version)
        .ok_or_else(|| Failure::failed(format!("system.local is empty on {}", cql.address())))
}

async fn describe(cql: &Cql, statement: &str) -> Result<String, Failure> {
    let rows: Vec<(String, String, String, String)> = cql.rows(statement).await?;
    let statements = rows.into_iter().filter_map(|(keyspace, _type, _name, create)| {
        // Virtual keyspaces are described in comments: nobody can create them.
        let kept = !EXCLUDED_KEYSPACES.contains(&keyspace.as_str()) && !create.trim_start().starts_with("/*");
        kept.then_some(create)
    });
    Ok(statements.collect::<Vec<_>>().join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_a_schema_lacks_are_found_by_their_id() {
        let internals = "CREATE TABLE shop.t (a int PRIMARY KEY) WITH ID = 34998de0-e597-11f1-99fc-f93f14538dd2";
        let table = |keyspace: &str, folder: &str| TableFolder::new(keyspace, folder).unwrap();
        let known = table("shop", "t-34998de0e59711f199fcf93f14538dd2");
        let anew = table("shop", "t-00000000e59711f199fcf93f14538dd2");
        let system = table("system_auth", "roles-5bc52802de2535edaeab188eecebb090");
        assert_eq!(Schema::lacking(internals, &[known, anew.clone(), system].into()), [&anew]);
    }
}
