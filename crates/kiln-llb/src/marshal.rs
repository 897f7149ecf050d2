//! The bytes of operations, exactly as Go clients write them (spec llb-and-solver section 1).
//!
//! `constraints` is always there, as an empty message when nothing is asked of the worker, except on the last,
//! terminal element of a definition.

use crate::Input;
use crate::op::*;
use crate::wire::Message;
use kiln_oci::Platform;

/// What is encoded of a vertex.
#[derive(Clone, Copy, Debug)]
pub struct OpParts<'a> {
    /// Inputs in order.
    pub inputs: &'a [Input],
    /// Only image sources and execs have one.
    pub platform: Option<&'a Platform>,
    /// Worker filters; usually none.
    pub constraints: &'a [String],
    /// The operation.
    pub op: &'a Op,
}

/// Encodes a vertex; its digest is the SHA-256 of the result.
pub fn encode_op(parts: OpParts<'_>) -> Vec<u8> {
    let mut m = Message::new();
    for i in parts.inputs {
        m.message(1, input(i));
    }
    if let Some(p) = parts.platform {
        m.message(10, platform(p));
    }
    let mut constraints = Message::new();
    constraints.strings(1, parts.constraints);
    m.message(11, constraints);
    let inputs = parts.inputs.len();
    match parts.op {
        Op::Exec(o) => m.message(2, exec(o)),
        Op::Source(o) => m.message(3, source(o)),
        Op::File(o) => m.message(4, file(o, inputs)),
        Op::Build(o) => m.message(5, build(o)),
        Op::Merge(o) => m.message(6, merge(o)),
        Op::Diff(o) => m.message(7, diff(o)),
        Op::Passthrough(o) => m.message(8, passthrough(o)),
    }
    m.into_bytes()
}

/// Encodes the last element of a definition, which only names the root.
pub fn encode_terminal(root: &Input) -> Vec<u8> {
    let mut m = Message::new();
    m.message(1, input(root));
    m.into_bytes()
}

/// An index on the wire; -1 stands for none.
pub(crate) fn index(i: Option<usize>) -> i64 {
    i.map_or(-1, |i| i64::try_from(i).unwrap_or(i64::MAX))
}

fn input(i: &Input) -> Message {
    let mut m = Message::new();
    m.str(1, &i.digest.to_string());
    m.varint(2, i.index as u64);
    m
}

fn platform(p: &Platform) -> Message {
    let mut m = Message::new();
    m.str(1, &p.architecture);
    m.str(2, &p.os);
    m.str(3, &p.variant);
    m.str(4, &p.os_version);
    m.strings(5, &p.os_features);
    m
}

fn source(o: &SourceOp) -> Message {
    let mut m = Message::new();
    m.str(1, &o.identifier);
    m.string_map(2, &o.attrs);
    m
}

fn exec(o: &ExecOp) -> Message {
    let mut m = Message::new();
    m.message(1, exec_meta(&o.meta));
    for mount in &o.mounts {
        m.message(2, exec_mount(mount));
    }
    m.varint(3, net_mode(o.network));
    m.varint(4, security_mode(o.security));
    for s in &o.secret_env {
        let mut e = Message::new();
        e.str(1, &s.id);
        e.str(2, &s.name);
        e.bool(3, s.optional);
        m.message(5, e);
    }
    for d in &o.cdi_devices {
        let mut e = Message::new();
        e.str(1, &d.name);
        e.bool(2, d.optional);
        m.message(6, e);
    }
    m
}

pub(crate) fn net_mode(n: NetMode) -> u64 {
    match n {
        NetMode::Default => 0,
        NetMode::Host => 1,
        NetMode::None => 2,
    }
}

pub(crate) fn security_mode(s: SecurityMode) -> u64 {
    match s {
        SecurityMode::Sandbox => 0,
        SecurityMode::Insecure => 1,
    }
}

pub(crate) fn mount_type(k: &MountKind) -> u64 {
    match k {
        MountKind::Bind => 0,
        MountKind::Secret(_) => 1,
        MountKind::Ssh(_) => 2,
        MountKind::Cache { .. } => 3,
        MountKind::Tmpfs { .. } => 4,
    }
}

