//! Listening: the builds there are, and then what happens.

use crate::HistoryError;
use crate::history::{History, Inner};
use crate::query::Filters;
use kiln_proto::control::BuildHistoryRecord;
use kiln_proto::google::protobuf::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// Which builds to tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this build.
    pub reference: Option<String>,
    /// No builds that are over.
    pub active_only: bool,
    /// End after what there is.
    pub early_exit: bool,
    /// Which builds that are over (spec outputs-and-cache.md section 10).
    pub filters: Vec<String>,
    /// At most so many builds that are over, the newest first; 0 is all, by reference.
    pub limit: i32,
}

/// What happened to a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It runs.
    Started,
    /// It is over, or its record was changed.
    Complete,
    /// Its record is gone; only its reference is known.
    Deleted,
}

/// Something happened to a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// To what.
    pub record: Arc<BuildHistoryRecord>,
}

impl History {
    /// Listens. Blocks on the database; the listener does not.
    ///
    /// # Errors
    /// If the query makes no sense, and `Deleted` for a record that is being removed.
    pub fn listen(&self, query: &Query) -> Result<Listener, HistoryError> {
        let filters = Filters::parse(&query.filters)?;
        let limit = usize::try_from(query.limit)
            .map_err(|_| HistoryError::Query(format!("invalid limit {}", query.limit)))?;
        let only = query.reference.clone();
        let hold = only.as_ref().map(|reference| Hold::new(&self.0, reference));
        if let Some(reference) = &only
            && self.0.store.is_deleted(reference)?
        {
            return Err(HistoryError::Deleted(reference.clone()));
        }
        // Listens before it looks, so that nothing is missed in between.
        let live = (!query.early_exit).then(|| self.0.events.subscribe());
        let state = self.0.state();
        let wanted = |reference: &String| only.as_ref().is_none_or(|only| only == reference);
        let active = state.active.iter().filter(|(reference, _)| wanted(reference));
        let active = active.map(|(_, record)| record.clone()).collect();
        drop(state);
        let stored = if query.active_only { VecDeque::new() } else { self.stored(&only, &filters, limit)? };
        Ok(Listener { history: self.clone(), only, active, stored, live, _hold: hold })
    }

    /// References of the records that match. The records themselves are read when they are sent.
    fn stored(
        &self,
        only: &Option<String>,
        filters: &Filters,
        limit: usize,
    ) -> Result<VecDeque<String>, HistoryError> {
        let mut found: Vec<((i64, i32), String)> = Vec::new();
        self.0.store.each(only.as_deref(), |record| {
            if filters.matches(&record) {
                let created = record.created_at.as_ref().map_or((0, 0), |t: &Timestamp| (t.seconds, t.nanos));
                found.push((created, record.r#ref));
            }
        })?;
        if limit > 0 {
            found.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
            found.truncate(limit);
        }
        Ok(found.into_iter().map(|(_, reference)| reference).collect())
    }
}

/// Tells of builds; see [`History::listen`].
#[derive(Debug)]
pub struct Listener {
    history: History,
    only: Option<String>,
    active: VecDeque<Arc<BuildHistoryRecord>>,
    stored: VecDeque<String>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    _hold: Option<Hold>,
}

impl Listener {
    /// The next event; `None` at the end of what was asked for, or when the history is closed.
    ///
    /// # Errors
    /// `Behind` when events were lost because they were not taken; what the database says.
    pub async fn next(&mut self) -> Result<Option<Event>, HistoryError> {
        if let Some(record) = self.active.pop_front() {
            return Ok(Some(Event { kind: EventKind::Started, record }));
        }
        while let Some(reference) = self.stored.pop_front() {
            let history = self.history.clone();
            let read = tokio::task::spawn_blocking(move || history.0.store.get(&reference)).await;
            // Only a runtime that shuts down does not run it; one that is gone meanwhile is left out.
            let Ok(read) = read else { return Ok(None) };
            if let Some(record) = read? {
                return Ok(Some(Event { kind: EventKind::Complete, record: Arc::new(record) }));
            }
        }
        self.happens().await
    }

    async fn happens(&mut self) -> Result<Option<Event>, HistoryError> {
        let Some(live) = &mut self.live else { return Ok(None) };
        loop {
            let event = tokio::select! {
                biased;
                event = live.recv() => event,
                () = self.history.0.closed.cancelled() => return Ok(None),
            };
            match event {
                Ok(event) if self.only.as_ref().is_none_or(|only| *only == event.record.r#ref) => {
                    return Ok(Some(Event::clone(&event)));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => return Err(HistoryError::Behind(lost)),
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }
}

/// Keeps a record that is deleted until this is dropped.
#[derive(Debug)]
struct Hold {
    inner: Arc<Inner>,
    reference: String,
}

impl Hold {
    fn new(inner: &Arc<Inner>, reference: &str) -> Self {
        inner.hold(reference);
        Self { inner: inner.clone(), reference: reference.to_string() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (inner, reference) = (self.inner.clone(), std::mem::take(&mut self.reference));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || inner.release(&reference))),
            Err(_) => inner.release(&reference),
        }
    }
}
