//! Why a step cannot be given a proxy.

/// A proxy that does not begin. What goes wrong with a request is answered to the step.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The certificates of a step.
    #[error("proxied network: make certificates: {0}")]
    Certificates(String),
    /// The client for upstream servers.
    #[error("proxied network: make an HTTP client: {0}")]
    Client(String),
    /// The listener.
    #[error("proxied network: listen: {0}")]
    Listen(#[from] std::io::Error),
}
