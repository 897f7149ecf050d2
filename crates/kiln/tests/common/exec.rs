//! Exec streams of containers, and the messages that go over them.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::World;
use crate::raw::{Bridge, Client, Graph, busybox, solve};
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::{gateway, pb};
use kiln_testkit::PATIENCE;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// One exec stream.
pub(crate) struct Stream {
    pub(crate) to: mpsc::Sender<gateway::ExecMessage>,
    pub(crate) from: Streaming<gateway::ExecMessage>,
}

/// What a process said until `Done`.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) out: BTreeMap<u32, String>,
    pub(crate) eof: Vec<u32>,
    pub(crate) exit: Option<gateway::ExitMessage>,
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        self.out.get(&1).map_or("", String::as_str)
    }

    pub(crate) fn code(&self) -> u32 {
        self.exit.as_ref().expect("an exit").code
    }

    pub(crate) fn error(&self) -> &str {
        self.exit.as_ref().and_then(|e| e.error.as_ref()).map_or("", |e| &e.message)
    }
}

impl Stream {
    pub(crate) async fn open(bridge: &mut Bridge) -> Self {
        let (to, messages) = mpsc::channel(64);
        let from = bridge.exec_process(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { to, from }
    }

    pub(crate) async fn send(&self, id: &str, input: Input) {
        let message = gateway::ExecMessage { process_id: id.into(), input: Some(input) };
        self.to.send(message).await.unwrap();
    }

    pub(crate) async fn start(&self, id: &str, container: &str, script: &str, fds: &[u32]) {
        self.init(id, init(container, script, fds)).await;
    }

    pub(crate) async fn init(&self, id: &str, init: gateway::InitMessage) {
        self.send(id, Input::Init(init)).await;
    }

    pub(crate) async fn write(&self, id: &str, data: &str, eof: bool) {
        self.send(id, Input::File(gateway::FdMessage { fd: 0, eof, data: data.into() })).await;
    }

    pub(crate) async fn signal(&self, id: &str, name: &str) {
        self.send(id, Input::Signal(gateway::SignalMessage { name: name.into() })).await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<gateway::ExecMessage>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.from.message());
        next.await.expect("a message in time")
    }

    /// Reads until each of `ids` is done; checks the order of messages.
    pub(crate) async fn done(&mut self, ids: &[&str]) -> BTreeMap<String, Said> {
        let mut all: BTreeMap<String, Said> = BTreeMap::new();
        let mut left: Vec<&str> = ids.to_vec();
        while !left.is_empty() {
            let message = self.next().await.unwrap().expect("more messages");
            let (id, input) = (message.process_id, message.input.unwrap());
            match input {
                Input::Started(_) => assert!(all.insert(id, Said::default()).is_none()),
                Input::File(file) => {
                    let said = all.get_mut(&id).expect("started first");
                    assert!(!said.eof.contains(&file.fd), "nothing comes after the end");
                    said.out.entry(file.fd).or_default().push_str(&String::from_utf8_lossy(&file.data));
                    said.eof.extend(file.eof.then_some(file.fd));
                }
                Input::Exit(exit) => assert!(all.get_mut(&id).unwrap().exit.replace(exit).is_none()),
                Input::Done(_) => {
                    assert!(all[&id].exit.is_some(), "the end comes last");
                    left.retain(|other| *other != id);
                }
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// Runs one script to its end.
    pub(crate) async fn sh(&mut self, container: &str, script: &str) -> Said {
        let id = format!("sh-{}", rand::random::<u64>());
        self.start(&id, container, script, &[1, 2]).await;
        self.done(&[&id]).await.remove(&id).unwrap()
    }

    /// Reads until `id` has written `what`.
    pub(crate) async fn wait_for(&mut self, id: &str, what: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(what) {
            let message = self.next().await.unwrap().expect("more messages");
            if let (true, Some(Input::File(file))) = (message.process_id == id, message.input) {
                seen.push_str(&String::from_utf8_lossy(&file.data));
            }
        }
        seen
    }
}

pub(crate) fn init(container: &str, script: &str, fds: &[u32]) -> gateway::InitMessage {
    let args = ["/bin/sh", "-c", script].map(String::from).to_vec();
    let meta = pb::Meta { args, cwd: "/".into(), ..pb::Meta::default() };
    gateway::InitMessage {
        container_id: container.into(),
        meta: Some(meta),
        fds: fds.to_vec(),
        ..gateway::InitMessage::default()
    }
}

pub(crate) fn mount(dest: &str, id: &str) -> pb::Mount {
    pb::Mount { dest: dest.into(), result_id: id.into(), ..pb::Mount::default() }
}

pub(crate) fn request(id: &str, mounts: Vec<pb::Mount>) -> gateway::NewContainerRequest {
    gateway::NewContainerRequest { container_id: id.into(), mounts, ..Default::default() }
}

pub(crate) async fn image(bridge: &mut Bridge) -> String {
    let mut graph = Graph::default();
    let root = graph.add(&[], busybox());
    solve(bridge, graph.of(&root)).await.unwrap()
}

/// A build with a container `c` on busybox.
pub(crate) async fn begin(
    w: &World,
    build: &str,
) -> (Bridge, tokio::task::JoinHandle<Result<kiln_proto::control::SolveResponse, Status>>) {
    let (mut bridge, running) = Client::connect(&w.env.socket()).await.begin(build);
    let root = image(&mut bridge).await;
    bridge.new_container(request("c", vec![mount("/", &root)])).await.unwrap();
    (bridge, running)
}
