//! The build context and the Dockerfile: which directories, which URL, what stdin is.

use super::args::BuildArgs;
use crate::error::CliError;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes looked at to tell an archive from a Dockerfile.
pub const PEEK: usize = 1024;

/// Where the context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// A directory of the client.
    Directory(PathBuf),
    /// Fetched by the daemon.
    Url(String),
    /// A tar archive on stdin, uploaded.
    StdinArchive,
    /// Only a Dockerfile, on stdin.
    Empty,
}

/// Where the Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// In a directory of the client.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The file in it.
        name: String,
    },
    /// In the context that the daemon fetches or is sent.
    InContext {
        /// Its path there.
        name: String,
    },
    /// Fetched by the daemon before the build.
    Url(String),
    /// On standard input.
    Stdin,
}

/// What the command line says about both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The context.
    pub context: Context,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
}

/// Whether the daemon fetches this: a git or http(s) URL, or a git address.
pub fn is_remote(text: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://", "github.com/"];
    if schemes.iter().any(|s| text.starts_with(s)) {
        return true;
    }
    // user@host:path
    let Some((user, rest)) = text.split_once('@') else { return false };
    let is_user =
        !user.is_empty() && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    is_user
        && rest
            .split_once(':')
            .is_some_and(|(host, path)| !host.is_empty() && !host.contains('/') && !path.is_empty())
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether a stream begins like an archive that can be a context: tar, or compressed.
pub fn is_archive(head: &[u8]) -> bool {
    let magic: [&[u8]; 4] =
        [b"BZh", &[0x1f, 0x8b, 0x08], &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
    magic.iter().any(|m| head.starts_with(m)) || is_tar(head)
}

/// A tar header says its own sum (POSIX.1-1988 ustar, bytes 148 to 155).
fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else { return false };
    let field = String::from_utf8_lossy(&block[148..156]);
    let Ok(wanted) = u32::from_str_radix(field.trim_matches([' ', '\0']), 8) else { return false };
    let sum = |range: &[u8]| range.iter().map(|b| u32::from(*b)).sum::<u32>();
    let sum = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
    wanted == sum && wanted != 8 * u32::from(b' ')
}

/// Reads the first bytes of a stream.
pub fn peek(stdin: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = vec![0; PEEK];
    let mut have = 0;
    while have < PEEK {
        match stdin.read(&mut head[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    head.truncate(have);
    Ok(head)
}

/// Decides from the arguments; `head` is the beginning of stdin, which is read only when the context is `-`.
pub fn resolve(
    args: &BuildArgs,
    head: impl FnOnce() -> Result<Vec<u8>, CliError>,
) -> Result<Inputs, CliError> {
    let file = args.file.as_deref().filter(|f| !f.is_empty());
    match args.context.as_str() {
        "" => Err(CliError::Usage("name the build context, \".\" for the current directory".into())),
        "-" => stdin_context(file, &head()?),
        url if url.starts_with("file://") => {
            Err(CliError::Usage(format!("build context {url}: name the directory without file://")))
        }
        url if is_remote(url) => {
            Ok(Inputs { context: Context::Url(url.to_owned()), dockerfile: remote_file(file) })
        }
        path => directory(path, file),
    }
}

fn stdin_context(file: Option<&str>, head: &[u8]) -> Result<Inputs, CliError> {
    match file {
        Some("-") => Err(CliError::Usage("stdin cannot be both the build context and the Dockerfile".into())),
        _ if head.is_empty() => Err(CliError::Usage("the build context on stdin is empty".into())),
        _ if is_archive(head) => Ok(Inputs { context: Context::StdinArchive, dockerfile: remote_file(file) }),
        Some(_) => Err(CliError::Usage("stdin holds a Dockerfile, and --file names another one".into())),
        None => Ok(Inputs { context: Context::Empty, dockerfile: DockerfileSource::Stdin }),
    }
}

fn remote_file(file: Option<&str>) -> DockerfileSource {
    match file {
        Some("-") => DockerfileSource::Stdin,
        Some(url) if is_http(url) => DockerfileSource::Url(url.to_owned()),
        Some(path) if Path::new(path).is_absolute() => in_directory(Path::new(path)),
        other => DockerfileSource::InContext { name: other.unwrap_or("Dockerfile").to_owned() },
    }
}

fn in_directory(path: &Path) -> DockerfileSource {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    DockerfileSource::Directory { dir: dir.to_owned(), name }
}

fn directory(path: &str, file: Option<&str>) -> Result<Inputs, CliError> {
    let dir = PathBuf::from(path);
    let meta = std::fs::metadata(&dir).map_err(CliError::file("build context", &dir))?;
    if !meta.is_dir() {
        return Err(CliError::Usage(format!("build context {path} is a file; a directory is needed")));
    }
    let dockerfile = match file {
        Some("-") => DockerfileSource::Stdin,
        Some(url) if is_http(url) => DockerfileSource::Url(url.to_owned()),
        Some(file) => in_directory(Path::new(file)),
        None => DockerfileSource::Directory { dir: dir.clone(), name: "Dockerfile".into() },
    };
    if let DockerfileSource::Directory { dir, name } = &dockerfile {
        std::fs::metadata(dir).map_err(CliError::file("directory of the Dockerfile", dir))?;
        // Asked for under this name the daemon would be sent the whole directory.
        if dir.join(name).is_dir() {
            let path = dir.join(name);
            return Err(CliError::Usage(format!("Dockerfile {} is a directory", path.display())));
        }
    }
    let dockerfile = lower_case(dockerfile);
    Ok(Inputs { context: Context::Directory(dir), dockerfile })
}

/// `Dockerfile` may be written `dockerfile` when only that exists.
fn lower_case(source: DockerfileSource) -> DockerfileSource {
    match source {
        DockerfileSource::Directory { dir, name }
            if name == "Dockerfile"
                && !dir.join("Dockerfile").exists()
                && dir.join("dockerfile").exists() =>
        {
            DockerfileSource::Directory { dir, name: "dockerfile".into() }
        }
        other => other,
    }
}
