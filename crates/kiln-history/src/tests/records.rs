//! What is in a record, and how long it stays.

use super::*;
use crate::{Exporter, HistoryError};
use kiln_llb::errdefs::{BuildError, Code};
use tempfile::TempDir;

#[test]
fn a_record_says_what_was_asked_and_what_came_of_it() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    let attrs = [("context", "https://me:pw@host/r.git"), ("build-arg:A", "1"), ("contextsubdir", "x")];
    let exporter = Exporter { kind: "image".into(), attrs: [("name".to_string(), "a".to_string())].into() };
    let mut recording = history.begin(Start {
        reference: "r".into(),
        frontend: "dockerfile.v0".into(),
        frontend_attrs: attrs.map(|(k, v)| (k.to_string(), v.to_string())).into(),
        exporters: vec![exporter],
    });
    assert!(history.is_active("r"));
    recording.write(ran("one", "output"));
    let mut cached = ran("two", "");
    cached.vertexes[0].cached = true;
    recording.write(cached);
    let mut unfinished = ran("three", "");
    unfinished.vertexes[0].completed = None;
    recording.write(unfinished);
    let response = [("k".to_string(), "v".to_string())].into();
    recording.finish(Outcome { response, ..Outcome::default() }).unwrap();
    assert!(!history.is_active("r"));

    let r = record(&history, "r");
    assert_eq!((r.num_total_steps, r.num_cached_steps, r.num_completed_steps), (3, 1, 2));
    assert_eq!(r.frontend, "dockerfile.v0");
    assert_eq!(r.frontend_attrs["context"], "https://xxxxx:xxxxx@host/r.git");
    assert_eq!(r.frontend_attrs["build-arg:A"], "1");
    assert_eq!(r.exporters[0].attrs["name"], "a");
    assert_eq!(r.exporter_response["k"], "v");
    assert!(r.error.is_none() && r.external_error.is_none() && r.result.is_none());
    assert!(r.completed_at.unwrap().seconds >= r.created_at.unwrap().seconds);
}

#[test]
fn a_failed_build_has_its_details_in_a_blob() {
    use prost::Message;
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    let error = BuildError::new(Code::NotFound, "no https://u:p@h/x").with_vertex(Digest::sha256("v"));
    let recording = begin(&history, "r");
    recording.finish(Outcome { error: Some(error), ..Outcome::default() }).unwrap();
    let r = record(&history, "r");
    let short = r.error.unwrap();
    assert_eq!((short.code, short.details.len()), (5, 0));
    assert_eq!(short.message, "no https://xxxxx:xxxxx@h/x");
    let blob = r.external_error.unwrap();
    assert_eq!(blob.media_type, "application/vnd.googeapis.google.rpc.status+proto");
    let data = content.read(&blob.digest.parse().unwrap(), 1 << 20).unwrap();
    let full = kiln_proto::google::rpc::Status::decode(&data[..]).unwrap();
    assert_eq!(full.message, short.message);
    let kinds: Vec<_> = full.details.iter().map(|d| d.type_url.rsplit('/').next().unwrap()).collect();
    assert_eq!(kinds, ["errdefs.Vertex+json", "stack.Stack+json"]);
}

#[test]
fn pins_count_generations() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    build(&history, "r");
    history.pin("r", true).unwrap();
    history.pin("r", false).unwrap();
    history.pin("r", true).unwrap();
    let r = record(&history, "r");
    assert_eq!((r.pinned, r.generation), (true, 3));
    for missing in ["", "nope", "R"] {
        let error = history.pin(missing, true).unwrap_err();
        assert!(matches!(&error, HistoryError::NotFound(_)), "{error}");
        assert!(matches!(history.delete(missing), Err(HistoryError::NotFound(_))));
        assert!(history.log(missing).unwrap().is_none());
    }
}

