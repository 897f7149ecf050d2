//! The proxied network: the HTTP proxy that is a step's only way out.
//!
//! A step gets a network of its own with nothing in it but this proxy ([`Proxy::begin`] serves it on a listener in that
//! network). The proxy sees every request, also those inside TLS, whose certificates it makes itself ([`Serving::ca_pem`]
//! is what the step has to trust); asks a [`Policy`] about it, before any name is looked up; fetches it over the daemon's
//! network, and notes it ([`Record`]). Bodies are streamed and never kept.
//!
//! What comes from the step is hostile: the number of connections, the size of heads, the time to send one, the
//! certificates and the record are bounded, and everything ends with the [`Serving`].

mod authority;
mod body;
mod capture;
mod error;
mod forward;
mod headers;
mod mask;
mod policy;
mod prefixed;
mod record;
mod serve;
mod target;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;

pub use error::ProxyError;
pub use policy::{AllowAll, Denied, Policy, Verdict};
pub use record::{Answer, Incomplete, Material, Reason, Record, Request};
pub use serve::{Proxy, Serving};

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where the proxy listens in the network of a step. That network is new, so the port is free; and it is always the same,
/// so that a step that writes its environment to a file gives the same file. It is none that the kernel gives to
/// outgoing connections.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 61080);

/// The variables that tell programs of the proxy, as BuildKit sets them. They replace those of the same names.
pub fn environment() -> [(&'static str, String); 6] {
    let proxy = format!("http://{ADDRESS}");
    // What a step does with itself needs no proxy.
    let direct = "127.0.0.1,localhost,::1".to_string();
    [
        ("HTTP_PROXY", proxy.clone()),
        ("HTTPS_PROXY", proxy.clone()),
        ("http_proxy", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", direct.clone()),
        ("no_proxy", direct),
    ]
}
