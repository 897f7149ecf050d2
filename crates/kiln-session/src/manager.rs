//! The daemon's sessions, by id.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use kiln_proto::control::BytesMessage;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::connection::Connection;
use crate::{BytesPipe, Session, SessionError, SessionHeaders, health};

/// How long a lookup waits for a session that is still on its way.
const ARRIVAL: Duration = Duration::from_secs(5);

/// How long the end of a build that fails at once waits for the client's session.
const SETTLING: Duration = Duration::from_millis(500);

/// Sessions at a time. Each holds some tens of kilobytes, and what its client makes the daemon read.
const MAX_SESSIONS: usize = 4096;

/// Whether a lookup waits for a client that is still connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Up to five seconds.
    Wait,
    /// Not at all.
    Now,
}

/// All live sessions. Cheap to clone; clones share the sessions.
#[derive(Clone, Debug, Default)]
pub struct SessionManager(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    sessions: Mutex<HashMap<String, Session>>,
    arrivals: watch::Sender<()>,
}

impl SessionManager {
    /// No sessions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a `Control.Session` call: registers the session and returns what to send to the client. The session
    /// lives until the client hangs up, its health checks fail, or the returned stream is dropped.
    pub fn accept<S>(
        &self,
        metadata: &MetadataMap,
        incoming: S,
    ) -> Result<impl Stream<Item = Result<BytesMessage, Status>> + Send + use<S>, SessionError>
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + 'static,
    {
        let headers = SessionHeaders::from_metadata(metadata)?;
        let incoming = incoming.map_ok(|m| Bytes::from(m.data)).map_err(std::io::Error::other).boxed();
        let (pipe, outgoing) = BytesPipe::new(incoming);
        let manager = self.clone();
        // Detached: it ends with either direction of the stream.
        tokio::spawn(async move {
            let id = headers.id.clone();
            if let Err(e) = manager.run(headers, pipe).await {
                tracing::debug!(session = id, error = %e, "session ended");
            }
        });
        Ok(ReceiverStream::new(outgoing).map(|data| Ok(BytesMessage { data: data.into() })))
    }

    /// Keeps the session that speaks over `io` registered until it ends.
    pub async fn run<I>(&self, headers: SessionHeaders, mut io: I) -> Result<(), SessionError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if let Some(old) = self.find(&headers.id) {
            // Closing first lets the client see a clean end instead of a stalled stream.
            let _ = io.shutdown().await;
            return Err(SessionError::Duplicate(old.id().to_string()));
        }
        let closed =
            |reason: String| SessionError::Closed { call: format!("session {}", headers.id), reason };
        let (connection, driver) = Connection::open(io).await.map_err(|e| closed(e.to_string()))?;
        let session = Session::new(headers.clone(), connection.clone());
        let _registered = self.register(&session)?;
        let reason = tokio::select! {
            end = driver => end.err().map(|e| e.to_string()),
            reason = health::watch(connection, headers.health) => Some(reason),
        };
        session.end(reason.as_deref().unwrap_or("the client hung up"));
        reason.map_or(Ok(()), |reason| Err(closed(reason)))
    }

    fn register(&self, session: &Session) -> Result<Registered<'_>, SessionError> {
        let id = session.id().to_string();
        let mut sessions = self.sessions();
        if sessions.contains_key(&id) {
            return Err(SessionError::Duplicate(id));
        }
        if sessions.len() >= MAX_SESSIONS {
            return Err(SessionError::TooMany(sessions.len()));
        }
        sessions.insert(id.clone(), session.clone());
        drop(sessions);
        self.0.arrivals.send_replace(());
        Ok(Registered { manager: self, session: session.clone() })
    }

    /// The session named by `id`, of which only the part after the first colon counts when there is one.
    pub async fn get(&self, id: &str, lookup: Lookup) -> Result<Session, SessionError> {
        let id = bare(id);
        let mut arrivals = self.0.arrivals.subscribe();
        let arrival = async {
            loop {
                if let Some(session) = self.find(id) {
                    return Some(session);
                }
                arrivals.changed().await.ok()?;
            }
        };
        let found = match lookup {
            Lookup::Now => self.find(id),
            Lookup::Wait => timeout(ARRIVAL, arrival).await.ok().flatten(),
        };
        found.ok_or_else(|| SessionError::NoSession(id.to_string()))
    }

    /// Waits for a moment until the client of a session has read what it was sent: it has answered a health check. Go
    /// clients that are closed before they have read everything take what is left for a broken connection, and say so.
    pub async fn settle(&self, id: &str) {
        let settled = async {
            let session = self.get(id, Lookup::Wait).await?;
            let answered = health::check(session.connection());
            session.call("health check".to_string(), answered).await
        };
        if !matches!(timeout(SETTLING, settled).await, Ok(Ok(_))) {
            tracing::debug!(session = bare(id), "no answer from the client before its build ends");
        }
    }

    /// Asks the sessions one after the other until one answers; the error is that of the last.
    pub async fn any<T, E, F, Fut>(&self, ids: &[String], call: F) -> Result<T, E>
    where
        E: From<SessionError>,
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut last = E::from(SessionError::NoSessions);
        for id in ids {
            let answer = match self.get(id, Lookup::Wait).await {
                Ok(session) => call(session).await,
                Err(e) => Err(e.into()),
            };
            match answer {
                Ok(value) => return Ok(value),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Number of live sessions.
    pub fn len(&self) -> usize {
        self.sessions().len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, id: &str) -> Option<Session> {
        self.sessions().get(id).filter(|s| !s.has_ended()).cloned()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        // The map is consistent between any two statements.
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `x:` in front of an id keeps vertices of different contexts apart; it is not part of the id.
fn bare(id: &str) -> &str {
    match id.split_once(':') {
        Some((_, rest)) if !rest.is_empty() => rest,
        _ => id,
    }
}

struct Registered<'a> {
    manager: &'a SessionManager,
    session: Session,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.session.end("the session was closed");
        self.manager.sessions().remove(self.session.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_after_the_first_colon_counts() {
        assert_eq!(["a", "x:a", "x:a:b", "a:", ":a"].map(bare), ["a", "a", "a:b", "a:", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_session_is_named_after_five_seconds() {
        let manager = SessionManager::new();
        let begin = tokio::time::Instant::now();
        let error = manager.get("x:gone", Lookup::Wait).await.unwrap_err();
        assert_eq!(error.to_string(), "no active session for gone");
        assert_eq!(begin.elapsed(), ARRIVAL);
        assert!(manager.get("gone", Lookup::Now).await.is_err());
        let nobody: Result<(), SessionError> = manager.any(&[], |_| async { Ok(()) }).await;
        assert_eq!(nobody.unwrap_err().to_string(), "no active sessions");
    }
}
