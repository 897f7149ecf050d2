//! Sealed test environments: the real binary with its own home, daemon, registry and base images.
//!
//! Tests that need root or a program call [`require`] and return when it says no: the skip is printed, never silent.

mod crash;
mod env;
mod image;
mod registry;

pub use crash::Crashing;
pub use env::{Daemon, Env, Output};
pub use image::{Image, Layer, busybox};
pub use registry::Registry;

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for what is sure to come, on a machine that does much else at the same time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `test` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A loopback port for a program that cannot choose one itself. It is below those that the kernel hands out, to
/// connections and to listeners on port 0, so that nobody else gets it in between.
///
/// # Panics
/// If none is free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 11_000 + (std::process::id().wrapping_mul(61).wrapping_add(n) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

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
