//! What a build asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_llb::Definition;
use tokio::io::AsyncWrite;

use crate::{DockerConfig, SecretSource, SourcePolicy, SshSource, Upload};

/// What is to be built.
#[derive(Clone, Debug)]
pub enum Work {
    /// A ready graph.
    Definition(Box<Definition>),
    /// Whatever a frontend makes of its options.
    Frontend {
        /// `dockerfile.v0` or `gateway.v0`.
        name: String,
        /// Its options, such as `filename` and `build-arg:X`.
        attrs: BTreeMap<String, String>,
        /// Graphs that it may use by name.
        inputs: BTreeMap<String, Definition>,
    },
}

/// A directory that the daemon may read under a name such as `context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDir {
    /// Where it is.
    pub path: PathBuf,
    /// What never leaves it, in ignore file syntax, whatever the daemon asks for.
    pub exclude: Vec<String>,
}

/// Where an export goes on this machine.
#[derive(Clone, Debug)]
pub enum Output {
    /// Nowhere: the daemon keeps or pushes it.
    None,
    /// Files into a directory, for `local`.
    Dir {
        /// Where; made if it is missing.
        path: PathBuf,
        /// Remove what is not in the result.
        delete: bool,
    },
    /// An archive into a file, which appears when it is complete; for `tar`, `oci` and `docker`.
    File(PathBuf),
    /// An archive to standard output.
    Stdout,
    /// An archive to somebody else, such as `docker load`.
    Writer(OutputWriter),
}

/// A writer that can be taken once.
#[derive(Clone)]
pub struct OutputWriter(Arc<Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>>);

impl OutputWriter {
    /// For one archive. It is shut down at the end of a complete one, and dropped without that otherwise.
    pub fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(writer)))))
    }

    pub(crate) fn take(&self) -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for OutputWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OutputWriter")
    }
}

/// One export.
#[derive(Clone, Debug)]
pub struct Export {
    /// `image`, `local`, `tar`, `oci`, `docker`.
    pub kind: String,
    /// Its options.
    pub attrs: BTreeMap<String, String>,
    /// Where it goes here.
    pub output: Output,
}

/// One place to take cache from or put it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `inline`, ...
    pub kind: String,
    /// Its options.
    pub attrs: BTreeMap<String, String>,
}

/// A build, and what the daemon may ask of us for it.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Name of the build; a new one if empty.
    pub reference: String,
    /// What to build.
    pub work: Work,
    /// Where the result goes; none keeps it in the cache only.
    pub exports: Vec<Export>,
    /// Directories by name.
    pub local_dirs: BTreeMap<String, LocalDir>,
    /// Image layouts that sources may name, by store id.
    pub layouts: BTreeMap<String, PathBuf>,
    /// Identifies the directories for incremental transfers; not a secret.
    pub shared_key: String,
    /// Secrets that steps may use.
    pub secrets: Vec<SecretSource>,
    /// Ssh agents that steps may use.
    pub ssh: Vec<SshSource>,
    /// Credentials of registries; none shares nothing.
    pub credentials: Option<DockerConfig>,
    /// What is served at `http://buildkit-session/<id>`.
    pub uploads: Vec<Upload>,
    /// Where cache comes from.
    pub cache_imports: Vec<CacheEntry>,
    /// Where cache goes.
    pub cache_exports: Vec<CacheEntry>,
    /// `network.host`, `security.insecure`, `device=..`.
    pub entitlements: Vec<String>,
    /// Its steps have no other network than one whose only way out is a proxy of the daemon, which notes what they fetch.
    pub proxy_network: bool,
    /// Not recorded in the history.
    pub internal: bool,
    /// What sources may be used, and what is used instead of them.
    pub source_policy: Option<SourcePolicy>,
}

impl BuildRequest {
    /// A build that may ask for nothing and exports nothing.
    pub fn new(work: Work) -> Self {
        Self {
            reference: String::new(),
            work,
            exports: Vec::new(),
            local_dirs: BTreeMap::new(),
            layouts: BTreeMap::new(),
            shared_key: String::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            credentials: None,
            uploads: Vec::new(),
            cache_imports: Vec::new(),
            cache_exports: Vec::new(),
            entitlements: Vec::new(),
            proxy_network: false,
            internal: false,
            source_policy: None,
        }
    }
}
