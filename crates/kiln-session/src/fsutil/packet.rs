//! Packets on the wire.

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::stat::Stat;

/// One message of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// An entry of the tree, or the end of the walk.
    Stat(Option<Box<Stat>>),
    /// The receiver wants the contents of this entry; entries are counted from 0.
    Request(u32),
    /// Part of the contents; empty is the end.
    Data(u32, Bytes),
    /// All is done.
    Fin,
    /// The other side gave up, with its reason.
    Error(String),
}

/// Why bytes are not a packet.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Not protobuf of this shape.
    #[error("malformed packet: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A type that does not exist.
    #[error("malformed packet: unknown type {0}")]
    Type(i32),
}

/// `fsutil.types.Packet`
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, boxed, tag = "2")]
    stat: Option<Box<Stat>>,
    #[prost(uint32, tag = "3")]
    id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

/// Longest error of the other side that is passed on, in bytes.
const MAX_ERROR: usize = 16 << 10;

const STAT: i32 = 0;
const REQ: i32 = 1;
const DATA: i32 = 2;
const FIN: i32 = 3;
const ERR: i32 = 4;

impl Packet {
    /// Reads one message; contents share its memory.
    pub fn decode(message: Bytes) -> Result<Self, PacketError> {
        let wire = Wire::decode(message)?;
        Ok(match wire.kind {
            STAT => Self::Stat(wire.stat),
            REQ => Self::Request(wire.id),
            DATA => Self::Data(wire.id, wire.data),
            FIN => Self::Fin,
            ERR => Self::Error(
                String::from_utf8_lossy(&wire.data[..wire.data.len().min(MAX_ERROR)]).into_owned(),
            ),
            other => return Err(PacketError::Type(other)),
        })
    }

    /// Writes one message. For contents there is the cheaper [`DataBuffer`].
    pub fn encode(self) -> Bytes {
        let wire = match self {
            Self::Stat(stat) => Wire { kind: STAT, stat, ..Wire::default() },
            Self::Request(id) => Wire { kind: REQ, id, ..Wire::default() },
            Self::Data(id, data) => Wire { kind: DATA, id, data, ..Wire::default() },
            Self::Fin => Wire { kind: FIN, ..Wire::default() },
            Self::Error(text) => Wire { kind: ERR, data: text.into(), ..Wire::default() },
        };
        wire.encode_to_vec().into()
    }
}

/// Type, id and length take at most this many bytes.
const HEADER: usize = 2 + 1 + 5 + 1 + 5;

/// Room for contents that are read right into their packet.
pub(crate) struct DataBuffer(Vec<u8>);

impl DataBuffer {
    /// Room for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER + capacity);
        buffer.resize(HEADER, 0);
        Self(buffer)
    }

    /// Reads until the room is full or the source ends; says whether it ended.
    pub(crate) fn fill_from(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<bool> {
        let mut filled = self.0.len();
        // Zeroing is small beside the read.
        self.0.resize(self.0.capacity(), 0);
        let result = loop {
            if filled == self.0.len() {
                break Ok(false);
            }
            match from.read(&mut self.0[filled..]) {
                Ok(0) => break Ok(true),
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        self.0.truncate(filled);
        result
    }

    /// The bytes of contents so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len() - HEADER
    }

    /// The packet; its header is put in front of the contents.
    pub(crate) fn into_packet(mut self, id: u32) -> Bytes {
        let mut header = [0; HEADER];
        let mut rest = &mut header[..];
        encode_key(1, WireType::Varint, &mut rest);
        encode_varint(DATA as u64, &mut rest);
        if id != 0 {
            encode_key(3, WireType::Varint, &mut rest);
            encode_varint(id.into(), &mut rest);
        }
        if self.len() > 0 {
            encode_key(4, WireType::LengthDelimited, &mut rest);
            encode_varint(self.len() as u64, &mut rest);
        }
        let used = HEADER - rest.remaining_mut();
        let begin = HEADER - used;
        self.0[begin..HEADER].copy_from_slice(&header[..used]);
        Bytes::from(self.0).slice(begin..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(packet: Packet) -> String {
        packet.encode().iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn packets_have_the_recorded_bytes() {
        assert_eq!(hex(Packet::Stat(None)), "");
        assert_eq!(hex(Packet::Request(0)), "0801");
        assert_eq!(hex(Packet::Request(2)), "08011802");
        assert_eq!(hex(Packet::Data(0, Bytes::from_static(b"x"))), "0802220178");
        assert_eq!(hex(Packet::Data(0, Bytes::new())), "0802");
        assert_eq!(hex(Packet::Data(2, Bytes::from_static(b"hello"))), "08021802220568656c6c6f");
        assert_eq!(hex(Packet::Data(3, Bytes::new())), "08021803");
        assert_eq!(hex(Packet::Fin), "0803");
    }

    #[test]
    fn data_buffers_make_the_same_packets() {
        for (id, data) in [(0, vec![]), (0, vec![1]), (7, vec![2; 200]), (u32::MAX, vec![3; 40_000])] {
            let mut buffer = DataBuffer::new(data.len());
            let mut from = &data[..];
            buffer.fill_from(&mut from).unwrap();
            assert_eq!(buffer.into_packet(id), Packet::Data(id, data.into()).encode());
        }
    }

    #[test]
    fn packets_round_trip_and_unknown_types_are_refused() {
        let stat = Stat {
            linkname: Bytes::from_static(b"\xff"),
            xattrs: [("user.a".into(), vec![0])].into(),
            ..Stat::file("a", 0o644, 9)
        };
        for packet in [Packet::Stat(Some(Box::new(stat))), Packet::Error("no".into()), Packet::Request(5)] {
            assert_eq!(Packet::decode(packet.clone().encode()).unwrap(), packet);
        }
        assert!(matches!(Packet::decode(Bytes::from_static(&[8, 9])), Err(PacketError::Type(9))));
        assert!(Packet::decode(Bytes::from_static(&[0x22, 0xff])).is_err());
    }
}
