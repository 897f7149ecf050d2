//! Several jobs at once: what is shared, what is cancelled, what is freed.

use std::sync::Arc;

use super::world::*;
use crate::*;

fn silent() -> Arc<NoObserver> {
    Arc::new(NoObserver)
}

#[test]
fn two_jobs_run_one_vertex_once() {
    let g = graph([v("base"), v("top").on("base").value("T")]);
    let mut world = World::new();
    let (a, b) = (world.job(silent()), world.job(silent()));
    let one = world.ask(Owner::Job(a), &g, edge("top"));
    world.run_but(&["top"]);
    let two = world.ask(Owner::Job(b), &g, edge("top"));
    assert_eq!(world.jobs_of(world.exec_of("top").unwrap()), ["job1", "job2"]);
    world.run();
    assert_eq!((world.answer(one), world.answer(two)), ("T".into(), "T".into()));
    assert_eq!(world.ops.counts(), (2, 2, 0));
}

#[test]
fn vertices_with_equal_keys_run_once() {
    let g = |n: u32, context: &str| {
        let (ctx, copy) = (format!("context{n}"), format!("copy{n}"));
        let context = v(&ctx).value(context).op(|o| o.random = true);
        graph([v("base"), context, v(&copy).seed("copy").on("base").on_content(&ctx).value("C")])
    };
    let mut world = World::new();
    let (a, b, c) = (world.job(silent()), world.job(silent()), world.job(silent()));
    let one = world.ask(Owner::Job(a), &g(1, "files"), edge("copy1"));
    let two = world.ask(Owner::Job(b), &g(2, "files"), edge("copy2"));
    let three = world.ask(Owner::Job(c), &g(3, "other"), edge("copy3"));
    world.run_but(&["copy1", "copy2", "copy3"]);
    assert_eq!(world.exec_of("copy2"), None);
    let exec = world.exec_of("copy1").unwrap();
    assert_eq!(world.jobs_of(exec), ["job1", "job2"]);
    // The first job leaves: the work goes on for the second.
    world.end(a);
    assert!(!world.is_cancelled(exec));
    assert_eq!(world.jobs_of(exec), ["job2"]);
    world.run();
    assert_eq!(world.answer(one), "error: context canceled");
    assert_eq!((world.answer(two), world.answer(three)), ("C".into(), "C".into()));
    let execs = world.ops.done.lock().unwrap().execs.clone();
    assert_eq!(execs.iter().filter(|e| e.starts_with("copy")).count(), 2, "{execs:?}");
    world.end(b);
    world.end(c);
    assert_eq!(world.scheduler.active(), 0);
}

#[test]
fn outputs_of_merged_vertices_in_any_order() {
    // Where two vertices take over outputs of each other crosswise a graph of owners would become a cycle.
    let input = |name: &str, index| Edge { digest: named(name), index };
    let two = |name: &str| v(name).seed("both").on("x").on("y").op(|o| o.outputs = 3);
    let top = [("vb", 0), ("va", 0), ("vc", 1), ("va", 1), ("va", 2), ("vb", 2)];
    let top = top.iter().fold(v("top"), |t, (name, i)| t.input(input(name, *i), Dep::default()));
    let g = graph([v("x"), v("y"), two("va"), two("vb"), two("vc"), top]);
    let (value, counts) = World::new().once(&g, edge("top"));
    let o = |i| format!("both:{i}(x:0(),y:0())");
    assert_eq!(value, format!("top:0({},{},{},{},{},{})", o(0), o(0), o(1), o(1), o(2), o(2)));
    assert_eq!(counts, (6, 4, 0));
}

#[test]
fn a_vertex_without_cache_is_not_replaced_by_a_cached_one() {
    let g = |ignore: bool, value: &str| {
        let mut vertex = v("x").value(value);
        vertex.ignore_cache = ignore;
        graph([vertex])
    };
    let mut world = World::new();
    let jobs: Vec<_> = (0..4).map(|_| world.job(silent())).collect();
    let diary = Arc::new(Diary::default());
    let late = world.job(diary.clone());
    let one = world.ask(Owner::Job(jobs[0]), &g(false, "normal"), edge("x"));
    world.run();
    let two = world.ask(Owner::Job(late), &g(true, "anew"), edge("x"));
    world.run();
    assert_eq!((world.answer(one), world.answer(two)), ("normal".into(), "anew".into()));
    let shown = diary.events.lock().unwrap().first().cloned();
    let Some(VertexEvent::Loaded(info)) = shown else { panic!("{shown:?}") };
    let renamed = kiln_digest::Digest::sha256(format!("{}-ignorecache", named("x")));
    assert_eq!((info.digest, info.original), (renamed, named("x")));
    // The newest one now serves both kinds.
    let three = world.ask(Owner::Job(jobs[2]), &g(true, "never"), edge("x"));
    let four = world.ask(Owner::Job(jobs[3]), &g(false, "never"), edge("x"));
    assert_eq!((world.answer(three), world.answer(four)), ("anew".into(), "anew".into()));
}

