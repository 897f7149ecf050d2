//! One build: session, solve and status in parallel.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{Definition, Op};
use kiln_progress::Update;
use kiln_proto::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, StatusRequest};
use kiln_proto::extra::SolveRequestExtra;
use kiln_session::SessionHeaders;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::error::build_error;
use crate::providers::Providers;
use crate::request::{BuildRequest, CacheEntry, Work};
use crate::subrequest::Question;
use crate::{Client, convert, new_id, newer};

/// Silence after which a build that is over is taken to have said everything.
const QUIET: Duration = Duration::from_secs(5);
/// Time for the daemon to say itself why a build failed whose session broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The outcome of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// Name of the build, for its history.
    pub reference: String,
    /// What the exporters say, such as `containerimage.digest`.
    pub exporter_response: BTreeMap<String, String>,
    /// What the frontend answers, such as `result.txt`, to a request with the option `requestid`.
    pub answer: BTreeMap<String, Vec<u8>>,
}

impl Client {
    /// Builds. Progress goes to `updates` until the build is over; it does not matter whether anybody listens.
    /// What the request needs of this machine (directories, secrets, agents, targets) is checked first. Dropping
    /// the future cancels the build.
    pub async fn solve(
        &self,
        request: BuildRequest,
        updates: mpsc::Sender<Update>,
    ) -> Result<SolveResponse, BuildError> {
        check(&request)?;
        let providers = Providers::start(&request).await?;
        let server = providers.server();
        let session = new_id();
        let headers: SessionHeaders = server.headers(&session, &request.shared_key);
        let mut wire = wire_request(&request, session);
        let reference = wire.r#ref.clone();
        let question = Question::take(&mut wire);

        let mut session = AbortOnDropHandle::new(tokio::spawn(server.run(self.control(), headers)));
        let over = std::sync::Arc::new(Notify::new());
        let status = self.clone().follow(reference.clone(), updates, over.clone());
        let status = AbortOnDropHandle::new(tokio::spawn(status));
        let newer =
            SolveRequestExtra { proxy_network: request.proxy_network, ..SolveRequestExtra::default() };
        let frontend = OnceLock::new();
        let solve = async {
            let solve = newer::solve(self.channel(), wire, newer);
            let Some(question) = question else { return solve.await.map_err(build_error) };
            let mut solve = std::pin::pin!(solve);
            tokio::select! {
                answer = &mut solve => answer.map_err(build_error),
                asked = question.ask(self, &frontend) => {
                    let answer = solve.await.map_err(build_error)?;
                    asked.map(|()| answer)
                }
            }
        };
        let mut solve = std::pin::pin!(solve);
        let answer = tokio::select! {
            biased;
            answer = &mut solve => answer,
            end = &mut session => match tokio::time::timeout(LAST_WORDS, &mut solve).await {
                Ok(answer) => answer,
                Err(_) => Err(session_lost(end)),
            },
        };
        session.abort();
        over.notify_one();
        // Only progress: what goes wrong here is not worth failing a build that is done.
        let _ = status.await;
        let answer = answer.map_err(|e| e.context("failed to solve"))?.into_inner();
        let exporter_response = answer.exporter_response.into_iter().collect();
        providers.finish(&exporter_response)?;
        drop(providers);
        Ok(SolveResponse {
            reference,
            exporter_response,
            answer: frontend.get().cloned().unwrap_or_default(),
        })
    }

