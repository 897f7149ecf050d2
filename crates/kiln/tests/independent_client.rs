//! A client of other authors, written for BuildKit, drives the daemon.

mod common;

use bollard::auth::DockerCredentials;
use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput, SecretSource};
use bollard::grpc::driver::buildkitd::BuildkitDaemon;
use bollard::grpc::driver::{Export, Image, ImageExporterEnum};
use bollard::grpc::export::ImageExporterOutput;
use bollard::grpc::registry::ImageRegistryOutput;
use common::world;
use kiln_testkit::Layer;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use tonic::transport::Endpoint;

const FILE: &str = "\
FROM busybox AS one
ARG WHO
RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = s3cret && echo hello $WHO > /greeting
FROM busybox
RUN --mount=type=bind,from=one,target=/mnt cp /mnt/greeting /greeting
CMD [\"cat\", \"/greeting\"]
";

fn driver(socket: &Path) -> BuildkitDaemon {
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()));
    BuildkitDaemon::new(endpoint.expect("a socket's address"))
}

fn options(token: &Path) -> ImageBuildFrontendOptions {
    ImageBuildFrontendOptions::builder()
        .buildarg("WHO", "bollard")
        .label("made-by", "bollard")
        .set_secret("token", &SecretSource::File(token.into()))
        .build()
}

fn input(dockerfile: &str) -> ImageBuildLoadInput {
    ImageBuildLoadInput::Upload(Layer::new().file("Dockerfile", 0o644, dockerfile).into_tar().into())
}

fn skopeo(args: &[&str]) -> String {
    let out = Command::new("skopeo").args(args).output().expect("skopeo");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[tokio::test]
async fn bollard_exports_and_pushes_root() {
    let Some(w) = world() else { return };
    let archive = w.env.path().join("bollard.tar");
    let token = w.env.write("token", "s3cret");
    let output = ImageExporterOutput::builder("docker.io/library/bollard:latest").dest(&archive);
    let oci = ImageExporterEnum::OCI(output);
    driver(&w.env.socket()).export(oci, options(&token), input(FILE), None, None).await.expect("export");
    let inspected = skopeo(&["inspect", &format!("oci-archive:{}", archive.display())]);
    assert!(inspected.contains("\"made-by\": \"bollard\""), "{inspected}");

    let name = format!("{}/bollard:latest", w.registry.host());
    let output = ImageRegistryOutput::builder(&name).push(true).insecure_registry(true).consume();
    let credentials = HashMap::from([(name.as_str(), DockerCredentials::default())]);
    driver(&w.env.socket())
        .registry(output, options(&token), input(FILE), Some(credentials), None)
        .await
        .expect("push");
    assert!(w.registry.has("bollard", "latest"));
}

#[tokio::test]
async fn bollard_is_told_what_failed_root() {
    let Some(w) = world() else { return };
    let output = ImageExporterOutput::builder("x").dest(&w.env.path().join("none.tar"));
    let file = "FROM busybox\nRUN exit 7\n";
    let oci = ImageExporterEnum::OCI(output);
    let error = driver(&w.env.socket())
        .export(oci, ImageBuildFrontendOptions::builder().build(), input(file), None, None)
        .await
        .expect_err("the step fails");
    assert!(format!("{error:?}").contains("exit code: 7"), "{error:?}");
}
