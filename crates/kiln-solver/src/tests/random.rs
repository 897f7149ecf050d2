//! Random graphs under random schedules, compared with plain recursive evaluation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kiln_digest::Digest;
use proptest::prelude::*;

use super::world::*;
use crate::*;

/// One vertex of a random graph: its inputs are among the earlier ones.
#[derive(Clone, Debug)]
struct Plan {
    seed: u8,
    /// Another vertex with the same operation may exist under another digest.
    twin: u8,
    inputs: Vec<(usize, u8, u32)>,
    ignore: bool,
    fails: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let input = (0usize..64, 0u8..4, 0u32..2);
    (
        0u8..5,
        0u8..3,
        prop::collection::vec(input, 0..4),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(seed, twin, inputs, ignore, fails)| Plan { seed, twin, inputs, ignore, fails })
}

/// What happens from outside, and in which order pending tasks end.
#[derive(Clone, Debug)]
enum Move {
    Job,
    Build(usize, usize),
    EndTask(usize, bool),
    EndJob(usize),
    Abandon(usize),
    Forget(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::Job),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Move::Build(a, b)),
        30 => (any::<usize>(), any::<bool>()).prop_map(|(a, b)| Move::EndTask(a, b)),
        1 => any::<usize>().prop_map(Move::EndJob),
        1 => any::<usize>().prop_map(Move::Abandon),
        1 => any::<usize>().prop_map(Move::Forget),
    ];
    prop::collection::vec(one, 0..200)
}

/// Vertices, each named by what it is, so that equal definitions have equal digests.
fn vertices(plans: &[Plan], calm: bool) -> Vec<Vertex<Fake>> {
    let mut out: Vec<Vertex<Fake>> = Vec::new();
    for plan in plans {
        let mut inputs = Vec::new();
        let mut deps = Vec::new();
        for (below, kind, output) in &plan.inputs {
            if out.is_empty() {
                break;
            }
            inputs.push(Edge { digest: out[below % out.len()].digest, index: *output });
            deps.push(Dep {
                selector: (kind & 1 == 1).then(|| Digest::sha256("selector")),
                content: kind & 2 == 2,
                prepare: kind & 1 == 1,
            });
        }
        // Who fails is part of the operation: operations with equal keys behave alike.
        let fails = plan.fails && !calm;
        let seed = format!("{}/{}{}", plan.seed, inputs.len(), if fails { "!" } else { "" });
        let name = format!("{seed} {} {inputs:?} {deps:?}", plan.twin);
        let op = Fake { seeds: vec![seed], deps, values: Some(4), outputs: 2, fails, ..Fake::default() };
        let ignore_cache = plan.ignore && !calm;
        out.push(Vertex { digest: named(&name), name, inputs, ignore_cache, op: Arc::new(op) });
    }
    let mut seen = HashSet::new();
    out.retain(|v| seen.insert(v.digest));
    out
}

/// The values of all outputs by plain evaluation, or `None` where a failing vertex is below.
fn evaluate(vertices: &[Vertex<Fake>]) -> HashMap<Edge, Option<String>> {
    let mut values: HashMap<Edge, Option<String>> = HashMap::new();
    for vertex in vertices {
        for index in 0..2 {
            let inputs: Option<Vec<&str>> = vertex.inputs.iter().map(|i| values[i].as_deref()).collect();
            let value = inputs.filter(|_| !vertex.op.fails).map(|i| compute(&vertex.op, index, &i));
            values.insert(Edge { digest: vertex.digest, index }, value);
        }
    }
    values
}

/// What makes two runs the same: the operation, and of each input its content or, by the same rule, its run.
fn identities(vertices: &[Vertex<Fake>]) -> HashMap<Digest, String> {
    let values = evaluate(vertices);
    let mut out: HashMap<Digest, String> = HashMap::new();
    for vertex in vertices {
        let mut text = vertex.op.seeds[0].clone();
        for (input, dep) in vertex.inputs.iter().zip(&vertex.op.deps) {
            text += &match dep.content {
                true => format!("|={:?}", values[input]),
                false => format!("|{:?}{}:{}", dep.selector, out[&input.digest], input.index),
            };
        }
        out.insert(vertex.digest, Digest::sha256(text).to_string());
    }
    out
}

struct Run {
    world: World,
    answered: usize,
}