pub(crate) fn sharing(s: CacheSharing) -> u64 {
    match s {
        CacheSharing::Shared => 0,
        CacheSharing::Private => 1,
        CacheSharing::Locked => 2,
    }
}

pub(crate) fn content_cache(c: ContentCache) -> u64 {
    match c {
        ContentCache::Default => 0,
        ContentCache::On => 1,
        ContentCache::Off => 2,
    }
}

pub(crate) fn file_mode(m: FileMode) -> i64 {
    match m {
        FileMode::Keep => -1,
        FileMode::Bits(b) => i64::from(b),
    }
}

fn exec_meta(o: &ExecMeta) -> Message {
    let mut m = Message::new();
    m.strings(1, &o.args);
    m.strings(2, &o.env);
    m.str(3, &o.cwd);
    m.str(4, &o.user);
    if let Some(p) = &o.proxy_env {
        let mut e = Message::new();
        e.str(1, &p.http_proxy);
        e.str(2, &p.https_proxy);
        e.str(3, &p.ftp_proxy);
        e.str(4, &p.no_proxy);
        e.str(5, &p.all_proxy);
        m.message(5, e);
    }
    for h in &o.extra_hosts {
        let mut e = Message::new();
        e.str(1, &h.host);
        e.str(2, &h.ip);
        m.message(6, e);
    }
    m.str(7, &o.hostname);
    for u in &o.ulimits {
        let mut e = Message::new();
        e.str(1, &u.name);
        e.int(2, u.soft);
        e.int(3, u.hard);
        m.message(9, e);
    }
    m.str(10, &o.cgroup_parent);
    m.bool(11, o.remove_mount_stubs_recursive);
    m.packed(12, o.valid_exit_codes.iter().map(|c| i64::from(*c)));
    m
}

fn exec_mount(o: &Mount) -> Message {
    let mut m = Message::new();
    m.int(1, index(o.input));
    m.str(2, &o.selector);
    m.str(3, &o.dest);
    m.int(4, wire_output(o));
    m.bool(5, o.readonly);
    m.varint(6, mount_type(&o.kind));
    match &o.kind {
        MountKind::Bind => {}
        MountKind::Tmpfs { size } => {
            if let Some(size) = size {
                let mut e = Message::new();
                e.varint(1, *size);
                m.message(19, e);
            }
        }
        MountKind::Cache { id, sharing: s } => {
            let mut e = Message::new();
            e.str(1, id);
            e.varint(2, sharing(*s));
            m.message(20, e);
        }
        MountKind::Secret(s) => m.message(21, access(&s.id, s.uid, s.gid, s.mode, s.optional)),
        MountKind::Ssh(s) => m.message(22, access(&s.id, s.uid, s.gid, s.mode, s.optional)),
    }
    m.str(23, &o.result_id);
    m.varint(24, content_cache(o.content_cache));
    m
}

/// Secret and ssh mounts have no result, but Go clients leave their output at zero.
pub(crate) fn wire_output(m: &Mount) -> i64 {
    match m.kind {
        MountKind::Secret(_) | MountKind::Ssh(_) if m.output.is_none() => 0,
        _ => index(m.output),
    }
}