#[test]
fn equal_keys_with_and_without_cache() {
    let g = |name: &str, ignore: bool| {
        let mut vertex = v(name).seed("same").value(name);
        vertex.ignore_cache = ignore;
        graph([vertex])
    };
    let mut world = World::new();
    let job = world.job(silent());
    let mut value = |name: &str, ignore| {
        let build = world.ask(Owner::Job(job), &g(name, ignore), edge(name));
        world.run();
        world.answer(build)
    };
    assert_eq!(value("a", false), "a");
    assert_eq!(value("b", true), "b");
    assert_eq!(value("c", true), "b");
    assert_eq!(value("d", false), "b");
}

#[test]
fn mixed_graphs_with_and_without_cache_keep_apart() {
    // One job builds all from the cache, the other forces the middle: what is above the forced vertex is not shared.
    let g = |ignore: bool| {
        let mut mid = v("mid").on("base").value(if ignore { "forced" } else { "normal" });
        mid.ignore_cache = ignore;
        graph([v("base"), mid, v("top").on("mid")])
    };
    let mut world = World::new();
    let (a, b, c) = (world.job(silent()), world.job(silent()), world.job(silent()));
    let one = world.ask(Owner::Job(a), &g(false), edge("top"));
    let two = world.ask(Owner::Job(b), &g(true), edge("top"));
    world.end(a);
    let three = world.ask(Owner::Job(c), &g(false), edge("top"));
    world.run();
    assert_eq!(world.answer(one), "error: context canceled");
    assert_eq!((world.answer(two), world.answer(three)), ("top:0(forced)".into(), "top:0(forced)".into()));
    world.end(b);
    world.end(c);
    assert_eq!(world.scheduler.active(), 0);
}

#[test]
fn work_that_nobody_waits_for_is_cancelled() {
    let g = graph([v("slow"), v("other"), v("top").on("slow").on("other")]);
    let mut world = World::new();
    let job = world.job(silent());
    world.ask(Owner::Job(job), &g, edge("top"));
    world.run_but(&["slow", "other"]);
    let tasks: Vec<_> = world.open();
    world.end(job);
    assert_eq!(world.scheduler.active(), 0);
    assert!(tasks.iter().all(|(t, _)| world.is_cancelled(*t)));
    world.run();
}

#[test]
fn a_job_that_joins_while_the_vertex_is_being_cancelled_gets_its_result() {
    let g = graph([v("x").value("X")]);
    for finishes in [false, true] {
        let mut world = World::new();
        let (a, b) = (world.job(silent()), world.job(silent()));
        let one = world.ask(Owner::Job(a), &g, edge("x"));
        world.run_but(&["x"]);
        let exec = world.exec_of("x").unwrap();
        world.send(Event::Abandoned { build: one });
        assert!(world.is_cancelled(exec));
        let two = world.ask(Owner::Job(b), &g, edge("x"));
        assert_eq!(world.open().len(), 1, "not started twice");
        world.end(a);
        world.end_task(exec, finishes);
        world.run();
        assert_eq!(world.answer(two), "X");
        assert!(!world.answers.contains_key(&one));
        // Either the work came to its end after all, or it was done again; a failure of the cancelled one is nobody's.
        assert_eq!(world.ops.done.lock().unwrap().execs.len(), 1);
        world.end(b);
        assert_eq!(world.scheduler.active(), 0);
    }
}

#[test]
fn a_failure_reaches_all_who_wait_and_is_tried_again_later() {
    let g = graph([v("base"), v("bad").on("base").failing(), v("long"), v("top").on("bad").on("long")]);
    let mut world = World::new();
    let (a, b) = (world.job(silent()), world.job(silent()));
    let one = world.ask(Owner::Job(a), &g, edge("top"));
    let two = world.ask(Owner::Job(b), &g, edge("bad"));
    world.run_but(&["bad", "long"]);
    let (bad, long) = (world.exec_of("bad").unwrap(), world.exec_of("long").unwrap());
    world.end_task(bad, true);
    assert_eq!(world.answer(one), "error: bad is broken");
    assert_eq!(world.answer(two), "error: bad is broken");
    assert!(world.is_cancelled(long), "what the failed vertex would have needed it for");
    let Err(error) = &world.answers[&one] else { panic!() };
    assert!(matches!(&**error, Error::Op { vertex, .. } if *vertex == named("bad")));
    world.run();
    world.ops.counts();
    let again = world.ask(Owner::Job(b), &g, edge("bad"));
    world.run();
    assert_eq!(world.answer(again), "error: bad is broken");
    assert_eq!(world.ops.counts().1, 1, "only the failed vertex is tried again");
    assert_eq!(world.scheduler.index().results().count(), 1, "failures are not saved");
}

