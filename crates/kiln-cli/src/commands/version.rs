//! `kiln version`.

use crate::error::CliError;
use crate::printer;

/// Prints name and version.
pub(crate) fn run() -> Result<(), CliError> {
    printer::line(&format!("kiln {}", env!("CARGO_PKG_VERSION")))
        .map_err(CliError::stream("writing to stdout"))
}
