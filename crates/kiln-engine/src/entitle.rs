//! What a graph may not do without being allowed to. Every path that starts a process passes here.
//!
//! Errors have no code of their own: Go clients print any other before the text, and users know these texts without.

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
    match asked.iter().find(|e| !allowed.contains(e)) {
        Some(e) => {
            let message =
                format!("granting entitlement {} is not allowed by build daemon configuration", e.as_str());
            Err(BuildError::msg(message))
        }
        None => Ok(asked.to_vec()),
    }
}

/// Fails on the first step that does what is not granted.
pub(crate) fn check(definition: &Definition, granted: &[Entitlement]) -> Result<(), BuildError> {
    for vertex in definition.vertices() {
        let Op::Exec(exec) = &vertex.op else { continue };
        if let Some(missing) = needs(exec).into_iter().find(|e| !granted.contains(e)) {
            let error =
                BuildError::msg(format!("{} is not allowed", missing.as_str()));
            return Err(error.with_vertex(vertex.digest));
        }
    }
    Ok(())
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
    }

    #[test]
    fn steps_need_what_they_do() {
        let exec = ExecOp { network: NetMode::Host, security: SecurityMode::Insecure, ..ExecOp::default() };
        assert_eq!(needs(&exec), [Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
        assert!(needs(&ExecOp::default()).is_empty());
    }
}
