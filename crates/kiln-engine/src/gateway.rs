//! What the engine needs of somebody who knows the wire.

use crate::{Bridge, PolicyAnswer, PolicyCheck};
use futures::future::BoxFuture;
use kiln_llb::errdefs::BuildError;
use kiln_session::Session;

/// A connection in both directions, such as a process' stdin and stdout.
pub type BoxedStream = Box<dyn kiln_source::Duplex>;

/// Serves bridges, and asks clients. The engine knows no wire messages; who composes it passes this in.
pub trait GatewayServer: Send + Sync + std::fmt::Debug {
    /// Serves `bridge` on `stream` until that ends.
    fn serve(&self, bridge: Bridge, stream: BoxedStream) -> BoxFuture<'static, ()>;

    /// Asks a client about a source. An error means that the source may not be used.
    fn check_policy(
        &self,
        session: Session,
        check: PolicyCheck,
    ) -> BoxFuture<'static, Result<PolicyAnswer, BuildError>>;
}
