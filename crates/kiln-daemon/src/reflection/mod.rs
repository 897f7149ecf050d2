//! gRPC server reflection: which services there are and what they take, in the files and names of BuildKit's daemon.

mod table;

use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::v1alpha;

/// Both versions of the service.
///
/// # Panics
/// Never: the table is part of the program, and a test builds it.
pub(crate) fn services() -> (
    ServerReflectionServer<impl ServerReflection>,
    v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>,
) {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
            .register_file_descriptor_set(table::descriptors(table::INTERFACE))
    };
    let known = "a constant table";
    (builder().build_v1().expect(known), builder().build_v1alpha().expect(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        let _ = services();
        let set = table::descriptors(table::INTERFACE);
        let names: Vec<_> = set.file.iter().map(|f| f.name()).collect();
        for file in &set.file {
            for dependency in &file.dependency {
                assert!(names.contains(&dependency.as_str()), "{} imports {dependency}", file.name());
            }
        }
        let services: Vec<_> = set
            .file
            .iter()
            .flat_map(|f| f.service.iter().map(|s| format!("{}.{}", f.package(), s.name())))
            .collect();
        assert_eq!(
            services,
            [
                "moby.buildkit.v1.Control",
                "moby.buildkit.v1.frontend.LLBBridge",
                "containerd.services.content.v1.Content",
                "opentelemetry.proto.collector.trace.v1.TraceService",
                "grpc.health.v1.Health",
            ]
        );
    }

    /// The table says of a message what the generated types do.
    #[test]
    fn the_table_is_the_wire() {
        use prost::Message;
        let set = table::descriptors(table::INTERFACE);
        let message = |package: &str, name: &str| {
            let file = set.file.iter().filter(|f| f.package() == package);
            file.flat_map(|f| &f.message_type).find(|m| m.name() == name).unwrap().clone()
        };
        let request = kiln_proto::control::PruneRequest { min_free_space: 7, ..Default::default() };
        let field = message("moby.buildkit.v1", "PruneRequest")
            .field
            .into_iter()
            .find(|f| f.name() == "minFreeSpace");
        assert_eq!(request.encode_to_vec(), [u8::try_from(field.unwrap().number() << 3).unwrap(), 7]);
        let solve = message("moby.buildkit.v1", "SolveRequest");
        let attrs = solve.field.iter().find(|f| f.name() == "FrontendAttrs").unwrap();
        assert_eq!(attrs.type_name(), ".moby.buildkit.v1.SolveRequest.FrontendAttrsEntry");
        assert!(solve.nested_type.iter().any(|n| n.name() == "FrontendAttrsEntry"));
        let op = message("pb", "Op");
        assert!(op.field.iter().any(|f| f.name() == "passthrough" && f.oneof_index == Some(0)));
        assert_eq!(op.oneof_decl[0].name(), "op");
    }
}
