//! `dial-stdio`: connects stdin and stdout to the daemon of a builder.

use kiln_builder::Steps;
use kiln_cli::build::run::interrupted;
use kiln_cli::error::CliError;
use tokio::io::AsyncWriteExt as _;

use super::usable_nodes;
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    if let Some(text) = flags.word("platform") {
        kiln_oci::Platform::parse(&text)
            .map_err(|e| Error::Text(format!("invalid platform {text:?}: {e}")))?;
    }
    let (builder, nodes) = usable_nodes(context).await?;
    let store = context.world.store()?;
    store.touch(&builder.instance)?;
    drop(store);
    let Some((_, driver)) = nodes.into_iter().next() else {
        return Err(Error::text("no nodes available"));
    };
    let (updates, _nobody) = tokio::sync::mpsc::channel(1);
    drop(_nobody);
    driver.boot(&Steps::new(updates)).await?;
    let (mut from, mut to) = tokio::io::split(driver.dial().await?);
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let send = async move {
        let _ = tokio::io::copy(&mut stdin, &mut to).await;
        let _ = to.shutdown().await;
        std::future::pending::<()>().await;
    };
    // The daemon says when it is over.
    tokio::select! {
        done = tokio::io::copy(&mut from, &mut stdout) => {
            done.map_err(CliError::stream("passing on what the daemon says"))?;
            stdout.flush().await.map_err(CliError::stream("writing to stdout"))?;
            Ok(())
        }
        () = send => Ok(()),
        signal = interrupted() => Err(signal.err().unwrap_or(CliError::Canceled).into()),
    }
}
