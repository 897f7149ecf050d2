//! A plan in the client's terms.

use super::export::{Dest, Export};
use super::plan::{LocalDir, Plan, Stdin};
use super::secret::{Secret, SecretSource};
use super::ssh::Ssh;
use crate::error::CliError;
use crate::stdin::StdinDockerfile;
use kiln_client::{BuildRequest, DockerConfig, Output, OutputWriter, SecretOrigin, SshSource, Upload, Work};
use kiln_digest::Digest;
use std::collections::BTreeMap;
use std::path::Path;
use tokio::io::AsyncReadExt as _;

/// What was taken from stdin before the build.
pub struct StdinInputs<'a> {
    /// Bytes read to see what stdin is.
    pub head: Vec<u8>,
    /// The Dockerfile from stdin.
    pub dockerfile: Option<&'a StdinDockerfile>,
}

/// The plan in the client's terms.
///
/// `load` takes the archive that goes into an engine.
pub fn request(
    plan: Plan,
    stdin: StdinInputs<'_>,
    load: Option<OutputWriter>,
) -> Result<BuildRequest, CliError> {
    let mut attrs = plan.attrs;
    let mut uploads = Vec::new();
    let mut dirs = plan.locals;
    match plan.stdin {
        Stdin::Unused => {}
        Stdin::Context => {
            let upload = Upload::new(std::io::Cursor::new(stdin.head).chain(tokio::io::stdin()));
            attrs.insert("context".into(), upload.url());
            uploads.push(upload);
        }
        Stdin::Dockerfile { .. } => {
            let files = stdin.dockerfile.ok_or_else(|| CliError::Usage("stdin was not read".into()))?;
            dirs.push(LocalDir { name: "dockerfile".into(), path: files.dir() });
            let context = files.context.iter().cloned();
            dirs.extend(context.map(|path| LocalDir { name: "context".into(), path }));
        }
    }
    let shared_key =
        dirs.iter().find(|d| d.name == "context").map(|d| shared_key(&d.path)).unwrap_or_default();
    let local_dirs = |d: LocalDir| (d.name, kiln_client::LocalDir { path: d.path, exclude: Vec::new() });
    let work = Work::Frontend { name: plan.frontend.into(), attrs, inputs: BTreeMap::new() };
    let env = |name: &str| std::env::var_os(name).map(|v| v.into_encoded_bytes());
    Ok(BuildRequest {
        exports: plan.exports.into_iter().map(|e| export(e, load.as_ref())).collect::<Result<_, _>>()?,
        local_dirs: dirs.into_iter().map(local_dirs).collect(),
        layouts: plan.layouts.into_iter().map(|l| (l.id, l.path)).collect(),
        shared_key,
        secrets: plan.secrets.into_iter().map(|s| secret_source(s, &env)).collect::<Result<_, _>>()?,
        ssh: plan.ssh.into_iter().map(ssh_source).collect(),
        credentials: Some(credentials()?),
        uploads,
        entitlements: plan.entitlements,
        internal: plan.call.is_some(),
        proxy_network: plan.proxy_network,
        source_policy: plan.source_policy,
        ..BuildRequest::new(work)
    })
}

/// Docker's credentials of this user.
///
/// # Errors
/// The configuration cannot be read.
pub fn credentials() -> Result<DockerConfig, CliError> {
    let env = |name: &str| std::env::var(name).ok();
    let dir = || env("DOCKER_CONFIG").unwrap_or_else(|| "~/.docker".into());
    DockerConfig::from_env(env).map_err(|source| CliError::File {
        doing: "reading the Docker configuration in",
        path: dir().into(),
        source,
    })
}

/// Two builds of one directory share what the daemon has of it.
pub fn shared_key(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{name}:{}", Digest::sha256(path.as_os_str().as_encoded_bytes()).short())
}

/// A secret as the client serves it; `env` is the environment.
///
/// # Errors
/// A variable that is not set.
pub fn secret_source(
    secret: Secret,
    env: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<kiln_client::SecretSource, CliError> {
    let origin = match secret.source {
        SecretSource::File(path) => SecretOrigin::File(path),
        SecretSource::Env(name) => SecretOrigin::Value(env(&name).ok_or_else(|| CliError::Value {
            flag: "--secret",
            value: format!("id={},env={name}", secret.id),
            why: format!("the environment has no variable {name}"),
        })?),
    };
    Ok(kiln_client::SecretSource { id: secret.id, origin })
}

/// SSH agents or keys as the client serves them.
pub fn ssh_source(ssh: Ssh) -> SshSource {
    SshSource { id: ssh.id, paths: ssh.paths, raw: ssh.raw }
}

fn export(export: Export, load: Option<&OutputWriter>) -> Result<kiln_client::Export, CliError> {
    let output = match export.dest {
        Dest::Daemon => Output::None,
        Dest::Directory(ref path) => Output::Dir { path: path.clone(), delete: export.deletes() },
        Dest::File(ref path) => {
            if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
                std::fs::create_dir_all(dir).map_err(CliError::file("making directory", dir))?;
            }
            Output::File(path.clone())
        }
        Dest::Stdout => Output::Stdout,
        Dest::Docker => {
            let writer = load.cloned();
            Output::Writer(writer.ok_or_else(|| CliError::Usage("there is no engine to load into".into()))?)
        }
    };
    Ok(kiln_client::Export { kind: export.kind.name().into(), attrs: export.attrs, output })
}
