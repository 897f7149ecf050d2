//! Operations as JSON, with the members of BuildKit's types in their order.

use super::Entry;
use super::json::{Object, list, map};
use kiln_proto::extra::LinuxResources;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::op::Op;
use kiln_proto::pb::user_opt::User;
use serde_json::Value;

fn new() -> Object {
    Object::default()
}

/// An operation.
pub(super) fn op(entry: &Entry) -> Value {
    let op = &entry.op;
    let kind = match &op.op {
        Some(Op::Exec(o)) => new().with("exec", exec(o)),
        Some(Op::Source(o)) => new().with(
            "source",
            new().put("identifier", o.identifier.as_str()).put("attrs", map(&o.attrs)).value(),
        ),
        Some(Op::File(o)) => new().with("file", new().put("actions", list(&o.actions, action)).value()),
        Some(Op::Build(o)) => new().with("build", build(o)),
        Some(Op::Merge(o)) => {
            let input = |i: &pb::MergeInput| new().put("input", i.input).value();
            new().with("merge", new().put("inputs", list(&o.inputs, input)).value())
        }
        Some(Op::Diff(o)) => new().with(
            "diff",
            new()
                .message("lower", o.lower.as_ref(), |i| new().put("input", i.input).value())
                .message("upper", o.upper.as_ref(), |i| new().put("input", i.input).value())
                .value(),
        ),
        None => new().message("passthrough", entry.extra.passthrough.as_ref(), |p| {
            new().put("id", p.id.as_str()).put("outputs", p.outputs.clone()).value()
        }),
    };
    let input = |i: &pb::Input| new().put("digest", i.digest.as_str()).put("index", i.index).value();
    new()
        .put("inputs", list(&op.inputs, input))
        .with("Op", kind.value())
        .message("platform", op.platform.as_ref(), platform)
        .message("constraints", op.constraints.as_ref(), |c| new().put("filter", c.filter.clone()).value())
        .value()
}

fn platform(p: &pb::Platform) -> Value {
    new()
        .put("Architecture", p.architecture.as_str())
        .put("OS", p.os.as_str())
        .put("Variant", p.variant.as_str())
        .put("OSVersion", p.os_version.as_str())
        .put("OSFeatures", p.os_features.clone())
        .value()
}

fn exec(e: &pb::ExecOp) -> Value {
    let secret = |s: &pb::SecretEnv| {
        new().put("ID", s.id.as_str()).put("name", s.name.as_str()).put("optional", s.optional).value()
    };
    let device = |d: &pb::CdiDevice| new().put("name", d.name.as_str()).put("optional", d.optional).value();
    new()
        .message("meta", e.meta.as_ref(), meta)
        .put("mounts", list(&e.mounts, mount))
        .put("network", e.network)
        .put("security", e.security)
        .put("secretenv", list(&e.secretenv, secret))
        .put("cdiDevices", list(&e.cdi_devices, device))
        .value()
}

fn meta(m: &pb::Meta) -> Value {
    let proxy = |p: &pb::ProxyEnv| {
        new()
            .put("http_proxy", p.http_proxy.as_str())
            .put("https_proxy", p.https_proxy.as_str())
            .put("ftp_proxy", p.ftp_proxy.as_str())
            .put("no_proxy", p.no_proxy.as_str())
            .put("all_proxy", p.all_proxy.as_str())
            .value()
    };
    let host = |h: &pb::HostIp| new().put("Host", h.host.as_str()).put("IP", h.ip.as_str()).value();
    let ulimit =
        |u: &pb::Ulimit| new().put("Name", u.name.as_str()).put("Soft", u.soft).put("Hard", u.hard).value();
    new()
        .put("args", m.args.clone())
        .put("env", m.env.clone())
        .put("cwd", m.cwd.as_str())
        .put("user", m.user.as_str())
        .message("proxy_env", m.proxy_env.as_ref(), proxy)
        .put("extraHosts", list(&m.extra_hosts, host))
        .put("hostname", m.hostname.as_str())
        .put("ulimit", list(&m.ulimit, ulimit))
        .put("cgroupParent", m.cgroup_parent.as_str())
        .put("removeMountStubsRecursive", m.remove_mount_stubs_recursive)
        .put("validExitCodes", m.valid_exit_codes.clone())
        .value()
}

fn mount(m: &pb::Mount) -> Value {
    let named = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
        new()
            .put("ID", id)
            .put("uid", uid)
            .put("gid", gid)
            .put("mode", mode)
            .put("optional", optional)
            .value()
    };
    new()
        .put("input", m.input)
        .put("selector", m.selector.as_str())
        .put("dest", m.dest.as_str())
        .put("output", m.output)
        .put("readonly", m.readonly)
        .put("mountType", m.mount_type)
        .message("TmpfsOpt", m.tmpfs_opt.as_ref(), |t| new().put("size", t.size).value())
        .message("cacheOpt", m.cache_opt.as_ref(), |c| {
            new().put("ID", c.id.as_str()).put("sharing", c.sharing).value()
        })
        .message("secretOpt", m.secret_opt.as_ref(), |s| named(&s.id, s.uid, s.gid, s.mode, s.optional))
        .message("SSHOpt", m.ssh_opt.as_ref(), |s| named(&s.id, s.uid, s.gid, s.mode, s.optional))
        .put("resultID", m.result_id.as_str())
        .put("contentCache", m.content_cache)
        .value()
}

