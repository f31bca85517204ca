//! Which backups of a node stay. Pure: backups and the time go in, a verdict with its reasons comes out.
//!
//! The two limits are cassandra-medusa's: a backup goes that was started too long ago, or that is not among the newest ones;
//! unfinished ones count. The rules select backups that stay even so: the newest ones, and one for each of a number of days,
//! weeks, months and years. With rules and without limits, everything goes that no rule selects.
//!
//! Every node decides for itself. So that all of them keep the same names, the rules look at the time of the cluster backup,
//! and prefer backups that all nodes finished.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use chrono::{DateTime, Datelike as _};

use crate::config::Retention;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// One backup of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    /// Of this node's part, Unix seconds.
    pub started: i64,
    /// Of this node's part.
    pub finished: Option<i64>,
    /// Of the cluster backup, Unix seconds. Its UTC date is what the rules look at.
    pub cluster_started: i64,
    /// All nodes finished it.
    pub complete: bool,
    /// It is the newest one that all nodes finished.
    pub newest_complete: bool,
    /// The index calls it finished, and its manifest is not there.
    pub lost_manifest: bool,
    /// It is unfinished and takes no lease, so that nobody knows whether it still runs.
    pub may_run: bool,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub retention: Retention,
    /// The last finished backup may go, too.
    pub allow_last: bool,
    /// The node has left the cluster: its backups go whatever their age.
    pub decommissioned: bool,
}

/// A rule that keeps one backup for each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Last,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The node finished no later one.
    Newest,
    /// The newest one that all nodes finished.
    NewestComplete,
    /// It was begun within the grace period and may be running.
    Unfinished,
    /// It may be running, whatever the grace period says.
    MayRun,
    /// It was finished and has lost its manifest, so nobody knows what it is worth.
    ManifestMissing,
    /// The newest finished one cannot be restored: this one may be all that there is.
    NewestUnusable,
    Rule {
        rule: Rule,
        number: u64,
        of: u64,
    },
    /// Days.
    Younger(u64),
    /// Backups.
    AmongNewest(u64),
    /// Nothing says that backups go.
    NoLimit,
    /// The manifest of that backup names files in this one's folder.
    NamedBy(String),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest finished"),
            Self::NewestComplete => f.write_str("newest complete"),
            Self::Unfinished => f.write_str("unfinished, within the grace period"),
            Self::MayRun => f.write_str("unfinished, may be running"),
            Self::ManifestMissing => f.write_str("its manifest is missing"),
            Self::NewestUnusable => f.write_str("the newest one cannot be restored"),
            Self::Rule { rule, number, of } => write!(f, "{rule} {number} of {of}"),
            Self::Younger(days) => write!(f, "not older than {}", days_text(*days)),
            Self::AmongNewest(count) => write!(f, "among the newest {count}"),
            Self::NoLimit => f.write_str("no limit is set"),
            Self::NamedBy(other) => write!(f, "{other} names its files"),
        }
    }
}

/// Why a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delete {
    /// Days.
    Older(u64),
    /// Backups.
    Beyond(u64),
    NoRule,
    Unfinished,
    Decommissioned,
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older(days) => write!(f, "older than {}", days_text(*days)),
            Self::Beyond(count) => write!(f, "not among the newest {count}"),
            Self::NoRule => f.write_str("no rule keeps it"),
            Self::Unfinished => f.write_str("unfinished"),
            Self::Decommissioned => f.write_str("node decommissioned"),
        }
    }
}

fn days_text(days: u64) -> String {
    crate::model::units::counted(days, "day")
}

/// What becomes of a backup, and why. The reasons are never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Keep(Vec<Keep>),
    Delete(Vec<Delete>),
}

