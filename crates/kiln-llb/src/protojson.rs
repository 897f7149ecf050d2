//! A graph as JSON, in the form that Go's protojson gives it: names in camel case, 64-bit numbers as texts, bytes in
//! base64, defaults left out, members in the order of the proto file.

mod file;
mod object;

use crate::errdefs::metadata_json;
use crate::{Definition, LinuxResources, Op, Vertex};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use file::action;
use kiln_proto::pb;
use object::object;
use prost::Message as _;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `{"def": {<digest>: op}, "metadata": {<digest>: metadata}, "source": ..}`: what `frontend.convertllb` answers.
///
/// The metadata is as Go's encoding/json writes it, the rest as protojson does.
pub fn definition_ops(def: &Definition) -> Value {
    let wire = def.to_pb();
    let resources: BTreeMap<String, &LinuxResources> = def
        .vertices()
        .iter()
        .filter_map(|v| Some((v.digest.to_string(), v.metadata.linux_resources.as_ref()?)))
        .collect();
    let passthrough: BTreeMap<String, &Op> = def
        .vertices()
        .iter()
        .filter(|v| matches!(v.op, Op::Passthrough(_)))
        .map(|v| (v.digest.to_string(), &v.op))
        .collect();
    let ops: BTreeMap<String, Value> = wire
        .def
        .iter()
        .map(|bytes| {
            let digest = kiln_digest::Digest::sha256(bytes).to_string();
            let value =
                op(&pb::Op::decode(&bytes[..]).unwrap_or_default(), passthrough.get(&digest).copied());
            (digest, value)
        })
        .collect();
    let metadata: BTreeMap<&String, Value> = wire
        .metadata
        .iter()
        .map(|(digest, m)| {
            let mut value = metadata_json(m);
            if let (Some(r), Value::Object(map)) = (resources.get(digest), &mut value) {
                map.insert("linux_resources".to_string(), linux_resources(r));
            }
            (digest, value)
        })
        .collect();
    let mut out = Map::new();
    out.insert("def".to_string(), ops.into_iter().collect());
    out.insert("metadata".to_string(), metadata.into_iter().map(|(k, v)| (k.clone(), v)).collect());
    out.insert("source".to_string(), wire.source.as_ref().map_or_else(|| Value::Object(Map::new()), source));
    out.into()
}

/// One operation: what `errdefs.Solve` carries.
pub fn vertex_op(vertex: &Vertex) -> Value {
    op(&pb::Op::decode(vertex.encoded()).unwrap_or_default(), Some(&vertex.op))
}

fn op(op: &pb::Op, passthrough: Option<&Op>) -> Value {
    use pb::op::Op as Kind;
    let mut out = object()
        .list("inputs", &op.inputs, |i| object().text("digest", &i.digest).long("index", i.index).done());
    out = match &op.op {
        Some(Kind::Exec(e)) => out.put("exec", exec(e)),
        Some(Kind::Source(s)) => out.put(
            "source",
            object().text("identifier", &s.identifier).map("attrs", &s.attrs, |v| v.as_str().into()).done(),
        ),
        Some(Kind::File(f)) => out.put("file", object().list("actions", &f.actions, action).done()),
        Some(Kind::Build(b)) => out.put("build", build(b)),
        Some(Kind::Merge(m)) => {
            out.put("merge", object().list("inputs", &m.inputs, |i| input(i.input)).done())
        }
        Some(Kind::Diff(d)) => out.put(
            "diff",
            object()
                .some("lower", d.lower.as_ref().map(|l| input(l.input)))
                .some("upper", d.upper.as_ref().map(|u| input(u.input)))
                .done(),
        ),
        None => out,
    };
    if let Some(Op::Passthrough(p)) = passthrough {
        let long = |n: &usize| n.to_string().into();
        out = out.put("passthrough", object().text("id", &p.id).list("outputs", &p.outputs, long).done());
    }
    let platform = op.platform.as_ref().map(|p| {
        object()
            .text("Architecture", &p.architecture)
            .text("OS", &p.os)
            .text("Variant", &p.variant)
            .text("OSVersion", &p.os_version)
            .texts("OSFeatures", &p.os_features)
            .done()
    });
    let constraints = op.constraints.as_ref().map(|c| object().texts("filter", &c.filter).done());
    out.some("platform", platform).some("constraints", constraints).done()
}