fn access(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> Message {
    let mut m = Message::new();
    m.str(1, id);
    m.varint(2, u64::from(uid));
    m.varint(3, u64::from(gid));
    m.varint(4, u64::from(mode));
    m.bool(5, optional);
    m
}

fn file(o: &FileOp, inputs: usize) -> Message {
    let mut m = Message::new();
    for a in &o.actions {
        let wire = |i: Option<ActionInput>| i.map_or(-1, |i| i.to_wire(inputs));
        let mut e = Message::new();
        e.int(1, wire(a.input));
        e.int(2, wire(a.secondary));
        e.int(3, index(a.output));
        match &a.kind {
            FileActionKind::Copy(c) => e.message(4, copy(c, inputs)),
            FileActionKind::MkFile(f) => e.message(5, mkfile(f, inputs)),
            FileActionKind::MkDir(d) => e.message(6, mkdir(d, inputs)),
            FileActionKind::Rm(r) => e.message(7, rm(r)),
            FileActionKind::Symlink(s) => e.message(8, symlink(s, inputs)),
        }
        m.message(2, e);
    }
    m
}

fn copy(o: &CopyAction, inputs: usize) -> Message {
    let mut m = Message::new();
    m.str(1, &o.src);
    m.str(2, &o.dest);
    owner(&mut m, 3, o.owner.as_ref(), inputs);
    m.int(4, file_mode(o.mode));
    m.bool(5, o.follow_symlink);
    m.bool(6, o.dir_copy_contents);
    m.bool(7, o.attempt_unpack);
    m.bool(8, o.create_dest_path);
    m.bool(9, o.allow_wildcard);
    m.bool(10, o.allow_empty_wildcard);
    m.int(11, o.timestamp.unwrap_or(-1));
    m.strings(12, &o.include_patterns);
    m.strings(13, &o.exclude_patterns);
    m.bool(14, o.always_replace_existing_dest_paths);
    m.str(15, &o.mode_str);
    m.strings(16, &o.required_paths);
    m
}

fn mkfile(o: &MkFileAction, inputs: usize) -> Message {
    let mut m = Message::new();
    m.str(1, &o.path);
    m.int(2, file_mode(o.mode));
    m.bytes(3, &o.data);
    owner(&mut m, 4, o.owner.as_ref(), inputs);
    m.int(5, o.timestamp.unwrap_or(-1));
    m
}

fn mkdir(o: &MkDirAction, inputs: usize) -> Message {
    let mut m = Message::new();
    m.str(1, &o.path);
    m.int(2, file_mode(o.mode));
    m.bool(3, o.make_parents);
    owner(&mut m, 4, o.owner.as_ref(), inputs);
    m.int(5, o.timestamp.unwrap_or(-1));
    m
}

fn rm(o: &RmAction) -> Message {
    let mut m = Message::new();
    m.str(1, &o.path);
    m.bool(2, o.allow_not_found);
    m.bool(3, o.allow_wildcard);
    m
}

fn symlink(o: &SymlinkAction, inputs: usize) -> Message {
    let mut m = Message::new();
    m.str(1, &o.oldpath);
    m.str(2, &o.newpath);
    owner(&mut m, 3, o.owner.as_ref(), inputs);
    m.int(4, o.timestamp.unwrap_or(-1));
    m
}

fn owner(m: &mut Message, field: u32, o: Option<&ChownOpt>, inputs: usize) {
    let Some(o) = o else { return };
    let mut e = Message::new();
    for (field, who) in [(1, &o.user), (2, &o.group)] {
        let Some(who) = who else { continue };
        let mut w = Message::new();
        match who {
            UserOpt::Name { name, input } => {
                let mut n = Message::new();
                n.str(1, name);
                n.int(2, input.map_or(-1, |i| i.to_wire(inputs)));
                w.message(1, n);
            }
            UserOpt::Id(id) => w.oneof_varint(2, u64::from(*id)),
        }
        e.message(field, w);
    }
    m.message(field, e);
}

fn build(o: &BuildOp) -> Message {
    let mut m = Message::new();
    m.int(1, -1);
    for (name, i) in &o.inputs {
        let mut value = Message::new();
        value.varint(1, *i as u64);
        let mut entry = Message::new();
        entry.element(1, name.as_bytes());
        entry.message(2, value);
        m.message(2, entry);
    }
    m.string_map(4, &o.attrs);
    m
}

fn merge(o: &MergeOp) -> Message {
    let mut m = Message::new();
    for i in &o.inputs {
        let mut e = Message::new();
        e.int(1, index(*i));
        m.message(1, e);
    }
    m
}

fn diff(o: &DiffOp) -> Message {
    let mut m = Message::new();
    for (field, i) in [(1, o.lower), (2, o.upper)] {
        let mut e = Message::new();
        e.int(1, index(i));
        m.message(field, e);
    }
    m
}

fn passthrough(o: &PassthroughOp) -> Message {
    let mut m = Message::new();
    m.str(1, &o.id);
    m.packed(2, o.outputs.iter().map(|i| i64::try_from(*i).unwrap_or(i64::MAX)));
    m
}
