//! Behaviour that the reference cases do not show.

use super::host::MemoryHost;
use crate::FrontendResult;
use kiln_llb::builder::{Constraints, GraphBuilder, LocalSpec, MarshalOptions};
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{Definition, Op};
use std::collections::BTreeMap;

async fn build(host: &MemoryHost, opts: &[(&str, &str)]) -> Result<FrontendResult, BuildError> {
    let opts = opts.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    crate::build(host, &opts, BTreeMap::new()).await
}

fn names(def: &Definition) -> Vec<String> {
    def.vertices().iter().map(|v| v.name().to_string()).collect()
}

#[tokio::test]
async fn the_own_syntax_is_served_without_a_lookup() {
    let host = MemoryHost::new("# syntax=docker/dockerfile:1.7\nFROM scratch\nCOPY a /\n");
    assert!(build(&host, &[]).await.is_ok());
    assert!(host.lookups.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_dockerfile_is_named() {
    let mut host = MemoryHost::new("");
    host.files.clear();
    let e = build(&host, &[("filename", "sub/x")]).await.unwrap_err();
    assert_eq!(e.message, "failed to read dockerfile: open sub/x: no such file or directory");
    host.files.insert("sub/dockerfile".into(), b"FROM scratch\n".to_vec());
    assert!(build(&host, &[("filename", "sub/Dockerfile")]).await.is_ok());
}

#[tokio::test]
async fn errors_carry_the_file_and_the_lines() {
    let host = MemoryHost::new("FROM scratch\nCOPY --chmod=9 a \\\n  b\n");
    let e = build(&host, &[]).await.unwrap_err();
    let (info, ranges) = e.sources().next().unwrap();
    assert_eq!((info.filename.as_str(), info.language.as_str()), ("Dockerfile", "Dockerfile"));
    assert_eq!(ranges.iter().map(|r| r.start.line).collect::<Vec<_>>(), [2, 3]);
    assert!(info.definition.is_some());
}

#[tokio::test]
async fn scratch_has_no_result() {
    let r = build(&MemoryHost::new("FROM scratch\nENV a=b\n"), &[]).await.unwrap();
    assert_eq!(r.refs, [(None, None)]);
}

#[tokio::test]
async fn several_platforms_have_a_result_each() {
    let host = MemoryHost::new("FROM alpine\nRUN x\n");
    let r = build(&host, &[("platform", "linux/arm/v7,linux/amd64")]).await.unwrap();
    let ids: Vec<_> = r.refs.iter().map(|(id, r)| (id.as_deref().unwrap(), r.is_some())).collect();
    assert_eq!(ids, [("linux/arm/v7", true), ("linux/amd64", true)]);
    let keys: Vec<_> = r.metadata.keys().map(String::as_str).collect();
    assert!(
        keys.contains(&"containerimage.config/linux/arm/v7") && keys.contains(&"refs.platforms"),
        "{keys:?}"
    );
}

#[tokio::test]
async fn an_input_can_be_the_context_or_stand_for_a_stage() {
    let mut g = GraphBuilder::new();
    let out = g.local(
        &LocalSpec { name: "other".into(), session_id: "s".into(), ..Default::default() },
        Constraints::default().named("input"),
    );
    let def = g.marshal(Some(out), &MarshalOptions::default()).unwrap();
    let host = MemoryHost::new("FROM dep AS d\nFROM scratch\nCOPY x /\nCOPY --from=d / /d\n");
    let inputs = [("context".to_string(), def.clone()), ("dep".to_string(), def.clone())].into();
    let config = r#"{"containerimage.config":"eyJjb25maWciOnt9fQ=="}"#;
    let opts = [("context:d", "input:dep"), ("input-metadata:dep", config)];
    let opts = opts.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    crate::build(&host, &opts, inputs).await.unwrap();
    let solved = host.solved.lock().unwrap();
    let last = solved.last().unwrap();
    assert_eq!(names(last), ["input", "[stage-1 1/2] COPY x /", "[stage-1 2/2] COPY --from=d / /d"]);
    assert!(last.vertex(&def.root().unwrap().digest).is_some());
}

#[tokio::test]
async fn an_image_is_looked_up_once() {
    let host = MemoryHost::new(
        "FROM alpine AS a\nFROM alpine AS b\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n",
    );
    build(&host, &[]).await.unwrap();
    assert_eq!(host.lookups.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn resource_limits_go_with_the_steps() {
    let host = MemoryHost::new("FROM alpine\nRUN x\n");
    build(&host, &[("memory", "5000000"), ("cpusetcpus", "0-1")]).await.unwrap();
    let solved = host.solved.lock().unwrap();
    let run = solved.last().unwrap().vertices().last().unwrap().clone();
    assert!(matches!(run.op, Op::Exec(_)));
    assert_eq!(run.metadata.linux_resources.as_ref().unwrap().memory, 5_000_000);
}

#[tokio::test]
async fn variables_cannot_fill_the_memory() {
    let mut text = "FROM scratch\nENV A=0123456789abcdef\n".to_string();
    for _ in 0..18 {
        text.push_str("ENV A=$A$A\n");
    }
    for i in 0..12 {
        text.push_str(&format!("ENV B{i}=$A\n"));
    }
    let e = build(&MemoryHost::new(&text), &[]).await.unwrap_err();
    assert!(e.message.contains("larger than"), "{e}");
}

#[tokio::test]
async fn warnings_name_the_vertex_of_the_dockerfile() {
    let host = MemoryHost::new("FROM scratch\nMAINTAINER me\n");
    build(&host, &[]).await.unwrap();
    let warnings = host.warnings.lock().unwrap();
    assert_eq!(warnings[0].vertex, host.solved.lock().unwrap()[0].root().unwrap().digest);
    assert!(
        warnings[0].short.starts_with("MaintainerDeprecated: ") && warnings[0].short.ends_with(" (line 2)")
    );
}

#[tokio::test]
async fn questions_are_answered_without_a_build() {
    let text = "# base stage\nFROM alpine AS base\nRUN x\n# app does it\nFROM base AS app\nMAINTAINER x\n";
    let host = MemoryHost::new(text);
    let r = build(&host, &[("requestid", "frontend.targets")]).await.unwrap();
    assert!(r.refs.is_empty());
    assert_eq!(
        String::from_utf8_lossy(&r.metadata["result.txt"]),
        "TARGET        DESCRIPTION\nbase          stage\napp (default) does it\n"
    );
    let r = build(&host, &[("requestid", "frontend.lint")]).await.unwrap();
    assert_eq!(r.metadata["result.statuscode"], b"1");
    assert!(
        String::from_utf8_lossy(&r.metadata["result.json"])
            .contains("\"ruleName\": \"MaintainerDeprecated\"")
    );
    assert!(build(&host, &[("requestid", "frontend.subrequests.describe")]).await.is_ok());
    let e = build(&host, &[("requestid", "frontend.nope")]).await.unwrap_err();
    assert_eq!(
        (e.message.as_str(), &e.details[..]),
        ("unsupported request frontend.nope", &[Detail::Subrequest("frontend.nope".into())][..])
    );
}

#[tokio::test]
async fn a_cap_that_another_frontend_may_have_is_refused_late() {
    let host = MemoryHost::new("FROM scratch\n");
    let e = build(&host, &[("frontend.caps", "some.cap+forward")]).await.unwrap_err();
    assert_eq!(e.details, [Detail::FrontendCap("some.cap".into())]);
    assert_eq!(host.solved.lock().unwrap().len(), 1);
    let host = MemoryHost::new("FROM scratch\n");
    assert!(build(&host, &[("frontend.caps", "some.cap")]).await.is_err());
    assert!(host.solved.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_trigger_that_names_its_own_image_ends() {
    let mut host = MemoryHost::new("FROM self\nRUN x\n");
    let config = r#"{"architecture":"amd64","os":"linux","config":{"OnBuild":["COPY --from=self /a /b"]},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;
    host.images.insert("docker.io/library/self:latest".into(), config.into());
    build(&host, &[]).await.unwrap();
    let solved = host.solved.lock().unwrap();
    let shown = names(solved.last().unwrap());
    assert_eq!(shown[1..], ["[2/3] ONBUILD COPY --from=self /a /b", "[3/3] RUN x"]);
}

#[tokio::test]
async fn another_frontend_builds_what_asks_for_it() {
    let host = MemoryHost::new("# syntax=example/other:1 with words\nFROM scratch\n");
    let result = build(&host, &[("target", "x")]).await.unwrap();
    assert_eq!(result.refs, [(None, None)]);
    let want = [("cmdline", "example/other:1 with words"), ("source", "example/other:1"), ("target", "x")];
    let forwarded = host.forwarded.lock().unwrap()[0].clone();
    assert_eq!(forwarded, want.map(|(k, v)| (k.to_string(), v.to_string())).into());

    for (file, opts) in [
        ("# syntax=docker/dockerfile:1\nFROM scratch\n", vec![]),
        ("# syntax=other\nFROM scratch\n", vec![("cmdline", "other")]),
        ("# syntax=other\nFROM scratch\n", vec![("build-arg:BUILDKIT_SYNTAX", "dockerfile.v0")]),
    ] {
        let host = MemoryHost::new(file);
        build(&host, &opts).await.unwrap();
        assert!(host.forwarded.lock().unwrap().is_empty(), "{file}");
    }
}

#[tokio::test]
async fn an_error_of_another_frontend_says_who_asked_for_it() {
    let e = build(&MemoryHost::new("# syntax=broken\n"), &[]).await.unwrap_err();
    assert_eq!((e.message.as_str(), e.sources().count()), ("it broke", 1));
    assert_eq!(e.sources().next().unwrap().1[0].start.line, 1);
    let asked = [("build-arg:BUILDKIT_SYNTAX", "broken x")];
    let e = build(&MemoryHost::new("FROM scratch\n"), &asked).await.unwrap_err();
    assert_eq!(e.message, "failed with build-arg:BUILDKIT_SYNTAX = broken x: it broke");
}

#[tokio::test]
async fn a_time_comes_from_the_source_or_from_the_files_in_it() {
    let opts = [("context", "https://example.com/c.tar"), ("build-arg:SOURCE_DATE_EPOCH", "context")];
    for (times, want) in [((Some(5), Some(7)), Some("5")), ((None, Some(7)), Some("7")), ((None, None), None)]
    {
        let mut host = MemoryHost::new("");
        host.times = times;
        host.files.insert("context".into(), b"FROM scratch\n".to_vec());
        let result = build(&host, &opts).await.unwrap();
        let epoch = result.metadata.get("source.date.epoch").map(|v| String::from_utf8_lossy(v).into_owned());
        assert_eq!(epoch.as_deref(), want);
    }
}

#[tokio::test]
async fn an_input_without_content_is_no_dockerfile() {
    let inputs = BTreeMap::from([("dockerfile".to_string(), Definition::default())]);
    let e = crate::build(&MemoryHost::new("FROM scratch\n"), &BTreeMap::new(), inputs).await.unwrap_err();
    assert_eq!(e.message, "failed to resolve dockerfile: invalid nil input definition to definition op");
}
