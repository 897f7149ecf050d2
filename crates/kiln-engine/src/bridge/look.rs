//! Looking at the files of a result.

use super::Bridge;
use crate::files::{self, FileRange};
use kiln_fs::Root;
use kiln_llb::errdefs::BuildError;
use kiln_session::fsutil::Stat;

impl Bridge {
    /// Runs `look` on the files of a result.
    async fn look<T: Send + 'static>(
        &self,
        id: &str,
        look: impl FnOnce(&Root) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        let built = self.result(id).await?;
        let vertex = self.refs().get(id).and_then(|lazy| lazy.definition().root()).map(|root| root.digest);
        self.open(self.0.build.look(built, vertex, look)).await
    }

    /// Reads a file, or a part of it.
    ///
    /// # Errors
    /// If it does not exist, is no regular file, or is too large for one answer.
    pub async fn read_file(
        &self,
        id: &str,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Vec<u8>, BuildError> {
        let path = path.to_string();
        self.look(id, move |root| files::read(root, &path, range)).await
    }

    /// Lists a directory; with a pattern only what matches it.
    ///
    /// # Errors
    /// If it is none.
    pub async fn read_dir(&self, id: &str, path: &str, include: &str) -> Result<Vec<Stat>, BuildError> {
        let (path, include) = (path.to_string(), include.to_string());
        self.look(id, move |root| files::list(root, &path, &include)).await
    }

    /// Describes a file.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn stat(&self, id: &str, path: &str) -> Result<Stat, BuildError> {
        let path = path.to_string();
        self.look(id, move |root| files::stat(root, &path)).await
    }
}