/// The verdicts, in the order of the candidates.
pub fn decide(candidates: &[Candidate], policy: &Policy, now: i64) -> Vec<Verdict> {
    let retention = &policy.retention;
    let newest = candidates
        .iter()
        .filter(|backup| backup.finished.is_some())
        .max_by_key(|backup| (backup.finished, backup.started, &backup.name));
    let selected = if policy.decommissioned { HashMap::new() } else { selections(candidates, retention) };
    let by_count = beyond_count(candidates, retention.max_backup_count);
    let verdict = |(i, backup): (usize, &Candidate)| {
        let mut keep = Vec::new();
        let is_newest = newest.is_some_and(|newest| std::ptr::eq(newest, backup));
        if backup.newest_complete && !policy.allow_last {
            keep.push(Keep::NewestComplete);
        } else if is_newest && !policy.allow_last && !policy.decommissioned {
            keep.push(Keep::Newest);
        }
        if backup.finished.is_none() && is_within(backup.started, retention.backup_grace_period_in_days, now) {
            keep.push(Keep::Unfinished);
        } else if backup.may_run {
            keep.push(Keep::MayRun);
        }
        if backup.lost_manifest {
            keep.push(Keep::ManifestMissing);
        }
        keep.extend(selected.get(&i).into_iter().flatten().cloned());
        let delete = reasons_to_delete(backup, policy, now, by_count[i]);
        if delete.is_empty() {
            keep.extend(limits_kept(retention));
        }
        if keep.is_empty() { Verdict::Delete(delete) } else { Verdict::Keep(keep) }
    };
    candidates.iter().enumerate().map(verdict).collect()
}

/// Whether a time lies less than so many days back.
pub fn is_within(time: i64, days: u64, now: i64) -> bool {
    now.saturating_sub(time) < seconds(days)
}

fn seconds(days: u64) -> i64 {
    i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY)
}

fn reasons_to_delete(backup: &Candidate, policy: &Policy, now: i64, beyond_count: bool) -> Vec<Delete> {
    if policy.decommissioned {
        return vec![Delete::Decommissioned];
    }
    let retention = &policy.retention;
    let mut reasons = Vec::new();
    let age = retention.max_backup_age;
    if age > 0 && backup.started < now.saturating_sub(seconds(age)) {
        reasons.push(Delete::Older(age));
    }
    if beyond_count {
        reasons.push(Delete::Beyond(retention.max_backup_count));
    }
    let has_limits = age > 0 || retention.max_backup_count > 0;
    if !has_limits && rules(retention).iter().any(|(_, count)| *count > 0) {
        reasons.push(if backup.finished.is_some() { Delete::NoRule } else { Delete::Unfinished });
    }
    reasons
}

/// Reasons of a backup that nothing wants to delete.
fn limits_kept(retention: &Retention) -> Vec<Keep> {
    let mut reasons = Vec::new();
    if retention.max_backup_age > 0 {
        reasons.push(Keep::Younger(retention.max_backup_age));
    }
    if retention.max_backup_count > 0 {
        reasons.push(Keep::AmongNewest(retention.max_backup_count));
    }
    if reasons.is_empty() {
        reasons.push(Keep::NoLimit);
    }
    reasons
}

/// Whether each one is beyond the newest `count`. 0: none is.
fn beyond_count(candidates: &[Candidate], count: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|i| (candidates[*i].started, &candidates[*i].name));
    let kept = if count == 0 { usize::MAX } else { usize::try_from(count).unwrap_or(usize::MAX) };
    let mut beyond = vec![false; candidates.len()];
    for i in &order[..order.len().saturating_sub(kept)] {
        beyond[*i] = true;
    }
    beyond
}

fn rules(retention: &Retention) -> [(Rule, u64); 5] {
    [
        (Rule::Last, retention.keep_last),
        (Rule::Daily, retention.keep_daily),
        (Rule::Weekly, retention.keep_weekly),
        (Rule::Monthly, retention.keep_monthly),
        (Rule::Yearly, retention.keep_yearly),
    ]
}

/// What the rules select, by position.
fn selections(candidates: &[Candidate], retention: &Retention) -> HashMap<usize, Vec<Keep>> {
    let mut newest_first: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].finished.is_some()).collect();
    newest_first.sort_by_key(|i| std::cmp::Reverse((candidates[*i].cluster_started, &candidates[*i].name)));
    let mut selected: HashMap<usize, Vec<Keep>> = HashMap::new();
    for (rule, of) in rules(retention) {
        // Periods by age: the first one is the newest.
        let mut periods: BTreeMap<std::cmp::Reverse<(i64, usize)>, Vec<usize>> = BTreeMap::new();
        for (position, i) in newest_first.iter().enumerate() {
            let of_its_own = if rule == Rule::Last { usize::MAX - position } else { 0 };
            let period = (period(rule, candidates[*i].cluster_started), of_its_own);
            periods.entry(std::cmp::Reverse(period)).or_default().push(*i);
        }
        for (number, members) in (1..=of).zip(periods.into_values()) {
            let complete = members.iter().find(|i| candidates[**i].complete);
            if let Some(chosen) = complete.or(members.first()) {
                selected.entry(*chosen).or_default().push(Keep::Rule { rule, number, of });
            }
        }
    }
    selected
}

