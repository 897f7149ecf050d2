//! Local directories, read by the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_fs::Root;
use kiln_llb::errdefs::BuildError;
use kiln_session::fsutil::{DirTree, Filter, send};
use kiln_session::{DirectoryRequest, FileSync, RawStream};
use tonic::Status;

use super::invalid;
use crate::LocalDir;

/// The directories of one request.
pub(super) struct Dirs(BTreeMap<String, Dir>);

struct Dir {
    root: Arc<Root>,
    exclude: Filter,
}

impl Dirs {
    /// Opens them; from now on they are known by handle.
    pub(super) fn open(dirs: &BTreeMap<String, LocalDir>) -> Result<Self, BuildError> {
        let open = |(name, dir): (&String, &LocalDir)| {
            let failed =
                |e: String| invalid(format!("local directory {name} at {}: {e}", dir.path.display()));
            let root = std::fs::File::open(&dir.path).map_err(|e| failed(e.to_string()))?;
            if !root.metadata().is_ok_and(|m| m.is_dir()) {
                return Err(failed("not a directory".to_string()));
            }
            let exclude = Filter::excluding(&dir.exclude).map_err(|e| failed(e.to_string()))?;
            Ok((name.clone(), Dir { root: Arc::new(Root::from_fd(root.into())), exclude }))
        };
        Ok(Self(dirs.iter().map(open).collect::<Result<_, _>>()?))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[async_trait]
impl FileSync for Dirs {
    async fn diff_copy(&self, request: DirectoryRequest, stream: RawStream) -> Result<(), Status> {
        let Some(dir) = self.0.get(&request.name) else {
            return Err(Status::not_found(format!("no access allowed to dir {:?}", request.name)));
        };
        let root = dir.root.clone();
        // Following links reads the disk.
        let filter = tokio::task::spawn_blocking(move || Filter::new(&root, &request)).await;
        let filter = filter.map_err(|e| Status::internal(e.to_string()))??;
        let tree =
            DirTree::new(dir.root.clone()).filtered(dir.exclude.clone()).filtered(filter).owned_by_root();
        send(stream, Arc::new(tree)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let dir =
            |path: &str| [("context".to_string(), LocalDir { path: path.into(), exclude: vec![] })].into();
        let error = Dirs::open(&dir("/nonexistent")).err().unwrap().message;
        assert!(error.starts_with("local directory context at /nonexistent: "), "{error}");
        let error = Dirs::open(&dir("/proc/self/stat")).err().unwrap().message;
        assert!(error.ends_with("not a directory"), "{error}");
    }
}
