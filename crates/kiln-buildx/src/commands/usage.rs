//! Records of the build cache, as buildx prints them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kiln_cli::human;
use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Struct, Value};
use kiln_client::UsageRecord;

use crate::error::Error;
use crate::flags::duration;

/// What `--filter` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters {
    /// What was used within this time stays.
    pub(super) keep_duration: Duration,
    /// One entry of the daemon's filter language; all parts must match.
    pub(super) entry: String,
    /// Whether anything was said.
    pub(super) any: bool,
}

impl Filters {
    pub(super) fn parse(values: &[String]) -> Result<Self, Error> {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in values.iter().filter(|v| !v.is_empty()) {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
            let list = by_key.entry(key.trim().to_lowercase()).or_default();
            list.extend(value.map(|v| v.trim().to_owned()).filter(|v| !list.contains(v)));
        }
        let any = !by_key.is_empty();
        let (until, unused) = (by_key.remove("until"), by_key.remove("unused-for"));
        let (name, age) = match (until, unused) {
            (Some(_), Some(_)) => {
                return Err(Error::text(r#"conflicting filters "until" and "unused-for""#));
            }
            (Some(v), None) => ("until", v),
            (None, other) => ("unused-for", other.unwrap_or_default()),
        };
        let keep_duration = match age.as_slice() {
            [] => Duration::ZERO,
            [one] => duration(one)
                .map_err(|e| Error::Text(format!("{name:?} filter expects a duration (e.g., '24h'): {e}")))?,
            _ => return Err(Error::Text(format!("{name:?} filter expects only one value"))),
        };
        let mut parts = Vec::new();
        for (key, values) in by_key {
            parts.push(match values.as_slice() {
                [] => key,
                [value] if key == "id" => format!("id~={value}"),
                [value] if key.ends_with(['!', '~']) => format!("{key}={value}"),
                [value] => format!("{key}=={value}"),
                _ => return Err(Error::Text(format!("{key:?} filter expects only one value"))),
            });
        }
        Ok(Self { keep_duration, entry: parts.join(","), any })
    }
}

pub(super) const HEADERS: [(&str, &str); 11] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("UsageCount", "USAGE COUNT"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
];

pub(super) const PRETTY: &str = "ID:           {{.ID}}
{{- if .Parents }}
Parents:
{{- range .Parents }}
 - {{.}}
{{- end }}
{{- end }}
Created at:   {{.CreatedAt}}
Mutable:      {{.Mutable}}
Reclaimable:  {{.Reclaimable}}
Shared:       {{.Shared}}
Size:         {{.Size}}
{{- if .Description}}
Description:  {{ .Description }}
{{- end }}
Usage count:  {{.UsageCount}}
{{- if .LastUsedAt}}
Last used:    {{ .LastUsedAt }}
{{- end }}
{{- if .Type}}
Type:         {{ .Type }}
{{- end }}
";

/// As Go prints a time.
fn go_time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "0001-01-01 00:00:00 +0000 UTC".into(), human::go_time)
}

fn last_used(r: &UsageRecord, now: Timestamp) -> String {
    r.last_used_at.map(|t| human::ago(t, now)).unwrap_or_default()
}

