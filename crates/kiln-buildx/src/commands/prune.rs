//! `prune`: removes build cache.

use futures::StreamExt as _;
use jiff::Timestamp;
use kiln_cli::human;
use kiln_cli::printer;
use kiln_cli::tabs::Tabs;
use kiln_client::PruneRequest;

use super::usage::{self, Filters};
use super::{confirm, say, usable_nodes};
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    if flags.has("keep-storage") {
        printer::people(
            "Flag --keep-storage has been deprecated, keep-storage flag has been changed to reserved-space\n",
        );
    }
    let filters = Filters::parse(&flags.list("filter"))?;
    let all = flags.switch("all");
    let what = if all { "all build cache" } else { "all dangling build cache" };
    let question = format!("WARNING! This will remove {what}. Are you sure you want to continue?");
    if !flags.switch("force") && !confirm(&question).await? {
        return Ok(());
    }
    let request = PruneRequest {
        // The daemon expects one entry; an empty one matches everything.
        filters: vec![filters.entry],
        all,
        keep_duration: filters.keep_duration,
        reserved_space: flags.size("reserved-space").max(flags.size("keep-storage")),
        max_used_space: flags.size("max-used-space"),
        min_free_space: flags.size("min-free-space"),
    };
    let (_, nodes) = usable_nodes(context).await?;
    let now = Timestamp::now();
    let (mut total, mut is_first) = (0, true);
    for (_, driver) in nodes {
        let client = driver.client().await?;
        let mut removed = Box::pin(client.prune(&request).await?);
        while let Some(record) = removed.next().await {
            let record = record?;
            total += record.size;
            if flags.switch("verbose") {
                say(&usage::removed_verbose(&record, now))?;
                continue;
            }
            let line = usage::removed(&record, now);
            say(&Tabs::USAGE.format(&if is_first { format!("{}{line}", usage::REMOVED) } else { line }))?;
            is_first = false;
        }
    }
    say(&Tabs::USAGE.format(&format!("Total:\t{}\n", human::size(total))))
}
