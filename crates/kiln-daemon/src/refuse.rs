//! What BuildKit's daemon can be told and kiln cannot do: refused where builds would come out otherwise than meant, else
//! told in a warning. Never ignored.

use crate::config::{Config, Worker};
use crate::merge::given;
use crate::options::{Options, OptionsError};
use crate::places::Surroundings;
use std::path::Path;

const NOT_ROOTLESS: &str = "rootless mode requires to be executed as the mapped root in a user namespace; you may use \
                            RootlessKit for setting up the namespace";

/// Variables of BuildKit's daemon for those who look for errors in it.
const UNREAD: [&str; 4] = [
    "BUILDKIT_DEBUG_EXEC_OUTPUT",
    "BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF",
    "BUILDKIT_SCHEDULER_DEBUG",
    "JAEGER_TRACE",
];

/// Checks flags and file together. Returns warnings.
///
/// # Errors
/// On the first setting that cannot be honoured.
pub(crate) fn check(o: &Options, c: &Config, s: Surroundings<'_>) -> Result<Vec<String>, OptionsError> {
    let mut warnings = Vec::new();
    top(o, c, &mut warnings)?;
    worker(o, &c.worker.oci, s, &mut warnings)?;
    network(&c.worker.oci, s, &mut warnings)?;
    containerd(o, c, &mut warnings)?;
    let set = UNREAD.iter().filter(|name| (s.env)(name).is_some_and(|v| !v.is_empty()));
    warnings
        .extend(set.map(|name| format!("environment variable {name} has no effect: kiln does not read it")));
    Ok(warnings)
}

fn top(o: &Options, c: &Config, warnings: &mut Vec<String>) -> Result<(), OptionsError> {
    if o.save_cache_debug {
        return Err(not_there("--save-cache-debug", "kiln keeps no log of what it hashes"));
    }
    let mut warn = |on: bool, setting: &str, why: &str| {
        if on {
            warnings.push(format!("{setting} has no effect: {why}"));
        }
    };
    warn(given(&c.provenance_env_dir).is_some(), "provenanceEnvDir", "kiln makes no provenance yet");
    warn(given(&c.grpc.security_descriptor).is_some(), "grpc.securityDescriptor", "it is for Windows");
    warn(
        given(&c.otel.socket_path).is_some(),
        "--otel-socket-path, otel.socketPath",
        "steps are given no socket for traces",
    );
    warn(
        c.system.platforms_cache_max_age.is_some(),
        "system.platformsCacheMaxAge",
        "platforms are found once, at the start",
    );
    warn(c.cache.gha.is_some(), "cache.gha", "kiln has no GitHub cache yet");
    for (on, name) in [(c.debug, "debug"), (c.trace, "trace")] {
        if on {
            warnings.push(format!(
                "'{name}' configuration option is deprecated, use 'log.level = \"{name}\"' instead"
            ));
        }
    }
    if o.trace {
        warnings.push("--trace option is deprecated; use --log-level=trace instead".into());
    }
    Ok(())
}

