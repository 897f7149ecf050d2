//! Every syscall that has no safe wrapper elsewhere, and all `unsafe` code of the workspace.
//!
//! Each function is one step with its own [`Call`] in the error, so that a failure names the call and
//! the object. The oldest kernel that has them all is Linux 5.12 (`mount_setattr`).

mod error;

pub mod bpf;
pub mod caps;
pub mod mount;
pub mod mountns;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod socket;

pub use error::{Call, Error, Result};
pub use rustix::io::Errno;
