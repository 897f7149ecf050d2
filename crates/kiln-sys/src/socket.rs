//! Messages with descriptors over a SEQPACKET pair: boundaries are kept, an end of file means the peer is gone.

use crate::error::{Call, Error, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The kernel's limit of descriptors in one message (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// Makes a connected pair, closed on exec and blocking.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::new(Call::Socketpair, "", e))
}

/// Sends one message. EPIPE when the peer is gone (without SIGPIPE), EAGAIN when `wait` is off and the
/// queue is full, EMSGSIZE for more than the socket buffer takes, ETOOMANYREFS beyond [`MAX_FDS`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: bool) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The buffer is rounded up, so its own refusal would come one too late.
    if fds.len() > MAX_FDS || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(Error::new(Call::Sendmsg, format!("{} descriptors", fds.len()), Errno::TOOMANYREFS));
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !wait);
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))
        .map(|_| ())
        .map_err(|e| Error::new(Call::Sendmsg, "", e))
}

/// One received message.
#[derive(Debug)]
pub struct Message {
    /// The bytes; empty (with no descriptors) at the end of file.
    pub bytes: Vec<u8>,
    /// The descriptors, closed on exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message of at most `limit` bytes. EAGAIN when `wait` is off and there is none, EMSGSIZE when
/// it is longer or descriptors were lost; the descriptors that did arrive are closed then.
pub fn receive(socket: BorrowedFd<'_>, limit: usize, wait: bool) -> Result<Message> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; limit];
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, !wait);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    })
    .map_err(|e| Error::new(Call::Recvmsg, "", e))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::new(Call::Recvmsg, "truncated message", Errno::MSGSIZE));
    }
    bytes.truncate(received.bytes);
    Ok(Message { bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_keep_their_bounds_and_descriptors() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send(a.as_fd(), b"one", &[write.as_fd(), read.as_fd()], true).unwrap();
        send(a.as_fd(), b"two", &[], true).unwrap();
        let first = receive(b.as_fd(), 16, true).unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (&b"one"[..], 2));
        rustix::io::write(&first.fds[0], b"through").unwrap();
        let mut buf = [0; 16];
        assert_eq!(rustix::io::read(&read, &mut buf).unwrap(), 7);
        assert_eq!(receive(b.as_fd(), 16, true).unwrap().bytes, b"two");
        assert_eq!(receive(b.as_fd(), 16, false).unwrap_err().errno, Errno::AGAIN);
        send(a.as_fd(), b"too long", &[], true).unwrap();
        assert_eq!(receive(b.as_fd(), 4, true).unwrap_err().errno, Errno::MSGSIZE);
        drop(a);
        let end = receive(b.as_fd(), 16, true).unwrap();
        assert!(end.bytes.is_empty() && end.fds.is_empty());
        assert_eq!(send(b.as_fd(), b"x", &[], true).unwrap_err().errno, Errno::PIPE);
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_takes() {
        let (a, b) = pair().unwrap();
        let fds = vec![a.as_fd(); MAX_FDS];
        send(a.as_fd(), b"x", &fds, true).unwrap();
        assert_eq!(receive(b.as_fd(), 1, true).unwrap().fds.len(), MAX_FDS);
        let too_many = vec![a.as_fd(); MAX_FDS + 1];
        assert_eq!(send(a.as_fd(), b"x", &too_many, true).unwrap_err().errno, Errno::TOOMANYREFS);
    }
}
