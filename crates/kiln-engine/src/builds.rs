//! The builds that run now, and those that ended a moment ago.

use crate::Bridge;
use crate::egress::{Fetched, OfBuild};
use crate::hub::Hub;
use kiln_digest::Digest;
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_policy::Policies;
use kiln_proxy::{Policy, Record};
use kiln_solver::JobId;
use kiln_source::Memo;
use kiln_worker::JobSessions;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long `status` waits for a build that is not there yet (spec wire.md section 2).
const STATUS_WAIT: Duration = Duration::from_secs(6);
/// How long `bridge` waits for a build that is not there yet (spec wire.md section 3).
const BRIDGE_WAIT: Duration = Duration::from_secs(3);
/// How long the progress of a build that ended can still be read.
const KEEP: Duration = Duration::from_secs(10);

/// All builds of the daemon. Clones are the same.
#[derive(Clone)]
pub(crate) struct Builds(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    builds: Mutex<HashMap<String, Build>>,
    changed: watch::Sender<()>,
}

struct Build {
    hub: Hub,
    session: String,
    memo: Arc<Memo>,
    /// What runs; nothing before it does.
    work: Weak<crate::build::Build>,
    fetched: Fetched,
    /// Of a build that its client drives.
    bridge: Option<Bridge>,
    /// There was a bridge.
    driven: bool,
    ended: Option<Instant>,
}

/// Why a build cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("job ID {0} exists")]
pub(crate) struct Exists(String);

