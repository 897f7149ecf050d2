//! From the wire to typed operations. Everything that later code relies on is checked here.

mod exec;
mod file;

use crate::definition::{Definition, Input, Vertex};
use crate::op::*;
use crate::{OpMetadata, SourceMap};
use kiln_digest::Digest;
use kiln_proto::extra::OpExtra;
use kiln_proto::pb;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;

/// More elements than any build has; a message of 16 MiB could hold millions.
const MAX_VERTICES: usize = 100_000;
/// More than any operation needs.
const MAX_INPUTS: usize = 10_000;

/// Why a definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No elements where some are needed.
    #[error("invalid empty definition")]
    Empty,
    /// Only a terminal element.
    #[error("invalid LLB with {0} vertexes")]
    VertexCount(usize),
    /// The terminal element names nothing.
    #[error("invalid LLB with no inputs on last vertex")]
    NoRoot,
    /// Bytes that are no operation.
    #[error("failed to parse llb proto op: {0}")]
    Wire(String),
    /// An input that is not in the definition.
    #[error("invalid missing input digest {0}")]
    MissingInput(Digest),
    /// A vertex that needs itself.
    #[error("invalid LLB with a cycle at {0}")]
    Cycle(Digest),
    /// A result that the vertex does not have.
    #[error("invalid output index {index} of vertex {vertex}, which has {outputs}")]
    OutputRange {
        /// The vertex that is asked.
        vertex: Digest,
        /// What is asked for.
        index: usize,
        /// How many there are.
        outputs: usize,
    },
    /// Something wrong inside one vertex.
    #[error("vertex {vertex}: {error}")]
    Vertex {
        /// The vertex.
        vertex: Digest,
        /// What is wrong.
        error: OpError,
    },
}

