//! The gateway of one build: what a frontend image or a client that drives its build itself may ask.
//!
//! Ids of results are made here, are random, and mean nothing to any other bridge. Everything ends with the build.

mod failed;
mod look;
mod meta;

pub use meta::{GitMeta, HttpMeta, ImageMeta, SourceMeta, SourceMetaRequest};

use crate::build::{Build, LazyRef};
use crate::container::Containers;
use crate::frontends::{self, FrontendRequest};
use crate::outcome::{Outcome, ResultRefs};
use crate::{Engine, Entitlement};
use failed::Kept;
use futures::FutureExt;
use kiln_frontend::{CacheImport, ResolveOpt, ResolvedImage};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{Definition, SourceOp};
use kiln_policy::Policies;
use kiln_worker::Ref;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One caller's gateway to its build. Clones are the same.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    build: Arc<Build>,
    inputs: BTreeMap<String, Definition>,
    refs: Mutex<HashMap<String, LazyRef>>,
    kept: Kept,
    returned: watch::Sender<Option<Returned>>,
    containers: Containers,
    closed: CancellationToken,
}

type Returned = Result<Outcome<LazyRef>, BuildError>;

/// More results than any build asks for.
const MAX_REFS: usize = 100_000;

/// What is to be solved.
#[derive(Clone, Debug)]
pub enum BridgeInput {
    /// Nothing: an empty result.
    Nothing,
    /// A graph.
    Definition {
        /// The graph.
        graph: Definition,
        /// Source policies beside those of the build.
        policies: Policies,
    },
    /// What a frontend makes.
    Frontend(FrontendRequest),
}

/// A result that the caller may ask about.
#[derive(Clone, Debug)]
pub struct BridgeRef {
    /// Its name at this bridge.
    pub id: String,
    /// The graph that it is of.
    pub definition: Definition,
}