#[test]
fn old_records_go_and_pinned_ones_stay() {
    let dir = TempDir::new().unwrap();
    let limits = Limits { max_age: Duration::ZERO, max_entries: 2 };
    let (content, history) = open_with(dir.path(), limits);
    build(&history, "a");
    history.pin("a", true).unwrap();
    for name in ["b", "c", "d"] {
        std::thread::sleep(Duration::from_millis(3));
        build(&history, name);
    }
    std::thread::sleep(Duration::from_millis(3));
    history.expire().unwrap();
    assert_eq!(listed(&history, Query::default()), ["a", "c", "d"]);
    // A log and a trace each.
    assert_eq!(content.list().unwrap().len(), 6);

    // Both limits must be passed.
    let dir = TempDir::new().unwrap();
    let (_, history) = open_with(dir.path(), Limits { max_age: Duration::from_secs(60), max_entries: 1 });
    ["a", "b", "c"].iter().for_each(|name| build(&history, name));
    history.expire().unwrap();
    assert_eq!(listed(&history, Query::default()), ["a", "b", "c"]);
}

#[test]
fn many_builds_leave_no_more_than_the_limits_say() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open_with(dir.path(), Limits { max_age: Duration::ZERO, max_entries: 5 });
    for n in 0..300 {
        build(&history, &format!("build-{n}"));
    }
    std::thread::sleep(Duration::from_millis(3));
    history.expire().unwrap();
    assert_eq!(listed(&history, Query::default()).len(), 5);
    assert_eq!(content.list().unwrap().len(), 10);
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 10);
    assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    let state = history.0.state();
    assert!(state.active.is_empty());
}

#[test]
fn records_outlive_the_process_and_what_was_being_removed_does_not() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    ["a", "b", "c"].iter().for_each(|name| build(&history, name));
    let running = begin(&history, "running");
    // Deleted while somebody reads it.
    history.0.hold("b");
    history.delete("b").unwrap();
    // A power cut took the log.
    let log = record(&history, "c").logs.unwrap().digest;
    content.db().write(|tx| tx.execute("DELETE FROM blobs WHERE digest = ?1", [&log])).unwrap();
    std::mem::forget(running);
    drop(history);
    let (content, history) = open(dir.path());
    assert_eq!(listed(&history, Query::default()), ["a"]);
    assert!(history.log("a").unwrap().unwrap().read().unwrap().is_some());
    content.gc().unwrap();
    assert_eq!(content.list().unwrap().len(), 2);
}

#[test]
fn the_same_reference_again_takes_the_place_of_the_first() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    build(&history, "r");
    let first = record(&history, "r").logs.unwrap().digest;
    let mut again = begin(&history, "r");
    again.write(ran("other", "second"));
    again.finish(Outcome::default()).unwrap();
    assert_eq!(listed(&history, Query::default()), ["r"]);
    assert_ne!(record(&history, "r").logs.unwrap().digest, first);
    assert_eq!(content.info(&first.parse().unwrap()).unwrap(), None);
}

#[test]
fn a_recording_that_is_dropped_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    let mut recording = begin(&history, "r");
    recording.write(ran("one", "output"));
    drop(recording);
    assert!(!history.is_active("r"));
    assert!(listed(&history, Query::default()).is_empty());
    assert!(content.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_row_that_cannot_be_read_hides_no_other() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    ["a", "b"].iter().for_each(|name| build(&history, name));
    content.db().write(|tx| tx.execute("UPDATE history SET record = x'ff' WHERE ref = 'a'", [])).unwrap();
    assert_eq!(listed(&history, Query::default()), ["b"]);
    assert!(matches!(history.pin("a", true), Err(HistoryError::NotFound(_))));
    history.delete("a").unwrap();
}

#[test]
fn nothing_of_a_request_breaks_the_history() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    let huge = "x".repeat(2 << 20);
    for (n, text) in
        ["", "\0", "ref with spaces,=\"'", "../../etc", "ä\u{202e}", &huge].into_iter().enumerate()
    {
        let exporter = Exporter { kind: text.into(), attrs: [(text.to_string(), text.to_string())].into() };
        let recording = history.begin(Start {
            reference: format!("{n}"),
            frontend: text.into(),
            frontend_attrs: [(text.to_string(), text.to_string())].into(),
            exporters: vec![exporter],
        });
        let error = (n % 2 == 0).then(|| BuildError::msg(text));
        let response = [(text.to_string(), text.to_string())].into();
        recording.finish(Outcome { error, response, ..Outcome::default() }).unwrap();
        use prost::Message;
        assert!(record(&history, &format!("{n}")).encoded_len() < 2 << 20);
    }
    assert_eq!(listed(&history, Query::default()).len(), 6);
}