/// Why an operation is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// A member that must be there is not.
    #[error("invalid {op} op with no {what}")]
    Missing {
        /// Kind of operation.
        op: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// No known operation.
    #[error("operation of an unknown kind")]
    UnknownOp,
    /// An index out of range.
    #[error("invalid {what} {index}, {count} available")]
    Index {
        /// What is indexed.
        what: &'static str,
        /// The index.
        index: i64,
        /// How many there are.
        count: usize,
    },
    /// A number that has no meaning for an enumeration.
    #[error("invalid {what} {value}")]
    Enum {
        /// Which enumeration.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// Too many of something.
    #[error("too many {what}: {count}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// An input's digest is no digest.
    #[error("invalid input digest {0:?}")]
    Digest(String),
    /// A result number used twice or left out.
    #[error("invalid outputs: {0}")]
    Outputs(String),
    /// Refused although other builders may accept it.
    #[error("{0}")]
    Unsupported(&'static str),
}

pub(crate) fn definition(def: &pb::Definition) -> Result<Definition, DecodeError> {
    let source = def.source.as_ref().map(SourceMap::from_pb);
    let Some((last, ops)) = def.def.split_last() else {
        return Definition::from_vertices(Vec::new(), None, source);
    };
    if ops.len() > MAX_VERTICES || ops.is_empty() {
        return Err(DecodeError::VertexCount(def.def.len()));
    }
    let terminal = parse(last)?;
    let root = terminal.inputs.first().ok_or(DecodeError::NoRoot)?;
    let root = input(root).map_err(|error| DecodeError::Vertex { vertex: Digest::sha256(last), error })?;
    let mut vertices = Vec::with_capacity(ops.len());
    for bytes in ops {
        vertices.push(vertex(bytes, def)?);
    }
    Definition::from_vertices(sort(vertices)?, Some(root), source)
}

fn parse(bytes: &[u8]) -> Result<pb::Op, DecodeError> {
    pb::Op::decode(bytes).map_err(|e| DecodeError::Wire(e.to_string()))
}

fn vertex(bytes: &[u8], def: &pb::Definition) -> Result<Vertex, DecodeError> {
    let digest = Digest::sha256(bytes);
    let wire = parse(bytes)?;
    let fail = |error| DecodeError::Vertex { vertex: digest, error };
    if wire.inputs.len() > MAX_INPUTS {
        return Err(fail(OpError::TooMany { what: "inputs", count: wire.inputs.len() }));
    }
    let inputs = wire.inputs.iter().map(input).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let op = match wire.op {
        Some(op) => typed(op, inputs.len()).map_err(fail)?,
        None => {
            let extra = OpExtra::decode(bytes).map_err(|e| DecodeError::Wire(e.to_string()))?;
            let pass = extra.passthrough.ok_or(OpError::UnknownOp).map_err(fail)?;
            Op::Passthrough(passthrough(pass, inputs.len()).map_err(fail)?)
        }
    };
    let metadata = def.metadata.get(&digest.to_string()).map(OpMetadata::from_pb).unwrap_or_default();
    Ok(Vertex {
        digest,
        op,
        inputs,
        platform: wire.platform.map(crate::platform::from_pb),
        constraints: wire.constraints.map(|c| c.filter).unwrap_or_default(),
        proxied: false,
        metadata,
        fallback_name: String::new(),
        encoded: bytes.to_vec(),
    })
}

fn input(i: &pb::Input) -> Result<Input, OpError> {
    let digest = i.digest.parse().map_err(|_| OpError::Digest(i.digest.chars().take(100).collect()))?;
    let index = usize::try_from(i.index).ok().filter(|i| *i <= MAX_INPUTS);
    let index = index.ok_or(OpError::Index {
        what: "output index of an input",
        index: i.index,
        count: MAX_INPUTS,
    })?;
    Ok(Input { digest, index })
}

/// An index that may be -1 for none.
fn optional(what: &'static str, index: i64, count: usize) -> Result<Option<usize>, OpError> {
    if index == -1 { Ok(None) } else { required(what, index, count).map(Some) }
}

fn required(what: &'static str, index: i64, count: usize) -> Result<usize, OpError> {
    usize::try_from(index).ok().filter(|i| *i < count).ok_or(OpError::Index { what, index, count })
}

fn typed(op: pb::op::Op, inputs: usize) -> Result<Op, OpError> {
    Ok(match op {
        pb::op::Op::Source(s) => {
            if s.identifier.is_empty() {
                return Err(OpError::Missing { op: "source", what: "identifier" });
            }
            Op::Source(SourceOp { identifier: s.identifier, attrs: s.attrs })
        }
        pb::op::Op::Exec(e) => Op::Exec(exec::exec(e, inputs)?),
        pb::op::Op::File(f) => Op::File(file::file(f, inputs)?),
        pb::op::Op::Build(b) => Op::Build(build(b, inputs)?),
        pb::op::Op::Merge(m) => {
            let index = |i: &pb::MergeInput| optional("merge input index", i.input, inputs);
            Op::Merge(MergeOp { inputs: m.inputs.iter().map(index).collect::<Result<_, _>>()? })
        }
        pb::op::Op::Diff(d) => {
            let lower = d.lower.ok_or(OpError::Missing { op: "diff", what: "lower input" })?;
            let upper = d.upper.ok_or(OpError::Missing { op: "diff", what: "upper input" })?;
            Op::Diff(DiffOp {
                lower: optional("diff lower index", lower.input, inputs)?,
                upper: optional("diff upper index", upper.input, inputs)?,
            })
        }
    })
}

fn build(b: pb::BuildOp, inputs: usize) -> Result<BuildOp, OpError> {
    if b.builder != -1 {
        return Err(OpError::Unsupported("only LLB builder is currently allowed"));
    }
    if b.def.is_some() {
        return Err(OpError::Unsupported("build op with a definition of its own is not supported"));
    }
    if !b.inputs.contains_key("buildkit.llb.definition") {
        return Err(OpError::Missing { op: "build", what: "llb definition input buildkit.llb.definition" });
    }
    let index =
        |(name, i): (String, pb::BuildInput)| Ok((name, required("build input index", i.input, inputs)?));
    Ok(BuildOp { inputs: b.inputs.into_iter().map(index).collect::<Result<_, OpError>>()?, attrs: b.attrs })
}

fn passthrough(p: kiln_proto::extra::PassthroughOp, inputs: usize) -> Result<PassthroughOp, OpError> {
    if p.id.is_empty() {
        return Err(OpError::Missing { op: "passthrough", what: "id" });
    }
    if p.outputs.is_empty() {
        return Err(OpError::Missing { op: "passthrough", what: "outputs" });
    }
    let index = |i: &i64| required("passthrough output input index", *i, inputs);
    Ok(PassthroughOp { id: p.id, outputs: p.outputs.iter().map(index).collect::<Result<_, _>>()? })
}

/// Inputs before users. Iterative: chains may be as long as the message allows.
fn sort(vertices: Vec<Vertex>) -> Result<Vec<Arc<Vertex>>, DecodeError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let position: HashMap<Digest, usize> = vertices.iter().enumerate().map(|(i, v)| (v.digest, i)).collect();
    let mut state = vec![State::New; vertices.len()];
    let mut order = Vec::with_capacity(vertices.len());
    for start in 0..vertices.len() {
        let mut stack = vec![(start, 0)];
        while let Some((v, next)) = stack.pop() {
            match (state[v], vertices[v].inputs.get(next)) {
                (State::Done, _) => {}
                (_, None) => {
                    state[v] = State::Done;
                    order.push(v);
                }
                (_, Some(i)) => {
                    state[v] = State::Open;
                    stack.push((v, next + 1));
                    let input = *position.get(&i.digest).ok_or(DecodeError::MissingInput(i.digest))?;
                    match state[input] {
                        State::New => stack.push((input, 0)),
                        State::Open => return Err(DecodeError::Cycle(i.digest)),
                        State::Done => {}
                    }
                }
            }
        }
    }
    let mut slots: Vec<Option<Vertex>> = vertices.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| slots[i].take()).map(Arc::new).collect())
}
