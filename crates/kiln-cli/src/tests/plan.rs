//! Flags to a request.

use super::{args, plan, plan_error};
use crate::build::export::{Dest, ExportKind};
use crate::build::plan::Stdin;

fn attr(flags: &[&str], key: &str) -> Option<String> {
    plan(flags).unwrap_or_else(|e| panic!("{flags:?}: {e}")).attrs.get(key).cloned()
}

#[test]
fn every_flag_of_docker_build_parses() {
    let all = [
        "--add-host=a:1.2.3.4",
        "--allow=network.host",
        "--annotation=a=b",
        "--attest=type=sbom",
        "--build-arg=A=b",
        "--build-context=a=b",
        "--cache-from=a",
        "--cache-to=a",
        "--call=check",
        "--check",
        "--cgroup-parent=/a",
        "-f",
        "x",
        "--iidfile=x",
        "--label=a=b",
        "--load",
        "--metadata-file=x",
        "--network=none",
        "--no-cache",
        "--no-cache-filter=a",
        "-o",
        "x",
        "--platform=linux/amd64",
        "--policy=filename=x",
        "--progress=plain",
        "--provenance=false",
        "--pull",
        "--push",
        "--resource=memory=1g",
        "--sbom=false",
        "--secret=id=a",
        "--shm-size=1m",
        "--ssh=default",
        "-t",
        "a",
        "--target=b",
        "--ulimit=nofile=1",
        "-m",
        "1g",
        "--memory-swap",
        "-1",
        "-c",
        "1",
        "--cpu-period=1",
        "--cpu-quota=1",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--compress",
        "--isolation=x",
        "--security-opt=x",
        "--squash",
        "--rm=true",
        "--force-rm",
        "--print=outline",
    ];
    let parsed = args(&[&all[..], &["-q", "."]].concat());
    assert!(parsed.pull && parsed.quiet && parsed.check);
    assert!(!args(&["--pull=false", "--no-cache=false", "."]).pull);
}

#[test]
fn frontend_options() {
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&["--build-arg", "A=b=c", "."], "build-arg:A", Some("b=c")),
        (&["--build-arg", "FROM_ENV", "."], "build-arg:FROM_ENV", Some("env value")),
        (&["--build-arg", "UNSET", "."], "build-arg:UNSET", None),
        (&["--label", "a.b=c", "."], "label:a.b", Some("c")),
        (&["--label", "a", "."], "label:a", Some("")),
        (&["--target", "t", "."], "target", Some("t")),
        (&["--pull", "."], "image-resolve-mode", Some("pull")),
        (&["."], "image-resolve-mode", None),
        (&["--no-cache", "."], "no-cache", Some("")),
        (&["--no-cache-filter", "a", "--no-cache-filter=b,c", "."], "no-cache", Some("a,b,c")),
        (&["--network", "none", "."], "force-network-mode", Some("none")),
        (&["--network", "default", "."], "force-network-mode", None),
        (&["--platform", "linux/x86_64", "."], "platform", Some("linux/amd64")),
        (&["--shm-size", "128m", "."], "shm-size", Some("134217728")),
        (&["--ulimit", "nofile=10:20", "--ulimit", "core=5", "."], "ulimit", Some("nofile=10:20,core=5:5")),
        (&["--cgroup-parent", "/p", "."], "cgroup-parent", Some("/p")),
        (&["--resource", "memory=2g", "."], "memory", Some("2147483648")),
        (&["--memory-swap", "-1", "."], "memswap", Some("-1")),
        (&["--resource=cpu-quota=50000", "."], "cpuquota", Some("50000")),
        (&["-c", "7", "."], "cpushares", Some("7")),
        (&["--resource=cpuset-cpus=0-3", "."], "cpusetcpus", Some("0-3")),
        (&["--add-host", "a:1.2.3.4", "--add-host=b=::1", "."], "add-hosts", Some("a=1.2.3.4,b=::1")),
        (&["--add-host", "a:1.2.3.4,b:[::1]", "."], "add-hosts", Some("a=1.2.3.4,b=::1")),
        (&["--add-host", "a=1.2.3.4,5.6.7.8", "."], "add-hosts", Some("a=1.2.3.4,a=5.6.7.8")),
        (
            &["--build-context", "base=docker-image://alpine", "."],
            "context:base",
            Some("docker-image://alpine"),
        ),
        (&["--build-context", "a/b:latest=https://x/y.git", "."], "context:a/b", Some("https://x/y.git")),
        (&["--build-context", "src=.", "."], "context:src", Some("local:src")),
        (&["--build-arg", "BUILDKIT_SYNTAX=img/x:1 arg", "."], "source", Some("img/x:1")),
        (&["--build-arg", "BUILDKIT_SYNTAX=img/x:1 arg", "."], "cmdline", Some("img/x:1 arg")),
    ];
    for (flags, key, want) in cases {
        assert_eq!(attr(flags, key).as_deref(), *want, "{flags:?}");
    }
    assert_eq!(plan(&["--build-arg", "BUILDKIT_SYNTAX=x", "."]).unwrap().frontend, "gateway.v0");
    assert_eq!(plan(&["."]).unwrap().frontend, "dockerfile.v0");
}

