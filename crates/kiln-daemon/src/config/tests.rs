use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn the_guides_example_works_and_warns() {
    let (c, w) = parse("[worker.oci]\n  maxParallelism = 4\n  gcKeepStorage = 10000  # MB\n").unwrap();
    assert_eq!(c.worker.oci.max_parallelism, Some(4));
    assert_eq!(c.worker.oci.gckeepstorage, Some(DiskSpace::Bytes(10000)));
    assert_eq!(w.len(), 2, "{w:?}");
    assert!(w.iter().any(|w| w.contains("worker.oci.gcKeepStorage = 10000 is 10000 bytes; did you mean \"10000MB\"?")), "{w:?}");
    assert!(
        w.iter().any(|w| w.contains("worker.oci.maxParallelism: its real name is max-parallelism")),
        "{w:?}"
    );
}

#[test]
fn sizes_and_durations() {
    let (c, w) = parse(
        "[[worker.oci.gcpolicy]]\nkeepBytes = \"512MB\"\nkeepDuration = 172800\nmaxUsedSpace = \"10%\"\n\
         [history]\nmaxAge = \"1h30m\"\nmaxEntries = 7\n",
    )
    .unwrap();
    let p = &c.worker.oci.gcpolicy[0];
    assert_eq!(p.keep_bytes, Some(DiskSpace::Bytes(536_870_912)));
    assert_eq!(p.keep_duration.positive(), Duration::from_secs(48 * 3600));
    assert_eq!(p.max_used_space.unwrap().bytes(500_000_000_000), 47_000_000_000);
    assert_eq!(c.history.max_age.unwrap().positive(), Duration::from_secs(5400));
    assert_eq!(c.history.max_entries, Some(7));
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn keys_match_exactly_and_then_without_case() {
    let (c, w) = parse(
        "ROOT = \"/a\"\n[Worker.OCI]\nMaxUsedSpace = \"1GB\"\nmaxusedspace = 3\nSnapshotter = \"native\"\n\
         [worker.oci.labels]\nGCPolicy = \"kept as it is\"\n[frontend.\"Gateway.V0\"]\nallowedrepositories = [\"x\"]\n",
    )
    .unwrap();
    assert_eq!(c.root.unwrap(), Path::new("/a"));
    assert!(c.worker.oci.snapshotter.is_none(), "worker and Worker: the exact one counts");
    assert_eq!(c.worker.oci.labels["GCPolicy"], "kept as it is");
    assert_eq!(c.frontend.gateway.allowed_repositories, ["x"]);
    assert_eq!(w, ["config key Worker has no effect: worker is there too"]);
    let (c, w) = parse("[WORKER.oci]\nmaxusedspace = \"1GB\"\n").unwrap();
    assert_eq!(c.worker.oci.max_used_space, Some(DiskSpace::Bytes(1 << 30)));
    assert!(w.is_empty(), "{w:?}");
}

#[test]
fn wrong_types_tell_line_and_key() {
    for (text, want) in [
        ("root = 5", "line 1: root: invalid type: integer `5`"),
        (
            "\n[worker.oci]\nmax-parallelism = \"4\"\n",
            "line 3: worker.oci.max-parallelism: invalid type: string \"4\"",
        ),
        ("[worker.oci]\n\nmaxParallelism = 1.5\n", "line 3: worker.oci.max-parallelism: invalid type"),
        (
            "[worker.oci]\nreservedSpace = \"lots\"\n",
            "line 2: worker.oci.reservedSpace: invalid disk space lots",
        ),
        (
            "[[worker.oci.gcpolicy]]\nall = true\n[[worker.oci.gcpolicy]]\nkeepDuration = \"x\"",
            "line 4: worker.oci.gcpolicy.keepDuration: invalid duration x",
        ),
        ("[grpc]\naddress = \"unix:///x\"\n", "line 2: grpc.address: invalid type: string"),
        ("[grpc]\ngid = -1\n", "line 2: grpc.gid: invalid value: integer `-1`"),
        ("[registry.\"a.b\"]\nhttp = \"yes\"\n", "line 2: registry.a.b.http: invalid type"),
        ("[worker]\noci = 3\n", "line 2: worker.oci: invalid type"),
        ("[worker.containerd]\nenabled = \"yes\"\n", "worker.containerd"),
        ("a = \n", "line 1: "),
        ("[log]\nlevel = \"x\"\nlevel = \"y\"\n", "line 3: "),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(want), "{text:?}: {error}");
    }
}

