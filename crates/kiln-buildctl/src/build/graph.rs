//! A graph from stdin.

use crate::error::Error;
use kiln_digest::Digest;
use kiln_llb::Definition;
use kiln_proto::pb;
use prost::Message as _;
use std::io::{IsTerminal as _, Read as _};

/// A larger graph is none, in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// Reads a marshaled definition; with `no_cache` no step of it is taken from the cache.
pub(super) fn from_stdin(no_cache: bool) -> Result<Definition, Error> {
    let stdin = std::io::stdin();
    let is_device = std::fs::metadata("/dev/stdin").is_ok_and(|m| {
        use std::os::unix::fs::FileTypeExt as _;
        m.file_type().is_char_device()
    });
    if stdin.is_terminal() || is_device {
        return Err("please specify --frontend or pipe LLB definition to stdin".into());
    }
    let bytes = read(stdin.lock()).map_err(|e| format!("failed to parse input: {e}"))?;
    let definition = pb::Definition::decode(&bytes[..]).map_err(|e| format!("failed to parse input: {e}"))?;
    definition_of(definition, no_cache)
}

/// The bytes of a graph.
pub(crate) fn read(from: impl std::io::Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err("larger than 64 MiB".into());
    }
    Ok(bytes)
}

fn definition_of(mut definition: pb::Definition, no_cache: bool) -> Result<Definition, Error> {
    if definition.def.is_empty() {
        return Err("empty definition sent to build. Specify --frontend instead?".into());
    }
    if no_cache {
        for op in &definition.def {
            let digest = Digest::sha256(op).to_string();
            definition.metadata.entry(digest).or_default().ignore_cache = true;
        }
    }
    Definition::decode(&definition).map_err(|e| format!("failed to parse llb proto op: {e}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_marks_every_step() {
        let source = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp {
                identifier: "local://x".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let root = pb::Op {
            inputs: vec![pb::Input { digest: Digest::sha256(source.encode_to_vec()).to_string(), index: 0 }],
            ..Default::default()
        };
        let def = vec![source.encode_to_vec(), root.encode_to_vec()];
        let definition = definition_of(pb::Definition { def, ..Default::default() }, true).unwrap();
        assert!(definition.vertices().iter().all(|v| v.metadata.ignore_cache));
        let empty = definition_of(pb::Definition::default(), false).unwrap_err().to_string();
        assert_eq!(empty, "empty definition sent to build. Specify --frontend instead?");
        assert_eq!(read(&b"x"[..]).unwrap(), b"x");
        assert!(read(std::io::repeat(1)).is_err());
    }
}