    /// Passes progress on until its end, or until it is quiet after the build is over.
    async fn follow(
        self: Client,
        reference: String,
        updates: mpsc::Sender<Update>,
        over: std::sync::Arc<Notify>,
    ) {
        let request = StatusRequest { r#ref: reference };
        let mut stream = match self.control().status(request).await {
            Ok(stream) => stream.into_inner(),
            Err(e) => {
                tracing::warn!(error = e.message(), "no progress from the daemon");
                return;
            }
        };
        let mut is_over = false;
        loop {
            let quiet = async {
                match is_over {
                    true => tokio::time::sleep(QUIET).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                message = stream.message() => match message {
                    // A display that was closed is no reason to stop reading: the daemon would wait for us.
                    Ok(Some(status)) => drop(updates.send(convert::update(status)).await),
                    Ok(None) => return,
                    Err(e) => {
                        tracing::debug!(error = e.message(), "progress ended early");
                        return;
                    }
                },
                () = over.notified(), if !is_over => is_over = true,
                () = quiet => return,
            }
        }
    }
}

type SessionEnd = Result<Result<(), kiln_session::SessionError>, tokio::task::JoinError>;

fn session_lost(end: SessionEnd) -> BuildError {
    let reason = match end {
        Ok(Ok(())) => "the daemon closed the session".to_string(),
        Ok(Err(e)) => e.to_string(),
        Err(e) => e.to_string(),
    };
    BuildError::new(Code::Unavailable, format!("session lost: {reason}"))
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(Code::InvalidArgument, message)
}

/// What can be seen to fail before anything is sent.
fn check(request: &BuildRequest) -> Result<(), BuildError> {
    if let Work::Definition(definition) = &request.work {
        check_local_dirs(definition, request)?;
    }
    let entries = request
        .cache_imports
        .iter()
        .map(|e| (e, "import"))
        .chain(request.cache_exports.iter().map(|e| (e, "export")));
    for (entry, direction) in entries {
        check_cache(entry, direction)?;
    }
    Ok(())
}

fn check_local_dirs(definition: &Definition, request: &BuildRequest) -> Result<(), BuildError> {
    for vertex in definition.vertices() {
        if let Op::Source(source) = &vertex.op
            && let Some(name) = source.identifier.strip_prefix("local://")
            && !request.local_dirs.contains_key(name)
        {
            return Err(invalid(format!("local directory {name} not enabled")));
        }
    }
    Ok(())
}

fn check_cache(entry: &CacheEntry, direction: &str) -> Result<(), BuildError> {
    match entry.kind.as_str() {
        "registry" if !entry.attrs.contains_key("ref") => {
            Err(invalid(format!("registry cache {direction}er requires ref")))
        }
        "local" if !entry.attrs.contains_key(local_key(direction)) => {
            Err(invalid(format!("local cache {direction}er requires {}", local_key(direction))))
        }
        "local" => Err(BuildError::new(
            Code::Unimplemented,
            format!(
                "cache {direction} type=local is not supported: this client does not serve its directories to the daemon"
            ),
        )),
        _ => Ok(()),
    }
}

fn local_key(direction: &str) -> &'static str {
    if direction == "import" { "src" } else { "dest" }
}

fn wire_request(request: &BuildRequest, session: String) -> SolveRequest {
    let map = |m: &BTreeMap<String, String>| -> HashMap<_, _> { m.clone().into_iter().collect() };
    let exporters: Vec<Exporter> =
        request.exports.iter().map(|e| Exporter { r#type: e.kind.clone(), attrs: map(&e.attrs) }).collect();
    // Daemons that know one exporter only look here.
    let first = exporters.first().cloned().unwrap_or_default();
    let mut wire = SolveRequest {
        r#ref: if request.reference.is_empty() { new_id() } else { request.reference.clone() },
        session,
        exporter_deprecated: first.r#type,
        exporter_attrs_deprecated: first.attrs,
        exporters,
        cache: Some(CacheOptions {
            exports: cache_entries(&request.cache_exports),
            imports: cache_entries(&request.cache_imports),
            ..Default::default()
        }),
        entitlements: request.entitlements.clone(),
        internal: request.internal,
        source_policy: request.source_policy.as_ref().map(|p| p.wire().clone()),
        ..Default::default()
    };
    match &request.work {
        Work::Definition(definition) => wire.definition = Some(definition.to_wire()),
        Work::Frontend { name, attrs, inputs } => {
            wire.frontend.clone_from(name);
            wire.frontend_attrs = map(attrs);
            wire.frontend_inputs = inputs.iter().map(|(k, d)| (k.clone(), d.to_wire())).collect();
            if !request.cache_imports.is_empty() {
                let imports = frontend_imports(&request.cache_imports);
                wire.frontend_attrs.insert("cache-imports".to_string(), imports);
            }
        }
    }
    wire
}

fn cache_entries(entries: &[CacheEntry]) -> Vec<CacheOptionsEntry> {
    let entry = |e: &CacheEntry| CacheOptionsEntry {
        r#type: e.kind.clone(),
        attrs: e.attrs.clone().into_iter().collect(),
    };
    entries.iter().map(entry).collect()
}

/// Frontends solve with the same cache; they get it as JSON in an option.
fn frontend_imports(entries: &[CacheEntry]) -> String {
    #[derive(Serialize)]
    struct Entry<'a> {
        #[serde(rename = "Type", skip_serializing_if = "str::is_empty")]
        kind: &'a str,
        #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
        attrs: &'a BTreeMap<String, String>,
    }
    let list: Vec<_> = entries.iter().map(|e| Entry { kind: &e.kind, attrs: &e.attrs }).collect();
    // Maps of strings always have a JSON form.
    serde_json::to_string(&list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Export, Output};

    fn frontend() -> BuildRequest {
        let attrs = [("filename".to_string(), "Dockerfile".to_string())].into();
        BuildRequest::new(Work::Frontend { name: "dockerfile.v0".into(), attrs, inputs: BTreeMap::new() })
    }

    fn registry(reference: &str) -> CacheEntry {
        CacheEntry { kind: "registry".into(), attrs: [("ref".to_string(), reference.to_string())].into() }
    }

    #[test]
    fn the_wire_request_says_exports_twice_and_hands_imports_to_the_frontend() {
        let export = |kind: &str| Export {
            kind: kind.into(),
            attrs: [("a".into(), kind.into())].into(),
            output: Output::None,
        };
        let mut request = frontend();
        request.exports = vec![export("image"), export("local")];
        request.cache_imports = vec![registry("r/a:b")];
        let wire = wire_request(&request, "s1".into());
        assert_eq!((wire.session.as_str(), wire.r#ref.len()), ("s1", 25));
        assert_eq!(
            (wire.exporter_deprecated.as_str(), wire.exporter_attrs_deprecated["a"].as_str()),
            ("image", "image")
        );
        assert_eq!(wire.exporters.len(), 2);
        assert_eq!(wire.frontend_attrs["cache-imports"], r#"[{"Type":"registry","Attrs":{"ref":"r/a:b"}}]"#);
        assert_eq!(wire.frontend_attrs["filename"], "Dockerfile");
        request.reference = "mine".into();
        assert_eq!(wire_request(&request, String::new()).r#ref, "mine");
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        let mut request = frontend();
        request.cache_exports = vec![CacheEntry { kind: "registry".into(), attrs: BTreeMap::new() }];
        assert_eq!(check(&request).unwrap_err().message, "registry cache exporter requires ref");
        request.cache_exports = vec![];
        request.cache_imports = vec![CacheEntry { kind: "local".into(), attrs: BTreeMap::new() }];
        assert_eq!(check(&request).unwrap_err().message, "local cache importer requires src");
        request.cache_imports[0].attrs.insert("src".into(), "dir".into());
        assert_eq!(check(&request).unwrap_err().code, Code::Unimplemented);
    }
}