fn play(vertices: &[Vertex<Fake>], moves: &[Move], calm: bool) -> Run {
    let all: Vec<_> = vertices.iter().map(copy).collect();
    let graph = Graph::new(all).unwrap();
    let values = evaluate(vertices);
    let mut world = World::new();
    let mut jobs = vec![world.job(Arc::new(NoObserver))];
    let mut builds: BTreeMap<BuildId, (Edge, JobKey)> = BTreeMap::new();
    let mut withdrawn = HashSet::new();
    for step in moves {
        match *step {
            Move::Job => jobs.push(world.job(Arc::new(NoObserver))),
            Move::Build(job, vertex) => {
                let job = jobs[job % jobs.len()];
                let edge =
                    Edge { digest: vertices[vertex % vertices.len()].digest, index: (vertex / 7 % 2) as u32 };
                builds.insert(world.ask(Owner::Job(job), &graph, edge), (edge, job));
            }
            Move::EndTask(which, finishes) => {
                let open = world.open();
                if !open.is_empty() {
                    world.end_task(open[which % open.len()].0, finishes);
                }
            }
            Move::EndJob(job) if !calm && jobs.len() > 1 => {
                let job = jobs.remove(job % jobs.len());
                withdrawn.extend(builds.iter().filter(|(_, (_, j))| *j == job).map(|(b, _)| *b));
                world.end(job);
            }
            Move::Abandon(which) if !calm && !builds.is_empty() => {
                let build = *builds.keys().nth(which % builds.len()).unwrap();
                withdrawn.insert(build);
                world.send(Event::Abandoned { build });
            }
            Move::Forget(which) if !calm => {
                let mut known: Vec<_> = world.scheduler.index().results().cloned().collect();
                known.sort();
                if !known.is_empty() {
                    let result = known[which % known.len()].clone();
                    world.ops.done.lock().unwrap().store.remove(&result);
                    world.send(Event::Forget { results: vec![result] });
                }
            }
            _ => {}
        }
    }
    world.run();
    for (build, (edge, _)) in &builds {
        match (world.answers.get(build), &values[edge]) {
            (Some(Ok(built)), Some(value)) => assert_eq!(built.result.text, *value),
            (Some(Err(error)), None) if matches!(**error, Error::Op { .. }) => {}
            (other, value) => {
                assert!(withdrawn.contains(build), "{edge:?} should be {value:?}, is {other:?}")
            }
        }
    }
    for job in jobs {
        world.end(job);
    }
    assert!(world.open().iter().all(|(task, _)| world.is_cancelled(*task)), "nobody waits, nothing runs");
    world.run();
    assert_eq!(world.scheduler.active(), 0);
    let replayed = CacheIndex::load(world.journal.clone());
    assert_eq!(
        replayed.len(),
        world.scheduler.index().len(),
        "the journal is complete, reservations are gone"
    );
    Run { answered: world.answers.len(), world }
}

fn copy(v: &Vertex<Fake>) -> Vertex<Fake> {
    Vertex {
        digest: v.digest,
        name: v.name.clone(),
        inputs: v.inputs.clone(),
        ignore_cache: v.ignore_cache,
        op: v.op.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever fails, leaves, is withdrawn or forgotten, in whatever order: everyone gets the right answer.
    #[test]
    fn every_answer_is_right(plans in prop::collection::vec(plan(), 1..20), moves in moves()) {
        let vertices = vertices(&plans, false);
        let first = play(&vertices, &moves, false);
        // The same events in the same order give the same actions.
        let second = play(&vertices, &moves, false);
        prop_assert_eq!(first.world.trace, second.world.trace);
        prop_assert_eq!(first.answered, second.answered);
    }

    /// Where nothing fails or is lost, each distinct run happens once.
    #[test]
    fn each_key_runs_once(plans in prop::collection::vec(plan(), 1..20), moves in moves()) {
        let vertices = vertices(&plans, true);
        let run = play(&vertices, &moves, true);
        let identities = identities(&vertices);
        let execs = run.world.ops.done.lock().unwrap().execs.clone();
        let mut seen = HashSet::new();
        for name in &execs {
            prop_assert!(seen.insert(identities[&named(name)].clone()), "{} ran again in {:?}", name, execs);
        }
    }
}
