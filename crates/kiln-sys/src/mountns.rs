//! A mount namespace of one's own.

use crate::error::{Call, Error, Result};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// Gives the process its own mount namespace, in which nothing it mounts is seen outside, and all of it
/// goes when its last process ends. Mounts made outside still arrive.
///
/// Call it before the first thread: the kernel moves only the calling thread, the others would stay behind.
/// Needs `CAP_SYS_ADMIN`.
pub fn enter_private() -> Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(|e| Error::new(Call::Mount, "/ as rslave", e))
}

/// Moves the calling thread into new namespaces.
///
/// CLONE_NEWPID is for the children made later. Refused (EINVAL) for `CLONE_NEWUSER` in a threaded process,
/// (ENOSPC) when the per-user limit of namespaces is reached.
pub fn unshare(flags: UnshareFlags) -> Result<()> {
    // Sharing the descriptor table is what can break the I/O safety of other threads; no caller needs it.
    if flags.contains(UnshareFlags::FILES) {
        return Err(Error::new(Call::Unshare, "CLONE_FILES", rustix::io::Errno::INVAL));
    }
    // SAFETY: without CLONE_FILES the descriptor table stays shared with the other threads, so every
    // OwnedFd and BorrowedFd stays valid.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|e| Error::new(Call::Unshare, format!("{flags:?}"), e))
}
