//! The proxy between real sockets.

mod http;
mod nonsense;
mod tls;
mod world;
