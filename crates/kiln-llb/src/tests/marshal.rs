//! Bytes and digests of the Go client (spec llb-and-solver section 9).

use super::*;
use crate::builder::*;
use crate::op::attr;
use kiln_proto::pb;
use prost::Message;

#[test]
fn a_local_source() {
    let attrs = [(attr::LOCAL_SESSION.to_string(), "sess".to_string())].into();
    let v = vertex(Op::Source(SourceOp { identifier: "local://context".into(), attrs }), 0);
    let want = "5a001a280a0f6c6f63616c3a2f2f636f6e7465787412150a0d6c6f63616c2e73657373696f6e120473657373";
    assert_eq!(hex(v.encoded()), want);
    assert_eq!(v.digest, digest("a1b91230ab68d5588ef9168b6f1805d039a222a2e7927ba2a1728eb6bb3233b9"));
}

#[test]
fn a_workdir_on_scratch() {
    let v = vertex(workdir("/x"), 0);
    let want = "5a00222e122c08ffffffffffffffffff0110ffffffffffffffffff0132140a022f7810ed03180128ffffffffffffffffff01";
    assert_eq!(hex(v.encoded()), want);
    assert_eq!(v.digest, digest("f5f83dd4c9862983f8f60b519a499ad3ea67b55e1b982f33c3e70bebbb130880"));
}

#[test]
fn a_merge_ends_with_its_inputs() {
    let v = vertex(Op::Merge(MergeOp { inputs: vec![Some(0), Some(1)] }), 2);
    assert!(hex(v.encoded()).ends_with("5a0032060a000a020801"));
}

#[test]
fn a_graph_is_written_and_read_back() {
    let mut g = GraphBuilder::new();
    let info = SourceInfo { filename: "Dockerfile".into(), data: b"x".to_vec(), ..Default::default() };
    let file = g.add_source_info(info);
    let range = Range { start: Position { line: 3, character: 0 }, end: Position { line: 3, character: 0 } };
    let late = g.deferred();
    let image = g.image(
        "docker.io/library/alpine:3",
        ResolveMode::Default,
        Constraints::default().named("FROM alpine"),
    );
    let copy =
        CopySpec { source: Some(late), owner: Some(Owner::parse("u:0")), action: super::copy("a", "b/") };
    let copied = g.file(Some(image), "/app", vec![ActionSpec::Copy(Box::new(copy))], Constraints::default());
    let mount = MountSpec { target: "/m".into(), source: Some(late), no_output: true, ..Default::default() };
    let spec = ExecSpec {
        meta: ExecMeta { args: vec!["true".into()], cwd: "/".into(), ..Default::default() },
        root: Some(copied),
        mounts: vec![mount],
        ssh: vec![SshSpec { mode: 0o600, ..Default::default() }],
        ..Default::default()
    };
    let run = g.exec(spec, Constraints::default().at(file, &[range])).unwrap();
    let context = g.local(
        &LocalSpec { name: "context".into(), session_id: "s".into(), ..Default::default() },
        Constraints::default(),
    );
    g.resolve(late, Some(context));

    let def = g.marshal(Some(run), &MarshalOptions { platform: amd64(), ..Default::default() }).unwrap();
    let back = Definition::decode(&def.to_pb()).unwrap();
    assert_eq!(back, def);
    assert_eq!(back.to_pb(), def.to_pb());
    let names: Vec<_> = def.vertices().iter().map(|v| v.name().to_string()).collect();
    assert_eq!(names, ["FROM alpine", "local://context", "copy /a /app/b/", "true"]);
    let root = def.vertex(&def.root().unwrap().digest).unwrap();
    let Op::Exec(exec) = &root.op else { panic!() };
    assert_eq!(exec.meta.env, ["SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]);
    assert_eq!(exec.outputs().collect::<Vec<_>>(), [0]);
    assert_eq!(def.source().unwrap().of(&root.digest)[0].1, [range]);
}

#[test]
fn a_graph_can_take_in_another() {
    let mut a = GraphBuilder::new();
    let l = a.local(&LocalSpec { name: "x".into(), ..Default::default() }, Constraints::default());
    let opt = MarshalOptions { platform: amd64(), local_unique_id: "u".into() };
    let inner = a.marshal(Some(l), &opt).unwrap();
    let mut b = GraphBuilder::new();
    let root = b.definition(&inner);
    let file = b.file(
        root,
        "/",
        vec![ActionSpec::Rm(RmAction { path: "x".into(), ..Default::default() })],
        Constraints::default(),
    );
    let outer = b.marshal(Some(file), &MarshalOptions::default()).unwrap();
    assert_eq!(outer.vertices()[0].digest, inner.root().unwrap().digest);
    assert_eq!(outer.vertices()[1].inputs, [inner.root().unwrap()]);
    assert_eq!(b.marshal(None, &opt).unwrap(), Definition::default());
}

#[test]
fn merging_with_scratch_changes_nothing() {
    let mut g = GraphBuilder::new();
    let x = g.image("x", ResolveMode::Default, Constraints::default());
    assert_eq!(g.merge(&[None, Some(x), None], Constraints::default()), Some(x));
    assert_eq!(g.merge(&[None], Constraints::default()), None);
    let m = g.merge(&[Some(x), Some(x)], Constraints::default()).unwrap();
    let def = g.marshal(Some(m), &MarshalOptions::default()).unwrap();
    assert_eq!(def.vertices()[1].inputs.len(), 2);
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let mut g = GraphBuilder::new();
    let late = g.deferred();
    let opt = MarshalOptions::default();
    assert_eq!(g.marshal(Some(late), &opt), Err(MarshalError::Unresolved));
    g.resolve(late, Some(late));
    assert_eq!(g.marshal(Some(late), &opt), Err(MarshalError::Cycle));
    let late = g.deferred();
    let f = g.file(Some(late), "/", vec![ActionSpec::Rm(RmAction::default())], Constraints::default());
    g.resolve(late, Some(f));
    assert_eq!(g.marshal(Some(f), &opt), Err(MarshalError::Cycle));
}

#[test]
fn a_very_long_chain_needs_no_stack() {
    let mut g = GraphBuilder::new();
    let mut at = None;
    for i in 0..20_000 {
        let rm = RmAction { path: format!("/{i}"), ..Default::default() };
        at = Some(g.file(at, "/", vec![ActionSpec::Rm(rm)], Constraints::default()));
    }
    let def = g.marshal(at, &MarshalOptions::default()).unwrap();
    assert_eq!(Definition::decode(&def.to_pb()).unwrap().vertices().len(), 20_000);
}

/// A value that is left out is a null pointer to the decoder of Go programs.
#[test]
fn maps_on_the_wire_have_no_empty_values() {
    let op = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp { identifier: "local://x".into(), ..Default::default() })),
        ..Default::default()
    };
    let op = op.encode_to_vec();
    let digest = Digest::sha256(&op).to_string();
    let root = pb::Op { inputs: vec![pb::Input { digest: digest.clone(), index: 0 }], ..Default::default() };
    let locations = [(digest.clone(), pb::Locations::default())].into();
    let definition = pb::Definition {
        def: vec![op, root.encode_to_vec()],
        metadata: [(digest, pb::OpMetadata::default())].into(),
        source: Some(pb::Source { locations, ..Default::default() }),
    };
    let wire = Definition::decode(&definition).unwrap().to_wire();
    assert!(wire.metadata.values().all(|m| *m != pb::OpMetadata::default()));
    assert!(wire.source.unwrap().locations.is_empty());
    assert!(!Definition::default().to_wire().encode_to_vec().is_empty());
}

