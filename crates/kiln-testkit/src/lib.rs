//! Sealed test environments: the real binary with its own home, daemon, registry and base images.
//!
//! Tests that need root or a program call [`require`] and return when it says no: the skip is printed, never silent.

mod env;
mod image;
mod registry;

pub use env::{Daemon, Env, Output};
pub use image::{Image, Layer, busybox};
pub use registry::Registry;

use std::path::Path;

/// What a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Effective uid 0.
    Root,
    /// A program in `PATH`.
    Program(&'static str),
    /// The environment variable is set: the developer allows packages to be fetched from registries.
    Network,
}

/// Whether all `needs` are there; prints what is missing.
pub fn require(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|n| n.missing()).collect();
    if !missing.is_empty() {
        say(&format!("SKIPPED: needs {}", missing.join(", ")));
    }
    missing.is_empty()
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "root".into()),
            Self::Program(name) => find_program(name).is_none().then(|| format!("the program {name}")),
            Self::Network => std::env::var_os("KILN_TEST_NETWORK")
                .is_none()
                .then(|| "KILN_TEST_NETWORK=1 (fetches packages from their registries)".into()),
        }
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:"));
    uid.and_then(|l| l.split_whitespace().nth(1)) == Some("0")
}

/// The path of `name` in `PATH`, or in the folders of system programs.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|dir| Path::new(dir).join(name)).find(|p| p.is_file())
}

#[allow(clippy::print_stderr)] // a skipped test must be seen
fn say(text: &str) {
    eprintln!("{text}");
}
