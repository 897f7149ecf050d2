//! Exporters that the client chooses when it has seen the result (spec wire.md section 4).

use crate::build::LazyRef;
use crate::outcome::ResultRefs;
use crate::{Engine, SolveRequest};
use kiln_export::Exporter;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_session::{Lookup, Session, SessionError};
use std::collections::BTreeMap;

fn failed(e: &SessionError) -> BuildError {
    BuildError::new(Code::Unknown, e.to_string())
}

impl Engine {
    async fn exporting_session(&self, request: &SolveRequest) -> Result<Session, BuildError> {
        self.sessions().get(&request.session, Lookup::Wait).await.map_err(|e| failed(&e))
    }

    /// Asks the client what else to do with the result. A client that drives its build may look at the refs first.
    pub(crate) async fn chosen_by_session(
        &self,
        request: &SolveRequest,
        refs: &ResultRefs<LazyRef>,
        metadata: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<Exporter>, BuildError> {
        if !request.session_exporter {
            return Ok(Vec::new());
        }
        let session = self.exporting_session(request).await?;
        let ids = match self.0.builds.driven(&request.id) {
            Some(bridge) => bridge.ids(refs)?,
            None => refs.iter().map(|_| format!("{:032x}", rand::random::<u128>())).collect(),
        };
        let found = session.find_exporters(metadata, ids).await.map_err(|e| failed(&e))?;
        let parsed = found.iter().map(|(kind, attrs)| Exporter::parse(kind, attrs));
        parsed.collect::<Result<_, _>>().map_err(|e| BuildError::msg(e.to_string()))
    }

    /// Tells the client what came out, before the build ends.
    pub(crate) async fn tell_session(
        &self,
        request: &SolveRequest,
        response: &BTreeMap<String, String>,
    ) -> Result<(), BuildError> {
        if !request.session_exporter {
            return Ok(());
        }
        let session = self.exporting_session(request).await?;
        session.finalize_export(response).await.map_err(|e| failed(&e))
    }
}
