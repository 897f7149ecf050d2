//! What a session serves to the daemon, made from a request and checked before the build.

mod agent;
mod auth;
mod config;
mod dirs;
mod exports;
mod file;
mod layouts;
mod secrets;
mod seeds;
mod ssh;
mod token;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_llb::errdefs::BuildError;
use kiln_session::Server;

pub use config::{DockerConfig, Login};
pub use secrets::{MAX_SECRET_SIZE, SecretOrigin, SecretSource};
pub use ssh::SshSource;
pub use upload::{Upload, UploadSource};

use crate::request::BuildRequest;
use auth::AuthProvider;
use dirs::Dirs;
use exports::Exports;
use layouts::Layouts;
use secrets::Secrets;
use ssh::Agents;
use upload::Uploads;

/// Everything a request allows. Helpers that were started for it end when this is dropped.
pub(crate) struct Providers {
    dirs: Arc<Dirs>,
    exports: Arc<Exports>,
    layouts: Layouts,
    secrets: Secrets,
    agents: Agents,
    auth: Option<AuthProvider>,
    uploads: Uploads,
}

impl Providers {
    pub(crate) async fn start(request: &BuildRequest) -> Result<Self, BuildError> {
        Ok(Self {
            dirs: Arc::new(Dirs::open(&request.local_dirs)?),
            exports: Arc::new(Exports::new(&request.exports)?),
            layouts: Layouts::open(request)?,
            secrets: Secrets::check(&request.secrets)?,
            agents: Agents::start(&request.ssh).await?,
            auth: request.credentials.clone().map(AuthProvider::new).transpose()?,
            uploads: Uploads::new(&request.uploads),
        })
    }

    /// A server of what there is; a service without content is not announced.
    pub(crate) fn server(&self) -> Server {
        let mut server = Server::new();
        if !self.dirs.is_empty() {
            server = server.file_sync(self.dirs.clone());
        }
        if !self.exports.is_empty() {
            server = server.file_send(self.exports.clone());
        }
        if !self.layouts.stores.is_empty() {
            server = server.layouts(self.layouts.stores.clone());
        }
        if !self.secrets.is_empty() {
            server = server.secrets(self.secrets.clone());
        }
        if !self.agents.is_empty() {
            server = server.ssh(self.agents.clone());
        }
        if let Some(auth) = &self.auth {
            server = server.auth(auth.clone());
        }
        if !self.uploads.is_empty() {
            server = server.upload(self.uploads.clone());
        }
        server
    }

    /// Does what is left to do here when the build has succeeded.
    pub(crate) fn finish(&self, response: &BTreeMap<String, String>) -> Result<(), BuildError> {
        self.layouts.finish(response)
    }
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::new(kiln_llb::errdefs::Code::InvalidArgument, message)
}
