//! The solver: scheduling and cache decisions over a graph, without IO.
//!
//! Three layers:
//! * [`CacheIndex`]: which cache keys exist, how they derive from each other, which results they name.
//! * [`Scheduler`]: a pure state machine, `handle(now, event) -> actions`. The same events in the same order give the
//!   same actions. It does no IO, spawns nothing and never recurses over the graph.
//! * [`Solver`]: one task that feeds events to the scheduler and runs the work it asks for through [`Ops`].
//!
//! The rules are those of BuildKit's scheduler (spec llb-and-solver.md sections 3 and 6).

mod driver;
mod graph;
mod index;
mod observe;
mod ops;
mod scheduler;
mod shared;
#[cfg(test)]
mod tests;

pub use driver::{Job, Solver};
pub use graph::{Edge, Graph, GraphError, JobId, ResultId, Vertex};
pub use index::{CacheIndex, Change, Journal, KeyId, KeyView, Link, NoJournal, Record};
pub use observe::{
    Decision, InputKeys, Nearest, NoObserver, Observer, OpProgress, Outcome, Stream, VertexEvent, VertexInfo,
};
pub use ops::{CacheMap, Dep, Error, OpContext, Ops, Permit};
pub use scheduler::{
    Action, BuildId, Built, CacheKeyInfo, Event, Fault, JobKey, Note, Outputs, Owner, Report, Scheduler,
    Task, TaskId, Work,
};
pub use shared::{JobSet, VertexProgress};