fn input(n: i64) -> Value {
    object().long("input", n).done()
}

fn build(b: &pb::BuildOp) -> Value {
    object()
        .long("builder", b.builder)
        .map("inputs", &b.inputs, |i| input(i.input))
        .some("def", b.def.as_ref().map(definition))
        .map("attrs", &b.attrs, |v| v.as_str().into())
        .done()
}

fn exec(e: &pb::ExecOp) -> Value {
    let secret_env = |s: &pb::SecretEnv| {
        object().text("ID", &s.id).text("name", &s.name).flag("optional", s.optional).done()
    };
    let device = |d: &pb::CdiDevice| object().text("name", &d.name).flag("optional", d.optional).done();
    object()
        .some("meta", e.meta.as_ref().map(meta))
        .list("mounts", &e.mounts, mount)
        .name("network", e.network, &["UNSET", "HOST", "NONE"])
        .name("security", e.security, &["SANDBOX", "INSECURE"])
        .list("secretenv", &e.secretenv, secret_env)
        .list("cdiDevices", &e.cdi_devices, device)
        .done()
}

fn meta(m: &pb::Meta) -> Value {
    let proxy = m.proxy_env.as_ref().map(|p| {
        object()
            .text("httpProxy", &p.http_proxy)
            .text("httpsProxy", &p.https_proxy)
            .text("ftpProxy", &p.ftp_proxy)
            .text("noProxy", &p.no_proxy)
            .text("allProxy", &p.all_proxy)
            .done()
    });
    let ulimit =
        |u: &pb::Ulimit| object().text("Name", &u.name).long("Soft", u.soft).long("Hard", u.hard).done();
    object()
        .texts("args", &m.args)
        .texts("env", &m.env)
        .text("cwd", &m.cwd)
        .text("user", &m.user)
        .some("proxyEnv", proxy)
        .list("extraHosts", &m.extra_hosts, |h| object().text("Host", &h.host).text("IP", &h.ip).done())
        .text("hostname", &m.hostname)
        .list("ulimit", &m.ulimit, ulimit)
        .text("cgroupParent", &m.cgroup_parent)
        .flag("removeMountStubsRecursive", m.remove_mount_stubs_recursive)
        .list("validExitCodes", &m.valid_exit_codes, |c| (*c).into())
        .done()
}

fn mount(m: &pb::Mount) -> Value {
    const KINDS: [&str; 5] = ["BIND", "SECRET", "SSH", "CACHE", "TMPFS"];
    let cache = |c: &pb::CacheOpt| {
        object().text("ID", &c.id).name("sharing", c.sharing, &["SHARED", "PRIVATE", "LOCKED"]).done()
    };
    let file = |id: &str, uid: u32, gid: u32, mode: u32, optional: bool| {
        let ids = object().text("ID", id).int("uid", uid.into()).int("gid", gid.into());
        ids.int("mode", mode.into()).flag("optional", optional).done()
    };
    let secret = m.secret_opt.as_ref().map(|s| file(&s.id, s.uid, s.gid, s.mode, s.optional));
    let ssh = m.ssh_opt.as_ref().map(|s| file(&s.id, s.uid, s.gid, s.mode, s.optional));
    object()
        .long("input", m.input)
        .text("selector", &m.selector)
        .text("dest", &m.dest)
        .long("output", m.output)
        .flag("readonly", m.readonly)
        .name("mountType", m.mount_type, &KINDS)
        .some("TmpfsOpt", m.tmpfs_opt.as_ref().map(|t| object().long("size", t.size).done()))
        .some("cacheOpt", m.cache_opt.as_ref().map(cache))
        .some("secretOpt", secret)
        .some("SSHOpt", ssh)
        .text("resultID", &m.result_id)
        .name("contentCache", m.content_cache, &["DEFAULT", "ON", "OFF"])
        .done()
}

