//! A host that answers from memory and keeps what it was given.

use crate::{FrontendResult, Host, RefId, ResolveOpt, Resolved, ResolvedImage, SolveOpt, Warning};
use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{Definition, SourceOp};
use kiln_oci::Platform;
use std::collections::BTreeMap;
use std::sync::Mutex;

pub(super) const BASE_CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin:/bin","BASE=1"],"Cmd":["sh"],"WorkingDir":"/base","Labels":{"from":"base"}},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created":"2024-01-02T03:04:05Z","created_by":"base"}],"created":"2024-01-02T03:04:05Z"}"#;

/// Every image exists with [`BASE_CONFIG`] unless `images` says otherwise; an empty config is a missing image.
pub(super) struct MemoryHost {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) images: BTreeMap<String, String>,
    platforms: Vec<Platform>,
    pub(super) solved: Mutex<Vec<Definition>>,
    pub(super) warnings: Mutex<Vec<Warning>>,
    pub(super) lookups: Mutex<Vec<String>>,
    /// Options of builds that went to another frontend.
    pub(super) forwarded: Mutex<Vec<BTreeMap<String, String>>>,
    /// What sources and archives say about their time.
    pub(super) times: (Option<i64>, Option<i64>),
}

impl MemoryHost {
    pub(super) fn new(dockerfile: &str) -> Self {
        MemoryHost {
            files: [("Dockerfile".to_string(), dockerfile.as_bytes().to_vec())].into(),
            images: BTreeMap::new(),
            platforms: vec![Platform::new("linux", "amd64"), Platform::new("linux", "386")],
            solved: Mutex::default(),
            warnings: Mutex::default(),
            lookups: Mutex::default(),
            forwarded: Mutex::default(),
            times: (None, None),
        }
    }
}

#[async_trait]
impl Host for MemoryHost {
    async fn resolve_image(&self, reference: &str, opt: ResolveOpt) -> Result<Resolved, BuildError> {
        self.lookups.lock().unwrap().push(format!("{reference} {}", opt.log_name));
        let config = self.images.get(reference).map_or(BASE_CONFIG, String::as_str);
        if config.is_empty() {
            return Err(BuildError::new(Code::NotFound, format!("{reference}: not found")));
        }
        let digest = Digest::sha256(reference);
        let config = config.as_bytes().to_vec();
        Ok(Resolved::Image(ResolvedImage { reference: reference.to_string(), digest, config }))
    }

    async fn solve(&self, def: Definition, _: SolveOpt) -> Result<RefId, BuildError> {
        let mut solved = self.solved.lock().unwrap();
        solved.push(def);
        Ok(RefId(format!("ref-{}", solved.len())))
    }

    async fn read_file(&self, _: &RefId, path: &str, limit: Option<u64>) -> Result<Vec<u8>, BuildError> {
        let mut data = self.files.get(path).cloned().ok_or_else(|| BuildError::new(Code::NotFound, path))?;
        data.truncate(limit.map_or(usize::MAX, |l| l as usize));
        Ok(data)
    }

    /// The frontend `broken` fails.
    async fn forward(
        &self,
        opts: BTreeMap<String, String>,
        _: BTreeMap<String, Definition>,
    ) -> Result<FrontendResult, BuildError> {
        let broken = opts["source"] == "broken";
        self.forwarded.lock().unwrap().push(opts);
        match broken {
            true => Err(BuildError::msg("it broke")),
            false => Ok(FrontendResult { refs: vec![(None, None)], ..Default::default() }),
        }
    }

    async fn source_time(&self, _: &SourceOp, _: &str) -> Result<Option<i64>, BuildError> {
        Ok(self.times.0)
    }

    async fn archive_time(&self, _: &RefId, _: &str) -> Result<Option<i64>, BuildError> {
        Ok(self.times.1)
    }

    async fn warn(&self, w: Warning) {
        self.warnings.lock().unwrap().push(w);
    }

    fn build_platforms(&self) -> &[Platform] {
        &self.platforms
    }

    fn session_id(&self) -> &str {
        "sess"
    }
}
