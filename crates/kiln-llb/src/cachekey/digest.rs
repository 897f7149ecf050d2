//! Digests of operations: what they do, without what they do it to.

use crate::Vertex;
use crate::json::{self, Object};
use crate::marshal::{
    content_cache, file_mode, index, mount_type, net_mode, security_mode, sharing, wire_output,
};
use crate::op::*;
use kiln_digest::Digest;
use kiln_go::path as gopath;
use kiln_oci::Platform;

/// The digest of what `vertex` does. `None` for sources, whose keys depend on what they find
/// ([`super::source_digest`]).
///
/// `default_platform` is the daemon's own, for vertices that name none.
pub fn op_digest(vertex: &Vertex, default_platform: &Platform) -> Option<Digest> {
    let text = match &vertex.op {
        Op::Source(_) => return None,
        Op::Exec(op) => exec_text(op, &vertex.platform.as_ref().unwrap_or(default_platform).normalize()),
        Op::File(op) => file_text(op, vertex.inputs.len()),
        Op::Build(op) => typed("buildkit.build.v0", "Exec", build(op)),
        Op::Merge(op) => typed("buildkit.merge.v0", "Merge", merge(op)),
        Op::Diff(op) => typed("buildkit.diff.v0", "Diff", diff(op)),
        Op::Passthrough(op) => typed("buildkit.passthrough.v0", "Passthrough", passthrough(op)),
    };
    // What a proxied step gave is not what it gives without: nobody allowed or noted what that fetched.
    Some(crate::definition::digest_of(text.as_bytes(), vertex.proxied))
}

fn typed(kind: &str, field: &str, value: String) -> String {
    let mut o = Object::new();
    o.always("Type", kind).raw(field, &value);
    o.finish()
}

pub(super) fn exec_text(op: &ExecOp, platform: &Platform) -> String {
    let mut exec = Object::new();
    exec.raw("meta", &exec_meta(&op.meta));
    if !is_plain_root(&op.mounts) {
        exec.list("mounts", op.mounts.iter().map(mount).collect());
    }
    exec.uint("network", net_mode(op.network));
    exec.uint("security", security_mode(op.security));
    exec.list("secretenv", op.secret_env.iter().map(secret_env).collect());
    exec.list("cdiDevices", op.cdi_devices.iter().map(cdi_device).collect());
    let mut o = Object::new();
    o.always("Type", "buildkit.exec.v0").raw("Exec", &exec.finish());
    o.always("OS", &platform.os).always("Arch", &platform.architecture);
    o.str("Variant", &platform.variant).str("OSVersion", &platform.os_version);
    o.strings("OSFeatures", &platform.os_features);
    o.finish()
}

/// An exec whose only mount is a writable root has a key without mounts: a quirk that keeps old caches valid.
fn is_plain_root(mounts: &[Mount]) -> bool {
    match mounts {
        [m] => m.dest == "/" && !m.readonly && m.kind == MountKind::Bind && m.result_id.is_empty(),
        _ => false,
    }
}

/// Without proxy variables, and with host names but not their addresses.
fn exec_meta(m: &ExecMeta) -> String {
    let host = |h: &HostIp| {
        let mut o = Object::new();
        o.str("Host", &h.host);
        o.finish()
    };
    let ulimit = |u: &Ulimit| {
        let mut o = Object::new();
        o.str("Name", &u.name).int("Soft", u.soft).int("Hard", u.hard);
        o.finish()
    };
    let mut o = Object::new();
    o.strings("args", &m.args).strings("env", &m.env).str("cwd", &m.cwd).str("user", &m.user);
    o.list("extraHosts", m.extra_hosts.iter().map(host).collect());
    o.str("hostname", &m.hostname);
    o.list("ulimit", m.ulimits.iter().map(ulimit).collect());
    o.str("cgroupParent", &m.cgroup_parent);
    o.bool("removeMountStubsRecursive", m.remove_mount_stubs_recursive);
    o.list("validExitCodes", m.valid_exit_codes.iter().map(i32::to_string).collect());
    o.finish()
}

