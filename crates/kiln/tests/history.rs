//! What the daemon remembers of builds.

mod common;
#[path = "common/gateway.rs"]
mod raw;

use common::{World, world, world_without_daemon};
use futures::{StreamExt, TryStreamExt};
use kiln_client::{Address, BuildRecord, Client, HistoryEventKind, HistoryQuery};
use kiln_proto::control::SolveRequest;
use kiln_proto::google::rpc;
use kiln_testkit::PATIENCE;
use prost::Message;
use std::process::Stdio;
use std::time::{Duration, Instant};

const GOOD: &str = "FROM busybox\nARG WHAT\nRUN echo the output of $WHAT\n";
const BAD: &str = "FROM busybox\nRUN echo before the end && exit 7\n";

async fn client(w: &World) -> Client {
    Client::connect(&Address::Unix(w.env.socket())).await.expect("the daemon answers")
}

/// Builds that are over, the newest first.
async fn records(client: &Client) -> Vec<BuildRecord> {
    let query = HistoryQuery { early_exit: true, limit: 100, ..HistoryQuery::default() };
    let events: Vec<_> = client.history(&query).await.unwrap().try_collect().await.unwrap();
    let over = events.into_iter().filter(|e| e.kind == HistoryEventKind::Complete);
    over.map(|e| e.record).collect()
}

async fn blob(client: &Client, digest: &str) -> Vec<u8> {
    client.read_blob(digest, 0, None).await.unwrap().try_concat().await.unwrap()
}

/// All that the steps of a build printed.
async fn output(client: &Client, reference: &str) -> String {
    let updates: Vec<_> = client.build_logs(reference).await.unwrap().try_collect().await.unwrap();
    let logs = updates.into_iter().flat_map(|u| u.logs).flat_map(|l| l.data).collect();
    String::from_utf8(logs).unwrap()
}

async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !test().await {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_build_is_remembered_with_its_log_and_image_root() {
    let Some(mut w) = world() else { return };
    let image = ["--build-arg", "WHAT=it", "--output", "type=image", "-t", "name"];
    let _ = w.build(GOOD, &image).success();
    let c = client(&w).await;
    let [r] = records(&c).await.try_into().expect("one record");
    assert_eq!(r.frontend, "dockerfile.v0");
    assert_eq!(r.frontend_attrs["build-arg:WHAT"], "it");
    assert_eq!(r.exporters[0].kind, "image");
    assert!(r.error.is_none() && r.created_at < r.completed_at);
    assert!(
        r.total_steps >= 3 && r.completed_steps == r.total_steps && r.cached_steps < r.total_steps,
        "{r:?}"
    );
    let manifest = &r.result.as_ref().unwrap().images[&0];
    let json: serde_json::Value = serde_json::from_slice(&blob(&c, &manifest.digest).await).unwrap();
    assert!(!blob(&c, json["config"]["digest"].as_str().unwrap()).await.is_empty());
    let trace = r.trace.as_ref().unwrap();
    assert!(String::from_utf8(blob(&c, &trace.digest).await).unwrap().contains("RUN echo the output"));

    // Neither a restart nor an empty cache takes it.
    c.pin_build(&r.reference, true).await.unwrap();
    let _ = w.env.kiln(&["prune", "--all", "--force"]).success();
    w.daemon.take().unwrap().kill();
    w.start();
    let c = client(&w).await;
    let again = c.build_record(&r.reference).await.unwrap();
    assert_eq!((again.pinned, again.generation, &again.logs), (true, 1, &r.logs));
    assert!(output(&c, &r.reference).await.contains("the output of it"));
    let log = c.blob_info(&r.logs.unwrap().digest).await.unwrap();
    c.finalize_build(&r.reference).await.unwrap();
    c.delete_build(&r.reference).await.unwrap();
    assert!(c.build_record(&r.reference).await.is_err());
    assert!(c.delete_build(&r.reference).await.is_err());
    assert!(c.blob_info(&log.digest).await.is_err());
}

#[tokio::test]
async fn a_failed_build_keeps_the_details_of_its_error_root() {
    let Some(w) = world() else { return };
    let _ = w.build(BAD, &[]).failure();
    let c = client(&w).await;
    let [r] = records(&c).await.try_into().expect("one record");
    let error = r.error.unwrap();
    assert!(error.message.contains("exit code: 7") && error.details.is_empty(), "{error:?}");
    let full = rpc::Status::decode(&blob(&c, &r.external_error.unwrap().digest).await[..]).unwrap();
    assert_eq!(full.message, error.message);
    let details = full.details.iter().map(|d| d.type_url.as_str());
    assert!(details.clone().any(|d| d.contains("errdefs.Vertex")), "{:?}", details.collect::<Vec<_>>());
    assert!(output(&c, &r.reference).await.contains("before the end"));
    let query = |filter: &str| HistoryQuery {
        filters: vec![filter.into()],
        early_exit: true,
        ..HistoryQuery::default()
    };
    let count = async |filter: &str| c.history(&query(filter)).await.unwrap().count().await;
    assert_eq!(count("status==error").await, 1);
    assert_eq!(count("status==completed").await, 0);
    assert_eq!(count(&format!("ref=={},duration>0s", r.reference)).await, 1);
}

#[tokio::test]
async fn a_build_is_told_of_while_it_runs_and_a_cancelled_one_says_so_root() {
    let Some(w) = world() else { return };
    let c = client(&w).await;
    let mut events = Box::pin(c.history(&HistoryQuery::default()).await.unwrap());
    w.context("Dockerfile", "FROM busybox\nRUN echo has begun && sleep 600\n");
    let mut build = w.env.command(&["build", "."]).stderr(Stdio::null()).spawn().unwrap();
    let started = events.next().await.unwrap().unwrap();
    assert_eq!(started.kind, HistoryEventKind::Started);
    let id = started.record.reference;
    let mut progress = Box::pin(c.build_logs(&id).await.unwrap());
    while !progress.next().await.unwrap().unwrap().logs.iter().any(|l| l.data.starts_with(b"has begun")) {}
    build.kill().unwrap();
    build.wait().unwrap();
    let over = events.next().await.unwrap().unwrap();
    assert_eq!((over.kind, &over.record.reference), (HistoryEventKind::Complete, &id));
    assert!(over.record.error.unwrap().message.contains("context canceled"));
    assert!(output(&c, &id).await.contains("has begun"));
    c.delete_build(&id).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().kind, HistoryEventKind::Deleted);
}

