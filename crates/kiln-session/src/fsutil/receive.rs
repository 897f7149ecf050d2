//! The receiving side.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use kiln_digest::{Digest, Hasher};
use kiln_fs::Root;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::TransferError;
use super::mirror::{Changes, Mirror};
use super::packet::{Packet, Stat};
use super::send::spawn;
use super::writer::{Pieces, Wanted, Writer};
use crate::{Incoming, RawStream, Role};

/// Where a metadata-only transfer keeps the entries: 4 bytes little-endian length, then the stat message, repeated.
pub(crate) const METADATA_FILE: &str = ".fsutil-metadata";
/// Messages that are taken from the network at once.
const BATCH: usize = 256;
/// Contents that wait to be written, in bytes.
const IN_FLIGHT: usize = 8 << 20;

/// When an existing entry counts as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// When type, mode, owner, size, time, device and link are the same.
    Metadata,
    /// Never: all contents are asked for.
    Always,
}

/// What happens to what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The directory becomes the announced tree: what is not announced is removed.
    Mirror(Compare),
    /// Announced entries are added or replaced; the rest stays.
    Merge,
}

/// How files appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Under their final name from the start. For directories that nobody looks at before the end.
    InPlace,
    /// Complete, by renaming.
    Replace,
}

/// Bounds on what a peer can make us keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one transfer; each costs eight bytes.
    pub entries: u64,
    /// Bytes for entries that wait for their contents.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 16 << 20, memory: 1 << 30 }
    }
}

/// Computes a digest of what goes by.
pub trait ContentHasher: Send {
    /// Takes the next part of the contents.
    fn write(&mut self, data: &[u8]);

    /// The digest of all that was written.
    fn finish(self: Box<Self>) -> Digest;
}

impl ContentHasher for Hasher {
    fn write(&mut self, data: &[u8]) {
        self.update(data);
    }

    fn finish(self: Box<Self>) -> Digest {
        Hasher::finish(*self)
    }
}

/// Hears of every change, for content hashes that are computed on the way. Called from several threads.
pub trait Observer: Send + Sync {
    /// A hasher that the contents of the entry will be fed to; whatever goes before the contents is already in it.
    fn hasher(&self, stat: &Stat) -> Box<dyn ContentHasher>;

    /// The entry is in its place; `digest` is that of its hasher.
    fn changed(&self, stat: &Stat, digest: Digest);

    /// The entry, and all below it, is gone.
    fn removed(&self, path: &Path);
}

/// Says which contents a metadata-only transfer still fetches.
pub type MetadataOnly = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// What to do with a received tree.
#[derive(Clone)]
pub struct ReceiveOptions {
    /// What happens to what is there.
    pub update: Update,
    /// How files appear.
    pub style: Style,
    /// Forces the owner of everything.
    pub owner: Option<(u32, u32)>,
    /// Hears of changes.
    pub observer: Option<Arc<dyn Observer>>,
    /// Entries are only recorded in `.fsutil-metadata`, except those that this wants.
    pub metadata_only: Option<MetadataOnly>,
    /// Counts received bytes, for progress.
    pub progress: Option<Arc<AtomicU64>>,
    /// Bounds.
    pub limits: Limits,
    /// Ends the transfer early; everything has stopped when the call returns.
    pub cancel: CancellationToken,
}

impl ReceiveOptions {
    /// These updates, in this style, nothing else.
    pub fn new(update: Update, style: Style) -> Self {
        Self {
            update,
            style,
            owner: None,
            observer: None,
            metadata_only: None,
            progress: None,
            limits: Limits::default(),
            cancel: CancellationToken::new(),
        }
    }
}

impl std::fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("update", &self.update)
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

/// What was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Entries announced.
    pub entries: u64,
    /// Files whose contents were asked for.
    pub requested: u64,
    /// Entries removed.
    pub removed: u64,
    /// Bytes of all packets.
    pub bytes: u64,
}

/// Receives a tree into `root`. When it returns, with success or not, nothing of it is running any more; after an error
/// the directory is in an undefined state. Dropping the future stops the work shortly after.
///
/// Deciding and writing run on threads of their own, which wait for the network and for each other.
pub async fn receive(
    stream: RawStream,
    root: Root,
    options: ReceiveOptions,
) -> Result<Received, TransferError> {
    let RawStream { outgoing, incoming, role } = stream;
    let cancel = options.cancel.clone();
    let progress = options.progress.clone();
    let (workers, requests, events) = Workers::start(Arc::new(root), options)?;
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

enum Event {
    Done(Changes),
    Failed(TransferError),
}

/// What a worker says at its end, also when that is a panic.
struct Report {
    events: mpsc::UnboundedSender<Event>,
    wanted: Arc<Wanted>,
}

impl Report {
    fn failed(&self, e: TransferError) {
        // The one who stops all others is heard first.
        let _ = self.events.send(Event::Failed(e));
        self.wanted.stop();
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed(TransferError::Panicked);
        }
    }
}

