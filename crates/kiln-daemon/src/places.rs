//! Where the configuration, the state and the socket are when nothing else is said.

use std::path::{Path, PathBuf};

/// Whose usual places are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// kiln's own.
    #[default]
    Kiln,
    /// Those of BuildKit's daemon.
    Buildkitd,
}

/// The three places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usual {
    pub(crate) config: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) addr: String,
}

/// What the places depend on.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Effective user id is 0.
    pub(crate) root: bool,
    /// Effective user id.
    pub(crate) uid: u32,
    /// Not the machine's first user namespace.
    pub(crate) user_namespace: bool,
    /// Reads an environment variable.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings<'_> {
    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|v| !v.is_empty())
    }

    /// The first of a list of folders.
    fn dir(&self, name: &str) -> Option<PathBuf> {
        self.var(name).and_then(|v| v.split(':').next().map(PathBuf::from))
    }

    fn home(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }

    /// As BuildKit sees it: in a user namespace, and not as the user who is root in it (spec daemon-and-cli.md, flags).
    pub(crate) fn rootless(&self) -> bool {
        self.user_namespace && self.var("USER").is_some_and(|user| user != "root")
    }
}

impl Places {
    pub(crate) fn usual(self, s: Surroundings<'_>) -> Usual {
        match self {
            Self::Kiln => kiln(s),
            Self::Buildkitd => buildkitd(s),
        }
    }
}

fn kiln(s: Surroundings<'_>) -> Usual {
    let config = "/etc/kiln/kiln.toml".into();
    if s.root {
        return Usual { config, root: "/var/lib/kiln".into(), addr: "unix:///run/kiln/kilnd.sock".into() };
    }
    let data = s.dir("XDG_DATA_HOME").unwrap_or_else(|| s.home().unwrap_or_default().join(".local/share"));
    // Where clients look.
    let run = s.var("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", s.uid));
    Usual { config, root: data.join("kiln"), addr: format!("unix://{run}/kiln/kilnd.sock") }
}

fn buildkitd(s: Surroundings<'_>) -> Usual {
    let (mut config, mut root) = (PathBuf::from("/etc/buildkit"), PathBuf::from("/var/lib/buildkit"));
    let mut run = PathBuf::from("/run");
    if s.rootless() {
        let below_home = |var: &str, usual: &str| {
            s.dir(var).or_else(|| s.home().map(|h| h.join(usual))).map(|d| d.join("buildkit"))
        };
        config = below_home("XDG_CONFIG_HOME", ".config").unwrap_or(config);
        root = below_home("XDG_DATA_HOME", ".local/share").unwrap_or(root);
        run = s.dir("XDG_RUNTIME_DIR").unwrap_or(run);
    }
    let socket = run.join(Path::new("buildkit/buildkitd.sock"));
    Usual { config: config.join("buildkitd.toml"), root, addr: format!("unix://{}", socket.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(places: Places, root: bool, user_namespace: bool, vars: &[(&str, &str)]) -> Usual {
        let vars: std::collections::HashMap<String, String> =
            vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let env = |name: &str| vars.get(name).cloned();
        places.usual(Surroundings { root, uid: 1000, user_namespace, env: &env })
    }

    fn usual(config: &str, root: &str, addr: &str) -> Usual {
        Usual { config: config.into(), root: root.into(), addr: addr.into() }
    }

    #[test]
    fn buildkitds_places() {
        let system =
            usual("/etc/buildkit/buildkitd.toml", "/var/lib/buildkit", "unix:///run/buildkit/buildkitd.sock");
        assert_eq!(at(Places::Buildkitd, true, false, &[("XDG_DATA_HOME", "/x"), ("USER", "me")]), system);
        assert_eq!(at(Places::Buildkitd, true, true, &[("HOME", "/h"), ("USER", "root")]), system);
        assert_eq!(at(Places::Buildkitd, true, true, &[("USER", "me")]), system);
        assert_eq!(
            at(
                Places::Buildkitd,
                true,
                true,
                &[("USER", "me"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r:/s")]
            ),
            usual(
                "/h/.config/buildkit/buildkitd.toml",
                "/h/.local/share/buildkit",
                "unix:///r/buildkit/buildkitd.sock"
            )
        );
        let xdg = [("USER", "me"), ("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "/d")];
        assert_eq!(
            at(Places::Buildkitd, true, true, &xdg),
            usual("/c/buildkit/buildkitd.toml", "/d/buildkit", "unix:///run/buildkit/buildkitd.sock")
        );
    }

    #[test]
    fn kilns_places() {
        let root = at(Places::Kiln, true, false, &[]);
        assert_eq!(root, usual("/etc/kiln/kiln.toml", "/var/lib/kiln", "unix:///run/kiln/kilnd.sock"));
        let user = at(Places::Kiln, false, false, &[("HOME", "/h")]);
        assert_eq!(
            user,
            usual("/etc/kiln/kiln.toml", "/h/.local/share/kiln", "unix:///run/user/1000/kiln/kilnd.sock")
        );
    }
}
