//! The receiving side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use kiln_fs::Root;
use tokio::sync::mpsc;
use tonic::Status;

use super::TransferError;
use super::mirror::Changes;
use super::options::{ReceiveOptions, Received};
use super::packet::Packet;
use super::workers::{Event, Workers, failure};
use crate::{Incoming, RawStream, Role};

/// Messages that are taken from the network at once.
const BATCH: usize = 256;
/// Receives a tree into `root`. When it returns, with success or not, nothing of it is running any more; after an error
/// the directory is in an undefined state. Dropping the future stops the work shortly after.
///
/// Deciding and writing have threads while there is something to do: who sends slowly holds none.
pub async fn receive(
    stream: RawStream,
    root: Root,
    options: ReceiveOptions,
) -> Result<Received, TransferError> {
    let RawStream { outgoing, incoming, role } = stream;
    let cancel = options.cancel.clone();
    let progress = options.progress.clone();
    let (workers, requests, events) = Workers::start(Arc::new(root), options);
    let mut reader = Reader { chunks: incoming.ready_chunks(BATCH), progress, bytes: 0 };
    let transfer = async {
        let ask = ask(requests, &outgoing);
        let read = reader.run(&workers, events, &outgoing);
        tokio::try_join!(ask, read).map(|((), changes)| changes)
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(TransferError::Stopped),
        result = transfer => result,
    };
    if let Err(e) = &result {
        let text = if cancel.is_cancelled() { "context canceled".to_string() } else { e.to_string() };
        // The peer may be gone already; then there is nobody to tell.
        let _ = outgoing.try_send(Packet::Error(text).encode());
    }
    workers.join().await;
    let changes = result?;
    drop(outgoing);
    // The sender has said that it is done. A server returns at once, as the Go caller does not close its side; a
    // caller reads to the end, but how that comes does not matter any more.
    while role == Role::Caller
        && let Some(batch) = reader.chunks.next().await
    {
        if batch.iter().any(Result::is_err) {
            break;
        }
    }
    let Changes { entries, requested, removed } = changes;
    Ok(Received { entries, requested, removed, bytes: reader.bytes })
}

/// Sends requests on. Apart from reading, so that a sender that is busy sending does not stall us both.
async fn ask(
    mut requests: mpsc::UnboundedReceiver<u32>,
    outgoing: &mpsc::Sender<Bytes>,
) -> Result<(), TransferError> {
    while let Some(id) = requests.recv().await {
        if outgoing.send(Packet::Request(id).encode()).await.is_err() {
            // The reading side sees why.
            return Ok(());
        }
    }
    Ok(())
}

struct Reader {
    chunks: ReadyChunks<Incoming>,
    progress: Option<Arc<AtomicU64>>,
    bytes: u64,
}

impl Reader {
    /// Hands out what comes until the sender has confirmed the end.
    async fn run(
        &mut self,
        workers: &Workers,
        mut events: mpsc::UnboundedReceiver<Event>,
        outgoing: &mpsc::Sender<Bytes>,
    ) -> Result<Changes, TransferError> {
        let mut done = None;
        let mut walking = true;
        loop {
            let batch = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Done(changes)) => {
                        done = Some(changes);
                        // If this fails, the next read says why.
                        let _ = outgoing.send(Packet::Fin.encode()).await;
                        continue;
                    }
                    Some(Event::Failed(e)) => return Err(e),
                    None => return Err(TransferError::Stopped),
                },
                batch = self.chunks.next() => batch.ok_or(TransferError::BrokeOff)?,
            };
            match workers.hand_out(self.decode(batch)?, &mut walking).await {
                Ok(false) => {}
                Ok(true) => return done.ok_or(TransferError::Unexpected("the sender ended before us")),
                // A worker is gone; it says why.
                Err(TransferError::Stopped) => return Err(failure(&mut events).await),
                Err(e) => return Err(e),
            }
        }
    }

    fn decode(&mut self, batch: Vec<Result<Bytes, Status>>) -> Result<Vec<Packet>, TransferError> {
        let mut packets = Vec::with_capacity(batch.len());
        for message in batch {
            let message = match message {
                Ok(message) => message,
                // What came before the end still counts, above all the sender's own words.
                Err(_) if packets.iter().any(|p| matches!(p, Packet::Error(_) | Packet::Fin)) => break,
                Err(status) => return Err(TransferError::Call(status)),
            };
            self.bytes += message.len() as u64;
            packets.push(Packet::decode(message)?);
        }
        if let Some(progress) = &self.progress {
            progress.store(self.bytes, Ordering::Relaxed);
        }
        Ok(packets)
    }
}
