//! Filters over records (spec outputs-and-cache.md section 10): a list is alternatives, and the fields of one entry,
//! which is a line of CSV, must all hold.

use crate::HistoryError;
use kiln_go::csv::{self, CsvError};
use kiln_proto::control::BuildHistoryRecord;
use kiln_proto::google::protobuf::Timestamp;
use kiln_snapshot::Filter;

/// What records must match. Everything matches without an entry.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    comparisons: Vec<Comparison>,
    fields: Filter,
}

#[derive(Debug)]
struct Comparison {
    of: Measure,
    operator: Operator,
    /// Seconds since 1970, or nanoseconds of a duration.
    with: i64,
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    Started,
    Completed,
    Duration,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    AtLeast,
    AtMost,
    More,
    Less,
}

/// In this order: a longer one is looked for before those it contains.
const OPERATORS: [(&str, Operator); 4] =
    [(">=", Operator::AtLeast), ("<=", Operator::AtMost), (">", Operator::More), ("<", Operator::Less)];

impl Filters {
    pub(crate) fn parse(entries: &[String]) -> Result<Self, HistoryError> {
        entries.iter().map(|entry| Entry::parse(entry)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|entry| entry.matches(record))
    }
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, HistoryError> {
        let mut comparisons = Vec::new();
        let mut others = Vec::new();
        for field in fields(entry)? {
            match Comparison::parse(&field)? {
                Some(comparison) => comparisons.push(comparison),
                None => others.push(field),
            }
        }
        let failed =
            |e| HistoryError::Query(format!("failed to parse history filters {entry}: parse error: {e}"));
        let fields = Filter::parse_all([others.join(",")]).map_err(failed)?;
        Ok(Self { comparisons, fields })
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.comparisons.iter().all(|c| c.matches(record))
            && self.fields.matches_fields(|name| field(record, name))
    }
}

impl Comparison {
    /// `None` when it is no comparison.
    fn parse(field: &str) -> Result<Option<Self>, HistoryError> {
        let split = |(text, operator)| {
            let (key, value) = field.split_once(text)?;
            Some((key, operator, value))
        };
        let Some((key, operator, value)) = OPERATORS.into_iter().find_map(split) else { return Ok(None) };
        let of = match key {
            "startedAt" => Measure::Started,
            "completedAt" => Measure::Completed,
            "duration" => Measure::Duration,
            _ => return Ok(None),
        };
        let with = match of {
            Measure::Duration => kiln_go::duration::parse(value)
                .map_err(|_| HistoryError::Query(format!("invalid duration {value}")))?,
            _ => point(value).ok_or_else(|| HistoryError::Query(format!("invalid time {value}")))?,
        };
        Ok(Some(Self { of, operator, with }))
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        let seconds = |t: &Option<Timestamp>| t.as_ref().map_or(0, |t| t.seconds);
        let value = match self.of {
            Measure::Started => seconds(&record.created_at),
            Measure::Completed => seconds(&record.completed_at),
            Measure::Duration => record
                .completed_at
                .as_ref()
                .map_or(0, |end| nanos(end).saturating_sub(record.created_at.as_ref().map_or(0, nanos))),
        };
        match self.operator {
            Operator::AtLeast => value >= self.with,
            Operator::AtMost => value <= self.with,
            Operator::More => value > self.with,
            Operator::Less => value < self.with,
        }
    }
}

fn nanos(t: &Timestamp) -> i64 {
    t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos))
}

