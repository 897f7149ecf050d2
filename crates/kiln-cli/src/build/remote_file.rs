//! `--file URL`: a Dockerfile that the daemon fetches before the build.

use super::plan::{LocalDir, Plan};
use crate::error::CliError;
use kiln_client::{BuildRequest, Export, Output, Work};
use kiln_llb::builder::{Constraints, GraphBuilder, HttpSpec, MarshalOptions};
use kiln_llb::mask_credentials;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// A Dockerfile larger than this is none.
const MAX_SIZE: u64 = 512 << 10;

/// A fetched Dockerfile; its directory is removed when dropped.
pub struct RemoteFile {
    url: String,
    dir: TempDir,
}

impl RemoteFile {
    /// Takes the address out of a plan, whose `dockerfile` becomes the directory of the file to be fetched.
    ///
    /// # Errors
    /// There can be no temporary directory.
    pub fn of(plan: &mut Plan) -> Result<Option<Self>, CliError> {
        let Some(url) = plan.dockerfile_url.take() else { return Ok(None) };
        let dir = tempfile::Builder::new()
            .prefix("kiln-build-")
            .tempdir()
            .map_err(CliError::file("temporary directory", std::env::temp_dir()))?;
        plan.locals.push(LocalDir { name: "dockerfile".into(), path: dir.path().to_owned() });
        Ok(Some(Self { url, dir }))
    }

    /// The build that leaves the file in the directory.
    ///
    /// # Errors
    /// The address makes no graph.
    pub fn request(&self) -> Result<BuildRequest, CliError> {
        let mut graph = GraphBuilder::new();
        let spec = HttpSpec { url: self.url.clone(), filename: "Dockerfile".into(), ..HttpSpec::default() };
        let source = graph.http(&spec, Constraints::default().named(format!("[internal] load {}", self.url)));
        let definition = graph
            .marshal(Some(source), &MarshalOptions::default())
            .map_err(|e| CliError::Usage(format!("--file {}: {e}", mask_credentials(&self.url))))?;
        let output = Output::Dir { path: self.dir.path().to_owned(), delete: false };
        Ok(BuildRequest {
            exports: vec![Export { kind: "local".into(), attrs: BTreeMap::new(), output }],
            internal: true,
            ..BuildRequest::new(Work::Definition(Box::new(definition)))
        })
    }

    /// Refuses what cannot be a Dockerfile.
    ///
    /// # Errors
    /// The file is too large, or was not fetched.
    pub fn check(&self) -> Result<(), CliError> {
        check_size(&self.dir.path().join("Dockerfile"), &self.url)
    }
}

fn check_size(path: &Path, url: &str) -> Result<(), CliError> {
    let size = std::fs::metadata(path).map_err(CliError::file("reading the fetched Dockerfile", path))?.len();
    if size > MAX_SIZE {
        let url = mask_credentials(url);
        let text = format!("--file {url}: {size} bytes are no Dockerfile (the limit is {MAX_SIZE})");
        return Err(CliError::Usage(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::plan;

    #[test]
    fn an_address_becomes_a_directory() {
        assert!(RemoteFile::of(&mut plan(&["."]).unwrap()).unwrap().is_none());
        let mut plan = plan(&["-f", "https://u:canary@h.example/D", "."]).unwrap();
        assert_eq!(
            (plan.attrs["filename"].as_str(), plan.attrs["dockerfilekey"].as_str()),
            ("Dockerfile", "dockerfile")
        );
        assert_eq!(plan.locals.len(), 1, "the context");
        let file = RemoteFile::of(&mut plan).unwrap().unwrap();
        assert_eq!(
            (plan.locals[1].name.as_str(), plan.locals[1].path.as_path()),
            ("dockerfile", file.dir.path())
        );
        let request = file.request().unwrap();
        assert!(request.internal);
        let Work::Definition(definition) = &request.work else { panic!("{request:?}") };
        assert!(definition.vertices()[0].name().starts_with("[internal] load https://"));
        assert!(!definition.vertices()[0].name().contains("canary"));
        assert!(file.check().is_err(), "nothing was fetched");
        let path = file.dir.path().join("Dockerfile");
        std::fs::write(&path, "FROM scratch").unwrap();
        assert!(file.check().is_ok());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
        assert!(file.check().unwrap_err().to_string().contains("are no Dockerfile"));
    }
}
