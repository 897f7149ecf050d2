//! Logs, traces and images of records.

use super::*;
use crate::{HistoryError, Image};
use tempfile::TempDir;

fn replay(history: &History, reference: &str) -> Vec<kiln_proto::control::StatusResponse> {
    let mut log = history.log(reference).unwrap().unwrap();
    std::iter::from_fn(|| log.read().unwrap()).collect()
}

#[test]
fn a_log_is_what_was_said() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    let mut recording = begin(&history, "r");
    for n in 0..50 {
        recording.write(ran(&format!("step {n}"), &format!("line {n}\n")));
    }
    recording.finish(Outcome::default()).unwrap();
    let said = replay(&history, "r");
    assert_eq!(said.len(), 50);
    assert_eq!(said[7].vertexes[0].name, "step 7");
    assert_eq!(said[49].logs[0].msg, b"line 49\n");
    let log = record(&history, "r").logs.unwrap();
    assert_eq!(log.media_type, "application/vnd.buildkit.status.v0");
    // The form on disk: length, message.
    let data = content.read(&log.digest.parse().unwrap(), 1 << 20).unwrap();
    assert_eq!(log.size, data.len() as i64);
    let first = u32::from_le_bytes(data[..4].try_into().unwrap()) as usize;
    use prost::Message;
    let message = kiln_proto::control::StatusResponse::decode(&data[4..4 + first]).unwrap();
    assert_eq!(message, said[0]);
    content.gc().unwrap();
    assert_eq!(replay(&history, "r").len(), 50);
}

#[test]
fn what_is_too_large_for_one_message_is_split() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    let mut recording = begin(&history, "r");
    let mut update = ran("large", &"x".repeat(3 << 20));
    update.append(ran("large", &"y".repeat(3 << 20)));
    update.append(ran("too large for anybody", &"z".repeat(20 << 20)));
    recording.write(update);
    recording.finish(Outcome::default()).unwrap();
    let said = replay(&history, "r");
    let logs: Vec<usize> = said.iter().flat_map(|s| &s.logs).map(|l| l.msg.len()).collect();
    assert_eq!(logs, [3 << 20, 3 << 20]);
    assert_eq!(said.iter().map(|s| s.vertexes.len()).sum::<usize>(), 3);
}

#[test]
fn a_build_that_said_nothing_has_an_empty_log() {
    let dir = TempDir::new().unwrap();
    let (_, history) = open(dir.path());
    begin(&history, "r").finish(Outcome::default()).unwrap();
    assert_eq!(record(&history, "r").logs.unwrap().size, 0);
    assert!(replay(&history, "r").is_empty());
}

#[test]
fn a_damaged_log_is_an_error_and_no_more() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    build(&history, "r");
    let log: Digest = record(&history, "r").logs.unwrap().digest.parse().unwrap();
    let path = dir.path().join("blobs/sha256").join(log.hex());
    for bytes in [&[1][..], &[0xff; 4], &[5, 0, 0, 0, 1], &[1, 0, 0, 0, 0xff]] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let mut reader = history.log("r").unwrap().unwrap();
        assert!(matches!(reader.read(), Err(HistoryError::Log { .. })), "{bytes:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(history.log("r"), Err(HistoryError::Content(_))));
    assert!(content.info(&log).unwrap().is_none());
}

#[test]
fn a_trace_has_a_span_for_each_step_below_the_build() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    let mut recording = begin(&history, "r");
    let mut failed = ran("b", "");
    failed.vertexes[0].error = "exit code: 1".into();
    recording.write(ran("a", ""));
    recording.write(failed);
    recording.finish(Outcome::default()).unwrap();
    let trace = record(&history, "r").trace.unwrap();
    assert_eq!(trace.media_type, "application/vnd.buildkit.otlp.json.v0");
    let data = content.read(&trace.digest.parse().unwrap(), 1 << 20).unwrap();
    let spans: Vec<serde_json::Value> =
        serde_json::Deserializer::from_slice(&data).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(spans.len(), 3);
    assert_eq!(spans[0]["Name"], "a");
    assert_eq!(spans[1]["Status"]["Code"], 1);
    assert_eq!(spans[2]["ChildSpanCount"], 2);
    assert_eq!(spans[0]["Parent"]["SpanID"], spans[2]["SpanContext"]["SpanID"]);
    assert_eq!(spans[0]["SpanContext"]["TraceID"].as_str().unwrap().len(), 32);
    assert_eq!(spans[0]["SpanContext"]["SpanID"].as_str().unwrap().len(), 16);
}

#[test]
fn a_record_keeps_the_manifests_of_its_images_but_no_layers() {
    let dir = TempDir::new().unwrap();
    let (content, history) = open(dir.path());
    let layer = content.put(b"layer").unwrap();
    let config = content.put(b"{\"config\":{\"Env\":[]}}").unwrap();
    let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#);
    let manifest = content.put(manifest.as_bytes()).unwrap();
    let gone = Digest::sha256("gone");
    let index =
        format!(r#"{{"manifests":[{{"digest":"{manifest}"}},{{"digest":"{gone}"}},{{"digest":"x"}}]}}"#);
    let index = content.put(index.as_bytes()).unwrap();
    let image = |digest| Image {
        media_type: "m".into(),
        digest,
        size: 7,
        annotations: [("k".to_string(), "v".to_string())].into(),
    };
    let images = [(1, image(index)), (2, image(gone))].into();
    begin(&history, "r").finish(Outcome { images, ..Outcome::default() }).unwrap();
    let result = record(&history, "r").result.unwrap();
    assert_eq!(result.results.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(result.results[&1].annotations["k"], "v");
    assert_eq!(result.result_deprecated.unwrap().digest, index.to_string());
    content.gc().unwrap();
    let there = |digest| content.info(digest).unwrap().is_some();
    assert!(there(&index) && there(&manifest) && there(&config) && !there(&layer));
    history.delete("r").unwrap();
    assert!(content.list().unwrap().is_empty());
}
