//! Options of a build: texts become types here, once.

mod limits;

use crate::host::CacheImport;
use crate::lint;
use crate::syntax::is_labs;
use kiln_dockerfile::nearest;
use kiln_go::{csv, parse_bool, quote};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{HostIp, LinuxResources, NetMode, ResolveMode, Ulimit};
use kiln_oci::Platform;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything a client can say about a build (spec dockerfile.md section 8).
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) target: String,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) multi_platform: bool,
    pub(crate) no_cache: NoCache,
    pub(crate) resolve_mode: ResolveMode,
    pub(crate) extra_hosts: Vec<HostIp>,
    pub(crate) network: NetMode,
    pub(crate) shm_size: u64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) cgroup_parent: String,
    pub(crate) hostname: String,
    pub(crate) resources: Option<LinuxResources>,
    pub(crate) cache_imports: Vec<CacheImport>,
    pub(crate) cache_mount_ns: String,
    pub(crate) lint: Option<lint::Config>,
    pub(crate) context: ContextOptions,
    /// `context:<name>`: named contexts.
    pub(crate) named_contexts: BTreeMap<String, String>,
    /// `sharedkey:localdir:<name>`
    pub(crate) shared_keys: BTreeMap<String, String>,
    /// `input-metadata:<key>`
    pub(crate) input_metadata: BTreeMap<String, String>,
    /// `local-sessionid:<name>`
    pub(crate) local_sessions: BTreeMap<String, String>,
    pub(crate) request_id: Option<String>,
    /// Overrides the syntax directive.
    pub(crate) syntax: Option<String>,
    /// `cmdline`: this is already the frontend that a syntax directive asked for.
    pub(crate) is_forwarded: bool,
    /// Experiments are allowed.
    pub(crate) labs: bool,
}

/// Where the Dockerfile and the main context are.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContextOptions {
    pub(crate) filename: Option<String>,
    /// Remote main context.
    pub(crate) remote: String,
    pub(crate) subdir: Option<String>,
    pub(crate) dockerfile_local: Option<String>,
    pub(crate) keep_git_dir: bool,
    pub(crate) git_commit_times: bool,
}

/// Steps that run again whatever the cache has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum NoCache {
    #[default]
    None,
    All,
    Stages(Vec<String>),
}

impl NoCache {
    pub(crate) fn covers(&self, stage: &str) -> bool {
        match self {
            NoCache::None => false,
            NoCache::All => true,
            NoCache::Stages(list) => list.iter().any(|s| s.eq_ignore_ascii_case(stage)),
        }
    }
}

const KEYS: [&str; 38] = [
    "filename",
    "target",
    "context",
    "contextkey",
    "contextsubdir",
    "dockerfilekey",
    "platform",
    "multi-platform",
    "no-cache",
    "image-resolve-mode",
    "add-hosts",
    "force-network-mode",
    "shm-size",
    "ulimit",
    "cgroup-parent",
    "hostname",
    "memory",
    "memswap",
    "cpushares",
    "cpuperiod",
    "cpuquota",
    "cpusetcpus",
    "cpusetmems",
    "cache-imports",
    "cache-from",
    "requestid",
    "frontend.caps",
    "cmdline",
    "source",
    "gateway-devel",
    "override-copy-image",
    "source-date-epoch",
    "vcs:source",
    "vcs:revision",
    "attest:sbom",
    "attest:provenance",
    "compatibility-version",
    "proxy-network",
];
const PREFIXES: [&str; 8] = [
    "build-arg:",
    "label:",
    "context:",
    "sharedkey:localdir:",
    "input-metadata:",
    "local-sessionid:",
    "vcs:",
    "attest:",
];

fn invalid(message: String) -> BuildError {
    BuildError::new(Code::InvalidArgument, message)
}