fn build(b: &pb::BuildOp) -> Value {
    let inputs = b.inputs.iter().map(|(k, i)| (k.clone(), new().put("input", i.input).value()));
    let def = |d: &pb::Definition| kiln_llb::errdefs::definition_json(d).unwrap_or_else(|| new().value());
    new()
        .put("builder", b.builder)
        .put("inputs", Value::Object(inputs.collect()))
        .message("def", b.def.as_ref(), def)
        .put("attrs", map(&b.attrs))
        .value()
}

fn action(a: &pb::FileAction) -> Value {
    let kind = match &a.action {
        Some(Action::Copy(c)) => new().with("copy", copy(c)),
        Some(Action::Mkfile(m)) => new().with(
            "mkfile",
            new()
                .put("path", m.path.as_str())
                .put("mode", m.mode)
                .bytes("data", &m.data)
                .message("owner", m.owner.as_ref(), owner)
                .put("timestamp", m.timestamp)
                .value(),
        ),
        Some(Action::Mkdir(m)) => new().with(
            "mkdir",
            new()
                .put("path", m.path.as_str())
                .put("mode", m.mode)
                .put("makeParents", m.make_parents)
                .message("owner", m.owner.as_ref(), owner)
                .put("timestamp", m.timestamp)
                .value(),
        ),
        Some(Action::Rm(r)) => new().with(
            "rm",
            new()
                .put("path", r.path.as_str())
                .put("allowNotFound", r.allow_not_found)
                .put("allowWildcard", r.allow_wildcard)
                .value(),
        ),
        Some(Action::Symlink(s)) => new().with(
            "symlink",
            new()
                .put("oldpath", s.oldpath.as_str())
                .put("newpath", s.newpath.as_str())
                .message("owner", s.owner.as_ref(), owner)
                .put("timestamp", s.timestamp)
                .value(),
        ),
        None => new(),
    };
    new()
        .with("input", a.input)
        .with("secondaryInput", a.secondary_input)
        .with("output", a.output)
        .with("Action", kind.value())
        .value()
}

fn copy(c: &pb::FileActionCopy) -> Value {
    new()
        .put("src", c.src.as_str())
        .put("dest", c.dest.as_str())
        .message("owner", c.owner.as_ref(), owner)
        .put("mode", c.mode)
        .put("followSymlink", c.follow_symlink)
        .put("dirCopyContents", c.dir_copy_contents)
        .put("attemptUnpackDockerCompatibility", c.attempt_unpack_docker_compatibility)
        .put("createDestPath", c.create_dest_path)
        .put("allowWildcard", c.allow_wildcard)
        .put("allowEmptyWildcard", c.allow_empty_wildcard)
        .put("timestamp", c.timestamp)
        .put("include_patterns", c.include_patterns.clone())
        .put("exclude_patterns", c.exclude_patterns.clone())
        .put("alwaysReplaceExistingDestPaths", c.always_replace_existing_dest_paths)
        .put("modeStr", c.mode_str.as_str())
        .put("required_paths", c.required_paths.clone())
        .value()
}

fn owner(o: &pb::ChownOpt) -> Value {
    let user = |u: &pb::UserOpt| {
        let who = match &u.user {
            Some(User::ByName(n)) => {
                new().with("byName", new().put("name", n.name.as_str()).put("input", n.input).value())
            }
            Some(User::ById(id)) => new().put("byId", *id),
            None => new(),
        };
        new().with("User", who.value()).value()
    };
    new().message("user", o.user.as_ref(), user).message("group", o.group.as_ref(), user).value()
}

/// What is said of an operation.
pub(super) fn metadata(m: &pb::OpMetadata, resources: Option<&LinuxResources>) -> Value {
    let group = |g: &pb::ProgressGroup| {
        new().put("id", g.id.as_str()).put("name", g.name.as_str()).put("weak", g.weak).value()
    };
    let limits = |r: &LinuxResources| {
        new()
            .put("memory", r.memory)
            .put("memorySwap", r.memory_swap)
            .put("cpuShares", r.cpu_shares)
            .put("cpuPeriod", r.cpu_period)
            .put("cpuQuota", r.cpu_quota)
            .put("cpusetCpus", r.cpuset_cpus.as_str())
            .put("cpusetMems", r.cpuset_mems.as_str())
            .value()
    };
    new()
        .put("ignore_cache", m.ignore_cache)
        .put("description", map(&m.description))
        .message("export_cache", m.export_cache.as_ref(), |e| new().put("Value", e.value).value())
        .put("caps", map(&m.caps))
        .message("progress_group", m.progress_group.as_ref(), group)
        .message("linux_resources", resources, limits)
        .value()
}
