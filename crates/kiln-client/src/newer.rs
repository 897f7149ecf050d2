//! What of a solve request the published wire type does not know yet (spec wire.md section 1). It is written behind the
//! rest: to a daemon that does not know it, it is nothing.

use bytes::BufMut;
use kiln_proto::MAX_MESSAGE_SIZE;
use kiln_proto::control::{SolveRequest, SolveResponse};
use kiln_proto::extra::SolveRequestExtra;
use prost::Message;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstDecoder;

/// A solve request, whole.
type Solve = (SolveRequest, SolveRequestExtra);

/// Calls `Control.Solve`.
pub(crate) async fn solve(
    channel: Channel,
    request: SolveRequest,
    newer: SolveRequestExtra,
) -> Result<Response<SolveResponse>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_SIZE)
        .max_encoding_message_size(MAX_MESSAGE_SIZE);
    grpc.ready().await.map_err(|e| Status::unavailable(format!("the connection to the daemon: {e}")))?;
    let path = PathAndQuery::from_static("/moby.buildkit.v1.Control/Solve");
    grpc.unary(Request::new((request, newer)), path, SolveCodec).await
}

#[derive(Clone, Copy, Debug)]
struct SolveCodec;

impl Codec for SolveCodec {
    type Encode = Solve;
    type Decode = SolveResponse;
    type Encoder = Self;
    type Decoder = ProstDecoder<SolveResponse>;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for SolveCodec {
    type Item = Solve;
    type Error = Status;

    fn encode(&mut self, item: Solve, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        write(&item, to).map_err(|e| Status::internal(e.to_string()))
    }
}

fn write((request, newer): &Solve, to: &mut impl BufMut) -> Result<(), prost::EncodeError> {
    request.encode(to)?;
    newer.encode(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_read_from_the_same_bytes() {
        let request = SolveRequest { r#ref: "r".into(), ..SolveRequest::default() };
        let newer = SolveRequestExtra { proxy_network: true, ..SolveRequestExtra::default() };
        let mut bytes = Vec::new();
        write(&(request.clone(), newer.clone()), &mut bytes).unwrap();
        assert_eq!(SolveRequest::decode(&bytes[..]).unwrap(), request);
        assert_eq!(SolveRequestExtra::decode(&bytes[..]).unwrap(), newer);
    }
}
