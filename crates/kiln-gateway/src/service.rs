//! `moby.buildkit.v1.frontend.LLBBridge` (spec wire.md section 3).

use crate::newer::BridgeServer;
use crate::result::{self, Allowed};
use crate::source::{self, clipped};
use crate::wire::{self, BUILD_ID, error_status, invalid};
use crate::{caps, exec};
use kiln_engine::{Bridge, BridgeInput, CacheImport, Engine, FileRange, FrontendRequest};
use kiln_llb::Definition;
use kiln_progress::{LineRange, SourceFile, Warning};
use kiln_proto::extra::{DefinitionExtra, GatewaySolveRequestExtra};
use kiln_proto::gateway::llb_bridge_server::LlbBridge;
use kiln_proto::{gateway, pb};
use std::collections::{BTreeMap, HashMap};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// The service over the builds of an engine, or over one.
#[derive(Clone, Debug)]
pub struct BridgeService(Builds);

#[derive(Clone, Debug)]
enum Builds {
    /// Every call names its build.
    Of(Engine),
    /// There is only one.
    One(Bridge),
}

type Answer<T> = Result<Response<T>, Status>;

impl BridgeService {
    /// Calls name their build in the metadata.
    pub fn over(engine: Engine) -> Self {
        Self(Builds::Of(engine))
    }

    /// All calls are about this build.
    pub fn of(bridge: Bridge) -> Self {
        Self(Builds::One(bridge))
    }

    /// For a router, with the size limits of the protocol.
    pub fn into_server(self) -> BridgeServer {
        BridgeServer::new(self)
    }

