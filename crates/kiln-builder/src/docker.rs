//! Docker's configuration on this machine: which engine is meant (docker/cli, contexts and their store).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_digest::Digest;
use serde::Deserialize;

use crate::Error;

/// The context that stands for the environment and the usual socket.
pub const DEFAULT_CONTEXT: &str = "default";
/// Where an engine listens if nothing else is said.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Global flags of the Docker CLI. Empty = not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--host`
    pub host: Option<String>,
    /// `--tls`, `--tlsverify` or a certificate was given.
    pub tls: bool,
}

/// What the Docker CLI would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    dir: PathBuf,
    current: String,
    /// What the user named as host of the default context.
    host: Option<String>,
    tls: bool,
    proxies: BTreeMap<String, Proxy>,
}

/// An engine that a context names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the engine.
    pub host: String,
    /// The connection is encrypted.
    pub tls: bool,
    /// Flags with which the Docker CLI reaches the same engine.
    pub flags: Vec<String>,
}

impl Endpoint {
    /// The engine at an address that is named outside of any context.
    pub fn at(host: impl Into<String>) -> Self {
        let host = host.into();
        Self { flags: vec!["--host".into(), host.clone()], tls: false, host }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    current_context: String,
    proxies: BTreeMap<String, Proxy>,
}

#[derive(Clone, Debug, Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextFile {
    name: String,
    #[serde(default)]
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ContextEndpoint {
    host: String,
}

impl Docker {
    /// Reads configuration, environment and flags.
    ///
    /// # Errors
    /// Flags that exclude each other, a configuration that cannot be read.
    pub fn load(env: impl Fn(&str) -> Option<String>, flags: &Flags) -> Result<Self, Error> {
        let set = |name: &str| env(name).filter(|v| !v.is_empty());
        if flags.context.is_some() && flags.host.is_some() {
            return Err(Error::invalid("conflicting options: cannot specify both --host and --context"));
        }
        let home = || set("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from).join(".docker");
        let dir =
            flags.config.clone().or_else(|| set("DOCKER_CONFIG").map(PathBuf::from)).unwrap_or_else(home);
        let file = read_config(&dir)?;
        let host = flags.host.clone().or_else(|| set("DOCKER_HOST"));
        let current = match () {
            () if flags.context.is_some() => flags.context.clone(),
            // A host is said more directly than a context.
            () if host.is_some() => None,
            () => set("DOCKER_CONTEXT").or(Some(file.current_context)),
        };
        let current = current.filter(|c| !c.is_empty()).unwrap_or_else(|| DEFAULT_CONTEXT.into());
        let tls = flags.tls || set("DOCKER_TLS_VERIFY").is_some();
        let host = host.filter(|_| flags.context.is_none());
        Ok(Self { dir, current, host, tls, proxies: file.proxies })
    }

    /// Directory of the configuration.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of the current context.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// The user said which engine it is.
    pub fn is_host_named(&self) -> bool {
        self.host.is_some()
    }

    /// The engine of a context; None = there is no such context.
    ///
    /// # Errors
    /// A context that cannot be read, or is not for Docker.
    pub fn endpoint(&self, context: &str) -> Result<Option<Endpoint>, Error> {
        if context == DEFAULT_CONTEXT {
            let host = self.host.clone().unwrap_or_else(|| DEFAULT_HOST.into());
            let mut endpoint = Endpoint::at(host);
            endpoint.tls = self.tls;
            endpoint.flags.extend(self.tls.then(|| "--tlsverify".into()));
            return Ok(Some(endpoint));
        }
        let Some(file) = self.context_file(&self.meta(context))? else { return Ok(None) };
        if file.name != context {
            return Ok(None);
        }
        let endpoint = file.endpoints.get("docker");
        let endpoint = endpoint.ok_or_else(|| {
            Error::Invalid(format!("context {context:?} has no endpoint of a Docker Engine"))
        })?;
        let tls = self.dir.join("contexts/tls").join(id(context)).join("docker").is_dir();
        let dir = self.dir.display().to_string();
        let flags = ["--config", &dir, "--context", context].map(str::to_owned).to_vec();
        Ok(Some(Endpoint { host: endpoint.host.clone(), tls, flags }))
    }

    /// Names of all contexts in order, the default one too.
    ///
    /// # Errors
    /// A context cannot be read.
    pub fn contexts(&self) -> Result<Vec<String>, Error> {
        let mut names = vec![DEFAULT_CONTEXT.to_owned()];
        let dir = self.dir.join("contexts/meta");
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            names.extend(self.context_file(&entry.path().join("meta.json"))?.map(|f| f.name));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Endpoint of the current context, as builders are chosen by it.
    ///
    /// # Errors
    /// As [`Docker::endpoint`].
    pub fn current_key(&self) -> Result<String, Error> {
        if self.current != DEFAULT_CONTEXT {
            return Ok(self.current.clone());
        }
        Ok(self.endpoint(DEFAULT_CONTEXT)?.map(|e| e.host).unwrap_or_default())
    }

    /// Proxy variables for build steps, from the configuration.
    pub fn proxy_args(&self) -> Vec<(&'static str, String)> {
        let host = self.endpoint(&self.current).ok().flatten().map(|e| e.host).unwrap_or_default();
        let Some(p) = self.proxies.get(&host).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        let all = [
            ("HTTP_PROXY", &p.http_proxy),
            ("HTTPS_PROXY", &p.https_proxy),
            ("NO_PROXY", &p.no_proxy),
            ("FTP_PROXY", &p.ftp_proxy),
        ];
        all.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, v.clone())).collect()
    }

    fn meta(&self, context: &str) -> PathBuf {
        self.dir.join("contexts/meta").join(id(context)).join("meta.json")
    }

    fn context_file(&self, path: &Path) -> Result<Option<ContextFile>, Error> {
        let data = match std::fs::read(path) {
            Ok(data) => data,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::file("read Docker context", path)(e)),
        };
        let wrong = |e: serde_json::Error| Error::Invalid(format!("Docker context {}: {e}", path.display()));
        serde_json::from_slice(&data).map(Some).map_err(wrong)
    }
}

/// The directory of a context is named by the digest of its name.
fn id(context: &str) -> String {
    let digest = Digest::sha256(context.as_bytes()).to_string();
    digest.rsplit(':').next().unwrap_or_default().to_owned()
}

fn read_config(dir: &Path) -> Result<ConfigFile, Error> {
    let path = dir.join("config.json");
    match std::fs::read(&path) {
        // The text of the parser would quote what may be a credential.
        Ok(data) => serde_json::from_slice(&data).map_err(|e| {
            let at = format!("line {} column {}", e.line(), e.column());
            Error::Invalid(format!("Docker configuration {}: invalid JSON at {at}", path.display()))
        }),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(ConfigFile::default())
        }
        Err(e) => Err(Error::file("read Docker configuration", path)(e)),
    }
}
