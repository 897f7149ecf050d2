//! What a hostile client may send.

use super::*;
use kiln_proto::pb;
use prost::Message as _;

fn def(ops: Vec<pb::Op>, root: Input) -> pb::Definition {
    let mut def: Vec<Vec<u8>> = ops.iter().map(|o| o.encode_to_vec()).collect();
    def.push(crate::marshal::encode_terminal(&root));
    pb::Definition { def, ..Default::default() }
}

/// A definition with this operation on top of one source, decoded.
fn decode(inputs: &[i64], op: pb::op::Op) -> Result<Definition, DecodeError> {
    let source = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp { identifier: "x://".into(), ..Default::default() })),
        ..Default::default()
    };
    let digest = Digest::sha256(source.encode_to_vec());
    let inputs = inputs.iter().map(|i| pb::Input { digest: digest.to_string(), index: *i }).collect();
    let top = pb::Op { inputs, op: Some(op), ..Default::default() };
    let root = Input { digest: Digest::sha256(top.encode_to_vec()), index: 0 };
    Definition::decode(&def(vec![source, top], root))
}

fn exec(mounts: Vec<pb::Mount>) -> pb::ExecOp {
    let meta = pb::Meta { args: vec!["x".into()], cwd: "/".into(), ..Default::default() };
    pb::ExecOp { meta: Some(meta), mounts, ..Default::default() }
}

fn mount(input: i64, dest: &str, output: i64) -> pb::Mount {
    pb::Mount { input, dest: dest.into(), output, ..Default::default() }
}

#[test]
fn shapes_of_definitions() {
    assert_eq!(Definition::decode(&pb::Definition::default()), Ok(Definition::default()));
    let one = pb::Definition { def: vec![vec![]], ..Default::default() };
    assert_eq!(Definition::decode(&one).unwrap_err().to_string(), "invalid LLB with 1 vertexes");
    let no_root = pb::Definition { def: vec![vec![], vec![]], ..Default::default() };
    assert_eq!(Definition::decode(&no_root).unwrap_err(), DecodeError::NoRoot);
    let junk = pb::Definition { def: vec![vec![0xff; 9], vec![0xff; 3]], ..Default::default() };
    assert!(matches!(Definition::decode(&junk), Err(DecodeError::Wire(_))));
    let gone = Input { digest: Digest::sha256("gone"), index: 0 };
    let missing = def(vec![], gone);
    assert!(Definition::decode(&missing).is_err());
}

#[test]
fn indices_out_of_range_are_refused() {
    let root = || mount(0, "/", 0);
    for bad in [i64::MIN, -2, 1, i64::MAX] {
        assert!(decode(&[bad], pb::op::Op::Exec(exec(vec![root()]))).is_err(), "input index {bad}");
        assert!(decode(&[0], pb::op::Op::Exec(exec(vec![mount(bad, "/", 0)]))).is_err(), "mount {bad}");
        let merge = pb::MergeOp { inputs: vec![pb::MergeInput { input: bad }] };
        assert!(decode(&[0], pb::op::Op::Merge(merge)).is_err(), "merge {bad}");
        let lower = Some(pb::LowerDiffInput { input: bad });
        let diff = pb::DiffOp { lower, upper: Some(pb::UpperDiffInput { input: 0 }) };
        assert!(decode(&[0], pb::op::Op::Diff(diff)).is_err(), "diff {bad}");
        let inputs = [("buildkit.llb.definition".to_string(), pb::BuildInput { input: bad })].into();
        let build = pb::BuildOp { builder: -1, inputs, ..Default::default() };
        assert!(decode(&[0], pb::op::Op::Build(build)).is_err(), "build {bad}");
    }
    for bad in [i64::MIN, -2, 2, i64::MAX] {
        let out = exec(vec![root(), mount(-1, "/m", bad)]);
        assert!(decode(&[0], pb::op::Op::Exec(out)).is_err(), "mount output {bad}");
    }
    assert!(decode(&[0], pb::op::Op::Exec(exec(vec![root(), mount(-1, "/m", 1)]))).is_ok());
    assert!(decode(&[0], pb::op::Op::Exec(exec(vec![root(), mount(-1, "/m", 0)]))).is_err());
}

#[test]
fn file_actions_see_only_earlier_ones() {
    let rm = || pb::file_action::Action::Rm(pb::FileActionRm { path: "/x".into(), ..Default::default() });
    let act = |input, secondary_input, output| pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(rm()),
    };
    let file = |actions| decode(&[0], pb::op::Op::File(pb::FileOp { actions }));
    assert!(file(vec![act(0, -1, -1), act(1, -1, 0)]).is_ok());
    for bad in [i64::MIN, -2, 1, 2, i64::MAX] {
        assert!(file(vec![act(bad, -1, 0)]).is_err(), "input {bad}");
        assert!(file(vec![act(0, bad, 0)]).is_err(), "secondary {bad}");
    }
    for bad in [i64::MIN, -1, 1, i64::MAX] {
        assert!(file(vec![act(0, -1, bad)]).is_err(), "output {bad}");
    }
    assert!(file(vec![act(0, -1, 0), act(1, -1, 0)]).is_err());
    assert!(file(vec![]).is_err());
    let none = pb::FileAction { action: None, ..act(0, -1, 0) };
    assert!(file(vec![none]).is_err());
}

