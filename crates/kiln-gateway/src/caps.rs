//! What this daemon can do, as frontends and clients ask for it (spec wire.md section 7).

use kiln_proto::apicaps::ApiCap;

/// Capabilities that the protocol knows and this daemon does not serve yet: who asks finds out before it sends
/// anything.
const NOT_BUILT: &[&str] = &[
    "cache.azblob",
    "cache.gha",
    "cache.s3",
    "exec.meta.network.proxy",
    "exec.meta.security.devices.v1",
    "exporter.image.attestations",
    "reference.attestations",
    "source.metaresolver.image.attestations",
];

/// Everything that is served is enabled; lists are sorted by id.
pub(crate) fn all(ids: &[&str]) -> Vec<ApiCap> {
    let served = ids.iter().filter(|id| !NOT_BUILT.contains(id));
    served.map(|id| ApiCap { id: id.to_string(), enabled: true, ..ApiCap::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_not_offered() {
        let llb = all(kiln_llb::caps::LLB);
        assert!(llb.iter().all(|cap| cap.enabled && !NOT_BUILT.contains(&cap.id.as_str())));
        for built in ["file.base", "exec.meta.cdi"] {
            assert!(llb.iter().any(|cap| cap.id == built), "{built}");
        }
        let known = [kiln_llb::caps::LLB, kiln_llb::caps::GATEWAY].concat();
        assert!(NOT_BUILT.is_sorted() && NOT_BUILT.iter().all(|id| known.contains(id)));
    }
}