impl Bridge {
    pub(crate) fn new(build: &Arc<Build>, inputs: BTreeMap<String, Definition>) -> Self {
        Self(Arc::new(Inner {
            build: build.clone(),
            inputs,
            refs: Mutex::default(),
            kept: Kept::default(),
            returned: watch::Sender::new(None),
            containers: Containers::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// The engine that the build runs in.
    pub fn engine(&self) -> &Engine {
        &self.0.build.engine
    }

    /// The build's id, as its client chose it.
    pub fn build_id(&self) -> &str {
        &self.0.build.id
    }

    /// The client's session.
    pub fn session(&self) -> &str {
        &self.0.build.session
    }

    /// What the build may do beyond the usual.
    pub fn granted(&self) -> &[Entitlement] {
        &self.0.build.rights.granted
    }

    /// Fires when the build has ended: nothing can be asked any more.
    pub fn closed(&self) -> &CancellationToken {
        &self.0.closed
    }

    pub(crate) fn build(&self) -> &Arc<Build> {
        &self.0.build
    }

    pub(crate) fn containers(&self) -> &Containers {
        &self.0.containers
    }

    /// Named graphs that the caller was given.
    pub fn inputs(&self) -> &BTreeMap<String, Definition> {
        &self.0.inputs
    }

    /// Forgets all results and ends all calls.
    pub(crate) fn close(&self) {
        self.0.closed.cancel();
        self.refs().clear();
        self.0.kept.clear();
        self.0.containers.close();
    }

    fn refs(&self) -> MutexGuard<'_, HashMap<String, LazyRef>> {
        self.0.refs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` unless, or until, the build has ended.
    pub(crate) async fn open<T>(
        &self,
        call: impl Future<Output = Result<T, BuildError>>,
    ) -> Result<T, BuildError> {
        let ended =
            || BuildError::new(Code::NotFound, format!("no such job {}: it has ended", self.build_id()));
        self.0.closed.run_until_cancelled(call).await.unwrap_or_else(|| Err(ended()))
    }

    /// Solves a graph or asks a frontend. Results are built when they are needed; with `evaluate` at once.
    ///
    /// # Errors
    /// If the graph may not be built, the frontend fails, or with `evaluate` a step.
    pub async fn solve(&self, input: BridgeInput, evaluate: bool) -> Result<Outcome<BridgeRef>, BuildError> {
        let solved = async {
            let outcome = match input {
                BridgeInput::Nothing => Outcome::default(),
                BridgeInput::Definition { graph, policies } => {
                    let refs = ResultRefs::One(self.0.build.add(graph, &policies).await?);
                    Outcome { refs, metadata: BTreeMap::new() }
                }
                BridgeInput::Frontend(request) => frontends::run(&self.0.build, request).await?,
            };
            if evaluate {
                let all = outcome.refs.iter().map(|lazy| self.evaluated(lazy));
                futures::future::try_join_all(all).await?;
            }
            let Outcome { refs, metadata } = outcome;
            Ok(Outcome { refs: refs.try_map(|lazy| self.register(lazy))?, metadata })
        };
        self.open(solved.boxed()).await
    }

    fn register(&self, lazy: LazyRef) -> Result<BridgeRef, BuildError> {
        let definition = lazy.asked().clone();
        let id = format!("{:032x}", rand::random::<u128>());
        let mut refs = self.refs();
        if refs.len() >= MAX_REFS {
            let message = format!("a build may not have more than {MAX_REFS} results");
            return Err(BuildError::new(Code::ResourceExhausted, message));
        }
        refs.insert(id.clone(), lazy);
        Ok(BridgeRef { id, definition })
    }

    /// Names for the parts of a result, under which they can be asked about.
    pub(crate) fn ids(&self, refs: &ResultRefs<LazyRef>) -> Result<Vec<String>, BuildError> {
        refs.iter().map(|lazy| self.register(lazy.clone()).map(|r| r.id)).collect()
    }

    fn lazy(&self, id: &str) -> Result<LazyRef, BuildError> {
        let found = self.refs().get(id).cloned();
        found.ok_or_else(|| BuildError::new(Code::NotFound, format!("no such ref: {}", shown(id))))
    }

    async fn evaluated(&self, lazy: &LazyRef) -> Result<Ref, BuildError> {
        let built = self.0.build.get(lazy).await;
        let worker = self.0.build.engine.worker_id();
        built.map_err(|failure| self.0.kept.register(failure, lazy.definition(), worker))
    }

    /// The result of that id, built: one that `solve` returned, or one named in the details of an error.
    ///
    /// # Errors
    /// If there is none, or it cannot be built.
    pub async fn result(&self, id: &str) -> Result<Ref, BuildError> {
        self.open(async {
            match self.0.kept.get(id) {
                Some(kept) => Ok(kept),
                None => self.evaluated(&self.lazy(id)?).await,
            }
        })
        .await
    }

    /// Builds a result.
    ///
    /// # Errors
    /// Of the step that failed; its details name what is left of it.
    pub async fn evaluate(&self, id: &str) -> Result<(), BuildError> {
        self.result(id).await.map(drop)
    }

    /// Finds an image and its config.
    ///
    /// # Errors
    /// If it does not exist or may not be read.
    pub async fn resolve_image(
        &self,
        reference: &str,
        opt: ResolveOpt,
        policies: &Policies,
    ) -> Result<ResolvedImage, BuildError> {
        self.open(self.0.build.resolve_image(reference, opt, policies).boxed()).await?.image(reference)
    }

    /// Finds out what a source stands for now. The answer is about the returned source: policies may put one for
    /// another.
    ///
    /// # Errors
    /// If it cannot be found, or is of a kind that has no such facts.
    pub async fn resolve_source(
        &self,
        request: SourceMetaRequest,
    ) -> Result<(SourceOp, SourceMeta), BuildError> {
        self.open(self.0.build.resolve_source(request).boxed()).await
    }

    /// Shows a warning to those who follow the build.
    ///
    /// # Errors
    /// If there have been too many.
    pub fn warn(&self, warning: kiln_progress::Warning) -> Result<(), BuildError> {
        self.0.build.warn(warning)
    }

    /// Says that a place with exported cache is not used.
    pub fn skip_cache_import(&self, import: &CacheImport) {
        self.0.build.skip_import(import);
    }

    /// Ends the caller's part of the build with a result or an error. Ids are those of `solve`; an empty one is scratch.
    ///
    /// # Errors
    /// If there was one already, or an id is not known here.
    pub fn return_result(&self, result: Result<Outcome<String>, BuildError>) -> Result<(), BuildError> {
        let returned = match result {
            Ok(Outcome { refs, metadata }) => {
                let lazy = |id: String| if id.is_empty() { Ok(None) } else { self.lazy(&id).map(Some) };
                Ok(Outcome { refs: refs.try_map(lazy)?.flatten(), metadata })
            }
            Err(error) => Err(error),
        };
        let set = self.0.returned.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(returned);
            }
            first
        });
        if set { Ok(()) } else { Err(BuildError::msg("gateway result is already set")) }
    }

    /// Waits for the result.
    pub(crate) async fn returned(&self) -> Returned {
        let mut returned = self.0.returned.subscribe();
        let incomplete = || BuildError::msg("no result for incomplete build");
        match returned.wait_for(Option::is_some).await {
            Ok(slot) => slot.clone().unwrap_or_else(|| Err(incomplete())),
            Err(_) => Err(incomplete()),
        }
    }
}

/// An id of a caller, short enough for a message.
pub(crate) fn shown(id: &str) -> String {
    let mut text: String = id.chars().take(64).collect();
    if text.len() < id.len() {
        text.push_str("...");
    }
    text
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bridge({})", self.build_id())
    }
}
