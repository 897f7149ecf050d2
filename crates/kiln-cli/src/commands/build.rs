//! `kiln build`.

use crate::app::BuildCommand;
use crate::build::export::Dest;
use crate::build::plan::{Plan, Stdin, Unsaid};
use crate::build::request::{self, StdinInputs};
use crate::build::run;
use crate::connect::Connection;
use crate::docker::DockerLoad;
use crate::error::CliError;
use crate::hooks::Hooks;
use crate::progress;
use crate::{printer, stdin};
use kiln_client::OutputWriter;
use kiln_progress::Mode;
use serde_json::Map;

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(command: BuildCommand, hooks: Hooks, debug: bool) -> Result<(), CliError> {
    let BuildCommand { build: args, connect } = command;
    let vars = |name: &str| std::env::var(name).ok();
    let mode = progress::mode(&args.progress, args.quiet, &vars)?;
    let (options, complaints) = progress::options(&vars);
    let mut head = Vec::new();
    let plan = Plan::new(&args, &vars, &Unsaid::Keep, || {
        head = stdin::head()?;
        Ok(head.clone())
    })?;
    plan.check_stdout(printer::stdout_is_terminal())?;
    // A failed build leaves no id of an earlier one.
    args.iidfile.as_deref().map_or(Ok(()), run::remove_stale)?;
    let dockerfile = match plan.stdin {
        Stdin::Dockerfile { empty_context } => Some(stdin::dockerfile(&head, empty_context)?),
        Stdin::Unused | Stdin::Context => None,
    };
    let load = match plan.exports.iter().any(|e| e.dest == Dest::Docker) {
        true => Some(DockerLoad::start()?),
        false => None,
    };
    let notes: Vec<String> = complaints.into_iter().chain(plan.warnings.clone()).collect();
    let client = Connection::open(&connect, hooks, &plan.entitlements).await?;
    let stdin = StdinInputs { head, dockerfile: dockerfile.as_ref() };
    let input = load.as_ref().and_then(DockerLoad::input).map(OutputWriter::new);
    let request = request::request(plan, stdin, input)?;
    let (solved, warnings) =
        run::shown(mode, options, &notes, |updates| client.build(request, updates)).await?;
    let is_for_people = matches!(mode, Mode::Tty | Mode::Plain | Mode::Auto);
    if is_for_people {
        printer::people(&progress::warnings_text(&warnings, debug));
    }
    if let Some(load) = load {
        // When docker ended, the build failed for that reason, and docker knows it better.
        let said = if solved.is_ok() { Some(load.finish().await?) } else { load.failure().await? };
        if is_for_people {
            printer::people(&said.unwrap_or_default());
        }
    }
    run::leave_results(&args, mode, &solved?.exporter_response, &warnings, Map::new())
}
