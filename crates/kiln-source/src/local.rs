//! Directories of clients. Only what changed since the last build is transferred (spec wire.md section 5,
//! llb-and-solver.md sections 2 and 7).

mod id;
mod recorder;
mod transfer;

use std::sync::Arc;

use async_trait::async_trait;
use kiln_llb::SourceOp;
use kiln_llb::cachekey::{LocalKey, local_key};
use kiln_session::fsutil::TransferError;
use kiln_session::{Lookup, Session, SessionError, SessionManager};
use kiln_snapshot::{Snapshot, Snapshots};
use tokio_util::sync::CancellationToken;

pub use self::id::LocalId;
use crate::{Progress, Result, SourceContext, SourceError, SourceInstance, SourceKeys};

/// Brings client directories in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalSource {
    sessions: SessionManager,
    snapshots: Snapshots,
}

impl LocalSource {
    /// Asks clients of `sessions`, keeps what it receives in `snapshots`.
    pub fn new(sessions: SessionManager, snapshots: Snapshots) -> Self {
        Self { sessions, snapshots }
    }

    /// Prepares a source operation `local://<name>`. `sessions` are those of the builds that wait for it; one that the
    /// operation names itself comes before them.
    pub fn open(&self, name: &str, op: &SourceOp, sessions: Vec<String>) -> Result<LocalInstance> {
        let id = LocalId::parse(name, op)?;
        if id.session.is_empty() && sessions.is_empty() {
            return Err(id.failed("could not access local files without session"));
        }
        Ok(LocalInstance { source: self.clone(), id, sessions })
    }
}

/// One client directory of a build.
#[derive(Clone, Debug)]
pub struct LocalInstance {
    source: LocalSource,
    id: LocalId,
    sessions: Vec<String>,
}

#[async_trait]
impl SourceInstance for LocalInstance {
    /// Valid for one session only: nothing says that the next build finds the same files.
    async fn keys(&self, _: &SourceContext) -> Result<SourceKeys> {
        let id = &self.id;
        let first = self.sessions.first().map(String::as_str).unwrap_or_default();
        let key = local_key(&LocalKey {
            name: &id.name,
            session_id: if id.session.is_empty() { first } else { &id.session },
            include_patterns: id.include.as_deref(),
            exclude_patterns: id.exclude.as_deref(),
            follow_paths: id.follow_paths.as_deref(),
            metadata_transfer: id.metadata_only.is_some(),
            metadata_exceptions: id.metadata_only.as_deref().unwrap_or_default(),
        });
        let pin = key.strip_prefix(&format!("session:{}:", id.name)).unwrap_or_default().to_string();
        Ok(SourceKeys { keys: vec![key], pin })
    }

    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>> {
        self.receive(cx.progress.clone()).await.map(Some)
    }
}

/// Why one session did not give the directory.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl Failed {
    /// Whether another client may have the directory.
    fn is_elsewhere(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Transfer(e) => e.is_not_found(),
            Self::Source(_) => false,
        }
    }
}

impl LocalInstance {
    /// Asks the session that the operation names, then those of the builds.
    async fn receive(&self, progress: Arc<dyn Progress>) -> Result<Snapshot> {
        let wrap = |e: Failed| match e {
            Failed::Source(e) => e,
            // A client that was given no directory has no such service.
            Failed::Session(SessionError::Unsupported(_)) => {
                self.id.failed("no local sources enabled: the client offers no directories")
            }
            other => self.id.failed(other.to_string()),
        };
        let call = |session: Session| self.receive_from(session, progress.clone());
        if !self.id.session.is_empty() {
            let named = match self.source.sessions.get(&self.id.session, Lookup::Wait).await {
                Ok(session) => call(session).await,
                Err(e) => Err(e.into()),
            };
            match named {
                Err(e) if e.is_elsewhere() && !self.sessions.is_empty() => {}
                other => return other.map_err(wrap),
            }
        }
        self.source.sessions.any(&self.sessions, call).await.map_err(wrap)
    }

    /// The transfer runs to an end of its own, so that files are not written to any more when the directory goes;
    /// when nobody waits, it is cancelled.
    async fn receive_from(&self, session: Session, progress: Arc<dyn Progress>) -> Result<Snapshot, Failed> {
        let cancel = CancellationToken::new();
        let _guard = cancel.clone().drop_guard();
        let (snapshots, id) = (self.source.snapshots.clone(), self.id.clone());
        let work = tokio::spawn(transfer::transfer(snapshots, session, id, progress, cancel));
        work.await.map_err(|e| Failed::Source(self.id.failed(e.to_string())))?
    }
}

#[cfg(test)]
mod tests;
