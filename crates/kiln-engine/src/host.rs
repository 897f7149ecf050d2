//! What the built-in frontend asks of the build it runs in.

use crate::bridge::{SourceMeta, SourceMetaRequest};
use crate::build::{Build, LazyRef};
use crate::files::{self, FileRange};
use crate::hub::Synthetic;
use crate::outcome::Outcome;
use crate::{FrontendRequest, frontends};
use async_trait::async_trait;
use futures::FutureExt;
use kiln_frontend::{
    CacheImport, FrontendResult, Host, OciStore, RefId, ResolveOpt, Resolved, ResolvedImage, SolveOpt,
    Warning,
};
use kiln_fs::Root;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::op::attr;
use kiln_llb::{Definition, ResolveMode, SourceOp};
use kiln_oci::Platform;
use kiln_policy::Policies;
use kiln_progress::{LineRange, SourceFile};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One frontend's view of its build.
pub(crate) struct BuildHost<'a> {
    build: &'a Arc<Build>,
    refs: Mutex<Vec<LazyRef>>,
}

impl<'a> BuildHost<'a> {
    pub(crate) fn new(build: &'a Arc<Build>) -> Self {
        Self { build, refs: Mutex::default() }
    }

    /// What the frontend was told to call `id`.
    pub(crate) fn lazy(&self, id: &RefId) -> Result<LazyRef, BuildError> {
        let refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = id.0.parse::<usize>().ok().and_then(|i| refs.get(i));
        found.cloned().ok_or_else(|| BuildError::new(Code::NotFound, format!("no such ref: {}", id.0)))
    }

    fn keep(&self, lazy: LazyRef) -> RefId {
        let mut refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        refs.push(lazy);
        RefId((refs.len() - 1).to_string())
    }

    /// Builds a ref and runs `look` on its files.
    async fn look<T: Send + 'static>(
        &self,
        id: &RefId,
        look: impl FnOnce(&Root) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        let lazy = self.lazy(id)?;
        let built = self.build.get(&lazy).await.map_err(|f| f.error)?;
        self.build.look(built, lazy.definition().root().map(|root| root.digest), look).await
    }
}

#[async_trait]
impl Host for BuildHost<'_> {
    async fn resolve_image(&self, reference: &str, opt: ResolveOpt) -> Result<Resolved, BuildError> {
        self.build.resolve_image(reference, opt, &Policies::default()).await
    }

    async fn solve(&self, def: Definition, opt: SolveOpt) -> Result<RefId, BuildError> {
        for import in &opt.cache_imports {
            self.build.skip_import(import);
        }
        let lazy = self.build.add(def, &Policies::default()).await?;
        let empty = || BuildError::new(Code::InvalidArgument, "a definition without a root cannot be solved");
        Ok(self.keep(lazy.ok_or_else(empty)?))
    }

    async fn forward(
        &self,
        opts: BTreeMap<String, String>,
        inputs: BTreeMap<String, Definition>,
    ) -> Result<FrontendResult, BuildError> {
        let request = FrontendRequest { name: frontends::GATEWAY.to_string(), opts, inputs };
        let Outcome { refs, metadata } = frontends::run(self.build, request).boxed().await?;
        let refs = refs.into_pairs().into_iter().map(|(key, lazy)| (key, lazy.map(|lazy| self.keep(lazy))));
        Ok(FrontendResult { refs: refs.collect(), metadata })
    }

    async fn read_file(&self, r: &RefId, path: &str, limit: Option<u64>) -> Result<Vec<u8>, BuildError> {
        let range = limit.map(|length| FileRange { offset: 0, length });
        let path = path.to_string();
        self.look(r, move |root| files::read(root, &path, range)).await
    }

    async fn source_time(&self, source: &SourceOp, log_name: &str) -> Result<Option<i64>, BuildError> {
        if !matches!(source.split(), Some(("git" | "http" | "https", _))) {
            return Ok(None);
        }
        let request = SourceMetaRequest {
            source: source.clone(),
            platform: None,
            log_name: log_name.to_string(),
            mode: ResolveMode::Default,
            no_config: true,
            git_objects: true,
            checksum: None,
            policies: Policies::default(),
        };
        Ok(match self.build.resolve_source(request).await?.1 {
            SourceMeta::Git(git) => git.objects.and_then(|o| committer_time(&o.commit)),
            SourceMeta::Http(http) => http.last_modified,
            SourceMeta::Image(_) | SourceMeta::Nothing => None,
        })
    }

    async fn archive_time(&self, r: &RefId, path: &str) -> Result<Option<i64>, BuildError> {
        let path = path.to_string();
        self.look(r, move |root| files::archive_time(root, &path)).await
    }

    async fn warn(&self, w: Warning) {
        self.build.hub.warning(kiln_progress::Warning {
            vertex: w.vertex,
            level: w.level,
            short: w.short.into_bytes(),
            detail: w.detail.into_iter().map(String::into_bytes).collect(),
            url: w.url,
            source: w.info.map(|i| SourceFile { filename: i.filename, data: i.data, language: i.language }),
            ranges: w.ranges.iter().map(|r| LineRange { start: r.start.line, end: r.end.line }).collect(),
        });
    }

    fn build_platforms(&self) -> &[Platform] {
        self.build.engine.platforms()
    }

    fn session_id(&self) -> &str {
        &self.build.session
    }
}