/// A record for templates; `*` marks what is mutable or shared in tables.
pub(super) fn row(r: &UsageRecord, is_table: bool, now: Timestamp) -> Value {
    let mark = |on: bool| if on && is_table { "*" } else { "" };
    let fields: [(&'static str, Value); 11] = [
        ("CreatedAt", go_time(r.created_at).into()),
        ("Description", kiln_progress::printable(&r.description).into()),
        ("ID", format!("{}{}", r.id, mark(r.mutable)).into()),
        ("LastUsedAt", last_used(r, now).into()),
        ("Mutable", r.mutable.into()),
        ("Parents", r.parents.clone().into()),
        ("Reclaimable", (!r.in_use).into()),
        ("Shared", r.shared.into()),
        ("Size", format!("{}{}", human::size(r.size), mark(r.shared)).into()),
        ("Type", r.record_type.clone().into()),
        ("UsageCount", r.usage_count.into()),
    ];
    let row = Struct::new("*commands.diskusageContext");
    fields.into_iter().fold(row, |row, (name, value)| row.with(name, name, value)).into()
}

/// Sums: shared and private only when something is shared.
pub(super) fn summary(records: &[UsageRecord]) -> String {
    let sum = |keep: &dyn Fn(&UsageRecord) -> bool| -> i64 {
        records.iter().filter(|r| keep(r)).map(|r| r.size.max(0)).sum()
    };
    let (shared, total) = (sum(&|r| r.shared), sum(&|_| true));
    let mut out = String::new();
    if shared > 0 {
        out.push_str(&format!(
            "Shared:\t{}\nPrivate:\t{}\n",
            human::size(shared),
            human::size(total - shared)
        ));
    }
    out.push_str(&format!(
        "Reclaimable:\t{}\nTotal:\t{}\n",
        human::size(sum(&|r| !r.in_use)),
        human::size(total)
    ));
    Tabs::USAGE.format(&out)
}

/// The header of what prune removes.
pub(super) const REMOVED: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

/// A line of what prune removes.
pub(super) fn removed(r: &UsageRecord, now: Timestamp) -> String {
    let mark = |on: bool| if on { "*" } else { "" };
    let id = format!("{}{}", r.id, mark(r.mutable));
    let size = format!("{}{}", human::size(r.size), mark(r.shared));
    format!("{id:<40}\t{:<5}\t{size:<10}\t{}\n", !r.in_use, last_used(r, now))
}

/// A block of what prune removes.
pub(super) fn removed_verbose(r: &UsageRecord, now: Timestamp) -> String {
    let lines = [
        ("ID", r.id.clone()),
        ("Parent", r.parents.join(",")),
        ("Created at", go_time(r.created_at)),
        ("Mutable", r.mutable.to_string()),
        ("Reclaimable", (!r.in_use).to_string()),
        ("Shared", r.shared.to_string()),
        ("Size", human::size(r.size)),
        ("Description", kiln_progress::printable(&r.description)),
        ("Usage count", r.usage_count.to_string()),
        ("Last used", last_used(r, now)),
        ("Type", r.record_type.clone()),
    ];
    let lines = lines.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}:\t{v}\n"));
    Tabs::USAGE.format(&(lines.collect::<String>() + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Filters, String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        Filters::parse(&values).map_err(|e| e.to_string())
    }

    #[test]
    fn filters_become_one_entry() {
        assert_eq!(parse(&[]).unwrap(), Filters::default());
        let f = parse(&["type=source.local", "id=abc", "private", "description~=x", "until=24h"]).unwrap();
        assert_eq!(f.entry, "description~=x,id~=abc,private,type==source.local");
        assert_eq!(f.keep_duration, Duration::from_secs(86400));
        assert_eq!(
            parse(&["until=soon"]).unwrap_err(),
            "\"until\" filter expects a duration (e.g., '24h'): time: invalid duration \"soon\""
        );
        assert_eq!(parse(&["type=a", "type=b"]).unwrap_err(), "\"type\" filter expects only one value");
        assert!(parse(&["until=1h", "unused-for=1h"]).unwrap_err().starts_with("conflicting filters"));
    }

    #[test]
    fn records_look_alike() {
        let r = UsageRecord {
            id: "abc".into(),
            mutable: true,
            size: 1500,
            in_use: true,
            ..UsageRecord::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(removed(&r, now), format!("{:<40}\tfalse\t1.5kB     \t\n", "abc*"));
        assert_eq!(row(&r, true, now).json()["ID"], "abc*");
        assert_eq!(row(&r, false, now).json()["Size"], "1.5kB");
        assert_eq!(go_time(Some(Timestamp::UNIX_EPOCH)), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(summary(&[r]), "Reclaimable:\t0B\nTotal:\t\t1.5kB\n");
    }
}
