//! Flags of `build` as kiln's.

use kiln_cli::build::args::{BuildArgs, OldArgs};
use kiln_cli::printer;

use crate::error::Error;
use crate::flags::Parsed;

/// The flags.
pub(super) fn build_args(flags: &Parsed) -> BuildArgs {
    let words = |name: &str| -> Vec<String> {
        let list = flags.list(name);
        list.iter().flat_map(|v| v.split(',')).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let context = flags.words.first().cloned().unwrap_or_default();
    BuildArgs {
        context,
        file: flags.word("file"),
        target: flags.word("target"),
        build_arg: flags.list("build-arg"),
        platform: words("platform"),
        label: flags.list("label"),
        build_context: flags.list("build-context"),
        secret: flags.list("secret"),
        ssh: flags.list("ssh"),
        pull: flags.switch("pull"),
        tag: flags.list("tag"),
        output: flags.list("output"),
        push: flags.switch("push"),
        load: flags.switch("load"),
        iidfile: flags.word("iidfile").map(Into::into),
        metadata_file: flags.word("metadata-file").map(Into::into),
        quiet: flags.switch("quiet"),
        progress: flags.word("progress").unwrap_or_else(|| "auto".into()),
        no_cache: flags.switch("no-cache"),
        no_cache_filter: words("no-cache-filter"),
        add_host: flags.list("add-host"),
        network: flags.word("network").unwrap_or_else(|| "default".into()),
        allow: flags.list("allow"),
        shm_size: flags.word("shm-size"),
        ulimit: flags.list("ulimit"),
        resource: flags.list("resource"),
        cgroup_parent: flags.word("cgroup-parent"),
        attest: flags.list("attest"),
        provenance: flags.word("provenance"),
        sbom: flags.word("sbom"),
        cache_from: flags.list("cache-from"),
        cache_to: flags.list("cache-to"),
        annotation: flags.list("annotation"),
        call: flags.word("call"),
        check: flags.switch("check"),
        policy: flags.list("policy"),
        old: OldArgs {
            print: flags.word("print"),
            memory: flags.word("memory"),
            memory_swap: flags.word("memory-swap"),
            cpu_shares: flags.word("cpu-shares"),
            cpu_period: flags.word("cpu-period"),
            cpu_quota: flags.word("cpu-quota"),
            cpuset_cpus: flags.word("cpuset-cpus"),
            cpuset_mems: flags.word("cpuset-mems"),
            ..OldArgs::default()
        },
        ..BuildArgs::default()
    }
}

/// Refuses what cannot be, in the words of the real one.
pub(super) fn check(args: &BuildArgs) -> Result<(), Error> {
    let is_nameless = |p: &&String| p.is_empty() || p.starts_with('=');
    if let Some(pair) = args.build_arg.iter().chain(&args.label).find(is_nameless) {
        return Err(Error::Text(format!("invalid key-value pair {pair:?}: empty key")));
    }
    let is_empty = |arg: &String| arg.strip_prefix("BUILDKIT_SYNTAX=").is_some_and(|v| v.trim().is_empty());
    if args.build_arg.iter().any(is_empty) {
        return Err(Error::text(
            "failed to build: empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior",
        ));
    }
    Ok(())
}

/// Flags of old builders are said to mean nothing.
pub(super) fn warn_without_effect(flags: &Parsed) {
    let texts = [
        ("isolation", "isolation flag is deprecated with BuildKit."),
        (
            "security-opt",
            "security-opt flag is deprecated. \"RUN --security=insecure\" should be used with BuildKit.",
        ),
        (
            "squash",
            "experimental flag squash is removed with BuildKit. You should squash inside build using a multi-stage Dockerfile for efficiency.",
        ),
    ];
    for (_, text) in texts.iter().filter(|(name, _)| flags.has(name)) {
        printer::people(&format!("WARNING: {text}\n"));
    }
}