impl Builds {
    /// `dir` is for what is too large for memory; exists.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let inner = Inner { dir, builds: Mutex::default(), changed: watch::Sender::new(()) };
        Self(Arc::new(inner))
    }

    fn builds(&self) -> MutexGuard<'_, HashMap<String, Build>> {
        self.0.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a build until the returned guard is dropped.
    pub(crate) fn begin(&self, id: &str, session: &str) -> Result<Running, Exists> {
        let mut builds = self.builds();
        builds.retain(|_, b| b.ended.is_none_or(|at| at.elapsed() < KEEP));
        if builds.get(id).is_some_and(|build| build.ended.is_none()) {
            return Err(Exists(id.to_string()));
        }
        let hub = Hub::new(self.0.dir.as_path());
        let build = Build {
            hub: hub.clone(),
            session: session.to_string(),
            memo: Arc::default(),
            work: Weak::new(),
            fetched: Fetched::new(),
            bridge: None,
            driven: false,
            ended: None,
        };
        builds.insert(id.to_string(), build);
        drop(builds);
        self.0.changed.send_replace(());
        Ok(Running { builds: self.clone(), id: id.to_string(), hub })
    }

    /// The progress of a build; waits a while for one that is not there yet.
    pub(crate) async fn hub(&self, id: &str) -> Option<Hub> {
        let mut changed = self.0.changed.subscribe();
        let arrival = async {
            loop {
                if let Some(build) = self.builds().get(id) {
                    return Some(build.hub.clone());
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(STATUS_WAIT, arrival).await.ok().flatten()
    }

    /// The gateway of a build that its client drives; waits a while for one that is not there yet.
    pub(crate) async fn bridge(&self, id: &str) -> Result<Bridge, BuildError> {
        let mut changed = self.0.changed.subscribe();
        let arrival = async {
            loop {
                match self.builds().get(id) {
                    Some(Build { bridge: Some(bridge), .. }) => return Some(bridge.clone()),
                    // Refused: it will not come any more.
                    Some(Build { ended: Some(_), driven: false, .. }) => return None,
                    _ => {}
                }
                changed.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(BRIDGE_WAIT, arrival).await.ok().flatten();
        found.ok_or_else(|| BuildError::new(Code::NotFound, format!("no such job {id}")))
    }

    /// What the sources of a running build were found to stand for.
    pub(crate) fn memos(&self, id: &str) -> Vec<Arc<Memo>> {
        self.memo(&JobId::new(id)).into_iter().collect()
    }

    /// The gateway of a build that its client drives, if it is one.
    pub(crate) fn driven(&self, id: &str) -> Option<Bridge> {
        self.builds().get(id)?.bridge.clone()
    }

    /// How many builds run.
    pub(crate) fn running(&self) -> usize {
        self.builds().values().filter(|b| b.ended.is_none()).count()
    }
}

#[async_trait::async_trait]
impl JobSessions for Builds {
    fn session(&self, job: &JobId) -> Option<String> {
        let builds = self.builds();
        let build = builds.get(job.as_str()).filter(|b| b.ended.is_none())?;
        Some(build.session.clone()).filter(|s| !s.is_empty())
    }

    fn memo(&self, job: &JobId) -> Option<Arc<Memo>> {
        let builds = self.builds();
        Some(builds.get(job.as_str()).filter(|b| b.ended.is_none())?.memo.clone())
    }

    async fn admit(&self, job: &JobId, definition: Definition) -> Result<Definition, BuildError> {
        let work = self.builds().get(job.as_str()).and_then(|b| b.work.upgrade());
        work.ok_or_else(BuildError::canceled)?.admit(definition, &Policies::default()).await
    }

    fn policy(&self, job: &JobId) -> Option<Arc<dyn Policy>> {
        let builds = self.builds();
        Some(OfBuild::of(&builds.get(job.as_str()).filter(|b| b.ended.is_none())?.work))
    }

    fn fetched(&self, job: &JobId, step: &Digest, record: &Arc<Record>) {
        if let Some(build) = self.builds().get_mut(job.as_str()) {
            build.fetched.insert(*step, record.clone());
        }
    }
}

/// A build that runs; its end is noted when this is dropped.
pub(crate) struct Running {
    builds: Builds,
    id: String,
    pub(crate) hub: Hub,
}

impl Running {
    /// The build begins: its steps may now ask what they may do.
    pub(crate) fn works(&self, work: &Arc<crate::build::Build>) {
        if let Some(build) = self.builds.builds().get_mut(&self.id) {
            build.work = Arc::downgrade(work);
        }
    }

    /// What its steps fetched through their proxies.
    pub(crate) fn take_fetched(&self) -> Fetched {
        let mut builds = self.builds.builds();
        builds.get_mut(&self.id).map(|build| std::mem::take(&mut build.fetched)).unwrap_or_default()
    }

    /// Lets the client drive the build until it ends.
    pub(crate) fn driven_by(&self, bridge: &Bridge) {
        if let Some(build) = self.builds.builds().get_mut(&self.id) {
            build.bridge = Some(bridge.clone());
            build.driven = true;
        }
        self.builds.0.changed.send_replace(());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub.close();
        let mut bridge = None;
        if let Some(build) = self.builds.builds().get_mut(&self.id) {
            build.ended = Some(Instant::now());
            // What it holds may be pruned from now on.
            build.memo = Arc::default();
            build.fetched = Fetched::new();
            bridge = build.bridge.take();
        }
        self.builds.0.changed.send_replace(());
        if let Some(bridge) = bridge {
            bridge.close();
        }
        let (builds, id) = (self.builds.clone(), std::mem::take(&mut self.id));
        // Its progress goes after a while even when no build follows.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(KEEP).await;
                let mut builds = builds.builds();
                if builds.get(&id).is_some_and(|b| b.ended.is_some_and(|at| at.elapsed() >= KEEP)) {
                    builds.remove(&id);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn status_waits_for_a_build_that_comes_a_moment_later() {
        let builds = Builds::new(std::env::temp_dir());
        let asked = tokio::spawn({
            let builds = builds.clone();
            async move { builds.hub("a").await.is_some() }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let running = builds.begin("a", "s").unwrap();
        assert!(asked.await.unwrap());
        assert!(builds.begin("a", "s").is_err());
        assert_eq!(builds.session(&JobId::new("a")), Some("s".into()));
        drop(running);
        assert_eq!(builds.running(), 0);
        assert!(builds.hub("a").await.is_some(), "late followers still find it");
        let refused = builds.begin("a", "s").expect("an id is free when its build has ended");
        let asked = tokio::spawn({
            let builds = builds.clone();
            async move { builds.bridge("a").await.is_err() }
        });
        drop(refused);
        let at_once = tokio::time::timeout(BRIDGE_WAIT - Duration::from_millis(500), asked).await;
        assert!(at_once.unwrap().unwrap(), "nobody waits for the gateway of a build that was refused");
    }

    #[tokio::test]
    async fn what_steps_fetched_is_kept_with_their_build() {
        let builds = Builds::new(std::env::temp_dir());
        let (job, step) = (JobId::new("a"), Digest::sha256("step"));
        let running = builds.begin("a", "s").unwrap();
        builds.fetched(&job, &step, &Arc::new(Record::default()));
        let denied = builds.policy(&job).unwrap().decide("http://h/").await;
        assert!(denied.is_err(), "nothing runs that could allow it");
        assert_eq!(running.take_fetched().into_keys().collect::<Vec<_>>(), [step]);
        drop(running);
        assert!(builds.policy(&job).is_none());
    }
}
