//! The names that the binary answers to.

use std::ffi::OsStr;
use std::path::Path;

/// What the binary is, by the name it was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// `kiln`, and any other name.
    Kiln,
    /// BuildKit's daemon.
    Buildkitd,
    /// BuildKit's client.
    Buildctl,
    /// The Docker CLI's plugin, also alone.
    Buildx,
}

impl Face {
    /// The face of a program that was called as `argv0`.
    pub fn of(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("buildkitd") => Self::Buildkitd,
            Some("buildctl") => Self::Buildctl,
            Some("docker-buildx" | "buildx") => Self::Buildx,
            _ => Self::Kiln,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_of_the_path_counts() {
        let face = |name: &str| Face::of(OsStr::new(name));
        assert_eq!(face("/usr/bin/buildkitd"), Face::Buildkitd);
        assert_eq!(face("buildctl"), Face::Buildctl);
        assert_eq!(face("./docker-buildx"), Face::Buildx);
        assert_eq!(face("/a/buildx"), Face::Buildx);
        assert_eq!(face("kiln-1.2"), Face::Kiln);
        assert_eq!(face(""), Face::Kiln);
    }
}
