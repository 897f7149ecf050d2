//! A build, from request to response.

use crate::builds::Running;
use crate::host::BuildHost;
use crate::observer::HubObserver;
use crate::refs::Refs;
use crate::{Engine, SolveInput, SolveRequest, SolveResponse, entitle};
use futures::FutureExt;
use futures::future::BoxFuture;
use kiln_export::{ExportInput, Exporter};
use kiln_frontend::FrontendResult;
use kiln_llb::errdefs::{BuildError, Code, Detail};
use kiln_solver::JobId;
use kiln_worker::Ref;
use std::collections::BTreeMap;

/// What a frontend or a graph came to, before it is built.
struct Outcome {
    refs: Vec<(Option<String>, Option<kiln_frontend::RefId>)>,
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Engine {
    /// Builds, exports, and answers when all is done. Dropping the future cancels what only this build needs.
    ///
    /// # Errors
    /// With the vertex, and the place in the source it came from, in the details.
    pub fn solve(&self, request: SolveRequest) -> BoxFuture<'static, Result<SolveResponse, BuildError>> {
        let engine = self.clone();
        async move { engine.solve_all(request).await }.boxed()
    }

    async fn solve_all(&self, request: SolveRequest) -> Result<SolveResponse, BuildError> {
        // First of all, so that whoever follows a build that is refused sees its end.
        let begun = self.0.builds.begin(&request.id, &request.session);
        let running = begun.map_err(|e| BuildError::new(Code::AlreadyExists, e.to_string()))?;
        let exporters = parse_exporters(&request)?;
        let granted = entitle::granted(&request.entitlements, &self.0.allowed)?;
        let work = self.run(&request, &exporters, granted, &running).boxed();
        let stopping = || Err(BuildError::new(Code::Unavailable, "the daemon is stopping"));
        let done = self.0.closing.clone().run_until_cancelled_owned(work).await.unwrap_or_else(stopping);
        drop(running);
        // What the client is told is done is done also after a crash.
        self.0.journal.flush().await;
        self.want_gc();
        done
    }

    async fn run(
        &self,
        request: &SolveRequest,
        exporters: &[Exporter],
        granted: Vec<crate::Entitlement>,
        running: &Running,
    ) -> Result<SolveResponse, BuildError> {
        let observer = HubObserver::new(running.hub.clone(), self.0.log_limits);
        let job = self.0.solver.job(JobId::new(request.id.as_str()), observer.clone());
        let hub = running.hub.clone();
        let snapshots = self.0.snapshots.clone();
        let check = move |definition: &kiln_llb::Definition| {
            entitle::check(definition, &granted)?;
            forget_cache_mounts(&snapshots, definition)?;
            let groups = definition.vertices().iter().filter_map(|v| {
                let group = v.metadata.progress_group.as_ref()?;
                let group = kiln_progress::ProgressGroup {
                    id: group.id.clone(),
                    name: group.name.clone(),
                    weak: group.weak,
                };
                Some((v.digest, group))
            });
            hub.set_groups(groups);
            Ok(())
        };
        let refs = Refs::new(job, Box::new(check));
        let outcome = self.outcome(request, running, &refs).boxed().await?;
        let built = build_all(&refs, &outcome).boxed().await?;
        let refs = built.into_iter().map(|(platform, r)| (platform, r.0)).collect();
        let input = ExportInput { refs, metadata: outcome.metadata };
        let response = self.export(&running.hub, &request.session, exporters, &input).boxed().await?;
        tracing::debug!(id = request.id, steps = ?observer.steps(), "built");
        Ok(SolveResponse { exporter_response: response })
    }

    async fn outcome(
        &self,
        request: &SolveRequest,
        running: &Running,
        refs: &Refs,
    ) -> Result<Outcome, BuildError> {
        match &request.input {
            SolveInput::Definition(definition) => {
                let id = definition.root().map(|_| refs.add(definition.clone())).transpose()?;
                Ok(Outcome { refs: vec![(None, id)], metadata: BTreeMap::new() })
            }
            SolveInput::Frontend { name, opts, inputs } => {
                if name != "dockerfile.v0" {
                    let message = match name.as_str() {
                        "gateway.v0" => {
                            "frontends that are images (gateway.v0) are not built yet".to_string()
                        }
                        other => format!("frontend {other} not found"),
                    };
                    return Err(BuildError::new(Code::Unimplemented, message));
                }
                let host = BuildHost {
                    engine: self,
                    hub: &running.hub,
                    refs,
                    session: &request.session,
                    platforms: self.0.platforms.clone(),
                };
                let built = kiln_frontend::build(&host, opts, inputs.clone()).await;
                let FrontendResult { refs, metadata } = built.map_err(|e| from_frontend(e, name))?;
                Ok(Outcome { refs, metadata })
            }
        }
    }
}

fn parse_exporters(request: &SolveRequest) -> Result<Vec<Exporter>, BuildError> {
    let parse = |spec: &crate::ExporterSpec| Exporter::parse(&spec.kind, &spec.attrs);
    let parsed: Result<Vec<_>, _> = request.exporters.iter().map(parse).collect();
    parsed.map_err(|e| BuildError::new(Code::InvalidArgument, e.to_string()))
}

/// All refs at the same time; they share what they have in common.
async fn build_all(refs: &Refs, outcome: &Outcome) -> Result<Vec<(Option<String>, Ref)>, BuildError> {
    let builds =
        outcome.refs.iter().map(|(platform, id)| build_one(refs, platform.clone(), id.clone()).boxed());
    futures::future::try_join_all(builds).await
}

async fn build_one(
    refs: &Refs,
    platform: Option<String>,
    id: Option<kiln_frontend::RefId>,
) -> Result<(Option<String>, Ref), BuildError> {
    match id {
        Some(id) => Ok((platform, refs.get(&id).await?)),
        None => Ok((platform, Ref::default())),
    }
}

/// Steps without cache start with new cache mounts (spec llb-and-solver.md section 7).
fn forget_cache_mounts(
    snapshots: &kiln_snapshot::Snapshots,
    definition: &kiln_llb::Definition,
) -> Result<(), BuildError> {
    let mut ids = Vec::new();
    for vertex in definition.vertices().iter().filter(|v| v.metadata.ignore_cache) {
        let kiln_llb::Op::Exec(exec) = &vertex.op else { continue };
        for mount in &exec.mounts {
            if let kiln_llb::MountKind::Cache { id, .. } = &mount.kind {
                ids.push(if id.is_empty() { mount.dest.as_str() } else { id.as_str() });
            }
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    snapshots.drop_cache_mounts(&ids).map_err(|e| BuildError::msg(e.to_string()))
}

fn from_frontend(error: BuildError, name: &str) -> BuildError {
    error.wrap(Detail::Frontend { name: name.to_string(), source: String::new() })
}
