//! Messages and fields of newer BuildKit versions that the published crate does not know.
//!
//! Each type here holds only the missing fields; decode it from the same bytes as the published message.

/// The newer part of `pb.Op`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpExtra {
    /// Forwards results, used to force an order.
    #[prost(message, optional, tag = "8")]
    pub passthrough: Option<PassthroughOp>,
}

/// `pb.PassthroughOp`
#[derive(Clone, PartialEq, prost::Message)]
pub struct PassthroughOp {
    /// Required.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Input index of each output.
    #[prost(int64, repeated, tag = "2")]
    pub outputs: Vec<i64>,
}

/// The newer part of `pb.OpMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpMetadataExtra {
    /// Limits of the step; no effect on cache keys.
    #[prost(message, optional, tag = "7")]
    pub linux_resources: Option<LinuxResources>,
}

/// `pb.LinuxResources`: cgroup limits of one step.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LinuxResources {
    /// Bytes.
    #[prost(int64, tag = "1")]
    pub memory: i64,
    /// Bytes, memory and swap together; -1 is unlimited.
    #[prost(int64, tag = "2")]
    pub memory_swap: i64,
    /// Relative weight.
    #[prost(uint64, tag = "3")]
    pub cpu_shares: u64,
    /// Microseconds.
    #[prost(uint64, tag = "4")]
    pub cpu_period: u64,
    /// Microseconds per period.
    #[prost(int64, tag = "5")]
    pub cpu_quota: i64,
    /// List such as `0-2,7`.
    #[prost(string, tag = "6")]
    pub cpuset_cpus: String,
    /// List such as `0,1`.
    #[prost(string, tag = "7")]
    pub cpuset_mems: String,
}

/// The newer part of `pb.Definition`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DefinitionExtra {
    /// By digest of the operation.
    #[prost(map = "string, message", tag = "2")]
    pub metadata: std::collections::HashMap<String, OpMetadataExtra>,
}

/// The newer part of `moby.buildkit.v1.SolveRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveRequestExtra {
    /// Of the definition.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<DefinitionExtra>,
    /// Of the frontend's inputs, by name.
    #[prost(map = "string, message", tag = "10")]
    pub frontend_inputs: std::collections::HashMap<String, DefinitionExtra>,
    /// 0 is the current version.
    #[prost(int64, tag = "16")]
    pub compatibility_version: i64,
    /// Proxied, recorded network.
    #[prost(bool, tag = "17")]
    pub proxy_network: bool,
}

/// The newer part of `moby.buildkit.v1.frontend.SolveRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewaySolveRequestExtra {
    /// Of the definition.
    #[prost(message, optional, tag = "1")]
    pub definition: Option<DefinitionExtra>,
    /// Of the frontend's inputs, by name.
    #[prost(map = "string, message", tag = "13")]
    pub frontend_inputs: std::collections::HashMap<String, DefinitionExtra>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn an_op_with_passthrough_is_read_from_the_same_bytes() {
        let op = OpExtra { passthrough: Some(PassthroughOp { id: "x".into(), outputs: vec![0, 1] }) };
        let bytes = op.encode_to_vec();
        assert_eq!(OpExtra::decode(&bytes[..]).unwrap(), op);
        assert!(bollard_buildkit_proto::pb::Op::decode(&bytes[..]).unwrap().op.is_none());
    }
}