    async fn bridge(&self, metadata: &MetadataMap) -> Result<Bridge, Status> {
        let engine = match &self.0 {
            Builds::One(bridge) => return Ok(bridge.clone()),
            Builds::Of(engine) => engine,
        };
        let id = metadata.get(BUILD_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        if id.is_empty() {
            return Err(invalid("no buildid found in context"));
        }
        engine.bridge(id).await.map_err(error_status)
    }

    async fn open<T>(&self, request: Request<T>) -> Result<(Bridge, T), Status> {
        let bridge = self.bridge(request.metadata()).await?;
        Ok((bridge, request.into_inner()))
    }

    /// [`LlbBridge::solve`] with what newer clients say.
    pub(crate) async fn solve_newer(
        &self,
        request: Request<(gateway::SolveRequest, GatewaySolveRequestExtra)>,
    ) -> Answer<gateway::SolveResponse> {
        let (bridge, (mut request, newer)) = self.open(request).await?;
        for import in std::mem::take(&mut request.cache_imports) {
            let attrs = import.attrs.into_iter().collect();
            bridge.skip_cache_import(&CacheImport { kind: clipped(&import.r#type), attrs });
        }
        let allowed =
            Allowed { result: request.allow_result_return, array_ref: request.allow_result_array_ref };
        let (evaluate, last) = (request.evaluate, request.r#final);
        let exporter_attr = std::mem::take(&mut request.exporter_attr);
        let input = solve_input(request, newer)?;
        let outcome = bridge.solve(input, evaluate).await.map_err(error_status)?;
        if last {
            // Before there was `Return`, the last solve was the result.
            let attrs = result::exporter_attrs(&exporter_attr)?;
            bridge.return_result(Ok(result::last(&outcome, attrs)?)).map_err(error_status)?;
        }
        result::solved(outcome, allowed).map(Response::new)
    }
}

#[tonic::async_trait]
impl LlbBridge for BridgeService {
    type ExecProcessStream = exec::ExecStream;

    async fn ping(&self, request: Request<gateway::PingRequest>) -> Answer<gateway::PongResponse> {
        let (bridge, _) = self.open(request).await?;
        Ok(Response::new(gateway::PongResponse {
            frontend_api_caps: caps::all(kiln_llb::caps::GATEWAY),
            llb_caps: caps::all(kiln_llb::caps::LLB),
            workers: vec![wire::worker_record(bridge.engine().worker_info())],
        }))
    }

    async fn solve(&self, request: Request<gateway::SolveRequest>) -> Answer<gateway::SolveResponse> {
        self.solve_newer(request.map(|known| (known, GatewaySolveRequestExtra::default()))).await
    }

    async fn resolve_image_config(
        &self,
        request: Request<gateway::ResolveImageConfigRequest>,
    ) -> Answer<gateway::ResolveImageConfigResponse> {
        let (bridge, request) = self.open(request).await?;
        let (reference, opt, policies) = source::image_request(request)?;
        let found = bridge.resolve_image(&reference, opt, &policies).await.map_err(error_status)?;
        Ok(Response::new(gateway::ResolveImageConfigResponse {
            digest: found.digest.to_string(),
            config: found.config,
            r#ref: found.reference,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<gateway::ResolveSourceMetaRequest>,
    ) -> Answer<gateway::ResolveSourceMetaResponse> {
        let (bridge, request) = self.open(request).await?;
        let request = source::meta_request(request)?;
        let (op, meta) = bridge.resolve_source(request).await.map_err(error_status)?;
        let op = pb::SourceOp { identifier: op.identifier, attrs: op.attrs.into_iter().collect() };
        Ok(Response::new(source::meta_response(op, meta)))
    }

    async fn read_file(
        &self,
        request: Request<gateway::ReadFileRequest>,
    ) -> Answer<gateway::ReadFileResponse> {
        let (bridge, request) = self.open(request).await?;
        let range = request.range.map(file_range).transpose()?;
        let data = bridge.read_file(&request.r#ref, &request.file_path, range).await.map_err(error_status)?;
        Ok(Response::new(gateway::ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<gateway::ReadDirRequest>) -> Answer<gateway::ReadDirResponse> {
        let (bridge, r) = self.open(request).await?;
        let entries =
            bridge.read_dir(&r.r#ref, &r.dir_path, &r.include_pattern).await.map_err(error_status)?;
        Ok(Response::new(gateway::ReadDirResponse { entries: entries.into_iter().map(wire::stat).collect() }))
    }

    async fn stat_file(
        &self,
        request: Request<gateway::StatFileRequest>,
    ) -> Answer<gateway::StatFileResponse> {
        let (bridge, request) = self.open(request).await?;
        let stat = bridge.stat(&request.r#ref, &request.path).await.map_err(error_status)?;
        Ok(Response::new(gateway::StatFileResponse { stat: Some(wire::stat(stat)) }))
    }

    async fn evaluate(
        &self,
        request: Request<gateway::EvaluateRequest>,
    ) -> Answer<gateway::EvaluateResponse> {
        let (bridge, request) = self.open(request).await?;
        bridge.evaluate(&request.r#ref).await.map_err(error_status)?;
        Ok(Response::new(gateway::EvaluateResponse {}))
    }

    async fn r#return(&self, request: Request<gateway::ReturnRequest>) -> Answer<gateway::ReturnResponse> {
        let (bridge, request) = self.open(request).await?;
        let result = match (request.error, request.result) {
            (Some(error), _) => Err(wire::returned_error(error)),
            (None, Some(result)) => Ok(result::returned(result)?),
            (None, None) => return Err(invalid("gateway return must be either result or err")),
        };
        bridge.return_result(result).map_err(error_status)?;
        Ok(Response::new(gateway::ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<gateway::InputsRequest>) -> Answer<gateway::InputsResponse> {
        let (bridge, _) = self.open(request).await?;
        let definitions = bridge.inputs().iter().map(|(name, d)| (name.clone(), d.to_wire())).collect();
        Ok(Response::new(gateway::InputsResponse { definitions }))
    }

    async fn warn(&self, request: Request<gateway::WarnRequest>) -> Answer<gateway::WarnResponse> {
        let (bridge, request) = self.open(request).await?;
        bridge.warn(warning(request)?).map_err(error_status)?;
        Ok(Response::new(gateway::WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<gateway::NewContainerRequest>,
    ) -> Answer<gateway::NewContainerResponse> {
        let (bridge, request) = self.open(request).await?;
        exec::new_container(&bridge, request).await.map(Response::new)
    }

    async fn release_container(
        &self,
        request: Request<gateway::ReleaseContainerRequest>,
    ) -> Answer<gateway::ReleaseContainerResponse> {
        let (bridge, request) = self.open(request).await?;
        exec::release_container(&bridge, request).await.map(Response::new)
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<gateway::ExecMessage>>,
    ) -> Answer<Self::ExecProcessStream> {
        let (bridge, messages) = self.open(request).await?;
        exec::exec_process(&bridge, messages).await.map(Response::new)
    }

    async fn read_file_container(
        &self,
        request: Request<gateway::ReadFileRequest>,
    ) -> Answer<gateway::ReadFileResponse> {
        let (bridge, request) = self.open(request).await?;
        exec::read_file(&bridge, request).await.map(Response::new)
    }

    async fn read_dir_container(
        &self,
        request: Request<gateway::ReadDirRequest>,
    ) -> Answer<gateway::ReadDirResponse> {
        let (bridge, request) = self.open(request).await?;
        exec::read_dir(&bridge, request).await.map(Response::new)
    }

    async fn stat_file_container(
        &self,
        request: Request<gateway::StatFileRequest>,
    ) -> Answer<gateway::StatFileResponse> {
        let (bridge, request) = self.open(request).await?;
        exec::stat_file(&bridge, request).await.map(Response::new)
    }
}

pub(crate) fn file_range(range: gateway::FileRange) -> Result<FileRange, Status> {
    match (u64::try_from(range.offset), u64::try_from(range.length)) {
        (Ok(offset), Ok(length)) => Ok(FileRange { offset, length }),
        _ => Err(invalid(format!("invalid range: offset {}, length {}", range.offset, range.length))),
    }
}

fn solve_input(
    request: gateway::SolveRequest,
    newer: GatewaySolveRequestExtra,
) -> Result<BridgeInput, Status> {
    let policies = source::policies(&request.source_policies)?;
    let definition = request.definition.filter(|d| !d.def.is_empty());
    Ok(match (definition, request.frontend.is_empty()) {
        (Some(_), false) => return Err(invalid("cannot solve with both Definition and Frontend specified")),
        (Some(definition), true) => {
            BridgeInput::Definition { graph: decode(&definition, newer.definition)?, policies }
        }
        (None, false) => BridgeInput::Frontend(FrontendRequest {
            name: clipped(&request.frontend),
            opts: request.frontend_opt.into_iter().collect(),
            inputs: decode_all(&request.frontend_inputs, newer.frontend_inputs)?,
        }),
        (None, true) => BridgeInput::Nothing,
    })
}

fn decode(definition: &pb::Definition, newer: Option<DefinitionExtra>) -> Result<Definition, Status> {
    let known = Definition::decode(definition).map_err(|e| invalid(format!("failed to load LLB: {e}")))?;
    Ok(known.with_newer(newer.unwrap_or_default()))
}

fn decode_all(
    inputs: &HashMap<String, pb::Definition>,
    mut newer: HashMap<String, DefinitionExtra>,
) -> Result<BTreeMap<String, Definition>, Status> {
    inputs.iter().map(|(name, input)| Ok((name.clone(), decode(input, newer.remove(name))?))).collect()
}

fn warning(w: gateway::WarnRequest) -> Result<Warning, Status> {
    let vertex = w.digest.parse();
    let line = |p: Option<pb::Position>| p.map_or(0, |p| p.line);
    Ok(Warning {
        vertex: vertex.map_err(|_| invalid(format!("invalid vertex digest {:?}", clipped(&w.digest))))?,
        level: i32::try_from(w.level).map_err(|_| invalid(format!("invalid warning level {}", w.level)))?,
        short: w.short,
        detail: w.detail,
        url: w.url,
        source: w.info.map(|i| SourceFile { filename: i.filename, data: i.data, language: i.language }),
        ranges: w.ranges.into_iter().map(|r| LineRange { start: line(r.start), end: line(r.end) }).collect(),
    })
}
