//! What a client thinks of a source (spec wire.md section 4).

use crate::{Session, SessionError};
use kiln_proto::policysession::{CHECK_POLICY, CheckPolicyRequest, CheckPolicyResponse};
use tonic::metadata::MetadataMap;

impl Session {
    /// Asks about one source.
    ///
    /// # Errors
    /// If the client does not answer, or answers with an error: the source may then not be used.
    pub async fn check_policy(
        &self,
        request: &CheckPolicyRequest,
    ) -> Result<CheckPolicyResponse, SessionError> {
        self.unary("source policy of the client".to_string(), CHECK_POLICY, MetadataMap::new(), request).await
    }
}
