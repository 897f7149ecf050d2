use crate::{Definition, builder::*};
use kiln_proto::extra::{DefinitionExtra, LinuxResources, OpMetadataExtra};
use prost::Message as _;

/// The message of a client that knows the field: the published bytes and the newer ones of the same message together.
#[test]
fn limits_of_a_step_are_read_from_the_same_bytes() {
    let mut graph = GraphBuilder::new();
    let image =
        graph.image("docker.io/library/busybox:latest", crate::ResolveMode::Default, Constraints::default());
    let plain = graph.marshal(Some(image), &MarshalOptions::default()).unwrap();
    let digest = plain.root().unwrap().digest;
    let resources = LinuxResources { memory: 1 << 30, cpu_shares: 7, ..LinuxResources::default() };
    let metadata = OpMetadataExtra { linux_resources: Some(resources.clone()) };
    let newer = DefinitionExtra { metadata: [(digest.to_string(), metadata)].into() };
    let mut bytes = plain.encode_bytes();
    bytes.extend(newer.encode_to_vec());
    let decoded = Definition::decode_bytes(&bytes).unwrap();
    let vertex = decoded.vertex(&digest).unwrap();
    assert_eq!(vertex.metadata.linux_resources.as_ref(), Some(&resources));
    assert_eq!(vertex.digest, digest, "no part of the digest");
    assert!(plain.vertex(&digest).unwrap().metadata.linux_resources.is_none());
}
