//! The sending side.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use tokio::sync::mpsc;

use super::TransferError;
use super::packet::{DataBuffer, Packet};
use super::tree::{Entries, Tree};
use crate::{Incoming, RawStream, Role};

/// Files that are read at the same time.
const READERS: usize = 4;
/// Contents in one packet, in bytes.
const CHUNK: usize = 32 << 10;
/// Bytes of packets that are made in one go.
const BATCH: usize = 256 << 10;
/// Entries that are announced, or files that are read, in one go.
const COUNT: usize = 64;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Entries announced.
    pub entries: u64,
    /// Files whose contents were asked for.
    pub files: u64,
    /// Bytes of all packets.
    pub bytes: u64,
}

/// Sends `tree` to the other side; returns when it has everything and says so.
///
/// Dropping the future stops the transfer. The tree is read in small goes: who does not listen holds no thread.
pub async fn send(stream: RawStream, tree: Arc<dyn Tree>) -> Result<Sent, TransferError> {
    let RawStream { outgoing, mut incoming, role } = stream;
    let shared = Arc::new(Shared { tree, files: Mutex::default(), counters: Counters::default() });
    let result = {
        let (jobs, queue) = mpsc::unbounded_channel();
        let queue = tokio::sync::Mutex::new(queue);
        let readers = (0..READERS).map(|_| read(&shared, &queue, &outgoing));
        let work = async { tokio::try_join!(announce(&shared, &outgoing), try_join_all(readers)) };
        tokio::select! {
            biased;
            // It ends well only after the other side.
            Err(e) = work => Err(e),
            result = answer(&shared, &mut incoming, jobs) => result,
        }
    };
    if let Err(e) = &result {
        // The peer may be gone already; then there is nobody to tell.
        let _ = outgoing.try_send(Packet::Error(e.to_string()).encode());
    }
    result?;
    let fin = Packet::Fin.encode();
    shared.counters.bytes.fetch_add(fin.len() as u64, Ordering::Relaxed);
    let _ = outgoing.send(fin).await;
    drop(outgoing);
    // A server must not wait here: the Go caller keeps its side open until the server has returned.
    if role == Role::Caller {
        while let Some(message) = incoming.next().await {
            message.map_err(TransferError::Call)?;
        }
    }
    Ok(shared.counters.get())
}

/// Takes in what the other side wants, until it has everything.
async fn answer(
    shared: &Shared,
    incoming: &mut Incoming,
    jobs: mpsc::UnboundedSender<Job>,
) -> Result<(), TransferError> {
    loop {
        let packet = match incoming.next().await {
            Some(Ok(message)) => Packet::decode(message)?,
            Some(Err(status)) => return Err(TransferError::Call(status)),
            None => return Err(TransferError::BrokeOff),
        };
        match packet {
            Packet::Request(id) => {
                // The readers only end after us.
                let _ = jobs.send(shared.take(id).ok_or(TransferError::FileId(id))?);
            }
            Packet::Fin => return Ok(()),
            Packet::Error(text) => return Err(TransferError::Receiver(text)),
            Packet::Stat(_) => return Err(TransferError::Unexpected("a receiver announces nothing")),
            Packet::Data(..) => return Err(TransferError::Unexpected("a receiver sends no data")),
        }
    }
}

struct Shared {
    tree: Arc<dyn Tree>,
    /// Files that were announced and not yet asked for.
    files: Mutex<HashMap<u32, Announced>>,
    counters: Counters,
}

/// A file that can be asked for.
struct Announced {
    path: Box<[u8]>,
    size: u64,
}

/// A file that was asked for.
struct Job {
    id: u32,
    path: PathBuf,
    size: u64,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    fn get(&self) -> Sent {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Sent { entries: get(&self.entries), files: get(&self.files), bytes: get(&self.bytes) }
    }
}

impl Shared {
    fn take(&self, id: u32) -> Option<Job> {
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(file.path.into_vec()));
        Some(Job { id, path, size: file.size })
    }

    /// Sends messages, waiting for room.
    async fn emit(&self, outgoing: &mpsc::Sender<Bytes>, messages: Vec<Bytes>) -> Result<(), TransferError> {
        for message in messages {
            self.counters.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
            if outgoing.send(message).await.is_err() {
                return Err(TransferError::Stopped);
            }
        }
        Ok(())
    }
}

/// Something that packets are made of, some at a time.
trait Produce: Send + 'static {
    /// The next packets, about [`BATCH`] bytes of them; none at the end. Blocks on the file system.
    fn batch(&mut self) -> Result<Vec<Bytes>, TransferError>;
}

/// Sends everything: while some packets are on their way the next ones are made.
async fn pump<P: Produce>(
    mut from: P,
    shared: &Shared,
    outgoing: &mpsc::Sender<Bytes>,
) -> Result<P, TransferError> {
    let mut ready = Vec::new();
    loop {
        let (sent, made) =
            tokio::join!(shared.emit(outgoing, ready), kiln_blocking::with(from, Produce::batch));
        sent?;
        let (back, batch) = made.map_err(|_| TransferError::Panicked)?;
        (from, ready) = (back, batch?);
        if ready.is_empty() {
            return Ok(from);
        }
    }
}

