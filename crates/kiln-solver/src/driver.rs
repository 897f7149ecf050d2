//! The task that owns the scheduler, and the handles to it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use kiln_digest::Digest;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::graph::{Edge, Graph, JobId, ResultId};
use crate::index::{CacheIndex, Journal};
use crate::observe::Observer;
use crate::ops::{CacheMap, Error, OpContext, Ops};
use crate::scheduler::{
    Action, BuildId, Built, Event, Fault, JobKey, Note, Owner, Report, Scheduler, Task, TaskId, Work,
};
use crate::shared::{JobSet, VertexProgress};

/// How long cancelled work may take to end by itself before it is dropped.
const GRACE: Duration = Duration::from_secs(10);

type Answer<O> = Result<Built<<O as Ops>::Result>, Arc<Error<<O as Ops>::Error>>>;

type Look<O> = Box<dyn FnOnce(&Scheduler<O>) + Send>;

/// What the solver's task receives.
enum Message<O: Ops> {
    Event(Event<O>),
    Build { event: Event<O>, build: BuildId, reply: oneshot::Sender<Answer<O>> },
    Inspect(Look<O>),
}

/// The way to the solver's task.
struct Line<O: Ops> {
    sender: mpsc::UnboundedSender<Message<O>>,
    ids: Arc<AtomicU64>,
}

impl<O: Ops> Clone for Line<O> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), ids: self.ids.clone() }
    }
}

impl<O: Ops> Line<O> {
    fn send(&self, event: Event<O>) {
        // Without the task there is nothing to be told.
        let _ = self.sender.send(Message::Event(event));
    }

    fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    async fn build(&self, owner: Owner, graph: &Graph<O::Op>, edge: Edge) -> Answer<O> {
        let build = BuildId(self.id());
        let (reply, answer) = oneshot::channel();
        let event = Event::Build { build, owner, graph: graph.clone(), edge };
        let sent = self.sender.send(Message::Build { event, build, reply });
        let mut pending = Pending { line: self.clone(), build: sent.is_ok().then_some(build) };
        let answer = answer.await.unwrap_or_else(|_| Err(Arc::new(Error::Canceled)));
        pending.build = None;
        answer
    }
}

/// Withdraws a build that is dropped before its answer.
struct Pending<O: Ops> {
    line: Line<O>,
    build: Option<BuildId>,
}

impl<O: Ops> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Some(build) = self.build {
            self.line.send(Event::Abandoned { build });
        }
    }
}

/// Builds graphs. A handle; the work ends with the last one (jobs are handles, too).
pub struct Solver<O: Ops> {
    line: Line<O>,
    alive: Arc<DropGuard>,
}

impl<O: Ops> Clone for Solver<O> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone(), alive: self.alive.clone() }
    }
}

impl<O: Ops> Solver<O> {
    /// Starts the solver's task on the current tokio runtime. `cache` is what earlier processes knew
    /// ([`CacheIndex::load`]), `journal` gets what is to be known by later ones.
    pub fn new(ops: Arc<O>, cache: CacheIndex, journal: Arc<dyn Journal>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let line = Line { sender, ids: Arc::default() };
        let stop = CancellationToken::new();
        let driver = Driver {
            ops,
            journal,
            line: line.clone(),
            scheduler: Scheduler::new(cache),
            tasks: HashMap::new(),
            answers: HashMap::new(),
            stop: stop.clone(),
        };
        tokio::spawn(driver.run(receiver));
        Self { line, alive: Arc::new(stop.drop_guard()) }
    }

    /// Begins a job. `observer` is told what happens to its vertices until the job is dropped.
    pub fn job(&self, id: JobId, observer: Arc<dyn Observer>) -> Job<O> {
        let job = JobKey(self.line.id());
        self.line.send(Event::JobStarted { job, id, observer });
        Job { solver: self.clone(), job }
    }

    /// Results do not exist any more: nothing is loaded from them again.
    pub fn forget(&self, results: Vec<ResultId>) {
        self.line.send(Event::Forget { results });
    }

    /// Looks at the cache index, between two events. `None` when the solver has ended.
    pub async fn with_cache<T: Send + 'static>(
        &self,
        look: impl FnOnce(&CacheIndex) -> T + Send + 'static,
    ) -> Option<T> {
        self.inspect(move |scheduler| look(scheduler.index())).await
    }

    /// How many vertices are active: 0 when no job is left.
    pub async fn active(&self) -> usize {
        self.inspect(Scheduler::active).await.unwrap_or_default()
    }

    /// Waits until everything said before is taken in and told on: builds that were withdrawn, jobs that ended.
    pub async fn caught_up(&self) {
        let _ = self.inspect(|_| ()).await;
    }

    async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Scheduler<O>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let look = move |scheduler: &Scheduler<O>| {
            let _ = reply.send(look(scheduler));
        };
        let _ = self.line.sender.send(Message::Inspect(Box::new(look)));
        answer.await.ok()
    }
}

/// One solve request. Holds the vertices of everything it built; dropping it frees them and cancels what only it
/// waited for.
pub struct Job<O: Ops> {
    solver: Solver<O>,
    job: JobKey,
}

impl<O: Ops> Job<O> {
    /// Builds one result of a graph. May be called many times, also at once. Dropping the future withdraws the wish.
    pub async fn build(
        &self,
        graph: &Graph<O::Op>,
        edge: Edge,
    ) -> Result<Built<O::Result>, Arc<Error<O::Error>>> {
        self.solver.line.build(Owner::Job(self.job), graph, edge).await
    }
}

