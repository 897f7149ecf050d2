//! A graph of vertices.

use crate::decode::{self, DecodeError};
use crate::marshal::{self, OpParts};
use crate::{NetMode, Op, OpMetadata, SourceMap, name};
use kiln_digest::Digest;
use kiln_oci::Platform;
use kiln_proto::extra::DefinitionExtra;
use kiln_proto::pb;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One result of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Input {
    /// The vertex.
    pub digest: Digest,
    /// Which of its results.
    pub index: usize,
}

/// What the digest and the cache key of a step in the proxied network have at their end (BuildKit's, which has it in the
/// digest only).
pub(crate) const PROXIED: &[u8] = b"\0buildkit.proxy-network.v0";

pub(crate) fn digest_of(bytes: &[u8], proxied: bool) -> Digest {
    if proxied { Digest::sha256([bytes, PROXIED].concat()) } else { Digest::sha256(bytes) }
}

/// One operation of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Vertex {
    /// Of the bytes as received or written.
    pub digest: Digest,
    /// What it does.
    pub op: Op,
    /// What it needs, in the order that the operation's indices mean.
    pub inputs: Vec<Input>,
    /// As on the wire; `None` means the daemon's own.
    pub platform: Option<Platform>,
    /// Filters on workers.
    pub constraints: Vec<String>,
    /// It runs in the proxied network, which is part of its digest and of its cache key
    /// ([`Definition::with_proxied_network`]).
    pub proxied: bool,
    /// Not part of the digest.
    pub metadata: OpMetadata,
    pub(crate) fallback_name: String,
    pub(crate) encoded: Vec<u8>,
}

impl Vertex {
    /// The same step with another operation or other inputs, and so with another digest.
    fn rewritten(&self, op: Op, inputs: Vec<Input>) -> Vertex {
        let platform = self.platform.as_ref();
        let parts = OpParts { inputs: &inputs, platform, constraints: &self.constraints, op: &op };
        let encoded = marshal::encode_op(parts);
        let digest = digest_of(&encoded, self.proxied);
        let fallback_name = String::new();
        Vertex { digest, op, inputs, fallback_name, encoded, ..self.clone() }
    }

    /// Makes a vertex: encodes it and takes its digest. The indices in `op` must be within `inputs`.
    pub fn new(op: Op, inputs: Vec<Input>, platform: Option<Platform>, metadata: OpMetadata) -> Vertex {
        let parts = OpParts { inputs: &inputs, platform: platform.as_ref(), constraints: &[], op: &op };
        let encoded = marshal::encode_op(parts);
        let digest = Digest::sha256(&encoded);
        Vertex {
            digest,
            op,
            inputs,
            platform,
            constraints: Vec::new(),
            proxied: false,
            metadata,
            fallback_name: String::new(),
            encoded,
        }
    }

    /// What people see: the custom name when there is one, else a text made from the operation.
    pub fn name(&self) -> &str {
        let custom = self.metadata.description.get("llb.customname");
        custom.map_or(self.fallback_name.as_str(), String::as_str)
    }

    /// The bytes that the digest is of; for a proxied one with [`PROXIED`] behind them.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// A graph with one root. Inputs exist, indices are in range, there are no cycles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    vertices: Vec<Arc<Vertex>>,
    by_digest: HashMap<Digest, usize>,
    root: Option<Input>,
    source: Option<SourceMap>,
}

impl Definition {
    /// Reads what a client sent. A definition without any element is scratch: it has no root.
    pub fn decode(def: &pb::Definition) -> Result<Definition, DecodeError> {
        decode::definition(def)
    }

    /// Reads the encoded form, such as a file that a step wrote.
    pub fn decode_bytes(bytes: &[u8]) -> Result<Definition, DecodeError> {
        use prost::Message as _;
        let wire = |e: prost::DecodeError| DecodeError::Wire(e.to_string());
        let def = pb::Definition::decode(bytes).map_err(wire)?;
        Ok(Self::decode(&def)?.with_newer(DefinitionExtra::decode(bytes).map_err(wire)?))
    }

