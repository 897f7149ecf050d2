//! Health checks of a session: a client that stopped answering must not hold a build for ever.

use std::time::Duration;

use kiln_proto::health::HealthCheckRequest;
use kiln_proto::health::health_client::HealthClient;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tonic::Status;

use crate::connection::{Connection, origin};

/// When a client counts as gone (spec wire.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Time between checks.
    pub interval: Duration,
    /// Shortest time to wait for an answer.
    pub timeout: Duration,
    /// Failures in a row that end the session.
    pub failures: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(15), failures: 2 }
    }
}

impl HealthPolicy {
    /// The client's own wish, in milliseconds, at least one second; anything else is ignored.
    pub(crate) fn from_header(value: &str) -> Self {
        match value.parse::<u64>() {
            Ok(ms) if ms > 0 => {
                let time = Duration::from_millis(ms.clamp(1000, 3_600_000));
                Self { interval: time, timeout: time, failures: 1 }
            }
            _ => Self::default(),
        }
    }
}

/// Longest answer, in bytes: it is a number, and every session is asked at any time.
const MAX_ANSWER: usize = 4 << 10;

fn client(connection: Connection) -> HealthClient<Connection> {
    HealthClient::with_origin(connection, origin()).max_decoding_message_size(MAX_ANSWER)
}

/// Asks once.
pub(crate) async fn check(
    connection: Connection,
) -> Result<tonic::Response<kiln_proto::health::HealthCheckResponse>, Status> {
    client(connection).check(HealthCheckRequest::default()).await
}

/// Checks until the client counts as gone; returns why.
pub(crate) async fn watch(connection: Connection, policy: HealthPolicy) -> String {
    let mut client = client(connection);
    let mut ticks = interval_at(Instant::now() + policy.interval, policy.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failures, mut last) = (0, Duration::ZERO);
    loop {
        ticks.tick().await;
        let begin = Instant::now();
        // A busy link answers late; give it more time than it needed before.
        let limit = policy.timeout.max(last.mul_f32(1.5));
        let answer = match timeout(limit, client.check(HealthCheckRequest::default())).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer in {limit:?}"))),
        };
        last = begin.elapsed();
        match answer {
            Ok(()) => failures = 0,
            Err(e) => {
                failures += 1;
                tracing::warn!(error = e.message(), failures, "session healthcheck failed");
                if failures >= policy.failures {
                    return format!("session healthcheck failed fatally: {}", e.message());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_timeout_is_at_least_a_second_and_fails_at_once() {
        let second = Duration::from_secs(1);
        assert_eq!(
            HealthPolicy::from_header("20"),
            HealthPolicy { interval: second, timeout: second, failures: 1 }
        );
        assert_eq!(HealthPolicy::from_header("1500").timeout, Duration::from_millis(1500));
        for other in ["", "-1", "0", "x", "99999999999999999999"] {
            assert_eq!(HealthPolicy::from_header(other), HealthPolicy::default(), "{other}");
        }
    }
}