#[test]
fn other_sources_give_what_uses_them_other_digests() {
    let mut g = GraphBuilder::new();
    let info = SourceInfo { filename: "Dockerfile".into(), ..Default::default() };
    let at = g.add_source_info(info);
    let range = Range { start: Position { line: 3, character: 0 }, end: Position { line: 3, character: 0 } };
    let local = |name: &str| LocalSpec { name: name.into(), ..Default::default() };
    let (one, two) =
        (g.local(&local("one"), Constraints::default()), g.local(&local("two"), Constraints::default()));
    let copy =
        |from, action| ActionSpec::Copy(Box::new(CopySpec { source: Some(from), owner: None, action }));
    let actions = vec![copy(one, super::copy("a", "b")), copy(two, super::copy("c", "d"))];
    let file = g.file(None, "/", actions, Constraints::default().at(at, &[range]));
    let before = g.marshal(Some(file), &MarshalOptions::default()).unwrap();
    let find =
        |def: &Definition, name: &str| def.vertices().iter().find(|v| v.name() == name).map(|v| v.digest);
    let other = SourceOp { identifier: "local://other".into(), attrs: Default::default() };
    let replaced = [(find(&before, "local://one").unwrap(), other)].into();
    let after = before.with_sources(&replaced).unwrap();
    assert_eq!(Definition::decode(&after.to_pb()).unwrap(), after);
    assert_eq!(find(&after, "local://two"), find(&before, "local://two"));
    assert!(find(&after, "local://other").is_some() && find(&after, "local://one").is_none());
    let root = after.root().unwrap().digest;
    assert_ne!(root, before.root().unwrap().digest);
    assert_eq!(after.source().unwrap().of(&root)[0].1, [range]);
    assert_eq!(before.with_sources(&Default::default()).unwrap(), before);
}

#[test]
fn steps_with_a_network_can_be_proxied() {
    let exec = |network, inputs: &[Digest]| {
        let root = Mount {
            dest: "/".into(),
            input: (!inputs.is_empty()).then_some(0),
            output: Some(0),
            ..Mount::default()
        };
        let op = Op::Exec(ExecOp { network, mounts: vec![root], ..ExecOp::default() });
        let inputs = inputs.iter().map(|digest| Input { digest: *digest, index: 0 }).collect();
        std::sync::Arc::new(Vertex::new(op, inputs, None, OpMetadata::default()))
    };
    let none = exec(NetMode::None, &[]);
    let default = exec(NetMode::Default, &[none.digest]);
    let host = exec(NetMode::Host, &[default.digest]);
    let last = exec(NetMode::None, &[host.digest]);
    let root = Some(Input { digest: last.digest, index: 0 });
    let before = Definition::from_vertices(vec![none, default, host, last], root, None).unwrap();
    let after = before.with_proxied_network().unwrap();
    let proxied: Vec<bool> = after.vertices().iter().map(|v| v.proxied).collect();
    assert_eq!(proxied, [false, true, true, false]);
    let (was, is) = (before.vertices(), after.vertices());
    assert_eq!(is[0], was[0]);
    let suffixed = [was[1].encoded(), b"\0buildkit.proxy-network.v0"].concat();
    assert_eq!(is[1].digest, Digest::sha256(suffixed));
    assert_eq!((is[2].inputs[0].digest, after.root().unwrap().digest), (is[1].digest, is[3].digest));
    let key = |v: &Vertex| crate::cachekey::op_digest(v, &amd64()).unwrap();
    assert_ne!(key(&is[1]), key(&was[1]));
    assert_eq!(key(&is[3]), key(&was[3]), "what it does is the same; what it does it to is not");
    assert_eq!(after.with_proxied_network().unwrap(), after);
}
