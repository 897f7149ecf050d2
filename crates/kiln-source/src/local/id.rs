//! The attributes of a local source.

use kiln_llb::SourceOp;
use kiln_llb::op::attr;
use kiln_session::fsutil::Compare;
use kiln_session::{DirectoryRequest, Session};

use crate::{Result, SourceError};

/// What a local source stands for. Lists are `None` when they were not given, which the cache key tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalId {
    /// Name of the directory at the client, with the prefix of the session where it has one.
    pub name: String,
    /// The session to ask first; empty asks those of the build.
    pub session: String,
    /// Only these.
    pub include: Option<Vec<String>>,
    /// Not these.
    pub exclude: Option<Vec<String>>,
    /// These, with what they link to.
    pub follow_paths: Option<Vec<String>>,
    /// Tells apart transfers of the same directory for different purposes.
    pub shared_key_hint: String,
    /// When files count as unchanged.
    pub compare: Compare,
    /// Transfer metadata only, but for files that match these.
    pub metadata_only: Option<Vec<String>>,
}

impl LocalId {
    /// Reads the attributes of `local://<name>`. Unknown ones are ignored, as BuildKit does: newer clients send more.
    pub fn parse(name: &str, op: &SourceOp) -> Result<Self> {
        let invalid = |key: &str, message: String| SourceError::Invalid {
            identifier: format!("local://{name}"),
            message: format!("{key}: {message}"),
        };
        let get = |key: &str| op.attrs.get(key).map(String::as_str);
        let list = |key: &str| -> Result<Option<Vec<String>>> {
            let parse = |text| serde_json::from_str::<Option<Vec<String>>>(text);
            Ok(get(key).map(parse).transpose().map_err(|e| invalid(key, e.to_string()))?.flatten())
        };
        let (mut name_here, mut session) = (name.to_string(), get(attr::LOCAL_SESSION).unwrap_or_default());
        if let Some((prefix, rest)) = session.split_once(':') {
            name_here = format!("{prefix}-{name}");
            session = rest;
        }
        let metadata_only = match get(attr::LOCAL_METADATA_TRANSFER) {
            None => false,
            Some(text) => kiln_go::parse_bool(text)
                .ok_or_else(|| invalid(attr::LOCAL_METADATA_TRANSFER, format!("invalid value {text:?}")))?,
        };
        let exceptions = list(attr::LOCAL_METADATA_TRANSFER_EXCLUDE)?.unwrap_or_default();
        Ok(Self {
            name: name_here,
            session: session.to_string(),
            include: list(attr::LOCAL_INCLUDE_PATTERN)?,
            exclude: list(attr::LOCAL_EXCLUDE_PATTERNS)?,
            follow_paths: list(attr::LOCAL_FOLLOW_PATHS)?,
            shared_key_hint: get(attr::LOCAL_SHARED_KEY_HINT).unwrap_or_default().to_string(),
            compare: if get(attr::LOCAL_DIFFER) == Some("none") {
                Compare::Always
            } else {
                Compare::Metadata
            },
            metadata_only: metadata_only.then_some(exceptions),
        })
    }

    /// What the client is asked for.
    pub(super) fn request(&self) -> DirectoryRequest {
        let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
        DirectoryRequest {
            name: self.name.clone(),
            include: list(&self.include),
            exclude: list(&self.exclude),
            follow_paths: list(&self.follow_paths),
        }
    }

    /// Under this key the files of the last transfer are found.
    pub(super) fn shared_key(&self, session: &Session) -> String {
        let suffix = if self.metadata_only.is_some() { ":metadata" } else { "" };
        format!("{}:{}:{}{suffix}", self.name, self.shared_key_hint, session.shared_key())
    }

    pub(super) fn failed(&self, message: impl Into<String>) -> SourceError {
        SourceError::Client { what: format!("local directory {}", self.name), message: message.into() }
    }
}
