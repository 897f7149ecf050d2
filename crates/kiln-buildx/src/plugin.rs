//! The Docker CLI on the other side (spec daemon-and-cli.md section 7).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use kiln_cli::printer;
use serde_json::json;

/// The word by which the Docker CLI asks what this is.
pub(crate) const METADATA: &str = "docker-cli-plugin-metadata";
/// Set when the Docker CLI runs us.
const ORIGINAL: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// A socket that the Docker CLI closes when we are to end.
const SOCKET: &str = "DOCKER_CLI_PLUGIN_SOCKET";

/// The version of buildx whose commands these are, by which tools choose their flags.
pub(crate) const VERSION: &str = "v0.30.0-kiln";
/// Version of kiln itself, where buildx has a commit.
pub(crate) const REVISION: &str = env!("CARGO_PKG_VERSION");

/// Whether the Docker CLI runs us.
pub(crate) fn is_plugin() -> bool {
    std::env::var_os(ORIGINAL).is_some_and(|v| !v.is_empty())
}

/// What the Docker CLI wants to know before it runs us.
pub(crate) fn metadata() -> String {
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "kiln",
        "Version": VERSION,
        "ShortDescription": "Docker Buildx",
    });
    format!("{metadata:#}\n")
}

/// Ends this process as a signal would when the Docker CLI is gone or says so.
pub(crate) fn follow_docker() {
    let Some(path) = std::env::var(SOCKET).ok().filter(|v| !v.is_empty()) else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let stream = match address.and_then(|a| UnixStream::connect_addr(&a)) {
        Ok(stream) => stream,
        Err(e) => {
            // As the real one: without the socket it still works.
            printer::warning(&format!("the socket of the Docker CLI {path}: {e}"));
            return;
        }
    };
    let wait = move || {
        // Nothing that it may say means anything; only its end does.
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    // Without the thread only this way to be stopped is missing.
    let _ = std::thread::Builder::new().name("docker".into()).spawn(wait);
}
