//! `buildctl dial-stdio`: stdin and stdout become a connection to the daemon, for clients on the other side of an ssh,
//! an exec or a container.

use super::env;
use crate::cli::Values;
use crate::connect::{address_text, timeout};
use crate::error::{Error, system};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

pub(super) async fn run(values: &Values) -> Result<(), Error> {
    let address = address_text(values, &env);
    let (scheme, path) =
        address.split_once("://").ok_or_else(|| Error::Text(format!("invalid address {address}")))?;
    if scheme != "unix" {
        return Err(format!("invalid address {address} (expected unix://, got {scheme}://)").into());
    }
    let failed = |why: String| Error::Text(format!("dial unix {path}: {why}"));
    let stream = tokio::time::timeout(timeout(values), UnixStream::connect(path)).await;
    let stream = stream.map_err(|_| failed("i/o timeout".into()))?;
    let mut stream = stream.map_err(|e| failed(format!("connect: {}", system(&e))))?;
    let (mut from_daemon, mut to_daemon) = stream.split();
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let copy = |what: &'static str| {
        move |e: std::io::Error| Error::Text(format!("error while Copy ({what}): {}", system(&e)))
    };
    let up = async {
        tokio::io::copy(&mut stdin, &mut to_daemon).await.map_err(copy("stdin to stream"))?;
        // The daemon may have more to say to a client that said everything.
        let _ = to_daemon.shutdown().await;
        Ok::<_, Error>(())
    };
    let down = async {
        // tokio's stdout holds bytes back, and every one of them may be waited for.
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = tokio::io::AsyncReadExt::read(&mut from_daemon, &mut buffer).await;
            match n.map_err(copy("stream to stdout"))? {
                0 => return Ok(()),
                n => {
                    let written = async {
                        stdout.write_all(&buffer[..n]).await?;
                        stdout.flush().await
                    };
                    written.await.map_err(copy("stream to stdout"))?;
                }
            }
        }
    };
    tokio::pin!(down);
    // When the daemon closed, nobody needs what stdin still brings; a terminal never ends it.
    tokio::select! {
        result = &mut down => result,
        result = up => { result?; down.await }
    }
}
