//! Errors, as they are printed.

use kiln_client::{ConnectError, TlsError};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::mask_credentials;
use kiln_progress::{LineRange, SourceFile, print_source_excerpt};
use std::fmt;
use std::io;
use std::path::Path;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// The text says it all.
    Text(String),
    /// The daemon says so.
    Daemon(Box<BuildError>),
    /// stdout cannot be written.
    Output(io::Error),
    /// Stopped by a signal.
    Canceled,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Daemon(error) => f.write_str(&reason(&mask_credentials(&error.message))),
            Self::Output(error) => write!(f, "write /dev/stdout: {}", system(error)),
            Self::Canceled => f.write_str("context canceled"),
        }
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<kiln_cli::error::CliError> for Error {
    fn from(error: kiln_cli::error::CliError) -> Self {
        Self::Text(error.to_string())
    }
}

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::Daemon(Box::new(error))
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::Text(match &error {
            // The file is named by the flag.
            TlsError::Content { what: "ca certificate", why, .. } => why.clone(),
            TlsError::Content { what, why, .. } => format!("could not read {what}: tls: {why}"),
            _ => reason(&error.to_string()),
        })
    }
}

impl Error {
    /// A reader that went away is nothing to talk about.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// A file that cannot be used: `open /x: permission denied`.
    pub(crate) fn file(doing: &str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let name = format!("{doing} {}", path.as_ref().display());
        move |e| Self::Text(format!("{name}: {}", system(&e)))
    }

    /// An error in the middle of a stream of answers.
    pub(crate) fn of_stream(error: BuildError) -> Self {
        Self::Text(format!("rpc error: code = {:?} desc = {}", error.code, error.message))
    }

    /// Excerpts of the sources, then the error.
    pub(crate) fn report(&self) -> String {
        let mut out = Vec::new();
        if let Self::Daemon(build) = self {
            for (info, ranges) in build.sources() {
                let text = String::from_utf8_lossy(&info.data);
                let source = SourceFile {
                    filename: info.filename.clone(),
                    data: mask_credentials(&text).into_owned().into_bytes(),
                    language: String::new(),
                };
                let ranges: Vec<_> =
                    ranges.iter().map(|r| LineRange { start: r.start.line, end: r.end.line }).collect();
                // Writing to memory does not fail.
                let _ = print_source_excerpt(&source, &ranges, &mut out);
            }
        }
        let error = kiln_progress::printable_lines(&format!("error: {self}\n"));
        format!("{}{error}", String::from_utf8_lossy(&out))
    }
}

/// What the system says, in the words of Go's programs.
pub(crate) fn system(error: &io::Error) -> String {
    reason(&error.to_string())
}

/// The same for a text that ends with what the system says: `x: Permission denied (os error 13)`.
pub(crate) fn reason(text: &str) -> String {
    let is_number = |n: &str| n.strip_suffix(')').is_some_and(|n| n.parse::<i32>().is_ok());
    let Some((text, _)) = text.rsplit_once(" (os error ").filter(|(_, n)| is_number(n)) else {
        return text.to_owned();
    };
    let at = text.rfind(": ").map_or(0, |at| at + 2);
    let (before, words) = text.split_at(at);
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.map(|c| format!("{before}{c}{}", letters.as_str())).unwrap_or_default()
}

/// How a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// Once; its errors have this context.
    Unary(&'a str),
    /// With a stream.
    Stream(&'a str),
}

impl Call<'_> {
    /// The error of a call that found no daemon. `why` is what happened, such as `dial unix /x: connect: ...`.
    pub(crate) fn unreachable(self, why: &str) -> Error {
        let colon = |context: &str| if context.is_empty() { String::new() } else { format!("{context}: ") };
        let desc = format!("connection error: desc = \"{why}\"");
        let code = Code::Unavailable;
        Error::Text(match self {
            Self::Unary(context) => format!("{}{code:?}: {desc}", colon(context)),
            Self::Stream(context) => format!(
                "{}rpc error: code = {code:?} desc = rpc error: code = {code:?} desc = {desc}",
                colon(context)
            ),
        })
    }

    /// A failed connection as the error of the call that needed it.
    pub(crate) fn not_connected(self, error: ConnectError) -> Error {
        match error {
            ConnectError::Tls(e) => e.into(),
            ConnectError::NoDaemon { address, reason: why } => self.unreachable(&dialing(&address, &why)),
            ConnectError::NotDaemon { reason: why, .. } => {
                self.unreachable(&format!("error reading server preface: {}", reason(&why)))
            }
            other => Error::Text(other.to_string()),
        }
    }
}

fn dialing(address: &kiln_client::Address, why: &str) -> String {
    use kiln_client::Address::{Remote, Tcp, Unix};
    let why = reason(why);
    match address {
        Unix(path) => format!("transport: Error while dialing: dial unix {}: connect: {why}", path.display()),
        Tcp(host) if why.starts_with("failed to lookup address") => {
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            format!("transport: Error while dialing: dial tcp: lookup {name}: no such host")
        }
        Tcp(host) if why.contains("certificate") || why.contains("tls") => {
            format!("transport: authentication handshake failed: {host}: {why}")
        }
        Tcp(host) => format!("transport: Error while dialing: dial tcp {host}: connect: {why}"),
        Remote(_) if why.starts_with("start ") && why.ends_with("no such file or directory") => {
            let program = why.trim_start_matches("start ").split(':').next().unwrap_or_default();
            format!(
                "transport: Error while dialing: exec: \\\"{program}\\\": executable file not found in $PATH"
            )
        }
        Remote(_) => format!("transport: Error while dialing: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_system() {
        assert_eq!(
            reason("open /X: No such file or directory (os error 2)"),
            "open /X: no such file or directory"
        );
        assert_eq!(reason("Permission denied (os error 13)"), "permission denied");
        for text in ["no connection in 5 s", "A: B (os error 2): more"] {
            assert_eq!(reason(text), text);
        }
    }

    #[test]
    fn a_daemon_that_is_not_there() {
        let error = || ConnectError::NoDaemon {
            address: "unix:///nowhere".parse().unwrap(),
            reason: "No such file or directory (os error 2)".into(),
        };
        assert_eq!(
            Call::Unary("failed to list workers").not_connected(error()).to_string(),
            "failed to list workers: Unavailable: connection error: desc = \"transport: Error while dialing: dial unix /nowhere: connect: no such file or directory\""
        );
        assert!(Call::Stream("").not_connected(error()).to_string().starts_with(
            "rpc error: code = Unavailable desc = rpc error: code = Unavailable desc = connection error"
        ));
    }
}