impl Options {
    pub(crate) fn parse(raw: &BTreeMap<String, String>) -> Result<Options, BuildError> {
        warn_unknown(raw);
        refuse_removed(raw)?;
        let get = |key: &str| raw.get(key).map(String::as_str).unwrap_or_default();
        let arg = |key: &str| raw.get(&format!("build-arg:{key}")).map(String::as_str);
        let platforms = parse_platforms(get("platform"))?;
        let multi = arg("BUILDKIT_MULTI_PLATFORM").filter(|v| !v.is_empty()).unwrap_or(get("multi-platform"));
        let multi_platform = parse_multi(multi, platforms.len())?;
        let hostname = arg("BUILDKIT_SANDBOX_HOSTNAME").filter(|v| !v.is_empty()).unwrap_or(get("hostname"));
        let wrap = |what: &str| {
            let what = what.to_string();
            move |e: String| invalid(format!("{what}: {e}"))
        };
        let check = arg("BUILDKIT_DOCKERFILE_CHECK");
        let lint = check.map(lint::Config::parse).transpose();
        Ok(Options {
            build_args: with_prefix(raw, "build-arg:"),
            labels: with_prefix(raw, "label:"),
            target: get("target").to_string(),
            platforms,
            multi_platform,
            no_cache: parse_no_cache(raw.get("no-cache")),
            resolve_mode: parse_resolve_mode(get("image-resolve-mode"))?,
            extra_hosts: parse_hosts(get("add-hosts")).map_err(wrap("failed to parse additional hosts"))?,
            network: parse_network(get("force-network-mode"))?,
            shm_size: limits::shm_size(get("shm-size")).map_err(wrap("failed to parse shm size"))?,
            ulimits: limits::ulimits(get("ulimit")).map_err(wrap("failed to parse ulimit"))?,
            cgroup_parent: get("cgroup-parent").to_string(),
            hostname: hostname.to_string(),
            resources: limits::resources(raw).map_err(wrap("failed to parse resource limits"))?,
            cache_imports: parse_cache_imports(raw)?,
            cache_mount_ns: arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default().to_string(),
            lint: lint.map_err(wrap("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK"))?,
            context: context_options(raw),
            named_contexts: with_prefix(raw, "context:"),
            shared_keys: with_prefix(raw, "sharedkey:localdir:"),
            input_metadata: with_prefix(raw, "input-metadata:"),
            local_sessions: with_prefix(raw, "local-sessionid:"),
            request_id: raw.get("requestid").cloned(),
            syntax: arg("BUILDKIT_SYNTAX").map(str::to_string),
            is_forwarded: raw.contains_key("cmdline"),
            labs: is_labs(get("source")),
        })
    }

    /// The session that has a client directory.
    pub(crate) fn session_of<'a>(&'a self, local: &str, default: &'a str) -> &'a str {
        self.local_sessions.get(local).map_or(default, String::as_str)
    }
}

/// Other builders ignore what they do not know, so it is no error; but nobody should have to guess.
fn warn_unknown(raw: &BTreeMap<String, String>) {
    for key in raw.keys() {
        if KEYS.contains(&key.as_str()) || PREFIXES.iter().any(|p| key.starts_with(p)) {
            continue;
        }
        match nearest(key, &KEYS, false) {
            Some(known) => {
                tracing::warn!("unknown frontend option {key:?} is ignored, did you mean {known:?}?")
            }
            None => tracing::warn!("unknown frontend option {key:?} is ignored"),
        }
    }
}

