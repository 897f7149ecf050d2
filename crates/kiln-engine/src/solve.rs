//! A build, from request to response.

use crate::bridge::Bridge;
use crate::build::{Build, LazyRef};
use crate::builds::Running;
use crate::entitle::Rights;
use crate::export::Exports;
use crate::observer::HubObserver;
use crate::outcome::{Outcome, ResultRefs};
use crate::record::{self, Record};
use crate::verify;
use crate::{Engine, SolveInput, SolveRequest, SolveResponse, entitle, frontends};
use futures::FutureExt;
use futures::future::BoxFuture;
use kiln_export::{ExportInput, Exporter};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_policy::Policies;
use kiln_solver::JobId;
use kiln_worker::Ref;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::Semaphore;

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
        if self.0.draining.is_cancelled() {
            return Err(BuildError::new(Code::Unavailable, "the daemon is shutting down: no new builds"));
        }
        let exporters = parse_exporters(&request)?;
        let granted = entitle::granted(&request.entitlements, &self.0.allowed)?;
        let proxied = request.proxy_network || self.0.proxy_network;
        let rights = Rights { granted, devices: self.0.devices.clone(), proxied };
        let record = Record::begin(self, &request, &running.hub);
        let said = OnceLock::new();
        let work = self.run(&request, &exporters, rights, &running, &said).boxed();
        let stopping = || Err(BuildError::new(Code::Unavailable, "the daemon is stopping"));
        let done = self.0.closing.clone().run_until_cancelled_owned(work).await.unwrap_or_else(stopping);
        // What ran for this build alone is canceled, and its followers are told before they are told no more.
        self.0.solver.caught_up().await;
        drop(running);
        record.end(&done, said.into_inner()).await;
        // What the client is told is done is done also after a crash.
        self.0.journal.flush().await;
        self.want_gc();
        done
    }

    async fn run(
        &self,
        request: &SolveRequest,
        exporters: &[Exporter],
        rights: Rights,
        running: &Running,
        said: &OnceLock<BTreeMap<String, String>>,
    ) -> Result<SolveResponse, BuildError> {
        let observer = HubObserver::new(running.hub.clone(), self.0.log_limits);
        let build = Arc::new(Build {
            engine: self.clone(),
            id: request.id.clone(),
            session: request.session.clone(),
            hub: running.hub.clone(),
            sources: request.sources.clone(),
            rights,
            job: self.0.solver.job(JobId::new(request.id.as_str()), observer.clone()),
            skipped_imports: Mutex::default(),
            graph_bytes: AtomicUsize::new(0),
            warning_bytes: AtomicUsize::new(0),
            frontends: Semaphore::new(frontends::MAX_AT_ONCE),
        });
        running.works(&build);
        let outcome = outcome(&build, &request.input, running).boxed().await?;
        let _ = said.set(record::said(&outcome.metadata));
        let built = build_all(&build, &outcome.refs).boxed().await?;
        let more = self.chosen_by_session(request, &outcome.refs, &outcome.metadata).boxed().await?;
        let exporters: Vec<Exporter> = exporters.iter().cloned().chain(more).collect();
        let refs = built.into_iter().map(|(platform, r)| (platform, r.0)).collect();
        let input = ExportInput { refs, metadata: outcome.metadata };
        verify::show(&build.hub, verify::platforms(&input, asked_platforms(request))?);
        let Exports { mut response, images } =
            self.export(&build.hub, &build.session, &exporters, &input).boxed().await?;
        response.extend(frontend_answers(input.metadata));
        self.tell_session(request, &response).await?;
        tracing::debug!(id = request.id, steps = ?observer.steps(), "built");
        Ok(SolveResponse { exporter_response: response, images, fetched: running.take_fetched() })
    }
}

async fn outcome(
    build: &Arc<Build>,
    input: &SolveInput,
    running: &Running,
) -> Result<Outcome<LazyRef>, BuildError> {
    match input {
        SolveInput::Definition(definition) => {
            let refs = ResultRefs::One(build.add(definition.clone(), &Policies::default()).await?);
            Ok(Outcome { refs, metadata: BTreeMap::new() })
        }
        SolveInput::Frontend(request) => frontends::run(build, request.clone()).await,
        SolveInput::Client { inputs } => {
            let bridge = Bridge::new(build, inputs.clone());
            running.driven_by(&bridge);
            bridge.returned().await
        }
    }
}

/// The `platform` option of the build.
fn asked_platforms(request: &SolveRequest) -> Option<&str> {
    let opts = match &request.input {
        SolveInput::Frontend(frontend) => &frontend.opts,
        SolveInput::Definition(_) | SolveInput::Client { .. } => &request.attrs,
    };
    opts.get("platform").map(String::as_str)
}

/// What a frontend wants its caller to know.
fn frontend_answers(metadata: BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (String, String)> {
    let answers = metadata.into_iter().filter(|(key, _)| key.starts_with("frontend."));
    answers.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()))
}

fn parse_exporters(request: &SolveRequest) -> Result<Vec<Exporter>, BuildError> {
    let parse = |spec: &crate::ExporterSpec| Exporter::parse(&spec.kind, &spec.attrs);
    let parsed: Result<Vec<_>, _> = request.exporters.iter().map(parse).collect();
    parsed.map_err(|e| BuildError::msg(e.to_string()))
}

/// All refs at the same time; they share what they have in common.
async fn build_all(
    build: &Build,
    refs: &ResultRefs<LazyRef>,
) -> Result<Vec<(Option<String>, Ref)>, BuildError> {
    let one = |(platform, lazy): (Option<String>, Option<LazyRef>)| async move {
        match lazy {
            Some(lazy) => Ok((platform, build.get(&lazy).await.map_err(|failure| failure.error)?)),
            None => Ok((platform, Ref::default())),
        }
    };
    futures::future::try_join_all(refs.clone().into_pairs().into_iter().map(|pair| one(pair).boxed())).await
}