/// A number that grows from period to period. Weeks begin on Monday.
fn period(rule: Rule, seconds: i64) -> i64 {
    let date = DateTime::from_timestamp(seconds, 0).unwrap_or_default().date_naive();
    match rule {
        Rule::Last => 0,
        Rule::Daily => date.num_days_from_ce().into(),
        Rule::Weekly => (date.num_days_from_ce() - 1).div_euclid(7).into(),
        Rule::Monthly => i64::from(date.year()) * 12 + i64::from(date.month0()),
        Rule::Yearly => date.year().into(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;

    use super::*;

    fn at(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(&format!("{text}:00"), "%Y-%m-%d %H:%M:%S").unwrap().and_utc().timestamp()
    }

    /// A finished and complete backup that is named after its start.
    fn backup(started: &str) -> Candidate {
        let started_at = at(started);
        Candidate {
            name: started.to_owned(),
            started: started_at,
            finished: Some(started_at + 60),
            cluster_started: started_at,
            complete: true,
            newest_complete: false,
            lost_manifest: false,
            may_run: false,
        }
    }

    fn unfinished(started: &str) -> Candidate {
        Candidate { finished: None, complete: false, ..backup(started) }
    }

    fn policy(retention: Retention) -> Policy {
        Policy { retention, allow_last: true, decommissioned: false }
    }

    const NOW: &str = "2026-04-12 12:00";

    /// The names that stay.
    fn kept(candidates: &[Candidate], policy: &Policy) -> Vec<String> {
        let verdicts = decide(candidates, policy, at(NOW));
        assert_eq!(verdicts.len(), candidates.len());
        let kept = candidates.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Keep(_)));
        kept.map(|(backup, _)| backup.name.clone()).collect()
    }

    fn one(candidates: &[Candidate], policy: &Policy, name: &str) -> Verdict {
        let i = candidates.iter().position(|backup| backup.name == name).unwrap();
        decide(candidates, policy, at(NOW)).swap_remove(i)
    }

    #[test]
    fn without_limits_and_rules_everything_stays() {
        let backups = [backup("2001-01-01 00:00"), unfinished("2001-01-02 00:00"), backup("2026-04-12 01:00")];
        let policy = policy(Retention::default());
        assert_eq!(kept(&backups, &policy).len(), 3);
        assert_eq!(one(&backups, &policy, "2001-01-01 00:00"), Verdict::Keep(vec![Keep::NoLimit]));
        assert!(decide(&[], &policy, at(NOW)).is_empty());
    }

    #[test]
    fn age_is_counted_from_the_start_to_the_second() {
        let limit = Retention { max_backup_age: 14, ..Retention::default() };
        let exactly = at(NOW) - 14 * DAY;
        let mut backups = [backup("2026-04-01 00:00"), backup("2026-03-29 12:00"), backup("2026-03-29 11:59")];
        assert_eq!(backups[1].started, exactly);
        assert_eq!(kept(&backups, &policy(limit)), ["2026-04-01 00:00", "2026-03-29 12:00"]);
        backups[1].started -= 1;
        assert_eq!(one(&backups, &policy(limit), "2026-03-29 12:00"), Verdict::Delete(vec![Delete::Older(14)]));
        assert_eq!(one(&backups, &policy(limit), "2026-04-01 00:00"), Verdict::Keep(vec![Keep::Younger(14)]));
    }

    #[test]
    fn a_backup_from_the_future_is_young() {
        let limit = Retention { max_backup_age: 1, backup_grace_period_in_days: 1, ..Retention::default() };
        let backups = [backup("2031-01-01 00:00"), unfinished("2031-01-02 00:00")];
        assert_eq!(kept(&backups, &policy(limit)).len(), 2);
    }

    #[test]
    fn limits_that_are_too_large_to_count_delete_nothing() {
        let all = u64::MAX;
        let limit = Retention { max_backup_age: all, max_backup_count: all, ..Retention::default() };
        assert_eq!(kept(&[backup("1970-01-02 00:00")], &policy(limit)).len(), 1);
    }

    #[test]
    fn unfinished_backups_count_and_go_like_others() {
        let limit = Retention { max_backup_count: 2, ..Retention::default() };
        let backups = [
            unfinished("2026-04-01 00:00"),
            backup("2026-04-02 00:00"),
            unfinished("2026-04-03 00:00"),
            backup("2026-04-04 00:00"),
        ];
        assert_eq!(kept(&backups, &policy(limit)), ["2026-04-03 00:00", "2026-04-04 00:00"]);
        assert_eq!(one(&backups, &policy(limit), "2026-04-01 00:00"), Verdict::Delete(vec![Delete::Beyond(2)]));
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter() {
        let limit = Retention { max_backup_count: 1, ..Retention::default() };
        let mut backups = [backup("2026-04-04 00:00"), backup("2026-04-02 00:00"), backup("2026-04-03 00:00")];
        assert_eq!(kept(&backups, &policy(limit)), ["2026-04-04 00:00"]);
        backups.reverse();
        assert_eq!(kept(&backups, &policy(limit)), ["2026-04-04 00:00"]);
    }

    #[test]
    fn an_unfinished_backup_is_not_touched_within_the_grace_period() {
        let limit = Retention { max_backup_age: 1, backup_grace_period_in_days: 10, ..Retention::default() };
        let backups = [unfinished("2026-04-02 12:01"), unfinished("2026-04-02 12:00"), backup("2026-04-05 00:00")];
        assert_eq!(kept(&backups, &policy(limit)), ["2026-04-02 12:01"]);
        assert_eq!(one(&backups, &policy(limit), "2026-04-02 12:01"), Verdict::Keep(vec![Keep::Unfinished]));
        let gone = Policy { decommissioned: true, ..policy(limit) };
        assert_eq!(kept(&backups, &gone), ["2026-04-02 12:01"], "also where the node has left");
    }

    #[test]
    fn the_last_finished_backup_stays_unless_it_may_go() {
        let limit = Retention { max_backup_age: 1, max_backup_count: 1, ..Retention::default() };
        let backups = [backup("2026-01-01 00:00"), backup("2026-01-02 00:00"), unfinished("2026-01-03 00:00")];
        let careful = Policy { allow_last: false, ..policy(limit) };
        assert_eq!(kept(&backups, &careful), ["2026-01-02 00:00"]);
        assert_eq!(one(&backups, &careful, "2026-01-02 00:00"), Verdict::Keep(vec![Keep::Newest]));
        assert_eq!(kept(&backups, &policy(limit)), [""; 0]);
    }

    #[test]
    fn the_last_complete_backup_of_the_cluster_stays_too() {
        let limit = Retention { max_backup_age: 1, ..Retention::default() };
        let mut backups = [backup("2026-01-01 00:00"), backup("2026-01-02 00:00"), backup("2026-01-03 00:00")];
        backups[1].newest_complete = true;
        (backups[2].complete, backups[2].newest_complete) = (false, false);
        let careful = Policy { allow_last: false, ..policy(limit) };
        assert_eq!(kept(&backups, &careful), ["2026-01-02 00:00", "2026-01-03 00:00"]);
        assert_eq!(one(&backups, &careful, "2026-01-02 00:00"), Verdict::Keep(vec![Keep::NewestComplete]));
        // What a node that has left contributed to it stays until there is another one.
        let gone = Policy { decommissioned: true, ..careful };
        assert_eq!(kept(&backups, &gone), ["2026-01-02 00:00"]);
        assert_eq!(kept(&backups, &Policy { allow_last: true, ..gone }), [""; 0]);
        assert_eq!(one(&backups, &gone, "2026-01-03 00:00"), Verdict::Delete(vec![Delete::Decommissioned]));
    }

    #[test]
    fn the_newest_is_the_one_that_was_finished_last() {
        let limit = Retention { max_backup_age: 1, ..Retention::default() };
        let mut backups = [backup("2026-01-01 00:00"), backup("2026-01-02 00:00")];
        backups[0].finished = Some(at("2026-01-05 00:00"));
        let careful = Policy { allow_last: false, ..policy(limit) };
        assert_eq!(kept(&backups, &careful), ["2026-01-01 00:00"]);
    }

    #[test]
    fn keep_last_counts_finished_backups() {
        let rule = Retention { keep_last: 2, ..Retention::default() };
        let backups = [
            backup("2026-04-01 00:00"),
            backup("2026-04-02 00:00"),
            unfinished("2026-04-03 00:00"),
            backup("2026-04-03 00:01"),
        ];
        assert_eq!(kept(&backups, &policy(rule)), ["2026-04-02 00:00", "2026-04-03 00:01"]);
        assert_eq!(one(&backups, &policy(rule), "2026-04-01 00:00"), Verdict::Delete(vec![Delete::NoRule]));
        assert_eq!(one(&backups, &policy(rule), "2026-04-03 00:00"), Verdict::Delete(vec![Delete::Unfinished]));
        let second = Keep::Rule { rule: Rule::Last, number: 2, of: 2 };
        assert_eq!(one(&backups, &policy(rule), "2026-04-02 00:00"), Verdict::Keep(vec![second]));
    }

    #[test]
    fn of_a_day_the_newest_stays_and_days_without_a_backup_do_not_count() {
        let rule = Retention { keep_daily: 2, ..Retention::default() };
        let backups = [
            backup("2026-04-01 00:00"),
            backup("2026-04-05 00:00"),
            backup("2026-04-05 23:59"),
            backup("2026-04-10 00:00"),
            backup("2026-04-10 12:00"),
        ];
        assert_eq!(kept(&backups, &policy(rule)), ["2026-04-05 23:59", "2026-04-10 12:00"]);
    }

    #[test]
    fn days_end_at_midnight_utc() {
        let rule = Retention { keep_daily: 9, ..Retention::default() };
        let backups = [backup("2026-04-05 23:59"), backup("2026-04-06 00:00")];
        assert_eq!(kept(&backups, &policy(rule)).len(), 2);
    }

    #[test]
    fn weeks_begin_on_monday_also_at_the_turn_of_the_year() {
        let rule = Retention { keep_weekly: 9, ..Retention::default() };
        // 2025-12-29 is a Monday, 2026-01-04 the Sunday of the same week.
        let backups = [
            backup("2025-12-28 10:00"),
            backup("2025-12-29 10:00"),
            backup("2026-01-04 10:00"),
            backup("2026-01-05 10:00"),
        ];
        assert_eq!(kept(&backups, &policy(rule)), ["2025-12-28 10:00", "2026-01-04 10:00", "2026-01-05 10:00"]);
    }

    #[test]
    fn months_and_years_are_told_apart() {
        let backups = [
            backup("2024-12-31 10:00"),
            backup("2025-12-30 10:00"),
            backup("2025-12-31 10:00"),
            backup("2026-01-31 10:00"),
            backup("2026-02-28 10:00"),
            backup("2026-03-01 10:00"),
        ];
        let monthly = Retention { keep_monthly: 3, ..Retention::default() };
        assert_eq!(kept(&backups, &policy(monthly)), ["2026-01-31 10:00", "2026-02-28 10:00", "2026-03-01 10:00"]);
        let yearly = Retention { keep_yearly: 2, ..Retention::default() };
        assert_eq!(kept(&backups, &policy(yearly)), ["2025-12-31 10:00", "2026-03-01 10:00"]);
    }

    #[test]
    fn rules_add_up_and_every_reason_is_told() {
        let rule = Retention { keep_last: 1, keep_daily: 1, keep_monthly: 2, ..Retention::default() };
        let backups = [backup("2026-03-31 10:00"), backup("2026-04-01 10:00"), backup("2026-04-02 10:00")];
        assert_eq!(kept(&backups, &policy(rule)), ["2026-03-31 10:00", "2026-04-02 10:00"]);
        let of = |rule, number, of| Keep::Rule { rule, number, of };
        assert_eq!(
            one(&backups, &policy(rule), "2026-04-02 10:00"),
            Verdict::Keep(vec![of(Rule::Last, 1, 1), of(Rule::Daily, 1, 1), of(Rule::Monthly, 1, 2)])
        );
        assert_eq!(one(&backups, &policy(rule), "2026-03-31 10:00"), Verdict::Keep(vec![of(Rule::Monthly, 2, 2)]));
    }

    #[test]
    fn rules_keep_what_the_limits_would_delete_and_limits_keep_what_no_rule_selects() {
        let both = Retention { max_backup_age: 14, keep_weekly: 8, ..Retention::default() };
        let backups = [
            backup("2026-03-20 10:00"),
            backup("2026-03-22 10:00"),
            backup("2026-04-07 10:00"),
            backup("2026-04-08 10:00"),
        ];
        assert_eq!(kept(&backups, &policy(both)), ["2026-03-22 10:00", "2026-04-07 10:00", "2026-04-08 10:00"]);
        assert_eq!(one(&backups, &policy(both), "2026-04-07 10:00"), Verdict::Keep(vec![Keep::Younger(14)]));
        assert_eq!(one(&backups, &policy(both), "2026-03-20 10:00"), Verdict::Delete(vec![Delete::Older(14)]));
    }

    #[test]
    fn both_limits_must_be_met() {
        let both = Retention { max_backup_age: 14, max_backup_count: 1, ..Retention::default() };
        let backups = [backup("2026-03-01 10:00"), backup("2026-04-07 10:00"), backup("2026-04-08 10:00")];
        assert_eq!(kept(&backups, &policy(both)), ["2026-04-08 10:00"]);
        assert_eq!(
            one(&backups, &policy(both), "2026-03-01 10:00"),
            Verdict::Delete(vec![Delete::Older(14), Delete::Beyond(1)])
        );
        assert_eq!(
            one(&backups, &policy(both), "2026-04-08 10:00"),
            Verdict::Keep(vec![Keep::Younger(14), Keep::AmongNewest(1)])
        );
    }

    #[test]
    fn rules_look_at_the_cluster_so_that_all_nodes_keep_the_same_backups() {
        let rule = Retention { keep_daily: 1, ..Retention::default() };
        // This node began two seconds later than the first one, after midnight.
        let mut backups = [backup("2026-04-05 23:00"), backup("2026-04-06 00:01")];
        backups[1].cluster_started = at("2026-04-05 23:59");
        assert_eq!(kept(&backups, &policy(rule)), ["2026-04-06 00:01"]);
        let two = Retention { keep_daily: 2, ..Retention::default() };
        assert_eq!(kept(&backups, &policy(two)).len(), 1, "both are of the same day");
        // Of one day, a backup that all nodes finished is worth more than a later one that they did not.
        backups[1].complete = false;
        assert_eq!(kept(&backups, &policy(rule)), ["2026-04-05 23:00"]);
        backups[0].complete = false;
        assert_eq!(kept(&backups, &policy(rule)), ["2026-04-06 00:01"]);
    }

    #[test]
    fn reasons_read_well() {
        let texts: Vec<_> = [
            Keep::NewestComplete,
            Keep::Newest,
            Keep::Rule { rule: Rule::Weekly, number: 1, of: 8 },
            Keep::Younger(1),
            Keep::AmongNewest(3),
            Keep::Unfinished,
            Keep::MayRun,
            Keep::ManifestMissing,
            Keep::NamedBy("b2".into()),
        ]
        .iter()
        .map(ToString::to_string)
        .chain(
            [Delete::Older(14), Delete::Beyond(3), Delete::NoRule, Delete::Unfinished].iter().map(ToString::to_string),
        )
        .collect();
        assert_eq!(
            texts,
            [
                "newest complete",
                "newest finished",
                "weekly 1 of 8",
                "not older than 1 day",
                "among the newest 3",
                "unfinished, within the grace period",
                "unfinished, may be running",
                "its manifest is missing",
                "b2 names its files",
                "older than 14 days",
                "not among the newest 3",
                "no rule keeps it",
                "unfinished",
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn a_node_never_loses_its_last_finished_backup(
            backups in proptest::collection::vec((0_i64..400, proptest::bool::ANY, proptest::bool::ANY), 0..30),
            limits in proptest::array::uniform8(0_u64..4),
        ) {
            let make = |(i, (day, finished, complete)): (usize, &(i64, bool, bool))| Candidate {
                name: format!("b{i}"),
                started: at(NOW) - day * DAY,
                finished: finished.then_some(at(NOW) - day * DAY + 60),
                cluster_started: at(NOW) - day * DAY,
                complete: *finished && *complete,
                newest_complete: false,
                lost_manifest: false,
                may_run: false,
            };
            let candidates: Vec<_> = backups.iter().enumerate().map(make).collect();
            let [max_backup_age, max_backup_count, keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly, grace] = limits;
            let retention = Retention {
                max_backup_age, max_backup_count, keep_last, keep_daily, keep_weekly, keep_monthly, keep_yearly,
                backup_grace_period_in_days: grace,
            };
            let policy = Policy { retention, allow_last: false, decommissioned: false };
            let verdicts = decide(&candidates, &policy, at(NOW));
            let finished = candidates.iter().filter(|backup| backup.finished.is_some()).count();
            let kept = candidates.iter().zip(&verdicts)
                .filter(|(backup, verdict)| backup.finished.is_some() && matches!(verdict, Verdict::Keep(_)));
            let kept = kept.count();
            proptest::prop_assert!(kept >= 1 || finished == 0);
            proptest::prop_assert!(kept as u64 >= keep_last.min(finished as u64));
            for verdict in verdicts {
                match verdict {
                    Verdict::Keep(reasons) => proptest::prop_assert!(!reasons.is_empty()),
                    Verdict::Delete(reasons) => proptest::prop_assert!(!reasons.is_empty()),
                }
            }
        }
    }
}
