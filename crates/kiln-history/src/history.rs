//! The history: the builds that run, the records of those that are over, and who listens.

use crate::listen::{Event, EventKind};
use crate::log::LogReader;
use crate::recording::{Recording, Start};
use crate::store::Store;
use crate::{HistoryError, attrs};
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_proto::control::BuildHistoryRecord;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Events that a listener may be behind.
const QUEUE: usize = 64;

/// How long records are kept. One goes when it has outlived both limits; pinned ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Since the end of the build.
    pub max_age: Duration,
    /// So many are kept whatever their age.
    pub max_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(48 * 3600), max_entries: 50 }
    }
}

/// The history of one state directory. Clones are the same. Unless said otherwise calls block on the database.
#[derive(Clone, Debug)]
pub struct History(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    limits: Limits,
    state: Mutex<State>,
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    /// How many builds run.
    running: watch::Sender<usize>,
    /// Fires when nothing more will happen.
    pub(crate) closed: CancellationToken,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) active: BTreeMap<String, Arc<BuildHistoryRecord>>,
    /// How many listeners read a record; it is removed when the last one goes.
    held: HashMap<String, usize>,
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: EventKind, record: Arc<BuildHistoryRecord>) {
        // It does not matter whether anybody listens.
        let _ = self.events.send(Arc::new(Event { kind, record }));
    }

    fn ended(&self, reference: &str) {
        let mut state = self.state();
        state.active.remove(reference);
        self.running.send_replace(state.active.len());
    }

    /// The build is over and its record is written.
    pub(crate) fn complete(&self, record: BuildHistoryRecord) {
        self.ended(&record.r#ref);
        self.tell(EventKind::Complete, Arc::new(record));
    }

    /// The build is over and there is no record of it.
    pub(crate) fn vanish(&self, reference: &str) {
        self.ended(reference);
        self.tell(EventKind::Deleted, named(reference));
    }

    pub(crate) fn hold(&self, reference: &str) {
        *self.state().held.entry(reference.to_string()).or_default() += 1;
    }

    /// Ends a hold; the last one removes a record that was deleted meanwhile.
    pub(crate) fn release(&self, reference: &str) {
        let mut state = self.state();
        let Some(count) = state.held.get_mut(reference) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.held.remove(reference);
        drop(state);
        if let Err(error) = self.store.purge(reference) {
            tracing::warn!(reference, %error, "remove build record");
        }
    }

    fn delete(&self, reference: &str) -> Result<(), HistoryError> {
        if !self.store.mark_deleted(reference)? {
            return Err(HistoryError::NotFound(reference.to_string()));
        }
        self.tell(EventKind::Deleted, named(reference));
        if self.state().held.contains_key(reference) {
            return Ok(());
        }
        self.store.purge(reference)
    }
}

fn named(reference: &str) -> Arc<BuildHistoryRecord> {
    Arc::new(BuildHistoryRecord { r#ref: reference.to_string(), ..Default::default() })
}

impl History {
    /// Opens the records that `content` and its database hold.
    ///
    /// # Errors
    /// If the tables are newer than this program, or cannot be read.
    pub fn open(content: ContentStore, limits: Limits) -> Result<Self, HistoryError> {
        let history = Self(Arc::new(Inner {
            store: Store::open(content)?,
            limits,
            state: Mutex::default(),
            events: broadcast::Sender::new(QUEUE),
            running: watch::Sender::new(0),
            closed: CancellationToken::new(),
        }));
        history.expire()?;
        Ok(history)
    }

    /// A build begins. Does not block.
    pub fn begin(&self, start: Start) -> Recording {
        let mut record = start.into_record();
        attrs::clip(&mut record);
        let shared = Arc::new(record.clone());
        let mut state = self.0.state();
        state.active.insert(record.r#ref.clone(), shared.clone());
        self.0.running.send_replace(state.active.len());
        drop(state);
        self.0.tell(EventKind::Started, shared);
        Recording::new(self.clone(), record)
    }

    /// Whether the build runs now. Does not block.
    pub fn is_active(&self, reference: &str) -> bool {
        self.0.state().active.contains_key(reference)
    }

    /// Keeps a record whatever its age, or no longer.
    ///
    /// # Errors
    /// `NotFound`, and what the database says.
    pub fn pin(&self, reference: &str, pinned: bool) -> Result<(), HistoryError> {
        self.change(reference, |record| record.pinned = pinned)
    }

    fn change(
        &self,
        reference: &str,
        change: impl FnOnce(&mut BuildHistoryRecord),
    ) -> Result<(), HistoryError> {
        let record = self.0.store.update(reference, |record| {
            change(record);
            record.generation = record.generation.saturating_add(1);
        })?;
        self.0.tell(EventKind::Complete, Arc::new(record));
        Ok(())
    }

    /// Removes a record, its log, and what else only it keeps. A listener that asked for this record alone may read
    /// its blobs until it ends.
    ///
    /// # Errors
    /// `NotFound`, and what the database says.
    pub fn delete(&self, reference: &str) -> Result<(), HistoryError> {
        self.0.delete(reference)
    }

    /// The log of a build that is over; `None` when there is no such record.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn log(&self, reference: &str) -> Result<Option<LogReader>, HistoryError> {
        let Some(record) = self.0.store.get(reference)? else { return Ok(None) };
        let file = match &record.logs {
            Some(log) => {
                let digest: Digest = log.digest.parse().map_err(|_| HistoryError::Log {
                    build: reference.to_string(),
                    reason: format!("invalid digest {:?}", log.digest),
                })?;
                Some(self.0.store.content().open_blob(&digest)?)
            }
            None => None,
        };
        Ok(Some(LogReader::new(reference, file)))
    }

    /// Removes the records that have outlived the limits.
    ///
    /// # Errors
    /// What the database says.
    pub fn expire(&self) -> Result<(), HistoryError> {
        for reference in self.0.store.expired(&self.0.limits)? {
            match self.0.delete(&reference) {
                // Somebody else was faster.
                Err(HistoryError::NotFound(_)) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Waits until the records of all builds that run are written, and then ends all listeners. Does not block.
    pub async fn close(&self) {
        // The sender lives as long as this.
        let _ = self.0.running.subscribe().wait_for(|running| *running == 0).await;
        self.0.closed.cancel();
    }
}
