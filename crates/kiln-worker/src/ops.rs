//! The solver's view of the worker.

use crate::result::{Stored, stored};
use crate::{Cx, Failure, Ref, Worker, WorkerOp, cache_map, exec, file_op, nested, source};
use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{DiffOp, MergeOp, Op, PassthroughOp};
use kiln_snapshot::NewRef;
use kiln_solver::{CacheMap, Ops, Permit, ResultId, Vertex};

#[async_trait]
impl Ops for Worker {
    type Op = WorkerOp;
    type Result = Ref;
    type Error = Failure;

    async fn cache_map(&self, cx: &Cx, vertex: &Vertex<WorkerOp>, page: usize) -> Result<CacheMap, Failure> {
        match &vertex.op.vertex.op {
            Op::Source(op) => wanted(cx, source::cache_map(self, cx, &vertex.op, op, page)).await,
            _ => Ok(cache_map::of_definition(&vertex.op.vertex, &self.0.platform)?),
        }
    }

    async fn prepare(
        &self,
        cx: &Cx,
        _vertex: &Vertex<WorkerOp>,
        input: usize,
        result: &Ref,
    ) -> Result<(), Failure> {
        match result.snapshot() {
            Some(snapshot) => wanted(cx, source::ensure(self, cx, cx.input(input), snapshot)).await,
            None => Ok(()),
        }
    }

    async fn content_key(
        &self,
        _cx: &Cx,
        vertex: &Vertex<WorkerOp>,
        input: usize,
        result: &Ref,
    ) -> Result<Digest, Failure> {
        cache_map::content(self, &vertex.op.vertex, input, result).await
    }

    async fn acquire(&self, cx: &Cx, vertex: &Vertex<WorkerOp>) -> Result<Permit, Failure> {
        let (Op::Exec(_), Some(steps)) = (&vertex.op.vertex.op, &self.0.steps) else {
            return Ok(Box::new(()));
        };
        tokio::select! {
            permit = steps.clone().acquire_owned() => match permit {
                Ok(permit) => Ok(Box::new(permit)),
                Err(_) => Err(BuildError::canceled().into()),
            },
            () = cx.cancel.cancelled() => Err(BuildError::canceled().into()),
        }
    }

    async fn exec(&self, cx: &Cx, vertex: &Vertex<WorkerOp>, inputs: Vec<Ref>) -> Result<Vec<Ref>, Failure> {
        let llb = &vertex.op.vertex;
        match &llb.op {
            Op::Source(op) => Ok(vec![wanted(cx, source::snapshot(self, cx, &vertex.op, op)).await?]),
            Op::Exec(op) => exec::exec(self, cx, llb, op, inputs).await,
            Op::File(op) => file_op::exec(self, cx, op, inputs).await,
            Op::Merge(op) => Ok(self.merge(op, &inputs)?),
            Op::Diff(op) => Ok(self.diff(op, &inputs)?),
            Op::Build(op) => Ok(vec![nested::exec(self, cx, op, &inputs).await?]),
            Op::Passthrough(op) => Ok(passthrough(op, &inputs)?),
        }
    }

    async fn load(&self, _cx: &Cx, record: &ResultId) -> Result<Option<Ref>, Failure> {
        Ok(match stored(record) {
            Some(Stored::Scratch) => Some(Ref::default()),
            Some(Stored::Snapshot(id)) => self.0.snapshots.get(&id).map(Ref::from),
            None => None,
        })
    }

    fn result_id(&self, result: &Ref) -> ResultId {
        result.result_id()
    }
}

/// Drops work of which nothing has to be cleaned up as soon as nobody waits for it any more.
pub(crate) async fn wanted<T, E: Into<Failure>>(
    cx: &Cx,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match cx.cancel.run_until_cancelled(work).await {
        Some(done) => done.map_err(Into::into),
        None => Err(BuildError::canceled().into()),
    }
}

impl Worker {
    /// Layers of later inputs over those of earlier ones.
    fn merge(&self, op: &MergeOp, inputs: &[Ref]) -> Result<Vec<Ref>, BuildError> {
        let mut parts = Vec::new();
        for index in op.inputs.iter().flatten() {
            parts.extend(input(inputs, *index)?.0.clone());
        }
        let merged = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => self.0.snapshots.merge(&parts, NewRef::regular("merge")).map_err(exec::failed)?,
        };
        Ok(vec![Ref(merged)])
    }

    /// What has to be added to `lower` to get `upper`.
    fn diff(&self, op: &DiffOp, inputs: &[Ref]) -> Result<Vec<Ref>, BuildError> {
        let side = |index: Option<usize>| index.map_or(Ok(None), |i| input(inputs, i).map(|r| r.0.clone()));
        let (lower, upper) = (side(op.lower)?, side(op.upper)?);
        let diff = match (lower, upper) {
            (None, upper) => upper,
            (Some(l), Some(u)) if l.id() == u.id() => None,
            (Some(l), upper) => self
                .0
                .snapshots
                .diff(Some(&l), upper.as_ref(), NewRef::regular("diff"))
                .map_err(exec::failed)?,
        };
        Ok(vec![Ref(diff)])
    }
}

fn input(inputs: &[Ref], index: usize) -> Result<&Ref, BuildError> {
    inputs.get(index).ok_or_else(|| BuildError::new(Code::InvalidArgument, format!("missing input {index}")))
}

fn passthrough(op: &PassthroughOp, inputs: &[Ref]) -> Result<Vec<Ref>, BuildError> {
    op.outputs.iter().map(|i| input(inputs, *i).cloned()).collect()
}
