//! What the built-in frontend asks of the build it runs in.

use crate::Engine;
use crate::hub::{Hub, Synthetic};
use crate::refs::Refs;
use async_trait::async_trait;
use kiln_frontend::{Host, RefId, ResolveOpt, ResolvedImage, SolveOpt, Warning};
use kiln_fs::Root;
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_oci::Platform;
use kiln_progress::{LineRange, SourceFile};
use std::io::Read;

/// Largest file that a frontend may read without saying how much.
const READ_LIMIT: u64 = 16 << 20;

/// One frontend's view of its build.
pub(crate) struct BuildHost<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) hub: &'a Hub,
    pub(crate) refs: &'a Refs,
    pub(crate) session: &'a str,
    pub(crate) platforms: Vec<Platform>,
}

#[async_trait]
impl Host for BuildHost<'_> {
    async fn resolve_image(&self, reference: &str, opt: ResolveOpt) -> Result<ResolvedImage, BuildError> {
        let name = if opt.log_name.is_empty() {
            format!("resolve image config for docker-image://{reference}")
        } else {
            opt.log_name.clone()
        };
        let shown = Synthetic::start(self.hub, &name);
        let resolved = self.engine.resolve_image(reference, &opt, self.session).await;
        shown.finish(resolved.as_ref().err().map(ToString::to_string).as_deref());
        resolved
    }

    async fn solve(&self, def: Definition, opt: SolveOpt) -> Result<RefId, BuildError> {
        for import in &opt.cache_imports {
            self.refs.warn_import(&import.kind);
        }
        self.refs.add(def)
    }

    async fn read_file(&self, r: &RefId, path: &str, limit: Option<u64>) -> Result<Vec<u8>, BuildError> {
        let built = self.refs.get(r).await?;
        let Some(snapshot) = built.snapshot().cloned() else {
            return Err(BuildError::new(Code::NotFound, format!("open {path}: no such file or directory")));
        };
        let (snapshots, path) = (self.engine.snapshots().clone(), path.to_string());
        let work = move || {
            let mounted = snapshots.mount_view(&snapshot).map_err(|e| BuildError::msg(e.to_string()))?;
            read(mounted.root(), &path, limit)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| BuildError::msg(e.to_string()))?
    }

    async fn warn(&self, w: Warning) {
        self.hub.warning(kiln_progress::Warning {
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
        &self.platforms
    }

    fn session_id(&self) -> &str {
        self.session
    }
}

/// The whole file, or its first `limit` bytes.
fn read(root: &Root, path: &str, limit: Option<u64>) -> Result<Vec<u8>, BuildError> {
    let failed = |e: kiln_fs::Error| match e.is_not_found() {
        true => BuildError::new(Code::NotFound, format!("open {path}: no such file or directory")),
        false => BuildError::msg(e.to_string()),
    };
    let Some(limit) = limit else { return root.read(path, READ_LIMIT).map_err(failed) };
    let mut out = Vec::new();
    let file = root.open_file(path).map_err(failed)?;
    file.take(limit).read_to_end(&mut out).map_err(|e| BuildError::msg(format!("read {path}: {e}")))?;
    Ok(out)
}