#[test]
fn numbers_without_a_meaning_are_refused() {
    let root = || mount(0, "/", 0);
    let with = |change: &dyn Fn(&mut pb::ExecOp)| {
        let mut e = exec(vec![root(), mount(-1, "/m", -1)]);
        change(&mut e);
        decode(&[0], pb::op::Op::Exec(e))
    };
    assert!(with(&|_| ()).is_ok());
    for bad in [i32::MIN, -1, 2, 99] {
        assert!(with(&|e| e.security = bad).is_err());
    }
    for bad in [-1, 3] {
        assert!(with(&|e| e.network = bad).is_err());
        assert!(with(&|e| e.mounts[1].content_cache = bad).is_err());
    }
    for bad in [-1, 1, 2, 3, 5] {
        assert!(with(&|e| e.mounts[1].mount_type = bad).is_err(), "type {bad} without options");
    }
    assert!(with(&|e| e.mounts[0].mount_type = 4).is_err());
    let cache = |sharing| Some(pb::CacheOpt { id: String::new(), sharing });
    let set = |e: &mut pb::ExecOp, sharing| {
        e.mounts[1].mount_type = 3;
        e.mounts[1].cache_opt = cache(sharing);
    };
    assert!(with(&|e| set(e, 2)).is_ok());
    assert!(with(&|e| set(e, 3)).is_err());
    assert!(with(&|e| e.meta = None).is_err());
    assert!(with(&|e| e.meta.as_mut().unwrap().args.clear()).is_err());
    assert!(with(&|e| e.mounts.clear()).is_err());
    assert!(with(&|e| e.mounts[0].dest = "/r".into()).is_err());
}

#[test]
fn an_unknown_operation_is_refused() {
    let mut bytes = pb::Op::default().encode_to_vec();
    bytes.extend([0x7a, 0x00]); // field 15
    let root = Input { digest: Digest::sha256(&bytes), index: 0 };
    let mut d = def(vec![], root);
    d.def.insert(0, bytes);
    assert!(matches!(Definition::decode(&d), Err(DecodeError::Vertex { error: OpError::UnknownOp, .. })));
}

use crate::decode::OpError;

#[test]
fn a_passthrough_is_read() {
    let op = PassthroughOp { id: "p".into(), outputs: vec![1, 0] };
    let a = vertex(workdir("/a"), 0);
    let b = vertex(workdir("/b"), 0);
    let inputs = vec![Input { digest: a.digest, index: 0 }, Input { digest: b.digest, index: 0 }];
    let p = Vertex::new(Op::Passthrough(op.clone()), inputs, None, OpMetadata::default());
    let root = Input { digest: p.digest, index: 1 };
    let all = [&a, &b, &p].map(|v| v.encoded().to_vec());
    let mut d = def(vec![], root);
    d.def.splice(0..0, all);
    let got = Definition::decode(&d).unwrap();
    assert_eq!(got.vertex(&p.digest).unwrap().op, Op::Passthrough(op));
    let last = d.def.len() - 1;
    d.def[last] = crate::marshal::encode_terminal(&Input { digest: p.digest, index: 2 });
    assert!(matches!(Definition::decode(&d), Err(DecodeError::OutputRange { outputs: 2, .. })));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(ops: Vec<Vec<u8>>) {
        let d = pb::Definition { def: ops, ..Default::default() };
        let _ = Definition::decode(&d);
    }

    /// Valid bytes with one byte changed, names of inputs kept right.
    #[test]
    fn changed_bytes_do_not_panic(at in 0usize..200, to: u8) {
        let mut bytes = exec_vertex().encoded().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        let base = vertex(workdir("/a"), 0);
        let mut d = def(vec![], Input { digest: Digest::sha256(&bytes), index: 0 });
        d.def.splice(0..0, [base.encoded().to_vec(), bytes]);
        if let Ok(d) = Definition::decode(&d) {
            for v in d.vertices() {
                let _ = crate::cachekey::op_digest(v, &amd64());
                let _ = crate::cachekey::deps(v);
                let _ = v.name();
            }
        }
    }
}

fn exec_vertex() -> Vertex {
    let base = vertex(workdir("/a"), 0);
    let kind = MountKind::Cache { id: "c".into(), sharing: CacheSharing::Private };
    let op = ExecOp {
        meta: ExecMeta {
            args: vec!["x".into()],
            cwd: "/".into(),
            valid_exit_codes: vec![0, -1],
            ..Default::default()
        },
        mounts: vec![
            Mount { input: Some(0), dest: "/".into(), output: Some(0), ..Default::default() },
            Mount { input: Some(0), selector: "s".into(), dest: "/c".into(), kind, ..Default::default() },
        ],
        ..Default::default()
    };
    Vertex::new(Op::Exec(op), vec![Input { digest: base.digest, index: 0 }], None, OpMetadata::default())
}

#[test]
fn what_is_encoded_is_read_back() {
    let base = vertex(workdir("/a"), 0);
    let v = exec_vertex();
    let d = Definition::from_vertices(
        vec![base.into(), v.clone().into()],
        Some(Input { digest: v.digest, index: 0 }),
        None,
    );
    let d = d.unwrap();
    let back = Definition::decode(&d.to_pb()).unwrap();
    assert_eq!(back.vertex(&v.digest).unwrap().op, v.op);
}
