//! `buildkitd.toml` (spec daemon-and-cli.md section 1): read once, then flags win over it.
//!
//! BuildKit ignores keys it does not know; kiln reads the same files, so it warns about them by name instead.

mod keys;
mod schema;
mod values;

pub(crate) use schema::{Cdi, Config, GcPolicy, History, Registry, Tls, Worker};
pub(crate) use values::DiskSpace;

use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, Deserializer, Error};

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It exists but cannot be read.
    #[error("failed to read config {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a value has the wrong type.
    #[error("failed to parse config {path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key, and why.
        message: String,
    },
}

/// Reads `path`. Returns the configuration and warnings.
///
/// # Errors
/// If it cannot be read or parsed.
pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|message| ConfigError::Parse { path: path.into(), message }),
        Err(source) => Err(ConfigError::Read { path: path.into(), source }),
    }
}

/// As [`load`], but a file that does not exist is an empty one.
///
/// # Errors
/// If it cannot be read or parsed.
pub(crate) fn load_if_there(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    match load(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Default::default())
        }
        other => other,
    }
}

/// The configuration of a text, and warnings.
///
/// # Errors
/// With line and key.
pub(crate) fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    let mut table = DeTable::parse(text).map_err(|e| message(text, None, &e))?;
    let warnings = keys::settle(table.get_mut());
    let settled = table.clone();
    let config = Config::deserialize(Deserializer::from(table));
    Ok((config.map_err(|e| message(text, Some(settled.get_ref()), &e))?, warnings))
}

fn message(text: &str, table: Option<&DeTable<'_>>, error: &Error) -> String {
    let why = error.message().trim_end().replace('\n', ", ");
    let Some(at) = error.span().map(|span| span.start) else { return why };
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    match table.and_then(|t| keys::key_at(t, at)) {
        Some(key) => format!("line {line}: {key}: {why}"),
        None => format!("line {line}: {why}"),
    }
}

#[cfg(test)]
mod tests;
