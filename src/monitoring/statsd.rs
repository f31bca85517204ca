//! `dog-statsd`: a gauge in a UDP packet of its own for each metric, to the agent that Datadog's client would take.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::{Measurement, Subject};

/// Variables of Datadog's client that are honoured.
const VARIABLES: [&str; 8] = [
    "DD_AGENT_HOST",
    "DD_DOGSTATSD_PORT",
    "DD_DOGSTATSD_DISABLE",
    "DATADOG_TAGS",
    "DD_ENTITY_ID",
    "DD_ENV",
    "DD_SERVICE",
    "DD_VERSION",
];

const PORT: u16 = 8125;

/// For the name of the agent's host and all packets.
const DEADLINE: Duration = Duration::from_secs(2);

/// Who is sent to, and what every packet carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agent {
    host: String,
    port: u16,
    tags: Vec<String>,
    disabled: bool,
}

impl Agent {
    pub(super) fn of_environment() -> Self {
        let variable = |name: &'static str| Some((name, std::env::var(name).ok()?));
        Self::of(&VARIABLES.into_iter().filter_map(variable).collect())
    }

    fn of(environment: &BTreeMap<&str, String>) -> Self {
        let filled = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let given = filled("DATADOG_TAGS").into_iter().flat_map(|tags| tags.split(',')).filter(|tag| !tag.is_empty());
        let named = [
            ("DD_ENTITY_ID", "dd.internal.entity_id"),
            ("DD_ENV", "env"),
            ("DD_SERVICE", "service"),
            ("DD_VERSION", "version"),
        ];
        let named = named.into_iter().filter_map(|(variable, tag)| Some(format!("{tag}:{}", filled(variable)?)));
        Self {
            host: filled("DD_AGENT_HOST").unwrap_or("localhost").to_owned(),
            port: filled("DD_DOGSTATSD_PORT").and_then(|port| port.trim().parse().ok()).unwrap_or(PORT),
            tags: given.map(str::to_owned).chain(named).collect(),
            disabled: matches!(filled("DD_DOGSTATSD_DISABLE"), Some("True" | "true" | "yes" | "1")),
        }
    }

    /// `name.what:value|g|#tag,tag`, and the end of the line.
    fn packet(&self, measurement: &Measurement, with_name: bool) -> String {
        let Measurement { metric, value, subject, command } = measurement;
        let name = (with_name && *subject != Subject::Nothing).then(|| format!("backup_name:{}", subject.tag()));
        let command = command.map(|command| format!("command:{command}"));
        let tags: Vec<_> = name.iter().chain(&command).chain(&self.tags).map(|tag| normalized(tag)).collect();
        let tags = if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) };
        format!("{}.{}:{value}|g{tags}\n", metric.name.0, metric.name.1)
    }

    pub(super) async fn send(&self, measured: &[Measurement], with_name: bool) -> anyhow::Result<()> {
        if self.disabled {
            return Ok(());
        }
        let packets: Vec<_> = measured.iter().map(|measurement| self.packet(measurement, with_name)).collect();
        let sent = timeout(DEADLINE, self.send_packets(&packets)).await;
        sent.context("no answer in time")
            .flatten()
            .with_context(|| format!("agent {}:{}, see DD_AGENT_HOST and DD_DOGSTATSD_PORT", self.host, self.port))
    }

    async fn send_packets(&self, packets: &[String]) -> anyhow::Result<()> {
        let mut addresses: Vec<_> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        // An agent usually listens on IPv4 only.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().context("the host has no address")?;
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(address).await?;
        let mut outcome = Ok(());
        for packet in packets {
            // That one was refused says nothing about the next one.
            if let Err(error) = socket.send(packet.as_bytes()).await {
                outcome = outcome.and(Err(error.into()));
            }
        }
        outcome
    }
}

/// A tag as Datadog's client sends it.
fn normalized(tag: &str) -> String {
    tag.chars().map(|c| if c.is_alphanumeric() || "_-:/.".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::metrics::{BACKUP_ERROR, BACKUP_SIZE, COMMAND_SUCCESS};

    fn agent(environment: &[(&'static str, &str)]) -> Agent {
        Agent::of(&environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn the_environment_says_where_as_it_does_for_datadogs_client() {
        let none = agent(&[]);
        assert_eq!((none.host.as_str(), none.port, none.tags.len(), none.disabled), ("localhost", 8125, 0, false));
        let other = agent(&[("DD_AGENT_HOST", "agent.example.net"), ("DD_DOGSTATSD_PORT", "8200")]);
        assert_eq!((other.host.as_str(), other.port), ("agent.example.net", 8200));
        assert_eq!(agent(&[("DD_AGENT_HOST", ""), ("DD_DOGSTATSD_PORT", "high")]), none);
        let tagged = agent(&[("DD_ENV", "prod"), ("DATADOG_TAGS", "a:b,,c"), ("DD_ENTITY_ID", "x")]);
        assert_eq!(tagged.tags, ["a:b", "c", "dd.internal.entity_id:x", "env:prod"]);
        assert!(agent(&[("DD_DOGSTATSD_DISABLE", "true")]).disabled);
    }

    #[test]
    fn packets_are_those_of_datadogs_client() {
        let name = || Subject::Backup("night ly|1".to_owned());
        let size = Measurement { metric: &BACKUP_SIZE, value: 7_u64.into(), subject: name(), command: None };
        assert_eq!(agent(&[]).packet(&size, false), "medusa-node-backup.backup-size:7|g\n");
        assert_eq!(agent(&[]).packet(&size, true), "medusa-node-backup.backup-size:7|g|#backup_name:night_ly_1\n");
        let error = Measurement {
            metric: &BACKUP_ERROR,
            value: Duration::from_millis(1500).into(),
            subject: Subject::Nothing,
            command: Some("purge"),
        };
        let tagged = agent(&[("DD_ENV", "prod")]);
        assert_eq!(tagged.packet(&error, true), "medusa-node-backup.backup-error:1.5|g|#command:purge,env:prod\n");
        let success = Measurement { metric: &COMMAND_SUCCESS, value: true.into(), ..error };
        assert_eq!(agent(&[]).packet(&success, false), "medusa-command.success:1|g|#command:purge\n");
    }
}
