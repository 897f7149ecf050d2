//! What is left of failed steps, so that it can be looked at and entered (spec llb-and-solver.md section 8).

use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{Definition, protojson};
use kiln_worker::{Failure, Left, Ref};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More filesystems of failed steps than anybody looks at.
const MAX_KEPT: usize = 10_000;

/// The filesystems that one bridge has named in errors.
#[derive(Default)]
pub(super) struct Kept(Mutex<HashMap<String, Held>>);

/// A filesystem, with what it belongs to: that goes last.
type Held = (Ref, Arc<Left>);

impl Kept {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &str) -> Option<Ref> {
        self.map().get(id).map(|(found, _)| found.clone())
    }

    pub(super) fn clear(&self) {
        self.map().clear();
    }

    /// The error with its operation and the names of what that left behind.
    pub(super) fn register(&self, failure: Failure, of: &Definition, worker: &str) -> BuildError {
        let Failure { mut error, left } = failure;
        let Some(vertex) = error.vertex() else { return error };
        let (mut input_ids, mut mount_ids) = (Vec::new(), Vec::new());
        if let Some(left) = &left {
            input_ids = self.names(&left.inputs, left, worker);
            mount_ids = self.names(&left.mounts, left, worker);
        }
        let vertex = of.vertex(&vertex);
        let op = vertex.map(|v| Box::new(protojson::vertex_op(v)));
        let description = vertex.map(|v| v.metadata.description.clone()).unwrap_or_default();
        let at = error.details.iter().position(|d| matches!(d, Detail::Solve { .. }));
        let subject = match at.map(|at| error.details.remove(at)) {
            Some(Detail::Solve { subject, .. }) => subject,
            _ => None,
        };
        error.wrap(Detail::Solve { input_ids, mount_ids, op, subject, description })
    }

    /// One name per mount; empty where there is nothing.
    fn names(&self, refs: &[Option<Ref>], left: &Arc<Left>, worker: &str) -> Vec<String> {
        let mut map = self.map();
        let mut name = |found: &Option<Ref>| {
            let Some(snapshot) = found.as_ref().and_then(Ref::snapshot) else { return String::new() };
            let id = format!("{worker}::{}", snapshot.id());
            if map.len() < MAX_KEPT || map.contains_key(&id) {
                map.insert(id.clone(), (Ref::from(snapshot.clone()), left.clone()));
            }
            id
        };
        refs.iter().map(&mut name).collect()
    }
}
