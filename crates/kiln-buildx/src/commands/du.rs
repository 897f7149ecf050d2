//! `du`: what the cache of a builder holds.

use jiff::Timestamp;

use super::usage::{self, Filters};
use super::{say, usable_nodes};
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;
use crate::format::Format;

const TABLE: &str = "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}";

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let (format, has_sums) = match (flags.word("format").as_deref(), flags.switch("verbose")) {
        (Some(_), true) => return Err(Error::text("--format and --verbose cannot be used together")),
        (None | Some("table"), false) => (Format::parse("table", TABLE)?, true),
        (None, true) | (Some("pretty"), false) => (Format::parse(usage::PRETTY, TABLE)?, true),
        (Some(other), false) => (Format::parse(other, TABLE)?, false),
    };
    let filters = Filters::parse(&flags.list("filter"))?;
    let (_, nodes) = usable_nodes(context).await?;
    let mut records = Vec::new();
    for (_, driver) in nodes {
        records.extend(driver.client().await?.disk_usage(std::slice::from_ref(&filters.entry)).await?);
    }
    let now = Timestamp::now();
    let rows: Vec<_> = records.iter().map(|r| usage::row(r, format.is_table(), now)).collect();
    let mut out = format.write(&usage::HEADERS, &rows)?;
    if has_sums && !filters.any {
        out.push_str(&usage::summary(&records));
    }
    say(&out)
}
