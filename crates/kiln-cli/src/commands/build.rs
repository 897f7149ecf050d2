//! `kiln build`.

use crate::app::BuildCommand;
use crate::build::job::{Failed, Job};
use crate::build::plan::Unsaid;
use crate::build::run;
use crate::connect::Connection;
use crate::error::CliError;
use crate::hooks::Hooks;
use crate::printer;
use crate::progress;
use kiln_builder::{Docker, Flags};
use kiln_progress::Mode;
use serde_json::Map;

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(command: BuildCommand, hooks: Hooks, debug: bool) -> Result<(), CliError> {
    let BuildCommand { build: args, connect } = command;
    let vars = |name: &str| std::env::var(name).ok();
    let mode = progress::mode(&args.progress, args.quiet, &vars)?;
    let (options, complaints) = progress::options(&vars);
    let docker = Docker::load(vars, &Flags::default()).map_err(|e| CliError::Usage(e.to_string()))?;
    let mut job = Job::new(&args, &vars, &Unsaid::Keep, &docker)?;
    // A failed build leaves no id of an earlier one.
    args.iidfile.as_deref().map_or(Ok(()), run::remove_stale)?;
    job.find_engine(&docker).await?;
    let notes: Vec<String> = complaints.into_iter().chain(job.plan.warnings.clone()).collect();
    let call = job.plan.call.clone();
    let daemon = Connection::open(&connect, hooks, &job.plan.entitlements).await?;
    let work = |updates| async {
        let solved = job.solve(daemon.client(), |request| request, updates).await;
        solved.map_err(|failed| match failed {
            Failed::Here(error) => error,
            Failed::Build(error) => daemon.error(error),
            Failed::Engine(error) => error.into(),
        })
    };
    let (solved, warnings) = run::shown(mode, options, &notes, work).await?;
    if matches!(mode, Mode::Tty | Mode::Plain | Mode::Auto) {
        printer::people(&progress::warnings_text(&warnings, debug));
    }
    let solved = solved?;
    match call {
        Some(call) => call.leave(&args, &solved),
        None => run::leave_results(&args, mode, &solved.exporter_response, &warnings, Map::new()),
    }
}