fn refuse_removed(raw: &BTreeMap<String, String>) -> Result<(), BuildError> {
    let set = |key: &str| raw.get(key).is_some_and(|v| !v.is_empty());
    if set("override-copy-image") {
        return Err(invalid("support for \"override-copy-image\" was removed in BuildKit 0.11".into()));
    }
    if raw.get("build-arg:BUILDKIT_DISABLE_FILEOP").is_some_and(|v| parse_bool(v) == Some(true)) {
        return Err(invalid(
            "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11".into(),
        ));
    }
    let asks_sbom = |key: &String| {
        let name = key.strip_prefix("attest:").or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
        name.is_some_and(|n| n.eq_ignore_ascii_case("sbom"))
    };
    if raw.keys().any(asks_sbom) {
        return Err(BuildError::new(
            Code::Unimplemented,
            "SBOM attestations (attest:sbom) are not built yet",
        ));
    }
    let known = ["sbom", "provenance"];
    let unknown = |key: &String| {
        let name = key.strip_prefix("attest:")?.to_lowercase();
        (!known.contains(&name.as_str())).then_some(name)
    };
    match raw.keys().find_map(unknown) {
        Some(name) => Err(invalid(format!("unknown attestation type {}", quote(&name)))),
        None => Ok(()),
    }
}

fn context_options(raw: &BTreeMap<String, String>) -> ContextOptions {
    let key = raw.get("contextkey").map_or("context", String::as_str);
    let flag = |key: &str| raw.get(key).is_some_and(|v| parse_bool(v) == Some(true));
    ContextOptions {
        filename: raw.get("filename").cloned(),
        remote: raw.get(key).cloned().unwrap_or_default(),
        subdir: raw.get("contextsubdir").cloned(),
        dockerfile_local: raw.get("dockerfilekey").cloned(),
        keep_git_dir: flag("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
        git_commit_times: raw.get("build-arg:SOURCE_DATE_EPOCH").is_some_and(|v| !v.is_empty()),
    }
}

fn with_prefix(raw: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    raw.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_string(), v.clone()))).collect()
}

fn parse_platforms(list: &str) -> Result<Vec<Platform>, BuildError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |p: &str| match Platform::parse(p) {
        Ok(p) => Ok(p.normalize()),
        Err(e) => Err(invalid(format!("failed to parse target platform {p}: {e}"))),
    };
    list.split(',').map(parse).collect()
}

fn parse_multi(value: &str, platforms: usize) -> Result<bool, BuildError> {
    if value.is_empty() {
        return Ok(platforms > 1);
    }
    match parse_bool(value) {
        None => Err(invalid(format!("invalid boolean value for multi-platform: {value}"))),
        Some(false) if platforms > 1 => {
            Err(invalid("conflicting config: returning multiple target platforms is not allowed".into()))
        }
        Some(b) => Ok(b),
    }
}

fn parse_no_cache(value: Option<&String>) -> NoCache {
    match value.map(String::as_str) {
        None => NoCache::None,
        Some("") => NoCache::All,
        Some(list) => NoCache::Stages(list.split(',').map(str::to_string).collect()),
    }
}

fn parse_resolve_mode(v: &str) -> Result<ResolveMode, BuildError> {
    ResolveMode::parse(v).ok_or_else(|| invalid(format!("invalid image-resolve-mode: {v}")))
}

fn parse_network(v: &str) -> Result<NetMode, BuildError> {
    Ok(match v {
        "" | "sandbox" => NetMode::Default,
        "none" => NetMode::None,
        "host" => NetMode::Host,
        _ => return Err(invalid(format!("invalid netmode {v}"))),
    })
}

fn parse_hosts(v: &str) -> Result<Vec<HostIp>, String> {
    if v.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |field: String| {
        let lower = field.to_lowercase();
        let (host, ip) = lower.split_once('=').ok_or_else(|| format!("invalid key-value pair {field}"))?;
        let ip: IpAddr = ip.parse().map_err(|_| format!("failed to parse IP {ip}"))?;
        Ok(HostIp { host: host.to_string(), ip: ip.to_canonical().to_string() })
    };
    csv::fields(v).map_err(|e| e.to_string())?.into_iter().map(parse).collect()
}

