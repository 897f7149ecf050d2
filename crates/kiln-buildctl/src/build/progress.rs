//! `--progress`.

use crate::error::Error;
use kiln_cli::printer;
use kiln_cli::progress::{Progress, options};
use kiln_progress::Mode;
use std::io::{self, IsTerminal as _};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Stdout,
    Stderr,
}

/// Starts the display: of the flag's kind, where `auto` may be another in $BUILDKIT_PROGRESS.
pub(crate) fn start(flag: &str, out: Out, env: &dyn Fn(&str) -> Option<String>) -> Result<Progress, Error> {
    let preferred = env("BUILDKIT_PROGRESS").filter(|v| !v.is_empty() && flag == "auto");
    let name = preferred.as_deref().unwrap_or(flag);
    let is_terminal = match out {
        Out::Stdout => io::stdout().is_terminal(),
        Out::Stderr => io::stderr().is_terminal(),
    };
    let mode = match name {
        "" => Mode::Auto,
        // Not a word, also when a step fails.
        "quiet" => Mode::None,
        "tty" if !is_terminal => return Err("failed to get console: provided file is not a console".into()),
        // Only buildx has it.
        "none" => return Err("invalid progress mode none".into()),
        name => name.parse().map_err(|_| format!("invalid progress mode {name}"))?,
    };
    let (options, complaints) = options(env);
    if !matches!(mode, Mode::RawJson | Mode::None) {
        complaints.iter().for_each(|c| printer::warning(c));
    }
    let started = match out {
        Out::Stdout => Progress::start_on(mode, options, io::stdout(), is_terminal),
        Out::Stderr => Progress::start_on(mode, options, io::stderr(), is_terminal),
    };
    started.map_err(|e| e.to_string().into())
}
