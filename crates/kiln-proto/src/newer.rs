//! Serving methods whose requests have fields that the published types do not know: both parts of a request are read
//! from the same bytes.

use bytes::Buf;
use prost::Message;
use std::convert::Infallible;
use std::marker::PhantomData;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::codegen::http;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstEncoder;

/// Answers a call with `method`, which gets a message `M` and the newer part of it, `X` (`()` where there is none).
/// Messages are as large as the protocol allows.
pub async fn unary<M, X, O, S>(
    method: S,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible>
where
    M: Message + Default + 'static,
    X: Message + Default + 'static,
    O: Message + 'static,
    S: UnaryService<(M, X), Response = O>,
{
    const SIZE: Option<usize> = Some(crate::MAX_MESSAGE_SIZE);
    let codec = BothCodec::<M, X, O>(PhantomData);
    Ok(Grpc::new(codec).apply_max_message_size_config(SIZE, SIZE).unary(method, request).await)
}

struct BothCodec<M, X, O>(PhantomData<(M, X, O)>);

struct BothDecoder<M, X>(PhantomData<(M, X)>);

impl<M, X, O> Codec for BothCodec<M, X, O>
where
    M: Message + Default + 'static,
    X: Message + Default + 'static,
    O: Message + 'static,
{
    type Encode = O;
    type Decode = (M, X);
    type Encoder = ProstEncoder<O>;
    type Decoder = BothDecoder<M, X>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BothDecoder(PhantomData)
    }
}

impl<M: Message + Default, X: Message + Default> Decoder for BothDecoder<M, X> {
    type Item = (M, X);
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<(M, X)>, Status> {
        let length = buf.remaining();
        let bytes = buf.copy_to_bytes(length);
        let both = || Ok((M::decode(bytes.clone())?, X::decode(bytes)?));
        both().map(Some).map_err(|e: prost::DecodeError| {
            Status::internal(format!("grpc: error unmarshalling request: {e}"))
        })
    }
}
