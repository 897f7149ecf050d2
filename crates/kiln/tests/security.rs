//! Ways out of a build that builders have had, tried through the real binary: hostile archives, images, registries,
//! steps and addresses. Each test names the advisories it is about.

mod common;

#[path = "security/archives.rs"]
mod archives;
#[path = "security/canary.rs"]
mod canary;
#[path = "security/copies.rs"]
mod copies;
#[path = "security/images.rs"]
mod images;
#[path = "security/leaks.rs"]
mod leaks;
#[path = "security/mounts.rs"]
mod mounts;
#[path = "security/registry.rs"]
mod registry;
#[path = "security/server.rs"]
mod server;
#[path = "security/steps.rs"]
mod steps;
#[path = "security/tarball.rs"]
mod tarball;