#[test]
fn unknown_keys_are_named() {
    let (_, w) =
        parse("x = 1\n[worker.oci]\ncniPoolsize = 3\nfoo = 1\n[registry.\"a.b\"]\nmirror = [\"c\"]\n")
            .unwrap();
    assert_eq!(
        w,
        [
            "config key x is not known and has no effect",
            "config key registry.a.b.mirror is not known and has no effect",
            "config key worker.oci.foo is not known and has no effect",
        ]
    );
}

/// Every key that BuildKit documents is known, and of a type that takes its usual value.
#[test]
fn every_documented_key_is_taken() {
    let text = r#"
debug = true
trace = true
root = "/r"
insecure-entitlements = ["network.host"]
proxyNetwork = false
provenanceEnvDir = "/p"
[log]
format = "json"
level = "debug"
[grpc]
address = ["tcp://0.0.0.0:1234"]
debugAddress = "0.0.0.0:6060"
uid = 0
gid = 0
securityDescriptor = "D"
[grpc.tls]
cert = "/c"
key = "/k"
ca = "/a"
[otel]
socketPath = "/s"
[cdi]
disabled = true
specDirs = ["/etc/cdi"]
autoAllowed = ["vendor.com/device=foo"]
[dns]
nameservers = ["1.1.1.1"]
options = ["edns0"]
searchDomains = ["example.com"]
[history]
maxAge = 172800
maxEntries = 50
[system]
platformsCacheMaxAge = "-1s"
maxRegistryConcurrency = 4
[worker.oci]
enabled = true
platforms = ["linux/amd64", "linux/arm64"]
snapshotter = "auto"
rootless = false
noProcessSandbox = false
binary = ""
proxySnapshotterPath = ""
defaultCgroupParent = "buildkit"
apparmor-profile = ""
selinux = false
max-parallelism = 4
userRemapUnsupported = ""
networkMode = "host"
cniConfigPath = "/a"
cniBinaryPath = "/b"
cniPoolSize = 16
bridgeName = "b"
bridgeSubnet = "10.10.0.0/16"
gc = true
gckeepstorage = "20%"
reservedSpace = "30%"
maxUsedSpace = "60%"
minFreeSpace = "20GB"
[worker.oci.labels]
"foo" = "bar"
[worker.oci.stargzSnapshotter]
no_prometheus = true
[[worker.oci.gcpolicy]]
all = true
filters = ["type==source.local"]
keepDuration = "48h"
keepBytes = "1GB"
reservedSpace = 1000000
maxUsedSpace = "1GB"
minFreeSpace = "10GB"
[worker.containerd]
address = "/run/containerd/containerd.sock"
enabled = false
platforms = ["linux/amd64"]
namespace = "buildkit"
gc = true
[worker.containerd.labels]
"foo" = "bar"
[worker.containerd.runtime]
name = "io.containerd.runc.v2"
options = { BinaryName = "runc" }
[[worker.containerd.gcpolicy]]
all = true
[registry."docker.io"]
mirrors = ["yourmirror.local:5000"]
http = true
insecure = true
ca = ["/etc/config/myca.pem"]
tlsconfigdir = ["/d"]
[[registry."docker.io".keypair]]
key = "/k"
cert = "/c"
[frontend."dockerfile.v0"]
enabled = true
[frontend."gateway.v0"]
enabled = true
allowedRepositories = []
[cache.gha]
sign.command = ["x"]
verify.required = true
[kiln]
drainTimeout = "10s"
"#;
    let (c, w) = parse(text).unwrap();
    assert!(w.is_empty(), "{w:?}");
    assert_eq!(c.worker.containerd.enabled, Some(false));
    assert_eq!(c.worker.containerd.rest.len(), 7);
    assert_eq!(c.kiln.drain_timeout.unwrap().positive(), Duration::from_secs(10));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_lines_are_read_or_refused(lines in proptest::collection::vec(line(), 0..12)) {
        let _ = parse(&lines.join("\n"));
    }
}

/// Lines that look like those of a configuration.
fn line() -> impl Strategy<Value = String> {
    let name = "(worker|oci|Worker|OCI|registry|gcpolicy|labels|gcKeepStorage|maxParallelism|keepDuration|log|\"a.b\"|[a-z\"]{0,3})";
    let value = "(-?[0-9]{0,20}|\"[^\"]{0,8}\"|[0-9]{1,3}(%|h|GB)|true|\\[.{0,5}\\]|\\{.{0,9}\\}|.{0,6})";
    prop_oneof![
        (name, name).prop_map(|(a, b)| format!("[{a}.{b}]")),
        (name, name).prop_map(|(a, b)| format!("[[{a}.{b}]]")),
        (name, value).prop_map(|(k, v)| format!("{k} = {v}")),
        (name, name, value).prop_map(|(a, b, v)| format!("{a}.{b} = {v}")),
    ]
}
