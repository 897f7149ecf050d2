//! The proxied network of a step or a container: a network of its own whose only way out is a proxy of the daemon.

mod trust;

use crate::exec::failed;
use crate::{Inner, Worker};
use kiln_fs::Root;
use kiln_llb::errdefs::BuildError;
use kiln_proxy::{Denied, Policy, Record, Serving, Verdict};
use kiln_sandbox::Network;
use kiln_solver::JobSet;
use std::sync::Arc;
use trust::Trust;

/// How often the policies of several builds may replace each other's answers.
const ROUNDS: usize = 8;

/// A proxy at work. Dropped, it ends.
pub(crate) struct Egress {
    serving: Serving,
    trust: Trust,
}

impl Egress {
    /// Opens the network, and has the programs in `root` trust the proxy.
    pub(crate) async fn open(
        inner: &Inner,
        policy: Arc<dyn Policy>,
        root: &Root,
    ) -> Result<(Self, Network), BuildError> {
        let (network, listener) =
            kiln_sandbox::listening_network(kiln_proxy::ADDRESS).await.map_err(failed)?;
        let serving = inner.proxy.begin(listener, policy).map_err(failed)?;
        let trust = Trust::give(root, serving.ca_pem());
        let trust =
            trust.map_err(|e| failed(e).context("add the proxy's certificate to the trusted ones"))?;
        Ok((Self { serving, trust }, network))
    }

    /// Ends the proxy, and takes the trust away. The processes in `root` have ended.
    pub(crate) async fn close(self, root: &Root) -> (Record, Result<(), BuildError>) {
        let taken = self.trust.take(root);
        let taken =
            taken.map_err(|e| failed(e).context("remove the proxy's certificate from the trusted ones"));
        (self.serving.finish().await, taken)
    }
}

/// Tells programs of the proxy. What names another one is not reachable, and goes.
pub(crate) fn set_variables(env: &mut Vec<String>) {
    let proxy = kiln_proxy::environment();
    env.retain(|v| !proxy.iter().any(|(name, _)| v.split('=').next() == Some(name)));
    env.extend(proxy.into_iter().map(|(name, value)| format!("{name}={value}")));
}

/// What all builds that wait for a step allow, as they are when it asks.
pub(crate) struct OfJobs {
    pub(crate) worker: Worker,
    pub(crate) jobs: JobSet,
}

#[async_trait::async_trait]
impl Policy for OfJobs {
    async fn decide(&self, url: &str) -> Result<Verdict, Denied> {
        let mut now = url.to_string();
        for _ in 0..ROUNDS {
            let jobs = self.jobs.ids();
            let sessions = &self.worker.0.job_sessions;
            let policies: Vec<_> = jobs.iter().filter_map(|job| sessions.policy(job)).collect();
            if policies.is_empty() {
                return Err(Denied("the build has ended".into()));
            }
            let before = now.clone();
            for policy in &policies {
                if let Verdict::Instead(other) = policy.decide(&now).await? {
                    now = other;
                }
            }
            // One alone has made up its mind.
            if now == before || policies.len() == 1 {
                return Ok(if now == url { Verdict::Allowed } else { Verdict::Instead(now) });
            }
        }
        Err(Denied("the policies of the builds that share this step do not agree".into()))
    }
}

impl std::fmt::Debug for OfJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfJobs({:?})", self.jobs.ids())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_proxies_are_forgotten() {
        let mut env: Vec<String> =
            ["A=1", "HTTP_PROXY=http://corp", "no_proxy=*", "HTTP_PROXY_X=y", "https_proxy"]
                .map(String::from)
                .into();
        set_variables(&mut env);
        assert_eq!(env[..2], ["A=1", "HTTP_PROXY_X=y"]);
        assert_eq!(env[2], "HTTP_PROXY=http://127.0.0.1:61080");
        assert_eq!(env[7], "no_proxy=127.0.0.1,localhost,::1");
        assert_eq!(env.len(), 8);
    }
}