fn parse_cache_imports(raw: &BTreeMap<String, String>) -> Result<Vec<CacheImport>, BuildError> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default, rename = "Type", alias = "type")]
        kind: String,
        #[serde(default, rename = "Attrs", alias = "attrs")]
        attrs: Option<BTreeMap<String, String>>,
    }
    let mut out = Vec::new();
    if let Some(json) = raw.get("cache-imports").filter(|v| !v.is_empty()) {
        let list: Vec<Entry> = serde_json::from_str(json)
            .map_err(|e| invalid(format!("failed to unmarshal cache-imports ({}): {e}", quote(json))))?;
        out.extend(
            list.into_iter().map(|e| CacheImport { kind: e.kind, attrs: e.attrs.unwrap_or_default() }),
        );
    }
    if let Some(list) = raw.get("cache-from").filter(|v| !v.is_empty()) {
        let registry = |r: &str| CacheImport {
            kind: "registry".to_string(),
            attrs: [("ref".to_string(), r.to_string())].into(),
        };
        out.extend(list.split(',').map(registry));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Options, String> {
        let raw = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Options::parse(&raw).map_err(|e| e.message)
    }

    #[test]
    fn values_become_types() {
        let o = parse(&[
            ("platform", "linux/arm64/v8,linux/amd64"),
            ("no-cache", "a,b"),
            ("add-hosts", "H=::ffff:1.2.3.4,x=::1"),
            ("build-arg:A", "1"),
            ("label:l", "v"),
            ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "hn"),
            ("cache-imports", r#"[{"Type":"gha","Attrs":{"a":"b"}}]"#),
            ("cache-from", "r1,r2"),
            ("force-network-mode", "none"),
            ("ulimit", "nofile=1024:2048,core=0"),
            ("shm-size", "67108864"),
            ("memory", "1000"),
        ]);
        let o = o.unwrap();
        assert_eq!(
            o.platforms.iter().map(|p| p.to_string()).collect::<Vec<_>>(),
            ["linux/arm64", "linux/amd64"]
        );
        assert!(o.multi_platform && o.no_cache.covers("B") && !o.no_cache.covers("c"));
        assert_eq!(o.extra_hosts[0], HostIp { host: "h".into(), ip: "1.2.3.4".into() });
        assert_eq!(
            (o.build_args["A"].as_str(), o.labels["l"].as_str(), o.hostname.as_str()),
            ("1", "v", "hn")
        );
        assert_eq!(
            o.cache_imports.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(),
            ["gha", "registry", "registry"]
        );
        assert_eq!((o.network, o.shm_size), (NetMode::None, 64 << 20));
        assert_eq!(o.ulimits[1], Ulimit { name: "core".into(), soft: 0, hard: 0 });
        assert_eq!(o.resources.unwrap().memory, 1000);
    }

    #[test]
    fn wrong_values_are_refused() {
        let error = |k: &str, v: &str| parse(&[(k, v)]).unwrap_err();
        assert_eq!(error("image-resolve-mode", "x"), "invalid image-resolve-mode: x");
        assert_eq!(error("add-hosts", "a"), "failed to parse additional hosts: invalid key-value pair a");
        assert_eq!(error("add-hosts", "a=b"), "failed to parse additional hosts: failed to parse IP b");
        assert_eq!(error("force-network-mode", "x"), "invalid netmode x");
        assert_eq!(error("multi-platform", "x"), "invalid boolean value for multi-platform: x");
        assert_eq!(
            error("ulimit", "nofile=2:1"),
            "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: 2 > 1"
        );
        assert_eq!(
            error("cpusetcpus", "3-1"),
            "failed to parse resource limits: invalid cpusetcpus value: 3-1: invalid cpuset range \"3-1\""
        );
        assert_eq!(error("attest:nope", ""), "unknown attestation type \"nope\"");
        assert!(error("attest:sbom", "").contains("not built yet"));
        assert!(error("platform", "a/b/c/d").starts_with("failed to parse target platform a/b/c/d: "));
        let both = parse(&[("platform", "linux/amd64,linux/arm64"), ("multi-platform", "false")]);
        assert!(both.unwrap_err().starts_with("conflicting config"));
    }
}
