//! `install` and `uninstall`: the alias by which `docker builder` means buildx.

use std::path::PathBuf;

use kiln_cli::build::metadata;
use kiln_cli::error::CliError;
use kiln_cli::printer;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::Error;

fn deprecated(name: &str) {
    printer::people(&format!(
        "Command {name:?} is deprecated, use 'docker buildx' directly, without relying on the 'docker builder' alias\n"
    ));
}

fn read(context: &Context) -> Result<(PathBuf, Map<String, Value>), Error> {
    let path = context.world.docker.dir().join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => b"{\"auths\": {}}".to_vec(),
        Err(e) => return Err(CliError::file("reading", path)(e).into()),
    };
    let wrong = |_| Error::Text(format!("Docker configuration {}: not a JSON object", path.display()));
    let map = serde_json::from_slice(&text).map_err(wrong)?;
    Ok((path, map))
}

fn write(path: &std::path::Path, map: Map<String, Value>) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(CliError::file("making directory", dir))?;
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&Value::Object(map), &mut serializer)
        .map_err(|e| Error::text(e.to_string()))?;
    Ok(metadata::write(path, &text, "writing")?)
}

/// Sets the alias.
pub(crate) fn install(context: &Context) -> Result<(), Error> {
    deprecated("install");
    let (path, mut map) = read(context)?;
    let aliases = map.entry("aliases").or_insert_with(|| Value::Object(Map::new()));
    match aliases.as_object_mut() {
        Some(aliases) => drop(aliases.insert("builder".into(), "buildx".into())),
        None => return Err(Error::text("Docker configuration: aliases is not an object")),
    }
    write(&path, map)
}

/// Removes the alias.
pub(crate) fn uninstall(context: &Context) -> Result<(), Error> {
    deprecated("uninstall");
    let (path, mut map) = read(context)?;
    let Some(aliases) = map.get_mut("aliases").and_then(Value::as_object_mut) else { return Ok(()) };
    aliases.remove("builder");
    if aliases.is_empty() {
        map.remove("aliases");
    }
    write(&path, map)
}
