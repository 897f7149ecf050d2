//! Where a daemon listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::remote::Remote;

/// Where root's daemon listens.
const SYSTEM_SOCKET: &str = "/run/kiln/kilnd.sock";

/// The address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix://<path>`
    Unix(PathBuf),
    /// `tcp://<host>:<port>`; encrypted only when the connection is given certificates.
    Tcp(String),
    /// Through a program that reaches the daemon's machine, container or pod, and runs `buildctl dial-stdio` there.
    Remote(Remote),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `scheme://`.
    #[error(
        "invalid address {0:?}: expected unix://<path>, tcp://<host>:<port>, ssh://<host> or docker-container://<name>"
    )]
    Form(String),
    /// A scheme that is not known, or not on this system.
    #[error("address {address:?}: {why}")]
    Scheme {
        /// The whole address.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A part of the address is missing or not allowed.
    #[error("address {address:?}: {why}")]
    Part {
        /// The whole address.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_string());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let unusable = |why: String| AddressError::Scheme { address: text.to_string(), why };
        match scheme {
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "tcp" if rest.contains(':') => Ok(Self::Tcp(rest.to_string())),
            "unix" | "tcp" => Err(form()),
            "npipe" => Err(unusable("npipe connections are only supported on windows".into())),
            _ => match Remote::parse(text) {
                Ok(Some(remote)) => Ok(Self::Remote(remote)),
                Ok(None) => Err(unusable(format!("scheme {scheme} is not supported"))),
                Err(why) => Err(AddressError::Part { address: text.to_string(), why }),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl Address {
    /// The address that the environment names: `$KILN_HOST`, else `$BUILDKIT_HOST`.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, AddressError> {
        let set = |name| env(name).filter(|value| !value.is_empty());
        set("KILN_HOST").or_else(|| set("BUILDKIT_HOST")).map(|text| text.parse()).transpose()
    }

    /// Where the daemon of this user listens if nothing else is said: `/run/kiln/kilnd.sock` for root; for others in
    /// `$XDG_RUNTIME_DIR`, or in `/run/user/<uid>` where that is not set, unless only root's is open to them.
    pub fn default_socket(
        env: impl Fn(&str) -> Option<String>,
        uid: u32,
        is_open: impl Fn(&Path) -> bool,
    ) -> Self {
        let system = PathBuf::from(SYSTEM_SOCKET);
        let own = match (uid, env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())) {
            (0, _) => return Self::Unix(system),
            (_, Some(dir)) => PathBuf::from(dir).join("kiln/kilnd.sock"),
            (uid, None) => PathBuf::from(format!("/run/user/{uid}/kiln/kilnd.sock")),
        };
        Self::Unix(if !is_open(&own) && is_open(&system) { system } else { own })
    }

    /// The name that a certificate of the daemon has to be for, unless another is given; empty for a socket.
    pub fn host(&self) -> String {
        match self {
            Self::Unix(_) => String::new(),
            Self::Tcp(host) => {
                let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
                name.trim_start_matches('[').trim_end_matches(']').to_string()
            }
            Self::Remote(remote) => remote.host().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_others_are_named() {
        for text in [
            "unix:///run/x.sock",
            "tcp://127.0.0.1:1234",
            "ssh://me@host:22/run/x.sock",
            "docker-container://b?context=c",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "/run/x.sock", "unix://", "tcp://host"] {
            assert!(matches!(text.parse::<Address>(), Err(AddressError::Form(_))), "{text}");
        }
        let error = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert_eq!(
            error("npipe:////./pipe/b"),
            "address \"npipe:////./pipe/b\": npipe connections are only supported on windows"
        );
        assert_eq!(error("foo://b"), "address \"foo://b\": scheme foo is not supported");
        assert_eq!(error("docker-container://"), "address \"docker-container://\": url lacks container name");
    }

    #[test]
    fn the_host_of_an_address() {
        let host = |text: &str| text.parse::<Address>().unwrap().host();
        assert_eq!(host("tcp://a.example:1"), "a.example");
        assert_eq!(host("tcp://[::1]:1"), "::1");
        assert_eq!(host("unix:///x"), "");
        assert_eq!(host("ssh://u@h:1/x"), "h");
    }

    #[test]
    fn the_environment_and_the_user_decide() {
        let env = |list: &'static [(&'static str, &'static str)]| {
            move |name: &str| list.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        };
        assert_eq!(Address::from_env(env(&[("KILN_HOST", "")])), Ok(None));
        let both = env(&[("BUILDKIT_HOST", "tcp://b:1"), ("KILN_HOST", "tcp://k:1")]);
        assert_eq!(Address::from_env(both), Ok(Some(Address::Tcp("k:1".into()))));
        let xdg = env(&[("XDG_RUNTIME_DIR", "/x")]);
        let default = |uid, open: &[&str]| {
            Address::default_socket(xdg, uid, |path| open.iter().any(|o| Path::new(o) == path)).to_string()
        };
        let (own, system) = ("/x/kiln/kilnd.sock", "/run/kiln/kilnd.sock");
        assert_eq!(default(7, &[]), "unix:///x/kiln/kilnd.sock");
        assert_eq!(default(7, &[own, system]), "unix:///x/kiln/kilnd.sock");
        assert_eq!(default(7, &[system]), "unix:///run/kiln/kilnd.sock");
        assert_eq!(default(0, &[own]), "unix:///run/kiln/kilnd.sock");
    }
}
