//! Deciding and writing. Each of them is a task that has a thread while there is something to do.

use std::sync::Arc;

use bytes::Bytes;
use kiln_fs::Root;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::TransferError;
use super::mirror::{Changes, Mirror};
use super::options::ReceiveOptions;
use super::packet::Packet;
use super::stat::Stat;
use super::writer::{Pieces, Wanted, Writer};

/// Contents that wait to be written, in bytes.
const IN_FLIGHT: usize = 8 << 20;

/// What a worker says.
pub(crate) enum Event {
    Done(Changes),
    Failed(TransferError),
}

/// Waits for the reason of a failure.
pub(crate) async fn failure(events: &mut mpsc::UnboundedReceiver<Event>) -> TransferError {
    while let Some(event) = events.recv().await {
        if let Event::Failed(e) = event {
            return e;
        }
    }
    TransferError::Stopped
}

/// Announced entries in batches; `None` is the end of the walk.
pub(crate) type Announced = Vec<Option<Box<Stat>>>;

/// The workers behind a transfer, and the ways to them.
pub(crate) struct Workers {
    stats: mpsc::Sender<Announced>,
    writers: Vec<mpsc::Sender<Pieces>>,
    memory: Arc<Semaphore>,
    wanted: Arc<Wanted>,
    running: Vec<JoinHandle<()>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.wanted.stop();
    }
}

pub(crate) type Started = (Workers, mpsc::UnboundedReceiver<u32>, mpsc::UnboundedReceiver<Event>);

impl Workers {
    pub(crate) fn start(root: Arc<Root>, options: ReceiveOptions) -> Started {
        let count = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let wanted = Arc::new(Wanted::new(count));
        let (stats, announced) = mpsc::channel(8);
        let (requests, to_ask) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let mut workers = Self {
            stats,
            writers: Vec::new(),
            memory: Arc::new(Semaphore::new(IN_FLIGHT)),
            wanted: wanted.clone(),
            running: Vec::new(),
        };
        for _ in 0..count {
            let (to_write, pieces) = mpsc::channel(16);
            let writer = Writer::new(root.clone(), wanted.clone(), options.observer.clone(), options.style);
            let work = write(writer, pieces);
            workers.running.push(tokio::spawn(report(sender.clone(), wanted.clone(), work)));
            workers.writers.push(to_write);
        }
        let work = decide(root, options, announced, wanted.clone(), requests, sender.clone());
        workers.running.push(tokio::spawn(report(sender, wanted, work)));
        (workers, to_ask, events)
    }

    /// Gives packets to whom they concern; says whether the sender has confirmed the end.
    pub(crate) async fn hand_out(
        &self,
        packets: Vec<Packet>,
        walking: &mut bool,
    ) -> Result<bool, TransferError> {
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
    pub(crate) async fn join(mut self) {
        self.wanted.stop();
        // Closes the channels that the workers wait on.
        self.writers.clear();
        self.stats = mpsc::channel(1).0;
        for running in std::mem::take(&mut self.running) {
            let _ = running.await;
        }
    }
}

/// Tells of a failure and stops the others.
async fn report(
    events: mpsc::UnboundedSender<Event>,
    wanted: Arc<Wanted>,
    work: impl Future<Output = Result<(), TransferError>>,
) {
    match work.await {
        // Somebody else failed and said so.
        Ok(()) | Err(TransferError::Stopped) => {}
        Err(e) => {
            // The one who stops all others is heard first.
            let _ = events.send(Event::Failed(e));
            wanted.stop();
        }
    }
}

/// Writes what comes until the channel closes.
async fn write(mut writer: Writer, mut pieces: mpsc::Receiver<Pieces>) -> Result<(), TransferError> {
    while let Some(first) = pieces.recv().await {
        let mut batch = vec![first];
        while let Ok(more) = pieces.try_recv() {
            batch.push(more);
        }
        let work = move |writer: &mut Writer| batch.into_iter().try_for_each(|pieces| writer.take(pieces));
        let (back, written) = kiln_blocking::with(writer, work).await.map_err(|_| TransferError::Panicked)?;
        writer = back;
        if let Err(e) = written {
            pieces.close();
            let _ = kiln_blocking::run(move || drop(writer)).await;
            return Err(e);
        }
    }
    // Unfinished files go.
    kiln_blocking::run(move || drop(writer)).await.map_err(|_| TransferError::Panicked)
}

/// Makes the directory what is announced, as it is announced; sets what can only be set at the end when all contents
/// are there.
async fn decide(
    root: Arc<Root>,
    options: ReceiveOptions,
    mut announced: mpsc::Receiver<Announced>,
    wanted: Arc<Wanted>,
    requests: mpsc::UnboundedSender<u32>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<(), TransferError> {
    let lost = |_| TransferError::Panicked;
    let all = wanted.clone();
    let mirror = kiln_blocking::run(move || Mirror::begin(root, options, wanted, requests));
    let mut mirror = mirror.await.map_err(lost)??;
    while !mirror.has_all() {
        let batch = announced.recv().await.ok_or(TransferError::Stopped)?;
        let (back, taken) = kiln_blocking::with(mirror, |m| m.take(batch)).await.map_err(lost)?;
        mirror = back;
        taken?;
    }
    all.complete().await?;
    let (_, changes) = kiln_blocking::with(mirror, Mirror::finish).await.map_err(lost)?;
    let _ = events.send(Event::Done(changes?));
    Ok(())
}
