//! One file per command.

pub(crate) mod complete;
mod create;
mod dial;
mod du;
mod inspect;
mod install;
mod ls;
mod prune;
mod rm;
mod stop;
mod usage;
mod use_builder;

use std::io::{self, BufRead as _};

use kiln_builder::{Builder, Driver, LoadedNode, Node};
use kiln_cli::build::run::interrupted;
use kiln_cli::error::CliError;
use kiln_cli::printer;
use kiln_oci::Platform;

use crate::build;
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;
use crate::plugin::{REVISION, VERSION};

/// Runs a command.
pub(crate) fn run(name: &str, context: &Context, flags: &Parsed) -> Result<(), Error> {
    match name {
        "version" => say(&format!("github.com/docker/buildx {VERSION} {REVISION}\n")),
        "install" => install::install(context),
        "uninstall" => install::uninstall(context),
        "use" => use_builder::run(context, flags),
        _ => kiln_cli::block_on(async {
            match name {
                "build" => Box::pin(build::run(context, flags)).await,
                "create" => create::run(context, flags).await,
                "dial-stdio" => dial::run(context, flags).await,
                "du" => du::run(context, flags).await,
                "inspect" => inspect::run(context, flags).await,
                "ls" => ls::run(context, flags).await,
                "prune" => prune::run(context, flags).await,
                "rm" => rm::run(context, flags).await,
                "stop" => stop::run(context, flags).await,
                other => Err(Error::Text(format!("unknown command: {other:?}"))),
            }
        }),
    }
}

/// Writes data to stdout.
pub(crate) fn say(text: &str) -> Result<(), Error> {
    Ok(printer::data(text.as_bytes()).map_err(CliError::stream("writing to stdout"))?)
}

/// Asks on stdout, as Docker's tools do; only `y` means yes. A signal is no answer, and ends the line of the question.
async fn confirm(question: &str) -> Result<bool, Error> {
    say(&format!("{question} [y/N] "))?;
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let read = tokio::select! {
        read = read => read.unwrap_or_else(|e| Err(io::Error::other(e))),
        signal = interrupted() => {
            signal?;
            say("\n")?;
            return Err(CliError::Canceled.into());
        }
    };
    let answer = read.map_err(CliError::stream("reading the answer from stdin"))?;
    Ok(answer.trim_end_matches(['\n', '\r']).eq_ignore_ascii_case("y"))
}

/// The nodes of the builder for work with its daemons; none may be broken.
async fn usable_nodes(context: &Context) -> Result<(Builder, Vec<(Node, Driver)>), Error> {
    let mut builder = context.find_usable()?;
    let nodes = context.in_time(context.world.nodes(&mut builder)).await??;
    let nodes = nodes.into_iter().map(LoadedNode::usable).collect::<Result<_, _>>()?;
    Ok((builder, nodes))
}

/// Platforms of a node: those that the user assigned come first and are marked.
fn platform_names(assigned: &[Platform], found: &[Platform]) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    let mut out = Vec::new();
    let all = assigned.iter().map(|p| (p, "*")).chain(found.iter().map(|p| (p, "")));
    for (platform, mark) in all {
        let name = platform.normalize().to_string();
        if !seen.contains(&name) {
            out.push(format!("{name}{mark}"));
            seen.push(name);
        }
    }
    out
}
