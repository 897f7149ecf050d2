//! A network of a sandbox's own in which the daemon listens.

use crate::error::SandboxError;
use crate::spec::Network;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::UnshareFlags;
use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;

/// Makes a network with nothing in it but a loopback interface, and a socket of the daemon that listens there at `at`:
/// the only way out of it. Nothing in the network can take the address away; the socket is never in a process of a
/// sandbox.
///
/// # Errors
/// If the kernel makes no namespace (`CAP_SYS_ADMIN` is needed).
pub async fn listening_network(at: SocketAddrV4) -> Result<(Network, TcpListener), SandboxError> {
    let (sender, made) = tokio::sync::oneshot::channel();
    // A thread of its own, which ends in the new namespace: none of the runtime's may come back from there.
    let begun = std::thread::Builder::new().name("network".into()).spawn(move || {
        // When nobody waits any more, both go.
        let _ = sender.send(make(at));
    });
    let failed = |e: &dyn std::fmt::Display| SandboxError::prepare("make a network", e);
    begun.map_err(|e| failed(&e))?;
    let (namespace, listener) = made.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    Ok((Network::Namespace(namespace), listener))
}

fn make(at: SocketAddrV4) -> io::Result<(OwnedFd, TcpListener)> {
    kiln_sys::mountns::unshare(UnshareFlags::NEWNET)?;
    kiln_sys::net::loopback_up()?;
    let listener = TcpListener::bind(at)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())?;
    Ok((namespace, listener))
}
