//! What a client asks for, and what it gets.

use crate::{FrontendRequest, SourceRules};
use kiln_digest::Digest;
use kiln_llb::Definition;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Which sources it may use.
    pub sources: SourceRules,
    /// Its steps have no other network than the proxied one.
    pub proxy_network: bool,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    /// Steps on the host's network.
    NetworkHost,
    /// Privileged steps.
    SecurityInsecure,
    /// Devices of the machine.
    Device(DeviceGrant),
}

/// Which devices a build may use beside those that need no entitlement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceGrant {
    /// All.
    All,
    /// Those that a name means.
    Named {
        /// As steps name devices.
        name: String,
        /// What the build calls it; its own name is then not granted.
        alias: Option<String>,
    },
}

impl DeviceGrant {
    /// The device that `name` is an alias of.
    pub(crate) fn by_alias(&self, name: &str) -> Option<&str> {
        match self {
            Self::Named { name: device, alias: Some(alias) } if alias == name => Some(device),
            Self::Named { .. } | Self::All => None,
        }
    }

    /// `NAME[,alias=NAME]`; empty is all.
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        let fields = kiln_go::csv::fields(text).map_err(|e| e.to_string())?;
        let mut fields = fields.into_iter();
        let name = fields.next().unwrap_or_default().to_string();
        let mut alias = None;
        for field in fields {
            match field.split_once('=') {
                Some(("alias", value)) => alias = Some(value.to_string()).filter(|a| !a.is_empty()),
                Some((key, _)) => return Err(format!("unknown device config key {key:?}")),
                None => return Err(format!("invalid device config {field:?}")),
            }
        }
        Ok(Self::Named { name, alias })
    }
}

impl Entitlement {
    /// The name on the wire and in configurations.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
            Self::Device(_) => "device",
        }
    }
}

impl std::str::FromStr for Entitlement {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "network.host" => Ok(Self::NetworkHost),
            "security.insecure" => Ok(Self::SecurityInsecure),
            "device" => Ok(Self::Device(DeviceGrant::All)),
            _ if name.starts_with("device=") => {
                DeviceGrant::parse(&name["device=".len()..]).map(Self::Device)
            }
            _ => Err(format!("invalid entitlement : {name}")),
        }
    }
}

/// What a build returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// Keys of all exporters.
    pub exporter_response: BTreeMap<String, String>,
    /// For the history: the image of each exporter that made one, by its place.
    pub images: BTreeMap<usize, kiln_history::Image>,
    /// What the steps that ran fetched through their proxies, by step.
    pub fetched: BTreeMap<Digest, Arc<kiln_proxy::Record>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_read() {
        let named = |name: &str, alias: Option<&str>| {
            Ok(Entitlement::Device(DeviceGrant::Named {
                name: name.into(),
                alias: alias.map(str::to_string),
            }))
        };
        assert_eq!("network.host".parse(), Ok(Entitlement::NetworkHost));
        for all in ["device", "device="] {
            assert_eq!(all.parse(), Ok(Entitlement::Device(DeviceGrant::All)));
        }
        assert_eq!("device=v/d=x".parse(), named("v/d=x", None));
        assert_eq!("device=v/d=x,alias=y".parse(), named("v/d=x", Some("y")));
        let wrong = |text: &str| text.parse::<Entitlement>().unwrap_err();
        assert_eq!(wrong("device=x,y"), "invalid device config \"y\"");
        assert_eq!(wrong("device=x,y=z"), "unknown device config key \"y\"");
        assert_eq!(wrong("devices"), "invalid entitlement : devices");
    }
}
