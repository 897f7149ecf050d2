//! Protocol buffers, written by hand where the order of the fields is part of a digest.
//!
//! Go's deterministic encoding writes a message's plain fields first, ascending, and the member of a oneof last;
//! default scalars are left out (protobuf encoding guide; google.golang.org/protobuf order package).

/// An encoded message in the making. Fields appear in the order of the calls.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn raw_varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    /// A scalar, left out when zero.
    pub(crate) fn varint(&mut self, field: u32, v: u64) {
        if v != 0 {
            self.key(field, 0);
            self.raw_varint(v);
        }
    }

    /// A signed scalar (int32, int64): negative ones take ten bytes.
    pub(crate) fn int(&mut self, field: u32, v: i64) {
        self.varint(field, v as u64);
    }

    pub(crate) fn bool(&mut self, field: u32, v: bool) {
        self.varint(field, u64::from(v));
    }

    /// A member of a oneof, written even when zero.
    pub(crate) fn oneof_varint(&mut self, field: u32, v: u64) {
        self.key(field, 0);
        self.raw_varint(v);
    }

    /// Bytes, written even when empty: elements of lists, map entries, messages.
    pub(crate) fn element(&mut self, field: u32, v: &[u8]) {
        self.key(field, 2);
        self.raw_varint(v.len() as u64);
        self.0.extend_from_slice(v);
    }

    /// A text, left out when empty.
    pub(crate) fn str(&mut self, field: u32, v: &str) {
        self.bytes(field, v.as_bytes());
    }

    /// Bytes, left out when empty.
    pub(crate) fn bytes(&mut self, field: u32, v: &[u8]) {
        if !v.is_empty() {
            self.element(field, v);
        }
    }

    pub(crate) fn strings(&mut self, field: u32, v: &[String]) {
        for s in v {
            self.element(field, s.as_bytes());
        }
    }

    pub(crate) fn message(&mut self, field: u32, m: Message) {
        self.element(field, &m.0);
    }

    /// A packed list of integers, left out when empty.
    pub(crate) fn packed(&mut self, field: u32, v: impl IntoIterator<Item = i64>) {
        let mut list = Message::new();
        for n in v {
            list.raw_varint(n as u64);
        }
        self.bytes(field, &list.0);
    }

    /// `map<string, string>`; the iterator must be sorted by key. Key and value are always written.
    pub(crate) fn string_map<'a>(
        &mut self,
        field: u32,
        entries: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) {
        for (k, v) in entries {
            let mut entry = Message::new();
            entry.element(1, k.as_bytes());
            entry.element(2, v.as_bytes());
            self.message(field, entry);
        }
    }
}
