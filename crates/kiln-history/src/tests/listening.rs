//! Who hears what, and when.

use super::*;
use crate::HistoryError;
use tempfile::TempDir;

fn only(reference: &str) -> Query {
    Query { reference: Some(reference.into()), ..Query::default() }
}

#[test]
fn what_runs_comes_first_and_then_what_happens() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    build(&history, "done");
    let running = begin(&history, "running");
    runtime().block_on(async {
        let mut all = history.listen(&Query::default()).unwrap();
        let mut active = history.listen(&Query { active_only: true, ..Query::default() }).unwrap();
        let mut one = history.listen(&only("done")).unwrap();
        let event = |kind, name: &str| Some((kind, name.to_string()));
        assert_eq!(next(&mut all).await, event(EventKind::Started, "running"));
        assert_eq!(next(&mut all).await, event(EventKind::Complete, "done"));
        assert_eq!(next(&mut active).await, event(EventKind::Started, "running"));
        assert_eq!(next(&mut one).await, event(EventKind::Complete, "done"));

        running.finish(Outcome::default()).unwrap();
        history.pin("done", true).unwrap();
        history.delete("running").unwrap();
        for listener in [&mut all, &mut active] {
            assert_eq!(next(listener).await, event(EventKind::Complete, "running"));
            assert_eq!(next(listener).await, event(EventKind::Complete, "done"));
            assert_eq!(next(listener).await, event(EventKind::Deleted, "running"));
        }
        assert_eq!(next(&mut one).await, event(EventKind::Complete, "done"));
        history.close().await;
        assert_eq!(next(&mut all).await, None);
        assert_eq!(next(&mut one).await, None);
    });
}

#[test]
fn limits_take_the_newest_and_filters_choose() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    for name in ["c", "a", "b"] {
        build(&history, name);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(listed(&history, Query::default()), ["a", "b", "c"]);
    assert_eq!(listed(&history, Query { limit: 2, ..Query::default() }), ["b", "a"]);
    let filters = vec!["ref==a".to_string(), "ref==c".to_string()];
    assert_eq!(listed(&history, Query { filters, ..Query::default() }), ["a", "c"]);
    assert_eq!(listed(&history, only("b")), ["b"]);
    assert!(listed(&history, only("nope")).is_empty());
    for bad in [
        Query { limit: -1, ..Query::default() },
        Query { limit: i32::MIN, ..Query::default() },
        Query { filters: vec!["ref+a".into()], ..Query::default() },
    ] {
        assert!(matches!(history.listen(&bad), Err(HistoryError::Query(_))));
    }
}

#[test]
fn a_deleted_record_is_gone_for_others_and_stays_for_its_reader() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    ["a", "b"].iter().for_each(|name| build(&history, name));
    let log: Digest = record(&history, "a").logs.unwrap().digest.parse().unwrap();
    runtime().block_on(async {
        let mut reader = history.listen(&only("a")).unwrap();
        next(&mut reader).await.unwrap();
        history.delete("a").unwrap();
        assert_eq!(next(&mut reader).await.unwrap().0, EventKind::Deleted);
        assert!(matches!(history.listen(&only("a")), Err(HistoryError::Deleted(_))));
        assert!(matches!(history.delete("a"), Err(HistoryError::NotFound(_))));
        assert!(matches!(history.pin("a", true), Err(HistoryError::NotFound(_))));
        assert!(content.info(&log).unwrap().is_some());
        drop(reader);
        let gone = async {
            while content.info(&log).unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the log of a deleted record goes");
    });
    assert_eq!(listed(&history, Query::default()), ["b"]);
    assert!(listed(&history, only("a")).is_empty());
}

#[test]
fn a_listener_that_does_not_read_is_told_and_slows_nobody() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    runtime().block_on(async {
        let mut slow = history.listen(&Query::default()).unwrap();
        for n in 0..100 {
            drop(begin(&history, &format!("{n}")));
        }
        assert!(matches!(slow.next().await, Err(HistoryError::Behind(_))));
    });
}

#[test]
fn closing_waits_for_the_records_of_builds_that_run() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    let recording = begin(&history, "r");
    runtime().block_on(async {
        let closing = tokio::spawn({
            let history = history.clone();
            async move { history.close().await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!closing.is_finished());
        recording.finish(Outcome::default()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), closing).await.unwrap().unwrap();
    });
}