fn definition(d: &pb::Definition) -> Value {
    object()
        .list("def", &d.def, |bytes| STANDARD.encode(bytes).into())
        .map("metadata", &d.metadata, metadata)
        .some("Source", d.source.as_ref().map(source))
        .done()
}

fn metadata(m: &pb::OpMetadata) -> Value {
    let group =
        |g: &pb::ProgressGroup| object().text("id", &g.id).text("name", &g.name).flag("weak", g.weak).done();
    object()
        .flag("ignoreCache", m.ignore_cache)
        .map("description", &m.description, |v| v.as_str().into())
        .some("exportCache", m.export_cache.as_ref().map(|e| object().flag("Value", e.value).done()))
        .map("caps", &m.caps, |v| (*v).into())
        .some("progressGroup", m.progress_group.as_ref().map(group))
        .done()
}

fn source(s: &pb::Source) -> Value {
    let position =
        |p: &pb::Position| object().int("line", p.line.into()).int("character", p.character.into()).done();
    let range = |r: &pb::Range| {
        let start = object().some("start", r.start.as_ref().map(position));
        start.some("end", r.end.as_ref().map(position)).done()
    };
    let location = |l: &pb::Location| {
        object().int("sourceIndex", l.source_index.into()).list("ranges", &l.ranges, range).done()
    };
    let info = |i: &pb::SourceInfo| {
        object()
            .text("filename", &i.filename)
            .bytes("data", &i.data)
            .some("definition", i.definition.as_ref().map(definition))
            .text("language", &i.language)
            .done()
    };
    object()
        .map("locations", &s.locations, |l| object().list("locations", &l.locations, location).done())
        .list("infos", &s.infos, info)
        .done()
}

/// As Go's encoding/json writes them.
fn linux_resources(r: &LinuxResources) -> Value {
    object()
        .int("memory", r.memory)
        .int("memorySwap", r.memory_swap)
        .some("cpuShares", (r.cpu_shares != 0).then(|| r.cpu_shares.into()))
        .some("cpuPeriod", (r.cpu_period != 0).then(|| r.cpu_period.into()))
        .int("cpuQuota", r.cpu_quota)
        .text("cpusetCpus", &r.cpuset_cpus)
        .text("cpusetMems", &r.cpuset_mems)
        .done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::{ActionSpec, Constraints, ExecSpec, GraphBuilder, MarshalOptions, Owner};

    #[test]
    fn operations_are_written_as_protojson_does() {
        let mut graph = GraphBuilder::new();
        let image = graph.image("docker.io/library/x:1", crate::ResolveMode::Default, Constraints::default());
        let dir = ActionSpec::MkDir {
            path: "/a".into(),
            mode: 0o755,
            make_parents: true,
            owner: Some(Owner::parse("0:u")),
            timestamp: None,
        };
        let base = graph.file(Some(image), "/", vec![dir], Constraints::default());
        let mut spec = ExecSpec { root: Some(base), network: crate::NetMode::Host, ..Default::default() };
        spec.meta.args = vec!["<sh>".into()];
        spec.meta.cwd = "/".into();
        let out = graph.exec(spec, Constraints::default());
        let json = definition_ops(&graph.marshal(out, &MarshalOptions::default()).unwrap());
        let ops: Vec<&Value> = json["def"].as_object().unwrap().values().collect();
        assert_eq!(ops.len(), 4, "three operations and the one that names the result");
        let file = ops.iter().find(|o| o.get("file").is_some()).unwrap();
        let action = &file["file"]["actions"][0];
        assert_eq!(action["secondaryInput"], "-1");
        assert_eq!(action["mkdir"]["mode"], 0o755);
        assert_eq!(action["mkdir"]["timestamp"], "-1");
        assert_eq!(action["mkdir"]["owner"]["user"]["byID"], 0);
        let exec = ops.iter().find(|o| o.get("exec").is_some()).unwrap();
        assert_eq!(exec["exec"]["network"], "HOST");
        assert!(exec["exec"]["mounts"][0].get("mountType").is_none());
        assert_eq!(exec["inputs"][0].as_object().unwrap().len(), 1);
        assert!(json["source"].get("infos").is_none());
    }
}
