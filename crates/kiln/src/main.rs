//! kiln: builds container images.

mod daemon;

use kiln_cli::{Face, Hooks};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // Before threads and runtime exist: this process may be the sandbox helper, or the daemon of its own build.
    if let Some(code) = kiln_sandbox::helper_main(args.clone()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if let Err(code) = daemon::isolate_if_daemonless(&args) {
        return code;
    }
    let hooks = Hooks { run_daemon: daemon::run, in_process: daemon::in_process };
    match Face::of(args.first().map(OsString::as_os_str).unwrap_or_default()) {
        Face::Kiln => kiln_cli::run(args, hooks),
        Face::Buildkitd => kiln_cli::run_buildkitd(args, hooks),
        Face::Buildctl => kiln_buildctl::run(args),
        Face::Buildx => kiln_buildx::run(args, hooks),
    }
}