/// Announces all entries.
async fn announce(shared: &Arc<Shared>, outgoing: &mpsc::Sender<Bytes>) -> Result<(), TransferError> {
    let walk = Walk { entries: shared.tree.entries(), shared: shared.clone(), next: 0, ended: false };
    pump(walk, shared, outgoing).await.map(drop)
}

struct Walk {
    entries: Entries,
    shared: Arc<Shared>,
    next: u32,
    ended: bool,
}

impl Produce for Walk {
    fn batch(&mut self) -> Result<Vec<Bytes>, TransferError> {
        let (mut out, mut size) = (Vec::new(), 0);
        while !self.ended && size < BATCH && out.len() < COUNT {
            let message = match self.entries.next().transpose()? {
                Some(stat) => self.announced(stat)?,
                None => {
                    self.ended = true;
                    Packet::Stat(None).encode()
                }
            };
            size += message.len();
            out.push(message);
        }
        Ok(out)
    }
}

impl Walk {
    fn announced(&mut self, stat: super::Stat) -> Result<Bytes, TransferError> {
        if stat.has_contents() {
            let size = u64::try_from(stat.size).unwrap_or(0);
            let file = Announced { path: stat.path.as_ref().into(), size };
            self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).insert(self.next, file);
        }
        self.next = self
            .next
            .checked_add(1)
            .ok_or(TransferError::Limit { what: "entries", limit: u32::MAX.into() })?;
        self.shared.counters.entries.fetch_add(1, Ordering::Relaxed);
        Ok(Packet::Stat(Some(Box::new(stat))).encode())
    }
}

type Queue = tokio::sync::Mutex<mpsc::UnboundedReceiver<Job>>;

/// Sends the contents of files that were asked for, until nobody can ask any more.
async fn read(
    shared: &Arc<Shared>,
    queue: &Queue,
    outgoing: &mpsc::Sender<Bytes>,
) -> Result<(), TransferError> {
    let mut reading = Reading { shared: shared.clone(), jobs: VecDeque::new(), present: None };
    loop {
        {
            // Who holds the lock waits for the next one.
            let mut queue = queue.lock().await;
            reading.jobs.extend(queue.recv().await);
            while reading.jobs.len() < COUNT
                && let Ok(job) = queue.try_recv()
            {
                reading.jobs.push_back(job);
            }
        }
        if reading.jobs.is_empty() {
            return Ok(());
        }
        reading = pump(reading, shared, outgoing).await?;
    }
}

/// The files that one reader has taken on.
struct Reading {
    shared: Arc<Shared>,
    jobs: VecDeque<Job>,
    present: Option<Open>,
}

/// A file that is being sent.
struct Open {
    id: u32,
    path: PathBuf,
    /// Bytes that are still expected.
    left: u64,
    file: Box<dyn Read + Send>,
}

impl Produce for Reading {
    fn batch(&mut self) -> Result<Vec<Bytes>, TransferError> {
        let (mut out, mut size) = (Vec::new(), 0);
        while size < BATCH {
            let begun = out.len();
            match self.present.take() {
                Some(open) => self.present = open.read(&mut out)?,
                None => match self.jobs.pop_front() {
                    Some(job) => self.open(job, &mut out),
                    None => break,
                },
            }
            size += out[begun..].iter().map(Bytes::len).sum::<usize>();
        }
        Ok(out)
    }
}

impl Reading {
    /// A file that cannot be opened any more is sent empty, as the protocol has it.
    fn open(&mut self, job: Job, out: &mut Vec<Bytes>) {
        self.shared.counters.files.fetch_add(1, Ordering::Relaxed);
        let Job { id, path, size } = job;
        match self.shared.tree.open(&path) {
            Ok(file) => self.present = Some(Open { id, path, left: size, file }),
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "file cannot be read and is sent empty");
                out.push(Packet::Data(id, Bytes::new()).encode());
            }
        }
    }
}

impl Open {
    /// Reads the next packet; gives itself back if there is more.
    fn read(mut self, out: &mut Vec<Bytes>) -> Result<Option<Self>, TransferError> {
        // One byte more than is left shows the end without another round.
        let room = usize::try_from(self.left.saturating_add(1)).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = DataBuffer::new(room);
        let ended = buffer.fill_from(&mut self.file).map_err(|e| TransferError::io("read", &self.path, e))?;
        self.left = self.left.saturating_sub(buffer.len() as u64);
        if buffer.len() > 0 {
            out.push(buffer.into_packet(self.id));
        }
        if ended {
            out.push(Packet::Data(self.id, Bytes::new()).encode());
            return Ok(None);
        }
        Ok(Some(self))
    }
}
