//! `--load`: the end of an archive on its way into an engine.

use std::time::Duration;

use kiln_builder::{ImageLoad, Steps};

use crate::error::Error;

/// How long an engine that refused an archive may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Waits for the engine, as a step of the build.
pub(super) async fn finish(load: ImageLoad, steps: &Steps) -> Result<(), Error> {
    steps.vertex("importing to docker", |_| load.finish()).await.map_err(Error::BuildOn)?;
    Ok(())
}

/// What the engine says of an archive that did not get through, if it is the engine's fault.
pub(super) async fn failure(load: ImageLoad) -> Option<Error> {
    let ended = tokio::time::timeout(LAST_WORDS, load.refused()).await.ok()?;
    ended.map(Error::BuildOn)
}