    /// Adds what the published message does not know, decoded from the same bytes. It is no part of any digest.
    #[must_use]
    pub fn with_newer(mut self, mut newer: DefinitionExtra) -> Definition {
        for vertex in &mut self.vertices {
            let found = newer.metadata.remove(&vertex.digest.to_string());
            if let Some(resources) = found.and_then(|m| m.linux_resources) {
                Arc::make_mut(vertex).metadata.linux_resources = Some(resources);
            }
        }
        self
    }

    /// Builds a definition from vertices that are sorted so that inputs come first.
    pub fn from_vertices(
        vertices: Vec<Arc<Vertex>>,
        root: Option<Input>,
        source: Option<SourceMap>,
    ) -> Result<Definition, DecodeError> {
        let mut out = Definition { root, source, ..Default::default() };
        for v in vertices {
            out.push(v)?;
        }
        if let Some(root) = root {
            out.check_edge(&root)?;
        }
        Ok(out)
    }

    fn push(&mut self, v: Arc<Vertex>) -> Result<(), DecodeError> {
        if self.by_digest.contains_key(&v.digest) {
            return Ok(());
        }
        for i in &v.inputs {
            self.check_edge(i)?;
        }
        let v = if v.fallback_name.is_empty() {
            let names: Vec<&str> =
                v.inputs.iter().filter_map(|i| self.vertex(&i.digest)).map(|v| v.name()).collect();
            let fallback_name = name::of(&v.op, &names);
            Arc::new(Vertex { fallback_name, ..Arc::unwrap_or_clone(v) })
        } else {
            v
        };
        self.by_digest.insert(v.digest, self.vertices.len());
        self.vertices.push(v);
        Ok(())
    }

    fn check_edge(&self, i: &Input) -> Result<(), DecodeError> {
        let v = self.vertex(&i.digest).ok_or(DecodeError::MissingInput(i.digest))?;
        let outputs = v.op.output_count();
        if i.index >= outputs {
            return Err(DecodeError::OutputRange { vertex: i.digest, index: i.index, outputs });
        }
        Ok(())
    }

    /// The vertex and result that the definition stands for; `None` is scratch.
    pub fn root(&self) -> Option<Input> {
        self.root
    }

    /// All vertices, inputs before those that use them.
    pub fn vertices(&self) -> &[Arc<Vertex>] {
        &self.vertices
    }

    /// Decides what a vertex does. Its digest, name and encoded form stay those of what was received; its cache key is
    /// that of what it does now.
    pub fn set_op(&mut self, digest: &Digest, op: Op) {
        if let Some(index) = self.by_digest.get(digest) {
            Arc::make_mut(&mut self.vertices[*index]).op = op;
        }
    }

    /// A vertex by digest.
    pub fn vertex(&self, digest: &Digest) -> Option<&Arc<Vertex>> {
        self.by_digest.get(digest).map(|i| &self.vertices[*i])
    }

    /// Where vertices were written.
    pub fn source(&self) -> Option<&SourceMap> {
        self.source.as_ref()
    }

    /// The same graph with other sources. Whatever uses one of them is written anew, and so has another digest.
    ///
    /// # Errors
    /// If the result is not a valid definition.
    pub fn with_sources(
        &self,
        sources: &HashMap<Digest, crate::SourceOp>,
    ) -> Result<Definition, DecodeError> {
        self.changed(|vertex| {
            let op = Op::Source(sources.get(&vertex.digest)?.clone());
            Some(Vertex { op, ..vertex.clone() })
        })
    }

    /// The same graph with its steps in the proxied network, but for those that have none.
    ///
    /// # Errors
    /// If the result is not a valid definition.
    pub fn with_proxied_network(&self) -> Result<Definition, DecodeError> {
        self.changed(|vertex| match &vertex.op {
            Op::Exec(exec) if exec.network != NetMode::None && !vertex.proxied => {
                Some(Vertex { proxied: true, ..vertex.clone() })
            }
            _ => None,
        })
    }

