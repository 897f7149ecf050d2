//! `kiln prune`.

use crate::app::ConnectArgs;
use crate::connect::Connection;
use crate::error::CliError;
use crate::hooks::Hooks;
use crate::{human, printer, usage};
use clap::Args;
use jiff::Timestamp;
use kiln_client::PruneRequest;
use kiln_go::units::parse_bytes;

/// Flags.
#[derive(Args, Clone, Debug)]
pub(crate) struct PruneArgs {
    /// Remove everything that no build uses, images and frontends too
    #[arg(short, long)]
    all: bool,
    /// Remove only records that match, such as until=24h, type=source.local, id=abc (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Show everything about each removed record
    #[arg(short, long)]
    verbose: bool,
    /// Keep at least so much cache, such as 10gb
    #[arg(long, value_name = "SIZE", value_parser = size, visible_alias = "keep-storage")]
    reserved_space: Option<i64>,
    /// Keep at most so much cache
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_used_space: Option<i64>,
    /// Remove until so much of the disk is free
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_free_space: Option<i64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn size(text: &str) -> Result<i64, String> {
    parse_bytes(text).ok_or_else(|| "expected a size such as 10gb".into())
}

/// Asks the user, then the daemon, and prints what was removed.
pub(crate) async fn run(args: PruneArgs, hooks: Hooks) -> Result<(), CliError> {
    let filters = usage::filters(&args.filter)?;
    let what = if args.all { "all build cache" } else { "all dangling build cache" };
    let question = format!("WARNING! This will remove {what}. Are you sure you want to continue?");
    if !args.force
        && !printer::confirm(&question).map_err(CliError::stream("reading the answer from stdin"))?
    {
        return Ok(());
    }
    let request = PruneRequest {
        // The daemon expects one entry; an empty one matches everything.
        filters: vec![filters.entry],
        all: args.all,
        keep_duration: filters.keep_duration,
        reserved_space: args.reserved_space.unwrap_or(0),
        max_used_space: args.max_used_space.unwrap_or(0),
        min_free_space: args.min_free_space.unwrap_or(0),
    };
    let client = Connection::open(&args.connect, hooks, &[]).await?;
    let records = client.prune(&request).await?;
    let now = Timestamp::now();
    let mut out = match (records.is_empty(), args.verbose) {
        (true, _) => String::new(),
        (_, false) => usage::table(&records, now),
        (_, true) => usage::verbose(&records, now),
    };
    let total = records.iter().map(|r| r.size).sum();
    out.push_str(&format!("Total:  {}\n", human::size(total)));
    printer::data(out.as_bytes()).map_err(CliError::stream("writing to stdout"))
}
