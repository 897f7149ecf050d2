//! Targets of exports, written by the daemon.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kiln_fs::Root;
use kiln_llb::errdefs::BuildError;
use kiln_session::fsutil::{Compare, ReceiveOptions, Style, Update, receive};
use kiln_session::{FileSend, RawStream, SendTarget};
use tokio::io::AsyncWriteExt;
use tonic::Status;

use super::file::write_file;
use super::invalid;
use crate::{Export, Output};

/// The targets of one request, by the index of their exporter.
pub(super) struct Exports(Vec<Output>);

impl Exports {
    /// Checks that each exporter has the sort of target that it writes to.
    pub(super) fn new(exports: &[Export]) -> Result<Self, BuildError> {
        for export in exports {
            check(export)?;
        }
        Ok(Self(exports.iter().map(|e| e.output.clone()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|o| matches!(o, Output::None))
    }
}

fn check(export: &Export) -> Result<(), BuildError> {
    let kind = export.kind.as_str();
    match (kind, &export.output) {
        ("local", Output::Dir { .. }) => Ok(()),
        ("local", _) => Err(invalid(format!("output directory is required for {kind} exporter"))),
        // Its blobs come another way.
        ("oci" | "docker", Output::Dir { .. }) => Ok(()),
        ("tar" | "oci" | "docker", Output::None) => {
            Err(invalid(format!("output file writer is required for {kind} exporter")))
        }
        ("tar", Output::Dir { .. }) => {
            Err(invalid(format!("output directory is not supported by {kind} exporter")))
        }
        ("tar" | "oci" | "docker", _) | (_, Output::None) => Ok(()),
        (_, Output::Dir { .. }) => {
            Err(invalid(format!("output directory is not supported by {kind} exporter")))
        }
        _ => Err(invalid(format!("output file writer is not supported by {kind} exporter"))),
    }
}

#[async_trait]
impl FileSend for Exports {
    async fn diff_copy(&self, target: SendTarget, stream: RawStream) -> Result<(), Status> {
        let missing = || Status::not_found(format!("exporter {} not found", target.exporter));
        let output = self.0.get(target.exporter).ok_or_else(missing)?;
        let failed = |to: &Path| {
            let to = to.display().to_string();
            move |e: io::Error| Status::unknown(format!("write {to}: {e}"))
        };
        match output {
            Output::None => Err(missing()),
            Output::Dir { path, delete } => receive_dir(path, *delete, &target, stream).await,
            Output::File(path) => write_file(path, stream.into_pipe()).await.map(drop).map_err(failed(path)),
            Output::Stdout => {
                copy(stream, tokio::io::stdout()).await.map_err(failed(Path::new("standard output")))
            }
            Output::Writer(writer) => {
                let taken = || Status::already_exists("the archive was written already");
                let writer = writer.take().ok_or_else(taken)?;
                copy(stream, writer).await.map_err(failed(Path::new("output")))
            }
        }
    }
}

async fn copy(stream: RawStream, mut to: impl tokio::io::AsyncWrite + Unpin) -> io::Result<()> {
    tokio::io::copy(&mut stream.into_pipe(), &mut to).await?;
    to.flush().await?;
    to.shutdown().await
}

async fn receive_dir(
    path: &PathBuf,
    delete: bool,
    target: &SendTarget,
    stream: RawStream,
) -> Result<(), Status> {
    if delete && !target.multi_platform {
        return Err(Status::unimplemented(
            "local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
        ));
    }
    let failed =
        |e: String| Status::unknown(format!("failed to create output directory {}: {e}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(e.to_string()))?;
    let root = Root::open(path).map_err(|e| failed(e.to_string()))?;
    let update = if delete { Update::Mirror(Compare::Always) } else { Update::Merge };
    let mut options = ReceiveOptions::new(update, Style::Replace);
    // Owners inside the image mean nothing here.
    options.owner = Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    receive(stream, root, options).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::OutputWriter;

    #[test]
    fn exporters_get_the_sort_of_target_they_write_to() {
        let dir = || Output::Dir { path: "x".into(), delete: false };
        let file = || Output::File("x".into());
        let run = |kind: &str, output: Output| {
            let export = Export { kind: kind.into(), attrs: Default::default(), output };
            Exports::new(&[export]).map(|e| e.is_empty()).map_err(|e| e.message)
        };
        assert_eq!(run("local", dir()), Ok(false));
        assert_eq!(run("image", Output::None), Ok(true));
        for kind in ["tar", "oci", "docker"] {
            assert_eq!(run(kind, Output::Stdout), Ok(false));
            assert_eq!(
                run(kind, Output::None),
                Err(format!("output file writer is required for {kind} exporter"))
            );
        }
        assert_eq!(run("local", file()), Err("output directory is required for local exporter".into()));
        assert_eq!(run("image", file()), Err("output file writer is not supported by image exporter".into()));
        assert_eq!(run("tar", dir()), Err("output directory is not supported by tar exporter".into()));
        assert_eq!(run("oci", dir()), Ok(false));
    }

    #[tokio::test]
    async fn a_writer_gets_one_archive() {
        let (mut read, write) = tokio::io::duplex(1024);
        let output = Output::Writer(OutputWriter::new(write));
        let exports =
            Exports::new(&[Export { kind: "docker".into(), attrs: Default::default(), output }]).unwrap();
        let (ours, theirs) = RawStream::pair();
        // One BytesMessage {data: "hi"}.
        theirs.outgoing.send(bytes::Bytes::from_static(b"\x0a\x02hi")).await.unwrap();
        drop(theirs);
        exports.diff_copy(SendTarget::default(), ours).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut read, &mut text).await.unwrap();
        assert_eq!(text, "hi");
        let again = exports.diff_copy(SendTarget::default(), RawStream::pair().0).await.unwrap_err();
        assert_eq!(again.code(), tonic::Code::AlreadyExists);
        let other = SendTarget { exporter: 5, ..Default::default() };
        let error = exports.diff_copy(other, RawStream::pair().0).await.unwrap_err();
        assert_eq!(error.message(), "exporter 5 not found");
    }
}
