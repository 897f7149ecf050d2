//! The daemon inside a Docker Engine: what it can do with results (spec daemon-and-cli.md section 6, driver docker).

use kiln_builder::{Driver, Engine, Steps};
use kiln_cli::build::export::{Dest, Export, ExportKind};
use kiln_cli::build::request;
use kiln_client::BuildRequest;

use crate::error::Error;

/// A worker has this label when its images are containerd's: then it can export as any other.
const CONTAINERD: &str = "org.mobyproject.buildkit.worker.snapshotter";

/// Names to be pushed by the engine when the build is over.
pub(super) type Pushes = Vec<String>;

/// Results as the engine makes them: to load is to keep, and to push is the engine's own affair.
pub(super) async fn adapt(driver: &Driver, exports: &mut [Export]) -> Result<Pushes, Error> {
    let Driver::Docker(_) = driver else { return Ok(Vec::new()) };
    for export in exports.iter_mut().filter(|e| e.dest == Dest::Docker) {
        (export.kind, export.dest) = (ExportKind::Image, Dest::Daemon);
    }
    let needs_store = |e: &&Export| match e.kind {
        ExportKind::Oci | ExportKind::Docker => true,
        ExportKind::Image => e.attrs.get("push").is_some_and(|p| p == "true"),
        ExportKind::Local | ExportKind::Tar => false,
    };
    if exports.iter().all(|e| !needs_store(&e)) {
        return Ok(Vec::new());
    }
    let workers = driver.client().await?.workers(&[]).await?;
    if workers.iter().any(|w| w.labels.contains_key(CONTAINERD)) {
        return Ok(Vec::new());
    }
    let mut pushes = Vec::new();
    for export in exports {
        match export.kind {
            ExportKind::Oci => return Err(unsupported("OCI exporter")),
            ExportKind::Docker => return Err(unsupported("Docker exporter")),
            ExportKind::Image if export.attrs.remove("push").is_some_and(|p| p == "true") => {
                let names = export.attrs.get("name").map(String::as_str).unwrap_or_default();
                pushes.extend(names.split(',').filter(|n| !n.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(pushes)
}

fn unsupported(what: &str) -> Error {
    Error::Text(format!(
        "failed to build: {what} is not supported for the docker driver.\nSwitch to a different driver, or turn on the containerd image store, and try again.\nLearn more at https://docs.docker.com/go/build-exporters/"
    ))
}

/// Images are kept by an exporter of the engine's own.
pub(super) fn exporters(driver: &Driver, mut request: BuildRequest) -> BuildRequest {
    if matches!(driver, Driver::Docker(_)) {
        for export in request.exports.iter_mut().filter(|e| e.kind == "image") {
            export.kind = "moby".into();
        }
    }
    request
}

/// Pushes what the engine now has.
pub(super) async fn push(driver: &Driver, names: &[String], steps: &Steps) -> Result<(), Error> {
    let Driver::Docker(engine) = driver else { return Ok(()) };
    for name in names {
        let logins = request::credentials()?;
        let push = |_| async move { Engine::push(engine, name, &logins).await };
        steps.vertex(&format!("pushing {name} with docker"), push).await.map_err(Error::BuildOn)?;
    }
    Ok(())
}
