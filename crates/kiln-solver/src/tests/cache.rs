//! What is taken from the cache, and what is touched for it.

use kiln_digest::Digest;

use super::world::*;
use crate::*;

/// A graph, the value of its last vertex, and how many cache keys, executions and loads that takes.
type Case<'a> = (Graph<Fake>, &'a str, (usize, usize, usize));

/// Graphs built one after the other.
fn check(name: &str, builds: &[Case<'_>]) {
    let mut world = World::new();
    for (i, (graph, value, counts)) in builds.iter().enumerate() {
        let root = graph.vertices().last().unwrap().digest;
        let got = world.once(graph, Edge { digest: root, index: 0 });
        assert_eq!((got.0.as_str(), got.1), (*value, *counts), "{name}, build {i}");
    }
}

#[test]
fn a_cached_result_is_loaded_and_nothing_else() {
    let g = || graph([v("base"), v("mid").on("base"), v("top").on("mid").value("T")]);
    check("chain", &[(g(), "T", (3, 3, 0)), (g(), "T", (3, 0, 1))]);
}

#[test]
fn only_what_follows_a_change_runs() {
    let g = |mid: &str| graph([v("base"), v("mid").on("base").seed(mid), v("top").on("mid").value(mid)]);
    check("chain", &[(g("a"), "a", (3, 3, 0)), (g("b"), "b", (3, 2, 1)), (g("a"), "a", (3, 0, 1))]);
}

#[test]
fn equal_content_matches_where_the_definition_does_not() {
    let g = |src: &str, content: &str, value: &str| {
        graph([v("src").seed(src).value(content), v("copy").on_content("src").value(value)])
    };
    check(
        "content",
        &[
            (g("s1", "files", "first"), "first", (2, 2, 0)),
            (g("s2", "files", "second"), "first", (2, 1, 1)),
            // The definition s2 is linked now: its content is not even looked at.
            (g("s2", "files", "third"), "first", (2, 0, 1)),
            (g("s3", "other", "fourth"), "fourth", (2, 2, 0)),
        ],
    );
}

#[test]
fn an_input_that_matches_by_definition_is_not_touched_for_another_one() {
    let g = |v2: &str, content_of_v1: bool| {
        let top = if content_of_v1 { v("top").on_content("v1") } else { v("top").on("v1") };
        graph([v("v1").seed("seed1"), v("v2").seed(v2).value("same"), top.on_content("v2").value(v2)])
    };
    for both in [false, true] {
        check("two inputs", &[(g("a", both), "a", (3, 3, 0)), (g("b", both), "a", (3, 1, 1))]);
    }
}

#[test]
fn both_inputs_by_content() {
    let g = |a: &str, b: &str, value: &str| {
        let top = v("top").on_content("v1").on_content("v2").value(value);
        graph([v("v1").seed(a).value("one"), v("v2").seed(b).value("two"), top])
    };
    check("two contents", &[(g("a", "b", "x"), "x", (3, 3, 0)), (g("c", "d", "y"), "x", (3, 2, 1))]);
}

#[test]
fn a_changed_input_elsewhere_does_not_load_what_matches() {
    // moby/buildkit#648: v1 runs again, with the same result; v2 must not be loaded for its checksum.
    let g = |v3: &str| {
        graph([
            v("v3").seed(v3).value("r3"),
            v("v1").on_content("v3"),
            v("v2"),
            v("v0").on("v1").on_content("v2"),
            v("main").on("v0").value("M"),
        ])
    };
    check("no needless load", &[(g("old"), "M", (5, 5, 0)), (g("new"), "M", (5, 1, 1))]);
}

#[test]
fn selectors_tell_keys_apart() {
    let g = |selector: &str, value: &str| {
        let dep = Dep { selector: Some(Digest::sha256(selector)), ..Dep::default() };
        graph([v("in"), v("top").input(edge("in"), dep).value(value)])
    };
    check(
        "selector",
        &[(g("a", "1"), "1", (2, 2, 0)), (g("a", "2"), "1", (2, 0, 1)), (g("b", "3"), "3", (2, 1, 1))],
    );
}

#[test]
fn later_pages_are_asked_only_when_earlier_ones_do_not_match() {
    let g = |pages: &[&str], value: &str| graph([v("image").pages(pages).value(value)]);
    check(
        "pages",
        &[
            (g(&["tag1", "chain"], "first"), "first", (2, 1, 0)),
            (g(&["tag1", "unseen"], "second"), "first", (1, 0, 1)),
            (g(&["tag2", "chain"], "third"), "first", (2, 0, 1)),
        ],
    );
    let g = |page: &str, value: &str| {
        graph([v("image").pages(&[page, "chain"]), v("run").on("image").value(value)])
    };
    check("pages of an input", &[(g("tag1", "1"), "1", (3, 2, 0)), (g("tag2", "2"), "1", (3, 0, 1))]);
}

#[test]
fn ignoring_the_cache() {
    let g = |value: &str, mid: bool, top: bool| {
        let mut all = [v("base"), v("mid").on("base").value(value), v("top").on("mid").value(value)];
        (all[1].ignore_cache, all[2].ignore_cache) = (mid, top);
        graph(all)
    };
    check(
        "ignore",
        &[
            (g("1", false, false), "1", (3, 3, 0)),
            (g("2", true, true), "2", (3, 2, 1)),
            // An input without cache: those above it run again, too.
            (g("3", true, false), "3", (3, 2, 1)),
            // What was made without cache is the newest.
            (g("4", false, false), "3", (3, 0, 1)),
        ],
    );
}

#[test]
fn the_cache_is_used_again_after_equal_content() {
    let g = |seed: &str, value: &str, ignore: bool| {
        let mut base = v("base").seed(seed).value("same");
        base.ignore_cache = ignore;
        graph([base, v("copy").on_content("base").value(value)])
    };
    check("resume", &[(g("a", "1", false), "1", (2, 2, 0)), (g("b", "2", true), "1", (2, 1, 1))]);
}

#[test]
fn results_of_different_content_are_never_mixed() {
    // The stage is not deterministic: without cache it gives other content under the same definition.
    let g = |seed: &str, content: &str, value: &str, ignore: bool| {
        let mut stage = v("stage").seed(seed).value(content);
        stage.ignore_cache = ignore;
        graph([stage, v("copy").on_content("stage").value(value)])
    };
    check(
        "mixed",
        &[
            (g("stage", "A", "copy of A", false), "copy of A", (2, 2, 0)),
            (g("stage", "B", "copy of B", true), "copy of B", (2, 2, 0)),
            (g("elsewhere", "A", "?", false), "copy of A", (2, 1, 1)),
            (g("elsewhere else", "B", "?", false), "copy of B", (2, 1, 1)),
        ],
    );
}

#[test]
fn a_lost_result_is_made_again() {
    let g = graph([v("base"), v("mid").on("base"), v("top").on("mid").value("T")]);
    for broken in [false, true] {
        let mut world = World::new();
        world.once(&g, edge("top"));
        {
            let mut done = world.ops.done.lock().unwrap();
            (done.lost, done.broken) = (!broken, broken);
        }
        assert_eq!(world.once(&g, edge("top")), ("T".into(), (3, 3, 3)));
        // Lost results are forgotten, results that could not be loaded this time are not.
        let left = world.scheduler.index().results().count();
        assert_eq!(left, if broken { 6 } else { 3 });
    }
}

#[test]
fn a_forgotten_result_is_not_loaded() {
    let g = graph([v("base"), v("top").on("base").value("T")]);
    let mut world = World::new();
    world.once(&g, edge("top"));
    world.send(Event::Forget { results: vec![ResultId::new("top/2")] });
    assert_eq!(world.once(&g, edge("top")), ("T".into(), (2, 1, 1)));
}

#[test]
fn random_keys_match_in_the_session_only() {
    let g = |value: &str| {
        let context = v("context").op(|o| o.random = true);
        graph([context, v("copy").on_content("context").value(value)])
    };
    let mut world = World::new();
    assert_eq!(world.once(&g("1"), edge("copy")), ("1".into(), (2, 2, 0)));
    assert_eq!(world.once(&g("2"), edge("copy")), ("1".into(), (2, 0, 1)));
    let mut later = World::with_index(CacheIndex::load(world.journal));
    std::mem::swap(&mut later.ops, &mut world.ops);
    assert_eq!(later.once(&g("3"), edge("copy")), ("1".into(), (2, 1, 1)));
}

#[test]
fn decisions_say_why() {
    let g = |base: &str, content: &str, op: &str| {
        let base = v("base").seed(base);
        let context = v("context").seed(content).value(content);
        graph([base, context, v("copy").seed(op).on("base").on_content("context")])
    };
    let mut world = World::new();
    let mut why = |g: &Graph<Fake>| {
        let diary = std::sync::Arc::new(Diary::default());
        let job = world.job(diary.clone());
        world.ask(Owner::Job(job), g, edge("copy"));
        world.run();
        world.end(job);
        let decisions = diary.decisions.lock().unwrap().clone();
        decisions.iter().find(|d| d.vertex == named("copy")).unwrap().outcome.clone()
    };
    assert_eq!(why(&g("b", "c", "copy")), Outcome::Miss(Nearest::Nothing));
    assert!(matches!(why(&g("b", "c", "copy")), Outcome::HitFast(_)));
    assert_eq!(why(&g("b", "c2", "copy")), Outcome::Miss(Nearest::Inputs { differing: vec![1] }));
    assert_eq!(why(&g("b2", "c", "copy")), Outcome::Miss(Nearest::Inputs { differing: vec![0] }));
    assert_eq!(why(&g("b", "c", "other op")), Outcome::Miss(Nearest::Operation));
}

#[test]
fn a_deep_chain_costs_a_few_steps_per_vertex() {
    const DEPTH: usize = 1000;
    let name = |i: usize| format!("stage{i}");
    let chain = || {
        let stages = (0..DEPTH).map(|i| if i == 0 { v(&name(0)) } else { v(&name(i)).on(&name(i - 1)) });
        graph(stages.map(|s| s.op(|o| o.values = Some(1000))))
    };
    let mut world = World::new();
    assert_eq!(world.once(&chain(), edge(&name(DEPTH - 1))).1, (DEPTH, DEPTH, 0));
    let before = world.scheduler.steps();
    assert_eq!(world.once(&chain(), edge(&name(DEPTH - 1))).1, (DEPTH, 0, 1));
    let steps = world.scheduler.steps() - before;
    assert!(steps < 10 * DEPTH as u64, "{steps}");
}