impl<O: Ops> Drop for Job<O> {
    fn drop(&mut self) {
        self.solver.line.send(Event::JobEnded { job: self.job });
    }
}

/// Builds on behalf of an operation.
pub(crate) struct Nested<O: Ops> {
    line: Line<O>,
    task: TaskId,
}

impl<O: Ops> Nested<O> {
    pub(crate) async fn build(&self, graph: &Graph<O::Op>, edge: Edge) -> Answer<O> {
        self.line.build(Owner::Task(self.task), graph, edge).await
    }
}

struct Driver<O: Ops> {
    ops: Arc<O>,
    journal: Arc<dyn Journal>,
    line: Line<O>,
    scheduler: Scheduler<O>,
    tasks: HashMap<TaskId, CancellationToken>,
    answers: HashMap<BuildId, oneshot::Sender<Answer<O>>>,
    stop: CancellationToken,
}

impl<O: Ops> Driver<O> {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Message<O>>) {
        let stop = self.stop.clone();
        // The channel itself never closes: tasks hold senders.
        while let Some(Some(message)) = stop.run_until_cancelled(receiver.recv()).await {
            match message {
                Message::Event(event) => self.take(event),
                Message::Build { event, build, reply } => {
                    self.answers.insert(build, reply);
                    self.take(event);
                }
                Message::Inspect(look) => look(&self.scheduler),
            }
        }
        for task in self.tasks.values() {
            task.cancel();
        }
    }

    fn take(&mut self, event: Event<O>) {
        match &event {
            Event::Ended { task, .. } => drop(self.tasks.remove(task)),
            Event::Abandoned { build } => drop(self.answers.remove(build)),
            _ => {}
        }
        for action in self.scheduler.handle(SystemTime::now(), event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<O>) {
        match action {
            Action::Start(task) => self.start(*task),
            Action::Cancel(task) => {
                if let Some(token) = self.tasks.get(&task) {
                    token.cancel();
                }
            }
            Action::Answer { build, result } => {
                if let Some(reply) = self.answers.remove(&build) {
                    // Who has gone meanwhile withdraws the build by itself.
                    let _ = reply.send(result);
                }
            }
            Action::Tell { to, note } => to.iter().for_each(|o| match &note {
                Note::Vertex(event) => o.vertex(event),
                Note::Decision(decision) => o.decision(decision),
            }),
            Action::Journal(changes) => self.journal.append(changes),
        }
    }

    fn start(&mut self, task: Task<O>) {
        let cancel = CancellationToken::new();
        self.tasks.insert(task.id, cancel.clone());
        let (ops, line) = (self.ops.clone(), self.line.clone());
        tokio::spawn(async move {
            let id = task.id;
            let report = perform(&*ops, task, &line, cancel).await;
            line.send(Event::Ended { task: id, report });
        });
    }
}

/// Runs a task to its end, whatever that is.
async fn perform<O: Ops>(ops: &O, task: Task<O>, line: &Line<O>, cancel: CancellationToken) -> Report<O> {
    let Task { id, work, vertex, shown_as, ignore_cache, shared, inputs } = task;
    let cx = OpContext {
        vertex: shown_as,
        cancel: cancel.clone(),
        jobs: JobSet(shared.clone()),
        progress: VertexProgress(shared),
        ignore_cache,
        inputs: inputs.into_iter().map(VertexProgress).collect(),
        nested: Nested { line: line.clone(), task: id },
    };
    match work {
        Work::CacheMap { page } => {
            let call = async { ops.cache_map(&cx, &vertex, page).await };
            Report::CacheMap(guarded::<O, CacheMap>(call, &cancel).await)
        }
        Work::Input { input, result, prepare, content } => {
            let call = async {
                if prepare {
                    ops.prepare(&cx, &vertex, input, &result).await?;
                }
                if content { ops.content_key(&cx, &vertex, input, &result).await.map(Some) } else { Ok(None) }
            };
            Report::Input(guarded::<O, Option<Digest>>(call, &cancel).await)
        }
        Work::Exec { inputs } => {
            let call = async {
                let permit = ops.acquire(&cx, &vertex).await?;
                line.send(Event::Began { task: id });
                let results = ops.exec(&cx, &vertex, inputs).await;
                drop(permit);
                Ok(results?.into_iter().map(|r| (r.clone(), ops.result_id(&r))).collect())
            };
            Report::Exec(guarded::<O, Vec<_>>(call, &cancel).await)
        }
        Work::Load { record } => {
            let call = async { ops.load(&cx, &record).await };
            Report::Load(guarded::<O, Option<_>>(call, &cancel).await)
        }
    }
}

/// Turns panics into faults, and drops work that does not end after it was cancelled.
async fn guarded<O: Ops, T>(
    work: impl Future<Output = Result<T, O::Error>>,
    cancel: &CancellationToken,
) -> Result<T, Fault<O::Error>> {
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        done = AssertUnwindSafe(Box::pin(work)).catch_unwind() => match done {
            Ok(result) => result.map_err(Fault::Op),
            Err(panic) => Err(Fault::Internal(panic_text(&*panic))),
        },
        () = overdue => Err(Fault::Dropped),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the operation panicked: {}", text.unwrap_or_default())
}
