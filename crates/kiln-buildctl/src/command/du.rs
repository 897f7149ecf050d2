//! `buildctl du`, and the records that `prune` prints too.

use super::{format, print, print_formatted};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use kiln_cli::human::go_time;
use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Struct, Value};
use kiln_client::UsageRecord;
use kiln_progress::{format_bytes, printable};

const CALL: Call<'_> = Call::Unary("failed to call diskusage");

pub(super) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let filters = values.list("filter");
    let records = daemon.client(CALL).await?.disk_usage(filters).await?;
    if let Some(template) = format(values)? {
        return print_formatted(&template, &records.iter().map(value).collect::<Vec<_>>().into());
    }
    let mut out = match values.is("verbose") {
        true => Tabs::USAGE.format(&verbose(&records)),
        false => Tabs::USAGE.format(&format!("{HEADER}{}", rows(&records))),
    };
    if filters.is_empty() {
        out.push_str(&Tabs::USAGE.format(&summary(&records)));
    }
    print(&out)
}

pub(super) const HEADER: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

/// Lines of the table.
pub(super) fn rows(records: &[UsageRecord]) -> String {
    let mark = |on: bool| if on { "*" } else { "" };
    let row = |r: &UsageRecord| {
        let id = format!("{}{}", r.id, mark(r.mutable));
        format!("{id:<71}\t{:<11}\t{}{}\t\n", !r.in_use, format_bytes(r.size), mark(r.shared))
    };
    records.iter().map(row).collect()
}

/// A block for each record.
pub(super) fn verbose(records: &[UsageRecord]) -> String {
    let mut out = String::new();
    for r in records {
        let mut line = |key: &str, value: &str| out.push_str(&format!("{key}:\t{value}\n"));
        line("ID", &r.id);
        if !r.parents.is_empty() {
            line("Parents", &r.parents.join(";"));
        }
        line(
            "Created at",
            &r.created_at.map(go_time).unwrap_or_else(|| go_time(jiff::Timestamp::UNIX_EPOCH)),
        );
        line("Mutable", &r.mutable.to_string());
        line("Reclaimable", &(!r.in_use).to_string());
        line("Shared", &r.shared.to_string());
        line("Size", &format_bytes(r.size));
        if !r.description.is_empty() {
            line("Description", &printable(&r.description));
        }
        line("Usage count", &r.usage_count.to_string());
        if let Some(at) = r.last_used_at {
            line("Last used", &go_time(at));
        }
        if !r.record_type.is_empty() {
            line("Type", &r.record_type);
        }
        out.push('\n');
    }
    out
}

fn summary(records: &[UsageRecord]) -> String {
    let sum = |keep: &dyn Fn(&UsageRecord) -> bool| {
        records.iter().filter(|r| keep(r)).fold(0_i64, |sum, r| sum.saturating_add(r.size))
    };
    let total = sum(&|r| r.size > 0);
    let shared = sum(&|r| r.shared);
    let mut out = String::new();
    if shared > 0 {
        out.push_str(&format!(
            "Shared:\t{}\nPrivate:\t{}\n",
            format_bytes(shared),
            format_bytes(total - shared)
        ));
    }
    let reclaimable = sum(&|r| r.size > 0 && !r.in_use);
    out.push_str(&format!("Reclaimable:\t{}\nTotal:\t{}\n", format_bytes(reclaimable), format_bytes(total)));
    out
}

/// A record for templates.
pub(super) fn value(r: &UsageRecord) -> Value {
    Struct::new("*client.UsageInfo")
        .with("ID", "id", r.id.as_str())
        .with("Mutable", "mutable", r.mutable)
        .with("InUse", "inUse", r.in_use)
        .with("Size", "size", r.size)
        .with("CreatedAt", "createdAt", r.created_at.or(Some(jiff::Timestamp::UNIX_EPOCH)))
        .with("LastUsedAt", "lastUsedAt", r.last_used_at)
        .with("UsageCount", "usageCount", r.usage_count)
        .with("Parents", "parents", r.parents.as_slice())
        .with("Description", "description", r.description.as_str())
        .with("RecordType", "recordType", r.record_type.as_str())
        .with("Shared", "shared", r.shared)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_sums() {
        let record = |id: &str, shared: bool| UsageRecord {
            id: id.into(),
            size: 1500,
            shared,
            mutable: shared,
            ..UsageRecord::default()
        };
        let records = [record("a", false), record("b", true)];
        assert_eq!(
            Tabs::USAGE.format(&rows(&records)),
            format!("{:<71}\ttrue       \t1.50kB\t\n{:<71}\ttrue       \t1.50kB*\t\n", "a", "b*")
        );
        assert_eq!(
            Tabs::USAGE.format(&summary(&records)),
            "Shared:\t\t1.50kB\nPrivate:\t1.50kB\nReclaimable:\t3.00kB\nTotal:\t\t3.00kB\n"
        );
        assert_eq!(
            value(&records[0]).json().to_string(),
            "{\"id\":\"a\",\"mutable\":false,\"inUse\":false,\"size\":1500,\"createdAt\":\"1970-01-01T00:00:00Z\",\"lastUsedAt\":null,\"usageCount\":0,\"parents\":null,\"description\":\"\",\"recordType\":\"\",\"shared\":false}"
        );
    }
}
