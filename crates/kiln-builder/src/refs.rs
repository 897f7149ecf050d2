//! What is remembered of a build on this side: `refs/<builder>/<node>/<id>` (spec daemon-and-cli.md section 4).

use serde::Serialize;

use crate::Error;
use crate::config::ConfigDir;

const REFS: &str = "refs";

/// Where a build came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildRef {
    /// Target of bake, `default` of a plain build.
    pub target: String,
    /// The context: a whole path, or an address.
    pub local_path: String,
    /// The Dockerfile: a whole path, or one below a remote context.
    pub dockerfile_path: String,
}

/// The remembered builds.
#[derive(Debug)]
pub struct Refs<'a>(&'a ConfigDir);

impl<'a> Refs<'a> {
    /// Those of a directory.
    pub fn new(config: &'a ConfigDir) -> Self {
        Self(config)
    }

    /// Remembers a build.
    ///
    /// # Errors
    /// The directory cannot be written, or a name is none.
    pub fn save(&self, builder: &str, node: &str, id: &str, build: &BuildRef) -> Result<(), Error> {
        for part in [builder, node, id] {
            if part.is_empty() || part.starts_with('.') || part.contains('/') {
                return Err(Error::Invalid(format!("{part:?} cannot be part of a build's name")));
            }
        }
        let dir = format!("{REFS}/{builder}/{node}");
        self.0.create(&dir)?;
        let data = serde_json::to_vec(build).map_err(|e| Error::Invalid(e.to_string()))?;
        self.0.write(&format!("{dir}/{id}"), &data, 0o644)
    }

    /// Forgets all builds of a builder.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove_builder(&self, builder: &str) -> Result<(), Error> {
        self.0.remove(&format!("{REFS}/{builder}"))
    }

    /// Forgets all builds of a node.
    ///
    /// # Errors
    /// The directory cannot be written, or a name is none.
    pub fn remove_node(&self, builder: &str, node: &str) -> Result<(), Error> {
        let node = crate::names::validate(node)?;
        self.0.remove(&format!("{REFS}/{builder}/{node}"))
    }
}
