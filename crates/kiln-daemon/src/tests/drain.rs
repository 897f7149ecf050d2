//! How the daemon ends.

use super::*;
use kiln_proto::health::health_client::HealthClient;
use kiln_proto::health::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic::Code;

async fn running(daemon: &Daemon, id: &'static str) -> JoinHandle<Result<(), tonic::Status>> {
    let mut client = daemon.control().await;
    let solve = tokio::spawn(async move { client.solve(endless(id)).await.map(|_| ()) });
    let mut follower = daemon.control().await;
    let _ = follower.status(control::StatusRequest { r#ref: id.into() }).await.unwrap();
    solve
}

#[tokio::test]
async fn without_builds_it_ends_at_once_and_takes_its_socket_along() {
    let daemon = Daemon::start().await;
    let socket = daemon.socket();
    daemon.stop().await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn while_it_drains_new_builds_are_refused_and_the_rest_is_served() {
    let daemon = Daemon::with(|o| o.drain_timeout = Some(Duration::from_secs(3))).await;
    let solve = running(&daemon, "slow").await;
    let mut client = daemon.control().await;
    let mut health = HealthClient::new(daemon.channel().await);
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    daemon.stop.send(()).await.unwrap();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let refused = loop {
        match client.solve(scratch("new")).await {
            Err(status) => break status,
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "the daemon is shutting down: no new builds");
    let mut late = daemon.control().await;
    assert_eq!(
        late.list_workers(control::ListWorkersRequest::default()).await.unwrap().into_inner().record.len(),
        1
    );
    assert!(!solve.is_finished(), "the build may go on");
    assert!(tokio::time::timeout(LIMIT, daemon.ended).await.unwrap().unwrap().is_ok());
    let stopped = solve.await.unwrap().unwrap_err();
    assert_eq!((stopped.code(), stopped.message()), (Code::Unavailable, "the daemon is stopping"));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let daemon = Daemon::with(|o| o.drain_timeout = Some(Duration::from_secs(3600))).await;
    let solve = running(&daemon, "slow").await;
    daemon.stop.send(()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!daemon.ended.is_finished());
    daemon.stop().await.unwrap();
    assert!(solve.await.unwrap().is_err());
}

#[tokio::test]
async fn one_state_directory_has_one_daemon() {
    let daemon = Daemon::start().await;
    let mut o = options(&tempfile::tempdir().unwrap());
    o.config = None;
    o.root = Some(daemon.dir.path().join("state"));
    o.addr = vec![format!("unix://{}/other.sock", daemon.dir.path().display())];
    let (_stop, signals) = mpsc::channel(1);
    let error = serve(Settings::new(o).unwrap(), Signals::of(signals)).await.unwrap_err();
    let path = daemon.dir.path().join("state/kiln.lock");
    assert_eq!(error.to_string(), format!("could not lock {}, another instance running?", path.display()));
    assert!(!daemon.dir.path().join("other.sock").exists());
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_state_directory_of_a_running_buildkit_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(options(&dir)).unwrap();
    let root = settings.engine.root.clone();
    std::fs::create_dir_all(&root).unwrap();
    let theirs = std::fs::File::create(root.join("buildkitd.lock")).unwrap();
    rustix::fs::flock(&theirs, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (_stop, signals) = mpsc::channel(1);
    let error = serve(settings, Signals::of(signals)).await.unwrap_err().to_string();
    assert!(error.contains("buildkitd.lock, another instance running?"), "{error}");
}

#[tokio::test]
async fn an_idle_daemon_ends() {
    let dir = tempfile::tempdir().unwrap();
    let idle_exit = Some(Duration::from_millis(50));
    let settings = Settings::new(Options { idle_exit, ..options(&dir) }).unwrap();
    let (_stop, signals) = mpsc::channel(1);
    tokio::time::timeout(LIMIT, serve(settings, Signals::of(signals))).await.unwrap().unwrap();
}
