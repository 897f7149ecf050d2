//! stdin as a Dockerfile or as the beginning of a context.

use crate::build::context::peek;
use crate::error::CliError;
use crate::printer;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use tempfile::TempDir;

/// A Dockerfile larger than this is none.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// The first bytes of stdin.
pub fn head() -> Result<Vec<u8>, CliError> {
    say_that_it_waits("the build context or a Dockerfile");
    peek(&mut std::io::stdin().lock()).map_err(CliError::stream("reading stdin"))
}

/// A Dockerfile from stdin in a directory of its own, removed when dropped.
pub struct StdinDockerfile {
    dir: TempDir,
    /// An empty directory to be the context.
    pub context: Option<PathBuf>,
}

impl StdinDockerfile {
    /// The directory that holds `Dockerfile`.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("dockerfile")
    }

    /// Writes a Dockerfile, and makes an empty context beside it when one is needed.
    pub fn write(text: &[u8], empty_context: bool) -> Result<Self, CliError> {
        let dir = tempfile::Builder::new()
            .prefix("kiln-build-")
            .tempdir()
            .map_err(CliError::file("temporary directory", std::env::temp_dir()))?;
        let files = Self { context: empty_context.then(|| dir.path().join("context")), dir };
        for path in [Some(files.dir()), files.context.clone()].into_iter().flatten() {
            std::fs::create_dir(&path).map_err(CliError::file("temporary directory", &path))?;
        }
        let path = files.dir().join("Dockerfile");
        std::fs::write(&path, text).map_err(CliError::file("writing the Dockerfile to", &path))?;
        Ok(files)
    }
}

/// Someone who types must know that they are waited for.
fn say_that_it_waits(what: &str) {
    if std::io::stdin().is_terminal() {
        printer::people(&format!("reading {what} from the terminal; Ctrl-D ends it\n"));
    }
}

/// Reads the rest of stdin, behind what was read already.
pub fn dockerfile(head: &[u8], empty_context: bool) -> Result<StdinDockerfile, CliError> {
    if head.is_empty() {
        say_that_it_waits("the Dockerfile");
    }
    let mut text = head.to_vec();
    let limit = MAX_DOCKERFILE - head.len() as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut text)
        .map_err(CliError::stream("reading the Dockerfile from stdin"))?;
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(CliError::Usage(
            "stdin is neither an archive nor a Dockerfile: it is larger than 16 MiB".into(),
        ));
    }
    StdinDockerfile::write(&text, empty_context)
}
