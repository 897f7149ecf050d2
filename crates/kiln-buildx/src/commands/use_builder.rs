//! `use`: makes a builder the current one.

use kiln_builder::{DEFAULT_CONTEXT, Error as BuilderError, Reach};

use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let docker = &context.world.docker;
    let store = context.world.store()?;
    let name = flags.words.first().or(context.builder.as_ref()).cloned().unwrap_or_default();
    let reach = Reach { global: flags.switch("global"), default: flags.switch("default") };
    let failed = |why: String| Error::Text(format!("failed to find instance {name:?}: {why}"));
    let found = store.get(&name).map_err(|e| match e {
        e @ BuilderError::Name(_) => failed(e.to_string()),
        other => Error::Builder(other),
    })?;
    let key = docker.current_key()?;
    if let Some(instance) = found {
        return Ok(store.set_current(&key, &instance.name, reach)?);
    }
    let current = docker.current();
    if name == DEFAULT_CONTEXT && current != DEFAULT_CONTEXT {
        return Err(Error::text("run `docker context use default` to switch to default context"));
    }
    if name == current {
        return Ok(store.set_current(&key, "", Reach::default())?);
    }
    if docker.contexts()?.contains(&name) {
        return Err(Error::Text(format!("run `docker context use {name}` to switch to context {name}")));
    }
    let path = context.world.config.path().join("instances").join(&name);
    Err(failed(format!("open {}: no such file or directory", path.display())))
}
