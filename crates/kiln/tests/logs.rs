//! Steps that say much: the daemon's memory, and those who listen late or not at all.

mod common;
#[path = "common/gateway.rs"]
mod raw;

use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{SolveRequest, StatusRequest, StatusResponse};
use raw::Client;
use tonic::Streaming;

const BYTES: usize = 96 << 20;

/// Megabytes of the process in memory now.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

async fn follow(client: &Client) -> Streaming<StatusResponse> {
    let request = StatusRequest { r#ref: "loud".into() };
    ControlClient::new(client.0.clone()).status(request).await.unwrap().into_inner()
}

/// Reads until `until` bytes of output have come or the build is over.
async fn read(stream: &mut Streaming<StatusResponse>, until: usize) -> usize {
    let mut bytes = 0;
    while bytes < until {
        let Some(update) = stream.message().await.unwrap() else { break };
        bytes += update.logs.iter().map(|l| l.msg.len()).sum::<usize>();
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn loud_steps_take_no_memory_and_late_followers_get_all_root() {
    let Some(mut world) = common::world_without_daemon() else { return };
    let config = world.env.path().join("kiln.toml");
    let unlimited = [("BUILDKIT_STEP_LOG_MAX_SIZE", "-1"), ("BUILDKIT_STEP_LOG_MAX_SPEED", "-1")];
    world.daemon = Some(world.env.daemon_with(&["--config", config.to_str().unwrap()], &unlimited));
    let pid = world.daemon.as_ref().unwrap().pid();
    let client = Client::connect(&world.env.socket()).await;
    let line = "x".repeat(99);
    let script = format!("yes {line} | head -c {BYTES}; sleep 3");
    let request =
        SolveRequest { r#ref: "loud".into(), definition: Some(raw::run(&script)), ..SolveRequest::default() };
    let before = resident(pid);
    let solving = tokio::spawn({
        let client = client.clone();
        async move { client.solve(request).await }
    });
    // A connection of its own: what is not read would fill the windows of the others.
    let deaf = Client::connect(&world.env.socket()).await;
    let _never = follow(&deaf).await;
    let mut early = follow(&client).await;
    assert_eq!(read(&mut early, BYTES).await, BYTES);
    let mut late = follow(&client).await;
    assert_eq!(read(&mut late, usize::MAX).await, BYTES);
    solving.await.unwrap().unwrap();
    let grown = resident(pid).saturating_sub(before);
    println!("{} MB of output: the daemon grew from {before} MB by {grown} MB", BYTES >> 20);
    assert!(grown < 80, "grew by {grown} MB");
}
