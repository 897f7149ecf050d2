//! How operations take part in cache keys (spec llb-and-solver.md section 4).

use crate::failure::Written;
use crate::{Failure, Left, Ref, Worker};
use kiln_digest::Digest;
use kiln_llb::cachekey::{self, ContentSelector};
use kiln_llb::errdefs::{BuildError, Code, Detail, SolveSubject};
use kiln_llb::{Op, Vertex};
use kiln_oci::Platform;
use kiln_snapshot::contenthash::ChecksumOpts;
use kiln_solver::{CacheMap, Dep};
use std::sync::Arc;

/// The key of an operation that is known from its definition alone.
pub(crate) fn of_definition(vertex: &Vertex, platform: &Platform) -> Result<CacheMap, BuildError> {
    let keys = cachekey::deps(vertex).map_err(|e| BuildError::new(Code::InvalidArgument, e.to_string()))?;
    let digest = cachekey::op_digest(vertex, platform);
    let digest =
        digest.ok_or_else(|| BuildError::new(Code::Internal, "operation without a key of its own"))?;
    let prepare = matches!(vertex.op, Op::Exec(_) | Op::File(_) | Op::Build(_) | Op::Merge(_) | Op::Diff(_));
    let deps = keys
        .into_iter()
        .map(|k| Dep { selector: k.selector, content: k.content.is_some(), prepare })
        .collect();
    Ok(CacheMap { digest, deps, last: true })
}

/// Digest of what the operation uses of an input.
pub(crate) async fn content(
    worker: &Worker,
    vertex: &Vertex,
    input: usize,
    result: &Ref,
) -> Result<Digest, Failure> {
    let keys = cachekey::deps(vertex).map_err(|e| BuildError::new(Code::InvalidArgument, e.to_string()))?;
    let selectors = keys.into_iter().nth(input).and_then(|k| k.content).unwrap_or_default();
    let digests = selectors.iter().map(|selector| checksum(worker, selector, result));
    match futures::future::try_join_all(digests).await {
        Ok(digests) => Ok(cachekey::content_digest(&digests)),
        Err(error) => {
            let written = Written { snapshots: worker.0.snapshots.clone(), ids: Vec::new() };
            let left = Left { inputs: vec![Some(result.clone())], mounts: Vec::new(), written };
            Err(Failure { error: subject(error, input), left: Some(Arc::new(left)) })
        }
    }
}

async fn checksum(worker: &Worker, selector: &ContentSelector, result: &Ref) -> Result<Digest, BuildError> {
    let opts = ChecksumOpts {
        follow_links: selector.follow_links,
        wildcard: selector.wildcard,
        include: selector.include_patterns.clone(),
        exclude: selector.exclude_patterns.clone(),
        required: selector.required_paths.clone(),
    };
    worker.0.snapshots.checksum(result.snapshot(), &selector.path, &opts).await.map_err(|e| {
        let name = result.snapshot().map(|s| s.id().to_string()).unwrap_or_default();
        // A missing path is an error of the build file like any other, and has no code of its own.
        BuildError::msg(e.to_string()).context(format!("failed to calculate checksum of ref {name}"))
    })
}

fn subject(error: BuildError, input: usize) -> BuildError {
    error.wrap(Detail::Solve {
        input_ids: Vec::new(),
        mount_ids: Vec::new(),
        op: None,
        subject: i64::try_from(input).ok().map(SolveSubject::Cache),
        description: Default::default(),
    })
}