/// So long ago, or a time of RFC 3339; in seconds since 1970.
fn point(value: &str) -> Option<i64> {
    if let Ok(ago) = kiln_go::duration::parse(value) {
        let now = jiff::Timestamp::now().as_nanosecond();
        return i64::try_from((now - i128::from(ago)).div_euclid(1_000_000_000)).ok();
    }
    value.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

fn field(record: &BuildHistoryRecord, name: &str) -> Option<String> {
    // As in BuildKit, what follows the first part of a path is not looked at.
    match name.split('.').next()? {
        "ref" => Some(record.r#ref.clone()).filter(|r| !r.is_empty()),
        "status" => Some(status(record).to_string()),
        "repository" => repository(record),
        _ => None,
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(e)) if e.message.contains("context canceled") => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

/// Where the source of a build comes from: what its client says, or its context when that is an address of git.
fn repository(record: &BuildHistoryRecord) -> Option<String> {
    if let Some(source) = record.frontend_attrs.get("vcs:source") {
        return Some(source.clone());
    }
    let context = record.frontend_attrs.get("context")?;
    let remote = context.split('#').next().unwrap_or_default();
    let schemes = ["http://", "https://", "ssh://", "git://"];
    let is_url = schemes.iter().any(|s| remote.len() > s.len() && remote.starts_with(s));
    let is_scp = !remote.contains("://")
        && remote.split_once(':').is_some_and(|(host, path)| host.contains('@') && !path.is_empty());
    (is_url || is_scp).then(|| remote.to_string())
}

/// The parts of an entry that all must hold; nothing at all holds always.
fn fields(entry: &str) -> Result<Vec<String>, HistoryError> {
    match csv::fields(entry) {
        Err(CsvError::Empty) => Ok(Vec::new()),
        fields => {
            fields.map_err(|e| HistoryError::Query(format!("failed to parse history filters {entry}: {e}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::google::rpc;

    const HOUR: i64 = 3600;

    /// Three builds, begun a day ago and one and two hours later; the second still runs.
    fn records() -> Vec<BuildHistoryRecord> {
        let epoch = jiff::Timestamp::now().as_second() - 24 * HOUR;
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let one = |name: &str, attr: Option<(&str, &str)>, start, end: Option<i64>| BuildHistoryRecord {
            r#ref: name.to_string(),
            frontend_attrs: attr.map(|(k, v)| (k.to_string(), v.to_string())).into_iter().collect(),
            created_at: at(start),
            completed_at: end.and_then(at),
            ..Default::default()
        };
        let later = epoch + 2 * HOUR;
        let context = ("context", "https://github.com/user/repo.git#abcdef123");
        vec![
            one("foo123", None, epoch, Some(epoch + 60)),
            one("bar456", Some(context), epoch + HOUR, None),
            one("foo789", Some(("vcs:source", "testrepo")), later, Some(later + 600)),
        ]
    }

    fn matching(entries: &[&str]) -> Vec<String> {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let filters = Filters::parse(&entries).unwrap();
        records().into_iter().filter(|r| filters.matches(r)).map(|r| r.r#ref).collect()
    }

    #[test]
    fn entries_are_alternatives_and_fields_must_all_hold() {
        for (entries, want) in [
            (&[][..], &["foo123", "bar456", "foo789"][..]),
            (&[""], &["foo123", "bar456", "foo789"]),
            (&["ref==foo"], &[]),
            (&["ref~=foo"], &["foo123", "foo789"]),
            (&["repository!=testrepo"], &["foo123", "bar456"]),
            (&["repository==https://github.com/user/repo.git"], &["bar456"]),
            (&["repository!=testrepo,ref~=foo"], &["foo123"]),
            (&["completedAt>23h"], &["foo789"]),
            (&["startedAt<23h"], &["foo123"]),
            (&["startedAt<=23h"], &["foo123", "bar456"]),
            (&["duration>5m"], &["foo789"]),
            (&["startedAt>24h,completedAt>22h"], &["foo789"]),
            (&["startedAt>=23h", "completedAt>22h"], &["bar456", "foo789"]),
            (&["startedAt>24h,ref~=foo"], &["foo789"]),
            (&["status==running"], &["bar456"]),
            (&["status==completed", "ref==bar456"], &["foo123", "bar456", "foo789"]),
            (&["\"ref==foo123\""], &["foo123"]),
            (&["startedAt>2001-01-01T00:00:00Z"], &["foo123", "bar456", "foo789"]),
        ] {
            assert_eq!(matching(entries), want, "{entries:?}");
        }
    }

    #[test]
    fn failed_and_canceled_builds() {
        let mut record = records().remove(0);
        let mut failed = |message: &str| {
            record.error = Some(rpc::Status { message: message.into(), ..Default::default() });
            status(&record)
        };
        assert_eq!(failed("exit code: 1"), "error");
        assert_eq!(failed("failed: context canceled"), "canceled");
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        for (bad, text) in [
            ("ref+foo", "parse error"),
            ("startedAt>x", "invalid time x"),
            ("duration<x", "invalid duration x"),
            ("\"ref==x", "missing \" in quoted-field"),
            ("\"ref==x\"y", "missing \" in quoted-field"),
            ("ref==\"x\"", "bare \" in non-quoted-field"),
            ("ref==a,,", "parse error"),
            ("ref>x", "parse error"),
            ("ref~=[", "parse error"),
        ] {
            let error = Filters::parse(&[bad.to_string()]).unwrap_err().to_string();
            assert!(error.contains(text), "{bad}: {error}");
        }
    }
}
