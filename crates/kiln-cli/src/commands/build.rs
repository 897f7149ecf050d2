//! `kiln build`.

use crate::app::BuildCommand;
use crate::build::args::BuildArgs;
use crate::build::export::Dest;
use crate::build::metadata::{self, Response};
use crate::build::plan::{Plan, Stdin};
use crate::connect::{Connection, StdinInputs};
use crate::docker::DockerLoad;
use crate::error::CliError;
use crate::hooks::Hooks;
use crate::progress::{self, Progress};
use crate::{printer, stdin};
use kiln_progress::{Mode, Warning};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// Builds, shows it, and leaves the results where they were asked for.
pub(crate) async fn run(command: BuildCommand, hooks: Hooks, debug: bool) -> Result<(), CliError> {
    let BuildCommand { build: args, connect } = command;
    let vars = |name: &str| std::env::var(name).ok();
    let mode = progress::mode(&args.progress, args.quiet, &vars)?;
    let (options, complaints) = progress::options(&vars);
    let mut head = Vec::new();
    let plan = Plan::new(&args, &vars, || {
        head = stdin::head()?;
        Ok(head.clone())
    })?;
    if plan.exports.iter().any(|e| e.dest == Dest::Stdout) && printer::stdout_is_terminal() {
        return Err(CliError::Usage(
            "the result is binary and stdout is a terminal; give --output a dest=FILE".into(),
        ));
    }
    // A failed build leaves no id of an earlier one.
    args.iidfile.as_deref().map_or(Ok(()), remove_stale)?;
    let dockerfile = match plan.stdin {
        Stdin::Dockerfile { empty_context } => Some(stdin::dockerfile(&head, empty_context)?),
        Stdin::Unused | Stdin::Context => None,
    };
    let load = match plan.exports.iter().any(|e| e.dest == Dest::Docker) {
        true => Some(DockerLoad::start()?),
        false => None,
    };
    let stdin = StdinInputs { head, dockerfile: dockerfile.as_ref() };
    let client = Connection::open(&connect, hooks, &plan.entitlements).await?;
    let progress = Progress::start(mode, options)?;
    if !matches!(mode, Mode::RawJson | Mode::None) {
        complaints.iter().chain(&plan.warnings).for_each(|w| printer::warning(w));
    }
    let (updates, receiver) = tokio::sync::mpsc::channel(256);
    let feed = progress.feed(receiver);
    let solved = tokio::select! {
        result = client.build(plan, stdin, load.as_ref(), updates) => result,
        result = interrupted() => Err(result.err().unwrap_or(CliError::Canceled)),
    };
    let _ = feed.await;
    let warnings = tokio::task::spawn_blocking(move || progress.finish()).await.unwrap_or_default();
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
    let response = solved?;
    leave_results(&args, mode, &response, &warnings)
}

fn remove_stale(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::File { doing: "removing the old image id", path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

/// Waits for a signal that ends the build.
async fn interrupted() -> Result<(), CliError> {
    let watch = |kind| signal(kind).map_err(CliError::stream("watching for signals"));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn leave_results(
    args: &BuildArgs,
    mode: Mode,
    response: &Response,
    warnings: &[Warning],
) -> Result<(), CliError> {
    let id = metadata::image_id(response);
    if let Some(path) = &args.iidfile {
        metadata::write(path, id.as_bytes(), "writing the image id to")?;
    }
    if let Some(path) = &args.metadata_file {
        let mut json = metadata::to_json(response);
        let wants_warnings = std::env::var("BUILDX_METADATA_WARNINGS").is_ok_and(|v| v == "1" || v == "true");
        if let (Some(map), false, true) = (json.as_object_mut(), warnings.is_empty(), wants_warnings) {
            let list = serde_json::to_value(warnings).unwrap_or_default();
            map.insert("buildx.build.warnings".into(), list);
        }
        let text = serde_json::to_string_pretty(&json).unwrap_or_default();
        metadata::write(path, text.as_bytes(), "writing metadata to")?;
    }
    if mode == Mode::Quiet && !id.is_empty() {
        printer::line(id).map_err(CliError::stream("writing the image id to stdout"))?;
    }
    Ok(())
}