#[tokio::test]
async fn a_build_that_dies_with_the_daemon_leaves_no_record_root() {
    let Some(mut w) = world() else { return };
    let _ = w.build(GOOD, &[]).success();
    w.context("Dockerfile", "FROM busybox\nRUN echo has begun && sleep 600\n");
    let mut build = w.env.command(&["build", "."]).stderr(Stdio::null()).spawn().unwrap();
    let c = client(&w).await;
    let active = HistoryQuery { active_only: true, early_exit: true, ..HistoryQuery::default() };
    until("the build runs", async || c.history(&active).await.unwrap().count().await == 1).await;
    w.daemon.take().unwrap().kill();
    build.wait().unwrap();
    w.start();
    let c = client(&w).await;
    assert_eq!(c.history(&active).await.unwrap().count().await, 0);
    assert_eq!(records(&c).await.len(), 1);
    let ingest = std::fs::read_dir(w.env.path().join("root/content/ingest"));
    assert_eq!(ingest.map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn builds_that_are_internal_leave_no_trace_root() {
    let Some(w) = world() else { return };
    let solve = async |id: &str, internal| {
        let definition = Some(raw::file("/f", id));
        let request = SolveRequest { r#ref: id.into(), definition, internal, ..SolveRequest::default() };
        raw::Client::connect(&w.env.socket()).await.solve(request).await.unwrap();
    };
    solve("hidden", true).await;
    solve("shown", false).await;
    let c = client(&w).await;
    let [r] = records(&c).await.try_into().expect("one record");
    assert_eq!(r.reference, "shown");
    for bad in ["", "no", "hidden", "\u{0}", "../shown"] {
        assert!(c.pin_build(bad, true).await.is_err(), "{bad:?}");
        assert!(c.delete_build(bad).await.is_err(), "{bad:?}");
    }
    for (filter, limit) in [("ref+x", 0), ("startedAt>x", 0), ("\"", 0), ("", -1)] {
        let query = HistoryQuery { filters: vec![filter.into()], limit, ..HistoryQuery::default() };
        assert!(c.history(&query).await.is_err(), "{filter:?}");
    }
}

#[tokio::test]
async fn the_configuration_says_how_many_records_stay_root() {
    let Some(mut w) = world_without_daemon() else { return };
    let config = std::fs::read_to_string(w.env.path().join("kiln.toml")).unwrap();
    w.env.write("kiln.toml", format!("{config}\n[history]\nmaxAge = \"0s\"\nmaxEntries = 3\n"));
    w.start();
    let c = raw::Client::connect(&w.env.socket()).await;
    for n in 0..12 {
        let definition = Some(raw::file("/f", &n.to_string()));
        c.solve(SolveRequest { r#ref: format!("b{n}"), definition, ..Default::default() }).await.unwrap();
    }
    let c = client(&w).await;
    let left: Vec<_> = records(&c).await.into_iter().map(|r| r.reference).collect();
    assert!((3..=4).contains(&left.len()) && left[0] == "b11", "{left:?}");
}
