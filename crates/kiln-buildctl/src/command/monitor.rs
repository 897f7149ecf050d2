//! `buildctl debug monitor`.

use super::{histories, print};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use futures::StreamExt as _;
use kiln_client::{Descriptor, HistoryEvent, HistoryQuery, RecordedResult};

pub(super) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let reference = values.text("ref");
    let query = HistoryQuery {
        active_only: !values.is("completed"),
        reference: Some(reference.to_owned()).filter(|r| !r.is_empty()),
        ..HistoryQuery::default()
    };
    let client = daemon.client(Call::Stream("")).await?;
    let mut events = Box::pin(client.history(&query).await.map_err(Error::of_stream)?);
    while let Some(event) = events.next().await {
        print(&text(&event.map_err(Error::of_stream)?))?;
    }
    // It only ends when the daemon does.
    Err("EOF".into())
}

fn text(event: &HistoryEvent) -> String {
    let r = &event.record;
    let mut out = format!("event: {} ref:{}\n", histories::kind(event.kind), r.reference);
    if r.total_steps != 0 {
        out.push_str(&format!("  cache: {}/{}\n", r.cached_steps, r.total_steps));
    }
    if r.warnings != 0 {
        out.push_str(&format!("  warnings: {}\n", r.warnings));
    }
    for (key, blob) in [("logs", &r.logs), ("trace", &r.trace)] {
        if let Some(blob) = blob {
            out.push_str(&format!("  {key}: {}\n", descriptor(blob)));
        }
    }
    if let Some(result) = &r.result {
        out.push_str(&outcome("", result));
    }
    for (platform, result) in &r.results {
        out.push_str(&outcome(&format!("[{platform}] "), result));
    }
    out
}

fn outcome(prefix: &str, result: &RecordedResult) -> String {
    let line = |key: &str, d: &Descriptor| format!("  {prefix}{key}: {}\n", descriptor(d));
    let images: Vec<_> = match result.images.is_empty() {
        true => result.deprecated.iter().collect(),
        false => result.images.values().collect(),
    };
    let images = images.into_iter().map(|d| line("descriptor", d));
    images.chain(result.attestations.iter().map(|d| line("attestation", d))).collect()
}

/// In the text form of the message.
fn descriptor(d: &Descriptor) -> String {
    let mut out = format!("media_type:{:?} digest:{:?} size:{}", d.media_type, d.digest, d.size);
    for (key, value) in &d.annotations {
        out.push_str(&format!(" annotations:{{key:{key:?} value:{value:?}}}"));
    }
    out
}
