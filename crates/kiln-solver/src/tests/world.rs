//! A world in which operations end when the test says so.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kiln_digest::Digest;

use crate::*;

/// What an operation does, said in data.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    /// Names the operation for the cache, one per page.
    pub(super) seeds: Vec<String>,
    pub(super) deps: Vec<Dep>,
    /// The value of its first output; by default made of the seed and the values of the inputs.
    pub(super) value: Option<String>,
    /// Only so many different values can come out.
    pub(super) values: Option<u64>,
    pub(super) outputs: u32,
    pub(super) fails: bool,
    pub(super) random: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) id: ResultId,
    pub(super) text: String,
}

/// Operations over values; what was done is counted.
#[derive(Default)]
pub(super) struct FakeOps {
    pub(super) done: Mutex<Done>,
}

#[derive(Default)]
pub(super) struct Done {
    pub(super) maps: Vec<String>,
    pub(super) execs: Vec<String>,
    pub(super) loads: Vec<String>,
    pub(super) contents: Vec<String>,
    pub(super) store: HashMap<ResultId, String>,
    /// Loading says that the result is gone.
    pub(super) lost: bool,
    /// Loading fails.
    pub(super) broken: bool,
    next: u64,
}

impl FakeOps {
    fn map(&self, vertex: &Vertex<Fake>, page: usize) -> CacheMap {
        self.done.lock().unwrap().maps.push(vertex.name.clone());
        let digest = Digest::sha256(&vertex.op.seeds[page]);
        CacheMap {
            digest: if vertex.op.random { digest.to_random() } else { digest },
            deps: vertex.op.deps.clone(),
            last: page + 1 == vertex.op.seeds.len(),
        }
    }

    fn content(&self, vertex: &Vertex<Fake>, result: &Value) -> Digest {
        self.done.lock().unwrap().contents.push(vertex.name.clone());
        Digest::sha256(&result.text)
    }

    fn run(&self, vertex: &Vertex<Fake>, inputs: &[Value]) -> Result<Vec<Value>, String> {
        let mut done = self.done.lock().unwrap();
        done.execs.push(vertex.name.clone());
        if vertex.op.fails {
            return Err(format!("{} is broken", vertex.name));
        }
        let inputs: Vec<_> = inputs.iter().map(|v| v.text.as_str()).collect();
        let outputs = (0..vertex.op.outputs.max(1)).map(|output| {
            done.next += 1;
            let id = ResultId::new(format!("{}/{}", vertex.name, done.next));
            let text = compute(&vertex.op, output, &inputs);
            done.store.insert(id.clone(), text.clone());
            Value { id, text }
        });
        Ok(outputs.collect())
    }

    fn fetch(&self, id: &ResultId) -> Result<Option<Value>, String> {
        let mut done = self.done.lock().unwrap();
        done.loads.push(id.to_string());
        if done.broken {
            return Err("the disk is on fire".into());
        }
        let lost = done.lost;
        Ok(done.store.get(id).filter(|_| !lost).map(|text| Value { id: id.clone(), text: text.clone() }))
    }

    /// What was done since the last call: cache keys, executions, loads.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let mut done = self.done.lock().unwrap();
        let out = (done.maps.len(), done.execs.len(), done.loads.len());
        done.maps.clear();
        done.execs.clear();
        done.loads.clear();
        out
    }
}

/// The value of an output.
pub(super) fn compute(op: &Fake, output: u32, inputs: &[&str]) -> String {
    let text = match &op.value {
        Some(value) if output == 0 => value.clone(),
        _ => format!("{}:{output}({})", op.seeds[0], inputs.join(",")),
    };
    match op.values {
        // Long texts are folded so that they do not grow with the depth of the graph.
        Some(n) => {
            format!("v{}", u64::from_be_bytes(Digest::sha256(&text).as_bytes()[..8].try_into().unwrap()) % n)
        }
        None => text,
    }
}

#[async_trait]
impl Ops for FakeOps {
    type Op = Fake;
    type Result = Value;
    type Error = String;

    async fn cache_map(
        &self,
        _: &OpContext<Self>,
        vertex: &Vertex<Fake>,
        page: usize,
    ) -> Result<CacheMap, String> {
        Ok(self.map(vertex, page))
    }

    async fn content_key(
        &self,
        _: &OpContext<Self>,
        vertex: &Vertex<Fake>,
        _: usize,
        result: &Value,
    ) -> Result<Digest, String> {
        Ok(self.content(vertex, result))
    }

    async fn exec(
        &self,
        cx: &OpContext<Self>,
        vertex: &Vertex<Fake>,
        inputs: Vec<Value>,
    ) -> Result<Vec<Value>, String> {
        if vertex.name.starts_with("endless") {
            cx.cancel.cancelled().await;
            return Err("stopped".into());
        }
        if vertex.name.starts_with("panic") {
            panic!("a bug in {}", vertex.name);
        }
        cx.progress.log(Stream::Stdout, vertex.name.as_bytes());
        self.run(vertex, &inputs)
    }

