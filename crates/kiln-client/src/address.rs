//! Where a daemon listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix://<path>`
    Unix(PathBuf),
    /// `tcp://<host>:<port>`, not encrypted.
    Tcp(String),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `scheme://`.
    #[error("invalid address {0:?}: expected unix://<path> or tcp://<host>:<port>")]
    Form(String),
    /// A scheme that BuildKit's client knows and this one does not.
    #[error("address {0:?}: scheme {1} is not supported, use unix:// or tcp://")]
    Scheme(String, String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_string());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        match scheme {
            _ if rest.is_empty() => Err(form()),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" if rest.contains(':') => Ok(Self::Tcp(rest.to_string())),
            "tcp" => Err(form()),
            other => Err(AddressError::Scheme(text.to_string(), other.to_string())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

impl Address {
    /// The address that the environment names: `$KILN_HOST`, else `$BUILDKIT_HOST`.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, AddressError> {
        let set = |name| env(name).filter(|value| !value.is_empty());
        set("KILN_HOST").or_else(|| set("BUILDKIT_HOST")).map(|text| text.parse()).transpose()
    }

    /// Where a daemon of this user listens if nothing else is said: `/run/kiln/kilnd.sock` for root, else in
    /// `$XDG_RUNTIME_DIR`, or in `/run/user/<uid>` where that is not set.
    pub fn default_socket(env: impl Fn(&str) -> Option<String>, uid: u32) -> Self {
        let path = match (uid, env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())) {
            (0, _) => PathBuf::from("/run/kiln/kilnd.sock"),
            (_, Some(dir)) => PathBuf::from(dir).join("kiln/kilnd.sock"),
            (uid, None) => PathBuf::from(format!("/run/user/{uid}/kiln/kilnd.sock")),
        };
        Self::Unix(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_others_are_named() {
        for text in ["unix:///run/x.sock", "tcp://127.0.0.1:1234"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "/run/x.sock", "unix://", "tcp://host"] {
            assert!(matches!(text.parse::<Address>(), Err(AddressError::Form(_))), "{text}");
        }
        let error = "docker-container://b".parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("scheme docker-container is not supported"), "{error}");
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
        assert_eq!(Address::default_socket(xdg, 7).to_string(), "unix:///x/kiln/kilnd.sock");
        assert_eq!(Address::default_socket(env(&[]), 0).to_string(), "unix:///run/kiln/kilnd.sock");
    }
}
