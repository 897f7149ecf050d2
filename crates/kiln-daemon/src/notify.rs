//! Tells the service manager how the daemon is (sd_notify(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Ready to serve.
pub(crate) fn ready() {
    say("READY=1");
}

/// About to end.
pub(crate) fn stopping() {
    say("STOPPING=1");
}

fn say(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "tell the service manager");
    }
}

fn send(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("kiln-notify-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut got = [0; 32];
        send(path.as_os_str(), "READY=1").unwrap();
        let n = by_path.recv(&mut got).unwrap();
        assert_eq!(&got[..n], b"READY=1");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        let n = by_name.recv(&mut got).unwrap();
        assert_eq!(&got[..n], b"STOPPING=1");
        assert!(send(OsStr::new("/no/such/socket"), "READY=1").is_err());
    }
}
