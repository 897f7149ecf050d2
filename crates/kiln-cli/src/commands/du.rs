//! `kiln du`.

use crate::app::ConnectArgs;
use crate::connect::Connection;
use crate::error::CliError;
use crate::hooks::Hooks;
use crate::{printer, usage};
use clap::{Args, ValueEnum};
use jiff::Timestamp;

/// Flags.
#[derive(Args, Clone, Debug)]
pub(crate) struct DuArgs {
    /// Show only records that match, such as type=exec.cachemount, id=abc, private (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show everything about each record; same as --format pretty
    #[arg(short, long)]
    verbose: bool,
    /// How records are shown
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Pretty,
    Json,
}

/// Asks the daemon and prints.
pub(crate) async fn run(args: DuArgs, hooks: Hooks) -> Result<(), CliError> {
    let filters = usage::filters(&args.filter)?;
    let client = Connection::open(&args.connect, hooks, &[]).await?;
    let mut records = client.disk_usage(&filters.entry).await?;
    records.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let now = Timestamp::now();
    let mut out = match (args.format, args.verbose) {
        (Format::Json, _) => usage::json_lines(&records),
        (Format::Table, false) => usage::table(&records, now),
        (Format::Table | Format::Pretty, _) => usage::verbose(&records, now),
    };
    if args.filter.is_empty() && args.format != Format::Json {
        out.push_str(&usage::summary(&records));
    }
    printer::data(out.as_bytes()).map_err(CliError::stream("writing to stdout"))
}
