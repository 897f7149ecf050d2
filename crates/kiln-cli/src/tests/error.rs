//! Errors as a user sees them, and what a build leaves.

use crate::build::metadata;
use crate::error::{CliError, text};
use kiln_client::ConnectError;
use kiln_llb::errdefs::{BuildError, Code};
use serde_json::json;
use std::collections::BTreeMap;

fn no_daemon(reason: &str) -> ConnectError {
    ConnectError::NoDaemon { address: kiln_client::Address::Unix("/s".into()), reason: reason.into() }
}

fn build(code: Code, message: &str) -> CliError {
    CliError::from(BuildError::new(code, message))
}

#[test]
fn an_excerpt_the_error_and_a_hint() {
    let info = kiln_llb::SourceInfo {
        filename: "Dockerfile".into(),
        data: b"FROM a\nCOPY x /\n".to_vec(),
        ..kiln_llb::SourceInfo::default()
    };
    let line = kiln_llb::Position { line: 2, character: 0 };
    let range = kiln_llb::Range { start: line, end: line };
    let error = BuildError::msg("failed to calculate checksum of ref a: \"/x\": not found")
        .with_source(info, vec![range]);
    assert_eq!(
        text(&CliError::from(error)),
        "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> COPY x /\n   3 |     \n--------------------\n\
         error: failed to calculate checksum of ref a: \"/x\": not found\n\
         hint: paths of COPY and ADD are relative to the build context; see whether .dockerignore excludes it\n"
    );
}

#[test]
fn hints() {
    let cases = [
        (build(Code::Unknown, "target stage \"x\" could not be found"), "--target takes the name"),
        (build(Code::Unknown, "failed to read dockerfile: open Dockerfile: no such file"), "-f PATH"),
        (build(Code::Unknown, "git over ssh: ssh agent \"default\": not offered"), "--ssh default"),
        (build(Code::Unknown, "x: 401 Unauthorized"), "docker login"),
        (build(Code::Unknown, "write x: no space left on device"), "kiln prune"),
        (build(Code::Unavailable, "transport error"), "its log says why"),
        (CliError::from(no_daemon("No such file")), "--daemonless"),
        (CliError::from(no_daemon("Permission denied (os error 13)")), "as root"),
        (
            CliError::of_build(BuildError::new(Code::Unavailable, "x"), Some("/run/k.log".as_ref())),
            "/run/k.log",
        ),
        (CliError::Daemon("could not lock /x/kiln.lock, another instance running?".into()), "another --root"),
        (CliError::NotBuilt { flag: "--x".into(), why: "y" }, "leave the flag out"),
        (build(Code::Unknown, "network.host is not allowed"), "`kiln build --allow network.host`"),
        (build(Code::Unknown, "secret a: not found"), "--secret id=NAME"),
    ];
    for (error, want) in cases {
        let text = text(&error);
        assert!(text.contains("\nhint: ") && text.contains(want), "{text}");
    }
    let said = "secret a: not found; give it with --secret id=a,src=FILE";
    for plain in ["something else", said, "failed to read dockerfile: git stderr:"] {
        assert_eq!(text(&build(Code::Unknown, plain)), format!("error: {plain}\n"));
    }
}

#[test]
fn system_errors_have_words_and_no_numbers() {
    let read = crate::error::readable;
    assert_eq!(
        read("a: No such file (os error 2); b: Denied (os error 13)\n"),
        "a: No such file; b: Denied\n"
    );
    for text in ["no (os error x)", "(os error 2)", "ends (os error 2"] {
        assert_eq!(read(text), text);
    }
    assert_eq!(read("a\x1b[31m\tb"), "a[31m\tb");
}

#[test]
fn a_canceled_build_is_not_a_failed_one() {
    assert!(matches!(CliError::from(BuildError::canceled()), CliError::Canceled));
    assert_eq!(text(&CliError::Canceled), "error: canceled\n");
}

#[test]
fn image_ids() {
    let mut response = BTreeMap::new();
    assert_eq!(metadata::image_id(&response), "");
    response.insert("containerimage.digest".to_owned(), "sha256:m".to_owned());
    assert_eq!(metadata::image_id(&response), "sha256:m");
    response.insert("containerimage.config.digest".to_owned(), "sha256:c".to_owned());
    assert_eq!(metadata::image_id(&response), "sha256:c");
}

#[test]
fn metadata_decodes_objects_only() {
    // {"a":1}, [1], {}
    let values = [
        ("object", "eyJhIjoxfQ=="),
        ("list", "WzFd"),
        ("empty", "e30="),
        ("text", "sha256:x"),
        ("result.json", r#"{"b":2}"#),
    ];
    let response = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(
        serde_json::Value::Object(metadata::to_json(&response)),
        json!({"object": {"a": 1}, "list": "WzFd", "empty": "e30=", "text": "sha256:x", "result.json": {"b": 2}})
    );
}

#[test]
fn result_files_are_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("id");
    metadata::write(&path, b"one", "writing").unwrap();
    metadata::write(&path, b"two", "writing").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let error =
        metadata::write(&dir.path().join("no/id"), b"", "writing the image id to").unwrap_err().to_string();
    assert!(error.starts_with("writing the image id to ") && error.contains("No such file"), "{error}");
    metadata::write(std::path::Path::new("/dev/null"), b"x", "writing").unwrap();
}
