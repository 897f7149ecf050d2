//! The loopback interface of a new network namespace.

use crate::error::{Call, Error, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::AsRawFd;

/// Brings up `lo` in the caller's network namespace; the kernel then gives it 127.0.0.1 and ::1.
///
/// Needs `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::new(Call::Socket, "AF_INET", e))?;
    // SAFETY: ifreq is a name and a union of plain data, for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a NUL-terminated name (the rest of the array is zero) and the
    // flags member set; it outlives the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) };
    if ret == 0 { Ok(()) } else { Err(Error::last(Call::Ioctl, "SIOCSIFFLAGS lo")) }
}
