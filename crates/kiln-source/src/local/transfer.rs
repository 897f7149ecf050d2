//! One transfer into the files of the last one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use kiln_fs::patterns::Matcher;
use kiln_session::Session;
use kiln_session::fsutil::{MetadataOnly, ReceiveOptions, Style, Update, receive};
use kiln_snapshot::{KeyedUpdate, NewRef, RecordKind, Snapshot, Snapshots};
use tokio_util::sync::CancellationToken;

use super::recorder::Recorder;
use super::{Failed, LocalId};
use crate::blocking::blocking;
use crate::{Progress, Result, SourceError, Status};

/// Time between two lines of progress.
const TICK: Duration = Duration::from_millis(100);

/// Brings the files kept for this directory up to date and makes them a snapshot. After a failure nothing is kept.
pub(super) async fn transfer(
    snapshots: Snapshots,
    session: Session,
    id: LocalId,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
) -> Result<Snapshot, Failed> {
    let key = id.shared_key(&session);
    let new = NewRef::new(RecordKind::LocalSource, format!("local source for {}", id.name));
    let update = blocking(move || Ok(snapshots.update_keyed(&key, new)?)).await?;
    let line = Line::begin(&id.name, progress);
    let (update, result) = fill(update, &session, &id, &line, cancel).await;
    line.end();
    // Both outcomes touch the disk.
    blocking(move || match result {
        Ok(()) => Ok(Ok(update.commit()?)),
        Err(e) => {
            drop(update);
            Ok(Err(e))
        }
    })
    .await?
}

async fn fill(
    mut update: KeyedUpdate,
    session: &Session,
    id: &LocalId,
    line: &Line,
    cancel: CancellationToken,
) -> (KeyedUpdate, Result<(), Failed>) {
    let recorder = Arc::new(Recorder::new(std::mem::take(&mut update.hashes)));
    let receive = async {
        // The mount must be gone before the files become a snapshot.
        let mounted = update.active.mount().map_err(SourceError::from)?;
        let root = mounted.root().try_clone().map_err(SourceError::from)?;
        let mut options = ReceiveOptions::new(Update::Mirror(id.compare), Style::InPlace);
        options.observer = Some(recorder.clone());
        options.progress = Some(line.bytes.clone());
        options.metadata_only = id.metadata_only.as_deref().map(exceptions).transpose()?;
        options.cancel = cancel;
        let stream = session.diff_copy(&id.request())?;
        line.beside(receive(stream, root, options)).await?;
        Ok(())
    };
    let result = receive.await;
    update.hashes = recorder.take();
    (update, result)
}

/// Which files a metadata-only transfer still fetches.
fn exceptions(patterns: &[String]) -> Result<MetadataOnly> {
    let matcher = Matcher::new(patterns).map_err(|e| SourceError::Invalid {
        identifier: "local".to_string(),
        message: format!("metadata exceptions {patterns:?}: {e}"),
    })?;
    Ok(Arc::new(move |path: &Path| matcher.matches(path).unwrap_or(false)))
}

/// The line `transferring context: 2B`.
struct Line {
    id: String,
    started: SystemTime,
    bytes: Arc<AtomicU64>,
    progress: Arc<dyn Progress>,
}

impl Line {
    fn begin(name: &str, progress: Arc<dyn Progress>) -> Self {
        let id = format!("transferring {name}:");
        let line = Self { id, started: SystemTime::now(), bytes: Arc::default(), progress };
        line.say(None);
        line
    }

    fn say(&self, completed: Option<SystemTime>) {
        self.progress.status(Status {
            id: self.id.clone(),
            action: "transferring".to_string(),
            current: self.bytes.load(Ordering::Relaxed),
            total: 0,
            started: self.started,
            completed,
        });
    }

    /// Shows the number of bytes while `work` runs.
    async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut said = 0;
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
                return done;
            }
            let bytes = self.bytes.load(Ordering::Relaxed);
            if bytes != said {
                said = bytes;
                self.say(None);
            }
        }
    }

    fn end(&self) {
        self.say(Some(SystemTime::now()));
    }
}
