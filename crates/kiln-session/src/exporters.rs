//! Exporters that a client chooses after the build (spec wire.md section 4).

use std::collections::BTreeMap;

use kiln_proto::exporter::{
    ExporterRequest, FINALIZE_EXPORT, FIND_EXPORTERS, FinalizeExportRequest, FinalizeExportResponse,
    FindExportersRequest, FindExportersResponse,
};
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::{Session, SessionError};

/// Most exporters that a client may ask for.
const MAX_EXPORTERS: usize = 64;

/// A client without this service, or that does not want to be asked, is as one that wants nothing.
fn tolerated(e: &SessionError) -> bool {
    matches!(e.code(), Code::Unimplemented | Code::Unavailable)
        && !matches!(e, SessionError::Closed { .. } | SessionError::NoSession(_))
}

impl Session {
    /// What to do with a result, as pairs of kind and attributes. `refs` are the ids of its parts.
    pub async fn find_exporters(
        &self,
        metadata: &BTreeMap<String, Vec<u8>>,
        refs: Vec<String>,
    ) -> Result<Vec<(String, BTreeMap<String, String>)>, SessionError> {
        let name = "exporters of the session".to_string();
        let metadata = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let request = FindExportersRequest { metadata, refs };
        let found = self
            .unary::<FindExportersResponse>(name.clone(), FIND_EXPORTERS, MetadataMap::new(), &request)
            .await;
        let found = match found {
            Err(e) if tolerated(&e) => return Ok(Vec::new()),
            other => other?.exporters,
        };
        if found.len() > MAX_EXPORTERS {
            let text = format!("the client asks for {} exporters", found.len());
            return Err(SessionError::Invalid(text));
        }
        Ok(found.into_iter().map(|ExporterRequest { r#type, attrs }| (r#type, attrs)).collect())
    }

    /// Tells the client what all exporters answered. Its error fails the build.
    pub async fn finalize_export(&self, response: &BTreeMap<String, String>) -> Result<(), SessionError> {
        let request = FinalizeExportRequest { exporter_response: response.clone() };
        let name = "finalize the export".to_string();
        match self.unary::<FinalizeExportResponse>(name, FINALIZE_EXPORT, MetadataMap::new(), &request).await
        {
            Err(e) if !tolerated(&e) => Err(e),
            _ => Ok(()),
        }
    }
}
