//! A build while it runs and when it is over: what is shown, what is left.

use super::args::BuildArgs;
use super::metadata::{self, Response};
use crate::error::CliError;
use crate::printer;
use crate::progress::Progress;
use kiln_progress::{DisplayOptions, Mode, Update, Warning};
use serde_json::{Map, Value};
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Sender;

/// Does `work` and shows its progress until it is over; a signal cancels it. Also gives the warnings of the build.
/// `notes` are said before, when the mode is one for people.
///
/// # Errors
/// There can be no display. What becomes of the work is the first part of the answer.
pub async fn shown<T, E, F>(
    mode: Mode,
    options: DisplayOptions,
    notes: &[String],
    work: impl FnOnce(Sender<Update>) -> F,
) -> Result<(Result<T, E>, Vec<Warning>), CliError>
where
    E: From<CliError>,
    F: Future<Output = Result<T, E>>,
{
    let progress = Progress::start(mode, options)?;
    if !matches!(mode, Mode::RawJson | Mode::None) {
        notes.iter().for_each(|w| printer::warning(w));
    }
    let (updates, receiver) = tokio::sync::mpsc::channel(256);
    let feed = progress.feed(receiver);
    let (done, is_canceled) = tokio::select! {
        result = Box::pin(work(updates)) => (result, false),
        result = interrupted() => (Err(result.err().unwrap_or(CliError::Canceled).into()), true),
    };
    let _ = feed.await;
    if is_canceled {
        progress.cancel();
    }
    let warnings = tokio::task::spawn_blocking(move || progress.finish()).await.unwrap_or_default();
    Ok((done, warnings))
}

/// Waits for a signal that ends the build.
///
/// # Errors
/// Signals cannot be watched.
pub async fn interrupted() -> Result<(), CliError> {
    let watch = |kind| signal(kind).map_err(CliError::stream("watching for signals"));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Removes the image id of an earlier build.
///
/// # Errors
/// It is there and stays.
pub fn remove_stale(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::File { doing: "removing the old image id", path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

/// Writes the image's id and the metadata where the flags say; `more` joins the metadata.
///
/// # Errors
/// A file cannot be written.
pub fn leave_results(
    args: &BuildArgs,
    mode: Mode,
    response: &Response,
    warnings: &[Warning],
    more: Map<String, Value>,
) -> Result<(), CliError> {
    let id = metadata::image_id(response);
    if let Some(path) = &args.iidfile {
        metadata::write(path, id.as_bytes(), "writing the image id to")?;
    }
    if let Some(path) = &args.metadata_file {
        let mut map = metadata::to_json(response);
        map.extend(more);
        let wants_warnings = std::env::var("BUILDX_METADATA_WARNINGS").is_ok_and(|v| v == "1" || v == "true");
        if !warnings.is_empty() && wants_warnings {
            map.insert("buildx.build.warnings".into(), serde_json::to_value(warnings).unwrap_or_default());
        }
        map.sort_keys();
        let text = serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
        metadata::write(path, text.as_bytes(), "writing metadata to")?;
    }
    if mode == Mode::Quiet && !id.is_empty() {
        printer::line(id).map_err(CliError::stream("writing the image id to stdout"))?;
    }
    Ok(())
}
