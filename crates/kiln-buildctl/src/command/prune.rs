//! `buildctl prune`.

use super::{du, format, print, print_formatted};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use futures::StreamExt as _;
use kiln_cli::tabs::Tabs;
use kiln_client::PruneRequest;
use kiln_progress::format_bytes;

const CALL: Call<'_> = Call::Stream("failed to call prune");

pub(super) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let template = format(values)?;
    let megabytes = |name: &str| (values.float(name) * 1e6) as i64;
    let request = PruneRequest {
        filters: values.list("filter").to_vec(),
        all: values.is("all"),
        keep_duration: values.duration("keep-duration"),
        reserved_space: megabytes("keep-storage-min"),
        max_used_space: megabytes("keep-storage"),
        min_free_space: megabytes("free-storage"),
    };
    let mut records = Box::pin(daemon.client(CALL).await?.prune(&request).await?);
    let (mut total, mut is_first) = (0_i64, true);
    while let Some(record) = records.next().await {
        let record = record?;
        total = total.saturating_add(record.size);
        let header = if is_first { du::HEADER } else { "" };
        match &template {
            Some(template) => print_formatted(template, &du::value(&record))?,
            None if values.is("verbose") => {
                print(&Tabs::USAGE.format(&du::verbose(std::slice::from_ref(&record))))?;
            }
            None => {
                let row = du::rows(std::slice::from_ref(&record));
                print(&Tabs::USAGE.format(&format!("{header}{row}")))?;
            }
        }
        is_first = false;
    }
    match template {
        Some(_) => Ok(()),
        None => print(&Tabs::USAGE.format(&format!("Total:\t{}\n", format_bytes(total)))),
    }
}
