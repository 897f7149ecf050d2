//! `buildctl debug get`: a blob of the daemon's content store.

use crate::connect::Daemon;
use crate::error::{Call, Error};
use futures::StreamExt as _;
use kiln_cli::printer;
use kiln_client::Client;
use kiln_digest::Digest;

pub(super) async fn get(args: &[String], daemon: &impl Fn() -> Result<Daemon, Error>) -> Result<(), Error> {
    let text = args.first().ok_or("blob digest must be specified")?;
    let digest: Digest = text.parse().map_err(|_| "invalid checksum digest format")?;
    let client = daemon()?.client(Call::Unary("")).await?;
    copy(&client, &digest.to_string()).await
}

/// Writes a blob to stdout.
pub(super) async fn copy(client: &Client, digest: &str) -> Result<(), Error> {
    let info = client.blob_info(digest).await;
    let info = info.map_err(|e| Error::Text(format!("{:?}: {}", e.code, e.message)))?;
    let mut parts = Box::pin(client.read_blob(digest, 0, Some(info.size)).await.map_err(Error::of_stream)?);
    while let Some(part) = parts.next().await {
        printer::data(&part.map_err(Error::of_stream)?).map_err(Error::Output)?;
    }
    Ok(())
}
