//! Questions about images, repositories and downloads.

use crate::wire::{self, invalid, unimplemented};
use kiln_digest::Checksum;
use kiln_engine::{OciStore, ResolveOpt, SourceMeta, SourceMetaRequest};
use kiln_llb::{ResolveMode, SourceOp};
use kiln_policy::Policies;
use kiln_proto::google::protobuf::Timestamp;
use kiln_proto::{gateway, pb, sourcepolicy};
use tonic::Status;

/// Bytes behind a download whose checksum is asked for (BuildKit's limit).
const MAX_SUFFIX: usize = 4096;

pub(crate) fn policies(policies: &[sourcepolicy::Policy]) -> Result<Policies, Status> {
    Policies::read(policies).map_err(|e| invalid(e.to_string()))
}

fn mode(text: &str) -> Result<ResolveMode, Status> {
    ResolveMode::parse(text).ok_or_else(|| invalid(format!("invalid resolvemode: {}", clipped(text))))
}

/// Text of a caller, short enough for a message.
pub(crate) fn clipped(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Reads `ResolveImageConfig`.
pub(crate) fn image_request(
    r: gateway::ResolveImageConfigRequest,
) -> Result<(String, ResolveOpt, Policies), Status> {
    let policies = policies(&r.source_policies)?;
    let oci_layout = match r.resolver_type {
        0 => None,
        1 => Some(OciStore { session_id: r.session_id, store_id: r.store_id }),
        other => return Err(invalid(format!("unknown resolver type {other}"))),
    };
    let platform = r.platform.map(wire::platform).transpose()?;
    let reference = r.r#ref.strip_prefix("docker-image://").map(str::to_string).unwrap_or(r.r#ref);
    let opt = ResolveOpt { platform, mode: mode(&r.resolve_mode)?, log_name: r.log_name, oci_layout };
    Ok((reference, opt, policies))
}

/// Reads `ResolveSourceMeta`.
pub(crate) fn meta_request(r: gateway::ResolveSourceMetaRequest) -> Result<SourceMetaRequest, Status> {
    let policies = policies(&r.source_policies)?;
    let source = r.source.ok_or_else(|| invalid("source is required"))?;
    let image = r.image.unwrap_or_default();
    if image.attestation_chain || !image.resolve_attestations.is_empty() {
        return Err(unimplemented("attestations of images"));
    }
    let checksum = r.http.and_then(|http| http.checksum_request).map(checksum).transpose()?;
    Ok(SourceMetaRequest {
        source: SourceOp { identifier: source.identifier, attrs: source.attrs.into_iter().collect() },
        platform: r.platform.map(wire::platform).transpose()?,
        log_name: r.log_name,
        mode: mode(&r.resolve_mode)?,
        no_config: image.no_config,
        git_objects: r.git.is_some_and(|git| git.return_object),
        checksum,
        policies,
    })
}

fn checksum(r: gateway::ChecksumRequest) -> Result<(Checksum, Vec<u8>), Status> {
    use gateway::checksum_request::ChecksumAlgo;
    if r.suffix.len() > MAX_SUFFIX {
        return Err(invalid(format!("http checksum request suffix exceeds max size {MAX_SUFFIX}")));
    }
    let algorithm = match ChecksumAlgo::try_from(r.algo) {
        Ok(ChecksumAlgo::Sha256) => Checksum::Sha256,
        Ok(ChecksumAlgo::Sha384) => Checksum::Sha384,
        Ok(ChecksumAlgo::Sha512) => Checksum::Sha512,
        Err(_) => return Err(invalid(format!("unsupported checksum algorithm {}", r.algo))),
    };
    Ok((algorithm, r.suffix))
}

/// The answer.
pub(crate) fn meta_response(source: pb::SourceOp, meta: SourceMeta) -> gateway::ResolveSourceMetaResponse {
    let mut out = gateway::ResolveSourceMetaResponse { source: Some(source), ..Default::default() };
    match meta {
        SourceMeta::Nothing => {}
        SourceMeta::Image(image) => {
            out.image = Some(gateway::ResolveSourceImageResponse {
                digest: image.digest.to_string(),
                config: image.config,
                attestation_chain: None,
            });
        }
        SourceMeta::Git(git) => {
            let (commit_object, tag_object) = git.objects.map(|o| (o.commit, o.tag)).unwrap_or_default();
            out.git = Some(gateway::ResolveSourceGitResponse {
                checksum: git.checksum,
                r#ref: git.reference,
                commit_checksum: git.commit_checksum,
                commit_object,
                tag_object: tag_object.unwrap_or_default(),
            });
        }
        SourceMeta::Http(http) => {
            let response = |(digest, suffix)| gateway::ChecksumResponse { digest, suffix };
            out.http = Some(gateway::ResolveSourceHttpResponse {
                checksum: http.checksum.to_string(),
                filename: http.filename,
                last_modified: http.last_modified.map(|seconds| Timestamp { seconds, nanos: 0 }),
                checksum_response: http.other_checksum.map(response),
            });
        }
    }
    out
}