#[test]
fn environment_of_the_client() {
    let vars = |name: &str| match name {
        "SOURCE_DATE_EPOCH" => Some("12".into()),
        "DOCKER_DEFAULT_PLATFORM" => Some("linux/arm64".into()),
        _ => None,
    };
    let attrs = |flags: &[&str]| {
        crate::build::plan::Plan::new(&args(flags), &vars, &crate::build::plan::Unsaid::Keep, || Ok(vec![]))
            .unwrap()
            .attrs
    };
    assert_eq!(attrs(&["."])["build-arg:SOURCE_DATE_EPOCH"], "12");
    assert_eq!(attrs(&["--build-arg", "SOURCE_DATE_EPOCH=7", "."])["build-arg:SOURCE_DATE_EPOCH"], "7");
    assert_eq!(attrs(&["."])["platform"], "linux/arm64");
    assert_eq!(attrs(&["--platform=linux/amd64", "."])["platform"], "linux/amd64");
}

#[test]
fn entitlements() {
    assert_eq!(plan(&["--network=host", "."]).unwrap().entitlements, ["network.host"]);
    let all =
        plan(&["--allow", "security.insecure,network.host", "--network=host", "."]).unwrap().entitlements;
    assert_eq!(all, ["network.host", "security.insecure"]);
    let devices = plan(&["--allow=device=v/d=x,alias=y", "--allow=device", "."]).unwrap().entitlements;
    assert_eq!(devices, ["device", "device=v/d=x,alias=y"]);
}

#[test]
fn wrong_values_name_the_flag_and_the_nearest_word() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--network", "hots", "."],
            "invalid value 'hots' for --network: unknown network mode 'hots' (did you mean host?); known: default, none, host",
        ),
        (
            &["--allow", "network.hosts", "."],
            "invalid value 'network.hosts' for --allow: unknown entitlement 'network.hosts' (did you mean network.host?); \
             known: network.host, security.insecure, device",
        ),
        (&["--ulimit", "nofiles=1", "."], "unknown ulimit 'nofiles' (did you mean nofile?)"),
        (&["--ulimit", "nofile=2:1", "."], "the soft limit is above the hard one"),
        (&["--resource", "memor=1", "."], "unknown resource 'memor' (did you mean memory?)"),
        (&["--resource", "memory=lots", "."], "expected a size such as 2g"),
        (&["--shm-size", "x", "."], "invalid value 'x' for --shm-size: expected a size such as 128m"),
        (&["--add-host", "a", "."], "invalid value 'a' for --add-host: expected HOST:IP"),
        (&["--add-host", "a:b", "."], "'b' is not an IP address"),
        (&["--label", "=x", "."], "invalid value '=x' for --label: the name is missing"),
        (&["--build-arg", "=x", "."], "invalid value '=x' for --build-arg: the name is missing"),
        (&["--platform", "a/b/c/d", "."], "invalid value 'a/b/c/d' for --platform: "),
        (&["-t", "UPPER", "."], "invalid value 'UPPER' for --tag: "),
        (&["--build-context", "x", "."], "invalid value 'x' for --build-context: expected NAME=VALUE"),
        (&["--build-context", "x=/does/not/exist", "."], "build context /does/not/exist: No such file"),
    ];
    for (flags, want) in cases {
        let text = plan_error(flags);
        assert!(text.contains(want), "{flags:?}: {text}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["--cache-from", "a", "."], "--cache-from is not built yet: kiln cannot import a build cache"),
        (&["--cache-to", "a", "."], "--cache-to is not built yet: kiln cannot export a build cache"),
        (&["--annotation", "a=b", "."], "--annotation is not built yet: "),
        (&["--attest", "type=sbom", "."], "--attest is not built yet: "),
        (&["--provenance", "."], "--provenance is not built yet: "),
        (&["--provenance=mode=max", "."], "--provenance is not built yet: "),
        (&["--sbom=true", "."], "--sbom is not built yet: "),
        (
            &["--platform", "linux/amd64,linux/arm64", "."],
            "--platform with several values is not built yet: ",
        ),
        (
            &["--add-host", "a:host-gateway", "."],
            "invalid value 'a:host-gateway' for --add-host: host-gateway is not supported",
        ),
        (
            &["--build-arg", "BUILDKIT_INLINE_CACHE=1", "."],
            "--build-arg BUILDKIT_INLINE_CACHE=1 is not built yet: ",
        ),
    ];
    for (flags, want) in cases {
        let text = plan_error(flags);
        assert!(text.starts_with(want), "{flags:?}: {text}");
    }
    let fine =
        ["--provenance=false", "--sbom=0", "--attest=type=provenance,disabled=true", "--call=build", "."];
    assert!(plan(&fine).is_ok());
}

