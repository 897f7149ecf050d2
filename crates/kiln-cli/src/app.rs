//! The commands and their help.

use crate::build::args::BuildArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::daemon::DaemonArgs;
use crate::commands::du::DuArgs;
use crate::commands::prune::PruneArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  kiln build -t app .                                   build, and keep the image under a name
  kiln build -t app --load .                            ... and load it into Docker
  kiln build -t registry.example/team/app:1 --push .    ... and push it
  kiln build -o out --target test .                     write the files of a stage to a directory
  kiln du                                               see what the cache holds
  kiln prune --filter until=24h                         remove what was not used for a day

`kiln COMMAND --help` says more.";

const BUILD_EXAMPLES: &str = "\
Examples:
  kiln build -t app .
  kiln build -f docker/Dockerfile --target test --build-arg VERSION=3 .
  kiln build --secret id=token,src=token.txt --ssh default .
  kiln build -o type=oci,dest=app.tar,compression=zstd -t app .
  tar c . | kiln build -t app -
  kiln build -t app -f - . < Dockerfile
  kiln build https://github.com/user/repo.git#main:sub/dir";

/// Builds container images from Dockerfiles.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = EXAMPLES, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Say more of what kiln itself does, on stderr
    #[arg(short = 'D', long, global = true, help_heading = "Everywhere")]
    pub(crate) debug: bool,
}

/// Where the daemon is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectArgs {
    /// Address of the daemon [env: KILN_HOST] [default: its usual socket; a daemon is started when there is none]
    #[arg(long, value_name = "ADDRESS", help_heading = "Daemon")]
    pub(crate) addr: Option<String>,
    /// Use no daemon: do its work in this process
    #[arg(long, conflicts_with = "addr", help_heading = "Daemon")]
    pub(crate) daemonless: bool,
    /// State directory when there is no daemon
    #[arg(long, value_name = "DIR", requires = "daemonless", help_heading = "Daemon")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image, or the files of one, from a Dockerfile
    #[command(visible_alias = "b", after_help = BUILD_EXAMPLES)]
    Build(Box<BuildCommand>),
    /// Run the daemon that builds, in the foreground
    Daemon(Box<DaemonArgs>),
    /// Show what the build cache holds
    Du(DuArgs),
    /// Remove build cache
    Prune(PruneArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `kiln build`.
#[derive(Args, Debug)]
pub(crate) struct BuildCommand {
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}
