//! What a client asks for, and what it gets.

use crate::FrontendRequest;
use kiln_llb::Definition;
use std::collections::BTreeMap;

/// One build.
#[derive(Clone, Debug, Default)]
pub struct SolveRequest {
    /// Chosen by the client; names the build in `status`.
    pub id: String,
    /// The client's session.
    pub session: String,
    /// What to build.
    pub input: SolveInput,
    /// What to do with the result, in order.
    pub exporters: Vec<ExporterSpec>,
    /// What the build may do beyond the usual.
    pub entitlements: Vec<Entitlement>,
    /// Ask the session for more exporters when the result is known.
    pub session_exporter: bool,
    /// Not shown in the history.
    pub internal: bool,
    /// For the history: what the client tells frontends of a build that it drives itself.
    pub attrs: BTreeMap<String, String>,
}

/// What to build.
#[derive(Clone, Debug)]
pub enum SolveInput {
    /// A graph, ready made.
    Definition(Definition),
    /// A frontend makes the graph.
    Frontend(FrontendRequest),
    /// The client drives the build through [`crate::Bridge`]; it waits for what that returns.
    Client {
        /// Named graphs that the client finds at the bridge.
        inputs: BTreeMap<String, Definition>,
    },
}

impl Default for SolveInput {
    fn default() -> Self {
        Self::Definition(Definition::default())
    }
}

/// An exporter as on the wire; typed by kiln-export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExporterSpec {
    /// Such as `image`.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

/// Something a build may do only when both the client and the daemon's configuration say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    /// Steps on the host's network.
    NetworkHost,
    /// Privileged steps.
    SecurityInsecure,
}

impl Entitlement {
    /// The name on the wire and in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}

impl std::str::FromStr for Entitlement {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "network.host" => Ok(Self::NetworkHost),
            "security.insecure" => Ok(Self::SecurityInsecure),
            _ => Err(format!("invalid entitlement : {name}")),
        }
    }
}

/// What a build returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// Keys of all exporters.
    pub exporter_response: BTreeMap<String, String>,
    /// For the history: what the frontend said of the result.
    pub metadata: BTreeMap<String, String>,
    /// For the history: the image of each exporter that made one, by its place.
    pub images: BTreeMap<usize, kiln_history::Image>,
}
