//! A gRPC codec that leaves messages as bytes, so that large ones are not copied and the type may depend on the call.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawCodec;

/// Both halves of [`RawCodec`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawHalf;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawHalf;
    type Decoder = RawHalf;

    fn encoder(&mut self) -> RawHalf {
        RawHalf
    }

    fn decoder(&mut self) -> RawHalf {
        RawHalf
    }
}

/// Small packets are gathered into one write of up to this many bytes.
const GATHER: usize = 64 << 10;

impl Encoder for RawHalf {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        dst.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(GATHER, GATHER)
    }
}

impl Decoder for RawHalf {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

/// `BytesMessage` of every service that has one: a single bytes field.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
}

impl Chunk {
    pub(crate) fn wrap(data: Bytes) -> Bytes {
        Chunk { data }.encode_to_vec().into()
    }

    pub(crate) fn unwrap(message: Bytes) -> Result<Bytes, Status> {
        let chunk =
            Chunk::decode(message).map_err(|e| Status::internal(format!("malformed bytes message: {e}")))?;
        Ok(chunk.data)
    }
}
