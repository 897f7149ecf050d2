//! What jobs are told, in which order.

use std::sync::Arc;

use super::world::*;
use crate::*;

/// One line per event.
fn lines(diary: &Diary, names: &[&str]) -> Vec<String> {
    let name = |d: &kiln_digest::Digest| names.iter().find(|n| named(n) == *d).copied().unwrap_or("?");
    let line = |event: &VertexEvent| match event {
        VertexEvent::Loaded(info) => format!("loaded {}", info.name),
        VertexEvent::Started { vertex, cached, .. } => {
            format!("started {}{}", name(vertex), if *cached { " cached" } else { "" })
        }
        VertexEvent::Completed { vertex, cached, error, started, at } => {
            assert!(started <= at);
            let cached = if *cached { " cached" } else { "" };
            let error = error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
            format!("completed {}{cached}{error}", name(vertex))
        }
    };
    diary.events.lock().unwrap().iter().map(line).collect()
}

#[test]
fn a_cold_and_a_cached_build() {
    let g = graph([v("base"), v("mid").on("base"), v("top").on("mid")]);
    let names = ["base", "mid", "top"];
    let mut world = World::new();
    let mut build = || {
        let diary = Arc::new(Diary::default());
        let job = world.job(diary.clone());
        world.ask(Owner::Job(job), &g, edge("top"));
        world.run();
        world.end(job);
        lines(&diary, &names)
    };
    assert_eq!(
        build(),
        [
            "loaded base",
            "loaded mid",
            "loaded top",
            "started base",
            "completed base",
            "started base",
            "completed base",
            "started mid",
            "completed mid",
            "started top",
            "completed top",
        ]
    );
    assert_eq!(
        build(),
        [
            "loaded base",
            "loaded mid",
            "loaded top",
            "started base",
            "completed base",
            "completed mid cached",
            "started top cached",
            "completed top cached",
        ]
    );
}

#[test]
fn failures_and_cancellations() {
    let g = graph([v("bad").failing(), v("slow"), v("top").on("bad").on("slow")]);
    let mut world = World::new();
    let diary = Arc::new(Diary::default());
    let job = world.job(diary.clone());
    world.ask(Owner::Job(job), &g, edge("top"));
    world.run_but(&["bad", "slow"]);
    let (bad, slow) = (world.exec_of("bad").unwrap(), world.exec_of("slow").unwrap());
    world.send(Event::Began { task: slow });
    world.end_task(bad, true);
    world.run();
    let lines = lines(&diary, &["bad", "slow", "top"]);
    let tail: Vec<_> = lines.iter().rev().take(4).rev().map(String::as_str).collect();
    assert_eq!(
        tail,
        ["started slow", "started bad", "completed bad (bad is broken)", "completed slow (context canceled)"]
    );
}

#[test]
fn who_joins_late_is_told_the_past() {
    let g = graph([v("base"), v("top").on("base")]);
    let mut world = World::new();
    let (one, two) = (Arc::new(Diary::default()), Arc::new(Diary::default()));
    let (a, b) = (world.job(one.clone()), world.job(two.clone()));
    world.ask(Owner::Job(a), &g, edge("top"));
    world.run_but(&["top"]);
    let top = world.exec_of("top").unwrap();
    world.send(Event::Began { task: top });
    world.ask(Owner::Job(b), &g, edge("top"));
    assert_eq!(lines(&two, &["base", "top"]), ["loaded base", "completed base", "loaded top", "started top"]);
    // The job that leaves sees the end of what goes on for the other.
    world.end(b);
    assert_eq!(lines(&two, &["base", "top"]).last().unwrap(), "completed top (context canceled)");
    world.run();
    assert_eq!(lines(&one, &["base", "top"]).last().unwrap(), "completed top");
}
