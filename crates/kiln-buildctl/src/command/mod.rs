//! The commands, one file each.

mod content;
mod dial_stdio;
mod du;
mod dump_llb;
mod histories;
mod info;
mod logs;
mod monitor;
mod prune;
mod workers;

use crate::build;
use crate::cli::{Action, Invocation, Values};
use crate::connect::Daemon;
use crate::error::Error;
use kiln_cli::printer;
use kiln_cli::template::{Template, Value};

/// The environment.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Does what an invocation says.
pub(crate) async fn run(invocation: &Invocation) -> Result<(), Error> {
    let Invocation { command, values, args } = invocation;
    let daemon = || Daemon::of(values, &env);
    match command.action {
        Action::Help => Ok(()),
        Action::Build => Box::pin(build::run(values, &daemon()?)).await,
        Action::Du => du::run(values, &daemon()?).await,
        Action::Prune => prune::run(values, &daemon()?).await,
        Action::PruneHistories => histories::prune(values, &daemon()?).await,
        Action::DialStdio => dial_stdio::run(values).await,
        Action::DumpLlb => dump_llb::run(values, args),
        Action::DumpMetadata => dump_metadata(values),
        Action::Workers => workers::run(values, &daemon()?).await,
        Action::Info => info::run(values, &daemon()?).await,
        Action::Monitor => monitor::run(values, &daemon()?).await,
        Action::Logs => logs::run(values, args, &daemon).await,
        Action::Ctl => histories::ctl(values, args, &daemon).await,
        Action::Get => content::get(args, &daemon).await,
        Action::Histories => histories::list(values, &daemon()?).await,
    }
}

/// Whose state there is in the directory decides what can be said of it.
fn dump_metadata(values: &Values) -> Result<(), Error> {
    let root = values.text_or("root", "/var/lib/buildkit");
    std::fs::read_dir(root).map_err(Error::file("open", root))?;
    Err("debug dump-metadata is not supported: kiln keeps its metadata in SQLite databases, which `sqlite3 FILE .dump` shows; BuildKit's own databases are not read".into())
}

fn print(text: &str) -> Result<(), Error> {
    printer::data(text.as_bytes()).map_err(Error::Output)
}

/// The template of `--format`.
fn format(values: &Values) -> Result<Option<Template>, Error> {
    match values.text("format") {
        "" => Ok(None),
        text => Ok(Some(Template::parse(text)?)),
    }
}

/// A value as the template has it, on a line.
fn print_formatted(template: &Template, value: &Value) -> Result<(), Error> {
    print(&format!("{}\n", template.execute(value)?))
}