fn worker(
    o: &Options,
    w: &Worker,
    s: Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), OptionsError> {
    if w.enabled == Some(false) {
        return Err(not_there(
            "--oci-worker=false, worker.oci.enabled",
            "no worker found; it is the only one of kiln",
        ));
    }
    let refuse = |value: &Option<String>, setting: &str, why| match given(value) {
        Some(value) => Err(not_there(&format!("{setting} {value:?}"), why)),
        None => Ok(()),
    };
    refuse(
        &w.proxy_snapshotter_path,
        "--oci-worker-proxy-snapshotter-path, worker.oci.proxySnapshotterPath",
        "kiln has no foreign snapshotters",
    )?;
    refuse(
        &w.apparmor_profile,
        "--oci-worker-apparmor-profile, worker.oci.apparmor-profile",
        "kiln applies no AppArmor profiles",
    )?;
    refuse(&w.user_remap_unsupported, "worker.oci.userRemapUnsupported", "kiln does not remap users")?;
    if w.selinux {
        return Err(not_there("--oci-worker-selinux, worker.oci.selinux", "kiln applies no SELinux labels"));
    }
    if let Some(name @ ("fuse-overlayfs" | "stargz" | "soci" | "nydus")) = given(&w.snapshotter) {
        let setting = format!("--oci-worker-snapshotter, worker.oci.snapshotter {name:?}");
        return Err(not_there(&setting, "kiln has auto, overlayfs, native"));
    }
    if !w.stargz_snapshotter.is_empty() {
        warnings.push("worker.oci.stargzSnapshotter has no effect: kiln has no stargz snapshotter".into());
    }
    if o.oci.rootless == Some(true) && !s.user_namespace {
        return Err(OptionsError::Invalid(NOT_ROOTLESS.into()));
    }
    if w.rootless && !s.user_namespace {
        warnings.push("rootless has no effect: the daemon is not in a user namespace".into());
    }
    if w.no_process_sandbox {
        if !w.rootless {
            return Err(OptionsError::Invalid("can't enable NoProcessSandbox without Rootless".into()));
        }
        warnings.push(
            "--oci-worker-no-process-sandbox, worker.oci.noProcessSandbox has no effect: steps have their own processes"
                .into(),
        );
    }
    Ok(())
}

fn network(w: &Worker, s: Surroundings<'_>, warnings: &mut Vec<String>) -> Result<(), OptionsError> {
    let mode = given(&w.network_mode).unwrap_or("auto");
    let cni_file = given(&w.cni_config_path).unwrap_or("/etc/buildkit/cni.json");
    match mode {
        "host" => return Ok(()),
        "auto" => {}
        "bridge" | "cni" => {
            let setting = format!("--oci-worker-net, worker.oci.networkMode {mode:?}");
            return Err(not_there(
                &setting,
                "kiln has no networks of its own; steps use the host's (auto, host)",
            ));
        }
        _ => return Err(OptionsError::Invalid(format!("invalid network mode: {mode:?}"))),
    }
    let host = "steps use the host's network";
    if Path::new(cni_file).exists() {
        warnings.push(format!("{cni_file} has no effect: kiln has no CNI; {host}"));
    }
    if (s.env)("BUILDKIT_NETWORK_BRIDGE_AUTO").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true")) {
        warnings.push(format!("BUILDKIT_NETWORK_BRIDGE_AUTO has no effect: {host}"));
    }
    let cni = [
        (w.cni_config_path.is_some(), "--oci-cni-config-path, worker.oci.cniConfigPath"),
        (w.cni_binary_path.is_some(), "--oci-cni-binary-dir, worker.oci.cniBinaryPath"),
        (w.cni_pool_size.is_some_and(|n| n != 0), "--oci-cni-pool-size, worker.oci.cniPoolSize"),
        (w.bridge_name.is_some(), "worker.oci.bridgeName"),
        (w.bridge_subnet.is_some(), "worker.oci.bridgeSubnet"),
    ];
    warnings
        .extend(cni.iter().filter(|(on, _)| *on).map(|(_, name)| format!("{name} has no effect: {host}")));
    Ok(())
}

fn containerd(o: &Options, c: &Config, warnings: &mut Vec<String>) -> Result<(), OptionsError> {
    if c.worker.containerd.enabled == Some(true) {
        let why = "kiln has no containerd worker; its own is always there";
        return Err(not_there("--containerd-worker=true, worker.containerd.enabled", why));
    }
    let keys = c.worker.containerd.rest.keys().map(|key| format!("worker.containerd.{key}"));
    // A worker that is switched off has no settings worth a word.
    if c.worker.containerd.enabled.is_none() {
        let names = o.containerd_flags.iter().cloned().chain(keys);
        warnings.extend(names.map(|name| format!("{name} has no effect: kiln has no containerd worker")));
    }
    Ok(())
}

