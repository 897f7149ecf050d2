//! How the daemon ends: it takes no new builds, lets running ones finish for a while, then stops what is left.

use crate::notify;
use kiln_engine::Engine;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long running work may take to stop.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long clients may take to read their last answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often it is looked whether builds have ended.
const LOOK: Duration = Duration::from_millis(20);

/// What tells the daemon to stop.
pub(crate) struct Signals(mpsc::Receiver<()>);

impl Signals {
    /// SIGTERM and SIGINT.
    pub(crate) fn of_process() -> io::Result<Self> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, signals) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(signals))
    }

    /// Whoever has the sender stops the daemon.
    #[cfg(test)]
    pub(crate) fn of(signals: mpsc::Receiver<()>) -> Self {
        Self(signals)
    }

    /// Returns when one comes.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// New builds are refused from now on; returns when none runs, after `limit`, or at a second signal. Everything else is
/// still served: clients follow their builds and drive them.
pub(crate) async fn drain(engine: &Engine, limit: Duration, signals: &mut Signals) {
    engine.drain();
    notify::stopping();
    tracing::info!(builds = engine.running(), ?limit, "stopping: no new builds, those that run may finish");
    let none_runs = async {
        while engine.running() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = none_runs => {}
        () = tokio::time::sleep(limit) => {
            tracing::warn!(builds = engine.running(), "builds did not finish in time and are stopped");
        }
        () = signals.next() => tracing::warn!(builds = engine.running(), "second signal: builds are stopped"),
    }
}

/// Stops what runs, and lets clients read what was still said to them. A further signal ends the wait.
pub(crate) async fn close<T>(engine: &Engine, server: JoinHandle<T>, ended: bool, signals: &mut Signals) {
    let work = async {
        if tokio::time::timeout(STOP_LIMIT, engine.close()).await.is_err() {
            tracing::warn!("some work did not stop in time");
        }
        if !ended {
            let _ = tokio::time::timeout(GOODBYE, server).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = signals.next() => {}
    }
}
