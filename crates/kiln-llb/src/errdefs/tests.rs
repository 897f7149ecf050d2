use super::*;
use crate::Position;

fn line(n: i32) -> Range {
    Range { start: Position { line: n, character: 0 }, end: Position { line: n, character: 0 } }
}

fn info(text: &str) -> SourceInfo {
    SourceInfo {
        filename: "Dockerfile".into(),
        data: text.into(),
        definition: None,
        language: "Dockerfile".into(),
    }
}

#[test]
fn payloads_are_those_of_go() {
    let json = |d: &Detail| {
        let (url, value) = encode_detail(d);
        (url.replace("github.com/moby/buildkit/", ""), String::from_utf8(value).unwrap())
    };
    let digest = Digest::sha256("");
    assert_eq!(
        json(&Detail::Vertex(digest)),
        ("errdefs.Vertex+json".into(), format!("{{\"digest\":\"{digest}\"}}"))
    );
    assert_eq!(
        json(&Detail::Source { info: Some(info("x")), ranges: vec![line(3)] }).1,
        r#"{"info":{"filename":"Dockerfile","data":"eA==","language":"Dockerfile"},"ranges":[{"start":{"line":3},"end":{"line":3}}]}"#
    );
    assert_eq!(json(&Detail::ExitCode(2)), ("gatewayapi.ExitMessage+json".into(), r#"{"Code":2}"#.into()));
    assert_eq!(json(&Detail::Subrequest("x".into())).1, r#"{"name":"x"}"#);
    let solve = Detail::Solve {
        input_ids: vec!["a".into()],
        mount_ids: vec![],
        op: None,
        subject: Some(SolveSubject::File(1)),
        description: Default::default(),
    };
    assert_eq!(json(&solve).1, r#"{"inputIDs":["a"],"file":{"index":"1"}}"#);
}

#[test]
fn details_round_trip() {
    let details = vec![
        Detail::Vertex(Digest::sha256("v")),
        Detail::Source { info: Some(info("a\nb")), ranges: vec![line(1), line(2)] },
        Detail::Frontend { name: "dockerfile.v0".into(), source: String::new() },
        Detail::FrontendCap("moby.x".into()),
        Detail::ExitCode(0),
        Detail::CompatibilityFeature { version: 20, feature: "f".into() },
        Detail::Unknown { type_url: "t".into(), value: vec![1, 2] },
        Detail::Solve {
            input_ids: vec![],
            mount_ids: vec!["m".into()],
            op: Some(Box::new(serde_json::json!({"exec": {}}))),
            subject: Some(SolveSubject::Cache(0)),
            description: [("k".to_string(), "v".to_string())].into(),
        },
    ];
    let e = BuildError { code: Code::NotFound, message: "m".into(), details };
    assert_eq!(BuildError::from_wire(5, "m".into(), e.encode_details()), e);
}

#[test]
fn a_broken_payload_is_kept_as_it_came() {
    let url = "github.com/moby/buildkit/errdefs.Vertex+json";
    let d = decode_detail(url, b"{\"digest\":\"nonsense\"}");
    assert!(matches!(d, Detail::Unknown { type_url, .. } if type_url == url));
}

#[test]
fn excerpts_mark_the_lines() {
    let file = info("FROM scratch\nRUN a\nRUN b\nRUN c\n");
    let want = "Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> RUN a\n   3 |     RUN b\n   4 |     RUN c\n--------------------\n";
    assert_eq!(excerpt(&file, &[line(2)]).unwrap(), want);
    assert_eq!(excerpt(&file, &[line(9)]), None);
    assert_eq!(excerpt(&file, &[]), None);
}

#[test]
fn codes_have_the_numbers_of_grpc() {
    for n in 1..=16 {
        assert_eq!(Code::from_number(n).number(), n);
    }
    assert_eq!(Code::from_number(0), Code::Unknown);
    assert_eq!(Code::from_number(i32::MIN + 1), Code::Unknown);
}

#[test]
fn a_denial_says_why() {
    let detail = Detail::PolicyDenied(vec!["no".into()]);
    let (url, value) = encode_detail(&detail);
    assert!(url.ends_with("policysession.DecisionResponse+json"), "{url}");
    assert_eq!(String::from_utf8_lossy(&value), r#"{"action":"DENY","denyMessages":[{"message":"no"}]}"#);
    assert_eq!(decode_detail(&url, &value), detail);
}