    async fn load(&self, _: &OpContext<Self>, record: &ResultId) -> Result<Option<Value>, String> {
        self.fetch(record)
    }

    fn result_id(&self, result: &Value) -> ResultId {
        result.id.clone()
    }
}

/// The digest of the vertex of that name.
pub(super) fn named(name: &str) -> Digest {
    Digest::sha256(format!("vertex {name}"))
}

pub(super) fn edge(name: &str) -> Edge {
    Edge { digest: named(name), index: 0 }
}

/// A vertex whose seed is its name.
pub(super) fn v(name: &str) -> Vertex<Fake> {
    let op = Fake { seeds: vec![name.to_string()], ..Fake::default() };
    Vertex {
        digest: named(name),
        name: name.to_string(),
        inputs: Vec::new(),
        ignore_cache: false,
        op: Arc::new(op),
    }
}

/// Says more about a vertex.
pub(super) trait Say: Sized {
    fn op(self, change: impl FnOnce(&mut Fake)) -> Self;
    fn input(self, edge: Edge, dep: Dep) -> Self;

    fn seed(self, seed: &str) -> Self {
        self.op(|o| o.seeds = vec![seed.to_string()])
    }
    fn pages(self, seeds: &[&str]) -> Self {
        self.op(|o| o.seeds = seeds.iter().map(ToString::to_string).collect())
    }
    fn value(self, value: &str) -> Self {
        self.op(|o| o.value = Some(value.to_string()))
    }
    fn failing(self) -> Self {
        self.op(|o| o.fails = true)
    }
    fn on(self, name: &str) -> Self {
        self.input(edge(name), Dep::default())
    }
    fn on_content(self, name: &str) -> Self {
        self.input(edge(name), Dep { content: true, ..Dep::default() })
    }
}

impl Say for Vertex<Fake> {
    fn op(mut self, change: impl FnOnce(&mut Fake)) -> Self {
        let mut op = (*self.op).clone();
        change(&mut op);
        self.op = Arc::new(op);
        self
    }

    fn input(mut self, edge: Edge, dep: Dep) -> Self {
        self.inputs.push(edge);
        self.op(|o| o.deps.push(dep))
    }
}

pub(super) fn graph(vertices: impl IntoIterator<Item = Vertex<Fake>>) -> Graph<Fake> {
    Graph::new(vertices).unwrap()
}

/// Writes down what a job is told.
#[derive(Default)]
pub(super) struct Diary {
    pub(super) events: Mutex<Vec<VertexEvent>>,
    pub(super) decisions: Mutex<Vec<Arc<Decision>>>,
    pub(super) progress: Mutex<Vec<(Digest, OpProgress)>>,
}

impl Observer for Diary {
    fn vertex(&self, event: &VertexEvent) {
        self.events.lock().unwrap().push(event.clone());
    }
    fn progress(&self, vertex: &Digest, progress: &OpProgress) {
        self.progress.lock().unwrap().push((*vertex, progress.clone()));
    }
    fn decision(&self, decision: &Arc<Decision>) {
        self.decisions.lock().unwrap().push(decision.clone());
    }
}

type Answered = Result<Built<Value>, Arc<Error<String>>>;

struct Pending {
    task: crate::scheduler::Task<FakeOps>,
    cancelled: bool,
}

