//! What a frontend is told by variables (spec wire.md section 3).

use crate::WorkerInfo;
use crate::build::Build;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The options, the session and the workers.
pub(super) fn of(build: &Arc<Build>, opts: &BTreeMap<String, String>) -> Result<Vec<String>, BuildError> {
    let numbered = opts.iter().enumerate();
    let mut env: Vec<String> =
        numbered.map(|(n, (k, v))| format!("BUILDKIT_FRONTEND_OPT_{n}={k}={v}")).collect();
    if let Some((name, _)) = opts.iter().find(|(k, v)| k.contains('\0') || v.contains('\0')) {
        return Err(BuildError::msg(format!("option {name:?} of the frontend contains a NUL byte")));
    }
    env.push(format!("BUILDKIT_SESSION_ID={}", build.session));
    env.push(format!("BUILDKIT_WORKERS={}", workers(&build.engine.worker_info())));
    env.push("BUILDKIT_EXPORTEDPRODUCT=buildkit".into());
    Ok(env)
}

/// As BuildKit's client library writes it. Frontends are told neither of garbage collection nor of devices.
fn workers(info: &WorkerInfo) -> Value {
    json!([{
        "id": info.id,
        "labels": info.labels,
        "platforms": info.platforms.iter().map(platform).collect::<Vec<_>>(),
        "gcPolicy": null,
        "buildkitVersion": { "package": "", "version": "", "revision": "" },
        "cdiDevices": null,
    }])
}

fn platform(p: &Platform) -> Value {
    let mut out = json!({ "architecture": p.architecture, "os": p.os });
    if !p.variant.is_empty() {
        out["variant"] = p.variant.clone().into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_list_in_the_words_of_the_client_library() {
        let info = WorkerInfo {
            id: "w".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            platforms: vec![Platform {
                os: "linux".into(),
                architecture: "arm64".into(),
                ..Platform::default()
            }],
            gc_policy: Vec::new(),
        };
        assert_eq!(
            workers(&info).to_string(),
            concat!(
                r#"[{"id":"w","labels":{"a":"b"},"platforms":[{"architecture":"arm64","os":"linux"}],"gcPolicy":null,"#,
                r#""buildkitVersion":{"package":"","version":"","revision":""},"cdiDevices":null}]"#,
            )
        );
    }
}
