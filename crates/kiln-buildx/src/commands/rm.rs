//! `rm`: removes builders and what they run.

use futures::future::join_all;
use kiln_builder::{Builder, LoadedNode, Removal, Status, Store};
use kiln_cli::printer;

use super::confirm;
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

const INACTIVE: &str = "WARNING! This will remove all builders that are not in running state. Are you sure you want to continue?";

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let what = Removal { daemon: !flags.switch("keep-daemon"), state: !flags.switch("keep-state") };
    if flags.switch("all-inactive") {
        if !flags.words.is_empty() {
            return Err(Error::text("cannot specify builder name when --all-inactive is set"));
        }
        if !flags.switch("force") && !confirm(INACTIVE).await? {
            return Ok(());
        }
        let store = context.world.store()?;
        return context.in_time(all_inactive(context, &store, what)).await?;
    }
    let names = match (flags.words.as_slice(), &context.builder) {
        ([], Some(name)) => vec![name.clone()],
        ([], None) => vec![String::new()],
        (names, _) => names.to_vec(),
    };
    let store = context.world.store()?;
    let mut failed = false;
    for name in names {
        match context.in_time(one(context, &store, &name, what)).await? {
            Ok(()) => printer::people(&format!("{name} removed\n")),
            Err(e) => {
                failed = true;
                printer::people(&format!("failed to remove {name}: {e}\n"));
            }
        }
    }
    if failed { Err(Error::text("failed to remove one or more builders")) } else { Ok(()) }
}

async fn one(context: &Context, store: &Store, name: &str, what: Removal) -> Result<(), Error> {
    let mut builder = context.world.find(store, Some(name))?;
    let name = builder.instance.name.clone();
    if builder.instance.is_context {
        return Err(Error::Text(format!(
            "context builder cannot be removed, run `docker context rm {name}` to remove this context"
        )));
    }
    if !what.daemon {
        return Ok(store.remove(&name)?);
    }
    // What cannot be reached any more is forgotten nonetheless.
    let nodes = context.world.nodes(&mut builder).await;
    let result = match nodes {
        Ok(nodes) => remove(nodes, what).await,
        Err(e) => Err(e.into()),
    };
    store.remove(&name)?;
    result
}

/// Removes daemons; the errors of all are told.
async fn remove(nodes: Vec<LoadedNode>, what: Removal) -> Result<(), Error> {
    let each = nodes.into_iter().map(|node| async move {
        let name = node.node.name.clone();
        let driver = match node.driver {
            Ok(driver) => driver,
            Err(e) => return vec![format!("failed to load node {name}: {e}")],
        };
        let stopped = if what.daemon { driver.stop().await } else { Ok(()) };
        let removed = driver.remove(what).await;
        let stopped = stopped.err().map(|e| format!("failed to stop node {name}: {e}"));
        let removed = removed.err().map(|e| format!("failed to remove node {name}: {e}"));
        stopped.into_iter().chain(removed).collect()
    });
    let errors: Vec<String> = join_all(each).await.concat();
    if errors.is_empty() { Ok(()) } else { Err(Error::Text(errors.join("\n"))) }
}

async fn all_inactive(context: &Context, store: &Store, what: Removal) -> Result<(), Error> {
    let mut result = Ok(());
    for mut builder in context.world.all(store)? {
        let Builder { instance } = &builder;
        if instance.is_context || instance.dynamic {
            continue;
        }
        let name = instance.name.clone();
        let nodes = match context.world.nodes_with_facts(&mut builder).await {
            Ok(nodes) => nodes,
            Err(e) => {
                result = Err(Error::Text(format!("cannot load {name}: {e}")));
                continue;
            }
        };
        if nodes.iter().any(|n| n.known().is_some_and(|f| f.status == Status::Running)) {
            continue;
        }
        let removed = remove(nodes, what).await;
        store.remove(&name)?;
        printer::people(&format!("{name} removed\n"));
        result = result.and(removed);
    }
    result
}
