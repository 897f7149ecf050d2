//! The log of a build: each message as its length (4 bytes, little-endian) and the bytes of a `StatusResponse`.

use crate::HistoryError;
use crate::sink::BlobSink;
use kiln_proto::control::StatusResponse;
use prost::Message;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// What clients of BuildKit know the log by.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";

/// Messages are split into their parts beyond this, in bytes; a gRPC message holds at most 16 MiB.
const SPLIT: usize = 4 << 20;
/// What is larger does not fit into any message that a client takes.
const MAX_MESSAGE: usize = kiln_proto::MAX_MESSAGE_SIZE - (64 << 10);

/// Writes `message`, in parts if it is large.
pub(crate) fn write(sink: &mut BlobSink, message: StatusResponse) -> Result<(), String> {
    if message.encoded_len() <= SPLIT {
        return write_one(sink, &message);
    }
    let StatusResponse { vertexes, statuses, logs, warnings } = message;
    for v in vertexes {
        write_one(sink, &StatusResponse { vertexes: vec![v], ..Default::default() })?;
    }
    for s in statuses {
        write_one(sink, &StatusResponse { statuses: vec![s], ..Default::default() })?;
    }
    for l in logs {
        write_one(sink, &StatusResponse { logs: vec![l], ..Default::default() })?;
    }
    for w in warnings {
        write_one(sink, &StatusResponse { warnings: vec![w], ..Default::default() })?;
    }
    Ok(())
}

fn write_one(sink: &mut BlobSink, message: &StatusResponse) -> Result<(), String> {
    let size = message.encoded_len();
    let Some(length) = u32::try_from(size).ok().filter(|_| size <= MAX_MESSAGE) else { return Ok(()) };
    sink.write(&length.to_le_bytes())?;
    sink.write(&message.encode_to_vec())
}

/// Reads the log of a build, message by message. Blocks on the file system.
#[derive(Debug)]
pub struct LogReader {
    build: String,
    /// `None` is an empty log.
    file: Option<BufReader<File>>,
}

impl LogReader {
    pub(crate) fn new(build: &str, file: Option<File>) -> Self {
        Self { build: build.to_string(), file: file.map(BufReader::new) }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// If the log is damaged.
    pub fn read(&mut self) -> Result<Option<StatusResponse>, HistoryError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let failed = |reason: String| HistoryError::Log { build: self.build.clone(), reason };
        if file.fill_buf().map_err(|e| failed(e.to_string()))?.is_empty() {
            return Ok(None);
        }
        let mut length = [0; 4];
        file.read_exact(&mut length).map_err(|e| failed(e.to_string()))?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > kiln_proto::MAX_MESSAGE_SIZE {
            return Err(failed(format!("a message of {length} bytes")));
        }
        let mut data = vec![0; length];
        file.read_exact(&mut data).map_err(|e| failed(e.to_string()))?;
        StatusResponse::decode(&data[..]).map(Some).map_err(|e| failed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    proptest::proptest! {
        /// A damaged log ends, with an error where it is no log any more.
        #[test]
        fn any_bytes_end(parts in proptest::collection::vec((0..40_u32, proptest::collection::vec(0..=255_u8, 0..30)), 0..6)) {
            let mut file = tempfile::tempfile().unwrap();
            for (length, bytes) in &parts {
                file.write_all(&length.to_le_bytes()).unwrap();
                file.write_all(bytes).unwrap();
            }
            file.rewind().unwrap();
            let mut log = LogReader::new("b", Some(file));
            let mut messages = 0;
            while let Ok(Some(_)) = log.read() {
                messages += 1;
                assert!(messages < 1000);
            }
        }
    }

    #[test]
    fn a_length_costs_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&u32::MAX.to_le_bytes()).unwrap();
        file.rewind().unwrap();
        let error = LogReader::new("b", Some(file)).read().unwrap_err();
        assert!(error.to_string().contains("a message of 4294967295 bytes"), "{error}");
    }
}
