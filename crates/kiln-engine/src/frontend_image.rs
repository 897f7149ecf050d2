//! Frontends that are images: run as a container that speaks the gateway's protocol on its stdin and stdout.
//!
//! What comes out of such a program is as little trusted as what a client sends. Its container has no more rights
//! than a step; it ends with the build, and soon after it has returned a result.

mod environment;
mod image;
mod stderr;

use crate::bridge::Bridge;
use crate::build::{Build, LazyRef};
use crate::outcome::Outcome;
use futures::FutureExt;
use image::FrontendImage;
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{Definition, Mount, NetMode};
use kiln_worker::container::{
    Container, ContainerFile, ContainerProcess, ContainerSpec, ProcessIo, StartSpec, Wanted,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where a frontend finds the graph of its own image.
const OWN_DEFINITION: &str = "/run/config/buildkit/metadata/frontend.bin";
/// The program of an image without entrypoint.
const DEFAULT_PROGRAM: &str = "/run";
/// How long a frontend that has returned may take to end.
const AFTER_RETURN: Duration = Duration::from_secs(10);
/// How long the last call of a frontend that has ended may take.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Runs the image `source` to its result. Dropping the future kills it.
pub(crate) async fn run(
    build: &Arc<Build>,
    source: &str,
    opts: BTreeMap<String, String>,
    inputs: BTreeMap<String, Definition>,
) -> Result<Outcome<LazyRef>, BuildError> {
    let image = FrontendImage::find(build, source, &opts, &inputs).await?;
    image.check_caps(&opts, &inputs)?;
    let container = container(build, source, &image).await?;
    let bridge = Bridge::new(build, inputs);
    // Closes the bridge also when this future is dropped.
    let _closing = Closing(bridge.clone());
    let environment = environment::of(build, &opts)?;
    let (process, io) = container.start(start_spec(&image, environment)).await?;
    let result = serve(build, source, &bridge, process, io).await;
    if let Err(error) = container.release().await
        && !error.is_canceled()
    {
        tracing::warn!(source, %error, "release the container of a frontend");
    }
    result
}

struct Closing(Bridge);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn container(build: &Arc<Build>, source: &str, image: &FrontendImage) -> Result<Container, BuildError> {
    let root = Mount { dest: "/".into(), input: Some(0), ..Mount::default() };
    let definition = image.definition.encode_bytes();
    let spec = ContainerSpec {
        name: format!("frontend {source}"),
        mounts: vec![root],
        refs: vec![image.root.clone()],
        files: vec![ContainerFile { dest: OWN_DEFINITION.into(), contents: definition, mode: 0o400 }],
        network: if image.no_network() { NetMode::None } else { NetMode::Default },
        proxied: build.proxied(),
        ..ContainerSpec::default()
    };
    // It is given neither secrets nor agents: no session is asked for it.
    build.engine.worker().new_container(spec, Arc::new(Vec::new)).await
}

fn start_spec(image: &FrontendImage, environment: Vec<String>) -> StartSpec {
    let config = &image.config.config;
    let args = match config.entrypoint.as_slice() {
        [] => vec![DEFAULT_PROGRAM.to_string()],
        entrypoint => entrypoint.to_vec(),
    };
    StartSpec {
        args,
        env: config.env.iter().cloned().chain(environment).collect(),
        cwd: config.working_dir.clone(),
        io: Wanted { stdin: true, stdout: true, stderr: true, terminal: false },
        ..StartSpec::default()
    }
}

/// Serves the gateway to the process until it has ended.
async fn serve(
    build: &Arc<Build>,
    source: &str,
    bridge: &Bridge,
    process: ContainerProcess,
    io: ProcessIo,
) -> Result<Outcome<LazyRef>, BuildError> {
    let (Some(stdin), Some(stdout), Some(stderr)) = (io.stdin, io.stdout, io.stderr) else {
        return Err(BuildError::msg("a frontend has no streams"));
    };
    let stream = Box::new(tokio::io::join(stdout, stdin));
    let serving = tokio::spawn(build.engine.gateway().serve(bridge.clone(), stream));
    let logging = tokio::spawn(stderr::log(source.to_string(), build.id.clone(), stderr));
    let ended = tokio::select! {
        ended = process.wait() => ended,
        () = overdue(bridge) => {
            tracing::warn!(source, "a frontend has returned and does not end; killed");
            process.signal(9)?;
            process.wait().await.map(|_| 0)
        }
    };
    // What it sent last may still be on its way.
    let _ = tokio::time::timeout(LAST_CALL, serving).await;
    let _ = tokio::time::timeout(LAST_CALL, logging).await;
    result(source, bridge, ended)
}

async fn overdue(bridge: &Bridge) {
    let _ = bridge.returned().await;
    tokio::time::sleep(AFTER_RETURN).await;
}

/// An error that it returned counts most, then how it ended, then the result that it returned.
fn result(
    source: &str,
    bridge: &Bridge,
    ended: Result<u32, BuildError>,
) -> Result<Outcome<LazyRef>, BuildError> {
    let returned = bridge.returned().now_or_never();
    let failed = match ended {
        Ok(0) => None,
        Ok(code) => Some(BuildError::msg(format!("exit code: {code}")).wrap(Detail::ExitCode(code))),
        Err(error) => Some(error),
    };
    match (returned, failed) {
        (Some(Err(error)), _) => Err(error),
        (_, Some(error)) => Err(error.context(format!("frontend {source}"))),
        (Some(Ok(outcome)), None) => Ok(outcome),
        (None, None) => Err(BuildError::msg("no result for incomplete build")),
    }
}