/// The time in the `committer` line of a commit object, in seconds since 1970.
fn committer_time(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let line = text.lines().take_while(|l| !l.is_empty()).find_map(|l| l.strip_prefix("committer "))?;
    line.rsplit_once('>')?.1.split_whitespace().next()?.parse().ok()
}

/// The image as a source, so that policies can say something about it.
fn image_source(reference: &str, opt: &ResolveOpt) -> SourceOp {
    let mut attrs = BTreeMap::new();
    let scheme = match &opt.oci_layout {
        None => "docker-image",
        Some(store) => {
            let said = [(attr::OCI_SESSION, &store.session_id), (attr::OCI_STORE, &store.store_id)];
            let said = said.into_iter().filter(|(_, value)| !value.is_empty());
            attrs.extend(said.map(|(key, value)| (key.to_string(), value.clone())));
            "oci-layout"
        }
    };
    SourceOp { identifier: format!("{scheme}://{reference}"), attrs }
}

/// The store that a source is in.
pub(crate) fn layout_of(source: &SourceOp) -> OciStore {
    let value = |key: &str| source.attrs.get(key).cloned().unwrap_or_default();
    OciStore { session_id: value(attr::OCI_SESSION), store_id: value(attr::OCI_STORE) }
}

impl Build {
    /// Finds an image, or what source policies put in its place.
    pub(crate) async fn resolve_image(
        &self,
        reference: &str,
        mut opt: ResolveOpt,
        policies: &Policies,
    ) -> Result<Resolved, BuildError> {
        let mut source = image_source(reference, &opt);
        self.police_source(&mut source, opt.platform.clone(), policies).boxed().await?;
        match source.split() {
            Some((scheme @ ("docker-image" | "oci-layout"), reference)) => {
                opt.oci_layout = (scheme == "oci-layout").then(|| layout_of(&source));
                self.find_image(reference, opt).await.map(Resolved::Image)
            }
            _ => Ok(Resolved::Elsewhere(source.identifier)),
        }
    }

    /// Finds an image, shown as a step of its own.
    pub(crate) async fn find_image(
        &self,
        reference: &str,
        opt: ResolveOpt,
    ) -> Result<ResolvedImage, BuildError> {
        let name = if opt.log_name.is_empty() {
            format!("resolve image config for docker-image://{reference}")
        } else {
            opt.log_name.clone()
        };
        let shown = Synthetic::start(&self.hub, &name);
        let resolved = self.engine.resolve_image(reference, &opt, &self.session).await;
        shown.finish(resolved.as_ref().err().map(ToString::to_string).as_deref());
        resolved
    }

    /// Says, once each, that a place with exported cache is not used.
    pub(crate) fn skip_import(&self, import: &CacheImport) {
        let place = match import.attrs.get("ref").filter(|_| import.kind == "registry") {
            Some(reference) => reference,
            None => &import.kind,
        };
        let place: String = place.chars().take(256).collect();
        let name = format!("importing cache manifest from {place}");
        if self.skipped_imports.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            let error = "cache imports are not built yet, the build goes on without it";
            Synthetic::start(&self.hub, &name).finish(Some(error));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_commit_has_the_time_of_its_committer() {
        let commit =
            b"tree 1\nauthor A <a@b> 5 +0100\ncommitter C <c@d> 1234567 +0000\n\ncommitter x <y> 9 +0000\n";
        assert_eq!(super::committer_time(commit), Some(1_234_567));
        assert_eq!(super::committer_time(b"tree 1\n\ncommitter x <y> 9 +0000\n"), None);
        assert_eq!(super::committer_time(b"committer x 9"), None);
    }
}