async fn failure(events: &mut mpsc::UnboundedReceiver<Event>) -> TransferError {
    while let Some(event) = events.recv().await {
        if let Event::Failed(e) = event {
            return e;
        }
    }
    TransferError::Stopped
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

/// The threads behind a transfer, and the ways to them.
struct Workers {
    stats: mpsc::Sender<Vec<Option<Box<Stat>>>>,
    writers: Vec<mpsc::Sender<Pieces>>,
    memory: Arc<Semaphore>,
    wanted: Arc<Wanted>,
    ended: Vec<oneshot::Receiver<()>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.wanted.stop();
    }
}

type Started = (Workers, mpsc::UnboundedReceiver<u32>, mpsc::UnboundedReceiver<Event>);

impl Workers {
    fn start(root: Arc<Root>, options: ReceiveOptions) -> Result<Started, TransferError> {
        let count = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let wanted = Arc::new(Wanted::new(count));
        let (stats, announced) = mpsc::channel(8);
        let (requests, to_ask) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let report = || Report { events: sender.clone(), wanted: wanted.clone() };
        let mut workers = Self {
            stats,
            writers: Vec::new(),
            memory: Arc::new(Semaphore::new(IN_FLIGHT)),
            wanted: wanted.clone(),
            ended: Vec::new(),
        };
        for _ in 0..count {
            let (sender, mut pieces) = mpsc::channel(16);
            let observer = options.observer.clone();
            let writer = Writer::new(root.clone(), wanted.clone(), observer, options.style);
            let report = report();
            let work = move || {
                if let Err(e) = writer.run(&mut pieces) {
                    report.failed(e);
                }
            };
            workers.ended.push(spawn("kiln-write", work)?);
            workers.writers.push(sender);
        }
        let report = report();
        let mirror = Mirror::new(root, options, announced, wanted, requests);
        let work = move || match mirror.run() {
            Ok(changes) => drop(report.events.send(Event::Done(changes))),
            // Somebody else failed and said so.
            Err(TransferError::Stopped) => {}
            Err(e) => report.failed(e),
        };
        workers.ended.push(spawn("kiln-mirror", work)?);
        Ok((workers, to_ask, events))
    }

    /// Gives packets to whom they concern; says whether the sender has confirmed the end.
    async fn hand_out(&self, packets: Vec<Packet>, walking: &mut bool) -> Result<bool, TransferError> {
        let mut stats = Vec::new();
        let mut pieces: Vec<Vec<(u32, Bytes)>> = self.writers.iter().map(|_| Vec::new()).collect();
        let mut fin = false;
        for packet in packets {
            match packet {
                Packet::Stat(_) if !*walking => {
                    return Err(TransferError::Unexpected("an entry after the end of the walk"));
                }
                Packet::Stat(stat) => {
                    *walking = stat.is_some();
                    stats.push(stat);
                }
                Packet::Data(id, data) => pieces[self.wanted.writer_of(id)].push((id, data)),
                Packet::Fin => fin = true,
                Packet::Error(text) => return Err(TransferError::Sender(text)),
                Packet::Request(_) => return Err(TransferError::Unexpected("a sender asks for nothing")),
            }
        }
        if !stats.is_empty() && self.stats.send(stats).await.is_err() {
            return Err(TransferError::Stopped);
        }
        for (list, writer) in pieces.into_iter().zip(&self.writers) {
            if list.is_empty() {
                continue;
            }
            let bytes = list.iter().map(|(_, data)| data.len()).sum::<usize>().clamp(1, IN_FLIGHT);
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            let memory = self.memory.clone().acquire_many_owned(permits).await;
            let memory = memory.map_err(|_| TransferError::Stopped)?;
            if writer.send(Pieces { list, _memory: memory }).await.is_err() {
                return Err(TransferError::Stopped);
            }
        }
        Ok(fin)
    }

    /// Stops everything and waits until it has.
    async fn join(mut self) {
        self.wanted.stop();
        // Closes the channels that the threads wait on.
        self.writers.clear();
        self.stats = mpsc::channel(1).0;
        for ended in std::mem::take(&mut self.ended) {
            let _ = ended.await;
        }
    }
}
