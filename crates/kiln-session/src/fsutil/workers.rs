//! The threads that decide and write.

use std::sync::Arc;

use bytes::Bytes;
use kiln_fs::Root;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::TransferError;
use super::mirror::{Changes, Mirror};
use super::options::ReceiveOptions;
use super::packet::Packet;
use super::send::spawn;
use super::stat::Stat;
use super::writer::{Pieces, Wanted, Writer};

/// Contents that wait to be written, in bytes.
const IN_FLIGHT: usize = 8 << 20;

/// What a thread says.
pub(crate) enum Event {
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

/// Waits for the reason of a failure.
pub(crate) async fn failure(events: &mut mpsc::UnboundedReceiver<Event>) -> TransferError {
    while let Some(event) = events.recv().await {
        if let Event::Failed(e) = event {
            return e;
        }
    }
    TransferError::Stopped
}

/// The threads behind a transfer, and the ways to them.
pub(crate) struct Workers {
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

pub(crate) type Started = (Workers, mpsc::UnboundedReceiver<u32>, mpsc::UnboundedReceiver<Event>);

impl Workers {
    pub(crate) fn start(root: Arc<Root>, options: ReceiveOptions) -> Result<Started, TransferError> {
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
        // Closes the channels that the threads wait on.
        self.writers.clear();
        self.stats = mpsc::channel(1).0;
        for ended in std::mem::take(&mut self.ended) {
            let _ = ended.await;
        }
    }
}
