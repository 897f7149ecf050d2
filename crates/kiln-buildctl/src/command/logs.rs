//! `buildctl debug logs`: the progress of a build that was, or its trace.

use super::{content, env};
use crate::build::progress;
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use futures::StreamExt as _;
use kiln_client::{Client, HistoryQuery};

pub(super) async fn run(
    values: &Values,
    args: &[String],
    daemon: &impl Fn() -> Result<Daemon, Error>,
) -> Result<(), Error> {
    let reference = args.first().ok_or("build ref must be specified")?;
    let client = daemon()?.client(Call::Stream("")).await?;
    if values.is("trace") {
        return trace(&client, reference).await;
    }
    let mut updates = Box::pin(client.build_logs(reference).await.map_err(Error::of_stream)?);
    let progress = progress::start(values.text_or("progress", "auto"), progress::Out::Stdout, &env)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(256);
    let feed = progress.feed(receiver);
    let mut result = Ok(());
    while let Some(update) = updates.next().await {
        match update {
            Ok(update) => drop(sender.send(update).await),
            Err(error) => result = Err(Error::of_stream(error)),
        }
    }
    drop(sender);
    let _ = feed.await;
    let _ = tokio::task::spawn_blocking(move || progress.finish()).await;
    result
}

async fn trace(client: &Client, reference: &str) -> Result<(), Error> {
    let query = HistoryQuery { reference: Some(reference.to_owned()), ..HistoryQuery::default() };
    let mut events = Box::pin(client.history(&query).await.map_err(Error::of_stream)?);
    let event = events.next().await.ok_or_else(|| Error::Text(format!("ref {reference} not found")))?;
    let record = event.map_err(Error::of_stream)?.record;
    match record.trace {
        Some(trace) => content::copy(client, &trace.digest).await,
        None => Err(format!("ref {reference} does not have trace").into()),
    }
}
