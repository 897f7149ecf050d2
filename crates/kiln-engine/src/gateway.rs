//! Serving a bridge to a frontend that runs in a container.

use crate::Bridge;
use futures::future::BoxFuture;

/// A connection in both directions, such as a process' stdin and stdout.
pub type BoxedStream = Box<dyn kiln_source::Duplex>;

/// Serves bridges. The engine knows no wire messages; who composes it passes this in.
pub trait GatewayServer: Send + Sync + std::fmt::Debug {
    /// Serves `bridge` on `stream` until that ends.
    fn serve(&self, bridge: Bridge, stream: BoxedStream) -> BoxFuture<'static, ()>;
}