    /// Writes those that `change` changes, and whatever uses them, anew.
    fn changed(&self, change: impl Fn(&Vertex) -> Option<Vertex>) -> Result<Definition, DecodeError> {
        let mut renamed: HashMap<Digest, Digest> = HashMap::new();
        let rename = |renamed: &HashMap<Digest, Digest>, i: &Input| Input {
            digest: renamed.get(&i.digest).copied().unwrap_or(i.digest),
            index: i.index,
        };
        let mut vertices = Vec::with_capacity(self.vertices.len());
        for vertex in &self.vertices {
            let other = change(vertex);
            if other.is_none() && !vertex.inputs.iter().any(|i| renamed.contains_key(&i.digest)) {
                vertices.push(vertex.clone());
                continue;
            }
            let other = other.as_ref().unwrap_or(vertex);
            let inputs = vertex.inputs.iter().map(|i| rename(&renamed, i)).collect();
            let new = other.rewritten(other.op.clone(), inputs);
            renamed.insert(vertex.digest, new.digest);
            vertices.push(Arc::new(new));
        }
        let root = self.root.as_ref().map(|root| rename(&renamed, root));
        let source = self.source.as_ref().map(|map| map.renamed(&renamed));
        Definition::from_vertices(vertices, root, source)
    }

    /// What the daemon must know for the metadata of the vertices.
    fn terminal_caps(&self) -> BTreeMap<String, bool> {
        let any = |has: fn(&OpMetadata) -> bool| self.vertices.iter().any(|v| has(&v.metadata));
        let caps = [
            (true, "constraints"),
            (true, "platform"),
            (any(|m| m.ignore_cache), "meta.ignorecache"),
            (any(|m| !m.description.is_empty()), "meta.description"),
            (any(|m| m.export_cache.is_some()), "meta.exportcache"),
        ];
        caps.into_iter().filter(|(needed, _)| *needed).map(|(_, cap)| (cap.to_string(), true)).collect()
    }

    /// As bytes, for [`decode_bytes`](Self::decode_bytes).
    pub fn encode_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_pb())
    }

    /// For the wire. Bytes of decoded vertices are those received.
    pub fn to_pb(&self) -> pb::Definition {
        let mut def: Vec<Vec<u8>> = self.vertices.iter().map(|v| v.encoded.clone()).collect();
        let mut metadata: BTreeMap<String, pb::OpMetadata> =
            self.vertices.iter().map(|v| (v.digest.to_string(), v.metadata.to_pb())).collect();
        if let Some(root) = &self.root {
            let terminal = marshal::encode_terminal(root);
            let terminal_meta = pb::OpMetadata { caps: self.terminal_caps(), ..Default::default() };
            metadata.insert(Digest::sha256(&terminal).to_string(), terminal_meta);
            def.push(terminal);
        }
        pb::Definition { def, metadata, source: self.source.as_ref().map(SourceMap::to_pb) }
    }

    /// As [`Self::to_pb`], for programs written in Go: without empty values in maps, and not empty itself. Our encoder
    /// leaves such a value out, and the decoder of those programs makes a null pointer of it, at which they end.
    pub fn to_wire(&self) -> pb::Definition {
        let mut wire = self.to_pb();
        wire.source.get_or_insert_default();
        without_empty_values(&mut wire);
        wire
    }
}

fn without_empty_values(wire: &mut pb::Definition) {
    wire.metadata.retain(|_, m| *m != pb::OpMetadata::default());
    let Some(source) = &mut wire.source else { return };
    source.locations.retain(|_, l| !l.locations.is_empty());
    source.infos.iter_mut().filter_map(|i| i.definition.as_mut()).for_each(without_empty_values);
}
