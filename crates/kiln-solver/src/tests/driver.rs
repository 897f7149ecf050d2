//! The driver, on a real runtime.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::*;

#[derive(Default)]
struct Kept(Mutex<Vec<Change>>);

impl Journal for Kept {
    fn append(&self, changes: Vec<Change>) {
        self.0.lock().unwrap().extend(changes);
    }
}

fn solver() -> (Solver<FakeOps>, Arc<FakeOps>) {
    let ops = Arc::new(FakeOps::default());
    (Solver::new(ops.clone(), CacheIndex::new(), Arc::new(NoJournal)), ops)
}

fn id(name: &str) -> JobId {
    JobId::new(name)
}

#[tokio::test]
async fn builds_and_persists() {
    let ops = Arc::new(FakeOps::default());
    let journal = Arc::new(Kept::default());
    let g = graph([v("base"), v("top").on("base").value("T")]);
    let diary = Arc::new(Diary::default());
    {
        let solver = Solver::new(ops.clone(), CacheIndex::new(), journal.clone());
        let job = solver.job(id("a"), diary.clone());
        let built = job.build(&g, edge("top")).await.unwrap();
        assert_eq!((built.result.text.as_str(), built.keys.cached), ("T", false));
        drop(job);
        assert_eq!(solver.active().await, 0);
    }
    assert_eq!(diary.progress.lock().unwrap().len(), 2);
    ops.counts();
    let index = CacheIndex::load(journal.0.lock().unwrap().clone());
    let solver = Solver::new(ops.clone(), index, journal.clone());
    let built = solver.job(id("b"), Arc::new(NoObserver)).build(&g, edge("top")).await.unwrap();
    assert_eq!((built.result.text.as_str(), built.keys.cached), ("T", true));
    assert_eq!(ops.counts(), (2, 0, 1));
    solver.forget(vec![built.id]);
    let left = solver.with_cache(|c| c.results().count()).await;
    assert_eq!(left, Some(1));
}

#[tokio::test]
async fn a_panic_fails_one_build_only() {
    let (solver, _) = solver();
    let job = solver.job(id("a"), Arc::new(NoObserver));
    let g = graph([v("panic"), v("fine")]);
    let error = job.build(&g, edge("panic")).await.unwrap_err();
    assert!(error.to_string().contains("a bug in panic"), "{error}");
    assert_eq!(job.build(&g, edge("fine")).await.unwrap().result.text, "fine:0()");
}

#[tokio::test]
async fn dropping_the_wish_or_the_job_stops_the_work() {
    let (solver, _) = solver();
    let g = graph([v("endless")]);
    let job = solver.job(id("a"), Arc::new(NoObserver));
    let wish = tokio::time::timeout(Duration::from_millis(20), job.build(&g, edge("endless"))).await;
    assert!(wish.is_err());
    drop(job);
    assert_eq!(solver.active().await, 0);
}

#[tokio::test]
async fn the_end_of_the_solver_answers_everyone() {
    let (solver, _) = solver();
    let g = graph([v("endless")]);
    let job = solver.job(id("a"), Arc::new(NoObserver));
    let line = tokio::spawn(async move { job.build(&g, edge("endless")).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(solver);
    line.abort();
    assert!(line.await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_build_many_times_at_once_never_misses() {
    let (solver, ops) = solver();
    let g = |n: usize| {
        let (ctx, copy) = (format!("context{n}"), format!("copy{n}"));
        let context = v(&ctx).value("files").op(|o| o.random = true);
        graph([v("base"), context, v(&copy).seed("copy").on("base").on_content(&ctx).value("C")])
    };
    let builds = (0..100).map(|n| {
        let (solver, g) = (solver.clone(), g(n));
        tokio::spawn(async move {
            let job = solver.job(JobId::new(format!("job{n}")), Arc::new(NoObserver));
            job.build(&g, edge(&format!("copy{n}"))).await.unwrap().result.text
        })
    });
    for value in futures::future::join_all(builds).await {
        assert_eq!(value.unwrap(), "C");
    }
    let execs = ops.done.lock().unwrap().execs.clone();
    assert_eq!(execs.iter().filter(|e| e.starts_with("copy")).count(), 1);
    assert_eq!(solver.active().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cached_stages() {
    let (solver, ops) = solver();
    let name = |i: usize| format!("stage{i}");
    let stages = (0..1000).map(|i| if i == 0 { v(&name(0)) } else { v(&name(i)).on(&name(i - 1)) });
    let g = graph(stages.map(|s| s.op(|o| o.values = Some(1000))));
    for expected in [(1000, 1000, 0), (1000, 0, 1)] {
        ops.counts();
        let job = solver.job(id("chain"), Arc::new(NoObserver));
        job.build(&g, edge(&name(999))).await.unwrap();
        assert_eq!(ops.counts(), expected);
    }
}
