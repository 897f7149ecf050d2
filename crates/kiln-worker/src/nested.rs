//! Build: solves a definition that a file of an input holds.

use crate::exec::failed;
use crate::{Cx, Failure, Ref, Worker, WorkerOp};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{BuildOp, Definition};
use kiln_solver::{Edge, Graph, GraphError, Vertex};
use std::sync::Arc;

/// Largest definition file.
const LIMIT: u64 = 100 << 20;
const INPUT: &str = "buildkit.llb.definition";

/// Reads, checks and builds the definition.
pub(crate) async fn exec(worker: &Worker, cx: &Cx, op: &BuildOp, inputs: &[Ref]) -> Result<Ref, Failure> {
    let invalid = |text: &str| BuildError::new(Code::InvalidArgument, text);
    let index =
        op.inputs.get(INPUT).ok_or_else(|| invalid("no buildkit.llb.definition input for the build op"))?;
    let snapshot = inputs
        .get(*index)
        .and_then(Ref::snapshot)
        .ok_or_else(|| invalid("the definition's input is empty"))?;
    let file = op.attrs.get(kiln_llb::op::attr::LLB_DEFINITION_FILENAME).map_or(INPUT, String::as_str);
    let mounted = worker.0.snapshots.mount_view(snapshot).map_err(failed)?;
    let data = mounted.root().read(file, LIMIT).map_err(failed)?;
    drop(mounted);
    let definition = Definition::decode_bytes(&data).map_err(|e| invalid(&e.to_string()))?;
    let definition = worker.0.admit(&cx.jobs, definition).await?;
    let Some(root) = definition.root() else { return Ok(Ref::default()) };
    let graph = graph(&definition).map_err(failed)?;
    let edge = Edge { digest: root.digest, index: u32::try_from(root.index).map_err(failed)? };
    match cx.build(&graph, edge).await {
        Ok(built) => Ok(built.result),
        Err(error) => Err(match &*error {
            kiln_solver::Error::Op { error, .. } => error.clone(),
            other => failed(other).into(),
        }),
    }
}

/// The solver's graph of a definition.
///
/// # Errors
/// If it is no graph; decoded definitions always are.
pub fn graph(definition: &Definition) -> Result<Graph<WorkerOp>, GraphError> {
    Graph::new(definition.vertices().iter().map(|v| {
        Vertex {
            digest: v.digest,
            name: v.name().to_string(),
            inputs: v
                .inputs
                .iter()
                .map(|i| Edge { digest: i.digest, index: u32::try_from(i.index).unwrap_or(u32::MAX) })
                .collect(),
            ignore_cache: v.metadata.ignore_cache,
            op: Arc::new(WorkerOp::new(Arc::clone(v))),
        }
    }))
}
