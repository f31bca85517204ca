//! What every operation is given: configuration, storage, the name of this node, who is told and who interrupts. Made once for a
//! command, before anything is read or written.

use std::sync::Arc;

use chrono::{DateTime, Local};

use crate::cassandra::cql::Cql;
use crate::cassandra::naming::Resolver;
use crate::cassandra::yaml::CassandraYaml;
use crate::config::Config;
use crate::config::forward::Forward;
use crate::config::values::Origin;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::model::names::Fqdn;
use crate::model::units::{Zone, span};
use crate::monitor::{Counters, Monitor};
use crate::storage::transfer::Watch;
use crate::storage::{Storage, provider};

/// One command's surroundings.
#[derive(Debug, Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub storage: Storage,
    pub resolver: Resolver,
    /// The folder of this node in the bucket.
    pub fqdn: Fqdn,
    pub fqdn_origin: Origin,
    /// For other hosts.
    pub forward: Forward,
    pub monitor: Arc<dyn Monitor>,
    pub interrupt: Interrupt,
    /// When the command began.
    pub now: DateTime<Local>,
}

impl Context {
    /// Opens the storage and names this node. Nothing is read or written yet.
    pub async fn new(
        config: Config,
        forward: Forward,
        monitor: Arc<dyn Monitor>,
        interrupt: Interrupt,
    ) -> Result<Self, Failure> {
        let storage = provider::open(&config.storage)?;
        let resolver = Resolver::new(&config);
        let (fqdn, fqdn_origin) = resolver.own_fqdn(&config).await?;
        let (config, now) = (Arc::new(config), Local::now());
        Ok(Self { config, storage, resolver, fqdn, fqdn_origin, forward, monitor, interrupt, now })
    }

    pub fn cassandra_yaml(&self) -> anyhow::Result<CassandraYaml> {
        CassandraYaml::read(&self.config.cassandra.config_file)
    }

    pub async fn cql(&self, yaml: &CassandraYaml) -> anyhow::Result<Cql> {
        self.interrupt.or(Cql::connect(&self.config.cassandra, yaml)).await
    }

    /// When the command began and ended, which is now.
    pub fn times(&self) -> String {
        span(Zone::chosen(), self.now.timestamp(), (Local::now() - self.now).to_std().unwrap_or_default())
    }

    /// For a transfer that counts here.
    pub fn watch(&self, counters: &Arc<Counters>) -> Watch {
        Watch { counters: Arc::clone(counters), interrupt: self.interrupt.clone() }
    }
}
