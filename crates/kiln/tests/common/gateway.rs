//! A client that speaks to the daemon in raw messages, right ones and wrong ones.
#![allow(dead_code, reason = "each test binary uses a part")]

use kiln_digest::Digest;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{SolveRequest, SolveResponse};
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::{gateway, pb};
use prost::Message as _;
use std::path::Path;
use tokio::task::JoinHandle;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Names the build of every call.
#[derive(Clone)]
pub(crate) struct BuildId(AsciiMetadataValue);

impl Interceptor for BuildId {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("buildkit-controlapi-buildid", self.0.clone());
        Ok(request)
    }
}

pub(crate) type Bridge = LlbBridgeClient<InterceptedService<Channel, BuildId>>;

/// A connection to the daemon.
#[derive(Clone)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("an address");
        Self(endpoint.connect().await.expect("the daemon answers"))
    }

    pub(crate) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        ControlClient::new(self.0.clone()).solve(request).await.map(tonic::Response::into_inner)
    }

    /// Begins a build that this client drives.
    pub(crate) fn begin(&self, id: &str) -> (Bridge, JoinHandle<Result<SolveResponse, Status>>) {
        self.begin_with(SolveRequest { r#ref: id.to_string(), ..SolveRequest::default() })
    }

    pub(crate) fn begin_with(
        &self,
        request: SolveRequest,
    ) -> (Bridge, JoinHandle<Result<SolveResponse, Status>>) {
        let bridge = self.bridge(&request.r#ref);
        let client = self.clone();
        (bridge, tokio::spawn(async move { client.solve(request).await }))
    }

    pub(crate) fn bridge(&self, id: &str) -> Bridge {
        let id = BuildId(id.parse().expect("an ascii id"));
        LlbBridgeClient::with_interceptor(self.0.clone(), id).max_decoding_message_size(16 << 20)
    }
}

/// A graph in the making.
#[derive(Default)]
pub(crate) struct Graph(pb::Definition);

impl Graph {
    /// Adds an operation; answers its digest.
    pub(crate) fn add(&mut self, inputs: &[&str], op: pb::op::Op) -> String {
        self.add_with(inputs, op, pb::OpMetadata::default())
    }

    pub(crate) fn add_with(&mut self, inputs: &[&str], op: pb::op::Op, metadata: pb::OpMetadata) -> String {
        let inputs = inputs.iter().map(|digest| pb::Input { digest: digest.to_string(), index: 0 }).collect();
        let bytes = pb::Op { inputs, op: Some(op), ..pb::Op::default() }.encode_to_vec();
        let digest = Digest::sha256(&bytes).to_string();
        self.0.def.push(bytes);
        self.0.metadata.insert(digest.clone(), metadata);
        digest
    }

    /// The graph whose result is that of `root`.
    pub(crate) fn of(mut self, root: &str) -> pb::Definition {
        let inputs = vec![pb::Input { digest: root.to_string(), index: 0 }];
        self.0.def.push(pb::Op { inputs, ..pb::Op::default() }.encode_to_vec());
        self.0
    }
}

/// The busybox image of the test's registry.
pub(crate) fn busybox() -> pb::op::Op {
    let identifier = "docker-image://docker.io/library/busybox:latest".to_string();
    pb::op::Op::Source(pb::SourceOp { identifier, ..pb::SourceOp::default() })
}

/// A step on its first input.
pub(crate) fn exec(script: &str) -> pb::ExecOp {
    let args = ["/bin/sh", "-c", script].map(String::from).to_vec();
    let mount = pb::Mount { input: 0, dest: "/".into(), output: 0, ..pb::Mount::default() };
    pb::ExecOp {
        meta: Some(pb::Meta { args, cwd: "/".into(), ..pb::Meta::default() }),
        mounts: vec![mount],
        ..pb::ExecOp::default()
    }
}

/// A graph that runs `script` in busybox.
pub(crate) fn run(script: &str) -> pb::Definition {
    run_op(exec(script))
}

pub(crate) fn run_op(op: pb::ExecOp) -> pb::Definition {
    let mut graph = Graph::default();
    let base = graph.add(&[], busybox());
    let step = graph.add(&[&base], pb::op::Op::Exec(op));
    graph.of(&step)
}

/// A graph with one file, made without an image.
pub(crate) fn file(path: &str, data: &str) -> pb::Definition {
    let make = pb::FileActionMkFile {
        path: path.into(),
        mode: 0o644,
        data: data.into(),
        ..pb::FileActionMkFile::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(make)),
    };
    let mut graph = Graph::default();
    let root = graph.add(&[], pb::op::Op::File(pb::FileOp { actions: vec![action] }));
    graph.of(&root)
}

/// Solves a graph in the newest form; answers the id of the result.
pub(crate) async fn solve(bridge: &mut Bridge, definition: pb::Definition) -> Result<String, Status> {
    let request = gateway::SolveRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..gateway::SolveRequest::default()
    };
    let response = bridge.solve(request).await?.into_inner();
    match response.result.and_then(|r| r.result) {
        Some(gateway::result::Result::Ref(r)) => Ok(r.id),
        other => panic!("one result expected: {other:?}"),
    }
}

/// What a client returns to end its build.
pub(crate) fn result(id: &str) -> gateway::ReturnRequest {
    let form = gateway::result::Result::Ref(gateway::Ref { id: id.into(), def: None });
    let result = gateway::Result { result: Some(form), ..gateway::Result::default() };
    gateway::ReturnRequest { result: Some(result), error: None }
}