/// A scheduler, the tasks it has started and the answers it gave.
pub(super) struct World {
    pub(super) scheduler: Scheduler<FakeOps>,
    pub(super) ops: FakeOps,
    pub(super) journal: Vec<Change>,
    pub(super) answers: BTreeMap<BuildId, Answered>,
    /// All actions, as text, to compare runs.
    pub(super) trace: Vec<String>,
    pending: BTreeMap<TaskId, Pending>,
    next: u64,
    time: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_index(CacheIndex::new())
    }

    pub(super) fn with_index(index: CacheIndex) -> Self {
        Self {
            scheduler: Scheduler::new(index),
            ops: FakeOps::default(),
            journal: Vec::new(),
            answers: BTreeMap::new(),
            trace: Vec::new(),
            pending: BTreeMap::new(),
            next: 0,
            time: 0,
        }
    }

    pub(super) fn send(&mut self, event: Event<FakeOps>) {
        self.time += 1;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.time);
        for action in self.scheduler.handle(now, event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<FakeOps>) {
        match action {
            Action::Start(task) => {
                let what = match &task.work {
                    Work::CacheMap { page } => format!("map {page}"),
                    Work::Input { input, .. } => format!("input {input}"),
                    Work::Exec { .. } => "exec".into(),
                    Work::Load { record } => format!("load {record}"),
                };
                self.trace.push(format!("start {} {}: {what}", task.id.0, task.vertex.name));
                self.pending.insert(task.id, Pending { task: *task, cancelled: false });
            }
            Action::Cancel(task) => {
                self.trace.push(format!("cancel {}", task.0));
                self.pending.get_mut(&task).expect("only what runs is cancelled").cancelled = true;
            }
            Action::Answer { build, result } => {
                self.trace.push(format!("answer {} {result:?}", build.0));
                assert!(self.answers.insert(build, result).is_none(), "one answer");
            }
            Action::Tell { to, note } => {
                self.trace.push(format!("tell {} {note:?}", to.len()));
                for observer in to {
                    match &note {
                        crate::scheduler::Note::Vertex(event) => observer.vertex(event),
                        crate::scheduler::Note::Decision(decision) => observer.decision(decision),
                    }
                }
            }
            Action::Journal(changes) => {
                self.trace.push(format!("journal {changes:?}"));
                self.journal.extend(changes);
            }
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn job(&mut self, observer: Arc<dyn Observer>) -> JobKey {
        let job = JobKey(self.fresh());
        self.send(Event::JobStarted { job, id: JobId::new(format!("job{}", job.0)), observer });
        job
    }

    pub(super) fn end(&mut self, job: JobKey) {
        self.send(Event::JobEnded { job });
    }

    pub(super) fn ask(&mut self, owner: Owner, graph: &Graph<Fake>, edge: Edge) -> BuildId {
        let build = BuildId(self.fresh());
        self.send(Event::Build { build, owner, graph: graph.clone(), edge });
        build
    }

    /// Tasks that could end now, as `(id, vertex)`; cancelled ones too.
    pub(super) fn open(&self) -> Vec<(TaskId, String)> {
        self.pending.iter().map(|(id, p)| (*id, p.task.vertex.name.clone())).collect()
    }

    pub(super) fn is_cancelled(&self, task: TaskId) -> bool {
        self.pending[&task].cancelled
    }

    /// The execution of the vertex, if it is under way.
    pub(super) fn exec_of(&self, name: &str) -> Option<TaskId> {
        let exec = |p: &Pending| matches!(p.task.work, Work::Exec { .. }) && p.task.vertex.name == name;
        self.pending.iter().filter(|(_, p)| !p.cancelled).find(|(_, p)| exec(p)).map(|(id, _)| *id)
    }

    pub(super) fn jobs_of(&self, task: TaskId) -> Vec<String> {
        JobSet(self.pending[&task].task.shared.clone()).ids().iter().map(ToString::to_string).collect()
    }

    /// Ends a task as its operation would; a cancelled one fails unless `finishes`.
    pub(super) fn end_task(&mut self, id: TaskId, finishes: bool) {
        let Pending { task, cancelled } = self.pending.remove(&id).unwrap();
        let stopped = cancelled && !finishes;
        let canceled = || crate::scheduler::Fault::Op("context canceled".to_string());
        let op = crate::scheduler::Fault::Op;
        let vertex = &task.vertex;
        let report = match task.work {
            Work::CacheMap { .. } if stopped => Report::CacheMap(Err(canceled())),
            Work::CacheMap { page } => Report::CacheMap(Ok(self.ops.map(vertex, page))),
            Work::Input { .. } if stopped => Report::Input(Err(canceled())),
            Work::Input { content, result, .. } => {
                Report::Input(Ok(content.then(|| self.ops.content(vertex, &result))))
            }
            Work::Exec { .. } if stopped => Report::Exec(Err(canceled())),
            Work::Exec { inputs } => {
                self.send(Event::Began { task: id });
                let results = self.ops.run(vertex, &inputs).map_err(op);
                Report::Exec(results.map(|all| all.into_iter().map(|v| (v.clone(), v.id)).collect()))
            }
            Work::Load { .. } if stopped => Report::Load(Err(canceled())),
            Work::Load { record } => Report::Load(self.ops.fetch(&record).map_err(op)),
        };
        self.send(Event::Ended { task: id, report });
    }

    /// Ends tasks, oldest first, until none is left but executions of `held` vertices.
    pub(super) fn run_but(&mut self, held: &[&str]) {
        let is_held =
            |p: &Pending| matches!(p.task.work, Work::Exec { .. }) && held.contains(&&*p.task.vertex.name);
        for _ in 0..100_000 {
            let Some(id) = self.pending.iter().find(|(_, p)| !is_held(p)).map(|(id, _)| *id) else { return };
            self.end_task(id, false);
        }
        panic!("no end: {:#?}", &self.trace[self.trace.len() - 50..]);
    }

    pub(super) fn run(&mut self) {
        self.run_but(&[]);
    }

    /// One job that builds one edge. Its value, and what was done for it.
    pub(super) fn once(&mut self, graph: &Graph<Fake>, edge: Edge) -> (String, (usize, usize, usize)) {
        self.ops.counts();
        let job = self.job(Arc::new(NoObserver));
        let build = self.ask(Owner::Job(job), graph, edge);
        self.run();
        let value = self.answer(build);
        self.end(job);
        self.run();
        assert_eq!(self.scheduler.active(), 0, "no job holds anything any more");
        (value, self.ops.counts())
    }

    /// The value of an answered build, or its error.
    pub(super) fn answer(&self, build: BuildId) -> String {
        match self.answers.get(&build).expect("an answer") {
            Ok(built) => built.result.text.clone(),
            Err(error) => format!("error: {error}"),
        }
    }
}