fn secret_env(s: &SecretEnv) -> String {
    let mut o = Object::new();
    o.str("ID", &s.id).str("name", &s.name).bool("optional", s.optional);
    o.finish()
}

fn cdi_device(d: &CdiDevice) -> String {
    let mut o = Object::new();
    o.str("name", &d.name).bool("optional", d.optional);
    o.finish()
}

/// Without the selector, which belongs to the input's key.
fn mount(m: &Mount) -> String {
    let mut o = Object::new();
    o.int("input", index(m.input))
        .str("dest", &m.dest)
        .int("output", wire_output(m))
        .bool("readonly", m.readonly);
    o.uint("mountType", mount_type(&m.kind));
    match &m.kind {
        MountKind::Bind | MountKind::Tmpfs { size: None } => {}
        MountKind::Tmpfs { size: Some(size) } => {
            let mut t = Object::new();
            t.uint("size", *size);
            o.raw("TmpfsOpt", &t.finish());
        }
        MountKind::Cache { id, sharing: s } => {
            let mut c = Object::new();
            if names_its_destination(id, &m.dest) && *s == CacheSharing::Shared {
                c.str("ID", id).uint("sharing", sharing(*s));
            }
            o.raw("cacheOpt", &c.finish());
        }
        MountKind::Secret(s) => {
            o.raw("secretOpt", &access(&s.id, s.uid, s.gid, s.mode, s.optional));
        }
        MountKind::Ssh(s) => {
            o.raw("SSHOpt", &access(&s.id, s.uid, s.gid, s.mode, s.optional));
        }
    }
    o.str("resultID", &m.result_id).uint("contentCache", content_cache(m.content_cache));
    o.finish()
}

/// Ids that the Dockerfile frontend makes from the destination were always part of the key.
fn names_its_destination(id: &str, dest: &str) -> bool {
    id == dest || id.split_once('/').is_some_and(|(_, rest)| rest == dest)
}

