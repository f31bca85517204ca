//! Which backups a listing shows. Pure.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};

use crate::model::backups::ClusterBackup;
use crate::model::names::Fqdn;

/// A moment: a date, a date with a time (both of the time zone of `now`), or an age as `90m`, `36h`, `7d`, `4w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    At(NaiveDateTime),
    Ago(TimeDelta),
}

/// A text that is no moment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither a date (2026-11-20, 2026-11-20 13:00) nor an age (90m, 36h, 7d, 4w)")]
pub struct BadMoment(String);

impl FromStr for Since {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let bad = || BadMoment(text.to_owned());
        if let Some(unit) = text.chars().last().filter(|unit| "mhdw".contains(*unit)) {
            let number: u32 = text.trim_end_matches(unit).parse().map_err(|_| bad())?;
            let minutes = match unit {
                'm' => 1,
                'h' => 60,
                'd' => 24 * 60,
                _ => 7 * 24 * 60,
            };
            return TimeDelta::try_minutes(i64::from(number) * minutes).map(Self::Ago).ok_or_else(bad);
        }
        if let Ok(date) = text.parse::<NaiveDate>() {
            return Ok(Self::At(date.and_hms_opt(0, 0, 0).ok_or_else(bad)?));
        }
        let text = text.replace('T', " ");
        let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"];
        let at = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(&text, format).ok());
        at.map(Self::At).ok_or_else(bad)
    }
}

impl Since {
    /// Unix seconds. Of an hour that comes twice, the first one counts; one that was left out begins when it would have ended.
    fn timestamp<Z: TimeZone>(self, now: &DateTime<Z>) -> i64 {
        match self {
            Self::Ago(age) => now.timestamp().saturating_sub(age.num_seconds()),
            Self::At(at) => {
                let exact = now.timezone().from_local_datetime(&at).earliest();
                let later = || now.timezone().from_local_datetime(&(at + TimeDelta::hours(1))).earliest();
                exact.or_else(later).map_or_else(|| at.and_utc().timestamp(), |at| at.timestamp())
            }
        }
    }
}

/// What is asked for. The default shows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Backups that this node has a part in.
    pub node: Option<Fqdn>,
    /// Started then or later.
    pub since: Option<Since>,
    pub incomplete: bool,
    /// Of those, so many that were started last.
    pub last: Option<usize>,
}

impl Filter {
    /// `backups` by start time, and so is what is left of them.
    pub fn apply<Z: TimeZone>(&self, backups: &mut Vec<ClusterBackup>, now: &DateTime<Z>) {
        let since = self.since.map(|since| since.timestamp(now));
        backups.retain(|backup| {
            self.node.as_ref().is_none_or(|node| backup.node(node.as_str()).is_some())
                && since.is_none_or(|since| backup.started() >= since)
                && (!self.incomplete || !backup.is_complete())
        });
        if let Some(last) = self.last {
            backups.drain(..backups.len().saturating_sub(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Local;

    use super::*;
    use crate::model::backups::{BackupMode, NodeBackup};
    use crate::model::names::BackupName;

    const NOW: i64 = 1_700_000_000;

    fn now() -> DateTime<Local> {
        DateTime::from_timestamp(NOW, 0).unwrap().with_timezone(&Local)
    }

    fn backup(name: &str, node: &str, started: i64, finished: bool) -> ClusterBackup {
        let name = BackupName::new(name).unwrap();
        let node = NodeBackup {
            name: name.clone(),
            fqdn: Fqdn::new(node).unwrap(),
            mode: BackupMode::Full,
            started,
            finished: finished.then_some(started + 1),
        };
        let hosts = [node.fqdn.to_string()].into();
        ClusterBackup { name, nodes: vec![node], hosts, summaries: std::collections::BTreeMap::new() }
    }

    fn shown(filter: &Filter) -> Vec<String> {
        let mut backups = vec![
            backup("b1", "n1", NOW - 7200, true),
            backup("b2", "n1", NOW - 3600, false),
            backup("b3", "n10", NOW - 60, true),
            backup("b4", "n1", NOW - 30, true),
        ];
        filter.apply(&mut backups, &now());
        backups.iter().map(|backup| backup.name.to_string()).collect()
    }

    #[test]
    fn conditions_add_up_and_the_number_comes_last() {
        let node = Fqdn::new("n1").ok();
        let since = |text: &str| text.parse().ok();
        let all = Filter::default();
        assert_eq!(shown(&all), ["b1", "b2", "b3", "b4"]);
        assert_eq!(shown(&Filter { node: node.clone(), ..all.clone() }), ["b1", "b2", "b4"]);
        assert_eq!(shown(&Filter { since: since("60m"), ..all.clone() }), ["b2", "b3", "b4"]);
        assert_eq!(shown(&Filter { since: since("1m"), ..all.clone() }), ["b3", "b4"]);
        assert_eq!(shown(&Filter { incomplete: true, ..all.clone() }), ["b2"]);
        assert_eq!(shown(&Filter { last: Some(2), ..all.clone() }), ["b3", "b4"]);
        assert_eq!(shown(&Filter { last: Some(9), ..all.clone() }).len(), 4);
        assert_eq!(shown(&Filter { last: Some(0), ..all.clone() }), [""; 0]);
        assert_eq!(shown(&Filter { node, since: since("2h"), last: Some(2), incomplete: false }), ["b2", "b4"]);
    }

    #[test]
    fn moments_are_dates_times_and_ages() {
        let at = |text: &str| text.parse::<Since>().map(|since| since.timestamp(&now()));
        let local = |text: &str| {
            let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap();
            Local.from_local_datetime(&naive).earliest().unwrap().timestamp()
        };
        assert_eq!(at("2023-11-10"), Ok(local("2023-11-10 00:00:00")));
        assert_eq!(at("2023-11-10 13:05"), Ok(local("2023-11-10 13:05:00")));
        assert_eq!(at("2023-11-10T13:05:07"), Ok(local("2023-11-10 13:05:07")));
        assert_eq!(
            [at("90m"), at("36h"), at("7d"), at("4w")],
            [5_400, 129_600, 604_800, 2_419_200].map(|s| Ok(NOW - s))
        );
        for text in ["", "d", "-1d", "1.5h", "yesterday", "2023-13-01", "7 d", "10s", "20231110"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
