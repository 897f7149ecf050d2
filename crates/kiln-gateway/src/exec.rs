//! Containers on results of the build, and processes in them (spec wire.md section 3).

mod process;
mod session;
mod signals;
#[cfg(test)]
mod tests;

use crate::wire::{self, error_status, invalid};
use kiln_engine::{Bridge, ContainerRequest};
use kiln_llb::{HostIp, Mount, NetMode};
use kiln_proto::{gateway, pb};
use std::pin::Pin;
use tonic::{Status, Streaming};

/// More mounts than any container has.
const MAX_MOUNTS: usize = 10_000;

/// What a process sends.
pub(crate) type ExecStream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<gateway::ExecMessage, Status>> + Send>>;

pub(crate) async fn new_container(
    bridge: &Bridge,
    request: gateway::NewContainerRequest,
) -> Result<gateway::NewContainerResponse, Status> {
    let request = container_request(request)?;
    bridge.new_container(request).await.map_err(error_status)?;
    Ok(gateway::NewContainerResponse {})
}

fn container_request(r: gateway::NewContainerRequest) -> Result<ContainerRequest, Status> {
    if r.mounts.len() > MAX_MOUNTS {
        return Err(invalid(format!("too many mounts: {}", r.mounts.len())));
    }
    let mount = |m: pb::Mount| Mount::from_container(m).map_err(|e| invalid(e.to_string()));
    let host = |h: pb::HostIp| match h.ip.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(HostIp { host: h.host, ip: h.ip }),
        Err(_) => Err(invalid(format!("failed to parse IP {:?}", crate::source::clipped(&h.ip)))),
    };
    Ok(ContainerRequest {
        id: r.container_id,
        mounts: r.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        network: NetMode::from_wire(r.network).map_err(|e| invalid(e.to_string()))?,
        extra_hosts: r.extra_hosts.into_iter().map(host).collect::<Result<_, _>>()?,
        hostname: r.hostname,
        os: r.platform.map(|p| p.os).unwrap_or_default(),
    })
}

pub(crate) async fn release_container(
    bridge: &Bridge,
    request: gateway::ReleaseContainerRequest,
) -> Result<gateway::ReleaseContainerResponse, Status> {
    bridge.release_container(&request.container_id).await.map_err(error_status)?;
    Ok(gateway::ReleaseContainerResponse {})
}

pub(crate) async fn exec_process(
    bridge: &Bridge,
    messages: Streaming<gateway::ExecMessage>,
) -> Result<ExecStream, Status> {
    Ok(session::serve(bridge.clone(), messages))
}

pub(crate) async fn read_file(
    bridge: &Bridge,
    request: gateway::ReadFileRequest,
) -> Result<gateway::ReadFileResponse, Status> {
    let range = request.range.map(crate::service::file_range).transpose()?;
    let mount = mount_index(request.mount_index)?;
    let data = bridge.read_container_file(&request.r#ref, mount, &request.file_path, range).await;
    Ok(gateway::ReadFileResponse { data: data.map_err(error_status)? })
}

pub(crate) async fn read_dir(
    bridge: &Bridge,
    request: gateway::ReadDirRequest,
) -> Result<gateway::ReadDirResponse, Status> {
    let mount = mount_index(request.mount_index)?;
    let entries =
        bridge.read_container_dir(&request.r#ref, mount, &request.dir_path, &request.include_pattern).await;
    let entries = entries.map_err(error_status)?.into_iter().map(wire::stat).collect();
    Ok(gateway::ReadDirResponse { entries })
}

pub(crate) async fn stat_file(
    bridge: &Bridge,
    request: gateway::StatFileRequest,
) -> Result<gateway::StatFileResponse, Status> {
    let mount = mount_index(request.mount_index)?;
    let stat = bridge.stat_container(&request.r#ref, mount, &request.path).await.map_err(error_status)?;
    Ok(gateway::StatFileResponse { stat: Some(wire::stat(stat)) })
}

fn mount_index(index: i32) -> Result<usize, Status> {
    usize::try_from(index).map_err(|_| invalid(format!("mount index {index} is out of bounds")))
}