fn access(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> String {
    let mut o = Object::new();
    o.str("ID", id).uint("uid", uid.into()).uint("gid", gid.into()).uint("mode", mode.into());
    o.bool("optional", optional);
    o.finish()
}

pub(super) fn file_text(op: &FileOp, inputs: usize) -> String {
    let wire = |i: Option<ActionInput>| i.map_or(-1, |i| i.to_wire(inputs));
    let actions = op.actions.iter().map(|a| json::base64(action(a, inputs).as_bytes()));
    let mut o = Object::new();
    o.always("Type", "buildkit.file.v0").raw("Actions", &json::array(actions));
    let indexes: Vec<[i64; 3]> =
        op.actions.iter().map(|a| [wire(a.input), wire(a.secondary), index(a.output)]).collect();
    if !is_default_layout(&indexes) {
        o.list("indexes", indexes.iter().map(|i| json::array(i.iter().map(i64::to_string))).collect());
    }
    o.finish()
}

/// Old caches know only this layout, without its indices. That actions are counted from the number of actions and
/// not of inputs is a quirk that must stay.
fn is_default_layout(indexes: &[[i64; 3]]) -> bool {
    let n = indexes.len();
    let is_default = |(i, [input, secondary, output]): (usize, &[i64; 3])| {
        let first = if i == 0 { 0 } else { (n + i - 1) as i64 };
        let last = if i + 1 == n { 0 } else { -1 };
        *input == first && (*secondary == -1 || *secondary == 1) && *output == last
    };
    indexes.iter().enumerate().all(is_default)
}

fn action(a: &FileAction, inputs: usize) -> String {
    let mut o = Object::new();
    match &a.kind {
        FileActionKind::Copy(c) => copy(&mut o, c, a.secondary, inputs),
        FileActionKind::MkFile(f) => {
            o.str("path", &f.path).int("mode", file_mode(f.mode)).bytes("data", &f.data);
            o.object("owner", owner(f.owner.as_ref(), inputs)).int("timestamp", f.timestamp.unwrap_or(-1));
        }
        FileActionKind::MkDir(d) => {
            o.str("path", &d.path).int("mode", file_mode(d.mode)).bool("makeParents", d.make_parents);
            o.object("owner", owner(d.owner.as_ref(), inputs)).int("timestamp", d.timestamp.unwrap_or(-1));
        }
        FileActionKind::Rm(r) => {
            o.str("path", &r.path)
                .bool("allowNotFound", r.allow_not_found)
                .bool("allowWildcard", r.allow_wildcard);
        }
        FileActionKind::Symlink(s) => {
            o.str("oldpath", &s.oldpath).str("newpath", &s.newpath);
            o.object("owner", owner(s.owner.as_ref(), inputs)).int("timestamp", s.timestamp.unwrap_or(-1));
        }
    }
    o.finish()
}

fn copy(o: &mut Object, c: &CopyAction, from: Option<ActionInput>, inputs: usize) {
    // The path itself is in the input's selector.
    let src = match from {
        Some(ActionInput::Op(_)) => gopath::base(&c.src),
        _ => c.src.as_str(),
    };
    o.str("src", src).str("dest", &c.dest).object("owner", owner(c.owner.as_ref(), inputs));
    o.int("mode", file_mode(c.mode)).bool("followSymlink", c.follow_symlink);
    o.bool("dirCopyContents", c.dir_copy_contents);
    o.bool("attemptUnpackDockerCompatibility", c.attempt_unpack);
    o.bool("createDestPath", c.create_dest_path).bool("allowWildcard", c.allow_wildcard);
    o.bool("allowEmptyWildcard", c.allow_empty_wildcard).int("timestamp", c.timestamp.unwrap_or(-1));
    o.strings("include_patterns", &c.include_patterns).strings("exclude_patterns", &c.exclude_patterns);
    o.bool("alwaysReplaceExistingDestPaths", c.always_replace_existing_dest_paths);
    o.str("modeStr", &c.mode_str).strings("required_paths", &c.required_paths);
}

fn owner(o: Option<&ChownOpt>, inputs: usize) -> Option<String> {
    let o = o?;
    let user = |u: &UserOpt| {
        let mut inner = Object::new();
        match u {
            UserOpt::Id(id) => {
                inner.uint("byId", u64::from(*id));
            }
            UserOpt::Name { name, input } => {
                let mut n = Object::new();
                n.str("name", name).int("input", input.map_or(-1, |i| i.to_wire(inputs)));
                inner.raw("byName", &n.finish());
            }
        }
        let mut outer = Object::new();
        outer.raw("User", &inner.finish());
        outer.finish()
    };
    let mut out = Object::new();
    out.object("user", o.user.as_ref().map(user)).object("group", o.group.as_ref().map(user));
    Some(out.finish())
}

fn build(op: &BuildOp) -> String {
    let mut inputs = Object::new();
    for (name, i) in &op.inputs {
        let mut input = Object::new();
        input.uint("input", *i as u64);
        inputs.raw(name, &input.finish());
    }
    let mut attrs = Object::new();
    for (k, v) in &op.attrs {
        attrs.always(k, v);
    }
    let mut o = Object::new();
    o.int("builder", -1).object("inputs", (!op.inputs.is_empty()).then(|| inputs.finish()));
    o.object("attrs", (!op.attrs.is_empty()).then(|| attrs.finish()));
    o.finish()
}

fn side(i: Option<usize>) -> String {
    let mut o = Object::new();
    o.int("input", index(i));
    o.finish()
}

fn merge(op: &MergeOp) -> String {
    let mut o = Object::new();
    o.list("inputs", op.inputs.iter().map(|i| side(*i)).collect());
    o.finish()
}

fn diff(op: &DiffOp) -> String {
    let mut o = Object::new();
    o.raw("lower", &side(op.lower)).raw("upper", &side(op.upper));
    o.finish()
}

fn passthrough(op: &PassthroughOp) -> String {
    let mut o = Object::new();
    o.str("id", &op.id).list("outputs", op.outputs.iter().map(usize::to_string).collect());
    o.finish()
}