#[test]
fn results_that_nobody_asked_for() {
    let silent = plan(&["."]).unwrap();
    assert!(silent.exports.is_empty());
    assert!(silent.warnings[0].starts_with("no output specified"), "{:?}", silent.warnings);
    for flags in [&["-t", "app", "."][..], &["-q", "."], &["--iidfile", "x", "."]] {
        let plan = plan(flags).unwrap();
        assert_eq!(
            (plan.exports[0].kind, &plan.exports[0].dest),
            (ExportKind::Image, &Dest::Daemon),
            "{flags:?}"
        );
        assert!(plan.warnings.is_empty());
    }
    assert_eq!(
        plan(&["-t", "app", "-t", "x.y/z:1", "."]).unwrap().exports[0].attrs["name"],
        "docker.io/library/app:latest,x.y/z:1"
    );
    assert!(plan(&["-o", "type=cacheonly", "."]).unwrap().exports.is_empty());
    assert!(plan(&["--squash", "."]).unwrap().warnings[0].starts_with("--squash has no effect"));
}

#[test]
fn proxies_of_the_configuration_give_way_to_those_of_the_user() {
    let mut plan = plan(&["--build-arg", "http_proxy=mine", "."]).unwrap();
    plan.add_proxies(vec![("HTTP_PROXY", "theirs".into()), ("NO_PROXY", "none".into())]);
    assert_eq!(plan.attrs.get("build-arg:HTTP_PROXY"), None);
    assert_eq!(plan.attrs["build-arg:NO_PROXY"], "none");
}

#[test]
fn the_agent_goes_with_a_repository_behind_ssh() {
    let ids = |context: &str| plan(&[context]).unwrap().ssh.into_iter().map(|s| s.id).collect::<Vec<_>>();
    assert_eq!(ids("git@h.example:r.git"), ["default"]);
    assert_eq!(ids("ssh://git@h.example/r.git"), ["default"]);
    assert!(ids("https://u@h.example/r.git").is_empty() && ids(".").is_empty());
}

#[test]
fn locals_and_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().to_str().unwrap();
    let names = |flags: &[&str]| -> Vec<String> {
        plan(flags).unwrap().locals.into_iter().map(|l| format!("{}={}", l.name, l.path.display())).collect()
    };
    assert_eq!(names(&[context]), [format!("context={context}"), format!("dockerfile={context}")]);
    assert_eq!(attr(&[context], "filename").as_deref(), Some("Dockerfile"));
    std::fs::write(dir.path().join("dockerfile"), "").unwrap();
    assert_eq!(attr(&[context], "filename").as_deref(), Some("dockerfile"));
    assert_eq!(
        names(&["-f", "/etc/hosts", context]),
        [format!("context={context}"), "dockerfile=/etc".into()]
    );
    assert_eq!(attr(&["-f", "/etc/hosts", context], "filename").as_deref(), Some("hosts"));
    let from_stdin = plan(&["-f", "-", context]).unwrap();
    assert_eq!(from_stdin.stdin, Stdin::Dockerfile { empty_context: false });
    assert_eq!(from_stdin.attrs["dockerfilekey"], "dockerfile");
    let named = names(&["--build-context", &format!("extra={context}"), context]);
    assert_eq!(named[0], format!("extra={context}"));
    let url = plan(&["https://x/y.git"]).unwrap();
    assert_eq!((url.attrs["context"].as_str(), url.locals.len()), ("https://x/y.git", 0));
    let url = plan(&["-f", "/etc/hosts", "https://x/y.git"]).unwrap();
    assert_eq!((url.attrs["dockerfilekey"].as_str(), url.locals.len()), ("dockerfile", 1));
}