fn not_there(setting: &str, why: &'static str) -> OptionsError {
    OptionsError::NotThere { setting: setting.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OciOptions;

    fn checked(o: &Options, text: &str) -> Result<Vec<String>, String> {
        let (mut c, _) = crate::config::parse(text)?;
        crate::merge::apply(o, &mut c).map_err(|e| e.to_string())?;
        let s = Surroundings { root: true, uid: 0, user_namespace: false, env: &|_| None };
        check(o, &c, s).map_err(|e| e.to_string())
    }

    fn file(text: &str) -> Result<Vec<String>, String> {
        checked(&Options::default(), text)
    }

    #[test]
    fn what_is_neutral_is_silent() {
        let o = Options {
            oci: OciOptions {
                enabled: Some("auto".into()),
                snapshotter: Some("auto".into()),
                network: Some("host".into()),
                apparmor_profile: Some(String::new()),
                selinux: Some(false),
                cni_pool_size: Some(0),
                ..OciOptions::default()
            },
            containerd_worker: Some("false".into()),
            containerd_flags: vec!["--containerd-worker-addr".into()],
            proxy_network: Some(true),
            cdi_disabled: Some(true),
            cdi_spec_dirs: vec!["/etc/cdi".into()],
            ..Options::default()
        };
        assert_eq!(checked(&o, "[worker.containerd]\nenabled = true\n"), Ok(Vec::new()), "the flag wins");
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (text, want) in [
            ("[worker.oci]\nenabled = false", "--oci-worker=false, worker.oci.enabled: no worker found"),
            ("[worker.oci]\nselinux = true", "worker.oci.selinux: kiln applies no SELinux labels"),
            ("[worker.oci]\napparmor-profile = \"p\"", "worker.oci.apparmor-profile \"p\": kiln applies no"),
            ("[worker.oci]\nsnapshotter = \"stargz\"", "worker.oci.snapshotter \"stargz\": kiln has auto,"),
            (
                "[worker.oci]\nproxySnapshotterPath = \"/s\"",
                "worker.oci.proxySnapshotterPath \"/s\": kiln has no foreign",
            ),
            ("[worker.oci]\nnetworkMode = \"cni\"", "worker.oci.networkMode \"cni\": kiln has no networks"),
            ("[worker.oci]\nnetworkMode = \"x\"", "invalid network mode: \"x\""),
            ("[worker.oci]\nnoProcessSandbox = true", "can't enable NoProcessSandbox without Rootless"),
            ("[worker.oci]\nuserRemapUnsupported = \"a:b\"", "worker.oci.userRemapUnsupported \"a:b\""),
            (
                "[worker.containerd]\nenabled = true",
                "worker.containerd.enabled: kiln has no containerd worker",
            ),
        ] {
            let error = file(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let rootless = OciOptions { rootless: Some(true), ..OciOptions::default() };
        let error = checked(&Options { oci: rootless, ..Options::default() }, "").unwrap_err();
        assert!(error.contains("RootlessKit"), "{error}");
        let error = checked(&Options { save_cache_debug: true, ..Options::default() }, "").unwrap_err();
        assert!(error.contains("--save-cache-debug"), "{error}");
    }

    #[test]
    fn what_changes_nothing_is_warned_about_by_name() {
        for (text, want) in [
            ("provenanceEnvDir = \"/p\"", "provenanceEnvDir"),
            ("debug = true", "'debug' configuration option is deprecated"),
            ("[otel]\nsocketPath = \"/s\"", "otel.socketPath"),
            ("[cache.gha]\nverify.required = true", "cache.gha"),
            ("[system]\nplatformsCacheMaxAge = 5", "system.platformsCacheMaxAge"),
            ("[grpc]\nsecurityDescriptor = \"D\"", "grpc.securityDescriptor"),
            ("[worker.oci]\ncniPoolSize = 4", "worker.oci.cniPoolSize"),
            ("[worker.oci]\nbridgeName = \"b\"", "worker.oci.bridgeName"),
            ("[worker.oci]\nrootless = true", "rootless has no effect"),
            ("[worker.oci.stargzSnapshotter]\nx = 1", "worker.oci.stargzSnapshotter"),
            ("[worker.containerd]\nnamespace = \"n\"", "worker.containerd.namespace has no effect"),
        ] {
            let warnings = file(text).unwrap();
            assert!(warnings.len() == 1 && warnings[0].contains(want), "{text}: {warnings:?}");
        }
    }
}
