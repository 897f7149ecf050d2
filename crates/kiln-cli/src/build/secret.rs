//! `--secret`.

use crate::error::CliError;
use crate::pairs::Pairs;
use std::path::PathBuf;

/// A secret and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What the Dockerfile calls it.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
}

/// Reads `id=NAME[,src=FILE | ,env=VAR][,type=file|env]`. With only an id, the variable of that name, else the file.
pub fn parse(text: &str, is_set: &dyn Fn(&str) -> bool) -> Result<Secret, CliError> {
    let mut pairs = Pairs::parse("--secret", text)?;
    let id = pairs.take(&["id"]).unwrap_or_default();
    let kind = pairs.take(&["type"]).unwrap_or_default();
    let file = pairs.take(&["src", "source"]).filter(|v| !v.is_empty());
    let env = pairs.take(&["env"]).filter(|v| !v.is_empty());
    let wrong = |why: &str| CliError::Value { flag: "--secret", value: text.to_owned(), why: why.to_owned() };
    pairs.rest(&["id", "src", "source", "env", "type"], &[])?;
    if !["", "file", "env"].contains(&kind.as_str()) {
        return Err(wrong(&format!("type '{kind}' is neither file nor env")));
    }
    if id.is_empty() {
        return Err(wrong("id is missing"));
    }
    let source = match (file, env) {
        (Some(_), Some(_)) => return Err(wrong("src and env exclude each other")),
        // `type=env,src=VAR` is the older way to say `env=VAR`.
        (Some(name), None) if kind == "env" => SecretSource::Env(name),
        (Some(path), None) => SecretSource::File(path.into()),
        (None, Some(name)) if kind != "file" => SecretSource::Env(name),
        (None, Some(_)) => return Err(wrong("type=file needs src")),
        (None, None) if kind == "env" || (kind.is_empty() && is_set(&id)) => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(id.clone().into()),
    };
    Ok(Secret { id, source })
}
