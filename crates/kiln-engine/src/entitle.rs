//! What a graph may not do without being allowed to. Every path that starts a process passes here.
//!
//! Errors have no code of their own: Go clients print any other before the text, and users know these texts without.

mod devices;

use crate::Entitlement;
use kiln_llb::errdefs::BuildError;
use kiln_llb::{Definition, ExecOp, NetMode, Op, SecurityMode};

/// The entitlements that the daemon allows and the client asked for.
///
/// # Errors
/// If the client asks for one that the daemon does not allow.
pub(crate) fn granted(
    asked: &[Entitlement],
    allowed: &[Entitlement],
) -> Result<Vec<Entitlement>, BuildError> {
    // The daemon allows devices or does not; which ones is between client and build.
    match asked.iter().find(|e| !allowed.iter().any(|a| a.as_str() == e.as_str())) {
        Some(e) => {
            let message =
                format!("granting entitlement {} is not allowed by build daemon configuration", e.as_str());
            Err(BuildError::msg(message))
        }
        None => Ok(asked.to_vec()),
    }
}

/// What a build may do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    /// What both the client and the daemon allow.
    pub(crate) granted: Vec<Entitlement>,
    /// What there is to be allowed.
    pub(crate) devices: kiln_cdi::Registry,
    /// Its steps have no other network than the proxied one.
    pub(crate) proxied: bool,
}

impl Rights {
    /// The graph as it may run: in which network, and with devices named as they were found to be meant.
    ///
    /// # Errors
    /// On the first step that does what is not granted.
    pub(crate) fn admit(&self, mut definition: Definition) -> Result<Definition, BuildError> {
        if self.proxied {
            definition = definition.with_proxied_network().map_err(|e| BuildError::msg(e.to_string()))?;
        }
        let mut decided = Vec::new();
        for vertex in definition.vertices() {
            let Op::Exec(exec) = &vertex.op else { continue };
            let of_vertex = |error: BuildError| error.with_vertex(vertex.digest);
            if let Some(missing) = needs(exec).into_iter().find(|e| !self.granted.contains(e)) {
                return Err(of_vertex(BuildError::msg(format!("{} is not allowed", missing.as_str()))));
            }
            if let Some(devices) = devices::admit(exec, &self.granted, &self.devices).map_err(of_vertex)? {
                decided.push((vertex.digest, Op::Exec(ExecOp { cdi_devices: devices, ..exec.clone() })));
            }
        }
        for (digest, op) in decided {
            definition.set_op(&digest, op);
        }
        Ok(definition)
    }
}

fn needs(exec: &ExecOp) -> Vec<Entitlement> {
    let mut needs = Vec::new();
    if exec.network == NetMode::Host {
        needs.push(Entitlement::NetworkHost);
    }
    if exec.security == SecurityMode::Insecure {
        needs.push(Entitlement::SecurityInsecure);
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_must_agree() {
        let host = [Entitlement::NetworkHost];
        assert!(granted(&host, &[]).unwrap_err().message.contains("network.host"));
        assert_eq!(granted(&host, &host).unwrap(), host);
        assert!(granted(&[], &host).unwrap().is_empty());
        let device = ["device=v/d=x".parse().unwrap()];
        assert!(granted(&device, &host).unwrap_err().message.contains("entitlement device is not"));
        assert_eq!(granted(&device, &["device".parse().unwrap()]).unwrap(), device);
    }

    #[test]
    fn steps_need_what_they_do() {
        let exec = ExecOp { network: NetMode::Host, security: SecurityMode::Insecure, ..ExecOp::default() };
        assert_eq!(needs(&exec), [Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
        assert!(needs(&ExecOp::default()).is_empty());
    }
}
