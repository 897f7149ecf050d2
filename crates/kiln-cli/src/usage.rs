//! Records of the build cache, as `du` and `prune` print them (spec daemon-and-cli.md section 4, "du and prune output").

use crate::error::CliError;
use crate::human;
use jiff::Timestamp;
use kiln_client::UsageRecord;
use serde_json::json;
use std::time::Duration;

/// Table rows with a header.
pub fn table(records: &[UsageRecord], now: Timestamp) -> String {
    let header = ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned).to_vec();
    let rows = records.iter().map(|r| {
        let mark = |on: bool| if on { "*" } else { "" };
        vec![
            format!("{}{}", r.id, mark(r.mutable)),
            (!r.in_use).to_string(),
            format!("{}{}", human::size(r.size), mark(r.shared)),
            r.last_used_at.map(|t| human::ago(t, now)).unwrap_or_default(),
        ]
    });
    human::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
}

/// A block per record.
pub fn verbose(records: &[UsageRecord], now: Timestamp) -> String {
    let mut out = String::new();
    for r in records {
        let mut line = |key: &str, value: &str| {
            if !value.is_empty() {
                out.push_str(&format!("{:<14}{value}\n", format!("{key}:")));
            }
        };
        line("ID", &r.id);
        line("Parents", &r.parents.join(", "));
        line("Created at", &r.created_at.map(|t| t.to_string()).unwrap_or_default());
        line("Mutable", &r.mutable.to_string());
        line("Reclaimable", &(!r.in_use).to_string());
        line("Shared", &r.shared.to_string());
        line("Size", &human::size(r.size));
        line("Description", &kiln_progress::printable(&r.description));
        line("Usage count", &r.usage_count.to_string());
        line("Last used", &r.last_used_at.map(|t| human::ago(t, now)).unwrap_or_default());
        line("Type", &r.record_type);
        out.push('\n');
    }
    out
}

/// One JSON object per line.
pub fn json_lines(records: &[UsageRecord]) -> String {
    let object = |r: &UsageRecord| {
        json!({
            "ID": r.id,
            "Parents": r.parents,
            "CreatedAt": r.created_at.map(|t| t.to_string()),
            "Mutable": r.mutable,
            "Reclaimable": !r.in_use,
            "Shared": r.shared,
            "Size": r.size,
            "Description": r.description,
            "UsageCount": r.usage_count,
            "LastUsedAt": r.last_used_at.map(|t| t.to_string()),
            "Type": r.record_type,
        })
    };
    records.iter().map(|r| format!("{}\n", object(r))).collect()
}

/// Sums: shared and private only when something is shared.
pub fn summary(records: &[UsageRecord]) -> String {
    let sum =
        |keep: &dyn Fn(&UsageRecord) -> bool| records.iter().filter(|r| keep(r)).map(|r| r.size).sum::<i64>();
    let shared = sum(&|r| r.shared);
    let mut rows = Vec::new();
    let mut row = |key: &str, bytes: i64| rows.push(vec![key.to_owned(), human::size(bytes)]);
    if shared > 0 {
        row("Shared:", shared);
        row("Private:", sum(&|r| !r.shared));
    }
    row("Reclaimable:", sum(&|r| !r.in_use));
    row("Total:", sum(&|_| true));
    human::table(&rows)
}

/// What `--filter` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Records used within this time stay.
    pub keep_duration: Duration,
    /// One entry of the daemon's filter language; all parts must match.
    pub entry: String,
}

const KEYS: [&str; 10] =
    ["id", "parents", "description", "inuse", "mutable", "immutable", "type", "shared", "private", "until"];

/// Reads `--filter` values.
pub fn filters(values: &[String]) -> Result<Filters, CliError> {
    let mut filters = Filters::default();
    let mut parts = Vec::new();
    let mut ages = 0;
    for text in values.iter().filter(|v| !v.is_empty()) {
        let wrong = |why: String| CliError::Value { flag: "--filter", value: text.clone(), why };
        let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
        let name = key.trim_end_matches(['!', '~']);
        match (name, value) {
            ("until" | "unused-for", Some(value)) => {
                ages += 1;
                filters.keep_duration = human::parse_duration(value)
                    .ok_or_else(|| wrong(format!("\"{name}\" filter expects a duration (e.g., '24h')")))?;
            }
            (name, _) if !KEYS.contains(&name) => {
                return Err(wrong(crate::pairs::unknown("filter", name, &KEYS)));
            }
            (_, None) => parts.push(text.clone()),
            ("id", Some(value)) if key == "id" => {
                parts.push(format!("id~={}", value.trim_start_matches('=')))
            }
            (_, Some(value)) if key != name => parts.push(format!("{key}={value}")),
            (_, Some(value)) => parts.push(format!("{key}=={}", value.trim_start_matches('='))),
        }
    }
    if ages > 1 {
        return Err(CliError::Usage("only one until filter can be given".into()));
    }
    filters.entry = parts.join(",");
    Ok(filters)
}