#[test]
fn a_follower_fails_with_its_leader() {
    let g = |name: &str| graph([v(name).seed("same").failing()]);
    let mut world = World::new();
    let job = world.job(silent());
    let one = world.ask(Owner::Job(job), &g("a"), edge("a"));
    let two = world.ask(Owner::Job(job), &g("b"), edge("b"));
    world.run();
    assert_eq!(world.answer(one), "error: a is broken");
    assert_eq!(world.answer(two), "error: a is broken");
    assert_eq!(world.ops.counts().1, 1);
    world.end(job);
    assert_eq!(world.scheduler.active(), 0);
    assert!(world.scheduler.index().is_empty(), "nothing is left of what came to nothing");
}

#[test]
fn an_input_that_failed_before_it_was_asked_fails_who_asks() {
    let g = |broken: bool| {
        let base = if broken { v("base").failing() } else { v("base") };
        graph([base, v("top").on("base")])
    };
    let mut world = World::new();
    world.once(&g(false), edge("top"));
    world.ops.done.lock().unwrap().lost = true;
    let job = world.job(silent());
    let top = world.ask(Owner::Job(job), &g(true), edge("top"));
    let end = |world: &mut World, name: &str| {
        let task = world.open().into_iter().find(|(_, n)| n == name).unwrap().0;
        world.end_task(task, true);
    };
    end(&mut world, "base");
    end(&mut world, "top");
    // The top is being loaded; its input is asked for by somebody else, and fails.
    let base = world.ask(Owner::Job(job), &g(true), edge("base"));
    end(&mut world, "base");
    end(&mut world, "base");
    assert_eq!(world.answer(base), "error: base is broken");
    assert!(!world.answers.contains_key(&top));
    end(&mut world, "top");
    assert_eq!(world.answer(top), "error: base is broken");
}

#[test]
fn a_completed_input_that_is_still_held_offers_its_keys() {
    // moby/buildkit#4674: the base is held by another job while the step above it is built again.
    let base = || v("base");
    let g = |name: &str, value: &str| graph([base(), v(name).seed("step").on("base").value(value)]);
    let mut world = World::new();
    let (a, b) = (world.job(silent()), world.job(silent()));
    let one = world.ask(Owner::Job(a), &g("one", "1"), edge("one"));
    world.ask(Owner::Job(b), &graph([base()]), edge("base"));
    world.run();
    world.end(a);
    let c = world.job(silent());
    let two = world.ask(Owner::Job(c), &g("two", "2"), edge("two"));
    world.run();
    assert_eq!((world.answer(one), world.answer(two)), ("1".into(), "1".into()));
    assert_eq!(world.ops.counts(), (3, 2, 1));
}

#[test]
fn nested_builds_belong_to_the_vertex() {
    let outer = graph([v("outer")]);
    let inner = graph([v("deep"), v("inner").on("deep").value("I")]);
    let mut world = World::new();
    let diary = Arc::new(Diary::default());
    let (a, b) = (world.job(silent()), world.job(diary.clone()));
    world.ask(Owner::Job(a), &outer, edge("outer"));
    world.run_but(&["outer"]);
    let task = world.exec_of("outer").unwrap();
    let nested = world.ask(Owner::Task(task), &inner, edge("inner"));
    world.run_but(&["outer", "inner"]);
    assert_eq!(world.jobs_of(world.exec_of("inner").unwrap()), ["job1"]);
    world.ask(Owner::Job(b), &outer, edge("outer"));
    assert_eq!(world.jobs_of(world.exec_of("inner").unwrap()), ["job1", "job2"]);
    let loaded = diary.events.lock().unwrap().iter().filter(|e| matches!(e, VertexEvent::Loaded(_))).count();
    assert_eq!(loaded, 3, "who joins sees the nested vertices, too");
    let inner_exec = world.exec_of("inner").unwrap();
    world.end_task(inner_exec, true);
    assert_eq!(world.answer(nested), "I");
    // A nested build of what waits for it would never end.
    let again = world.ask(Owner::Task(task), &outer, edge("outer"));
    assert!(world.answer(again).contains("builds itself"));
    world.end(a);
    world.end(b);
    assert_eq!(world.scheduler.active(), 0);
}

#[test]
fn wrong_requests_are_answered() {
    let g = graph([v("x")]);
    let mut world = World::new();
    let job = world.job(silent());
    let unknown = world.ask(Owner::Job(job), &g, edge("y"));
    assert!(world.answer(unknown).contains("is not part of the graph"));
    let output = world.ask(Owner::Job(job), &g, Edge { digest: named("x"), index: 7 });
    world.run();
    assert!(world.answer(output).contains("output 7 is needed"), "{}", world.answer(output));
    world.end(job);
    let late = world.ask(Owner::Job(job), &g, edge("x"));
    assert_eq!(world.answer(late), "error: context canceled");
    assert_eq!(world.scheduler.active(), 0);
}

#[test]
fn graphs_are_checked() {
    let cycle = [v("a").on("b"), v("b").on("a")];
    assert!(matches!(Graph::new(cycle), Err(GraphError::Cycle(_))));
    assert!(matches!(Graph::new([v("a"), v("a")]), Err(GraphError::Twice(_))));
    assert!(matches!(Graph::new([v("a").on("b")]), Err(GraphError::MissingInput { .. })));
}
