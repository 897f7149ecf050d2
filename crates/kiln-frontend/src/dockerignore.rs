//! The ignore file of the main context.

use crate::context::Context;
use crate::host::SolveOpt;
use kiln_fs::patterns;
use kiln_llb::builder::{Constraints, GraphBuilder, LocalSpec, MarshalOptions};
use kiln_llb::errdefs::BuildError;

pub(crate) const NAME: &str = ".dockerignore";

/// The patterns for a client directory; the file beside the Dockerfile wins over that of the directory.
pub(crate) async fn of_main_context(cx: &Context<'_>, local: &str) -> Result<Vec<String>, BuildError> {
    let (content, name) = match &cx.entrypoint.ignore {
        Some((content, name)) => (content.clone(), name.as_str()),
        None => {
            let spec = LocalSpec {
                name: local.to_string(),
                session_id: cx.options.session_of(local, cx.host.session_id()).to_string(),
                follow_paths: vec![NAME.to_string()],
                shared_key_hint: format!("{local}-{NAME}"),
                differ_none: true,
                ..Default::default()
            };
            (load(cx, &spec, "[internal] load .dockerignore".to_string()).await?, NAME)
        }
    };
    parse(&content, name)
}

/// Reads the ignore file of a client directory; a missing one is empty.
pub(crate) async fn load(cx: &Context<'_>, spec: &LocalSpec, title: String) -> Result<Vec<u8>, BuildError> {
    let mut graph = GraphBuilder::new();
    let source = graph.local(spec, Constraints::default().named(title));
    let def = graph
        .marshal(Some(source), &MarshalOptions::default())
        .map_err(|e| BuildError::msg(e.to_string()))?;
    let result = cx.host.solve(def, SolveOpt::default()).await?;
    Ok(cx.host.read_file(&result, NAME, None).await.unwrap_or_default())
}

pub(crate) fn parse(content: &[u8], name: &str) -> Result<Vec<String>, BuildError> {
    patterns::read_ignore_file(content).map_err(|e| BuildError::msg(format!("failed parsing {name}: {e}")))
}
